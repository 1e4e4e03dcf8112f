"""What the server publishes for a round, as a message."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import torch

from hanse.core.errors import WireError
from hanse.core.types import Broadcast, RoundContext
from hanse.wire.message import Entry, Kind, Message, Part, Tag
from hanse.wire.table import damaged
from hanse.wire.vectors import numbers_around, read_vector, vector_parts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from hanse.core.layout import ParameterLayout
    from hanse.core.types import Vector
    from hanse.wire.vectors import Reader

PARAMS, BUFFERS, ROUND = "params", "buffers", "round"
_FACTS = [torch.int64, torch.uint64, torch.float64, torch.uint8]
_MOST = 64  # bytes of a setting's name


def broadcast_message(broadcast: Broadcast, shared_buffers: int) -> Message:
    """What every client of a cohort is sent: all that is shared, and nothing else.

    Args:
        broadcast: as published, `params` `[P]` and `buffers` `[b]`.
        shared_buffers: how many of the leading buffer columns are shared.
    """
    round_ = broadcast.round
    whole = [round_.number, round_.population, round_.cohort]
    facts = (
        torch.tensor(whole, dtype=torch.int64, device="cpu"),
        torch.from_numpy(np.asarray(round_.key, np.uint64).reshape(1)),
        torch.tensor(round_.expected, dtype=torch.float64, device="cpu"),
        torch.from_numpy(np.frombuffer(round_.setting.encode(), np.uint8).copy()),
    )
    tensors = {
        PARAMS: broadcast.params[: round_.layout.shared],
        BUFFERS: broadcast.buffers[:shared_buffers],
    }
    entries = [Entry(ROUND, (Part(Tag.ROUND, facts),))]
    entries += [
        Entry(name, (Part(Tag.TENSOR, (value,)),))
        for name, value in [*tensors.items(), *broadcast.extra.items()]
    ]
    if broadcast.sent is not None:
        entries[1] = Entry(PARAMS, tuple(vector_parts(broadcast.sent, 0)))
    return Message(Kind.BROADCAST, tuple(entries))


def read_broadcast(
    message: Message,
    layout: ParameterLayout,
    own_params: Tensor,
    own_buffers: Tensor,
    readers: Mapping[int, Reader] = MappingProxyType({}),
    held: Tensor | None = None,
) -> Broadcast:
    """The broadcast as a client's side has it.

    Args:
        message: as `decode` found it.
        layout: of the client's own model.
        own_params: `[P - S]`, what its local columns hold.
        own_buffers: likewise of the buffers.
        readers: of the spaces that a model is compressed in, by tag.
        held: `[S]`, what a compressed model is the difference from; `None`: from nothing.

    Raises:
        WireError: it is no broadcast, or of a model of another size.
    """
    if message.kind != Kind.BROADCAST:
        raise WireError(
            f"a message of kind {message.kind.name}",
            why="a broadcast was expected",
            instead="decode(…, kind=Kind.BROADCAST)",
        )
    parts = {entry.name: entry.parts for entry in message.entries}
    sent = _compressed(message, readers)
    if sent is not None:
        params = _lifted(sent, layout.shared)
        parts[PARAMS] = (Part(Tag.TENSOR, (params if held is None else held + params,)),)
    round_ = _round(parts.pop(ROUND, ()), layout)
    extra = {name: _tensor(name, found) for name, found in parts.items()}
    params, buffers = (extra.pop(name, torch.zeros(())) for name in (PARAMS, BUFFERS))
    if params.shape != (layout.shared,) or buffers.dim() != 1:
        raise WireError(
            f"a broadcast with params of shape {list(params.shape)} and buffers of shape "
            f"{list(buffers.shape)}",
            why=f"{layout.shared} columns of the model here are shared",
            instead="the same model on both sides",
        )
    return Broadcast(
        torch.cat([params, own_params]), torch.cat([buffers, own_buffers]), extra, round_, sent
    )


def _lifted(sent: Vector, shared: int) -> Tensor:
    columns = sent.values.shape[1]
    for space in reversed(sent.space):
        columns = numbers_around(space, columns)
    if columns != shared:  # before memory is taken for so many
        raise damaged(f"a compressed model of {columns} numbers", f"it has {shared} here")
    try:
        params = sent.lifted()[0]
    except (IndexError, RuntimeError, ValueError) as error:  # spaces that do not fit together
        raise damaged("a compressed model that cannot be lifted", str(error)) from error
    if params.shape != (shared,):
        raise damaged(f"a compressed model of {len(params)} numbers", f"it has {shared} here")
    return params


def _compressed(message: Message, readers: Mapping[int, Reader]) -> Vector | None:
    for entry in message.entries:
        if entry.name == PARAMS and entry.parts and entry.parts[0].tag == Tag.VECTOR:
            return read_vector(entry, readers)
    return None


def _round(parts: tuple[Part, ...], layout: ParameterLayout) -> RoundContext:
    arrays = parts[0].arrays if len(parts) == 1 and parts[0].tag == Tag.ROUND else ()
    tensors = [array for array in arrays if isinstance(array, torch.Tensor)]
    types = [tensor.dtype for tensor in tensors]
    shapes = [tuple(tensor.shape) for tensor in tensors[:3]]
    if len(arrays) != 4 or types != _FACTS or shapes != [(3,), (1,), ()] or tensors[3].dim() != 1:
        raise damaged("a broadcast without the facts of its round", "a client cannot train on it")
    whole, key, mean, setting = tensors
    text = bytes(setting[: _MOST + 1].tolist()).decode("ascii", errors="replace")
    if len(text) > _MOST or not (text.isascii() and text.isprintable()):
        raise damaged(f"a broadcast for the setting {text!r:.80}", "that is no setting's name")
    if int(whole.min()) < 0 or not 0 <= float(mean) < math.inf:
        raise damaged(
            f"a broadcast of round {int(whole[0])}, {int(whole[1])} clients, a cohort of "
            f"{int(whole[2])} and {float(mean)} expected",
            "no round has such numbers",
        )
    return RoundContext(
        number=int(whole[0]),
        key=key.numpy()[0],
        population=int(whole[1]),
        expected=float(mean),
        cohort=int(whole[2]),
        setting=text,
        layout=layout,
    )


def _tensor(name: str, parts: tuple[Part, ...]) -> Tensor:
    arrays = parts[0].arrays if len(parts) == 1 and parts[0].tag == Tag.TENSOR else ()
    if len(arrays) != 1 or not isinstance(arrays[0], torch.Tensor):
        raise damaged(f"a broadcast in which {name!r} is no tensor", "it cannot be read")
    return arrays[0]
