"""Groups of containers with an order.

tests/run: tier=machine
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import ringfence
from ringfence import aio

SLEEPS = ["sleep", "1000"]


def gone(pid: int) -> None:
    until = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_group() -> None:
    with ringfence.Group() as g:
        g.add("web", SLEEPS, after=["db", "cache"], hostname="web")
        g.add("db", SLEEPS, env={"A": "1"}, container_name=f"compose-{os.getpid()}")
        g.add("cache", argv=SLEEPS, after="db")
        assert g.order() == [["db"], ["cache"], ["web"]]
        assert not g.started and (list(g), len(g), "db" in g, "x" in g) == (["web", "db", "cache"], 3, True, False)
        assert g.start(timeout=60) is g
        assert g.started and repr(g) == "<Group of web, db, cache, started>"
        assert g["web"].run(["uname", "-n"], capture_output=True, text=True).stdout == "web\n"
        assert g["web"] is g["web"] and g["db"].name == f"compose-{os.getpid()}"
        assert g["db"].main and g["db"].main.args == SLEEPS
        with pytest.raises(KeyError):
            g["wbe"]
        with pytest.raises(subprocess.TimeoutExpired):
            g.wait(0.01)
        with pytest.raises(subprocess.TimeoutExpired):
            g.wait_any(0)
        g["cache"].kill()
        assert g.wait_any(60) == "cache"
        g.kill()
        g.wait(60)
        web = g["web"]
    assert not g.started and not web.running
    with pytest.raises(ringfence.Error) as closed:
        g.start()
    assert closed.value.kind == "closed"


def test_described() -> None:
    described: dict[str, Any] = {"web": {"argv": SLEEPS, "after": ["db"]}, "db": {"argv": SLEEPS}}
    with ringfence.Group(described, timeout=60) as g:
        pids = [c.pid for c in g.containers.values()]
        assert len(pids) == 2 and all(c.running for c in g.containers.values())
    for pid in pids:
        gone(pid)
    with pytest.raises(TypeError, match="db: a mapping"):
        ringfence.Group({"db": SLEEPS})  # type: ignore[dict-item]


def tells(name: str, log: Path, **fields: Any) -> dict[str, Any]:
    """A member that writes down its end when it is asked to."""
    script = f"trap 'echo {name} >>/log; exit 0' TERM; echo up; while :; do sleep 0.02; done"
    mounts = [{"source": log, "target": "/log", "rw": True}]
    return {"argv": ["sh", "-c", script], "mounts": mounts, "wait_for": {"log": "^up$"}, **fields}


def test_all_or_none(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    g = ringfence.Group({"db": tells("db", log), "web": tells("web", log, after=["db"])})
    g.add("broken", ["/no/such/program"], after=["web"])
    with pytest.raises(FileNotFoundError, match=r'^group member "broken": '):
        g.start(60)
    assert not g.started
    # Those that had started were stopped, in reverse.
    assert log.read_text() == "web\ndb\n"
    with pytest.raises(ringfence.SpecError, match="a after b after a"):
        ringfence.Group({"a": {"after": "b"}, "b": {"after": ["a"]}}).start()
    with pytest.raises(ringfence.SpecError, match='the group has no member "x"'):
        ringfence.Group({"a": {"after": "x"}}).order()
    with pytest.raises(ringfence.SpecError, match="did you mean memory"):
        g.add("c", memroy=1)
    with pytest.raises(FileExistsError):
        g.add("db")
    with pytest.raises(ringfence.SpecError, match="detach"):
        g.add("c", detach=True, container_name="c")
    assert list(g) == ["db", "web", "broken"]


def test_ready() -> None:
    server = "import socket, time; time.sleep(0.1); s = socket.create_server(('127.0.0.1', 5000)); print('up', flush=True); s.accept()"
    with ringfence.Group() as g:
        g.add("db", ["python3", "-c", server], wait_for={"port": 5000, "log": "^up"})
        g.add("web", SLEEPS, after=["db"])
        g.start(60)
        g["db"].connect(("127.0.0.1", 5000), timeout=30).close()
    late = ringfence.Group({"db": {"argv": ["sh", "-c", "echo said; exec sleep 60"], "wait_for": {"path": "/never"}}})
    with pytest.raises(TimeoutError, match=r'^group member "db": ') as raised:
        # Long enough for a start on an emulated processor.
        late.start(6 if os.environ.get("RINGFENCE_TEST_TIER") == "vm" else 1)
    assert isinstance(raised.value, ringfence.Error) and raised.value.log_tail == "said\n"
    with pytest.raises(TypeError, match="wait_for: prot: the conditions are port, log, path, command, http"):
        late.add("x", wait_for={"prot": 1})  # type: ignore[typeddict-unknown-key]


def test_ctrl_c_gives_up_the_start() -> None:
    g = ringfence.Group({"db": {"argv": SLEEPS, "wait_for": {"path": "/never"}}})
    main = threading.main_thread().ident
    assert main
    timer = threading.Timer(0.3, lambda: signal.pthread_kill(main, signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        g.start()
    timer.join()
    assert not g.started


def test_ctrl_c_stops_the_stop() -> None:
    """A member that does not heed its stop_signal holds up the close, until somebody insists."""
    deaf = ["sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.02; done"]
    g = ringfence.Group({"deaf": {"argv": deaf, "stop_timeout": 600}}).start(60)
    pid = g["deaf"].pid
    while g["deaf"].logs() != "deaf\n":
        time.sleep(0.01)
    main = threading.main_thread().ident
    assert main
    timer = threading.Timer(0.3, lambda: signal.pthread_kill(main, signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        g.close()
    timer.join()
    gone(pid)


def test_in_a_pod() -> None:
    with ringfence.Pod() as pod, ringfence.Group({"a": {}, "b": {"after": ["a"]}}, pod=pod) as g:
        with g["a"].listen(("127.0.0.1", 80)), g["b"].connect(("127.0.0.1", 80), timeout=30):
            pass
        assert g["a"].pod is pod


def test_a_forgotten_group_is_killed() -> None:
    g = ringfence.Group({"a": {"argv": SLEEPS}}).start()
    pid = g["a"].pid
    with pytest.warns(ResourceWarning, match="unclosed <Group of a, started>"):
        del g
    gone(pid)


def test_asyncio() -> None:
    async def main() -> None:
        async with aio.Group({"web": {"argv": SLEEPS, "after": ["db"]}, "db": {"argv": SLEEPS}}) as g:
            assert g.started and g.order() == [["db"], ["web"]]
            with pytest.raises(subprocess.TimeoutExpired):
                await g.wait_any(0.01)
            await g["db"].kill()
            assert await g.wait_any(60) == "db"
            await g.kill()
            await g.wait(60)
        g = aio.Group({"db": {"argv": SLEEPS, "wait_for": {"path": "/never"}}})
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(g.start(), 0.3)
        await g.close()
        g = aio.Group()
        g.add("web", ["/no/such/program"])
        with pytest.raises(FileNotFoundError):
            await g.start()
        await g.close()

    asyncio.run(main())
