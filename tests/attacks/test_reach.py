"""Sockets, FIFOs and devices of the host's mounts, from a root file system that is the host's own.

tests/run: timeout=120
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from launchers import IS_ROOT, Root, careless, contained, host

import ringfence


@pytest.fixture
def top() -> Iterator[Path]:
    """A directory that is not hidden, on which the host process mounts where nobody else sees it."""
    if not IS_ROOT:
        yield Path("/srv")
        return
    made = Path("/srv", f"ringfence-attacks-{os.getpid()}")
    made.mkdir()
    yield made
    made.rmdir()


def test_a_read_only_bind_is_reached_through(top: Path) -> None:
    """Extra: read-only mounts do not keep anybody from connecting, from writing to a FIFO, from opening a device."""
    said = host("reach_host.py", "bind", "host", top)
    assert said.count("socket: reached") == said.count("fifo: reached") == said.count("device: reached") == 2, said
    assert said.count("accepted") == said.count("read") == 2, said


@pytest.mark.parametrize("rootfs", ["ringfence", "owned"])
def test_nothing_of_the_host_is_reached(top: Path, idmap: str, rootfs: str) -> None:
    """Extra: through the overlays of `rootfs: host` a socket is nobody's, a FIFO has no reader, and a device is none; at start and at exec."""
    if rootfs == "owned" and not IS_ROOT:
        rootfs = "ringfence"
    said = host("reach_host.py", rootfs, idmap, top)
    assert len([line for line in said if line.startswith("socket: ")]) == 4, said
    assert not [line for line in said if line.endswith("reached") or line in ("accepted", "read")], said


@pytest.mark.skipif(not IS_ROOT, reason="an ordinary user has no devices to put into an image")
@pytest.mark.parametrize("layers", [False, True])
def test_devices_of_an_image_are_none(root: Root, idmap: str, layers: bool) -> None:
    """Extra: a node that is in an image, or in a volume, is not that device, whoever it belongs to; those of /dev are; at start and at exec."""
    for place in ("etc", "dev"):
        os.mknod(root / place / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
        (root / place / "zero").chmod(0o666)
    assert careless("--root", root, "--", "/bin/look", "write", "/etc/zero", "x").out == "written\n"
    fields: dict[str, Any] = {
        "rootfs": {"lower": [str(root)]} if layers else root,
        "idmap": idmap,
        "mounts": [f"{root / 'etc'}:/vol:rw"],
    }
    with ringfence.Container(**fields) as container:
        for run in (fields, {"container": container}):
            for path in ("/etc/zero", "/vol/zero"):
                assert contained("/bin/look", "write", path, "x", **run).out == f"{path}: EACCES\n"
            assert contained("/bin/look", "write", "/dev/zero", "x", **run).out == "written\n"


POWERS = {"add": ["sys_admin", "syslog"]}

#: A loop device, their control, and the kernel's log.
DEVICES = [("b", 7, 0), ("c", 10, 237), ("c", 1, 11)]


@pytest.mark.skipif(not IS_ROOT, reason="an ordinary user can make no device")
def test_a_node_that_is_made_is_no_device(root: Root, idmap: str) -> None:
    """Extra: with CAP_SYS_ADMIN and CAP_MKNOD, on a mount that it takes `nodev` from, and on one of its own."""
    subprocess.run("modprobe loop", shell=True, stderr=subprocess.DEVNULL, check=False)
    opened = 0
    for kind, major, minor in DEVICES:
        command = ["/bin/look", "device", kind, str(major), str(minor)]
        opened += careless("--root", root, "--", *command).out == "opened\n"
        fields: dict[str, Any] = {"rootfs": root, "idmap": idmap, "capabilities": POWERS, "seccomp": "none"}
        assert contained(*command, **fields).out == "device: EPERM\n"
        with ringfence.Container(**fields) as c:
            assert contained(*command, container=c).out == "device: EPERM\n"
            c.update(device_rules=[f"{kind} {major}:{minor} r"])
            allowed = contained(*command, container=c).out
            # That it is the rule which stands in the way, where nodes can be made.
            assert (allowed == "opened\n") == (idmap == "host") or allowed == "device: EPERM\n"
    assert opened >= 2
