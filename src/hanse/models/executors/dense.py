"""Chains of linear layers by batched products, the weight gradient fused into the update.

Without autograd: a layer's gradient is added to its target by the product that computes it, so
that no gradient of the size of the model is ever written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from hanse.models.executors.chain import chain
from hanse.models.gradient import ByAddress, Terms, per_example
from hanse.models.losses import IGNORED, cross_entropy

if TYPE_CHECKING:
    from torch import Tensor

    from hanse.core.types import Scalar
    from hanse.models.gradient import Batch
    from hanse.models.task import Task


class _Layer(NamedTuple):
    """A layer's tensors in a block's vectors, for k clients, or one for all of them."""

    weight: Tensor  # [k, out, in]
    transposed: Tensor  # [k, in, out]
    bias: Tensor | None  # [k, out]
    row: Tensor | None  # [k, 1, out], the bias again


class DenseExecutor:
    """For chains of linear layers; see `chain`."""

    def __init__(self, task: Task, terms: Terms = Terms()) -> None:
        """Find the model's chain.

        Raises:
            Unchained: it has none.
        """
        self.links, self._loss = chain(task), task.loss
        self._layout = task.layout
        self._layers = ByAddress(self._of)
        self._waits = terms.waits
        half = terms.precision == "bfloat16"
        self._product, self._add = (_half_product, _half_add) if half else (_product, _add)

    def _of(self, flat: Tensor) -> list[_Layer]:
        shared = flat.stride(0) == 0  # the same point for all clients: no products for each
        views = self._layout.views(flat[:1] if shared else flat)
        layers = []
        for link in self.links:
            weight = views[link.weight]
            bias = None if link.bias is None else views[link.bias]
            row = None if bias is None else bias.unsqueeze(1)
            layers.append(_Layer(weight, weight.transpose(1, 2), bias, row))
        return layers

    def add_to(
        self, batch: Batch, at: Tensor, target: Tensor, scale: Scalar, keep: Scalar
    ) -> Tensor:
        """As `Executor.add_to`."""
        if self._waits:  # numbers: a product can then take them in
            scale, keep = float(scale), float(keep)
        layers = self._layers(at)
        targets = layers if target is at else self._layers(target)
        inputs, kept, outputs = self._forward(layers, batch.x.flatten(2))
        losses, gradient = self._head(outputs, batch, scale)
        losses = (losses * batch.weights).sum(1)
        for number in range(len(self.links) - 1, -1, -1):
            layer, aim, activation = layers[number], targets[number], self.links[number].activation
            if activation is not None:
                gradient = activation.backward(gradient, kept[number])
            passed = self._product(gradient, layer.weight) if number else gradient
            self._add(aim, gradient, inputs[number], keep)  # behind: `target` may be `at`
            gradient = passed
        return losses

    def pairs(self, batch: Batch, at: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """What the gradients of single examples are made of: for each layer, two vectors of each.

        Returns:
            The losses `[k, B]`, and for each layer its inputs `[k, B, in]` and the gradients
            `[k, B, out]` of the example's loss by what it computes: their outer product is the
            gradient of its weight, and the second one that of its bias.
        """
        layers = self._layers(at)
        inputs, kept, outputs = self._forward(layers, batch.x.flatten(2))
        ones = batch._replace(weights=torch.ones_like(batch.weights))
        losses, gradient = self._head(outputs, ones, 1.0)
        found = []
        for number in range(len(self.links) - 1, -1, -1):
            activation = self.links[number].activation
            if activation is not None:
                gradient = activation.backward(gradient, kept[number])
            found.append((inputs[number], gradient))
            if number:
                gradient = self._product(gradient, layers[number].weight)
        return losses, found[::-1]

    def clear(self) -> None:
        """Forget all vectors."""
        self._layers.clear()

    def _forward(
        self, layers: list[_Layer], x: Tensor
    ) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Each layer's inputs, what its activation's derivative needs, and the outputs."""
        inputs, kept = [], []
        for layer, link in zip(layers, self.links, strict=True):
            inputs.append(x)
            x = self._product(x, layer.transposed, layer.row)
            before = x
            if link.activation is not None:
                x = link.activation.forward(x)
            kept.append(before if link.activation and link.activation.keeps_input else x)
        return inputs, kept, x

    def _head(self, outputs: Tensor, batch: Batch, scale: Scalar) -> tuple[Tensor, Tensor]:
        """The losses `[k, B]`, and the gradient of the outputs `[k, B, out]` times `scale`."""
        y, weights = batch.y.flatten(0, 1), batch.weights
        if self._loss is cross_entropy and y.dim() == 1 and not y.is_floating_point():
            losses, down = _cross_entropy(outputs, y, (weights * scale).view(-1))
        else:
            with torch.enable_grad():
                flat = outputs.flatten(0, 1).detach().requires_grad_()
                losses = per_example(self._loss, flat, y, len(y), exact=False)
                loss = (losses * (weights * scale).view(-1)).sum()
                (down,) = torch.autograd.grad(loss, flat)
            losses, down = losses.detach(), down.view_as(outputs)
        return losses.view_as(weights), down


def _cross_entropy(outputs: Tensor, y: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Losses `[n]`, and the gradient of their weighted sum, of outputs `[k, B, classes]`.

    Classes come first in between: a reduction over a short last dimension is not vectorised.
    """
    columns = outputs.flatten(0, 1).T.contiguous()
    log = torch.log_softmax(columns, 0)
    ignored = y == IGNORED
    labels = y.masked_fill(ignored, 0).unsqueeze(0)
    losses = log.gather(0, labels).squeeze(0).neg_().masked_fill_(ignored, 0.0)
    down = log.exp_().scatter_add_(0, labels, log.new_full((1, 1), -1.0).expand_as(labels))
    down *= weights.masked_fill(ignored, 0.0)
    k, examples, classes = outputs.shape
    return losses, down.view(classes, k, examples).permute(1, 2, 0)


def _product(x: Tensor, weight: Tensor, row: Tensor | None = None) -> Tensor:
    """`x @ weight + row` for each client; one weight `[1, …]` serves all."""
    if len(weight) < len(x):
        flat = x.reshape(1, -1, x.shape[2])
        return _product(flat, weight, row).view(len(x), x.shape[1], -1)
    return torch.bmm(x, weight) if row is None else torch.baddbmm(row, x, weight)


def _add(aim: _Layer, gradient: Tensor, inputs: Tensor, keep: Scalar) -> None:
    """`aim = keep * aim + gradient' @ inputs`, in place."""
    beta = 1.0
    if isinstance(keep, float):
        beta = keep
    else:
        aim.weight.mul_(keep)
    aim.weight.baddbmm_(gradient.transpose(1, 2), inputs, beta=beta)
    if aim.bias is not None:
        if not (isinstance(keep, float) and keep == 1.0):
            aim.bias.mul_(keep)
        aim.bias.add_(gradient.sum(1))


def _half_product(x: Tensor, weight: Tensor, row: Tensor | None = None) -> Tensor:
    """`_product` of what is left of its operands in bfloat16, in the parameters' type again."""
    low = None if row is None else row.bfloat16()
    return _product(x.bfloat16(), weight.bfloat16(), low).to(weight.dtype)


def _half_add(aim: _Layer, gradient: Tensor, inputs: Tensor, keep: Scalar) -> None:
    """`_add` with a product of bfloat16 numbers; what it is added to keeps its type."""
    if not (isinstance(keep, float) and keep == 1.0):
        aim.weight.mul_(keep)
    aim.weight.add_(torch.bmm(gradient.bfloat16().transpose(1, 2), inputs.bfloat16()))
    if aim.bias is not None:
        if not (isinstance(keep, float) and keep == 1.0):
            aim.bias.mul_(keep)
        aim.bias.add_(gradient.sum(1))
