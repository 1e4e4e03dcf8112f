"""The privacy of a run on its page, in the terminal, in TensorBoard and in comparisons."""

from __future__ import annotations

import html
import json
import re
from typing import TYPE_CHECKING

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.docs.pages import BASE, as_toml, hanse, merged
from tests.privacy.test_runs_are_charged import private
from tests.runs.small_runs import experiment, federation

from hanse import Poisson, RunError, compare, dp_sgd, fedavg, ldp_fedavg
from hanse.privacy.accounting import epsilon
from hanse.privacy.events import Budget, GaussianEvent
from hanse.privacy.histogram import PrivateHistogram
from hanse.privacy.ledger import Ledger
from hanse.report import summary, to_tensorboard, write
from hanse.report.words import number
from hanse.runs import run

if TYPE_CHECKING:
    from pathlib import Path

EVENT, ROUNDS = GaussianEvent(2.0, "poisson", 0.5), 4


def private_run(place: Path, **changes: object) -> Path:
    given = {"strategy": private("seeded"), "participation": Poisson(0.5), "rounds": ROUNDS}
    run(experiment(data=federation(), **{**given, **changes}), place)
    return place


def words(place: Path) -> str:
    """The text of a run's page."""
    page = (place / "report.html").read_text("utf-8")
    page = re.sub(r"<(style|script)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


def test_a_page_says_what_seeded_noise_would_cost_and_that_it_is_no_guarantee(
    tmp_path: Path,
) -> None:
    place = private_run(tmp_path / "run")
    text = words(place)
    cost = number(epsilon([EVENT] * ROUNDS, 1e-2, "pld"))
    assert f"this would cost epsilon {cost} at delta 0.01" in text
    assert "No guarantee. The noise was drawn from the run’s seed" in text
    assert "hardly be told" not in text
    assert text.count("Exact numbers of a simulation: the guarantee does not cover them.") >= 4
    assert "none: other runs on the same data are not counted" in text
    assert summary(place).uncovered
    page = (place / "report.html").read_text("utf-8")
    assert 'id="privacy-epsilon"' in page
    assert 'id="privacy-metric"' in page


def test_a_page_of_protected_examples_speaks_of_examples_and_steps(tmp_path: Path) -> None:
    strategy = dp_sgd(noise="os", rate=0.25, steps=3, noise_multiplier=1.5)
    text = words(private_run(tmp_path / "run", strategy=strategy, rounds=1))
    assert "Whether one example of one client was in the training can hardly be told by" in text
    assert "two federations of which one lacks one example of one client" in text
    assert "3 steps a client, noise multiplier 1.5; each example in a step with" in text
    assert "probability 0.25" in text
    assert "each client by itself" not in text


def test_a_page_of_noise_at_the_client_does_not_hide_that_it_took_part(tmp_path: Path) -> None:
    place = private_run(
        tmp_path / "run", strategy=ldp_fedavg(noise="os"), rounds=1,
        per_client=PrivateHistogram(30.0, 4),
    )  # fmt: skip
    text = words(place)
    assert "Whether all the data of one client was in the training, or other data" in text
    assert "sees each client's exact accuracy" in text
    assert " 0 examples" not in text


def test_a_page_says_what_is_guaranteed_and_what_the_ledger_has_left(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path / "l", "the people", Budget(9.0, 1e-3, "rdp"))
    ledger.charge(GaussianEvent(3.0), run="statistics", round=0)
    place = private_run(
        tmp_path / "run", strategy=private("os"), ledger=str(ledger.path),
        per_client=PrivateHistogram(30.0, 4), evaluate_every=2,
    )  # fmt: skip
    text, left = words(place), number(9.0 - ledger.spent())
    assert "Whether all the data of one client was in the training can hardly be told by" in text
    assert "No guarantee" not in text
    assert f"epsilon {number(ledger.spent())} of 9 spent by all runs together" in text
    assert f"{left} left" in text
    assert "Exact numbers of a simulation" not in text
    assert not summary(place).uncovered
    released = json.loads((place / "metrics.jsonl").read_text().splitlines()[-1])["histograms"]
    for split, counts in released.items():
        name = {"test": "training", "unseen": "unseen"}[split]
        assert f"Accuracy of {name} clients, with noise" in text
        assert all(number(count) in text for count in counts["counts"])
    assert "Noisy accuracy" in text


def test_a_page_of_a_run_that_withholds_says_so(tmp_path: Path) -> None:
    text = words(private_run(tmp_path / "run", per_client="withheld"))
    assert "Exact numbers about clients are withheld." in text
    assert "0 training clients" not in text


def test_runs_that_protect_nobody_have_no_such_section(tmp_path: Path) -> None:
    place = private_run(tmp_path / "run", strategy=fedavg())
    assert "guarantee" not in words(place)
    assert not summary(place).uncovered


def test_comparisons_show_epsilon_and_say_what_is_not_covered(tmp_path: Path) -> None:
    plain = private_run(tmp_path / "plain", strategy=fedavg())
    seeded, real = (
        private_run(tmp_path / noise, strategy=private(noise)) for noise in ("seeded", "os")
    )
    text = compare(plain, seeded, real).markdown()
    cost = number(epsilon([EVENT] * ROUNDS, 1e-2, "pld"))
    (row,) = [line for line in text.splitlines() if "Epsilon of a run" in line]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:] == ["no privacy", f"would be {cost} at delta 0.01", f"{cost} at delta 0.01"]
    assert "The numbers of seeded and os are exact ones of a simulation" in text
    again = private_run(tmp_path / "again", strategy=fedavg(lr=0.05))
    assert "Epsilon" not in compare(plain, again).markdown()


def test_counted_runs_can_be_compared_with_each_other(tmp_path: Path) -> None:
    one, two = (
        private_run(tmp_path / name, per_client=PrivateHistogram(bins=n))
        for name, n in (("one", 4), ("two", 5))
    )
    assert "Noisy accuracy" in compare(one, two).markdown()
    with pytest.raises(RunError, match="one withholds exact numbers"):
        compare(one, private_run(tmp_path / "three"))


def test_tensorboard_has_epsilon_and_the_words(tmp_path: Path) -> None:
    place = private_run(tmp_path / "run")
    to_tensorboard(place, tmp_path / "events")
    found = EventAccumulator(str(tmp_path / "events"), size_guidance={"tensors": 0})
    found.Reload()
    drawn = found.Scalars("privacy/epsilon of this run, by rdp")
    assert [one.step for one in drawn] == list(range(ROUNDS + 1))
    assert drawn[-1].value == pytest.approx(epsilon([EVENT] * ROUNDS, 1e-2, "rdp"))
    text = found.Tensors("privacy/text_summary")[0].tensor_proto.string_val[0].decode()
    assert text.startswith("no guarantee")
    assert "not covered: exact numbers of this simulation" in text


def test_the_terminal_says_what_is_spent_and_what_is_not_covered(tmp_path: Path) -> None:
    strategy = {"name": "dp_fedavg", "noise_multiplier": 2.0}
    run_ = {"participation": {"kind": "poisson", "rate": 0.5}}
    file = tmp_path / "experiment.toml"
    file.write_text(as_toml(merged(BASE, {"strategy": strategy, "run": run_})), encoding="utf-8")
    status, printed = hanse(f"run {file} --out {tmp_path}/run")
    said = " ".join(printed.split())
    assert status == 0, printed
    assert "if its noise were not seeded" in said
    assert "exact, not covered by the privacy guarantee" in said


@pytest.mark.parametrize(
    "privacy",
    [
        3,
        {"releases": 1, "epsilon": [1]},
        {"epsilon": {"rdp": "1"}},
        {"epsilon": None, "ledger": {"spent": True}},
    ],
)
def test_a_damaged_record_of_privacy_is_named(tmp_path: Path, privacy: object) -> None:
    place = private_run(tmp_path / "run")
    records = (place / "metrics.jsonl").read_text().splitlines()
    last = json.loads(records[-1]) | {"privacy": privacy}
    (place / "metrics.jsonl").write_text("\n".join([*records[:-1], json.dumps(last)]) + "\n")
    with pytest.raises(RunError, match=r"metrics\.jsonl, line 5"):
        write(place)


@pytest.mark.parametrize("counts", [[1.0], [1.0, 2.0, None], "many", [[1.0, 2.0, 3.0]]])
def test_a_damaged_histogram_is_named(tmp_path: Path, counts: object) -> None:
    place = private_run(tmp_path / "run", per_client=PrivateHistogram(bins=3))
    records = (place / "metrics.jsonl").read_text().splitlines()
    last = json.loads(records[-1])
    last["histograms"]["test"]["counts"] = counts
    (place / "metrics.jsonl").write_text("\n".join([*records[:-1], json.dumps(last)]) + "\n")
    with pytest.raises(RunError, match=r"metrics\.jsonl, line 5"):
        write(place)
