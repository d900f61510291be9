"""A plugin of pytest, active when ringfence is installed: containers as fixtures, and tests that run in a container.

    def test_server(ringfence_container):
        server = ringfence_container(["python3", "-m", "http.server", "8000"], memory="64M")
        ...

    @pytest.mark.ringfence(memory="64M", pids=32, wall_time=10)
    def test_of_untrusted_code(tmp_path):
        ...

The page "Testing with ringfence" says what is shared and what runs where.
"""

from __future__ import annotations

import builtins
import contextlib
import json
import math
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal, cast

import pytest

from . import _account, _interpreter
from ._call import _memory
from ._container import Container
from ._errors import Error
from ._network import Network
from ._run import popen
from ._types import Args

__all__ = ["ContainerFactory"]

#: What a test inside may have to tell: more is cut off, and the test has failed.
MOST = 32 << 20

SHARED = ("rootdir", "tmp_path")
_TMP_FIXTURES = {"tmp_path", "tmp_path_factory", "tmpdir", "tmpdir_factory"}
_PHASES = ("setup", "call", "teardown")

_factories = pytest.StashKey[list["ContainerFactory"]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("ringfence", "containers (ringfence)")
    group.addoption(
        "--ringfence",
        choices=("run", "skip"),
        default=None,
        help="what becomes of a test where this machine cannot run its container: run (it fails, and says why) or skip",
    )
    parser.addini("ringfence", "the default of --ringfence", default="run")
    parser.addini(
        "ringfence_share",
        "what the containers of tests see of the host at the same path: rootdir (read-only), tmp_path (if the test uses it)",
        type="args",
        default=list(SHARED),
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "ringfence(share=..., **fields): run the test in a container of its own with these fields, such as memory='64M'",
    )
    if config.getini("ringfence") not in ("run", "skip"):
        raise pytest.UsageError(f"ringfence: {config.getini('ringfence')!r} is neither run nor skip")
    _checked_share("ringfence_share", config.getini("ringfence_share"))


def _checked_share(where: str, share: Any) -> tuple[str, ...]:
    names = () if not share else (share,) if isinstance(share, str) else tuple(share)
    for name in names:
        if name not in SHARED:
            raise pytest.UsageError(f"{where}: {name!r} is neither rootdir nor tmp_path")
    return names


def _skips(config: pytest.Config) -> bool:
    chosen = config.getoption("--ringfence") or config.getini("ringfence")
    return bool(chosen == "skip")


def _is_inside(config: pytest.Config) -> bool:
    return hasattr(config, "ringfence_inside")


# --- what is shared


def _below(path: str, top: str) -> bool:
    return path == top or path.startswith(top.rstrip("/") + "/")


def _shared_root(config: pytest.Config) -> str:
    """The rootdir; where that is the whole machine, the directory in which pytest was started."""
    root = config.rootpath
    return str(root if str(root) != "/" else config.invocation_params.dir)


def _mounts(fields: Mapping[str, Any], shared: Iterable[tuple[str, bool]]) -> list[Any]:
    """The mounts of `fields`, after those of what is shared (path, writable) and not mounted by them."""
    given = list(fields.get("mounts") or ())
    taken = {os.path.normpath(target) for target in _interpreter._targets(given)}
    # Upper ones first: what is mounted later covers what lies below it.
    added = [
        {"source": path, "target": path, "rw": writable}
        for path, writable in sorted(dict(shared).items())
        if path not in taken
    ]
    return added + given


def _share(config: pytest.Config, fields: dict[str, Any], where: str) -> tuple[str, ...]:
    """What is to be shared; takes it out of the fields."""
    default: tuple[str, ...] = tuple(config.getini("ringfence_share"))
    if not _interpreter._is_host_tree(fields.get("rootfs")):
        # A tree of the caller's own: there, mount points would have to be made.
        default = ()
    return _checked_share(where, fields.pop("share", default))


# --- fixtures


class ContainerFactory:
    """What the fixture `ringfence_container` gives: call it for a container that is closed after the test.

    It takes what `ringfence.Container` takes, and `share`: what of `rootdir` and `tmp_path` is seen inside at the same path (default:
    the option `ringfence_share`). `containers` lists what it started.
    """

    def __init__(self, request: pytest.FixtureRequest, tmp_path: Callable[[], Path] | None) -> None:
        self._request = request
        self._tmp_path = tmp_path
        #: In the order of their starts.
        self.containers: list[Container] = []

    def __call__(self, argv: Args | None = None, **options: Any) -> Container:
        config = self._request.config
        share = _share(config, options, "share")
        shared = []
        if "rootdir" in share:
            shared.append((_shared_root(config), False))
        if "tmp_path" in share and self._tmp_path is not None:
            shared.append((str(self._tmp_path()), True))
        if shared:
            options["mounts"] = _mounts(options, shared)
        try:
            container = Container(argv, **options)
        except Error as error:
            if _account.is_of_the_machine(error) and _skips(config):
                pytest.skip(str(error))
            raise
        self.containers.append(container)
        # Each for itself: the last one first, and all of them whatever becomes of one.
        self._request.addfinalizer(lambda: _account.end(container))
        return container

    def __repr__(self) -> str:
        return f"<ContainerFactory: {len(self.containers)} containers>"


def _made(request: pytest.FixtureRequest, tmp_path: Callable[[], Path] | None = None) -> Iterator[ContainerFactory]:
    factory = ContainerFactory(request, tmp_path)
    made = request.config.stash.setdefault(_factories, [])
    made.append(factory)
    # After the containers are closed: finalizers that are added later run earlier.
    yield factory
    made.remove(factory)
    # The test's arguments live on for a while, and with a handle its descriptors.
    factory.containers.clear()


@pytest.fixture
def ringfence_container(request: pytest.FixtureRequest) -> Iterator[ContainerFactory]:
    """Starts containers that are closed after the test, the last one first: `ringfence_container(argv, memory="64M", ...)`."""
    uses = "tmp_path" in request.fixturenames
    # Set up first, so that it is there until the containers are gone.
    path = cast("Path", request.getfixturevalue("tmp_path")) if uses else None
    yield from _made(request, None if path is None else lambda: path)


@pytest.fixture(scope="class")
def ringfence_class_container(request: pytest.FixtureRequest) -> Iterator[ContainerFactory]:
    """As `ringfence_container`, closed after the last test of the class. No `tmp_path` is shared."""
    yield from _made(request)


@pytest.fixture(scope="module")
def ringfence_module_container(request: pytest.FixtureRequest) -> Iterator[ContainerFactory]:
    """As `ringfence_container`, closed after the last test of the module. No `tmp_path` is shared."""
    yield from _made(request)


@pytest.fixture(scope="session")
def ringfence_session_container(request: pytest.FixtureRequest) -> Iterator[ContainerFactory]:
    """As `ringfence_container`, closed at the end of the run. No `tmp_path` is shared."""
    yield from _made(request)


@pytest.fixture
def ringfence_network(request: pytest.FixtureRequest) -> Iterator[Network]:
    """A `ringfence.Network` that ends after the test: `ringfence_network.container(...)`, or `ringfence_container(net=ringfence_network)`."""
    try:
        network = Network()
    except Error as error:
        if _account.is_of_the_machine(error) and _skips(request.config):
            pytest.skip(str(error))
        raise
    with network:
        yield network


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
    """A test that failed tells of the containers of the factories that it uses."""
    outcome = yield
    report: pytest.TestReport = outcome.get_result()
    if not report.failed:
        return
    for factory in item.config.stash.get(_factories, []):
        request = factory._request
        of_test = request.scope == "function" and request.node is item
        names = getattr(item, "fixturenames", ())
        if of_test or (request.scope != "function" and request.fixturename in names):
            for container in factory.containers:
                if not container._closed:
                    report.sections.append((_account.title(container), _account.account(container)))
    if call.excinfo is not None and _account.is_of_the_machine(call.excinfo.value):
        report.sections.append(("ringfence doctor", _account.doctor_text()))


# --- tests that run in a container


def _fields_of(item: pytest.Item) -> dict[str, Any] | None:
    """The fields of its marks, the closest one last; None without a mark."""
    fields: dict[str, Any] = {}
    marks = list(item.iter_markers("ringfence"))
    for mark in reversed(marks):
        if mark.args:
            raise pytest.UsageError(f"{item.nodeid}: ringfence takes names and values, as in memory='64M'")
        fields |= mark.kwargs
    for name in ("argv", "args", "detach", "stdin", "stdout", "stderr", "pass_fds", "terminal", "shell"):
        if name in fields:
            raise pytest.UsageError(f"{item.nodeid}: {name} is not the mark's to choose: the program is the test")
    return fields if marks else None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    if _is_inside(item.config) or item.get_closest_marker("ringfence") is None:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    if not (item.config.getoption("setuponly", False) or item.config.getoption("setupplan", False)):
        teardown = None
        for report in _Run(item).reports():
            if report.when == "teardown":
                teardown = report
            else:
                item.ihook.pytest_runtest_logreport(report=report)
        if teardown is not None:
            item.ihook.pytest_runtest_logreport(report=_torn_down(item, nextitem, teardown))
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def _torn_down(item: pytest.Item, nextitem: pytest.Item | None, inside: pytest.TestReport) -> pytest.TestReport:
    """The fixtures of this process that only an earlier test needed end here, as after any test."""
    if item.session.shouldfail or item.session.shouldstop:
        nextitem = None
    call = pytest.CallInfo.from_call(
        # Not the hook, which ends what its counterpart for the setup has begun.
        lambda: item.session._setupstate.teardown_exact(nextitem),
        when="teardown",
        reraise=(pytest.exit.Exception, KeyboardInterrupt),
    )
    report: pytest.TestReport = item.ihook.pytest_runtest_makereport(item=item, call=call)
    if not report.failed:
        return inside
    if inside.failed:
        report.sections.append(("teardown inside", inside.longreprtext))
    report.sections += inside.sections
    return report


class _Run:
    """One test in a container: another pytest there, which has this one's options and runs this one item."""

    def __init__(self, item: pytest.Item) -> None:
        self.item = item
        self.config = item.config
        self.start = time.time()
        self.sections: list[tuple[str, str]] = []

    def reports(self) -> list[pytest.TestReport]:
        """Setup, call and teardown; what is missing is told as a failure."""
        try:
            fields = _fields_of(self.item)
            assert fields is not None
            share = _share(self.config, fields, f"{self.item.nodeid}: share")
            lines, ended = self._run(fields, share)
        except (Error, TypeError, ValueError, pytest.UsageError) as error:
            return self._not_started(error)
        return self._judged(lines, ended)

    def _not_started(self, error: Exception) -> list[pytest.TestReport]:
        report = self._report("setup", "failed", f"{type(error).__name__}: {error}")
        if _account.is_of_the_machine(error):
            if _skips(self.config):
                path, line, _ = self.item.location
                report = self._report("setup", "skipped", (path, (line or 0) + 1, f"Skipped: {error}"))
            else:
                report.sections.append(("ringfence doctor", _account.doctor_text()))
        return [report, self._report("teardown", "passed")]

    def _options(self, basetemp: str | None) -> dict[str, Any]:
        """This run's options, but for those that say which tests, where they run, and what is written about them."""
        options = {name: value for name, value in vars(self.config.option).items() if _is_plain(value)}
        options |= {
            "plugins": [*(options.get("plugins") or []), "no:terminal", "no:cacheprovider"],
            "rootdir": str(self.config.rootpath),
            "inifilename": str(self.config.inipath) if self.config.inipath else None,
            "basetemp": basetemp,
            "usepdb": False,
            "trace": False,
            "dist": "no",
            "numprocesses": None,
            "tx": [],
            "loadgroup": False,
            "looponfail": False,
            "keyword": "",
            "markexpr": "",
            "deselect": None,
            "pyargs": False,
            "maxfail": 0,
            "lf": False,
            "failedfirst": False,
            "newfirst": False,
            "stepwise": False,
            "stepwise_skip": False,
            "cacheclear": False,
            "collectonly": False,
            "xmlpath": None,
            "log_file": os.devnull,
            "setupshow": False,
            "setuponly": False,
            "setupplan": False,
            "pastebin": None,
            # pytest-cov: its file would be here.
            "no_cov": True,
            "cov_source": [],
        }
        return options

    def _run(self, fields: dict[str, Any], share: tuple[str, ...]) -> tuple[bytes, _End]:
        config = self.config
        with contextlib.ExitStack() as stack:
            shared = []
            root = _shared_root(config)
            if "rootdir" in share:
                shared.append((root, False))
            base = None
            if "tmp_path" in share and _TMP_FIXTURES & set(getattr(self.item, "fixturenames", ())):
                factory: pytest.TempPathFactory = config._tmp_path_factory  # type: ignore[attr-defined]
                base = str(factory.mktemp("ringfence"))
                shared.append((base, True))
            if _interpreter._is_host_tree(fields.get("rootfs")):
                fields.setdefault("share_python", True)
                shared += [
                    (path, False)
                    for path in dict.fromkeys(map(os.path.abspath, filter(None, sys.path)))
                    if _interpreter._hidden(path)
                    and os.path.exists(path)
                    and not any(_below(path, top) for top, _ in shared)
                ]
            fields["mounts"] = _mounts(fields, shared)
            told = {
                "options": self._options(f"{base}/base" if base else None),
                "path": str(self.item.path),
                "nodeid": self.item.nodeid,
                "sys_path": [os.path.abspath(path) if path else os.getcwd() for path in sys.path],
                "workerinput": getattr(config, "workerinput", None),
            }
            program = resources.files(__package__).joinpath("_pytest_inside.py").read_text()
            work = _memory("ringfence-test", json.dumps(told, default=str).encode())
            stack.callback(os.close, work)
            out = _memory("ringfence-reports")
            stack.callback(os.close, out)
            flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
            argv = [sys.executable, *flags, "-c", program, "3", "4"]
            environment = {
                name: value
                for name, value in os.environ.items()
                if name == "PYTHONPATH" or (name.startswith("PYTEST_") and name not in _NOT_INSIDE)
            }
            environment |= fields.pop("env", None) or {}
            seen = [here for here in (os.getcwd(), root) if any(_below(here, top) for top, _ in shared)]
            if seen:
                fields.setdefault("cwd", seen[0])
            # With -s what the test prints goes where this program's output goes.
            stream: Any = None if config.getoption("capture") == "no" else "log"
            process = stack.enter_context(
                popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=stream,
                    pass_fds={work: 3, out: 4},
                    env=environment,
                    **fields,
                )
            )
            try:
                process.wait()
            except BaseException:
                process._abandon()
                raise
            container = process.container
            process.args = ["pytest", self.item.nodeid]
            self.sections = [(_account.title(container), _account.account(container))]
            end = _End(process.returncode, process.reason)
            return os.pread(out, MOST + 1, 0), end

    def _judged(self, lines: bytes, ended: _End) -> list[pytest.TestReport]:
        """The reports from inside: the word of whoever ran there, so that nothing is taken unseen."""
        found: list[pytest.TestReport] = []
        errors: list[str] = []
        if len(lines) > MOST:
            errors.append(f"more than {MOST} bytes of reports came from inside")
            lines = b""
        for line in lines.splitlines():
            try:
                told = json.loads(line)
                kind = told["kind"]
                if kind == "report":
                    found.append(self._taken(told["data"]))
                elif kind == "warning":
                    self._warn(told)
                else:
                    errors.append(str(told["text"]))
            except Exception as error:
                errors.append(f"what came from inside cannot be read: {type(error).__name__}: {error}")
        phases = [report.when for report in found]
        # Subtests are calls as well, and say so.
        calls = [report for report in found if report.when == "call" and type(report) is pytest.TestReport]
        if len(calls) > 1 or phases.count("setup") > 1 or phases.count("teardown") > 1:
            errors.append("more reports than a test has came from inside")
        complete = phases[-1:] == ["teardown"] and phases[0] == "setup" and not errors and ended.returncode in (0, 1)
        if not complete:
            found = self._completed(found, errors, ended)
        for report in found:
            if report.failed:
                report.sections += self.sections
        return found

    def _completed(self, found: list[pytest.TestReport], errors: list[str], ended: _End) -> list[pytest.TestReport]:
        """With a failure in the phase that it did not get through."""
        when = [report.when for report in found]
        if "teardown" in when and not errors:
            errors = ["after its teardown"]
            found = [report for report in found if report.when != "teardown"]
            phase = "teardown"
        else:
            phase = next((p for p in _PHASES if p not in when), "teardown")
        if phase == "setup":
            found = []
        text = "\n".join([f"the test did not end inside, in its {phase}: {ended}", *errors])
        if phase == "setup" or (phase == "call" and any(report.failed for report in found)):
            # No call comes after a setup that failed.
            return [*found, self._report("setup", "failed", text), self._report("teardown", "passed")]
        rest = [] if phase == "teardown" else [self._report("teardown", "passed")]
        return [*found, self._report(phase, "failed", text), *rest]

    def _taken(self, data: Any) -> pytest.TestReport:
        """One report, if it is one; what this process knows better is not taken from it."""
        if data["when"] not in _PHASES or data["outcome"] not in ("passed", "failed", "skipped"):
            raise ValueError(f"no report: {data['when']!r} {data['outcome']!r}")
        longrepr = data.get("longrepr")
        if isinstance(longrepr, list):
            path, line, text = longrepr
            longrepr = (str(path), int(line), str(text))
        elif isinstance(longrepr, dict):
            crash = longrepr.get("reprcrash")
            if crash is not None and [type(crash[name]) for name in ("path", "lineno", "message")] != [str, int, str]:
                raise ValueError("no place of a failure")
        elif longrepr is not None:
            longrepr = str(longrepr)
        expected = data.get("wasxfail")
        if expected is not None and not isinstance(expected, str):
            raise ValueError("no reason of an expected failure")
        if data["outcome"] == "skipped" and expected is None and not isinstance(longrepr, tuple):
            raise ValueError("no reason of a skip")
        duration = float(data["duration"])
        taken: dict[str, Any] = {
            "nodeid": self.item.nodeid,
            "location": self.item.location,
            "keywords": dict.fromkeys(self.item.keywords, 1),
            "outcome": data["outcome"],
            "when": data["when"],
            "longrepr": longrepr,
            "sections": [(str(title), str(text)) for title, text in data["sections"]],
            "user_properties": [(str(name), value) for name, value in data.get("user_properties", ())],
            "duration": duration if math.isfinite(duration) and duration >= 0 else 0.0,
            "start": self.start,
            "stop": time.time(),
            "$report_type": "TestReport",
        }
        for name in ("wasxfail", "_report_type", "_subtest.context"):
            if name in data:
                taken[name] = data[name]
        report = self.config.hook.pytest_report_from_serializable(config=self.config, data=taken)
        if not isinstance(report, pytest.TestReport):
            raise ValueError("no report of a test")
        # What cannot be shown is found here, not where the terminal shows it.
        str(report.longreprtext)
        return report

    def _warn(self, told: Mapping[str, Any]) -> None:
        category = getattr(builtins, str(told["category"]), None)
        if not (isinstance(category, type) and issubclass(category, Warning)):
            category = UserWarning
        location = told.get("location")
        message = warnings.WarningMessage(
            category(str(told["message"])), category, str(told["filename"]), int(told["lineno"])
        )
        self.item.ihook.pytest_warning_recorded.call_historic(
            kwargs={
                "warning_message": message,
                "nodeid": self.item.nodeid,
                "when": "runtest",
                "location": (str(location[0]), int(location[1]), str(location[2])) if location else None,
            }
        )

    def _report(
        self,
        when: str,
        outcome: Literal["passed", "failed", "skipped"],
        longrepr: str | tuple[str, int, str] | None = None,
    ) -> pytest.TestReport:
        now = time.time()
        return pytest.TestReport(
            nodeid=self.item.nodeid,
            location=self.item.location,
            keywords=dict.fromkeys(self.item.keywords, 1),
            outcome=outcome,
            longrepr=longrepr,
            when=cast("Literal['setup', 'call', 'teardown']", when),
            duration=now - self.start if when == "call" else 0.0,
            start=self.start,
            stop=now,
        )


#: Of pytest's environment: what was taken into the options already, and what is this process's own.
_NOT_INSIDE = ("PYTEST_ADDOPTS", "PYTEST_CURRENT_TEST", "PYTEST_DEBUG_TEMPROOT", "PYTEST_VERSION")


class _End:
    """How the interpreter inside ended."""

    def __init__(self, returncode: int | None, reason: str | None) -> None:
        self.returncode = returncode
        self.reason = reason

    def __str__(self) -> str:
        limits = {
            "out_of_memory": "it was killed for want of memory (memory)",
            "wall_time": "its time was up (wall_time)",
            "cpu_time": "its processor time was used up (cpu_time)",
        }
        if self.reason in limits:
            return limits[self.reason]
        code = self.returncode
        return f"signal {-code} killed it" if code is not None and code < 0 else f"exit status {code}"


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(name, str) and _is_plain(inner) for name, inner in value.items())
    return value is None or isinstance(value, (str, int, float))
