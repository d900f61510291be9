"""What happens to a container, one event after the other."""

from __future__ import annotations

import json
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from . import _host, _request, _ringfence
from ._errors import Error, TimedOutError, forked_child
from ._types import Event, Pressure

if TYPE_CHECKING:
    from typing_extensions import Self

    from ._container import Container
    from ._pod import Pod


def options_of(kinds: Iterable[str] | None, pressure: Iterable[Pressure]) -> str:
    """What the core takes."""
    options: dict[str, Any] = {}
    if kinds is not None:
        # A lone text is a mistake that the core names; as an iterable it would be its letters.
        options["kinds"] = kinds if isinstance(kinds, str) else list(kinds)
    options["pressure"] = [_request._plain(f"pressure[{i}]", one) for i, one in enumerate(pressure)]
    return json.dumps(options)


class Events:
    """A reader of the events of a container, made by `Container.events`: an iterator of `Event`, and a context manager.

    It may be used by any thread, by several at once too: each event is given to one of them. It outlives the container's
    handle: after `close()` of an attached container it tells the rest and `ended`.
    """

    def __init__(self, raw: _ringfence.Events, container: Container | Pod, timeout: float | None) -> None:
        self._raw: _ringfence.Events | None = raw
        self._generation = _host.generation
        self._name = repr(container)
        #: Which kinds are told here.
        self.kinds: tuple[str, ...] = tuple(raw.kinds)
        #: How many seconds the iterator waits for an event.
        self.timeout = timeout

    def _live(self, call: str) -> _ringfence.Events:
        if self._generation != _host.generation:
            raise forked_child(f"Events.{call}")
        if self._raw is None:
            raise Error("the reader of events was closed", kind="closed")
        return self._raw

    def fileno(self) -> int:
        """Readable when there is something to read, and when it is over; borrowed, only to be polled.

        A call of `next(0)` may then still find nothing.
        """
        return self._live("fileno").fd

    @property
    def over(self) -> bool:
        """`ended` was told: nothing comes any more."""
        return self._live("over").over

    def next(self, timeout: float | None = None) -> Event | None:
        """The next event; None when the seconds pass first, or when it is over. 0 only looks."""
        fields = self._live("next").next(timeout)
        return None if fields is None else Event(*fields)

    def close(self) -> None:
        """Lets go of it; waits of other threads end with an error of kind `closed`. Closing twice is fine."""
        raw, self._raw = self._raw, None
        if raw is not None and self._generation == _host.generation:
            raw.cancel()

    def _late(self) -> TimedOutError:
        return TimedOutError(f"events of {self._name}: none within {self.timeout} s", kind="timed_out")

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        event = self.next(self.timeout)
        if event is None:
            raise StopIteration if self.over else self._late()
        return event

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Events of {self._name}: {', '.join(self.kinds)}>"
