"""Containers in `unittest`: `ContainerTestCase`, alone or before other subclasses of `TestCase`.

    class TestServer(ringfence.testing.ContainerTestCase):
        def test_answers(self):
            server = self.container(["python3", "-m", "http.server", "8000"], memory="64M")
            ...

For pytest there is the plugin (`ringfence.pytest_plugin`), which is active when ringfence is installed.
"""

from __future__ import annotations

import functools
import inspect
import sys
import unittest
from collections.abc import Callable
from typing import Any

from . import _account
from ._container import Container
from ._errors import Error
from ._types import Args

__all__ = ["ContainerTestCase"]


class ContainerTestCase(unittest.TestCase):
    """A `unittest.TestCase` with `self.container(...)`. `class Test(ContainerTestCase, IsolatedAsyncioTestCase)` works too."""

    #: A test is skipped, not failed, where this machine or this caller cannot run its container.
    skip_without_containers: bool = False

    def container(self, argv: Args | None = None, **options: Any) -> Container:
        """Starts a container: takes what `ringfence.Container` takes. It is closed after the test, the last one first.

        A detached one is ended too. When the test fails, its error tells of the container: command, status, usage, the end of the
        log.
        """
        try:
            container = Container(argv, **options)
        except Error as error:
            if not _account.is_of_the_machine(error):
                raise
            if self.skip_without_containers:
                self.skipTest(str(error))
            _note(error, f"What this machine and this user can do:\n{_account.doctor_text()}")
            raise
        self._started().append(container)
        self.addCleanup(_account.end, container)
        return container

    def _started(self) -> list[Container]:
        return self.__dict__.setdefault("_ringfence_containers", [])  # type: ignore[no-any-return]

    def run(self, result: unittest.TestResult | None = None) -> unittest.TestResult | None:
        """As `unittest.TestCase.run`."""
        name = self._testMethodName
        before = self.__dict__.get(name)
        setattr(self, name, self._told(getattr(self, name)))
        try:
            return super().run(result)
        finally:
            # Whoever runs the test may have put it there, and takes it away again.
            if before is not None:
                setattr(self, name, before)
            else:
                self.__dict__.pop(name, None)
            self._started().clear()

    def _told(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """The test, with what there is to tell of its containers added to its failure."""
        if inspect.iscoroutinefunction(method):

            @functools.wraps(method)
            async def asynchronous(*args: Any, **kwargs: Any) -> Any:
                try:
                    return await method(*args, **kwargs)
                except BaseException as error:
                    self._tell(error)
                    raise

            return asynchronous

        @functools.wraps(method)
        def test(*args: Any, **kwargs: Any) -> Any:
            try:
                return method(*args, **kwargs)
            except BaseException as error:
                self._tell(error)
                raise

        return test

    def _tell(self, error: BaseException) -> None:
        if isinstance(error, unittest.SkipTest):
            return
        for container in self._started():
            _note(error, f"--- {_account.title(container)}\n{_account.account(container)}")


def _note(error: BaseException, text: str) -> None:
    if hasattr(error, "add_note"):
        error.add_note(text)
    else:
        # Python 3.10 has no notes. `unittest` and pytest capture this stream with the test.
        print(text, file=sys.stderr)
