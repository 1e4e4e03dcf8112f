"""Bundled: ten people's shoulder exercises, felt by a smartwatch."""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from hanse.core.errors import DataError
from hanse.data.clients import PackedClients
from hanse.data.federation import Federation

if TYPE_CHECKING:
    from collections.abc import Iterable

Arrays = dict[str, NDArray[Any]]

SUBJECTS = tuple(range(1, 11))
EXERCISES = (
    "pendulum",
    "abduction",
    "forward elevation",
    "internal rotation",
    "external rotation",
    "trapezius extension",
    "upright row",
)
ATTRIBUTION = (
    "David M. Burns et al., smartwatch shoulder exercises, from seglearn 1.2.5 (BSD-3-Clause), "
    "arXiv:1802.01489; cut into windows of 2 s at 25 Hz. See hanse/data/bundled/ATTRIBUTION.md."
)


def watch(
    *,
    unseen_subjects: Iterable[int] = (8, 9, 10),
    features: Literal["hand", "raw"] = "hand",
    train_arm: Literal["left", "right"] = "right",
) -> Federation:
    """Ten people's shoulder exercises, a client a person: tell which of seven exercises it is.

    2,369 windows of 2 s without overlap: accelerations and angular velocities of a watch worn
    during sets of an exercise, first on one arm, then on the other (Burns et al., "Shoulder
    physiotherapy exercise recognition", arXiv:1802.01489). Neighbouring windows of a set are near
    copies of each other, so nothing is ever split at random: people train on one arm and are
    tested on the other, and whole people are left out.

    Args:
        unseen_subjects: the people who never train; the rest do. The default, the last three,
            was fixed before any model was trained.
        features: "hand": x [30], for each of six channels its mean, standard deviation, mean
            absolute value, range, and mean absolute difference of neighbouring samples; "raw":
            x [6, 50], the channels (ax, ay, az, wx, wy, wz) at 25 Hz.
        train_arm: the arm whose windows are trained on.

    Returns:
        `train` and `test`: the other people, one arm each; `unseen`: the left-out people, both
        arms. x is float32, not standardised (`hanse.data.standardise` does it).

    Raises:
        DataError: if an argument has no meaning, or nobody is left to train.
    """
    unseen = sorted(set(unseen_subjects))
    _check(unseen, features, train_arm)
    bundled = files("hanse.data") / "bundled" / "watch.npz"
    with as_file(bundled) as path, np.load(path, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    x = arrays["x"].astype(np.float32)
    columns = {"x": hand_features(x) if features == "hand" else x, "y": arrays["exercise"]}
    training = [s for s in SUBJECTS if s not in unseen]
    trained_arm = arrays["right"] == (train_arm == "right")
    either_arm = np.ones_like(trained_arm)
    return Federation(
        train=_people(columns, arrays["subject"], training, trained_arm),
        test=_people(columns, arrays["subject"], training, ~trained_arm),
        unseen=_people(columns, arrays["subject"], unseen, either_arm) if unseen else None,
        classes=EXERCISES,
        name="watch",
        attribution=ATTRIBUTION,
    )


def hand_features(windows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Five numbers a channel: mean, deviation, mean absolute value, range, mean absolute step.

    The other arm's watch is a mirror image, where some channels change sign: all but the mean are
    the same for a channel and its negative.

    Args:
        windows: [N, C, T].

    Returns:
        [N, 5 C], the five numbers of the first channel first.
    """
    steps = np.abs(np.diff(windows, axis=2)).mean(axis=2)
    sizes = [np.abs(windows).mean(axis=2), np.ptp(windows, axis=2), steps]
    summaries = [windows.mean(axis=2), windows.std(axis=2), *sizes]
    return np.stack(summaries, axis=2).reshape(len(windows), -1)


def _people(
    columns: Arrays, subject: NDArray[np.uint8], who: list[int], rows: NDArray[np.bool_]
) -> PackedClients:
    mine = {f"subject {s}": rows & (subject == s) for s in who}
    return PackedClients.from_arrays(
        {
            name: {field: values[of] for field, values in columns.items()}
            for name, of in mine.items()
        }
    )


def _check(unseen: list[int], features: str, train_arm: str) -> None:
    if features not in {"hand", "raw"}:
        raise DataError(
            f"watch(features={features!r})",
            why="windows come summarised or as they were measured",
            instead="write features='hand' or features='raw'",
        )
    if train_arm not in {"left", "right"}:
        raise DataError(
            f"watch(train_arm={train_arm!r})",
            why="the watch was worn on two arms",
            instead="write train_arm='left' or train_arm='right'",
        )
    strangers = [s for s in unseen if s not in SUBJECTS]
    if strangers or len(unseen) == len(SUBJECTS):
        raise DataError(
            f"watch(unseen_subjects={tuple(unseen)})",
            why=f"the data set has the subjects {SUBJECTS}, and someone must train",
            instead="leave out some of them, for example unseen_subjects=(8, 9, 10)",
        )
