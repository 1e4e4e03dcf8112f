"""Inputs that look different at each client: noise and rotations, for simulations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from hanse.core.errors import DataError
from hanse.core.rng import derive, generator
from hanse.data.clients import Block, ClientData, Ids, PackedClients
from hanse.data.packing import offsets_of, rows_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hanse.data.federation import Federation

Change = Callable[[Tensor, int], Tensor]
"""`(x [n, ...], client) -> [n, ...]`: what a client's inputs become."""


def noise_by_client(federation: Federation, variance: float, *, seed: int = 0) -> Federation:
    """Give every client's inputs Gaussian noise, the first little of it and the last the most.

    Client number k of K, from 0, has noise of variance `variance * (k + 1) / K`, in `train` and in
    `test` (Li et al., "Federated learning on non-IID data silos: an experimental study", ICDE
    2022, "noise-based feature imbalance"). Unseen clients are left as they are.

    Args:
        federation: with floating-point inputs.
        variance: of the last client's noise, in squared units of x; 0 or more.
        seed: another seed, other noise.

    Returns:
        The federation with its noise: the same at every call, and whenever a client is loaded.

    Raises:
        DataError: if there is no such variance, or inputs are no floats.
    """
    if (
        isinstance(variance, bool)
        or not isinstance(variance, int | float)
        or not (0 <= variance < np.inf)
    ):
        raise DataError(
            f"feature noise of variance {variance!r}",
            why="a variance is a finite number, 0 or more",
            instead="write 0.1 for inputs of deviation 1",
        )
    _check_floats(federation)

    def noisy(split: str) -> Change:
        def change(x: Tensor, client: int) -> Tensor:
            source = generator(derive(seed, "feature noise", split, client))
            level = (variance * (client + 1) / len(federation.train)) ** 0.5
            noise = level * source.standard_normal(tuple(x.shape), np.float32)
            return x + torch.from_numpy(noise).to(x.dtype)

        return change

    return _by_client(federation, noisy)


def rotate_by_client(federation: Federation, rotations: int = 4) -> Federation:
    """Turn every client's images: client k by k mod `rotations` times 360° / `rotations`.

    Only quarter and half turns, which lose nothing (Ghosh et al., "An efficient framework for
    clustered federated learning", NeurIPS 2020, "Rotated MNIST"). `train` and `test` are turned
    alike; unseen clients are left as they are.

    Args:
        federation: of images, x [..., height, width]; square ones, for quarter turns.
        rotations: 1, 2 or 4.

    Raises:
        DataError: if there are no such rotations, or inputs cannot be turned so.
    """
    if rotations not in {1, 2, 4}:
        raise DataError(
            f"rotations={rotations!r}",
            why="other angles than quarter and half turns would change the pixels",
            instead="write 4 for quarter turns, or 2 for half turns",
        )
    shape = federation.input_shape
    if len(shape) < 2 or (rotations == 4 and shape[-1] != shape[-2]):
        turned = "quarter turns of" if rotations == 4 else "half turns of"
        raise DataError(
            f"{turned} inputs of shape {list(shape)}",
            why="an image is turned as a whole, and all must keep one shape",
            instead="write rotations=2"
            if len(shape) >= 2
            else "use images, x [..., height, width]",
        )

    def change(x: Tensor, client: int) -> Tensor:
        return torch.rot90(x, (client % rotations) * 4 // rotations, (-2, -1))

    return _by_client(federation, lambda _split: change)


@dataclass(frozen=True, eq=False)
class _Changed:
    """Clients whose inputs are changed, each in its own way, when they are loaded."""

    inner: ClientData
    change: Change

    @property
    def ahead(self) -> bool:
        """Whether a block may be loaded in another thread, as far as the inner clients say."""
        return bool(getattr(self.inner, "ahead", True))

    def __len__(self) -> int:
        return len(self.inner)

    def name(self, client: int) -> str:
        """The name of one client."""
        return self.inner.name(client)

    def sizes(self, ids: Ids) -> NDArray[np.int64]:
        """How many examples each of these clients has, [K]."""
        return self.inner.sizes(ids)

    def block(self, ids: Ids) -> Block:
        """The changed examples of these clients."""
        fields, starts, sizes = self.inner.block(ids)
        return Block(
            _changed(fields, starts, sizes, ids, self.change), offsets_of(sizes)[:-1], sizes
        )


def _by_client(federation: Federation, change: Callable[[str], Change]) -> Federation:
    def apply(data: ClientData, split: str) -> ClientData:
        if not isinstance(data, PackedClients):
            return _Changed(data, change(split))
        everyone = np.arange(len(data))
        fields = _changed(*data.block(everyone), everyone, change(split))
        return replace(data, fields=fields)

    test = None if federation.test is None else apply(federation.test, "test")
    return replace(federation, train=apply(federation.train, "train"), test=test)


def _changed(
    fields: Mapping[str, Tensor],
    starts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    ids: Ids,
    change: Change,
) -> dict[str, Tensor]:
    """The clients' rows, one client after another, with their inputs changed."""
    rows = torch.from_numpy(rows_of(starts, sizes))
    inputs = torch.split(fields["x"][rows], sizes.tolist())
    changed = [change(x, int(k)) for x, k in zip(inputs, ids, strict=True)]
    return {name: field[rows] for name, field in fields.items()} | {"x": torch.cat(changed)}


def _check_floats(federation: Federation) -> None:
    if not federation.dtype.is_floating_point:
        raise DataError(
            f"feature noise on inputs of type {str(federation.dtype).removeprefix('torch.')}",
            why="noise is added to quantities, not to numbers that stand for characters or kinds",
            instead="inputs of floats, such as map_inputs(federation, lambda x: x.float())",
        )
