"""Threads of this program inside the namespaces of a container."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, TypeVar

from . import _ringfence

T = TypeVar("T")


def names_of(kinds: str | Iterable[str]) -> list[str]:
    """`"net"`, or several names."""
    if not isinstance(kinds, Iterable):
        raise TypeError(f"kinds: names of namespaces are text, not {type(kinds).__name__}")
    names = [kinds] if isinstance(kinds, str) else list(kinds)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"kinds: names of namespaces are text, not {type(name).__name__}")
    return names


def _import_first() -> None:
    """What the interpreter would import later, when `mnt` has it look in the container: the codec of host names."""
    import encodings.idna  # noqa: F401
    import stringprep  # noqa: F401


def call_inside(container: _ringfence.Container, kinds: list[str], function: Callable[[], T]) -> T:
    """Runs `function` on a thread that joins for good, with the caller's context variables."""
    returned: list[T] = []
    failed: list[BaseException] = []

    def inside() -> None:
        try:
            container.join(kinds)
            returned.append(function())
        except BaseException as error:  # carried to the caller, whatever it is
            failed.append(error)

    _import_first()
    context = contextvars.copy_context()
    # A daemon: a caller that stops waiting (Ctrl-C) must not have to wait for it at the program's end.
    thread = threading.Thread(target=context.run, args=(inside,), name="ringfence-enter", daemon=True)
    thread.start()
    thread.join()
    try:
        if failed:
            raise failed[0]
        return returned[0]
    finally:
        failed.clear()  # a traceback that holds its own frame would live until the next collection


class Entry:
    """What `Container.enter` returns: while the block runs, its thread is inside."""

    def __init__(self, container: _ringfence.Container, kinds: list[str]) -> None:
        self._container = container
        self._kinds = kinds
        self._lent: _ringfence.Lent | None = None
        self._thread = 0

    def __enter__(self) -> None:
        if self._lent is not None:
            raise RuntimeError("this entry is in use: call enter() for each block")
        self._thread = threading.get_ident()
        self._lent = self._container.lend(self._kinds)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._lent is None:
            raise RuntimeError("this entry is not in use")
        if self._thread != threading.get_ident():
            raise RuntimeError("a block inside a container ends on the thread on which it began")
        lent, self._lent = self._lent, None
        lent.give_back()

    def __repr__(self) -> str:
        return f"<Entry {','.join(self._kinds)}{' (inside)' if self._lent is not None else ''}>"


def bound(function: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[], T]:
    """The call as one without arguments."""
    if not callable(function):
        raise TypeError(f"function: {type(function).__name__} cannot be called")
    return lambda: function(*args, **kwargs)
