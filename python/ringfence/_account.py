"""What is told of a container when a test fails: command, status, usage, the end of its log."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from . import _machine
from ._errors import Error, SpecError
from ._table import printable
from ._top import size

if TYPE_CHECKING:
    from ._container import Container

#: Lines of the log.
LINES = 50


def title(container: Container) -> str:
    """A heading."""
    return f"ringfence container {container.name or container.id}"


def _command(args: Any) -> str:
    words = [args] if isinstance(args, (str, bytes, os.PathLike)) else args
    return shlex.join(os.fsdecode(word) for word in words)


def _status(container: Container) -> str:
    main = container.main
    code = main.poll() if main else None
    if code is None:
        return f"running, pid {container.pid}" if container.running else "ended"
    assert main is not None
    how = f"killed by signal {-code}" if code < 0 else f"exited with {code}"
    return how if main.reason in ("exited", "signaled") else f"{how} ({main.reason})"


def _usage(container: Container) -> Iterator[str]:
    usage = container.usage()
    if usage.memory_peak is not None:
        limit = f" of {size(usage.memory_max)}" if usage.memory_max is not None else ""
        yield f"memory at most {size(usage.memory_peak)}{limit}"
    if usage.memory_oom_kills:
        yield f"{usage.memory_oom_kills} killed for want of memory"
    if usage.cpu_usage_usec is not None:
        yield f"processor time {usage.cpu_usage_usec / 1e6:.2f} s"
    peak = usage.pids_peak if usage.pids_peak is not None else usage.pids_current
    if peak is not None:
        limit = f" of {usage.pids_max}" if usage.pids_max is not None else ""
        yield f"processes {peak}{limit}"
    if usage.pids_refused:
        yield f"{usage.pids_refused} processes refused"


def shown(text: str) -> str:
    """The lines without codes that a terminal would obey."""
    return "\n".join(map(printable, text.splitlines()))


def account(container: Container) -> str:
    """Never raises: what cannot be had says why."""
    lines = []
    main = container.main
    if main is not None and main.args:
        lines.append(f"command: {printable(_command(main.args))}")
    try:
        lines.append(f"status: {_status(container)}")
    except Error as error:
        lines.append(f"status: {error}")
    try:
        lines.append(f"usage: {', '.join(_usage(container)) or 'not counted here'}")
    except Error as error:
        lines.append(f"usage: {error}")
    if main is not None:
        try:
            log = shown(container.logs(tail=LINES))
        except Error as error:
            log = str(error)
        lines.append(f"log, the last {LINES} lines:\n{log}" if log else "log: empty")
    return "\n".join(lines)


def end(container: Container) -> None:
    """The end of a test's container: a detached one is stopped and forgotten."""
    if not container._detached:
        container.close()
        return
    name = container.name
    container.stop()
    if name is not None:
        try:
            _machine.rm(name)
        except FileNotFoundError:
            # The test has forgotten it already.
            pass


def is_of_the_machine(error: BaseException | None) -> bool:
    """The error says what this machine or this caller cannot have, not that the caller asked for nonsense."""
    return (
        isinstance(error, Error)
        and not isinstance(error, SpecError)
        and (error.kind == "unsupported" or (error.kind == "permission_denied" and error.field != "argv"))
    )


def doctor_text() -> str:
    """What `doctor` says, as a table."""
    try:
        return str(_machine.doctor())
    except Error as error:
        return str(error)
