"""Logs: tails, positions, following attached and detached containers to their ends, streams to functions and loggers, full logs.

tests/run: tier=machine
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import ringfence
from ringfence import aio

#: Writes a line for each that it reads.
ECHO = ["sh", "-c", 'while read -r line; do echo "$line"; done']


@contextmanager
def echoing() -> Iterator[ringfence.Container]:
    with ringfence.Container(ECHO, stdin=subprocess.PIPE, text=True, bufsize=1) as made:
        try:
            yield made
        finally:
            hang_up(made)


def say(container: ringfence.Container, text: str) -> None:
    assert container.main is not None and container.main.stdin is not None
    container.main.stdin.write(text)
    container.main.stdin.flush()


def hang_up(container: ringfence.Container) -> None:
    assert container.main is not None and container.main.stdin is not None
    container.main.stdin.close()


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def with_echo(test: Callable[[ringfence.Container], None]) -> Callable[[], None]:
    """Not a fixture: pytest holds their values, and with them descriptors, longer than the test."""

    def run() -> None:
        with echoing() as made:
            test(made)

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@with_echo
def test_tail_and_since(echo: ringfence.Container) -> None:
    say(echo, "one\ntwo\n")
    until(lambda: echo.log_position() == 8)
    assert echo.logs() == "one\ntwo\n"
    assert [echo.logs(tail=n) for n in (0, 1, 2, 3)] == ["", "two\n", "one\ntwo\n", "one\ntwo\n"]
    here = echo.log_position()
    assert echo.logs(here) == ""
    say(echo, "three\nfour\n")
    until(lambda: echo.log_position() == 19)
    assert echo.logs(since=here) == "three\nfour\n"
    assert echo.logs(here, tail=1) == "four\n"
    assert echo.logs(here, tail=9) == "three\nfour\n"
    assert echo.logs(here + 1) == "hree\nfour\n"
    assert not echo.log_is_full
    for fields, field in (
        ({"tail": -1}, "tail"),
        ({"since": -1}, "since"),
        ({"since": 2**40}, "since"),
        ({"tail": "x"}, "tail"),
    ):
        with pytest.raises(ringfence.Error) as caught:
            echo.logs(**fields)  # type: ignore[call-overload]
        assert (caught.value.kind, caught.value.field) == ("invalid_argument", field)
        assert isinstance(caught.value, ValueError)


@with_echo
def test_following_to_the_end(echo: ringfence.Container) -> None:
    say(echo, "one\n")
    with echo.logs(follow=True) as lines:
        assert next(lines) == "one\n"
        assert lines.position == 4
        assert lines.next(0) is None and not lines.over
        (ready, _, _) = select.select([lines], [], [], 0)
        assert ready == []
        threading.Timer(0.05, say, (echo, "two\n")).start()
        (ready, _, _) = select.select([lines], [], [], 60)
        assert ready == [lines]
        assert lines.next(60) == "two\n"
        say(echo, "three\nfour")
        assert lines.next(60) == "three\n"
        assert lines.next(0.05) is None
        hang_up(echo)
        assert list(lines) == []
        assert lines.over and lines.next() is None
        assert list(lines) == []
    with pytest.raises(ringfence.Error) as caught:
        lines.next(0)
    assert caught.value.kind == "closed"
    # The shell has read no newline, so it wrote nothing.
    assert echo.logs(tail=1) == "three\n"


def test_an_incomplete_line_comes_at_the_end() -> None:
    with ringfence.Container(["sh", "-c", "printf 'one\\n\\nthr\\377e'; printf e >&2"]) as c:
        assert list(c.logs(follow=True)) == ["one\n", "\n", "thr\N{REPLACEMENT CHARACTER}ee"]
        assert list(c.logs(follow=True, tail=1)) == ["thr\N{REPLACEMENT CHARACTER}ee"]
        assert list(c.logs(5, follow=True)) == ["thr\N{REPLACEMENT CHARACTER}ee"]


def test_many_lines_in_order() -> None:
    script = "import sys\nfor n in range(20000): print(n, flush=n % 7 == 0)"
    with ringfence.Container(["python3", "-c", script]) as c:
        assert "".join(c.logs(follow=True)) == "".join(f"{n}\n" for n in range(20000))


@with_echo
def test_the_iterator_has_a_timeout(echo: ringfence.Container) -> None:
    with echo.logs(follow=True, timeout=0.05) as lines, pytest.raises(TimeoutError) as caught:
        next(lines)
    assert isinstance(caught.value, ringfence.Error)


@with_echo
def test_a_closed_container_hands_out_the_rest(echo: ringfence.Container) -> None:
    say(echo, "one\n")
    until(lambda: echo.log_position() == 4)
    lines = echo.logs(follow=True)
    seen: list[str] = []
    reader = threading.Thread(target=lambda: seen.extend(lines))
    reader.start()
    echo.close()
    reader.join(60)
    assert seen == ["one\n"] and lines.over
    for call in (echo.logs, echo.log_position, lambda: echo.log_is_full, lambda: echo.logs(follow=True)):
        with pytest.raises(ringfence.Error) as caught:
            call()
        assert caught.value.kind == "closed"


@with_echo
def test_closing_a_reader_wakes_its_waits(echo: ringfence.Container) -> None:
    lines = echo.logs(follow=True)
    caught: list[ringfence.Error] = []

    def read() -> None:
        try:
            lines.next()
        except ringfence.Error as error:
            caught.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    time.sleep(0.05)
    lines.close()
    reader.join(60)
    assert [error.kind for error in caught] == ["closed"]


def test_only_one_stream_is_a_log(tmp_path: Any) -> None:
    with ringfence.Container(["sh", "-c", "echo out; echo err >&2"], stdout=subprocess.DEVNULL) as c:
        assert list(c.logs(follow=True)) == ["err\n"]
    for fields in ({"argv": ["true"], "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}, {}):
        with ringfence.Container(**fields) as c:  # type: ignore[arg-type]
            for call in (c.logs, c.log_position, c.log_fd, lambda c=c: c.logs(follow=True)):
                with pytest.raises(FileNotFoundError) as caught:
                    call()
                assert caught.value.field == "stdout"  # type: ignore[attr-defined]


def test_a_full_log() -> None:
    script = """
import os, sys
for n in range(2000):
    try:
        os.write(1, b"%06d\\n" % n)
    except OSError as error:
        os.write(int(sys.argv[1]), str((n, error.errno)).encode())
        break
"""
    read, write = os.pipe()
    with ringfence.Container(["python3", "-c", script, str(write)], pass_fds=(write,), log_max=5000) as c:
        os.close(write)
        with open(read) as said:
            # In whole pages: 8192 bytes.
            said_by = said.read()
        # Linux 6.12 refuses the whole write.
        assert (said_by, c.log_position()) in ((str((1171, 1)), 8192), (str((1170, 1)), 8190))
        assert c.log_is_full
        # The oldest stays.
        assert c.logs().startswith("000000\n000001\n")
        assert list(c.logs(follow=True))[-1] in ("00", "001169\n")


def test_a_program_that_moves_the_offset_hurts_itself() -> None:
    script = "import os, sys; os.write(1, b'one\\n'); os.lseek(1, 2**50, 0); sys.stdin.read(); os.lseek(1, 2, 0)"
    with ringfence.Container(["python3", "-c", script], stdin=subprocess.PIPE, log_max=4096) as c:
        until(lambda: c.log_position() == 4096)
        assert c.logs() == "one\n" + "\0" * 4092
        lines = c.logs(follow=True)
        assert lines.next(60) == "one\n"
        hang_up(c)
        list(lines)
        assert lines.over
        lines.close()
        assert c.logs() == "on"


# --- detached


@contextmanager
def detaching() -> Iterator[ringfence.Container]:
    script = "echo one; read line; echo $line; read line; echo end >&2"
    end, write = os.pipe()
    name = f"logs-{os.getpid()}-{time.monotonic_ns()}"
    c = ringfence.Container(["sh", "-c", script], stdin=end, detach=True, name=name)
    os.close(end)
    c.input = write  # type: ignore[attr-defined]
    try:
        yield c
    finally:
        os.close(write)
        if not c._closed:
            c.stop(0)
        ringfence.gc()


def with_detached(test: Callable[[ringfence.Container], None]) -> Callable[[], None]:
    """Not a fixture: pytest holds their values, and with them descriptors, longer than the test."""

    def run() -> None:
        with detaching() as made:
            test(made)

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


def elsewhere(name: str, script: str) -> subprocess.Popen[str]:
    """A program of its own that knows the container by its name only."""
    head = "import sys, ringfence\nc = ringfence.by_name(sys.argv[1])\n"
    return subprocess.Popen([sys.executable, "-c", head + script, name], stdout=subprocess.PIPE, text=True)


@with_detached
def test_a_detached_container_is_followed_by_another_program(detached: ringfence.Container) -> None:
    name, end = detached.name, detached.input  # type: ignore[attr-defined]
    assert name is not None
    script = """
lines = c.logs(follow=True)
for line in lines: print(c.log_position(), line, end="", flush=True)
print(c.logs(tail=1), lines.over, c.log_is_full)
"""
    with elsewhere(name, script) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "4 one\n"
        os.write(end, b"two\n")
        assert other.stdout.readline() == "8 two\n"
        os.write(end, b"three\n")
        assert other.stdout.read() == "12 end\nend\n True False\n"
    assert list(detached.logs(follow=True)) == ["one\n", "two\n", "end\n"]
    detached.close()
    # Kept: found by who comes later.
    with elsewhere(name, "print(c.logs(4), list(c.logs(follow=True, tail=2)), c.log_position())") as other:
        assert other.stdout is not None
        assert other.stdout.read() == "two\nend\n ['two\\n', 'end\\n'] 12\n"
    ringfence.by_name(name).stop(0)
    ringfence.gc()


@with_detached
def test_closing_a_detached_handle_ends_only_the_reading(detached: ringfence.Container) -> None:
    lines = detached.logs(follow=True)
    assert lines.next(60) == "one\n"
    kinds: list[str] = []

    def read() -> None:
        try:
            lines.next()
        except ringfence.Error as error:
            kinds.append(error.kind)

    reader = threading.Thread(target=read)
    reader.start()
    time.sleep(0.05)
    detached.close()
    reader.join(60)
    assert kinds == ["closed"]
    again = ringfence.by_name(detached.name or "")
    assert again.running and again.logs() == "one\n"
    again.stop(0)
    ringfence.gc()


# --- streams


@with_echo
def test_a_stream_to_a_logger(echo: ringfence.Container) -> None:
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logger = logging.Logger("db", logging.DEBUG)
    logger.addHandler(handler)
    before = threading.active_count()
    with echo.stream_logs(logger, logging.DEBUG):
        assert threading.active_count() == before + 1
        say(echo, "one %s\ntwo\n")
        until(lambda: echo.log_position() == 11)
    # What was written by then was handed on, and the thread is gone.
    assert [(r.levelname, r.getMessage()) for r in records] == [("DEBUG", "one %s"), ("DEBUG", "two")]
    assert threading.active_count() == before


def test_a_stream_to_a_function_lasts_to_the_end() -> None:
    seen: list[str] = []
    with ringfence.Container(["sh", "-c", "echo one; printf two"]) as c, c.stream_logs(seen.append):
        c.wait()
    assert seen == ["one", "two"]


@with_echo
def test_a_stream_raises_what_its_function_raised(echo: ringfence.Container) -> None:
    def refuse(line: str) -> None:
        raise RuntimeError(line)

    with pytest.raises(RuntimeError, match="one"), echo.stream_logs(refuse):
        say(echo, "one\n")
        until(lambda: echo.log_position() == 4)
    with pytest.raises(KeyError), echo.stream_logs(refuse):
        raise KeyError
    with pytest.raises(TypeError, match="function"):
        echo.stream_logs(7)  # type: ignore[arg-type]


def test_asyncio() -> None:
    async def main() -> None:
        async with aio.Container(ECHO, stdin=subprocess.PIPE) as c:
            assert c.main is not None and c.main.stdin is not None
            seen: list[str] = []
            async with c.stream_logs(seen.append):
                c.main.stdin.write(b"one\n")
                lines = c.logs(follow=True)
                assert await lines.next(60) == "one\n"
                waiting = asyncio.ensure_future(lines.next())
                await asyncio.sleep(0.01)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
                c.main.stdin.write(b"two\n")
                assert await lines.next(60) == "two\n"
                assert await lines.next(0) is None
                assert await c.log_position() == 8
                assert await c.logs(4) == "two\n"
                assert await c.logs(tail=1) == "two\n"
                assert not c.log_is_full
            assert seen == ["one", "two"]
            c.main.stdin.close()
            assert [line async for line in lines] == []
            assert lines.over
            lines.close()

            def refuse(line: str) -> None:
                raise RuntimeError(line)

            with pytest.raises(RuntimeError, match="one"):
                async with c.stream_logs(refuse):
                    await c.wait()

    asyncio.run(asyncio.wait_for(main(), 120), debug=True)


@with_echo
def test_reading_costs_no_descriptor(echo: ringfence.Container) -> None:
    echo.logs()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        echo.logs(tail=1)
        echo.logs(follow=True).close()
    assert len(os.listdir("/proc/self/fd")) == before


@with_echo
def test_a_reader_has_no_thread(echo: ringfence.Container) -> None:
    before = os.listdir("/proc/self/task")
    with echo.logs(follow=True) as lines:
        assert lines.next(0.01) is None
        assert os.listdir("/proc/self/task") == before
