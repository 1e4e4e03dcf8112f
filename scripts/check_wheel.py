"""Check that a wheel holds every file of the package that git tracks, and nothing else.

python scripts/check_wheel.py dist/hanse-0.1.0-py3-none-any.whl
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def tracked() -> set[str]:
    """The files of the package, as their paths in a wheel: tracked, or new and not ignored."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "src/hanse"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    paths = (Path(name) for name in listing.split("\0") if name)
    return {path.relative_to("src").as_posix() for path in paths if (ROOT / path).is_file()}


def packed(wheel: Path) -> set[str]:
    """The files of the package in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if name.startswith("hanse/")}


def main(wheel: Path) -> int:
    """Print what differs; 0 when nothing does."""
    expected, found = tracked(), packed(wheel)
    for name in sorted(expected - found):
        print(f"missing from the wheel: {name}")
    for name in sorted(found - expected):
        print(f"in the wheel, but not in the repository: {name}")
    if expected != found:
        return 1
    print(f"{wheel.name}: {len(found)} files, {wheel.stat().st_size / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
