"""Readiness: ports, lines of the log, paths, commands, HTTP; ends, timeouts, cancellation and bad input.

tests/run: tier=machine parts=2
"""

from __future__ import annotations

import asyncio
import os
import pickle
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import ringfence
from ringfence import aio

#: Does what the lines that it reads say.
ACTOR = """
import socket, sys
held = []
for line in sys.stdin:
    what, _, rest = line[:-1].partition(" ")
    if what == "tcp4": held.append(socket.create_server(("127.0.0.1", int(rest))))
    if what == "tcp6": held.append(socket.create_server(("::1", int(rest)), family=socket.AF_INET6))
    if what == "udp":
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("127.0.0.1", int(rest))); held.append(s)
    if what == "client":
        s = socket.socket(); s.bind(("127.0.0.1", int(rest))); held.append(s)
    if what == "say": print(rest, flush=True)
    if what == "part": print(rest, end="", flush=True)
    if what == "make": open(rest, "w")
    if what == "exit": sys.exit(int(rest))
    if what == "answer":
        server = held[-1]
        peer, _ = server.accept()
        peer.recv(4096)
        peer.sendall(rest.encode().decode("unicode_escape").encode("latin-1"))
        peer.close()
"""


class Actor:
    def __init__(self, **fields: Any) -> None:
        self.container = ringfence.Container(
            ["python3", "-c", ACTOR], stdin=subprocess.PIPE, text=True, bufsize=1, **fields
        )

    def do(self, *lines: str) -> None:
        assert self.container.main is not None and self.container.main.stdin is not None
        self.container.main.stdin.write("".join(f"{line}\n" for line in lines))
        self.container.main.stdin.flush()

    def after(self, seconds: float, *lines: str) -> None:
        threading.Timer(seconds, self.do, lines).start()


@contextmanager
def acting() -> Iterator[Actor]:
    made = Actor()
    try:
        with made.container:
            yield made
    finally:
        hang_up(made.container)


def hang_up(container: ringfence.Container) -> None:
    assert container.main is not None and container.main.stdin is not None
    try:
        container.main.stdin.close()
    except BrokenPipeError:
        pass


def with_actor(test: Callable[[Actor], None]) -> Callable[[], None]:
    """Not a fixture: pytest holds their values, and with them descriptors, longer than the test."""

    def run() -> None:
        with acting() as made:
            test(made)

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


def test_a_log_that_is_written_faster_than_it_is_read() -> None:
    with ringfence.Container(["sh", "-c", "while :; do echo busy; done"], log_max="1G") as c:
        began = time.monotonic()
        not_yet(c, log="never", timeout=0.5)
        assert time.monotonic() - began < 20


def not_yet(container: ringfence.Container, **conditions: Any) -> ringfence.Error:
    with pytest.raises(TimeoutError) as caught:
        container.wait_for(**{"timeout": 0.25, **conditions})
    assert isinstance(caught.value, ringfence.Error) and caught.value.kind == "timed_out"
    return caught.value


@with_actor
def test_ports(actor: Actor) -> None:
    c = actor.container
    error = not_yet(c, port=5432)
    assert error.field == "port" and "missing: port 5432 (not open)" in str(error)
    actor.after(0.05, "tcp4 5432")
    c.wait_for(port=5432, timeout=60)
    # A socket that is bound and does not listen is not open.
    actor.do("client 5433", "tcp6 5434", "say done")
    c.wait_for(log="done", port=5434, timeout=60)
    assert "missing: port 5433" in str(not_yet(c, port=[5432, 5433, 5434]))
    c.wait_for(port=[5432, "5434/tcp"], timeout=0)
    assert "port 53/udp" in str(not_yet(c, port="53/udp"))
    actor.do("udp 53")
    c.wait_for(port="53/udp", timeout=60)
    not_yet(c, port=53)
    # The network is the container's alone.
    with ringfence.Container() as other:
        not_yet(other, port=5432)


@with_actor
def test_lines_of_the_log(actor: Actor) -> None:
    c = actor.container
    actor.do("say one", "say database system is ready to accept connections")
    c.wait_for(log="ready to accept", timeout=60)
    c.wait_for(log=r"^one$", timeout=60)
    c.wait_for(log=["^one$", re.compile("ready")], timeout=60)
    not_yet(c, log="^two")
    # Within a line, not across lines.
    not_yet(c, log=r"one\s+database")
    actor.after(0.05, "part password: ")
    c.wait_for(log=r"password: $", timeout=60)
    with pytest.raises(TypeError, match="flags"):
        c.wait_for(log=re.compile("x", re.IGNORECASE))
    c.wait_for(log="(?i)DATABASE", timeout=60)


@with_actor
def test_paths(actor: Actor) -> None:
    c = actor.container
    error = not_yet(c, path="/tmp/here")
    assert error.field == "path" and "not there" in str(error)
    actor.after(0.05, "make /tmp/here")
    c.wait_for(path="/tmp/here", timeout=60)
    # A FIFO holds up nobody, a link leads nowhere else.
    c.run(
        ["sh", "-c", "mkfifo /tmp/fifo; ln -s /tmp/fifo /tmp/link; ln -s /nowhere /tmp/dangling; ln -s loop /tmp/loop"],
        check=True,
    )
    c.wait_for(path=["/tmp/fifo", b"/tmp/link", "/"], timeout=60)
    not_yet(c, path="/tmp/dangling")
    not_yet(c, path="/tmp/loop")
    not_yet(c, path="/tmp/fifo/x")


@with_actor
def test_of_the_host_nothing_is_seen(actor: Actor) -> None:
    # Directories for temporary files are the container's own.
    with tempfile.NamedTemporaryFile(dir="/tmp") as secret:
        actor.container.run(["ln", "-s", f"/proc/1/root{secret.name}", "/tmp/link"], check=True)
        not_yet(actor.container, path=secret.name)
        not_yet(actor.container, path="/tmp/link")


@with_actor
def test_commands(actor: Actor) -> None:
    c = actor.container
    error = not_yet(c, command=["sh", "-c", "echo first; echo not today >&2; test -e /tmp/go"], timeout=1)
    assert error.field == "command" and '(exit code 1: "not today")' in str(error)
    actor.after(0.05, "make /tmp/go")
    c.wait_for(command=["test", "-e", "/tmp/go"], timeout=60)
    with pytest.raises(FileNotFoundError) as caught:
        c.wait_for(command=["/no/such/program"], timeout=60)
    assert caught.value.field == "command"  # type: ignore[attr-defined]
    # One that does not end is killed with the wait.
    not_yet(c, command=["sleep", "1234"], timeout=0.2)
    assert not [p for p in c.processes() if "1234" in p.argv]
    # One that says more than a scrap of memory holds is not held up.
    c.wait_for(
        command=["sh", "-c", "i=0; while [ $i -lt 3000 ]; do echo lines; i=$((i+1)); done 2>/dev/null; true"],
        timeout=60,
    )


@with_actor
def test_http(actor: Actor) -> None:
    c = actor.container
    url = "http://127.0.0.1:8080/health"
    error = not_yet(c, http=url)
    assert error.field == "http" and "Connection refused" in str(error)
    actor.do("tcp4 8080", "answer HTTP/1.1 503 Not Yet\\r\\n\\r\\n", "answer HTTP/1.1 204 No Content\\r\\n\\r\\n")
    c.wait_for(http=url, timeout=60)
    actor.do("answer HTTP/1.0 200 OK\\n", "answer HTTP/1.1 418 Teapot\\r\\n")
    c.wait_for(http={"url": "http://localhost:8080", "status": 418}, timeout=60)
    actor.do("answer SSH-2.0-rubbish\\r\\n")
    assert "does not speak HTTP" in str(not_yet(c, http=url, timeout=0.5))
    # A server that takes the connection and says nothing.
    assert not_yet(c, http=url, timeout=0.2).field == "http"


@with_actor
def test_all_of_several(actor: Actor) -> None:
    c = actor.container
    actor.do("say one")
    c.wait_for(log="one", timeout=60)
    error = not_yet(c, log="one", port=80, path="/tmp")
    assert error.field == "port"
    assert 'missing: port 80 (not open); there: log "one", path "/tmp"' in str(error)
    actor.after(0.05, "tcp4 80")
    c.wait_for(port=80, log="one", path="/tmp", command=["true"], timeout=60)


def test_the_host_s_network() -> None:
    import socket

    with ringfence.Container(net="host") as c, socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        c.wait_for(port=port, timeout=60)
        server.close()
        not_yet(c, port=port)


@with_actor
def test_the_end_comes_first(actor: Actor) -> None:
    c = actor.container
    actor.do(*(f"say line {n}" for n in range(70)))
    actor.after(0.05, "exit 3")
    with pytest.raises(ringfence.Error) as caught:
        c.wait_for(port=80, log="line 5", path="/tmp/x", timeout=None)
    error = caught.value
    assert (error.kind, error.field) == ("closed", "port")
    assert "the main process ended (exit code 3) before it was ready" in str(error)
    assert 'missing: port 80 (not open), path "/tmp/x" (not there); there: log "line 5"' in str(error)
    assert error.log_tail is not None
    assert error.log_tail.splitlines() == [f"line {n}" for n in range(20, 70)]
    assert str(error).endswith("line 69\n")
    again = pickle.loads(pickle.dumps(error))
    assert (again.log_tail, str(again)) == (error.log_tail, str(error))
    # What it said before it went counts.
    c.wait_for(log="line 69", timeout=0)


def test_an_end_by_a_signal_and_without_a_main_process() -> None:
    with ringfence.Container(["sleep", "60"]) as c:
        threading.Timer(0.05, c.kill).start()
        with pytest.raises(
            ringfence.Error, match=r"the main process ended \(SIGKILL, .*\) before it was ready"
        ) as caught:
            c.wait_for(port=80, timeout=60)
        assert caught.value.kind == "closed" and caught.value.log_tail is None
    with ringfence.Container() as c:
        threading.Timer(0.05, c.kill).start()
        with pytest.raises(ringfence.Error, match="the container ended before it was ready") as caught:
            c.wait_for(command=["sleep", "1234"], timeout=60)
        assert caught.value.kind == "closed"
        with pytest.raises(FileNotFoundError) as missing:
            c.wait_for(log="x", timeout=60)
        assert missing.value.field == "log"  # type: ignore[attr-defined]


def test_the_tail_of_a_log_is_bounded() -> None:
    script = "import sys; [print(n, 'x' * 5000) for n in range(100)]"
    with ringfence.Container(["python3", "-c", script]) as c:
        with pytest.raises(ringfence.Error) as caught:
            c.wait_for(port=80, timeout=60)
        assert caught.value.log_tail is not None and 10_000 < len(caught.value.log_tail) <= 16384


@with_actor
def test_closing_ends_the_wait(actor: Actor) -> None:
    # Joined: until it ends, the thread holds the container.
    closing = threading.Timer(0.05, actor.container.close)
    closing.start()
    with pytest.raises(ringfence.Error) as caught:
        actor.container.wait_for(port=80, command=["false"], timeout=60)
    closing.join(60)
    assert caught.value.kind == "closed"
    with pytest.raises(ringfence.Error) as caught:
        actor.container.wait_for(port=80)
    assert caught.value.kind == "closed"


def test_a_detached_container_found_by_name() -> None:
    name = f"ready-{os.getpid()}"
    script = "import socket; s = socket.create_server(('127.0.0.1', 80)); print('up', flush=True); input()"
    read, write = os.pipe()
    started = ringfence.Container(["python3", "-c", script], stdin=read, name=name, detach=True)
    os.close(read)
    started.close()
    found = ringfence.by_name(name)
    found.wait_for(port=80, log="up", path="/proc/1", command=["true"], timeout=60)
    closing = threading.Timer(0.05, os.close, (write,))
    closing.start()
    with pytest.raises(ringfence.Error) as caught:
        found.wait_for(port=81, timeout=60)
    closing.join(60)
    assert caught.value.kind == "closed" and "(exit code 1)" in str(caught.value)
    assert "EOFError" in (caught.value.log_tail or "")
    found.close()
    ringfence.by_name(name).stop(0)
    ringfence.gc()


@with_actor
def test_a_frozen_container_is_looked_at_too(actor: Actor) -> None:
    try:
        actor.container.freeze()
    except ringfence.Error as error:
        pytest.skip(str(error))
    actor.container.wait_for(path="/tmp", timeout=60)
    assert "frozen" in str(not_yet(actor.container, command=["true"]))
    actor.container.thaw()
    actor.container.wait_for(command=["true"], timeout=60)


@with_actor
def test_interrupt(actor: Actor) -> None:
    threading.Timer(0.1, signal.raise_signal, (signal.SIGINT,)).start()
    with pytest.raises(KeyboardInterrupt):
        actor.container.wait_for(port=80, command=["sleep", "1234"], timeout=60)
    assert not [p for p in actor.container.processes() if "1234" in p.argv]


@with_actor
def test_other_threads_run_meanwhile(actor: Actor) -> None:
    turns = 0
    done = threading.Event()

    def spin() -> None:
        nonlocal turns
        while not done.is_set():
            turns += 1
            time.sleep(0.001)

    thread = threading.Thread(target=spin)
    thread.start()
    not_yet(actor.container, port=80, timeout=0.3)
    done.set()
    thread.join()
    assert turns > 20


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({}, "conditions", "nothing"),
    ({"port": []}, "conditions", "nothing"),
    ({"port": 0}, "port", "1 to 65535"),
    ({"port": 70000}, "port", "1 to 65535"),
    ({"port": [80, -1]}, "port[1]", "1 to 65535"),
    ({"port": "x"}, "port", "a port"),
    ({"port": "53/sctp"}, "port", "tcp, udp"),
    ({"port": True}, "port", "true"),
    ({"log": "("}, "log", "unclosed group"),
    ({"log": [7]}, "log[0]", "a regular expression"),
    ({"path": "tmp/x"}, "path", "absolute"),
    ({"path": "/a\0b"}, "path", "NUL"),
    ({"command": "pg_isready"}, "command", "a list"),
    ({"command": []}, "command", "no program"),
    ({"command": [7]}, "command[0]", "an argument"),
    ({"http": "https://127.0.0.1/"}, "http", "https"),
    ({"http": "http://example.org/"}, "http", "looked up"),
    ({"http": {"url": "http://127.0.0.1/", "status": 7}}, "http.status", "100 to 599"),
]


@with_actor
def test_bad_input(actor: Actor) -> None:
    for conditions, field, has in BAD:
        with pytest.raises(ValueError, match=re.escape(has)) as caught:
            actor.container.wait_for(**conditions)
        error = caught.value
        assert isinstance(error, ringfence.Error)
        assert (error.kind, error.field) == ("invalid_argument", field), conditions
    with pytest.raises(ValueError):
        actor.container.wait_for(port=80, timeout=float("nan"))
    with pytest.raises(TypeError):
        actor.container.wait_for(prot=80)  # type: ignore[call-arg]


def test_asyncio() -> None:
    async def main() -> None:
        async with aio.Container(["python3", "-c", ACTOR], stdin=subprocess.PIPE) as c:
            assert c.main is not None and c.main.stdin is not None
            c.main.stdin.write(b"say one\ntcp4 80\n")
            await c.wait_for(port=80, log="one", timeout=60)
            with pytest.raises(TimeoutError) as caught:
                await c.wait_for(path="/tmp/x", timeout=0.05)
            assert isinstance(caught.value, ringfence.Error) and caught.value.log_tail == "one\n"
            waiting = asyncio.ensure_future(c.wait_for(command=["sleep", "1234"], timeout=60))
            while not [p for p in await c.processes() if "1234" in p.argv]:
                await asyncio.sleep(0.01)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert not [p for p in await c.processes() if "1234" in p.argv]
            with pytest.raises(ValueError):
                await c.wait_for(port=0)
            c.main.stdin.write(b"exit 4\n")
            with pytest.raises(ringfence.Error, match="exit code 4") as ended:
                await c.wait_for(port=81)
            assert ended.value.kind == "closed"

    asyncio.run(asyncio.wait_for(main(), 120), debug=True)
