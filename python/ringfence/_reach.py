"""Sockets and files of a container, for this program."""

from __future__ import annotations

import ipaddress
import socket
import time

from . import _ringfence
from ._host import seconds
from ._types import Seconds

Address = tuple[str, int] | str


def made(fd: int) -> socket.socket:
    """The descriptor as a socket, which knows its family and type by itself."""
    return socket.socket(fileno=fd)


def backlog(value: int) -> int:
    """listen(2) takes more than the kernel has for as much as it has."""
    if not isinstance(value, int):
        raise TypeError(f"backlog: a number is expected, not {type(value).__name__}")
    return max(0, min(value, 0x7FFFFFFF))


def _host(host: str) -> str:
    return "0.0.0.0" if host == "" else "127.0.0.1" if host == "localhost" else host


def address(given: Address) -> str:
    """Python's forms of addresses as the core's text."""
    if isinstance(given, str):
        return f"@{given[1:]}" if given.startswith("\0") else given
    if (
        not isinstance(given, tuple)
        or len(given) != 2
        or not isinstance(given[0], str)
        or not isinstance(given[1], int)
    ):
        raise TypeError(f"address: a path or a pair of host and port is expected, not {given!r}")
    host, port = _host(given[0]), given[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_ip(given: Address) -> bool:
    """A pair that names a host by number."""
    if not isinstance(given, tuple):
        return False
    address(given)
    if "%" in given[0]:
        return False  # the name of a device, which would be looked up out here
    try:
        ipaddress.ip_address(_host(given[0]))
    except ValueError:
        return False
    return 0 < given[1] < 65536


def numeric(given: tuple[str, int]) -> tuple[str, int]:
    """The address for `connect` of a socket."""
    return _host(given[0]), given[1]


def family(given: tuple[str, int]) -> int:
    """That of the socket for such an address."""
    return socket.AF_INET6 if ":" in given[0] else socket.AF_INET


def connect(raw: _ringfence.Container, given: Address, timeout: Seconds | None) -> socket.socket:
    """Connects on this thread where that is the same, so that Ctrl-C ends the wait."""
    started = time.monotonic()
    timeout = seconds(timeout)
    if isinstance(given, tuple) and is_ip(given):
        ready = made(raw.socket(family(given), socket.SOCK_STREAM, 0))
        try:
            ready.settimeout(timeout)
            ready.connect(numeric(given))
        except BaseException:
            ready.close()
            raise
        return ready
    ready = made(raw.connect(address(given), timeout))
    ready.settimeout(None if timeout is None else max(0.001, timeout - (time.monotonic() - started)))
    return ready
