"""The commands about privacy before anything is trained: calibrate, and plan."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from hanse.core.errors import ConfigError
from hanse.privacy import (
    MOST_ROUNDS,
    Budget,
    GaussianEvent,
    accounts_for,
    cohort_needed,
    epsilon,
    installed,
    noise_multiplier,
    noise_ratio,
    rounds_left,
)
from hanse.report.plan import Plan, write_plan

if TYPE_CHECKING:
    from pathlib import Path

    from hanse.privacy import Accountant, Sampling

# Of the curve over rounds, closer where it bends; each takes PLD half a second.
_POINTS = (0.025, 0.05, *(k / 10 for k in range(1, 11)))
_BEARABLE = 0.1  # noise a tenth as long as the longest update


def calibrate(
    target: float, delta: float, rounds: int, rate: float, sampling: Sampling, clients: int | None
) -> None:
    """`hanse privacy calibrate`."""
    console = Console(highlight=False)
    Budget(target, delta)
    shape = _event(1.0, rate, sampling, clients, rounds)
    names = _accountants(shape)
    table = Table()
    for heading in ("accountant", "noise multiplier", "epsilon with it", "seconds"):
        table.add_column(heading, justify="left" if heading == "accountant" else "right")
    for name in names:
        with console.status(f"{name}: looking for the noise multiplier"):
            began = time.perf_counter()
            found = noise_multiplier(
                target, delta, rounds, rate, sampling, name, population=clients or 0
            )
            reached = epsilon([_event(found, rate, sampling, clients, rounds)], delta, name)
        table.add_row(name, f"{found:.4f}", f"{reached:.4f}", f"{time.perf_counter() - began:.1f}")
    console.print(
        f"epsilon {target:g} at delta {delta:g}, {_words(shape)}, {rounds:,} rounds", markup=False
    )
    console.print(table)
    console.print(_RELATIVE[shape.adjacency], style="dim", markup=False)
    if "pld" in names:
        console.print(
            "pld searches on a grid of 1e-3 and is confirmed on one of 1e-4: seconds, more for "
            "small noise and high rates",
            style="dim",
            markup=False,
        )
    _missing(console, shape)


def plan(
    noise: float,
    delta: float,
    rounds: int,
    rate: float,
    sampling: Sampling,
    *,
    budget: float | None,
    clients: int | None,
    parameters: int | None,
    clip: float,
    out: Path | None,
) -> None:
    """`hanse privacy plan`."""
    console = Console(highlight=False)
    if budget is not None:
        Budget(budget, delta)
    shape = _event(noise, rate, sampling, clients, 1)
    cohort = None if clients is None else rate * clients
    if parameters is not None and cohort is None:
        raise ConfigError(
            "--parameters without --clients",
            why="how long the noise is beside an update depends on the clients in a round",
            instead="--clients N as well, the number of all clients",
        )
    if not 0 < clip < float("inf"):
        raise ConfigError(
            f"--clip {clip!r}", why="it is the longest that an update may be", instead="--clip 1.0"
        )
    names = _accountants(shape)
    points = sorted({1, *(max(1, round(rounds * part)) for part in _POINTS)})
    curves: dict[str, tuple[float, ...]] = {}
    for name in names:
        with console.status(f"{name}: epsilon over rounds"):
            curves[name] = tuple(
                epsilon([_event(noise, rate, sampling, clients, n)], delta, name) for n in points
            )
    console.print(f"noise multiplier {noise:g}, {_words(shape)}, delta {delta:g}", markup=False)
    table = Table()
    for heading in ("rounds", *names):
        table.add_column(heading, justify="right")
    for place, point in enumerate(points):
        table.add_row(f"{point:,}", *(f"{curves[name][place]:.3f}" for name in names))
    console.print(table)
    notes = [_RELATIVE[shape.adjacency]]
    notes += [] if budget is None else _left(names, Budget(budget, delta), shape)
    notes += [] if clients is None else _thin(delta, clients)
    if parameters is not None and cohort is not None:
        relative = noise * (2 if shape.adjacency == "replace" else 1)  # to C, not to 2 C
        notes += _noise(relative, parameters, cohort, clip, rate)
    for note in notes:
        console.print(note, markup=False)
    _missing(console, shape)
    if out is not None:
        facts = f"Noise multiplier {noise:g}, {_words(shape)}, delta {delta:g}"
        shown = Plan(facts, tuple(points), curves, budget, tuple(notes))
        console.print(f"picture: {write_plan(shown, out)}", markup=False, soft_wrap=True)


_RELATIVE = {
    "add-remove": "The noise multiplier is relative to what one client can add to the sum: the "
    "clip norm C.",
    "replace": "The noise multiplier is relative to what replacing one client can change in the "
    "sum: twice the clip norm C.",
}


def _event(
    noise: float, rate: float, sampling: Sampling, clients: int | None, rounds: int
) -> GaussianEvent:
    if sampling == "without-replacement" and clients is None:
        raise ConfigError(
            "--sampling without-replacement without --clients",
            why="its cohorts have a fixed size, out of a fixed number of clients",
            instead="--clients N as well, the number of all clients",
        )
    if sampling == "without-replacement":
        return GaussianEvent(noise, sampling, rate, clients or 0, "replace", rounds)
    return GaussianEvent(noise, "none" if rate == 1 else sampling, rate, count=rounds)


def _accountants(event: GaussianEvent) -> tuple[Accountant, ...]:
    """Those installed that can read the event, of which there is one at least."""
    names = tuple(name for name in installed() if accounts_for(event, name))
    if not names:
        epsilon([event], 0.5, "rdp")  # says what is missing
    return names


def _words(event: GaussianEvent) -> str:
    match event.sampling:
        case "none":
            return "every client in every round"
        case "poisson":
            return f"Poisson sampling at rate {event.rate:g}"
        case "without-replacement":
            cohort = round(event.rate * event.population)
            return f"{cohort:,} of {event.population:,} clients without replacement"


def _left(names: tuple[Accountant, ...], budget: Budget, event: GaussianEvent) -> list[str]:
    found = []
    for name in ("rdp", "pld"):
        if name in names:
            left = rounds_left(Budget(budget.epsilon, budget.delta, name), [], event)
            many = f"{left:,}" if left < MOST_ROUNDS else f"{left:,} or more"
            found.append(f"A budget of epsilon {budget.epsilon:g} lasts {many} rounds by {name}.")
    return found


def _thin(delta: float, clients: int) -> list[str]:
    if delta * clients < 1:
        return []
    text = (
        f"Note: delta {delta:g} is not below 1 / clients: a mechanism that gives one client's "
        "data away would pass. Take a delta well below it."
    )
    return [text]


def _noise(noise: float, parameters: int, cohort: float, clip: float, rate: float) -> list[str]:
    ratio = noise_ratio(noise, parameters, cohort)
    text = (
        f"Noise in the mean of {cohort:,.6g} clients: a norm of {ratio * clip:.3g}, "
        f"{ratio:.3g} times the longest update that the clip {clip:g} leaves."
    )
    found = [text]
    for words, wanted in (("as long as that", 1.0), ("a tenth as long", _BEARABLE)):
        needed = cohort_needed(noise, parameters, wanted)
        found.append(
            f"For noise {words}: {needed:,} clients in a round, {needed / rate:,.0f} in all."
        )
    return found


def _missing(console: Console, event: GaussianEvent) -> None:
    unread = [name for name in installed() if not accounts_for(event, name)]
    if unread:
        text = f"no proof for this sampling by {', '.join(unread)}"
        console.print(text, style="dim", markup=False)
    if not any(name.startswith("opacus") for name in installed()):
        text = "opacus-rdp, opacus-prv: where Opacus is installed (pip install opacus)"
        console.print(text, style="dim", markup=False)
