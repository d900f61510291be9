"""A host whose mounts are shared; it starts a container, which mounts, and then mounts itself.

    shared_host.py LAUNCHER IDMAP ROOT       LAUNCHER: careless, start, exec

Run with a mount namespace of its own. It prints `out` where the container's mount is the host's, too, and `in` where the host's is the container's.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from reach_host import MS_REC, _alone, _mount

import ringfence

MS_SHARED = 1 << 20


def _points(pid: int | str) -> list[str]:
    return [line.split(" ")[4] for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]


def main(launcher: str, idmap: str, root: str) -> None:
    _alone()
    source = f"{root}/vol"
    os.mkdir(source)
    # A mount of its own, shared, with one below.
    _mount("none", source, "tmpfs", 0)
    for name in ("inner", "late", "covered"):
        os.mkdir(f"{source}/{name}")
    _mount("none", f"{source}/inner", "tmpfs", 0)
    _mount("none", "/", None, MS_REC | MS_SHARED)
    before = _points("self")
    attack = ["/bin/look", "cover", "/vol/covered", "/vol/inner", "/tmp"]
    if launcher == "careless":
        program = os.path.join(os.environ["RINGFENCE_SUITES"], "attacks", "careless")
        command = [
            program,
            "--shared",
            "--proc",
            "--root",
            root,
            "--mount",
            f"{source}:/vol",
            "--pid-file",
            f"{root}.pid",
        ]
        with subprocess.Popen(
            [*command, "--", *attack], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout
            assert process.stdout.readline() == "waiting\n"
            _look(before, source, int(Path(f"{root}.pid").read_text()))
            process.kill()
        return
    capabilities = {"add": ["sys_admin"]}
    mounts = [f"{source}:/vol:rw"]
    streams = {"stdin": ringfence.PIPE, "stdout": ringfence.PIPE, "text": True}
    if launcher == "start":
        with ringfence.popen(
            attack, rootfs=root, idmap=idmap, capabilities=capabilities, mounts=mounts, **streams
        ) as process:
            assert process.stdout.readline() == "waiting\n"
            _look(before, source, process.pid)
            process.kill()
        return
    with (
        ringfence.Container(rootfs=root, idmap=idmap, capabilities=capabilities, mounts=mounts) as container,
        container.popen(attack, **streams) as process,
    ):
        assert process.stdout.readline() == "waiting\n"
        _look(before, source, process.pid)
        process.kill()


def _look(before: list[str], source: str, pid: int) -> None:
    """What has come of the container's mounts, and then what comes of one of this host's."""
    if _points("self") != before:
        print("out")
    inside = len(_points(pid))
    _mount("none", f"{source}/late", "tmpfs", 0)
    if len(_points(pid)) != inside:
        print("in")


if __name__ == "__main__":
    main(*sys.argv[1:])
