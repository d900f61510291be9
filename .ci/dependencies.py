#!/usr/bin/env python3
"""The crates that are compiled into ringfence or into its tests: their licences, where they come from, which are there twice.

What a database of flaws would tell takes the network (cargo audit); this does not.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Each may be given on with "MIT OR Apache-2.0": they ask for their notice, and for nothing of who links with them.
ACCEPTED = {
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "Unicode-3.0",
    "Unlicense",
}
# What is compiled, and what is accepted there besides. libFuzzer (NCSA: its notice, too) is in the fuzz targets alone, which nobody is given.
WORKSPACES: dict[str, set[str]] = {"Cargo.toml": set(), "tests/fuzz/Cargo.toml": {"NCSA"}}
REGISTRY = "registry+https://github.com/rust-lang/crates.io-index"
# A crate in several versions is code twice. These are, until who asks for the older one goes on:
TWICE = {
    "bit-vec": "of proptest, for tests",
    "bitflags": "cgroups-rs 0.5 has nix 0.25, which has bitflags 1",
    "nix": "cgroups-rs 0.5 has nix 0.25",
    "syn": "macros at build time, of zbus and of others",
}


def accepted(expression: str, more: set[str]) -> bool:
    """Whether an SPDX expression can be fulfilled by what is accepted."""
    # An older way to write OR.
    words = re.findall(r"\(|\)|[^()\s]+", expression.replace("/", " OR "))

    def one() -> bool:
        word = words.pop(0)
        if word == "(":
            value = either()
            words.pop(0)
            return value
        if words[:1] == ["WITH"]:
            word = f"{word} WITH {words[1]}"
            del words[:2]
        return word in ACCEPTED | more

    def both() -> bool:
        value = one()
        while words[:1] == ["AND"]:
            words.pop(0)
            value &= one()
        return value

    def either() -> bool:
        value = both()
        while words[:1] == ["OR"]:
            words.pop(0)
            value |= both()
        return value

    return either()


def main() -> int:
    for expression, fine in [
        ("MIT", True),
        ("GPL-3.0 OR MIT", True),
        ("MIT AND GPL-3.0", False),
        ("(MIT OR X) AND Y", False),
    ]:
        assert accepted(expression, set()) == fine, expression
    problems, crates, twice = [], set[str](), set[str]()
    for manifest, more in WORKSPACES.items():
        command = ["cargo", "metadata", "--locked", "--format-version", "1", "--manifest-path", manifest]
        packages = json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout)["packages"]
        versions = defaultdict[str, set[str]](set)
        for package in packages:
            name = f"{package['name']} {package['version']}"
            crates.add(name)
            versions[package["name"]].add(package["version"])
            if not package["license"] or not accepted(package["license"], more):
                problems.append(f"{name}: licence {package['license']}")
            ours = package["source"] is None and Path(package["manifest_path"]).is_relative_to(ROOT)
            if package["source"] != REGISTRY and not ours:
                problems.append(f"{name}: comes from {package['source'] or package['manifest_path']}")
        # Each of the two is compiled by itself.
        several = {name: seen for name, seen in versions.items() if len(seen) > 1}
        twice |= set(several)
        for name in sorted(several.keys() - TWICE.keys()):
            seen = ", ".join(sorted(several[name]))
            problems.append(f"{name}: in versions {seen}; if that cannot be helped, say why in TWICE")
    problems += [f"{name}: no longer there twice" for name in sorted(TWICE.keys() - twice)]
    print("\n".join([*dict.fromkeys(problems), f"{len(crates)} crates"]))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
