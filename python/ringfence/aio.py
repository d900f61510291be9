"""The same names as coroutines, for asyncio: `run`, `popen`, `Container`, `Pod`, `Group`, `Process`, `Events`, `by_name`, ...

    async with aio.Container(memory="256M") as c:
        r = await c.run(["sh", "-c", "echo hello"], capture_output=True, text=True)

Ends are awaited by file descriptor, starts run in the loop's default executor. A cancelled `run` or start kills what it
had started. Streams are `asyncio.StreamReader` and `asyncio.StreamWriter`, as in `asyncio.subprocess`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import logging
import os
import signal as signals
import socket as sockets
import subprocess
import time
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator, Mapping
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast, overload

from . import (
    _call,
    _compose,
    _container,
    _events,
    _files,
    _host,
    _logs,
    _machine,
    _network,
    _pod,
    _reach,
    _reader,
    _ready,
    _run,
    _syscalls,
)
from ._errors import Error, TimedOutError
from ._files import CopyProgress, Volume
from ._group import ControlGroup
from ._namespace import Namespace
from ._process import Process as _Process
from ._process import TextOptions
from ._syscalls import SyscallRequest
from ._types import (
    Address,
    AnyPath,
    Args,
    Beancounter,
    CompletedProcess,
    Entry,
    Event,
    GcReport,
    NamespaceEntry,
    Plan,
    Port,
    Pressure,
    ProcessEntry,
    Report,
    Size,
    Usage,
)

if TYPE_CHECKING:
    from typing_extensions import ParamSpec, Self, Unpack

    from ._types import Firewall, FirewallUsage, LimitFields, Seconds, Size, SpecFields

    _P = ParamSpec("_P")

__all__ = [
    "Container",
    "Events",
    "Group",
    "LogReader",
    "LogStream",
    "Network",
    "Pod",
    "Process",
    "SyscallListener",
    "by_name",
    "doctor",
    "gc",
    "ls",
    "namespaces",
    "plan",
    "popen",
    "remove_volume",
    "rm",
    "rmtree",
    "run",
    "volumes",
]

R = TypeVar("R")
S = TypeVar("S", bound=_reader.Reader[Any, Any])
T = TypeVar("T")

_TEXT = ("text", "universal_newlines", "encoding", "errors", "bufsize")


async def _readable(fd: int, timeout: float | None = None) -> bool:
    """Waits until `fd` can be read; False when the seconds pass first."""
    loop = asyncio.get_running_loop()
    # A descriptor has one reader in a loop; each wait brings its own.
    own = os.dup(fd)
    seen: asyncio.Future[None] = loop.create_future()

    def report() -> None:
        if not seen.done():
            seen.set_result(None)

    loop.add_reader(own, report)
    try:
        await asyncio.wait_for(seen, timeout)
    except asyncio.TimeoutError:
        return False
    finally:
        loop.remove_reader(own)
        os.close(own)
    return True


async def _in_thread(work: Callable[[], R], undo: Callable[[R], None]) -> R:
    """Runs `work` in the default executor. When this is cancelled meanwhile, its result is undone as soon as it is there."""
    future = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:

        def late(done: asyncio.Future[R]) -> None:
            if not done.cancelled() and done.exception() is None:
                undo(done.result())

        future.add_done_callback(late)
        raise


def _nothing(_: object) -> None:
    """There is nothing to undo."""


async def volumes() -> list[Volume]:
    """The named volumes of this user; see `ringfence.volumes`."""
    return await _in_thread(_files.volumes, _nothing)


async def remove_volume(name: str) -> None:
    """Removes a named volume; see `ringfence.remove_volume`."""
    await _in_thread(lambda: _files.remove_volume(name), _nothing)


class _Cancelled(Exception):
    """Ends work in a thread."""


async def rmtree(path: AnyPath, *, timeout: Seconds | None = None) -> None:
    """Removes a tree of this machine; see `ringfence.rmtree`."""
    await _in_thread(lambda: _files.rmtree(path, timeout=timeout), _nothing)


async def _until_cancelled(
    work: Callable[[Callable[[CopyProgress], object]], R], progress: Callable[[CopyProgress], object] | None
) -> R:
    """Runs in the default executor what tells how far it is. Cancelled, it has ended when this does."""
    cancelled = False

    def tell(at: CopyProgress) -> None:
        if cancelled:
            raise _Cancelled
        if progress is not None:
            progress(at)

    future = asyncio.get_running_loop().run_in_executor(None, lambda: work(tell))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        cancelled = True
        await asyncio.wait([future])
        if not future.cancelled():
            future.exception()
        raise


def _refuse_text(options: Mapping[str, Any]) -> None:
    for name in _TEXT:
        if options.get(name):
            raise ValueError(f"{name} must not be set: streams are bytes; run() can decode")


class Process:
    """A process in a container: what `asyncio.subprocess.Process` is for a child, and `pidfd`, `args`, `reason`."""

    #: Streams for what was asked to be a pipe, else None.
    stdin: asyncio.StreamWriter | None
    stdout: asyncio.StreamReader | None
    stderr: asyncio.StreamReader | None

    def __init__(self, process: _Process[Any], container: Container | None) -> None:
        self._process = process
        self._container = container
        self._owns_container = process._owns_container
        self.args = process.args
        self.stdin = self.stdout = self.stderr = None
        self._transports: list[asyncio.BaseTransport] = []
        self._partial: dict[str, list[bytes]] = {"stdout": [], "stderr": []}

    @classmethod
    async def _of(cls, process: _Process[Any], container: Container | None) -> Process:
        self = cls(process, container)
        loop = asyncio.get_running_loop()
        if process.stdin is not None:
            # A StreamReader protocol, since a writer's `wait_closed` needs one that knows of its end.
            transport, protocol = await loop.connect_write_pipe(
                lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), process.stdin
            )
            self.stdin = asyncio.StreamWriter(transport, protocol, None, loop)
            self._transports.append(transport)
        for name in ("stdout", "stderr"):
            file = getattr(process, name)
            if file is not None:
                reader = asyncio.StreamReader()
                read_transport, _ = await loop.connect_read_pipe(
                    lambda reader=reader: asyncio.StreamReaderProtocol(reader),  # type: ignore[misc]
                    file,
                )
                self._transports.append(read_transport)
                setattr(self, name, reader)
        return self

    @property
    def container(self) -> Container:
        """The container that it runs in."""
        if self._container is None:
            self._container = Container._around(self._process.container)
        return self._container

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def pidfd(self) -> int:
        return self._process.pidfd

    @property
    def returncode(self) -> int | None:
        """None until `wait` or `communicate` has seen its end."""
        return self._process.returncode

    @property
    def reason(self) -> str | None:
        return self._process.reason

    async def wait(self) -> int:
        """Waits for its end."""
        while (code := self._process.poll()) is None:
            await _readable(self._process.status_fd)
        return code

    async def communicate(self, input: bytes | None = None) -> tuple[bytes | None, bytes | None]:
        """Writes `input`, reads stdout and stderr to their ends, waits."""
        await asyncio.gather(self._feed(input), self._drain("stdout"), self._drain("stderr"))
        await self.wait()
        return self._received("stdout"), self._received("stderr")

    async def _feed(self, input: bytes | None) -> None:
        if self.stdin is None:
            return
        try:
            if input:
                self.stdin.write(input)
                await self.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            pass
        self.stdin.close()

    async def _drain(self, name: str) -> None:
        reader: asyncio.StreamReader | None = getattr(self, name)
        while reader is not None and (data := await reader.read(65536)):
            self._partial[name].append(data)

    def _received(self, name: str) -> bytes | None:
        return None if getattr(self, name) is None else b"".join(self._partial[name])

    def send_signal(self, sig: int | str) -> None:
        """Sends a signal, by number or name (`TERM`); nothing happens when it has ended."""
        self._process.send_signal(sig)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signals.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signals.SIGKILL)

    def _release(self) -> None:
        for transport in self._transports:
            transport.close()

    async def _abandon(self) -> None:
        self._release()
        if self._owns_container:
            await self.container.close()
        else:
            self.kill()
            await self.wait()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            await self._abandon()
            return
        self._release()
        await self.wait()
        if self._owns_container:
            await self.container.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: returncode: {self.returncode} args: {self.args!r}>"


class _Reader(Generic[S, T]):
    """A reader of the core for asyncio: an asynchronous iterator and context manager."""

    def __init__(self, reader: S) -> None:
        self._sync = reader
        self._taken = 0

    @property
    def over(self) -> bool:
        """All was handed out, and nothing comes any more."""
        return self._sync.over

    def fileno(self) -> int:
        """Readable when there may be something to read, and when it is over; borrowed, only to be polled."""
        return self._sync.fileno()

    async def next(self, timeout: Seconds | None = None) -> T | None:
        """The next one; None when the seconds pass first, or when it is over. Cancelled, it loses none."""
        until = _host.deadline(timeout)
        # Others have their turn also while there is always one.
        self._taken += 1
        if self._taken % 64 == 0:
            await asyncio.sleep(0)
        while True:
            found: T | None = self._sync.next(0)
            if found is not None or self._sync.over:
                return found
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                return None
            # Held, because a close meanwhile is seen by its descriptor.
            raw = self._sync._live("next")
            await _readable(raw.fd, left)

    def close(self) -> None:
        """Lets go of it. Closing twice is fine."""
        self._sync.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        found = await self.next(self._sync.timeout)
        if found is None:
            raise self._sync._late() if not self._sync.over else StopAsyncIteration
        return found

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return repr(self._sync)


class Events(_Reader[_events.Events, Event]):
    """`ringfence.Events` for asyncio: an asynchronous iterator of `Event`, and an asynchronous context manager."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """Which kinds are told here."""
        return self._sync.kinds


class SyscallListener(_Reader[_syscalls.SyscallListener, SyscallRequest]):
    """`ringfence.SyscallListener` for asyncio: an asynchronous iterator of `SyscallRequest`, and an asynchronous context manager."""

    async def serve(self, answer: Callable[[SyscallRequest], object]) -> None:
        """Calls `answer` with each request until the container has ended or this is closed; see `ringfence.SyscallListener.serve`.

        A coroutine function answers several at once: each call is a task.
        """
        tasks: set[asyncio.Future[Any]] = set()

        async def one(request: SyscallRequest, answering: Awaitable[object]) -> None:
            with request:
                try:
                    await answering
                except OSError as error:
                    request._failed(error)

        async def read() -> SyscallRequest | None:
            try:
                return await self.next()
            except Error:
                if self._sync._raw is None:
                    return None
                raise

        reading: asyncio.Future[Any] = asyncio.ensure_future(read())
        try:
            while True:
                finished, _ = await asyncio.wait({reading, *tasks}, return_when=asyncio.FIRST_COMPLETED)
                for task in finished & tasks:
                    tasks.discard(task)
                    task.result()
                if not reading.done():
                    continue
                request = reading.result()
                if request is None:
                    break
                reading = asyncio.ensure_future(read())
                answering: object = None
                try:
                    try:
                        answering = answer(request)
                    except OSError as error:
                        request._failed(error)
                except BaseException:
                    # The call gets ENOSYS before anybody hears of this: the exception keeps the request, and nobody else has it.
                    request.close()
                    raise
                if inspect.isawaitable(answering):
                    tasks.add(asyncio.ensure_future(one(request, answering)))
                else:
                    request.close()
            while tasks:
                finished, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                tasks -= finished
                for task in finished:
                    task.result()
        finally:
            for future in (reading, *tasks):
                future.cancel()
            for left in await asyncio.gather(reading, *tasks, return_exceptions=True):
                if isinstance(left, SyscallRequest):
                    left.close()


class LogReader(_Reader[_logs.LogReader, str]):
    """`ringfence.LogReader` for asyncio: an asynchronous iterator of lines, and an asynchronous context manager."""

    @property
    def position(self) -> int:
        """Behind the last byte that was handed out."""
        return self._sync.position


class LogStream:
    """`ringfence.LogStream` for asyncio: a task in place of the thread. The target is called by the loop."""

    def __init__(self, container: Container, reader: LogReader, send: Callable[[str], object]) -> None:
        self._container = container
        self._reader = reader
        self._send = send
        self._task: asyncio.Task[None] | None = None

    async def _run(self) -> None:
        async for line in self._reader:
            self._send(line.removesuffix("\n"))

    async def __aenter__(self) -> Self:
        self._task = asyncio.ensure_future(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        task = cast("asyncio.Task[None]", self._task)
        try:
            until = await self._container.log_position()
        except Error:
            until = None
        if not task.done():
            task.cancel()
        try:
            await asyncio.gather(task, return_exceptions=True)
            failed = None if task.cancelled() else task.exception()
            if failed is None:
                # What is written by now, line by line as before.
                while (until is None or self._reader.position < until) and (
                    line := await self._reader.next(0)
                ) is not None:
                    self._send(line.removesuffix("\n"))
        except Error as error:
            failed = None if error.kind == "closed" else error
        finally:
            self._reader.close()
        if failed is not None and value is None and not (isinstance(failed, Error) and failed.kind == "closed"):
            raise failed


def _discard(container: _container.Container) -> None:
    """Ends a container that nobody will ever see."""
    try:
        container.kill()
    except Error:
        pass
    container._forget()


def _discard_process(process: _Process[Any]) -> None:
    process._close_streams()
    if process._owns_container:
        _discard(process.container)
    else:
        process.kill()


class Container:
    """`ringfence.Container` for asyncio. Started by `async with aio.Container(...) as c` or `c = await aio.Container(...)`."""

    _sync: _container.Container

    def __init__(self, argv: Args | None = None, **options: Any) -> None:
        _refuse_text(options)
        self._arguments: tuple[Args | None, dict[str, Any]] | None = (argv, options)
        self._main: Process | None = None

    @classmethod
    def _around(cls, container: _container.Container) -> Self:
        self = cls.__new__(cls)
        self._arguments = None
        self._main = None
        self._sync = container
        return self

    async def _started(self) -> Self:
        if self._arguments is not None:
            (argv, options), self._arguments = self._arguments, None
            self._sync = await _in_thread(lambda: _container.Container(argv, bufsize=0, **options), _discard)
            if self._sync.main is not None:
                self._main = await Process._of(self._sync.main, self)
        return self

    def __await__(self) -> Generator[Any, None, Self]:
        return self._started().__await__()

    async def __aenter__(self) -> Self:
        return await self._started()

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._main is not None:
            self._main._release()
        if self._sync._owned or self._sync._detached:
            await self.close()

    @property
    def name(self) -> str | None:
        return self._sync.name

    @property
    def id(self) -> str:
        return self._sync.id

    @property
    def pid(self) -> int:
        return self._sync.pid

    @property
    def pidfd(self) -> int:
        return self._sync.pidfd

    @property
    def events_fd(self) -> int:
        return self._sync.events_fd

    @property
    def pod(self) -> Pod | None:
        """The pod that it was started in."""
        return None if self._sync.pod is None else Pod._around(self._sync.pod)

    @property
    def running(self) -> bool:
        return self._sync.running

    @property
    def main(self) -> Process | None:
        """The main process, when there is an `argv`."""
        return self._main

    @property
    def info(self) -> dict[str, Any]:
        return self._sync.info

    def port(self, port: int) -> int:
        return self._sync.port(port)

    @property
    def ports(self) -> list[Port]:
        return self._sync.ports

    @property
    def addresses(self) -> list[Address]:
        return self._sync.addresses

    @property
    def namespaces(self) -> Mapping[str, Namespace]:
        return self._sync.namespaces

    async def processes(self) -> list[ProcessEntry]:
        return await _in_thread(self._sync.processes, lambda _: None)

    def pidfd_of(self, pid_inside: int) -> int:
        return self._sync.pidfd_of(pid_inside)

    def attach_device(self, device: str, inside: str | None = None) -> None:
        self._sync.attach_device(device, inside)

    def detach_device(self, inside: str) -> None:
        self._sync.detach_device(inside)

    async def attach_net(self, net: str | Network | Mapping[str, Any]) -> Address:
        one: str | _network.Network | Mapping[str, Any] = net._sync if isinstance(net, Network) else net
        if isinstance(one, Mapping) and isinstance(one.get("network"), Network):
            one = {**one, "network": one["network"]._sync}

        def give_back(address: Address) -> None:
            with contextlib.suppress(Error):
                self._sync.detach_net(address.interface)

        return await _in_thread(lambda: self._sync.attach_net(one), give_back)

    async def detach_net(self, interface: str) -> None:
        await _in_thread(lambda: self._sync.detach_net(interface), _nothing)

    async def add_device(self, device: AnyPath | Mapping[str, AnyPath]) -> None:
        await _in_thread(lambda: self._sync.add_device(device), _nothing)

    async def remove_device(self, target: AnyPath) -> None:
        await _in_thread(lambda: self._sync.remove_device(target), _nothing)

    def ns_fd(self, kind: str) -> int:
        return self._sync.ns_fd(kind)

    async def enter(
        self, kinds: str | Iterable[str], function: Callable[_P, R], *args: _P.args, **kwargs: _P.kwargs
    ) -> R:
        """Calls the function inside, on a thread of its own; see `ringfence.Container.enter`. Cancelled, it goes on there.

        (As a block around an `await` all other tasks would be inside, too: there is none here.)
        """
        return await _in_thread(lambda: self._sync.enter(kinds, function, *args, **kwargs), lambda _: None)

    async def socket(
        self,
        family: int = sockets.AF_INET,
        type: int = sockets.SOCK_STREAM,
        proto: int = 0,
    ) -> sockets.socket:
        """A socket in the container's network; non-blocking, for the loop. See `ringfence.Container.socket`."""
        return await self._socket(lambda: self._sync.socket(family, type, proto))

    async def listen(self, address: tuple[str, int] | str, *, backlog: int = 128) -> sockets.socket:
        """A listening socket inside, non-blocking: for `asyncio.start_server(..., sock=)`."""
        return await self._socket(lambda: self._sync.listen(address, backlog=backlog))

    async def connect(self, address: tuple[str, int] | str) -> sockets.socket:
        """A connected socket, non-blocking: for `asyncio.open_connection(sock=)`. `asyncio.wait_for` bounds it."""
        if not (isinstance(address, tuple) and _reach.is_ip(address)):
            return await self._socket(lambda: self._sync.connect(address))
        ready = await self.socket(_reach.family(address))
        try:
            await asyncio.get_running_loop().sock_connect(ready, _reach.numeric(address))
        except BaseException:
            ready.close()
            raise
        return ready

    async def _socket(self, make: Callable[[], sockets.socket]) -> sockets.socket:
        made = await _in_thread(make, sockets.socket.close)
        made.setblocking(False)
        return made

    async def open_path(self, path: AnyPath, flags: int = os.O_RDONLY, mode: int = 0o666) -> int:
        """A descriptor of a path as the container sees it; see `ringfence.Container.open_path`."""
        return await _in_thread(lambda: self._sync.open_path(path, flags, mode), os.close)

    async def open(
        self,
        path: AnyPath,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]:
        """An ordinary file object (its reads and writes are this thread's) for a path as the container sees it."""
        return await _in_thread(
            lambda: self._sync.open(path, mode, buffering, encoding, errors, newline), lambda file: file.close()
        )

    async def read_bytes(self, path: AnyPath, limit: int | None = None) -> bytes:
        """The content of a file as the container sees it; see `ringfence.Container.read_bytes`."""
        return await _in_thread(lambda: self._sync.read_bytes(path, limit), _nothing)

    async def read_text(
        self, path: AnyPath, encoding: str = "utf-8", errors: str = "strict", limit: int | None = None
    ) -> str:
        """`read_bytes`, decoded."""
        return await _in_thread(lambda: self._sync.read_text(path, encoding, errors, limit), _nothing)

    async def write_bytes(
        self,
        path: AnyPath,
        data: bytes | bytearray | memoryview,
        *,
        mode: int | None = None,
        owner: str | int | None = None,
    ) -> int:
        """Gives a file of the container this content; see `ringfence.Container.write_bytes`."""
        return await _in_thread(lambda: self._sync.write_bytes(path, data, mode=mode, owner=owner), _nothing)

    async def write_text(
        self,
        path: AnyPath,
        text: str,
        encoding: str = "utf-8",
        errors: str = "strict",
        *,
        mode: int | None = None,
        owner: str | int | None = None,
    ) -> int:
        """`write_bytes` of encoded text."""
        return await _in_thread(
            lambda: self._sync.write_text(path, text, encoding, errors, mode=mode, owner=owner), _nothing
        )

    async def copy_in(
        self,
        source: AnyPath,
        target: AnyPath,
        *,
        owner: str | int | None = None,
        special: Literal["refuse", "skip"] = "refuse",
        timeout: Seconds | None = None,
        progress: Callable[[CopyProgress], object] | None = None,
    ) -> CopyProgress:
        """Copies into the container; see `ringfence.Container.copy_in`. `progress` is called in another thread."""
        return await _until_cancelled(
            lambda tell: self._sync.copy_in(
                source, target, owner=owner, special=special, timeout=timeout, progress=tell
            ),
            progress,
        )

    async def copy_out(
        self,
        source: AnyPath,
        target: AnyPath,
        *,
        special: Literal["refuse", "skip"] = "refuse",
        timeout: Seconds | None = None,
        progress: Callable[[CopyProgress], object] | None = None,
    ) -> CopyProgress:
        """Copies out of the container; see `ringfence.Container.copy_out`. `progress` is called in another thread."""
        return await _until_cancelled(
            lambda tell: self._sync.copy_out(source, target, special=special, timeout=timeout, progress=tell), progress
        )

    async def call(
        self,
        function: Callable[..., R],
        /,
        *args: Any,
        timeout: Seconds | None = None,
        trusted: bool = False,
        python: AnyPath | None = None,
        options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> R:
        """Calls the function in a fresh interpreter inside; see `ringfence.Container.call`. Cancelled, it kills that process."""
        timeout = _host.seconds(timeout)
        call = _call.Call(function, args, kwargs, python, trusted)
        try:
            given: dict[str, Any] = {"stdin": subprocess.DEVNULL, **(options or {})}

            def start() -> _Process[Any]:
                with call.held():
                    return self._sync.popen(call.args, bufsize=0, pass_fds=call.pass_fds, **given)

            started = await _in_thread(start, _discard_process)
            async with await Process._of(started, self) as process:
                try:
                    returncode = await asyncio.wait_for(process.wait(), timeout)
                except asyncio.TimeoutError:
                    raise subprocess.TimeoutExpired(call.args[:1], timeout or 0.0) from None
            return cast("R", call.result(returncode, process.reason))
        finally:
            call.close()

    async def popen(self, args: Args, **options: Any) -> Process:
        """Starts one more process inside."""
        _refuse_text(options)
        process = await _in_thread(lambda: self._sync.popen(args, bufsize=0, **options), _discard_process)
        return await Process._of(process, self)

    async def run(
        self,
        args: Args,
        *,
        input: Any = None,
        capture_output: bool = False,
        timeout: Seconds | None = None,
        check: bool = False,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
        **options: Any,
    ) -> CompletedProcess[Any]:
        """Runs a command inside to its end. Cancelled or timed out, it kills that process."""
        timeout = _host.seconds(timeout)
        decoding = TextOptions(text, None, encoding, errors)
        process = await self.popen(args, **_container.run_options(input, capture_output, options))
        return await _finish(process, input, timeout, check, decoding)

    async def usage(self) -> Usage:
        return self._sync.usage()

    async def beancounters(self) -> list[Beancounter]:
        return await asyncio.to_thread(self._sync.beancounters)

    def events(
        self,
        kinds: Iterable[str] | None = None,
        pressure: Iterable[Pressure] = (),
        timeout: Seconds | None = None,
    ) -> Events:
        """What happens to it from now on: `async for event in c.events(): ...`; see `ringfence.Container.events`."""
        return Events(self._sync.events(kinds, pressure, timeout))

    def syscall_listener(self, timeout: Seconds | None = None) -> SyscallListener:
        """The system calls about which this program is asked; see `ringfence.Container.syscall_listener`."""
        return SyscallListener(self._sync.syscall_listener(timeout))

    async def wait_for(
        self,
        *,
        port: _ready.PortNumber | Iterable[_ready.PortNumber] | None = None,
        log: _ready.LogPattern | Iterable[_ready.LogPattern] | None = None,
        path: AnyPath | Iterable[AnyPath] | None = None,
        command: Iterable[AnyPath] | None = None,
        http: str | _ready.HttpCheck | None = None,
        timeout: Seconds | None = 60.0,
    ) -> None:
        """Waits until it is ready; see `ringfence.Container.wait_for`. Cancelled, it leaves no command behind."""
        conditions = _ready.conditions_of(port, log, path, command, http)
        readiness = await asyncio.to_thread(self._sync._live("wait_for").readiness, conditions, timeout)
        try:
            while not await asyncio.to_thread(readiness.step):
                pass
        finally:
            # A step that is under way on its thread is short; this waits for it and ends a command.
            await asyncio.shield(asyncio.to_thread(readiness.cancel))

    @overload
    def logs(self, since: int = 0, *, tail: int | None = None, follow: Literal[False] = False) -> Awaitable[str]: ...
    @overload
    def logs(
        self, since: int = 0, *, tail: int | None = None, follow: Literal[True], timeout: Seconds | None = None
    ) -> LogReader: ...

    def logs(
        self, since: int = 0, *, tail: int | None = None, follow: bool = False, timeout: Seconds | None = None
    ) -> Awaitable[str] | LogReader:
        """`await c.logs(tail=50)`, or `async for line in c.logs(follow=True)`; see `ringfence.Container.logs`."""
        if follow:
            return LogReader(self._sync.logs(since, tail=tail, follow=True, timeout=timeout))
        return asyncio.to_thread(lambda: self._sync.logs(since, tail=tail))

    def stream_logs(
        self, target: _logs.LogTarget, level: int = logging.INFO, *, since: int = 0, tail: int | None = None
    ) -> LogStream:
        """`async with c.stream_logs(logger)`: hands on the lines of the log from a task of the loop; see `ringfence.Container.stream_logs`."""
        send = _logs.sender(target, level)
        return LogStream(self, self.logs(since, tail=tail, follow=True), send)

    async def log_position(self) -> int:
        """How many bytes were written to the log."""
        return self._sync.log_position()

    @property
    def log_is_full(self) -> bool:
        """Fewer than 8 KiB of `log_max` are left (a quarter, below 32 KiB): what the program writes may be refused (EPERM)."""
        return self._sync.log_is_full

    async def signal(self, sig: int | str) -> None:
        """Sends a signal, by number or name (`TERM`), to the main process, or pid 1 when there is none."""
        self._sync.signal(sig)

    async def kill(self) -> None:
        """SIGKILL to every process, atomically. Does not wait."""
        self._sync.kill()

    async def update(self, **limits: Unpack[LimitFields]) -> None:
        """Changes limits while it runs; None takes one away. All of it or nothing."""
        await asyncio.to_thread(lambda: self._sync.update(**limits))

    @property
    def spec(self) -> dict[str, Any]:
        return self._sync.spec

    async def group(self, name: str, **limits: Unpack[LimitFields]) -> ControlGroup:
        """Makes a group of processes inside, with limits of its own; `popen` and `run` take its name as `cgroup`."""
        return await asyncio.to_thread(lambda: self._sync.group(name, **limits))

    async def find_group(self, name: str) -> ControlGroup:
        return await asyncio.to_thread(self._sync.find_group, name)

    async def reclaim(self, bytes: Size) -> bool:
        """Asks the kernel to take back memory. False: it found less."""
        return await asyncio.to_thread(self._sync.reclaim, bytes)

    async def freeze(self) -> None:
        await asyncio.to_thread(self._sync.freeze)

    async def thaw(self) -> None:
        await asyncio.to_thread(self._sync.thaw)

    async def _ended(self, timeout: Seconds | None = None) -> bool:
        until = _host.deadline(timeout)
        while not self._sync._raw.wait(0):
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                return False
            if await _readable(self.events_fd, left):
                # Of a detached container it speaks a moment before the record of its end is written.
                await asyncio.sleep(0.002)
        return True

    async def wait(self, timeout: Seconds | None = None) -> int | None:
        """Waits until it has ended and everything is undone; `subprocess.TimeoutExpired` when the seconds pass first."""
        if not self._sync._closed and not await self._ended(timeout):
            main = self._sync.main
            raise subprocess.TimeoutExpired(
                main.args if main else f"container {self.id}", _host.seconds(timeout) or 0.0
            )
        return self._sync.main.poll() if self._sync.main else None

    async def stop(self, timeout: Seconds | None = None) -> int | None:
        """`stop_signal`, then SIGKILL after `timeout` seconds (default: `stop_timeout`); waits for the end."""
        grace = self._sync._grace(timeout)
        if self.running:
            self._sync._ask_to_stop()
            if not await self._ended(grace):
                self._sync.kill()
                await self._ended()
        code = self._sync.main.poll() if self._sync.main else None
        await self.close()
        return code

    async def close(self, timeout: Seconds | None = None) -> None:
        """Kills what runs and waits until everything is undone. A detached container is left running. Twice is fine."""
        if self._sync._closed:
            return
        if not self._sync._detached:
            try:
                self._sync.kill()
                if not await self._ended(timeout):
                    raise TimedOutError(f"close {self._sync!r}: not ended after {timeout} s", kind="timed_out")
            except Error as error:
                if error.kind != "closed":
                    raise
        self._sync.close()

    def __repr__(self) -> str:
        return repr(self._sync) if hasattr(self, "_sync") else "<Container: not started>"


def _discard_network(network: _network.Network) -> None:
    """Ends a network that nobody will ever see."""
    network._closed = True
    try:
        network._raw.close(0)
    except Error:
        pass


class Network:
    """`ringfence.Network` for asyncio. Started by `async with aio.Network(...) as net` or `net = await aio.Network(...)`."""

    _sync: _network.Network

    def __init__(
        self,
        *,
        name: str | None = None,
        subnets: str | Iterable[str] | None = None,
        mtu: int | None = None,
        internal: bool = True,
        way_out: Literal["auto", "kernel", "pasta", "slirp4netns"] | None = None,
    ) -> None:
        start = functools.partial(
            _network.Network, name=name, subnets=subnets, mtu=mtu, internal=internal, way_out=way_out
        )
        self._start: functools.partial[_network.Network] | None = start

    async def _started(self) -> Self:
        if self._start is not None:
            start, self._start = self._start, None
            self._sync = await _in_thread(start, _discard_network)
        return self

    def __await__(self) -> Generator[Any, None, Self]:
        return self._started().__await__()

    async def __aenter__(self) -> Self:
        return await self._started()

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def container(self, argv: Args | None = None, **options: Any) -> Container:
        """A container on it: `async with net.container(...) as c` or `c = await net.container(...)` starts it."""
        return Container(argv, _home=self._sync, **options)

    @property
    def name(self) -> str:
        return self._sync.name

    @property
    def info(self) -> dict[str, Any]:
        return self._sync.info

    @property
    def subnets(self) -> list[str]:
        return self._sync.subnets

    @property
    def running(self) -> bool:
        return self._sync.running

    async def partition(self, one: Iterable[Container], other: Iterable[Container]) -> None:
        """Cuts the network between the two sides."""
        self._sync.partition([c._sync for c in one], [c._sync for c in other])

    async def heal(self) -> None:
        """Everybody reaches everybody again."""
        self._sync.heal()

    async def set_link(self, container: Container, up: bool) -> None:
        """Takes a container off the network, or lets it on again."""
        self._sync.set_link(container._sync, up)

    async def shape(
        self,
        container: Container,
        *,
        rate: Size | None = None,
        delay: Seconds = 0,
        jitter: Seconds = 0,
        loss: float = 0,
        duplicate: float = 0,
        reorder: float = 0,
        corrupt: float = 0,
        direction: Literal["both", "in", "out"] = "both",
    ) -> None:
        """Gives the link of a container a rate, a delay, losses: see `ringfence.Network.shape`."""
        self._sync.shape(
            container._sync,
            rate=rate,
            delay=delay,
            jitter=jitter,
            loss=loss,
            duplicate=duplicate,
            reorder=reorder,
            corrupt=corrupt,
            direction=direction,
        )

    async def set_firewall(self, container: Container, firewall: Firewall) -> None:
        """Gives a container another firewall: see `ringfence.Network.set_firewall`."""
        await _in_thread(lambda: self._sync.set_firewall(container._sync, firewall), _nothing)

    async def firewall(self, container: Container) -> FirewallUsage:
        """The firewall of a container and its counters: see `ringfence.Network.firewall`."""
        return await _in_thread(lambda: self._sync.firewall(container._sync), _nothing)

    async def kill(self) -> None:
        """SIGKILL to everything in the containers that `container` started. Does not wait."""
        self._sync.kill()

    async def close(self, timeout: Seconds | None = None) -> None:
        """Ends the containers that `container` started, then the network."""
        if hasattr(self, "_sync"):
            await asyncio.to_thread(self._sync.close, timeout)

    def __repr__(self) -> str:
        return repr(self._sync) if hasattr(self, "_sync") else "<Network: not started>"


def _discard_pod(pod: _pod.Pod) -> None:
    """Ends a pod that nobody will ever see."""
    try:
        pod.kill()
    except Error:
        pass
    pod._closed = True


class Pod:
    """`ringfence.Pod` for asyncio. Started by `async with aio.Pod(...) as pod` or `pod = await aio.Pod(...)`."""

    _sync: _pod.Pod

    def __init__(self, *, share: str | Iterable[str] = _pod.SHARE, **fields: Unpack[SpecFields]) -> None:
        self._arguments: tuple[str | Iterable[str], SpecFields] | None = (share, fields)

    @classmethod
    def _around(cls, pod: _pod.Pod) -> Self:
        self = cls.__new__(cls)
        self._arguments = None
        self._sync = pod
        return self

    async def _started(self) -> Self:
        if self._arguments is not None:
            (share, fields), self._arguments = self._arguments, None
            self._sync = await _in_thread(lambda: _pod.Pod(share=share, **fields), _discard_pod)
        return self

    def __await__(self) -> Generator[Any, None, Self]:
        return self._started().__await__()

    async def __aenter__(self) -> Self:
        return await self._started()

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def container(self, argv: Args | None = None, **options: Any) -> Container:
        """A container in it: `async with pod.container(...) as c` or `c = await pod.container(...)` starts it."""
        return Container(argv, _home=self._sync, **options)

    @property
    def containers(self) -> list[Container]:
        """Its containers in the order of their starts, also those that have ended; not those that were closed."""
        return [Container._around(container) for container in self._sync.containers]

    def find_container(self, name: str) -> Container:
        return Container._around(self._sync.find_container(name))

    @property
    def share(self) -> tuple[str, ...]:
        return self._sync.share

    @property
    def name(self) -> str | None:
        return self._sync.name

    @property
    def id(self) -> str:
        return self._sync.id

    @property
    def pid(self) -> int:
        return self._sync.pid

    @property
    def pidfd(self) -> int:
        return self._sync.pidfd

    @property
    def events_fd(self) -> int:
        return self._sync.events_fd

    @property
    def running(self) -> bool:
        return self._sync.running

    @property
    def info(self) -> dict[str, Any]:
        return self._sync.info

    @property
    def namespaces(self) -> Mapping[str, Namespace]:
        return self._sync.namespaces

    @property
    def spec(self) -> dict[str, Any]:
        return self._sync.spec

    async def update(self, **limits: Unpack[LimitFields]) -> None:
        """Changes limits of the pod while it runs; None takes one away. All of it or nothing."""
        await asyncio.to_thread(lambda: self._sync.update(**limits))

    async def usage(self) -> Usage:
        return self._sync.usage()

    def events(
        self,
        kinds: Iterable[str] | None = None,
        pressure: Iterable[Pressure] = (),
        timeout: Seconds | None = None,
    ) -> Events:
        """What happens to the pod as a whole from now on; see `ringfence.Container.events`."""
        return Events(self._sync.events(kinds, pressure, timeout))

    async def freeze(self) -> None:
        await asyncio.to_thread(self._sync.freeze)

    async def thaw(self) -> None:
        await asyncio.to_thread(self._sync.thaw)

    async def kill(self) -> None:
        """SIGKILL to everything in it; the pod ends. Does not wait."""
        self._sync.kill()

    async def _ended(self, timeout: Seconds | None = None) -> bool:
        until = _host.deadline(timeout)
        while not self._sync._raw.wait(0):
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                return False
            if await _readable(self.events_fd, left):
                # It speaks before the groups of its containers are gone.
                await asyncio.sleep(0.002)
        return True

    async def wait(self, timeout: Seconds | None = None) -> None:
        """Waits until it has ended; `subprocess.TimeoutExpired` when the seconds pass first."""
        if not self._sync._closed and not await self._ended(timeout):
            raise subprocess.TimeoutExpired(f"pod {self._sync.id}", _host.seconds(timeout) or 0.0)

    async def stop(self, timeout: Seconds | None = None) -> None:
        """`stop_signal` to its containers, SIGKILL after `timeout` seconds (default: the longest `stop_timeout`); then closes."""
        running, until = self._sync._ask_to_stop(timeout)
        for container in running:
            try:
                await Container._around(container)._ended(max(0.0, until - time.monotonic()))
            except Error as error:
                if error.kind != "closed":
                    raise
        await self.close()

    async def close(self, timeout: Seconds | None = None) -> None:
        """Ends its containers, then the namespaces; waits until everything is undone. Twice is fine."""
        if self._sync._closed:
            return
        try:
            self._sync.kill()
            if not await self._ended(timeout):
                raise TimedOutError(f"close {self._sync!r}: not ended after {timeout} s", kind="timed_out")
        except Error as error:
            if error.kind != "closed":
                raise
        self._sync.close()

    def __repr__(self) -> str:
        return repr(self._sync) if hasattr(self, "_sync") else "<Pod: not started>"


class Group:
    """`ringfence.Group` for asyncio: `async with aio.Group({...}) as g` starts what is described, else `await g.start()` does."""

    def __init__(
        self,
        members: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        pod: Pod | None = None,
        timeout: Seconds | None = None,
    ) -> None:
        self._sync = _compose.Group(members, pod=None if pod is None else pod._sync, timeout=timeout)

    def add(self, name: str, argv: Args | None = None, *, after: Iterable[str] = (), **options: Any) -> None:
        """Adds a member, before the start; takes what `ringfence.Group.add` takes."""
        self._sync.add(name, argv, after=after, **options)

    def order(self) -> list[list[str]]:
        return self._sync.order()

    async def start(self, timeout: Seconds | None = None) -> Self:
        """Starts all of them, or none. When this is cancelled, nothing is left, and the group is closed."""
        try:
            await _in_thread(lambda: self._sync.start(timeout), _discard_group)
        except asyncio.CancelledError:
            # A start that is under way ends with that, and undoes itself.
            self._sync._raw.close(0)
            raise
        return self

    @property
    def started(self) -> bool:
        return self._sync.started

    def __getitem__(self, name: str) -> Container:
        return Container._around(self._sync[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._sync)

    def __len__(self) -> int:
        return len(self._sync)

    def __contains__(self, name: object) -> bool:
        return name in self._sync

    @property
    def containers(self) -> dict[str, Container]:
        """The containers by name."""
        return {name: self[name] for name in self}

    async def wait(self, timeout: Seconds | None = None) -> None:
        """Waits until all have ended; `subprocess.TimeoutExpired` when the seconds pass first."""
        until = _host.deadline(timeout)
        for container in self.containers.values():
            await container.wait(None if until is None else max(0.0, until - time.monotonic()))

    async def wait_any(self, timeout: Seconds | None = None) -> str:
        """Waits until one has ended, and gives its name; `subprocess.TimeoutExpired` when the seconds pass first."""
        waits = {asyncio.ensure_future(container.wait()): name for name, container in self.containers.items()}
        try:
            done, _ = await asyncio.wait(waits, timeout=_host.seconds(timeout), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        for wait, name in waits.items():
            if wait in done:
                wait.result()
                return name
        raise subprocess.TimeoutExpired("group", _host.seconds(timeout) or 0.0)

    async def kill(self) -> None:
        """SIGKILL to every process of all of them. Does not wait."""
        self._sync.kill()

    async def close(self, timeout: Seconds | None = None) -> None:
        """Stops them in reverse order, kills what is left after `timeout` seconds, closes them."""
        await asyncio.to_thread(self._sync.close, timeout)

    async def __aenter__(self) -> Self:
        if self._sync._described and not self.started:
            await self.start(self._sync._timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return repr(self._sync)


def _discard_group(group: _compose.Group) -> None:
    """Ends a group that nobody waits for any more."""
    group.close(0)


async def _finish(
    process: Process, input: Any, timeout: float | None, check: bool, decoding: TextOptions
) -> CompletedProcess[Any]:
    encoding, errors = decoding.encoding or "utf-8", decoding.errors or "strict"

    def decoded(data: bytes | None) -> Any:
        if data is None or not decoding.text:
            return data
        return data.decode(encoding, errors).replace("\r\n", "\n").replace("\r", "\n")

    if isinstance(input, str):
        input = input.encode(encoding, errors)
    async with process:
        try:
            out, err = await asyncio.wait_for(process.communicate(input), timeout)
        except asyncio.TimeoutError:
            partial = (b"".join(process._partial[name]) or None for name in ("stdout", "stderr"))
            raise subprocess.TimeoutExpired(process.args, timeout or 0.0, *partial) from None
        code = process.returncode
        assert code is not None
        usage = _container.final_usage(process._process.container)
        result = CompletedProcess(
            process.args, code, decoded(out), decoded(err), reason=process.reason or "exited", usage=usage
        )
    if check:
        result.check_returncode()
    return result


async def popen(args: Args, **options: Any) -> Process:
    """Starts a command in a container of its own, which ends with it; takes what `ringfence.popen` takes."""
    _refuse_text(options)
    process = await _in_thread(lambda: _run.popen(args, bufsize=0, **options), _discard_process)
    return await Process._of(process, None)


async def run(
    args: Args,
    *,
    input: Any = None,
    capture_output: bool = False,
    timeout: Seconds | None = None,
    check: bool = False,
    text: bool | None = None,
    encoding: str | None = None,
    errors: str | None = None,
    **options: Any,
) -> CompletedProcess[Any]:
    """Runs a command in a container of its own. Cancelled or timed out, it kills the container."""
    timeout = _host.seconds(timeout)
    decoding = TextOptions(text, None, encoding, errors)
    options["_unanswered"] = True
    process = await popen(args, **_container.run_options(input, capture_output, options))
    return await _finish(process, input, timeout, check, decoding)


async def by_name(name: str) -> Container:
    """A container by its name."""
    return Container._around(await asyncio.to_thread(_container.Container.by_name, name))


async def doctor() -> Report:
    """What this machine and this user can do."""
    return await asyncio.to_thread(_machine.doctor)


async def plan(argv: Args | None = None, **options: Any) -> Plan:
    """What a start would do."""
    return await asyncio.to_thread(lambda: _machine.plan(argv, **options))


async def ls() -> list[Entry]:
    """The named containers of this user."""
    return await asyncio.to_thread(_machine.ls)


async def namespaces() -> list[NamespaceEntry]:
    """All namespaces of the machine that the caller may see."""
    return await asyncio.to_thread(_machine.namespaces)


async def rm(name: str, force: bool = False) -> None:
    """Forgets a detached container that has ended; with `force` one that runs is killed first."""
    await asyncio.to_thread(_machine.rm, name, force)


async def gc() -> GcReport:
    """Ends and removes what killed keepers left."""
    return await asyncio.to_thread(_machine.gc)
