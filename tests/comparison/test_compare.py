"""What a comparison says of runs whose every number is known."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from scipy import stats
from tests.comparison.conftest import EXAMPLES, NAMES

import hanse
from hanse.comparison import Comparison, compare
from hanse.comparison.tables import overview, paired, sentences
from hanse.comparison.tables import settings as settings_table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Make = "Callable[..., Path]"
START = (0.1, 0.1, 0.1, 0.1)
FIRST = (0.5, 0.5, 0.5, 0.5)
OTHER = (0.6, 0.2, 0.5, 0.7)


@pytest.fixture
def two(made: Callable[..., Path]) -> Comparison:
    return compare(made("first", START, FIRST), made("other", START, OTHER))


def test_clients_are_compared_with_themselves(two: Comparison) -> None:
    found = two.contrast(1, "test", "accuracy")
    assert found is not None
    assert [(pair.name, pair.examples) for pair in found.pairs] == [
        ("ben", 20), ("cleo", 30), ("anna", 10), ("dai", 40),
    ]  # fmt: skip
    differences = [pair.difference for pair in found.pairs]
    assert differences == pytest.approx([-0.3, 0.0, 0.1, 0.2])
    assert (found.better, found.worse) == (2, 1)
    assert [pair.name for pair in found.losers] == ["ben"]
    expected = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert (found.clients.low, found.clients.high) == pytest.approx((expected.low, expected.high))
    assert found.sign == stats.binomtest(2, 3).pvalue
    weighted = sum(n * (b - a) for n, a, b in zip(EXAMPLES, FIRST, OTHER, strict=True)) / 100
    assert found.by_seed is not None
    assert found.by_seed.mean == pytest.approx(weighted)
    assert found.seeds == (0,)


def test_the_other_way_round_every_difference_is_turned(made: Callable[..., Path]) -> None:
    runs = made("first", START, FIRST), made("other", START, OTHER)
    one = compare(*runs).contrast(1, "test", "accuracy")
    two = compare(*reversed(runs)).contrast(1, "test", "accuracy")
    assert one is not None
    assert two is not None
    turned = {pair.name: -pair.difference for pair in two.pairs}
    assert {pair.name: pair.difference for pair in one.pairs} == turned
    assert (one.better, one.worse, one.sign) == (two.worse, two.better, two.sign)
    assert one.clients.mean == -two.clients.mean


def test_less_loss_is_better(made: Callable[..., Path]) -> None:
    runs = [made(n, START, v, metric="loss") for n, v in (("first", FIRST), ("other", OTHER))]
    found = compare(*runs).contrast(1, "test", "loss")
    assert found is not None
    assert (found.better, found.worse) == (1, 2)
    assert [pair.name for pair in found.losers] == ["dai", "anna"]


def test_clients_without_a_number_in_both_are_left_out(made: Callable[..., Path]) -> None:
    hole = (None, 0.2, None, 0.7)
    found = compare(made("first", START, FIRST), made("other", START, hole))
    contrast = found.contrast(1, "test", "accuracy")
    assert contrast is not None
    assert {pair.name for pair in contrast.pairs} == {"ben", "dai"}


def test_the_words_say_what_the_numbers_are(two: Comparison) -> None:
    said = " ".join(sentences(two)).replace("\u202f", " ")
    assert "53.0 % with other, 50.0 % with first" in said
    assert "2 of 4 clients are served better, 1 worse (ben −30.0 pts)" in said
    assert "On average over clients 0.0 pts (95 % interval −" in said
    columns = [[cell.replace("\u202f", " ") for cell in row] for row in overview(two).rows]
    assert {row[0]: row[1] for row in columns} == {
        "Accuracy": "50.0 %", "Accuracy: best": "50.0 % (round 1)", "Sent up": "400 B",
        "Sent down": "600 B", "A round": "500 ms", "Rounds": "1", "Status": "finished",
    }  # fmt: skip
    assert paired(two).rows[0][0] == "other: accuracy, training"


def test_when_a_target_was_reached_and_what_it_took(made: Callable[..., Path]) -> None:
    slow = made("slow", START, (0.3,) * 4, (0.4,) * 4, FIRST)
    never = made("never", START, (0.3,) * 4, (0.4,) * 4, (0.45,) * 4)
    found = compare(slow, never, target="accuracy=0.4")
    # Round 0 takes half a second as well; nothing travels before round 1.
    assert _row(found, "To accuracy 40.0 %") == ["2 rounds, 2 kB, 1.5 s"] * 2
    found = compare(slow, never, target="test.accuracy=0.46")
    assert _row(found, "To accuracy 46.0 %")[1] == "not reached"


def _row(found: Comparison, name: str) -> list[str]:
    rows = [[cell.replace("\u202f", " ") for cell in row] for row in overview(found).rows]
    return next(row[1:] for row in rows if row[0] == name)


def test_runs_from_before_bytes_were_counted_have_none(made: Callable[..., Path]) -> None:
    found = compare(made("old", START, FIRST, sent=False), made("new", START, OTHER))
    assert _row(found, "Sent up") == ["–", "400 B"]
    assert "for what was sent" in found.html().lower()


# ------------------------------------------------------------------------------------ seeds
def _seeded(made: Callable[..., Path], name: str, seeds: dict[int, tuple[float, ...]]) -> Path:
    paths = [made(f"{name}/seed-{k}", START, values, seed=k) for k, values in seeds.items()]
    return paths[0].parent


def test_seeds_are_paired(made: Callable[..., Path]) -> None:
    first = _seeded(made, "first", {0: (0.1, 0.2, 0.3, 0.4), 1: (0.5, 0.6, 0.7, 0.8)})
    other = _seeded(made, "other", {1: (0.6, 0.6, 0.7, 0.8), 0: (0.4, 0.2, 0.3, 0.4), 2: FIRST})
    found = compare(first, other)
    contrast = found.contrast(1, "test", "accuracy")
    assert contrast is not None
    by_name = {pair.name: pair.difference for pair in contrast.pairs}
    assert by_name == pytest.approx({"anna": 0.2, "ben": 0, "cleo": 0, "dai": 0})
    assert contrast.by_seed is not None
    # Anna has a tenth of the examples: +0.3 and +0.1 of hers.
    assert contrast.by_seed.mean == pytest.approx(0.02)
    expected = stats.ttest_1samp([0.03, 0.01], 0).confidence_interval(0.95)
    assert contrast.by_seed.high == pytest.approx(expected.high)
    assert "first and other are paired by the 2 seeds that both have." in found.warnings


def test_without_a_common_seed_means_are_compared_and_it_says_so(
    made: Callable[..., Path],
) -> None:
    first = _seeded(made, "first", {0: FIRST, 1: (0.7, 0.5, 0.5, 0.5)})
    other = made("other", START, OTHER, seed=9)
    found = compare(first, other)
    contrast = found.contrast(1, "test", "accuracy")
    assert contrast is not None
    assert {p.name: p.difference for p in contrast.pairs}["anna"] == pytest.approx(0.0)
    assert (contrast.seeds, contrast.by_seed) == ((), None)
    assert any("no seed in common" in text for text in found.warnings)


def test_where_seeds_have_other_clients_they_are_compared_within_a_seed(
    made: Callable[..., Path],
) -> None:
    for name in ("first", "other"):
        for seed, names in ((0, ["a", "b", "c", "d"]), (1, ["e", "f", "g", "h"])):
            values = OTHER if name == "other" and seed else FIRST
            data = {"clients": names}
            made(f"{name}/seed-{seed}", START, values, seed=seed, data=data)
    root = made("unused", START, FIRST).parent
    contrast = compare(root / "first", root / "other").contrast(1, "test", "accuracy")
    assert contrast is not None
    assert len(contrast.pairs) == 8
    assert contrast.pairs[0].name == "seed 1: f"


# ----------------------------------------------------------------- settings and warnings
def test_settings_that_differ_are_listed(made: Callable[..., Path]) -> None:
    base = '[strategy]\nname = "fedavg"\nlr = {lr}\n[run]\nseed = 0\nworkers = {workers}\n'
    runs = [
        made(f"lr{lr}", START, FIRST, config=base.format(lr=lr, workers=workers))
        for lr, workers in ((0.1, 1), (0.3, 2))
    ]
    found = compare(*runs)
    assert settings_table(found).rows == (
        ("strategy.lr", "0.1", "0.3"),
        ("run.workers", "1", "2"),
    )
    assert found.warnings == ()  # workers decide nothing


def test_two_differences_are_a_warning(made: Callable[..., Path]) -> None:
    base = '[strategy]\nname = "fedavg"\nlr = {0}\n[run]\nrounds = {1}\n'
    runs = [made(f"{v}", START, FIRST, config=base.format(v, v)) for v in (1, 2)]
    assert "2 settings (strategy.lr and run.rounds)" in compare(*runs).warnings[0]


def test_an_exchanged_strategy_brings_its_parameters_with_it(made: Callable[..., Path]) -> None:
    one = made("avg", START, FIRST, config='[strategy]\nname = "fedavg"\nlr = 0.1\n')
    two = made("prox", START, OTHER, config='[strategy]\nname = "fedprox"\nlr = 0.1\nmu = 1.0\n')
    found = compare(one, two)
    assert [row[0] for row in settings_table(found).rows] == ["strategy.name", "strategy.mu"]
    assert found.warnings == ()


def test_runs_from_python_are_compared_by_what_run_json_says(made: Callable[..., Path]) -> None:
    one = made("one", START, FIRST, config=None, strategy_repr="Strategy(lr=1)")
    two = made("two", START, OTHER, config=None, strategy_repr="Strategy(lr=2)")
    assert settings_table(compare(one, two)).rows == (
        ("strategy", "Strategy(lr=1)", "Strategy(lr=2)"),
    )


@pytest.mark.parametrize(
    ("status", "words"), [("running", "is not finished"), ("stopped", "was stopped"),
                          ("diverged", "diverged")]
)  # fmt: skip
def test_what_is_not_finished_is_compared_with_a_warning(
    made: Callable[..., Path], status: str, words: str
) -> None:
    found = compare(made("one", START, FIRST), made("two", START, OTHER, status=status, rounds=9))
    assert f"two {words}: 1 of 9 rounds are compared." in found.warnings


def test_labels_are_as_short_as_they_can_be(made: Callable[..., Path]) -> None:
    runs = made("a/run", START, FIRST), made("b/run", START, OTHER)
    assert compare(*runs).labels == ("a/run", "b/run")


# ---------------------------------------------------------------------------- what is written
def test_markdown_has_tables_of_equal_width_and_no_marks_of_its_own(
    made: Callable[..., Path],
) -> None:
    evil = {"clients": ["a|b", "*bold*", "<b>", "`c`"]}
    one = made("one", START, FIRST, data=evil)
    two = made("two", START, (0.1, 0.2, 0.3, 0.4), data=evil)
    text = compare(one, two).markdown()
    assert "\\*bold\\*" in text
    assert "\\<b\\>" in text
    for block in text.split("\n\n"):
        if block.startswith("|"):
            widths = {line.replace("\\|", "").count("|") for line in block.splitlines()}
            assert len(widths) == 1
    assert compare(one, two).markdown() == text


def test_real_runs_of_a_file_can_be_compared(tmp_path: Path) -> None:
    data = hanse.data.standardise(hanse.data.watch())
    for name, lr in (("slow", 0.01), ("fast", 0.3)):
        experiment = hanse.Experiment(
            hanse.fedavg(lr=lr), data, lambda: hanse.models.softmax_regression(30, 7), rounds=2,
            execution=hanse.Execution("module", 1),
        )  # fmt: skip
        hanse.run(experiment, tmp_path / name)
    found = hanse.compare(tmp_path / "slow", tmp_path / "fast", target="accuracy=0.2")
    slow, fast = (
        [json.loads(line) for line in (tmp_path / f"{name}/metrics.jsonl").read_text().splitlines()]
        for name in ("slow", "fast")
    )
    for split in ("test", "unseen"):
        contrast = found.contrast(1, split, "accuracy")
        assert contrast is not None
        assert contrast.by_seed is not None
        expected = fast[-1][split]["accuracy"] - slow[-1][split]["accuracy"]
        assert contrast.by_seed.mean == pytest.approx(expected)
    assert found.write(tmp_path / "deep/page.html").read_text("utf-8").startswith("<!DOCTYPE")
    assert set(NAMES).isdisjoint(found.labels)
