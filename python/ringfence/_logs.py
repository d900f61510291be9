"""What a main process wrote to its log, line by line."""

from __future__ import annotations

import json
import logging
import os
import select
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Union

from . import _ringfence
from ._errors import Error
from ._reader import Reader

if TYPE_CHECKING:
    from typing_extensions import Self

    from ._container import Container
    from ._types import Seconds

#: Where `stream_logs` sends lines.
LogTarget = Union[Callable[[str], object], logging.Logger, "logging.LoggerAdapter[Any]"]


def options_of(tail: int | None, since: int, follow: bool) -> str:
    """What the core takes."""
    return json.dumps({"tail": tail, "since": since, "follow": follow})


def sender(target: LogTarget, level: int) -> Callable[[str], object]:
    """A function that takes a line without its end."""
    if isinstance(target, (logging.Logger, logging.LoggerAdapter)):
        return lambda line: target.log(level, "%s", line)
    if not callable(target):
        raise TypeError(f"a function or a logging.Logger is expected, not {type(target).__name__}")
    return target


class LogReader(Reader[_ringfence.LogReader, str]):
    """The lines of a container's log, made by `Container.logs(follow=True)`: an iterator of text, and a context manager.

    Each line has its newline, which only the last of a log may lack. Bytes that are not UTF-8 are replaced. Lines are handed out as they are
    written, until the container has ended; the kernel tells of them, nobody polls. The reader outlives the container's handle: after `close()` of
    an attached container it hands out the rest. It may be used by any thread, by several at once too: each line is given to one of them.
    """

    _what = "the log"
    _none = "no line"

    @property
    def position(self) -> int:
        """Behind the last byte that was handed out; `since` for another reader that goes on there."""
        return self._live("position").position

    def next(self, timeout: Seconds | None = None) -> str | None:
        """The next line; None when the seconds pass first, or when it is over. 0 only looks."""
        line = self._live("next").next(timeout)
        return None if line is None else line.decode(errors="replace")


class LogStream:
    """A block in which a thread hands on the lines of a log, made by `Container.stream_logs`.

    Leaving the block hands on what is written by then, ends the thread and waits for it; of a container that goes on, an incomplete last
    line stays. An exception of the target ends the stream, and is raised where the block is left, unless another is on its way.
    """

    def __init__(self, container: Container, reader: LogReader, send: Callable[[str], object]) -> None:
        self._container = container
        self._reader = reader
        self._send = send
        self._leaving = -1
        self._left = False
        self._until: int | None = None
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="ringfence-log", daemon=True)

    def _run(self) -> None:
        try:
            wait = select.poll()
            wait.register(self._reader.fileno(), select.POLLIN)
            wait.register(self._leaving, select.POLLIN)
            leaving = False
            while not self._left or self._until is None or self._reader.position < self._until:
                line = self._reader.next(0)
                if line is not None:
                    self._send(line.removesuffix("\n"))
                elif leaving or self._reader.over:
                    return
                else:
                    leaving = any(fd == self._leaving for fd, _ in wait.poll())
        except BaseException as error:
            # A detached container goes on when its handle is closed.
            if not (isinstance(error, Error) and error.kind == "closed"):
                self._failed = error

    def __enter__(self) -> Self:
        self._leaving = os.eventfd(0, os.EFD_CLOEXEC)
        try:
            self._thread.start()
        except BaseException:
            os.close(self._leaving)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._until = self._container.log_position()
        except Error:
            # Closed: an attached container has ended, so there is an end to read to.
            pass
        self._left = True
        try:
            os.eventfd_write(self._leaving, 1)
            self._thread.join()
        finally:
            if not self._thread.is_alive():
                os.close(self._leaving)
            self._reader.close()
        if self._failed is not None and value is None:
            raise self._failed
