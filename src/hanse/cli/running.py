"""The commands that train: a live line while they run, a table when they are done."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from hanse.config import ExperimentFile, read_experiment, with_overrides
from hanse.core.device import described
from hanse.core.errors import DivergenceError, HanseError, RunError
from hanse.engines import STRAGGLER
from hanse.evaluation import spread
from hanse.experiment import Prepared, prepare
from hanse.report import Summary, summary, to_tensorboard
from hanse.report import write as write_report
from hanse.report.tensorboard import check_events
from hanse.report.traffic import Link, took
from hanse.report.words import size
from hanse.runs import as_begun, carry_on, finish, own_experiment, start
from hanse.runs import export as export_model
from hanse.storage import RunDirectory, writing

if TYPE_CHECKING:
    from pathlib import Path

    from hanse.report import MetricSummary, Spread
    from hanse.report.traffic import Traffic
    from hanse.training import Round

_LINES = 10  # printed of a run whose output is no terminal
_NAMED = 3  # clients worse off that are named in the closing table


def run_file(
    path: Path,
    overrides: list[str],
    out: Path | None,
    seeds: int | None,
    *,
    baselines: bool,
    tensorboard: Path | None = None,
    bandwidth: str | None = None,
) -> None:
    """`hanse run`."""
    console, link = Console(highlight=False), _link(bandwidth)
    file = with_overrides(read_experiment(path), overrides)
    first = file.experiment()
    files = [file] if seeds is None else _seeded(file, first.seed, seeds)
    prepared = [prepare(first), *(prepare(one.experiment()) for one in files[1:])]
    _introduce(console, prepared[0])
    target = out or _reserve(path.cwd() / "runs" / first.name)
    single = seeds is None
    places = [target] if single else [target / f"seed-{p.experiment.seed}" for p in prepared]
    if not single and target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise RunError(
            f"{target} exists already",
            why="a run never overwrites another",
            instead="another directory (--out)",
        )
    logs = [_log(tensorboard, place, single=single) for place in places]
    try:
        for log in logs:
            if log is not None:
                check_events(log)
        runs = [
            start(p, place, config=one.with_guesses(p.data).resolved(), baselines=baselines)
            for p, place, one in zip(prepared, places, files, strict=True)
        ]
    except HanseError:
        if out is None:
            _give_back(target)
        raise
    try:
        _train_all(console, prepared, runs, logs, link)
    except DivergenceError:
        if not single:  # the other seeds have something to show
            _close(console, target, link)
        raise
    _close(console, target, link)


def _log(tensorboard: Path | None, place: Path, *, single: bool) -> Path | None:
    """Where a run's events go: of several seeds, a folder for each."""
    return tensorboard if tensorboard is None or single else tensorboard / place.name


def _train_all(
    console: Console,
    prepared: list[Prepared],
    runs: list[RunDirectory],
    logs: list[Path | None],
    link: Link | None,
) -> None:
    """Train one run after another; one that diverges does not keep the others from training."""
    diverged: DivergenceError | None = None
    for one, run, log in zip(prepared, runs, logs, strict=True):
        try:
            train(console, one, run, log, link=link)
        except DivergenceError as error:
            console.print(f"{run.path}: {error.found}", style="red", markup=False)
            diverged = error
    if diverged is not None:
        raise diverged


def resume_run(
    path: Path,
    rounds: int | None,
    workers: int | None = None,
    tensorboard: Path | None = None,
    bandwidth: str | None = None,
) -> None:
    """`hanse resume`."""
    console, link = Console(highlight=False), _link(bandwidth)
    wanted, runs = [], []
    for run in _runs(path):
        experiment = own_experiment(run)
        if rounds is not None:
            experiment = replace(experiment, rounds=rounds)
        if workers is not None:
            experiment = replace(experiment, workers=workers)
        done = run.about()
        if done["status"] == "finished" and done["rounds"] == experiment.rounds:
            text = f"{run.path} is finished: {done['rounds']} rounds. --rounds N goes on."
            console.print(text, markup=False, soft_wrap=True)
            os.close(run.lock())  # sweeps up, had a process been killed while it wrote the report
            continue
        wanted.append(prepare(as_begun(run, experiment)))
        runs.append(run)
    single = (path / "run.json").is_file()
    logs = [_log(tensorboard, run.path, single=single) for run in runs]
    _train_all(console, wanted, runs, logs, link)
    _close(console, path, link)


def report_run(
    path: Path,
    out: Path | None,
    tensorboard: Path | None = None,
    bandwidth: str | None = None,
) -> None:
    """`hanse report`."""
    link = _link(bandwidth)
    written = write_report(path, out)
    console = Console(highlight=False)
    _print_summary(console, summary(path), link)
    console.print(f"report: {written}", markup=False, soft_wrap=True)
    if tensorboard is not None:
        events = to_tensorboard(path, tensorboard)
        console.print(f"events: {events}", markup=False, soft_wrap=True)


def export_run(path: Path, out: Path) -> None:
    """`hanse export`."""
    written = export_model(path, out)
    Console(highlight=False).print(f"model: {written}", markup=False, soft_wrap=True)


def _runs(path: Path) -> list[RunDirectory]:
    seeds = [p for p in path.glob("seed-*") if p.name.removeprefix("seed-").isdecimal()]
    if not (path / "run.json").is_file() and seeds:
        seeds.sort(key=lambda p: int(p.name.removeprefix("seed-")))
        return [RunDirectory.open(seed) for seed in seeds]
    return [RunDirectory.open(path)]


def _seeded(file: ExperimentFile, first: int, count: int) -> list[ExperimentFile]:
    return [with_overrides(file, [f"run.seed={seed}"]) for seed in range(first, first + count)]


def _reserve(path: Path) -> Path:
    """Make `path`, or the first of `path-2`, `path-3`, … that does not exist."""
    free, number = path, 1
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                free.mkdir()
            except FileExistsError:
                number += 1
                free = path.with_name(f"{path.name}-{number}")
            else:
                return free


def _give_back(path: Path) -> None:
    """Remove a folder that was made for nothing, and its parent, unless they hold anything."""
    with contextlib.suppress(OSError):
        path.rmdir()
        path.parent.rmdir()


def _introduce(console: Console, prepared: Prepared) -> None:
    data, task, execution = prepared.data, prepared.task, prepared.engine.execution
    console.print(
        f"[bold]{escape(prepared.experiment.name)}[/bold]: {prepared.population.clients} clients "
        f"train, {task.layout.size:,} parameters"
    )
    if data.attribution:
        console.print(f"data: {data.attribution}", style="dim", markup=False)
    console.print(f"strategy: {prepared.experiment.strategy}", style="dim", markup=False)
    console.print(
        f"{prepared.population.setting} sets {', '.join(prepared.chosen)}",
        style="dim",
        markup=False,
    )
    if prepared.population.stragglers is not None:
        fate = {"keep": "kept", "drop": "dropped"}[prepared.experiment.strategy.partial]
        text = f"{prepared.population.stragglers}: partial work is {fate}"
        console.print(text, style="dim", markup=False)
    console.print(
        f"gradients: {execution.path}, blocks of {execution.block} ({execution.why})"
        + (f", on {described(prepared.device)}" * (prepared.device.type != "cpu"))
        + (", in bfloat16" * (execution.precision == "bfloat16"))
        + (f", in {prepared.experiment.workers} processes" * (prepared.experiment.workers > 1)),
        style="dim",
        markup=False,
    )
    for warning in prepared.warnings:
        console.print(f"warning: {warning}", style="yellow", markup=False)


def train(
    console: Console,
    prepared: Prepared,
    run: RunDirectory,
    tensorboard: Path | None = None,
    *,
    again: str | None = None,
    link: Link | None = None,
) -> None:
    """Carry a run on to its end, with a live line; `again` says how to go on after Ctrl-C."""
    live = console.is_terminal
    total = prepared.experiment.rounds
    began, first = time.monotonic(), None
    try:
        with (
            contextlib.closing(carry_on(prepared, run, tensorboard)) as going,
            console.status("preparing …") as status,
        ):
            for done in going:
                first = done.number if first is None else first
                line = _line(done, total, time.monotonic() - began, first, link)
                exchange = done.exchange
                if exchange.failure:
                    text = f"round {done.number}: no sum, the model stays: {exchange.failure}"
                    console.print(text, markup=False)
                for dropped in done.result.dropped if done.result else ():
                    asked = dropped.reason.startswith(STRAGGLER) or dropped.client in exchange.lost
                    if asked:  # for; the report counts them
                        continue
                    name = prepared.data.train.name(dropped.client)
                    text = f"round {done.number}: {name} dropped: {dropped.reason}"
                    console.print(text, markup=False)
                if live:
                    status.update(line)
                elif done.number % max(total // _LINES, 1) == 0 or done.number == total:
                    console.print(line, soft_wrap=True)
            status.update("baselines and report …")
            finish(prepared, run)
    except KeyboardInterrupt:
        text = f"stopped; {again or f'`hanse resume {run.path}` goes on'}"
        console.print(text, markup=False, soft_wrap=True)
        raise


def _line(done: Round, total: int, seconds: float, first: int, link: Link | None) -> Text:
    """Round, loss, accuracy, worst client, traffic, time left."""
    words = [f"seed {done.prepared.experiment.seed}", f"round {done.number}/{total}"]
    if done.train_loss is not None:
        words.append(f"train loss {done.train_loss:.3f}")
    words += [f"{name} {value:.3g}" for name, value in done.reported.items()]
    for split, evaluation in done.evaluations.items():
        metric = list(evaluation.metrics)[-1]
        numbers = spread(metric, evaluation.metrics[metric], evaluation.examples)
        held = {"test": done.prepared.data.test, "unseen": done.prepared.data.unseen}[split]
        client = int(evaluation.clients[numbers.worst_client])
        name = held.name(client) if held is not None else str(client)
        words.append(f"{split} {metric} {numbers.overall:.3f} (worst {name} {numbers.worst:.3f})")
    if done.result is not None and done.result.cohort:
        words.append(f"{size(done.bytes_up)} up, {size(done.bytes_down)} down")
        if link is not None:
            longest = link.seconds(max(done.result.facts.sent, default=0), done.result.broadcast)
            words.append(f"{took(longest)} at {link}")
    for split, released in done.histograms.items():
        words.append(f"{split} {released.of.metric} about {released.mean:.3f}, from noisy counts")
    words += _spent(done)
    if done.number > first:
        left = seconds / (done.number - first) * (total - done.number)
        words.append(f"{left:.0f} s left")
    return Text(" · ".join(words))


def _spent(done: Round) -> list[str]:
    """What the run has cost by itself, where it is private; with a ledger, all that was spent."""
    prepared = done.prepared
    if prepared.charged is not None and done.receipt is not None:
        budget, now = prepared.charged.ledger.budget.epsilon, done.receipt
        return [f"epsilon {now.epsilon:.2f} of {budget:g} spent on {now.dataset}"]
    cost = done.epsilon("rdp") if done.number else None
    if prepared.privacy is None or cost is None:
        return []
    return [
        f"epsilon {cost:.2f}" + " if its noise were not seeded" * (not prepared.privacy.protects)
    ]


def _close(console: Console, path: Path, link: Link | None) -> None:
    written = write_report(path)
    _print_summary(console, summary(path), link)
    console.print(f"run: {path}\nreport: {written}", markup=False, soft_wrap=True)


def _link(bandwidth: str | None) -> Link | None:
    return None if bandwidth is None else Link.of(bandwidth)


def _print_summary(console: Console, numbers: Summary, link: Link | None) -> None:
    for split in numbers.splits:
        if not split.metrics:
            console.print(f"{split.split}: no client has a finite metric", markup=False)
            continue
        several = split.clients > 1
        title = f"{split.split}: {split.clients} client{'s' * several}, {split.examples:,} examples"
        if not split.clients:
            title = f"{split.split}: estimates from noisy counts"
        if numbers.uncovered:
            title += "; exact, not covered by the privacy guarantee"
        if numbers.runs > 1:
            title += f"; mean ± deviation of {numbers.runs} seeds"
        table = Table(title=title, title_justify="left", title_style="bold")
        table.add_column("")
        for metric in split.metrics:
            table.add_column(Text(metric.metric), justify="right")
        rows = [_cells(metric) for metric in split.metrics]
        for name in rows[0]:
            about_spread = name.startswith(" ")
            if any(row[name] for row in rows) and (several or not about_spread):
                table.add_row(name, *(Text(row[name] or "–") for row in rows))
        console.print(table)
    if numbers.traffic is not None:
        console.print(_travelled(numbers.traffic, link), markup=False, soft_wrap=True)


def _travelled(sent: Traffic, link: Link | None) -> str:
    text = (
        f"travelled: {size(sent.up)} up, {size(sent.down)} down; a client's message: "
        f"{size(sent.message_up)} up, {size(sent.message_down)} down"
    )
    if link is None:
        return text
    up, down = link.seconds(sent.message_up, 0), link.seconds(0, sent.message_down)
    return f"{text}, which takes {took(up)} and {took(down)} at {link}"


def _cells(metric: MetricSummary) -> dict[str, str | None]:
    worst, comparison = metric.worst, metric.comparison
    worse = None
    if comparison is not None:
        names = ", ".join(comparison.names[:_NAMED])
        more = ", …" if len(comparison.names) > _NAMED else ""
        listed = f" ({names}{more})" if names else ""
        worse = f"{comparison.worse.mean:g} of {comparison.compared}{listed}"
    return {
        "federated": _number(metric.overall),
        "  mean over clients": _number(metric.client_mean),
        "  deviation over clients": _number(metric.client_std),
        "  worst tenth of clients": _number(metric.worst_decile),
        "  worst client": None if worst is None else f"{worst.name} {_number(worst.value)}",
        "each client alone": _number(metric.alone),
        "all data pooled": _number(metric.pooled),
        "worse off than alone": worse,
    }


def _number(value: Spread | None) -> str | None:
    if value is None or value.mean is None:
        return None
    return f"{value.mean:.3f}" if value.std is None else f"{value.mean:.3f} ± {value.std:.3f}"
