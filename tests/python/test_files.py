"""Files and trees read, written and copied from outside, with a container that does its worst.

tests/run: tier=machine
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ringfence
from ringfence import aio

NS = 1_600_000_000_123_456_789


@pytest.fixture
def container() -> Iterator[ringfence.Container]:
    with ringfence.Container(files={"/etc/ringfence-files": "within\n"}) as container:
        yield container


def sh(container: ringfence.Container, script: str) -> str:
    done = container.run(["sh", "-ec", script], capture_output=True, text=True, check=True, timeout=60)
    return str(done.stdout)


def test_read(container: ringfence.Container) -> None:
    assert container.read_bytes("/etc/ringfence-files") == b"within\n"
    assert container.read_text(Path("etc/ringfence-files")) == "within\n"
    sh(
        container,
        "cd /tmp; ln -s ../../../../etc/ringfence-files up; mkfifo fifo; head -c 300000 /dev/zero > many; ln -s x x",
    )
    assert container.read_bytes("/tmp/up") == b"within\n"
    assert container.read_bytes("/tmp/many") == bytes(300000)
    assert container.read_bytes("/tmp/many", limit=300000) == bytes(300000)
    assert b"processor" in container.read_bytes("/proc/cpuinfo")
    for path, number, kind in [
        ("/tmp/fifo", errno.EINVAL, "invalid_argument"),
        ("/dev/zero", errno.EINVAL, "invalid_argument"),
        ("/tmp", errno.EISDIR, "invalid_argument"),
        ("/nonsense", errno.ENOENT, "not_found"),
        ("/etc/ringfence-files/below", errno.ENOTDIR, "not_found"),
        ("/tmp/x", errno.ELOOP, "os"),
    ]:
        with pytest.raises(ringfence.Error) as caught:
            container.read_bytes(path)
        assert (caught.value.errno, caught.value.kind, caught.value.field) == (number, kind, "path"), path
    with pytest.raises(ringfence.Error) as caught:
        container.read_bytes("/tmp/many", limit=299999)
    assert (caught.value.errno, caught.value.field) == (errno.EFBIG, "limit")
    for wrong in ("", "a\0b", "x" * 5000):
        with pytest.raises((ringfence.Error, ValueError)):
            container.read_bytes(wrong)


def test_write(container: ringfence.Container) -> None:
    assert container.write_bytes("/tmp/new", b"one") == 3
    assert sh(container, "cat /tmp/new; stat -c ' %a %u:%g' /tmp/new") == "one 644 0:0\n"
    sh(
        container,
        "chmod 640 /tmp/new; ln /tmp/new /tmp/other; ln -s new /tmp/link; mkfifo /tmp/fifo; ln -s /gone /tmp/dangling",
    )
    assert container.write_text("/tmp/new", "zw\u00f6lf") == 5
    assert sh(container, "cat /tmp/new; stat -c ' %a %h' /tmp/new; cat /tmp/other") == "zw\u00f6lf 640 1\none"
    container.write_bytes("/tmp/link", bytearray(b"through"), mode=0o600)
    assert sh(container, "cat /tmp/new; stat -c ' %a' /tmp/new; readlink /tmp/link") == "through 600\nnew\n"
    data = os.urandom(3_000_000)
    container.write_bytes("/tmp/large", memoryview(data), mode=0o4755)
    assert container.read_bytes("/tmp/large") == data
    assert sh(container, "stat -c %a /tmp/large; ls -A /tmp | grep ringfence || true") == "4755\n"
    container.write_bytes("/etc/ringfence-files", b"")
    assert container.read_bytes("/etc/ringfence-files") == b""
    for path, number in [
        ("/tmp/fifo", errno.EINVAL),
        ("/tmp", errno.EISDIR),
        ("/tmp/", errno.EISDIR),
        ("/nonsense/x", errno.ENOENT),
        ("/tmp/dangling", errno.ENOENT),
    ]:
        with pytest.raises(ringfence.Error) as caught:
            container.write_bytes(path, b"x")
        assert (caught.value.errno, caught.value.field) == (number, "path"), path
    with pytest.raises(ringfence.Error) as caught:
        container.write_bytes("/tmp/new", b"x", mode=0o10000)
    assert (caught.value.kind, caught.value.field) == ("invalid_argument", "mode")
    for owner in ("-1", "nobody-here", "0:", "4294967295"):
        with pytest.raises(ringfence.Error) as caught:
            container.write_bytes("/tmp/new", b"x", owner=owner)
        assert caught.value.field == "owner", owner
    with pytest.raises(TypeError):
        container.write_bytes("/tmp/new", "text")  # type: ignore[arg-type]
    assert container.read_bytes("/tmp/new") == b"through"


@pytest.mark.needs("user")
def test_owner(container: ringfence.Container, tmp_path: Path) -> None:
    container.write_bytes("/tmp/his", b"", owner="1000:1001")
    container.write_bytes("/tmp/his", b"again")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/link").symlink_to("nowhere")
    container.copy_in(tmp_path / "tree", "/tmp", owner=12345)
    container.write_bytes("/etc/passwd", b"root:x:0:0::/:/bin/sh\njoe:x:77:88::/:/bin/sh\n")
    container.write_bytes("/tmp/joe", b"", owner="joe")
    seen = sh(container, "cd /tmp; stat -c '%n %u:%g' his tree tree/link joe")
    assert seen == "his 1000:1001\ntree 12345:0\ntree/link 12345:0\njoe 77:88\n"


def tree(top: Path) -> None:
    """Of everything something."""
    (top / "empty").mkdir(parents=True)
    (top / "sub/deep").mkdir(parents=True)
    (top / "sub/file").write_bytes(b"content")
    (top / "sub/exe").write_bytes(b"#!/bin/sh\n")
    (top / "sub/exe").chmod(0o4755)
    os.link(top / "sub/file", top / "again")
    os.symlink("sub/file", top / "relative")
    os.symlink("/etc/passwd", top / "absolute")
    os.symlink("../../../..", top / "up")
    name = os.path.join(os.fsencode(top), b"a\nline and \xff\xfe")
    with open(name, "wb") as file:
        file.write(b"strange")
    with open(top / "sparse", "wb") as file:
        file.seek(5_000_000)
        file.write(b"middle")
        file.truncate(20_000_000)
    (top / "sub/deep").chmod(0o555)
    for place in ("sub/file", "sub/deep", "empty"):
        os.utime(top / place, ns=(NS, NS + 1))
    os.utime(top / "relative", ns=(NS, NS + 2), follow_symlinks=False)


def picture(top: Path) -> dict[bytes, tuple[object, ...]]:
    """A tree in numbers; without what the copy is not to have."""
    seen: dict[bytes, tuple[object, ...]] = {}
    first = os.fsencode(top)
    for directory, directories, files in os.walk(first):
        for name in [b".", *directories, *files]:
            path = os.path.join(directory, name)
            status = os.lstat(path)
            content: object = None
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    content = (hash(file.read()), status.st_nlink)
            times = (status.st_mtime_ns,)
            seen[os.path.relpath(path, first)] = (status.st_mode & ~0o6000, content, times)
    return seen


def test_there_and_back(container: ringfence.Container, tmp_path: Path) -> None:
    tree(tmp_path / "in")
    done = container.copy_in(tmp_path / "in", "/tmp/copy")
    assert (done.entries, done.skipped) == (12, 0)
    assert done.bytes == 7 + 10 + 7 + 20_000_000
    assert container.copy_out("/tmp/copy", tmp_path / "out") == done
    assert picture(tmp_path / "out") == picture(tmp_path / "in")
    sparse = (tmp_path / "out/sparse").stat()
    assert (sparse.st_size, sparse.st_uid) == (20_000_000, os.getuid())
    if (tmp_path / "in/sparse").stat().st_blocks < 1000:
        assert sparse.st_blocks < 1000
    assert (tmp_path / "out/again").samefile(tmp_path / "out/sub/file")
    assert sh(container, "stat -c '%a %u:%g %h' /tmp/copy/sub/exe /tmp/copy/again") == "755 0:0 1\n644 0:0 2\n"
    # Once more, over itself; then into a directory.
    (tmp_path / "out/sub/file").write_bytes(b"other")
    os.utime(tmp_path / "out", ns=(NS, NS))
    container.copy_out("/tmp/copy/.", tmp_path / "out")
    again, wanted = picture(tmp_path / "out"), picture(tmp_path / "in")
    del again[b"."], wanted[b"."]
    assert again == wanted
    container.copy_out("/tmp/copy/", tmp_path / "out")
    assert picture(tmp_path / "out/copy") == picture(tmp_path / "in")
    (tmp_path / "in/sub/deep").chmod(0o755)
    (tmp_path / "out/sub/deep").chmod(0o755)
    (tmp_path / "out/copy/sub/deep").chmod(0o755)


def test_names(container: ringfence.Container, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"f")
    (tmp_path / "dir/sub").mkdir(parents=True)
    (tmp_path / "alias").symlink_to("file")
    sh(container, "mkdir /tmp/there /tmp/full; mkdir /tmp/full/file; : > /tmp/plain; ln -s /tmp/there /tmp/to-there")
    container.copy_in(tmp_path / "file", "/tmp/there")
    container.copy_in(tmp_path / "alias", "/tmp/there/")
    container.copy_in(tmp_path / "dir", "/tmp/to-there")
    container.copy_in(f"{tmp_path}/dir/.", "/tmp/there/contents")
    container.copy_in(tmp_path / "dir", "/tmp/there/called/")
    container.copy_in(tmp_path / "file", "/tmp/to-there/plain")
    seen = sh(container, "cd /tmp/there; find . | sort; stat -c %F alias")
    assert seen.split("\n") == [
        ".", "./alias", "./called", "./called/sub", "./contents", "./contents/sub", "./dir", "./dir/sub", "./file", "./plain",
        "regular file", "",
    ]  # fmt: skip
    for source, target, number, field in [
        (tmp_path / "nonsense", "/tmp", errno.ENOENT, "source"),
        (tmp_path / "file", "/nonsense/x", errno.ENOENT, "target"),
        (tmp_path / "file", "/tmp/new/", errno.ENOENT, "target"),
        (tmp_path / "file", "/tmp/plain/", errno.ENOTDIR, "target"),
        (tmp_path / "file", "/tmp/full", errno.EISDIR, "target"),
        (tmp_path / "dir", "/tmp/plain", errno.ENOTDIR, "target"),
        (tmp_path / "dir/.", "/tmp/plain", errno.ENOTDIR, "target"),
        (f"{tmp_path}/file/.", "/tmp", errno.ENOTDIR, "source"),
        ("/dev/null", "/tmp", errno.EINVAL, "source"),
    ]:
        with pytest.raises(ringfence.Error) as caught:
            container.copy_in(source, target)
        assert (caught.value.errno, caught.value.field) == (number, field), (source, target)
    for source, target in [("", "/tmp"), ("/tmp", ""), ("a\0", "/tmp")]:
        with pytest.raises((ringfence.Error, ValueError)):
            container.copy_in(source, target)
    with pytest.raises(ringfence.Error) as caught:
        container.copy_in(tmp_path, "/tmp", special="ignore")  # type: ignore[arg-type]
    assert (caught.value.kind, caught.value.field) == ("invalid_argument", "special")
    with pytest.raises(TypeError):
        container.copy_out("/tmp", tmp_path, progress=1)  # type: ignore[arg-type]
    # Views of the kernel's are no files.
    with ringfence.Container(
        mounts=[{"type": "proc", "target": "/mnt/proc"}, {"type": "tmpfs", "target": "/mnt/t"}]
    ) as other:
        other.write_bytes("/mnt/t/file", b"")
        other.copy_out("/mnt", tmp_path / "views")
    assert os.listdir(tmp_path / "views/proc") == [] and os.listdir(tmp_path / "views/t") == ["file"]
    # A file of /proc has no size, but an end.
    container.copy_out("/proc/sys/kernel/ostype", tmp_path / "ostype")
    assert (tmp_path / "ostype").read_text() == "Linux\n"


def test_special_files(container: ringfence.Container, tmp_path: Path) -> None:
    sh(container, "mkdir /tmp/t; mkfifo /tmp/t/fifo; : > /tmp/t/plain")
    with container.listen("/tmp/t/socket"):
        pass
    with pytest.raises(ringfence.Error) as caught:
        container.copy_out("/tmp/t", tmp_path / "refused")
    assert caught.value.kind == "unsupported"
    assert str(caught.value.path) in ("/tmp/t/fifo", "/tmp/t/socket")
    done = container.copy_out("/tmp/t", tmp_path / "out", special="skip")
    assert (done.skipped, os.listdir(tmp_path / "out")) == (2, ["plain"])
    (tmp_path / "in").mkdir()
    os.mkfifo(tmp_path / "in/fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "in/s"))
    skipped = 2
    if os.getuid() == 0:
        os.mknod(tmp_path / "in/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        skipped += 1
    with pytest.raises(ringfence.Error) as caught:
        container.copy_in(tmp_path / "in", "/tmp")
    assert caught.value.kind == "unsupported"
    assert container.copy_in(tmp_path / "in", "/tmp", special="skip").skipped == skipped
    assert sh(container, "ls /tmp/in") == ""


def test_devices_of_a_container_are_not_copied_out(container: ringfence.Container, tmp_path: Path) -> None:
    # The one that everybody may make; of root's containers, any.
    sh(container, "mkdir /tmp/t; mknod /tmp/t/device c 0 0; : > /tmp/t/plain")
    places = [(container, "/tmp/t"), (container, "/dev")]
    with contextlib.ExitStack() as stack:
        if os.getuid() == 0:
            own = stack.enter_context(ringfence.Container(idmap="host"))
            sh(own, "mkdir /tmp/t; mknod /tmp/t/disk b 7 0; mknod /tmp/t/mem c 1 1")
            places.append((own, "/tmp/t"))
        for number, (one, place) in enumerate(places):
            with pytest.raises(ringfence.Error) as caught:
                one.copy_out(place, tmp_path / f"refused-{number}")
            assert caught.value.kind == "unsupported" and str(caught.value.path).startswith(f"{place}/")
            assert one.copy_out(place, tmp_path / f"out-{number}", special="skip").skipped > 0
    made = [path for path in tmp_path.rglob("*") if not (path.is_symlink() or path.is_dir() or path.is_file())]
    assert made == [] and (tmp_path / "out-0/plain").is_file()


def test_links_at_the_target_lead_nowhere(container: ringfence.Container, tmp_path: Path) -> None:
    """What one copy left is not followed by the next, on either side."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "file").write_text("kept")
    sh(container, f"mkdir -p /tmp/t; ln -s {secret} /tmp/t/dir; ln -s {secret}/file /tmp/t/file")
    container.copy_out("/tmp/t", tmp_path / "out")
    assert (tmp_path / "out/dir").is_symlink() and (tmp_path / "out/file").is_symlink()
    sh(container, "cd /tmp/t; rm dir file; mkdir dir; echo bad > dir/file; echo bad > file")
    with pytest.raises(ringfence.Error) as caught:
        container.copy_out("/tmp/t/.", tmp_path / "out")
    assert (caught.value.errno, caught.value.field) == (errno.EEXIST, "target")
    sh(container, "rm -r /tmp/t/dir")
    container.copy_out("/tmp/t/.", tmp_path / "out")
    assert (tmp_path / "out/file").read_text() == "bad\n" and not (tmp_path / "out/file").is_symlink()
    assert os.listdir(secret) == ["file"] and (secret / "file").read_text() == "kept"
    # And inside: a link out of the target's tree to another place of the container.
    sh(container, "mkdir /tmp/safe /tmp/into; ln -s /tmp/safe /tmp/into/sub")
    (tmp_path / "in/sub").mkdir(parents=True)
    (tmp_path / "in/sub/bad").write_text("bad")
    with pytest.raises(ringfence.Error):
        container.copy_in(f"{tmp_path}/in/.", "/tmp/into")
    assert sh(container, "ls /tmp/safe") == ""
    # A path of the caller's leads no further than the container's root.
    sh(container, "ln -s ../../../../../.. /tmp/root")
    container.copy_in(secret / "file", "/tmp/root/tmp/root/tmp/rooted")
    assert container.read_text("/tmp/rooted") == "kept"


def test_races(container: ringfence.Container, tmp_path: Path) -> None:
    """A process swaps a directory and a file with links out of the tree while it is copied, in both directions."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "stolen").write_text("secret of the host")
    sh(
        container,
        f"""mkdir -p /tmp/race/a /tmp/safe; cd /tmp/race; echo fine > a/fine; echo fine > b
        ln -s {secret} a-other; ln -s {secret}/stolen b-other""",
    )
    (tmp_path / "in/a").mkdir(parents=True)
    (tmp_path / "in/a/new").write_text("new")
    stop = threading.Event()

    def swap() -> None:
        """From here: nobody needs an interpreter in the container."""
        fd = container.open_path("/tmp/race", os.O_RDONLY | os.O_DIRECTORY)
        try:
            while not stop.is_set():
                exchange(fd, b"a", b"a-other")
                exchange(fd, b"b", b"b-other")
        finally:
            os.close(fd)

    before = sorted(os.listdir(secret))
    inside_before = sh(container, f"ls -d {secret} 2>/dev/null || echo none")
    swapper = threading.Thread(target=swap)
    swapper.start()
    rounds, ended = 0, time.monotonic() + 1
    wanted = int(os.environ.get("RINGFENCE_ATTACK_ROUNDS") or 0)
    try:
        while rounds < wanted or (not wanted and time.monotonic() < ended and rounds < 1000):
            out = tmp_path / "out" / str(rounds % 7)
            out.mkdir(parents=True, exist_ok=True)
            try:
                container.copy_out("/tmp/race/.", out)
            except ringfence.Error as error:
                assert error.errno in (errno.ESTALE, errno.EEXIST, errno.EISDIR), error
            for path in out.rglob("*"):
                if not path.is_symlink() and path.is_file():
                    assert path.read_text() == ("new" if path.name == "new" else "fine\n"), path
            try:
                container.copy_in(f"{tmp_path}/in/.", "/tmp/race")
            except ringfence.Error as error:
                assert error.errno in (errno.ESTALE, errno.EEXIST, errno.ENOTDIR), error
            rounds += 1
    finally:
        stop.set()
        swapper.join()
    assert rounds > 0
    assert sorted(os.listdir(secret)) == before and (secret / "stolen").read_text() == "secret of the host"
    assert sh(container, f"ls -d {secret} 2>/dev/null || echo none") == inside_before


def exchange(fd: int, one: bytes, other: bytes) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.renameat2(fd, one, fd, other, 2) == 0, ctypes.get_errno()


def test_depth(container: ringfence.Container, tmp_path: Path) -> None:
    sh(
        container,
        "cd /tmp; mkdir deep; cd deep; i=0; while [ $i -lt 150 ]; do mkdir d; cd d; i=$((i+1)); done; : > bottom",
    )
    assert container.copy_out("/tmp/deep", tmp_path / "deep").entries == 152
    sh(
        container,
        "cd /tmp/deep; while cd d 2>/dev/null; do :; done; i=0; while [ $i -lt 60 ]; do mkdir d; cd d; i=$((i+1)); done",
    )
    with pytest.raises(ringfence.Error) as caught:
        container.copy_out("/tmp/deep", tmp_path / "deeper")
    assert (caught.value.kind, caught.value.errno) == ("exhausted", errno.ELOOP)


def test_refused_by_the_kernel(container: ringfence.Container, tmp_path: Path) -> None:
    with ringfence.Container(mounts=[{"type": "tmpfs", "target": "/mnt", "size": "64K"}]) as small:
        with pytest.raises(ringfence.Error) as caught:
            small.write_bytes("/mnt/large", bytes(100_000))
        assert caught.value.errno == errno.ENOSPC
        (tmp_path / "large").write_bytes(b"x" * 100_000)
        with pytest.raises(ringfence.Error) as caught:
            small.copy_in(tmp_path / "large", "/mnt")
        assert (caught.value.errno, caught.value.field) == (errno.ENOSPC, "target")
        assert sh(small, "ls -A /mnt") == ""
        with pytest.raises(ringfence.Error) as caught:
            small.write_bytes("/proc/new", b"")
        assert caught.value.field == "path"
    if os.getuid() != 0:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine/locked").write_text("x")
        (tmp_path / "mine/locked").chmod(0)
        with pytest.raises(PermissionError) as refused:
            container.copy_in(tmp_path / "mine", "/tmp")
        assert str(refused.value.path).endswith("mine/locked")  # type: ignore[attr-defined]
        (tmp_path / "full").mkdir(mode=0o555)
        with pytest.raises(PermissionError):
            container.copy_out("/etc/ringfence-files", tmp_path / "full")
    # Root inside reads what nobody may.
    sh(container, "umask 777; : > /tmp/closed; mkdir /tmp/locked")
    container.copy_out("/tmp/closed", tmp_path / "closed")
    container.copy_out("/tmp/locked", tmp_path / "locked")
    (tmp_path / "locked").chmod(0o700)
    assert stat.S_IMODE((tmp_path / "closed").stat().st_mode) == 0


def test_ends(tmp_path: Path) -> None:
    container = ringfence.Container()
    container.close()
    for call in (
        lambda: container.read_bytes("/etc/passwd"),
        lambda: container.write_bytes("/tmp/x", b""),
        lambda: container.copy_out("/etc", tmp_path),
        lambda: container.copy_in(tmp_path, "/tmp"),
    ):
        with pytest.raises(ringfence.Error) as caught:
            call()
        assert caught.value.kind == "closed"


def test_a_container_that_ends_meanwhile(container: ringfence.Container, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(50):
        (tmp_path / f"in/{number}").write_bytes(b"x")

    def end(_: ringfence.CopyProgress) -> None:
        container.kill()

    with pytest.raises(ringfence.Error) as caught:
        for number in range(1000):
            container.copy_in(tmp_path / "in", f"/tmp/{number}", progress=end)
    assert caught.value.kind == "closed", caught.value


def test_cancelled(container: ringfence.Container, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")

    class Enough(Exception):
        pass

    def stop(_: ringfence.CopyProgress) -> None:
        raise Enough

    with pytest.raises(Enough):
        container.copy_in(tmp_path / "file", "/tmp", progress=stop)
    with pytest.raises(ringfence.Error) as caught:
        container.copy_in(tmp_path / "file", "/tmp", timeout=0)
    assert caught.value.kind == "timed_out"

    def interrupt(_: ringfence.CopyProgress) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        for number in range(1000):
            container.copy_in(tmp_path, f"/tmp/{number}", progress=interrupt)
    assert container.read_bytes("/etc/ringfence-files") == b"within\n"


@pytest.mark.needs("pids")
def test_frozen(container: ringfence.Container, tmp_path: Path) -> None:
    container.freeze()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_bytes(b"x")
    container.copy_in(tmp_path / "tree", "/tmp", owner="0:0")
    container.copy_out("/tmp/tree", tmp_path / "back")
    container.write_bytes("/tmp/tree/file", b"frozen", owner=0)
    assert container.read_bytes("/tmp/tree/file") == b"frozen"
    container.thaw()
    assert sh(container, "cat /tmp/tree/file") == "frozen"


def test_who_stops_every_task_stops_no_copy_for_longer_than_its_timeout(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    script = "cd /proc; while :; do for p in [2-9]*; do [ $p = $$ ] || kill -STOP $p; done; done 2>/dev/null"
    with ringfence.Container(["sh", "-c", script]) as c:
        for act in (
            lambda: c.copy_in(tmp_path / "file", "/tmp/there", owner="root", timeout=1),
            lambda: c.copy_out("/etc/passwd", tmp_path / "here", timeout=1),
        ):
            began = time.monotonic()
            with contextlib.suppress(TimeoutError):
                act()
            assert time.monotonic() - began < 30


def test_aio(tmp_path: Path) -> None:
    async def main() -> None:
        async with aio.Container() as container:
            assert await container.write_text("/tmp/a", "text") == 4
            assert await container.write_bytes("/tmp/b", b"bytes") == 5
            assert await container.read_text("/tmp/a") == "text"
            assert await container.read_bytes("/tmp/b") == b"bytes"
            seen: list[ringfence.CopyProgress] = []
            done = await container.copy_out("/tmp/.", tmp_path / "out", progress=seen.append)
            assert seen[-1] == done and done.bytes == 9
            assert await container.copy_in(tmp_path / "out", "/tmp/back") == done
            begun = asyncio.Event()
            loop = asyncio.get_running_loop()

            async def for_ever() -> None:
                for number in range(10_000):
                    await container.copy_in(
                        tmp_path / "out",
                        f"/tmp/{number}",
                        progress=lambda _: loop.call_soon_threadsafe(begun.set),
                    )

            task = asyncio.create_task(for_ever())
            await asyncio.wait_for(begun.wait(), 60)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())


def test_rmtree(tmp_path: Path) -> None:
    top, kept = tmp_path / "top", tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("kept")
    tree(top)
    (top / "out").symlink_to(kept)
    (top / "locked").mkdir(mode=0)
    os.mkfifo(top / "fifo")
    ringfence.rmtree(top)
    assert os.listdir(tmp_path) == ["kept"] and (kept / "file").read_text() == "kept"
    # Deeper than any path can be named at once.
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(600):
        os.mkdir("deep" * 10, dir_fd=fd)
        below = os.open("deep" * 10, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    ringfence.rmtree(tmp_path / ("deep" * 10))
    (tmp_path / "link").symlink_to(kept)
    for path, number in [
        ("", None),
        ("/", None),
        ("//", None),
        (f"{kept}/.", None),
        (f"{kept}/..", None),
        (f"{tmp_path}/link/", errno.ENOTDIR),
        (tmp_path / "nonsense", errno.ENOENT),
        ("/proc/self/nonsense", errno.ENOENT),
    ]:
        with pytest.raises(ringfence.Error) as caught:
            ringfence.rmtree(path)
        assert caught.value.field == "path" and caught.value.errno == (number or caught.value.errno), path
    with pytest.raises(ringfence.Error) as caught:
        ringfence.rmtree(kept, timeout=0)
    assert caught.value.kind == "timed_out"
    asyncio.run(aio.rmtree(tmp_path / "link"))
    assert (kept / "file").read_text() == "kept"
    if os.getuid() != 0:
        with pytest.raises(PermissionError):
            ringfence.rmtree("/etc/hostname")
        assert os.path.exists("/etc/hostname")


@pytest.mark.needs("user")
def test_rmtree_of_what_a_container_left(tmp_path: Path) -> None:
    """Files of ids that an ordinary caller has only in its containers."""
    volume = tmp_path / "volume"
    volume.mkdir()
    with ringfence.Container(mounts=[f"{volume}:/data:rw"]) as container:
        sh(
            container,
            "mkdir -p /data/d/e; : > /data/d/e/f; chown -R 1000:1000 /data/d; chmod 700 /data/d; : > /data/mine",
        )
    assert (volume / "mine").stat().st_uid == os.getuid()
    if os.getuid() != 0:
        assert (volume / "d").stat().st_uid != os.getuid()
        with pytest.raises(PermissionError):
            os.rmdir(volume / "d/e")
    ringfence.rmtree(volume)
    assert not volume.exists()


def test_rmtree_stops_at_mounts(tmp_path: Path) -> None:
    """Inside, where everybody may mount: as what the library is called there."""
    if os.getuid() != 0:
        pytest.skip("to mount on the host takes root")
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    (tmp_path / "top/sub/mount").mkdir(parents=True)
    assert libc.mount(b"none", os.fsencode(tmp_path / "top/sub/mount"), b"tmpfs", 0, None) == 0
    try:
        (tmp_path / "top/sub/mount/file").write_text("kept")
        for path in ("top", "top/sub/mount"):
            with pytest.raises(ringfence.Error) as caught:
                ringfence.rmtree(tmp_path / path)
            assert caught.value.errno == errno.EBUSY
            assert str(caught.value.path) == str(tmp_path / "top/sub/mount")
        assert (tmp_path / "top/sub/mount/file").read_text() == "kept"
    finally:
        assert libc.umount2(os.fsencode(tmp_path / "top/sub/mount"), 2) == 0


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RINGFENCE_VOLUMES", str(tmp_path / "volumes"))
    return tmp_path / "volumes"


def test_a_named_volume_stays(place: Path) -> None:
    assert ringfence.volumes() == []
    with ringfence.Container(
        mounts=["data:/data", {"type": "volume", "source": "other", "target": "/ro", "rw": False}]
    ) as c:
        sh(c, "echo kept > /data/file; ! echo x > /ro/file 2>/dev/null")
        assert [(v.name, v.in_use) for v in ringfence.volumes()] == [("data", True), ("other", True)]
        with pytest.raises(ringfence.Error) as caught:
            ringfence.remove_volume("data")
        assert (caught.value.errno, caught.value.field) == (errno.EBUSY, "name")
        with ringfence.Container(mounts=["data:/shared:ro"]) as second:
            assert second.read_text("/shared/file") == "kept\n"
    # What root inside has written is the caller's.
    status = (place / "data/file").stat()
    assert (status.st_uid, status.st_gid) == (os.getuid(), os.getgid())
    assert [v.in_use for v in ringfence.volumes()] == [False, False]
    with ringfence.Container(mounts=["data:/data"]) as c:
        assert c.read_text("/data/file") == "kept\n"
    asyncio.run(aio.remove_volume("data"))
    assert [v.name for v in asyncio.run(aio.volumes())] == ["other"]
    ringfence.remove_volume("other")
    with pytest.raises(FileNotFoundError):
        ringfence.remove_volume("other")
    assert os.listdir(place) == []
    for name in ("", ".anonymous", "../x", "a/b"):
        with pytest.raises(ringfence.Error) as caught:
            ringfence.remove_volume(name)
        assert (caught.value.kind, caught.value.field) == ("invalid_argument", "name")
    for mount in (
        ".x:/data",
        "data:relative",
        "./data:/data",
        "data",
        {"type": "volume", "source": "a/b", "target": "/x"},
    ):
        with pytest.raises(ringfence.SpecError) as wrong:
            ringfence.run(["true"], mounts=[mount])  # type: ignore[list-item]
        assert str(wrong.value.field).startswith("mounts[0]"), mount
    with pytest.raises(ringfence.SpecError):
        ringfence.run(["true"], mounts=[{"type": "volume", "source": "a"}])
    assert os.listdir(place) == []


def test_mounts_and_volumes_with_maps_of_their_own(place: Path, tmp_path: Path) -> None:
    ranges = {"uid": [[0, 1000, 1], [5, 0, 1]], "gid": ["0 1000 1", "5 0 1"]}
    mounts: list[Any] = [
        {"source": tmp_path, "target": "/own", "rw": True, "idmap": ranges},
        f"{tmp_path}:/raw:idmap=host",
        {"type": "volume", "source": "mapped", "target": "/v", "idmap": ranges},
    ]
    if os.geteuid() != 0:
        with pytest.raises(PermissionError) as caught:
            ringfence.run(["true"], mounts=mounts)
        error = caught.value
        assert isinstance(error, ringfence.Error)
        assert (error.field, error.path, error.errno) == ("mounts[0].idmap", str(tmp_path), errno.EPERM)
        assert "CAP_SYS_ADMIN" in str(error.hint)
        return
    for name, owner in (("one", 1000), ("two", 0), ("three", 77)):
        (tmp_path / name).touch()
        os.chown(tmp_path / name, owner, owner)
    os.chown(tmp_path, 1000, 1000)
    tmp_path.chmod(0o755)

    async def by_aio() -> bytes:
        async with aio.Container(mounts=mounts) as c:
            process = await c.run(["stat", "-c", "%u:%g", "/own/one", "/v"], capture_output=True)
            return bytes(process.stdout)

    with ringfence.Container(mounts=mounts) as c:
        script = "cd /own; stat -c %u:%g one two three /raw/one; : > new; chown 5 new"
        done = c.run(["sh", "-c", script], capture_output=True, text=True)
        assert done.stdout == "0:0\n5:5\n65534:65534\n65534:65534\n", done.stderr
        assert c.spec["mounts"][0]["idmap"] == {"uid": [[0, 1000, 1], [5, 0, 1]], "gid": [[0, 1000, 1], [5, 0, 1]]}
        assert c.spec["mounts"][1]["idmap"] == "host"
    made = (tmp_path / "new").stat()
    assert (made.st_uid, made.st_gid) == (0, 1000)
    assert asyncio.run(by_aio()) == b"0:0\n5:5\n"
    ringfence.remove_volume("mapped")
    plan = ringfence.plan(["true"], mounts=mounts[:1])
    assert "open_tree_attr" not in str(plan) and "mounts[0].idmap: mount_setattr MOUNT_ATTR_IDMAP" in str(plan)
    with pytest.raises(ringfence.SpecError) as wrong:
        ringfence.run(
            ["true"], mounts=[{"source": tmp_path, "target": "/x", "idmap": {"uid": [[0, 0, 0]], "gid": ranges["gid"]}}]
        )
    assert wrong.value.field == "mounts[0].idmap.uid[0]"


def test_a_volume_without_a_name_goes(place: Path) -> None:
    mount = {"type": "volume", "target": "/data"}
    with ringfence.Container(mounts=[mount]) as container:
        sh(container, "mkdir -p /data/a/b; : > /data/a/b/c")
        (volume,) = (place / ".anonymous").iterdir()
        assert (volume / "a/b/c").exists()
        ringfence.gc()
        assert volume.exists() and ringfence.volumes() == []
    assert list((place / ".anonymous").iterdir()) == []
    with pytest.raises(ringfence.Error):
        ringfence.run(["/nonsense"], mounts=[mount])
    assert list((place / ".anonymous").iterdir()) == []


def test_gc_removes_volumes_of_the_killed(place: Path) -> None:
    script = (
        "import ringfence, os, signal\n"
        "c = ringfence.Container(mounts=[{'type': 'volume', 'target': '/data'}])\n"
        "c.write_bytes('/data/file', b'')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script], timeout=60)
    assert killed.returncode == -signal.SIGKILL
    ended = time.monotonic() + 60
    while list((place / ".anonymous").iterdir()) and time.monotonic() < ended:
        ringfence.gc()
    assert list((place / ".anonymous").iterdir()) == []
