#!/usr/bin/env python3
"""Every `unsafe` of the workspace: where it stands, and what is said for it.

.ci/unsafe.py           fails where one has no SAFETY comment, or stands outside of the directories that may have some
.ci/unsafe.py --list    the inventory: a line for each block and implementation, with its argument
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# The system calls, the keeper's other end, the keeper, the C interface.
PLACES = ("core/src/sys/", "core/src/launch/", "core/keeper/", "capi/")
UNSAFE = re.compile(r"\bunsafe\b\s*(\{|impl\b|fn\b|trait\b|extern\b|\()?")
# Strings and characters: what stands in them is no code. A lifetime has no second quote.
LITERAL = re.compile(r'r(#*)".*?"\1|b?"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])\'')


def code_of(line: str) -> str:
    return re.sub(r"//.*", "", LITERAL.sub('""', line)).rstrip()


def argument(lines: list[str], index: int) -> str | None:
    """The SAFETY comment of a block: above its statement, which may have begun some lines before."""
    comment: list[str] = []
    for line in reversed(lines[:index]):
        text = line.strip()
        if text.startswith("//") and not text.startswith("///"):
            comment.insert(0, text.lstrip("/ "))
            if comment[0].startswith("SAFETY:"):
                return " ".join(comment).removeprefix("SAFETY:").strip()
        elif comment or not text or code_of(text).endswith((";", "{", "}")):
            return None
    return None


def tests_of(lines: list[str]) -> set[int]:
    """Lines of modules that are compiled for tests only."""
    inside: set[int] = set()
    start = None
    for index, line in enumerate(lines):
        if (
            start is None
            and line.startswith("#[cfg(test)]")
            and re.match(r"mod \w+ \{", "".join(lines[index + 1 : index + 2]))
        ):
            start = index
        if start is not None:
            inside.add(index)
            if line == "}":
                start = None
    return inside


def test_files(name: str, lines: list[str]) -> set[str]:
    """Files that a module has for tests only."""
    path = Path(name)
    directory = path.parent if path.stem in ("mod", "lib") else path.parent / path.stem
    pairs = pairwise(lines)
    found = [re.match(r"(?:pub.* )?mod (\w+);", then) for line, then in pairs if line == "#[cfg(test)]"]
    return {str(directory / f"{module[1]}.rs") for module in found if module}


def main() -> int:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.rs"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    problems, count = [], Counter[str]()
    names = [name for name in sorted(set(listed.stdout.splitlines())) if (ROOT / name).is_file()]
    texts = {name: (ROOT / name).read_text().splitlines() for name in names}
    for_tests = {file for name, lines in texts.items() for file in test_files(name, lines)}
    for name, lines in texts.items():
        of_tests = tests_of(lines)
        for index, line in enumerate(lines):
            for found in UNSAFE.finditer(code_of(line)):
                test = name.startswith("tests/") or name in for_tests or index in of_tests
                place = "tests" if test else next((p for p in PLACES if name.startswith(p)), None)
                if place is None:
                    problems.append(f"{name}:{index + 1}: unsafe outside of {', '.join(PLACES)}")
                if found[1] not in ("{", "impl"):
                    continue
                count[place or "elsewhere"] += 1
                said = argument(lines, index)
                if said is None:
                    problems.append(f"{name}:{index + 1}: no SAFETY comment")
                elif "--list" in sys.argv:
                    print(f"{name}:{index + 1}: {said}")
    print("\n".join(problems + [f"{place}: {number} blocks" for place, number in sorted(count.items())]))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
