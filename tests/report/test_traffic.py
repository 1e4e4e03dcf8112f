"""What a run's report says of its traffic is what its rounds counted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from tests.cli.terminal import hanse as command
from tests.runs.small_runs import experiment

import hanse
from hanse import Full, Stragglers, fedavg
from hanse.core.errors import ConfigError, RunError
from hanse.report.clients import client_table
from hanse.report.html import render
from hanse.report.reading import read
from hanse.report.traffic import Link, took, traffic, traffic_table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def write(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def test_clients_add_up_to_rounds_and_rounds_to_the_run(tmp_path: Path) -> None:
    made = experiment(strategy=fedavg(), participation=Full(), rounds=4, stragglers=Stragglers(0.5))
    hanse.run(made, tmp_path / "run")
    found = read(tmp_path / "run")
    rows = [row for row in found.first.rounds if row.round]
    ups, downs = (
        sum(getattr(row, name) or 0 for row in rows) for name in ("bytes_up", "bytes_down")
    )
    clients = found.first.traffic
    assert clients is not None
    assert sum(up for up, _ in clients.values()) == ups > 0
    assert sum(down for _, down in clients.values()) == downs > 0
    assert len({down for _, down in clients.values()}) == 1  # stragglers are sent the model, too
    assert len({up for up, _ in clients.values()}) > 1
    total = traffic(found)
    assert total is not None
    assert (total.up, total.down, total.rounds) == (ups, downs, 4)
    messages = sum(row.accepted or 0 for row in rows)
    assert total.message_up * messages == pytest.approx(ups)
    table = client_table(found, "test")
    assert table is not None
    assert {(row.sent, row.received) for row in table.rows} == set(clients.values())
    assert "What travelled" in render(found)


def test_a_page_of_an_older_run_says_nothing_of_traffic(
    make: Callable[..., Path],
) -> None:
    found = read(make("small"))
    assert found.first.traffic is None
    table = client_table(found, "test")
    assert table is not None
    assert not table.traffic
    assert ">Sent<" not in render(found)
    assert traffic_table(found) is not None  # rounds had it already


def test_messages_of_known_sizes_take_known_times(make: Callable[..., Path]) -> None:
    found = traffic_table(read(make("small")))  # 872 bytes up and 868 down for each client
    assert found is not None
    up, down = found.rows
    assert up[3:] == ("872\u202fB", "7\u202fms", "0.7\u202fms", "0.07\u202fms")
    assert down[3:] == ("868\u202fB", "6.9\u202fms", "0.69\u202fms", "0.069\u202fms")


def test_sizes_that_are_not_the_clients_are_refused(make: Callable[..., Path]) -> None:
    path = make("small") / "clients.jsonl"
    rows = lines(path)
    line = next(row for row in rows if row["split"] == "train")
    clients = line["clients"]
    assert isinstance(clients, list)
    for bad in (
        {"up": [1], "down": 2},
        {"up": [1] * len(clients)},
        {"up": [-1] * len(clients), "down": 2},
    ):
        line["bytes"] = bad
        write(path, rows)
        with pytest.raises(RunError, match="bytes"):
            read(path.parent)


@pytest.mark.parametrize(
    ("text", "up", "down"), [("10", 10, 10), ("10/50", 10, 50), ("0.5/2e3", 0.5, 2000)]
)
def test_a_bandwidth_is_read(text: str, up: float, down: float) -> None:
    assert Link.of(text) == Link(up, down)


@pytest.mark.parametrize("text", ["", "fast", "0", "-1", "nan", "inf", "1/0", "1/2/3", "1/", "/"])
def test_what_is_no_bandwidth_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="bandwidth"):
        Link.of(text)


def test_a_megabyte_takes_eight_seconds_at_a_megabit() -> None:
    assert Link(1, 4).seconds(1_000_000, 2_000_000) == pytest.approx(8 + 4)
    assert [took(s) for s in (None, 0.0012, 0.5, 12.345, 2000)] == [
        "–", "1.2\u202fms", "0.5\u202fs", "12.3\u202fs", "2,000\u202fs",
    ]  # fmt: skip


def test_the_terminal_says_what_travelled_and_how_long_it_takes(make: Callable[..., Path]) -> None:
    path = make("small")
    plain = command("report", str(path))
    assert plain.code == 0
    assert "a client's message: 872\u202fB up, 868\u202fB down\n" in plain.out
    timed = command("report", str(path), "--bandwidth", "0.001/1")
    assert timed.code == 0
    assert "868\u202fB down, which takes 6.98\u202fs and 6.9\u202fms at" in timed.out
    wrong = command("report", str(path), "--bandwidth", "fast")
    assert wrong.code == 2
    assert "the bandwidth 'fast'" in wrong.err
