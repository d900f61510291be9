"""The processes of a container."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys

import pytest

import ringfence
from ringfence import aio


def test_processes_and_a_pidfd() -> None:
    with ringfence.Container() as container, container.popen(["sleep", "1000"]) as sleeper:
        first, second = container.processes()
        assert (first.pid_inside, first.pid, first.state) == (1, container.pid, "S")
        assert (second.pid, second.argv, second.name, second.parent_inside) == (
            sleeper.pid,
            ["sleep", "1000"],
            "sleep",
            None,
        )
        pidfd = container.pidfd_of(second.pid_inside)
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        finally:
            os.close(pidfd)
        assert sleeper.wait(60) == -signal.SIGTERM
        with pytest.raises(ProcessLookupError) as caught:
            container.pidfd_of(second.pid_inside)
        assert isinstance(caught.value, ringfence.Error) and caught.value.field == "pid"
    with pytest.raises(ringfence.Error) as closed:
        container.processes()
    assert closed.value.kind == "closed"


def test_a_wanted_pid() -> None:
    with ringfence.Container() as container, container.popen(["sleep", "1000"], set_tid=100) as sleeper:
        (entry,) = (entry for entry in container.processes() if entry.pid == sleeper.pid)
        assert entry.pid_inside == 100
        with pytest.raises(FileExistsError) as taken:
            container.run(["true"], set_tid=100)
        assert isinstance(taken.value, ringfence.Error)
        assert (taken.value.field, taken.value.kind) == ("set_tid", "already_exists")
        with pytest.raises(ringfence.SpecError, match=r"set_tid: 1 is not in 2 to 4194303"):
            container.run(["true"], set_tid=1)
        with pytest.raises(TypeError):
            ringfence.Container(set_tid=100)
        sleeper.kill()


def test_asyncio() -> None:
    async def main() -> None:
        async with aio.Container() as container:
            (first,) = await container.processes()
            assert first.pid_inside == 1
            assert (await container.run(["sh", "-c", "echo $$"], set_tid=100, capture_output=True)).stdout == b"100\n"
            os.close(container.pidfd_of(1))

    asyncio.run(main())


def test_command_line() -> None:
    name = f"ps-{os.getpid()}"
    command = [sys.executable, "-m", "ringfence"]
    subprocess.run([*command, "run", "-d", "--name", name, "sleep", "1000"], check=True)
    try:
        listed = json.loads(subprocess.run([*command, "ps", name, "--json"], check=True, capture_output=True).stdout)
        assert [entry["argv"] for entry in listed][-1] == ["sleep", "1000"]
        table = subprocess.run([*command, "ps", name], check=True, capture_output=True, text=True).stdout
        assert table.splitlines()[0].split() == ["PID", "OUTSIDE", "UID", "STATE", "MEMORY", "CPU", "COMMAND"]
        assert "sleep 1000" in table
    finally:
        subprocess.run([*command, "stop", "--timeout", "0", name], check=True, capture_output=True)
        subprocess.run([*command, "gc"], check=True, capture_output=True)
    missing = subprocess.run([*command, "ps", name], capture_output=True, text=True)
    assert missing.returncode == 125 and name in missing.stderr
