"""ringfence inside ringfence.

tests/run: vm=root
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import ringfence

INNER = """
import os, ringfence
with ringfence.Container(hostname="inner") as c:
    print(os.uname().nodename, c.run(["uname", "-n"], capture_output=True, text=True, timeout=60).stdout.strip())
    translated = c.namespaces["pid"].pid_in(c.pid)
    print(translated, c.namespaces["user"] == ringfence.Namespace.own("user"))
"""


def test_a_container_in_a_container() -> None:
    # Where this program has its modules from.
    path = [str(Path(place).resolve()) for place in sys.path if place]
    mounts = [str(Path(ringfence.__file__).resolve().parents[1])]
    with ringfence.Container(hostname="outer", nesting=True, share_python=True, mounts=mounts) as outer:
        command = [sys.executable, "-c", INNER]
        env = {"PYTHONPATH": os.pathsep.join(path)}
        done = outer.run(command, stdout=subprocess.PIPE, text=True, timeout=120, check=True, env=env)
    assert done.stdout == "outer inner\n1 False\n"
