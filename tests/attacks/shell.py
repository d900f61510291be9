"""A session leader on a terminal, its standard input, that starts an attacker there as an interactive shell does.

    shell.py LAUNCHER ROOT ARGUMENT...       LAUNCHER: careless, start:IDMAP, exec:IDMAP, terminal:IDMAP

It prints what of itself was reached: `signalled`, `background` (it is no more the terminal's foreground), `typed TEXT`.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
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


def main(launcher: str, root: str, argv: list[str]) -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    settings = termios.tcgetattr(0)
    settings[3] &= ~termios.ECHO
    termios.tcsetattr(0, termios.TCSANOW, settings)
    found = []
    signal.signal(signal.SIGUSR1, lambda number, frame: found.append("signalled"))
    _launch(launcher, root, argv)
    time.sleep(0.05)
    if os.tcgetpgrp(0) != os.getpgrp():
        found.append("background")
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        os.tcsetpgrp(0, os.getpgrp())
    if select.select([0], [], [], 0)[0]:
        found.append("typed " + os.read(0, 100).decode().rstrip())
    print(" ".join(found))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
