"""How well a model serves each client, and all of them."""

from hanse.evaluation.per_client import Evaluation, evaluate
from hanse.evaluation.spread import Spread, spread, worse_than

__all__ = ["Evaluation", "Spread", "evaluate", "spread", "worse_than"]
