"""The command line in this process: what it prints, and the exit code."""

from __future__ import annotations

import contextlib
import io
import sys
from dataclasses import dataclass
from unittest import mock

from hanse.cli.app import main


@dataclass(frozen=True)
class Printed:
    """What a command left on both streams, and its exit code."""

    code: int
    out: str
    err: str


def hanse(*argv: str) -> Printed:
    """`hanse argv`, by the same function that the installed command calls."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        mock.patch.object(sys, "argv", ["hanse", *argv]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    return Printed(code, out.getvalue(), err.getvalue())
