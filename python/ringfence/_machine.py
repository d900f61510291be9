"""What concerns the machine and not one container."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from . import _request, _ringfence
from ._types import AnyPath, Args, Entry, Env, Finding, GcReport, NamespaceEntry, Plan, Report, Stream

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._types import SpecFields


def doctor() -> Report:
    """What this machine and this user can do, why not, and what to do about it. `print(doctor())` is a table."""
    text, table = _ringfence.doctor()
    data = json.loads(text)
    rows = data["findings"] if isinstance(data, dict) else data
    findings = [Finding(r["what"], r["ok"], r["detail"], r.get("remedy"), r["essential"]) for r in rows]
    return Report(findings, text, table)


def plan(
    argv: Args | None = None,
    *,
    stdin: Stream = None,
    stdout: Stream = None,
    stderr: Stream = None,
    shell: bool = False,
    cwd: AnyPath | None = None,
    env: Env | None = None,
    user: str | int | None = None,
    group: str | int | None = None,
    umask: int = -1,
    pass_fds: Any = (),
    detach: bool = False,
    **fields: Unpack[SpecFields],
) -> Plan:
    """What `Container` with the same arguments would do, step by step, without doing it."""
    given: dict[str, Any] = dict(fields)
    _request.refuse(given)
    options = {
        "shell": shell,
        "cwd": cwd,
        "env": env,
        "user": user,
        "group": group,
        "umask": umask,
        "pass_fds": pass_fds,
        "detach": detach,
    }
    streams = _request.streams_of(stdin, stdout, stderr)
    text, shown = _ringfence.plan(_request.spec_request(argv, streams, options, given))
    data = json.loads(text)
    return Plan(data["steps"], data.get("undo", []), text, shown)


def ls() -> list[Entry]:
    """The named containers of this user, running and ended."""
    return [Entry(*row) for row in _ringfence.ls()]


def namespaces() -> list[NamespaceEntry]:
    """All namespaces of the machine that the caller may see, by kind and inode, with their processes and relations.

    Also those without a process, which a bind mount, an open descriptor or a namespace below them keeps. It reads /proc from end
    to end: some 40 us for each thread of the machine, 5 us for each open descriptor.
    """
    return [NamespaceEntry(**row) for row in json.loads(_ringfence.namespaces())]


def gc() -> GcReport:
    """Ends and removes what killed keepers left, and the records of ended detached containers.

    Starts again what led out of this program's networks and has ended; `remaining` says so of one that cannot be.
    """
    return GcReport(*_ringfence.gc())


def rm(name: str, force: bool = False) -> None:
    """Forgets a detached container that has ended: its record and its log. With `force` one that runs is killed first.

    `ringfence.Error` with errno EBUSY for one that runs, without `force`; `FileNotFoundError` when there is none of that name.
    """
    _ringfence.rm(name, force)


def schema() -> dict[str, Any]:
    """The JSON schema of a spec."""
    result: dict[str, Any] = json.loads(_ringfence.schema())
    return result


def end_keepers() -> None:
    """Ends the helper processes of this process that keep no container, and lets the others go after their last one.

    For a program that is about to drop its privileges for good.
    """
    _ringfence.end_keepers()
