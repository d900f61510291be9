"""A session leader on a terminal, its standard input, that starts attackers there one after the other, as an interactive shell does.

    shell.py LAUNCHER ROOT ATTACKS       LAUNCHER: careless, start:IDMAP, exec:IDMAP, terminal:IDMAP

ATTACKS is an object in JSON: name -> arguments. It prints one: name -> what of itself was reached: `signalled`, `background` (it is no
more the terminal's foreground), `typed TEXT`.
"""

from __future__ import annotations

import fcntl
import json
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


def main(launcher: str, root: str, attacks: dict[str, list[str]]) -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    settings = termios.tcgetattr(0)
    settings[3] &= ~termios.ECHO
    termios.tcsetattr(0, termios.TCSANOW, settings)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    results = {}
    for name, argv in attacks.items():
        found = []
        signal.signal(signal.SIGUSR1, lambda number, frame, found=found: found.append("signalled"))
        _launch(launcher, root, argv)
        time.sleep(0.05)
        if os.tcgetpgrp(0) != os.getpgrp():
            found.append("background")
            os.tcsetpgrp(0, os.getpgrp())
        if select.select([0], [], [], 0)[0]:
            found.append("typed " + os.read(0, 100).decode().rstrip())
        results[name] = " ".join(found)
    print(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
