"""Rules about devices, and devices that come and go while a container runs.

tests/run: as=root,user vm=root
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ringfence
from ringfence import aio

IS_ROOT = os.geteuid() == 0


def _opens(c: ringfence.Container, path: str) -> str:
    script = "test -c $1 || exit 0; (: <$1) 2>/dev/null && echo -n r; (: >>$1) 2>/dev/null && echo -n w; :"
    return c.run(["sh", "-c", script, "sh", path], capture_output=True, text=True, check=True).stdout


def test_devices_come_and_go() -> None:
    with ringfence.Container() as c:
        c.add_device("/dev/full:/dev/sub/f")
        c.add_device({"path": Path("/dev/zero"), "target": b"/dev/z"})
        assert (_opens(c, "/dev/sub/f"), _opens(c, "/dev/z")) == ("rw", "rw")
        assert [device["target"] for device in c.spec["devices"]] == ["/dev/sub/f", "/dev/z"]
        c.update(devices=["/dev/zero:/dev/z", "/dev/null:/dev/n"])
        assert (_opens(c, "/dev/sub/f"), _opens(c, "/dev/z"), _opens(c, "/dev/n")) == ("", "rw", "rw")
        c.remove_device("/dev/z")
        c.update(devices=None)
        assert "devices" not in c.spec and c.run(["ls", "/dev/n"], stderr=ringfence.DEVNULL).returncode != 0
        with pytest.raises(ringfence.Error) as missing:
            c.remove_device("/dev/n")
        assert (missing.value.kind, missing.value.field) == ("not_found", "target")
        c.run(["ln", "-s", "/tmp", "/dev/link"], check=True)
        with pytest.raises(ringfence.Error) as link:
            c.add_device("/dev/full:/dev/link/f")
        assert (link.value.field, link.value.errno) == ("devices[0]", 40)
        assert c.run(["ls", "-A", "/tmp"], capture_output=True, check=True).stdout == b""


def test_an_access_is_held() -> None:
    if not IS_ROOT:
        with pytest.raises(ringfence.Error) as denied:
            ringfence.Container(device_rules=["c 1:7 r"])
        assert (denied.value.kind, denied.value.field) == ("permission_denied", "device_rules")
        return
    rule = {"allow": False, "type": "c", "major": 1, "minor": 7, "access": "w"}
    with ringfence.Container(devices=["/dev/zero:/dev/z:w"], device_rules=[rule]) as c:
        assert (_opens(c, "/dev/z"), _opens(c, "/dev/full")) == ("w", "r")
        assert c.info["device_rules"] in ("bpf", "devices")
        c.update(device_rules=["deny c 1:7 r"])
        assert (_opens(c, "/dev/z"), _opens(c, "/dev/full")) == ("w", "w")
        c.update(device_rules=None)
        assert _opens(c, "/dev/full") == "rw"
        with pytest.raises(ringfence.SpecError) as wrong:
            c.update(device_rules=["c 1:7"], devices=["/dev/full:/dev/f:rwx"])
        assert wrong.value.field == "devices[0]"
    with ringfence.Pod(device_rules=["deny c 1:5 w"]) as pod:
        one = pod.container(device_rules=["c 1:5 rw"])
        assert _opens(one, "/dev/zero") == "r"
        with pytest.raises(ringfence.SpecError) as group:
            one.group("g", device_rules=["c 1:5 r"])
        assert group.value.field == "device_rules"


OTHER = """
import ringfence
c = ringfence.Container.by_name({name!r})
c.add_device("/dev/full:/dev/f" + {access!r})
c.remove_device("/dev/z")
"""


def test_other_programs_change_detached_ones() -> None:
    name = f"rf-py-nodes-{os.getpid()}"
    c = ringfence.Container(name=name, detach=True, devices=["/dev/zero:/dev/z"])
    try:
        path = os.pathsep.join(place for place in sys.path if place)
        script = OTHER.format(name=name, access=":w" if IS_ROOT else "")
        subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": path}, check=True, timeout=60)
        assert (_opens(c, "/dev/f"), _opens(c, "/dev/z")) == ("w" if IS_ROOT else "rw", "")
        c.add_device("/dev/zero:/dev/z")
        assert [device["target"] for device in c.spec["devices"]] == ["/dev/f", "/dev/z"]
        c.remove_device("/dev/f")
    finally:
        c.kill()
        c.close()
        # Its keeper holds the name until it has left.
        until = time.monotonic() + 10
        while name in [entry.name for entry in ringfence.ls()] and time.monotonic() < until:
            ringfence.gc()


def test_without_blocking_the_loop() -> None:
    async def main() -> None:
        async with aio.Container() as c:
            await asyncio.gather(*(c.add_device(f"/dev/zero:/dev/z{i}") for i in range(4)))
            seen = await c.run(["sh", "-c", "ls /dev/z?"], capture_output=True, text=True, check=True)
            assert seen.stdout.split() == ["/dev/z0", "/dev/z1", "/dev/z2", "/dev/z3"]
            await c.remove_device("/dev/z1")
            with pytest.raises(ringfence.Error):
                await c.remove_device("/dev/z1")

    asyncio.run(main())
