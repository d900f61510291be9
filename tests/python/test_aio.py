"""`ringfence.aio`: the same names as coroutines; what is cancelled leaves nothing.

tests/run: tier=machine
"""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import ringfence
from ringfence import aio

SH = "/bin/sh"


def run(main: Callable[[], Awaitable[Any]]) -> Any:
    async def bounded() -> Any:
        return await asyncio.wait_for(main(), 60)

    return asyncio.run(bounded(), debug=True)


def test_run() -> None:
    async def main() -> None:
        r = await aio.run([SH, "-c", "cat; echo err >&2; exit 3"], input=b"in", capture_output=True)
        assert (r.returncode, r.stdout, r.stderr, r.reason) == (3, b"in", b"err\n", "exited")
        assert isinstance(r, ringfence.CompletedProcess)
        r = await aio.run(["cat"], input="ä\r\n", capture_output=True, text=True)
        assert r.stdout == "ä\n"
        with pytest.raises(subprocess.CalledProcessError):
            await aio.run(["false"], check=True)
        with pytest.raises(FileNotFoundError):
            await aio.run(["no-such-program"])
        with pytest.raises(TypeError):
            await aio.run(["true"], memroy=1)

    run(main)


def test_run_times_out() -> None:
    async def main() -> None:
        started = time.monotonic()
        with pytest.raises(subprocess.TimeoutExpired) as caught:
            await aio.run([SH, "-c", "echo out; sleep 60"], timeout=0.4, capture_output=True)
        assert caught.value.output == b"out\n"
        assert time.monotonic() - started < 10

    run(main)


def test_many_at_once() -> None:
    async def main() -> None:
        results = await asyncio.gather(*(aio.run(["echo", str(n)], capture_output=True) for n in range(20)))
        assert [r.stdout for r in results] == [b"%d\n" % n for n in range(20)]

    run(main)


def test_streams() -> None:
    async def main() -> None:
        async with await aio.popen(["cat"], stdin=aio_pipe, stdout=aio_pipe) as p:
            assert p.stdin and p.stdout and p.stderr is None
            p.stdin.write(b"one\n")
            await p.stdin.drain()
            assert await p.stdout.readline() == b"one\n"
            p.stdin.close()
            await p.stdin.wait_closed()
            assert await p.stdout.read() == b""
            assert await p.wait() == 0
            assert p.returncode == 0
            assert p.reason == "exited"

    aio_pipe = subprocess.PIPE
    run(main)


def test_large_communication() -> None:
    async def main() -> None:
        p = await aio.popen(["cat"], stdin=-1, stdout=-1)
        out, err = await p.communicate(b"x" * 2_000_000)
        assert out is not None and len(out) == 2_000_000
        assert err is None
        await p.container.close()

    run(main)


def test_input_that_nobody_reads() -> None:
    async def main() -> None:
        r = await aio.run(["true"], input=b"x" * 1_000_000)
        assert r.returncode == 0

    run(main)


def test_signals() -> None:
    async def main() -> None:
        for send, number in (
            (lambda p: p.terminate(), signal.SIGTERM),
            (lambda p: p.kill(), signal.SIGKILL),
            (lambda p: p.send_signal(signal.SIGINT), signal.SIGINT),
        ):
            async with await aio.popen(["sleep", "60"]) as p:
                assert p.returncode is None
                send(p)
                assert await p.wait() == -number
                send(p)

    run(main)


def test_several_waiters() -> None:
    async def main() -> None:
        async with await aio.popen(["sleep", "0.3"]) as p:
            assert await asyncio.gather(*(p.wait() for _ in range(5))) == [0] * 5

    run(main)


def test_container() -> None:
    async def main() -> None:
        async with aio.Container(hostname="box") as c:
            assert c.running
            r = await c.run(["uname", "-n"], capture_output=True, text=True)
            assert r.stdout == "box\n"
            async with await c.popen(["sleep", "60"]) as p:
                p.kill()
            assert c.pid > 0 and c.pidfd >= 0 and c.id
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(c.wait(), 0.1)
            with pytest.raises(subprocess.TimeoutExpired):
                await c.wait(0.1)
        assert not c.running
        await c.close()

    run(main)


@pytest.mark.needs("pids")
def test_usage() -> None:
    async def main() -> None:
        async with aio.Container(pids=20) as c:
            assert (await c.usage()).pids_max == 20

    run(main)


def test_container_with_a_main_process() -> None:
    async def main() -> None:
        c = await aio.Container(["cat"], stdin=-1, stdout=-1)
        assert c.main is not None
        assert (await c.main.communicate(b"x"))[0] == b"x"
        assert await c.wait() == 0
        await c.close()
        c = await aio.Container([SH, "-c", "echo logged; sleep 60"])
        while "logged" not in await c.logs():
            await asyncio.sleep(0.01)
        assert await c.stop() == -signal.SIGTERM

    run(main)


def test_names() -> None:
    async def main() -> None:
        name = f"python-aio-{os.getpid()}"
        async with aio.Container(name=name) as c:
            again = await aio.by_name(name)
            assert again.id == c.id
            assert name in [entry.name for entry in await aio.ls()]

    run(main)


def test_a_cancelled_run_leaves_nothing() -> None:
    async def main() -> None:
        read, write = os.pipe()
        task = asyncio.ensure_future(aio.run([SH, "-c", "sleep 60 & sleep 60"], pass_fds=[write], capture_output=True))
        await asyncio.sleep(0.4)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        os.close(write)
        assert os.read(read, 1) == b""
        os.close(read)

    run(main)


def test_a_cancelled_command_leaves_its_container_running() -> None:
    async def main() -> None:
        async with aio.Container() as c:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(c.run(["sleep", "60"]), 0.3)
            assert (await c.run(["true"])).returncode == 0

    run(main)


def test_a_cancelled_start_leaves_nothing() -> None:
    async def main() -> None:
        read, write = os.pipe()
        for _ in range(10):
            task = asyncio.ensure_future(aio.popen(["sleep", "60"], pass_fds=[write]))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await asyncio.sleep(0.3)
        os.close(write)
        os.set_blocking(read, False)
        until = time.monotonic() + 5
        while time.monotonic() < until:
            try:
                assert os.read(read, 1) == b""
                break
            except BlockingIOError:
                await asyncio.sleep(0.02)
        else:
            raise AssertionError("a process lives on")
        os.close(read)

    run(main)


def test_the_loop_goes_on_meanwhile() -> None:
    async def main() -> None:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticker = asyncio.ensure_future(tick())
        await aio.run(["sleep", "0.5"])
        ticker.cancel()
        assert ticks > 5

    run(main)


def test_text_streams_are_refused() -> None:
    async def main() -> None:
        with pytest.raises(ValueError):
            await aio.popen(["true"], text=True)

    run(main)


def test_the_machine() -> None:
    async def main() -> None:
        assert (await aio.doctor()).findings
        assert (await aio.plan(["true"])).steps
        assert (await aio.gc()).remaining == []

    run(main)


def test_the_same_names() -> None:
    functions = {"run", "popen", "by_name", "doctor", "plan", "ls", "gc", "namespaces"}
    functions |= {"rm", "rmtree", "volumes", "remove_volume"}
    classes = {"Container", "Events", "Group", "LogReader", "LogStream", "Network", "Pod", "Process"}
    classes |= {"SyscallListener"}
    assert functions | classes == set(aio.__all__)
    assert all(inspect.iscoroutinefunction(getattr(aio, name)) for name in functions)
    methods = {n for n in dir(ringfence.Container) if not n.startswith("_")}
    assert methods - set(dir(aio.Container)) == {"by_name", "log_fd"}
    for name in ("Pod", "Network", "SyscallListener"):
        assert {n for n in dir(getattr(ringfence, name)) if not n.startswith("_")} <= set(dir(getattr(aio, name)))
