"""Pairs of runs whose every number is known."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

NAMES = ("anna", "ben", "cleo", "dai")
EXAMPLES = (10, 20, 30, 40)


def write_run(
    path: Path,
    curves: Sequence[Sequence[float | None]],
    *,
    metric: str = "accuracy",
    seed: int = 0,
    config: str | None = '[strategy]\nname = "fedavg"\nlr = 0.1\n',
    data: Mapping[str, Any] | None = None,
    sent: bool = True,
    **about: Any,  # noqa: ANN401 - whatever run.json holds
) -> Path:
    """A run of four clients; `curves` has their values after round 0, 1, …"""
    path.mkdir(parents=True)
    info = {
        "format": 1, "hanse": "0.1.0", "torch": "2", "python": "3", "machine": "Linux",
        "name": "made-up", "seed": seed, "rounds": len(curves) - 1, "status": "finished",
        "started": "2026-01-01T00:00:00+00:00", "strategy": "fedavg", "seconds": 2.0,
        "data": {"name": "people", "population": 4, "clients": list(NAMES),
                 "train_sizes": list(EXAMPLES), **(data or {})},
        **about,
    }  # fmt: skip
    (path / "run.json").write_text(json.dumps(info))
    if config is not None:
        (path / "config.toml").write_text(config)
    rounds, clients = [], []
    for at, values in enumerate(curves):
        known = [(v, n) for v, n in zip(values, EXAMPLES, strict=True) if v is not None]
        overall = sum(v * n for v, n in known) / sum(n for _, n in known) if known else None
        traffic = {"up": 400, "down": 600} if at else None
        rounds.append(
            {"round": at, "seconds": 0.5, "cohort": 4, "test": {metric: overall}}
            | ({"bytes": traffic} if sent else {})
        )
        clients.append(
            {"round": at, "split": "test", "clients": [0, 1, 2, 3], "examples": list(EXAMPLES),
             "metrics": {metric: list(values)}}
        )  # fmt: skip
    for name, lines in (("metrics", rounds), ("clients", clients)):
        (path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Path]:
    """Make a run of a name."""
    return lambda name, *curves, **options: write_run(tmp_path / name, curves, **options)
