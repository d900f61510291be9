"""The checks of .ci/run, one after the other; each tells its outcome, the last line counts them with the tests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
SUITES = TARGET / "suites"
BIN = TARGET / "venv" / "bin"
FLAKY = re.compile(r"^flaky: (.+)$")
TOTALS = re.compile(r"^(\d+) passed, (\d+) failed, (\d+) skipped$")
HEADER = ROOT / "include" / "ringfence.h"

Count = tuple[int, int, int]

# Tests that passed only the second time, of all runs of suites.
flaky: list[str] = []


def stream(command: list[str], env: dict[str, str] | None = None) -> tuple[int, list[str]]:
    """Runs a command, shows its output as it comes, returns exit status and lines."""
    lines: list[str] = []
    print(f"$ {' '.join(command)}", flush=True)
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout
        for line in process.stdout:
            sys.stdout.write(line)
            sys.stdout.flush()
            lines.append(line.rstrip("\n"))
    return process.returncode, lines


def tests(*command: str) -> Callable[[], Count]:
    """A command that ends with the line of totals."""

    def run() -> Count:
        code, lines = stream(list(command))
        flaky.extend(f"{' '.join(command[-1:])}: {found[1]}" for found in map(FLAKY.match, lines) if found)
        for line in reversed(lines):
            found = TOTALS.match(line)
            if found:
                passed, failed, skipped = (int(n) for n in found.groups())
                return passed, max(failed, 1 if code else 0), skipped
        print(f"{' '.join(command)}: exit status {code} and no line of totals")
        return 0, 1, 0

    return run


def check(*command: str, **env: str) -> Callable[[], Count]:
    """A command that succeeds or fails."""

    def run() -> Count:
        code, _ = stream(list(command), env)
        return (0, 1, 0) if code else (1, 0, 0)

    return run


def _files(pattern: str) -> list[str]:
    """Files of the repository, also those that are not committed yet."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", pattern]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return sorted(name for name in set(listed.stdout.splitlines()) if (ROOT / name).is_file())


def rustfmt() -> Count:
    """All sources: the keeper is compiled by a build script and so unknown to `cargo fmt`."""
    return check("rustfmt", "--color", "never", "--edition", "2024", "--check", *_files("*.rs"))()


def header_compiles() -> Count:
    """The header as every consumer may include it."""
    passed = failed = 0
    for compiler, language, standard in (
        ("cc", "c", "c99"),
        ("cc", "c", "c17"),
        ("c++", "c++", "c++17"),
    ):
        command = [compiler, "-x", language, f"-std={standard}", "-Wall", "-Wextra", "-Werror", "-pedantic"]
        code, _ = stream([*command, "-fsyntax-only", str(HEADER)])
        passed, failed = (passed, failed + 1) if code else (passed + 1, failed)
    return passed, failed, 0


def _declared() -> set[str]:
    text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.S)
    return set(re.findall(r"\b(ringfence_\w+)\s*\(", text))


def symbols() -> Count:
    """The shared library exports what the header declares, versioned, and nothing else; the soname is ours."""
    library = SUITES / "prefix" / "lib" / "libringfence.so"
    command = ["nm", "-D", "--defined-only", "--with-symbol-versions", str(library)]
    listed = subprocess.run(command, capture_output=True, text=True, check=True)
    exported = {}
    for line in listed.stdout.splitlines():
        name, _, version = line.split()[-1].partition("@@")
        if not re.fullmatch(r"[A-Z]+_[0-9.]+", name.partition("@")[0]):
            exported[name] = version
    problems = [f"declared, not exported: {name}" for name in sorted(_declared() - exported.keys())]
    problems += [f"exported, not declared: {name}" for name in sorted(exported.keys() - _declared())]
    problems += [f"without a version: {name}" for name, version in sorted(exported.items()) if not version]
    dynamic = subprocess.run(["readelf", "-d", str(library)], capture_output=True, text=True, check=False).stdout
    if "[libringfence.so.0]" not in dynamic:
        problems.append("the soname is not libringfence.so.0")
    if "NODELETE" not in dynamic:
        problems.append("not linked with -z nodelete")
    for line in problems:
        print(line)
    print(f"{len(exported)} symbols exported")
    return (0, 1, 0) if problems else (1, 0, 0)


def shell() -> Count:
    """Every shell script parses."""
    bad = 0
    for name in _files("*"):
        with (ROOT / name).open("rb") as file:
            first = file.readline()
        if first.startswith(b"#!") and first.rstrip().endswith((b"/sh", b"/bash")):
            code, _ = stream([first.decode().rstrip().rpartition("/")[2], "-n", name])
            bad += bool(code)
    return (0, 1, 0) if bad else (1, 0, 0)


LEAVES = """
sleep 60 &
mount -t tmpfs ringfence-left "$1"
mkdir -p /run/ringfence && touch /run/ringfence/left
mkdir "$(find /sys/fs/cgroup -type d -path "*$RINGFENCE_CGROUP_PARENT" | head -n 1)/left"
ip link add ringfence-left type veth peer name ringfence-peer 2>/dev/null || echo no veth
"""


def leak_check() -> Count:
    """The leak check sees what a careless command leaves, and nothing after one that leaves nothing."""
    if os.getuid() != 0:
        print("needs root: not run")
        return 0, 0, 1
    clean, lines = stream(["tests/leakcheck", "true"])
    problems = [] if clean == 0 and not lines else [f"a command that leaves nothing: status {clean}"]
    with tempfile.TemporaryDirectory() as directory:
        try:
            code, lines = stream(["tests/leakcheck", "sh", "-c", LEAVES, "sh", directory])
        finally:
            for undo in (["umount", directory], ["sh", "-c", "ip link del ringfence-left"]):
                subprocess.run(undo, stderr=subprocess.DEVNULL, check=False)
            Path("/run/ringfence/left").unlink(missing_ok=True)
    text = "\n".join(lines)
    if code == 0:
        problems.append("leftovers, but exit status 0")
    for kind in ("processes", "mounts", "control groups", "files", "network devices"):
        if f"left behind, {kind}:" not in text and not (kind == "network devices" and "no veth" in text):
            problems.append(f"did not see the leftover: {kind}")
    for line in problems:
        print(line)
    return (0, 1, 0) if problems else (1, 0, 0)


def second_try() -> Count:
    """A test that fails once is told to be flaky; one that fails twice, is not run again or leaves something has failed."""
    sys.path.insert(0, str(ROOT / "tests" / "lib"))
    from report import FAILED, LEAKS, PASSED, Result, alone, settle

    def outcome(first: list[tuple[str, str]], second: list[tuple[str, str]]) -> list[tuple[str, str, bool]]:
        results = [Result(*one) for one in first]
        again = alone("libtest", [one for one in results if one.outcome == FAILED])
        settled = settle(results, [Result(*one) for one in second], bool(again))
        return sorted((one.name, one.outcome, one.flaky) for one in settled)

    stays = [("a", PASSED), ("b", FAILED)]
    told = [
        (outcome(stays, [("b", PASSED)]), [("a", PASSED, False), ("b", PASSED, True)]),
        (outcome(stays, [("b", FAILED)]), [("a", PASSED, False), ("b", FAILED, False)]),
        (outcome(stays, []), [("a", PASSED, False), ("b", FAILED, False)]),
        (outcome(stays, [("b", PASSED), (LEAKS, FAILED)])[1:], [("b", PASSED, True), (LEAKS, FAILED, False)]),
        (outcome([("a", PASSED), ("time limit", FAILED)], [("a", PASSED)])[1:], [("time limit", PASSED, True)]),
        (outcome([("a", PASSED), ("time limit", FAILED)], [("a", FAILED)]), [("a", FAILED, False)]),
    ]
    wrong = [f"{is_now}, not {wanted}" for is_now, wanted in told if is_now != wanted]
    print("\n".join(wrong))
    return (0, 1, 0) if wrong else (1, 0, 0)


def killed_run() -> Count:
    """A run of tests that is ended in the middle takes its suite, and the suite's disks and mounts, with it."""
    if os.getuid() != 0 or not (SUITES / "manifest.json").exists():
        print("needs root, and suites that are built: not run")
        return 0, 0, 1

    def disks() -> set[str]:
        return {file.read_text().strip() for file in Path("/sys/block").glob("loop*/loop/backing_file")}

    def mounts() -> set[str]:
        return {line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}

    before = disks(), mounts()
    command = ["tests/run", "--no-build", "--suite", "rust:quota", "--as", "root"]
    run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (mounts() - before[1]) and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    problems = [] if run.poll() is None else ["it had ended before it was to"]
    run.terminate()
    run.wait(60)
    left = disks() - before[0], mounts() - before[1]
    # The containers that were running are their keeper's to end, within a second.
    deadline = time.monotonic() + 10
    while any(left) and time.monotonic() < deadline:
        time.sleep(0.1)
        left = disks() - before[0], mounts() - before[1]
    problems += [f"left behind: {what}" for what in [*left[0], *left[1]]]
    print("\n".join(problems))
    return (0, 1, 0) if problems else (1, 0, 0)


def checks() -> list[tuple[str, Callable[[], Count]]]:
    python = ["tests", ".ci"] + (["python"] if (ROOT / "python" / "pyproject.toml").exists() else [])
    listed: list[tuple[str, Callable[[], Count]]] = [
        ("make test", tests("make", "-s", "test")),
        ("rustfmt", rustfmt),
        ("clippy", check("cargo", "clippy", "--locked", "-q", "--workspace", "--all-targets", "--", "-D", "warnings")),
        (
            "cargo doc",
            check("cargo", "doc", "--locked", "-q", "--no-deps", "-p", "ringfence", RUSTDOCFLAGS="-D warnings"),
        ),
        ("ruff", check(str(BIN / "ruff"), "check", "--no-cache", *python)),
        ("ruff format", check(str(BIN / "ruff"), "format", "--no-cache", "--check", *python)),
        (
            "mypy of the tests' frame",
            check(str(BIN / "mypy"), "--strict", "--cache-dir", str(TARGET / "mypy"), "tests/lib"),
        ),
        ("unsafe code", check(sys.executable, ".ci/unsafe.py")),
        ("licences and origins of dependencies", check(sys.executable, ".ci/dependencies.py")),
        ("shell scripts", shell),
        ("the leak check itself", leak_check),
        ("the second try itself", second_try),
        ("the end of a run in its middle", killed_run),
    ]
    if HEADER.exists():
        cbindgen = str(TARGET / "tools" / "bin" / "cbindgen")
        listed += [
            (
                "header is what cbindgen makes",
                check(cbindgen, "--verify", "-q", "--config", "capi/cbindgen.toml", "-o", str(HEADER), "capi"),
            ),
            ("header compiles as C99, C17 and C++17", header_compiles),
            ("exported symbols", symbols),
            ("C interface as recorded", check(sys.executable, ".ci/abi.py")),
            ("table of system calls", check(sys.executable, ".ci/syscalls.py")),
        ]
    if (ROOT / "python" / "pyproject.toml").exists():
        path = {"MYPYPATH": str(SUITES / "python"), "PYTHONPATH": str(SUITES / "python")}
        mypy = ["--strict", "--cache-dir", str(TARGET / "mypy"), "python/ringfence"]
        listed += [
            ("mypy", check(str(BIN / "mypy"), *mypy)),
            ("stubtest", check(str(BIN / "stubtest"), "ringfence", **path)),
        ]
    if (ROOT / "tests" / "vm" / "run").exists():
        listed.append(("make test-vm", tests("make", "-s", "test-vm")))
    return listed


def main() -> int:
    wanted = sys.argv[1:]
    rows = []
    chosen = [(name, run) for name, run in checks() if not wanted or name in wanted]
    guest = "make test-vm" in [name for name, _ in chosen]
    setup = None
    for name, run in chosen:
        if guest and setup is None and name != "make test":
            # Mostly waiting for the archive: beside the static checks. `make test-vm` waits for it and says what failed.
            setup = subprocess.Popen(["tests/vm/setup"], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if name == "make test-vm" and setup:
            setup.wait()
        print(f"\n=== {name}", flush=True)
        started = time.monotonic()
        try:
            count = run()
        except Exception as error:  # one broken check must not hide the others
            print(f"{name}: {type(error).__name__}: {error}")
            count = (0, 1, 0)
        rows.append((name, count, time.monotonic() - started))
    print("\n=== summary")
    for name, (passed, failed, skipped), seconds in rows:
        verdict = "FAILED" if failed else "ok"
        print(f"{name:<40} {verdict:<7} {passed:5} passed {failed:4} failed {skipped:4} skipped {seconds:8.1f} s")
    for test in flaky:
        print(f"flaky: {test}")
    total = [sum(row[1][i] for row in rows) for i in range(3)]
    print(f"\n{total[0]} passed, {total[1]} failed, {total[2]} skipped", flush=True)
    return 1 if total[1] or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
