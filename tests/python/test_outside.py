"""Devices on the host's, and ways out of networks: the host is a network namespace of the script's own.

tests/run: vm=root timeout=180
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest

# Both ends of a cable, as a host has them that forwards.
HOST = """
import subprocess

def ip(text):
    subprocess.run(["ip", *text.split()], check=True)

def set(parameter, value):
    with open("/proc/sys/net/" + parameter, "w") as file:
        file.write(value)

set("ipv6/conf/default/accept_dad", "0")
for text in ("link set lo up", "link add near type veth peer name far", "link set near up", "link set far up"):
    ip(text)

def forward():
    ip("address add 192.0.2.254/24 dev near")
    ip("-6 address add 2001:db8::fe/64 dev near nodad")
    ip("route add default via 192.0.2.1")
    ip("-6 route add default via 2001:db8::1")
    for parameter in ("ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv6/conf/near/proxy_ndp"):
        set(parameter, "1")
"""

TALK = """
import contextlib, json, os, socket, sys
import ringfence

def talk(server, connect, to):
    "A byte each way; who the server says has connected."
    server.settimeout(60)
    with server, connect(to, 60) as client:
        accepted, peer = server.accept()
        with accepted:
            client.sendall(b"?")
            assert accepted.recv(1) == b"?"
            accepted.sendall(b"!")
            assert client.recv(1) == b"!"
            return peer[0]
"""

KINDS = """
def cable(one, other, prefix=("/24", "/64")):
    "Two containers, each on its device, or one and the host; which addresses have reached which."
    four, six = prefix
    nets = [{**net, "addresses": [f"192.0.2.{last}{four}", f"2001:db8::{last}{six}"]} for net, last in ((one, 5), (other, 6)) if net]
    with contextlib.ExitStack() as running:
        try:
            containers = [running.enter_context(ringfence.Container(net=net)) for net in nets]
        except ringfence.Error as error:
            if error.kind != "unsupported":
                raise
            return [error.kind, str(error)]
        reached = []
        for number in (0, 1):
            to = containers[-1].addresses[0].addresses[number]
            server = containers[-1].listen((to, 80))
            connect = containers[0].connect if other else socket.create_connection
            reached.append(f"{talk(server, connect, (to, 80))} {to}")
        return reached

answers = {
    "macvlan": cable({"macvlan": "near"}, {"macvlan": "near"}),
    "macvlan of each end": cable({"macvlan": "near", "mode": "private"}, {"macvlan": "far"}),
    "ipvlan": cable({"ipvlan": "near"}, {"ipvlan": "near"}),
    "VLAN": cable({"vlan": "near", "id": 70}, {"vlan": "far", "id": 70}),
    "device": cable({"device": "near", "interface": "wan"}, {"device": "far"}),
}
answers["devices come back"] = sorted(name for _, name in socket.if_nameindex())
ip("link set near up")
ip("link set far up")
forward()
for pair in ("veth", "netkit"):
    answers[f"routed over {pair}"] = cable({"routed": "near", "pair": pair}, None, prefix=("", ""))
print(json.dumps(answers))
"""

OUT = """
HOST = ["192.0.2.254", "2001:db8::fe"]
OUTSIDE = ["192.0.2.1", "2001:db8::1"]

def udp(container, address, port):
    bound = container.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    bound.bind((address, port))
    bound.settimeout(60)
    return bound

def ask(client, to, server):
    "A datagram each way; who the server says has asked, and who the client says has answered."
    with client, server:
        client.sendto(b"?", (to, 53))
        _, peer = server.recvfrom(1)
        server.sendto(b"!", peer[:2])
        return peer[0], client.recvfrom(1)[1][0]

with contextlib.ExitStack() as running:
    outside = running.enter_context(ringfence.Container(net={"device": "far", "addresses": ["192.0.2.1/24", "2001:db8::1/64"]}))
    ip("link set near up")
    forward()
    net = running.enter_context(ringfence.Network(internal=False, way_out="kernel"))
    row = [{"port": "80-82", "host_port": "8080-8082", "host": host, "nat": True} for host in ("0.0.0.0", "::")]
    dns = [{"port": 53, "host_port": 53, "protocol": "udp", "host": host, "nat": True} for host in HOST]
    server = net.container(ports=row + dns)
    answers = {"way out": net.info["way_out"], "out": [], "in": []}
    for host, there, own in zip(HOST, OUTSIDE, server.addresses[0].addresses):
        any_address = "::" if ":" in host else "0.0.0.0"
        answers["out"].append(talk(outside.listen((there, 80)), server.connect, (there, 80)))
        answers["out"] += ask(udp(server, any_address, 0), there, udp(outside, there, 53))
        for port in (80, 82):
            answers["in"].append(talk(server.listen((own, port)), outside.connect, (host, 8000 + port)))
        answers["in"] += ask(udp(outside, any_address, 0), host, udp(server, any_address, 53))
print(json.dumps(answers))
"""

# What an ordinary user's networks have, where the host may forward or not; the argument is one of its addresses, or several.
USER = """
def refused(**fields):
    try:
        ringfence.Network(internal=False, **fields).close()
    except ringfence.Error as error:
        return [error.kind, error.field, str(error)]

def leads_out(net, container):
    answers = []
    for address in sys.argv[1:] if net.info["way_out"] == "pasta" else sys.argv[1:2]:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        server = socket.create_server((address, 0), family=family)
        answers.append(talk(server, container.connect, server.getsockname()[:2]))
    return answers

answers = {"kernel": refused(way_out="kernel")}
for way in ("auto", "slirp4netns"):
    with ringfence.Network(internal=False, way_out=way) as net:
        container = net.container(ports=[80])
        port = ("127.0.0.1", container.port(80))
        answers[way] = [net.info["way_out"], *leads_out(net, container), talk(container.listen(("0.0.0.0", 80)), socket.create_connection, port)]
        try:
            net.container(ports=[{"port": 80, "nat": True}])
        except ringfence.Error as error:
            answers[f"nat {way}"] = [error.kind, error.field, str(error)]
os.environ["PATH"] = "/nowhere"
answers |= {"none": refused(), "no pasta": refused(way_out="pasta"), "no slirp4netns": refused(way_out="slirp4netns")}
print(json.dumps(answers))
"""

BETWEEN = ["192.0.2.5 192.0.2.6", "2001:db8::5 2001:db8::6"]
FROM_HOST = ["192.0.2.254 192.0.2.5", "2001:db8::fe 2001:db8::5"]


Answers = dict[str, list[str]]


def answers_of(command: list[str], script: str, *arguments: str) -> Answers:
    path = os.pathsep.join(place for place in sys.path if place)
    done = subprocess.run(
        [*command, sys.executable, "-c", script, *arguments],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0
    answers: Answers = json.loads(done.stdout)
    return answers


def host(script: str) -> Answers:
    """Runs a script in a network namespace of its own, which it sees as the host's."""
    return answers_of(["unshare", "-n"], HOST + TALK + script)


def own_addresses() -> list[str]:
    """One that others reach, of IPv4; nothing is sent."""
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return []
        return [probe.getsockname()[0]]


@pytest.fixture(scope="module")
def kinds() -> Answers:
    if os.geteuid() != 0:
        pytest.skip("to have devices takes root")
    return host(KINDS)


# What reaches what, and the option without which a kernel has no devices of the kind.
EXPECTED: dict[str, tuple[list[str], str | None]] = {
    "macvlan": (BETWEEN, None),
    "macvlan of each end": (BETWEEN, None),
    "ipvlan": (BETWEEN, "CONFIG_IPVLAN"),
    "VLAN": (BETWEEN, "CONFIG_VLAN_8021Q"),
    "device": (BETWEEN, None),
    "devices come back": (["far", "lo", "near"], None),
    "routed over veth": (FROM_HOST, None),
    "routed over netkit": (FROM_HOST, "CONFIG_NETKIT"),
}


@pytest.mark.parametrize("kind", EXPECTED)
def test_devices_on_those_of_the_host(kinds: Answers, kind: str) -> None:
    expected, option = EXPECTED[kind]
    if option and kinds[kind][0] == "unsupported":
        assert option in kinds[kind][1]
        pytest.skip(kinds[kind][1])
    assert kinds[kind] == expected


def test_out_by_the_kernel_and_in_by_its_ports() -> None:
    if os.geteuid() != 0:
        pytest.skip("to forward takes root")
    assert host(OUT) == {
        "way out": "kernel",
        # By TCP, by UDP, and who has answered.
        "out": ["192.0.2.254", "192.0.2.254", "192.0.2.1", "2001:db8::fe", "2001:db8::fe", "2001:db8::1"],
        # By two of a row of TCP, by UDP, and who has answered.
        "in": ["192.0.2.1"] * 3 + ["192.0.2.254"] + ["2001:db8::1"] * 3 + ["2001:db8::fe"],
    }


def test_an_ordinary_user_is_led_out_by_a_program() -> None:
    own = own_addresses()
    if os.geteuid() == 0:
        # On a network of its own, with no rights over it.
        own = ["192.0.2.254", "2001:db8::fe"]
        script = f"{HOST}forward()\nimport os, sys\nos.execvp(sys.argv[1], sys.argv[1:])"
        user = ["setpriv", "--reuid=65533", "--regid=65533", "--clear-groups", "--bounding-set=-all"]
        command = ["unshare", "-n", sys.executable, "-c", script, *user]
    elif own:
        command = []
    else:
        pytest.skip("the machine is on no network")
    answers = answers_of(command, TALK + USER, *own)
    assert answers["auto"] == ["pasta", *own, "127.0.0.1"]
    assert answers["slirp4netns"] == ["slirp4netns", own[0], "127.0.0.1"]
    for way, said in (("auto", "pasta"), ("slirp4netns", "slirp4netns")):
        kind, field, text = answers[f"nat {way}"]
        assert (kind, field) == ("unsupported", "ports[0].nat") and said in text
    kind, field, text = answers["kernel"]
    assert (kind, field) == ("permission_denied", "way_out")
    for asked, field, package in (
        ("none", "internal", "passt"),
        ("no pasta", "way_out", "passt"),
        ("no slirp4netns", "way_out", "slirp4netns"),
    ):
        assert answers[asked][:2] == ["unsupported", field] and package in answers[asked][2]
