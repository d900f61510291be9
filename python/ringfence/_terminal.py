"""The caller's terminal lent to a process in a container: raw mode, window size, job control; given back on every exit."""

from __future__ import annotations

import os
import select
import selectors
import signal
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from ._process import Process

_Handler = Callable[[int, "FrameType | None"], None]
_CHUNK = 65536


def size(fd: int) -> tuple[int, int]:
    """Rows and columns; what is no terminal has the size of the classic one."""
    try:
        columns, rows = os.get_terminal_size(fd)
    except OSError:
        return 24, 80
    return (rows or 24), (columns or 80)


@contextmanager
def handlers(table: dict[int, _Handler]) -> Iterator[None]:
    """Signal handlers for the time of a block."""
    before = {number: signal.signal(number, handler) for number, handler in table.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


class _Raw:
    """Raw mode of a terminal, entered and left any number of times."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.cooked: list[Any] | None = None

    def enter(self) -> None:
        if self.cooked is None and os.isatty(self.fd):
            self.cooked = termios.tcgetattr(self.fd)
            tty.setraw(self.fd)

    def leave(self) -> None:
        if self.cooked is not None:
            cooked, self.cooked = self.cooked, None
            termios.tcsetattr(self.fd, termios.TCSADRAIN, cooked)


def interact(process: Process[Any], stdin: int = 0, stdout: int = 1) -> int:
    """Connects the caller's terminal to the process's until it ends; its returncode."""
    master = process.terminal_fd
    assert master is not None
    raw = _Raw(stdin)

    def resize(*_: Any) -> None:
        process.resize(*size(stdin))

    def suspend(number: int, _: FrameType | None) -> None:
        # Ctrl-Z is the container's (the terminal is raw); this is for `kill -TSTP`: stop as any program would.
        raw.leave()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        signal.signal(number, suspend)
        raw.enter()
        resize()

    def forward(number: int, _: FrameType | None) -> None:
        process.send_signal(number)

    def hang_up(number: int, _: FrameType | None) -> None:
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGCONT)

    table: dict[int, _Handler] = {
        signal.SIGWINCH: resize,
        signal.SIGTSTP: suspend,
        signal.SIGTERM: forward,
        signal.SIGINT: forward,
        signal.SIGQUIT: forward,
        signal.SIGHUP: hang_up,
    }
    blocking = os.get_blocking(master)
    os.set_blocking(master, False)
    try:
        with handlers(table):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, table)
            resize()
            raw.enter()
            _copy(process, master, stdin, stdout)
    finally:
        raw.leave()
        os.set_blocking(master, blocking)
    return process.wait()


def _copy(process: Process[Any], master: int, stdin: int, stdout: int) -> None:
    """Both directions, until the process has ended and what it wrote is shown."""
    typed = b""
    with selectors.PollSelector() as selector:
        selector.register(master, selectors.EVENT_READ)
        selector.register(process.status_fd, selectors.EVENT_READ)
        selector.register(stdin, selectors.EVENT_READ)
        while True:
            ready = {key.fd: events for key, events in selector.select()}
            if stdin in ready:
                # A terminal line discipline understands its end-of-file character, not a closed stream.
                data = _read(stdin)
                typed += data or b"\x04"
                if not data:
                    selector.unregister(stdin)
            if typed:
                typed = typed[_write(master, typed) :]
            selector.modify(master, selectors.EVENT_READ | (selectors.EVENT_WRITE if typed else 0))
            more = master in ready and _show(master, stdout)
            if process.status_fd in ready and not more:
                while _show(master, stdout):
                    pass
                return
            if master in ready and not more and _hung_up(master):
                # The other side is closed, as by a program that makes itself a daemon: wait for its end alone.
                process.wait()
                return


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, _CHUNK)
    except OSError:
        return b""


def _write(master: int, data: bytes) -> int:
    try:
        return os.write(master, data)
    except BlockingIOError:
        return 0
    except OSError:
        return len(data)


def _show(master: int, stdout: int) -> bool:
    """Moves one piece of output; False when there is none, or (EIO) never will be."""
    data = shown = _read(master)
    while data:
        data = data[os.write(stdout, data) :]
    return bool(shown)


def _hung_up(master: int) -> bool:
    poll = select.poll()
    poll.register(master, 0)
    return bool(poll.poll(0))
