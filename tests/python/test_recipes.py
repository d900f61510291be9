"""Recipes: what people start in containers while they test, each as short as it can be.

tests/run: tier=machine timeout=300

The page "Testing with ringfence" points here. Programs of the machine serve, client libraries of this program's ask.
"""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ringfence

Factory = Callable[..., ringfence.Container]


def unprivileged() -> dict[str, Any]:
    """For programs that refuse to be root: a user of the container's own for root, for others themselves."""
    uid = os.getuid() or 1000
    fields: dict[str, Any] = {"user": f"{uid}:{uid}", "files": {"/etc/passwd": f"tester:x:{uid}:{uid}::/tmp:/bin/sh\n"}}
    if os.getuid() != 0:
        fields |= {"user": f"{uid}:{os.getgid()}", "idmap": "keep-id"}
    return fields


def test_postgresql(ringfence_container: Factory) -> None:
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
    psycopg = pytest.importorskip("psycopg")
    if not found:
        pytest.skip("no PostgreSQL on this machine")
    script = "initdb -D /tmp/db -U postgres -A trust --no-sync && exec postgres -D /tmp/db -k /tmp -F"
    c = ringfence_container(
        ["sh", "-c", script],
        env={"PATH": f"{found[-1]}:/usr/bin:/bin"},
        ports=[5432],
        **unprivileged(),
    )
    c.wait_for(port=5432, log="database system is ready to accept connections", timeout=60)
    with psycopg.connect(host="127.0.0.1", port=c.port(5432), user="postgres") as db:
        db.execute("create table numbers as select generate_series(1, 1000) as n")
        assert db.execute("select sum(n) from numbers").fetchone() == (500500,)
    # Stopped as an administrator would, and gone with all that it wrote.
    c.stop()
    assert not c.running


def test_redis(ringfence_container: Factory) -> None:
    redis = pytest.importorskip("redis")
    program = shutil.which("valkey-server") or shutil.which("redis-server")
    if not program:
        pytest.skip("no Redis or Valkey on this machine")
    c = ringfence_container([program, "--save", "", "--dir", "/tmp"], ports=[6379])
    c.wait_for(port=6379, timeout=60)
    client = redis.Redis(port=c.port(6379))
    with client.pipeline() as pipe:
        for i in range(1000):
            pipe.incrby("sum", i)
        assert pipe.execute()[-1] == 499500
    client.close()
    c.write_bytes("/tmp/reached", b"the same container")
    assert c.read_bytes("/tmp/reached") == b"the same container"


def test_a_web_server_and_a_client_of_the_standard_library(ringfence_container: Factory, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("hello\n")
    c = ringfence_container(["python3", "-m", "http.server", "8000", "--directory", str(tmp_path)], ports=[8000])
    c.wait_for(http="http://127.0.0.1:8000/", timeout=60)
    with urllib.request.urlopen(f"http://127.0.0.1:{c.port(8000)}/index.html", timeout=60) as answer:
        assert answer.read() == b"hello\n"
    assert "GET /index.html" in c.logs(tail=5)


def test_a_build_in_a_clean_tree(ringfence_container: Factory, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "answer.c").write_text('#include <stdio.h>\nint main(void) { puts("42"); }\n')
    (source / "Makefile").write_text("answer: answer.c\n\t$(CC) -o $@ $<\n")
    c = ringfence_container(memory="512M", pids=64) if limited() else ringfence_container()
    c.copy_in(source, "/tmp/build")
    c.run(["make", "-C", "/tmp/build"], check=True, capture_output=True)
    c.copy_out("/tmp/build/answer", tmp_path / "answer")
    assert not (source / "answer").exists()
    assert subprocess.run([tmp_path / "answer"], capture_output=True, check=True).stdout == b"42\n"


def limited() -> bool:
    """Can this caller limit anything?"""
    try:
        ringfence.run(["true"], pids=64)
    except ringfence.Error as error:
        assert error.kind in ("unsupported", "permission_denied"), error
        return False
    return True


@pytest.mark.parametrize(
    ("program", "verdict"),
    [
        ("print(int(input()) * 2)", "right"),
        ("print(int(input()) + 2)", "wrong"),
        ("while True: pass", "wall_time"),
        ("x = bytearray(1 << 30)", "out_of_memory"),
        ("import os\nwhile True: os.fork()", "crashed"),
        ("import socket\nsocket.create_connection(('192.0.2.1', 80), 5)", "crashed"),
        ("open('/etc/shadow').read()", "crashed"),
    ],
)
def test_grading_code_that_nobody_trusts(program: str, verdict: str) -> None:
    """Time, memory, processes bounded; no network, nothing of the machine but what everybody may read."""
    if not limited():
        pytest.skip("without a delegated control group there are no limits")
    result = ringfence.run(
        [sys.executable, "-c", program],
        input="21\n",
        capture_output=True,
        text=True,
        timeout=60,
        memory="128M",
        pids=16,
        wall_time="3s",
        net="none",
        rlimits={"core": 0, "fsize": "1M"},
    )
    if result.returncode == 0:
        graded = "right" if result.stdout == "42\n" else "wrong"
    elif result.reason in ("wall_time", "out_of_memory"):
        graded = result.reason
    else:
        graded = "crashed"
    assert graded == verdict, (result, result.stderr)
