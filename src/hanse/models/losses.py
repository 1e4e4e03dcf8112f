"""Losses and metrics: per example, so that any weighting of examples is exact."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from hanse.core.errors import ModelError

Loss = Callable[[Tensor, Tensor], Tensor]
"""`(outputs [n, ...], targets [n, ...]) -> [n]`, a loss per example. A loss that couples examples
(contrastive, Cox's partial likelihood) returns a 0-d mean instead; it is then given each client's
exact batches, one client at a time. Batches may be of one example, and it must be finite then."""

Metric = Callable[[Tensor, Tensor], Tensor]
"""`(outputs [n, ...], targets [n, ...]) -> [n]` per example, or 0-d for all of a client's."""

IGNORED = -100
"""torch's label for an example, or a token, without one."""


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of logits `[n, classes]` and labels `[n]`, per example, in nats."""
    return F.cross_entropy(outputs, targets, reduction="none")


def binary_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of one logit per example, `[n]` or `[n, 1]`, and labels 0 or 1, in nats."""
    logits = outputs.reshape(len(outputs), -1).squeeze(1)
    return F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="none")


def next_token(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of each token of a sequence, averaged over the sequence's tokens, in nats.

    Args:
        outputs: `[n, T, classes]`, logits of what comes after each token.
        targets: `[n, T]`, what came; -100 (torch's convention) does not count.

    Returns:
        `[n]`; 0 for a sequence none of whose tokens counts.

    Raises:
        ModelError: there is not one row of logits for each target.
    """
    _check_tokens(outputs, targets)
    losses = F.cross_entropy(
        outputs.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return _mean_of_tokens(losses.reshape(targets.shape), targets)


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """The squared error, averaged over an example's outputs.

    Raises:
        ModelError: an example has more or fewer outputs than targets.
    """
    return _errors(outputs, targets).square().mean(dim=1)


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """1 where the largest of `[n, classes]` logits is the label, else 0."""
    return (outputs.argmax(dim=1) == targets).to(outputs.dtype)


def next_token_accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """The share of a sequence's tokens whose largest logit is the target.

    Args:
        outputs: `[n, T, classes]`.
        targets: `[n, T]`; -100 does not count.

    Raises:
        ModelError: there is not one row of logits for each target.
    """
    _check_tokens(outputs, targets)
    hits = (outputs.argmax(dim=2) == targets).to(outputs.dtype)
    return _mean_of_tokens(hits, targets)


def binary_accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """1 where the sign of one logit per example, `[n]` or `[n, 1]`, says the label, else 0."""
    logits = outputs.reshape(len(outputs), -1).squeeze(1)
    return ((logits > 0) == (targets > 0)).to(outputs.dtype)


def absolute_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """The absolute error, averaged over an example's outputs.

    Raises:
        ModelError: an example has more or fewer outputs than targets.
    """
    return _errors(outputs, targets).abs().mean(dim=1)


def whole(metric: Callable[[Tensor, Tensor], float]) -> Metric:
    """A metric of all of a client's examples at once (an AUC, an F1 score).

    Its value over several clients is the mean over clients, weighted by their examples.
    """

    def measured(outputs: Tensor, targets: Tensor) -> Tensor:
        return torch.tensor(float(metric(outputs, targets)), dtype=outputs.dtype)

    return measured


def _check_tokens(outputs: Tensor, targets: Tensor) -> None:
    if outputs.dim() != 3 or outputs.shape[:2] != targets.shape:
        raise ModelError(
            f"outputs {list(outputs.shape)} and targets {list(targets.shape)}",
            why="every token of a sequence has logits for what comes next",
            instead="outputs [n, T, classes] for targets [n, T], as char_lstm's are; for one label "
            "an example, cross_entropy",
        )


def _mean_of_tokens(values: Tensor, targets: Tensor) -> Tensor:
    """`[n, T]` to `[n]`, over the tokens that count."""
    counts = (targets != IGNORED).to(values.dtype)
    return (values * counts).sum(dim=1) / counts.sum(dim=1).clamp(min=1.0)


def _errors(outputs: Tensor, targets: Tensor) -> Tensor:
    if outputs.numel() != targets.numel():  # torch would repeat the smaller one, silently
        raise ModelError(
            f"outputs {list(outputs.shape)} and targets {list(targets.shape)}",
            why="an error is the difference of an output and its target",
            instead="one output for each target, or cross_entropy for labels",
        )
    return outputs.reshape(len(outputs), -1) - targets.reshape(len(targets), -1)
