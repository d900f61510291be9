"""What happens to a container, one event after the other."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from . import _request, _ringfence
from ._reader import Reader
from ._types import Event, Pressure, Seconds

if TYPE_CHECKING:
    from ._container import Container
    from ._pod import Pod


def options_of(kinds: Iterable[str] | None, pressure: Iterable[Pressure]) -> str:
    """What the core takes."""
    options: dict[str, Any] = {}
    if kinds is not None:
        # A lone text is a mistake that the core names; as an iterable it would be its letters.
        options["kinds"] = kinds if isinstance(kinds, str) else _request.each("kinds", kinds)
    options["pressure"] = [
        _request._plain(f"pressure[{i}]", one) for i, one in enumerate(_request.each("pressure", pressure))
    ]
    return json.dumps(options)


class Events(Reader[_ringfence.Events, Event]):
    """A reader of the events of a container, made by `Container.events`: an iterator of `Event`, and a context manager.

    It may be used by any thread, by several at once too: each event is given to one of them. It outlives the container's
    handle: after `close()` of an attached container it tells the rest and `ended`, after which it is over.
    """

    _what = "events"

    def __init__(self, raw: _ringfence.Events, container: Container | Pod, timeout: Seconds | None) -> None:
        super().__init__(raw, container, timeout)
        #: Which kinds are told here.
        self.kinds: tuple[str, ...] = tuple(raw.kinds)

    def next(self, timeout: Seconds | None = None) -> Event | None:
        """The next event; None when the seconds pass first, or when it is over. 0 only looks."""
        fields = self._live("next").next(timeout)
        return None if fields is None else Event(*fields)

    def __repr__(self) -> str:
        return f"<Events of {self._name}: {', '.join(self.kinds)}>"
