"""What concerns the host process as a whole: forks, its end, its log level."""

from __future__ import annotations

import atexit
import logging
import os
import time
import weakref
from typing import TYPE_CHECKING

from . import _ringfence
from ._errors import Error

if TYPE_CHECKING:
    from ._compose import Group
    from ._container import Container
    from ._network import Network
    from ._pod import Pod
    from ._types import Seconds

logger = logging.getLogger("ringfence")
logger.addHandler(logging.NullHandler())

#: Containers, pods, groups and networks that end with this process.
attached: weakref.WeakSet[Container | Pod | Group | Network] = weakref.WeakSet()

#: Rises in every forked child: handles of an older generation belong to the parent.
generation = 0

_level = logging.WARNING


def sync_log_level() -> None:
    """Tells the core what `logging` wants to hear. Called before each start, so that setLevel works at any time."""
    global _level
    level = logger.getEffectiveLevel()
    if level != _level:
        _level = level
        _ringfence.set_log_level(level)


def seconds(timeout: Seconds | None) -> float | None:
    """A timeout as a number: text and timedeltas are durations, as in the vocabulary."""
    return _ringfence.seconds("timeout", timeout)


def deadline(timeout: Seconds | None) -> float | None:
    """When the seconds will have passed, by `time.monotonic`."""
    left = seconds(timeout)
    return None if left is None else time.monotonic() + left


def _forked() -> None:
    global generation
    generation += 1
    attached.clear()


def _end() -> None:
    """Closes what is open when the interpreter ends. The keeper would do it a moment later; this way nothing is seen."""
    containers = [c for c in attached if c._generation == generation]
    for container in containers:
        container._closed = True
        try:
            container._raw.kill()
        except Error:
            pass
    until = time.monotonic() + 5
    for container in containers:
        try:
            container._raw.close(max(0.0, until - time.monotonic()))
        except (Error, KeyboardInterrupt):
            pass


os.register_at_fork(after_in_child=_forked)
atexit.register(_end)
