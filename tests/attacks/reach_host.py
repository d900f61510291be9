"""A host whose mounts have sockets, FIFOs and devices; it starts the attacker (ringfence also in a running container) and prints what it reached.

    reach_host.py LAUNCHER IDMAP TOP         LAUNCHER: bind (read-only, as others show the host), ringfence, owned

Run with a mount namespace of its own, so that nobody else sees what it mounts. An ordinary user has no devices to make: /dev/null, bound.
"""

from __future__ import annotations

import ctypes
import os
import socket
import stat
import subprocess
import sys

import ringfence

libc = ctypes.CDLL(None, use_errno=True)
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18


def _mount(source: str, target: str, kind: str | None, flags: int) -> None:
    encoded = kind.encode() if kind else None
    if libc.mount(source.encode(), target.encode(), encoded, flags, None) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), target)


def _alone() -> None:
    """Only this process has the mounts; an ordinary user is root of a user namespace for it."""
    uid, gid = os.geteuid(), os.getegid()
    flags = 0x20000 | (0x10000000 if uid else 0)
    if libc.unshare(flags) < 0:
        raise OSError(ctypes.get_errno(), "unshare")
    if uid:
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    _mount("none", "/", None, MS_REC | MS_PRIVATE)


def main(launcher: str, idmap: str, top: str) -> None:
    was_root = os.geteuid() == 0
    _alone()
    # A file system of its own below a directory that `rootfs: host` shows, and another one below that.
    _mount("none", top, "tmpfs", 0)
    deep = f"{top}/deep"
    os.mkdir(deep)
    _mount("none", deep, "tmpfs", 0)
    programs = os.path.join(os.environ["RINGFENCE_SUITES"], "attacks")
    for place in (top, deep):
        os.chmod(place, 0o777)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"{place}/socket")
        os.chmod(f"{place}/socket", 0o777)
        listener.listen()
        listener.setblocking(False)
        os.mkfifo(f"{place}/fifo")
        os.chmod(f"{place}/fifo", 0o666)
        reader = os.open(f"{place}/fifo", os.O_RDONLY | os.O_NONBLOCK)
        if was_root:
            os.mknod(f"{place}/device", stat.S_IFCHR | 0o666, os.makedev(1, 5))
            os.chmod(f"{place}/device", 0o666)
        else:
            with open(f"{place}/device", "w"):
                pass
            _mount("/dev/zero", f"{place}/device", None, MS_BIND)
        words = ["/attack/reach", *(f"{place}/{name}" for name in ("socket", "fifo", "device"))]
        if launcher == "bind":
            # Everything read-only, and nothing overlaid: what a launcher does that takes the host's tree as it is.
            words[0] = f"{programs}/reach"
            libc.mount(b"none", place.encode(), None, 4096 | 32 | 1, None)
            print(subprocess.run(words, capture_output=True, text=True, check=False).stdout, end="")
        else:
            fields = {"rootfs": "host:owned" if launcher == "owned" else "host", "idmap": idmap}
            fields["mounts"] = [f"{programs}:/attack"]
            print(ringfence.run(words, capture_output=True, text=True, **fields).stdout, end="")
            with ringfence.Container(**fields) as container:
                print(container.run(words, capture_output=True, text=True).stdout, end="")
        try:
            listener.accept()
            print("accepted")
        except BlockingIOError:
            pass
        if os.read(reader, 100):
            print("read")
        listener.close()
        os.close(reader)


if __name__ == "__main__":
    main(*sys.argv[1:])
