"""Checkpoints: tensors in safetensors, the rest in JSON, a directory that appears whole.

`checkpoints/round-000012/` holds `state.safetensors` and `state.json`; the JSON has the SHA-256 of
the tensors and the fingerprint of the run they belong to. The directory is written under another
name, made durable and renamed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from hanse.core.errors import RunError
from hanse.memory import ClientMemory
from hanse.round import FederationState
from hanse.storage.files import fsync_directory, read_json, to_json, writing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

_FORMAT = 1
_NAME = re.compile(r"round-(\d{6,})")
_KEPT = 2  # the last one, and the one before in case the disk loses the last


def write_checkpoint(folder: Path, state: FederationState, fingerprint: Mapping[str, Any]) -> Path:
    """Write a state; older checkpoints but one are removed afterwards.

    A checkpoint of this round that is there already holds the same bits, and stays.

    Args:
        folder: the run's `checkpoints/`.
        state: what to keep.
        fingerprint: what the state belongs to; a resumed run must have the same.

    Returns:
        The checkpoint's directory.

    Raises:
        RunError: it cannot be written; the checkpoints before are as they were.
    """
    final = folder / f"round-{state.round:06d}"
    if final.exists():
        return final
    tensors = save(flatten_state(state))
    about = {
        "format": _FORMAT,
        "round": state.round,
        "sha256": hashlib.sha256(tensors).hexdigest(),
        "fingerprint": fingerprint,
    }
    temporary = _hidden(final)
    with writing(final):
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            _write_durably(temporary / "state.safetensors", tensors)
            _write_durably(temporary / "state.json", to_json(about).encode())
            fsync_directory(temporary)
            temporary.rename(final)
        except OSError:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        fsync_directory(folder)
        remove_old(folder)
    return final


def remove_old(folder: Path) -> None:
    """Keep the newest checkpoints only."""
    for old in checkpoints(folder)[:-_KEPT]:
        shutil.rmtree(old.rename(_hidden(old)))  # no half of it is ever taken for a checkpoint


def checkpoints(folder: Path) -> list[Path]:
    """All complete checkpoints, oldest first."""
    found = [p for p in folder.glob("round-*") if _NAME.fullmatch(p.name)]
    return sorted(found, key=_number)


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint, or `None`."""
    found = checkpoints(folder)
    return found[-1] if found else None


def read_checkpoint(path: Path, fingerprint: Mapping[str, Any] | None) -> FederationState:
    """Read a state back.

    Args:
        path: the checkpoint's directory.
        fingerprint: of the run that wants to go on; `None`: not compared.

    Raises:
        RunError: the checkpoint is damaged, of another format, or of another run.
    """
    try:
        about = read_json(path / "state.json")
    except RunError as error:
        raise _damaged(path, error.found) from error
    if about.get("format") != _FORMAT:
        raise RunError(
            f"{path} has format {about.get('format')!r}",
            why=f"this version of Hanse reads format {_FORMAT}",
            instead="the version of Hanse that wrote it (run.json names it)",
        )
    if fingerprint is not None:
        _compare(path, about.get("fingerprint", {}), fingerprint)
    try:
        raw = (path / "state.safetensors").read_bytes()
    except FileNotFoundError as error:
        raise _damaged(path, "state.safetensors is missing") from error
    found = hashlib.sha256(raw).hexdigest()
    if found != about.get("sha256"):
        raise _damaged(
            path, f"state.safetensors has the SHA-256 {found[:16]}…, not the recorded one"
        )
    if about.get("round") != _number(path):
        raise _damaged(path, f"state.json says that it is round {about.get('round')!r}")
    try:
        return unflatten_state(load(raw), _number(path))
    except (SafetensorError, KeyError, ValueError) as error:
        raise _damaged(path, str(error)) from error


def flatten_state(state: FederationState) -> dict[str, Tensor]:
    """A state as named tensors, in the computer's memory."""
    tensors = {
        "params": state.params,
        "buffers": state.buffers,
        "direction": state.direction,
        "first_loss": state.first_loss,
        "exploded": state.exploded,
        "layers": torch.tensor(len(state.layers)),
    }
    tensors |= {f"optimizer/{name}": value for name, value in state.optimizer.items()}
    for number, layer in enumerate(state.layers):
        tensors |= {f"layer/{number}/{name}": value for name, value in layer.items()}
    rows = state.clients.rows
    if rows:
        ids = sorted(rows)
        tensors["clients"] = torch.tensor(ids)
        for number, slot in enumerate(rows[ids[0]]):
            for name in slot:
                stacked = torch.stack([rows[client][number][name] for client in ids])
                tensors[f"memory/{number}/{name}"] = stacked
    return {name: value.cpu().contiguous() for name, value in tensors.items()}


def unflatten_state(tensors: Mapping[str, Tensor], round_number: int) -> FederationState:
    """The state whose `flatten_state` is `tensors`."""
    layers: list[dict[str, Tensor]] = [{} for _ in range(int(tensors["layers"]))]
    memory: dict[int, dict[str, Tensor]] = {}
    optimizer: dict[str, Tensor] = {}
    for key, value in tensors.items():
        kind, _, rest = key.partition("/")
        if kind == "optimizer":
            optimizer[rest] = value
        elif kind == "layer":
            number, _, name = rest.partition("/")
            layers[int(number)][name] = value
        elif kind == "memory":
            number, _, name = rest.partition("/")
            memory.setdefault(int(number), {})[name] = value
    ids = [int(client) for client in tensors.get("clients", torch.zeros(0))]
    slots = len(layers) + 1  # what stays local by layout, then one for each layer
    rows = {
        client: tuple(
            {name: value[row].clone() for name, value in memory.get(number, {}).items()}
            for number in range(slots)
        )
        for row, client in enumerate(ids)
    }
    return FederationState(
        round=round_number,
        params=tensors["params"],
        buffers=tensors["buffers"],
        layers=tuple(layers),
        optimizer=optimizer,
        direction=tensors["direction"],
        clients=ClientMemory(rows),
        first_loss=tensors["first_loss"],
        exploded=tensors["exploded"],
    )


def _compare(path: Path, recorded: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for name in dict.fromkeys([*wanted, *recorded]):  # the most telling ones first
        if recorded.get(name) != wanted.get(name):
            raise RunError(
                f"{path.parent.parent} was started with {name} = {recorded.get(name)!r:.200}, "
                f"and is to go on with {wanted.get(name)!r:.200}",
                why="the result would belong to neither of the two experiments",
                instead="the experiment as it was started, or a new run directory",
            )


def _damaged(path: Path, what: str) -> RunError:
    return RunError(
        f"the checkpoint {path} is damaged: {what}",
        why="going on from it would silently give other numbers",
        instead=f"remove {path} to go on from the checkpoint before, if there is one",
    )


def _number(path: Path) -> int:
    return int(path.name.removeprefix("round-"))


def _hidden(path: Path) -> Path:
    """The name of a checkpoint that is not there yet, or no more."""
    return path.with_name(f".{path.name}.{os.getpid()}")


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
