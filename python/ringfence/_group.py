"""Groups of processes inside a container."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from . import _request, _ringfence
from ._types import Args, CompletedProcess, Usage

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._container import Container
    from ._process import Process
    from ._types import LimitFields


class ControlGroup:
    """Some processes of a container, with limits of their own: the second of two levels.

    The limits hold within those of the container, the weights count against the container's other groups. Made by
    `Container.group`, gone with `remove` or with the container. May be used from any thread.
    """

    def __init__(self, container: Container, raw: _ringfence.ControlGroup) -> None:
        self._container = container
        self._raw = raw

    @property
    def name(self) -> str:
        return self._raw.name

    @property
    def limits(self) -> dict[str, Any]:
        """Its limits as they are now."""
        limits: dict[str, Any] = json.loads(self._raw.limits())
        return limits

    def update(self, **limits: Unpack[LimitFields]) -> None:
        """Changes its limits, as `Container.update` does for the container's: all of it or nothing."""
        self._raw.update(_request.update_fields(limits))

    def usage(self) -> Usage:
        """What its processes use and used."""
        return Usage._from_json(self._raw.usage())

    def popen(self, args: Args, *arguments: Any, **options: Any) -> Process[Any]:
        """Starts a process in it: takes what `Container.popen` takes."""
        return self._container.popen(args, *arguments, cgroup=self.name, **options)

    def run(self, args: Args, **options: Any) -> CompletedProcess[Any]:
        """Runs a command in it to its end: takes what `Container.run` takes."""
        return self._container.run(args, cgroup=self.name, **options)

    def freeze(self) -> None:
        """Stops every process in it where it is."""
        self._raw.freeze()

    def thaw(self) -> None:
        """Lets them go on."""
        self._raw.thaw()

    def kill(self) -> None:
        """SIGKILL to every process in it, also while they fork; it can be used further."""
        self._raw.kill()

    def remove(self) -> None:
        """Removes it; EBUSY while processes are in it."""
        self._raw.remove()

    def __repr__(self) -> str:
        return f"<ControlGroup {self.name} of {self._container!r}>"
