"""Groups of processes inside a container.

tests/run: vm=delegated
"""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
import time

import pytest

import ringfence
from ringfence import aio


@pytest.mark.needs("memory", "pids")
def test_a_group_has_limits_of_its_own() -> None:
    with ringfence.Container(memory="256M") as container:
        workers = container.group("workers", memory="32M", pids=20)
        assert (workers.name, workers.limits) == ("workers", {"memory": 32 << 20, "pids": 20})
        done = workers.run(["tail", "/dev/zero"])
        assert (done.returncode, done.reason) == (-9, "out_of_memory")
        assert (workers.usage().memory_oom_kills or 0) >= 1
        done = container.run(["echo", "outside"], capture_output=True, text=True)
        assert done.stdout == "outside\n"
        workers.update(pids=None)
        assert workers.limits == {"memory": 32 << 20}
        with workers.popen(["sleep", "60"]) as sleeper:
            with pytest.raises(ringfence.Error) as caught:
                workers.remove()
            assert caught.value.errno == errno.EBUSY
            workers.kill()
            assert sleeper.wait(10) == -9
        workers.remove()
        with pytest.raises(ringfence.Error) as caught:
            container.find_group("workers")
        assert caught.value.kind == "not_found"


@pytest.mark.needs("cpu_weight", "cpuset")
def test_shares_of_groups_inside() -> None:
    with ringfence.Container(cpuset="0") as container:
        groups = [container.group("one", cpu_weight=100), container.group("three", cpu_weight=300)]
        burners = [group.popen(["sh", "-c", "while :; do :; done"]) for group in groups]

        def after(more: int) -> list[int]:
            """What each has used when both together have used so many microseconds more."""
            end, deadline = 0, time.monotonic() + 120
            while True:
                used = [group.usage().cpu_usage_usec or 0 for group in groups]
                end = end or sum(used) + more
                if sum(used) >= end:
                    return used
                assert time.monotonic() < deadline, used
                time.sleep(0.05)

        before = after(300_000)
        one, three = (now - then for now, then in zip(after(4_000_000), before, strict=True))
        assert abs(three / one - 3) <= 0.3, (one, three)
        for burner in burners:
            burner.kill()
            assert burner.wait(60) == -9


@pytest.mark.needs("pids")
def test_bad_groups() -> None:
    with ringfence.Container(pids=32) as container:
        with pytest.raises(ringfence.SpecError, match="hostname"):
            container.group("a", hostname="x")  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="memory"):
            container.group("a", memroy="1M")  # type: ignore[call-arg]
        with pytest.raises(ringfence.Error, match="not a name"):
            container.group("a/b")
        with pytest.raises(ringfence.Error) as caught:
            container.run(["true"], cgroup="missing")
        assert (caught.value.field, caught.value.kind) == ("cgroup", "not_found")


@pytest.mark.needs("pids", "cpus")
def test_another_program_finds_groups_and_changes_limits() -> None:
    name = f"groups-{os.getpid()}"
    code = f"""
import ringfence
c = ringfence.by_name({name!r})
g = c.find_group("workers")
print(g.usage().pids_max, g.limits, c.spec["pids"])
print(g.run(["echo", "in"], capture_output=True, text=True).stdout, end="")
g.update(pids=15)
c.update(pids=48, cpus=0.5)
"""
    container = ringfence.Container(name=name, detach=True, pids=32)
    try:
        group = container.group("workers", pids=20)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert done.stdout == "20 {'pids': 20} 32\nin\n", done.stderr
        assert group.usage().pids_max == 15
        # What the other program changed stays when this one changes something else.
        container.update(memory="64M")
        usage = container.usage()
        assert (usage.pids_max, usage.memory_max) == (48, 64 << 20)
        assert container.spec["cpus"] == 0.5
        group.update(memory="32M")
        assert group.limits == {"pids": 15, "memory": 32 << 20}
    finally:
        container.stop(0)
        ringfence.gc()


@pytest.mark.needs("pids")
def test_coroutines() -> None:
    async def use() -> None:
        async with aio.Container(pids=32) as container:
            group = await container.group("workers", pids=10)
            done = await container.run(["echo", "in"], cgroup=group.name, capture_output=True, text=True)
            assert done.stdout == "in\n"
            assert (await container.find_group("workers")).limits == {"pids": 10}

    asyncio.run(use())
