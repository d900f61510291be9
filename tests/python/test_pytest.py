"""The plugin of pytest: containers as fixtures, tests that run in a container. Each run is another pytest.

tests/run: timeout=300 tier=machine as=root,user
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import unittest
from pathlib import Path
from typing import Any

import pytest

import ringfence
from ringfence.testing import ContainerTestCase

#: On an emulated processor each test inside takes ten seconds.
SLOW = os.environ.get("RINGFENCE_TEST_TIER") == "vm"

CONFTEST = """
import json, os, pytest

def pytest_addoption(parser):
    parser.addoption("--word", default="none")

def pytest_runtest_logreport(report):
    if os.environ.get("PYTEST_XDIST_WORKER") or not os.environ.get("SEEN"):
        return
    with open(os.environ["SEEN"], "a") as file:
        data = {"name": report.nodeid.partition("::")[2], "when": report.when, "outcome": report.outcome,
                "xfail": getattr(report, "wasxfail", None), "text": report.longreprtext, "sections": dict(report.sections)}
        file.write(json.dumps(data) + "\\n")
"""


def _refused() -> dict[str, Any]:
    """Limits that this machine does not have: of cgroup v2, or of v1."""
    candidates: tuple[dict[str, Any], ...] = ({"memory_high": "32M"}, {"cpu_rt_runtime": 0.1})
    for limits in candidates:
        try:
            ringfence.run(["true"], **limits)
        except ringfence.Error as error:
            if error.kind == "unsupported":
                return limits
    raise AssertionError("it has them all")


REFUSED = _refused()
(FIELD,) = REFUSED


class Runs:
    """Runs of pytest on files in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.seen = directory.parent / "seen"
        directory.mkdir()
        self.write("conftest.py", CONFTEST)
        self.write("pytest.ini", "[pytest]\n")

    def write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text)

    def run(self, *arguments: str, status: int | None = None) -> dict[str, dict[str, Any]]:
        """Reports by test and phase."""
        self.seen.unlink(missing_ok=True)
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "RINGFENCE_TEST_"))
        }
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "--basetemp", str(self.directory.parent / "base"), *arguments],
            cwd=self.directory,
            env={**environment, "SEEN": str(self.seen), "HOST_ONLY": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        self.output = done.stdout + done.stderr
        assert "INTERNALERROR" not in self.output, self.output
        if status is not None:
            assert done.returncode == status, self.output
        result: dict[str, dict[str, Any]] = {}
        for line in self.seen.read_text().splitlines() if self.seen.exists() else ():
            told = json.loads(line)
            phases = result.setdefault(told["name"], {})
            assert told["when"] not in phases, "one report of each phase"
            phases[told["when"]] = told
        return result


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path / "rootdir")


INSIDE = """
import os, socket, unittest
import pytest

pytestmark = pytest.mark.ringfence(hostname="inside")

class Test:
    @pytest.fixture(autouse=True)
    def around(self):
        assert socket.gethostname() == "inside"
        yield
        print("around ends")

    @pytest.mark.ringfence(env={"OF_THE_MARK": "1"})
    def test_passes(self, tmp_path, pytestconfig):
        assert socket.gethostname() == "inside" and os.environ["OF_THE_MARK"] == "1" and "HOST_ONLY" not in os.environ
        assert pytestconfig.getoption("word") == "given"
        assert os.getcwd() == str(pytestconfig.rootpath)
        with pytest.raises(OSError):
            open(__file__, "a")
        (tmp_path / "left").write_text("by the test")

class Case(unittest.TestCase):
    def test_unittest(self):
        self.assertEqual(socket.gethostname(), "outside")

@pytest.mark.parametrize("n", [1, "a/b::[c]"])
def test_fails(n):
    print("printed inside")
    assert {"n": 1} == {"n": n}, socket.gethostname()

def test_skips():
    pytest.skip("no need")

@pytest.mark.xfail(reason="known")
def test_xfails():
    assert False

@pytest.fixture
def broken():
    yield
    raise RuntimeError("in the fixture")

def test_teardown_fails(broken):
    pass

def test_leaves():
    os._exit(0)

def test_warns():
    import warnings
    warnings.warn("from inside", FutureWarning)

def test_lies():
    # It knows where the reports go, and writes what is none.
    os.write(4, b'{"kind": "report", "data": {"when": "call", "outcome": "passed"}}\\n[1]\\n')

@pytest.mark.ringfence(memroy="64M")
def test_misspelt():
    pass
"""

#: Fixtures of this process around a test that runs elsewhere.
OUTSIDE = """
import os, pytest

@pytest.fixture(scope="module")
def of_the_module():
    yield os.getpid()
    print("module ends")

def test_before(of_the_module):
    pass

@pytest.mark.ringfence
def test_within(of_the_module):
    assert of_the_module == os.getpid()
"""


def test_tests_inside(runs: Runs) -> None:
    runs.write("test_inside.py", INSIDE)
    runs.write("test_a_module.py", OUTSIDE)
    runs.write("test_z_last.py", "def test_last(): pass\n")
    few = ["test_inside.py::Test::test_passes", "test_inside.py::test_fails[a/b::[c]]", "test_z_last.py"]
    chosen = few if SLOW else ["-n", "2"]
    seen = runs.run("--word", "given", *chosen, status=1)

    assert seen["Test::test_passes"]["call"]["outcome"] == "passed", runs.output
    # Its directory is the caller's to read and to remove.
    (left,) = (runs.directory.parent / "base").rglob("left")
    assert left.read_text() == "by the test"
    assert left.stat().st_uid == os.getuid()

    failed = seen["test_fails[a/b::[c]]"]["call"]
    assert failed["outcome"] == "failed"
    assert "AssertionError: inside" in failed["text"] and "{'n': 'a/b::[c]'}" in failed["text"]
    assert ">       assert {" in failed["text"]
    assert failed["sections"]["Captured stdout call"] == "printed inside\n"
    (told,) = (text for title, text in failed["sections"].items() if title.startswith("ringfence container"))
    assert "\nstatus: exited with 1\n" in told
    assert seen["test_last"]["call"]["outcome"] == "passed"
    if SLOW:
        return

    assert seen["test_fails[1]"]["call"]["outcome"] == "passed"

    assert seen["test_within"]["call"]["outcome"] == "passed"
    assert "module ends" in seen["test_within"]["teardown"]["sections"].get("Captured stdout teardown", "")
    teardown = seen["test_teardown_fails"]["teardown"]
    assert "RuntimeError: in the fixture" in teardown["text"]

    assert "'inside' != 'outside'" in seen["Case::test_unittest"]["call"]["text"]
    skipped = seen["test_skips"]["call"]
    assert (skipped["outcome"], skipped["xfail"]) == ("skipped", None) and "no need" in skipped["text"]
    expected = seen["test_xfails"]["call"]
    assert (expected["outcome"], expected["xfail"]) == ("skipped", "known")
    assert "did not end inside, in its call: exit status 0" in seen["test_leaves"]["call"]["text"]
    lied = [phase["text"] for phase in seen["test_lies"].values() if phase["outcome"] == "failed"]
    assert any("what came from inside cannot be read" in text for text in lied)
    assert "FutureWarning: from inside" in runs.output
    assert "did you mean memory" in seen["test_misspelt"]["setup"]["text"]
    assert all(phases["teardown"] for phases in seen.values())


LIMITED = """
import pytest

@pytest.mark.ringfence(memory="48M")
def test_memory():
    print("eats")
    b"x" * (300 << 20)

@pytest.mark.ringfence(wall_time=TIME)
def test_time():
    import time
    time.sleep(600)

def test_after():
    pass
"""


@pytest.mark.needs("memory")
def test_limits_that_end_a_test(runs: Runs) -> None:
    runs.write("test_limited.py", LIMITED.replace("TIME", "90" if SLOW else "2.5"))
    seen = runs.run("-x", *(["-k", "memory"] if SLOW else []), status=1)
    assert list(seen) == ["test_memory"], "-x"
    failed = seen["test_memory"]["call"]
    assert "killed for want of memory" in failed["text"]
    (told,) = failed["sections"].values()
    assert "48.0M of 48.0M" in told and "out_of_memory" in told
    if SLOW:
        return
    assert list(runs.run("--lf", status=1)) == ["test_memory"]
    assert "its time was up (wall_time)" in runs.run("-k", "time", status=1)["test_time"]["call"]["text"]


FIXTURES = """
import os, pathlib, pytest, ringfence

order = []

@pytest.fixture(autouse=True)
def watched(monkeypatch):
    close = ringfence.Container.close
    monkeypatch.setattr(ringfence.Container, "close", lambda self, *a: (order.append(self.name), close(self, *a))[1])
    yield

def test_fails(ringfence_container, ringfence_session_container, tmp_path):
    old = ringfence_session_container(name=f"old-{os.getpid()}")
    first = ringfence_container(["sh", "-c", "echo on the log; exit 3"], name=f"first-{os.getpid()}")
    first.wait(60)
    second = ringfence_container(name=f"second-{os.getpid()}", hostname="second")
    second.run(["sh", "-c", f"uname -n > {tmp_path}/made; cat {__file__}"], check=True, capture_output=True)
    assert (tmp_path / "made").read_text() == "first"

def test_closed(ringfence_session_container):
    assert [name.partition("-")[0] for name in order] == ["second", "first"]
    assert [c.running for c in ringfence_session_container.containers] == [True]

def test_shares_nothing(ringfence_container, tmp_path):
    c = ringfence_container(share=())
    assert c.run(["test", "-e", tmp_path]).returncode == c.run(["test", "-e", __file__]).returncode == 1
    with pytest.raises(pytest.UsageError):
        ringfence_container(share="home")

def test_close_fails(ringfence_container, monkeypatch):
    first = ringfence_container()
    second = ringfence_container()
    real = second._raw

    class Refuses:
        def __getattr__(self, name):
            return getattr(real, name)

        def close(self, timeout):
            real.close(timeout)
            raise ringfence.Error("it would not close", kind="timed_out")

    second._raw = Refuses()
    pathlib.Path("first").write_text(str(first.pid))

def test_detached(ringfence_container):
    ringfence_container(["sleep", "1000"], name=f"fixture-{os.getpid()}", detach=True)

def test_the_other_was_closed():
    assert f"fixture-{os.getpid()}" not in [entry.name for entry in ringfence.ls()]
    assert not os.path.exists("/proc/" + pathlib.Path("first").read_text())

of_the_class = []

class TestClass:
    def test_makes(self, ringfence_class_container, ringfence_module_container):
        of_the_class.append(ringfence_class_container())
        pathlib.Path("module").write_text(str(ringfence_module_container().pid))

    def test_has(self, ringfence_class_container):
        assert ringfence_class_container.containers == of_the_class and of_the_class[0].running

def test_of_the_module(ringfence_module_container):
    assert not of_the_class[0].running
    (c,) = ringfence_module_container.containers
    assert c.running and str(c.pid) == pathlib.Path("module").read_text()

def test_refused(ringfence_container):
    ringfence_container(**REFUSED)

@pytest.mark.ringfence(**REFUSED)
def test_refused_inside():
    pass
"""


def test_fixtures(runs: Runs) -> None:
    runs.write("test_fixtures.py", FIXTURES.replace("**REFUSED", f"**{REFUSED!r}"))
    module_ended = 'assert not os.path.exists("/proc/" + open("module").read())'
    runs.write("test_later.py", f"import os\ndef test_the_module_s_was_closed():\n    {module_ended}\n")
    seen = runs.run(status=1)
    failed = seen["test_fails"]["call"]
    assert failed["outcome"] == "failed" and "'second\\n' == 'first'" in failed["text"]
    titles = [title.rpartition(" ")[2].partition("-")[0] for title in failed["sections"] if "ringfence" in title]
    assert sorted(titles) == ["first", "old", "second"]
    (told,) = (text for title, text in failed["sections"].items() if " first-" in title)
    assert told.startswith("command: sh -c 'echo on the log; exit 3'\nstatus: exited with 3\nusage: ")
    assert told.endswith("\nlog, the last 50 lines:\non the log")
    fine = ["test_closed", "test_shares_nothing", "test_the_other_was_closed", "test_of_the_module"]
    for name in [*fine, "TestClass::test_makes", "TestClass::test_has", "test_the_module_s_was_closed"]:
        assert seen[name]["call"]["outcome"] == "passed", seen[name]["call"]["text"]
    assert "it would not close" in seen["test_close_fails"]["teardown"]["text"]

    # What this machine cannot do fails, and says what it can.
    refused = seen["test_refused"]["call"]
    assert refused["outcome"] == "failed" and FIELD in refused["text"]
    assert "Containers start here" in refused["sections"]["ringfence doctor"]
    refused = seen["test_refused_inside"]["setup"]
    assert refused["outcome"] == "failed" and FIELD in refused["text"]
    assert "Containers start here" in refused["sections"]["ringfence doctor"]

    if SLOW:
        return
    # Or skips, when that is asked for, by option or in the file.
    runs.write("pytest.ini", "[pytest]\nringfence = skip\n")
    seen = runs.run("-k", "refused", status=0)
    assert seen["test_refused"]["call"]["outcome"] == "skipped" and FIELD in seen["test_refused"]["call"]["text"]
    assert seen["test_refused_inside"]["setup"]["outcome"] == "skipped"
    seen = runs.run("-k", "refused", "--ringfence=run", status=1)
    assert seen["test_refused"]["call"]["outcome"] == "failed"
    runs.write("pytest.ini", "[pytest]\n")
    seen = runs.run("-k", "refused", "--ringfence=skip", status=0)
    assert [
        seen[name][when]["outcome"] for name, when in (("test_refused", "call"), ("test_refused_inside", "setup"))
    ] == ["skipped"] * 2
    runs.write("pytest.ini", "[pytest]\nringfence = perhaps\n")
    runs.run("-k", "refused", status=4)
    assert "neither run nor skip" in runs.output


def test_ringfence_alone_is_without_pytest() -> None:
    code = "import sys, ringfence, ringfence.testing; sys.exit('pytest' in sys.modules or '_pytest' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# --- unittest


class Cases(ContainerTestCase):
    made: list[ringfence.Container]

    def test_fails(self) -> None:
        type(self).made = [
            self.container(["sh", "-c", "echo from the log; exit 4"]),
            self.container(name=f"mixin-{os.getpid()}"),
        ]
        self.made[0].wait(60)
        self.assertEqual(1, 2)

    def test_refused(self) -> None:
        self.container(**REFUSED)

    def test_wrong(self) -> None:
        self.container(memroy=1)


class Skipping(ContainerTestCase, unittest.IsolatedAsyncioTestCase):
    skip_without_containers = True

    async def test_refused(self) -> None:
        self.container(**REFUSED)

    async def test_fails(self) -> None:
        self.container(["false"])
        raise RuntimeError("asynchronous")


# They are for `test_the_mixin`, not for pytest.
del globals()["ContainerTestCase"]
Cases.__test__ = Skipping.__test__ = False  # type: ignore[attr-defined]


def test_the_mixin() -> None:
    def text(case: unittest.TestCase) -> str:
        result = unittest.TestResult()
        case.run(result)
        assert result.testsRun == 1
        (told,) = result.failures + result.errors + result.skipped  # type: ignore[operator]
        return str(told[1])

    failed = text(Cases("test_fails"))
    assert not any(container.running for container in Cases.made), "closed after the test"
    Cases.made.clear()
    if sys.version_info >= (3, 11):
        assert "AssertionError: 1 != 2" in failed
        assert (
            "status: exited with 4" in failed
            and "from the log" in failed
            and f"container mixin-{os.getpid()}" in failed
        )
        assert "Containers start here" in text(Cases("test_refused"))
        assert "asynchronous" in text(Skipping("test_fails")) and "command: false" in text(Skipping("test_fails"))
    assert "did you mean memory" in text(Cases("test_wrong"))
    result = unittest.TestResult()
    Skipping("test_refused").run(result)
    ((_, reason),) = result.skipped
    assert FIELD in reason
