"""The pages of the documentation: their blocks, their headings, their tables.

How a page is written, so that it can be run:

- A fenced block of `python` is run. The blocks of a page share one namespace, in their order.
- A block with `title="name.py"` or `title="name.toml"` is a file: it is written, not run.
- A block of `text` with `title="prints"` is what the block before it prints; with `title="error"`,
  the error that the block before it ends with. Runs of white space count as one space.
- A block of `toml` is an experiment file, or tables that are put over `BASE`; it is read and built.
- In a block of `console`, each line `$ hanse …` is run, with two rounds.
- A comment `<!-- not run: reason -->` on the line before a block means what it says.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import sys
import tomllib
import types
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import tomli_w

from hanse.cli.app import main
from hanse.config import ExperimentFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = ("README.md", *sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")))

BASE = {
    "data": {"source": "smartwatch", "standardise": True},
    "model": {"name": "softmax_regression"},
    "strategy": {"name": "fedavg"},
    "run": {"rounds": 1},
}

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)(?: +title=\"(?P<title>[^\"]*)\")? *$")
_NOT_RUN = re.compile(r"<!-- not run: .+ -->")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    title: str
    content: str
    line: int  # of its first line of content, from 1
    run: bool


def text_of(page: str) -> str:
    """The text of a page, by its path below docs/, or of the README."""
    folder = ROOT if page == "README.md" else DOCS
    return (folder / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found: list[Block] = []
    lines = text_of(page).split("\n")
    start: int | None = None
    opened: re.Match[str] | None = None
    for number, line in enumerate(lines):
        fence = _FENCE.match(line)
        if opened is None and fence is not None:
            start, opened = number, fence
        elif opened is None and line.lstrip().startswith("```"):
            message = f"{page}, line {number + 1}: no fence that the tests can read: {line}"
            raise AssertionError(message)
        elif opened is not None and start is not None and line.strip() == "```":
            inside = [one.removeprefix(opened["indent"]) for one in lines[start + 1 : number]]
            before = lines[start - 1] if start else ""
            found.append(
                Block(
                    language=opened["language"],
                    title=opened["title"] or "",
                    content="\n".join(inside) + "\n",
                    line=start + 2,
                    run=_NOT_RUN.search(before) is None,
                )
            )
            start, opened = None, None
    assert opened is None, f"{page}: a fence is not closed"
    return found


def files(page: str) -> dict[str, str]:
    """The files that a page shows whole, by name."""
    return {b.title: b.content for b in blocks(page) if Path(b.title).suffix in (".py", ".toml")}


def tables(page: str) -> dict[str, list[list[str]]]:
    """The rows of the tables below each heading, without their heads; backquotes are dropped."""
    found: dict[str, list[list[str]]] = {}
    heading = ""
    for line in _outside_blocks(page):
        if line.startswith("#"):
            heading = line.lstrip("#").strip().replace("`", "")
        elif line.startswith("|"):
            cells = [cell.strip().replace("`", "") for cell in line.strip("|").split(" | ")]
            found.setdefault(heading, []).append([cell.strip() for cell in cells])
    for heading, rows in found.items():
        ends = [n for n, row in enumerate(rows) if set("".join(row)) <= set("-:| ")]
        heads = {n - 1 for n in ends} | set(ends)
        found[heading] = [row for n, row in enumerate(rows) if n not in heads]
    return found


def headings(page: str) -> list[str]:
    """The headings of a page, without backquotes."""
    lines = _outside_blocks(page)
    return [line.lstrip("#").strip().replace("`", "") for line in lines if line.startswith("#")]


def _outside_blocks(page: str) -> Iterator[str]:
    inside = False
    for line in text_of(page).split("\n"):
        if line.lstrip().startswith("```"):
            inside = not inside
        elif not inside:
            yield line


def squeeze(text: str) -> str:
    """The text with every run of white space as one space."""
    return " ".join(text.split())


class Reader:
    """Somebody who does what a page says, in an empty folder with the examples in it."""

    def __init__(self, page: str, folder: Path) -> None:
        """Start at the top of a page."""
        self.page, self.folder = page, folder
        self.module = types.ModuleType("page")
        self.printed = ""
        self.error: Exception | None = None

    def follow(self) -> None:
        """Do what all blocks say."""
        for block in blocks(self.page):
            if block.run:
                self.do(block)
        self.expect_no_error()

    def do(self, block: Block) -> None:
        """Do what one block says."""
        where = f"{self.page}, line {block.line}"
        if block.language == "text" and block.title == "error":
            assert self.error is not None, f"{where}: nothing was raised"
            said = f"{type(self.error).__name__}: {self.error}"
            assert squeeze(block.content) in squeeze(said), f"{where}: {said}"
            self.error = None
            return
        self.expect_no_error()
        if block.language == "text" and block.title == "prints":
            assert squeeze(self.printed) == squeeze(block.content), f"{where}: {self.printed}"
        elif Path(block.title).suffix in (".py", ".toml"):
            (self.folder / block.title).write_text(block.content, encoding="utf-8")
        if block.language == "python" and not block.title:
            self._run(block, where)
        elif block.language == "toml":
            experiment_of(block.content, self.folder)
        elif block.language == "console":
            for line in block.content.split("\n"):
                if line.startswith("$ hanse"):
                    status, output = hanse(line.removeprefix("$ hanse"))
                    assert status == 0, f"{where}: {line}: {output}"

    def expect_no_error(self) -> None:
        """What was raised and not announced is raised again."""
        if self.error is not None:
            raise self.error

    def _run(self, block: Block, where: str) -> None:
        source = "\n" * (block.line - 1) + block.content  # so that tracebacks name the page's line
        output = io.StringIO()
        try:
            with contextlib.redirect_stdout(output):
                exec(compile(source, where, "exec"), self.module.__dict__)  # noqa: S102 - the test
        except Exception as error:  # noqa: BLE001 - the next block may show it
            self.error = error
        self.printed = output.getvalue()


@contextlib.contextmanager
def reading(page: str, folder: Path) -> Iterator[Reader]:
    """A reader of a page, in `folder`; what is imported from there is forgotten afterwards."""
    reader = Reader(page, folder)
    (folder / "examples").symlink_to(ROOT / "examples")
    before = Path.cwd()
    sys.modules["page"] = reader.module  # dataclasses look their module up
    sys.path.insert(0, str(folder))
    os.chdir(folder)
    try:
        yield reader
    finally:
        os.chdir(before)
        sys.path.remove(str(folder))
        for name, module in list(sys.modules.items()):
            if name == "page" or str(getattr(module, "__file__", None)).startswith(str(folder)):
                del sys.modules[name]


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the tables of `over` put over it; a table of another kind replaces it."""
    found = dict(base)
    for key, value in over.items():
        below = found.get(key)
        if isinstance(value, dict) and isinstance(below, dict) and not _renames(value, below):
            found[key] = merged(below, value)
        else:
            found[key] = value
    return found


def _renames(table: Mapping[str, Any], below: Mapping[str, Any]) -> bool:
    return any(table.get(key, below.get(key)) != below.get(key) for key in ("name", "source"))


def experiment_of(text: str, folder: Path) -> ExperimentFile:
    """The experiment of a block of TOML, built."""
    content = tomllib.loads(text)
    whole = {"data", "model", "strategy"} <= set(content)
    file = ExperimentFile(content if whole else merged(BASE, content), folder)
    file.experiment()
    tomllib.loads(file.resolved())
    return file


def hanse(line: str, rounds: int | None = 2) -> tuple[int, str]:
    """Run `hanse …` in this process: its exit code, and what it printed.

    Runs are of `rounds` rounds, or of as many as they say.
    """
    arguments = shlex.split(line, comments=True)
    if arguments[:1] in (["run"], ["sweep"]) and rounds is not None:
        arguments += ["--set", f"run.rounds={rounds}"]
    output = io.StringIO()
    status = 0
    with (
        mock.patch.object(sys, "argv", ["hanse", *arguments]),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(output),
    ):
        try:
            main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
    return status, output.getvalue()


def as_toml(values: Mapping[str, Any]) -> str:
    """Tables as text."""
    return tomli_w.dumps(dict(values))
