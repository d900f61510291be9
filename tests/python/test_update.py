"""Limits that change while a container runs.

tests/run: vm=delegated
"""

from __future__ import annotations

import asyncio
import errno
import os
import tempfile
from collections.abc import Iterator

import pytest

import ringfence
from ringfence import aio


@pytest.fixture
def limited() -> Iterator[ringfence.Container]:
    with ringfence.Container(memory="64M", pids=32) as made:
        yield made


@pytest.mark.needs("memory", "pids")
def test_limits_change_and_go_away(limited: ringfence.Container) -> None:
    limited.update(memory="128M", pids=None)
    usage = limited.usage()
    assert (usage.memory_max, usage.pids_max) == (128 << 20, None)
    assert limited.spec == {"memory": 128 << 20}
    limited.update()
    assert limited.spec == {"memory": 128 << 20}


@pytest.mark.needs("memory", "pids", "cpus")
def test_all_or_nothing(limited: ringfence.Container) -> None:
    with pytest.raises(ringfence.Error) as caught:
        limited.update(memory="128M", cpus=0.5, cpu_burst=10)
    assert caught.value.field == "cpu_burst"
    assert caught.value.errno == errno.EINVAL
    assert limited.usage().memory_max == 64 << 20
    assert "cpus" not in limited.spec


@pytest.mark.needs("memory", "pids")
def test_what_cannot_change(limited: ringfence.Container) -> None:
    with pytest.raises(ringfence.SpecError, match="fixed at the start"):
        limited.update(hostname="other")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="memory"):
        limited.update(memroy="1M")  # type: ignore[call-arg]
    with pytest.raises(ringfence.SpecError, match="memory"):
        limited.update(memory="lots")
    with pytest.raises(TypeError):
        limited.update(memory=object())  # type: ignore[arg-type]
    assert limited.spec == {"memory": 64 << 20, "pids": 32}


@pytest.mark.needs("memory")
def test_a_closed_container_cannot_change() -> None:
    container = ringfence.Container(memory="64M")
    container.close()
    with pytest.raises(ringfence.Error) as caught:
        container.update(memory="32M")
    assert caught.value.kind == "closed"


@pytest.mark.needs("memory")
def test_reclaim() -> None:
    with ringfence.Container(memory="64M") as container:
        with pytest.raises(ringfence.Error, match="lots"):
            container.reclaim("lots")
        with pytest.raises(ringfence.Error):
            container.reclaim(-1)
        try:
            taken = container.reclaim("1T")
        except ringfence.Error as error:
            assert error.kind == "unsupported"
            pytest.skip(str(error))
        assert taken is False


@pytest.mark.needs("memory")
def test_page_cache_is_reclaimed() -> None:
    # Not below TMPDIR, which may be in memory.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        os.chmod(directory, 0o755)
        with open(f"{directory}/file", "wb") as file:
            file.write(os.urandom(32 << 20))
            file.flush()
            os.fsync(file.fileno())
            # Whoever reads it first has it in its own account.
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        os.chmod(f"{directory}/file", 0o644)
        with ringfence.Container(memory="256M", mounts=[f"{directory}:/data"]) as container:
            container.run(["cat", "/data/file"], stdout=ringfence.DEVNULL, check=True)
            before = container.usage().memory_file or 0
            assert before >= 32 << 20
            try:
                taken = container.reclaim("8M")
            except ringfence.Error as error:
                assert error.kind == "unsupported"
                pytest.skip(str(error))
            assert taken is True
            fallen = before - (container.usage().memory_file or 0)
            assert 6 << 20 <= fallen <= 16 << 20


def test_objects_of_the_kernel() -> None:
    with ringfence.Container(sysctls={"kernel.shmmni": 7}) as container:
        script = "stat -f -c %b /dev/shm; cat /proc/sys/kernel/shmmni /proc/sys/kernel/msgmax"

        def seen() -> str:
            return container.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout

        container.update(ptys=3, shm_size="1M", sysctls={"kernel.shmmni": 8, "kernel.msgmax": "99"})
        assert seen() == "256\n8\n99\n"
        with pytest.raises(ringfence.Error) as caught:
            container.update(shm_size="2M", ptys=4, sysctls={"kernel.shmmni": None, "kernel.msgmax": "much"})
        assert (caught.value.field, caught.value.errno) == ('sysctls["kernel.msgmax"]', errno.EINVAL)
        assert seen() == "256\n8\n99\n"
        assert container.spec["ptys"] == 3
        container.update(ptys=None, shm_size=None, sysctls={"kernel.shmmni": None, "kernel.msgmax": None})
        assert seen() == "16384\n4096\n8192\n"
        assert container.spec == {}


@pytest.mark.needs("pids")
def test_coroutines() -> None:
    async def change() -> None:
        async with aio.Container(pids=32) as container:
            await container.update(pids=64)
            assert container.spec == {"pids": 64}

    asyncio.run(change())
