"""Accuracy against bytes: what is run in which order, and what the tables make of it."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
from benchmarks.compression import settings
from benchmarks.compression.__main__ import read, run_missing
from benchmarks.compression.pictures import draw
from benchmarks.compression.settings import DATA, SEEDS, SETTINGS, Cell, Record, plan, run
from benchmarks.compression.tables import PLAIN, lines, section
from tests.data import little_mnist

import hanse
from hanse.data import Federation, idx_federation

if TYPE_CHECKING:
    from pathlib import Path

ROUNDS = 3


@pytest.fixture
def little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    little_mnist.folder(tmp_path / "little", little_mnist.CONTENTS)

    def federation(data: str, seed: int) -> Federation:
        return idx_federation(tmp_path / "little", 10, seed=seed)

    monkeypatch.setattr(settings, "_federation", federation)
    monkeypatch.setattr(settings, "FRACTION", 0.5)
    monkeypatch.setattr(settings, "ROUNDS", ROUNDS)
    monkeypatch.setattr(settings, "LAST", 2)
    return tmp_path


def test_a_seed_is_finished_before_the_next_is_begun() -> None:
    cells = list(plan())
    assert len(set(cells)) == len(cells) == len(SEEDS) * len(DATA) * len(SETTINGS)
    first = list(takewhile(lambda cell: cell.seed == SEEDS[0], cells))
    assert {(c.data, c.setting) for c in first} == {(d, s) for d in DATA for s in SETTINGS}


def test_a_run_counts_the_messages_and_is_not_run_again(
    little: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = [Cell("mnist", name, 0) for name in (PLAIN, "8 bits", "top 1 %, 8 bits")]
    monkeypatch.setattr("benchmarks.compression.__main__.plan", lambda: iter(cells))
    monkeypatch.setattr(settings, "_model", lambda: hanse.models.softmax_regression(12, 10))
    results = little / "results.jsonl"
    run_missing(results)
    found = read(results)
    assert [record.cell for record in found] == cells
    assert [record.messages for record in found] == [ROUNDS * 5] * 3
    assert found[0].up > found[1].up > found[2].up
    assert all(len(record.accuracies) == 2 for record in found)
    again = run(cells[1])
    assert (again.accuracies, again.up) == (found[1].accuracies, found[1].up)
    capsys.readouterr()
    run_missing(results)
    assert not capsys.readouterr().out


def record(setting: str, seed: int, accuracy: float, up: int, data: str = "mnist") -> Record:
    return Record(
        data, setting, seed, "", 600, [accuracy] * 20, up, 10, 0.5, "2026-01-01", "m", "v", "e"
    )


def test_gaps_are_to_the_uncompressed_run_of_the_same_seed() -> None:
    found = lines(
        [
            record(PLAIN, 0, 0.9, 1000),
            record(PLAIN, 1, 0.8, 1000),
            record("8 bits", 0, 0.89, 250),
            record("8 bits", 1, 0.81, 250),
            record("4 bits", 2, 0.5, 100),  # nothing to compare it with
        ],
        "mnist",
    )
    plain, eight = found
    assert [line.setting for line in found] == [PLAIN, "8 bits"]
    assert list(plain.gap) == [0.0, 0.0]
    assert eight.gap == pytest.approx((-1, 1))
    assert eight.share == pytest.approx(0.25)
    assert eight.message == 25


def test_tables_and_pictures_show_what_is_finished_and_no_more() -> None:
    records = [record(PLAIN, 0, 0.9, 1000), record("8 bits", 0, 0.89, 250)]
    text = section(records)
    assert "| 8 bits | 25 | 25.00 % | 89.00 | -1.00 | 1 |" in text
    assert "Fashion-MNIST" not in text
    pictures = draw(records)
    assert list(pictures) == ["compression-mnist.svg"]
    root = ET.fromstring(pictures["compression-mnist.svg"])  # noqa: S314 - our own
    assert len(root.findall(".//{*}circle")) == 2 + 2  # and two of the legend
