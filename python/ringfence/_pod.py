"""Containers that share namespaces."""

from __future__ import annotations

import json
import subprocess
import time
import warnings
import weakref
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from . import _host, _request, _ringfence
from ._container import Container
from ._errors import Error, forked_child
from ._events import Events, options_of
from ._namespace import ContainerNamespaces, Namespace
from ._process import TextOptions
from ._types import Args, Pressure, Seconds, Usage

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from ._types import LimitFields, SpecFields

#: What the containers of a pod share unless something else is asked for.
SHARE = ("net", "ipc", "uts")


class Pod:
    """Containers that share network, IPC (System V, POSIX message queues, /dev/shm) and host name.

        with ringfence.Pod(hostname="shop", memory="256M") as pod:
            server = pod.container(["python3", "-m", "http.server", "--bind", "127.0.0.1", "8000"])
            client = pod.container()
            client.run(["curl", "-s", "http://127.0.0.1:8000/"], check=True)

    Files and mounts stay apart; `share="net,ipc,uts,pid"` shares process ids too (and then files are apart by users only), for which there has to be a
    control group. The namespaces belong to a container that has nothing in it but its pid 1; all have its user namespace.

    Fields: `hostname`, `domainname`, `net`, `sysctls`, `shm_size`, `mount_label` (of /dev/shm), `dns`, `hosts` (of containers that have none), `idmap`, `name`,
    `namespaces` (`net`, `ipc`, `uts`: what is there is joined), `cgroup_parent`, `wall_time`, `cpu_time`, and the limits of a
    control group, which hold for all its containers together.

    A container ends as any other does, and the pod goes on, without any container too. To forget the object of a container
    ends nothing; it keeps its pod. When the pod ends, all end: at the end of the block, by `close`, when the pod and its
    containers are forgotten (with a ResourceWarning), with this process.
    """

    def __init__(self, *, share: str | Iterable[str] = SHARE, **fields: Unpack[SpecFields]) -> None:
        # Set first: the finalizer also sees a pod that could not be started.
        self._closed = True
        given: dict[str, Any] = dict(fields)
        _request.refuse(given)
        request = _request.spec_request(None, (None, None, None), {}, given)
        _host.sync_log_level()
        kinds = share if isinstance(share, str) else ",".join(share)
        self._raw = _ringfence.Pod.start(request, kinds)
        self._generation = _host.generation
        self._closed = False
        self._known: weakref.WeakValueDictionary[str, Container] = weakref.WeakValueDictionary()
        _host.attached.add(self)

    def _live(self, call: str) -> _ringfence.Pod:
        if self._generation != _host.generation:
            raise forked_child(f"Pod.{call}")
        return self._raw

    def container(self, argv: Args | None = None, **options: Any) -> Container:
        """Starts a container in it, from any thread: takes what `Container` takes.

        `SpecError` for fields that are the pod's (`hostname`, `net`, `idmap`, ...); an error of kind `closed` when the pod has
        ended.
        """
        container = Container(argv, _home=self, **options)
        self._known[container.id] = container
        return container

    def _wrap(self, raw: _ringfence.Container) -> Container:
        known = self._known.get(raw.id)
        if known is None:
            known = Container.__new__(Container)
            known._take(raw, None, TextOptions(), home=self)
            self._known[raw.id] = known
        return known

    @property
    def containers(self) -> list[Container]:
        """Its containers in the order of their starts, also those that have ended; not those that were closed."""
        return [self._wrap(raw) for raw in self._live("containers").containers()]

    def find_container(self, name: str) -> Container:
        """The one of that name."""
        return self._wrap(self._live("find_container").find_container(name))

    @property
    def share(self) -> tuple[str, ...]:
        """The kinds of namespaces that are shared."""
        return tuple(self._live("share").share)

    @property
    def name(self) -> str | None:
        """Its name, when it has one: `namespaces={"net": "container:NAME"}` takes it."""
        return self._live("name").name

    @property
    def id(self) -> str:
        """Unique on this machine while it exists; also the name of its control groups."""
        return self._live("id").id

    @property
    def pid(self) -> int:
        """The pid, in the pid namespace of this program, of the process that holds the namespaces."""
        return self._live("pid").pid

    @property
    def pidfd(self) -> int:
        """A descriptor of that process, borrowed."""
        return self._live("pidfd").pidfd

    @property
    def events_fd(self) -> int:
        """Becomes readable when it has ended and is undone; borrowed. It is only to be polled."""
        return self._live("events_fd").events_fd

    @property
    def running(self) -> bool:
        """Containers can be started in it."""
        return not self._closed and self._live("running").running

    @property
    def info(self) -> dict[str, Any]:
        """What was chosen for it: as `Container.info`, and `share` and `containers`."""
        info: dict[str, Any] = json.loads(self._live("info").info())
        return info

    @property
    def namespaces(self) -> Mapping[str, Namespace]:
        """The shared namespaces by kind, and `user`: to be pinned, or given to others. Each lives on as long as its object."""
        return ContainerNamespaces(self, (*self.share, "user"))

    @property
    def spec(self) -> dict[str, Any]:
        """The spec as it is now; defaults are left out."""
        spec: dict[str, Any] = json.loads(self._live("spec").spec())
        return spec

    def update(self, **limits: Unpack[LimitFields]) -> None:
        """Changes limits of the pod while it runs, as `Container.update` does."""
        self._live("update").update(_request.update_fields(limits))

    def usage(self) -> Usage:
        """What its containers use and used together."""
        return Usage._from_json(self._live("usage").usage())

    def events(
        self,
        kinds: Iterable[str] | None = None,
        pressure: Iterable[Pressure] = (),
        timeout: Seconds | None = None,
    ) -> Events:
        """What happens to the pod as a whole from now on: as `Container.events`; the last is its end."""
        return Events(self._live("events").events(options_of(kinds, pressure)), self, timeout)

    def freeze(self) -> None:
        """Stops every process of its containers where it is."""
        self._live("freeze").freeze()

    def thaw(self) -> None:
        """Lets them go on."""
        self._live("thaw").thaw()

    def kill(self) -> None:
        """SIGKILL to everything in it; the pod ends. Does not wait."""
        self._live("kill").kill()

    def wait(self, timeout: Seconds | None = None) -> None:
        """Waits until it has ended, by `kill` or `wall_time` for one; `subprocess.TimeoutExpired` when the seconds pass first."""
        raw = self._live("wait")
        if not self._closed and not raw.wait(timeout):
            raise subprocess.TimeoutExpired(f"pod {self.id}", _host.seconds(timeout) or 0.0)

    def stop(self, timeout: Seconds | None = None) -> None:
        """`stop_signal` to its containers, SIGKILL after `timeout` seconds (default: the longest `stop_timeout`); then closes."""
        self._live("stop")
        running, until = self._ask_to_stop(timeout)
        for container in running:
            try:
                container._raw.wait(max(0.0, until - time.monotonic()))
            except Error as error:
                if error.kind != "closed":
                    raise
        self.close()

    def _ask_to_stop(self, timeout: Seconds | None) -> tuple[list[Container], float]:
        running = [container for container in self.containers if container.running] if not self._closed else []
        grace = max((container._grace(timeout) for container in running), default=0.0)
        for container in running:
            try:
                container._ask_to_stop()
            except Error as error:
                if error.kind != "closed":
                    raise
        return running, time.monotonic() + grace

    def close(self, timeout: Seconds | None = None) -> None:
        """Ends its containers, then the namespaces; waits until everything is undone. Closing twice is fine.

        Raises `ringfence.Error` of kind `timed_out` when the seconds pass first.
        """
        if self._closed:
            return
        raw = self._live("close")
        until = _host.deadline(timeout)
        try:
            # Here, where Ctrl-C works; the core's own close has then nothing left to wait for.
            raw.kill()
            raw.wait(timeout)
        except Error as error:
            if error.kind != "closed":
                raise
        raw.close(None if until is None else max(0.0, until - time.monotonic()))
        self._closed = True
        _host.attached.discard(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._generation == _host.generation:
            self.close()

    def __del__(self) -> None:
        if getattr(self, "_closed", True) or self._generation != _host.generation:
            return
        raw = self._raw
        try:
            forgotten = raw.running
        except Error:
            return
        if not forgotten:
            return
        warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
        try:
            raw.kill()
        except Error:
            pass

    def __repr__(self) -> str:
        if not hasattr(self, "_raw"):
            return "<Pod: not started>"
        if self._generation != _host.generation:
            return "<Pod: of the parent process>"
        name = f" {self._raw.name!r}" if self._raw.name else ""
        return f"<Pod{name} {self._raw.id} shares {','.join(self._raw.share)}>"
