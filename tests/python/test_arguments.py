"""Values of Python become fields of the spec; nothing is started, so that one kernel is enough.

tests/run: tier=machine
"""

from __future__ import annotations

import datetime
import json
import os
import pathlib
import signal
import sys
from typing import Any

import pytest

import ringfence
from ringfence import _host, _interpreter, _request, _ringfence
from ringfence._types import CommandFields, SpecFields, Usage


def spec(args: Any = ("true",), options: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """The spec, as the core reads it back."""
    request = _request.spec_request(args, (None, None, None), options or {}, fields)
    result: dict[str, Any] = json.loads(_ringfence.check(request))
    return result


def test_sizes_counts_and_durations() -> None:
    made = spec(memory="1G", cpus=0.5, pids=7, stop_timeout=datetime.timedelta(seconds=2), start_timeout="500ms")
    assert made["memory"] == 1 << 30
    assert made["cpus"] == 0.5
    assert made["pids"] == 7
    again = spec(memory=str(1 << 30), cpus=0.5, pids=7, stop_timeout=2.0, start_timeout=0.5)
    assert again == made


def test_text_may_be_bytes_or_path() -> None:
    assert spec(hostname=b"db")["hostname"] == "db"
    assert spec(["a", b"b", pathlib.Path("/c")])["argv"] == ["a", "b", "/c"]
    assert spec("one")["argv"] == ["one"]
    assert spec(pathlib.Path("/bin/true"))["argv"] == ["/bin/true"]


def test_bytes_that_are_not_utf8_survive() -> None:
    made = spec(
        [b"x", b"\xff\xfe"], {"env": {b"A": b"\xff"}, "cwd": b"/\xff"}, mounts=[{"source": b"/\xff", "target": "/x"}]
    )
    again = json.loads(_ringfence.check({"fields": json.dumps(made)}))
    assert again == made
    assert "base64" in json.dumps(made["argv"])
    assert "base64" in json.dumps(made["mounts"])


def test_environment() -> None:
    made = spec(options={"env": {"A": "1", "B": None, "C": 3, pathlib.Path("D"): pathlib.Path("/x")}})
    assert made["env"] == {"A": "1", "B": None, "C": "3", "D": "/x"}
    for name in ("", "A=B"):
        with pytest.raises(ringfence.SpecError, match="env"):
            spec(options={"env": {name: "x"}})
    with pytest.raises(TypeError):
        spec(options={"env": {"A": ["x"]}})


def test_users_and_groups() -> None:
    assert spec(options={"user": 5})["user"] == "5"
    assert spec(options={"user": "nobody"})["user"] == "nobody"
    assert spec(options={"user": 5, "group": "adm"})["user"] == "5:adm"
    assert spec(options={"group": 7})["user"] == "0:7"
    assert spec(options={"extra_groups": [1, "adm"]})["groups"] == ["1", "adm"]
    assert spec(options={"extra_groups": [1]}, groups=["adm"])["groups"] == ["adm", "1"]


def test_files() -> None:
    made = spec(files={"/a": "text", "/b": b"bytes", pathlib.Path("/c"): (b"x", 0o600), "/d": bytearray(b"y")})
    assert set(made["files"]) == {"/a", "/b", "/c", "/d"}
    again = json.loads(_ringfence.check({"fields": json.dumps(made)}))
    assert again == made
    binary = spec(files={"/a": b"\xff\x00"})
    assert "base64" in json.dumps(binary)


def test_mounts() -> None:
    made = spec(mounts=["/usr:/mnt:rw", pathlib.Path("/opt"), {"source": "/srv", "target": "/data", "rw": True}])[
        "mounts"
    ]
    assert [m["target"] for m in made] == ["/mnt", "/opt", "/data"]
    with pytest.raises(ringfence.SpecError):
        spec(mounts="/usr")


def test_a_path_as_mount_is_taken_literally() -> None:
    (mount,) = spec(mounts=[pathlib.Path("/odd:name")])["mounts"]
    assert mount["target"] == "/odd:name"


def test_shell() -> None:
    assert spec("echo $HOME", {"shell": True})["argv"] == ["/bin/sh", "-c", "echo $HOME"]
    assert spec(["echo $0", "x"], {"shell": True})["argv"] == ["/bin/sh", "-c", "echo $0", "x"]
    assert spec("x", {"shell": True, "executable": "/bin/bash"})["argv"] == ["/bin/bash", "-c", "x"]


def test_signals_and_terminals() -> None:
    assert spec(stop_signal=signal.SIGINT) == spec(stop_signal="SIGINT")
    assert spec(terminal=(50, 132))["terminal"] == {"rows": 50, "cols": 132}
    assert spec(terminal=True)["terminal"]["rows"] > 0


def test_share_cwd(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = spec(share_cwd=True)
    assert made["cwd"] == str(tmp_path)
    assert str(tmp_path) in [m["target"] for m in made["mounts"]]
    assert spec(options={"cwd": "/usr"}, share_cwd=True)["cwd"] == "/usr"


def test_descriptors() -> None:
    assert spec(options={"pass_fds": [5, 7]})["pass_fds"] == {"5": 5, "7": 7}
    assert spec(options={"pass_fds": {5: 3}})["pass_fds"] == {"5": 3}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1, "lots", [], {}])
def test_impossible_numbers(value: Any) -> None:
    with pytest.raises(ValueError) as caught:
        spec(cpus=value)
    assert isinstance(caught.value, ringfence.SpecError)
    assert caught.value.field == "cpus"


def test_every_field_of_the_core_is_a_keyword() -> None:
    properties = json.loads(_ringfence.schema())["properties"]
    available = {name for name, about in properties.items() if about.get("x-available", True)}
    keywords = set(SpecFields.__annotations__) - {"share_cwd", "share_python"}
    parameters = {"argv", "cwd", "env", "user", "umask", "stdin", "stdout", "stderr", "detach", "pass_fds"}
    assert keywords | parameters == available
    assert set(CommandFields.__annotations__) <= keywords


@pytest.mark.needs("pids")
def test_the_usage_of_the_core_is_the_usage_of_python() -> None:
    with ringfence.Container(pids=20) as c:
        assert set(json.loads(c._raw.usage())) == set(Usage.__dataclass_fields__)


@pytest.mark.parametrize("env", [["A=1"], "A=1", {"A"}])
def test_an_environment_is_a_mapping(env: Any) -> None:
    with pytest.raises(ringfence.SpecError, match=r'^env: .*; write \{"NAME": "value"\}$') as caught:
        ringfence.run(["true"], env=env)
    assert caught.value.field == "env"


@pytest.mark.parametrize("args", [{"argv": ["true"]}, {"true", "false"}])
def test_arguments_have_an_order(args: Any) -> None:
    with pytest.raises(TypeError, match=r"^args: expected a list of arguments, not "):
        _request.argv_of(args)


def test_a_timeout_is_a_duration() -> None:
    assert _host.deadline(None) is None
    for timeout in ("1500ms", "1.5s", 1.5, datetime.timedelta(seconds=1.5)):
        assert _host.seconds(timeout) == 1.5
    with pytest.raises(ringfence.SpecError, match=r'^timeout: "soon" is not a duration') as caught:
        _host.deadline("soon")
    assert caught.value.field == "timeout"
    with pytest.raises(TypeError, match=r"^timeout: expected seconds, or text like .*, not list$"):
        _host.deadline([])  # type: ignore[arg-type]


# --- the interpreter


def test_this_interpreter_is_recognised(tmp_path: pathlib.Path) -> None:
    link = tmp_path / "interpreter"
    link.symlink_to(sys.executable)
    assert _interpreter.is_this(os.fsencode(sys.executable))
    assert _interpreter.is_this(os.fsencode(link))
    assert not _interpreter.is_this(b"/bin/sh")
    # By PATH inside it may be another one.
    assert not _interpreter.is_this(b"python3")


def test_only_what_is_hidden_is_mounted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_interpreter, "_needed", lambda _: iter(["/usr", "/home/u/venv", "/home/u/venv/lib", "/opt/x"]))
    monkeypatch.setattr(os.path, "exists", lambda _: True)
    assert _interpreter.paths("/home/u/venv/bin/python") == ["/home/u/venv"]


def test_a_home_directory_is_never_shared_for_one_file(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("/home/user/python", "/tmp/python", "/root/python"):
        assert name in set(_interpreter._needed(name))
        assert os.path.dirname(name) not in set(_interpreter._needed(name)) - {sys.prefix}


def test_no_interpreter_is_mounted_into_an_image() -> None:
    assert _interpreter.mounts([os.fsencode(sys.executable)], "/srv/image", [], True) == []
    assert _interpreter.mounts([b"/bin/sh"], None, [], None) == []


def test_a_mount_that_was_given_is_not_added_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_interpreter, "paths", lambda _: ["/home/u/venv"])
    argv = [os.fsencode(sys.executable)]
    assert _interpreter.mounts(argv, None, [], None) == [{"source": "/home/u/venv", "target": "/home/u/venv"}]
    for given in ("/home/u/venv", "/x:/home/u/venv:rw", {"source": "/x", "target": "/home/u/venv"}):
        assert _interpreter.mounts(argv, None, [given], None) == []


def test_a_mount_below_the_interpreter_is_not_covered_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_interpreter, "paths", lambda _: ["/home/u/p/venv", "/root/.pyenv/3"])
    argv = [os.fsencode(sys.executable)]
    given = ["/home/u/p", "/root/.pyenv/3/lib"]
    venv, interpreter = ({"source": path, "target": path} for path in ("/home/u/p/venv", "/root/.pyenv/3"))
    assert _interpreter.add_mounts(argv, None, given, None) == [interpreter, *given, venv]
