"""Namespaces that exist: which one it is, what it belongs to, who is in it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from . import _ringfence
from ._types import AnyPath

if TYPE_CHECKING:
    from ._container import Container
    from ._pod import Pod

KINDS = ("mnt", "pid", "net", "ipc", "uts", "user", "cgroup", "time")


class Namespace:
    """A namespace of this machine, held by a descriptor: it exists as long as this object does, also without any process.

    `Namespace("pid:1", "net")`, `Namespace("/run/netns/blue")`: what the spec's field `namespaces` takes, as text: a path,
    `pid:N`, `fd:N` (of a namespace, or a pidfd), `container:NAME`, or `host` for the calling thread's own. Paths and descriptors
    of namespaces need no kind. Those of a container are `container.namespaces["net"]`.

    Two are equal, and have the same hash, when they are the same namespace. `os.setns` takes it. Errors name what is wrong
    in `field`; a process that the caller may not trace (ptrace(2)) is a PermissionError, one that has ended a ProcessLookupError.
    """

    __slots__ = ("_raw",)

    def __init__(self, source: AnyPath, kind: str | None = None) -> None:
        self._raw = _ringfence.Namespace.find(os.fsdecode(source), kind)

    @classmethod
    def _of(cls, raw: _ringfence.Namespace) -> Namespace:
        namespace = cls.__new__(cls)
        namespace._raw = raw
        return namespace

    @classmethod
    def of_pid(cls, pid: int, kind: str) -> Namespace:
        """That of a process, by its number in this process's pid namespace."""
        return cls._of(_ringfence.Namespace.of_pid(pid, kind))

    @classmethod
    def of_pidfd(cls, pidfd: int, kind: str) -> Namespace:
        """That of the process behind a pidfd, never of another that got its number."""
        return cls._of(_ringfence.Namespace.of_pidfd(pidfd, kind))

    @classmethod
    def of_path(cls, path: AnyPath) -> Namespace:
        """That of a bind mount like /run/netns/blue, or of a file like /proc/1/ns/net. Other files are only looked at."""
        return cls._of(_ringfence.Namespace.of_path(os.fsdecode(path)))

    @classmethod
    def of_fd(cls, fd: int) -> Namespace:
        """That of a descriptor, which is duplicated."""
        return cls._of(_ringfence.Namespace.of_fd(fd))

    @classmethod
    def own(cls, kind: str) -> Namespace:
        """The calling thread's own."""
        return cls._of(_ringfence.Namespace.own(kind))

    @property
    def kind(self) -> str:
        """`mnt`, `pid`, `net`, `ipc`, `uts`, `user`, `cgroup` or `time`."""
        return self._raw.kind

    @property
    def inode(self) -> int:
        """The inode, which /proc/PID/ns shows: unique while the namespace exists, and used again afterwards."""
        return self._raw.inode

    @property
    def device(self) -> int:
        """The device of its file, `st_dev`."""
        return self._raw.device

    @property
    def id(self) -> int | None:
        """The kernel's number of it, never used again before the next boot: of every kind since Linux 6.18, of mount namespaces
        since 6.11. None where the kernel has none."""
        return self._raw.id

    @property
    def owner_uid(self) -> int:
        """Who made the user namespace that it is, or that owns it; 65534 when this user namespace does not know that user."""
        return self._raw.owner_uid()

    @property
    def owner(self) -> Namespace | None:
        """The user namespace that owns it; of a user namespace, its parent. None: it is the machine's first one.

        A PermissionError when it is above the namespaces of this process.
        """
        raw = self._raw.owner()
        return None if raw is None else self._of(raw)

    @property
    def parent(self) -> Namespace | None:
        """The parent of a user or pid namespace. None for the machine's first ones and for kinds without parents.

        A PermissionError when it is above the namespaces of this process.
        """
        raw = self._raw.parent()
        return None if raw is None else self._of(raw)

    def members(self) -> list[int]:
        """The processes that are in it with at least one thread, as far as the caller may trace them. It reads all of /proc."""
        return self._raw.members()

    def pid_in(self, pid: int) -> int:
        """The number that a process (or thread) of this process's pid namespace has in this one.

        A ProcessLookupError when there is no such process, or it is outside. Between two foreign ones:
        `b.pid_in(a.pid_from(pid))`.
        """
        return self._raw.pid_in(pid)

    def pid_from(self, pid: int) -> int:
        """The number that a process (or thread) of this pid namespace has in that of this process: the inverse of `pid_in`."""
        return self._raw.pid_from(pid)

    def pin(self, path: AnyPath) -> None:
        """Keeps it without any process: mounts it at `path`, a file that is made for that, as `ip netns add` does.

        Other containers join it by the path (`namespaces={"net": "/run/netns/blue"}`), until `unpin` or a reboot. It takes
        CAP_SYS_ADMIN.
        """
        self._raw.pin(os.fsdecode(path))

    @staticmethod
    def unpin(path: AnyPath) -> None:
        """Unmounts a namespace that is mounted at `path`, and removes the file."""
        _ringfence.Namespace.unpin(os.fsdecode(path))

    def open(self) -> int:
        """Another descriptor of it, the caller's to close: for setns(2) and the ioctls of ioctl_nsfs(2)."""
        return self._raw.open()

    def fileno(self) -> int:
        """Its own descriptor, which is closed with this object."""
        return self._raw.fd

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Namespace):
            return NotImplemented
        return (self.device, self.inode) == (other.device, other.inode)

    def __hash__(self) -> int:
        return hash((self.device, self.inode))

    def __repr__(self) -> str:
        return f"<Namespace {self.kind}:[{self.inode}]>"


class ContainerNamespaces(Mapping[str, Namespace]):
    """Those of a container, opened when they are asked for."""

    def __init__(self, container: Container | Pod, kinds: tuple[str, ...] = KINDS) -> None:
        self._container = container
        self._kinds = kinds

    def __getitem__(self, kind: str) -> Namespace:
        if kind not in self._kinds:
            raise KeyError(kind)
        return Namespace._of(self._container._live("namespaces").namespace(kind))

    def __contains__(self, kind: object) -> bool:
        return kind in self._kinds

    def __iter__(self) -> Iterator[str]:
        return iter(self._kinds)

    def __len__(self) -> int:
        return len(self._kinds)
