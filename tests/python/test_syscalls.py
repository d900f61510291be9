"""System calls that the host answers: by a loop, a callback, tasks; exceptions are errnos; Ctrl-C works.

tests/run: vm=root
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import ringfence
from ringfence import aio

ASKING = {
    "profile": "default",
    "rules": [{"names": ["mkdir", "mkdirat", "openat2", "getsid", "sysinfo"], "action": "notify"}],
}

#: What the C library does not call by itself.
ONE = {"profile": "default", "rules": [{"names": ["getsid"], "action": "notify"}]}

SCENE = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def made(path):
    try:
        return os.mkdir(path) or 0
    except OSError as error:
        return errno_name[error.errno]
errno_name = __import__("errno").errorcode
print(*[made("/host/" + name) for name in ("errno", "raised", "value", "ignored", "closed")], made("/tmp/here"), os.path.isdir("/tmp/here"))
how = (ctypes.c_uint64 * 3)()
fd = libc.syscall(437, -1, b"/host/file", how, 24)
print(fd, os.read(fd, 99).decode())
buffer = ctypes.create_string_buffer(512)
print(libc.sysinfo(buffer), buffer.raw[:3].decode())
r, w = os.pipe()
print(libc.getsid(w), os.read(r, 99).decode())
"""

SEEN = "E2BIG EDQUOT 0 ENOSYS ENOSYS 0 True\n55 the host's\n5 abc\n6 by its pipe\n"


def path_of(request: ringfence.SyscallRequest) -> bytes:
    return request.read_c_string(request.args[0 if request.name == "mkdir" else 1])


def answer(request: ringfence.SyscallRequest) -> None:
    assert request.is_valid()
    assert request.arch in {"x86_64", "aarch64"}
    assert request.number >= 0
    if request.name == "sysinfo":
        request.write_memory(request.args[0], b"abc")
        assert request.read_memory(request.args[0], 3) == b"abc"
        with pytest.raises(ringfence.Error) as bad:
            request.read_memory(8, 1)
        assert bad.value.errno == errno.EFAULT
        request.answer_value(5)
        return
    if request.name == "getsid":
        pipe = request.dup_fd(request.args[0])
        os.write(pipe, b"by its pipe")
        os.close(pipe)
        request.answer_value(6)
        return
    match_path(request)


def match_path(request: ringfence.SyscallRequest) -> None:
    path = path_of(request)
    if path == b"/host/errno":
        with pytest.raises(ringfence.Error) as bad:
            request.answer_errno(5000)
        assert bad.value.kind == "invalid_argument"
        with pytest.raises(ringfence.SpecError, match=r'^errno: "ENONE" is no errno'):
            request.answer_errno("ENONE")
        request.answer_errno("E2BIG")
        with pytest.raises(ringfence.Error, match="answered already"):
            request.answer_value(0)
    elif path == b"/host/raised":
        raise OSError(errno.EDQUOT, "is the call's errno")
    elif path == b"/host/value":
        request.answer_value()
    elif path == b"/host/closed":
        request.close()
        with pytest.raises(ringfence.Error, match="closed"):
            request.answer_value(0)
    elif path == b"/host/file":
        with tempfile.TemporaryFile() as file:
            file.write(b"the host's")
            file.seek(0)
            assert request.add_fd(file, 44, cloexec=True) == 44
            assert request.answer_fd(file, 55) == 55
    elif path == b"/tmp/here":
        request.answer_continue()


LISTENERS = """
import ctypes, errno, platform
libc = ctypes.CDLL(None, use_errno=True)
NUMBER = {"x86_64": 317, "aarch64": 277}[platform.machine()]
class Instruction(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32)]
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint16), ("filter", ctypes.POINTER(Instruction))]
program = Program(1, (Instruction * 1)(Instruction(6, 0, 0, 0x7FFF0000)))  # all is allowed
def install(flags):
    done = libc.syscall(NUMBER, 1, flags, ctypes.byref(program))
    return "filter" if done == 0 else "listener" if done > 0 else errno.errorcode[ctypes.get_errno()]
print(install(8), install(0), install(8), libc.getsid(0) == 42)
"""


@pytest.mark.parametrize("profile", ["default", "strict"])
def test_a_program_inside_has_a_listener_only_where_the_host_has_none(profile: str) -> None:
    """The kernel takes one around a program, whoever's; filters without go on top of the host's, which still hears of its calls."""
    asking = {**ONE, "profile": profile}
    with ringfence.Container() as c, c.syscall_listener() as listener:
        serving = threading.Thread(target=listener.serve, args=(lambda request: request.answer_value(42),))
        serving.start()
        run = {"capture_output": True, "text": True, "timeout": 60}
        argv = ["python3", "-c", LISTENERS]
        assert c.run(argv, seccomp=asking, **run).stdout == "EBUSY filter EBUSY True\n"
        assert c.run(argv, seccomp=profile, **run).stdout == "listener filter EBUSY False\n"
        listener.close()
        serving.join(30)
        assert not serving.is_alive()


def test_every_kind_of_answer() -> None:
    with ringfence.Container() as c:
        with c.syscall_listener() as listener:
            serving = threading.Thread(target=listener.serve, args=(answer,))
            serving.start()
            assert c.run(["python3", "-c", SCENE], seccomp=ASKING, capture_output=True, text=True).stdout == SEEN
            listener.close()
            serving.join(30)
            assert not serving.is_alive()
        # Of the main process, too, and one after the other; the container's end is the listener's.
        with ringfence.Container(["python3", "-c", SCENE], seccomp=ASKING, stdout=ringfence.PIPE) as own:
            process = own.main
            assert process is not None and process.stdout is not None
            served = own.syscall_listener()
            served.serve(answer)
            assert served.over
            assert process.stdout.read() == SEEN.encode()
            process.stdout.close()
        pids: list[int] = []
        waiting = c.popen(["python3", "-c", "import os; print(os.getsid(0))"], seccomp=ONE)
        for request in c.syscall_listener(timeout=30):
            pids += [request.process, request.pid]
            assert f"{request.pid}" in repr(request)
            waiting.kill()
            waiting.wait()
            assert not request.is_valid()
            assert request.gone
            for call in (request.answer_continue, lambda r=request: r.read_memory(0, 1), lambda r=request: r.dup_fd(0)):
                with pytest.raises(ringfence.Error) as gone:
                    call()
                assert (gone.value.kind, gone.value.errno) == ("not_found", errno.ENOENT)
            break
        assert pids == [waiting.pid, waiting.pid]


def test_waits() -> None:
    with ringfence.Container() as c:
        listener = c.syscall_listener(timeout=0.05)
        assert listener.next(0) is None
        with pytest.raises(TimeoutError):
            next(listener)
        assert not select.select([listener], [], [], 0)[0]
        process = c.popen(["python3", "-c", "import os; os.getsid(0)"], seccomp=ONE)
        assert select.select([listener], [], [], 30)[0]
        with listener.next() as request:  # type: ignore[union-attr]
            request.answer_value(1)
        assert process.wait() == 0

        # Ctrl-C ends a wait.
        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        old = signal.signal(signal.SIGINT, interrupt)
        try:
            main = threading.main_thread().ident
            assert main is not None
            threading.Timer(0.2, lambda: signal.pthread_kill(main, signal.SIGINT)).start()
            with pytest.raises(KeyboardInterrupt):
                listener.next(30)
        finally:
            signal.signal(signal.SIGINT, old)

        # What is wrong with the answerer ends it, and the call does not wait for ever.
        process = c.popen(["python3", "-c", "import os; os.getsid(0)"], seccomp=ONE, stderr=ringfence.DEVNULL)
        with pytest.raises(ZeroDivisionError):
            listener.serve(lambda request: 1 // 0)
        assert process.wait() == 1
        process = c.popen(["python3", "-c", "import os; os.getsid(0)"], seccomp=ONE, stderr=ringfence.DEVNULL)
        with pytest.raises(ringfence.Error, match="errno"):
            listener.serve(lambda request: request.answer_errno(-1))
        assert process.wait() == 1
        listener.close()
        with pytest.raises(ringfence.Error) as closed:
            listener.next()
        assert closed.value.kind == "closed"


def test_who_cannot_be_asked() -> None:
    for make, field in (
        (lambda: ringfence.run(["true"], seccomp=ONE), "seccomp"),
        (lambda: ringfence.Container(name="asks", detach=True, seccomp=ONE), "detach"),
    ):
        with pytest.raises(ringfence.SpecError) as refused:
            make()
        assert refused.value.field == field


def run(main: Callable[[], Any]) -> Any:
    async def bounded() -> Any:
        return await asyncio.wait_for(main(), 60)

    return asyncio.run(bounded(), debug=True)


def test_asyncio() -> None:
    async def main() -> None:
        async with aio.Container() as c:
            listener = c.syscall_listener()
            assert await listener.next(0.01) is None
            serving = asyncio.create_task(listener.serve(answer))
            ran = await c.run(["python3", "-c", SCENE], seccomp=ASKING, capture_output=True, text=True)
            assert ran.stdout == SEEN
            listener.close()
            await serving

            # Several at once: none is answered before all are there.
            listener = c.syscall_listener()
            there: list[ringfence.SyscallRequest] = []
            all_there = asyncio.Event()

            async def together(request: ringfence.SyscallRequest) -> None:
                there.append(request)
                if len(there) == 3:
                    all_there.set()
                await all_there.wait()
                if request.args[0] == 1:
                    raise PermissionError(errno.EPERM, "no")
                request.answer_value(request.args[0] + 10)

            serving = asyncio.create_task(listener.serve(together))
            code = "import os, sys\ntry: print(os.getsid(int(sys.argv[1])))\nexcept OSError as e: print(-e.errno)"
            ran3 = await asyncio.gather(
                *(c.run(["python3", "-c", code, str(n)], seccomp=ONE, capture_output=True, text=True) for n in range(3))
            )
            assert [int(r.stdout) for r in ran3] == [10, -1, 12]

            # A task that fails ends it.
            async def fails(request: ringfence.SyscallRequest) -> None:
                await asyncio.sleep(0)
                raise ZeroDivisionError

            listener.close()
            await serving
            listener = c.syscall_listener()
            serving = asyncio.create_task(listener.serve(fails))
            ran = await c.run(["python3", "-c", code, "0"], seccomp=ONE, capture_output=True, text=True)
            assert int(ran.stdout) == -errno.ENOSYS
            with pytest.raises(ZeroDivisionError):
                await serving

            # So does what is no coroutine, with an error that is no errno of the call; it is heard of when the call has its answer.
            def wrong(request: ringfence.SyscallRequest) -> None:
                request.answer_errno(-1)

            serving = asyncio.create_task(listener.serve(wrong))
            ran = await c.run(["python3", "-c", code, "0"], seccomp=ONE, capture_output=True, text=True)
            assert int(ran.stdout) == -errno.ENOSYS
            with pytest.raises(ringfence.SpecError, match="errno"):
                await serving

            # Cancelled, it answers what it has.
            serving = asyncio.create_task(listener.serve(lambda request: asyncio.sleep(60)))
            process = await c.popen(["python3", "-c", code, "0"], seccomp=ONE, stdout=ringfence.PIPE)
            begun = time.monotonic()
            while not there[2:] or time.monotonic() < begun + 0.3:
                await asyncio.sleep(0.05)
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving
            assert process.stdout is not None
            out = await process.stdout.read()
            assert int(out) == -errno.ENOSYS
            await process.wait()

            # It is over with the container.
            ends = asyncio.create_task(listener.serve(answer))
            await asyncio.sleep(0.05)
        await ends
        assert listener.over

    run(main)
