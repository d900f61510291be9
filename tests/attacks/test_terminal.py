"""The terminal and the process group of the caller.

tests/run: timeout=120
"""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from launchers import Root

ATTACKS = {
    "push": (["/bin/terminal", "push", "echo pwned\n"], "typed echo pwned"),
    "group": (["/bin/terminal", "group", str(int(signal.SIGUSR1))], "signalled"),
    "front": (["/bin/terminal", "front"], "background"),
    "discipline": (["/bin/terminal", "discipline"], "discipline"),
    "settings": (["/bin/terminal", "settings"], "set"),
    # What root of the host can do with a terminal that is its caller's.
    "take": (["/bin/terminal", "take"], "taken"),
    "console": (["/bin/terminal", "console"], ""),
    "paste": (["/bin/terminal", "paste"], ""),
}
#: What a terminal that is inherited can be made to do: the page about threats says so, and what to do about it.
GIVEN = {"discipline": "discipline", "settings": "set"}


def _shell(launcher: str, root: Root) -> tuple[dict[str, str], str]:
    """What of a shell was reached by what it started on its terminal, and what was printed there."""
    master, slave = pty.openpty()
    printed: list[bytes] = []
    over = threading.Event()

    def read() -> None:
        # Not until nobody has the other end any more: what was made the machine's console has it until this end is closed.
        while True:
            if not select.select([master], [], [], 0.2)[0]:
                if over.is_set():
                    return
                continue
            try:
                printed.append(os.read(master, 4096))
            except OSError:
                return

    reader = threading.Thread(target=read)
    try:
        attacks = json.dumps({name: argv for name, (argv, _) in ATTACKS.items()})
        command = [sys.executable, str(Path(__file__).with_name("shell.py")), launcher, str(root), attacks]
        shell = subprocess.Popen(command, stdin=slave, stdout=subprocess.PIPE, text=True, start_new_session=True)
        os.close(slave)
        reader.start()
        out, _ = shell.communicate(timeout=100)
        assert shell.returncode == 0
    finally:
        over.set()
        reader.join()
        os.close(master)
    return json.loads(out), b"".join(printed).decode()


def test_a_careless_terminal(root: Root) -> None:
    """Class 15, CVE-2017-5226: without a session of its own the payload types for its caller, signals it, takes the foreground.

    Since Linux 6.2, where dev.tty.legacy_tiocsti is 0, TIOCSTI takes CAP_SYS_ADMIN: the kernel saves an ordinary user's launcher.
    """
    reached = {name: found for name, (_, found) in ATTACKS.items()}
    if os.geteuid() != 0 and Path("/proc/sys/dev/tty/legacy_tiocsti").read_text() == "0\n":
        reached["push"] = ""
    if os.geteuid() != 0:
        reached["take"] = ""
    found, printed = _shell("careless", root)
    assert found == reached, printed
    # No pty is a virtual console, for which there is the filter; the kernel's messages take root of the host.
    assert "paste: ENOTTY" in printed, printed
    assert f"console: {'done' if os.geteuid() == 0 else 'EPERM'}" in printed, printed


@pytest.mark.parametrize("how", ["start", "exec", "terminal"])
def test_terminals_are_left_alone(root: Root, idmap: str, how: str) -> None:
    """Class 15, CVE-2017-5226: with the caller's terminal as its streams, at start and at exec, and with a terminal of its own."""
    found, printed = _shell(f"{how}:{idmap}", root)
    given = GIVEN if how != "terminal" else {}
    assert found == {name: given.get(name, "") for name in ATTACKS}, (found, printed)
    if how != "terminal":
        # It is not this terminal's session, and cannot make itself.
        for name in ("push", "front", "take", "console", "paste"):
            assert f"{name}: EPERM" in printed or f"{name}: ENOTTY" in printed, printed
        assert "paste: EPERM" in printed, printed
