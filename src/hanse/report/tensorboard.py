"""A run's record as TensorBoard's event files: while the run goes on, or afterwards."""

from __future__ import annotations

import datetime as dt
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hanse.core.errors import ConfigError, RunError
from hanse.evaluation.spread import lower_is_better
from hanse.report.fields import lines, parse
from hanse.report.guarantee import guarantee
from hanse.report.quantities import client_stats
from hanse.report.reading import read
from hanse.storage import to_json, write_atomically, writing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch.utils.tensorboard import SummaryWriter

_OWN = ".hanse"  # how the names of event files that are written here end
_MARK = "hanse.json"  # says which run the events are of
_IDENTITY = ("name", "seed", "started")
_SCALARS = {
    "clients/cohort": ("cohort",),
    "clients/accepted": ("accepted",),
    "train/loss": ("train_loss",),
    "updates/mean norm": ("drift", "norm_mean"),
    "updates/largest norm": ("drift", "norm_max"),
    "updates/pairwise cosine": ("drift", "pairwise_cosine"),
    "bytes/up": ("bytes", "up"),
    "bytes/down": ("bytes", "down"),
    "time/seconds a round": ("seconds",),
    "privacy/epsilon of this run, by rdp": ("privacy", "epsilon", "rdp"),
    "privacy/epsilon of this run, by pld": ("privacy", "epsilon", "pld"),
    "privacy/epsilon spent of the ledger": ("privacy", "ledger", "spent"),
}


def to_tensorboard(run: str | Path, directory: str | Path) -> Path:
    """Write the record of a run, or of a group of runs by seed, for TensorBoard.

    Steps are rounds. Written again, also while the run goes on, it takes the place of what was
    there: TensorBoard shows every round once.

    Args:
        run: a run directory, or one with runs in `seed-0`, `seed-1`, …
        directory: where; of a group, each seed has a folder of its own in it.

    Returns:
        The directory.

    Raises:
        ConfigError: TensorBoard is not installed.
        RunError: no run or a damaged one, or the directory holds other events.
    """
    experiment = read(Path(run))
    for one in experiment.runs:
        place = Path(directory) / one.path.name if experiment.group else Path(directory)
        log = EventLog(one.path, place)
        try:
            log.complete()
        finally:
            log.close()
    return Path(directory)


class EventLog:
    """The events of a run. What is recorded already is written with the first round."""

    def __init__(self, run: Path, directory: Path) -> None:
        """See whether it can be written; nothing is, yet.

        Raises:
            ConfigError: TensorBoard is not installed.
            RunError: the directory holds the events of something else.
        """
        about = parse((run / "run.json").read_bytes(), str(run / "run.json")).values
        self._run, self._directory = run, directory
        self._identity = {key: about.get(key) for key in _IDENTITY}
        self._start = _timestamp(about.get("started"))
        self._seconds = 0.0
        self._writer: SummaryWriter | None = None
        check_events(directory, self._identity)

    def add(self, record: Mapping[str, Any], clients: Iterable[Mapping[str, Any]]) -> None:
        """Write a round that was just recorded, and all those before it if it is the first."""
        if self._writer is None:
            self.complete()
            return
        self._round(self._writer, record, clients)
        self._writer.flush()

    def complete(self) -> None:
        """Write all that is recorded, unless that was done."""
        if self._writer is not None:
            return
        from torch.utils.tensorboard import SummaryWriter

        with writing(self._directory):
            self._directory.mkdir(parents=True, exist_ok=True)
            write_atomically(self._directory / _MARK, to_json(self._identity) + "\n")
            earlier = list(self._directory.glob(f"events.out.tfevents.*{_OWN}"))
            # From round 0 on, what an earlier file holds is not shown any more.
            self._writer = SummaryWriter(str(self._directory), purge_step=0, filename_suffix=_OWN)
        config = self._run / "config.toml"
        if config.is_file():
            text = "".join(f"    {line}\n" for line in config.read_text("utf-8").splitlines())
            self._writer.add_text("config.toml", text, 0, walltime=self._start)
        self._privacy(self._writer)
        clients = lines(self._run / "clients.jsonl")
        waiting = next(clients, None)
        for fields in lines(self._run / "metrics.jsonl"):
            number = fields.needed_whole("round")
            own: list[Mapping[str, Any]] = []
            while waiting is not None and waiting.needed_whole("round") <= number:
                own += [waiting.values] if waiting.values["round"] == number else []
                waiting = next(clients, None)
            self._round(self._writer, fields.values, own)
        self._writer.flush()
        for path in earlier:  # a name may sort behind the new one's, and be read after it
            path.unlink(missing_ok=True)

    def _privacy(self, writer: SummaryWriter) -> None:
        """Say what is promised of a private run, and that its exact numbers are not."""
        about = self._run / "run.json"
        promised = guarantee(parse(about.read_bytes(), str(about)))
        if promised is None:
            return
        texts = [promised.mechanism, *(f"not covered: {text}" for text in promised.not_covered)]
        if not promised.protects:
            texts.insert(0, "no guarantee: the noise is drawn from the run's seed")
        writer.add_text("privacy", "\n\n".join(texts), 0, walltime=self._start)

    def close(self) -> None:
        """Write what is left, and close the file."""
        if self._writer is not None:
            self._writer.close()

    def _round(
        self,
        writer: SummaryWriter,
        record: Mapping[str, Any],
        clients: Iterable[Mapping[str, Any]],
    ) -> None:
        self._seconds += record.get("seconds") or 0.0
        at = {"global_step": int(record["round"]), "walltime": self._start + self._seconds}
        scalars = {tag: _found(record, keys) for tag, keys in _SCALARS.items()}
        for group in ("test", "unseen", "server"):
            for name, value in (record.get(group) or {}).items():
                scalars[f"{group}/{name}"] = value
        for line in clients:
            split = str(line["split"])
            for metric, values in line["metrics"].items():
                found = np.array(values, dtype=np.float64)  # None becomes NaN
                found = found[np.isfinite(found)]
                stats = client_stats(found.tolist(), range(len(found)))
                if stats is None or len(found) < 2:
                    continue
                writer.add_histogram(f"clients/{split} {metric}", found, **at)
                if split != "train":
                    lower = lower_is_better(metric)
                    worst = stats.worst(lower_is_better=lower)
                    scalars[f"{split}/{metric}, worst client"] = worst
        for tag, number in scalars.items():
            if number is not None and math.isfinite(number):
                writer.add_scalar(tag, float(number), **at)


def _found(record: Mapping[str, Any], keys: tuple[str, ...]) -> float | None:
    value: Any = record
    for key in keys:
        value = None if value is None else value.get(key)
    return None if value is None else float(value)


def _timestamp(started: object) -> float:
    try:
        return dt.datetime.fromisoformat(str(started)).timestamp()
    except ValueError:
        return 0.0


def needed() -> None:
    """See whether TensorBoard is there.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import tensorboard  # noqa: F401 - torch's writer needs it
    except ImportError as error:
        raise ConfigError(
            "TensorBoard is not installed",
            why="its own writer makes the event files",
            instead="pip install 'hanse[tensorboard]'",
        ) from error


def check_events(directory: Path, identity: Mapping[str, Any] | None = None) -> None:
    """Refuse a directory with the events of something else: they would not be shown any more.

    Args:
        directory: which need not exist.
        identity: of the run; None for one that is about to begin.

    Raises:
        ConfigError: TensorBoard is not installed.
        RunError: what is there.
    """
    needed()
    events = sorted(directory.glob("events.out.tfevents.*")) if directory.is_dir() else []
    foreign = [path.name for path in events if not path.name.endswith(_OWN)]
    mark = directory / _MARK
    other = mark.is_file() and parse(mark.read_bytes(), str(mark)).values != identity
    if foreign or other:
        raise RunError(
            f"{directory} holds the events of "
            + (f"something else ({foreign[0]})" if foreign else "another run"),
            why="TensorBoard takes the files of a directory for one run",
            instead="a directory for each run, such as logs/first and logs/second, below the one "
            "that TensorBoard is started with; or remove what is there",
        )
