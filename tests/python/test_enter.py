"""Threads of this program inside the namespaces of a container."""

from __future__ import annotations

import asyncio
import contextvars
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import ringfence
from ringfence import aio

root = pytest.mark.skipif(os.geteuid() != 0, reason="to join takes CAP_SYS_ADMIN")

KINDS = ("net", "uts", "ipc", "cgroup")


def here() -> list[str]:
    return [os.readlink(f"/proc/thread-self/ns/{kind}") for kind in (*KINDS, "mnt")]


@pytest.fixture
def container() -> Iterator[ringfence.Container]:
    with ringfence.Container(hostname="inside", files={"/etc/ringfence-enter": "within"}) as container:
        yield container


@root
def test_a_block(container: ringfence.Container) -> None:
    before = here()
    with container.enter("net"):
        inside = socket.create_server(("127.0.0.1", 80))
        assert here() != before
    assert here() == before
    with inside, container.enter(["net", "uts"]):
        assert socket.gethostname() == "inside"
        with socket.create_connection(("127.0.0.1", 80)) as client, inside.accept()[0] as peer:
            client.sendall(b"hello")
            assert peer.recv(5) == b"hello"
    with pytest.raises(ZeroDivisionError), container.enter(KINDS):
        1 / 0  # noqa: B018
    assert here() == before


@root
def test_a_function(container: ringfence.Container) -> None:
    before, cwd = here(), os.getcwd()
    assert container.enter(["mnt", "net"], Path("/etc/ringfence-enter").read_text) == "within"
    assert (
        container.enter("uts", lambda prefix, suffix="": prefix + socket.gethostname() + suffix, "<", suffix=">")
        == "<inside>"
    )
    assert container.enter("mnt", os.getcwd) == "/"
    with pytest.raises(FileNotFoundError) as caught:
        container.enter("mnt", open, "/nonsense")
    assert caught.value.filename == "/nonsense"
    with pytest.raises(SystemExit):
        container.enter("net", os.sys.exit, 3)  # type: ignore[attr-defined]
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("the caller's")
    assert container.enter("net", variable.get) == "the caller's"
    assert (here(), os.getcwd()) == (before, cwd)
    assert not any(thread.name == "ringfence-enter" for thread in threading.enumerate())


@root
def test_many_threads(container: ringfence.Container) -> None:
    before = here()
    server = container.enter("net", socket.create_server, ("127.0.0.1", 8080), backlog=64)

    def serve() -> None:
        for _ in range(100):
            with server.accept()[0] as peer:
                peer.sendall(b"served")

    def fetch(number: int) -> bytes:
        with container.enter("net"):
            client = socket.create_connection(("127.0.0.1", 8080), timeout=60)
        with client:
            assert here() == before
            return client.recv(6)

    with server, ThreadPoolExecutor(20) as pool:
        serving = threading.Thread(target=serve)
        serving.start()
        assert set(pool.map(fetch, range(100))) == {b"served"}
        serving.join()
    assert here() == before


@root
def test_asyncio() -> None:
    async def main() -> None:
        async with aio.Container(hostname="inside") as container:
            assert await container.enter("uts", socket.gethostname) == "inside"
            names = await asyncio.gather(*(container.enter("uts", socket.gethostname) for _ in range(20)))
            assert set(names) == {"inside"}
            assert socket.gethostname() != "inside"
            with pytest.raises(ringfence.Error, match="pid"):
                await container.enter("pid", os.getpid)

    asyncio.run(main())


@root
def test_a_block_belongs_to_its_thread(container: ringfence.Container) -> None:
    entry = container.enter("net")
    with pytest.raises(RuntimeError, match="not in use"):
        entry.__exit__(None, None, None)
    with entry:
        assert "inside" in repr(entry)
        with pytest.raises(RuntimeError, match="in use"):
            entry.__enter__()
        with ThreadPoolExecutor(1) as pool, pytest.raises(RuntimeError, match="thread on which it began"):
            pool.submit(entry.__exit__, None, None, None).result()
    with entry:
        pass


OUTSIDE = """
import os, threading, ringfence
before = os.readlink("/proc/thread-self/ns/net")
with ringfence.Container() as c:
    try:
        with c.enter("net"):
            print("inside")
    except PermissionError as error:
        print(error.field, os.readlink("/proc/thread-self/ns/net") == before)
    print(c.enter("net", os.readlink, "/proc/thread-self/ns/net") != before)
"""


@root
def test_a_thread_that_could_not_come_back_is_not_lent() -> None:
    """Root of a user namespace, with a network of the user namespace above."""
    done = subprocess.run(
        ["unshare", "-Ur", sys.executable, "-c", OUTSIDE],
        env={**os.environ, "XDG_RUNTIME_DIR": os.environ["TMPDIR"]},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, "kinds True\nTrue\n"), done.stderr


def test_refusals(container: ringfence.Container) -> None:
    before = here()
    for kinds in ("pid", ["net", "user"], "time", "nonsense", [], ["net", "nonsense"]):
        with pytest.raises(ringfence.Error) as caught, container.enter(kinds):
            pass
        assert (caught.value.kind, caught.value.field) == ("invalid_argument", "kinds"), kinds
        with pytest.raises(ringfence.Error) as caught:
            container.enter(kinds, here)
        assert (caught.value.kind, caught.value.field) == ("invalid_argument", "kinds"), kinds
    with pytest.raises(ringfence.Error, match="mnt"), container.enter("mnt"):
        pass
    with pytest.raises(TypeError, match="kinds"):
        container.enter([1])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="function"):
        container.enter("net", 7)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="function"):
        container.enter("net", None, 7)  # type: ignore[arg-type]
    if os.geteuid() != 0:
        with pytest.raises(PermissionError) as denied, container.enter("net"):
            pass
        assert isinstance(denied.value, ringfence.Error)
        assert (denied.value.kind, denied.value.field) == ("permission_denied", "kinds")
        assert "CAP_SYS_ADMIN" in (denied.value.hint or "")
    container.close()
    with pytest.raises(ringfence.Error) as caught:
        container.enter("net", here)
    assert caught.value.kind == "closed"
    assert here() == before
