"""Networks of containers, from Python.

tests/run: vm=root parts=2
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import gc
import http.server
import inspect
import os
import random
import shutil
import socket
import socketserver
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ringfence
import ringfence.aio

# What does not come is not waited for longer.
MOMENT = 1.0 if os.environ.get("RINGFENCE_TEST_TIER") == "vm" else 0.2


def reaches(client: ringfence.Container, server: ringfence.Container, timeout: float = 60) -> bool:
    """A neighbour that did not answer is asked again after a second."""
    address = server.addresses[0].addresses[0]
    try:
        client.connect(f"{address}:80", timeout=timeout).close()
    except (ringfence.Error, TimeoutError):
        return False
    return True


def is_cut_off(client: ringfence.Container, server: ringfence.Container) -> bool:
    return not reaches(client, server, MOMENT)


Serve = Callable[[ringfence.Container], None]


@pytest.fixture
def serve() -> Iterator[Serve]:
    with contextlib.ExitStack() as listening:
        yield lambda container: listening.enter_context(container.listen("0.0.0.0:80", backlog=64))  # type: ignore[func-returns-value]


def own_address() -> str | None:
    """One that others reach; nothing is sent."""
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        address: str = probe.getsockname()[0]
        return address


# Programs that print what they get by HTTP.
GET = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=30).read().decode())"
CLIENTS = [["python3", "-c", GET], ["curl", "-sSf", "--max-time", "30"]]


@contextlib.contextmanager
def serving(address: str, directory: Path) -> Iterator[str]:
    """A page on the host."""
    (directory / "page").write_text("hello")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(directory))
    # An HTTPServer would ask for the name of the address.
    with socketserver.ThreadingTCPServer((address, 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://{address}:{server.server_address[1]}/page"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.skipif(own_address() is None, reason="the machine is on no network")
def test_the_way_out(tmp_path: Path) -> None:
    address = own_address()
    assert address
    with socket.create_server((address, 0)) as host, ringfence.Network(internal=False) as net:
        assert net.info["way_out"] in ("kernel", "pasta", "slirp4netns")
        number = host.getsockname()[1]
        container = net.container()
        container.connect(f"{address}:{number}", timeout=60).close()
        host.accept()[0].close()
        with serving(address, tmp_path) as url:
            for client in CLIENTS:
                fetched = container.run([*client, url], capture_output=True, text=True)
                assert fetched.stdout.strip() == "hello", fetched.stderr
        # Names are asked for where the host asks, or where it lets others ask.
        servers = container.run(["cat", "/etc/resolv.conf"], capture_output=True, text=True).stdout
        assert "nameserver 127." not in servers
    with ringfence.Network() as net:
        assert net.info["internal"]
        assert net.info["way_out"] is None
        with pytest.raises((ringfence.Error, TimeoutError)):
            net.container().connect(f"{address}:{number}", timeout=1)
        with pytest.raises(ringfence.Error) as caught:
            net.container(ports=[{"port": 80, "nat": True}])
        assert caught.value.field == "ports[0].nat"


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not there")
def test_the_example_of_the_class() -> None:
    text = inspect.getdoc(ringfence.Network) or ""
    code = "\n".join(line for line in text.splitlines() if line.startswith("    "))
    assert "curl" in code
    exec(compile(textwrap.dedent(code), "docstring", "exec"), {"ringfence": ringfence})


BY_LINK = """
import socket, sys, time
deadline = time.monotonic() + float(sys.argv[2])
while True:
    try:
        with socket.socket(socket.AF_INET6) as client:
            client.settimeout(max(0.05, deadline - time.monotonic()))
            client.connect((sys.argv[1], 80, 0, socket.if_nametoindex("eth0")))
        break
    except OSError:
        # Its own address is not its own yet.
        if time.monotonic() > deadline:
            raise
        time.sleep(0.05)
"""


def test_who_is_denied_by_name_is_denied_by_the_address_of_the_link() -> None:
    rule = {"direction": "in", "action": "deny", "peer": "web"}
    with ringfence.Network() as net:
        server = net.container(net={"network": net, "firewall": {"rules": [rule]}})
        web, other = net.container(hostname="web"), net.container()
        first, *middle = (int(part, 16) for part in (server.addresses[0].mac or "").split(":"))
        a, b, c, d, e = middle
        link = f"fe80::{first ^ 2:02x}{a:02x}:{b:02x}ff:fe{c:02x}:{d:02x}{e:02x}"
        with server.listen("[::]:80"):
            other.run(["python3", "-c", BY_LINK, link, "30"], check=True)
            assert web.run(["python3", "-c", BY_LINK, link, str(3 * MOMENT)], capture_output=True).returncode == 1
        with pytest.raises(ringfence.Error) as caught:
            web.attach_net({"network": net, "interface": "more"})
        assert (caught.value.kind, caught.value.field) == ("already_exists", "net.network")


def test_devices_that_come_are_told() -> None:
    with ringfence.Network() as net, ringfence.Container() as late, late.events(["link", "address"]) as events:
        late.attach_net({"network": net})
        told = {event.kind for event in (events.next(60), events.next(60)) if event}
        assert told == {"link", "address"}


KILLED = """
import sys, threading
import ringfence
net = ringfence.Network(internal=len(sys.argv) == 1)
kept = net.container(name="killed-one")
def come_and_go():
    while True:
        net.container(hostname="h").close()
for _ in range(4):
    threading.Thread(target=come_and_go, daemon=True).start()
print("there", flush=True)
threading.Event().wait()
"""


def test_a_program_that_is_killed_leaves_nothing() -> None:
    for round in range(int(os.environ.get("RINGFENCE_KILL_ROUNDS", "4"))):
        out = ["out"] if round == 0 and own_address() else []
        program = subprocess.Popen([sys.executable, "-c", KILLED, *out], stdout=subprocess.PIPE)
        assert program.stdout
        with program:
            assert program.stdout.readline() == b"there\n"
            time.sleep(random.random() * 0.3)
            program.kill()
        ringfence.gc()
        # Its name is free as soon as its keeper has seen it; what else there was is looked for after all tests.
        deadline = time.monotonic() + 30
        while True:
            try:
                ringfence.Container(name="killed-one").close()
                break
            except ringfence.Error as error:
                if error.kind != "already_exists" or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)


def test_by_name_and_by_address(serve: Serve) -> None:
    with ringfence.Network(subnets="10.1.2.0/24") as net:
        server = net.container(hostname="server")
        client = net.container(net={"network": net, "addresses": ["10.1.2.9"], "aliases": ["cli", "me"]})
        serve(server)
        assert reaches(client, server)
        found = client.run(["getent", "hosts", "server"], capture_output=True, text=True, check=True).stdout
        assert found.split() == ["10.1.2.2", "server"]
        assert server.run(["getent", "hosts", "me"], capture_output=True, text=True).stdout.split()[0] == "10.1.2.9"
        assert client.addresses == [ringfence.Address(net.name, "eth0", ("10.1.2.9",), "02:00:0a:01:02:09")]
        assert net.subnets == ["10.1.2.0/24"]
        assert [one["container"] for one in net.info["members"]] == [server.id, client.id]
        # With or without a control group.
        devices = client.usage().net
        assert devices and devices["eth0"].tx_bytes > 0
    assert not net.running and not server.running
    net.close()


def test_several_networks_of_one_container(serve: Serve) -> None:
    with (
        ringfence.Network() as front,
        ringfence.Network(name="back", mtu=9000) as back,
        ringfence.Container(net=[front, {"network": "back", "interface": "lan"}], hostname="proxy") as proxy,
    ):
        assert [(one.network, one.interface) for one in proxy.addresses] == [(front.name, "eth0"), ("back", "lan")]
        db, web = back.container(hostname="db"), front.container()
        serve(db)
        serve(web)
        assert reaches(proxy, db) and reaches(proxy, web)
        assert proxy.run(["getent", "hosts", "db"], stdout=subprocess.DEVNULL).returncode == 0
        assert front.container().run(["getent", "hosts", "db"], stdout=subprocess.DEVNULL).returncode == 2
        assert db.run(["cat", "/sys/class/net/eth0/mtu"], capture_output=True, text=True).stdout == "9000\n"
        # It leaves one while it runs, and another container joins.
        proxy.detach_net("lan")
        assert [one.interface for one in proxy.addresses] == ["eth0"]
        assert db.run(["getent", "hosts", "proxy"], stdout=subprocess.DEVNULL).returncode == 2
        with ringfence.Container() as late:
            assert late.attach_net({"network": back, "aliases": ["late"]}) == late.addresses[0]
            assert db.run(["getent", "hosts", "late"], stdout=subprocess.DEVNULL).returncode == 0
            with pytest.raises(ringfence.Error) as taken:
                late.attach_net({"network": front, "interface": "eth0"})
            assert (taken.value.kind, taken.value.field) == ("already_exists", "net.interface")
        with ringfence.Network(subnets=back.subnets[0]) as same, pytest.raises(ringfence.SpecError) as overlap:
            ringfence.Container(net=[back, same])
        assert overlap.value.field == "net[1]"


def test_a_cut_a_link_and_a_rate(serve: Serve) -> None:
    with ringfence.Network() as net:
        one, two, three = (net.container() for _ in range(3))
        serve(one)
        net.partition([one], [two])
        assert is_cut_off(two, one) and reaches(three, one)
        net.heal()
        assert reaches(two, one)
        net.set_link(one, False)
        assert is_cut_off(two, one)
        net.set_link(one, True)
        assert reaches(two, one)
        net.shape(one, rate="1M", direction="in")
        net.shape(one)
        assert reaches(two, one)
        try:
            net.shape(one, delay="1ms", loss=1)
        except ringfence.Error as error:
            assert error.kind == "unsupported"
        else:
            assert is_cut_off(two, one)


def test_what_cannot_be_had() -> None:
    with ringfence.Network(name="only", subnets=["10.1.2.0/29"]) as net:
        for fields, name in (
            ({"subnets": ["10.1.2.3/29"]}, "subnets[0]"),
            ({"subnets": 7}, "subnets"),
            ({"mtu": 1}, "mtu"),
            ({"name": "/"}, "name"),
        ):
            with pytest.raises((ringfence.SpecError, TypeError)) as caught:
                ringfence.Network(**fields)  # type: ignore[arg-type]
            assert isinstance(caught.value, TypeError) or caught.value.field == name
        with pytest.raises(ringfence.Error) as caught_error:
            ringfence.Network(name="only")
        assert (caught_error.value.kind, caught_error.value.field) == ("already_exists", "name")
        with pytest.raises(ringfence.SpecError) as caught_spec:
            net.container(net="none")
        assert caught_spec.value.field == "net"
        for bad, field, kind in (
            ("network:nowhere", "net", "not_found"),
            ("bridge", "net", "invalid_spec"),
            ({"network": "only", "addresses": ["10.1.3.1"]}, "net.addresses", "invalid_spec"),
            ({"network": "only", "mac": "01:00:00:00:00:00"}, "net.mac", "invalid_spec"),
            ({"network": "only", "interface": "a/b"}, "net.interface", "invalid_spec"),
            ({"network": "only", "adress": []}, "net.adress", "invalid_spec"),
        ):
            with pytest.raises(ringfence.Error) as caught_error:
                ringfence.Container(net=bad)
            assert (caught_error.value.field, caught_error.value.kind) == (field, kind)
        container = net.container()
        with pytest.raises(ringfence.Error) as caught_error:
            net.partition([], [container])
        assert caught_error.value.field == "one"
        with pytest.raises(ringfence.Error) as caught_error:
            net.shape(container, loss=2)
        assert caught_error.value.field == "loss"
        with pytest.raises(ringfence.Error) as caught_error:
            net.shape(container, rate="1M", direction="up")  # type: ignore[arg-type]
        assert caught_error.value.field == "direction"
    with pytest.raises(ringfence.Error) as caught_error:
        net.container()
    assert caught_error.value.kind == "closed"


BYTES = 1 << 19


def transfer(sender: ringfence.Container, receiver: ringfence.Container) -> float:
    """How long half of a megabyte takes from one container to the other."""
    address = f"{receiver.addresses[0].addresses[0]}:80"
    with receiver.listen("0.0.0.0:80") as listening, sender.connect(address, timeout=60) as sending:
        accepted, _ = listening.accept()
        began = time.monotonic()
        with accepted, concurrent.futures.ThreadPoolExecutor(1) as other:
            sent = other.submit(lambda: (sending.sendall(bytes(BYTES)), sending.shutdown(socket.SHUT_WR)))
            received = 0
            while data := accepted.recv(1 << 16):
                received += len(data)
            sent.result()
        assert received == BYTES
        return time.monotonic() - began


def test_what_a_container_sends_has_a_rate_that_it_cannot_take_away() -> None:
    async def again() -> None:
        async with ringfence.aio.Network() as net:
            one, two = await asyncio.gather(net.container(), net.container())
            await net.shape(one, rate="1M", direction="out")
            assert await asyncio.to_thread(transfer, one._sync, two._sync) > 0.35

    with ringfence.Network() as net:
        # Shaped on the network's side, by a device that nobody inside has.
        one, two = net.container(capabilities={"add": ["net_admin"]}), net.container()
        try:
            net.shape(one, rate="1M", direction="out")
        except ringfence.Error as error:
            assert error.kind == "unsupported", error
            pytest.skip(str(error))
        one.run(["tc", "qdisc", "del", "dev", "eth0", "root"], capture_output=True)
        assert transfer(one, two) > 0.35
        assert "qdisc tbf" not in one.run(["tc", "qdisc"], capture_output=True, text=True).stdout
        net.shape(one, rate="1M")
        assert transfer(two, one) > 0.35 and transfer(one, two) > 0.35
        net.shape(one)
        assert transfer(one, two) < 0.35
    asyncio.run(again())


POOLS = """
import asyncio, subprocess, sys
import ringfence, ringfence.aio

pool = ["192.0.2.16-192.0.2.18/24", "2001:db8::10-2001:db8::1f/64"]
net = {"bridge": "br0", "pool": pool, "gateways": ["192.0.2.1"]}
if len(sys.argv) == 1:
    subprocess.run("ip link add br0 type bridge && ip link set br0 up", shell=True, check=True)

async def other():
    async with ringfence.aio.Container(net=net) as c:
        return [str(address) for address in c.addresses[0].addresses]

with ringfence.Container(net=net) as c:
    print(*c.addresses[0].addresses, flush=True)
    if len(sys.argv) == 1:
        # Another program on the same bridge.
        subprocess.run([sys.executable, __file__, "again"], check=True)
        print(*asyncio.run(other()))
    else:
        with ringfence.Container(net=net) as third:
            print(*third.addresses[0].addresses)
            try:
                ringfence.Container(net=net)
            except ringfence.Error as error:
                print(error.kind, error.field)
            # One that is said is nobody else's, either.
            try:
                ringfence.Container(net={"bridge": "br0", "addresses": ["192.0.2.16/24"]})
            except ringfence.Error as error:
                print(error.kind, error.field)
with ringfence.Container() as late:
    print(*late.attach_net(net).addresses)
"""


def test_addresses_of_a_pool_are_one_containers_among_all_programs(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("to have a bridge takes root")
    script = tmp_path / "pools.py"
    script.write_text(POOLS)
    path = os.pathsep.join(place for place in sys.path if place)
    command = ["unshare", "-n", sys.executable, str(script)]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True, timeout=120
    )
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "192.0.2.16 2001:db8::10",
        "192.0.2.17 2001:db8::11",
        "192.0.2.18 2001:db8::12",
        "exhausted net.pool",
        "already_exists net.addresses[0]",
        "192.0.2.17 2001:db8::11",
        "192.0.2.17 2001:db8::11",
        "192.0.2.16 2001:db8::10",
    ]


def test_asyncio(serve: Serve) -> None:
    async def main() -> None:
        async with ringfence.aio.Network() as net:
            one, two = await asyncio.gather(net.container(hostname="one"), net.container())
            found = await two.run(["getent", "hosts", "one"], capture_output=True, text=True)
            assert found.returncode == 0
            serve(one._sync)
            await net.partition([one], [two])
            assert is_cut_off(two._sync, one._sync)
            await net.heal()
            assert reaches(two._sync, one._sync)
            await net.set_link(one, True)
            await net.shape(one, rate="10M")
            async with net.container() as three:
                assert three.addresses[0].network == net.name
                await three.detach_net("eth0")
                assert await three.attach_net(net) == three.addresses[0]
            assert one.addresses[0].network == net.name and net.running
            await net.kill()
        assert not net.running

    asyncio.run(main())


def test_firewalls_and_their_counters(serve: Serve) -> None:
    firewall: ringfence.Firewall = {
        "incoming": "deny",
        "rules": [{"direction": "in", "action": "allow", "protocol": "tcp", "ports": [80, "90-99"], "peer": "late"}],
    }
    with ringfence.Network() as network:
        server = network.container(net={"network": network, "firewall": firewall})
        serve(server)
        late, other = network.container(hostname="late"), network.container()
        assert reaches(late, server) and is_cut_off(other, server)
        usage = network.firewall(server)
        assert usage["rules"][0]["packets"] >= 2 and usage["defaults"]["incoming"]["bytes"] >= 60
        assert usage["rules"][0]["ports"] == [80, "90-99"] and usage["incoming"] == "deny"
        network.set_firewall(server, {})
        assert reaches(other, server)
        with pytest.raises(ringfence.SpecError) as caught:
            network.set_firewall(server, {"rules": [{"direction": "in", "action": "drop"}]})  # type: ignore[typeddict-item]
        assert caught.value.field == "firewall.rules[0].action"

    async def main() -> None:
        async with ringfence.aio.Network() as net:
            one = await net.container()
            await net.set_firewall(one, {"outgoing": "deny"})
            assert (await net.firewall(one))["outgoing"] == "deny"

    asyncio.run(main())


def test_a_forgotten_network_ends_with_a_warning() -> None:
    net = ringfence.Network()
    name = net.name
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del net
        gc.collect()
    assert any(issubclass(one.category, ResourceWarning) and name in str(one.message) for one in caught)
    ringfence.Network(name=name).close()


def test_a_forked_child_has_no_networks() -> None:
    with ringfence.Network() as net:
        container = net.container()
        child = os.fork()
        if not child:
            try:
                net.heal()
            except ringfence.Error as error:
                os._exit(0 if error.kind == "forked_child" else 1)
            os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert container.running
        # One of its own it may have.
        child = os.fork()
        if not child:
            try:
                with ringfence.Network() as own:
                    running = own.container().running
                os._exit(0 if running else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_nothing_is_left_when_the_program_is_killed() -> None:
    script = (
        "import ringfence, os, signal\n"
        "net = ringfence.Network(name='killed'); c = net.container(hostname='x'); print(c.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    program = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert program.returncode == -9, program.stderr
    pid = int(program.stdout)
    for _ in range(400):
        left = [entry.name for entry in ringfence.ls() if entry.name and entry.name.startswith("killed.")]
        if not left and not os.path.exists(f"/proc/{pid}"):
            break
        time.sleep(0.05)
    else:
        pytest.fail(f"still there: {left}")


def test_who_has_ended_leaves_by_itself() -> None:
    with ringfence.Network(subnets="10.1.2.0/29") as net:
        for _ in range(12):
            main = net.container(["true"]).main
            assert main and main.wait(60) == 0
        deadline = time.monotonic() + 60
        while net.info["members"]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        kept = net.container(["sleep", "60"])
        del kept
        gc.collect()
        assert len(net.info["members"]) == 1


def test_the_fixture(ringfence_network: ringfence.Network, ringfence_container: object) -> None:
    one = ringfence_network.container(hostname="one")
    two = ringfence_container(net=ringfence_network)  # type: ignore[operator]
    assert two.run(["getent", "hosts", "one"], stdout=subprocess.DEVNULL).returncode == 0
    assert one.running
