"""A graphics card that is not there: its tensors have shapes and types, but no values.

PyTorch's device `meta` is such a card. What it lacks is added here: numbers that are read from it
are 1, and computing with tensors of two devices is an error, as it is between a processor and a
card. Between the first and the last step of a pass, to read a number is an error as well; within a
step, so is every copy to the card or from it.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import hanse.engines.span
import hanse.engines.stage
import hanse.evaluation.per_client
import hanse.round
from hanse.engines.on_device import DeviceWork

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pytest
    from torch import Tensor

    from hanse.core.types import Gradient, Step

Torchs: TypeAlias = Any  # what torch passes, and expects back
CARD = torch.device("meta")
_READING = {
    torch.Tensor.item: 1.0,
    torch.Tensor.__float__: 1.0,
    torch.Tensor.__int__: 1,
    torch.Tensor.__bool__: True,
}
_FETCHING = {torch.Tensor.cpu, torch.Tensor.numpy, torch.Tensor.tolist}
_COPIES = {torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default}  # noqa: SLF001 - what .to() becomes


class Card(TorchFunctionMode):
    """Numbers from a card.

    Attributes:
        walking: whether a pass is being walked.
        stepping: whether a step is being taken.
        read: how many numbers were read outside.
    """

    def __init__(self) -> None:
        super().__init__()
        self.walking = self.stepping = False
        self.read = 0

    def __torch_function__(
        self,
        func: Torchs,
        types: Torchs,
        args: Torchs = (),
        kwargs: Mapping[str, Torchs] | None = None,
    ) -> Torchs:
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.pin_memory:
            return args[0]
        if func is torch.Tensor.data_ptr and args[0].is_meta:
            return memory_of(args[0]) + args[0].storage_offset() * args[0].element_size()
        if func in _READING and args[0].is_meta:
            self._look(func)
            return _READING[func]
        if func in _FETCHING and args[0].is_meta:
            self._look(func)
            ones = torch.ones(args[0].shape, dtype=args[0].dtype, device="cpu")
            return ones if func is torch.Tensor.cpu else func(ones)
        return func(*args, **kwargs)

    def _look(self, func: Torchs) -> None:
        if self.walking:
            message = f"{func} waits for the card between two steps"
            raise RuntimeError(message)
        self.read += 1


class OneDevice(TorchDispatchMode):
    """Operations on tensors of one device each, as far as they are no copies."""

    def __init__(self, card: Card) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._card = card

    def __torch_dispatch__(
        self,
        func: Torchs,
        types: Torchs,
        args: Torchs = (),
        kwargs: Mapping[str, Torchs] | None = None,
    ) -> Torchs:
        found = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, found)) if isinstance(t, torch.Tensor)]
        mixed = len({tensor.device for tensor in tensors}) > 1
        if mixed and (func not in _COPIES or self._card.stepping):
            about = ", ".join(f"{list(tensor.shape)} on {tensor.device}" for tensor in tensors)
            message = f"{func} with {about}"
            raise RuntimeError(message)
        return found


def memory_of(tensor: Tensor) -> int:
    """As good as an address, which tensors without values have not."""
    return tensor.untyped_storage()._cdata  # type: ignore[no-any-return]  # noqa: SLF001 - as above


@contextlib.contextmanager
def placed(device: torch.device) -> Iterator[None]:
    """As Hanse's own, without CUDA."""
    if device.type == "cpu":
        yield
    else:
        with torch.device(device):
            yield


@contextlib.contextmanager
def fake_card(monkeypatch: pytest.MonkeyPatch) -> Iterator[Card]:
    """Inside, `CARD` can be computed on."""
    card, walk = Card(), DeviceWork.walk

    def watched(self: DeviceWork, pass_number: int, state: dict[str, Tensor], step: Step) -> None:
        def stepped(rows: Mapping[str, Tensor], gradient: Gradient, number: int) -> None:
            card.stepping = True
            step(rows, gradient, number)
            card.stepping = False

        card.walking = True
        walk(self, pass_number, state, stepped)
        card.walking = False

    monkeypatch.setattr(DeviceWork, "walk", watched)
    monkeypatch.setattr(hanse.round, "placed", placed)
    monkeypatch.setattr(hanse.evaluation.per_client, "placed", placed)
    monkeypatch.setattr(hanse.engines.span, "generators", lambda _: [])
    monkeypatch.setattr(hanse.engines.stage, "memory_of", memory_of)
    with OneDevice(card), card:
        yield card
