"""Control groups of the host.

tests/run: as=root,user,delegated timeout=120
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from launchers import IS_ROOT, Root, careless, contained

import ringfence

sys.path.insert(0, os.path.join(os.environ["RINGFENCE_SUITES"], "tests", "lib"))

import groups

PARENT = os.environ.get("RINGFENCE_CGROUP_PARENT", "").strip("/")


@pytest.fixture
def victims() -> Iterator[list[Path]]:
    """A group in each hierarchy that is beside the container's: whoever can write there, sets limits of others."""
    made = []
    try:
        for point in groups.hierarchies().values():
            group = point / PARENT / f"victim-{os.getpid()}"
            try:
                group.mkdir()
            except OSError:
                continue
            made.append(group)
        yield made
    finally:
        for group in made:
            for child in group.glob("*/"):
                child.rmdir()
            group.rmdir()


def _writable(seen: str) -> list[str]:
    return [line for line in seen.splitlines() if not line.startswith("of ")]


@pytest.mark.skipif(not PARENT and not IS_ROOT, reason="an ordinary user without a delegated group can write to none")
def test_careless_groups_are_writable(root: Root, victims: list[Path]) -> None:
    """Class 11, CVE-2023-25809: the host's groups are mounted as they are; so are release_agent's (CVE-2022-0492) for root."""
    assert victims
    seen = careless("--root", root, "--sys", "--", "/bin/look", "open-for-writing", str(victims[0])).out
    names = {Path(path).name for path in _writable(seen)}
    assert "cgroup.procs" in names, seen
    assert careless("--root", root, "--sys", "--", "/bin/look", "write", f"{victims[0]}/cgroup.procs", "").status in (
        0,
        1,
    )
    agents = [path for point in groups.hierarchies().values() for path in [point / "release_agent"] if path.exists()]
    for agent in agents[:1] if IS_ROOT else []:
        # Opened, not written to: it is this machine's. The kernel wants CAP_SYS_ADMIN of the first user namespace since 5.17.
        assert _writable(careless("--root", root, "--sys", "--", "/bin/look", "open-for-writing", str(agent)).out)


@pytest.mark.parametrize("capabilities", ["default", "all"])
def test_no_group_is_writable(root: Root, idmap: str, victims: list[Path], capabilities: str) -> None:
    """Class 11, CVE-2023-25809, CVE-2022-0492: nothing below /sys/fs/cgroup can be opened for writing, at start and at exec."""
    fields: dict[str, Any] = {"rootfs": root, "idmap": idmap}
    if capabilities == "all" and idmap == "auto":
        fields["capabilities"] = "all"
    with ringfence.Container(**fields) as container:
        for run in ({"container": container}, fields):
            seen = contained("/bin/look", "open-for-writing", "/sys", **run)
            assert seen.status == 0 and _writable(seen.out) == [], seen
            for group in victims:
                assert contained("/bin/look", "list", str(group), **run).status != 0


def test_groups_of_its_own_do_not_reach_above(root: Root, victims: list[Path]) -> None:
    """Class 11 with `nesting`: what is writable is the container's own group, not the limits of the whole, and nothing above it."""
    fields: dict[str, Any] = {"rootfs": root, "nesting": True}
    if victims:
        fields |= {"pids": 20, "memory": "64M"}
    with ringfence.Container(**fields) as container:
        seen = contained("/bin/look", "open-for-writing", "/sys/fs/cgroup", container=container)
        for path in _writable(seen.out):
            name = os.path.basename(path)
            value = "1000000000" if name.startswith("memory") else "1000"
            if name.endswith((".max", "limit_in_bytes", ".low", ".min", "shares", ".weight", "release_agent")):
                contained("/bin/look", "write", path, value, container=container)
            # It is the top that it sees: above it there is nothing to move to.
            contained("/bin/look", "write", f"{os.path.dirname(path)}/../cgroup.procs", "0", container=container)
        if victims:
            usage = container.usage()
            assert (usage.pids_max, usage.memory_max) == (20, 64 << 20)
        for group in victims:
            assert (group / "cgroup.procs").read_text() == ""
