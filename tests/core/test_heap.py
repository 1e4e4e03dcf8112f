"""Memory that is freed is used again."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

# Each turn frees more at a time than glibc keeps of its own accord after blocks of that size.
A_FEW = 500  # of 100,000 pages that the turns use
TURNS = """
import resource, torch
from hanse.core.heap import keep_freed_memory

def turn():
    blocks = [torch.ones(1_500_000) for _ in range(4)]

def faults():
    for _ in range(3):
        turn()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        turn()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults())
keep_freed_memory()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what others keep is their business")
def test_memory_that_is_freed_is_not_asked_for_again() -> None:
    # In a process of its own: here, other tests have freed blocks of all sizes.
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", TURNS], env=plain, capture_output=True, text=True, check=True
    )
    given_back, kept = map(int, done.stdout.split())
    # An import may have taught the library as much already: then nothing was given back before.
    assert kept <= max(given_back / 10, A_FEW)
