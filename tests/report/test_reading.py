"""Run directories are read as they are: what is missing is told, never guessed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from hanse.core.errors import RunError
from hanse.report.reading import read

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changes), "utf-8")


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"there is no folder .*nowhere"):
        read(tmp_path / "nowhere")


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "seed-0").mkdir()
    with pytest.raises(RunError, match=r"neither a run\.json nor folders seed-0"):
        read(tmp_path)


@pytest.mark.parametrize("found", [2, None, "1", 0])
def test_an_unknown_format_is_refused(make: Callable[..., Path], found: object) -> None:
    run = make("bare")
    edit(run / "run.json", format=found)
    with pytest.raises(RunError, match="format"):
        read(run)


@pytest.mark.parametrize("name", ["metrics.jsonl", "clients.jsonl"])
def test_a_malformed_line_is_named_by_file_and_number(make: Callable[..., Path], name: str) -> None:
    run = make("bare")
    file = run / name
    rows = file.read_text("utf-8").splitlines()
    rows[2] = rows[2][:-5]
    file.write_text("\n".join(rows) + "\n", "utf-8")
    with pytest.raises(RunError, match=rf"{name}, line 3 is not JSON"):
        read(run)


@pytest.mark.parametrize("cut", [1, 7, 40])
def test_a_truncated_last_line_is_passed_over(make: Callable[..., Path], cut: int) -> None:
    run = make("stopped")
    whole = read(run).first
    for name in ("metrics.jsonl", "clients.jsonl"):
        file = run / name
        file.write_bytes(file.read_bytes().rstrip(b"\n")[:-cut])
    found = read(run).first
    assert found.rounds == whole.rounds[:-1]
    assert found.last["test"] == whole.last["test"]


def test_a_last_line_cut_inside_a_letter_is_passed_over(make: Callable[..., Path]) -> None:
    run = make("bare")
    count = len(read(run).first.rounds)
    with (run / "metrics.jsonl").open("ab") as file:
        file.write('{"round": 61, "name": "Ü'.encode()[:-1])
    assert len(read(run).first.rounds) == count


def test_a_last_line_without_a_break_counts_where_it_is_whole(make: Callable[..., Path]) -> None:
    run = make("bare")
    count = len(read(run).first.rounds)
    file = run / "metrics.jsonl"
    file.write_bytes(file.read_bytes().rstrip(b"\n"))
    assert len(read(run).first.rounds) == count


def test_rounds_written_again_after_a_resumption_replace_the_first(
    make: Callable[..., Path],
) -> None:
    run = make("bare", rounds=12, every=3)
    first = read(run).first
    for name in ("metrics.jsonl", "clients.jsonl"):
        file = run / name
        rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
        again = [row | {"round": row["round"]} for row in rows if 7 <= row["round"] <= 9]
        for row in again:
            row["train_loss"] = 123.0
        with file.open("a", encoding="utf-8") as out:
            out.writelines(json.dumps(row) + "\n" for row in again)
    found = read(run).first
    assert [row.round for row in found.rounds] == list(range(10))
    assert [row.train_loss for row in found.rounds[7:]] == [123.0] * 3
    assert found.last["test"].round == 9
    assert max(found.curves["train"]) == 9
    assert set(found.taken_part.values()) == {9}
    assert set(first.taken_part.values()) == {12}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"round": "three"}', "'round' is \"three\""),
        ('{"round": -1}', "'round' is -1"),
        ('{"round": true}', "'round' is true"),
        ("{}", "'round' is null"),
        ("[1]", r"holds \[1\]"),
        ('{"round": 99, "test": 3}', "'test' holds 3"),
        ('{"round": 99, "test": {"loss": "low"}}', "'loss' is \"low\""),
        ('{"round": 99, "dropped": [{"name": "a"}]}', r"dropped\[0\]: 'client' is null"),
    ],
)
def test_values_of_the_wrong_kind_are_named(
    make: Callable[..., Path], text: str, complaint: str
) -> None:
    run = make("bare")
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(text + "\n")
    with pytest.raises(RunError, match=complaint):
        read(run)


@pytest.mark.parametrize(
    "line",
    [
        {"split": "test", "clients": [0, 1], "examples": [1], "metrics": {}},
        {"split": "test", "clients": [0], "examples": [1], "metrics": {"loss": [1.0, 2.0]}},
        {"split": "test", "clients": [0], "examples": [1], "metrics": {"loss": ["1"]}},
        {"split": "test", "clients": [-1], "examples": [1], "metrics": {}},
        {"split": "test", "clients": [0.5], "examples": [1], "metrics": {}},
        {"split": "other", "clients": [], "examples": [], "metrics": {}},
    ],
)
def test_lists_of_clients_have_to_fit(make: Callable[..., Path], line: dict[str, object]) -> None:
    run = make("bare")
    with (run / "clients.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"round": 99} | line) + "\n")
    with pytest.raises(RunError, match=r"clients\.jsonl, line"):
        read(run)


@pytest.mark.parametrize("key", ["clients", "train_sizes", "label_counts"])
def test_data_lists_have_one_item_for_each_client(make: Callable[..., Path], key: str) -> None:
    run = make("bare")
    data = json.loads((run / "run.json").read_bytes())["data"]
    data[key] = data[key][:-1]
    edit(run / "run.json", data=data)
    with pytest.raises(RunError, match=f"'{key}' is .*(?s:.)*a list of 5 items"):
        read(run)


def test_numbers_that_are_not_finite_become_nothing(make: Callable[..., Path]) -> None:
    run = make("bare", rounds=1)
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"round": 2, "test": {"loss": NaN, "accuracy": 1e999}}\n')
        file.write(f'{{"round": 3, "test": {{"loss": 1{"0" * 400}}}}}\n')
    with (run / "clients.jsonl").open("a", encoding="utf-8") as file:
        row = {"round": 2, "split": "test", "clients": [0, 1], "examples": [1, 1]}
        file.write(json.dumps(row)[:-1] + ', "metrics": {"loss": [Infinity, 0.5]}}\n')
    found = read(run).first
    assert found.rounds[2].metrics["test"] == {"loss": None, "accuracy": None}
    assert found.rounds[3].metrics["test"] == {"loss": None}
    assert found.last["test"].metrics["loss"] == (None, 0.5)


def test_an_accuracy_without_a_finite_loss_is_no_accuracy(shared: Callable[[str], Path]) -> None:
    run = read(shared("diverged")).first
    assert run.rounds[-1].metrics["test"]["accuracy"] is not None
    assert run.overall("test", "accuracy")[0] == 21
    assert run.last["test"].round == 21
    assert run.curves["test"][23] == {}


def test_a_group_is_read_in_the_order_of_its_seeds(make: Callable[..., Path]) -> None:
    for seed in (10, 2, 0):
        make("bare", f"group/seed-{seed}", seed=seed, rounds=2)
    group = read(make("bare", "group/other", rounds=2).parent)
    assert [run.info.seed for run in group.runs] == [0, 2, 10]
    assert group.group


def test_names_are_printable_short_and_cannot_turn_a_sentence(
    shared: Callable[[str], Path],
) -> None:
    names = read(shared("nasty")).first.info.data.clients
    assert names is not None
    assert names[0] == "<script>alert(1)</script>"
    assert len(names[4]) == 120
    assert names[5] == "a\ufffdb\ufffdc\ufffdd"


def test_clients_without_names_are_numbered(shared: Callable[[str], Path]) -> None:
    data = read(shared("big")).first.info.data
    assert data.client_name("test", 17) == "client 17"
    assert data.client_name("unseen", 0) == "subject 20001"
    assert data.client_name("unseen", 999) == "unseen client 999"


def test_an_unfinished_run_without_any_round_is_read(make: Callable[..., Path]) -> None:
    run = make("running")
    for name in ("metrics.jsonl", "clients.jsonl"):
        (run / name).unlink()
    found = read(run)
    assert found.first.rounds == ()
    assert found.metrics == ()
    assert found.splits == ()
