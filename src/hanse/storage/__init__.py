"""A run on disk: files that are whole or absent, whatever moment the process dies at."""

from hanse.storage.checkpoint import latest_checkpoint, read_checkpoint, write_checkpoint
from hanse.storage.files import (
    append_lines,
    half_written,
    read_json,
    take_lock,
    to_json,
    write_atomically,
    writing,
)
from hanse.storage.run_directory import RunDirectory

__all__ = [
    "RunDirectory",
    "append_lines",
    "half_written",
    "latest_checkpoint",
    "read_checkpoint",
    "read_json",
    "take_lock",
    "to_json",
    "write_atomically",
    "write_checkpoint",
    "writing",
]
