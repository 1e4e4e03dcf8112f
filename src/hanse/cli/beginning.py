"""`hanse init`: an experiment file for somebody's own data."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from hanse.config import beginning, name_of
from hanse.core.errors import ConfigError
from hanse.storage import write_atomically


def begin(data: Path, client: str | None, target: str | None, out: Path | None) -> None:
    """`hanse init`."""
    file = out or Path(f"{name_of(data)}.toml")
    if file.exists():
        raise ConfigError(
            f"{file} exists already",
            why="it may hold what you wrote",
            instead="another file (--out), or remove it",
        )
    text = beginning(data, file, client, target)
    write_atomically(file, text)
    console = Console(highlight=False)
    console.print(text, style="dim", markup=False, soft_wrap=True)
    console.print(f"written: {file}", markup=False, soft_wrap=True)
    console.print(f"next: hanse run {file}", markup=False, soft_wrap=True)
