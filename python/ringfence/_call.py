"""Functions of this program in a fresh interpreter inside a container.

The function and its arguments go in by pickle (cloudpickle where it is installed, which also takes lambdas and functions of
`__main__`). What comes out was written inside, where somebody else may have written it: unless the caller says that the
container is trusted, only plain values and the built-in exceptions are taken from it, because to load any other pickle is to run
what it says.
"""

from __future__ import annotations

import builtins
import fcntl
import importlib
import io
import os
import pickle
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from ._types import AnyPath

#: As much as a result may have, in bytes: of a container that is trusted, and of another. Plain values take up to some seventy
#: times as much when they are made (a list in a list in a list).
MOST, MOST_PLAIN = 256 << 20, 16 << 20

# What runs inside: sys.path as here, the main module under another name (as multiprocessing's `spawn` does), then the call.
_INSIDE = """
import errno, os, pickle, sys, traceback
def given(fd):
    with open(fd, "rb", closefd=False) as file:
        file.seek(0)
        return file.read()
def named(error):
    return type(error).__module__, type(error).__qualname__, str(error)
def shown(error):
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))
work, out = int(sys.argv[1]), int(sys.argv[2])
del sys.argv[1:]
preparation, work_to_do = pickle.loads(given(work))
os.close(work)
value, failure, text = None, None, ""
try:
    main = preparation.get("init_main_from_path")
    unseen = main and not os.path.exists(main)
    if unseen:
        # What cloudpickle brings along needs it not.
        del preparation["init_main_from_path"]
    if preparation:
        import multiprocessing.spawn
        multiprocessing.spawn.prepare(preparation)
    try:
        function, args, kwargs = pickle.loads(work_to_do)
    except AttributeError as error:
        if not unseen or not ("__main__" in str(error) or "__mp_main__" in str(error)):
            raise
        why = ("the container does not see the program's own file, which is run there for what __main__ defines; mount its "
               "directory (mounts, share_cwd=True), or have the function in a module that the container sees")
        raise FileNotFoundError(errno.ENOENT, why, main) from None
    value = pickle.dumps(function(*args, **kwargs), protocol=5)
except BaseException as error:
    failure, text = named(error), shown(error)
    try:
        value = pickle.dumps(error, protocol=5)
        pickle.loads(value)
    except BaseException:
        value = pickle.dumps(None)
with open(out, "wb", closefd=False) as file:
    file.write(pickle.dumps((failure, text), protocol=5) + value)
"""

# Plain data beyond what pickle has codes for.
_PLAIN = {
    ("builtins", "complex"),
    ("collections", "OrderedDict"),
    ("collections", "deque"),
    ("datetime", "date"),
    ("datetime", "datetime"),
    ("datetime", "time"),
    ("datetime", "timedelta"),
    ("datetime", "timezone"),
    ("decimal", "Decimal"),
    ("pathlib", "PosixPath"),
    ("pathlib", "PurePosixPath"),
    ("uuid", "UUID"),
}


class CallError(RuntimeError):
    """A function inside did not come to an end, or its result could not be taken.

    returncode: of its interpreter, -N for a signal, None when that is not what failed.
    reason: why the process ended: `exited`, `signaled`, `out_of_memory`, ...
    """

    def __init__(self, message: str, returncode: int | None = None, reason: str | None = None) -> None:
        super().__init__(message)
        self.returncode = returncode
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (str(self), self.returncode, self.reason))


class RemoteTraceback(Exception):
    """The cause of an exception that was raised inside: its traceback there, as text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


# The unpickler that is written in Python: its memo has only what was put there, and its operations can be refused. (mypy does
# not know it.)
_Unpickler: Any = pickle._Unpickler


class _Plain(_Unpickler):  # type: ignore[misc]
    dispatch: ClassVar[dict[int, Any]] = dict(_Unpickler.dispatch)

    def load_build(self) -> None:
        # That sets attributes of what it gets: a class is this program's.
        if isinstance(self.stack[-2], type):
            raise pickle.UnpicklingError("a class is no value")
        super().load_build()

    dispatch[pickle.BUILD[0]] = load_build

    def load_bytearray8(self) -> None:
        # As written for everybody it takes as much memory as is said before it looks how much there is.
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(min(size, MOST_PLAIN))))

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _PLAIN:
            return super().find_class(module, name)
        found = getattr(builtins, name, None) if module == "builtins" else None
        if isinstance(found, type) and issubclass(found, Exception):
            return found
        raise pickle.UnpicklingError(f"{module}.{name} is no plain value")


def _memory(name: str, data: bytes = b"") -> int:
    """A file in memory; with data it can be changed by nobody any more."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        if data:
            with open(fd, "wb", closefd=False) as file:
                file.write(data)
            seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
        else:
            # So that it cannot be sealed against whoever writes later.
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _pickled(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
    try:
        dumps = importlib.import_module("cloudpickle").dumps
    except ImportError:
        dumps = pickle.dumps
    data: bytes = dumps((function, args, kwargs))
    return data


class Call:
    """One call: what is given to a process inside, and what is made of what it leaves."""

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        python: AnyPath | None,
        trusted: bool,
    ) -> None:
        if not callable(function):
            raise TypeError(f"function: {type(function).__name__} cannot be called")
        import multiprocessing.spawn

        work = _pickled(function, args, kwargs)
        preparation = multiprocessing.spawn.get_preparation_data("ringfence")
        # What is for children of multiprocessing only; and the main module where nothing is of it.
        mine = ("sys_path", "sys_argv") + (
            ("init_main_from_name", "init_main_from_path") if b"__main__" in work else ()
        )
        preparation = {key: value for key, value in preparation.items() if key in mine}
        self._trusted = trusted
        self._name = getattr(function, "__qualname__", repr(function))
        self._work = _memory("ringfence-call", pickle.dumps((preparation, work)))
        try:
            self._out = _memory("ringfence-result")
        except BaseException:
            os.close(self._work)
            raise
        program = os.fsdecode(python) if python is not None else sys.executable or "python3"
        self.args = [program, "-c", _INSIDE, str(self._work), str(self._out)]
        self.pass_fds = (self._work, self._out)
        self._lock = threading.Lock()
        self._in_use = self._gone = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """While the descriptors are handed over, so that another thread's `close` does not give their numbers to something else."""
        with self._lock:
            if self._gone:
                raise CallError(f"{self._name}: cancelled")
            self._in_use = True
        try:
            yield
        finally:
            with self._lock:
                self._in_use = False
                if self._gone:
                    self._let_go()

    def close(self) -> None:
        """Lets go of what was given, now or when it is not held any more."""
        with self._lock:
            if not self._gone and not self._in_use:
                self._let_go()
            self._gone = True

    def _let_go(self) -> None:
        os.close(self._work)
        os.close(self._out)

    def result(self, returncode: int | None, reason: str | None) -> Any:
        """What the function returned, or its exception."""
        size = os.fstat(self._out).st_size
        if returncode != 0 or size == 0:
            how = f"{reason}, returncode {returncode}" if reason else f"returncode {returncode}"
            raise CallError(f"{self._name}: its interpreter ended without a result ({how})", returncode, reason)
        most = MOST if self._trusted else MOST_PLAIN
        if size > most:
            raise CallError(f"{self._name}: its result has {size} bytes, more than {most}")
        data = io.BytesIO(os.pread(self._out, size, 0))
        try:
            failure, text = _Plain(data).load()
            module, name, message = failure or ("", "", "")
        except Exception as error:
            raise CallError(f"{self._name}: something else wrote to its result: {error}") from None
        try:
            value = pickle.load(data) if self._trusted else _Plain(data).load()
        except Exception as error:
            if not failure:
                hint = "" if self._trusted else "; trusted=True takes every value"
                raise CallError(f"{self._name}: its result cannot be taken: {error}{hint}") from None
            value = None
        if not failure:
            return value
        if not isinstance(value, Exception):
            value = CallError(f"{self._name} raised {module}.{name}: {message}")
        raise value from RemoteTraceback(str(text))
