"""The exceptions: values with data, each also the built-in exception that `subprocess` would raise."""

from __future__ import annotations

import errno as _errno
import os

__all__ = ["Error", "SpecError"]


class Error(OSError):
    """A call failed. `str()` gives one line that names field, step, path, errno and what can be done.

    kind: the class of the failure, as in every language: `not_found`, `permission_denied`, `unsupported`, `exhausted`, ...
    errno: the errno of the kernel, or None when no system call was involved.
    field: the field of the spec that asked for what failed, like `mounts[2].source`.
    step: the system call, or a few words.
    path: the path that it failed on (also as `filename`).
    hint: what the caller can do about it.
    log_tail: of `Container.wait_for`, the last lines of the container's log, else None. Also at the end of `str()`, below the line.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: str = "os",
        errno: int | None = None,
        field: str | None = None,
        step: str | None = None,
        path: str | None = None,
        hint: str | None = None,
        log_tail: str | None = None,
    ) -> None:
        if errno:
            super().__init__(errno, os.strerror(errno), path)
        else:
            super().__init__(message)
        self._message = message
        self.kind = kind
        self.field = field
        self.step = step
        self.path = path
        self.hint = hint
        self.log_tail = log_tail

    def __str__(self) -> str:
        return self._message if self.log_tail is None else f"{self._message}\nlast lines of its log:\n{self.log_tail}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._message!r}, kind={self.kind!r})"

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self._data()))

    def _data(self) -> _Data:
        return (self._message, self.kind, self.errno, self.field, self.step, self.path, self.hint, self.log_tail)

    def _with_hint(self, hint: str) -> Error:
        """The same error with a hint that only this layer can give."""
        message = self._message.removesuffix(f"; {self.hint}") if self.hint else self._message
        data = (f"{message}; {hint}", self.kind, self.errno, self.field, self.step, self.path, hint, self.log_tail)
        return _rebuild(type(self), data)


class SpecError(Error, ValueError):
    """A field or an argument has a value that can never work; `field` names it."""


class UnknownFieldError(SpecError, TypeError):
    """No field has this name: for Python, an unexpected keyword argument."""


class MissingError(Error, FileNotFoundError):
    """Something that the caller named does not exist: a program, a path, a container."""


class PathNotADirectoryError(Error, NotADirectoryError):
    """A part of a path is not a directory."""


class PathIsADirectoryError(Error, IsADirectoryError):
    """A path is a directory and must not be one."""


class NotPermittedError(Error, PermissionError):
    """The kernel or a policy of this machine refused it to this caller."""


class NameExistsError(Error, FileExistsError):
    """A container of that name exists."""


class TimedOutError(Error, TimeoutError):
    """The timeout of the call passed."""


class ForkedChildError(Error, ChildProcessError):
    """The call was made in a forked child of the process that started the container."""


class ProcessGoneError(Error, ProcessLookupError):
    """No such process."""


_BY_BUILTIN: dict[type[OSError], type[Error]] = {
    FileNotFoundError: MissingError,
    NotADirectoryError: PathNotADirectoryError,
    IsADirectoryError: PathIsADirectoryError,
    PermissionError: NotPermittedError,
    FileExistsError: NameExistsError,
    TimeoutError: TimedOutError,
    ChildProcessError: ForkedChildError,
    ProcessLookupError: ProcessGoneError,
}

_BY_KIND: dict[str, type[Error]] = {
    "invalid_spec": SpecError,
    "invalid_argument": SpecError,
    "not_available": SpecError,
    "not_found": MissingError,
    "permission_denied": NotPermittedError,
    "already_exists": NameExistsError,
    "timed_out": TimedOutError,
    "forked_child": ForkedChildError,
}

_Data = tuple[str, str, "int | None", "str | None", "str | None", "str | None", "str | None", "str | None"]


def from_core(
    message: str,
    kind: str,
    errno: int,
    field: str | None,
    step: str | None,
    path: str | None,
    hint: str | None,
    log_tail: str | None = None,
) -> Error:
    """The exception for an error of the core. Called by the extension module."""
    cls = _BY_KIND.get(kind, Error)
    if kind == "invalid_argument" and field in (None, "signal"):
        # What the kernel says of a number, as it says it to `subprocess`: an OSError, and no ValueError.
        cls = Error
    if errno and not issubclass(cls, (SpecError, TimedOutError, ForkedChildError)):
        # The interpreter's own table of errnos; the kind decides what that table does not know.
        cls = _BY_BUILTIN.get(type(OSError(errno, "")), cls)
    return cls(message, kind=kind, errno=errno or None, field=field, step=step, path=path, hint=hint, log_tail=log_tail)


def _rebuild(cls: type[Error], data: _Data) -> Error:
    message, kind, errno, field, step, path, hint, log_tail = data
    return cls(message, kind=kind, errno=errno, field=field, step=step, path=path, hint=hint, log_tail=log_tail)


def forked_child(what: str) -> ForkedChildError:
    """The error of every call on a handle that a forked child inherited."""
    hint = "start containers after the fork, or use the container in the process that started it"
    return ForkedChildError(
        f"{what}: this process is a forked child of the one that made the handle (ECHILD); {hint}",
        kind="forked_child",
        errno=_errno.ECHILD,
        hint=hint,
    )
