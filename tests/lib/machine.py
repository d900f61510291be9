"""What a case needs of the machine while it runs: made, then undone.

    machine.py NAME

prints lines `KEY VALUE` and an empty line once it is there, and undoes it when its stdin ends: also when whoever asked for it was
killed. Where this machine or caller cannot have it, the line is `SKIP WHY`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import groups

Values = dict[str, str]
MIB = 1 << 20
# Where drivers are told of devices to make.
CONFIG = Path("/sys/kernel/config")


class Missing(Exception):
    """Why there is none here."""


def _until(what: str, done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within 30 s")
        time.sleep(0.005)


def _module(name: str, *arguments: str) -> None:
    """Where it is built in, or there is none, what follows shows."""
    with contextlib.suppress(OSError):
        subprocess.run(["modprobe", "-q", name, *arguments], stderr=subprocess.DEVNULL, check=False)


def _in_guest() -> bool:
    """In the virtual machine, whose devices are nobody else's."""
    return os.environ.get("RINGFENCE_TEST_TIER") == "vm"


def _number(disk: str) -> str:
    return Path("/sys/block", disk, "dev").read_text().strip()


@contextlib.contextmanager
def _loop() -> Iterator[str]:
    """A disk over a file of holes, as fast as memory."""
    _module("loop")
    with tempfile.TemporaryDirectory() as directory:
        image = Path(directory, "image")
        with image.open("wb") as file:
            file.truncate(64 * MIB)
        made = subprocess.run(["losetup", "-f", "--show", image], capture_output=True, text=True, check=False)
        if made.returncode != 0:
            raise Missing(f"losetup: {made.stderr.strip()}")
        device = made.stdout.strip()
        try:
            yield Path(device).name
        finally:
            subprocess.run(["losetup", "-d", device], check=True)


@contextlib.contextmanager
def _slow(nanoseconds: int, depth: int) -> Iterator[str]:
    """A disk that keeps nothing and takes its time, so that it, and no processor, is what everybody waits for."""
    # Alone the module would bring a disk of its own.
    _module("null_blk", "nr_devices=0")
    top = CONFIG / "nullb"
    mounted = not top.exists()
    if mounted:
        subprocess.run(["mount", "-t", "configfs", "none", CONFIG], check=True)
    try:
        before = set(os.listdir("/sys/block"))
        config = top / f"slow-{os.getpid()}"
        try:
            config.mkdir()
        except OSError as error:
            raise Missing(f"null_blk: {error}") from None
        try:
            # With request queues and a timer; MiB.
            settings = {"queue_mode": 2, "irqmode": 2, "submit_queues": 1, "size": 64}
            settings |= {"completion_nsec": nanoseconds, "hw_queue_depth": depth, "power": 1}
            for name, value in settings.items():
                (config / name).write_text(str(value))
            (disk,) = set(os.listdir("/sys/block")) - before
            _until("its node is there", lambda: Path("/dev", disk).exists())
            yield disk
        finally:
            (config / "power").write_text("0")
            config.rmdir()
    finally:
        if mounted:
            subprocess.run(["umount", CONFIG], check=True)


@contextlib.contextmanager
def bfq() -> Iterator[Values]:
    """A disk that bfq shares by weight."""
    if os.geteuid() != 0:
        raise Missing("only root can make a disk")
    slow = _in_guest()
    # One request at a time, so that there is always a choice of who is next.
    with _slow(4_000_000, 1) if slow else _loop() as disk:
        queue = Path("/sys/block", disk, "queue")
        _module("bfq")
        try:
            (queue / "scheduler").write_text("bfq")
        except OSError as error:
            raise Missing(f"bfq: {error}") from None
        try:
            # What it promises depends on not favouring those that look interactive, on patience with a reader that waits for a
            # processor, on budgets that end after so many sectors and not when their time is over, and on seeing all requests:
            # without room in its queue (twice those of the disk are its default) they wait outside, in order of arrival.
            settings = {
                "strict_guarantees": 1,
                "low_latency": 0,
                "slice_idle": 1000,
                "max_budget": 1024,
                "timeout_sync": 30000,
            }
            for name, value in settings.items():
                (queue / "iosched" / name).write_text(str(value))
            (queue / "nr_requests").write_text("128")
            # Several readers each do not leave a slow disk without requests; beside one in memory all would wait for processors.
            readers, amount = (4, 24 * MIB) if slow else (1, 1024 * MIB)
            yield {"SHARED": disk, "SHARED_NUMBER": _number(disk), "READERS": str(readers), "AMOUNT": str(amount)}
        finally:
            # The next user of the number gets it as it was.
            (queue / "scheduler").write_text("none")


@contextlib.contextmanager
def iocost() -> Iterator[Values]:
    """A disk that iocost shares by weight: on cgroup v2 alone."""
    if os.geteuid() != 0:
        raise Missing("only root can make a disk")
    top = groups.hierarchies().get("")
    if not top or not (top / "io.cost.qos").exists():
        raise Missing("no iocost, which is for cgroup v2")
    with _slow(100_000, 64) if _in_guest() else _loop() as disk:
        number = _number(disk)
        # As slow as it is told to be, everybody waits for it all the time.
        operations = "rseqiops=50 rrandiops=50 wseqiops=50 wrandiops=50"
        (top / "io.cost.qos").write_text(f"{number} enable=1 ctrl=user rpct=0 rlat=0 wpct=0 wlat=0 min=100 max=100")
        try:
            (top / "io.cost.model").write_text(
                f"{number} ctrl=user model=linear rbps=800000000 wbps=800000000 {operations}"
            )
            yield {"SHARED": disk, "SHARED_NUMBER": number, "READERS": "4", "AMOUNT": str(6 * MIB)}
        finally:
            (top / "io.cost.qos").write_text(f"{number} enable=0")


@contextlib.contextmanager
def memory() -> Iterator[Values]:
    """A group with 64 MiB for all below it, and two files on a disk, of 32 and of 192 MiB."""
    parent = os.environ.get("RINGFENCE_CGROUP_PARENT", "").strip("/")
    top = groups.hierarchies().get("")
    if not parent or not top:
        raise Missing("no control group for this caller")
    above = top / parent / f"limited-{os.getpid()}"
    if "memory" not in (above.parent / "cgroup.controllers").read_text().split():
        raise Missing("memory is not on cgroup v2, and v1 guarantees none")
    # TMPDIR may be in memory itself.
    with tempfile.TemporaryDirectory(prefix="case-", dir=os.environ.get("RINGFENCE_TEST_PUBLIC", "/var/tmp")) as files:
        os.chmod(files, 0o755)
        for name, mib in (("kept", 32), ("other", 192)):
            # Holes cost no disk, and their pages are page cache as any.
            with Path(files, name).open("wb") as file:
                file.truncate(mib * MIB)
        above.mkdir()
        try:
            (above / "memory.max").write_text(str(64 * MIB))
            yield {"GROUP": f"/{parent}/{above.name}", "FILES": files}
        finally:
            _until("the group is empty", lambda: _removed(above))


def _removed(group: Path) -> bool:
    try:
        group.rmdir()
    except OSError:
        return False
    return True


PROFILE = """
profile {name} flags=(attach_disconnected) {{
  / r,
  /** rix,
  /dev/null rw,
  deny /etc/passwd r,
  signal,
  capability,
}}
"""


@contextlib.contextmanager
def apparmor() -> Iterator[Values]:
    """A profile of AppArmor, loaded, that refuses one file."""
    try:
        Path("/proc/self/attr/apparmor/current").read_bytes()
    except OSError:
        raise Missing("AppArmor is not active in this kernel") from None
    if not shutil.which("apparmor_parser"):
        raise Missing("no apparmor_parser")
    name = f"ringfence-case-{os.getpid()}"
    text = PROFILE.format(name=name).encode()
    subprocess.run(["apparmor_parser", "-Kr"], input=text, stdout=sys.stderr, check=True)
    try:
        yield {"PROFILE": name}
    finally:
        subprocess.run(["apparmor_parser", "-R"], input=text, stdout=sys.stderr, check=True)


SETUPS = {"bfq": bfq, "iocost": iocost, "memory": memory, "apparmor": apparmor}


def _tell(values: Values) -> None:
    print("".join(f"{key} {value}\n" for key, value in values.items()), flush=True)


def main(name: str) -> None:
    try:
        with SETUPS[name]() as values:
            # What ends a runner that takes too long must not end this.
            os.setpgid(0, 0)
            _tell(values)
            sys.stdin.buffer.read()
    except Missing as why:
        _tell({"SKIP": str(why)})


if __name__ == "__main__":
    main(sys.argv[1])
