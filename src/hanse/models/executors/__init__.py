"""Ways to compute the gradients of K clients, all of which give the same numbers.

`module` goes through the user's module, one client at a time; it works for every module. `vmap`
computes all clients of a block at once with `torch.func`. `dense` does so by batched matrix
products, for chains of linear layers, without autograd.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from hanse.models.executors.chain import Unchained
from hanse.models.executors.dense import DenseExecutor
from hanse.models.executors.one_by_one import ModuleExecutor
from hanse.models.executors.vmapped import VmapExecutor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hanse.models.gradient import Executor, Terms
    from hanse.models.task import Task

__all__ = ["EXECUTORS", "Unchained"]


class _Maker(Protocol):
    def __call__(self, task: Task, terms: Terms = ...) -> Executor: ...


EXECUTORS: Mapping[str, _Maker] = {
    "module": ModuleExecutor,
    "vmap": VmapExecutor,
    "dense": DenseExecutor,
}
"""By the name of the path; `dense` raises `Unchained` for a model that is no chain."""
