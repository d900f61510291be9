"""Ports of a container at ports of this program's machine.

tests/run: vm=root
"""

from __future__ import annotations

import asyncio
import errno
import http.client
import socket
import subprocess
import sys
import threading

import pytest

import ringfence
import ringfence.aio

SERVICE = 5432


def talk(outside: socket.socket, server: socket.socket) -> None:
    server.settimeout(60)
    outside.settimeout(60)
    inside, _ = server.accept()
    with outside, inside:
        outside.sendall(b"question")
        outside.shutdown(socket.SHUT_WR)
        assert inside.makefile("rb").read() == b"question"
        inside.sendall(b"answer")
        inside.shutdown(socket.SHUT_WR)
        assert outside.makefile("rb").read() == b"answer"


def test_a_client_library_of_the_host() -> None:
    script = (
        "import http.server as h, os, sys\n"
        "os.chdir('/tmp'); open('page', 'w').write('from inside')\n"
        "s = h.ThreadingHTTPServer(('127.0.0.1', 80), h.SimpleHTTPRequestHandler)\n"
        "print('ready', flush=True); s.serve_forever()"
    )
    with ringfence.Container(["python3", "-c", script], ports=[80]) as c:
        while "ready" not in c.logs():
            assert c.running
        client = http.client.HTTPConnection("127.0.0.1", c.port(80), timeout=60)
        for _ in range(3):
            client.request("GET", "/page")
            assert client.getresponse().read() == b"from inside"
        client.close()


def test_ports_are_found_given_and_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        free = held.getsockname()[1]
    with ringfence.Container(ports={SERVICE: free, "53/udp": None}) as c:
        tcp, udp = sorted(c.ports, key=lambda port: port.protocol)
        assert (tcp.port, tcp.protocol, tcp.host, tcp.host_port) == (SERVICE, "tcp", "127.0.0.1", free)
        assert (udp.port, udp.protocol) == (53, "udp")
        assert c.port(53) == udp.host_port > 0
        assert {port["host_port"] for port in c.info["ports"]} == {free, udp.host_port}
        with c.listen(("127.0.0.1", SERVICE)) as server:
            talk(socket.create_connection(("127.0.0.1", free)), server)
        with pytest.raises(ringfence.Error, match="not published") as missing:
            c.port(80)
        assert (missing.value.kind, missing.value.field) == ("not_found", "port")
        with pytest.raises(ringfence.Error, match="70000") as wrong:
            c.port(70000)
        assert wrong.value.field == "port"
        with pytest.raises(ringfence.Error) as taken:
            ringfence.Container(ports=[f"{free}:80"])
        assert (taken.value.errno, taken.value.field) == (errno.EADDRINUSE, "ports[0]")
        assert "free one" in str(taken.value.hint)
    with pytest.raises(ringfence.Error):
        c.port(SERVICE)


@pytest.mark.parametrize(
    ("ports", "field"),
    [
        ([0], "ports[0]"),
        ([80, "x"], "ports[1]"),
        (["80/sctp"], "ports[0]"),
        ([80.5], "ports[0]"),
        ({70000: 1}, 'ports["70000"]'),
        ({80: -1}, 'ports["80"]'),
        ([{"port": 80, "host": "localhost"}], "ports[0].host"),
        (["8080:80", "8080:81"], "ports[1]"),
        ("80", "ports"),
        (list(range(1, 131)), "ports"),
    ],
)
def test_bad_ports(ports: object, field: str) -> None:
    with pytest.raises(ringfence.SpecError) as wrong:
        ringfence.Container(ports=ports)  # type: ignore[arg-type]
    assert wrong.value.field == field


def test_not_on_the_host_s_network() -> None:
    with pytest.raises(ringfence.SpecError, match="the host's") as wrong:
        ringfence.Container(ports=[80], net="host")
    assert wrong.value.field == "ports"


def test_datagrams_and_ipv6() -> None:
    with ringfence.Container(ports=["[::1]::53/udp"]) as c:
        (port,) = c.ports
        assert port.host == "::1"
        server = c.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("127.0.0.1", 53))
        server.settimeout(60)
        client = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        client.settimeout(60)
        with server, client:
            client.sendto(b"question", ("::1", port.host_port))
            data, address = server.recvfrom(100)
            assert data == b"question"
            server.sendto(b"answer", address)
            assert client.recvfrom(100)[0] == b"answer"


def test_a_detached_container_is_reached_by_name() -> None:
    name = f"ports-{threading.get_native_id()}"
    ringfence.Container(name=name, detach=True, ports=[SERVICE]).close()
    found = ringfence.by_name(name)
    try:
        (port,) = found.ports
        assert found.port(SERVICE) == port.host_port
        with found.listen(("127.0.0.1", SERVICE)) as server:
            talk(socket.create_connection((port.host, port.host_port)), server)
    finally:
        found.stop()
        ringfence.gc()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((port.host, port.host_port), timeout=60)


def test_at_a_shell() -> None:
    program = (
        "import socket; s = socket.create_server(('', 80)); print('up', flush=True); s.accept()[0].sendall(b'hello')"
    )
    with socket.create_server(("127.0.0.1", 0)) as held:
        free = held.getsockname()[1]
    command = [sys.executable, "-m", "ringfence", "run", "--publish", f"{free}:80", "python3", "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None and running.stdout.readline() == b"up\n"
        with socket.create_connection(("127.0.0.1", free), timeout=60) as client:
            assert client.recv(100) == b"hello"
        assert running.wait(60) == 0


def test_asyncio() -> None:
    async def client() -> None:
        async with ringfence.aio.Container(ports=[SERVICE]) as c:
            assert [port.port for port in c.ports] == [SERVICE]
            server = await c.listen(("127.0.0.1", SERVICE))
            outside = await asyncio.to_thread(socket.create_connection, ("127.0.0.1", c.port(SERVICE)))
            await asyncio.to_thread(talk, outside, server)
            server.close()

    asyncio.run(client())
