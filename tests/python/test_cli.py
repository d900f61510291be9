"""`python -m ringfence`: exit statuses, output, a terminal.

Each call is an interpreter of its own: minutes on an emulated processor.

tests/run: tier=machine as=root,user parts=2
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ringfence
from ringfence import __main__ as cli
from ringfence import _errors, _table

COMMAND = [sys.executable, "-X", "dev", "-W", "error", "-m", "ringfence"]


def call(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    options.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, **options)


# --- without a container


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["run"],
        ["exec"],
        ["ls"],
        ["plan"],
        ["doctor"],
        ["gc"],
        ["stop"],
        ["logs"],
        ["top"],
        ["stats"],
        ["beancounters"],
        ["cp"],
        ["volumes"],
        ["volume"],
        ["kill"],
        ["rm"],
        ["inspect"],
        ["completion"],
    ],
)
def test_help(command: list[str]) -> None:
    done = call(*command, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("usage: python -m ringfence")
    assert done.stderr == ""


def test_help_has_examples() -> None:
    shown = call("run", "--help").stdout
    assert "\nexamples:\n  run -it bash  " in shown and "\n  run --share-cwd " in shown


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_of_each_shell(shell: str) -> None:
    done = call("completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    assert "inspect" in done.stdout and "--share-cwd" in done.stdout.replace("-l share-cwd", "--share-cwd")
    if not shutil.which(shell):
        pytest.skip(f"no {shell} here, which would read it")
    subprocess.run([shell, "-n"], input=done.stdout, text=True, check=True, timeout=60)


def test_completion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call("completion", "csh").returncode == 125
    monkeypatch.setenv("RINGFENCE_VOLUMES", str(tmp_path / "volumes"))
    monkeypatch.chdir(tmp_path)
    script = call("completion", "bash").stdout

    def completed(*words: str) -> list[str]:
        ask = 'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _ringfence; printf "%s\\n" "${COMPREPLY[@]}"'
        done = subprocess.run(
            ["bash", "-c", f"{script}\n{ask}", "bash", "ringfence", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stderr == ""
        return done.stdout.split()

    assert completed("st") == ["stats", "stop"]
    assert "--memory" in completed("run", "--m") and "--signal" in completed("kill", "--s")
    assert completed("completion", "z") == ["zsh"]
    assert "sleep" in completed("run", "-m", "64M", "slee")
    assert completed("volume", "") == ["rm"]
    name = f"cli-complete-{os.getpid()}"
    container = ringfence.Container(["sleep", "60"], name=name, detach=True, mounts=["kept:/kept"])
    (tmp_path / name).touch()
    try:
        assert completed("cp", "-o", "0", name[:-1]) == [f"{name}:", name]
        assert completed("volume", "rm", "k") == ["kept"]
        assert completed("exec", name[:-1]) == [name]
        assert completed("stop", "--timeout", "1", name[:12]) == [name]
        assert completed("exec", name, name[:12]) == []
    finally:
        container.stop(0)
        ringfence.rm(name)


def test_commands_of_docker_lead_to_ours() -> None:
    for name, instead in [("pull", "rootfs"), ("port", "inspect"), ("restart", "run starts a new one")]:
        done = call(name, "x")
        assert done.returncode == 125
        assert f"ringfence: there is no {name}: " in done.stderr
        assert instead in done.stderr


def test_a_number_is_named_where_one_is_expected() -> None:
    assert "argument --tail: a whole number is expected, not 'x'\n" in call("logs", "--tail", "x", "db").stderr
    assert "argument --interval: seconds are expected, not 'x'\n" in call("stats", "--interval", "x").stderr


def test_a_terminal_needs_one() -> None:
    done = call("run", "-it", "sh")
    assert done.returncode == 125
    assert done.stderr == "ringfence: --tty: standard input is no terminal; leave -t out\n"


def test_a_closed_output_is_no_traceback() -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", '"$@" >&-', "sh", *COMMAND, "ls"], stderr=subprocess.PIPE, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_version() -> None:
    assert call("--version").stdout == f"ringfence {ringfence.__version__}\n"


@pytest.mark.parametrize(
    "arguments", [["nonsense"], [], ["run", "--nonsense"], ["run"], ["exec", "x"], ["run", "--set", "x", "true"]]
)
def test_wrong_usage_is_125(arguments: list[str]) -> None:
    done = call(*arguments)
    assert done.returncode == 125
    assert "ringfence: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--memory", "much"],
        ["--cpus", "-1"],
        ["--set", "memroy=1"],
        ["--set", "hostname="],
        ["--set", "hooks=x"],
        ["--spec", "/no/such/file"],
        ["--name", "a/b"],
    ],
)
def test_a_wrong_spec_is_125_and_named(arguments: list[str]) -> None:
    done = call("plan", *arguments, "true")
    if arguments[1] == "hostname=":
        assert done.returncode in (0, 125)
        return
    assert done.returncode == 125
    assert done.stderr.startswith("ringfence: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("number", "step", "status"),
    [
        (2, "execve", 127),
        (13, "execve", 126),
        (8, "execve", 126),
        (2, "open_tree", 125),
        (1, "clone3", 125),
    ],
)
def test_exit_statuses_of_errors(number: int, step: str, status: int) -> None:
    kind = {2: "not_found", 13: "permission_denied", 1: "permission_denied"}.get(number, "os")
    assert cli.exit_status(_errors.from_core("x", kind, number, None, step, None, None)) == status


def test_plan() -> None:
    done = call("plan", "--hostname", "box", "-v", "/usr:/mnt", "true")
    assert (done.returncode, done.stderr) == (0, "")
    assert "hostname" in done.stdout
    data = json.loads(call("plan", "--json", "true").stdout)
    assert data["steps"]


def test_plan_from_a_file(tmp_path: Path) -> None:
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps({"argv": ["true"], "hostname": "from-file", "mounts": ["/usr:/one"]}))
    done = call("plan", "--spec", str(spec), "-v", "/usr:/two")
    assert (done.returncode, done.stderr) == (0, "")
    assert "from-file" in done.stdout and "/one" in done.stdout and "/two" in done.stdout
    assert "other" in call("plan", "--spec", str(spec), "--hostname", "other").stdout


def test_doctor() -> None:
    done = call("doctor")
    assert done.stderr == ""
    assert done.stdout.startswith(" ") or "WHAT" in done.stdout
    assert "\x1b" not in done.stdout, "no colours in a pipe"
    assert json.loads(call("doctor", "--json").stdout)


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("by", ["rich", "itself"])
def test_tables(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Colours where they are wanted, and no code of others in the text."""
    if by == "rich":
        pytest.importorskip("rich")
    else:
        monkeypatch.setitem(sys.modules, "rich", None)

    def shown(screen: io.StringIO, **env: str) -> str:
        with monkeypatch.context() as patch:
            patch.delenv("NO_COLOR", raising=False)
            for name, value in {"TERM": "xterm", "COLUMNS": "60", **env}.items():
                patch.setenv(name, value)
            patch.setattr(sys, "stdout", screen)
            _table.show(("NAME", "STATE"), [[("[red]db", "dim"), ("up\x1b[2J", "green")], [("web", ""), ("", "")]])
        return screen.getvalue()

    text = re.compile(r"NAME +STATE *\n\[red\]db +up\\x1b\[2J *\nweb *\n")
    coloured = shown(Screen())
    assert "\x1b[32m" in coloured and text.fullmatch(re.sub(r"\x1b\[[0-9;]*m", "", coloured))
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", shown(Screen(), NO_COLOR="1"))
    for plain in (shown(Screen(), TERM="dumb"), shown(io.StringIO())):
        assert text.fullmatch(plain)


def test_colours_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for no_colour, is_green in (("", True), ("1", False)):
        monkeypatch.setenv("NO_COLOR", no_colour)
        terminal = Terminal(*COMMAND, "doctor", columns=200)
        try:
            assert terminal.wait() == 0
            assert ("\x1b[32m" in terminal.seen) == is_green and "WHAT" in terminal.seen
        finally:
            terminal.close()


def test_ls_and_gc() -> None:
    done = call("ls")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("NAME")
    assert isinstance(json.loads(call("ls", "--json").stdout), list)
    assert call("gc").returncode == 0
    assert set(json.loads(call("gc", "--json").stdout)) == {"processes", "cgroups", "files", "remaining"}


def test_doctor_says_a_remedy_once() -> None:
    for finding in json.loads(call("doctor", "--json").stdout)["findings"]:
        assert not finding["remedy"] or not finding["detail"].endswith("; " + finding["remedy"])


def test_a_closed_pipe_is_no_traceback() -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", '"$@" | true', "sh", *COMMAND, "plan", "true"], stderr=subprocess.PIPE, text=True, check=False
    )
    assert "Traceback" not in done.stderr


# --- with one


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["true"], 0),
        (["false"], 1),
        (["sh", "-c", "exit 42"], 42),
        (["sh", "-c", "kill -9 $$"], 137),
        (["sh", "-c", "kill -TERM $$"], 143),
        (["no-such-program"], 127),
        (["/no/such/program"], 127),
        (["/etc/passwd"], 126),
        (["/etc"], 126),
        (["--", "sh", "-c", "exit 3"], 3),
    ],
)
def test_run_has_the_status_of_the_command(command: list[str], status: int) -> None:
    done = call("run", *command)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr


def test_run_connects_the_streams() -> None:
    done = call("run", "sh", "-c", "cat; echo err >&2", stdin=None, input="in\n")
    assert (done.stdout, done.stderr) == ("in\n", "err\n")


def test_run_options(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("shared")
    script = 'hostname; echo "$A-$B-$C"; pwd; cat /data/file; id -u'
    arguments = ["--hostname", "box", "-e", "A=1", "-e", "B", "-e", "C", "-w", "/usr", "-v", f"{tmp_path}:/data"]
    arguments += ["-s", "env=C=3"]
    env = {**os.environ, "B": "2"}
    env.pop("C", None)
    done = call("run", *arguments, "sh", "-c", script.replace("hostname;", "uname -n;"), env=env)
    assert done.stdout == "box\n1-2-3\n/usr\nshared0\n", done.stderr


def test_share_cwd(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here")
    assert call("run", "--share-cwd", "cat", "file", cwd=tmp_path).stdout == "here"
    (tmp_path / "spec").write_text('{"argv": ["cat", "file"]}')
    assert call("run", "--share-cwd", "--spec", "spec", cwd=tmp_path).stdout == "here"


@pytest.mark.needs("memory", "pids", "cpus")
def test_limits() -> None:
    done = call("run", "-m", "32M", "-p", "32", "-c", "0.5", "tail", "/dev/zero")
    assert done.returncode == 137
    assert "out of memory" in done.stderr
    done = call("run", "--usage", "-m", "64M", "true")
    assert re.search(r"^memory_max 67108864$", done.stderr, re.M)


@pytest.mark.needs("memory", "pids")
def test_what_containers_use(tmp_path: Path) -> None:
    name = f"cli-stats-{os.getpid()}"
    assert call("run", "-d", "--name", name, "-m", "64M", "-p", "30", "sleep", "600").returncode == 0
    try:
        once = call("top", "--once", "--interval", "0.2", "--sort", "memory")
        assert (once.returncode, once.stderr) == (0, "")
        assert re.search(rf"^{name} .*64\.0M", once.stdout, re.M)
        assert re.search(r"^NAME +CPU .*MEMORY .*PIDS .*WAITS CPU +MEM +IO$", once.stdout, re.M)
        assert call("top", "-n", "2", "--interval", "0.2").stdout.count(name) == 2
        done = call("stats", name, "--json", "--interval", "0.2")
        (row,) = json.loads(done.stdout)
        assert (row["name"], row["usage"]["memory_max"], row["usage"]["pids_max"]) == (name, 64 << 20, 30)
        assert row["rates"]["cpus"] is not None and row["usage"]["net"]["lo"]["rx_bytes"] == 0
        assert re.search(rf"^{name} .*64\.0M", call("stats", "--interval", "0.2").stdout, re.M)
        table = call("beancounters", name)
        assert re.search(r"^numproc +[0-9]+ +[0-9]+ +- +30 +0 +items$", table.stdout, re.M)
        assert re.search(r"^numiptent .* none: ", table.stdout, re.M)
        assert len(json.loads(call("beancounters", name, "--json").stdout)) == 23
    finally:
        call("stop", "--timeout", "0", name)
    missing = call("stats", "no-such-container")
    assert missing.returncode == 125 and "no-such-container" in missing.stderr


def test_top_in_a_terminal(tmp_path: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm", LANG="C.UTF-8", PYTHONIOENCODING="utf-8")
        os.execv(COMMAND[0], [*COMMAND, "top", "--interval", "0.2"])
    try:
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 80, 0, 0))
        seen = b""
        deadline = time.monotonic() + 30
        while b"q:quit" not in seen and time.monotonic() < deadline:
            if select.select([terminal], [], [], 1)[0]:
                seen += os.read(terminal, 4096)
        os.write(terminal, b"mr")
        while b"smallest memory first" not in seen and time.monotonic() < deadline:
            if select.select([terminal], [], [], 1)[0]:
                seen += os.read(terminal, 4096)
        assert b"smallest memory first" in seen
        os.write(terminal, b"q")
        while time.monotonic() < deadline:
            try:
                more = os.read(terminal, 4096)
            except OSError:
                break
            if not more:
                break
            seen += more
        assert seen.startswith(b"\x1b[?1049h") and b"\x1b[?1049l" in seen[-100:]
    finally:
        os.close(terminal)
        _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_timeout_is_124() -> None:
    started = time.monotonic()
    assert call("run", "--timeout", "0.3", "sleep", "60").returncode == 124
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_signals_are_passed_on(number: int) -> None:
    script = f"trap 'echo caught; exit 9' {number}; echo ready; while :; do sleep 0.05; done"
    with subprocess.Popen([*COMMAND, "run", "sh", "-c", script], stdout=subprocess.PIPE, text=True) as p:
        assert p.stdout
        assert p.stdout.readline() == "ready\n"
        p.send_signal(number)
        assert p.stdout.read() == "caught\n"
    assert p.returncode == 9


def test_who_insists_ends_a_deaf_command() -> None:
    script = "trap '' INT; echo ready; while :; do sleep 0.05; done"
    with subprocess.Popen([*COMMAND, "run", "sh", "-c", script], stdout=subprocess.PIPE, text=True) as p:
        assert p.stdout
        p.stdout.readline()
        # Two that come at once are one to whoever receives them.
        for _ in range(100):
            p.send_signal(signal.SIGINT)
            try:
                p.wait(0.1)
                break
            except subprocess.TimeoutExpired:
                continue
    assert p.returncode == 137


def test_detached() -> None:
    name = f"python-cli-{os.getpid()}"
    done = call("run", "-d", "--name", name, "sh", "-c", "echo logged; exec sleep 60")
    assert (done.returncode, done.stdout) == (0, f"{name}\n"), done.stderr
    try:
        (entry,) = [e for e in json.loads(call("ls", "--json").stdout) if e["name"] == name]
        assert entry["state"] == "running"
        assert name in call("ls").stdout
        assert call("exec", name, "sh", "-c", "exit 4").returncode == 4
        assert call("exec", "-e", "A=1", "-w", "/usr", name, "sh", "-c", "echo $A; pwd").stdout == "1\n/usr\n"
        assert call("exec", name, "no-such-program").returncode == 127
    finally:
        stopped = call("stop", "--timeout", "1", name)
    assert stopped.returncode == 0, stopped.stderr
    assert call("logs", name).stdout == "logged\n"
    call("gc")
    done = call("exec", name, "true")
    assert done.returncode == 125
    assert name in done.stderr


def test_kill_rm_and_inspect() -> None:
    name = f"python-cli-rm-{os.getpid()}"
    script = "trap 'echo hup' HUP; echo ready; while :; do sleep 0.05; done"
    assert call("run", "-d", "--name", name, "--hostname", "box", "sh", "-c", script).returncode == 0
    try:
        (told,) = json.loads(call("inspect", name).stdout)
        assert (told["name"], told["state"], told["spec"]["hostname"]) == (name, "running", "box")
        assert told["spec"]["argv"][0] == "sh" and told["info"]["id"] == told["id"] and told["pid"] > 0
        assert name in call("ls", "-q").stdout.split()
        assert call("kill", "-s", "hup", name).returncode == 0
        assert call("kill", "-s", "nonsense", name).returncode == 125
        busy = call("rm", name)
        assert busy.returncode == 125 and "it runs (EBUSY); stop it, or remove it by force" in busy.stderr
        # Each of them, whatever became of the others.
        both = call("kill", "no-such-container", name)
        assert both.returncode == 125 and "no-such-container" in both.stderr
        ringfence.by_name(name).wait(60)
        assert "hup" in call("logs", name).stdout
        (ended,) = json.loads(call("inspect", name).stdout)
        assert (ended["state"], ended["usage"]) == ("ended", None) and ended["exit_code"] in (None, 137)
        assert call("rm", name).returncode == 0
        gone = call("rm", name)
        assert gone.returncode == 125 and "no container is named" in gone.stderr
        assert json.loads(call("inspect", name).stdout) == []
        # By force, what runs.
        assert call("run", "-d", "--name", name, "sleep", "600").returncode == 0
        assert call("rm", "-f", name).returncode == 0
    finally:
        try:
            ringfence.rm(name, force=True)
        except FileNotFoundError:
            pass
    assert name not in call("ls", "-q").stdout.split()
    assert "forgotten by rm" in call("run", "-d", "--rm", "--name", name, "true").stderr


# --- a terminal


class Terminal:
    """A program on a terminal of its own, with job control of its own."""

    def __init__(self, *command: str, rows: int = 24, columns: int = 80) -> None:
        self.seen = ""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execv(command[0], command)
        self.resize(rows, columns)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def expect(self, text: str, timeout: float = 20) -> str:
        """Everything up to and with the text."""
        until = time.monotonic() + timeout
        while text not in self.seen:
            ready, _, _ = select.select([self.fd], [], [], max(0.0, until - time.monotonic()))
            try:
                data = os.read(self.fd, 65536) if ready else b""
            except OSError:
                data = b""
            if not data:
                raise AssertionError(f"{text!r} did not come: {self.seen!r}")
            self.seen += data.decode(errors="replace")
        before, _, self.seen = self.seen.partition(text)
        return before + text

    def raw(self) -> bool:
        return not termios.tcgetattr(self.fd)[3] & termios.ICANON

    def until_raw(self, timeout: float = 20) -> None:
        until = time.monotonic() + timeout
        while not self.raw():
            assert time.monotonic() < until, self.seen
            time.sleep(0.02)

    def wait(self, timeout: float = 20) -> int:
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            ready, _, _ = select.select([self.fd], [], [], 0.02)
            if ready:
                try:
                    self.seen += os.read(self.fd, 65536).decode(errors="replace")
                except OSError:
                    pass
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
        raise AssertionError(f"it did not end: {self.seen!r}")

    def close(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)


@pytest.fixture
def shell() -> Iterator[Terminal]:
    terminal = Terminal(*COMMAND, "run", "-it", "-e", "PS1=$ ", "sh", rows=41, columns=103)
    yield terminal
    terminal.close()


pytestmark = pytest.mark.filterwarnings("ignore:.*forkpty.*:DeprecationWarning")


def lines_of_top(terminal: Terminal) -> list[str]:
    """The next whole picture, without colours."""
    text = terminal.expect("\x1b[J").rpartition("\x1b[H")[2]
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).split("\r\n")


@pytest.mark.needs("memory")
def test_top_sorts_and_draws_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8")
    # By name the small one would be the first.
    large, small = f"top-z-{os.getpid()}", f"top-a-{os.getpid()}"
    made = [ringfence.Container(name=name, detach=True, memory="64M", swap=0) for name in (large, small)]
    terminal = None
    try:
        made[0].run(["sh", "-c", "head -c 40000000 /dev/zero > /dev/shm/a"], check=True)
        terminal = Terminal(*COMMAND, "top", "--interval", "0.2", rows=40, columns=120)

        def rows(order: str) -> list[str]:
            """The two, from above, of a picture in that order."""
            deadline = time.monotonic() + 60
            while True:
                lines = lines_of_top(terminal)
                found = [line for line in lines if line.startswith((large, small))]
                # What is read may end within a character.
                if order in lines[-1] and len(found) == 2 and "\ufffd" not in "".join(found):
                    return found
                assert time.monotonic() < deadline, lines

        terminal.expect("q:quit")
        terminal.type("m")
        above, below = rows("largest memory first")
        assert above.startswith(large) and below.startswith(small)
        for row, least, most in ((above, 4, 8), (below, 0, 2)):
            # Usage, a bar of eight characters in eighths, the limit.
            found = re.search(r" ([0-9.]+)([KM]) ([\u2588-\u258f\u00b7 ]{8}) +64\.0M ", row)
            assert found, row
            bar = found[3]
            assert re.fullmatch("\u2588*[\u2589-\u258f ]?\u00b7*", bar), row
            assert least <= bar.count("\u2588") <= most, row
            eighths = float(found[1]) / (64 if found[2] == "M" else 64 << 10) * 64
            drawn = 8 * bar.count("\u2588") + sum(0x2590 - ord(c) for c in bar if "\u2589" <= c <= "\u258f")
            assert abs(drawn - eighths) <= 1, row
        terminal.type("r")
        above, below = rows("smallest memory first")
        assert above.startswith(small) and below.startswith(large)
        terminal.type("q")
        assert terminal.wait() == 0
    finally:
        if terminal:
            terminal.close()
        for container in made:
            container.stop(0)
        ringfence.gc()


def test_an_interactive_shell(shell: Terminal) -> None:
    shell.expect("$ ")
    assert shell.raw()
    shell.type("tty; stty size; echo $((6*7))\r")
    shell.expect("/dev/pts/")
    shell.expect("41 103")
    shell.expect("42")
    shell.type("exit 6\r")
    assert shell.wait() == 6
    assert not shell.raw()


def test_the_window_size_follows(shell: Terminal) -> None:
    shell.expect("$ ")
    shell.resize(50, 120)
    shell.type("until test \"$(stty size)\" = '50 120'; do sleep 0.05; done; echo size-$((1+1))\r")
    shell.expect("size-2")
    shell.type("exit\r")
    assert shell.wait() == 0


def test_ctrl_c_is_the_containers(shell: Terminal) -> None:
    shell.expect("$ ")
    shell.type("echo run-$((1+1)); sleep 60; echo status $?\r")
    shell.expect("run-2")
    time.sleep(0.3)
    shell.type("\x03")
    shell.expect("$ ")
    shell.type("echo still-$((1+1))\r")
    shell.expect("still-2")
    shell.type("exit 0\r")
    assert shell.wait() == 0


def test_job_control_inside(shell: Terminal) -> None:
    shell.expect("$ ")
    shell.type("echo run-$((1+1)); sleep 60\r")
    shell.expect("run-2")
    time.sleep(0.3)
    shell.type("\x1a")
    shell.expect("Stopped")
    shell.expect("$ ")
    shell.type("jobs\r")
    shell.expect("sleep 60")
    shell.type("kill %1; exit 0\r")
    time.sleep(0.2)
    shell.type("exit 0\r")
    assert shell.wait() == 0


def test_end_of_input(shell: Terminal) -> None:
    shell.expect("$ ")
    shell.type("\x04")
    assert shell.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_terminal_is_restored_when_a_signal_ends_it(shell: Terminal, number: int) -> None:
    shell.expect("$ ")
    assert shell.raw()
    shell.type("trap 'exit 7' TERM HUP; echo set-$((1+1)); while :; do sleep 0.05; done\r")
    shell.expect("set-2")
    os.kill(shell.pid, number)
    assert shell.wait() == 7
    assert not shell.raw()


def test_the_terminal_is_restored_when_it_is_stopped() -> None:
    # A shell with job control around it, as at a desk: what stops is a job in the foreground.
    terminal = Terminal("/bin/sh", "-i")
    try:
        terminal.type("PS1='out''er> '\r")
        terminal.expect("outer> ")
        command = " ".join(COMMAND)
        # What is typed is echoed, and must not look like the prompt.
        terminal.type(f"{command} run -it -e PS1='in''ner> ' sh\r")
        terminal.expect("inner> ")
        assert terminal.raw()
        group = os.tcgetpgrp(terminal.fd)
        os.kill(group, signal.SIGTSTP)
        terminal.expect("Stopped")
        terminal.expect("outer> ")
        terminal.type("echo cooked-$((1+1))\r")
        terminal.expect("cooked-2")
        terminal.type("fg\r")
        terminal.until_raw()
        terminal.type("echo back-$((2+2))\r")
        terminal.expect("back-4")
        terminal.type("exit 5\r")
        terminal.expect("outer> ")
        terminal.type("echo status-$?\r")
        terminal.expect("status-5")
        terminal.type("exit\r")
        terminal.wait()
    finally:
        terminal.close()


def test_ctrl_z_without_a_terminal_of_its_own(tmp_path: Path) -> None:
    """The command stops with the one that stands for it, and goes on with it."""
    ticks = tmp_path / "ticks"
    ticks.touch()
    terminal = Terminal("/bin/sh", "-i")
    try:
        terminal.type("PS1='out''er> '\r")
        terminal.expect("outer> ")
        loop = "while :; do echo >>/ticks; sleep 0.02; done"
        terminal.type(f"{' '.join(COMMAND)} run -v {ticks}:/ticks:rw sh -c '{loop}'\r")

        def more(than: int) -> bool:
            return ticks.stat().st_size > than

        def until(ticking: bool) -> None:
            limit = time.monotonic() + 20
            while True:
                before = ticks.stat().st_size
                time.sleep(0.3)
                if more(before) == ticking:
                    return
                assert time.monotonic() < limit, terminal.seen

        until(True)
        terminal.type("\x1a")
        terminal.expect("Stopped")
        terminal.expect("outer> ")
        until(False)
        terminal.type("fg\r")
        until(True)
        terminal.type("\x03")
        terminal.expect("outer> ")
        terminal.type("echo status-$?\r")
        terminal.expect("status-130")
        terminal.type("exit\r")
        terminal.wait()
    finally:
        terminal.close()


def test_large_output_arrives_whole() -> None:
    terminal = Terminal(*COMMAND, "run", "-t", "sh", "-c", "seq 1 20000; echo the-end")
    try:
        seen = terminal.expect("the-end")
        assert [int(x) for x in re.findall(r"\d+", seen)] == list(range(1, 20001))
        assert terminal.wait() == 0
    finally:
        terminal.close()


def test_exec_with_a_terminal() -> None:
    name = f"python-cli-tty-{os.getpid()}"
    c = ringfence.Container(["sleep", "60"], name=name, detach=True)
    try:
        terminal = Terminal(*COMMAND, "exec", "-it", name, "sh", "-c", "stty size; exit 3")
        try:
            terminal.expect("24 80")
            assert terminal.wait() == 3
        finally:
            terminal.close()
    finally:
        c.stop()
    ringfence.gc()


def test_cp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RINGFENCE_VOLUMES", str(tmp_path / "volumes"))
    (tmp_path / "tree/sub").mkdir(parents=True)
    (tmp_path / "tree/sub/file").write_text("content")
    os.mkfifo(tmp_path / "tree/fifo")
    name = f"cli-cp-{os.getpid()}"
    with ringfence.Container(name=name, detach=True, mounts=["kept:/kept"]) as c:
        try:
            refused = call("cp", str(tmp_path / "tree"), f"{name}:/kept")
            assert refused.returncode == 125 and "tree/fifo" in refused.stderr and "skip" in refused.stderr
            done = call("cp", "--skip-special", "-o", "0:0", f"{tmp_path}/tree", f"{name}:/kept/")
            assert (done.returncode, done.stdout) == (0, ""), done.stderr
            assert "left out 1" in done.stderr
            assert call("cp", f"{name}:/kept/tree/sub", str(tmp_path / "back")).returncode == 0
            assert (tmp_path / "back/file").read_text() == "content"
            for wrong in (
                ["a", "b"],
                [f"{name}:/a", f"{name}:/b"],
                ["-o", "0", f"{name}:/kept", "x"],
                [f"{name}:/no", "x"],
            ):
                assert call("cp", *wrong).returncode == 125
            assert "in use" in call("volumes").stdout and call("volumes", "-q").stdout == "kept\n"
            assert call("volume", "rm", "kept").returncode == 125
        finally:
            c.stop(0)
            ringfence.gc()
    assert [v["name"] for v in json.loads(call("volumes", "--json").stdout)] == ["kept"]
    assert call("volume", "rm", "kept").returncode == 0
    assert json.loads(call("volumes", "--json").stdout) == []
