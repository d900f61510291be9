"""`concurrent.futures` in containers."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ._call import Call
from ._container import Container
from ._errors import Error
from ._types import AnyPath, Seconds

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._types import CommandFields, SpecFields

T = TypeVar("T")


class ContainerExecutor(Executor):
    """Runs each task with `Container.call`, in a container of its worker's: isolated and limited.

    `max_workers` containers (default: the processors that this program may use) are started as they are needed, with the fields
    given, and closed by `shutdown`. Each task has an interpreter of its own, so that none finds what another left in
    memory; files that it leaves in the container are seen by the next one there. A container that has ended is replaced. What a
    task leaves running is in its container until that closes. `timeout`, `trusted`, `python` and `options` are those of `Container.call`.

        with ringfence.ContainerExecutor(4, memory="256M", pids=64) as executor:
            print(list(executor.map(math.sqrt, range(100))))
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        timeout: Seconds | None = None,
        trusted: bool = False,
        python: AnyPath | None = None,
        options: CommandFields | None = None,
        **fields: Unpack[SpecFields],
    ) -> None:
        if "name" in fields and max_workers != 1:
            raise ValueError("name: several containers cannot have one name")
        self._fields = fields
        self._fields.setdefault("share_python", True)
        self._timeout, self._trusted, self._python, self._options = timeout, trusted, python, options or {}
        self._own = threading.local()
        self._lock = threading.Lock()
        self._containers: list[Container] = []
        workers = len(os.sched_getaffinity(0)) if max_workers is None else max_workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="ringfence-executor")

    def submit(self, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Schedules a call. A `Future` that is cancelled before its call began never begins."""
        return self._pool.submit(self._run, function, args, kwargs)

    def _run(self, function: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
        call = Call(function, args, kwargs, self._python, self._trusted)
        try:
            container = self._container()
        except BaseException:
            call.close()
            raise
        return cast("T", container._call(call, self._timeout, self._options))

    def _container(self) -> Container:
        """This worker's, which runs."""
        container: Container | None = getattr(self._own, "container", None)
        if container is not None and container.running:
            return container
        if container is not None:
            self._own.container = None
            self._forget(container)
        container = Container(**self._fields)
        with self._lock:
            self._containers.append(container)
        self._own.container = container
        return container

    def _forget(self, container: Container) -> None:
        with self._lock:
            self._containers.remove(container)
        container.close()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more tasks; the containers are closed when those are done, for which it waits or not."""
        self._pool.shutdown(wait=False, cancel_futures=cancel_futures)
        if wait:
            self._close()
        else:
            threading.Thread(target=self._close, name="ringfence-executor-close").start()

    def _close(self) -> None:
        self._pool.shutdown(wait=True)
        with self._lock:
            containers, self._containers = self._containers, []
        failed: Error | None = None
        for container in containers:
            try:
                container.close()
            except Error as error:
                failed = error
        if failed is not None:
            raise failed
