"""Devices are named, looked for before the run, and written down."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tests.device.small import CPU
from tests.engine.small import clients, federation, mlp

import hanse
from hanse.cli.app import app
from hanse.core.device import device_named, placed
from hanse.core.errors import ConfigError, DataError, HanseError
from hanse.data import LazyClients
from hanse.engines.make import check_room
from hanse.experiment import prepare
from hanse.records import about, fingerprint
from hanse.strategies import fedavg

if TYPE_CHECKING:
    from pathlib import Path


def with_cards(monkeypatch: pytest.MonkeyPatch, cards: int, build: str | None = "12.8") -> None:
    """Let torch say that it was built for CUDA, and finds so many cards."""
    monkeypatch.setattr(torch.version, "cuda", build)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cards > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)


def refused(error: type[HanseError], name: object, workers: int = 1) -> str:
    with pytest.raises(error) as caught:
        device_named(name, workers)
    return str(caught.value)


def test_the_processor_is_the_default() -> None:
    assert device_named("cpu") == torch.device("cpu")
    prepared = prepare(hanse.Experiment(fedavg(), federation(), mlp()))
    assert about(prepared)["engine"]["device"] == fingerprint(prepared)["device"] == "cpu"


def test_a_card_is_the_first_unless_it_has_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    with_cards(monkeypatch, 2)
    assert device_named("cuda") == torch.device("cuda", 0)
    assert device_named("cuda:1") == torch.device("cuda", 1)


@pytest.mark.parametrize("name", ["gpu", "tpu", "meta", "cuda:one", "cuda:-1", "", 1, None])
def test_what_is_no_device_is_refused(name: object, monkeypatch: pytest.MonkeyPatch) -> None:
    with_cards(monkeypatch, 1)
    text = refused(ConfigError, name)
    assert f"device = {name!r}" in text
    assert 'instead: device = "cpu"' in text


@pytest.mark.parametrize(
    ("cards", "build", "name", "why"),
    [
        (0, None, "cuda", "built without CUDA"),
        (0, "12.8", "cuda", "finds no graphics card"),
        (1, "12.8", "cuda:1", "finds 1 card,"),
        (2, "12.8", "cuda:2", "finds 2 cards,"),
    ],
)
def test_a_card_that_is_not_there_is_refused(
    cards: int, build: str | None, name: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_cards(monkeypatch, cards, build)
    assert why in refused(ConfigError, name)
    with pytest.raises(ConfigError, match=why):
        hanse.Experiment(fedavg(), federation(), mlp(), device=name)


def test_workers_cannot_share_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    with_cards(monkeypatch, 1)
    assert "forks" in refused(ConfigError, "cuda", workers=2)
    with pytest.raises(ConfigError, match="workers = 1"):
        hanse.Experiment(fedavg(), federation(), mlp(), device="cuda", workers=2)


def test_nothing_changes_inside_on_a_processor() -> None:
    with placed(CPU):
        assert torch.zeros(1).device == CPU
        assert torch._C._len_torch_function_stack() == 0  # noqa: SLF001 - nothing public


def test_clients_must_fit_on_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    data, card = clients(), torch.device("cuda", 0)
    needed = sum(field.numel() * field.element_size() for field in data.fields.values())
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (needed, 10 * needed))
    check_room(data, card)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (needed - 1, 10 * needed))
    with pytest.raises(DataError, match=r"0\.0 GB, for a card with 0\.0 GB free"):
        check_room(data, card)
    check_room(data, CPU)
    check_room(LazyClients(3, lambda _: {}, np.ones(3, np.int64)), card)


def test_the_command_line_takes_a_device(tmp_path: Path) -> None:
    file = tmp_path / "experiment.toml"
    file.write_text(
        '[data]\nsource = "smartwatch"\n[model]\nname = "softmax_regression"\n'
        '[strategy]\nname = "fedavg"\n[run]\nrounds = 1\n'
    )
    found = CliRunner().invoke(app, ["run", str(file), "--device", "tpu"], standalone_mode=False)
    assert isinstance(found.exception, ConfigError)
    assert "device = 'tpu'" in str(found.exception)
    arguments = ["run", str(file), "--device", "cpu", "--out", str(tmp_path / "run")]
    assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
    assert 'device = "cpu"' in (tmp_path / "run" / "config.toml").read_text()
