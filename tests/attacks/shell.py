"""A session leader on a terminal, its standard input, that starts attackers there one after the other, as an interactive shell does.

    shell.py LAUNCHER ROOT ATTACKS       LAUNCHER: careless, start:IDMAP, exec:IDMAP, terminal:IDMAP

ATTACKS is an object in JSON: name -> arguments. It prints one: name -> what of itself was reached: `signalled`, `background` (it is no
more the terminal's foreground), `typed TEXT`, `taken` (it has no terminal any more), `discipline`, `set` (echo, size).
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import ringfence


def _launch(launcher: str, root: str, argv: list[str]) -> None:
    how, _, idmap = launcher.partition(":")
    if how == "careless":
        program = os.path.join(os.environ["RINGFENCE_SUITES"], "attacks", "careless")
        command = [program, "--root", root, "--same-session", "--", *argv]
        subprocess.run(command, stdin=0, stdout=0, stderr=0, timeout=30, check=False)
        return
    if how == "start":
        ringfence.run(argv, rootfs=root, idmap=idmap, stdin=0, stdout=0, stderr=0, timeout=30)
        return
    with ringfence.Container(rootfs=root, idmap=idmap) as container:
        if how == "exec":
            container.run(argv, stdin=0, stdout=0, stderr=0, timeout=30)
        else:
            with container.popen(argv, terminal=True) as process:
                process.wait(30)


TIOCGETD = 0x5424
TIOCSETD = 0x5423


def _discipline(number: int | None = None) -> int:
    """The terminal's, or another one for it."""
    value = struct.pack("i", number or 0)
    return int(struct.unpack("i", fcntl.ioctl(0, TIOCGETD if number is None else TIOCSETD, value))[0])


def _changes(settings: list[object], size: os.terminal_size) -> list[str]:
    """What has been made of the terminal itself; it is put right."""
    found = []
    if _discipline() != 0:
        found.append("discipline")
        _discipline(0)
    if termios.tcgetattr(0)[3] != settings[3] or os.get_terminal_size(0) != size:
        found.append("set")
        termios.tcsetattr(0, termios.TCSANOW, settings)
        termios.tcsetwinsize(0, (size.lines, size.columns))
    return found


def main(launcher: str, root: str, attacks: dict[str, list[str]]) -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    settings = termios.tcgetattr(0)
    settings[3] &= ~termios.ECHO
    termios.tcsetattr(0, termios.TCSANOW, settings)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    settings, size = termios.tcgetattr(0), os.get_terminal_size(0)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    results = {}
    for name, argv in attacks.items():
        found = []
        signal.signal(signal.SIGUSR1, lambda number, frame, found=found: found.append("signalled"))
        _launch(launcher, root, argv)
        time.sleep(0.05)
        try:
            front = os.tcgetpgrp(0)
        except OSError:
            # ENOTTY: it is another session's.
            found.append("taken")
            fcntl.ioctl(0, termios.TIOCSCTTY, 1)
            front = os.getpgrp()
        found += _changes(settings, size)
        if front != os.getpgrp():
            found.append("background")
            os.tcsetpgrp(0, os.getpgrp())
        if select.select([0], [], [], 0)[0]:
            found.append("typed " + os.read(0, 100).decode().rstrip())
        results[name] = " ".join(found)
    print(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
