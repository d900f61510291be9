"""The language-neutral cases as a C header: C has no JSON in its library, and a test must not bring one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def _text(value: str | None) -> str:
    if value is None:
        return "NULL"
    out = []
    for byte in value.encode():
        if byte in b'"\\':
            out.append("\\" + chr(byte))
        elif 32 <= byte < 127:
            out.append(chr(byte))
        else:
            # Always three digits, so that a digit that follows is not taken in.
            out.append(f"\\{byte:03o}")
    return '"' + "".join(out) + '"'


def _list(values: list[str]) -> str:
    return "(const char *const[]){" + ", ".join([_text(v) for v in values] + ["NULL"]) + "}"


def _expect(expect: dict[str, Any]) -> str:
    error = expect.get("error")
    signal = expect.get("signal")
    parts = [
        f".code = {expect.get('code', -1 if signal else 0)}",
        f".signal = {signal or 0}",
        f".reason = {_text(expect.get('reason'))}",
        f".stdout_is = {_text(expect.get('stdout'))}",
        f".stdout_has = {_list(expect.get('stdout_has', []))}",
        f".stdout_lacks = {_list(expect.get('stdout_lacks', []))}",
        f".stderr_has = {_list(expect.get('stderr_has', []))}",
        f".error = {1 if error is not None else 0}",
    ]
    for key in ("kind", "field", "has"):
        parts.append(f".error_{key} = {_text((error or {}).get(key))}")
    return "{" + ", ".join(parts) + "}"


def _step(step: dict[str, Any]) -> str:
    pairs = [word for key, value in step.get("set", {}).items() for word in (key, value)]
    return (
        "{"
        + ", ".join(
            [
                f".argv = {_list(step.get('argv', []))}",
                f".set = {_list(pairs)}",
                f".input = {_text(step.get('input'))}",
                f".expect = {_expect(step['expect'])}",
            ]
        )
        + "}"
    )


def write(cases: Path, header: Path) -> None:
    lines = ["static const struct test_case cases[] = {"]
    for file in sorted(cases.glob("*.json")):
        for case in json.loads(file.read_text()):
            commands = case.get("commands")
            steps = commands if commands is not None else [{"input": case.get("input"), "expect": case["expect"]}]
            fields = [
                f".name = {_text(file.stem + ': ' + case['name'])}",
                f".spec = {_text(json.dumps(case['spec']))}",
                f".needs = {_list(case.get('needs', []))}",
                f".as = {_text(case.get('as'))}",
                f".timeout_ms = {int(case.get('timeout', 30) * 1000)}",
                f".commands = {int(commands is not None)}",
                f".step_count = {len(steps)}",
                ".steps = (const struct test_step[]){" + ", ".join(_step(step) for step in steps) + "}",
            ]
            lines.append("    {" + ",\n     ".join(fields) + "},")
    lines.append("};")
    header.parent.mkdir(parents=True, exist_ok=True)
    header.write_text("\n".join(lines) + "\n")
