"""The host process does not notice: the interpreter's lock, signals, Ctrl-C, forks, exit, logging.

tests/run: vm=root
"""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import ringfence
from ringfence import _host


def python(script: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """The script in an interpreter of its own, where any warning is an error."""
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        **options,
    )


WAITS: dict[str, Callable[[ringfence.Process[Any]], Any]] = {
    "wait": lambda p: p.wait(),
    "wait with a timeout": lambda p: p.wait(60),
    "communicate": lambda p: p.communicate(),
    "the container's wait": lambda p: p.container.wait(),
}


@pytest.mark.parametrize("name", WAITS)
def test_waits_let_other_threads_run(name: str) -> None:
    with ringfence.popen(["sleep", "60"], stdout=ringfence.PIPE) as p:
        timer = threading.Timer(0.3, p.kill)
        timer.start()
        started = time.monotonic()
        WAITS[name](p)
        assert time.monotonic() - started < 10
        timer.join()


@pytest.mark.parametrize("name", WAITS)
def test_ctrl_c_ends_waits(name: str) -> None:
    with ringfence.popen(["sleep", "60"], stdout=ringfence.PIPE) as p:
        main = threading.main_thread().ident
        assert main is not None
        timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
        timer.start()
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            WAITS[name](p)
        assert time.monotonic() - started < 5
        timer.join()
        p.kill()


def test_ctrl_c_ends_run_and_what_it_started() -> None:
    before = signal.getsignal(signal.SIGINT)
    pids: list[int] = []
    read, write = os.pipe()
    threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        ringfence.run(["sleep", "60"], pass_fds=[write])
    os.close(write)
    assert os.read(read, 1) == b""
    os.close(read)
    assert signal.getsignal(signal.SIGINT) is before
    assert not pids


def test_a_handler_runs_during_a_wait_and_the_wait_goes_on() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: seen.append(number))
    try:
        with ringfence.popen(["sleep", "0.6"]) as p:
            timer = threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGUSR1))
            timer.start()
            assert p.wait() == 0
            timer.join()
        assert seen == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_timeouts_of_any_size() -> None:
    with ringfence.popen(["sleep", "0.2"]) as p:
        with pytest.raises(subprocess.TimeoutExpired):
            p.wait(-1)
        with pytest.raises(ValueError):
            p.wait(float("nan"))
        assert p.wait(1e300) == 0


def test_exit_closes_quietly() -> None:
    done = python("import ringfence; c = ringfence.Container(); print(c.pid)")
    assert done.stderr == ""
    assert done.returncode == 0
    assert not os.path.exists(f"/proc/{int(done.stdout)}")


def test_exit_from_within_a_wait_in_a_thread() -> None:
    script = """
import ringfence, threading, time
p = ringfence.popen(["sleep", "60"])
threading.Thread(target=p.wait, daemon=True).start()
time.sleep(0.2)
print(p.pid)
"""
    done = python(script)
    assert (done.returncode, done.stderr) == (0, "")
    assert not os.path.exists(f"/proc/{int(done.stdout)}")


def test_a_forgotten_container_warns_in_development_mode() -> None:
    done = python("import ringfence; c = ringfence.Container(); del c")
    assert "unclosed <Container" in done.stderr


def in_child(work: Callable[[], object]) -> int:
    """0: the call raised ChildProcessError."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 2
        except ChildProcessError as error:
            code = 0 if isinstance(error, ringfence.Error) and error.errno == 10 else 3
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_forked_children() -> None:
    with ringfence.Container(["sleep", "60"]) as c:
        p = c.main
        assert p is not None
        calls: list[Callable[[], object]] = [
            lambda: c.run(["true"]),
            lambda: c.popen(["true"]),
            lambda: c.pid,
            lambda: c.pidfd,
            lambda: c.id,
            lambda: c.usage(),
            lambda: c.info,
            lambda: c.logs(),
            lambda: c.signal(15),
            lambda: c.kill(),
            lambda: c.stop(),
            lambda: c.wait(0),
            lambda: c.close(),
            lambda: c.freeze(),
            lambda: c.namespaces["net"].id,
            lambda: p.pid,
            lambda: p.poll(),
            lambda: p.wait(0),
            lambda: p.kill(),
            lambda: p.communicate(),
        ]
        assert [in_child(call) for call in calls] == [0] * len(calls)
        assert c.running
        assert p.poll() is None


def test_finalizers_in_a_forked_child_end_nothing() -> None:
    script = """
import gc, os, ringfence
c = ringfence.Container()
pid = os.fork()
if pid == 0:
    with c:
        pass
    del c
    gc.collect()
    raise SystemExit(0)
assert os.waitpid(pid, 0)[1] == 0
assert c.run(["true"]).returncode == 0
c.close()
"""
    done = python(script)
    assert (done.returncode, done.stderr) == (0, "")


def _work(n: int) -> int:
    return n * n


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_multiprocessing_beside_a_container(container: ringfence.Container) -> None:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(_work, range(4)) == [0, 1, 4, 9]
    assert container.run(["true"]).returncode == 0


def _all_inheritable() -> set[str]:
    return {fd for fd in os.listdir("/proc/self/fd") if int(fd) > 2 and _inheritable(int(fd))}


def test_no_descriptor_is_inheritable() -> None:
    before = _all_inheritable()
    with ringfence.Container() as c, c.popen(["cat"], stdin=ringfence.PIPE, stdout=ringfence.PIPE) as p:
        assert _all_inheritable() <= before
        p.kill()


def _inheritable(fd: int) -> bool:
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False


def test_nothing_accumulates() -> None:
    for _ in range(5):
        ringfence.run(["true"], capture_output=True)
    gc.collect()
    fds, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    for _ in range(30):
        ringfence.run(["true"], capture_output=True)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= fds
    assert threading.active_count() == threads


def test_log_records_reach_logging(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="ringfence"):
        ringfence.run(["true"])
    assert _host._level == logging.DEBUG
    assert all(record.name == "ringfence" for record in caplog.records)
    assert caplog.records, "a start says something at level DEBUG"
    ringfence.run(["true"])
    assert _host._level == logging.getLogger("ringfence").getEffectiveLevel()


def test_nothing_is_written_to_standard_streams() -> None:
    script = "import ringfence; ringfence.run(['true']); ringfence.doctor(); ringfence.plan(['true']); ringfence.gc()"
    done = python(script)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_import_is_quick_and_starts_nothing() -> None:
    script = "import os, threading, ringfence; print(len(os.listdir('/proc/self/task')), os.listdir('/proc/self/fd'))"
    bare = python(script.replace(", ringfence", ""))
    assert python(script).stdout == bare.stdout


def test_the_version() -> None:
    assert ringfence.__version__.count(".") == 2


def test_what_is_forgotten_goes_at_once() -> None:
    """Its descriptors do not wait for the collector of cycles, which does not know how few there are."""

    def once() -> int:
        assert ringfence.run(["true"], capture_output=True).returncode == 0
        with ringfence.Container() as container:
            assert container.run(["cat"], input=b"text", stdout=ringfence.PIPE).stdout == b"text"
        del container
        return len(os.listdir("/proc/self/fd"))

    gc.disable()
    try:
        first = once()
        assert [once() for _ in range(3)] == [first] * 3
    finally:
        gc.enable()


def test_the_process_of_a_container_that_was_kept_alone() -> None:
    process = ringfence.popen(["sh", "-c", "read line; exit 7"], stdin=ringfence.PIPE)
    assert process.stdin
    process.stdin.close()
    container = process.container
    del process
    assert container.wait(20) == 7
    assert container.main is not None
    assert (container.main.args, container.main.poll()) == (["sh", "-c", "read line; exit 7"], 7)
    assert container.main.container is container
    container.close()
