"""Files that a launcher uses itself, and that the container, its image or a volume may have turned into others.

tests/run: timeout=600
"""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
from launchers import IS_ROOT, ROUNDS, Root, careless, contained, swapping, tree, within

import ringfence

NULL = "1:3"


def _number(line: str) -> str:
    return line.split(" ")[3]


@pytest.mark.parametrize("target", ["{outside}/file", "../proc/sys/kernel/core_pattern"])
def test_a_careless_mask_is_the_image_s(root: Root, outside: Path, target: str) -> None:
    """Class 5, CVE-2025-31133: /dev/null of the image leads to a file, which then is at the masked path, writable."""
    (root / "dev/null").symlink_to(target.format(outside=outside))
    words = ["--root", root, "--proc", "--mask", "/proc/interrupts", "--"]
    if target.startswith("{"):
        careless(*words, "/bin/look", "write", "/proc/interrupts", "pwned")
        assert (outside / "file").read_text().startswith("pwned")
    else:
        # Seen, not written to: it is this machine's.
        masked, pattern = careless(
            *words, "/bin/look", "stat", "/proc/interrupts", "/proc/sys/kernel/core_pattern"
        ).out.splitlines()
        assert masked == pattern


@pytest.mark.parametrize("target", ["{outside}/file", "../proc/sys/kernel/core_pattern"])
def test_masks_are_the_host_s(root: Root, outside: Path, idmap: str, target: str) -> None:
    """Class 5, CVE-2025-31133: masked files are the host's /dev/null, masked directories are empty, whatever the image has."""
    (root / "dev/null").symlink_to(target.format(outside=outside))
    (root / "etc/masked").write_text("secret")
    (root / "etc/hidden").mkdir()
    (root / "etc/hidden/file").write_text("secret")
    before = tree(outside)
    files = [
        path for path in ("/proc/keys", "/proc/timer_list", "/proc/interrupts", "/proc/kcore") if os.path.exists(path)
    ]
    fields: dict[str, Any] = {"masked_paths": ["/etc/masked", "/etc/hidden", *files]}
    with ringfence.Container(rootfs=root, idmap=idmap, **fields) as container:
        for run in ({"container": container}, {"rootfs": root, "idmap": idmap, **fields}):
            seen = contained("/bin/look", "stat", "/etc/masked", *files, **run)
            assert seen.status == 0 and {_number(line) for line in seen.out.splitlines()} == {NULL}, seen
            assert contained("/bin/look", "write", "/etc/masked", "pwned", **run).out == "written\n"
            assert contained("/bin/look", "list", "/etc/hidden", **run).out == ""
            seen = contained("/bin/look", "write", "/proc/sys/kernel/core_pattern", "core", **run)
            assert "EROFS" in seen.out or "EACCES" in seen.out, seen
    assert tree(outside) == before and (root / "etc/masked").read_text() == "secret"


def _volume_as_dev(tmp_path: Path, outside: Path) -> Path:
    """A /dev that is shared with an attacker, whose null is now a device, now a symlink."""
    dev = tmp_path / "dev"
    dev.mkdir()
    if IS_ROOT:
        os.mknod(dev / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    else:
        (dev / "null").write_text("")
    (dev / "other").symlink_to(outside / "file")
    return dev


def test_standard_input_is_null(root: Root, outside: Path, tmp_path: Path, idmap: str) -> None:
    """Classes 5 and 9 as a race: a volume at /dev whose null is exchanged while processes get it as standard input, at start and at exec."""
    dev = _volume_as_dev(tmp_path, outside)
    (root.path / str(outside)[1:]).mkdir(parents=True)
    (root.path / str(outside)[1:] / "file").write_text("inside")
    before = tree(outside)
    fields: dict[str, Any] = {"rootfs": root, "idmap": idmap, "mounts": [f"{dev}:/dev:rw"]}
    with ringfence.Container(**fields) as container, swapping(dev / "null", dev / "other"):
        for _ in range(ROUNDS):
            for run in (fields, {"container": container}):
                seen = contained("/bin/look", "stat", "fd:0", stdin=ringfence.DEVNULL, **run)
                # Devices of a volume are none, so that none of the two can ever be taken for the one that is wanted.
                assert not seen.started or _number(seen.out) == NULL, seen
                assert "stdin" in seen.error, seen
    assert tree(outside) == before


def test_a_careless_console_follows_the_image(root: Root, outside: Path) -> None:
    """Class 6, CVE-2025-52565: the pty that was just made is a symlink by that name in the container."""
    (root / "dev/pts").mkdir()
    for number in range(64):
        (root / f"dev/pts/{number}").symlink_to(outside / "file")
    before = tree(outside)
    careless("--root", root, "--console", "--", "/bin/look", "count")
    assert tree(outside) != before


@pytest.mark.parametrize("when", ["start", "exec"])
def test_terminals_are_found_by_descriptor(root: Root, outside: Path, tmp_path: Path, idmap: str, when: str) -> None:
    """Class 6, CVE-2025-52565: a volume at /dev/pts with everything that could be asked for by name, ptmx exchanged all the time."""
    pts = tmp_path / "pts"
    pts.mkdir()
    (pts / "ptmx").write_text("")
    (pts / "other").symlink_to("/dev/full")
    for number in range(64):
        (pts / f"{number}").symlink_to(outside / "file")
    before = tree(outside)
    fields: dict[str, Any] = {"rootfs": root, "idmap": idmap, "mounts": [f"{pts}:/dev/pts:rw"]}
    with ringfence.Container(**fields) as container, swapping(pts / "ptmx", pts / "other"):
        for _ in range(ROUNDS):
            with pytest.raises(ringfence.Error) as caught:
                if when == "exec":
                    container.popen(["/bin/look", "count"], terminal=True)
                else:
                    ringfence.popen(["/bin/look", "count"], terminal=True, **fields)
            assert caught.value.field == "terminal", caught.value
    assert tree(outside) == before


def test_a_careless_write_is_redirected(root: Root, outside: Path) -> None:
    """Class 7, CVE-2019-16884, CVE-2025-52881: a file of /proc, as the image has it, leads to a file of the host's."""
    (root / "proc/sys").mkdir()
    (root / "proc/sys/ttl").symlink_to(outside / "file")
    careless("--root", root, "--write", "/proc/sys/ttl=77", "--", "/bin/look", "count")
    assert (outside / "file").read_text().startswith("77")


def _ttl(container: ringfence.Container) -> int:
    """Of a socket in the container's network: no file system stands between."""
    with container.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        return made.getsockopt(socket.IPPROTO_IP, socket.IP_TTL)


@pytest.mark.parametrize("place", ["/proc/sys/net/ipv4", "/proc/self", "/proc/thread-self", "/proc", "/proc/self/attr"])
def test_writes_to_proc_land(root: Root, outside: Path, tmp_path: Path, idmap: str, place: str) -> None:
    """Class 7, CVE-2019-16884, CVE-2025-52881: a volume over files of /proc, by name and through a symlink of the image.

    What ringfence writes to /proc (parameters, scores, maps) it writes to an instance of its own: it lands, or is an error.
    """
    trap = tmp_path / "trap"
    trap.mkdir()
    for name in ("ip_default_ttl", "oom_score_adj", "exec", "uid_map", "gid_map", "setgroups"):
        (trap / name).symlink_to(outside / "file")
    (root / "trap").symlink_to(place)
    before = tree(outside)
    fields: dict[str, Any] = {"rootfs": root, "idmap": idmap, "sysctls": {"net.ipv4.ip_default_ttl": "77"}}
    seen = contained("/bin/look", "count", mounts=[f"{trap}:{place}:rw"], **fields)
    assert not seen.started and "redirect" in seen.error, seen
    try:
        container = ringfence.Container(mounts=[f"{trap}:/trap:rw"], **fields)
    except ringfence.Error as error:
        assert error.field and error.field.startswith("mounts"), error
    else:
        with container:
            assert _ttl(container) == 77
            container.update(sysctls={"net.ipv4.ip_default_ttl": "78"})
            assert _ttl(container) == 78
            with container.popen(["/bin/look", "wait"], stdin=ringfence.PIPE, oom_score_adj=600) as process:
                assert Path(f"/proc/{process.pid}/oom_score_adj").read_text() == "600\n"
    assert tree(outside) == before


@pytest.mark.parametrize("place", ["/proc", "/proc/sys", "/proc/self/task"])
def test_writes_to_a_covered_proc_land(root: Root, idmap: str, place: str) -> None:
    """Class 7 at a running container, whose root has covered its /proc."""
    fields: dict[str, Any] = {"rootfs": root, "idmap": idmap, "sysctls": {"net.ipv4.ip_default_ttl": "77"}}
    with (
        ringfence.Container(capabilities={"add": ["sys_admin"]}, **fields) as container,
        container.popen(
            ["/bin/look", "cover", place], stdin=ringfence.PIPE, stdout=ringfence.PIPE, text=True
        ) as covering,
    ):
        assert covering.stdout
        assert covering.stdout.readline() == "waiting\n"
        container.update(sysctls={"net.ipv4.ip_default_ttl": "78"})
        assert _ttl(container) == 78
        with container.popen(["/bin/look", "wait"], stdin=ringfence.PIPE, oom_score_adj=600) as process:
            assert within(10, lambda: Path(f"/proc/{process.pid}/oom_score_adj").read_text() == "600\n")
        with container.popen(["/bin/look", "count"], terminal=True) as process:
            assert process.wait(10) == 0


def test_a_careless_configuration_is_written_outside(root: Root, outside: Path) -> None:
    """Class 14, CVE-2025-24965: a file that the launcher writes into the root is a symlink of the image."""
    (root / "etc/config").symlink_to(outside / "file")
    careless("--root", root, "--write", "/etc/config=pwned", "--", "/bin/look", "count")
    assert (outside / "file").read_text().startswith("pwned")


@pytest.mark.parametrize(
    "target", ["{outside}/file", "../../outside/file", "/proc/self/cwd/../outside/file", "/proc/1/root/outside/file"]
)
def test_files_are_written_inside(root: Root, outside: Path, idmap: str, target: str) -> None:
    """Class 14, CVE-2025-24965: `files`, /etc/hosts and /etc/resolv.conf, where the image has symlinks; the image stays as it is."""
    for name in ("hosts", "resolv.conf", "config", "passwd", "group"):
        (root / "etc" / name).symlink_to(target.format(outside=outside))
    before, image = tree(outside), tree(root.path)
    for fields in (
        {"files": {"/etc/config": "pwned"}},
        {"hosts": {"db": "10.0.0.1"}},
        {"dns": ["10.0.0.1"]},
        {"hostname": "box"},
    ):
        contained("/bin/look", "cat", "/etc/config", rootfs=root, idmap=idmap, **fields)
        assert tree(outside) == before, fields
        assert set(tree(root.path)) == set(image)
    with ringfence.Container(rootfs=root, idmap=idmap) as container:
        for path in ("/etc/config", "/etc/hosts"):
            try:
                container.write_bytes(path, b"pwned")
            except ringfence.Error:
                pass
            assert tree(outside) == before
        # Names are looked up inside, and there is nobody.
        assert not contained("/bin/look", "ids", container=container, user="root-of-the-host").started
