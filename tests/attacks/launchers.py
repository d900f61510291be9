"""The two launchers that each attack is tried against: ringfence, and one that makes the mistakes of others (careless.c)."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ringfence

PROGRAMS = Path(os.environ["RINGFENCE_SUITES"], "attacks")
IS_ROOT = os.geteuid() == 0
IN_GUEST = os.environ.get("RINGFENCE_TEST_TIER") == "vm"

#: Without a user namespace only root can start anything.
IDMAPS = ["auto", "host"] if IS_ROOT else ["auto"]

#: How often a race is run against ringfence: `make attacks` says 1000.
ROUNDS = int(os.environ.get("RINGFENCE_ATTACK_ROUNDS") or (4 if IN_GUEST else 20))

#: How often it may be run against the careless launcher until it is won. It loses sooner.
PATIENCE = 400


class Root:
    """A directory that becomes `/`, with static programs in /bin, and an image's usual places."""

    def __init__(self, path: Path, *programs: str) -> None:
        self.path = path
        (path / "bin").mkdir(parents=True)
        for name in programs or ("look", "overwrite", "peek", "swap", "terminal"):
            shutil.copy(PROGRAMS / name, path / "bin" / name)
        for name in ("dev", "proc", "sys", "tmp", "etc"):
            (path / name).mkdir()

    def __fspath__(self) -> str:
        return str(self.path)

    __str__ = __fspath__

    def __truediv__(self, name: str) -> Path:
        return self.path / name


@dataclass
class Outcome:
    """What a launch came to: how it ended, what the program printed, why there was none."""

    status: int
    out: str
    error: str

    @property
    def started(self) -> bool:
        return self.status not in (125, 126, 127)


def careless(*words: str | os.PathLike[str], timeout: float = 30, **options: Any) -> Outcome:
    """Has the careless launcher start or join: its switches, `--`, the program."""
    command = [str(PROGRAMS / "careless"), *map(os.fspath, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, **options)
    return Outcome(done.returncode, done.stdout, done.stderr)


def host(script: str, launcher: str, idmap: str, top: Path) -> list[str]:
    """What a script beside the tests prints, that is a host of its own with what the launcher starts."""
    command = [sys.executable, str(Path(__file__).with_name(script)), launcher, idmap, str(top)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def contained(*argv: str, timeout: float = 30, container: ringfence.Container | None = None, **fields: Any) -> Outcome:
    """Has ringfence start a container for the program, or run it in one."""
    run: Callable[..., Any] = container.run if container else ringfence.run
    try:
        done = run(list(argv), capture_output=True, text=True, timeout=timeout, **fields)
    except ringfence.Error as error:
        return Outcome(125, "", str(error))
    return Outcome(done.returncode, done.stdout, done.stderr)


@contextlib.contextmanager
def careless_container(root: Root, *switches: str, program: list[str], **options: Any) -> Iterator[tuple[int, Any]]:
    """One that stays: the pid of its first process, and the launcher's process with its standard output."""
    pid_file = root.path.parent / "pid"
    command = [str(PROGRAMS / "careless"), "--root", str(root), "--pid-file", str(pid_file), *switches, "--", *program]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, **options) as process:
        try:
            assert process.stdout
            first = process.stdout.readline()
            assert first, "the careless launcher did not start it"
            assert within(10, lambda: bool(pid_file.read_text()))
            yield int(pid_file.read_text()), process
        finally:
            # The launcher's child is pid 1 of its namespace and dies with it.
            process.kill()


@contextlib.contextmanager
def swapping(*pairs: Path) -> Iterator[None]:
    """Exchanges each two paths, from a container that shares the directory that both are in with others."""
    directory = pairs[0].parent
    words = [f"/shared/{path.name}" for path in pairs]
    mounts = [f"{directory}:/shared:rw", f"{PROGRAMS}:/attacks"]
    with ringfence.popen(["/attacks/swap", *words], mounts=mounts, stdout=ringfence.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "swapping\n"
        try:
            yield
            assert process.poll() is None, "the racer has given up"
        finally:
            process.kill()


def until_won(attack: Callable[[], bool], rounds: int = PATIENCE) -> int:
    """How many rounds the attack took; fails where it is not won."""
    for number in range(1, rounds + 1):
        if attack():
            return number
    raise AssertionError(f"the careless launcher withstood {rounds} rounds: this attack shows nothing")


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def tree(directory: Path) -> dict[str, tuple[int, int, int, int, bytes]]:
    """All that an attack could change below a directory."""
    found = {}
    for path in sorted([directory, *directory.rglob("*")]):
        seen = path.lstat()
        data = path.read_bytes() if stat.S_ISREG(seen.st_mode) else b""
        found[str(path)] = (seen.st_ino, seen.st_mode, seen.st_uid, seen.st_gid, data)
    return found


def mount_points() -> list[str]:
    return [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
