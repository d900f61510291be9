"""Usage and OpenVZ's table: typed figures, against an independent reading."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

import ringfence
from ringfence import aio

pytestmark = pytest.mark.needs("memory", "pids")

SENDS = """use Socket; socket(S, PF_INET, SOCK_DGRAM, 0) or die;
for (1..50) { send(S, "x" x 1000, 0, pack_sockaddr_in(9, INADDR_LOOPBACK)) }"""


def test_figures_have_types() -> None:
    with ringfence.Container(memory="128M", pids=40) as c:
        usage = c.usage()
        assert usage.net is not None
        before = usage.net["lo"]
        assert isinstance(before, ringfence.NetUsage)
        c.run(["perl", "-e", SENDS], check=True)
        usage = c.usage()
        assert usage.net is not None
        after = usage.net["lo"]
        assert after.tx_packets - before.tx_packets >= 50
        assert after.tx_bytes - before.tx_bytes >= 50 * 1028
        inside = c.run(["cat", "/proc/net/dev"], capture_output=True, text=True, check=True).stdout
        columns = next(line for line in inside.splitlines() if "lo:" in line).split(":")[1].split()
        assert (int(columns[0]), int(columns[8])) == (after.rx_bytes, after.tx_bytes)
        assert usage.get("net.lo.tx_bytes") == after.tx_bytes
        assert usage.get("memory_max") == usage.memory_max == 128 << 20
        assert usage.memory_anon is not None and usage.memory_kernel is not None
        assert c.run(["true"]).usage.pids_max == 40


def test_names_of_figures() -> None:
    stall = ringfence.Stall(avg10=1.5, total_usec=7)
    usage = ringfence.Usage(
        io={"8:0": ringfence.IoUsage(name="sda", read_bytes=3)},
        hugepages={"2M": ringfence.HugePageUsage(max=5)},
        pressure=ringfence.PressureUsage(memory=ringfence.Stalls(some=stall)),
    )
    assert usage.get("io.8:0.read_bytes") == 3
    assert usage.get("io.8:1.read_bytes") is None
    assert usage.get("net.lo.rx_bytes") is None
    assert usage.get("hugepages.2M.max") == 5
    assert usage.get("pressure.memory.some.total_usec") == 7
    assert usage.get("pressure.memory.full.total_usec") is None
    assert usage.get("pressure.io.some.total_usec") is None
    for key in (
        "memory",
        "io",
        "io.8:0",
        "io.8:0.name",
        "io..reads",
        "pressure.memory.total_usec",
        "pressure.x.some.total_usec",
    ):
        with pytest.raises(KeyError):
            usage.get(key)


def test_pressure_of_a_group() -> None:
    with ringfence.Container(memory="128M") as c:
        workers = c.group("workers", memory="64M")
        usage = workers.usage()
        assert usage.net is None
        if usage.pressure is not None:
            assert usage.pressure.memory is not None and usage.pressure.memory.some is not None
            assert usage.pressure.memory.some.total_usec >= 0
            assert 0.0 <= usage.pressure.memory.some.avg10 <= 100.0


def test_out_of_memory_in_a_group_of_its_own() -> None:
    with ringfence.Container(memory="256M", swap=0) as c:
        calm = c.group("calm", memory="64M").popen(["sleep", "600"])
        hog = c.group("hog", memory="32M").popen(["tail", "/dev/zero"], stdout=ringfence.DEVNULL)
        assert (hog.wait(60), hog.reason) == (-9, "out_of_memory")
        calm.kill()
        assert (calm.wait(60), calm.reason) == (-9, "signaled")
        assert c.usage().memory_oom_kills == 1


def test_beancounters(tmp_path: Path) -> None:
    with ringfence.Container(memory="128M", pids=40) as c:
        counters = {counter.resource: counter for counter in c.beancounters()}
        assert len(counters) == 23
        assert counters["numproc"].limit == 40
        assert counters["numproc"].held == c.usage().pids_current
        pages = (128 << 20) // os.sysconf("SC_PAGE_SIZE")
        assert (counters["physpages"].limit, counters["physpages"].unit) == (pages, "pages")
        assert counters["numnetif"].held == 1
        none = counters["numiptent"]
        assert (none.held, none.limit) == (None, None)
        assert none.source.startswith("none: ")
        assert json.loads(c._raw.beancounters())[0]["resource"] == "kmemsize"


def test_beancounters_count_failures() -> None:
    with ringfence.Container(memory="40M", swap=0, pids=8) as c:

        def failures(*resources: str) -> list[int | None]:
            counters = {counter.resource: counter.failcnt for counter in c.beancounters()}
            return [counters[resource] for resource in resources]

        assert failures("numproc", "oomguarpages") == [0, 0]
        assert c.run(["sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do sleep 0.1 & done; wait"]).returncode == 2
        (refused,) = failures("numproc")
        assert refused is not None and refused >= 1
        assert refused == c.usage().pids_refused
        # Those that were forked may be there still.
        c.update(pids=None)
        assert c.run(["tail", "/dev/zero"], stdout=ringfence.DEVNULL).reason == "out_of_memory"
        met, killed = failures("physpages", "oomguarpages")
        assert met is not None and met >= 1
        assert killed == 1


def test_coroutines() -> None:
    async def scenario() -> None:
        async with aio.Container(memory="64M") as c:
            assert (await c.usage()).memory_max == 64 << 20
            assert {counter.resource for counter in await c.beancounters()} >= {"numproc", "physpages"}

    asyncio.run(scenario())
