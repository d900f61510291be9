"""What a container is given, read-only or writable: what it makes of it for others.

tests/run: timeout=120
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from launchers import IS_ROOT, Root, careless, contained, host

import ringfence

UNTOUCHED = "untouched\n"
OTHER = 65533


def test_a_careless_descriptor_is_opened_again(root: Root, outside: Path) -> None:
    """Extra: a file that was opened for reading only is opened for writing, by /proc/self/fd, and one of a mount that is writable."""
    with open(outside / "file") as file:
        seen = careless("--root", root, "--proc", "--", "/bin/look", "reopen", "fd:0", "pwned", stdin=file)
    assert (seen.out, (outside / "file").read_text()) == ("written\n", "pwned")
    (outside / "file").write_text(UNTOUCHED)
    (root / "vol").mkdir()
    words = ["--root", str(root), "--proc", "--mount", f"{outside}:/vol", "--"]
    assert careless(*words, "/bin/look", "reopen", "/vol/file", "pwned").out == "written\n"


@pytest.mark.parametrize("when", ["start", "exec"])
@pytest.mark.parametrize("capabilities", ["default", "sys_admin"])
@pytest.mark.parametrize("how", ["path", "fd"])
def test_a_read_only_mount_is_not_opened_again(
    root: Root, outside: Path, idmap: str, when: str, capabilities: str, how: str
) -> None:
    """Extra: a file of a read-only mount, which root of the container owns; with CAP_SYS_ADMIN, as said, root's mounts can be made writable."""
    (outside / "file").chmod(0o666)
    fields: dict[str, Any] = {"rootfs": root, "idmap": idmap, "capabilities": {"add": []}}
    if capabilities != "default":
        fields["capabilities"]["add"] = [capabilities]
    source = os.open(outside, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fields["mounts"] = [
            {"source": str(outside), "target": "/vol"} if how == "path" else {"fd": source, "target": "/vol"}
        ]
        if when == "start":
            seen = contained("/bin/look", "reopen", "/vol/file", "pwned", **fields)
        else:
            with ringfence.Container(**fields) as container:
                seen = contained("/bin/look", "reopen", "/vol/file", "pwned", container=container)
    finally:
        os.close(source)
    if capabilities == "sys_admin":
        assert seen.out == "written after a remount\n", seen
        return
    assert seen.out == "reopen: EROFS\n", seen
    assert (outside / "file").read_text() == UNTOUCHED


def test_a_read_only_mount_stays_so_in_a_nested_container(root: Root, outside: Path) -> None:
    """Extra: `nesting` has mounts to make, in a namespace below, where those of the container are locked."""
    (outside / "file").chmod(0o666)
    argv = ["unshare", "--user", "--map-root-user", "--mount", "/attack/look", "reopen", "/vol/file", "pwned"]
    fields: dict[str, Any] = {"nesting": True, "mounts": [f"{root / 'bin'}:/attack", f"{outside}:/vol"]}
    with ringfence.Container(**fields) as container:
        for run in (fields, {"container": container}):
            seen = contained(*argv, **run)
            assert seen.out == "reopen: EROFS\n", seen
            assert (outside / "file").read_text() == UNTOUCHED


@pytest.mark.parametrize("when", ["start", "exec"])
def test_a_stream_is_opened_again_by_its_owner_alone(root: Root, outside: Path, idmap: str, when: str) -> None:
    """Extra: a file of the host's as standard input and in `pass_fds`: by who may open it, as said; text and pipes by nobody."""
    with ringfence.Container(rootfs=root, idmap=idmap) as container:
        run: dict[str, Any] = {"container": container} if when == "exec" else {"rootfs": root, "idmap": idmap}
        for number in (0, 7):
            with open(outside / "file") as file:
                given: dict[str, Any] = {"stdin": file} if number == 0 else {"pass_fds": {file.fileno(): 7}}
                seen = contained("/bin/look", "reopen", f"fd:{number}", "pwned", **given, **run)
            is_owner = idmap == "host" or not IS_ROOT
            assert seen.out == ("written\n" if is_owner else "reopen: EACCES\n"), seen
            assert (outside / "file").read_text() == ("pwned" if is_owner else UNTOUCHED)
            (outside / "file").write_text(UNTOUCHED)
        # As the page says: given as text, or by a pipe, there is no file.
        seen = contained("/bin/look", "reopen", "fd:0", "pwned", input=UNTOUCHED, **run)
        assert (outside / "file").read_text() == UNTOUCHED and seen.started, seen


def _ids_of(program: Path) -> str:
    """What another user of the host is when it runs the program: nothing, where it cannot."""

    def become() -> None:
        os.setgroups([])
        os.setresgid(OTHER, OTHER, OTHER)
        os.setresuid(OTHER, OTHER, OTHER)

    try:
        done = subprocess.run([program, "ids"], capture_output=True, text=True, check=False, preexec_fn=become)
    except PermissionError:
        return ""
    return done.stdout


def _gained(directory: Path) -> list[str]:
    """Who else the other user becomes by what was left there, and which capabilities it gets."""
    found = []
    for name in ("set-user-id", "capable"):
        lines = dict(line.split(":\t") for line in _ids_of(directory / name).splitlines())
        if lines and lines["Uid"].split()[1] != str(OTHER):
            found.append(f"uid {lines['Uid'].split()[1]}")
        if lines and int(lines["CapEff"], 16):
            found.append(f"capabilities {name}")
    return found


@pytest.mark.skipif(not IS_ROOT, reason="to be another user of the host takes root")
def test_a_careless_volume_raises_others(root: Root, outside: Path) -> None:
    """Extra: set-user-id files and such with capabilities, in a directory that others reach."""
    (root / "vol").mkdir()
    seen = careless("--root", root, "--proc", "--mount", f"{outside}:/vol", "--", "/bin/look", "leave", "/vol")
    assert len(seen.out.splitlines()) == 2, seen
    assert _gained(outside) == ["uid 0", "capabilities set-user-id", "capabilities capable"]


@pytest.mark.skipif(not IS_ROOT, reason="to be another user of the host takes root")
@pytest.mark.parametrize("when", ["start", "exec"])
def test_what_is_left_raises_nobody(root: Root, outside: Path, idmap: str, when: str) -> None:
    """Extra: where the container's root is not the host's; in a volume; and in a directory of its own that others do not reach."""

    def leave(mounts: list[Any], check: Callable[[], list[str]]) -> list[str]:
        fields: dict[str, Any] = {"rootfs": root, "idmap": idmap, "mounts": mounts}
        if when == "start":
            contained("/bin/look", "leave", "/vol", **fields)
            return check()
        with ringfence.Container(**fields) as container:
            seen = contained("/bin/look", "leave", "/vol", container=container)
            assert seen.started, seen
            # Inside it is nosuid, whatever else is asked for.
            inside = contained("/vol/set-user-id", "ids", container=container, user="1000:1000", no_new_privs=False)
            if inside.started:
                lines = dict(line.split(":\t") for line in inside.out.splitlines())
                assert lines["Uid"].split()[1] == "1000" and int(lines["CapEff"], 16) == 0, inside
            return check()

    # Of root's directories, and not of the volumes', others get what root of the container leaves: the page says so.
    gained = leave([f"{outside}:/vol:rw"], lambda: _gained(outside))
    assert gained[:1] == ["uid 0"], gained
    if idmap == "auto":
        # Beside it, because /tmp may be nosuid.
        shared = outside.with_name("shared")
        shared.mkdir()
        shared.chmod(0o777)
        gained = leave(
            [{"source": str(shared), "target": "/vol", "rw": True, "idmap": "host"}], lambda: _gained(shared)
        )
        # The container's own root, which is nobody of the host's.
        assert gained and "uid 0" not in gained and not [one for one in gained if "capab" in one], gained
    places = Path(os.environ["RINGFENCE_VOLUMES"])
    name = f"attacks-{os.getpid()}"
    try:
        assert leave([f"{name}:/vol"], lambda: _gained(places / name)) == []
        assert (places / name / "set-user-id").stat().st_mode & 0o4000
    finally:
        ringfence.remove_volume(name)


def test_a_careless_mount_propagates(root: Root) -> None:
    """Extra: mounts of a host whose mounts are shared, as systemd makes them: its own come in, the container's go out."""
    assert host("shared_host.py", "careless", "host", root.path) == ["out", "in"]


@pytest.mark.parametrize("how", ["start", "exec"])
def test_no_mount_propagates(root: Root, idmap: str, how: str) -> None:
    """Extra: neither from a source that is shared, nor from a root file system, nor from below either."""
    assert host("shared_host.py", how, idmap, root.path) == []
