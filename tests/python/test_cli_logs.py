"""`python -m ringfence logs`: follows, ends quietly by Ctrl-C and by a reader that has seen enough.

Each call is an interpreter of its own: minutes on an emulated processor.

tests/run: tier=machine
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import ringfence


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.fixture
def detached(tmp_path: Any) -> Iterator[ringfence.Container]:
    script = "echo one; read line; echo $line; read line; echo end >&2"
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    end = os.open(fifo, os.O_RDWR)
    name = f"logs-{os.getpid()}-{time.monotonic_ns()}"
    c = ringfence.Container(["sh", "-c", script], stdin=end, detach=True, name=name)
    c.input = end  # type: ignore[attr-defined]
    try:
        yield c
    finally:
        os.close(end)
        if not c._closed:
            c.stop(0)
        ringfence.gc()


def test_the_command_line(detached: ringfence.Container) -> None:
    name, end = detached.name or "", detached.input  # type: ignore[attr-defined]
    command = [sys.executable, "-m", "ringfence", "logs"]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *arguments, name], capture_output=True, text=True, timeout=60)

    follow = subprocess.Popen([*command, "-f", name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    interrupted = subprocess.Popen([*command, "-f", name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    broken = subprocess.Popen([*command, "-f", name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for process in (follow, interrupted, broken):
        assert process.stdout is not None and process.stdout.readline() == "one\n"
    interrupted.send_signal(signal.SIGINT)
    assert interrupted.communicate(timeout=60) == ("", "")
    assert interrupted.returncode == 130
    assert broken.stdout is not None
    broken.stdout.close()
    os.write(end, b"two\n")
    assert broken.wait(60) == 141 and broken.stderr is not None and broken.stderr.read() == ""
    broken.stderr.close()
    until(lambda: detached.log_position() == 8)
    assert run("--tail", "1").stdout == "two\n"
    assert run("--since", "1", "--tail", "5").stdout == "ne\ntwo\n"
    wrong = run("--tail", "-1")
    assert wrong.returncode == 125 and "0 or more" in wrong.stderr
    os.write(end, b"three\n")
    assert follow.communicate(timeout=60) == ("two\nend\n", "")
    assert follow.returncode == 0
