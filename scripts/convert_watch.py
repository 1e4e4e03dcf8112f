"""Make src/hanse/data/bundled/watch.npz from the seglearn wheel.

    python scripts/convert_watch.py [seglearn-1.2.5-py3-none-any.whl]

Without an argument the wheel is downloaded with pip. The wheel's data set is a pickled dictionary:
unpickling runs whatever it says, so this script is the one place that does, on one file whose sum
is checked first. What it writes are plain arrays.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

VERSION = "1.2.5"
MEMBER = "seglearn/data/watch_dataset.npy"
MEMBER_SHA256 = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"
WINDOW = 50  # 2 s at 25 Hz
TARGET = Path(__file__).parent.parent / "src" / "hanse" / "data" / "bundled" / "watch.npz"


def download(folder: Path) -> Path:
    """The wheel, from the package index."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
    subprocess.run([*command, "--dest", str(folder), f"seglearn=={VERSION}"], check=True)
    return next(folder.glob("*.whl"))


def convert(wheel: Path, target: Path) -> None:
    """Cut the wheel's series into windows and write them."""
    raw = zipfile.ZipFile(wheel).read(MEMBER)
    found = hashlib.sha256(raw).hexdigest()
    if found != MEMBER_SHA256:
        sys.exit(f"{MEMBER}: SHA-256 {found}, expected {MEMBER_SHA256}")
    data = np.load(io.BytesIO(raw), allow_pickle=True).item()
    windows, series = [], []
    for k, signal in enumerate(data["X"]):
        # 50 Hz to 25 Hz: the mean of two neighbouring samples, a short low-pass filter.
        halved = signal[: len(signal) // 2 * 2].reshape(-1, 2, 6).mean(axis=1)
        cut = halved[: len(halved) // WINDOW * WINDOW].reshape(-1, WINDOW, 6)
        windows.append(cut.transpose(0, 2, 1))
        series.append(np.full(len(cut), k))
    of = np.concatenate(series)
    np.savez_compressed(
        target,
        x=np.concatenate(windows).astype(np.float16),
        exercise=data["y"].astype(np.uint8)[of],
        subject=data["subject"].astype(np.uint8)[of],
        right=data["side"].astype(np.uint8)[of],
        series=of.astype(np.uint8),
        exercises=np.array(data["y_labels"]),
        channels=np.array(data["X_labels"]),
    )
    print(f"{len(of)} windows, {target.stat().st_size} bytes")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        convert(Path(sys.argv[1]), TARGET)
    else:
        with tempfile.TemporaryDirectory() as folder:
            convert(download(Path(folder)), TARGET)
