"""Files of a container, read, written and copied from outside."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NamedTuple

from . import _request, _ringfence
from ._types import AnyPath, Seconds


class CopyProgress(NamedTuple):
    """How far a copy is, or what it came to."""

    entries: int
    """Files, directories and symbolic links that were made."""
    bytes: int
    """Bytes of files; a hole counts as if it were data."""
    skipped: int
    """Devices, sockets and FIFOs that were left out."""


class Volume(NamedTuple):
    """A named volume: a directory that a mount of type `volume` made, and that stays."""

    name: str
    path: str
    in_use: bool
    """Whether a container of this user has it now."""


Progress = Callable[[CopyProgress], object]


def owner_text(owner: str | int | None) -> str | None:
    """As the native half takes it."""
    if owner is None or isinstance(owner, str):
        return owner
    if isinstance(owner, bool) or not isinstance(owner, int):
        raise TypeError(f"owner: uid, uid:gid or names, not {type(owner).__name__}")
    return str(owner)


def copy(
    raw: _ringfence.Container,
    into: bool,
    source: AnyPath,
    target: AnyPath,
    owner: str | int | None,
    special: str,
    timeout: Seconds | None,
    progress: Progress | None,
) -> CopyProgress:
    if progress is not None and not callable(progress):
        raise TypeError(f"progress: a function, not {type(progress).__name__}")
    tell = None if progress is None else lambda *at: progress(CopyProgress(*at))
    paths = _request.path_of("source", source), _request.path_of("target", target)
    return CopyProgress(*raw.copy(into, paths[0], paths[1], owner_text(owner), special, timeout, tell))


def content(data: object) -> bytes:
    """Whatever has a buffer, and no text."""
    if isinstance(data, bytes):
        return data
    if isinstance(data, str):
        raise TypeError("data: bytes, not str; write_text writes text")
    try:
        return bytes(memoryview(data))  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"data: bytes, not {type(data).__name__}") from None


def rmtree(path: AnyPath, *, timeout: Seconds | None = None) -> None:
    """Removes a file, a link or a tree of this machine: also what a container left there for other ids of this user.

    As `shutil.rmtree`, which cannot do that: files of subordinate ids, in a directory that was mounted writable. No link is followed,
    no mount crossed (one that is met is an error with EBUSY). An empty path, `/` and one that ends in a dot are refused.
    """
    _ringfence.remove_tree(path, timeout)


def volumes() -> list[Volume]:
    """The named volumes of this user.

    They are made by mounts like `"name:/data"` (`{"type": "volume", "source": "name", "target": "/data"}`), below `RINGFENCE_VOLUMES`, for
    root /var/lib/ringfence/volumes, else ringfence/volumes in `XDG_DATA_HOME` or ~/.local/share. Without a name a volume goes
    with its container.
    """
    return [Volume(**volume) for volume in json.loads(_ringfence.volumes())]


def remove_volume(name: str) -> None:
    """Removes a named volume with all that is in it. EBUSY while a container has it."""
    _ringfence.remove_volume(name)
