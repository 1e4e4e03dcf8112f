"""What is written down of a run: facts about it, and a line for each round."""

from __future__ import annotations

import datetime as dt
import platform
import zlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hanse.core.device import described
from hanse.data import PackedClients, SharedClients, label_counts
from hanse.models.task import local_globs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from hanse.data import ClientData
    from hanse.evaluation import Evaluation
    from hanse.experiment import Prepared
    from hanse.models import Task
    from hanse.training import Round

FORMAT = 1
_NAMED = 2000  # clients up to this number are listed by name


def about(prepared: Prepared) -> dict[str, Any]:
    """The content of `run.json` at the start of a run."""
    experiment, task = prepared.experiment, prepared.task
    execution = prepared.engine.execution
    return {
        "format": FORMAT,
        "hanse": version("hanse"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "name": experiment.name,
        "started": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "seed": experiment.seed,
        "strategy": experiment.strategy.name,
        "strategy_repr": repr(experiment.strategy),
        "setting": {"name": prepared.population.setting, "set": list(prepared.chosen)},
        "participation": repr(prepared.population.participation),
        "stragglers": _stragglers(prepared),
        "engine": {
            "path": execution.path,
            "block": execution.block,
            "why": execution.why,
            "precision": execution.precision,
            "device": described(prepared.device),
        },
        "rounds": experiment.rounds,
        "parameters": task.layout.size,
        "buffers": task.buffers.size,
        "local": list(local_globs(task.module, experiment.local)),
        "local_columns": task.layout.local + task.buffers.local,
        "metrics": ["loss", *task.metrics],
        "warnings": list(prepared.warnings),
        "data": _about_data(prepared),
        "status": "running",
        "advice": None,
        "seconds": 0.0,
    }


def fingerprint(prepared: Prepared) -> dict[str, Any]:
    """What must be equal for a run to go on: all that decides its bits but how many rounds."""
    experiment, task = prepared.experiment, prepared.task
    execution = prepared.engine.execution
    return {
        "strategy": repr(experiment.strategy),
        "model": _described(task.module),
        "loss": getattr(task.loss, "__qualname__", type(task.loss).__name__),
        "seed": experiment.seed,
        "setting": prepared.population.setting,
        "participation": repr(prepared.population.participation),
        "stragglers": _stragglers(prepared),
        "parameters": [list(task.layout.names), task.layout.size, task.layout.shared],
        "buffers": [list(task.buffers.names), task.buffers.size, task.buffers.shared],
        "dtype": str(task.dtype),
        "execution": [execution.path, execution.block, execution.precision],
        "device": prepared.device.type,
        "training data": _checksum(prepared.data.train),
        "test data": [
            None if held is None else _checksum(held)
            for held in (prepared.data.test, prepared.data.unseen)
        ],
        "fixed weights": _fixed(task),
        "evaluation": [
            sorted(task.metrics),
            prepared.evaluate_every,
            {split: len(ids) for split, ids in prepared.evaluated.items()},
        ],
    }


def round_record(done: Round) -> dict[str, Any]:
    """The line of `metrics.jsonl` for a round."""
    result, train = done.result, prepared_name(done.prepared)
    record: dict[str, Any] = {"round": done.number, "seconds": done.seconds}
    if result is None:
        record |= {"cohort": 0, "accepted": 0, "dropped": [], "train_loss": None}
        record |= {"drift": None, "bytes": None}
    else:
        norms = result.facts.norm[np.isfinite(result.facts.norm)]
        record |= {
            "cohort": result.cohort,
            "accepted": result.accepted,
            "dropped": [
                {"client": d.client, "name": train(d.client), "reason": d.reason}
                for d in result.dropped
            ],
            "train_loss": done.train_loss,
            "drift": {
                "norm_mean": float(norms.mean()) if len(norms) else None,
                "norm_max": float(norms.max()) if len(norms) else None,
                "pairwise_cosine": result.pairwise_cosine,
            },
            "bytes": {
                "up": done.bytes_up,
                "down": done.bytes_down,
                "broadcast": result.broadcast,
            },
        }
    record["server"] = done.reported
    for split in ("test", "unseen"):
        evaluation = done.evaluations.get(split)
        record[split] = None if evaluation is None else evaluation.overall
    return record


def client_records(done: Round) -> Iterator[dict[str, Any]]:
    """The lines of `clients.jsonl` for a round."""
    if done.result is not None:
        facts = done.result.facts
        order = np.argsort(facts.id)
        trained = set(facts.id.tolist())
        late = [gone.client for gone in done.result.dropped if gone.client not in trained]
        yield {
            "round": done.number,
            "split": "train",
            "clients": facts.id[order],
            "examples": facts.examples[order],
            "metrics": {
                "loss": facts.loss[order],
                "norm": facts.norm[order],
                "cosine": facts.cosine[order],
            },
            "bytes": {"up": facts.sent[order], "down": done.result.broadcast, "late": late},
        }
    for split, evaluation in done.evaluations.items():
        yield {"round": done.number, "split": split, **evaluation_record(evaluation)}


def evaluation_record(evaluation: Evaluation) -> dict[str, Any]:
    """An evaluation as JSON can hold it."""
    return {
        "clients": evaluation.clients,
        "examples": evaluation.examples,
        "metrics": dict(evaluation.metrics),
    }


def prepared_name(prepared: Prepared) -> Any:  # noqa: ANN401 - a bound method
    """The function that names training clients."""
    return prepared.data.train.name


def _stragglers(prepared: Prepared) -> str | None:
    stragglers = prepared.population.stragglers
    return None if stragglers is None else repr(stragglers)


def _about_data(prepared: Prepared) -> dict[str, Any]:
    data = prepared.data
    population = len(data.train)
    listed = population <= _NAMED
    everyone = np.arange(population)
    return {
        "name": data.name,
        "attribution": data.attribution,
        "classes": None if data.classes is None else list(data.classes),
        "population": population,
        "clients": _names(data.train) if listed else None,
        "public": {"examples": len(data.train.public.fields["y"]), "each": data.train.count}
        if isinstance(data.train, SharedClients)
        else None,
        "train_sizes": data.train.sizes(everyone) if listed else None,
        "label_counts": label_counts(data.train, len(data.classes))
        if listed and data.classes is not None
        else None,
        "unseen": None if data.unseen is None or len(data.unseen) > _NAMED else _names(data.unseen),
    }


def _names(clients: ClientData) -> list[str]:
    return [clients.name(k) for k in range(len(clients))]


def _described(module: nn.Module) -> str:
    """The layers, with what their names and sizes do not say: activations, strides, rates."""
    return f"{type(module).__name__}, CRC-32 {zlib.crc32(repr(module).encode()):08x}"


def _checksum(clients: ClientData) -> str:
    if isinstance(clients, SharedClients):
        drawn = f"{clients.count} of the public {_checksum(clients.public)}, seed {clients.seed}"
        return f"{_checksum(clients.own)}; {drawn}"
    if not isinstance(clients, PackedClients):
        return f"{len(clients)} clients"
    code = zlib.crc32(clients.offsets.tobytes())
    for name in sorted(clients.fields):  # as they lie in memory: they may fill half of it
        code = zlib.crc32(np.ascontiguousarray(clients.fields[name].numpy()).data, code)
    return f"{len(clients)} clients, CRC-32 {code:08x}"


def _fixed(task: Task) -> str:
    """A sum of the tensors that are not trained, and so lie in no checkpoint."""
    changing = {*task.layout.names, *task.buffers.names}
    code = 0
    for name, value in sorted(task.module.state_dict().items()):
        if name not in changing:
            code = zlib.crc32(value.contiguous().numpy().tobytes(), code)
    return f"CRC-32 {code:08x}"
