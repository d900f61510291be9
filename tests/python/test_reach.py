"""Sockets and files of a container for this program.

tests/run: vm=root
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
from collections.abc import Iterator

import pytest

import ringfence
from ringfence import aio


@pytest.fixture
def container() -> Iterator[ringfence.Container]:
    with ringfence.Container(files={"/etc/ringfence-reach": "within\n"}) as container:
        yield container


def exchange(client: socket.socket, server: socket.socket) -> None:
    with client, server.accept()[0] as peer:
        client.sendall(b"hello")
        assert peer.recv(5) == b"hello"


@pytest.mark.parametrize(
    "address", [("127.0.0.1", 80), ("::1", 80), ("localhost", 81), "/tmp/reach.sock", "@reach", "\0reach"], ids=repr
)
def test_streams(container: ringfence.Container, address: tuple[str, int] | str) -> None:
    with container.listen(address, backlog=4) as server:
        server.settimeout(60)
        client = container.connect(address, timeout=60)
        assert client.gettimeout() is not None
        exchange(client, server)
        with pytest.raises(OSError) as caught:
            container.listen(address)
        assert caught.value.errno == errno.EADDRINUSE
    with pytest.raises(OSError) as caught:
        container.connect(address)
    assert caught.value.errno == errno.ECONNREFUSED
    assert not os.path.exists("/tmp/reach.sock")


def test_sockets(container: ringfence.Container) -> None:
    with container.socket(socket.AF_INET, socket.SOCK_DGRAM) as one, container.socket(type=socket.SOCK_DGRAM) as other:
        assert (one.family, one.type) == (socket.AF_INET, socket.SOCK_DGRAM)
        one.bind(("127.0.0.1", 0))
        one.settimeout(60)
        other.sendto(b"datagram", one.getsockname())
        assert one.recv(16) == b"datagram"
    with container.socket(socket.AF_PACKET, socket.SOCK_RAW) as packets:
        assert packets.family == socket.AF_PACKET
        assert not packets.get_inheritable()
    with pytest.raises(ringfence.Error) as caught:
        container.socket(12345)
    assert (caught.value.errno, caught.value.field) == (errno.EAFNOSUPPORT, "family")


def test_bad_addresses(container: ringfence.Container) -> None:
    for address in ("relative", "example.org:80", ("example.org", 80), ("127.0.0.1", 70000), ("127.0.0.1", -1)):
        for call in (container.listen, container.connect):
            with pytest.raises(ringfence.Error) as caught:
                call(address)  # type: ignore[operator]
            assert (caught.value.kind, caught.value.field) == ("invalid_argument", "address"), address
    for wrong in (80, ("127.0.0.1",), ("127.0.0.1", "80"), None):
        with pytest.raises(TypeError, match="address"):
            container.connect(wrong)  # type: ignore[arg-type]


def test_files(container: ringfence.Container) -> None:
    with container.open("/etc/ringfence-reach") as file:
        assert (file.name, file.read()) == ("/etc/ringfence-reach", "within\n")
    with container.open("/tmp/made", "xb") as file:
        file.write(b"by the host")
    assert container.run(["cat", "/tmp/made"], capture_output=True).stdout == b"by the host"
    with container.open("/tmp/made", "a", encoding="utf-8") as file:
        file.write(", twice")
    with container.open("/tmp/made", "rb") as file:
        assert file.read() == b"by the host, twice"
    fd = container.open_path("/tmp", os.O_PATH)
    try:
        assert stat.S_ISDIR(os.fstat(fd).st_mode)
        assert "made" in os.listdir(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
    with pytest.raises(FileNotFoundError):
        container.open("/nonsense")
    with pytest.raises(FileExistsError):
        container.open("/tmp/made", "x")
    with pytest.raises(ringfence.Error, match="path"):
        container.open_path("")
    container.run(["ln", "-s", "/proc/self/root", "/tmp/magic"], check=True)
    with pytest.raises(ringfence.Error) as caught:
        container.open("/tmp/magic/etc/passwd")
    assert caught.value.errno == errno.ELOOP


def test_asyncio() -> None:
    async def main() -> None:
        async with aio.Container() as container:

            async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                writer.write(await reader.readline())
                writer.close()

            for address in (("127.0.0.1", 80), "/tmp/echo.sock"):
                listening = await container.listen(address)
                start = asyncio.start_server if isinstance(address, tuple) else asyncio.start_unix_server
                async with await start(echo, sock=listening):
                    connected = await container.connect(address)
                    connect = asyncio.open_connection if isinstance(address, tuple) else asyncio.open_unix_connection
                    reader, writer = await connect(sock=connected)
                    writer.write(b"hello\n")
                    assert await reader.readline() == b"hello\n"
                    writer.close()
                    await writer.wait_closed()
            with await container.open("/tmp/made", "w") as file:
                file.write("x")
            os.close(await container.open_path("/tmp/made"))
            with await container.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
                assert made.gettimeout() == 0
            with pytest.raises(ConnectionRefusedError):
                await container.connect(("127.0.0.1", 81))

    asyncio.run(main())
