"""The table of system calls, core/src/security/filter/syscalls.rs, from the kernel's own headers.

    python3 .ci/syscalls.py            compares with what is committed
    python3 .ci/syscalls.py --update   writes it anew

The source is the crate linux-raw-sys of Cargo.lock (its newest version there), which has the constants of the kernel's
exported headers for every architecture, and says which kernel they are from. What the distribution's own headers say
(package linux-libc-dev, where it is installed) may be older, but not different.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "core" / "src" / "security" / "filter" / "syscalls.rs"
# Ours, the crate's, and the header of the distribution.
ARCHITECTURES = [
    ("x86_64", "x86_64", "asm/unistd_64.h"),
    ("i386", "x86", "asm/unistd_32.h"),
    ("aarch64", "aarch64", None),
]
WIDTH = 120

HEAD = """\
//! The numbers of system calls. Made by .ci/syscalls.py, which also checks it; not to be changed by hand.

/// The kernel that the table is from.
pub(super) const LINUX: (u32, u32) = ({major}, {minor});

/// Not a system call of that architecture.
pub(super) const NO: u16 = u16::MAX;

/// By name: the number on x86_64, i386, aarch64.
#[rustfmt::skip]
pub(super) static SYSCALLS: [(&str, [u16; 3]); {count}] = [
"""


def crate() -> Path:
    """The directory of the newest linux-raw-sys that the workspace builds with."""
    command = ["cargo", "metadata", "--format-version", "1", "--locked"]
    packages = json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)["packages"]
    found = [package for package in packages if package["name"] == "linux-raw-sys"]
    if not found:
        sys.exit("linux-raw-sys is in no dependency any more: another source for the table of system calls is needed")
    newest = max(found, key=lambda package: [int(part) for part in package["version"].split(".")])
    return Path(newest["manifest_path"]).parent


def numbers(text: str) -> dict[str, int]:
    """`pub const __NR_read: u32 = 0;` and `#define __NR_read 0`."""
    pattern = r"(?:pub const|#define) __NR_(\w+)(?:: u32 =)? (\d+)"
    return {name: int(number) for name, number in re.findall(pattern, text)}


def table() -> tuple[str, dict[str, dict[str, int]]]:
    source = crate() / "src"
    general = {ours: (source / theirs / "general.rs").read_text() for ours, theirs, _ in ARCHITECTURES}
    calls = {ours: numbers(text) for ours, text in general.items()}
    version = [
        re.search(rf"LINUX_VERSION_{part}: u32 = (\d+)", general["x86_64"])[1] for part in ("MAJOR", "PATCHLEVEL")
    ]
    names = sorted(set().union(*calls.values()))
    lines, line = [], ""
    for name in names:
        here = [str(calls[ours].get(name, "NO")) for ours, _, _ in ARCHITECTURES]
        entry = f'("{name}", [{", ".join(here)}]),'
        if line and len(line) + 1 + len(entry) > WIDTH:
            lines.append(line)
            line = ""
        line = f"{line} {entry}" if line else f"    {entry}"
    lines.append(line)
    head = HEAD.format(major=version[0], minor=version[1], count=len(names))
    return head + "\n".join(lines) + "\n];\n", calls


def differences(calls: dict[str, dict[str, int]]) -> list[str]:
    """What the distribution's headers say otherwise."""
    wrong = []
    for ours, _, header in ARCHITECTURES:
        for path in sorted(Path("/usr/include").glob(f"*/{header}")) if header else []:
            for name, number in numbers(path.read_text()).items():
                if calls[ours].get(name) != number:
                    wrong.append(f"{path}: {name} is {number} on {ours}, here {calls[ours].get(name)}")
    return wrong


def main(arguments: list[str]) -> int:
    text, calls = table()
    wrong = differences(calls)
    if arguments == ["--update"]:
        TABLE.write_text(text)
    elif not TABLE.exists() or TABLE.read_text() != text:
        wrong.append(f"{TABLE.relative_to(ROOT)} is not what .ci/syscalls.py --update makes")
    print("\n".join(wrong) or f"{sum(map(len, calls.values()))} numbers agree")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
