"""The bundled smartwatch exercises: what is in them, and that nobody leaks."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from hanse.core.errors import DataError
from hanse.data.clients import PackedClients
from hanse.data.sources.watch import EXERCISES, SUBJECTS, hand_features, watch

if TYPE_CHECKING:
    from hanse.data.federation import Federation


def group(federation: Federation, which: str) -> PackedClients:
    data = getattr(federation, which)
    assert isinstance(data, PackedClients)
    return data


def windows(data: PackedClients) -> set[bytes]:
    return {row.tobytes() for row in data.fields["x"].numpy()}


def test_every_window_is_in_exactly_one_group() -> None:
    federation = watch(features="raw")
    groups = [group(federation, which) for which in ("train", "test", "unseen")]
    assert [len(g) for g in groups] == [7, 7, 3]
    assert sum(int(g.offsets[-1]) for g in groups) == 2369
    assert len(set.union(*(windows(g) for g in groups))) == 2369  # no window twice, in any group
    assert federation.input_shape == (6, 50)
    assert federation.dtype == torch.float32


def test_people_train_on_one_arm_and_are_tested_on_the_other() -> None:
    with np.load(str(files("hanse.data") / "bundled" / "watch.npz"), allow_pickle=False) as stored:
        subject, right = stored["subject"], stored["right"]
    for arm, number in (("left", 0), ("right", 1)):
        federation = watch(train_arm=arm)  # type: ignore[arg-type]
        people = range(1, 8)
        for which, worn in (("train", number), ("test", 1 - number)):
            expected = [int(((subject == s) & (right == worn)).sum()) for s in people]
            data = group(federation, which)
            assert data.sizes(np.arange(7)).tolist() == expected
            assert data.names == tuple(f"subject {s}" for s in people)
    left, right_arm = watch(train_arm="left"), watch(train_arm="right")
    assert windows(group(left, "train")) == windows(group(right_arm, "test"))


def test_nobody_is_both_trained_and_unseen() -> None:
    for unseen in ((8, 9, 10), (1,), (2, 4, 6, 8)):
        federation = watch(unseen_subjects=unseen)
        trained = set(group(federation, "train").names)
        left_out = set(group(federation, "unseen").names)
        assert left_out == {f"subject {s}" for s in unseen}
        assert trained | left_out == {f"subject {s}" for s in SUBJECTS}
        assert not trained & left_out
    assert watch(unseen_subjects=()).unseen is None


def test_each_client_knows_every_exercise() -> None:
    federation = watch()
    assert federation.classes == EXERCISES
    for which in ("train", "test", "unseen"):
        data = group(federation, which)
        for k in range(len(data)):
            labels = data.fields["y"][data.offsets[k] : data.offsets[k + 1]]
            assert set(labels.tolist()) == set(range(7))
    assert "BSD-3" in federation.attribution


def test_hand_features_are_what_they_say() -> None:
    window = np.array([[[1.0, -3.0, 5.0], [0.0, 0.0, 0.0]]], np.float32)
    deviation = float(np.std([1.0, -3.0, 5.0]))
    np.testing.assert_allclose(
        hand_features(window), np.array([[1.0, deviation, 3, 8, 6, 0, 0, 0, 0, 0]]), rtol=1e-6
    )
    assert watch().input_shape == (30,)
    raw, hand = watch(features="raw"), watch()
    expected = hand_features(group(raw, "train").fields["x"].numpy())
    np.testing.assert_array_equal(group(hand, "train").fields["x"].numpy(), expected)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"features": "deep"}, "features='raw'"),
        ({"train_arm": "both"}, "train_arm='left'"),
        ({"unseen_subjects": (11,)}, "unseen_subjects"),
        ({"unseen_subjects": SUBJECTS}, "someone must train"),
    ],
)
def test_arguments_without_meaning_are_refused(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(DataError, match=said):
        watch(**arguments)  # type: ignore[arg-type]


def test_the_attribution_carries_the_licence() -> None:
    text = (files("hanse.data") / "bundled" / "ATTRIBUTION.md").read_text()
    assert "Copyright (c) 2018, David M. Burns" in text
    assert "THIS SOFTWARE IS PROVIDED BY THE COPYRIGHT HOLDERS" in text
