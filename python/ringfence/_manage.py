"""Commands of the command line for containers that run on their own: kill, rm, inspect."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

from . import _machine
from ._container import Container
from ._errors import Error, SpecError


def signal_of(text: str) -> int:
    """A signal by number or name, with or without SIG."""
    name = text.upper()
    try:
        return int(signal.Signals[name if name.startswith("SIG") else f"SIG{name}"])
    except KeyError:
        pass
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 1 <= number <= signal.NSIG - 1:
        raise SpecError(f"--signal {text}: no such signal", kind="invalid_argument", field="signal")
    return number


def each(names: Iterable[str], act: Callable[[str], None]) -> int:
    """Does it for each, whatever became of the others. The status is of the command line: 125 when one failed."""
    failed = False
    for name in names:
        try:
            act(name)
        except Error as error:
            failed = True
            print(f"ringfence: {error}", file=sys.stderr)
    return 125 if failed else 0


def kill(names: Iterable[str], sig: str) -> int:
    number = signal_of(sig)

    def act(name: str) -> None:
        container = Container.by_name(name)
        if number == signal.SIGKILL:
            container.kill()
        else:
            container.signal(number)

    return each(names, act)


def rm(names: Iterable[str], force: bool) -> int:
    return each(names, lambda name: _machine.rm(name, force))


def inspect(names: Iterable[str]) -> int:
    """What is known of each, as a JSON array."""
    entries = {entry.name: entry for entry in _machine.ls()}
    found: list[dict[str, Any]] = []

    def act(name: str) -> None:
        entry = entries.get(name)
        told: dict[str, Any] = asdict(entry) if entry else {"name": name}
        if entry and not entry.detached:
            # The program that it is attached to knows the rest.
            found.append(told)
            return
        with Container.by_name(name) as container:
            told |= {"spec": container.spec, "info": container.info, "usage": None}
            if container.running:
                try:
                    told["usage"] = asdict(container.usage())
                except Error as error:
                    if error.kind not in ("unsupported", "closed"):
                        raise
        found.append(told)

    status = each(names, act)
    print(json.dumps(found, indent=2))
    return status
