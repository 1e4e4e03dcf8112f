"""Losses of sequences and the model for characters, beside loops and PyTorch's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import hanse
from hanse.core.errors import ModelError
from hanse.data import federation_from_arrays
from hanse.models import char_lstm, next_token, next_token_accuracy

IGNORED = -100


def made_up() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(3, 5, 4, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 4, (3, 5), generator=generator)
    targets[1, 3:] = IGNORED
    targets[2] = IGNORED
    return outputs, targets


def test_a_sequence_weighs_its_tokens_equally() -> None:
    outputs, targets = made_up()
    losses, hits = [], []
    for logits, labels in zip(outputs, targets, strict=True):
        real = [(one, int(label)) for one, label in zip(logits, labels, strict=True) if label >= 0]
        nats = [-float(one.log_softmax(0)[label]) for one, label in real]
        right = [float(int(one.argmax()) == label) for one, label in real]
        losses.append(sum(nats) / max(len(nats), 1))
        hits.append(sum(right) / max(len(right), 1))
    assert next_token(outputs, targets).tolist() == pytest.approx(losses, rel=1e-12)
    assert next_token_accuracy(outputs, targets).tolist() == pytest.approx(hits, rel=1e-12)
    assert losses[2] == 0.0


def test_without_padding_it_is_torch_s_own_mean() -> None:
    outputs, targets = made_up()
    expected = F.cross_entropy(outputs[:1].flatten(0, 1), targets[:1].flatten())
    torch.testing.assert_close(next_token(outputs, targets)[0], expected)


def test_padding_has_no_gradient() -> None:
    outputs, targets = made_up()
    outputs.requires_grad_()
    (gradient,) = torch.autograd.grad(next_token(outputs, targets).sum(), outputs)
    assert bool(gradient.isfinite().all())
    assert not gradient[targets == IGNORED].any()
    assert gradient[0].any()


def test_the_character_model_reads_from_left_to_right() -> None:
    torch.manual_seed(0)
    model = char_lstm(11, embedding=3, hidden=5, layers=2)
    x = torch.randint(0, 11, (2, 7))
    changed = x.clone()
    changed[:, 4] = (changed[:, 4] + 1) % 11
    before, after = model(x), model(changed)
    assert before.shape == (2, 7, 11)
    assert torch.equal(before[:, :4], after[:, :4])  # what comes later says nothing of before
    assert not torch.equal(before[:, 4:], after[:, 4:])


def test_the_character_model_has_the_published_layers() -> None:
    classes = 90
    counts = {name: p.numel() for name, p in char_lstm(classes).named_parameters()}
    gates = 4 * 256
    assert counts["embedding.weight"] == 8 * classes
    assert counts["lstm.weight_ih_l0"] + counts["lstm.weight_hh_l0"] == gates * (8 + 256)
    assert counts["lstm.weight_ih_l1"] + counts["lstm.weight_hh_l1"] == gates * (256 + 256)
    assert counts["head.weight"] == 256 * classes


def alphabet(length: int = 8) -> Any:  # noqa: ANN401 - a federation
    """Clients that all say the alphabet, from different places: what follows is certain."""
    text = np.arange(200) % 6
    windows = np.array([text[k : k + length + 1] for k in range(0, 180, length)])
    people = {
        f"client {k}": (windows[k::4, :-1].astype(np.int64), windows[k::4, 1:].astype(np.int64))
        for k in range(4)
    }
    return federation_from_arrays(people, test=people, classes=list("abcdef"))


def test_a_federation_learns_what_follows() -> None:
    experiment = hanse.Experiment(
        strategy=hanse.fedavg(lr=2.0, batch_size=4, local_epochs=2),
        data=alphabet(),
        model=lambda: char_lstm(6, embedding=4, hidden=12, layers=1),
        loss=next_token,
        rounds=15,
    )
    accuracy = [r.evaluations["test"].overall["accuracy"] for r in hanse.rounds(experiment)]
    assert accuracy[0] < 0.5
    assert accuracy[-1] > 0.95


def test_characters_that_the_model_does_not_know_are_refused() -> None:
    experiment = hanse.Experiment(
        strategy=hanse.fedavg(),
        data=alphabet(),
        model=lambda: char_lstm(5, embedding=2, hidden=3, layers=1),
        loss=next_token,
    )
    with pytest.raises(ModelError):
        next(iter(hanse.rounds(experiment)))


def test_outputs_of_another_form_are_refused() -> None:
    outputs, targets = made_up()
    for wrong in (outputs[:, 0], outputs[:, :2], outputs.transpose(1, 2)):
        for function in (next_token, next_token_accuracy):
            with pytest.raises(ModelError, match="next"):
                function(wrong, targets)
