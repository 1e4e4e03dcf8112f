"""How contributions become one aggregate."""

from hanse.aggregation.mean import Sum
from hanse.aggregation.tree import Tree

__all__ = ["Sum", "Tree"]
