"""The page: one HTML file with everything in it, written whole or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined

from hanse.report.clients import ClientTable, client_figures, client_table
from hanse.report.curves import drift_figures, metric_figures
from hanse.report.data import full_participation, label_map, norms, participation
from hanse.report.privacy import card
from hanse.report.reading import read
from hanse.report.summaries import summarise
from hanse.report.traffic import traffic_table
from hanse.report.verdict import dropped, numbers, sentences, tiles
from hanse.report.words import clients, difference, duration, metric_name, quantity, size, whole
from hanse.storage import write_atomically, writing

if TYPE_CHECKING:
    from pathlib import Path

    from hanse.report.figure import Figure
    from hanse.report.records import Experiment, RunRecord
    from hanse.report.summaries import Summary

_STATUS = {
    "finished": "Finished",
    "running": "Running",
    "stopped": "Stopped",
    "diverged": "Diverged",
}


@dataclass(frozen=True)
class ClientSection:
    """The clients of a split on the page: a heading, figures, and a table."""

    key: str
    title: str
    table: ClientTable
    figures: tuple[Figure, ...]


def write(path: Path, out: Path | None = None) -> Path:
    """Write the report of a run, or of a group of runs that differ in their seed.

    The file appears whole or not at all, also where the process is killed: it is written beside
    its place and moved there.

    Args:
        path: a run directory, or a group directory with runs in `seed-0`, `seed-1`, …
        out: where to write; `report.html` in `path` where omitted.

    Returns:
        Where the report was written.

    Raises:
        RunError: where the folder is missing or is no run, where a file in it is malformed, or
            where the report cannot be written.
    """
    place = path / "report.html" if out is None else out
    page = render(read(path))
    with writing(place):
        place.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(place, page)
    return place


def render(experiment: Experiment) -> str:
    """The page of runs that were already read; the same runs give the same page."""
    summary = summarise(experiment)
    environment = templates()
    first = experiment.first
    gone, more_gone = dropped(experiment)
    training = [norms(experiment), participation(first)]
    return environment.get_template("template.html.j2").render(
        experiment=experiment,
        info=first.info,
        hanse=first.info.hanse,
        summary=summary,
        started=first.info.started.replace("T", " ")[:16],
        status=_STATUS[summary.status],
        facts=_facts(experiment, summary),
        verdict=sentences(experiment, summary),
        advice=_advice(experiment),
        warnings=tuple(
            dict.fromkeys(text for run in experiment.runs for text in run.info.warnings)
        ),
        dropped=gone,
        more_dropped=more_gone,
        tiles=tiles(summary, first.info.data.nouns),
        numbers=numbers(summary),
        privacy=card(experiment),
        curves=metric_figures(experiment, summary.splits),
        sections=_sections(experiment, summary),
        labels=label_map(first.info.data),
        training=[*drift_figures(experiment), *(figure for figure in training if figure)],
        participation=_participation(first),
        traffic=traffic_table(experiment),
        configuration=_configuration(experiment),
        environment=_environment(first),
        command=f"hanse run {_quoted(experiment, first)}" if first.config is not None else None,
        config=first.config,
        quantity=quantity,
        difference=difference,
        size=size,
        metric_name=metric_name,
    )


def templates() -> Environment:
    """The templates of pages, in which every text is escaped."""
    environment = Environment(
        loader=PackageLoader("hanse.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["whole"] = whole
    return environment


def _facts(experiment: Experiment, summary: Summary) -> list[str]:
    """The line below the title."""
    info = experiment.first.info
    nouns = info.data.nouns
    found = [info.strategy, info.setting, info.data.name]
    if info.data.population:
        found.append(clients("test", info.data.population, nouns))
    if info.data.unseen:
        found.append(clients("unseen", len(info.data.unseen), nouns))
    if len(summary.seeds) > 1:
        found.append(f"{len(summary.seeds)} seeds")
    elif summary.seeds:
        found.append(f"seed {summary.seeds[0]}")
    if summary.status == "finished":
        found.append(f"{summary.trained:,} rounds")
    else:
        found.append(f"{summary.trained:,} of {summary.rounds:,} rounds")
    if info.parameters is not None:
        found.append(f"{info.parameters:,} parameters")
    if summary.seconds is not None:
        found.append(duration(summary.seconds))
    return [text for text in found if text]


def _advice(experiment: Experiment) -> list[str]:
    """What the runs that did not finish say, each with its seed where there are several."""
    several = len(experiment.runs) > 1
    found = []
    for run in experiment.runs:
        info = run.info
        if info.status == "finished" and info.advice is None:
            continue
        text = info.advice or {
            "running": "The run has not finished; this report shows what it wrote so far.",
            "stopped": "The run was stopped; this report shows what it wrote until then.",
            "diverged": "The updates or losses stopped being finite numbers.",
        }.get(info.status, "")
        found.append(f"Seed {info.seed}: {text}" if several else text)
    return found


def _sections(experiment: Experiment, summary: Summary) -> list[ClientSection]:
    """The clients of each split."""
    nouns = experiment.first.info.data.nouns
    titles = {
        "test": f"Training {nouns['clients']}",
        "unseen": f"Unseen {nouns['clients']}",
    }
    found = []
    for split in summary.splits:
        table = client_table(experiment, split.split)
        if table is not None:
            figures = tuple(client_figures(table))
            found.append(
                ClientSection(f"clients-{split.split}", titles[split.split], table, figures)
            )
    return found


def _participation(run: RunRecord) -> str:
    """A sentence where there is nothing to draw."""
    if not run.curves.get("train") or not full_participation(run):
        return ""
    return f"Every {run.info.data.nouns['client']} took part in every round."


def _configuration(experiment: Experiment) -> list[tuple[str, str]]:
    """What was run, as names and values."""
    info = experiment.first.info
    seeds = ", ".join(str(run.info.seed) for run in experiment.runs if run.info.seed is not None)
    block = f", blocks of {info.engine_block}" if info.engine_block else ""
    why = f" ({info.engine_why})" if info.engine_why else ""
    found = [
        ("Strategy", info.strategy_repr or info.strategy),
        ("Setting", info.setting),
        *(("", line) for line in info.setting_set),
        ("Rounds", whole(info.rounds)),
        ("Seeds" if len(experiment.runs) > 1 else "Seed", seeds),
        ("Engine", f"{info.engine_path}{block}{why}" if info.engine_path else ""),
        ("Parameters", whole(info.parameters) if info.parameters is not None else ""),
        ("Buffers", whole(info.buffers) if info.buffers else ""),
        ("Kept by clients", f"{info.local_columns:,} parameters" if info.local_columns else ""),
    ]
    return [(name, value) for name, value in found if value]


def _environment(run: RunRecord) -> list[tuple[str, str]]:
    """What it was run with."""
    info = run.info
    found = [("Hanse", info.hanse), ("PyTorch", info.torch), ("Python", info.python)]
    found.append(("Machine", info.machine))
    found += [("Started", info.started), ("Data", info.data.name)]
    found.append(("Attribution", info.data.attribution))
    return [(name, value) for name, value in found if value]


def _quoted(experiment: Experiment, run: RunRecord) -> str:
    """The configuration's path, from the folder that the run directory is in.

    The absolute path would tell a reader who is nobody's business who ran this and where.
    """
    folder = experiment.path.resolve()
    place = run.path.resolve().relative_to(folder.parent) / "config.toml"
    text = place.as_posix()
    return (
        text if text.replace("/", "").replace("-", "").replace(".", "").isalnum() else f'"{text}"'
    )
