"""Runs the language-neutral cases of tests/cases through the Python interface.

tests/run: timeout=600 vm=root,delegated parts=2
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ringfence

NAMESPACES = ("mnt", "pid", "net", "ipc", "uts", "user", "cgroup", "time")
CASES = Path(os.environ.get("RINGFENCE_CASES", Path(__file__).parents[1] / "cases"))


def listed() -> list[Any]:
    # In the virtual machine, where all takes ten times as long, root runs what nobody else can.
    of_root = os.environ.get("RINGFENCE_TEST_TIER") == "vm" and os.geteuid() == 0
    delegated = os.environ.get("RINGFENCE_TEST_AS") == "delegated"
    # Rust runs all of them there, and with a delegated group; from Python every third shows that it says the same.
    every = 3 if (os.environ.get("RINGFENCE_TEST_TIER") == "vm" or delegated) and not of_root else 1
    found: list[Any] = []
    number = 0
    for file in sorted(CASES.glob("*.json")):
        for case in json.loads(file.read_text()):
            number += 1
            if ((of_root and case.get("as") != "root") or number % every) and not case.get("everywhere"):
                continue
            if case.get("slow") and delegated:
                continue
            found.append(pytest.param(case, id=f"{file.stem}: {case['name']}"))
    return found


def check_error(case: dict[str, Any], expected: dict[str, Any] | None, error: ringfence.Error) -> None:
    other = case.get("unless")
    if other and (error.kind, error.field) == (other["kind"], other["field"]) and other["has"] in str(error):
        return
    if error.kind in ("unsupported", "permission_denied") and error.field in case.get("needs", []):
        pytest.skip(str(error))
    if expected is None:
        raise error
    assert error.kind == expected.get("kind", error.kind), error
    assert error.field == expected.get("field", error.field), error
    assert error.errno == (getattr(errno, expected["errno"]) if "errno" in expected else error.errno), error
    assert expected.get("has", "") in str(error)


def check_result(expect: dict[str, Any], result: Any) -> None:
    seen = (
        f"returncode {result.returncode}, reason {result.reason}\nstdout: {result.stdout!r}\nstderr: {result.stderr!r}"
    )
    assert "error" not in expect, f"an error was expected\n{seen}"
    assert result.returncode == (-expect["signal"] if "signal" in expect else expect.get("code", 0)), seen
    assert result.reason == expect.get("reason", result.reason), seen
    for name, text in (("stdout", result.stdout or ""), ("stderr", result.stderr or "")):
        assert text == expect.get(name, text), seen
        assert re.search(expect.get(f"{name}_matches", ""), text), seen
    for text in expect.get("stdout_has", []):
        assert text in result.stdout, seen
    for text in expect.get("stdout_lacks", []):
        assert text not in result.stdout, seen
    for text in expect.get("stderr_has", []):
        assert text in result.stderr, seen
    check_usage(expect, result)


def check_usage(expect: dict[str, Any], result: Any) -> None:
    if "usage" not in expect:
        return
    usage = result.usage() if isinstance(result, ringfence.Container) else result.usage
    for key, bounds in expect["usage"].items():
        figure = usage.get(key)
        assert figure is not None, key
        assert bounds.get("min", 0) <= figure <= bounds.get("max", figure), f"{key}: {figure}"


def update(case: dict[str, Any], container: ringfence.Container, step: dict[str, Any]) -> None:
    """A step that changes the running container."""
    try:
        container.update(**step["update"])
    except ringfence.Error as error:
        check_error(case, step["expect"].get("error"), error)
    else:
        assert "error" not in step["expect"], "an error was expected"
        check_usage(step["expect"], container)


def wait_for(case: dict[str, Any], container: ringfence.Container, step: dict[str, Any]) -> None:
    """A step that waits until the container is ready."""
    expected = step["expect"].get("error")
    try:
        container.wait_for(**step["wait_for"], timeout=step.get("timeout", 30))
    except ringfence.Error as error:
        check_error(case, expected, error)
        for text in (expected or {}).get("log_has", []):
            assert text in (error.log_tail or ""), error.log_tail
    else:
        assert not expected, "an error was expected"


def silent(_: object) -> str:
    """Counts of files and bytes are not compared."""
    return ""


def one_call(container: ringfence.Container, step: dict[str, Any], capture: dict[str, Any]) -> Callable[[], str] | None:
    """What a step does that is one call, which tells a text or nothing; None for a command."""
    if "logs" in step:
        return lambda: container.logs(**step["logs"])
    if "read" in step:
        return lambda: container.read_text(step["read"])
    if "write" in step:
        mode = int(step["mode"], 8) if "mode" in step else None
        return lambda: silent(container.write_bytes(step["write"], step["text"].encode(), mode=mode))
    if "copy_in" in step:
        return lambda: silent(container.copy_in(*step["copy_in"], timeout=capture["timeout"]))
    if "copy_out" in step:
        return lambda: silent(container.copy_out(*step["copy_out"], timeout=capture["timeout"]))
    if "connect" in step:
        return lambda: asked(container.port(step["connect"]), step["input"])
    if "processes" in step:
        return lambda: "".join(
            f"{p.pid_inside} {'-' if p.parent_inside is None else p.parent_inside} {p.name}\n"
            for p in container.processes()
        )
    return None


def asked(port: int, question: str) -> str:
    """What a service at this port of the host answers, to the end."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as service:
        service.sendall(question.encode())
        service.shutdown(socket.SHUT_WR)
        return service.makefile().read()


def told(case: dict[str, Any], step: dict[str, Any], call: Callable[[], str]) -> None:
    """A step that tells a text: nothing, if nothing is said."""
    try:
        text = call()
    except ringfence.Error as error:
        check_error(case, step["expect"].get("error"), error)
    else:
        assert "error" not in step["expect"], "an error was expected"
        assert text == step["expect"].get("stdout", "")


def shape(network: ringfence.Network, container: ringfence.Container, step: dict[str, Any]) -> None:
    """A step that gives a container's link a rate, a delay, losses."""
    try:
        network.shape(container, **step["shape"], direction=step.get("direction", "both"))
    except ringfence.Error as error:
        if error.kind == "unsupported":
            pytest.skip(str(error))
        check_error(step, step["expect"].get("error"), error)
    else:
        assert "error" not in step["expect"], "an error was expected"


@contextlib.contextmanager
def set_up(name: str | None) -> Iterator[dict[str, str]]:
    """Has tests/lib/machine.py make what the case needs of the machine."""
    if not name:
        yield {}
        return
    command = [sys.executable, str(CASES.parent / "lib" / "machine.py"), name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout
        lines = iter(lambda: program.stdout.readline().rstrip("\n"), "")
        values = dict(line.split(" ", 1) for line in lines)
        if "SKIP" in values:
            pytest.skip(values["SKIP"])
        yield values
    # It has undone it when its stdin ended.
    assert program.returncode == 0


def start_rival(
    stack: contextlib.ExitStack, given: dict[str, Any]
) -> list[ringfence.Container | ringfence.ControlGroup]:
    """Starts a rival, or those which are groups inside of one."""
    if "groups" not in given:
        return [stack.enter_context(ringfence.Container(**given))]
    container = stack.enter_context(ringfence.Container(**given["spec"]))
    made: list[ringfence.Container | ringfence.ControlGroup] = []
    for number, one in enumerate(given["groups"]):
        group = container.group(f"g{number}", **one["limits"])
        process = group.popen(one["argv"], stdin=ringfence.DEVNULL)
        stack.callback(process.wait)
        stack.callback(process.kill)
        made.append(group)
    return made


def rivals(case: dict[str, Any]) -> None:
    """Containers that want the same, a processor if nothing else is said: the share that each gets."""
    deadline = time.monotonic() + case["timeout"]
    expect = case["expect"]
    figure, amount = expect.get("of", "cpu_usage_usec"), int(expect.get("amount", 1_250_000))
    with contextlib.ExitStack() as stack:
        try:
            everyone = [rival for given in case["rivals"] for rival in start_rival(stack, given)]
        except ringfence.Error as error:
            check_error(case, None, error)

        def used(done: Callable[[list[int]], bool]) -> list[int]:
            while not done(now := [rival.usage().get(figure) or 0 for rival in everyone]):
                assert time.monotonic() < deadline, now
                time.sleep(0.01)
            return now

        wanted = expect["shares"]
        # The first turns are not like the later ones: each has had its share of as much before it is measured.
        before = used(lambda now: all(had >= amount * share / 100 for had, share in zip(now, wanted, strict=True)))
        after = used(lambda now: sum(now) >= sum(before) + amount)
    gained = [a - b for a, b in zip(after, before, strict=True)]
    for one, share in zip(gained, wanted, strict=True):
        assert abs(100 * one / sum(gained) - share) <= expect.get("within", share / 10), gained


def disk_of_programs() -> str:
    """The number of the disk that has the host's programs; empty where none has."""
    device = os.stat("/usr/bin").st_dev
    part = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    if not part.exists():
        return ""
    return ((part.resolve().parent if (part / "partition").exists() else part) / "dev").read_text().strip()


def filled_in(case: dict[str, Any], tmp: Path, values: dict[str, str]) -> dict[str, Any]:
    """Makes the files of the case, and replaces what stands for this machine's own."""
    text = json.dumps(case).replace("${TMP}", str(tmp))
    for kind in NAMESPACES:
        text = text.replace(f"${{NS_{kind}}}", os.readlink(f"/proc/self/ns/{kind}"))
    for key, value in values.items():
        text = text.replace(f"${{{key}}}", value)
    text = text.replace("${ID}", str(os.getpid()))
    text = text.replace("${CASES}", str(CASES)).replace("${FUSE}", os.environ.get("RINGFENCE_TEST_FUSE", "/dev/fuse"))
    disk = disk_of_programs()
    if "${USR_DISK}" in text and not disk:
        pytest.skip("/usr is on no disk of its own")
    text = text.replace("${USR_DISK}", disk)
    disks = sorted(Path("/sys/block").glob("*/dev"))
    filled: dict[str, Any] = json.loads(text.replace("${DISK}", disks[0].read_text().strip() if disks else ""))
    for name, content in filled.get("tmp", {}).items():
        path = tmp / name
        if content is None:
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
    return filled


@pytest.mark.parametrize("case", listed())
def test_case(case: dict[str, Any], tmp_path: Path) -> None:
    # Other users must come through to it: what is mounted from there belongs to users of the container.
    tmp_path.chmod(0o755)
    if case.get("as") and (case["as"] == "root") != (os.geteuid() == 0):
        pytest.skip(f"only as {case['as']}")
    with set_up(case.get("setup")) as values:
        case = filled_in(case, tmp_path, values)
        run(case)
    for name, content in case.get("expect", {}).get("files", {}).items():
        assert (tmp_path / name).read_text() == content


def of_text(value: Any) -> Any:
    """What a caller of Python writes for the text that C takes: numbers, and a mapping for `K=V`."""
    if not isinstance(value, str):
        return value
    name, equals, rest = value.partition("=")
    if equals:
        return {name: of_text(rest)}
    if re.fullmatch("0[0-7]+", value):
        return int(value, 8)
    return int(value) if re.fullmatch("-?[0-9]+", value) else value


def run(case: dict[str, Any]) -> None:
    for program in case.get("programs", []):
        if not shutil.which(program):
            pytest.skip(f"no {program} here")
    if "rivals" in case:
        rivals(case)
        return
    capture: dict[str, Any] = {"text": True, "timeout": case.get("timeout", 30)}
    if "pod" in case:
        in_pod(case, capture)
        return
    if "group" in case:
        in_group(case, capture)
        return
    with contextlib.ExitStack() as stack:
        for name in case.get("volumes", []):
            stack.callback(ringfence.remove_volume, name)
        networks = []
        try:
            for options in case.get("networks", []):
                networks.append(stack.enter_context(ringfence.Network(**options)))
        except ringfence.Error as error:
            check_error(case, case.get("expect", {}).get("error"), error)
            return
        in_place(case, capture, networks)


def in_place(case: dict[str, Any], capture: dict[str, Any], networks: list[ringfence.Network]) -> None:
    """One container, and perhaps another beside it."""
    fields = dict(case["spec"])
    if "commands" not in case:
        argv = fields.pop("argv", [])
        capture |= {name: ringfence.PIPE for name in ("stdout", "stderr") if name not in fields}
        if "input" in case:
            fields["input"] = case["input"]
        elif "stdin" not in fields:
            fields["stdin"] = ringfence.DEVNULL
        try:
            result = ringfence.run(argv, **fields, **capture)
        except ringfence.Error as error:
            check_error(case, case["expect"].get("error"), error)
        except subprocess.TimeoutExpired:
            assert case["expect"].get("error") == {"kind": "timed_out"}
        else:
            check_result(case["expect"], result)
        return
    with contextlib.ExitStack() as stack:
        try:
            container = stack.enter_context(ringfence.Container(**fields))
            if "neighbour" in case:
                neighbour = stack.enter_context(ringfence.Container(**case["neighbour"]))
        except ringfence.Error as error:
            check_error(case, case.get("expect", {}).get("error"), error)
            return
        for step in case["commands"]:
            one = neighbour if step.get("in") == "neighbour" else container
            if "update" in step:
                update(case, one, step)
                continue
            if "wait_for" in step:
                wait_for(case, one, step)
                continue
            if "shape" in step:
                shape(networks[0], one, step)
                continue
            call = one_call(one, step, capture)
            if call:
                told(case, step, call)
                continue
            command(case, one, step, capture)


def in_pod(case: dict[str, Any], capture: dict[str, Any]) -> None:
    """Containers that share namespaces."""
    shared = {"share": case["share"]} if "share" in case else {}
    with contextlib.ExitStack() as stack:
        try:
            pod = stack.enter_context(ringfence.Pod(**shared, **case["pod"]))
            containers = [pod.container(**spec) for spec in case["containers"]]
        except ringfence.Error as error:
            check_error(case, case.get("expect", {}).get("error"), error)
            return
        assert "error" not in case.get("expect", {}), "an error was expected"
        for step in case["commands"]:
            command(case, containers[step.get("in", 0)], step, capture)


def in_group(case: dict[str, Any], capture: dict[str, Any]) -> None:
    """Containers that need each other."""
    try:
        group = ringfence.Group(case["group"])
        group.start(capture["timeout"])
    except ringfence.Error as error:
        check_error(case, case.get("expect", {}).get("error"), error)
        return
    with group:
        assert "error" not in case["expect"], "an error was expected"
        assert group.order() == case["expect"].get("order", group.order())
        for step in case["commands"]:
            command(case, group[step["in"]], step, capture)


def command(
    case: dict[str, Any], container: ringfence.Container, step: dict[str, Any], capture: dict[str, Any]
) -> None:
    options = {key: of_text(value) for key, value in step.get("set", {}).items()}
    options |= {"stdout": ringfence.PIPE, "stderr": ringfence.PIPE}
    if "input" in step:
        options["input"] = step["input"]
    else:
        options["stdin"] = ringfence.DEVNULL
    try:
        result = container.run(step["argv"], **options, **capture)
    except ringfence.Error as error:
        check_error(case, step["expect"].get("error"), error)
    else:
        check_result(step["expect"], result)
