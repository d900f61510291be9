"""Several containers with an order."""

from __future__ import annotations

import subprocess
import warnings
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypedDict

from . import _host, _ready, _request, _ringfence
from ._container import Container
from ._errors import Error, forked_child
from ._process import TextOptions
from ._ready import HttpCheck, LogPattern, PortNumber
from ._types import AnyPath, Args, Env, Seconds, Stream

if TYPE_CHECKING:
    from typing_extensions import Self

    from ._pod import Pod


class Conditions(TypedDict, total=False):
    """What makes a member of a group ready; see `Container.wait_for`."""

    port: PortNumber | Iterable[PortNumber]
    log: LogPattern | Iterable[LogPattern]
    path: AnyPath | Iterable[AnyPath]
    command: Iterable[AnyPath]
    http: str | HttpCheck


def _conditions(wait_for: Conditions) -> str:
    given: dict[str, Any] = dict(wait_for)
    found = {name: given.pop(name, None) for name in ("port", "log", "path", "command", "http")}
    if given:
        raise TypeError(f"wait_for: {', '.join(given)}: the conditions are {', '.join(found)}")
    return _ready.conditions_of(**found)


class Group:
    """Containers that are started in the order of what they need, all of them or none, and stopped in reverse.

        with ringfence.Group() as g:
            g.add("db", ["postgres", "-D", "/tmp/db"], wait_for={"port": 5432})
            g.add("web", ["python3", "app.py"], after=["db"])
            g.start(timeout=30)
            g["web"].run(["true"], check=True)

    or, as a description that may come from a JSON file, `ringfence.Group({"db": {"argv": [...]}, "web": {"argv": [...], "after":
    ["db"]}})`. Members that do not need each other start at the same time. When one cannot start, those that did are stopped in
    reverse order, and the error begins with the name of the member. Used from any thread.

    They have networks of their own; with `pod` they start in that and reach each other at 127.0.0.1, and the pod goes on when the
    group is closed. Leaving the block closes it; a group that is forgotten is killed, with a ResourceWarning.
    """

    def __init__(
        self,
        members: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        pod: Pod | None = None,
        timeout: Seconds | None = None,
    ) -> None:
        """`members`: name -> arguments of `add`. With a block, `timeout` is that of the start that entering it makes then."""
        # Set first: the finalizer also sees a group that could not be made.
        self._closed = True
        self._raw = _ringfence.Group(None if pod is None else pod._live("Group"))
        self._pod = pod
        self._generation = _host.generation
        self._argv: dict[str, Args | None] = {}
        self._containers: dict[str, Container] = {}
        self._described = members is not None
        self._timeout = timeout
        for name, member in (members or {}).items():
            if not isinstance(member, Mapping):
                raise TypeError(f"{name}: a mapping of arguments is expected, not {type(member).__name__}")
            self.add(name, **member)

    def _live(self, call: str) -> _ringfence.Group:
        if self._generation != _host.generation:
            raise forked_child(f"Group.{call}")
        return self._raw

    def add(
        self,
        name: str,
        argv: Args | None = None,
        *,
        after: Iterable[str] = (),
        wait_for: Conditions | None = None,
        stdin: Stream = None,
        stdout: Stream = None,
        stderr: Stream = None,
        shell: bool = False,
        executable: AnyPath | None = None,
        cwd: AnyPath | None = None,
        env: Env | None = None,
        user: str | int | None = None,
        group: str | int | None = None,
        umask: int = -1,
        pass_fds: Any = (),
        container_name: str | None = None,
        **fields: Any,
    ) -> None:
        """Adds a member, before the start. Takes what `Container` takes, and

        after: the names of those that must be ready before it starts.
        wait_for: what makes it ready, the arguments of `Container.wait_for`: `{"port": 5432}`; else that it was started.

        The name is for the group alone; `container_name` is that of the container on this machine, if it is to have one.
        Descriptors that are given have to be open until the start. `SpecError` for what can never work.
        """
        raw = self._live("add")
        given: dict[str, Any] = dict(fields)
        if container_name is not None:
            given["name"] = container_name
        _request.refuse(given)
        options = {
            "shell": shell,
            "executable": executable,
            "cwd": cwd,
            "env": env,
            "user": user,
            "group": group,
            "umask": umask,
            "pass_fds": pass_fds,
        }
        request = _request.spec_request(argv, _request.streams_of(stdin, stdout, stderr), options, given)
        names = [after] if isinstance(after, str) else list(after)
        raw.add(name, request, names, None if wait_for is None else _conditions(wait_for))
        self._argv[name] = argv

    def order(self) -> list[list[str]]:
        """The names in the order of the starts; those in one list start at the same time.

        `SpecError` for names in `after` that the group does not have, and for members that wait for each other.
        """
        return self._live("order").order()

    def start(self, timeout: Seconds | None = None) -> Self:
        """Starts all of them; they are ready when this returns.

        Raises the first error of a member, with the end of its log as `log_tail` where it did not become ready; `ringfence.Error` of kind `timed_out` when not all are ready within the seconds. In
        both cases, and with Ctrl-C, nothing is left, and the group can be started again.
        """
        # pytest shows the line of the test, and not this.
        __tracebackhide__ = True
        raw = self._live("start")
        _host.sync_log_level()
        raw.start(timeout)
        self._containers.clear()
        self._closed = False
        _host.attached.add(self)
        return self

    @property
    def started(self) -> bool:
        """It was started, and not closed."""
        return not self._closed and self._live("started").started

    def __getitem__(self, name: str) -> Container:
        """The container of a member. KeyError for a name that there is not; to forget the object ends nothing."""
        raw = self._live("container")
        if name not in self._argv:
            raise KeyError(name)
        known = self._containers.get(name)
        if known is None:
            known = Container.__new__(Container)
            known._closed = True
            known._take(raw.container(name), self._argv[name], TextOptions(), home=self._pod)
            # The group ends it.
            known._owned = False
            _host.attached.discard(known)
            self._containers[name] = known
        return known

    def __iter__(self) -> Iterator[str]:
        """The names, in the order in which they were added."""
        return iter(self._live("names").names)

    def __len__(self) -> int:
        return len(self._argv)

    def __contains__(self, name: object) -> bool:
        return name in self._argv

    @property
    def containers(self) -> dict[str, Container]:
        """The containers by name."""
        return {name: self[name] for name in self}

    def wait(self, timeout: Seconds | None = None) -> None:
        """Waits until all have ended; `subprocess.TimeoutExpired` when the seconds pass first."""
        if not self._live("wait").wait(timeout):
            raise subprocess.TimeoutExpired("group", _host.seconds(timeout) or 0.0)

    def wait_any(self, timeout: Seconds | None = None) -> str:
        """Waits until one has ended, and gives its name; `subprocess.TimeoutExpired` when the seconds pass first."""
        name = self._live("wait_any").wait_any(timeout)
        if name is None:
            raise subprocess.TimeoutExpired("group", _host.seconds(timeout) or 0.0)
        return name

    def kill(self) -> None:
        """SIGKILL to every process of all of them. Does not wait."""
        self._live("kill").kill()

    def close(self, timeout: Seconds | None = None) -> None:
        """Stops them in reverse order, each with its `stop_signal` and, after its `stop_timeout`, SIGKILL; closes them.

        What is left after `timeout` seconds, or with Ctrl-C, is killed. Closing twice is fine.
        """
        raw = self._live("close")
        try:
            raw.close(timeout)
        finally:
            self._closed = True
            _host.attached.discard(self)
            for container in self._containers.values():
                container._closed = True

    def __enter__(self) -> Self:
        """A described group is started by its block."""
        if self._described and not self.started:
            self.start(self._timeout)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._generation == _host.generation:
            self.close()

    def __del__(self) -> None:
        if getattr(self, "_closed", True) or self._generation != _host.generation:
            return
        warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
        try:
            self._raw.kill()
        except Error:
            pass

    def __repr__(self) -> str:
        if not hasattr(self, "_argv"):
            return "<Group: not made>"
        if self._generation != _host.generation:
            return "<Group: of the parent process>"
        return f"<Group of {', '.join(self._argv) or 'nobody'}{'' if self._closed else ', started'}>"
