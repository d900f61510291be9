"""Who the payload is and what it may: users, capabilities, and long values that could push others aside.

tests/run: timeout=300
"""

from __future__ import annotations

import os
import random
import re
import struct
from pathlib import Path
from typing import Any

import pytest
from launchers import IN_GUEST, IS_ROOT, ROUNDS, Root, careless, contained

import ringfence

NET_RAW = 1 << 13


def _ids(seen: str) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in seen.splitlines() if ":\t" in line)


def _with_file_capability(root: Root) -> None:
    """A program whose file adds CAP_NET_RAW for whoever can inherit it."""
    capped = root / "bin/capped"
    capped.write_bytes((root / "bin/look").read_bytes())
    capped.chmod(0o755)
    # VFS_CAP_REVISION_2, no effective bit; permitted and inheritable, 32 bits twice.
    os.setxattr(capped, "security.capability", struct.pack("<IIIII", 0x02000000, 0, NET_RAW, 0, 0))


def test_careless_capabilities_are_inherited(root: Root) -> None:
    """Class 12, CVE-2022-29162, CVE-2022-27650: inheritable capabilities come back by a file, after they were given up."""
    words = ["--root", root, "--proc", "--inheritable", "--"]
    assert int(_ids(careless(*words, "/bin/look", "ids").out)["CapInh"], 16) & NET_RAW
    if IS_ROOT:
        _with_file_capability(root)
        seen = _ids(careless(*words, "/bin/look", "run-as", "1000", "/bin/capped", "ids").out)
        assert seen["Uid"].startswith("1000") and int(seen["CapPrm"], 16) == NET_RAW


@pytest.mark.parametrize("when", ["start", "exec"])
@pytest.mark.parametrize(
    "capabilities", ["default", "none", {"add": ["net_admin"]}, {"ambient": ["net_raw"]}, {"ambient": []}]
)
def test_only_what_was_asked_for_is_inherited(root: Root, idmap: str, when: str, capabilities: Any) -> None:
    """Class 12, CVE-2022-29162, CVE-2022-27650: the inheritable set is the ambient one, which is what was asked for."""
    fields: dict[str, Any] = {"rootfs": root, "idmap": idmap, "no_new_privs": False}
    ambient = NET_RAW if isinstance(capabilities, dict) and capabilities.get("ambient") else 0
    with ringfence.Container(**fields, capabilities=capabilities if when == "start" else "default") as container:
        if when == "exec":
            run: dict[str, Any] = {"container": container, "capabilities": capabilities, "no_new_privs": False}
        else:
            run = {**fields, "capabilities": capabilities}
        seen = contained("/bin/look", "ids", **run)
        sets = _ids(seen.out)
        assert (int(sets["CapInh"], 16), int(sets["CapAmb"], 16)) == (ambient, ambient), seen
        if IS_ROOT and not ambient:
            _with_file_capability(root)
            seen = contained("/bin/look", "run-as", "1000", "/bin/capped", "ids", **run)
            sets = _ids(seen.out)
            assert (sets and int(sets["CapPrm"], 16) == 0) or capabilities == "none", seen
            # As this user from the beginning.
            sets = _ids(contained("/bin/capped", "ids", user="1000:1000", **run).out)
            assert sets and int(sets["CapPrm"], 16) == int(sets["CapInh"], 16) == 0, sets


USERS = "bob +1 1: 0x1 -1 4294967295 4294967296 1e3 01 00 : 0: :0 1:x 0,1 root:root:root 1:1:1 1.0 \u0661 \uff11 0b1 #0 $0 ~".split()
USERS += ["", " ", "1 ", " 1", "1\n", "0\n", "0\t", "1\0", "0\0bob", "\0", "root\0", "a" * 300, "9" * 300]


def test_a_careless_user_is_root(root: Root) -> None:
    """Class 13, CVE-2026-30892: what is no number is 0 to atoi(3)."""
    seen = careless("--root", root, "--proc", "--user", "bob", "--", "/bin/look", "ids")
    assert _ids(seen.out)["Uid"].split()[0] == "0"


def test_users_are_who_was_meant(root: Root, idmap: str) -> None:
    """Class 13, CVE-2026-30892: a user is a number as it is written, or a name of the image's passwd; else nobody."""
    (root / "etc/passwd").write_text(
        "root:x:0:0::/:\n1:x:0:0::/:\nbob:x:0x0:0::/:\ncarl:x::0::/:\ndan:x:4294967296:0::/:\n+1:x:0:0::/:\n::0:0::/:\neve:x:-1:0::/:\n"
    )
    with ringfence.Container(rootfs=root, idmap=idmap) as container:
        for user in [*USERS, "carl", "dan", "eve"]:
            for run in ({"rootfs": root, "idmap": idmap}, {"container": container}):
                try:
                    seen = contained("/bin/look", "ids", user=user, **run)
                except (ValueError, TypeError):
                    continue
                assert not seen.started, (user, seen)
        assert _ids(contained("/bin/look", "ids", user="root", container=container).out)["Uid"].split()[0] == "0"
        # Nobody but 1 is 1, and not the user whom the image calls that.
        seen = contained("/bin/look", "ids", user="1", container=container)
        assert not seen.started or _ids(seen.out)["Uid"].split() == ["1"] * 4, seen


def test_texts_are_users_or_errors(idmap: str) -> None:
    """Class 13 as a property: of texts that are nearly numbers, only numbers are taken."""
    chance = random.Random(7)
    taken = 0
    for _ in range(max(ROUNDS * 3, 100)):
        text = "".join(chance.choices("0012345679:+- x\t\n_a.", k=chance.randrange(1, 12)))
        try:
            ringfence.plan(["true"], user=text, idmap=idmap)
        except (ringfence.Error, ValueError):
            continue
        taken += 1
        assert re.fullmatch(r"(0|[1-9]\d*)(:(0|[1-9]\d*))?", text), text
    assert taken


def test_a_careless_group_is_elsewhere(root: Root, outside: Path) -> None:
    """Class 13, as ids and cgroup paths of crun 1.28 and 1.29: a name with `..`, behind a directory, is one beside it."""
    top = outside.with_name("groups")
    top.mkdir()
    for name, group in (("box", top / "box"), ("../outside/box", outside / "box")):
        careless("--root", root, "--group", f"{top}:{name}", "--", "/bin/look", "count")
        assert (group / "cgroup.procs").read_text() == "0"


BAD_PLACES = ["..", "../x", "/..", "/../x", "/x/../../y", "/x/..", "x", "", "/x\0y"]


def test_places_do_not_lead_up(root: Root, idmap: str) -> None:
    """Class 13, as ids and cgroup paths of crun 1.28 and 1.29: no name and no path with `..`."""
    for place in BAD_PLACES:
        with pytest.raises((ringfence.Error, ValueError)) as caught:
            ringfence.run(["/bin/look", "count"], rootfs=root, idmap=idmap, cgroup_parent=place)
        assert getattr(caught.value, "field", "cgroup_parent") == "cgroup_parent"
    for name in ["..", "../x", "a/b", ".", "", "a\0b", "a\n", "-x", "a b", "a" * 65]:
        for field in ("name", "hostname"):
            if field == "hostname" and name in (".", "a" * 65, "-x", "a b"):
                continue
            with pytest.raises((ringfence.Error, ValueError)):
                ringfence.run(["/bin/look", "count"], rootfs=root, idmap=idmap, **{field: name})


def test_a_careless_message_has_two_meanings(root: Root, tmp_path: Path) -> None:
    """Class 14, CVE-2021-43784: maps of 64 KiB and a bit, whose middle is read as the attribute that says who the payload is."""
    maps = tmp_path / "maps"
    user = ["--user", "1"] if IS_ROOT else []
    maps.write_bytes(b"0 0 1\n")
    honest = careless("--root", root, "--proc", *user, "--maps", maps, "--", "/bin/look", "ids")
    assert honest.status == 125 or _ids(honest.out)["Uid"].split()[0] == "65534"
    maps.write_bytes(b"0 0 " + struct.pack("<HHI", 8, 2, 0) + b"\n" * (65540 - 12))
    seen = careless("--root", root, "--proc", *user, "--maps", maps, "--", "/bin/look", "ids")
    assert _ids(seen.out)["Uid"].split()[0] == "0"


LENGTHS = [65_536, 131_072] if IN_GUEST else [65_535, 65_536, 65_544, 131_072]
#: How many of what there can be no thousands of.
MANY = 200 if IN_GUEST else 2_000
if ROUNDS >= 1000:
    LENGTHS += [65_530, 65_537, 70_000, 131_071, 1 << 20]


def test_long_values_are_whole_or_refused(root: Root, idmap: str) -> None:
    """Class 14, CVE-2021-43784: values whose lengths do not fit into 16 bits (or 17, or 20): all of it, or an error."""
    fields: dict[str, Any] = {"rootfs": root, "idmap": idmap}
    with ringfence.Container(**fields) as container:
        for run in ({"container": container}, fields):
            for length in LENGTHS:
                seen = contained("/bin/look", "count", "x" * length, **run)
                assert seen.out == f"1 {length}\n" or (not seen.started and "argv" in seen.error), (length, seen)
                seen = contained("/bin/look", "count", *"x" * (length // 8), **run)
                assert seen.out == f"{length // 8} {length // 8}\n" or not seen.started, (length, seen)
                seen = contained("/bin/look", "environment", env={"LONG": "x" * length}, **run)
                longest = max(seen.out.splitlines(), key=len, default="")
                assert longest == "LONG=" + "x" * length or (not seen.started and "env" in seen.error), (
                    length,
                    longest[:20],
                )
                seen = contained("/bin/look", "ids", user="0:0", extra_groups=range(1, length // 64), **run)
                assert not seen.started or _ids(seen.out)["Uid"].split()[0] == "0", seen
    for length in (341, 5000, MANY * 35):
        ranges = [[i * 2, 100_000 + i * 2, 1] for i in range(length)]
        seen = contained("/bin/look", "ids", rootfs=root, idmap={"uid": ranges, "gid": ranges})
        assert not seen.started and "idmap" in seen.error and "340" in seen.error, seen.error[:300]
    many = {f"net.ipv4.conf.{'x' * 200}{i}.forwarding": "1" for i in range(MANY)}
    wrong: list[dict[str, Any]] = [
        {"namespaces": {f"kind{i}": "new" for i in range(MANY * 5)}},
        {"sysctls": many},
        {"sysctls": {"net.ipv4.ip_default_ttl": "7" * 70_000}},
        {"hostname": "x" * 70_000},
        {"rootfs": "/" + "x" * 70_000},
        {"mounts": [f"/{'x' * 5000}:/tmp/x"]},
        {"files": {f"/tmp/{'y' * 300}{i}": "x" for i in range(MANY // 2)}},
    ]
    for more in wrong:
        seen = contained("/bin/look", "ids", **{"rootfs": root, **more})
        assert not seen.started and seen.error, more.keys()
    mounts = [f"{root / 'etc'}:/tmp/{i}" for i in range(MANY // 5)]
    seen = contained("/bin/look", "cat", "/proc/self/mountinfo", rootfs=root, mounts=mounts)
    points = [line.split(" ")[4] for line in seen.out.splitlines()]
    assert sum(point.startswith("/tmp/") for point in points) == len(mounts) or (
        not seen.started and "mounts" in seen.error
    ), seen.error
    # What is large and right: all of it is there.
    files = {f"/tmp/{i}": str(i) * 1000 for i in range(200)}
    seen = contained("/bin/look", "cat", *files, rootfs="host", mounts=[f"{root / 'bin'}:/bin"], files=files)
    assert seen.out == "".join(files.values()), (len(seen.out), seen.error)
