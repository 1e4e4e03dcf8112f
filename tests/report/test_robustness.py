"""Whatever the files hold: a page, or a RunError that names the place; nothing else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.core.errors import RunError
from hanse.report.html import render
from hanse.report.reading import read

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PAGE = "</html>"
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([2**31, 2**53, 2**64, 10**400])
    | st.floats()
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


def places(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something could be put in the place of something in `value`."""
    found = [path] if path else []
    if isinstance(value, dict):
        for key, inner in value.items():
            found += places(inner, (*path, key))
    elif isinstance(value, list):
        for key, inner in enumerate(value[:2]):
            found += places(inner, (*path, key))
    return found


def replaced(value: Any, path: tuple[Any, ...], new: object) -> Any:  # noqa: ANN401
    """`value` with `new` at `path`."""
    if not path:
        return new
    copy = list(value) if isinstance(value, list) else dict(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


def outcome(run: Path) -> str:
    """`PAGE` where the run makes a page, else what was found wrong."""
    try:
        page = render(read(run))
    except RunError as error:
        return error.found
    return page.encode("utf-8")[-7:].decode()


@settings(max_examples=100)
@given(data=st.data())
@pytest.mark.parametrize("name", ["run.json", "metrics.jsonl", "clients.jsonl", "baselines.json"])
def test_any_value_anywhere_is_shown_or_refused(
    shared: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    data: st.DataObject,
) -> None:
    run = shared("tiny")
    texts = {file.name: file.read_text("utf-8") for file in run.iterdir()}
    rows = texts[name].splitlines()
    at = data.draw(st.integers(0, len(rows) - 1))
    value = json.loads(rows[at])
    path = data.draw(st.sampled_from(places(value)))
    rows[at] = json.dumps(replaced(value, path, data.draw(anything)))
    changed = tmp_path_factory.mktemp("changed")
    for file, text in (texts | {name: "\n".join(rows) + "\n"}).items():
        (changed / file).write_text(text, "utf-8")
    found = outcome(changed)
    assert found == PAGE or name in found


@settings(max_examples=100)
@given(cut=st.floats(0, 1), name=st.sampled_from(["metrics.jsonl", "clients.jsonl"]))
def test_a_file_cut_anywhere_still_makes_a_page(
    shared: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
    cut: float,
    name: str,
) -> None:
    run = shared("tiny")
    changed = tmp_path_factory.mktemp("cut")
    for file in run.iterdir():
        content = file.read_bytes()
        if file.name == name:
            content = content[: int(cut * len(content))]
        (changed / file.name).write_bytes(content)
    assert render(read(changed)).endswith("</html>")


@pytest.mark.parametrize("name", ["metrics.jsonl", "clients.jsonl", "baselines.json"])
@pytest.mark.parametrize("kind", ["small", "regression", "diverged"])
def test_every_optional_file_may_be_missing(
    make: Callable[..., Path], kind: str, name: str
) -> None:
    run = make(kind)
    (run / name).unlink()
    assert render(read(run)).endswith("</html>")


def test_a_group_may_have_seeds_that_went_differently(make: Callable[..., Path]) -> None:
    make("small", "group/seed-0", seed=0, rounds=10)
    make("small", "group/seed-1", seed=1, rounds=10, status="diverged", stop=6)
    make("small", "group/seed-2", seed=2, rounds=10, status="running", stop=0, baselines=False)
    group = make("one", "group/seed-3", seed=3, rounds=10).parent
    page = render(read(group))
    assert "Training with 4 seeds diverged after 0 of 10 rounds" in page
    assert "Seed 1: " in page


def test_clients_without_examples_count_for_nothing(make: Callable[..., Path]) -> None:
    run = make("tiny")
    row = {
        "round": 99,
        "split": "test",
        "clients": [0, 1, 2],
        "examples": [0, 0, 10],
        "metrics": {"loss": [None, None, 0.5], "accuracy": [0.0, None, 0.8]},
    }
    with (run / "clients.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    assert read(run).first.last["test"].metrics["accuracy"] == (None, None, 0.8)
    assert "2 of the 3 training clients have no finite accuracy" in render(read(run))
