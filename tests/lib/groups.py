"""Control groups of a test run: one tree per run below /ringfence-test, in every hierarchy that the machine has.

The tree carries the limits that keep a runaway suite from taking the machine, it tells which processes belong to the run
(the leak check looks at nobody else's), and for the delegated suites a part of it is handed to the ordinary user.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

TOP = "ringfence-test"


def hierarchies() -> dict[str, Path]:
    """Mount points by controller list; the v2 tree has the key "" ."""
    found: dict[str, Path] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, right = line.split(" - ")
        kind, _, options = right.split(" ", 2)
        root, point = left.split(" ")[3:5]
        if root != "/":
            continue
        if kind == "cgroup2":
            found.setdefault("", Path(point))
        elif kind == "cgroup":
            words = [o for o in options.split(",") if o not in ("rw", "ro", "xattr", "clone_children")]
            names = [w for w in words if not w.startswith(("release_agent=", "cpuset_"))]
            found.setdefault(",".join(names), Path(point))
    return found


def _write(path: Path, text: str) -> bool:
    try:
        path.write_text(text)
    except OSError:
        return False
    return True


class Tree:
    """One directory of the same name in each hierarchy."""

    def __init__(self, name: str, points: dict[str, Path]):
        self.name = name
        self.points = points
        self.dirs = {key: point / name for key, point in points.items()}

    @classmethod
    def create(cls) -> Tree | None:
        """The tree of this run, or None where the machine lets us make no groups."""
        name = f"{TOP}/{os.getpid()}"
        usable: dict[str, Path] = {}
        for key, point in hierarchies().items():
            if "name=" in key and "name=systemd" not in key:
                continue
            try:
                _enable(point, key, top=True)
                for path in (point / TOP, point / name):
                    path.mkdir(exist_ok=True)
                    _enable(path, key)
            except OSError:
                continue
            usable[key] = point
        return cls(name, usable) if usable else None

    def child(self, name: str, delegate: bool = False) -> Tree:
        tree = Tree(f"{self.name}/{name}", self.points)
        for key, path in tree.dirs.items():
            path.mkdir(exist_ok=True)
            if delegate:
                _enable(path, key)
        return tree

    def give_to(self, uid: int, gid: int) -> None:
        """Delegation as systemd does it: the directory and the files that make and fill groups, not the limits."""
        for key, path in self.dirs.items():
            os.chown(path, uid, gid)
            for name in ("cgroup.procs", "cgroup.threads", "cgroup.subtree_control", "tasks"):
                if (path / name).exists() and (key == "" or name != "cgroup.subtree_control"):
                    os.chown(path / name, uid, gid)

    def limit(self, memory: int, pids: int) -> None:
        """Bounds for everything below; what cannot be bounded on this machine is left unbounded."""
        for key, path in self.dirs.items():
            if key == "":
                _write(path / "memory.max", str(memory))
                _write(path / "pids.max", str(pids))
            elif key == "memory":
                _write(path / "memory.limit_in_bytes", str(memory))
            elif key == "pids":
                _write(path / "pids.max", str(pids))

    def enter(self) -> None:
        """Moves the calling process."""
        for path in self.dirs.values():
            (path / "cgroup.procs").write_text("0")

    def groups(self) -> list[Path]:
        """All directories of the tree, deepest first."""
        found = []
        for path in self.dirs.values():
            for directory, _, _ in os.walk(path, topdown=False):
                found.append(Path(directory))
        return found

    def pids(self) -> set[int]:
        found: set[int] = set()
        for group in self.groups():
            try:
                found.update(int(line) for line in (group / "cgroup.procs").read_text().split())
            except (OSError, ValueError):
                continue
        return found - {0, os.getpid()}

    def sweep(self, seconds: float = 5.0) -> list[Path]:
        """Ends every process of the tree and removes it; returns what could not be removed."""
        deadline = time.monotonic() + seconds
        while True:
            for group in self.groups():
                _write(group / "freezer.state", "THAWED")
                if (group / "cgroup.freeze").exists():
                    _write(group / "cgroup.freeze", "0")
            for pid in self.pids():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            left = []
            for group in self.groups():
                try:
                    group.rmdir()
                except OSError:
                    left.append(group)
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.02)

    def remove(self) -> None:
        """Removes the tree and, when no other run uses it, the top directory."""
        self.sweep()
        for point in self.points.values():
            try:
                (point / TOP).rmdir()
            except OSError:
                pass


def _enable(group: Path, key: str, top: bool = False) -> None:
    """Lets the children of a group have the controllers that tests use."""
    if key == "":
        try:
            offered = (group / "cgroup.controllers").read_text().split()
        except OSError:
            return
        for controller in offered:
            _write(group / "cgroup.subtree_control", f"+{controller}")
    elif "cpuset" in key.split(",") and not top:
        # A v1 cpuset without CPUs and memory nodes takes no process; children inherit them only on request.
        for name in ("cpuset.cpus", "cpuset.mems"):
            if not (group / name).read_text().strip():
                _write(group / name, (group.parent / name).read_text())
        _write(group / "cgroup.clone_children", "1")
