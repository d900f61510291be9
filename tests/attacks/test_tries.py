"""What root of a container tries: the table of core/src/attacks.md.

tests/run: timeout=300
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from launchers import IDMAPS, IN_GUEST, IS_ROOT, Root, careless

import ringfence

PAGE = Path(__file__).with_name("attacks.md")
PROFILES = ["none", "default", "strict"]
#: Of the page: the profiles, and the field that opens most.
COLUMNS = [*PROFILES, "nesting"]
NAME = f"ringfence-attack-{os.getpid()}"
KEY = 0x52460000 + os.getpid() % 0xFFFF

SESSION_KEYRING, USER_KEYRING = -3, -4
ADD_KEY, KEYCTL = 248, 250
KEYCTL_UNLINK = 9
IPC_CREAT, IPC_RMID = 0o1000, 0

libc = ctypes.CDLL(None, use_errno=True)


def _table() -> dict[str, dict[str, list[set[str]]]]:
    """Row -> column -> outcomes that are right, with the default capabilities and with all."""
    rows = {}
    for line in PAGE.read_text().splitlines():
        found = re.fullmatch(r"\| `(\w+)` \| (.*) \| (.*) \| (.*) \| (.*) \| (.*) \|", line)
        if found:
            name, _, *cells = found.groups()
            sides = [[set(side.split()) for side in cell.split(" / ")] for cell in cells]
            rows[name] = {column: (side * 2)[:2] for column, side in zip(COLUMNS, sides, strict=True)}
    return rows


def _has(field: str, value: Any) -> bool:
    """Does the library know this value of this field?"""
    try:
        ringfence.plan(["true"], **{field: value})
    except (ringfence.Error, TypeError):
        return False
    return True


@pytest.fixture(scope="module")
def words() -> Iterator[list[str]]:
    """What of the host is there to be reached, as arguments of `tries`."""
    with contextlib.ExitStack() as stack:
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind(b"\0" + NAME.encode())
        abstract.listen()
        port = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        memory = Path("/dev/shm", NAME)
        memory.write_text("secret")
        stack.callback(memory.unlink)
        shared = libc.shmget(KEY, 4096, IPC_CREAT | 0o666)
        assert shared >= 0
        stack.callback(libc.shmctl, shared, IPC_RMID, None)
        queue = libc.mq_open(f"/{NAME}".encode(), os.O_CREAT | os.O_RDWR, 0o666, None)
        if queue >= 0:
            stack.callback(libc.mq_unlink, f"/{NAME}".encode())
            stack.callback(os.close, queue)
        for ring in (SESSION_KEYRING, USER_KEYRING):
            key = libc.syscall(ADD_KEY, b"user", NAME.encode(), b"secret", 6, ring)
            if key >= 0:
                stack.callback(libc.syscall, KEYCTL, KEYCTL_UNLINK, key, ring)
        yield [str(os.getpid()), str(port.getsockname()[1]), NAME, hex(KEY)]


@pytest.fixture
def trying(on_disk: Path) -> Root:
    made = Root(on_disk / "root", "tries")
    (made / "tmp").chmod(0o1777)
    return made


def _outcomes(text: str) -> dict[str, str]:
    return dict(line.split(" ", 1) for line in text.splitlines())


def _compare(seen: dict[str, str], profile: str, side: int, idmap: str, without: str = "no row") -> None:
    table = {name: row for name, row in _table().items() if not name.startswith(without)}
    seen = {name: outcome for name, outcome in seen.items() if not name.startswith(without)}
    assert set(seen) == set(table), (set(seen) ^ set(table), seen)
    if profile == "none" and idmap == "host":
        # Said on the page: keys of a user are those of his user namespace.
        table["user_keyring"][profile][side].add("reached")
    if not _has("securebits", []):
        # Session keyrings of containers came with this field.
        table["session_keyring"][profile][side].add("reached")
    wrong = {
        name: (seen[name], table[name][profile][side]) for name in table if seen[name] not in table[name][profile][side]
    }
    assert not wrong, wrong


#: Without a user namespace all capabilities are those of the host's root, who is not held back.
CASES = [("default", idmap) for idmap in IDMAPS] + [("all", "auto")]


# A library that does not know the field does without a filter. In the guest, where all takes ten times as long, once.
@pytest.mark.parametrize("profile", [name for name in PROFILES if name == "none" or _has("seccomp", name)])
@pytest.mark.parametrize(("capabilities", "idmap"), CASES)
@pytest.mark.parametrize("how", ["exec", "host"] if IN_GUEST else ["start", "exec", "host"])
def test_what_root_tries(trying: Root, words: list[str], how: str, capabilities: str, idmap: str, profile: str) -> None:
    """All rows, as the main process and as one that joins a directory, and in the host's own tree."""
    fields: dict[str, Any] = {"rootfs": trying, "idmap": idmap, "capabilities": capabilities}
    if _has("seccomp", profile):
        fields["seccomp"] = profile
    program = "/bin/tries"
    if how == "host":
        fields |= {"rootfs": "host", "mounts": [f"{trying / 'bin'}:/attack"]}
        program = "/attack/tries"
    with ringfence.Container(**fields) as container:
        # One that joins has what it is given itself.
        own = {key: fields[key] for key in ("capabilities", "seccomp") if key in fields}
        if how == "start":
            done = ringfence.run([program, *words], capture_output=True, text=True, timeout=100, **fields)
        else:
            done = container.run([program, *words], capture_output=True, text=True, timeout=100, **own)
    assert done.returncode == 0, done
    _compare(_outcomes(done.stdout), profile, int(capabilities == "all"), idmap)


NESTED = [(how, capabilities) for how in ("start", "exec", "host") for capabilities in ("default", "all")]


@pytest.mark.parametrize(("how", "capabilities"), [*(NESTED[2:4] if IN_GUEST else NESTED), ("below", "all")])
def test_what_root_tries_with_nesting(trying: Root, words: list[str], how: str, capabilities: str) -> None:
    """The same where namespaces may be made and nothing of /proc and /sys is masked, and from such a namespace, whose root has all capabilities."""
    fields: dict[str, Any] = {"rootfs": trying, "nesting": True, "capabilities": capabilities}
    program = ["/bin/tries", *words]
    if how in ("host", "below"):
        fields |= {"rootfs": "host", "mounts": [f"{trying / 'bin'}:/attack"]}
        program = ["/attack/tries", *words]
    if how == "below":
        below = ["--user", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc"]
        program = ["unshare", *below, *program]
    with ringfence.Container(**fields) as container:
        if how in ("start", "below"):
            done = ringfence.run(program, capture_output=True, text=True, timeout=100, **fields)
        else:
            done = container.run(program, capture_output=True, text=True, timeout=100, capabilities=capabilities)
    assert done.returncode == 0, done
    own_init = "init_" if how == "below" else "no row"
    _compare(_outcomes(done.stdout), "nesting", int(capabilities == "all"), "auto", own_init)


#: What no launcher gives anybody, or what it takes more than root to be given.
NEVER = {
    "handle_of_namespace": "a kernel before 6.18 has none, and a later one opens none from another mount namespace",
    "parent_pid_namespace": "the kernel shows nobody a namespace above his own",
    "parent_user_namespace": "as above",
    "core_pattern_after_remount": "there is nothing to remount",
    "remount_root": "as above",
    "unmask": "as above",
    "packet_filter": "the kernel is mended",
    "oom_score": "CAP_SYS_RESOURCE, which root of a guest may not have",
    "hard_limit": "as above",
    "mount_efivarfs": "a machine without EFI",
    "set_user_id": "root has nothing to gain",
    "make_disk": "a machine that lets nobody open the disk that is its root",
    "real_time": "a group of the cpu controller of cgroup v1 without a budget",
}
ABSENT = {"ENOSYS", "ENODEV", "ENOENT", "ENXIO", "ENOTTY", "EOPNOTSUPP"}


@pytest.mark.skipif(not IS_ROOT, reason="what root may do takes root")
def test_a_careless_launcher_lets_root(trying: Root, words: list[str]) -> None:
    """All that is refused inside succeeds for root whom nobody holds back, or the kernel has it not: so the attempts are real."""
    table = _table()
    devices = ["--proc", "--sys", "--dev", "--mount", "/dev/shm:/dev/shm"]
    (trying / "dev/mqueue").mkdir()
    won: dict[str, set[str]] = {name: set() for name in table}
    for more in ([], ["--host-processes"]):
        # In the host's pid namespace, pid 1 is the machine's: what is tried with it is for the other one.
        names = [
            name for name in table if not more or name.startswith(("host_", "session_", "user_keyring", "restart"))
        ]
        for chosen in [[name] for name in names] if more else [[]]:
            seen = careless("--root", trying, *devices, *more, "--", "/bin/tries", *words, *chosen, timeout=100)
            for name, outcome in _outcomes(seen.out).items():
                won[name].add(outcome)
    held = {}
    for name, outcomes in won.items():
        refused = table[name]["none"][0] - {"own", "reached", "empty"}
        counts = name not in NEVER and refused == table[name]["none"][0]
        if counts and not outcomes & {"own", "reached"} and not outcomes & ABSENT:
            held[name] = outcomes
    assert not held, held
    assert sum(bool(outcomes & {"own", "reached"}) for outcomes in won.values()) > 50, won
