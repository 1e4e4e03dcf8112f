"""The page: whole, self-contained, escaped, small, and the same for the same run."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hanse.core.errors import RunError
from hanse.report import summary, write
from hanse.report.html import render
from hanse.report.reading import read
from hanse.report.words import difference, duration, listed, named, number, quantity

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS = (
    "small", "big", "hundred", "regression", "diverged", "stopped", "running", "bare", "one",
    "nasty", "huge", "group",
)  # fmt: skip
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """The elements of a page, its texts, and whether its tags are balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in {"td", "th"}:
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in {"script", "style"}:
            return
        self.texts.append(data)
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts).replace("\u202f", "").replace("\xa0", " "))

    def values(self, name: str) -> list[str]:
        return [attributes[name] for _, attributes in self.elements if name in attributes]


@pytest.fixture(scope="session")
def page(report: Callable[[str], Path]) -> Callable[[str], Page]:
    made: dict[str, Page] = {}

    def give(kind: str) -> Page:
        if kind not in made:
            made[kind] = Page(report(kind).read_text("utf-8"))
        return made[kind]

    return give


@pytest.mark.parametrize("kind", KINDS)
def test_every_page_is_sound_and_self_contained(page: Callable[[str], Page], kind: str) -> None:
    found = page(kind)
    ids = found.values("id")
    assert len(ids) == len(set(ids))
    for name in ("aria-labelledby", "aria-describedby"):
        for value in found.values(name):
            assert set(value.split()) <= set(ids)
    for value in found.values("href"):
        assert value == "data:," or value.removeprefix("#") in ids
    assert found.values("src") == []
    tags = {tag for tag, _ in found.elements}
    assert not tags & {"img", "iframe", "object", "embed", "form", "base", "audio", "video"}
    assert [tag for tag, _ in found.elements].count("script") == 1
    assert not [name for _, names in found.elements for name in names if name.startswith("on")]
    policy = {
        attributes.get("http-equiv"): attributes["content"]
        for tag, attributes in found.elements
        if tag == "meta" and "content" in attributes
    }["Content-Security-Policy"]
    assert policy == (
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_page_is_small_and_asks_for_nothing(report: Callable[[str], Path], kind: str) -> None:
    text = report(kind).read_text("utf-8")
    assert len(text.encode()) < 2_000_000
    assert text.startswith("<!DOCTYPE html>")
    for word in ("http://", "@import", "url(", "fetch(", "XMLHttpRequest", "innerHTML"):
        assert word not in text.replace("http://www.w3.org/2000/svg", "")


@pytest.mark.parametrize("kind", KINDS)
def test_every_chart_has_a_table(page: Callable[[str], Page], kind: str) -> None:
    found = page(kind)
    tags = [tag for tag, _ in found.elements]
    assert tags.count("figure") == tags.count("figcaption")
    charts = [attributes for _, attributes in found.elements if attributes.get("role") == "img"]
    assert len(charts) == 2 * tags.count("figure")
    assert tags.count("table") >= tags.count("figure")


@pytest.mark.parametrize("kind", ["small", "group", "nasty"])
def test_the_same_run_gives_the_same_bytes(
    shared: Callable[[str], Path], tmp_path: Path, kind: str
) -> None:
    copy = tmp_path / "elsewhere" / kind
    shutil.copytree(shared(kind), copy)
    first = write(copy).read_bytes()
    assert write(copy).read_bytes() == first
    assert write(shared(kind), tmp_path / "page.html").read_bytes() == first
    assert str(tmp_path).encode() not in first


def test_nothing_a_user_wrote_becomes_markup(page: Callable[[str], Page]) -> None:
    found = page("nasty")
    text = " ".join(found.texts)
    assert "<script>alert(1)</script>" in text
    assert '"><img src=x onerror=alert(2)>' in text
    assert "{{ 7 * 7 }} {% raw %}" in text
    assert "Übergrößenträger 株式会社 🏥 עברית" in text
    assert "&amp; ' \" </title></svg></style>" in text
    assert "\x00" not in text
    assert "\u202e" not in text


def test_a_report_is_written_beside_the_run(make: Callable[..., Path]) -> None:
    run = make("bare")
    before = sorted(run.iterdir())
    assert write(run) == run / "report.html"
    assert sorted(run.iterdir()) == sorted([*before, run / "report.html"])
    out = write(run, run / "deep" / "er" / "page.html")
    assert out.read_bytes() == (run / "report.html").read_bytes()


def test_a_failed_write_leaves_the_old_report(
    make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make("bare")
    old = write(run).read_bytes()
    before = sorted(run.iterdir())

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(RunError, match="cannot be written"):
        write(run)
    assert sorted(run.iterdir()) == before
    assert (run / "report.html").read_bytes() == old


def test_the_report_can_be_read_by_those_who_can_read_the_run(make: Callable[..., Path]) -> None:
    run = make("bare")
    mode = (run / "run.json").stat().st_mode
    assert write(run).stat().st_mode == mode


def test_the_verdict_says_what_the_numbers_say(
    page: Callable[[str], Page], shared: Callable[[str], Path]
) -> None:
    found = summary(shared("small"))
    unseen, test = found.split("unseen"), found.split("test")
    assert unseen is not None
    assert test is not None
    text = page("small").text
    for split in (unseen, test):
        metric = split.metric("accuracy")
        assert metric.overall is not None
        assert f"{100 * metric.overall.mean:.1f}% of the" in text
    assert "After 60 rounds, the federated model classifies" in text
    assert "The worst-served unseen client is subject 9" in text
    assert "2 of the 7 training clients do worse than by training alone (subject" in text
    assert "2 updates were not accepted" in text
    assert "subject 4 , rounds 4 and 9: non-finite update" in text


def test_the_client_table_holds_every_client_worst_first(
    page: Callable[[str], Page], shared: Callable[[str], Path]
) -> None:
    table = next(table for table in page("small").tables if table[0][-1] == "Compared with alone")
    assert table[0] == [
        "Client", "Examples", "Federated", "Alone", "Pooled", "Difference", "Compared with alone",
    ]  # fmt: skip
    values = [float(row[2].split("\u202f")[0]) for row in table[1:]]
    assert values == sorted(values)
    assert {row[0] for row in table[1:]} == {f"subject {k}" for k in range(1, 8)}
    assert sum(row[-1] == "worse" for row in table[1:]) == 2
    for row in table[1:]:
        assert (row[-1] == "worse") == row[5].startswith("−")


def test_the_curves_are_the_lines_of_the_metrics_file(
    page: Callable[[str], Page], shared: Callable[[str], Path]
) -> None:
    run = read(shared("small")).first
    table = next(table for table in page("small").tables if table[0][0] == "Round")
    assert table[0] == ["Round", "All examples", "Worst client"]
    for row in run.rounds:
        if "test" in row.metrics:
            shown = next(cells for cells in table if cells[0] == str(row.round))
            assert shown[1] == quantity("accuracy", row.metrics["test"]["accuracy"])
            stats = run.curves["test"][row.round]["accuracy"]
            assert shown[2] == quantity("accuracy", stats.low)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("diverged", ["Training diverged after 23 of 60 rounds", "(round 21)", "Lower the"]),
        ("stopped", ["Training was stopped after 31 of 60 rounds", "So far"]),
        ("running", ["Training is under way, with 0 of 60 rounds done"]),
        ("group", ["After 60 rounds with 5 seeds", "±", "Mean ± standard deviation over 5 seeds"]),
        ("regression", ["the federated model’s r2 is 0.", "of which less is better"]),
        ("bare", ["This run was started from Python", "Strategy(participation=Full()"]),
        ("one", ["1 training client", "The difference to training alone is"]),
        ("hundred", ["In 120 rounds of training, a client took part between"]),
        ("big", ["5,000 training clients", "The 50 clients served worst, of 5,000"]),
        ("small", ["Every client took part in every round", "hanse run small/config.toml"]),
    ],
)
def test_each_kind_of_run_is_told_in_words(
    page: Callable[[str], Page], make: Callable[..., Path], kind: str, words: list[str]
) -> None:
    if kind == "regression":
        text = Page(write(make(kind, extra="")).read_text("utf-8")).text
        assert words[1] in text
        words = words[:1]
    text = page(kind).text
    for phrase in words:
        assert phrase in text


def test_a_run_without_any_round_has_a_page(make: Callable[..., Path]) -> None:
    run = make("running")
    for name in ("metrics.jsonl", "clients.jsonl"):
        (run / name).unlink()
    found = Page(write(run).read_text("utf-8"))
    assert "No evaluation with finite numbers was written down." in found.text


def test_many_clients_are_summed_up(page: Callable[[str], Page]) -> None:
    found = page("big")
    marks = [a for _, a in found.elements if "mark" in a.get("class", "").split()]
    assert len(marks) < 2 * 300
    assert max(len(table) for table in found.tables) <= 301


def test_seeds_with_other_partitions_keep_their_clients_apart(make: Callable[..., Path]) -> None:
    for seed in range(2):
        make("bare", f"group/seed-{seed}", seed=seed, rounds=4)
    group = make("bare", "group/seed-2", seed=2, rounds=4).parent
    found = Page(write(group).read_text("utf-8"))
    assert "Each seed divides the data anew" in found.text
    assert "seed 2: subject 5" in found.text


def test_a_group_averages_the_clients_that_its_seeds_share(page: Callable[[str], Page]) -> None:
    text = page("group").text
    assert "Means over 5 seeds" in text
    assert "seed 2: subject 5" not in text


def test_the_template_and_its_parts_are_in_the_package(shared: Callable[[str], Path]) -> None:
    text = render(read(shared("bare")))
    assert "--federated" in text
    assert "table.sortable" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"), (0.0, "0"), (0.12345, "0.123"), (12.345, "12.35"), (123.45, "123.5"),
        (12345.6, "12,346"), (-0.5, "−0.500"), (1e-5, "1.00e-5"), (2.5e7, "2.50e7"),
        (float("inf"), "–"),
    ],
)  # fmt: skip
def test_numbers_are_short(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.052, "+5.2 pts"), (-0.052, "−5.2 pts"), (0.0, "0.0 pts"), (-0.0001, "0.0 pts"),
     (0.0001, "0.0 pts"), (None, "–")],
)  # fmt: skip
def test_differences_of_shares_are_points(value: float | None, text: str) -> None:
    assert difference("accuracy", value).replace("\u202f", " ") == text


@pytest.mark.parametrize(
    ("names", "text"),
    [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c"),
     (list("abcdefg"), "a, b, c, d, e and 2 more")],
)  # fmt: skip
def test_names_are_listed(names: list[str], text: str) -> None:
    assert listed(names) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (7.13, "7.1 s"), (59.94, "59.9 s"), (75.0, "1 min 15 s"), (7265.0, "2 h 01 min")],
)
def test_durations_are_in_the_unit_that_fits(seconds: float | None, text: str) -> None:
    assert duration(seconds).replace("\u202f", " ") == text


def test_a_name_cannot_turn_its_sentence() -> None:
    assert named("\u05e9\u05dc", 40) == "\u2068\u05e9\u05dc\u2069"
    assert named("subject 4", 40) == "subject 4"
    assert named("subject 4", 5) == "subj…"
