"""Freezing, thawing and killing all processes at once, while they fork.

tests/run: vm=delegated
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import ringfence

# Forks as fast as it can; each process but the first is gone after one to three forks, and writes a byte before each.
HERD = """$SIG{CHLD} = "IGNORE"; my $n = -1;
while ($n--) { syswrite STDOUT, "x"; my $p = fork; $n = 1 + $$ % 3 if defined $p && !$p }"""


@pytest.fixture
def count(tmp_path: Path) -> Iterator[int]:
    """A file to which all append: how far they came."""
    fd = os.open(tmp_path / "count", os.O_CREAT | os.O_RDWR | os.O_APPEND)
    yield fd
    os.close(fd)


def length(fd: int) -> int:
    return os.fstat(fd).st_size


def grows(fd: int) -> None:
    before, deadline = length(fd), time.monotonic() + 30
    while length(fd) < before + 10:
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.needs("pids")
def test_a_container_that_forks(count: int) -> None:
    with ringfence.Container(pids=24) as container:
        herd = container.popen(["perl", "-e", HERD], stdin=ringfence.DEVNULL, stdout=count)
        for _ in range(10):
            grows(count)
            container.freeze()
            before = length(count), container.usage().pids_current
            time.sleep(0.003)
            assert (length(count), container.usage().pids_current) == before
            container.thaw()
        container.kill()
        assert herd.wait(30) == -9
        container.wait(30)
        before_end = length(count)
        time.sleep(0.003)
        assert length(count) == before_end


@pytest.mark.needs("pids")
def test_a_group_that_forks(count: int) -> None:
    with ringfence.Container() as container:
        group = container.group("herd", pids=16)
        for _ in range(5):
            group.popen(["perl", "-e", HERD], stdin=ringfence.DEVNULL, stdout=count)
            grows(count)
            group.freeze()
            before = length(count)
            time.sleep(0.003)
            assert length(count) == before
            group.thaw()
            grows(count)
            group.kill()
            before = length(count)
            while group.usage().pids_current:  # until they are reaped
                time.sleep(0.001)
            assert length(count) == before
        group.remove()
