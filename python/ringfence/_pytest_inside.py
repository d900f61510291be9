"""Runs one test item: the program that stands in a container for `@pytest.mark.ringfence`.

It is handed to an interpreter as text, so that the package need not be found inside. What it is told comes by a descriptor as
JSON, and so goes what it has to tell: one object a line.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


class _Reporter:
    """Hands on what the controller outside does not see."""

    def __init__(self, out: int, config: Any, nodeid: str) -> None:
        self.out = out
        self.config = config
        self.nodeid = nodeid

    def tell(self, kind: str, **what: Any) -> None:
        data = json.dumps({"kind": kind, **what}, default=repr).encode() + b"\n"
        while data:
            data = data[os.write(self.out, data) :]

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = [item for item in items if item.nodeid == self.nodeid][:1]
        if not items:
            self.tell("error", text=f"{self.nodeid} is not found inside")

    def pytest_runtest_logreport(self, report: Any) -> None:
        data = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
        self.tell("report", data=data)

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.tell("error", text=report.longreprtext)

    def pytest_internalerror(self, excrepr: object) -> None:
        self.tell("error", text=str(excrepr))

    def pytest_warning_recorded(self, warning_message: Any, location: Any) -> None:
        self.tell(
            "warning",
            message=str(warning_message.message),
            category=warning_message.category.__name__,
            filename=warning_message.filename,
            lineno=warning_message.lineno,
            location=location,
        )


def _main() -> int:
    with open(int(sys.argv[1]), "rb") as file:
        file.seek(0)
        told: dict[str, Any] = json.load(file)
    sys.path[:] = told["sys_path"]
    sys.dont_write_bytecode = True

    import pytest

    config: Any = pytest.Config.fromdictargs(told["options"], [told["path"]])
    config.ringfence_inside = True
    if told["workerinput"]:
        config.workerinput = told["workerinput"]
    config.pluginmanager.register(_Reporter(int(sys.argv[2]), config, told["nodeid"]), "ringfence-reporter")
    return int(config.hook.pytest_cmdline_main(config=config) or 0)


if __name__ == "__main__":
    sys.exit(_main())
