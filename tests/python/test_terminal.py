"""The host's terminal as stdin of a container: nothing inside can push characters into it (CVE-2017-5226).

tests/run: timeout=120 vm=root
"""

from __future__ import annotations

import json
import os
import pty
import select
import sys
import time
from collections.abc import Callable

import pytest

import ringfence

# Every way to the terminal that a process has: as it is inherited, by its names, as one's own, from a session of one's own. What
# comes of each is written to descriptor 3.
ATTEMPTS = """
import errno, fcntl, json, os, termios
seen = {}
def attempt(name, what):
    try:
        what()
        seen[name] = "done"
    except OSError as e:
        seen[name] = errno.errorcode[e.errno]
def push(fd):
    for byte in b"id\\n":
        fcntl.ioctl(fd, termios.TIOCSTI, bytes([byte]))
def both(prefix):
    for fd in (0, 1, 2):
        attempt(f"{prefix} push {fd}", lambda: push(fd))
    attempt(f"{prefix} take", lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
    attempt(f"{prefix} steal", lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 1))
    attempt(f"{prefix} /dev/tty", lambda: push(os.open("/dev/tty", os.O_RDWR)))
    attempt(f"{prefix} again", lambda: push(os.open("/proc/self/fd/0", os.O_RDWR)))
    attempt(f"{prefix} last", lambda: push(0))
both("main")
if os.fork() == 0:
    os.setsid()
    both("session")
    os.write(int(os.environ["OUT"]), json.dumps(seen).encode())
    os._exit(0)
os.wait()
"""


def _by_main(out: int, **fields: object) -> None:
    argv = [sys.executable, "-c", ATTEMPTS]
    ringfence.run(argv, env={"OUT": str(out)}, pass_fds=[out], timeout=60, check=True, **fields)  # type: ignore[arg-type]


def _by_exec(out: int, **fields: object) -> None:
    with ringfence.Container(**fields) as container:  # type: ignore[arg-type]
        argv = [sys.executable, "-c", ATTEMPTS]
        container.run(argv, env={"OUT": str(out)}, pass_fds=[out], timeout=60, check=True)


def _by_a_careless_launcher(out: int) -> None:
    os.set_inheritable(out, True)
    os.environ["OUT"] = str(out)
    os.execv(sys.executable, [sys.executable, "-c", ATTEMPTS])


def _on_a_terminal(launch: Callable[[int], None]) -> tuple[dict[str, str], bytes]:
    """What came of the attempts of a program that is launched on a terminal of its own, and what was typed there afterwards."""
    read, write = os.pipe()
    pid, master = pty.fork()
    if pid == 0:
        status = 1
        try:
            if os.fork() == 0:
                launch(write)
                os._exit(0)
            status = os.waitstatus_to_exitcode(os.wait()[1])
            # The "shell", whose terminal it is: what would it read?
            typed = os.read(0, 100) if select.select([0], [], [], 0.3)[0] else b""
            os.write(write, b"\n" + typed)
        finally:
            os._exit(status)
    os.close(write)
    with open(read, "rb") as pipe:
        deadline = time.monotonic() + 100
        said = b""
        while time.monotonic() < deadline:
            ready = select.select([pipe, master], [], [], 1)[0]
            if master in ready:
                try:
                    said += os.read(master, 4096)
                except OSError:
                    pass
            if pipe in ready:
                break
        text = pipe.read()
    status = os.waitpid(pid, 0)[1]
    os.close(master)
    assert status == 0, said.decode(errors="replace")
    seen, _, typed = text.partition(b"\n")
    return json.loads(seen), typed


def _check(seen: dict[str, str], typed: bytes) -> None:
    assert len(seen) == 16
    done = {name: answer for name, answer in seen.items() if answer not in ("EPERM", "EIO", "ENXIO", "EACCES")}
    assert not done, seen
    assert typed == b""


@pytest.mark.parametrize("init", [True, False], ids=["init", "pid1"])
def test_nothing_is_pushed_by_a_main_process(init: bool) -> None:
    # Not by the filter alone, which refuses it as well.
    _check(*_on_a_terminal(lambda out: _by_main(out, init=init, seccomp="none")))
    if os.geteuid() == 0:
        _check(*_on_a_terminal(lambda out: _by_main(out, init=init, idmap="host", seccomp="none")))
        _check(*_on_a_terminal(lambda out: _by_main(out, init=init, capabilities="all", seccomp="none")))
        # The kernel lets who has this type into any terminal; the filter does not.
        admin = {"add": ["sys_admin"]}
        _check(*_on_a_terminal(lambda out: _by_main(out, init=init, capabilities=admin, idmap="host")))


def test_nothing_is_pushed_by_a_process_that_joins() -> None:
    _check(*_on_a_terminal(lambda out: _by_exec(out, seccomp="none")))
    if os.geteuid() == 0:
        _check(*_on_a_terminal(lambda out: _by_exec(out, idmap="host", seccomp="none")))


def test_the_attempts_succeed_where_nobody_prevents_them() -> None:
    seen, typed = _on_a_terminal(_by_a_careless_launcher)
    if set(seen.values()) <= {"EIO", "EPERM"}:
        print("SKIP: dev.tty.legacy_tiocsti is 0")
        pytest.skip("dev.tty.legacy_tiocsti is 0")
    assert seen["main push 0"] == "done"
    assert b"id" in typed
