"""What makes a container ready."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypedDict, Union

from . import _request
from ._types import AnyPath

#: A TCP port, or text like `"53/udp"`.
PortNumber = int | str
#: A regular expression of the Rust crate `regex`; of a compiled one the pattern is taken.
LogPattern = Union[str, "re.Pattern[str]"]


class HttpCheck(TypedDict, total=False):
    """An HTTP server inside: `url`, and the `status` that it is to answer (any from 200 to 399)."""

    url: str
    status: int | None


def _path(path: Any) -> Any:
    # What is no path is named by the core.
    return _request._text(path) if isinstance(path, (str, bytes, os.PathLike)) else path


def _pattern(pattern: Any) -> Any:
    if not isinstance(pattern, re.Pattern):
        return pattern
    if pattern.flags & ~re.UNICODE or not isinstance(pattern.pattern, str):
        # The flags would be lost.
        raise TypeError(
            "log: only patterns of text without flags can be taken; write flags into the expression, as in (?i)"
        )
    return pattern.pattern


def conditions_of(
    port: PortNumber | Iterable[PortNumber] | None,
    log: LogPattern | Iterable[LogPattern] | None,
    path: AnyPath | Iterable[AnyPath] | None,
    command: Iterable[AnyPath] | None,
    http: str | HttpCheck | None,
) -> str:
    """What the core takes."""
    found: dict[str, Any] = {}
    if port is not None:
        found["port"] = port if isinstance(port, (int, str)) else _request.each("port", port)
    if log is not None:
        found["log"] = (
            _pattern(log)
            if isinstance(log, (str, re.Pattern))
            else [_pattern(one) for one in _request.each("log", log)]
        )
    if path is not None:
        one = isinstance(path, (str, bytes, os.PathLike))
        found["path"] = _path(path) if one else [_path(each) for each in _request.each("path", path)]
    if command is not None:
        # A lone text is a mistake that the core names; as an iterable it would be its letters.
        found["command"] = (
            command if isinstance(command, str) else [_path(argument) for argument in _request.each("command", command)]
        )
    if http is not None:
        found["http"] = dict(http) if isinstance(http, Mapping) else http
    return json.dumps(found)
