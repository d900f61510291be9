"""The results of each kind of runner as one list: libtest's JSON, pytest through the plugin in pytest_report.py, TAP."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"

# Names of results that are no tests: what a suite left, and how its process ended.
LEAKS = "leak check"
OF_THE_SUITE = (LEAKS, "time limit", "exit", "results", "plan", "pytest", "collection")

# A test that finds by probe that this machine cannot show what it is about prints this line and returns.
SKIP_LINE = re.compile(r"^SKIP:\s*(.*)$", re.MULTILINE)


@dataclass
class Result:
    name: str
    outcome: str
    reason: str = ""
    output: str = ""
    seconds: float = 0.0
    # Failed the first time, alone it passed; reason and output are those of the first time.
    flaky: bool = False

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def alone(kind: str, failed: list[Result]) -> list[str]:
    """The tests that a second run is to have; empty for all of the suite."""
    names = [result.name for result in failed if result.name != LEAKS]
    if kind not in ("libtest", "pytest") or any(name in OF_THE_SUITE for name in names):
        return []
    return names


def settle(first: list[Result], second: list[Result], part: bool) -> list[Result]:
    """What a suite's results are after its failed tests, or (not `part`) all of them, ran once more."""
    failed = {result.name: result for result in first if result.outcome == FAILED}
    ran = {result.name for result in second}
    results = [result for result in first if part and result.name not in failed and result.name not in ran]
    for result in second:
        before = failed.get(result.name)
        if before and result.outcome == PASSED:
            result.flaky, result.reason, result.output = True, before.reason, before.output
        results.append(result)
    # A second run that did not run a test has not shown that it passes.
    results += [result for name, result in failed.items() if name not in ran and name not in OF_THE_SUITE]
    gone = [result for name, result in failed.items() if name not in ran and name in OF_THE_SUITE]
    if not any(result.flaky or result.outcome == FAILED for result in results):
        results += [Result(r.name, PASSED, r.reason, r.output, r.seconds, flaky=True) for r in gone]
    return results


def libtest(output: str) -> list[Result]:
    """Events of `--format json --show-output`. Children of a test may write to the same stdout: look for whole events."""
    results: list[Result] = []
    running: dict[str, None] = {}
    for line in output.splitlines():
        start = line.find('{ "type"')
        if start < 0:
            continue
        try:
            event, _ = json.JSONDecoder().raw_decode(line[start:])
        except ValueError:
            continue
        if event.get("type") != "test":
            continue
        name, what = event.get("name", "?"), event.get("event")
        text = event.get("stdout", "")
        seconds = float(event.get("exec_time", 0.0))
        if what == "started":
            running[name] = None
            continue
        if what == "timeout":
            continue
        running.pop(name, None)
        skip = SKIP_LINE.search(text)
        if what == "ok" and skip:
            results.append(Result(name, SKIPPED, skip.group(1), "", seconds))
        elif what == "ok":
            results.append(Result(name, PASSED, "", "", seconds))
        elif what == "ignored":
            results.append(Result(name, SKIPPED, event.get("message") or "marked #[ignore]"))
        else:
            results.append(Result(name, FAILED, event.get("reason", ""), text, seconds))
    for name in running:
        results.append(Result(name, FAILED, "did not end"))
    return results


def pytest(events: Path) -> list[Result]:
    """The lines that pytest_report.py wrote."""
    results: list[Result] = []
    running: dict[str, None] = {}
    if not events.exists():
        return results
    for line in events.read_text().splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if event["event"] == "start":
            running[event["name"]] = None
            continue
        running.pop(event["name"], None)
        results.append(
            Result(event["name"], event["event"], event.get("reason", ""), event.get("output", ""), event["seconds"])
        )
    for name in running:
        results.append(Result(name, FAILED, "did not end"))
    return results


TAP_LINE = re.compile(r"^(not ok|ok)\b\s*(\d+)?\s*-?\s*(.*?)(?:\s*#\s*(SKIP|TODO)\b\s*(.*))?$", re.IGNORECASE)
TAP_PLAN = re.compile(r"^1\.\.(\d+)(?:\s*#\s*SKIP\b\s*(.*))?$", re.IGNORECASE | re.MULTILINE)


def tap(output: str, code: int, program: str) -> list[Result]:
    """TAP; a program without a plan is one test by its exit code, where 77 means skipped, the last line says why."""
    results: list[Result] = []
    plan = None
    notes: list[str] = []
    for line in output.splitlines():
        planned = TAP_PLAN.match(line)
        if planned:
            plan = int(planned.group(1))
            if plan == 0:
                return [Result(program, SKIPPED, planned.group(2) or "no reason given")]
            continue
        found = TAP_LINE.match(line)
        if not found:
            notes.append(line)
            continue
        name = found.group(3) or f"test {found.group(2)}"
        if found.group(4) and found.group(4).upper() == "SKIP":
            results.append(Result(name, SKIPPED, found.group(5) or "no reason given"))
        elif found.group(1).lower() == "ok":
            results.append(Result(name, PASSED))
        else:
            results.append(Result(name, FAILED, "", "\n".join(notes[-40:])))
        notes = []
    if plan is None and not results:
        lines = [line for line in output.splitlines() if line.strip()]
        if code == 0:
            return [Result(program, PASSED)]
        if code == 77:
            return [Result(program, SKIPPED, lines[-1] if lines else "no reason given")]
        return [Result(program, FAILED, f"exit status {code}", "\n".join(lines[-40:]))]
    if plan is not None and plan != len(results):
        results.append(Result("plan", FAILED, f"{plan} tests planned, {len(results)} ran", "\n".join(notes[-40:])))
    if code != 0 and not any(r.outcome == FAILED for r in results):
        results.append(Result("exit", FAILED, f"exit status {code} after the tests", "\n".join(notes[-40:])))
    return results


LIBTEST_LINE = re.compile(r"^test (.+?) \.\.\. (ok|FAILED|ignored)(?:, (.*))?$", re.MULTILINE)


def libtest_text(output: str) -> list[Result]:
    """The lines for people, for documentation tests, which rustdoc runs."""
    outcomes = {"ok": PASSED, "FAILED": FAILED, "ignored": SKIPPED}
    results = []
    for name, word, reason in LIBTEST_LINE.findall(output):
        text = ""
        if word == "FAILED":
            found = re.search(rf"^---- {re.escape(name)} stdout ----\n(.*?)(?=^----|^failures:)", output, re.M | re.S)
            text = found.group(1) if found else ""
        results.append(Result(name, outcomes[word], reason, text))
    return results
