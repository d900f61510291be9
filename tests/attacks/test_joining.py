"""Who joins a container is, until it has become the program that was asked for, a process of the host's that the container sees:
its program, its descriptors, its memory.

tests/run: as=root,delegated timeout=300
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from launchers import IDMAPS, PROGRAMS, ROUNDS, Root, careless_container, contained, until_won, within

import ringfence
from ringfence import _ringfence

MARK = "overwritten"
WINDOW = 20_000  # microseconds: as long as a slow host takes


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _runtime(directory: Path) -> Path:
    """A launcher on the host's disk, which may be written over."""
    copy = directory / "runtime"
    shutil.copy(PROGRAMS / "careless", copy)
    copy.chmod(0o755)
    return copy


def _run(command: list[str]) -> None:
    subprocess.run(command, capture_output=True, timeout=30, check=False)


def _attacked(
    root: Root, argv: list[str], idmap: str, execs: Callable[[ringfence.Container], None], **fields: Any
) -> list[str]:
    """What an attacker inside has printed when `execs` has run in its container."""
    with contextlib.ExitStack() as stack:
        container = stack.enter_context(ringfence.Container(rootfs=root, idmap=idmap, **fields))
        attacker = stack.enter_context(container.popen(argv, stdout=ringfence.PIPE, text=True))
        assert attacker.stdout
        assert attacker.stdout.readline() == "ready\n"
        execs(container)
        attacker.kill()
        return attacker.stdout.read().splitlines()


@pytest.mark.parametrize("program", ["/bin/look", "/proc/self/exe"])
def test_the_careless_launcher_is_written_over(root: Root, tmp_path: Path, program: str) -> None:
    """Class 1, CVE-2019-5736: by the program of the task that joins, before its exec, or which it executes once more."""
    runtime = _runtime(tmp_path)
    with careless_container(root, "--proc", program=["/bin/overwrite", MARK]) as (pid, _):

        def attack() -> bool:
            join = [str(runtime), "--slow", str(WINDOW), "--join", str(pid), "--", program, "count"]
            _run(join)
            return within(0.2, lambda: runtime.read_bytes().endswith(MARK.encode()))

        until_won(attack)


def test_the_careless_launcher_loses_its_mode(root: Root, tmp_path: Path) -> None:
    """Class 1, a variant: who may not write may still take everybody the right to execute it."""
    runtime = _runtime(tmp_path)
    with careless_container(root, "--proc", program=["/bin/overwrite", "--mode"]) as (pid, _):

        def attack() -> bool:
            _run([str(runtime), "--slow", str(WINDOW), "--join", str(pid), "--", "/bin/look", "count"])
            return runtime.stat().st_mode & 0o777 == 0

        until_won(attack)


@pytest.mark.parametrize("how", [MARK, "--mode"])
def test_no_program_is_written_over(root: Root, idmap: str, how: str) -> None:
    """Class 1, CVE-2019-5736: execs of a program, of what `/proc/self/exe` is then, and of a script with that as interpreter."""
    (root / "link").symlink_to("/proc/self/exe")
    (root / "script").write_text("#!/proc/self/exe\n")
    (root / "script").chmod(0o755)
    hosts = [Path(sys.executable).resolve(), Path(_ringfence.__file__)]
    before = [(_digest(path), path.stat().st_mode) for path in hosts]

    def execs(container: ringfence.Container) -> None:
        for _ in range(ROUNDS):
            assert contained("/bin/look", "count", container=container).out == "0 0\n"
            for program in ("/link", "/script"):
                # What it comes to is its own affair, but it comes to something.
                contained(program, "count", container=container)

    said = _attacked(root, ["/bin/overwrite", how], idmap, execs)
    assert not [line for line in said if not line.startswith("opened ")], said
    # By a link to itself the task executes the keeper's program: that is in memory, and sealed.
    assert not [line for line in said if not line.startswith("opened /memfd:")], said
    assert [(_digest(path), path.stat().st_mode) for path in hosts] == before
    # The keeper's program is as it was, for those that run and for new ones.
    ringfence.end_keepers()
    assert contained("/bin/look", "count", rootfs=root).out == "0 0\n"


def test_the_careless_launcher_is_looked_into(root: Root, outside: Path) -> None:
    """Class 3, CVE-2016-9962: by descriptors and memory of the task that joins."""
    with careless_container(root, "--proc", program=["/bin/peek", str(outside / "file")]) as (pid, process):
        for _ in range(20):
            _run([str(PROGRAMS / "careless"), "--slow", str(WINDOW), "--join", str(pid), "--", "/bin/look", "count"])
        process.terminate()
        said = process.stdout.read().splitlines()
    ways = {line.split(" ")[0] for line in said}
    assert {"reached", "fd", "read", "traced"} <= ways, said


# Not `host` with CAP_SYS_PTRACE: without a user namespace, who may trace anything may trace who joins, and is trusted with the host.
LOOKING = [("auto", "default"), ("auto", "sys_ptrace"), ("host", "default")]


@pytest.mark.parametrize(("idmap", "capabilities"), [case for case in LOOKING if case[0] in IDMAPS])
def test_nobody_is_looked_into(root: Root, outside: Path, idmap: str, capabilities: str) -> None:
    """Class 3, CVE-2016-9962: /proc/PID/{root,cwd,fd,mem}, pidfd_getfd, ptrace, while tasks join, and while they fail to."""
    added = {"add": [] if capabilities == "default" else [capabilities]}

    def execs(container: ringfence.Container) -> None:
        for _ in range(ROUNDS * 2):
            assert contained("/bin/look", "count", container=container).out == "0 0\n"
            # What it holds while it dies, half way, and at the end of it.
            for fields in ({"user": 4_000_000_000}, {"cwd": "/nowhere"}):
                contained("/bin/look", "count", container=container, **fields)

    said = _attacked(root, ["/bin/peek", str(outside / "file")], idmap, execs, capabilities=added)
    assert "looked 8" in said, said
    assert not [line for line in said if not line.startswith("looked ")], said


@pytest.mark.parametrize(("idmap", "capabilities"), [case for case in LOOKING if case[0] in IDMAPS])
@pytest.mark.parametrize("attack", ["peek", "overwrite"])
def test_nobody_is_looked_into_while_a_container_starts(
    root: Root, outside: Path, idmap: str, capabilities: str, attack: str
) -> None:
    """Classes 1 and 3 at start: in a pod that shares process ids, from a container that is there already."""
    added = {"add": [] if capabilities == "default" else [capabilities]}
    argv = ["/bin/peek", str(outside / "file")] if attack == "peek" else ["/bin/overwrite", MARK]
    fields: dict[str, Any] = {"rootfs": root, "mounts": [f"{outside}:/tmp"], "stdout": "null", "stderr": "null"}
    with contextlib.ExitStack() as stack:
        pod = stack.enter_context(ringfence.Pod(share="net,ipc,uts,pid", idmap=idmap))
        first = stack.enter_context(pod.container(rootfs=root, capabilities=added))
        attacker = stack.enter_context(first.popen(argv, stdout=ringfence.PIPE, text=True))
        assert attacker.stdout
        assert attacker.stdout.readline() == "ready\n"
        for _ in range(ROUNDS):
            with pod.container(["/bin/look", "count"], **fields) as second:
                assert second.wait(30) == 0
            # What it holds while it dies, half way, and at the end of it.
            for wrong in ({"mounts": [f"{outside}:/tmp", f"{outside}:/bin/look"]}, {"cwd": "/nowhere"}):
                with pytest.raises(ringfence.Error):
                    pod.container(["/bin/look", "count"], **fields | wrong)
        attacker.kill()
        said = attacker.stdout.read().splitlines()
    assert not [line for line in said if not line.startswith("looked ")], said
