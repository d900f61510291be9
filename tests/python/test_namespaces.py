"""Namespaces: which one it is, what it belongs to, who is in it.

tests/run: vm=root
"""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ringfence
from ringfence import Namespace, NamespaceEntry, _tree, aio

KINDS = ("mnt", "pid", "net", "ipc", "uts", "user", "cgroup", "time")


def find(entries: list[NamespaceEntry], namespace: Namespace) -> NamespaceEntry:
    (entry,) = (e for e in entries if (e.kind, e.inode) == (namespace.kind, namespace.inode))
    return entry


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    path = {"PYTHONPATH": os.path.dirname(os.path.dirname(ringfence.__file__)), "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(
        [sys.executable, "-m", "ringfence", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        env=os.environ | path,
    )


def test_each_way_to_one_namespace() -> None:
    name = f"py-ways-{os.getpid()}"
    with ringfence.Container(name=name) as c:
        for kind in KINDS:
            namespace = c.namespaces[kind]
            assert namespace.kind == kind
            assert repr(namespace) == f"<Namespace {os.readlink(f'/proc/{c.pid}/ns/{kind}')}>"
            ways = [
                Namespace.of_pid(c.pid, kind),
                Namespace.of_pidfd(c.pidfd, kind),
                Namespace.of_path(f"/proc/{c.pid}/ns/{kind}"),
                Namespace.of_path(Path(f"/proc/{c.pid}/ns/{kind}")),
                Namespace.of_fd(namespace.fileno()),
                Namespace(f"container:{name}", kind),
                Namespace(f"pid:{c.pid}", kind),
                Namespace(f"fd:{namespace.fileno()}"),
                Namespace(f"/proc/{c.pid}/ns/{kind}"),
            ]
            assert set(ways) == {namespace}
            stat = os.fstat(namespace.fileno())
            assert (namespace.device, namespace.inode) == (stat.st_dev, stat.st_ino)
            own = Namespace.own(kind)
            assert own == Namespace("host", kind)
            assert (own == namespace) == (kind == "time")
            assert own != "own"
        assert "net" in c.namespaces and "nonsense" not in c.namespaces


def test_relations_and_the_list() -> None:
    with ringfence.Container(["sleep", "60"]) as c:
        user = c.namespaces["user"]
        entries = ringfence.namespaces()
        for kind in ("mnt", "pid", "net", "ipc", "uts"):
            namespace = c.namespaces[kind]
            assert namespace.owner == user
            assert namespace.owner_uid == user.owner_uid
            assert c.pid in namespace.members()
            entry = find(entries, namespace)
            assert c.pid in entry.members
            assert entry.command
            assert (entry.id, entry.device, entry.owner) == (namespace.id, namespace.device, user.inode)
            assert entry.owner_uid == namespace.owner_uid
            assert entry.parent == (Namespace.own("pid").inode if kind == "pid" else None)
        assert c.namespaces["pid"].parent == Namespace.own("pid")
        assert c.namespaces["net"].parent is None
        assert [e.kind for e in entries] == sorted((e.kind for e in entries), key=KINDS.index)
        with ringfence.Container(namespaces={"user": c, "net": c}) as other:
            assert other.namespaces["net"] == c.namespaces["net"]
            assert other.namespaces["net"].id == c.namespaces["net"].id
            assert other.namespaces["uts"] != c.namespaces["uts"]
            assert {c.pid, other.pid} <= set(c.namespaces["net"].members())
        assert asyncio.run(aio.namespaces())


def test_an_object_keeps_its_namespace() -> None:
    with ringfence.Container() as c:
        kept = c.namespaces["net"]
        owner = kept.owner
        assert owner is not None
        inode = owner.inode
        del owner
    gc.collect()
    assert kept.members() == []
    entries = ringfence.namespaces()
    entry = find(entries, kept)
    assert (entry.members, entry.command, entry.held_by, entry.owner) == ([], None, [os.getpid()], inode)
    (above,) = (e for e in entries if (e.kind, e.inode) == ("user", inode))
    assert (above.members, above.held_by, above.mounts) == ([], [], [])
    lines = command("ns").stdout.splitlines()
    (line,) = (line for line in lines if f"net:[{kept.inode}]" in line)
    assert f"held by {os.getpid()}" in line
    (line,) = (line for line in lines if f"user:[{inode}]" in line)
    assert "kept by what belongs to it" in line
    copy = kept.open()
    assert not os.get_inheritable(copy)
    assert Namespace.of_fd(copy) == kept
    os.close(copy)


def test_process_ids_both_ways() -> None:
    with ringfence.Container() as c:
        pids = c.namespaces["pid"]
        assert (pids.pid_in(c.pid), pids.pid_from(1)) == (1, c.pid)
        with c.popen(["sh", "-c", "echo $$; exec sleep 60"], stdout=ringfence.PIPE, text=True) as p:
            assert p.stdout is not None
            inner = int(p.stdout.readline())
            assert (pids.pid_in(p.pid), pids.pid_from(inner)) == (inner, p.pid)
            p.kill()
            p.wait()
        with pytest.raises(ProcessLookupError) as caught:
            pids.pid_from(inner)
        error = caught.value
        assert isinstance(error, ringfence.Error)
        assert (error.kind, error.field, error.errno) == ("not_found", "pid", errno.ESRCH)
        with pytest.raises(ProcessLookupError):
            pids.pid_in(os.getpid())


@pytest.mark.parametrize(
    ("call", "kind", "field"),
    [
        (lambda: Namespace.own("network"), "invalid_argument", "kind"),
        (lambda: Namespace.of_pid(os.getpid(), ""), "invalid_argument", "kind"),
        (lambda: Namespace.of_pid(0, "net"), "invalid_argument", "pid"),
        (lambda: Namespace.of_pid(-1, "net"), "invalid_argument", "pid"),
        (lambda: Namespace.of_pid(4194303, "net"), "not_found", "pid"),
        (lambda: Namespace.of_fd(-1), "invalid_argument", "fd"),
        (lambda: Namespace.of_fd(987), "invalid_argument", "fd"),
        (lambda: Namespace.of_pidfd(987, "net"), "invalid_argument", "fd"),
        (lambda: Namespace.of_path("/no/such/file"), "not_found", "path"),
        (lambda: Namespace.of_path("/etc/passwd"), "invalid_argument", "path"),
        (lambda: Namespace("new", "net"), "invalid_argument", "source"),
        (lambda: Namespace("nonsense", "net"), "invalid_argument", "source"),
        (lambda: Namespace("host"), "invalid_argument", "kind"),
        (lambda: Namespace("/proc/self/ns/uts", "net"), "invalid_argument", "kind"),
        (lambda: Namespace("container:nobody-has-this-name", "net"), "not_found", "source"),
        (lambda: Namespace.own("net").pid_in(1), "invalid_argument", "kind"),
        (lambda: Namespace.own("pid").pid_in(0), "invalid_argument", "pid"),
    ],
)
def test_what_is_wrong_is_named(call: object, kind: str, field: str) -> None:
    assert callable(call)
    with pytest.raises(ringfence.Error) as caught:
        call()
    assert (caught.value.kind, caught.value.field) == (kind, field), str(caught.value)


def test_insufficient_rights() -> None:
    try:
        os.stat("/proc/1/ns/net")
    except PermissionError:
        pass
    else:
        assert 1 in Namespace.of_pid(1, "net").members()
        return
    with pytest.raises(PermissionError) as caught:
        Namespace.of_pid(1, "net")
    assert isinstance(caught.value, ringfence.Error)
    assert caught.value.field == "pid"
    assert "trace" in str(caught.value)


def test_an_ended_container() -> None:
    c = ringfence.Container()
    c.kill()
    c.wait(60)
    with pytest.raises(ringfence.Error) as caught:
        c.namespaces["net"]
    assert caught.value.kind == "closed"
    c.close()
    with pytest.raises(ringfence.Error):
        c.namespaces["net"]


def test_a_tree_of_owners() -> None:
    with ringfence.Container(["sleep", "60"]) as c:
        user, net = c.namespaces["user"], c.namespaces["net"]
        done = command("ns")
        assert (done.returncode, done.stderr) == (0, "")
        lines = done.stdout.splitlines()
        assert lines[0].split() == ["NAMESPACE", "ID", "OWNER", "UID", "PROCS", "PID", "COMMAND"]
        (above,) = (i for i, line in enumerate(lines) if f"user:[{user.inode}]" in line)
        (below,) = (i for i, line in enumerate(lines) if f"net:[{net.inode}]" in line)
        assert below > above
        assert lines[below].index("net:[") == lines[above].index("user:[") + 2
        assert lines[below].lstrip("│ ").startswith(("├─net:[", "└─net:["))

        rows = json.loads(command("ns", "--json", "--kind", "net", "-k", "user").stdout)
        assert {row["kind"] for row in rows} == {"net", "user"}
        (row,) = (row for row in rows if row["inode"] == net.inode)
        assert c.pid in row["members"] and row["owner"] == user.inode
        flat = command("ns", "--tree", "none", "-k", "net").stdout.splitlines()
        assert any(line.startswith(f"net:[{net.inode}]") for line in flat)
        pids = command("ns", "--tree", "parent", "-k", "pid").stdout
        assert f"─pid:[{c.namespaces['pid'].inode}]" in pids
    assert command("ns", "--kind", "disk").returncode == 125


def test_the_lines_of_a_tree() -> None:
    def entry(kind: str, inode: int, owner: int | None, members: list[int]) -> NamespaceEntry:
        return NamespaceEntry(kind, inode, 4, None, 0, owner, None, members, "x" if members else None, [], [])

    entries = [entry("net", 5, 1, [1]), entry("net", 6, 2, []), entry("user", 1, None, [1]), entry("user", 2, 1, [7])]
    assert [row[0][0] for row in _tree.rows(entries, "owner")] == [
        "user:[1]",
        "├─net:[5]",
        "└─user:[2]",
        "  └─net:[6]",
    ]
    # Below one that is not shown.
    assert [row[0][0] for row in _tree.rows(entries[:2], "owner")] == ["net:[5]", "net:[6]"]


def test_as_lsns_says() -> None:
    if not shutil.which("lsns"):
        pytest.skip("lsns is missing")
    with ringfence.Container(["sleep", "60"]) as c:
        done = subprocess.run(["lsns", "--json", "-o", "NS,TYPE,ONS"], stdout=subprocess.PIPE, text=True, check=True)
        theirs = {int(row["ns"]): int(row["ons"] or 0) for row in json.loads(done.stdout)["namespaces"]}
        entries = ringfence.namespaces()
        for kind in ("mnt", "pid", "net", "ipc", "uts", "user"):
            entry = find(entries, c.namespaces[kind])
            assert theirs[entry.inode] == (entry.owner or 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="to mount takes CAP_SYS_ADMIN")
def test_a_pinned_namespace(tmp_path: Path) -> None:
    path = tmp_path / "net"
    with ringfence.Container(idmap="host") as container:
        net = container.namespaces["net"]
        net.pin(path)
        inode = net.inode
        del net
    try:
        done = ringfence.run(
            ["readlink", "/proc/self/ns/net"],
            idmap="host",
            namespaces={"net": str(path)},
            capture_output=True,
            text=True,
        )
        assert done.stdout == f"net:[{inode}]\n"
    finally:
        ringfence.Namespace.unpin(path)
    assert not path.exists()
    with pytest.raises(FileNotFoundError):
        ringfence.Namespace.unpin(path)
