"""How contributions become one aggregate."""

from hanse.aggregation.dropouts import DropOuts
from hanse.aggregation.mean import Sum
from hanse.aggregation.secure import SecureSum
from hanse.aggregation.tree import Tree
from hanse.aggregation.words import Bound
from hanse.secagg.parameters import Assumptions

__all__ = ["Assumptions", "Bound", "DropOuts", "SecureSum", "Sum", "Tree"]
