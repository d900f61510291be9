"""What a run left behind: processes, mounts, control groups, network devices and namespaces, memfds, rules, files, disks.

A snapshot is taken before, another one after; whatever is there only after is a leak. Where a control group tree of the run
is given, processes, namespaces and memfds are looked for in it alone, so that other work on the machine is not blamed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from groups import TOP, Tree, hierarchies

# These stay by design, empty: the state directory, the file whose byte locks are claims of ids, the directory of names, and
# the file that is locked while a project id is chosen.
STATE_THAT_STAYS = ("ringfence", "ids", "names", "projects")

Snapshot = dict[str, dict[str, str]]


def state_directories() -> set[Path]:
    """Those of this machine: root's, and of users without a directory of their own for the time that they are there."""
    return {path for path in [Path("/run/ringfence"), *Path("/tmp").glob("ringfence-[0-9]*")] if path.is_dir()}


def forget_state(before: set[Path]) -> None:
    """Removes state directories that were not there before and have nothing but what stays by design in them."""
    for top in state_directories() - before:
        try:
            left = list(top.iterdir())
            if all(path.name in STATE_THAT_STAYS and not (path.is_file() and path.stat().st_size) for path in left):
                for path in left:
                    path.rmdir() if path.is_dir() else path.unlink()
                top.rmdir()
        except OSError:
            # Somebody uses it, or it is another user's.
            continue


def _processes() -> Iterable[tuple[int, str]]:
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                yield int(entry), Path("/proc", entry, "comm").read_text().strip()
            except OSError:
                continue


def _describe(pid: int) -> str:
    """One line that helps to find out whose process it is."""

    def read(name: str) -> str:
        try:
            return Path("/proc", str(pid), name).read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            return "?"

    status = dict(line.split(":\t", 1) for line in read("status").splitlines() if ":\t" in line)
    command = read("cmdline") or f"[{read('comm')}]"
    return (
        f"{command[:100]} (state {status.get('State', '?').strip()}, parent {status.get('PPid', '?')}, "
        f"uid {status.get('Uid', '?').split(chr(9))[0]}, waits in {read('wchan') or 'user mode'})"
    )


def _mounts() -> dict[str, str]:
    found = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        words = line.split(" ")
        found[words[0]] = f"{words[4]} {line.split(' - ')[1]}"
    return found


def _groups(tree: Tree | None) -> dict[str, str]:
    """Groups below the tree of the run, and those that belong to ringfence elsewhere (its default parent)."""
    found = {}
    if tree:
        for group in tree.groups():
            found[str(group)] = ""
    for point in hierarchies().values():
        try:
            names = os.listdir(point)
        except OSError:
            continue
        for name in names:
            if name.startswith("ringfence") and not name.startswith(TOP):
                for directory, _, _ in os.walk(point / name):
                    found[directory] = ""
    return found


def _devices() -> dict[str, str]:
    try:
        return dict.fromkeys(os.listdir("/sys/class/net"), "")
    except OSError:
        return {}


def _rules() -> dict[str, str]:
    nft = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin")
    if not nft or os.getuid() != 0:
        return {}
    listed = subprocess.run([nft, "list", "tables"], capture_output=True, text=True, check=False)
    return dict.fromkeys(listed.stdout.splitlines(), "")


def _files(directories: Iterable[Path]) -> dict[str, str]:
    found = {}
    for top in directories:
        for directory, names, files in os.walk(top):
            for name in names + files:
                path = Path(directory, name)
                if name in STATE_THAT_STAYS and path.parent in (top, top / "ringfence"):
                    continue
                found[str(path)] = ""
    return found


def _disks(directories: Iterable[Path]) -> dict[str, str]:
    """Loop devices over files of the run, and disks that tests made of nothing."""
    found = {}
    for block in Path("/sys/block").glob("*"):
        try:
            file = (block / "loop/backing_file").read_text().strip()
        except OSError:
            file = ""
        if block.name.startswith("nullb") or any(Path(file).is_relative_to(top) for top in directories):
            found[block.name] = file
    return found


def give_back(directories: Sequence[Path]) -> None:
    """Takes down file systems and loop devices over these directories: who was killed could not do it."""
    if os.getuid() != 0:
        return
    own = [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mounted in reversed([path for path in own if any(Path(path).is_relative_to(top) for top in directories)]):
        subprocess.run(["umount", "--lazy", mounted], stderr=subprocess.DEVNULL, check=False)
    for name, file in _disks(directories).items():
        if file:
            subprocess.run(["losetup", "-d", f"/dev/{name}"], stderr=subprocess.DEVNULL, check=False)


def _shared_memory() -> dict[str, str]:
    try:
        return {f"/dev/shm/{n}": "" for n in os.listdir("/dev/shm") if "ringfence" in n}
    except OSError:
        return {}


def _process_part(tree: Tree | None) -> Snapshot:
    """Processes, and what only processes hold: network namespaces and memfds."""
    mine = tree.pids() if tree else None
    processes, namespaces, memfds = {}, {}, {}
    try:
        host_net = os.readlink("/proc/self/ns/net")
    except OSError:
        host_net = ""
    for pid, comm in _processes():
        if pid == os.getpid():
            continue
        if mine is not None and pid not in mine:
            continue
        if mine is None and not comm.startswith("ringfence"):
            continue
        processes[f"{pid} {comm}"] = _describe(pid)
        try:
            net = os.readlink(f"/proc/{pid}/ns/net")
            if net != host_net:
                namespaces[net] = f"held by process {pid} {comm}"
            for fd in os.listdir(f"/proc/{pid}/fd"):
                link = os.readlink(f"/proc/{pid}/fd/{fd}")
                if "memfd:ringfence" in link:
                    memfds[f"{link} in process {pid} {comm}"] = ""
            exe = os.readlink(f"/proc/{pid}/exe")
            if "memfd:" in exe:
                memfds[f"{exe} run by process {pid} {comm}"] = ""
        except OSError:
            continue
    return {"processes": processes, "network namespaces": namespaces, "memfds": memfds}


def snapshot(tree: Tree | None = None, directories: Sequence[Path] = ()) -> Snapshot:
    state = [Path("/run/ringfence"), *map(Path, directories)]
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        state.append(Path(runtime, "ringfence"))
    return {
        **_process_part(tree),
        "mounts": _mounts(),
        "control groups": _groups(tree),
        "network devices": _devices(),
        "nftables tables": _rules(),
        "files": _files(state),
        "shared memory": _shared_memory(),
        "disks": _disks(directories),
    }


def compare(before: Snapshot, after: Snapshot) -> list[str]:
    """One line per thing that is there only after, or is there no more."""
    lines = []
    for kind, now in after.items():
        was = before.get(kind, {})
        for name in sorted(now.keys() - was.keys()):
            lines.append(f"left behind, {kind}: {name} {now[name]}".rstrip())
        if kind == "mounts":
            # Options too: those of a tree of control groups are one for the whole machine.
            changed = [name for name in now.keys() & was.keys() if now[name] != was[name]]
            lines += [f"changed, {kind}: {name} {was[name]} -> {now[name]}" for name in sorted(changed)]
        if kind in ("mounts", "network devices", "nftables tables"):
            for name in sorted(was.keys() - now.keys()):
                lines.append(f"gone, {kind}: {name} {was[name]}".rstrip())
    return lines


def check(before: Snapshot, take: Callable[[], Snapshot], seconds: float = 6.0) -> list[str]:
    """The difference that is still there after `seconds`: a keeper may stay for its idle time of up to 5 s."""
    deadline = time.monotonic() + seconds
    pause = 0.005
    while True:
        difference = compare(before, take())
        if not difference or time.monotonic() > deadline:
            return difference
        time.sleep(pause)
        pause = min(pause * 2, 0.25)


def main(arguments: list[str]) -> int:
    if not arguments:
        print(
            "usage: tests/leakcheck COMMAND [ARGUMENT...]\n\nRuns the command and fails if it leaves anything behind."
        )
        return 2
    tree = Tree.create()
    group = tree.child("command") if tree else None

    def take() -> Snapshot:
        return snapshot(tree)

    before, state = take(), state_directories()
    environment = dict(os.environ)
    if tree:
        environment["RINGFENCE_CGROUP_PARENT"] = f"/{tree.name}"
    code = subprocess.call(arguments, env=environment, preexec_fn=group.enter if group else None)
    difference = check(before, take)
    for line in difference:
        print(f"leakcheck: {line}")
    if tree:
        tree.remove()
    forget_state(state)
    if code < 0:
        code = 128 - code
    return code or (1 if difference else 0)
