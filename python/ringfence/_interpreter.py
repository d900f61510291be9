"""`run([sys.executable, ...])` from a virtual environment or a pyenv below a home directory.

With the host's tree as root file system, home directories, /run, /tmp and /var/tmp are private. An interpreter that lives
there would not be found: its prefixes are mounted read-only at the same paths.
"""

from __future__ import annotations

import os
import site
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

_HIDDEN = ("/home", "/root", "/run", "/tmp", "/var/tmp")
# Some distributions have a link to /var/home there.
HIDDEN = frozenset(path for top in _HIDDEN for path in (top, os.path.realpath(top)))


def _hidden(path: str) -> str | None:
    """The hidden directory that `path` is in or is."""
    for top in {*HIDDEN, os.path.expanduser("~")}:
        if top != "/" and (path == top or path.startswith(top + "/")):
            return top
    return None


def _hops(path: str) -> Iterator[str]:
    """The path, then what it links to, to the end: each must be there for the kernel to follow it inside."""
    for _ in range(40):
        yield path
        if not os.path.islink(path):
            return
        path = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path)))


def is_this(program: bytes) -> bool:
    """The program is this interpreter, or leads to it."""
    path = os.fsdecode(program)
    if not sys.executable or "/" not in path:
        return False
    return path == sys.executable or os.path.realpath(path) == os.path.realpath(sys.executable)


def _needed(program: str) -> Iterator[str]:
    for prefix in (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix, *site.getsitepackages()):
        yield os.path.abspath(prefix)
    for hop in (*_hops(program), os.path.realpath(program)):
        directory = os.path.dirname(hop)
        # Never the whole of a home directory or of /tmp for the sake of one file.
        yield hop if directory == _hidden(hop) or os.path.dirname(directory) == "/home" else directory


def paths(program: str) -> list[str]:
    """What has to be mounted for `program` to run: no path lies in another one."""
    wanted = {path for path in _needed(program) if _hidden(path) and os.path.exists(path)}
    return sorted(path for path in wanted if not any(str(parent) in wanted for parent in Path(path).parents))


def _is_host_tree(rootfs: Any) -> bool:
    if isinstance(rootfs, Mapping):
        rootfs = rootfs.get("kind", rootfs.get("source"))
    return rootfs is None or rootfs in ("host", "host:owned")


def _targets(mounts: Iterable[Any]) -> Iterator[str]:
    for mount in mounts:
        if isinstance(mount, Mapping):
            target = mount.get("target") or mount.get("source")
            if isinstance(target, (str, bytes, os.PathLike)):
                yield os.fsdecode(target)
        elif isinstance(mount, (str, bytes)):
            source, _, rest = os.fsdecode(mount).partition(":")
            yield rest.partition(":")[0] if rest.startswith("/") else source


def mounts(argv: list[bytes], rootfs: Any, given: list[Any], share: bool | None) -> list[dict[str, str]]:
    """The mounts to add to a container's."""
    if share is None:
        share = bool(argv) and is_this(argv[0])
    if not share or not _is_host_tree(rootfs):
        return []
    program = os.fsdecode(argv[0]) if argv and is_this(argv[0]) else sys.executable
    taken = {os.path.normpath(target) for target in _targets(given)}
    return [{"source": path, "target": path} for path in paths(program) if path not in taken]


def add_mounts(argv: list[bytes], rootfs: Any, given: list[Any], share: bool | None) -> list[Any]:
    """The mounts of a container with those to add: one that others of them lie below stands before these, or it would cover them."""
    targets = [os.path.normpath(target) for target in _targets(given)]
    above: list[Any] = []
    others: list[Any] = []
    for mount in mounts(argv, rootfs, given, share):
        below = any(target.startswith(mount["target"] + "/") for target in targets)
        (above if below else others).append(mount)
    return [*above, *given, *others]
