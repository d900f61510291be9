"""Containers on a network of their own."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from . import _host, _ringfence
from ._container import Container
from ._errors import Error, forked_child
from ._types import Address

if TYPE_CHECKING:
    from typing_extensions import Self

    from ._types import Args, Firewall, FirewallUsage, Seconds, Size


def options_of(
    name: str | None,
    subnets: str | Iterable[str] | None,
    mtu: int | None,
    internal: bool,
    way_out: Literal["auto", "kernel", "pasta", "slirp4netns"] | None,
) -> str:
    """JSON for the core, which checks it."""
    listed = subnets if subnets is None or isinstance(subnets, str) else list(subnets)
    given = {"name": name, "subnets": listed, "mtu": mtu, "internal": internal, "way_out": way_out}
    return json.dumps({key: value for key, value in given.items() if value is not None})


class Network:
    """Several containers on a network of their own: they reach each other by address and by name, and nobody else.

        with ringfence.Network() as net:
            server = net.container(["python3", "-m", "http.server", "80"], hostname="server")
            client = net.container()
            server.wait_for(port=80)
            client.run(["curl", "-sS", "http://server/"], check=True)
            net.partition([client], [server])
            net.heal()
            net.shape(client, rate="10M")

    It is a bridge in a network namespace of its own: nothing of it is seen on the host, and it takes no rights. `container` starts a
    container on it; `net=network` of any container does too, and a list of networks, or objects that say more:
    `net={"network": net.name, "addresses": ["10.89.0.5"], "interface": "lan", "aliases": ["db"]}`.

    A name is found by /etc/hosts: `name`, `hostname` and `aliases` of each container on it, until its end was seen (by a wait, a
    close, or when others start). A container sends from its own addresses only, whatever rights it has.

    subnets: at most one of IPv4 and one of IPv6; by default 10.89.0.0/16 and fd4f:9a1c:77e2::/64, or the next ones that no other network
    of this process overlaps. Networks do not see each other; a container is not on two whose subnets overlap.
    mtu: the largest packet in bytes.
    internal: whether nothing leads out of it, the default. Without, its containers reach what this program reaches: by the kernel, for root
    where net.ipv4.ip_forward is set; else by pasta (package passt) or slirp4netns. `info["way_out"]` says which.
    way_out: which it is to be: "kernel", "pasta", "slirp4netns", or "auto".

    It ends at the end of the block, by `close`, when it is forgotten (with a ResourceWarning), with this process; so do the
    containers that `container` started.
    """

    def __init__(
        self,
        *,
        name: str | None = None,
        subnets: str | Iterable[str] | None = None,
        mtu: int | None = None,
        internal: bool = True,
        way_out: Literal["auto", "kernel", "pasta", "slirp4netns"] | None = None,
    ) -> None:
        # Set first: the finalizer also sees a network that could not be started.
        self._closed = True
        _host.sync_log_level()
        self._raw = _ringfence.Network.start(options_of(name, subnets, mtu, internal, way_out))
        self._generation = _host.generation
        self._closed = False
        _host.attached.add(self)

    def _live(self, call: str) -> _ringfence.Network:
        if self._generation != _host.generation:
            raise forked_child(f"Network.{call}")
        return self._raw

    def container(self, argv: Args | None = None, **options: Any) -> Container:
        """Starts a container on it, from any thread: takes what `Container` takes. It has a device `eth0` on this network, unless `net` says
        more. To forget it ends nothing; it keeps its network, which ends it.
        """
        return Container(argv, _home=self, **options)

    @property
    def name(self) -> str:
        """By which containers name it: `net="network:NAME"`."""
        return self._live("name").name

    @property
    def info(self) -> dict[str, Any]:
        """Its name, subnets, mtu and way out, and its members: containers by id, with their addresses."""
        info: dict[str, Any] = json.loads(self._live("info").info())
        return info

    @property
    def subnets(self) -> list[str]:
        """IPv4 first."""
        subnets: list[str] = self.info["subnets"]
        return subnets

    @property
    def running(self) -> bool:
        """Containers can be started on it."""
        return not self._closed and self._live("running").running

    def partition(self, one: Iterable[Container], other: Iterable[Container]) -> None:
        """Cuts the network: nothing passes between the containers of the two sides any more; who is on neither reaches both.

        Connections that are open stall. Further cuts add to it, `heal` takes all away. Who starts later is on no side.
        """
        self._live("partition").partition([c._raw for c in one], [c._raw for c in other])

    def heal(self) -> None:
        """Everybody reaches everybody again."""
        self._live("heal").heal()

    def set_link(self, container: Container, up: bool) -> None:
        """Takes a container off the network, or lets it on again: its device has no carrier meanwhile."""
        self._live("set_link").set_link(container._raw, up)

    def shape(
        self,
        container: Container,
        *,
        rate: Size | None = None,
        delay: Seconds = 0,
        jitter: Seconds = 0,
        loss: float = 0,
        duplicate: float = 0,
        reorder: float = 0,
        corrupt: float = 0,
        direction: Literal["both", "in", "out"] = "both",
    ) -> None:
        """Gives the link of a container a rate, a delay, losses; in the place of what it had. Without any it is as it was made.

        rate: bytes per second. delay, jitter: seconds (or text: `"50ms"`), by which each packet is later.
        loss, duplicate, reorder, corrupt: the share of packets, from 0 to 1, that is lost, comes twice, passes others, has a wrong bit.
        direction: `both` (each way on its own: a delay is there and back), `in` for what it receives, `out` for what it sends.

        An error of kind `unsupported` for a kernel without tbf (`rate`) or netem (the others).
        """
        given = {
            "rate": rate,
            "delay": delay,
            "jitter": jitter,
            "loss": loss,
            "duplicate": duplicate,
            "reorder": reorder,
            "corrupt": corrupt,
        }
        shape = json.dumps({key: value for key, value in given.items() if value is not None})
        self._live("shape").shape(container._raw, shape, direction)

    def set_firewall(self, container: Container, firewall: Firewall) -> None:
        """Gives a container another firewall, in the place of what it had, at once; `{}` lets everything pass.

            net.set_firewall(db, {"incoming": "deny", "rules": [
                {"direction": "in", "action": "allow", "protocol": "tcp", "ports": 5432, "peer": "web"}]})

        What is open and passes no longer stalls, what still passes goes on. Its counters begin anew. It can be given from the start:
        `net={"network": net, "firewall": {...}}`.
        """
        self._live("set_firewall").set_firewall(container._raw, json.dumps(firewall))

    def firewall(self, container: Container) -> FirewallUsage:
        """The firewall of a container, with `packets` and `bytes` of each rule and of the `defaults` since it was set."""
        usage: FirewallUsage = json.loads(self._live("firewall").firewall(container._raw))
        return usage

    def kill(self) -> None:
        """SIGKILL to everything in the containers that `container` started. Does not wait; the network goes on."""
        self._live("kill").kill()

    def close(self, timeout: Seconds | None = None) -> None:
        """Ends the containers that `container` started, then the network; waits until everything is undone. Closing twice is fine."""
        if self._closed:
            return
        self._live("close").close(timeout)
        self._closed = True
        _host.attached.discard(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._generation == _host.generation:
            self.close()

    def __del__(self) -> None:
        if getattr(self, "_closed", True) or self._generation != _host.generation:
            return
        warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
        try:
            self._raw.close(5.0)
        except Error:
            pass

    def __repr__(self) -> str:
        if not hasattr(self, "_raw"):
            return "<Network: not started>"
        if self._generation != _host.generation:
            return "<Network: of the parent process>"
        return f"<Network {self._raw.name!r}{'' if self._raw.running else ' ended'}>"


def addresses_of(text: str) -> list[Address]:
    """What the core tells of a container's devices."""
    return [Address(one["network"], one["interface"], tuple(one["addresses"]), one["mac"]) for one in json.loads(text)]
