"""Network devices that move into a container and back.

tests/run: as=root,user vm=root
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import ringfence

SCRIPT = """
import os, socket, subprocess
import ringfence

subprocess.run("ip link add left type veth peer name right", shell=True, check=True)
names = lambda: sorted(name for _, name in socket.if_nameindex())
with ringfence.Container() as c:
    c.attach_device("left", "eth0")
    print(names(), c.enter("net", names))
    c.detach_device("eth0")
    c.attach_device("right")
    print(names())
print(names())
"""


def test_a_device_goes_in_and_comes_back() -> None:
    if os.geteuid() != 0:
        pytest.skip("to have devices takes root")
    path = os.pathsep.join(place for place in sys.path if place)
    command = ["unshare", "-n", sys.executable, "-c", SCRIPT]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True, timeout=60
    )
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "['lo', 'right'] ['eth0', 'lo']",
        "['left', 'lo']",
        "['left', 'lo', 'right']",
    ]


def test_what_is_refused() -> None:
    with ringfence.Container() as container:
        with pytest.raises(ringfence.Error) as missing:
            container.attach_device("nothing")
        assert (missing.value.kind, missing.value.field) == ("not_found", "device")
        with pytest.raises(ringfence.Error) as wrong:
            container.attach_device("lo", "a b")
        assert (wrong.value.kind, wrong.value.field) == ("invalid_argument", "inside")
        if os.geteuid() != 0:
            with pytest.raises(ringfence.Error) as denied:
                container.attach_device("lo", "lo1")
            assert (denied.value.kind, denied.value.field) == ("permission_denied", "device")
