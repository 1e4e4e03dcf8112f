"""Small reference models, by the names that experiment files use."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from torch import nn

from hanse.core.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def softmax_regression(inputs: int, classes: int) -> nn.Module:
    """One linear layer, `[n, inputs] -> [n, classes]` logits, starting at zero."""
    _positive(inputs=inputs, classes=classes)
    layer = nn.Linear(inputs, classes)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return nn.Sequential(nn.Flatten(), layer)


def mlp(inputs: int, classes: int, hidden: Sequence[int] = (200, 200)) -> nn.Module:
    """Linear layers with ReLU between; the default is McMahan et al.'s 2NN."""
    if not isinstance(hidden, list | tuple):
        raise ModelError(
            f"a model with hidden={hidden!r}",
            why="it lists the units of each hidden layer",
            instead="hidden=(200, 200); for one hidden layer, hidden=(200,)",
        )
    _positive(inputs=inputs, classes=classes, **{f"hidden[{i}]": h for i, h in enumerate(hidden)})
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in pairwise([inputs, *hidden]):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear([inputs, *hidden][-1], classes))


def cnn(classes: int, channels: int = 1, side: int = 28) -> nn.Module:
    """McMahan et al.'s CNN: two 5x5 convolutions (32, 64), 2x2 pooling, 512 units.

    With 10 classes on 28x28 images of one channel it has 1,663,370 parameters, as published.
    """
    _positive(classes=classes, channels=channels, side=side)
    flat = 64 * (side // 4) ** 2
    return nn.Sequential(
        nn.Conv2d(channels, 32, 5, padding=2),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(32, 64, 5, padding=2),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(flat, 512),
        nn.ReLU(),
        nn.Linear(512, classes),
    )


def char_lstm(classes: int, embedding: int = 8, hidden: int = 256, layers: int = 2) -> nn.Module:
    """McMahan et al.'s character model: an embedding, stacked LSTMs, logits of the next character.

    `[n, T]` characters to `[n, T, classes]` logits, for the loss `next_token`. The defaults are
    those of "Communication-efficient learning of deep networks from decentralized data", AISTATS
    2017, section 3.

    Args:
        classes: how many different characters there are.
        embedding: numbers that a character becomes.
        hidden: units of each LSTM.
        layers: LSTMs, one on top of the other.
    """
    _positive(classes=classes, embedding=embedding, hidden=hidden, layers=layers)
    return _CharLSTM(classes, embedding, hidden, layers)


class _CharLSTM(nn.Module):
    def __init__(self, classes: int, embedding: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(classes, embedding)
        self.lstm = nn.LSTM(embedding, hidden, layers, batch_first=True)
        self.head = nn.Linear(hidden, classes)

    def forward(self, characters: Tensor) -> Tensor:
        """Logits `[n, T, classes]` of what follows each of the characters `[n, T]`."""
        states, _ = self.lstm(self.embedding(characters))
        logits: Tensor = self.head(states)
        return logits


def _positive(**numbers: int) -> None:
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ModelError(
                f"a model with {name}={value!r}",
                why="a layer needs a whole, positive number of units",
                instead=f"{name}=10, or whatever your data have",
            )
