"""The contract of `subprocess`, by making the same calls through both, and the table of differences, line by line.

Hundreds of interpreters are started: on an emulated processor that alone would take most of an hour.

tests/run: tier=machine as=root,user parts=2
"""

from __future__ import annotations

import gc
import importlib.resources
import io
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ringfence

SH = "/bin/sh"


class Both:
    """One of the two modules, with what makes the calls comparable: the same small environment, the same directory."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.popen_call = subprocess.Popen if module is subprocess else module.popen

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)

    def _common(self, options: dict[str, Any]) -> dict[str, Any]:
        if "env" not in options:
            options["env"] = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
        options.setdefault("cwd", "/")
        return options

    def run(self, args: Any, **options: Any) -> Any:
        return self.module.run(args, **self._common(options))

    def popen(self, args: Any, *more: Any, **options: Any) -> Any:
        return self.popen_call(args, *more, **self._common(options))


def outcome(call: Callable[[Both], Any], both: Both) -> Any:
    """What a call gives or raises, in a form that can be compared."""
    try:
        return ("value", call(both))
    except subprocess.TimeoutExpired as error:
        # By version, subprocess shows what was asked for or what was left of it.
        return ("TimeoutExpired", error.cmd, round(error.timeout, 1), error.output, error.stdout, error.stderr)
    except subprocess.CalledProcessError as error:
        return ("CalledProcessError", error.cmd, error.returncode, error.output, error.stderr)
    except (TypeError, ValueError, subprocess.SubprocessError, AttributeError, LookupError) as error:
        builtin = next(
            c
            for c in (TypeError, ValueError, subprocess.SubprocessError, AttributeError, LookupError)
            if isinstance(error, c)
        )
        return ("error", builtin.__name__, str(error) if type(error) is ValueError else "")
    except OSError as error:
        builtin = next(c for c in type(error).__mro__ if c.__module__ == "builtins")
        return ("OSError", builtin.__name__, error.errno)


def compare(call: Callable[[Both], Any], ours: Both) -> None:
    seen, expected = outcome(call, ours), outcome(call, Both(subprocess))
    if seen[0] == "error" and not seen[2]:
        # The core's own words, which name the field.
        expected = (*expected[:2], "")
    assert seen == expected


def done(result: Any) -> Any:
    return (result.args, result.returncode, result.stdout, result.stderr)


SAME: dict[str, Callable[[Both], Any]] = {}


def same(call: Callable[[Both], Any]) -> Callable[[Both], Any]:
    SAME[call.__name__] = call
    return call


# --- run


@same
def args_list(m: Both) -> Any:
    return done(m.run(["echo", "a b", "$HOME", "*"], capture_output=True))


@same
def args_tuple_bytes_and_path(m: Both) -> Any:
    return done(m.run((Path("/bin/echo"), b"x", "y"), capture_output=True))


@same
def args_iterator(m: Both) -> Any:
    return m.run(iter(["echo", "x"]), capture_output=True).stdout


@same
def args_string_is_one_program(m: Both) -> Any:
    return done(m.run("true"))


@same
def args_string_with_blanks(m: Both) -> Any:
    return m.run("echo x")


@same
def args_of_a_wrong_type(m: Both) -> Any:
    return m.run(["echo", 5])


@same
def args_number(m: Both) -> Any:
    return m.run(5)


@same
def not_utf8(m: Both) -> Any:
    return done(m.run(["printf", "%s", b"\xff\xfe"], capture_output=True))


@same
def shell_string(m: Both) -> Any:
    return done(m.run("echo a; echo b >&2; exit 3", shell=True, capture_output=True, text=True))


@same
def shell_list(m: Both) -> Any:
    return done(m.run(['echo "$0-$1"', "x", "y"], shell=True, capture_output=True))


@same
def shell_with_executable(m: Both) -> Any:
    return done(m.run("echo $0", shell=True, executable="/bin/bash", capture_output=True))


@same
def exit_codes(m: Both) -> Any:
    return [m.run([SH, "-c", f"exit {n}"]).returncode for n in (0, 1, 7, 126, 255)]


@same
def killed_by_a_signal(m: Both) -> Any:
    return [m.run([SH, "-c", f"kill -{n} $$"]).returncode for n in (9, 15, 6)]


@same
def input_bytes(m: Both) -> Any:
    return done(m.run(["cat"], input=b"abc\n", capture_output=True))


@same
def input_text(m: Both) -> Any:
    return done(m.run(["cat"], input="äöü\r\nx\ry\n", capture_output=True, text=True))


@same
def input_empty(m: Both) -> Any:
    return done(m.run(["cat"], input=b"", capture_output=True))


@same
def input_large(m: Both) -> Any:
    return m.run(["cat"], input=b"x" * 3_000_000, stdout=m.PIPE).stdout == b"x" * 3_000_000


@same
def input_that_nobody_reads(m: Both) -> Any:
    return done(m.run(["true"], input=b"x" * 1_000_000, capture_output=True))


@same
def input_and_stdin(m: Both) -> Any:
    return m.run(["cat"], input=b"", stdin=m.PIPE)


@same
def text_where_bytes_are_expected(m: Both) -> Any:
    return m.run(["cat"], input="text", capture_output=True)


@same
def capture_and_stdout(m: Both) -> Any:
    return m.run(["true"], capture_output=True, stdout=m.PIPE)


@same
def nothing_captured(m: Both) -> Any:
    return done(m.run(["true"]))


@same
def stdout_alone(m: Both) -> Any:
    return done(m.run([SH, "-c", "echo out; echo err >&2"], stdout=m.PIPE, stderr=m.DEVNULL))


@same
def stderr_into_stdout(m: Both) -> Any:
    return done(m.run([SH, "-c", "echo out; echo err >&2"], stdout=m.PIPE, stderr=m.STDOUT))


@same
def stderr_into_a_file_that_is_stdout(m: Both) -> Any:
    read, write = os.pipe()
    with open(read, "rb") as reader:
        m.run([SH, "-c", "echo out; echo err >&2"], stdout=write, stderr=m.STDOUT)
        os.close(write)
        return reader.read()


@same
def stdin_devnull(m: Both) -> Any:
    return done(m.run(["cat"], stdin=m.DEVNULL, capture_output=True))


@same
def streams_are_descriptors(m: Both) -> Any:
    read, write = os.pipe()
    os.write(write, b"from a pipe")
    os.close(write)
    try:
        return done(m.run(["cat"], stdin=read, capture_output=True))
    finally:
        os.close(read)


@same
def stream_without_a_descriptor(m: Both) -> Any:
    return m.run(["true"], stdout=io.BytesIO())


@same
def stream_of_a_wrong_type(m: Both) -> Any:
    return m.run(["true"], stdout=1.5)


@same
def large_output_on_both(m: Both) -> Any:
    result = m.run([SH, "-c", "head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2"], capture_output=True)
    return len(result.stdout), len(result.stderr)


@same
def text_mode_translates_newlines(m: Both) -> Any:
    return done(m.run(["printf", "a\\r\\nb\\rc\\n"], capture_output=True, text=True))


@same
def universal_newlines(m: Both) -> Any:
    return done(m.run(["printf", "a\\r\\n"], stdout=m.PIPE, universal_newlines=True))


@same
def encoding(m: Both) -> Any:
    return done(m.run(["printf", "\\344"], stdout=m.PIPE, encoding="latin-1"))


@same
def errors(m: Both) -> Any:
    return done(m.run(["printf", "\\377"], stdout=m.PIPE, encoding="ascii", errors="replace"))


@same
def undecodable(m: Both) -> Any:
    return m.run(["printf", "\\377"], stdout=m.PIPE, encoding="ascii")


@same
def text_and_universal_newlines_disagree(m: Both) -> Any:
    return m.run(["true"], text=True, universal_newlines=False)


@same
def check_passes(m: Both) -> Any:
    return done(m.run(["true"], check=True))


@same
def check_fails(m: Both) -> Any:
    return m.run([SH, "-c", "echo out; echo err >&2; exit 3"], check=True, capture_output=True)


@same
def check_fails_by_a_signal(m: Both) -> Any:
    return m.run([SH, "-c", "kill -9 $$"], check=True)


@same
def check_returncode_of_a_result(m: Both) -> Any:
    return m.run(["false"]).check_returncode()


@same
def timeout_without_output(m: Both) -> Any:
    return m.run(["sleep", "20"], timeout=0.2)


@same
def timeout_with_output(m: Both) -> Any:
    return m.run([SH, "-c", "echo out; echo err >&2; exec sleep 20"], timeout=0.5, capture_output=True)


@same
def timeout_with_text(m: Both) -> Any:
    return m.run([SH, "-c", "echo out; exec sleep 20"], timeout=0.5, stdout=m.PIPE, text=True)


@same
def timeout_not_reached(m: Both) -> Any:
    return done(m.run(["echo", "x"], timeout=30, capture_output=True))


@same
def missing_program(m: Both) -> Any:
    return m.run(["no-such-program"])


@same
def missing_program_with_a_path(m: Both) -> Any:
    return m.run(["/no/such/program"])


@same
def program_that_is_not_executable(m: Both) -> Any:
    return m.run(["/etc/passwd"])


@same
def program_that_is_a_directory(m: Both) -> Any:
    return m.run(["/etc"])


@same
def program_below_a_file(m: Both) -> Any:
    return m.run(["/etc/passwd/x"])


@same
def missing_cwd(m: Both) -> Any:
    return m.run(["true"], cwd="/no/such/directory")


@same
def cwd_that_is_a_file(m: Both) -> Any:
    return m.run(["true"], cwd="/etc/passwd")


@same
def cwd(m: Both) -> Any:
    return done(m.run(["pwd"], cwd=Path("/usr/bin"), capture_output=True))


@same
def nul_in_an_argument(m: Both) -> Any:
    kind, name, _ = outcome(lambda m: m.run(["echo", "a\0b"]), m)
    return kind, name


@same
def nul_in_the_environment(m: Both) -> Any:
    kind, name, _ = outcome(lambda m: m.run(["true"], env={"A": "a\0b"}), m)
    return kind, name


@same
def environment_name_with_equals(m: Both) -> Any:
    return m.run(["true"], env={"A=B": "x"})


@same
def environment(m: Both) -> Any:
    env = {"A": "1", b"B": b"\xff", "PATH": "/usr/bin:/bin"}
    return m.run([SH, "-c", 'printf "%s" "$A$B"'], env=env, stdout=m.PIPE).stdout


@same
def umask(m: Both) -> Any:
    return done(m.run([SH, "-c", "umask"], umask=0o27, capture_output=True))


@same
def pass_fds(m: Both) -> Any:
    read, write = os.pipe()
    try:
        m.run(["bash", "-c", f"echo hello >&{write}"], pass_fds=[write])
    finally:
        os.close(write)
    with open(read, "rb") as reader:
        return reader.read()


@same
def nothing_else_is_inherited(m: Both) -> Any:
    read, write = os.pipe()
    os.set_inheritable(write, True)
    try:
        return m.run([SH, "-c", f"[ -e /proc/self/fd/{write} ]"]).returncode
    finally:
        os.close(read)
        os.close(write)


@same
def tolerated_arguments(m: Both) -> Any:
    return done(m.run(["true"], close_fds=True, restore_signals=True, start_new_session=True, preexec_fn=None))


@same
def ignored_signals_are_restored(m: Both) -> Any:
    before = signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    try:
        return m.run([SH, "-c", "kill -PIPE $$"]).returncode
    finally:
        signal.signal(signal.SIGPIPE, before)


# --- Popen


@same
def popen_attributes(m: Both) -> Any:
    with m.popen(["cat"], stdin=m.PIPE, stdout=m.PIPE) as p:
        before = (p.args, p.returncode, p.poll(), p.stderr, p.pid > 0, type(p.stdin), type(p.stdout))
        p.stdin.close()
    return before, p.returncode, p.poll(), p.stdin.closed, p.stdout.closed


@same
def popen_text_attributes(m: Both) -> Any:
    with m.popen(["cat"], stdin=m.PIPE, stdout=m.PIPE, encoding="latin-1", errors="replace") as p:
        seen = (
            type(p.stdin),
            type(p.stdout),
            p.stdout.encoding,
            p.stdout.errors,
            p.encoding,
            p.errors,
            bool(p.text_mode),
        )
        seen += (bool(p.universal_newlines),)
        p.stdin.close()
    return seen


@same
def popen_positional(m: Both) -> Any:
    with m.popen(["cat"], -1, None, m.PIPE, m.PIPE, m.PIPE) as p:
        return p.communicate(b"x")


@same
def popen_unbuffered(m: Both) -> Any:
    with m.popen(["cat"], bufsize=0, stdin=m.PIPE, stdout=m.PIPE) as p:
        types = (type(p.stdin), type(p.stdout))
        p.stdin.write(b"now\n")
        line = p.stdout.readline()
        p.stdin.close()
    return types, line


@same
def popen_line_buffered(m: Both) -> Any:
    with m.popen(["cat"], bufsize=1, text=True, stdin=m.PIPE, stdout=m.PIPE) as p:
        p.stdin.write("line\n")
        line = p.stdout.readline()
        p.stdin.close()
    return line


@same
def popen_line_buffered_bytes_warn(m: Both) -> Any:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with m.popen(["true"], bufsize=1, stdout=m.PIPE):
            pass
    return [(w.category, str(w.message)) for w in caught]


@same
def popen_bufsize_of_a_wrong_type(m: Both) -> Any:
    return m.popen(["true"], bufsize="x")


@same
def popen_wait(m: Both) -> Any:
    with m.popen(["sleep", "0.2"]) as p:
        return p.wait(), p.wait(0), p.wait(timeout=None)


@same
def popen_wait_timeout(m: Both) -> Any:
    with m.popen(["sleep", "20"]) as p:
        result = outcome(lambda _: p.wait(0.1), m)
        p.kill()
    return result, p.returncode


@same
def popen_wait_zero(m: Both) -> Any:
    with m.popen(["sleep", "20"]) as p:
        result = outcome(lambda _: p.wait(0), m)
        p.kill()
    return result


@same
def popen_terminate(m: Both) -> Any:
    with m.popen(["sleep", "20"]) as p:
        p.terminate()
        return p.wait()


@same
def popen_send_signal(m: Both) -> Any:
    with m.popen(["sleep", "20"]) as p:
        p.send_signal(signal.SIGINT)
        return p.wait()


@same
def popen_signal_after_the_end(m: Both) -> Any:
    with m.popen(["true"]) as p:
        p.wait()
        return p.send_signal(signal.SIGTERM), p.kill(), p.terminate(), p.returncode


@same
def popen_signal_with_a_wrong_number(m: Both) -> Any:
    with m.popen(["sleep", "20"]) as p:
        result = outcome(lambda _: p.send_signal(999), m)
        p.kill()
    return result


@same
def popen_communicate(m: Both) -> Any:
    with m.popen([SH, "-c", "cat; echo err >&2"], stdin=m.PIPE, stdout=m.PIPE, stderr=m.PIPE) as p:
        return p.communicate(b"in"), p.returncode, p.stdout.closed


@same
def popen_communicate_without_pipes(m: Both) -> Any:
    with m.popen(["true"]) as p:
        return p.communicate(), p.returncode


@same
def popen_communicate_only_stdout(m: Both) -> Any:
    with m.popen(["echo", "x"], stdout=m.PIPE) as p:
        return p.communicate()


@same
def popen_communicate_only_stdin(m: Both) -> Any:
    with m.popen(["cat"], stdin=m.PIPE, stdout=m.DEVNULL) as p:
        return p.communicate(b"x"), p.returncode


@same
def popen_communicate_resumes(m: Both) -> Any:
    script = "echo one; cat; sleep 1.2; echo two"
    with m.popen([SH, "-c", script], stdin=m.PIPE, stdout=m.PIPE, text=True) as p:
        first = outcome(lambda _: p.communicate("input\n", timeout=0.6), m)
        refused = outcome(lambda _: p.communicate("more", timeout=0.1), m)
        return first, refused, p.communicate(timeout=20)


@same
def popen_communicate_with_input_in_a_buffer(m: Both) -> Any:
    with m.popen(["cat"], stdin=m.PIPE, stdout=m.PIPE) as p:
        p.stdin.write(b"first ")
        return p.communicate(bytearray(b"second"))


@same
def popen_context_manager_waits(m: Both) -> Any:
    started = time.monotonic()
    with m.popen(["sleep", "0.3"]) as p:
        pass
    return p.returncode, time.monotonic() - started >= 0.3


@same
def popen_pipe_between_two(m: Both) -> Any:
    with (
        m.popen(["printf", "b\\na\\n"], stdout=m.PIPE) as first,
        m.popen(["sort"], stdin=first.stdout, stdout=m.PIPE) as second,
    ):
        first.stdout.close()
        return second.communicate()[0]


@same
def popen_repr(m: Both) -> Any:
    with m.popen(["true"]) as p:
        p.wait()
    return re.sub("^<Popen", "<Process", repr(p))


@same
def popen_missing_program(m: Both) -> Any:
    return m.popen(["no-such-program"], stdout=m.PIPE)


@same
def popen_pipesize(m: Both) -> Any:
    import fcntl

    with m.popen(["true"], stdout=m.PIPE, pipesize=1 << 16) as p:
        return fcntl.fcntl(p.stdout, 1032)


@same
def completed_process_repr(m: Both) -> Any:
    return repr(m.run(["echo", "x"], capture_output=True, text=True))


@pytest.mark.parametrize("name", SAME)
def test_same(name: str) -> None:
    compare(SAME[name], Both(ringfence))


@pytest.mark.parametrize("name", [n for n in SAME if not n.startswith(("popen_missing", "cwd"))])
def test_same_in_a_running_container(name: str, container: ringfence.Container) -> None:
    class Inside(Both):
        def __init__(self) -> None:
            super().__init__(ringfence)
            self.popen_call = container.popen

        def run(self, args: Any, **options: Any) -> Any:
            return container.run(args, **self._common(options))

    compare(SAME[name], Inside())


# --- the differences, line by line

DIFFERENT: dict[str, Callable[..., None]] = {}


def line(name: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    def register(call: Callable[[], None]) -> Callable[[], None]:
        assert name not in DIFFERENT
        DIFFERENT[name] = call
        return call

    return register


def out(m: Any, *args: Any, **options: Any) -> str:
    result = m.run(list(args), stdout=subprocess.PIPE, text=True, **options)
    assert isinstance(result.stdout, str)
    return result.stdout


@line("env")
def env_adds_to_a_clean_base() -> None:
    assert out(subprocess, "/usr/bin/env", env={"A": "1"}).split("\n")[0] == "A=1"
    names = {x.partition("=")[0] for x in out(ringfence, "env", env={"A": "1", "TERM": None}).splitlines()}
    assert {"A", "PATH", "HOME", "LANG"} <= names
    assert "TERM" not in names
    os.environ["RINGFENCE_EXAMPLE"] = "x"
    try:
        assert "RINGFENCE_EXAMPLE" in out(subprocess, "env")
        assert "RINGFENCE_EXAMPLE" not in out(ringfence, "env")
        assert "RINGFENCE_EXAMPLE" in out(ringfence, "env", env_inherit=["RINGFENCE_EXAMPLE"])
    finally:
        del os.environ["RINGFENCE_EXAMPLE"]


@line("env-numbers")
def env_numbers() -> None:
    with pytest.raises(TypeError):
        subprocess.run(["true"], env={"A": 1})  # type: ignore[dict-item]
    assert out(ringfence, SH, "-c", "echo $A", env={"A": 1}) == "1\n"


@line("cwd")
def cwd_is_inside() -> None:
    assert out(subprocess, "pwd", "-P") == os.path.realpath(os.getcwd()) + "\n"
    assert out(ringfence, "pwd") == "/\n"
    assert out(ringfence, "pwd", share_cwd=True) == os.getcwd() + "\n"
    listed = sorted(out(ringfence, "ls", "-a", share_cwd=True).split())
    assert listed == sorted([".", "..", *os.listdir()])
    assert ringfence.run(["touch", "new"], share_cwd=True, stderr=subprocess.DEVNULL).returncode != 0


@line("user")
def user_is_inside() -> None:
    assert out(subprocess, "id", "-u") == f"{os.geteuid()}\n"
    assert out(ringfence, "id", "-u") == "0\n"
    assert out(ringfence, "id", "-g") == "0\n"


@line("umask")
def umask_has_a_fixed_default() -> None:
    before = os.umask(0o77)
    try:
        assert out(subprocess, SH, "-c", "umask") == "0077\n"
        assert out(ringfence, SH, "-c", "umask") == "0022\n"
    finally:
        os.umask(before)


@line("program")
def program_is_found_inside(tmp_path: Path) -> None:
    program = tmp_path / "only-here"
    program.write_text("#!/bin/sh\necho found\n")
    program.chmod(0o755)
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{tmp_path}:{before}"
    try:
        assert out(subprocess, "only-here") == "found\n"
        with pytest.raises(FileNotFoundError):
            ringfence.run(["only-here"])
        found = out(ringfence, "only-here", mounts=[str(tmp_path)], env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
        assert found == "found\n"
    finally:
        os.environ["PATH"] = before


@line("executable")
def executable() -> None:
    assert out(subprocess, "name", "-c", "echo $0", executable=SH) == "name\n"
    with pytest.raises(TypeError, match="executable"):
        ringfence.run(["name"], executable=SH)
    assert out(ringfence, SH, "-c", "echo x", executable=SH) == "x\n"


def refused(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=name):
        ringfence.run(["true"], **{name: value})
    with ringfence.Container() as c, pytest.raises(TypeError, match=name):
        c.popen(["true"], **{name: value})


@line("preexec_fn")
def preexec_fn() -> None:
    assert subprocess.run(["true"], preexec_fn=lambda: None).returncode == 0
    refused("preexec_fn", lambda: None)


@line("restore_signals")
def restore_signals() -> None:
    assert subprocess.run(["true"], restore_signals=False).returncode == 0
    refused("restore_signals", False)


@line("close_fds")
def close_fds() -> None:
    assert subprocess.run(["true"], close_fds=False).returncode == 0
    refused("close_fds", False)


@line("pass_fds")
def pass_fds_as_a_mapping() -> None:
    read, write = os.pipe()
    try:
        ringfence.run([SH, "-c", "echo hello >&3"], pass_fds={write: 3})
    finally:
        os.close(write)
    with open(read, "rb") as reader:
        assert reader.read() == b"hello\n"


@line("start_new_session")
def start_new_session() -> None:
    script = "set -- $(cat /proc/self/stat); echo $6"
    assert int(out(subprocess, SH, "-c", script)) == os.getsid(0)
    for value in (False, True):
        assert out(ringfence, SH, "-c", "echo $$; " + script, start_new_session=value).split()[0] != "0"
    assert int(out(ringfence, SH, "-c", script)) != os.getsid(0)


@line("process_group")
def process_group() -> None:
    if sys.version_info >= (3, 11):
        assert subprocess.run(["true"], process_group=0).returncode == 0
    assert ringfence.run(["true"], process_group=0).returncode == 0
    refused("process_group", 7)


@line("windows")
def windows() -> None:
    with pytest.raises(ValueError):
        subprocess.run(["true"], creationflags=1)
    refused("creationflags", 1)
    refused("startupinfo", object())


@line("unknown-argument")
def unknown_argument() -> None:
    with pytest.raises(TypeError):
        subprocess.run(["true"], memroy=1)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="memory") as caught:
        ringfence.run(["true"], memroy=1)
    assert isinstance(caught.value, ringfence.SpecError)


@line("empty-args")
def empty_args() -> None:
    with pytest.raises(IndexError):
        subprocess.run([])
    with pytest.raises(ValueError):
        ringfence.run([])


@line("positional")
def positional() -> None:
    assert subprocess.run(["true"], -1).returncode == 0
    with pytest.raises(TypeError):
        ringfence.run(["true"], -1)  # type: ignore[misc]


@line("streams")
def streams_by_name(tmp_path: Path) -> None:
    target = tmp_path / "out"
    ringfence.run(["echo", "x"], stdout=f"file:{target}")
    assert target.read_text() == "x\n"
    ringfence.run(["echo", "y"], stdout=target)
    assert target.read_text() == "y\n"
    assert ringfence.run(["cat"], stdin="null", stdout="pipe").stdout == b""


@line("stdout-is-stdout")
def stdout_is_stdout() -> None:
    with pytest.raises((ValueError, OSError)):
        subprocess.run(["true"], stdout=subprocess.STDOUT)
    with pytest.raises(ValueError, match="STDOUT can only be used for stderr"):
        ringfence.run(["true"], stdout=ringfence.STDOUT)


@line("resumed-input")
def resumed_input() -> None:
    data = b"x" * 500_000
    with ringfence.popen([SH, "-c", "sleep 0.5; cat"], stdin=ringfence.PIPE, stdout=ringfence.PIPE) as p:
        with pytest.raises(subprocess.TimeoutExpired):
            p.communicate(data, timeout=0.1)
        assert p.communicate(timeout=20)[0] == data


@line("child")
def no_child() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGCHLD, lambda number, _: seen.append(number))
    try:
        subprocess.run(["true"])
        assert seen
        seen.clear()
        with ringfence.popen(["sleep", "0.2"]) as p, pytest.raises(ChildProcessError):
            os.waitpid(p.pid, 0)
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
        assert not seen
    finally:
        signal.signal(signal.SIGCHLD, before)


@line("pid")
def pid_outside_and_inside() -> None:
    with subprocess.Popen([SH, "-c", "echo $$"], stdout=subprocess.PIPE) as p:
        assert p.stdout and int(p.stdout.read()) == p.pid
    with ringfence.popen([SH, "-c", "echo $$; read x"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as q:
        assert q.stdout and q.stdin
        inside = int(q.stdout.readline())
        assert inside != q.pid
        status = Path(f"/proc/{q.pid}/status").read_text()
        assert re.search(rf"^NSpid:.*\s{q.pid}\s", status, re.M)
        assert re.search(rf"^NSpid:.*\s{inside}$", status, re.M)
        assert os.readlink(f"/proc/self/fd/{q.pidfd}").startswith(("anon_inode:[pidfd]", "pidfd:"))
        q.stdin.write("\n")


@line("signal-0")
def signals_never_hit_somebody_else() -> None:
    with ringfence.popen(["true"]) as p:
        assert select.select([p.status_fd], [], [], 10)[0]
        p._raw.kill(signal.SIGTERM)
    assert p.returncode == 0


@line("terminal-signals")
def terminal_signals() -> None:
    with ringfence.popen(["sleep", "20"]) as p:
        assert os.getpgid(p.pid) != os.getpgid(0)
        assert os.getsid(p.pid) != os.getsid(0)
        p.kill()


@line("timeout")
def timeout_ends_everything() -> None:
    read, write = os.pipe()
    started = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        ringfence.run([SH, "-c", "sleep 60 & sleep 60"], timeout=0.3, pass_fds=[write])
    os.close(write)
    assert os.read(read, 1) == b"", "the end of the pipe shows that no process has it open"
    os.close(read)
    assert time.monotonic() - started < 10


@line("background")
def background_ends_with_the_main_process() -> None:
    read, write = os.pipe()
    ringfence.run([SH, "-c", "sleep 60 &"], pass_fds=[write])
    os.close(write)
    assert os.read(read, 1) == b""
    os.close(read)
    with ringfence.Container() as c:
        c.run([SH, "-c", "sleep 60 >/dev/null 2>&1 &"])
        assert (
            "sleep"
            in c.run(["cat", "/proc/2/comm", "/proc/3/comm", "/proc/4/comm"], capture_output=True, text=True).stdout
        )


@line("isolation")
def isolation(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    assert out(subprocess, "cat", str(tmp_path / "mine")) == "x"
    assert ringfence.run(["cat", str(tmp_path / "mine")], stderr=subprocess.DEVNULL).returncode == 1
    assert out(ringfence, SH, "-c", "ls -A /home /tmp /run | grep -v :").strip() in ("", out(ringfence, "true"))
    interfaces = out(ringfence, "cat", "/proc/net/dev").splitlines()[2:]
    assert [i.split(":")[0].strip() for i in interfaces] == ["lo"]


@line("forgotten")
def forgotten_containers_are_killed() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        p = ringfence.popen(["sleep", "60"])
        fd = os.dup(p.pidfd)
        del p
        gc.collect()
    assert any(w.category is ResourceWarning and "unclosed <Container" in str(w.message) for w in caught)
    assert select.select([fd], [], [], 5)[0]
    os.close(fd)


@line("caller-ends")
def caller_ends() -> None:
    script = "import ringfence, os; p = ringfence.popen(['sleep', '60']); print(p.pid, flush=True); os._exit(0)"
    pid = int(subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True).stdout)
    until = time.monotonic() + 5
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < until:
        time.sleep(0.01)
    assert not os.path.exists(f"/proc/{pid}")


@line("fork")
def forked_children_are_refused() -> None:
    with ringfence.popen(["sleep", "60"]) as p:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                p.poll()
            except ChildProcessError:
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert p.poll() is None
        p.kill()


@line("result")
def result_has_more() -> None:
    result = ringfence.run(["true"])
    assert isinstance(result, subprocess.CompletedProcess)
    assert result.reason == "exited"
    assert isinstance(result.usage, ringfence.Usage)
    assert ringfence.run([SH, "-c", "kill -9 $$"]).reason == "signaled"


@line("errors")
def errors_are_also_ours() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        ringfence.run(["no-such-program"])
    assert isinstance(caught.value, ringfence.Error)
    assert caught.value.kind == "not_found"
    assert "no-such-program" in str(caught.value)


@line("cwd-error")
def cwd_error_names_the_field() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        ringfence.run(["true"], cwd="/no/such/directory")
    assert isinstance(caught.value, ringfence.Error)
    assert caught.value.field == "cwd"
    assert "/no/such/directory" in str(caught.value)


def table() -> list[str]:
    text = importlib.resources.files("ringfence").joinpath("SUBPROCESS.md").read_text()
    return re.findall(r"^\| `([\w-]+)` \|", text, re.M)


def test_the_table_and_its_tests_are_the_same_lines() -> None:
    assert sorted(table()) == sorted(DIFFERENT)


@pytest.mark.parametrize("name", table())
def test_difference(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    call = DIFFERENT[name]
    if "tmp_path" in call.__code__.co_varnames[: call.__code__.co_argcount]:
        call(tmp_path)
    else:
        call()


def test_waits_from_many_threads() -> None:
    with ringfence.popen(["sleep", "0.3"]) as p:
        seen: list[int] = []
        threads = [threading.Thread(target=lambda: seen.append(p.wait())) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert seen == [0] * 8
