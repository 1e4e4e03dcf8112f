"""On a real terminal, of 80 columns, in colour or without."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import termios
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from rich.cells import cell_len
from tests.cli.terminal import hanse
from tests.runs.forks import wait_for_rounds

if TYPE_CHECKING:
    from pathlib import Path

    from tests.runs.forks import ForkServer

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_STYLE = re.compile(r"\x1b\[([0-9;]*)m")


@dataclass(frozen=True)
class Screen:
    """What was sent to a terminal, and the exit status."""

    status: int
    sent: str

    @property
    def lines(self) -> list[str]:
        """Each line as it was at some time on the screen."""
        return re.split(r"[\r\n]+", _CONTROL.sub("", self.sent))


def _on_a_terminal(forks: ForkServer, folder: Path, *argv: str, **environment: str) -> Screen:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    sent: list[bytes] = []

    def listen() -> None:
        while True:
            try:
                found = os.read(master, 65536)
            except OSError:  # the last one has left the terminal
                return
            if not found:
                return
            sent.append(found)

    listener = threading.Thread(target=listen)
    listener.start()
    ended = forks.hanse(folder, *argv, log=os.ttyname(slave), environment=environment)
    os.close(slave)
    listener.join(60)
    os.close(master)
    return Screen(ended.status, b"".join(sent).decode())


COMMANDS = {
    "run": ["run", "watches.toml", "--baselines", "--out", "run"],
    "inspect": ["data", "inspect", "watches.toml"],
    "strategies": ["strategies"],
    "the decision table": ["strategies", "--table"],
    "an error": ["run", "watches.toml", "--set", "strategy.name=fedavgg"],
    "a long error": ["run", "watches.toml", "--set", "strategy.mu=0.1"],
    "help": ["run", "--help"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_but_a_path_is_wider_than_the_terminal(
    forks: ForkServer, folder: Path, name: str
) -> None:
    screen = _on_a_terminal(forks, folder, *COMMANDS[name])
    assert screen.status == (2 if "error" in name else 0), screen.sent
    assert "Traceback" not in screen.sent
    wide = [line for line in screen.lines if cell_len(line) > 80 and str(folder) not in line]
    assert not wide


def test_colours_are_for_terminals_that_want_them(forks: ForkServer, folder: Path) -> None:
    def colours(sent: str) -> set[str]:
        codes = {code for found in _STYLE.findall(sent) for code in found.split(";")}
        return {code for code in codes if re.fullmatch(r"3[0-8]|4[0-8]|9\d|10\d", code)}

    for command in (["doctor"], COMMANDS["an error"]):
        assert colours(_on_a_terminal(forks, folder, *command, NO_COLOR="").sent), command
        without = _on_a_terminal(forks, folder, *command, NO_COLOR="1")
        assert not colours(without.sent), command
        assert "\x1b" not in forks.hanse(folder, *command).printed


def test_a_run_lets_its_last_line_live_on_a_terminal(forks: ForkServer, folder: Path) -> None:
    screen = _on_a_terminal(forks, folder, "run", "watches.toml", "--out", "run")
    assert "\x1b[2K" in screen.sent  # the line is written over
    assert screen.lines[-2].startswith("report: ")


def test_an_interrupt_ends_with_130_and_the_run_goes_on(forks: ForkServer, folder: Path) -> None:
    command = ["run", "watches.toml", "--out", "run", "--set=run.rounds=100000"]
    process = forks.start(folder, *command)
    wait_for_rounds(folder / "run", 3)
    ended = process.kill(signal.SIGINT)
    assert ended.status == 130, ended.printed
    assert "stopped; `hanse resume run` goes on" in ended.printed
    assert "Traceback" not in ended.printed
    about = json.loads((folder / "run" / "run.json").read_text())
    assert about["status"] == "stopped"
    done = len((folder / "run" / "metrics.jsonl").read_text().splitlines())
    resumed = hanse("resume", "run", "--rounds", str(done + 1))
    assert resumed.code == 0, resumed.err
