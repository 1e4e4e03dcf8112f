"""Files that are whole or absent, lines that are whole or not there."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from hanse import RunError, ServerAdam, scaffold
from hanse.memory import ClientMemory
from hanse.models import Task
from hanse.round import initial_state
from hanse.storage import RunDirectory, append_lines, to_json, write_atomically, writing
from hanse.storage.checkpoint import (
    checkpoints,
    flatten_state,
    latest_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from hanse.storage.files import keep_lines, read_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from hanse.memory import Slots
    from hanse.round import FederationState

LINES = ({"round": 0, "name": "Zoë 株式会社"}, {"round": 1}, {"round": 2, "value": None})


def _all(record: Mapping[str, Any]) -> bool:
    return int(record["round"]) >= 0


# ------------------------------------------------------------------------------ lines
def test_whatever_byte_the_last_line_ends_at_the_lines_before_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    append_lines(path, LINES)
    whole = path.read_bytes()
    start = whole[:-1].rindex(b"\n") + 1
    for end in range(start, len(whole)):
        path.write_bytes(whole[:end])
        keep_lines(path, _all)
        assert path.read_bytes() == whole[:start], end
        append_lines(path, LINES[2:])
        assert path.read_bytes() == whole


def test_lines_that_are_kept_are_kept_to_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"round":  1 }\n{ "round": 2}\n')
    before = path.stat().st_mtime_ns
    keep_lines(path, _all)
    assert path.stat().st_mtime_ns == before  # nothing to drop, nothing to write
    keep_lines(path, lambda record: int(record["round"]) < 2)
    assert path.read_bytes() == b'{"round":  1 }\n'


def test_a_file_that_is_not_there_has_no_lines(tmp_path: Path) -> None:
    keep_lines(tmp_path / "metrics.jsonl", _all)
    append_lines(tmp_path / "metrics.jsonl", [])
    assert not list(tmp_path.iterdir())
    assert RunDirectory(tmp_path).metrics() == []


class _Full:
    """A disk that takes some bytes and then no more."""

    def __init__(self, room: int) -> None:
        self.room = room

    def fsync(self, handle: int) -> None:
        if os.fstat(handle).st_size > self.room:
            raise OSError(28, "No space left on device")


@pytest.mark.parametrize("room", [0, 10, 70])
def test_what_cannot_be_made_durable_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    path = tmp_path / "metrics.jsonl"
    append_lines(path, LINES[:2])
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", _Full(room).fsync)
    with pytest.raises(RunError, match="No space left on device") as caught:
        append_lines(path, LINES * 5)
    assert str(path) in caught.value.found
    assert path.read_bytes() == before


def test_a_file_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.json"
    write_atomically(path, "old")
    monkeypatch.setattr(os, "fsync", _Full(2).fsync)
    with pytest.raises(RunError, match="cannot be written"):
        write_atomically(path, "new and longer")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


@pytest.mark.parametrize(
    ("number", "words"),
    [(28, "free some space"), (13, "may write to"), (30, "written to"), (5, "a path")],
)
def test_each_refusal_of_the_system_has_its_remedy(tmp_path: Path, number: int, words: str) -> None:
    with pytest.raises(RunError) as caught, writing(tmp_path / "file"):
        raise OSError(number, os.strerror(number))
    assert caught.value.found == f"{tmp_path / 'file'} cannot be written"
    assert os.strerror(number) in caught.value.why
    assert words in caught.value.instead


# ------------------------------------------------------------------------------- JSON
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def _finite(value: object) -> object:
    if isinstance(value, float) and value - value != 0:
        return None
    if isinstance(value, list):
        return [_finite(v) for v in value]
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    return value


@given(VALUES)
def test_json_is_one_line_and_reads_back_but_for_what_is_not_finite(value: object) -> None:
    text = to_json(value)
    assert "\n" not in text
    assert json.loads(text.encode()) == _finite(value)


@given(arrays("float64", (2, 3)))
def test_arrays_and_tensors_are_lists(values: NDArray[np.float64]) -> None:
    assert to_json(values) == to_json(torch.from_numpy(values)) == to_json(values.tolist())


def test_a_name_that_is_not_utf8_is_written_as_an_escape(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    append_lines(tmp_path / "file", [{"name": name}])
    write_atomically(tmp_path / "one", to_json({"name": name}))
    assert json.loads((tmp_path / "file").read_text("utf-8")) == {"name": name}
    assert read_json(tmp_path / "one") == {"name": name}


@pytest.mark.parametrize("content", [b"{", b"", b"[1]", b"\xff"])
def test_what_is_no_json_object_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(RunError) as caught:
        read_json(tmp_path / "run.json")
    assert str(tmp_path / "run.json") in caught.value.found


# ------------------------------------------------------------------------- checkpoints
def _state(number: int, clients: dict[int, float] | None = None) -> FederationState:
    """SCAFFOLD's state, Adam at the server, and what some clients remember."""
    task = Task.of(nn.Linear(2, 1))
    start = initial_state(scaffold(server=ServerAdam()), task)
    rows: dict[int, Slots] = {
        client: ({}, {"control": torch.full((3,), value)}, {})
        for client, value in (clients or {}).items()
    }
    return replace(start, round=number, clients=ClientMemory(rows))


@pytest.mark.parametrize("clients", [{}, {4: 0.5}, {11: 1.0, 2: -0.0, 7: float("nan")}])
def test_a_state_is_read_back_as_it_was_written(tmp_path: Path, clients: dict[int, float]) -> None:
    state = _state(12, clients)
    path = write_checkpoint(tmp_path, state, {"seed": 1})
    again = read_checkpoint(path, {"seed": 1})
    assert path.name == "round-000012"
    assert again.round == 12
    assert sorted(again.clients.rows) == sorted(clients)
    left, right = flatten_state(state), flatten_state(again)
    assert left.keys() == right.keys()
    assert all(v.numpy().tobytes() == right[k].numpy().tobytes() for k, v in left.items())
    assert (again.first_loss, again.exploded) == (state.first_loss, state.exploded)


def test_the_last_two_checkpoints_are_kept_in_the_order_of_their_rounds(tmp_path: Path) -> None:
    for number in (0, 9, 10, 999_999, 1_000_000):
        write_checkpoint(tmp_path, _state(number), {})
    assert [p.name for p in checkpoints(tmp_path)] == ["round-999999", "round-1000000"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["round-1000000", "round-999999"]
    assert latest_checkpoint(tmp_path) == tmp_path / "round-1000000"


def test_a_checkpoint_that_is_there_is_not_written_again(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, _state(3), {})
    before = path.stat().st_ino
    assert write_checkpoint(tmp_path, _state(3), {}) == path
    assert path.stat().st_ino == before


def test_a_checkpoint_that_cannot_be_written_leaves_those_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = write_checkpoint(tmp_path, _state(1), {})
    monkeypatch.setattr(os, "fsync", _Full(0).fsync)
    with pytest.raises(RunError, match="round-000002 cannot be written"):
        write_checkpoint(tmp_path, _state(2), {})
    assert list(tmp_path.iterdir()) == [before]
    read_checkpoint(before, None)


def test_what_differs_from_the_fingerprint_is_named(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "checkpoints", _state(1), {"seed": 1, "loss": "a"})
    read_checkpoint(path, None)
    for other, name in (({"seed": 2, "loss": "a"}, "seed"), ({"seed": 1}, "loss")):
        with pytest.raises(RunError, match=f"was started with {name} = "):
            read_checkpoint(path, other)
