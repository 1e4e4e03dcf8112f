"""What is written down of a run: facts about it, and a line for each round."""

from __future__ import annotations

import datetime as dt
import platform
import zlib
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hanse.core.device import described
from hanse.data import PackedClients, SharedClients, label_counts
from hanse.models.task import local_globs
from hanse.privacy.ledger import Receipt
from hanse.privacy.statement import Releases, milestones

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

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
        "privacy": _about_privacy(prepared),
        "data": _about_data(prepared),
        "status": "running",
        "advice": None,
        "seconds": 0.0,
    }


def fingerprint(prepared: Prepared) -> dict[str, Any]:
    """What must be equal for a run to go on: all that decides its bits but how many rounds."""
    experiment, task = prepared.experiment, prepared.task
    execution, shown = prepared.engine.execution, prepared.shown == "simulation"
    return {
        "privacy": _mark_of_privacy(prepared),
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
        "training data": _checksum(prepared.data.train, shown=shown),
        "test data": [
            None if held is None else _checksum(held, shown=shown)
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
        nobody = 0 if done.prepared.shown == "simulation" else None
        record |= {"cohort": nobody, "accepted": nobody, "dropped": [], "train_loss": None}
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
    record["failure"] = done.exchange.failure or None
    record["server"] = done.reported
    for split in ("test", "unseen"):
        evaluation = done.evaluations.get(split)
        record[split] = None if evaluation is None else evaluation.overall
        if split in done.histograms:  # an estimate, under a name of its own
            released = done.histograms[split]
            record[split] = {noisy(released.of.metric): released.mean}
    record["histograms"] = {
        split: {
            "metric": released.of.metric,
            "edges": released.of.edges,
            "counts": released.counts,
            "deviation": released.deviation,
        }
        for split, released in done.histograms.items()
    } or None
    record["privacy"] = _privacy_record(done)
    return record


def noisy(metric: str) -> str:
    """What the estimate of a metric's mean, from a noisy histogram, is called."""
    return f"noisy_{metric}"


def last_releases(records: Sequence[Mapping[str, Any]]) -> Releases | None:
    """How much a private run had released by its last record; `None` where none says so."""
    for record in reversed(records):
        found = (record.get("privacy") or {}).get("releases")
        if found is not None:
            return Releases(int(found["rounds"]), int(found["histograms"]))
    return None


def last_receipt(records: Sequence[Mapping[str, Any]], dataset: str) -> Receipt | None:
    """Of the ledger, as the last record kept it."""
    for record in reversed(records):
        found = (record.get("privacy") or {}).get("ledger")
        if found is not None:
            return Receipt(dataset, int(found["entries"]), str(found["head"]), found["spent"])
    return None


def _privacy_record(done: Round) -> dict[str, Any] | None:
    """What was released up to a round, and what that costs."""
    statement, receipt = done.prepared.privacy, done.receipt
    if statement is None:
        return None
    slow = done.number in milestones(done.prepared.experiment.rounds)
    return {
        "releases": asdict(done.releases),
        "epsilon": {
            "rdp": done.epsilon("rdp"),
            "pld": done.epsilon("pld") if slow else None,
        },
        "ledger": None
        if receipt is None
        else {"spent": receipt.epsilon, "entries": receipt.entries, "head": receipt.head},
    }


def _about_privacy(prepared: Prepared) -> dict[str, Any] | None:
    """What is promised, and whose budget is charged."""
    if prepared.privacy is None:
        return None
    record = prepared.privacy.record()
    if prepared.charged is not None:
        ledger = prepared.charged.ledger
        budget = ledger.budget
        record["ledger"] = {
            "dataset": ledger.dataset,
            "identity": ledger.identity,
            "epsilon": budget.epsilon,
            "accountant": budget.accountant,
        }
    return record


def _mark_of_privacy(prepared: Prepared) -> dict[str, Any] | None:
    """What must be the same for a run to go on: which ledger is charged, and what is withheld."""
    if prepared.privacy is None:
        return None
    ledger = None if prepared.charged is None else prepared.charged.ledger.identity
    return {"per_client": repr(prepared.shown), "ledger": ledger}


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
    listed = population <= _NAMED and prepared.shown == "simulation"
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
        "unseen": None
        if data.unseen is None or len(data.unseen) > _NAMED or prepared.shown != "simulation"
        else _names(data.unseen),
    }


def _names(clients: ClientData) -> list[str]:
    return [clients.name(k) for k in range(len(clients))]


def _described(module: nn.Module) -> str:
    """The layers, with what their names and sizes do not say: activations, strides, rates."""
    return f"{type(module).__name__}, CRC-32 {zlib.crc32(repr(module).encode()):08x}"


def _checksum(clients: ClientData, *, shown: bool = True) -> str:
    """What data are, without a sum over them where no exact number about them may be shown."""
    if not shown:
        return f"{len(clients)} clients"
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
