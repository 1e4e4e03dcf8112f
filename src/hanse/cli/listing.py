"""The commands that look: strategies, data, and the machine."""

from __future__ import annotations

import inspect
import platform
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from hanse.config import read_experiment, with_overrides
from hanse.config.experiment_file import STRATEGIES
from hanse.data import Federation, SharedClients, data_directory, label_counts, skew
from hanse.data import fetch as fetch_files
from hanse.data.sources.catalogue import BENCHMARKS
from hanse.report import write_data

_SHOWN = 30  # clients listed one by one
_BAR = 16
_OPTIONAL = {
    "scikit-learn": ("sklearn", "the digits"),
    "pyarrow": ("tabular", "Parquet and CSV files"),
    "pillow": ("images", "images"),
    "datasets": ("huggingface", "Hugging Face's data sets"),
    "dp-accounting": ("privacy", "privacy accounting"),
    "cryptography": ("secagg", "secure aggregation"),
}
_COLUMNS = 20  # of labels, side by side


def list_strategies() -> None:
    """`hanse strategies`."""
    console = Console(highlight=False)
    for name, factory in STRATEGIES.items():
        document = inspect.getdoc(factory) or ""
        console.print(f"[bold]{name}[/bold]: {escape(document.splitlines()[0])}")
        signature = inspect.signature(factory)
        parameters = (f"{p.name}={p.default!r}" for p in signature.parameters.values())
        console.print(f"  {', '.join(parameters)}", style="dim", markup=False)


def fetch_data(name: str, source: Path | None) -> None:
    """`hanse data fetch`."""
    console = Console(highlight=False)
    path = fetch_files(name, source=source, progress=lambda line: console.print(line, style="dim"))
    console.print(f"{name}: {path}", markup=False, soft_wrap=True)


def inspect_data(path: Path, overrides: list[str], out: Path | None = None) -> None:
    """`hanse data inspect`."""
    console = Console(highlight=False)
    federation = with_overrides(read_experiment(path), overrides).federation()
    written = None if out is None else write_data(federation, out)
    classes = federation.classes
    numbers = skew(federation.train, None if classes is None else len(classes))
    shape = list(federation.input_shape)
    console.print(f"[bold]{escape(federation.name)}[/bold]: inputs {shape}")
    if federation.attribution:
        console.print(federation.attribution, style="dim", markup=False)
    console.print(
        f"{numbers.clients} clients, {numbers.examples:,} examples; a client has "
        f"{numbers.smallest} to {numbers.largest}, in the median {numbers.median:g}"
    )
    if numbers.empty:
        console.print(f"{numbers.empty:,} clients have no examples")
    if isinstance(federation.train, SharedClients):
        public = federation.train.public
        console.print(
            f"among them {federation.train.count:,} public ones at each client, of "
            f"{len(public.fields['y']):,}"
        )
    if numbers.mean_entropy is not None:
        console.print(
            f"labels: {numbers.mean_entropy:.2f} bits of entropy at a client, "
            f"{numbers.global_entropy:.2f} in all; a client differs from the whole by "
            f"{numbers.mean_total_variation:.2f} (total variation), "
            f"{numbers.mean_jensen_shannon:.2f} bits (Jensen-Shannon)"
        )
    for split in ("test", "unseen"):
        held = getattr(federation, split)
        if held is not None:
            total = int(held.sizes(np.arange(len(held))).sum())
            console.print(f"{split}: {len(held)} clients, {total:,} examples")
    _clients(console, federation)
    if written is not None:
        console.print(f"charts: {written}", markup=False, soft_wrap=True)


def _clients(console: Console, federation: Federation) -> None:
    train, classes = federation.train, federation.classes
    shown = np.arange(min(len(train), _SHOWN))
    sizes = train.sizes(shown)
    table = Table(title="training clients", title_justify="left")
    for heading in ("client", "examples", ""):
        table.add_column(heading, justify="right" if heading == "examples" else "left")
    counts = None
    if classes is not None and len(classes) <= _COLUMNS:
        counts = label_counts(train, len(classes))
        for number in range(len(classes)):
            table.add_column(str(number), justify="right")
    for row, size in zip(shown, sizes, strict=True):
        bar = "█" * max(round(_BAR * size / (sizes.max() or 1)), int(size > 0))
        labels = [] if counts is None else [str(n) for n in counts[row]]
        table.add_row(Text(train.name(int(row))), f"{size:,}", bar, *labels)
    console.print(table)
    if classes is not None and counts is None:
        console.print(f"{len(classes)} labels: --out skew.html draws them", style="dim")
    elif classes is not None:
        legend = ", ".join(f"{number} {name}" for number, name in enumerate(classes))
        console.print(f"labels: {legend}", style="dim", markup=False)
    if len(train) > _SHOWN:
        console.print(f"… and {len(train) - _SHOWN:,} more")


def examine() -> int:
    """`hanse doctor`: returns 0 if everything that a run needs works."""
    import torch

    console, healthy = Console(highlight=False), True
    console.print(
        f"hanse {version('hanse')}, Python {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads"
    )
    for package in ("torch", "numpy", "safetensors", "click", "rich", "jinja2", "tomli-w"):
        try:
            console.print(f"  [green]✓[/green] {package} {version(package)}")
        except PackageNotFoundError:
            healthy = False
            console.print(f"  [red]✗[/red] {package} is missing: pip install hanse")
    for package, (extra, what) in _OPTIONAL.items():
        try:
            console.print(f"  [green]✓[/green] {package} {version(package)} ({what})")
        except PackageNotFoundError:
            line = f"  – {package}: only for {what}, pip install 'hanse[{extra}]'"
            console.print(line, markup=False, soft_wrap=True)
    cuda = torch.cuda.is_available()
    console.print(f"  – CUDA: {torch.cuda.get_device_name() if cuda else 'none; runs use the CPU'}")
    for name in BENCHMARKS:
        there = (data_directory() / name).is_dir()
        console.print(
            f"  {'[green]✓[/green]' if there else '–'} {name}: "
            f"{'fetched' if there else f'`hanse data fetch {name}`'}"
        )
    return 0 if _trains(console) and healthy else 1


def _trains(console: Console) -> bool:
    """Whether two rounds on the bundled data run, are written down and resume."""
    from hanse import data, models
    from hanse.core.errors import HanseError
    from hanse.experiment import Experiment
    from hanse.runs import load, run
    from hanse.strategies import fedavg

    with tempfile.TemporaryDirectory() as folder:
        model = models.softmax_regression(30, 7)
        experiment = Experiment(fedavg(), data.standardise(data.watch()), model, rounds=2)
        try:
            load(run(experiment, Path(folder) / "run").path, model)
        except (HanseError, OSError) as error:
            console.print(f"  [red]✗[/red] two rounds on the bundled data: {error}")
            return False
    console.print("  [green]✓[/green] two rounds on the bundled data, written and read back")
    return True
