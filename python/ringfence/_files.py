"""Files of a container, read, written and copied from outside."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from . import _ringfence
from ._types import AnyPath


class CopyProgress(NamedTuple):
    """How far a copy is, or what it came to."""

    entries: int
    """Files, directories and symbolic links that were made."""
    bytes: int
    """Bytes of files; a hole counts as if it were data."""
    skipped: int
    """Devices, sockets and FIFOs that were left out."""


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
    timeout: float | None,
    progress: Progress | None,
) -> CopyProgress:
    if progress is not None and not callable(progress):
        raise TypeError(f"progress: a function, not {type(progress).__name__}")
    tell = None if progress is None else lambda *at: progress(CopyProgress(*at))
    paths = os.fsencode(source), os.fsencode(target)
    return CopyProgress(*raw.copy(into, *map(os.fsdecode, paths), owner_text(owner), special, timeout, tell))


def content(data: object) -> bytes:
    """Whatever has a buffer, and no text."""
    if isinstance(data, bytes):
        return data
    if isinstance(data, str):
        raise TypeError("data: bytes, not str; write_text writes text")
    return bytes(memoryview(data))  # type: ignore[arg-type]
