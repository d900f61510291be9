"""A Python script and a shell pipeline of this machine's own programs, in a container with limits of its own.

Run by `make demo`. Needs nothing but the package: no image, no daemon, no root.
"""

from __future__ import annotations

import os
import platform
import time

import ringfence

SCRIPT = """
import os, socket
print("I am pid", os.getpid(), "as uid", os.getuid(), "on", socket.gethostname())
print("processes I can see:", sorted(int(p) for p in os.listdir("/proc") if p.isdigit()))
print("network:", [name for _, name in socket.if_nameindex()])
print("in /home:", os.listdir("/home"), "- in /tmp:", os.listdir("/tmp"))
open("/etc/made-inside", "w").write("only here\\n")
"""

PIPELINE = (
    "ls /usr/bin | grep -c . | sed 's/^/programs of this machine: /'; uname -n; cat /proc/1/comm /etc/made-inside"
)


def supported(limits: dict[str, object]) -> dict[str, object]:
    """The limits that this machine allows this user; what is missing is said, never ignored."""
    allowed = {}
    for name, value in limits.items():
        try:
            ringfence.run(["true"], **{name: value})
        except ringfence.Error as error:
            print(f"   (no limit on {name}: {error})")
        else:
            allowed[name] = value
    return allowed


def main() -> None:
    print(f"-- the host is {platform.node()}, this is process {os.getpid()}")
    limits = supported({"memory": "64M", "cpus": 0.5, "pids": 32})
    print(f"-- limits: {limits}")

    started = time.monotonic()
    with ringfence.Container(hostname="fence", **limits) as c:
        print(f"-- a container in {1000 * (time.monotonic() - started):.1f} ms; its pid 1 is {c.pid} out here")
        c.run(["/usr/bin/python3", "-c", SCRIPT], check=True)
        c.run(["sh", "-c", PIPELINE], check=True)
        print(f"-- /etc/made-inside exists on the host: {os.path.exists('/etc/made-inside')}")

        if "pids" in limits:
            forks = c.run(["sh", "-c", "for i in $(seq 50); do sleep 1 & done"], stderr=ringfence.PIPE, text=True)
            print(f"-- 50 processes at a limit of 32: {forks.stderr.strip().splitlines()[-1]}")
        if "cpus" in limits:
            before = c.usage().cpu_usage_usec or 0
            began = time.monotonic()
            c.run(["timeout", "1", "sh", "-c", "while :; do :; done"])
            used = ((c.usage().cpu_usage_usec or 0) - before) / 1e6 / (time.monotonic() - began)
            print(f"-- a busy loop at a limit of 0.5 cores used {used:.2f}")
        if "memory" in limits:
            hog = c.run(["tail", "/dev/zero"])
            print(f"-- a program that wants all memory: returncode {hog.returncode}, reason {hog.reason}")
        usage = c.usage()
        print(f"-- peak memory {usage.memory_peak}, processes refused {usage.pids_refused}")
        pid, identity = c.pid, c.id

    groups = [root for root, names, _ in os.walk("/sys/fs/cgroup") if identity in names]
    print(f"-- afterwards: pid {pid} exists: {os.path.exists(f'/proc/{pid}')}, control groups left: {len(groups)}")


if __name__ == "__main__":
    main()
