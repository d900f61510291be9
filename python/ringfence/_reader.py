"""What readers of a container have in common, whatever they read."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from . import _host
from ._errors import Error, TimedOutError, forked_child

if TYPE_CHECKING:
    from typing_extensions import Self

    from ._types import Seconds


class Raw(Protocol):
    """A reader of the core."""

    @property
    def fd(self) -> int: ...
    @property
    def over(self) -> bool: ...
    def cancel(self) -> None: ...


R = TypeVar("R", bound=Raw)
T = TypeVar("T")


class Reader(Generic[R, T]):
    """An iterator that waits, and a context manager."""

    #: What is read, for errors.
    _what: str
    #: What is said when nothing came.
    _none = "none"

    def __init__(self, raw: R, container: object, timeout: Seconds | None) -> None:
        self._raw: R | None = raw
        self._generation = _host.generation
        self._name = repr(container)
        #: How many seconds the iterator waits for the next one.
        self.timeout = _host.seconds(timeout)

    def _live(self, call: str) -> R:
        if self._generation != _host.generation:
            raise forked_child(f"{type(self).__name__}.{call}")
        if self._raw is None:
            raise Error(f"the reader of {self._what} was closed", kind="closed")
        return self._raw

    def fileno(self) -> int:
        """Readable when there may be something to read, and when it is over; borrowed, only to be polled.

        A call of `next(0)` may then still find nothing.
        """
        return self._live("fileno").fd

    @property
    def over(self) -> bool:
        """All was handed out, and nothing comes any more."""
        return self._live("over").over

    def next(self, timeout: Seconds | None = None) -> T | None:
        """The next one; None when the seconds pass first, or when it is over. 0 only looks."""
        raise NotImplementedError

    def close(self) -> None:
        """Lets go of it; waits of other threads end with an error of kind `closed`. Closing twice is fine."""
        raw, self._raw = self._raw, None
        if raw is not None and self._generation == _host.generation:
            raw.cancel()

    def _late(self) -> TimedOutError:
        return TimedOutError(f"{self._what} of {self._name}: {self._none} within {self.timeout} s", kind="timed_out")

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        found = self.next(self.timeout)
        if found is None:
            raise StopIteration if self.over else self._late()
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._name}>"
