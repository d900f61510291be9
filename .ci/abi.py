"""The C interface against its record in capi/abi.txt: what is recorded may not change or go, what is new is to be recorded.

    python3 .ci/abi.py            compares
    python3 .ci/abi.py --update   records what is new
    python3 .ci/abi.py --break    records everything anew (only together with a new soname)

A line is a declaration of the header (functions with their types, enumerators with their numbers, types) without comments,
spacing and names of arguments.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEADER = ROOT / "include" / "ringfence.h"
RECORD = ROOT / "capi" / "abi.txt"


def _arguments(text: str) -> str:
    """`const char *key, int` for `const char *key, int signal`: names may change, types not."""
    types = []
    for argument in text.split(","):
        words = re.sub(r"\*", " * ", argument).split()
        named = len(words) > 1 and re.fullmatch(r"\w+", words[-1]) and words[-2] not in ("struct", "enum", "unsigned")
        types.append(" ".join(words[:-1] if named and words != ["void"] else words))
    return ", ".join(types)


def declarations(header: Path) -> set[str]:
    text = re.sub(r"/\*.*?\*/", " ", header.read_text(), flags=re.S)
    text = re.sub(r"//[^\n]*", " ", text)
    # Both sides of an #if are declarations that some caller sees.
    text = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    text = re.sub(r'extern\s+"C"\s*\{', " ", text)
    found = set()
    for kind, name, body in re.findall(r"\b(enum|struct|union)\s+(\w+)[^;{}()]*\{(.*?)\}", text, flags=re.S):
        value = -1
        for member in re.split(r"[,;]", body):
            words = " ".join(member.split())
            if not words:
                continue
            if kind == "enum":
                label, _, number = words.partition("=")
                value = int(number, 0) if number else value + 1
                words = f"{label.strip()} = {value}"
            found.add(f"{kind} {name}: {words}")
    text = re.sub(r"\{.*?\}", " ", text, flags=re.S)
    for statement in text.split(";"):
        words = " ".join(statement.replace("}", " ").split())
        function = re.fullmatch(r"(.*?)\b(ringfence_\w+)\s*\((.*)\)", words)
        if function and not words.startswith("typedef"):
            result = " ".join(re.sub(r"\*", " * ", function.group(1)).split())
            found.add(f"{result} {function.group(2)}({_arguments(function.group(3))})")
        elif words.startswith("typedef"):
            found.add(words)
    return found


def main() -> int:
    now = declarations(HEADER)
    recorded = set(RECORD.read_text().splitlines()) if RECORD.exists() else set()
    gone, new = sorted(recorded - now), sorted(now - recorded)
    if "--break" in sys.argv or ("--update" in sys.argv and not gone):
        RECORD.write_text("".join(f"{line}\n" for line in sorted(now)))
        print(f"{RECORD.relative_to(ROOT)}: {len(now)} declarations, {len(new)} new, {len(gone)} gone")
        return 0
    for line in gone:
        print(f"changed or gone, which breaks programs that are built already: {line}")
    for line in new:
        print(f"new, to be recorded by `python3 .ci/abi.py --update`: {line}")
    print(f"{len(now)} declarations")
    return 1 if gone or new else 0


if __name__ == "__main__":
    sys.exit(main())
