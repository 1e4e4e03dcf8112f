"""What `--over` means."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from hanse import ConfigError
from hanse.config import ExperimentFile
from hanse.config.grid import axis, grid

BASE = ExperimentFile(
    {
        "data": {"source": "smartwatch"},
        "model": {"name": "mlp", "hidden": [4]},
        "strategy": {"name": "fedavg", "lr": 0.1},
    },
    Path(),
)


@pytest.mark.parametrize(
    ("text", "name", "values"),
    [
        ("strategy.lr=0.1,0.3", "strategy.lr", [0.1, 0.3]),
        ("strategy.name=fedavg,fedprox", "strategy.name", ["fedavg", "fedprox"]),
        ("model.hidden=[4],[8, 8]", "model.hidden", [[4], [8, 8]]),
        ('a.b={c = "x,y", d = [1, 2]}, adam', "a.b", [{"c": "x,y", "d": [1, 2]}, "adam"]),
        ("a = 1 , 'two, three' ,true", "a", [1, "two, three", True]),
        ("a.b=5", "a.b", [5]),
    ],
)
def test_values_are_split_at_commas_of_their_own(text: str, name: str, values: list[Any]) -> None:
    assert axis(text) == (name, values)


PLAIN = st.recursive(
    st.booleans() | st.integers(-9, 9) | st.text("ab ,{}[]=.", min_size=1, max_size=5),
    lambda inner: st.lists(inner, min_size=1, max_size=3),
    max_leaves=4,
)


@given(st.lists(PLAIN, min_size=1, max_size=4))
def test_what_toml_writes_is_read_back(values: list[Any]) -> None:
    texts = [tomli_w.dumps({"x": value}).removeprefix("x = ") for value in values]
    assert axis(f"a.b={','.join(texts)}") == ("a.b", values)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_a_grid_has_every_combination_once(sizes: list[int]) -> None:
    over = {f"run.k{place}": list(range(size)) for place, size in enumerate(sizes)}
    cells = grid(BASE, over)
    assert len(cells) == math.prod(sizes)
    assert len({tuple(cell.settings.values()) for cell in cells}) == len(cells)
    for cell in cells:
        for name, value in cell.settings.items():
            assert cell.file.content["run"][name.removeprefix("run.")] == value
    assert "run" not in BASE.content


def test_a_parameter_of_one_strategy_is_left_out_of_the_others() -> None:
    over: dict[str, list[Any]] = {"strategy.name": ["fedavg", "fedprox"], "strategy.mu": [0.1, 1.0]}
    assert [dict(cell.settings) for cell in grid(BASE, over)] == [
        {"strategy.name": "fedavg"},
        {"strategy.name": "fedprox", "strategy.mu": 0.1},
        {"strategy.name": "fedprox", "strategy.mu": 1.0},
    ]


def test_so_is_one_that_the_file_gives() -> None:
    strategy = {"name": "fedprox", "mu": 0.1, "lr": 0.1}
    file = ExperimentFile({**BASE.content, "strategy": strategy}, Path())
    cells = grid(file, {"strategy.name": ["fedavg", "fedprox"]})
    assert [cell.file.content["strategy"] for cell in cells] == [
        {"name": "fedavg", "lr": 0.1},
        strategy,
    ]


def test_a_parameter_that_no_strategy_knows_is_an_error() -> None:
    over: dict[str, list[Any]] = {
        "strategy.name": ["fedavg", "fedprox"],
        "strategy.mux": [0.1, 1.0],
    }
    with pytest.raises(ConfigError, match="mux"):
        [cell.file.experiment() for cell in grid(BASE, over)]


def test_what_goes_with_any_strategy_stays(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import hanse\n\n\ndef open_ended(**options):\n    return hanse.fedavg(**options)\n"
    )
    strategy = {"name": "fedavg", "lr": 0.1, "partial": "keep"}
    file = ExperimentFile({**BASE.content, "strategy": strategy}, tmp_path)
    cells = grid(file, {"strategy.name": ["fedavg", "own.py:open_ended"]})
    assert [cell.file.content["strategy"]["partial"] for cell in cells] == ["keep", "keep"]
