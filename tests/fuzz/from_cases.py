#!/usr/bin/env python3
"""Seeds out of tests/cases: the specs of all cases, as JSON, as lines of KEY=TEXT, and for plans.

tests/fuzz/from_cases.py DIRECTORY
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

CASES = Path(__file__).resolve().parents[1] / "cases"


def main() -> None:
    out = Path(sys.argv[1])
    directories = {name: out / name for name in ("spec_json", "spec_text", "plan")}
    for directory in directories.values():
        directory.mkdir(parents=True, exist_ok=True)
    for file in sorted(CASES.glob("*.json")):
        for number, case in enumerate(json.loads(file.read_text())):
            spec = case.get("spec")
            if not isinstance(spec, dict):
                continue
            name = f"{file.stem}-{number}"
            text = json.dumps(spec, ensure_ascii=False).replace("${TMP}", "/srv")
            (directories["spec_json"] / name).write_text(text)
            machine = (b"\x00", b"\x29", b"\x7f")[number % 3]
            (directories["plan"] / name).write_bytes(machine + text.encode())
            lines = []
            for key, value in json.loads(text).items():
                for one in value if isinstance(value, list) else [value]:
                    lines.append(f"{key}={one if isinstance(one, str) else json.dumps(one)}")
            (directories["spec_text"] / name).write_text("\n".join(lines))


if __name__ == "__main__":
    main()
