"""Exceptions are values with data, and what `subprocess` would raise: what the kernel has to do with it, other suites see.

tests/run: tier=machine
"""

from __future__ import annotations

import errno
import pickle
import subprocess
from typing import Any

import pytest

import ringfence
from ringfence import _errors


def made(kind: str, number: int = 0, **data: str | None) -> ringfence.Error:
    return _errors.from_core(
        "the message", kind, number, data.get("field"), data.get("step"), data.get("path"), data.get("hint")
    )


@pytest.mark.parametrize(
    ("kind", "number", "expected"),
    [
        ("not_found", errno.ENOENT, FileNotFoundError),
        ("not_found", errno.ENOTDIR, NotADirectoryError),
        ("not_found", errno.ESRCH, ProcessLookupError),
        ("not_found", 0, FileNotFoundError),
        ("permission_denied", errno.EACCES, PermissionError),
        ("permission_denied", errno.EPERM, PermissionError),
        ("permission_denied", 0, PermissionError),
        ("already_exists", errno.EEXIST, FileExistsError),
        ("os", errno.EISDIR, IsADirectoryError),
        ("timed_out", 0, TimeoutError),
        ("timed_out", errno.ETIMEDOUT, TimeoutError),
        ("forked_child", errno.ECHILD, ChildProcessError),
        ("invalid_spec", errno.EINVAL, ValueError),
        ("not_available", 0, ValueError),
        ("closed", 0, OSError),
        ("os", errno.EIO, OSError),
    ],
)
def test_class_of_an_error(kind: str, number: int, expected: type[Exception]) -> None:
    error = made(kind, number)
    assert isinstance(error, ringfence.Error)
    assert isinstance(error, OSError)
    assert isinstance(error, expected)
    assert error.kind == kind
    assert error.errno == (number or None)


def test_data_of_an_error() -> None:
    error = made("not_found", errno.ENOENT, field="mounts[2]", step="open_tree", path="/srv/data", hint="make it")
    assert (error.field, error.step, error.path, error.hint) == ("mounts[2]", "open_tree", "/srv/data", "make it")
    assert error.filename == "/srv/data"
    assert error.strerror == "No such file or directory"
    assert str(error) == "the message"
    assert "the message" in repr(error)


@pytest.mark.parametrize(
    "kind", ["not_found", "permission_denied", "invalid_spec", "closed", "timed_out", "forked_child"]
)
@pytest.mark.parametrize("number", [0, errno.ENOENT, errno.EACCES])
def test_pickling(kind: str, number: int) -> None:
    error = made(kind, number, field="f", step="s", path="/p", hint="h")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    for name in ("kind", "errno", "field", "step", "path", "hint", "filename"):
        assert getattr(again, name) == getattr(error, name)


def test_a_spec_error_is_a_value_error() -> None:
    with pytest.raises(ringfence.SpecError) as caught:
        ringfence.plan(["true"], memory="much")
    assert isinstance(caught.value, ValueError)
    assert caught.value.field == "memory"
    assert "much" in str(caught.value)


def test_an_unknown_field_is_a_type_error_with_a_suggestion() -> None:
    with pytest.raises(TypeError, match="hostname") as caught:
        ringfence.run(["true"], hostnam="x")
    assert isinstance(caught.value, ringfence.SpecError)
    assert caught.value.field == "hostnam"
    with pytest.raises(TypeError, match="mounts"):
        ringfence.Container(volumes=["/x"])  # type: ignore[call-arg]


def test_a_later_field_is_known_but_not_available() -> None:
    with pytest.raises(ringfence.SpecError) as caught:
        ringfence.run(["true"], hooks="x")
    assert caught.value.kind == "not_available"
    assert caught.value.field == "hooks"


def test_a_field_of_the_container_is_none_of_a_command(container: ringfence.Container) -> None:
    with pytest.raises(TypeError, match="whole container"):
        container.run(["true"], memory="64M")


def test_what_has_the_wrong_type_is_named() -> None:
    wrong: Any = object()
    with ringfence.Container() as c, c.popen(["true"]) as process:
        for call, name in (
            (lambda: c.wait_for(path="/", timeout=wrong), "timeout"),
            (lambda: c.wait_for(path=wrong), "path"),
            (lambda: c.wait_for(port=wrong), "port"),
            (lambda: c.wait(wrong), "timeout"),
            (lambda: c.close(wrong), "timeout"),
            (lambda: c.events(timeout=wrong), "timeout"),
            (lambda: c.events(wrong), "kinds"),
            (lambda: c.connect("@nobody", wrong), "timeout"),
            (lambda: c.connect(wrong), "address"),
            (lambda: c.socket(wrong), "family"),
            (lambda: c.socket(type=wrong), "type"),
            (lambda: c.enter(wrong), "kinds"),
            (lambda: c.ns_fd(wrong), "kind"),
            (lambda: c.signal(wrong), "sig"),
            (lambda: c.port(wrong), "port"),
            (lambda: c.pidfd_of(wrong), "pid_inside"),
            (lambda: c.group(wrong), "name"),
            (lambda: c.read_bytes(wrong), "path"),
            (lambda: c.read_bytes("/etc/hosts", wrong), "limit"),
            (lambda: c.write_bytes("/x", wrong), "data"),
            (lambda: c.write_bytes("/x", b"", mode=wrong), "mode"),
            (lambda: c.copy_in(wrong, "/x"), "source"),
            (lambda: c.open(wrong), "path"),
            (lambda: c.run(wrong), "args"),
            (lambda: c.run(["true"], timeout=wrong), "timeout"),
            (lambda: process.wait(wrong), "timeout"),
            (lambda: ringfence.Container.by_name(wrong), "name"),
        ):
            with pytest.raises(TypeError, match=f"^{name}: "):
                call()
        with pytest.raises(OverflowError, match=r"^mode: "):
            c.open_path("/", mode=-1)
        # Durations and signals are what they are in the vocabulary.
        process.wait("30s")
        with pytest.raises(subprocess.TimeoutExpired, match=r"0\.001 seconds"):
            c.wait("1ms")
        with pytest.raises(ringfence.SpecError, match=r'^timeout: "soon"'):
            c.stop("soon")
        assert c.running


def test_signals_have_names() -> None:
    with ringfence.Container(["sleep", "60"]) as c, c.popen(["sleep", "60"]) as process:
        for call, wrong in ((c.signal, "NONE"), (c.signal, 99), (process.send_signal, 99)):
            with pytest.raises(ringfence.Error, match=rf'^signal: "?{wrong}"? is no') as caught:
                call(wrong)
            assert (caught.value.field, caught.value.errno) == ("signal", errno.EINVAL)
            # As `subprocess` has it.
            assert not isinstance(caught.value, ValueError)
        process.send_signal("SIGUSR1")
        assert process.wait() == -10
        c.signal("TERM")
        assert c.wait() == -15


@pytest.mark.needs("memory")
def test_too_little_memory_is_named() -> None:
    with pytest.raises(ringfence.Error, match="want of memory") as caught:
        ringfence.run(["true"], memory="64K")
    assert (caught.value.field, caught.value.kind, caught.value.errno) == ("memory", "exhausted", errno.ENOMEM)
