"""Runs the language-neutral cases of tests/cases through the Python interface."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

import ringfence

CASES = Path(os.environ.get("RINGFENCE_CASES", Path(__file__).parents[1] / "cases"))


def listed() -> list[Any]:
    found = []
    for file in sorted(CASES.glob("*.json")):
        for case in json.loads(file.read_text()):
            found.append(pytest.param(case, id=f"{file.stem}: {case['name']}"))
    return found


def check_error(case: dict[str, Any], expected: dict[str, Any] | None, error: ringfence.Error) -> None:
    if error.kind in ("unsupported", "permission_denied") and error.field in case.get("needs", []):
        pytest.skip(str(error))
    if expected is None:
        raise error
    assert error.kind == expected.get("kind", error.kind), error
    assert error.field == expected.get("field", error.field), error
    assert expected.get("has", "") in str(error)


def check_result(expect: dict[str, Any], result: Any) -> None:
    seen = (
        f"returncode {result.returncode}, reason {result.reason}\nstdout: {result.stdout!r}\nstderr: {result.stderr!r}"
    )
    assert "error" not in expect, f"an error was expected\n{seen}"
    assert result.returncode == (-expect["signal"] if "signal" in expect else expect.get("code", 0)), seen
    assert result.reason == expect.get("reason", result.reason), seen
    assert result.stdout == expect.get("stdout", result.stdout), seen
    for text in expect.get("stdout_has", []):
        assert text in result.stdout, seen
    for text in expect.get("stdout_lacks", []):
        assert text not in result.stdout, seen
    for text in expect.get("stderr_has", []):
        assert text in result.stderr, seen


@pytest.mark.parametrize("case", listed())
def test_case(case: dict[str, Any]) -> None:
    if case.get("as") and (case["as"] == "root") != (os.geteuid() == 0):
        pytest.skip(f"only as {case['as']}")
    fields = dict(case["spec"])
    capture = {"capture_output": True, "text": True, "timeout": case.get("timeout", 30)}
    if "commands" not in case:
        argv = fields.pop("argv")
        if "input" in case:
            fields["input"] = case["input"]
        elif "stdin" not in fields:
            fields["stdin"] = ringfence.DEVNULL
        try:
            result = ringfence.run(argv, **fields, **capture)
        except ringfence.Error as error:
            check_error(case, case["expect"].get("error"), error)
        else:
            check_result(case["expect"], result)
        return
    with ringfence.Container(**fields) as container:
        for step in case["commands"]:
            options = dict(step.get("set", {}))
            if "input" in step:
                options["input"] = step["input"]
            else:
                options["stdin"] = ringfence.DEVNULL
            try:
                result = container.run(step["argv"], **options, **capture)
            except ringfence.Error as error:
                check_error(case, step["expect"].get("error"), error)
            else:
                check_result(step["expect"], result)
