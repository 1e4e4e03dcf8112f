"""Run directories as training writes them, made up but realistic."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from hanse.report import write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NASTY = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "{{ 7 * 7 }} {% raw %}",
    "Übergrößenträger 株式会社 🏥 עברית",
    "n" * 5000,
    "a\x00b\u202ec\ud800d",
    "&amp; ' \" </title></svg></style>",
)


@dataclass(frozen=True)
class Spec:
    """What a made-up run looks like."""

    name: str = "smartwatch"
    clients: int = 7
    unseen: int = 3
    classes: int = 6
    rounds: int = 60
    every: int = 5
    seed: int = 0
    cohort: int | None = None
    sizes: int = 400
    status: str = "finished"
    stop: int | None = None
    names: tuple[str, ...] | None = None
    regression: bool = False
    baselines: bool = True
    config: bool = True
    extra: str = ""
    drops: bool = False
    evaluated: int | None = None
    harmed: int = 0


SPECS = {
    "small": Spec(drops=True, harmed=2),
    "big": Spec("phones", 20_000, 500, 62, 40, 10, cohort=200, sizes=60, evaluated=5000),
    "hundred": Spec("cifar", 100, 20, 10, 120, 10, cohort=10, extra="balanced_accuracy", harmed=9),
    "regression": Spec("energy", 12, 0, 0, 80, 4, regression=True, extra="r2"),
    "diverged": Spec("smartwatch", status="diverged", stop=23, every=3),
    "stopped": Spec("smartwatch", status="stopped", stop=31, baselines=False),
    "running": Spec("smartwatch", status="running", stop=0, baselines=False),
    "bare": Spec("hospital", 5, 0, 3, baselines=False, config=False),
    "one": Spec("alone", 1, 0, 4, 20),
    "tiny": Spec("tiny", 3, 2, 2, 3, 1, drops=True),
    "nasty": Spec(NASTY[0], 7, 3, 6, names=NASTY, drops=True),
    "huge": Spec(
        "huge names", 300, 300, 62, 150, 1, names=("long " * 2000,) * 300, extra="a,b,c,d"
    ),
}


def write_run(path: Path, spec: Spec) -> Path:
    """Write the run directory that `spec` describes."""
    path.mkdir(parents=True)
    rng = np.random.default_rng(spec.seed + 17)
    sizes = np.maximum(5, rng.lognormal(np.log(spec.sizes), 0.7, spec.clients)).astype(int)
    ability = rng.normal(0.0, 0.05, spec.clients + spec.unseen)
    if spec.clients > 1:
        ability[spec.clients // 2] -= 0.17
    dump(path / "run.json", run_json(spec, sizes, rng))
    if spec.config:
        (path / "config.toml").write_text(config(spec), "utf-8")
    metrics: list[dict[str, Any]] = []
    clients: list[dict[str, Any]] = []
    last = spec.rounds if spec.stop is None else spec.stop
    for at in range(last + 1):
        cohort = np.sort(rng.choice(spec.clients, spec.cohort or spec.clients, replace=False))
        row: dict[str, Any] = {"round": at, "seconds": 0.12, "cohort": len(cohort)}
        broken = spec.status == "diverged" and at > last - 2
        if at:
            row |= training(spec, at, cohort, rng, clients, broken=broken)
        if at % spec.every == 0 or at == last:
            for split in ("test", "unseen") if spec.unseen else ("test",):
                values = evaluation(spec, split, at, ability, sizes, rng, broken=broken)
                clients.append({"round": at, "split": split, **values})
                row[split] = overall(values)
        row.setdefault("unseen", None)
        metrics.append(row)
    jsonl(path / "metrics.jsonl", metrics)
    jsonl(path / "clients.jsonl", clients)
    if spec.baselines:
        alone = ability - 0.06
        alone[: spec.harmed] += 0.14
        kinds = {"local": alone, "pooled": ability + 0.05, "federated": ability}
        dump(
            path / "baselines.json",
            {
                kind: {
                    split: evaluation(spec, split, last, skill, sizes, rng)
                    if split == "test" or spec.unseen
                    else None
                    for split in ("test", "unseen")
                }
                for kind, skill in kinds.items()
            },
        )
    return path


def run_json(spec: Spec, sizes: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
    """The contents of `run.json`."""
    few = spec.clients <= 2000
    names = list(spec.names or [f"subject {k + 1}" for k in range(spec.clients)])
    counts = [
        rng.multinomial(n, rng.dirichlet(np.full(spec.classes, 0.5))).tolist() for n in sizes
    ] if spec.classes else None  # fmt: skip
    nasty = spec.names is not None
    return {
        "format": 1, "hanse": "0.1.0", "torch": "2.13.0+cpu", "python": "3.11.7",
        "name": spec.name, "started": "2026-11-22T09:16:04+00:00", "seed": spec.seed,
        "strategy": "fedavg",
        "strategy_repr": "Strategy(participation=Full(), local=SGD(lr=0.05, epochs=1), "
        "aggregate=WeightedMean(), server=Assign())",
        "setting": {
            "name": "cross-device" if spec.cohort else "cross-silo",
            "set": ["participation = Full() (all clients each round)"],
        },
        "engine": {"path": "vmap", "block": 16, "why": "the model has no buffers"},
        "rounds": spec.rounds, "parameters": 217, "buffers": 0,
        "warnings": list(NASTY) if nasty else [],
        "data": {
            "name": "smartwatch gestures", "attribution": "Costante et al. 2014, CC BY 4.0",
            "classes": [NASTY[k % 7] if nasty else f"gesture {k}" for k in range(spec.classes)]
            if spec.classes else None,
            "clients": names if few else None, "population": spec.clients,
            "train_sizes": sizes.tolist() if few else None,
            "label_counts": counts if few else None,
            "unseen": [f"subject {spec.clients + k + 1}" for k in range(spec.unseen)],
        },
        "status": spec.status,
        "advice": "Lower the clients' learning rate: their updates grew tenfold each round."
        if spec.status == "diverged" else None,
        "seconds": 7.1,
    }  # fmt: skip


def training(
    spec: Spec,
    at: int,
    cohort: np.ndarray,
    rng: np.random.Generator,
    clients: list[dict[str, Any]],
    *,
    broken: bool,
) -> dict[str, Any]:
    """The part of a line of `metrics.jsonl` about training; adds a line for the clients."""
    growth = 10.0 ** max(0, at - 17) if spec.status == "diverged" else 1.0
    norm = growth * (0.3 + 1.2 * np.exp(-at / 20)) * rng.lognormal(0, 0.25, len(cohort))
    loss = growth * (0.25 + 1.4 * np.exp(-at / 12)) * rng.lognormal(0, 0.15, len(cohort))
    cosine = np.clip(0.8 * np.exp(-at / 30) + rng.normal(0, 0.12, len(cohort)), -1, 1)
    dropped = []
    if spec.drops and at in {4, 9}:
        name = (spec.names or {3: "subject 4"})[3]
        dropped = [{"client": 3, "name": name, "reason": "non-finite update"}]
    clients.append(
        {
            "round": at, "split": "train", "clients": cohort.tolist(),
            "examples": [32] * len(cohort),
            "metrics": {
                "loss": values(loss, broken=broken), "norm": values(norm, broken=broken),
                "cosine": values(cosine, broken=broken or at == 1),
            },
        }
    )  # fmt: skip
    return {
        "accepted": len(cohort) - len(dropped), "dropped": dropped,
        "bytes": {"up": 872 * (len(cohort) - len(dropped)), "down": 868 * len(cohort)},
        "train_loss": None if broken else float(loss.mean()),
        "drift": {
            "norm_mean": None if broken else float(norm.mean()),
            "norm_max": None if broken else float(norm.max()),
            "pairwise_cosine": float(cosine.mean() * 0.8) if len(cohort) > 1 else None,
        },
    }  # fmt: skip


def evaluation(
    spec: Spec,
    split: str,
    at: int,
    ability: np.ndarray,
    sizes: np.ndarray,
    rng: np.random.Generator,
    *,
    broken: bool = False,
) -> dict[str, Any]:
    """The metrics of the clients of a split."""
    if split == "test":
        ids, skill = np.arange(spec.clients), ability[: spec.clients]
        if spec.evaluated:
            ids = np.sort(rng.choice(spec.clients, spec.evaluated, replace=False))
            skill = skill[ids]
        examples = np.maximum(2, sizes[ids] // 5)
    else:
        ids, skill = np.arange(spec.unseen), ability[spec.clients :] - 0.03
        examples = np.full(spec.unseen, 80)
    level = 0.9 - 0.74 * np.exp(-at / 14) + rng.normal(0, 0.004)
    accuracy = np.clip(level + skill + rng.normal(0, 0.01, len(ids)), 0.0, 1.0)
    accuracy = np.round(accuracy * examples) / examples
    metrics = {"loss": values(2.2 * (1.02 - accuracy) ** 1.3, broken=broken)}
    if not spec.regression:
        # A model whose loss is not a number still has an accuracy: that of its first class.
        metrics["accuracy"] = values(accuracy * 0 + 0.16 if broken else accuracy)
    for name in filter(None, spec.extra.split(",")):
        metrics[name] = values(accuracy - 0.05)
    return {"clients": ids.tolist(), "examples": examples.tolist(), "metrics": metrics}


def overall(found: dict[str, Any]) -> dict[str, float | None]:
    """The example-weighted metrics over clients."""
    weights = found["examples"]
    return {
        name: None if None in row else float(np.average(row, weights=weights))
        for name, row in found["metrics"].items()
    }


def values(row: np.ndarray, *, broken: bool = False) -> list[float | None]:
    """Numbers as JSON has them."""
    return [None] * len(row) if broken else [float(f"{value:.6g}") for value in row]


def config(spec: Spec) -> str:
    """The text of `config.toml`."""
    return f"""# resolved configuration
name = {json.dumps(spec.name)}
seed = {spec.seed}
rounds = {spec.rounds}

[data]
name = "smartwatch"   # bundled

[strategy]
name = "fedavg"
local = {{ optimizer = "sgd", lr = 0.05, epochs = 1, batch_size = 32 }}
"""


def dump(path: Path, value: object) -> None:
    """Write JSON."""
    path.write_text(json.dumps(value), "utf-8")


def jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def build(path: Path, kind: str) -> Path:
    """Write the run, or for `group` the five runs, of a kind."""
    if kind == "group":
        for seed in range(5):
            write_run(path / f"seed-{seed}", replace(SPECS["small"], seed=seed, drops=False))
            # The same people in every seed: only the training differs.
            if seed:
                found = json.loads((path / f"seed-{seed}/run.json").read_bytes())
                first = json.loads((path / "seed-0/run.json").read_bytes())
                dump(path / f"seed-{seed}/run.json", found | {"data": first["data"]})
        return path
    return write_run(path, SPECS[kind])


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """Make a run directory of a kind: a key of `SPECS`, with changes, or `group`."""

    def give(kind: str, folder: str = "", **changes: Any) -> Path:  # noqa: ANN401
        path = tmp_path / (folder or kind)
        return write_run(path, replace(SPECS[kind], **changes)) if changes else build(path, kind)

    return give


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Run directories that tests only read, made once."""
    root = tmp_path_factory.mktemp("runs")
    made: dict[str, Path] = {}

    def give(kind: str) -> Path:
        if kind not in made:
            made[kind] = build(root / kind, kind)
        return made[kind]

    return give


@pytest.fixture(scope="session")
def report(
    shared: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """The reports of run directories, written once."""
    root = tmp_path_factory.mktemp("reports")
    made: dict[str, Path] = {}

    def give(kind: str) -> Path:
        if kind not in made:
            made[kind] = write(shared(kind), root / f"{kind}.html")
        return made[kind]

    return give
