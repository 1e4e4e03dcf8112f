"""The environments of the libraries that Hanse is compared with, under `.venv-peers/`.

    python -m benchmarks.simulation.environments

makes those that are missing; the releases are those in `requirements/`. PyTorch is installed first
and by its pinned version alone, so that an index with CPU builds (`--pip-flags`, as in the
Makefile's PIP_FLAGS) decides which build it is. The rest follows without dependency resolution:
fluke's torchvision is left out, whose wheel does not import beside a CPU build.
"""

from __future__ import annotations

import argparse
import hashlib
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.simulation.workloads import PEERS

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".venv-peers"
REQUIREMENTS = Path(__file__).with_name("requirements")
COMMAND = "python -m benchmarks.simulation.environments"


def python_of(engine: str) -> Path:
    """The interpreter that an engine runs with."""
    return FOLDER / engine / "bin" / "python" if engine in PEERS else Path(sys.executable)


def is_ready(engine: str) -> bool:
    """Whether an engine's environment is there, with the releases that are pinned now."""
    return engine not in PEERS or _read(_stamp(engine)) == _fingerprint(engine)


def make(peer: str, flags: Sequence[str]) -> None:
    """Make a peer's environment, or bring it up to its pins."""
    if is_ready(peer):
        print(f"{peer}: ready")
        return
    print(f"{peer}: installing into {FOLDER / peer} ...", flush=True)
    pins = REQUIREMENTS / f"{peer}.txt"
    if not python_of(peer).exists():
        subprocess.run([sys.executable, "-m", "venv", FOLDER / peer], check=True)
    pip = [
        str(python_of(peer)),
        "-m",
        "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
        *flags,
    ]
    torch = [line for line in pins.read_text("utf-8").splitlines() if line.startswith("torch==")]
    if torch:
        subprocess.run([*pip, "-c", str(pins), *torch], check=True)
    subprocess.run([*pip, "--no-deps", "-r", str(pins)], check=True)
    _stamp(peer).write_text(_fingerprint(peer), encoding="utf-8")


def _stamp(peer: str) -> Path:
    return FOLDER / peer / "installed"


def _fingerprint(peer: str) -> str:
    pins = (REQUIREMENTS / f"{peer}.txt").read_bytes()
    return hashlib.sha256(pins + sys.version.encode()).hexdigest()


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog=COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("peers", nargs="*", metavar="PEER", help=f"of {', '.join(PEERS)}; all")
    parser.add_argument("--pip-flags", default="", help="more options for pip, in one word")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.peers) - set(PEERS))
    if unknown:
        parser.error(f"no such peer: {', '.join(unknown)}; there are {', '.join(PEERS)}")
    for peer in options.peers or PEERS:
        make(peer, shlex.split(options.pip_flags))


if __name__ == "__main__":
    main()
