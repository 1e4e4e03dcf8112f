"""Layers that note what they are given, and the gradient by what they return.

That is what the gradients of single examples are made of. Each kind of layer knows the squared
norm of an example's gradient, and how to add the gradients of all examples, each times a factor
(Bu et al., "Differentially private optimization on large model at small cost", ICML 2023: one
backward pass suffices, which computes no gradient of a weight).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hanse.models.per_example.factors import kept, square

if TYPE_CHECKING:
    from collections.abc import Callable

_aten = torch.ops.aten
_CHANNELS = 8  # of a convolution: fewer are read row by row
_IN_CACHE = 1 << 20  # numbers in the patches that are written out at once


class Untapped(Exception):  # noqa: N818 - it is an answer, not an error
    """Why a module's gradients cannot be clipped so, in words."""


class Weighting(NamedTuple):
    """How examples' gradients are added up.

    Attributes:
        factor: `[n]`, of each example, in the parameters' type.
        usable: `[n]`, where it is above zero.
    """

    factor: Tensor
    usable: Tensor

    def of(self, values: Tensor) -> Tensor:
        """`[n, ...]` values, each example's times its factor."""
        more = values.dim() - 1
        return kept(values, self.usable) * self.factor.view(-1, *(1,) * more)

    def total(self, values: Tensor) -> Tensor:
        """`[n, ...]` values to their weighted sum `[...]`."""
        flat = kept(values.flatten(1), self.usable)
        return (self.factor @ flat).view(values.shape[1:])


class Tap(Protocol):
    """A layer of which gradients are wanted, example by example."""

    calls: int

    def reached(self, examples: int) -> bool:
        """Whether the layer was called, and a gradient came back to it.

        Raises:
            Untapped: it was called twice, or not with a row for each example.
        """

    def forward(self, x: Tensor) -> Tensor:
        """What takes the place of the layer's own forward."""

    def squares(self) -> Tensor:
        """`[n]`, in double precision: of the norms of examples' gradients."""

    def add(self, views: list[Tensor], weighting: Weighting) -> None:
        """Add the weighted sum of examples' gradients to the tensors of a vector."""

    def room(self) -> int:
        """How many numbers are written out for an example."""

    def clear(self) -> None:
        """Forget a batch."""


class _Noted(torch.autograd.Function):
    """What a layer computes; the gradient by it is noted, that of its parameters not computed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, tape: Tensor, layer: _Layer) -> Tensor:  # noqa: ANN401 - torch's
        del tape  # it makes autograd visit this function where `x` needs no gradient
        ctx.layer = layer
        return layer.compute(x)

    @staticmethod
    def backward(ctx: Any, down: Tensor) -> tuple[Tensor | None, None, None]:  # noqa: ANN401 - torch's
        layer: _Layer = ctx.layer
        layer.note(down)
        return (layer.passed(down) if ctx.needs_input_grad[0] else None), None, None


class _Layer(Protocol):
    def note(self, down: Tensor) -> None: ...

    def compute(self, x: Tensor) -> Tensor: ...

    def passed(self, down: Tensor) -> Tensor: ...


class _Base:
    """What all kinds of layers note."""

    def __init__(self, part: nn.Module, weight: int, bias: int | None, tape: Tensor) -> None:
        """Note nothing yet; `weight` and `bias` are places in the layout."""
        self.part: Any = part
        self.weight, self.bias, self.tape = weight, bias, tape
        self.calls = 0
        self.clear()

    def clear(self) -> None:
        """Forget a batch."""
        self.x = torch.empty(0)
        self._down: Tensor | None = None
        self.gradients: Tensor | None = None
        self.of_bias: Tensor | None = None

    def reached(self, examples: int) -> bool:
        """As `Tap`."""
        if self.calls > 1:
            raise Untapped("a layer is called twice")
        if self._down is None:
            return False
        if not len(self.x) == len(self.down) == examples:
            raise Untapped("a layer is not given a row for each example")
        return True

    def note(self, down: Tensor) -> None:
        """What the gradient by the outputs is."""
        self._down = down

    @property
    def down(self) -> Tensor:
        """The gradient by the outputs."""
        assert self._down is not None  # noqa: S101 - `reached` says so, for the type checker
        return self._down

    def noted(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.x = x.detach()
        outputs: Tensor = _Noted.apply(x, self.tape, self)  # type: ignore[no-untyped-call]
        return outputs

    def _both(self, of_weight: Tensor) -> Tensor:
        return of_weight if self.of_bias is None else of_weight + square(self.of_bias, 1)

    def _add_bias(self, views: list[Tensor], weighting: Weighting) -> None:
        if self.bias is not None and self.of_bias is not None:
            views[self.bias].add_(weighting.total(self.of_bias))


class LinearTap(_Base):
    """`nn.Linear` on `[n, in]`, or on `[n, ..., in]`: then examples' gradients are written out."""

    def forward(self, x: Tensor) -> Tensor:
        """As `Tap`."""
        return self.noted(x)

    def compute(self, x: Tensor) -> Tensor:
        """What the layer returns."""
        bias = self.part.bias
        return F.linear(x, self.part.weight.detach(), None if bias is None else bias.detach())

    def passed(self, down: Tensor) -> Tensor:
        """The gradient by what the layer is given."""
        weight: Tensor = self.part.weight.detach()
        return down @ weight

    def squares(self) -> Tensor:
        """As `Tap`."""
        if self.bias is not None:
            self.of_bias = self.down if self._flat else self.down.flatten(1, -2).sum(1)
        if self._flat:
            return self._both(square(self.down, 1) * square(self.x, 1))
        self.gradients = torch.bmm(self.down.flatten(1, -2).mT, self.x.flatten(1, -2))
        return self._both(square(self.gradients, 1))

    def add(self, views: list[Tensor], weighting: Weighting) -> None:
        """As `Tap`."""
        if self.gradients is None:
            inputs = kept(self.x, weighting.usable)
            views[self.weight].addmm_(weighting.of(self.down).mT, inputs)
        else:
            views[self.weight].add_(weighting.total(self.gradients))
        self._add_bias(views, weighting)

    def room(self) -> int:
        """As `Tap`."""
        return 0 if self._flat else int(self.part.weight.numel())

    @property
    def _flat(self) -> bool:
        return self.x.dim() == 2


class ConvTap(_Base):
    """`nn.Conv2d` without groups: examples' gradients by products with the patches it reads."""

    def forward(self, x: Tensor) -> Tensor:
        """As `Tap`."""
        return self.noted(x)

    def compute(self, x: Tensor) -> Tensor:
        """What the layer returns."""
        part, bias = self.part, self.part.bias
        x = x.contiguous(memory_format=torch.channels_last)
        weight = part.weight.detach().contiguous(memory_format=torch.channels_last)
        bias = None if bias is None else bias.detach()
        return F.conv2d(x, weight, bias, part.stride, part.padding, part.dilation)

    def passed(self, down: Tensor) -> Tensor:
        """The gradient by what the layer is given."""
        part = self.part
        found, _, _ = _aten.convolution_backward(
            down.contiguous(memory_format=torch.channels_last),
            self.x.contiguous(memory_format=torch.channels_last),
            part.weight.detach().contiguous(memory_format=torch.channels_last),
            None,
            part.stride,
            part.padding,
            part.dilation,
            False,
            [0, 0],
            1,
            [True, False, False],
        )
        return found  # type: ignore[no-any-return]

    def squares(self) -> Tensor:
        """As `Tap`."""
        down = self.down.flatten(2)  # [n, out, positions]
        if not self._narrow:
            down = self.down.permute(0, 2, 3, 1).flatten(1, 2).mT
        kernel = self.part.weight[0].numel()
        self.gradients = down.new_empty(len(down), down.shape[1], kernel)
        together = max(_IN_CACHE // (kernel * down.shape[2]), 1)
        for first in range(0, len(down), together):
            part = slice(first, first + together)
            torch.bmm(down[part], self._patches(self.x[part]), out=self.gradients[part])
        if self.bias is not None:
            self.of_bias = down.sum(2)
        return self._both(square(self.gradients, 1))

    def add(self, views: list[Tensor], weighting: Weighting) -> None:
        """As `Tap`."""
        assert self.gradients is not None  # noqa: S101 - `squares` came before, for the type checker
        out, channels, high, wide = self.part.weight.shape
        total = weighting.total(self.gradients)
        if self._narrow:
            views[self.weight].add_(total.view(out, channels, high, wide))
        else:
            views[self.weight].add_(total.view(out, high, wide, channels).permute(0, 3, 1, 2))
        self._add_bias(views, weighting)

    def room(self) -> int:
        """As `Tap`."""
        return int(self.part.weight.numel())

    @property
    def _narrow(self) -> bool:
        """Whether a patch is copied faster row by row than with its channels together."""
        return bool(self.part.in_channels < _CHANNELS)

    def _patches(self, x: Tensor) -> Tensor:
        """`[n, positions, in * kh * kw]`: what the kernel sees; the channels last if not narrow."""
        part = self.part
        if self._narrow:
            return F.unfold(x, part.kernel_size, part.dilation, part.padding, part.stride).mT
        (high, wide), (down, right) = part.kernel_size, part.stride
        (up, left), (apart, beside) = part.padding, part.dilation
        x = x.permute(0, 2, 3, 1)
        if up or left:
            x = F.pad(x, (0, 0, left, left, up, up))
        x = x.contiguous()
        n, channels = len(x), x.shape[3]
        rows, columns = self.down.shape[2:]
        one, row, column, channel = x.stride()
        seen = x.as_strided(
            (n, rows, columns, high, wide, channels),
            (one, row * down, column * right, row * apart, column * beside, channel),
        )
        return seen.reshape(n, rows * columns, high * wide * channels)


class EmbeddingTap(_Base):
    """`nn.Embedding` of `[n, ...]` words."""

    def forward(self, x: Tensor) -> Tensor:
        """As `Tap`."""
        return self.noted(x)

    def compute(self, x: Tensor) -> Tensor:
        """What the layer returns."""
        return F.embedding(x, self.part.weight.detach(), self.part.padding_idx)

    def passed(self, down: Tensor) -> Tensor:
        """The gradient by what the layer is given."""
        raise AssertionError(down)  # words have no gradient

    def squares(self) -> Tensor:
        """As `Tap`: a word that comes twice gets the sum of two gradients."""
        words, down = self._words(), self.down.flatten(1, -2).double()
        if self.part.padding_idx is not None:
            down = down.masked_fill((words == self.part.padding_idx).unsqueeze(2), 0.0)
        same = words.unsqueeze(1) == words.unsqueeze(2)
        return (torch.bmm(down, down.mT) * same).sum((1, 2)).clamp(min=0.0)

    def add(self, views: list[Tensor], weighting: Weighting) -> None:
        """As `Tap`."""
        words, down = self._words().flatten(), weighting.of(self.down).flatten(0, -2)
        if self.part.padding_idx is not None:
            down = down.masked_fill((words == self.part.padding_idx).unsqueeze(1), 0.0)
        views[self.weight].index_add_(0, words, down)

    def room(self) -> int:
        """As `Tap`."""
        return 3 * int(self._words().shape[1]) ** 2

    def _words(self) -> Tensor:
        return self.x.reshape(len(self.x), -1)


class NormTap(_Base):
    """`nn.LayerNorm` or `nn.GroupNorm` with a weight: what it normalises, times that weight."""

    def __init__(self, part: nn.Module, weight: int, bias: int | None, tape: Tensor) -> None:
        """Find the dimensions that examples' gradients are summed over."""
        super().__init__(part, weight, bias, tape)
        self._of_groups = isinstance(part, nn.GroupNorm)

    def forward(self, x: Tensor) -> Tensor:
        """As `Tap`."""
        part = self.part
        if self._of_groups:
            return self.noted(F.group_norm(x, part.num_groups, None, None, part.eps))
        return self.noted(F.layer_norm(x, part.normalized_shape, None, None, part.eps))

    def compute(self, x: Tensor) -> Tensor:
        """What the layer returns."""
        outputs = x * self._beside(self.part.weight, x)
        bias = self.part.bias
        return outputs if bias is None else outputs + self._beside(bias, x)

    def passed(self, down: Tensor) -> Tensor:
        """The gradient by what the layer is given."""
        return down * self._beside(self.part.weight, down)

    def squares(self) -> Tensor:
        """As `Tap`."""
        self.gradients = self._of_one(self.down * self.x)
        if self.bias is not None:
            self.of_bias = self._of_one(self.down)
        return self._both(square(self.gradients, 1))

    def add(self, views: list[Tensor], weighting: Weighting) -> None:
        """As `Tap`."""
        assert self.gradients is not None  # noqa: S101 - `squares` came before, for the type checker
        views[self.weight].add_(weighting.total(self.gradients))
        self._add_bias(views, weighting)

    def room(self) -> int:
        """As `Tap`."""
        return int(self.part.weight.numel())

    def _beside(self, parameter: Tensor, x: Tensor) -> Tensor:
        more = x.dim() - 2 if self._of_groups else 0
        return parameter.detach().view(*parameter.shape, *(1,) * more)

    def _of_one(self, values: Tensor) -> Tensor:
        """`[n, ...]` values summed over what shares a parameter."""
        if self._of_groups:
            return values.flatten(2).sum(2) if values.dim() > 2 else values
        between = values.dim() - 1 - self.part.weight.dim()
        return values.flatten(1, between).sum(1) if between else values


def _plain_convolution(part: Any) -> bool:  # noqa: ANN401 - a module
    return part.groups == 1 and part.padding_mode == "zeros" and isinstance(part.padding, tuple)


def _plain_embedding(part: Any) -> bool:  # noqa: ANN401 - a module
    return part.max_norm is None and not part.scale_grad_by_freq


TAPS: dict[type[nn.Module], tuple[Callable[..., Tap], Callable[[Any], bool] | None]] = {
    nn.Linear: (LinearTap, None),
    nn.Conv2d: (ConvTap, _plain_convolution),
    nn.Embedding: (EmbeddingTap, _plain_embedding),
    nn.GroupNorm: (NormTap, None),
    nn.LayerNorm: (NormTap, None),
}
"""For each kind of layer what notes for it, and whether it does for this one; `None`: always."""
