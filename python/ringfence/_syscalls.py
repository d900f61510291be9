"""System calls of a container that this program answers."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from . import _host, _ringfence
from ._errors import Error, forked_child
from ._reader import Reader

if TYPE_CHECKING:
    from typing_extensions import Self

    from ._types import Seconds


class HasFileno(Protocol):
    """A file, a socket."""

    def fileno(self) -> int: ...


def _number(fd: int | HasFileno) -> int:
    if isinstance(fd, int):
        return fd
    if not hasattr(fd, "fileno"):
        raise TypeError(f"fd: a descriptor or what has one is expected, not {type(fd).__name__}")
    return fd.fileno()


class SyscallRequest:
    """A system call that waits for an answer: `answer_continue`, `answer_errno`, `answer_value` or `answer_fd`, once.

    Closed (it is a context manager) or dropped without one it is answered with ENOSYS. The thread that waits can be killed at any
    time: then what is asked of it fails with an error of kind `not_found`, and `gone` is true.
    """

    def __init__(self, raw: _ringfence.SyscallRequest) -> None:
        self._raw: _ringfence.SyscallRequest | None = raw
        self._generation = _host.generation
        #: The kernel's number of the request, which no other of the same filter has.
        self.id = raw.id
        #: The pid of the thread that waits, in the pid namespace of this program.
        self.pid = raw.pid
        #: The pid of the process of the container whose filter it is, which made the call or started who did: `Process.pid`.
        self.process = raw.process
        #: The instruction set of the caller, whose numbers count: `x86_64`, `i386`, `aarch64`.
        self.arch = raw.arch
        #: The number of the system call.
        self.number = raw.number
        #: Its name; None for a number that is newer than this library.
        self.name = raw.name
        #: The six registers of arguments. Addresses are the caller's: `read_memory`.
        self.args: tuple[int, ...] = tuple(raw.args)
        #: The address of the call.
        self.instruction_pointer = raw.instruction_pointer

    def _live(self, call: str) -> _ringfence.SyscallRequest:
        if self._generation != _host.generation:
            raise forked_child(f"SyscallRequest.{call}")
        if self._raw is None:
            raise Error("the request was closed", kind="closed")
        return self._raw

    @property
    def gone(self) -> bool:
        """Something was found out to have come too late: the thread was killed, or left by a signal."""
        return self._live("gone").gone

    def is_valid(self) -> bool:
        """Whether the thread still waits for an answer."""
        return self._live("is_valid").is_valid()

    def answer_continue(self) -> None:
        """Has the kernel do the call, as if there were no filter.

        **Not for deciding what a program may do**: between the look at its memory and the kernel's own, another thread of it can put
        something else there.
        """
        self._live("answer_continue").answer_continue()

    def answer_errno(self, errno: int | str) -> None:
        """Has the call fail with this errno: 1 to 4095, or a name (`EPERM`)."""
        self._live("answer_errno").answer_errno(errno)

    def answer_value(self, value: int = 0) -> None:
        """Has the call succeed with this result."""
        self._live("answer_value").answer_value(value)

    def answer_fd(self, fd: int | HasFileno, number: int | None = None, *, cloexec: bool = False) -> int:
        """Gives the process a copy of a descriptor of this program, and its number there to the call as the result.

        number: what has that number there is replaced, as `os.dup2` does; None takes the lowest that is free.
        """
        return self._live("answer_fd").answer_fd(_number(fd), number, cloexec)

    def add_fd(self, fd: int | HasFileno, number: int | None = None, *, cloexec: bool = False) -> int:
        """As `answer_fd`, but the call waits on: for calls that make several."""
        return self._live("add_fd").add_fd(_number(fd), number, cloexec)

    def read_memory(self, address: int, length: int) -> bytes:
        """Bytes of the caller's memory, at most 64 MiB: of who made the call, or an error.

        What was read can be something else by the time the kernel looks itself: see `answer_continue`.
        """
        return self._live("read_memory").read_memory(address, length)

    def read_c_string(self, address: int, most: int = 4096) -> bytes:
        """Text of the caller's memory up to its NUL, `most` bytes long with it."""
        return self._live("read_c_string").read_c_string(address, most)

    def write_memory(self, address: int, data: bytes) -> None:
        """Writes to the caller's memory: what a call that this program makes in its place returns by an address."""
        self._live("write_memory").write_memory(address, data)

    def dup_fd(self, number: int) -> int:
        """A copy of a descriptor of the caller's process, the caller's to close."""
        return self._live("dup_fd").dup_fd(number)

    def close(self) -> None:
        """Answers with ENOSYS what was not answered. Closing twice is fine."""
        self._raw = None

    def _failed(self, error: OSError) -> None:
        """What becomes of an exception of whoever answers."""
        if self._raw is not None and self.gone:
            return
        if self._raw is None or isinstance(error, Error) or not error.errno or not self.is_valid():
            raise error
        self.answer_errno(error.errno)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<SyscallRequest {self.id:#x}: {self.name or self.number} of pid {self.pid}>"


class SyscallListener(Reader[_ringfence.SyscallListener, SyscallRequest]):
    """The system calls of a container about which this program is asked, made by `Container.syscall_listener`.

    An iterator of `SyscallRequest` and a context manager. It may be used by any thread, by several at once too: each request is
    given to one of them. It is over when the container has ended.
    """

    _what = "system calls"

    def next(self, timeout: Seconds | None = None) -> SyscallRequest | None:
        """The next request; None when the seconds pass first, or when it is over. 0 only looks."""
        raw = self._live("next").next(timeout)
        return None if raw is None else SyscallRequest(raw)

    def serve(self, answer: Callable[[SyscallRequest], object]) -> None:
        """Calls `answer` with each request, one after the other, until the container has ended or this is closed.

        What it does not answer is answered with ENOSYS. An `OSError` that it raises is the call's errno; every other exception, and
        a `ringfence.Error`, ends this, unless the thread that waited was killed meanwhile: the call has ENOSYS before the exception
        is raised here. Later calls wait until somebody serves again, or the container is closed.
        """
        while True:
            try:
                request = self.next()
            except Error:
                if self._raw is None:
                    return
                raise
            if request is None:
                return
            with request:
                try:
                    answer(request)
                except OSError as error:
                    request._failed(error)
