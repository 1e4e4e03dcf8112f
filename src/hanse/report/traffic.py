"""What travelled between clients and server, and how long it takes on a line of some bandwidth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hanse.core.errors import ConfigError
from hanse.report.figure import Table
from hanse.report.quantities import mean
from hanse.report.words import NARROW_SPACE, NOTHING, size

if TYPE_CHECKING:
    from hanse.report.records import Experiment, RunRecord

_BITS = 8e-6  # megabits in a byte


@dataclass(frozen=True)
class Link:
    """A client's line to the server.

    Attributes:
        up: from the client, in Mbit/s.
        down: to the client, in Mbit/s.
    """

    up: float
    down: float

    @classmethod
    def of(cls, text: str) -> Link:
        """From `10`, for both directions, or `10/50`, up and down.

        Raises:
            ConfigError: another form.
        """
        try:
            up, down = ([float(part) for part in text.split("/")] * 2)[:2]
        except ValueError:
            up = down = math.nan
        if text.count("/") > 1 or not (0 < up < math.inf and 0 < down < math.inf):
            raise ConfigError(
                f"the bandwidth {text!r}",
                why="it is a number of Mbit/s above 0, or two of them, up and down",
                instead="--bandwidth 10, or --bandwidth 10/50",
            )
        return cls(up, down)

    def seconds(self, up: float, down: float) -> float:
        """How long so many bytes take, one direction after the other, without latency."""
        return _BITS * (up / self.up + down / self.down)

    def __str__(self) -> str:
        """As on the command line."""
        return f"{self.up:g}/{self.down:g}{NARROW_SPACE}Mbit/s"


LINKS = (Link(1, 1), Link(10, 10), Link(100, 100))
"""What the page says times for."""


@dataclass(frozen=True)
class Traffic:
    """What travelled in a run, in bytes; means over the seeds of an experiment.

    Attributes:
        up: in all, from clients to the server.
        down: in all, to clients.
        rounds: of training.
        message_up: the mean message from a client.
        message_down: the mean message to a client.
    """

    up: float
    down: float
    rounds: float
    message_up: float
    message_down: float


def traffic(experiment: Experiment) -> Traffic | None:
    """What travelled; None where it was not written down, or where nothing did."""
    found = [_of_run(run) for run in experiment.runs]
    known = [one for one in found if one is not None]
    if len(known) < len(found) or not known:
        return None
    means = (mean(column) or 0.0 for column in zip(*known, strict=True))
    return Traffic(*means)


def _of_run(run: RunRecord) -> tuple[float, ...] | None:
    """Bytes up and down, rounds, and the mean messages up and down."""
    rows = [row for row in run.rounds if row.round and row.cohort]
    ups = [row.bytes_up for row in rows if row.bytes_up is not None]
    downs = [row.bytes_down for row in rows if row.bytes_down is not None]
    if not rows or not len(rows) == len(ups) == len(downs):
        return None
    sent = sum(row.accepted or 0 for row in rows)
    received = sum(row.cohort or 0 for row in rows)
    up, down = sum(ups), sum(downs)
    return up, down, len(rows), up / max(sent, 1), down / received


def traffic_table(experiment: Experiment) -> Table | None:
    """A row for each direction; None where nothing was written down."""
    found = traffic(experiment)
    if found is None:
        return None
    rows = (
        ("From clients", found.up, found.message_up, (1, 0)),
        ("To clients", found.down, found.message_down, (0, 1)),
    )
    head = ("", "In all", "A round", "A client’s message")
    return Table(
        (*head, *(f"at {link.up:g}{NARROW_SPACE}Mbit/s" for link in LINKS)),
        tuple(
            (name, size(total), size(total / found.rounds), size(message),
             *(took(link.seconds(message * up, message * down)) for link in LINKS))
            for name, total, message, (up, down) in rows
        ),
        "Bytes of the messages as Hanse writes them, headers included; means. The last columns "
        "are how long a message takes at that bandwidth, without latency.",
    )  # fmt: skip


def took(seconds: float | None) -> str:
    """A time that may be far below a second."""
    if seconds is None:
        return NOTHING
    if seconds < 0.0995:
        return f"{1e3 * seconds:.2g}{NARROW_SPACE}ms"
    return f"{seconds:,.3g}{NARROW_SPACE}s" if seconds < 1000 else f"{seconds:,.0f}{NARROW_SPACE}s"
