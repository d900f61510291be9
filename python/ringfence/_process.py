"""A process in a container, with the contract of `subprocess.Popen`."""

from __future__ import annotations

import fcntl
import io
import os
import select
import selectors
import signal as signals
import subprocess
import time
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Generic, TypeVar

from . import _host
from ._errors import forked_child

if TYPE_CHECKING:
    from . import _ringfence
    from ._container import Container
    from ._types import Seconds

T = TypeVar("T", str, bytes)

#: One read.
_CHUNK = 65536
#: A pipe that poll calls writable takes so much without blocking (pipe(7)).
_PIPE_BUF = select.PIPE_BUF
_F_SETPIPE_SZ = 1031


class TextOptions:
    """How streams are opened: the arguments of `subprocess.Popen`, checked as it checks them."""

    __slots__ = ("bufsize", "encoding", "errors", "pipesize", "text")

    def __init__(
        self,
        text: bool | None = None,
        universal_newlines: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
        bufsize: int = -1,
        pipesize: int = -1,
    ) -> None:
        if text is not None and universal_newlines is not None and bool(universal_newlines) != bool(text):
            raise subprocess.SubprocessError(
                "Cannot disambiguate when both text and universal_newlines are supplied but different. Pass one or the other."
            )
        if bufsize is None:
            bufsize = -1
        if not isinstance(bufsize, int):
            raise TypeError("bufsize must be an integer")
        self.text = bool(encoding or errors or text or universal_newlines)
        self.encoding = encoding
        self.errors = errors
        self.bufsize = bufsize
        self.pipesize = pipesize


class Process(Generic[T]):
    """A process in a container: what `subprocess.Popen` is for a child.

    `args`, `stdin`, `stdout`, `stderr`, `returncode`, `poll`, `wait`, `communicate`, `send_signal`, `terminate`, `kill` and
    the context manager mean what they mean there. `reason` says why it ended. Made by `popen` and by `Container.popen`;
    usable from any thread.
    """

    args: Any
    #: A file when it was asked to be a pipe, else None.
    stdin: IO[T] | None
    stdout: IO[T] | None
    stderr: IO[T] | None
    #: The exit code, -N when signal N killed it, None while it runs. Set by `poll`, `wait` and `communicate`.
    returncode: int | None
    #: The container that it runs in.
    container: Container

    def __init__(
        self, raw: _ringfence.Process, args: Any, container: Container, options: TextOptions, owns_container: bool
    ) -> None:
        self._raw = raw
        self._generation = _host.generation
        self._owns_container = owns_container
        self._status: _ringfence.ExitStatus | None = None
        self._communication: _Communication | None = None
        self.args = args
        self.container = container
        self.returncode = None
        self.text_mode = options.text
        self.encoding = options.encoding
        self.errors = options.errors
        self.stdin = self._open(raw.take_stdin(), "wb", options)
        self.stdout = self._open(raw.take_stdout(), "rb", options)
        self.stderr = self._open(raw.take_stderr(), "rb", options)

    def _open(self, fd: int | None, mode: str, options: TextOptions) -> Any:
        if fd is None:
            return None
        if options.pipesize > 0:
            fcntl.fcntl(fd, _F_SETPIPE_SZ, options.pipesize)
        bufsize = options.bufsize
        line_buffering = False
        if bufsize == 1:
            if options.text:
                line_buffering = True
            else:
                warnings.warn(
                    "line buffering (buffering=1) isn't supported in binary mode, the default buffer size will be used",
                    RuntimeWarning,
                    stacklevel=5,
                )
            bufsize = -1
        file = open(fd, mode, bufsize)  # noqa: SIM115 # the caller's to close
        if options.text:
            return io.TextIOWrapper(
                file,
                encoding=options.encoding,
                errors=options.errors,
                line_buffering=line_buffering and mode == "wb",
                write_through=mode == "wb",
            )
        return file

    def _live(self, call: str) -> _ringfence.Process:
        if self._generation != _host.generation:
            raise forked_child(f"Process.{call}")
        return self._raw

    def _ended(self, status: _ringfence.ExitStatus | None) -> int | None:
        if status is not None:
            self._status = status
            if status.code is not None:
                self.returncode = status.code
            else:
                # When its keeper is killed nobody knows the status, but the kernel has killed the process as well.
                self.returncode = -(status.signal or signals.SIGKILL)
        return self.returncode

    @property
    def pid(self) -> int:
        """Its pid in the pid namespace of this program."""
        return self._live("pid").pid

    @property
    def pidfd(self) -> int:
        """A descriptor of the process, borrowed: it lives as long as this object."""
        return self._live("pidfd").pidfd

    @property
    def status_fd(self) -> int:
        """Becomes readable when it has ended, for poll, epoll, asyncio; borrowed. It is only to be polled."""
        return self._live("status_fd").status_fd

    @property
    def terminal_fd(self) -> int | None:
        """The host's end of its terminal, borrowed; None without `terminal`."""
        return self._live("terminal_fd").terminal

    @property
    def universal_newlines(self) -> bool:
        return self.text_mode

    @property
    def reason(self) -> str | None:
        """`exited`, `signaled`, `out_of_memory`, `container_ended`, `lost`, `wall_time` or `cpu_time`; None while it runs."""
        return self._status.reason if self._status else None

    @property
    def core_dumped(self) -> bool:
        """The signal that killed it dumped core."""
        return bool(self._status and self._status.core_dumped)

    def resize(self, rows: int, columns: int) -> None:
        """Sets the size of its terminal."""
        self._live("resize").resize(rows, columns)

    def poll(self) -> int | None:
        """The returncode if it has ended, else None."""
        raw = self._live("poll")
        return self.returncode if self._status else self._ended(raw.try_wait())

    def wait(self, timeout: Seconds | None = None) -> int:
        """Waits for its end; `subprocess.TimeoutExpired` when the seconds pass first. Any number of threads may wait."""
        raw = self._live("wait")
        if self._status is None and self._ended(raw.wait(timeout)) is None:
            raise subprocess.TimeoutExpired(self.args, _host.seconds(timeout) or 0.0)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, sig: int | str) -> None:
        """Sends a signal, by number or name (`TERM`); nothing happens when it has ended."""
        raw = self._live("send_signal")
        if self.poll() is None:
            raw.kill(sig)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signals.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signals.SIGKILL)

    def _abandon(self) -> None:
        """Ends it after a failure: with its container when it owns that."""
        if self._generation != _host.generation:
            return
        if self._owns_container:
            self.container.close()
        else:
            self.kill()
            self.wait()

    def communicate(self, input: T | None = None, timeout: Seconds | None = None) -> tuple[T, T]:
        """Writes `input`, reads stdout and stderr to their ends, waits. None for a stream that is no pipe.

        After `subprocess.TimeoutExpired` (which has what was read as `output` and `stderr`) it can be called again and
        goes on; nothing is lost.
        """
        self._live("communicate")
        if self._communication is None:
            self._communication = _Communication(self, input)
        elif input:
            raise ValueError("Cannot send input after starting communication")
        return self._communication.go_on(self, timeout)

    def __enter__(self) -> Process[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._generation != _host.generation:
            return
        try:
            self._close_streams()
        finally:
            if kind is None or not issubclass(kind, KeyboardInterrupt):
                # A process that owns its container is waited for as well: `with popen(...)` is `with Popen(...)`.
                self.wait()
            if self._owns_container:
                self.container.close()

    def _close_streams(self) -> None:
        for file in (self.stdout, self.stderr):
            if file:
                file.close()
        if self.stdin:
            self.stdin.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: returncode: {self.returncode} args: {self.args!r}>"


class _Communication:
    """The state of `communicate`, which a timeout interrupts and the next call resumes."""

    def __init__(self, process: Process[Any], input: Any) -> None:
        self.received: dict[str, list[bytes]] = {}
        self.files: dict[str, Any] = {n: f for n in ("stdout", "stderr") if (f := getattr(process, n)) is not None}
        for name in self.files:
            self.received[name] = []
        self.pending = memoryview(b"")
        stdin = process.stdin
        if stdin is None:
            return
        try:
            stdin.flush()
        except BrokenPipeError:
            pass
        if input:
            if isinstance(stdin, io.TextIOWrapper):
                input = input.encode(stdin.encoding, stdin.errors)
            self.pending = memoryview(input).cast("B")
            self.files["stdin"] = stdin
        else:
            self._close(stdin)

    @staticmethod
    def _close(file: Any) -> None:
        try:
            file.close()
        except BrokenPipeError:
            pass

    def go_on(self, process: Process[Any], timeout: Seconds | None) -> tuple[Any, Any]:
        timeout = _host.seconds(timeout)
        until = _host.deadline(timeout)
        with selectors.DefaultSelector() if len(self.files) > 1 else selectors.PollSelector() as selector:
            for name, file in self.files.items():
                selector.register(file, selectors.EVENT_WRITE if name == "stdin" else selectors.EVENT_READ, name)
            while selector.get_map():
                left = None if until is None else until - time.monotonic()
                if left is not None and left < 0:
                    raise self._expired(process, timeout)
                for key, _ in selector.select(left):
                    if not (self._write if key.data == "stdin" else self._reader(key.data))(key.fd):
                        selector.unregister(key.fileobj)
                        self._close(self.files.pop(key.data))
        try:
            process.wait(None if until is None else max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise self._expired(process, timeout) from None
        return self._text(process, "stdout"), self._text(process, "stderr")

    def _write(self, fd: int) -> bool:
        try:
            sent = os.write(fd, self.pending[:_PIPE_BUF])
        except BrokenPipeError:
            return False
        self.pending = self.pending[sent:]
        return bool(self.pending)

    def _reader(self, name: str) -> Callable[[int], bool]:
        def read(fd: int) -> bool:
            data = os.read(fd, _CHUNK)
            if data:
                self.received[name].append(data)
            return bool(data)

        return read

    def _expired(self, process: Process[Any], timeout: Seconds | None) -> subprocess.TimeoutExpired:
        out, err = (b"".join(self.received.get(name, ())) or None for name in ("stdout", "stderr"))
        return subprocess.TimeoutExpired(process.args, _host.seconds(timeout) or 0.0, output=out, stderr=err)

    def _text(self, process: Process[Any], name: str) -> Any:
        if name not in self.received:
            return None
        data = b"".join(self.received[name])
        file = getattr(process, name)
        if not process.text_mode:
            return data
        return data.decode(file.encoding, file.errors).replace("\r\n", "\n").replace("\r", "\n")
