"""Functions of this program inside a container, and the executor on the same basis.

tests/run: timeout=600 vm=root
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import decimal
import fractions
import math
import os
import pathlib
import pickle
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import as_completed

import pytest

import ringfence
from ringfence import _call, aio


@pytest.fixture
def container() -> Iterator[ringfence.Container]:
    with ringfence.Container(hostname="inside", share_python=True) as container:
        yield container


def test_values_and_arguments(container: ringfence.Container) -> None:
    assert container.call(socket.gethostname) == "inside"
    assert container.call(math.hypot, 3, 4) == 5.0
    assert container.call(int, "ff", base=16) == 255
    values = {
        "plain": [None, True, 7, 1.5, "text", b"bytes", (1, 2), {3}, frozenset({4}), bytearray(b"x"), 1j],
        "dates": [
            datetime.date(2020, 1, 2),
            datetime.timedelta(3),
            datetime.datetime(2020, 1, 2, tzinfo=datetime.timezone.utc),
        ],
        "others": [decimal.Decimal("1.10"), pathlib.Path("/etc")],
    }
    assert container.call(dict, values) == values
    assert container.call(os.getpid) != os.getpid()
    large = container.call(bytes, 8 << 20)
    assert len(large) == 8 << 20


def test_exceptions_have_their_traceback(container: ringfence.Container) -> None:
    with pytest.raises(ZeroDivisionError, match="division") as caught:
        container.call(divmod, 1, 0)
    assert "ZeroDivisionError" in str(caught.value.__cause__)
    with pytest.raises(FileNotFoundError) as missing:
        container.call(os.stat, "/nonsense")
    assert missing.value.filename == "/nonsense"
    # A class that is not built in is named, and loaded only for those who trust the container.
    with pytest.raises(ringfence.CallError, match=r"socket\.gaierror|subprocess\.CalledProcessError") as named:
        container.call(subprocess.run, ["false"], check=True)
    assert "check=True" in str(named.value.__cause__) or "CalledProcessError" in str(named.value.__cause__)
    with pytest.raises(subprocess.CalledProcessError) as trusted:
        container.call(subprocess.run, ["false"], check=True, trusted=True)
    assert trusted.value.returncode == 1
    # What would end this program is an error of the call.
    with pytest.raises(ringfence.CallError, match=r"SystemExit: 3"):
        container.call(sys.exit, 3)


# Runs a command wherever it is loaded.
TRAP = b"cos\nsystem\n(S'touch /tmp/ringfence-trap'\ntR."


def test_what_comes_out_is_not_run(container: ringfence.Container) -> None:
    with pytest.raises(ringfence.CallError, match="no plain value"):
        container.call(fractions.Fraction, 1, 3)
    assert container.call(fractions.Fraction, 1, 3, trusted=True) == fractions.Fraction(1, 3)
    # A program inside that writes a result of its own.
    script = f"import os, sys; os.write(int(sys.argv[3]), {pickle.dumps((None, ''))!r} + {TRAP!r}); os._exit(0)"
    fake = "/tmp/python"
    container.run(
        ["sh", "-c", f'printf \'#!/bin/sh\\nexec {sys.executable} -c "$EVIL" "$@"\\n\' > {fake}; chmod 755 {fake}'],
        check=True,
    )
    with pytest.raises(ringfence.CallError, match="no plain value"):
        container.call(int, python=fake, options={"env": {"EVIL": script.replace("argv[3]", "argv[4]")}})
    assert not os.path.exists("/tmp/ringfence-trap")
    with pytest.raises(ringfence.CallError, match="without a result"):
        container.call(int, python="/bin/true")


@pytest.mark.parametrize(
    "data",
    [
        # Would make every path of this program /etc/shadow: attributes of a class that is its own.
        b"\x80\x04cpathlib\nPosixPath\nN}\x8c\x04_str\x8c\x0b/etc/shadow\x73\x86b.",
        # A memo of two thousand million entries.
        b"\x80\x04Nr\xff\xff\xff\x7f0.",
        # A thousand million bytes that do not come.
        b"\x80\x05\x96\x00\xca\x9a\x3b\x00\x00\x00\x00x.",
        TRAP,
        b"\x80\x04cbuiltins\neval\n\x8c\x011\x85R.",
        b"\x80\x04\x8c\x08builtins\x8c\x0dException.x\x93.",
        b"",
        b"nonsense",
    ],
)
def test_hostile_results(data: bytes) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    call = _call.Call(int, (), {}, None, False)
    try:
        os.write(call.pass_fds[1], pickle.dumps((None, "")) + data)
        with contextlib.suppress(ringfence.CallError):
            assert call.result(0, "exited") in (None, bytearray(b"x."))
    finally:
        call.close()
    assert str(pathlib.Path("/tmp/mine")) == "/tmp/mine"
    assert not os.path.exists("/tmp/ringfence-trap")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256 << 10


PROGRAM = """
import sys

def double(n):
    return 2 * n

if __name__ == "__main__":
    # Which would bring the function along.
    sys.modules["cloudpickle"] = None
    import ringfence
    with ringfence.Container(share_python=True, mounts=sys.argv[1:]) as container:
        try:
            print(container.call(double, 21))
        except FileNotFoundError as error:
            print(error)
"""


def test_functions_of_the_program_itself(tmp_path: pathlib.Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)

    def run(*mounts: pathlib.Path) -> str:
        return subprocess.run([sys.executable, program, *mounts], stdout=subprocess.PIPE, text=True, check=True).stdout

    assert run(tmp_path) == "42\n"
    unseen = run()
    assert "does not see the program's own file" in unseen
    assert "mount its directory" in unseen
    assert str(program) in unseen


def test_too_long_a_result(container: ringfence.Container) -> None:
    with pytest.raises(ringfence.CallError, match=r"more than 16777216"):
        container.call(bytes, 17 << 20)
    assert len(container.call(bytes, 17 << 20, trusted=True)) == 17 << 20


def test_ends_without_a_result(container: ringfence.Container) -> None:
    with pytest.raises(ringfence.CallError, match="signaled") as killed:
        container.call(os.kill, 0, signal.SIGKILL)
    assert (killed.value.returncode, killed.value.reason) == (-9, "signaled")
    again = pickle.loads(pickle.dumps(killed.value))
    assert (str(again), again.returncode, again.reason) == (str(killed.value), -9, "signaled")
    with pytest.raises(ringfence.CallError) as code:
        container.call(os._exit, 7)
    assert code.value.returncode == 7
    started = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        container.call(time.sleep, 600, timeout=0.5)
    assert time.monotonic() - started < 300
    with pytest.raises(TypeError, match="function"):
        container.call(7)  # type: ignore[arg-type]
    assert container.call(int, "1") == 1


def test_lambdas_go_in_with_cloudpickle_and_not_without(
    container: ringfence.Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = [1, 2]

    def closure(*more: int) -> list[int]:
        return outside + list(more)

    assert container.call(lambda name: f"{name} at {socket.gethostname()}", "here") == "here at inside"
    assert container.call(closure, 3) == [1, 2, 3]
    assert outside == [1, 2]
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with pytest.raises(Exception, match=r"lambda|pickle|local"):
        container.call(lambda: 1)
    assert container.call(math.sqrt, 16) == 4


@pytest.mark.needs("memory")
def test_out_of_memory() -> None:
    with ringfence.Container(memory="256M", share_python=True) as container:
        group = container.group("small", memory="64M")
        with pytest.raises(ringfence.CallError) as caught:
            container.call(bytearray, 128 << 20, options={"cgroup": group.name})
        assert (caught.value.returncode, caught.value.reason) == (-9, "out_of_memory")


def test_asyncio() -> None:
    async def main() -> None:
        async with aio.Container(hostname="inside", share_python=True) as container:
            assert await container.call(socket.gethostname) == "inside"
            assert await asyncio.gather(*(container.call(abs, -i) for i in range(3))) == [0, 1, 2]
            with pytest.raises(ZeroDivisionError):
                await container.call(divmod, 1, 0)
            with pytest.raises(subprocess.TimeoutExpired):
                await container.call(time.sleep, 600, timeout=0.5)
            task = asyncio.ensure_future(container.call(time.sleep, 600))
            await asyncio.sleep(0.2)
            task.cancel()
            # Before the process is there, while its descriptors are handed over.
            for _ in range(10):
                soon = asyncio.ensure_future(container.call(time.sleep, 600))
                await asyncio.sleep(0)
                soon.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await soon
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())


def test_executor() -> None:
    with ringfence.ContainerExecutor(2, hostname="worker") as executor:
        assert list(executor.map(math.sqrt, [1, 4, 9, 16])) == [1.0, 2.0, 3.0, 4.0]
        assert executor.submit(socket.gethostname).result(60) == "worker"
        assert executor.submit(int, "ff", base=16).result(60) == 255
        failed = executor.submit(divmod, 1, 0)
        assert isinstance(failed.exception(60), ZeroDivisionError)
        # Each task has an interpreter of its own; one that dies takes no other with it.
        futures = [executor.submit(os._exit, 1), *(executor.submit(abs, -i) for i in range(4))]
        results = [future.exception() or future.result() for future in as_completed(futures, 120)]
        assert sorted(str(result) for result in results if not isinstance(result, Exception)) == ["0", "1", "2", "3"]
        assert sum(isinstance(result, ringfence.CallError) for result in results) == 1
    with pytest.raises(RuntimeError):
        executor.submit(abs, 1)


def test_an_executor_s_container_is_replaced() -> None:
    with ringfence.ContainerExecutor(1) as executor:
        assert executor.submit(abs, -1).result(60) == 1
        (container,) = executor._containers
        container.kill()
        container.wait(60)
        assert executor.submit(abs, -2).result(60) == 2
    executor = ringfence.ContainerExecutor(1)
    late = executor.submit(abs, -3)
    executor.shutdown(wait=False)
    assert late.result(60) == 3
    executor.shutdown()
    with pytest.raises(ValueError, match="name"):
        ringfence.ContainerExecutor(2, name="one")
    with pytest.raises(ringfence.SpecError, match="memory"), ringfence.ContainerExecutor(1, memory="nonsense") as bad:
        bad.submit(abs, 1).result(60)
