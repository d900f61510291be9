"""Events of a container: an iterator, an asynchronous iterator, a descriptor; none is lost, Ctrl-C works.

tests/run: vm=delegated
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import ringfence
from ringfence import aio

HOG = ["python3", "-c", "x = bytearray(200 << 20)"]
#: More that run than there are processors, for some seconds.
BUSY = """
import os, time
for _ in range(os.cpu_count() + 1):
    if os.fork() == 0:
        end = time.monotonic() + 5
        while time.monotonic() < end: pass
        os._exit(0)
time.sleep(4)
"""


def next_of(events: ringfence.Events, kind: str) -> ringfence.Event:
    while True:
        event = events.next(60)
        assert event is not None, f"no {kind}"
        if event.kind == kind:
            return event
        assert event.kind != "ended", f"no {kind}"


@pytest.fixture
def limited() -> Iterator[ringfence.Container]:
    with ringfence.Container(memory="40M", swap=0, pids=16) as made:
        yield made


@pytest.mark.needs("memory", "pids")
def test_out_of_memory(limited: ringfence.Container) -> None:
    events, slow = limited.events(), limited.events(["oom_kill"])
    assert slow.kinds == ("oom_kill", "ended")
    assert {"oom", "oom_kill", "pids_max", "ended"} <= set(events.kinds)
    assert events.next(0) is None
    assert not events.over
    for round in (1, 2, 3):
        before = time.time_ns()
        assert limited.run(HOG).reason == "out_of_memory"
        event = next_of(events, "oom_kill")
        assert (event.count, event.total, event.resource, event.threshold) == (1, round, None, None)
        assert before - 10**9 <= event.time_ns <= time.time_ns()
        assert event.monotonic_ns <= time.monotonic_ns()
    (readable, _, _) = select.select([slow], [], [], 10)
    assert readable == [slow]
    event = next_of(slow, "oom_kill")
    assert (event.count, event.total) == (3, 3)
    limited.close()
    assert [e.kind for e in slow] == ["ended"]
    assert next(slow, None) is None
    assert slow.over
    assert slow.next() is None


@pytest.mark.needs("memory", "pids")
def test_the_hard_limit_of_memory(limited: ringfence.Container) -> None:
    with limited.events(["memory_max", "oom"]) as events:
        assert limited.run(HOG).reason == "out_of_memory"
        hits = limited.usage().memory_limit_hits
        assert hits
        seen: dict[str, int] = {}
        while seen.get("memory_max") != hits or "oom" not in seen:
            event = events.next(60)
            assert event is not None and event.kind in ("memory_max", "oom"), (event, seen, hits)
            assert event.total == seen.get(event.kind, 0) + event.count
            seen[event.kind] = event.total


@pytest.mark.needs("memory_high")
def test_the_soft_limit_of_memory() -> None:
    with ringfence.Container(memory="48M", memory_high="24M", swap=0) as c, c.events(["memory_high"]) as events:
        load = c.popen(["python3", "-c", "x = bytearray(28 << 20)"])
        total = next_of(events, "memory_high").total
        assert load.wait(60) == 0
        hits = c.usage().memory_high_hits
        assert hits is not None and hits >= 1
        while total < hits:
            total = next_of(events, "memory_high").total
        assert total == hits


@pytest.mark.needs("memory", "pids")
def test_refused_forks(limited: ringfence.Container) -> None:
    script = """
import os, time
for _ in range(40):
    try:
        if os.fork() == 0: time.sleep(0.3); os._exit(0)
    except OSError: pass
"""
    with limited.events({"pids_max"}) as events:
        limited.run(["python3", "-c", script], check=True)
        refused = limited.usage().pids_refused
        assert refused is not None
        assert refused >= 20
        total = 0
        while total < refused:
            total = next_of(events, "pids_max").total
        assert total == refused


@pytest.mark.needs("memory", "pids")
def test_the_last_counts_come_before_the_end() -> None:
    for wait in (True, False):
        script = "read x; exec python3 -c 'x = bytearray(200 << 20)'"
        with ringfence.Container(["sh", "-c", script], stdin=ringfence.PIPE, memory="40M", swap=0) as c:
            assert c.main is not None
            assert c.main.stdin is not None
            with c.events() as events:
                c.main.stdin.close()
                if wait:
                    c.wait(60)
                told = list(events)
            assert sum(e.count for e in told if e.kind == "oom_kill") == 1, told
            assert told[-1].kind == "ended"


def test_freezes(container: ringfence.Container) -> None:
    events = container.events()
    if "frozen" not in events.kinds:
        pytest.skip("no cgroup v2 tree for this caller")
    for _ in range(2):
        container.freeze()
        container.thaw()
    told = [events.next(0), events.next(0)]
    assert [(e.kind, e.count) for e in told if e] == [("frozen", 2), ("thawed", 2)]
    assert events.next(0) is None
    assert select.select([events], [], [], 0)[0] == []


def pressure_of(container: ringfence.Container, **window: Any) -> ringfence.Events:
    wanted: list[ringfence.Pressure] = [
        {"resource": "io", "stall": 2},
        {"resource": "cpu", "level": "some", "stall": "20ms", **window},  # type: ignore[typeddict-item]
    ]
    try:
        return container.events([], pressure=wanted)
    except ringfence.Error as error:
        if error.kind == "unsupported":
            pytest.skip(str(error))
        raise


def test_pressure_polled_from_outside(container: ringfence.Container) -> None:
    events = pressure_of(container)
    busy = container.popen(["python3", "-c", BUSY])
    poll = select.epoll()
    poll.register(events, select.EPOLLIN)
    while True:
        assert poll.poll(60), "no pressure"
        event = events.next(0)
        if event is not None:
            break
    assert (event.kind, event.resource, event.level, event.threshold) == ("pressure", "cpu", "some", 1)
    poll.close()
    busy.kill()
    busy.wait()


def may_use_resources() -> bool:
    with open("/proc/self/status") as status:
        (line,) = (line for line in status if line.startswith("CapEff:"))
    return bool(int(line.split()[1], 16) & 1 << 24)


def test_windows_that_the_kernel_refuses(container: ringfence.Container) -> None:
    pressure_of(container).close()
    if may_use_resources():
        pressure_of(container, window=1).close()
    else:
        with pytest.raises(PermissionError, match="CAP_SYS_RESOURCE") as caught:
            pressure_of(container, window=1)
        assert isinstance(caught.value, ringfence.Error)
        assert caught.value.field == "pressure[1].window"


@pytest.mark.parametrize(
    ("kinds", "pressure", "field"),
    [
        (["oom", "oomkill"], [], "kinds[1]"),
        ("oom", [], "kinds"),
        (["pressure"], [], "kinds[0]"),
        (None, [{"resource": "cpu", "stall": 0}], "pressure[0].stall"),
        (None, [{"resource": "cpu", "stall": 3}], "pressure[0].stall"),
        (None, [{"resource": "cpu"}], "pressure[0].stall"),
        (None, [{"resource": "cpu", "stall": 1, "window": 11}], "pressure[0].window"),
        (None, [{"resource": "disk", "stall": 1}], "pressure[0].resource"),
        (None, [{"resource": "cpu", "stall": 1, "when": 1}], "pressure[0].when"),
        (None, ["cpu"], "pressure[0]"),
    ],
)
def test_bad_options(container: ringfence.Container, kinds: Any, pressure: Any, field: str) -> None:
    with pytest.raises(ringfence.SpecError) as caught:
        container.events(kinds, pressure)
    assert caught.value.field == field


def test_time_passes(container: ringfence.Container) -> None:
    with container.events(timeout=0.05) as events:
        with pytest.raises(TimeoutError, match=r"none within 0\.05 s"):
            next(events)
        assert events.next(0.05) is None
    events.close()
    with pytest.raises(ringfence.Error, match="closed"):
        events.next(0)


def test_closing_wakes_those_who_wait() -> None:
    container = ringfence.Container()
    seen: list[list[str]] = []
    threads = [threading.Thread(target=lambda: seen.append([e.kind for e in container.events()])) for _ in range(3)]
    own = container.events()
    for thread in threads:
        thread.start()
    # They are counted by the container's side of the epoll instances that they made.
    while sum("eventpoll" in target for target in _targets()) < 4:
        time.sleep(0.001)
    container.close()
    for thread in threads:
        thread.join(60)
    assert [kinds[-1] for kinds in seen] == ["ended"] * 3
    assert list(own)[-1].kind == "ended"
    with pytest.raises(ringfence.Error):
        container.events()


def _targets() -> list[str]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            pass
    return found


def test_closing_the_reader_wakes_those_who_wait(container: ringfence.Container) -> None:
    events = container.events()
    seen: list[str] = []

    def wait() -> None:
        try:
            events.next()
        except ringfence.Error as error:
            seen.append(error.kind)

    thread = threading.Thread(target=wait)
    thread.start()
    events.close()
    thread.join(60)
    assert seen == ["closed"]


def test_ctrl_c_ends_the_wait(container: ringfence.Container) -> None:
    main = threading.main_thread().ident
    assert main is not None
    with container.events() as events:
        # Also one that comes while the wait is just looking at what happened.
        for delay in (0.2, 0.01, 0.05, 0.2, 0.21, 0.22):
            timer = threading.Timer(delay, signal.pthread_kill, (main, signal.SIGINT))
            timer.start()
            with pytest.raises(KeyboardInterrupt):
                next(events)
            timer.join()
        assert events.next(0) is None


def test_other_threads_run_meanwhile(container: ringfence.Container) -> None:
    events = container.events(["ended"])
    # Were the interpreter's lock held, nobody could end the wait.
    timer = threading.Timer(0.2, container.kill)
    timer.start()
    assert [e.kind for e in events] == ["ended"]
    timer.join()


def test_a_forked_child_is_refused(container: ringfence.Container) -> None:
    events = container.events()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            events.next(0)
        except ChildProcessError:
            try:
                events.fileno()
            except ChildProcessError:
                status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert events.next(0) is None


def test_detached() -> None:
    name = f"events-py-{os.getpid()}"
    with ringfence.Container(name=name, detach=True) as made:
        events = made.events()
    with pytest.raises(ringfence.Error) as caught:
        events.next()
    assert caught.value.kind == "closed"
    found = ringfence.by_name(name)
    with found.events(["ended"]) as events:
        found.stop(5)
        assert [e.kind for e in events] == ["ended"]
    # Its record stays until then.
    ringfence.gc()


def run(main: Any) -> Any:
    async def bounded() -> Any:
        return await asyncio.wait_for(main(), 60)

    return asyncio.run(bounded(), debug=True)


def test_asyncio() -> None:
    async def main() -> None:
        async with aio.Container() as c, c.events() as events, c.events(["ended"], timeout=0.05) as impatient:
            assert events.kinds[-1] == "ended"
            assert await events.next(0) is None
            assert await events.next(0.05) is None
            with pytest.raises(TimeoutError):
                async for _ in impatient:
                    pass
            waiting = asyncio.create_task(events.next())
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            if "frozen" in events.kinds:
                await c.freeze()
                event = await events.next(30)
                assert event is not None
                assert event.kind == "frozen"
                await c.thaw()

            async def kinds() -> list[str]:
                return [event.kind async for event in events]

            collecting = asyncio.create_task(kinds())
            await c.kill()
            assert (await collecting)[-1] == "ended"
            assert events.over

    run(main)


@pytest.mark.needs("memory")
def test_asyncio_out_of_memory() -> None:
    async def main() -> None:
        async with aio.Container(memory="40M", swap=0) as c, c.events(["oom_kill"]) as events:

            async def first() -> ringfence.Event:
                return await events.__anext__()

            waiting = asyncio.create_task(first())
            done = await c.run(HOG, stderr=subprocess.DEVNULL)
            assert done.reason == "out_of_memory"
            event = await waiting
            assert (event.kind, event.count) == ("oom_kill", 1)

    run(main)
