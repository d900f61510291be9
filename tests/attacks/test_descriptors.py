"""Descriptors and the environment of the host must not be in a container, nor in a sibling of it.

tests/run: timeout=300
"""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from launchers import IN_GUEST, PROGRAMS, ROUNDS, Root, careless, careless_container, contained

import ringfence

NUMBERS = range(3, 65)
#: Those that are tried: where rounds are short, the first ones and the last.
TRIED = NUMBERS if ROUNDS >= 1000 else [*range(3, 10 if IN_GUEST else 14), 64]
SECRET = "untouched\n"


@contextlib.contextmanager
def _everywhere() -> Iterator[None]:
    """The host's / is open, and would survive an exec, at every free number."""
    host = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    taken = []
    try:
        for number in NUMBERS:
            try:
                os.fstat(number)
            except OSError:
                os.dup2(host, number, inheritable=True)
                taken.append(number)
        os.set_inheritable(host, True)
        yield
    finally:
        for number in {*taken, host}:
            os.close(number)


def _escapes(root: Root, secret: Path) -> list[tuple[list[str], str]]:
    """Programs and working directories that lead out where a descriptor of the host's / is open."""
    found = []
    for number in TRIED:
        top = f"/proc/self/fd/{number}"
        script, link = root / f"script{number}", root / f"link{number}"
        script.write_text(f"#!{top}{PROGRAMS}/look cat\n")
        script.chmod(0o755)
        link.symlink_to(top)
        found += [
            (["/bin/look", "cat", f".{secret}"], top),
            (["/bin/look", "cat", f".{secret}"], f"/{link.name}"),
            ([f"{top}{PROGRAMS}/look", "count"], "/"),
            ([f"/{link.name}{PROGRAMS}/look", "count"], "/"),
            ([f"/{script.name}", "count"], "/"),
        ]
    return found


def test_the_careless_launcher_leaks(root: Root, outside: Path) -> None:
    """Class 2, CVE-2024-21626: as a working directory and as a program, at start and at exec."""
    escapes = _escapes(root, outside / "file")
    won = set()
    switches = ["--root", root, "--proc", "--leak"]
    with careless_container(root, "--proc", program=["/bin/peek", "/nowhere"]) as (pid, _):
        for words in (switches, ["--slow", "1", "--join", str(pid)]):
            for argv, cwd in escapes:
                if "fd/7" in argv[0] + cwd or "link7" in argv[0] + cwd or argv[0].endswith("script7"):
                    seen = careless(*words, "--cwd", cwd, "--", *argv)
                    if seen.out in (SECRET, "0 0\n") or (argv[0].startswith("/script") and seen.status == 1):
                        won.add((words[0], argv[0], cwd))
    assert len(won) == 10, won


@pytest.mark.parametrize("when", ["start", "exec"])
def test_no_descriptor_leads_out(root: Root, outside: Path, idmap: str, when: str) -> None:
    """Class 2, CVE-2024-21626: with the host's / open at 3 to 64, inheritable, no working directory, program or interpreter is reached."""
    escapes = _escapes(root, outside / "file")
    with _everywhere(), ringfence.Container(rootfs=root, idmap=idmap) as container:
        for argv, cwd in escapes:
            if when == "exec":
                seen = contained(*argv, cwd=cwd, container=container)
            else:
                seen = contained(*argv, cwd=cwd, rootfs=root, idmap=idmap)
            assert not seen.started and not seen.out, (argv, cwd, seen)


@pytest.mark.parametrize("init", [True, False])
def test_three_descriptors_are_open(root: Root, idmap: str, init: bool) -> None:
    """Class 2: what is open inside, at start and at exec, beside a host that has everything open."""
    with _everywhere():
        seen = contained("/bin/look", "fds", rootfs=root, idmap=idmap, init=init)
        assert sorted(line.split(" ")[0] for line in seen.out.splitlines()) == ["0", "1", "2"], seen
        with ringfence.Container(rootfs=root, idmap=idmap) as container:
            seen = contained("/bin/look", "fds", container=container)
            assert sorted(line.split(" ")[0] for line in seen.out.splitlines()) == ["0", "1", "2"], seen


def test_the_environment_stays_outside(root: Root, idmap: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Extra: LD_PRELOAD and secrets of the host's environment (hooks and payloads of runc have had them)."""
    monkeypatch.setenv("LD_PRELOAD", "/attack.so")
    monkeypatch.setenv("SECRET", "mine")
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/notify")
    leaked = careless("--root", root, "--same-environment", "--", "/bin/look", "environment").out
    assert "LD_PRELOAD=/attack.so" in leaked and "SECRET=mine" in leaked
    with ringfence.Container(rootfs=root, idmap=idmap) as container:
        for seen in (
            contained("/bin/look", "environment", rootfs=root, idmap=idmap),
            contained("/bin/look", "environment", container=container),
        ):
            names = {line.partition("=")[0] for line in seen.out.splitlines()}
            assert names and not names & {"LD_PRELOAD", "SECRET", "NOTIFY_SOCKET"}, seen


def _program(directory: Path, name: str) -> int:
    """A program that is being written."""
    file = os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o755)
    os.write(file, (PROGRAMS / "look").read_bytes())
    return file


def test_a_careless_child_keeps_a_program_busy(tmp_path: Path) -> None:
    """Extra: a launcher that forks gives its child what other threads have open (hakoniwa#120, #123)."""
    file = _program(tmp_path, "look")
    child = os.fork()
    if child == 0:
        # As long as it sets its container up.
        time.sleep(0.5)
        os._exit(0)
    os.close(file)
    with pytest.raises(OSError) as caught:
        subprocess.run([tmp_path / "look", "count"], check=False)
    assert caught.value.errno == errno.ETXTBSY
    os.waitpid(child, 0)


@pytest.mark.parametrize("when", ["start", "exec"])
def test_starts_beside_each_other_hold_nothing_of_each_other(tmp_path: Path, idmap: str, when: str) -> None:
    """Extra: no ETXTBSY for programs that were just written, and no pipe that stays open, while other threads start containers, or processes in one."""
    wrong: list[object] = []
    waiting: list[ringfence.Process[bytes]] = []
    threads = 2 if IN_GUEST else 4

    def spawn(number: int) -> None:
        try:
            for i in range(max(ROUNDS // threads, 2)):
                name = f"look-{number}-{i}"
                file = _program(tmp_path, name)
                if i % 8 == number:
                    waiting.append(popen(["/v/wait"], stdin=ringfence.PIPE, stdout=ringfence.DEVNULL))
                os.close(file)
                seen = contained(f"/v/{name}", "count", timeout=60, **run)
                if seen.out != "0 0\n":
                    wrong.append(seen)
                (tmp_path / name).unlink()
        except BaseException as error:
            wrong.append(error)
            raise

    fields: dict[str, Any] = {"rootfs": "host", "idmap": idmap, "mounts": [f"{tmp_path}:/v"]}
    container = ringfence.Container(**fields)
    run: dict[str, Any] = {"container": container} if when == "exec" else fields
    popen: Any = container.popen if when == "exec" else partial(ringfence.popen, **fields)
    (tmp_path / "wait").write_text(f"#!{'/v/look'} wait\n")
    os.close(_program(tmp_path, "look"))
    (tmp_path / "wait").chmod(0o755)
    running = [threading.Thread(target=spawn, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert waiting and all(process.poll() is None for process in waiting)
    for process in waiting:
        process.kill()
        process.wait()
        assert process.stdin
        process.stdin.close()
        process.container.close()
    container.close()
    assert not wrong, wrong[:3]
