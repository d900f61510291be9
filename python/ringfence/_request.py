"""Keyword arguments become a request for the core: `subprocess`'s own are translated, fields are passed on.

The core validates: this page knows no limits, no syntax and no defaults of fields.
"""

from __future__ import annotations

import base64
import errno
import json
import math
import os
import subprocess
from collections.abc import Iterable, Mapping, Set
from datetime import timedelta
from typing import Any, NoReturn

from . import _interpreter, _ringfence
from ._errors import SpecError, UnknownFieldError
from ._types import Args, CommandFields, Request, SpecFields, Stream

PIPE = subprocess.PIPE
STDOUT = subprocess.STDOUT
DEVNULL = subprocess.DEVNULL

#: Arguments of `subprocess.Popen` that have no meaning here: what is accepted anyway, and what to use instead.
_ELSEWHERE: dict[str, tuple[tuple[object, ...], str]] = {
    "preexec_fn": (
        (None,),
        "no code of the host runs in a container; set user, cwd, umask, rlimits, nice or hooks by field",
    ),
    "startupinfo": ((None,), "it is for Windows"),
    "creationflags": ((0,), "it is for Windows"),
    "restore_signals": ((True,), "signals are always reset inside"),
    "close_fds": ((True,), "nothing is inherited; name descriptors in pass_fds"),
    "process_group": ((None, -1, 0), "a process always gets a session and a group of its own"),
    # Always so: accepted whatever it says, as a caller that asks for no session of its own does not depend on it.
    "start_new_session": ((True, False), "a process always gets a session of its own"),
}

_SHELL = "/bin/sh"


def _text(value: str | bytes | os.PathLike[Any]) -> Any:
    """Text, or what the core takes for bytes that are not UTF-8."""
    data = os.fsencode(value)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def _plain(field: str, value: Any) -> Any:
    """The value as JSON has it."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise SpecError(f"{field}: {value} is not a number", kind="invalid_spec", field=field)
        return value
    if isinstance(value, (str, bytes, os.PathLike)):
        return _text(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Mapping):
        return {_key(k): _plain(f"{field}.{k}", v) for k, v in value.items()}
    if isinstance(value, Iterable) and not hasattr(value, "fileno"):
        return [_plain(f"{field}[{i}]", item) for i, item in enumerate(value)]
    if hasattr(value, "fileno"):
        return int(value.fileno())
    raise TypeError(f"{field}: a value of type {type(value).__name__} is not possible")


def path_of(name: str, value: Any) -> str:
    """A path that is an argument of this name."""
    if not isinstance(value, (str, bytes, os.PathLike)):
        raise TypeError(f"{name}: expected str, bytes or os.PathLike object, not {type(value).__name__}")
    return os.fsdecode(value)


def each(name: str, value: Any) -> list[Any]:
    """The elements of an argument of this name."""
    if not isinstance(value, Iterable):
        raise TypeError(f"{name}: a list is expected, not {type(value).__name__}")
    return list(value)


def _key(key: Any) -> str:
    return str(int(key)) if isinstance(key, int) else os.fsdecode(key)


def _bytes(what: str, value: Any) -> bytes:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, (str, bytes, os.PathLike)):
        raise TypeError(f"{what}: expected str, bytes or os.PathLike object, not {type(value).__name__}")
    return os.fsencode(value)


def argv_of(args: Args, shell: bool = False, executable: Any = None) -> list[bytes]:
    """The argument vector, by `subprocess`'s rules."""
    if isinstance(args, (str, bytes, os.PathLike)):
        words = [os.fsencode(args)]
    elif isinstance(args, (Mapping, Set)):
        # Their order, or their keys, as arguments would be an accident.
        raise TypeError(f"args: expected a list of arguments, not {type(args).__name__}")
    else:
        words = []
        for word in each("args", args):
            if not isinstance(word, (str, bytes, os.PathLike)):
                raise TypeError(f"args: expected str, bytes or os.PathLike object, not {type(word).__name__}")
            words.append(os.fsencode(word))
    if shell:
        words = [os.fsencode(executable or _SHELL), b"-c", *words]
    elif executable is not None and (not words or os.fsencode(executable) != words[0]):
        raise TypeError("executable: the program is always the first of args; give it there")
    return words


def _env_of(env: Mapping[Any, Any]) -> dict[bytes, bytes | None]:
    if not isinstance(env, Mapping):
        hint = 'write {"NAME": "value"}'
        message = f"env: expected a mapping of names to values, not {type(env).__name__}; {hint}"
        raise SpecError(message, kind="invalid_spec", field="env", hint=hint)
    result: dict[bytes, bytes | None] = {}
    for name, value in env.items():
        result[os.fsencode(name)] = None if value is None else _bytes(f"env[{name!r}]", value)
    return result


def _raw_files(files: Any) -> dict[bytes, tuple[bytes, int]]:
    """The files whose content is bytes: they need no detour through base64."""
    result = {}
    for path, content in files.items() if isinstance(files, Mapping) else ():
        data, mode = content if isinstance(content, tuple) and len(content) == 2 else (content, 0o644)
        if isinstance(data, str) and isinstance(content, tuple):
            data = data.encode()
        if isinstance(data, (bytes, bytearray, memoryview)):
            result[os.fsencode(path)] = (bytes(data), mode)
    return result


def stream_of(name: str, stream: Stream) -> str | None:
    """What the core calls it: `pipe`, `null`, `fd:N`, ..."""
    if stream is None:
        return None
    if isinstance(stream, os.PathLike):
        return "file:" + os.fsdecode(stream)
    if isinstance(stream, str):
        return stream
    if not isinstance(stream, int):
        stream = stream.fileno()
    if stream == PIPE:
        return "pipe"
    if stream == DEVNULL:
        return "null"
    if stream == STDOUT:
        if name != "stderr":
            raise ValueError("STDOUT can only be used for stderr")
        return "stdout"
    if stream < 0:
        raise ValueError(f"{name}: {stream} is not a file descriptor")
    return f"fd:{stream}"


Streams = tuple["str | None", "str | None", "str | None"]


def streams_of(stdin: Stream, stdout: Stream, stderr: Stream, default: str | None = None) -> Streams:
    """The three streams as the core calls them; `default` for those not given."""
    return (
        stream_of("stdin", stdin) or default,
        stream_of("stdout", stdout) or default,
        stream_of("stderr", stderr) or default,
    )


def command_streams(stdin: Stream, stdout: Stream, stderr: Stream, fields: Mapping[str, Any]) -> Streams:
    """The streams of a command: the caller's own by default, or its terminal."""
    return streams_of(stdin, stdout, stderr, None if fields.get("terminal") else "inherit")


def _user_of(user: Any, group: Any) -> str | None:
    if group is None:
        return None if user is None else str(user)
    return f"{0 if user is None else user}:{group}"


def command_request(
    args: Args | None,
    streams: Streams,
    options: Mapping[str, Any],
    fields: dict[str, Any],
) -> Request:
    """The request for a command in a running container; options are what `subprocess` has too."""
    known = CommandFields.__annotations__.keys()
    for name in fields:
        if name not in known:
            if name in SpecFields.__annotations__:
                raise TypeError(f"{name} belongs to the whole container: give it to Container(), run() or popen()")
            _unknown(name, fields[name])
    return _request(_argv(args, options), streams, options, fields)


def spec_request(
    args: Args | None,
    streams: Streams,
    options: Mapping[str, Any],
    fields: dict[str, Any],
    needs_command: bool = False,
    has_main: bool | None = None,
) -> Request:
    """The request for a container. An empty list of arguments means that it has no main process, unless it is said that it has one."""
    argv = _argv(args, options)
    if has_main is None:
        has_main = bool(argv)
    if needs_command and not argv:
        raise SpecError("argv: a command is needed", kind="invalid_spec", errno=errno.EINVAL, field="argv")
    fields = dict(fields)
    mounts: list[Any] = [
        {"source": m} if isinstance(m, os.PathLike) else m for m in _list("mounts", fields.pop("mounts", None))
    ]
    # Nobody could answer system calls.
    unanswered = fields.pop("_unanswered", False)
    share_cwd = fields.pop("share_cwd", False)
    share_python = fields.pop("share_python", None)
    options = dict(options)
    if share_cwd:
        here = os.getcwd()
        mounts.append({"source": here, "target": here})
        # Without a main process nothing starts there.
        if has_main and options.get("cwd") is None:
            options["cwd"] = here
    mounts = _interpreter.add_mounts(argv or [], fields.get("rootfs"), mounts, share_python)
    if mounts:
        fields["mounts"] = mounts
    if fields.get("devices") is not None:
        fields["devices"] = [_device(device) for device in _list("devices", fields["devices"])]
    if isinstance(fields.get("ports"), Mapping):
        fields["ports"] = {str(port): host for port, host in fields["ports"].items()}
    if fields.get("net") is not None:
        fields["net"] = _net(fields["net"])
    if "namespaces" in fields and fields["namespaces"] is not None:
        fields["namespaces"] = {kind: _namespace(source) for kind, source in fields["namespaces"].items()}
    request = _request(argv, streams, options, fields)
    if unanswered:
        request["unanswered"] = True
    return request


def _list(field: str, value: Any) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, (str, bytes, os.PathLike, Mapping)):
        raise SpecError(
            f"{field}: a list is expected, not one {type(value).__name__}", kind="invalid_spec", field=field
        )
    return list(value)


def _device(device: Any) -> Any:
    return {"path": device} if isinstance(device, os.PathLike) else device


def device_text(device: Any) -> str:
    """One device as text that the core's field `devices` takes."""
    one = _plain("device", _device(device))
    return one if isinstance(one, str) else json.dumps(one)


def _net(net: Any) -> Any:
    from ._network import Network

    if isinstance(net, Network):
        return f"network:{net.name}"
    if isinstance(net, Mapping):
        one = dict(net)
        if isinstance(one.get("network"), Network):
            one["network"] = one["network"].name
        return one
    if isinstance(net, (list, tuple)):
        return [_net(one) for one in net]
    return net


def net_text(net: Any) -> str:
    """One device as text that the core's field `net` takes."""
    one = _net(net)
    return one if isinstance(one, str) else json.dumps(one)


def _namespace(source: Any) -> Any:
    from ._container import Container
    from ._pod import Pod

    # A container without a name is known by its pid 1, which lives as long as its namespaces are needed.
    return {"pid": source.pid} if isinstance(source, (Container, Pod)) else source


def _argv(args: Args | None, options: Mapping[str, Any]) -> list[bytes] | None:
    return None if args is None else argv_of(args, options.get("shell", False), options.get("executable"))


def _request(
    argv: list[bytes] | None,
    streams: Streams,
    options: Mapping[str, Any],
    fields: dict[str, Any],
) -> Request:
    files = _raw_files(fields.get("files"))
    if files:
        rest = {path: data for path, data in fields["files"].items() if os.fsencode(path) not in files}
        fields = {**fields, "files": rest}
    plain: dict[str, Any] = dict(options.get("base") or {})
    plain |= {name: _plain(name, value) for name, value in fields.items() if value is not None}
    terminal = fields.get("terminal")
    if isinstance(terminal, tuple):
        rows, cols = terminal
        plain["terminal"] = {"rows": rows, "cols": cols}
    for name, stream in zip(("stdin", "stdout", "stderr"), streams, strict=True):
        if stream is not None:
            plain[name] = stream
    user = _user_of(options.get("user"), options.get("group"))
    if user is not None:
        plain["user"] = user
    if options.get("extra_groups") is not None:
        plain["groups"] = [*plain.get("groups", []), *_plain("extra_groups", options["extra_groups"])]
    umask = options.get("umask", -1)
    if umask is not None and umask != -1:
        plain["umask"] = umask
    if options.get("detach"):
        plain["detach"] = True
    for name in ("cgroup", "set_tid"):
        if options.get(name) is not None:
            plain[name] = _plain(name, options[name])
    request: Request = {}
    if argv is not None:
        request["argv"] = argv
    if options.get("env") is not None:
        request["env"] = _env_of(options["env"])
    if options.get("cwd") is not None:
        request["cwd"] = os.fsencode(options["cwd"])
    if files:
        request["files"] = files
    descriptors = options.get("pass_fds") or ()
    if isinstance(descriptors, Mapping):
        request["pass_fds"] = dict(descriptors)
    elif descriptors:
        request["pass_fds"] = {int(fd): int(fd) for fd in descriptors}
    if options.get("set"):
        request["set"] = options["set"]
    request["fields"] = json.dumps(plain)
    return request


def update_fields(limits: Mapping[str, Any]) -> str:
    """JSON of what is to change; None takes a limit away."""
    for name in limits:
        if name not in SpecFields.__annotations__:
            _unknown(name, limits[name])
    if limits.get("devices") is not None:
        limits = {**limits, "devices": [_device(device) for device in _list("devices", limits["devices"])]}
    return json.dumps({name: _plain(name, value) for name, value in limits.items()})


def _unknown(name: str, value: Any) -> NoReturn:
    """The core knows later fields, other systems' names, and what was probably meant."""
    try:
        _ringfence.check({"fields": json.dumps({name: _plain(name, value)})})
    except SpecError as error:
        if error.kind != "invalid_spec":
            raise
        raise UnknownFieldError(str(error), kind=error.kind, errno=error.errno, field=name, hint=error.hint) from None
    raise UnknownFieldError(f"{name}: no such argument", kind="invalid_spec", field=name)


def refuse(fields: dict[str, Any]) -> None:
    """Takes out what `subprocess` has and containers have not; raises when it asks for something."""
    for name in fields.keys() & _ELSEWHERE.keys():
        accepted, instead = _ELSEWHERE[name]
        value = fields.pop(name)
        if not any(value is ok or (type(value) is type(ok) and value == ok) for ok in accepted):
            raise TypeError(f"{name} is not possible in a container: {instead}")
    for name in fields:
        if name not in SpecFields.__annotations__ and name != "_unanswered":
            _unknown(name, fields[name])
