"""Fixtures of the Python tests.

tests/run: timeout=600
"""

from __future__ import annotations

import functools
import gc
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

import ringfence


@functools.cache
def _refused(field: str, value: Any) -> str | None:
    """Why this machine or this caller cannot have the field: the probe of `needs`."""
    try:
        ringfence.run(["true"], **{field: value})
    except ringfence.Error as error:
        if error.field == field and error.kind in ("unsupported", "permission_denied"):
            return str(error)
    return None


_PROBES = {
    "memory": "64M",
    "memory_high": "32M",
    "cpus": 1,
    "cpu_weight": 100,
    "cpuset": "0",
    "pids": 64,
    "user": "1000:1000",
}


@pytest.fixture(autouse=True)
def _needs(request: pytest.FixtureRequest) -> None:
    """`@pytest.mark.needs("memory")` skips a test where the field cannot be had."""
    for mark in request.node.iter_markers("needs"):
        for field in mark.args:
            reason = _refused(field, _PROBES[field])
            if reason:
                pytest.skip(reason)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*fields): fields that not every machine or caller can have")
    config.addinivalue_line("filterwarnings", "error")


@pytest.fixture(autouse=True)
def _nothing_is_forgotten() -> Iterator[None]:
    """No test leaves a descriptor or an unclosed container."""
    gc.collect()
    before = _descriptors()
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gc.collect()
    after = _descriptors()
    new = {fd: target for fd, target in after.items() if before.get(fd) != target}
    # The keeper's own descriptors stay as long as the keeper.
    unexpected = {fd: t for fd, t in new.items() if t.startswith("pipe:")}
    assert not unexpected, unexpected


def pytest_collection_finish() -> None:
    """What was there before the first test is not looked through again after each: that took longer than many a test."""
    gc.collect()
    gc.freeze()


def _descriptors() -> dict[int, str]:
    result = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            result[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            pass
    return result


@pytest.fixture
def container() -> Iterator[ringfence.Container]:
    """A container without a main process."""
    with ringfence.Container() as made:
        yield made


PYTHON = sys.executable
