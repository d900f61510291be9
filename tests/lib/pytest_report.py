"""A pytest plugin that writes each result as a JSON line, at once, so that a killed run still has its results."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

_PATH = os.environ.get("RINGFENCE_TEST_EVENTS")
_ONLY = os.environ.get("RINGFENCE_TEST_ONLY")
_PART, _PARTS = (int(word) for word in os.environ.get("RINGFENCE_TEST_PART", "0/1").split("/"))


def _write(event: dict[str, Any]) -> None:
    if not _PATH:
        return
    line = json.dumps(event) + "\n"
    fd = os.open(_PATH, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, line.encode())
    finally:
        os.close(fd)


def pytest_collection_modifyitems(items: list[Any]) -> None:
    if _ONLY:
        wanted = json.loads(_ONLY)
        items[:] = [item for item in items if item.nodeid in wanted]
    items[:] = items[_PART::_PARTS]


def pytest_runtest_logstart(nodeid: str, location: Any) -> None:
    _write({"event": "start", "name": nodeid})


def _reason(longrepr: Any) -> str:
    if isinstance(longrepr, tuple):
        return str(longrepr[2]).removeprefix("Skipped: ")
    return str(longrepr)


_failed: set[str] = set()
_seconds: dict[str, float] = {}


def pytest_runtest_logreport(report: Any) -> None:
    # With pytest-xdist the workers report to the controller, which calls this too: write there alone.
    if os.environ.get("PYTEST_XDIST_WORKER"):
        return
    name = report.nodeid
    _seconds[name] = _seconds.get(name, 0.0) + report.duration
    if report.failed and name not in _failed:
        _failed.add(name)
        _write(
            {
                "event": "failed",
                "name": name,
                "reason": "" if report.when == "call" else f"in {report.when}",
                "output": report.longreprtext + "".join(f"\n--- {t}\n{c}" for t, c in report.sections),
                "seconds": _seconds[name],
            }
        )
    elif report.skipped:
        reason = getattr(report, "wasxfail", None)
        text = f"expected to fail: {reason}" if reason is not None else _reason(report.longrepr)
        _write({"event": "skipped", "name": name, "reason": text, "seconds": _seconds[name]})
        _failed.add(name)
    elif report.when == "teardown" and name not in _failed:
        _write({"event": "passed", "name": name, "seconds": _seconds[name]})


def pytest_collectreport(report: Any) -> None:
    if report.failed:
        _write(
            {
                "event": "failed",
                "name": report.nodeid or "collection",
                "reason": "cannot be collected",
                "output": report.longreprtext,
                "seconds": 0.0,
            }
        )
    elif report.skipped:
        _write({"event": "skipped", "name": report.nodeid, "reason": _reason(report.longrepr), "seconds": 0.0})


def pytest_internalerror(excrepr: Any) -> None:
    _write({"event": "failed", "name": "pytest", "reason": "internal error", "output": str(excrepr), "seconds": 0.0})
    sys.stderr.write(str(excrepr))
