"""A container for one command: `run` and `popen`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _request
from ._container import Container, finish, run_options
from ._process import Process, TextOptions
from ._types import AnyPath, Args, CompletedProcess, Env, Seconds, Stream

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._types import SpecFields


def popen(
    args: Args,
    bufsize: int = -1,
    executable: AnyPath | None = None,
    stdin: Stream = None,
    stdout: Stream = None,
    stderr: Stream = None,
    *,
    shell: bool = False,
    cwd: AnyPath | None = None,
    env: Env | None = None,
    universal_newlines: bool | None = None,
    text: bool | None = None,
    encoding: str | None = None,
    errors: str | None = None,
    user: str | int | None = None,
    group: str | int | None = None,
    extra_groups: Any = None,
    umask: int = -1,
    pass_fds: Any = (),
    pipesize: int = -1,
    **fields: Unpack[SpecFields],
) -> Process[Any]:
    """Starts a command in a container of its own: `subprocess.Popen`, and the fields of the vocabulary.

    The container ends with the command. `process.container` is its handle; leaving `with popen(...)` closes it.
    """
    text_options = TextOptions(text, universal_newlines, encoding, errors, bufsize, pipesize)
    options = {
        "shell": shell,
        "executable": executable,
        "cwd": cwd,
        "env": env,
        "user": user,
        "group": group,
        "extra_groups": extra_groups,
        "umask": umask,
        "pass_fds": pass_fds,
    }
    given = dict(fields)
    streams = _request.command_streams(stdin, stdout, stderr, given)
    return Container._launch(args, streams, options, given, text_options)


def run(
    args: Args,
    *,
    input: Any = None,
    capture_output: bool = False,
    timeout: Seconds | None = None,
    check: bool = False,
    **options: Any,
) -> CompletedProcess[Any]:
    """Runs a command in a container of its own, waits, closes: `subprocess.run`, and the fields of the vocabulary.

    Takes what `popen` takes. The result is a `subprocess.CompletedProcess` with `usage` and `reason`. On a timeout the
    whole container is killed and `subprocess.TimeoutExpired` raised. Nothing of it is left when this returns.

        >>> import ringfence
        >>> ringfence.run(["echo", "hello"], capture_output=True, text=True, memory="64M").stdout
        'hello\\n'
    """
    options["_unanswered"] = True
    with popen(args, **run_options(input, capture_output, options)) as process:
        return finish(process, input, timeout, check)
