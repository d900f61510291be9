"""Programs that are no attackers, and of another C library than this distribution's, go on under the filters.

tests/run: timeout=60
"""

from __future__ import annotations

import pytest
from launchers import PROGRAMS, Root, contained

import ringfence

WORKS = ["threads 1", "timers 1", "files 1", "processes 1", "polled 1"]


@pytest.mark.parametrize("profile", ["default", "strict"])
@pytest.mark.parametrize("when", ["start", "exec"])
@pytest.mark.skipif(not (PROGRAMS / "musl").exists(), reason="no musl-gcc where the tests were built")
def test_a_program_of_musl_goes_on(root: Root, idmap: str, when: str, profile: str) -> None:
    """Threads, timers, files, processes; of sockets those that the profile has. Nobody is killed, nobody waits."""
    (root / "bin/musl").write_bytes((PROGRAMS / "musl").read_bytes())
    (root / "bin/musl").chmod(0o755)
    if when == "start":
        seen = contained("/bin/musl", "/tmp", rootfs=root, idmap=idmap, seccomp=profile)
    else:
        with ringfence.Container(rootfs=root, idmap=idmap) as container:
            seen = contained("/bin/musl", "/tmp", container=container, seccomp=profile)
    internet = "made" if profile == "default" else "Address family not supported by protocol"
    assert (seen.status, seen.out.splitlines()) == (0, [*WORKS, f"internet {internet}"]), seen
