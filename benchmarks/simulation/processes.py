"""What the kernel says about processes: CPU time, memory, descendants (Linux)."""

from __future__ import annotations

import os
import platform
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def descendants(pid: int) -> list[int]:
    """The processes that a process started, and those that they started."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            fields = _stat(int(folder.name))
            if fields:
                children.setdefault(int(fields[1]), []).append(int(folder.name))
    found = [pid]
    for member in found:  # grows while it is read
        found += children.get(member, [])
    return found[1:]


def cpu_of_descendants(pid: int) -> float:
    """Seconds of CPU that a process's descendants have used, to a hundredth each."""
    return sum(_cpu(child) for child in descendants(pid))


def peak_rss(pid: int) -> float:
    """The most memory that a process has held, in MB (2**20 bytes)."""
    return _kilobytes(Path(f"/proc/{pid}/status"), "VmHWM:") / 1024


def rss(pid: int) -> float:
    """The resident memory of a process now, in MB."""
    return _kilobytes(Path(f"/proc/{pid}/status"), "VmRSS:") / 1024


def forget_peak() -> None:
    """Let this process's peak of resident memory be what it holds now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def tree_pss(pid: int) -> float:
    """The memory that a process and its descendants hold now, in MB; shared pages count once."""
    members = [pid, *descendants(pid)]
    return sum(_kilobytes(Path(f"/proc/{k}/smaps_rollup"), "Pss:") for k in members) / 1024


def processor() -> str:
    """The name of the processor."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def memory_gib() -> int:
    """The machine's memory in GiB, rounded."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return round(pages / 2**30)


def _stat(pid: int) -> list[str]:
    """The fields of a process's state after its name; none if it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return []


def _cpu(pid: int) -> float:
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / _TICK if fields else 0.0


def _kilobytes(file: Path, title: str) -> int:
    """The number of a line that starts with a title; 0 if the process has ended."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(title)), 0)
