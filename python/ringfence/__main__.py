"""`python -m ringfence`: the same containers for people at a shell."""

from __future__ import annotations

import argparse
import errno
import json
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from types import FrameType
from typing import Any, Literal, NoReturn

from . import (
    Container,
    Error,
    Process,
    SpecError,
    __version__,
    _completion,
    _files,
    _host,
    _machine,
    _manage,
    _request,
    _ringfence,
    _table,
    _terminal,
    _top,
    _tree,
)
from ._files import CopyProgress
from ._logs import options_of as _logs_of
from ._namespace import KINDS
from ._process import TextOptions
from ._types import Plan, Request

PROG = "python -m ringfence"

#: As a shell and `env` do: the command was not found, could not be executed; 125: it is not the command that failed.
NOT_FOUND, NOT_EXECUTABLE, OURS = 127, 126, 125


_NO_IMAGES = "there are no images; run --rootfs takes a directory that holds an unpacked one"

#: What docker's command line has beside, and what there is for it.
_ELSEWHERE = {
    "build": _NO_IMAGES,
    "commit": _NO_IMAGES,
    "help": "COMMAND --help tells of one, --help of all",
    "image": _NO_IMAGES,
    "images": _NO_IMAGES,
    "info": "doctor tells of this machine",
    "pause": "programs freeze and thaw containers, as by Container.freeze",
    "port": "inspect tells the ports",
    "pull": _NO_IMAGES,
    "restart": "a container that ended is not started again; run starts a new one",
    "start": "a container that ended is not started again; run starts a new one",
    "system": "gc removes what killed programs left, doctor tells of this machine",
    "unpause": "programs freeze and thaw containers, as by Container.thaw",
    "update": "programs change limits, as by Container.update",
    "version": "it is --version",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        unknown = re.match("argument COMMAND: invalid choice: '([a-z]*)'", message)
        if unknown and unknown[1] in _ELSEWHERE:
            message = f"there is no {unknown[1]}: {_ELSEWHERE[unknown[1]]}"
        self.exit(OURS, f"ringfence: {message}\n")


class _Help(argparse.HelpFormatter):
    """The description is filled, the examples stay as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith("examples:"):
            return "".join(indent + line for line in text.splitlines(keepends=True))
        return super()._fill_text(text, width, indent)


_EXAMPLES = {
    "run": """\
  run -it bash                              a shell, with nothing of the home directory
  run -m 256M -c 0.5 -p 64 make test        with limits
  run --share-cwd python3 test.py           this directory read-only, and started there
  run -v data:/data:rw -w /data ./convert   a directory to write to
  run -P 8000:80 python3 -m http.server 80  reachable at port 8000 of this machine
  run -d --name db postgres -D /tmp/db      left running; see ls, logs, exec, stop, rm""",
    "exec": """\
  exec -it db sh                a shell beside the main process
  exec -e PGUSER=me db psql     with a variable""",
    "stop": "  stop --timeout 2 db web       SIGTERM, and SIGKILL after two seconds",
    "kill": "  kill -s HUP db                a signal to the main process",
    "rm": "  rm -f db                      also one that runs",
    "inspect": "  inspect db | jq '.[0].spec'   the fields that it was started with",
    "completion": """\
  source <(ringfence completion bash)        in ~/.bashrc; zsh: the same in ~/.zshrc
  ringfence completion fish | source         in ~/.config/fish/config.fish""",
}


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=PROG,
        description="Run programs in Linux containers.",
        epilog="Exit status: the command's own, 128+N when signal N ended it, 127 when it was not found, 126 when it could "
        "not be executed, 125 when ringfence failed.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"ringfence {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, help: str, description: str | None = None) -> argparse.ArgumentParser:
        examples = _EXAMPLES.get(name)
        return commands.add_parser(
            name,
            help=help,
            description=description or help,
            epilog=f"examples:\n{examples}" if examples else None,
            formatter_class=_Help if examples else argparse.HelpFormatter,
            allow_abbrev=False,
        )

    run = command(
        "run",
        "run a command in a new container",
        "Run a command in a new container, which ends with it. The root file system is the machine's own, read-only below "
        "a private layer, unless --rootfs says otherwise.",
    )
    _streams(run)
    run.add_argument("-d", "--detach", action="store_true", help="leave it running; needs --name")
    run.add_argument("--rm", action="store_true", help="forget it at its end (always so without -d; then not possible)")
    run.add_argument("--timeout", type=_duration, metavar="SECONDS", help="kill it after so long (exit status 124)")
    run.add_argument("--usage", action="store_true", help="print what it used to standard error at the end")
    _spec(run)

    exec_ = command("exec", "run a command in a running container")
    _streams(exec_)
    _process(exec_)
    exec_.add_argument("container", metavar="NAME", help="the name of the container")
    exec_.add_argument("argv", nargs=argparse.REMAINDER, metavar="COMMAND ...", help="the command and its arguments")

    ls = command("ls", "list the named containers, running and ended")
    ls.add_argument("-q", "--quiet", action="store_true", help="only their names")
    _json(ls)
    top = command(
        "top",
        "watch what the running containers use",
        "A live table of the running containers: processors, memory and tasks with bars, what they read, write, send and receive "
        "in a second, and how much of the last 10 seconds something in them waited for a processor, for memory or for a device. "
        "Keys sort it; q quits. Without a terminal it is printed once.",
    )
    top.add_argument("--once", action="store_const", const=1, dest="count", help="print it once")
    top.add_argument("-n", type=_positive, dest="count", metavar="N", help="print it so often")
    top.add_argument("--sort", choices=(*_top.SORTS, "name"), default="cpu", help="default: cpu")
    top.add_argument("-r", "--reverse", action="store_true", help="the smallest first")
    _interval(top, 2.0)
    stats = command("stats", "show what containers use", "What containers use now, and what they do in a second.")
    stats.add_argument("container", nargs="*", metavar="NAME", help="default: all that run")
    stats.add_argument("--stream", action="store_true", help="again and again, until interrupted")
    _interval(stats, 1.0)
    _json(stats)
    beancounters = command(
        "beancounters",
        "show OpenVZ's table of resources",
        "What /proc/user_beancounters has on OpenVZ, as this kernel counts it: what is held, the most that was held, soft and "
        "hard limits, how often they were met. A dash: there is no such figure, or no such limit.",
    )
    beancounters.add_argument("container", metavar="NAME")
    beancounters.add_argument("-v", "--verbose", action="store_true", help="with where each figure comes from")
    _json(beancounters)
    ps = command("ps", "list the processes of a named container, with their numbers inside and outside")
    ps.add_argument("container", metavar="NAME")
    _json(ps)
    ns = command(
        "ns",
        "list the namespaces of the machine as a tree",
        "The namespaces of the machine that this user may see, each below the user namespace that owns it, also those without "
        "a process: then it is said what keeps them.",
    )
    ns.add_argument("-k", "--kind", action="append", choices=KINDS, help="only these; may be repeated")
    ns.add_argument("--tree", choices=("owner", "parent", "none"), default="owner", help="default: owner")
    _json(ns)
    plan = command("plan", "show what run would do, step by step, without doing it")
    plan.add_argument("-t", "--tty", action="store_true", help="with a terminal")
    plan.add_argument("-d", "--detach", action="store_true", help="detached")
    _json(plan)
    _spec(plan)
    _json(command("doctor", "show what this machine and this user can do, why not, and the remedy"))
    _json(command("gc", "end and remove what killed programs left behind"))

    cp = command(
        "cp",
        "copy files into a container, or out of it",
        "Copy a file or a tree between this machine and a named container. One of the two is NAME:PATH. As cp -a: into TARGET, if "
        "that is a directory, else under that name; SOURCE/. stands for what is in it. Permissions, times, links and holes come "
        "along; links are not followed.",
    )
    cp.add_argument("source", metavar="SOURCE", help="a path, or NAME:PATH")
    cp.add_argument("target", metavar="TARGET", help="NAME:PATH, or a path")
    cp.add_argument("-o", "--owner", metavar="USER[:GROUP]", help="of what is copied in: by id or name, inside")
    cp.add_argument("--skip-special", action="store_true", help="leave out devices, sockets and FIFOs")
    cp.add_argument("-q", "--quiet", action="store_true", help="do not say how far it is")
    volumes = command("volumes", "list the named volumes")
    volumes.add_argument("-q", "--quiet", action="store_true", help="only their names")
    _json(volumes)
    volume = command(
        "volume", "remove a named volume", "Remove named volumes with all that is in them: volume rm NAME ..."
    )
    volume.add_argument("action", choices=("rm",))
    volume.add_argument("volume", nargs="+", metavar="NAME")
    stop = command("stop", "end detached containers: their stop_signal, then SIGKILL")
    stop.add_argument(
        "--timeout", type=_duration, metavar="SECONDS", help="grace before SIGKILL (default: stop_timeout)"
    )
    stop.add_argument("container", nargs="+", metavar="NAME")
    kill = command("kill", "signal the main processes of detached containers")
    kill.add_argument("-s", "--signal", default="KILL", metavar="SIGNAL", help="by name or number (default: KILL)")
    kill.add_argument("container", nargs="+", metavar="NAME")
    rm = command("rm", "forget ended detached containers: their records and logs")
    rm.add_argument("-f", "--force", action="store_true", help="kill those that run")
    rm.add_argument("container", nargs="+", metavar="NAME")
    inspect = command("inspect", "print what is known of containers, as JSON")
    inspect.add_argument("container", nargs="+", metavar="NAME")
    completion = command(
        "completion",
        "print a script that completes commands, options and names in a shell",
        "Print a script for a shell that completes commands, options and names of containers after the word ringfence. (Where it is "
        "installed without that command, let it be an alias of python -m ringfence.)",
    )
    completion.add_argument("shell", choices=_completion.SHELLS)
    logs = command("logs", "print what a container's main process has written")
    logs.add_argument("-f", "--follow", action="store_true", help="and what it writes, until the container has ended")
    logs.add_argument("--tail", type=_not_negative, metavar="N", help="only the last N lines")
    logs.add_argument("--since", type=_not_negative, default=0, metavar="POSITION", help="from this byte on")
    logs.add_argument("container", metavar="NAME")
    return parser


def _not_negative(text: str) -> int:
    number = _whole(text)
    if number < 0:
        raise argparse.ArgumentTypeError("0 or more is expected")
    return number


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a whole number is expected, not {text!r}") from None


def _positive(text: str) -> int:
    number = _whole(text)
    if number < 1:
        raise argparse.ArgumentTypeError("1 or more is expected")
    return number


def _duration(text: str) -> float:
    """Seconds, or text as the vocabulary has it."""
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return _host.seconds(text) or 0.0
    except SpecError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("timeout: ")) from None


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"seconds are expected, not {text!r}") from None
    if not 0.1 <= seconds <= 86400:
        raise argparse.ArgumentTypeError("0.1 to 86400 seconds are expected")
    return seconds


def _interval(parser: argparse.ArgumentParser, default: float) -> None:
    parser.add_argument(
        "--interval",
        type=_seconds,
        default=default,
        metavar="SECONDS",
        help=f"between two looks (default: {default:g})",
    )


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs")


def _streams(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-t", "--tty", action="store_true", help="give it a terminal of its own, connected to this one")
    parser.add_argument(
        "-i", "--interactive", action="store_true", help="connect standard input (always so; accepted for habit's sake)"
    )


def _process(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-e",
        "--env",
        action="append",
        default=[],
        metavar="NAME[=VALUE]",
        help="set a variable; without a value, pass this shell's through",
    )
    parser.add_argument("-w", "--cwd", metavar="DIR", help="directory to start in, inside")
    parser.add_argument("-u", "--user", metavar="USER[:GROUP]", help="by name or id, inside (default 0:0)")


def _spec(parser: argparse.ArgumentParser) -> None:
    _process(parser)
    parser.add_argument("--name", help="name to find it by")
    parser.add_argument("--hostname")
    parser.add_argument("-m", "--memory", metavar="SIZE", help="limit: bytes, or with K, M, G, T")
    parser.add_argument("-c", "--cpus", metavar="N", help="limit: cores, such as 0.5")
    parser.add_argument("-p", "--pids", metavar="N", help="limit: processes and threads")
    parser.add_argument("--disk", metavar="SIZE", help="limit: the writable layer")
    parser.add_argument(
        "-v", "--mount", action="append", default=[], metavar="SOURCE[:TARGET][:rw]", help="read-only unless rw"
    )
    parser.add_argument(
        "-P",
        "--publish",
        action="append",
        default=[],
        metavar="[[ADDRESS:]HOST:]PORT[/udp]",
        help="a port of the container at one of this machine: of 127.0.0.1, a free one, unless given",
    )
    parser.add_argument("--rootfs", metavar="DIR", help="host (default), host:owned, or a directory")
    parser.add_argument("--net", choices=("loopback", "none", "host"), help="default: loopback")
    parser.add_argument("--share-cwd", action="store_true", help="mount this directory read-only, and start there")
    parser.add_argument(
        "--spec", metavar="FILE", help="fields from a JSON file (- is standard input); options override"
    )
    parser.add_argument(
        "-s", "--set", action="append", default=[], metavar="FIELD=VALUE", help="any other field; lists get one element"
    )
    parser.add_argument("argv", nargs=argparse.REMAINDER, metavar="COMMAND ...", help="the command and its arguments")


def _argv(arguments: argparse.Namespace) -> list[str] | None:
    argv: list[str] = arguments.argv
    if argv and argv[0] == "--":
        argv = argv[1:]
    return argv or None


def _environment(arguments: argparse.Namespace) -> dict[str, str | None]:
    env: dict[str, str | None] = {}
    if arguments.tty and "TERM" in os.environ:
        env["TERM"] = os.environ["TERM"]
    for entry in arguments.env:
        name, equals, value = entry.partition("=")
        if equals:
            env[name] = value
        elif name in os.environ:
            env[name] = os.environ[name]
    return env


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    return {"env": _environment(arguments), "cwd": arguments.cwd, "user": arguments.user}


def _terminal_of(arguments: argparse.Namespace) -> tuple[int, int]:
    """The size of its terminal. A shell that is told of one, and has nobody at it, would wait for ever for what to do."""
    if getattr(arguments, "interactive", False) and not os.isatty(0):
        raise SpecError("--tty: standard input is no terminal; leave -t out", kind="invalid_argument", field="terminal")
    return _terminal.size(0)


def _spec_request(arguments: argparse.Namespace, needs_command: bool = False) -> Request:
    base: dict[str, Any] = {}
    if arguments.spec:
        with open(
            0 if arguments.spec == "-" else arguments.spec, encoding="utf-8", closefd=arguments.spec != "-"
        ) as file:
            base = json.load(file)
        if not isinstance(base, dict):
            raise SpecError(f"{arguments.spec}: an object is expected", kind="invalid_spec")
    fields: dict[str, Any] = {
        name: getattr(arguments, name)
        for name in ("name", "hostname", "rootfs", "net")
        if getattr(arguments, name) is not None
    }
    if arguments.mount:
        fields["mounts"] = [*base.pop("mounts", []), *arguments.mount]
    if arguments.share_cwd:
        fields["share_cwd"] = True
    if arguments.tty:
        fields["terminal"] = _terminal_of(arguments)
    options = _options(arguments) | {"detach": arguments.detach, "base": base}
    # Text, under the rules that text has in C: "0.5" is a number of cores.
    options["set"] = [
        (name, os.fsencode(value))
        for name in ("memory", "cpus", "pids", "disk")
        if (value := getattr(arguments, name)) is not None
    ]
    options["set"] += [("ports", os.fsencode(port)) for port in arguments.publish]
    for entry in arguments.set:
        field, equals, value = entry.partition("=")
        if not equals:
            raise SpecError(f"--set {entry}: FIELD=VALUE is expected", kind="invalid_argument")
        options["set"].append((field, os.fsencode(value)))
    argv = _argv(arguments)
    has_main = bool(argv or base.get("argv")) or any(field == "argv" for field, _ in options["set"])
    if needs_command and not has_main:
        raise SpecError("a command is needed, or --detach", kind="invalid_argument", field="argv")
    stream = "inherit" if has_main and not arguments.tty and not arguments.detach else None
    return _request.spec_request(argv, (stream, stream, stream), options, fields, has_main=has_main)


def _run(arguments: argparse.Namespace) -> int:
    request = _spec_request(arguments, needs_command=not arguments.detach)
    if arguments.rm and arguments.detach:
        raise SpecError("--rm: what is left running is forgotten by rm or gc", kind="invalid_argument")
    container = Container.__new__(Container)
    container._closed = True
    with _held_back():
        request["unanswered"] = True
        container._take(_ringfence.Container.start(request), _argv(arguments), TextOptions())
        if arguments.detach:
            print(container.name or container.id)
            return 0
        with container:
            process = container.main
            assert process is not None
            if arguments.timeout is not None:
                signal.signal(signal.SIGALRM, lambda *_: _expire(container, arguments.timeout))
                signal.setitimer(signal.ITIMER_REAL, max(arguments.timeout, 1e-6))
            status = _follow(process, container)
            signal.setitimer(signal.ITIMER_REAL, 0)
            if arguments.usage:
                for name, value in asdict(container.usage()).items():
                    if value is not None:
                        print(f"{name} {value}", file=sys.stderr)
            if process.reason == "out_of_memory":
                print("ringfence: the container ran out of memory", file=sys.stderr)
    return 124 if _expired else status


#: What is passed on to the command.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@contextmanager
def _held_back() -> Iterator[None]:
    """No signal that is for the command ends this program before it can be passed on: `_follow` lets them come."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_expired = False


def _expire(container: Container, seconds: float) -> None:
    global _expired
    _expired = True
    print(f"ringfence: not ended after {seconds:g} s", file=sys.stderr)
    container.kill()


def _exec(arguments: argparse.Namespace) -> int:
    argv = _argv(arguments)
    if argv is None:
        raise SpecError("a command is needed", kind="invalid_argument", field="argv")
    container = Container.by_name(arguments.container)
    fields: dict[str, Any] = {"terminal": _terminal_of(arguments)} if arguments.tty else {}
    stream = None if arguments.tty else "inherit"
    with _held_back():
        process = container.popen(argv, stdin=stream, stdout=stream, stderr=stream, **_options(arguments), **fields)
        return _follow(process)


def _suspender(process: Process[Any], container: Container | None) -> Callable[[int, FrameType | None], None]:
    """Ctrl-Z: this program stops as any does, and what it stands for with it, until it is continued."""

    def suspend(number: int, _: FrameType | None) -> None:
        frozen = False
        if container is not None:
            try:
                container.freeze()
                frozen = True
            except Error:
                # Without a control group, the main process alone.
                pass
        if not frozen:
            process.send_signal(signal.SIGSTOP)
        signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
        os.kill(os.getpid(), number)
        signal.signal(number, suspend)
        if frozen and container is not None:
            container.thaw()
        else:
            process.send_signal(signal.SIGCONT)

    return suspend


def _follow(process: Process[Any], container: Container | None = None) -> int:
    """Waits for the process with this terminal lent to it, or with the signals of this one passed on.

    `container`: it is this program's own.
    """
    if process.terminal_fd is not None:
        code = _terminal.interact(process)
    else:
        pressed: list[float] = []

        def forward(number: int, _: FrameType | None) -> None:
            pressed.append(time.monotonic())
            # Somebody who insists gets the end, whatever the program does with its signals.
            impatient = len(pressed) >= 3 and pressed[-1] - pressed[-3] < 2
            process.send_signal(signal.SIGKILL if impatient else number)

        table: dict[int, Callable[[int, FrameType | None], None]] = dict.fromkeys(_SIGNALS, forward)
        if signal.getsignal(signal.SIGTSTP) == signal.SIG_DFL:
            table[signal.SIGTSTP] = _suspender(process, container)
        with _terminal.handlers(table):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            code = process.wait()
    return 128 - code if code < 0 else code


def _ls(arguments: argparse.Namespace) -> int:
    entries = _machine.ls()
    if arguments.json:
        print(json.dumps([asdict(entry) for entry in entries], indent=2))
        return 0
    if arguments.quiet:
        print("".join(f"{entry.name}\n" for entry in entries), end="")
        return 0
    styles = {"running": "green", "lost": "red"}
    rows = [
        [
            (entry.name, ""),
            (
                entry.state if entry.exit_code is None else f"{entry.state} ({entry.exit_code})",
                styles.get(entry.state, "dim"),
            ),
            (str(entry.pid or "-"), ""),
            (_age(time.time() - entry.created), ""),
            (" ".join(entry.command), "dim"),
        ]
        for entry in entries
    ]
    _table.show(("NAME", "STATE", "PID", "AGE", "COMMAND"), rows)
    return 0


def _ps(arguments: argparse.Namespace) -> int:
    with Container.by_name(arguments.container) as container:
        entries = container.processes()
    if arguments.json:
        print(json.dumps([asdict(entry) for entry in entries], indent=2))
        return 0
    rows = [
        [
            (str(entry.pid_inside), ""),
            (str(entry.pid), "dim"),
            (str(entry.uid), ""),
            (entry.state, {"R": "green", "D": "red", "Z": "red"}.get(entry.state, "")),
            (_top.size(entry.memory), ""),
            (f"{entry.cpu_usec / 1e6:.2f}", ""),
            (shlex.join(entry.argv) or f"[{entry.name}]", ""),
        ]
        for entry in entries
    ]
    _table.show(("PID", "OUTSIDE", "UID", "STATE", "MEMORY", "CPU", "COMMAND"), rows)
    return 0


def _show_top(arguments: argparse.Namespace) -> int:
    watch = _top.Watch()
    try:
        return _top.Top(watch, arguments.interval, arguments.count, arguments.sort, arguments.reverse).run()
    finally:
        watch.close()


def _stats(arguments: argparse.Namespace) -> int:
    watch = _top.Watch(arguments.container)
    try:
        return _top.stats(watch, arguments.interval, arguments.stream, arguments.json)
    finally:
        watch.close()


def _beancounters(arguments: argparse.Namespace) -> int:
    with Container.by_name(arguments.container) as container:
        counters = container.beancounters()
    if arguments.json:
        print(json.dumps([asdict(counter) for counter in counters], indent=2))
        return 0
    figures = ("held", "maxheld", "barrier", "limit", "failcnt")
    texts = [["-" if (n := getattr(c, name)) is None else str(n) for name in figures] for c in counters]
    widths = [max(map(len, column)) for column in zip(figures, *texts, strict=True)]
    rows = [
        [
            (counter.resource, ""),
            *((text.rjust(width), "dim" if text == "-" else "") for text, width in zip(line, widths, strict=True)),
            (counter.unit, "dim"),
            (counter.source if arguments.verbose or counter.source.startswith("none: ") else "", "dim"),
        ]
        for counter, line in zip(counters, texts, strict=True)
    ]
    headers = [name.upper().rjust(width) for name, width in zip(figures, widths, strict=True)]
    _table.show(("RESOURCE", *headers, "UNIT", ""), rows)
    return 0


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(max(seconds, 0))}s"


def _ns(arguments: argparse.Namespace) -> int:
    entries = _machine.namespaces()
    if arguments.kind:
        entries = [entry for entry in entries if entry.kind in arguments.kind]
    if arguments.json:
        print(json.dumps([asdict(entry) for entry in entries], indent=2))
    elif arguments.tree == "none":
        _table.show(_tree.HEADERS, [_tree.row(entry) for entry in entries])
    else:
        _table.show(_tree.HEADERS, _tree.rows(entries, arguments.tree))
    return 0


def _plan(arguments: argparse.Namespace) -> int:
    request = _spec_request(arguments)
    text, shown = _ringfence.plan(request)
    data = json.loads(text)
    plan = Plan(data["steps"], data.get("undo", []), text, shown)
    print(plan.json if arguments.json else plan)
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    report = _machine.doctor()
    if arguments.json:
        print(report.json)
    else:
        rows = []
        for finding in report.findings:
            verdict = ("yes", "green") if finding.ok else ("NO", "red") if finding.essential else ("no", "yellow")
            rows.append([verdict, (finding.what, ""), (finding.detail, "dim" if finding.ok else "")])
            if finding.remedy:
                rows.append([("", ""), ("", ""), (f"-> {finding.remedy}", "yellow")])
        _table.show(("", "WHAT", "SEEN"), rows)
    return 0 if report.ok else 1


def _gc(arguments: argparse.Namespace) -> int:
    report = _machine.gc()
    if arguments.json:
        print(json.dumps(asdict(report)))
    else:
        print(f"ended {report.processes} processes, removed {report.cgroups} control groups and {report.files} files")
        for line in report.remaining:
            print(f"remains: {line}")
    return 1 if report.remaining else 0


def _cp(arguments: argparse.Namespace) -> int:
    def split(text: str) -> tuple[str | None, str]:
        name, colon, path = text.partition(":")
        return (name, path) if colon and name and "/" not in name else (None, text)

    (from_name, source), (to_name, target) = split(arguments.source), split(arguments.target)
    name = from_name or to_name
    if name is None or (from_name is not None and to_name is not None):
        raise SpecError("one of source and target is NAME:PATH", kind="invalid_argument")
    if from_name and arguments.owner:
        raise SpecError("what is copied out belongs to the caller", kind="invalid_argument", field="owner")
    special: Literal["refuse", "skip"] = "skip" if arguments.skip_special else "refuse"
    began = time.monotonic()
    tells = sys.stderr.isatty() and not arguments.quiet
    told = 0.0

    def tell(at: CopyProgress) -> None:
        nonlocal told
        now = time.monotonic()
        # What is done at once needs no line.
        if now - began >= 0.5 and now - told >= 0.1:
            told = now
            rate = _top.size(int(at.bytes / (now - began)))
            print(f"\r\x1b[K{at.entries} files, {_top.size(at.bytes)}, {rate}/s", end="", file=sys.stderr, flush=True)

    progress = tell if tells else None
    with Container.by_name(name) as container:
        try:
            if from_name:
                done = container.copy_out(source, target, special=special, progress=progress)
            else:
                done = container.copy_in(source, target, owner=arguments.owner, special=special, progress=progress)
        finally:
            if told:
                print(file=sys.stderr)
    if done.skipped:
        print(f"ringfence: left out {done.skipped} devices, sockets and FIFOs", file=sys.stderr)
    return 0


def _volumes(arguments: argparse.Namespace) -> int:
    found = _files.volumes()
    if arguments.quiet:
        for one in found:
            print(one.name)
        return 0
    if arguments.json:
        print(json.dumps([volume._asdict() for volume in found], indent=2))
        return 0
    rows = [[(v.name, ""), ("in use", "green") if v.in_use else ("", ""), (v.path, "dim")] for v in found]
    _table.show(("NAME", "STATE", "PATH"), rows)
    return 0


def _volume(arguments: argparse.Namespace) -> int:
    for name in arguments.volume:
        _files.remove_volume(name)
    return 0


def _stop(arguments: argparse.Namespace) -> int:
    return _manage.each(arguments.container, lambda name: _stopped(name, arguments.timeout))


def _stopped(name: str, timeout: float | None) -> None:
    Container.by_name(name).stop(timeout)


def _kill(arguments: argparse.Namespace) -> int:
    return _manage.kill(arguments.container, arguments.signal)


def _rm(arguments: argparse.Namespace) -> int:
    return _manage.rm(arguments.container, arguments.force)


def _inspect(arguments: argparse.Namespace) -> int:
    return _manage.inspect(arguments.container)


def _complete(arguments: argparse.Namespace) -> int:
    print(_completion.script(arguments.shell, _parser()), end="")
    return 0


def _logs(arguments: argparse.Namespace) -> int:
    with Container.by_name(arguments.container) as container:
        options = _logs_of(arguments.tail, arguments.since, arguments.follow)
        reader = container._live("logs").logs(options)
        # Bytes, as they were written.
        while (line := reader.next()) is not None:
            sys.stdout.buffer.write(line)
            if arguments.follow:
                sys.stdout.buffer.flush()
        if container.log_is_full:
            sys.stdout.buffer.flush()
            print("ringfence: the log is full (log_max): what was written later is lost", file=sys.stderr)
    return 0


_COMMANDS = {
    "run": _run,
    "exec": _exec,
    "ls": _ls,
    "top": _show_top,
    "stats": _stats,
    "beancounters": _beancounters,
    "ps": _ps,
    "ns": _ns,
    "plan": _plan,
    "doctor": _doctor,
    "gc": _gc,
    "cp": _cp,
    "volumes": _volumes,
    "volume": _volume,
    "stop": _stop,
    "kill": _kill,
    "rm": _rm,
    "inspect": _inspect,
    "completion": _complete,
    "logs": _logs,
}


def exit_status(error: Error) -> int:
    """What a shell would answer for this error."""
    of_program = (error.step or "").startswith("exec") or error.field in ("argv", "argv[0]")
    if not of_program or isinstance(error, SpecError):
        return OURS
    if error.errno == errno.ENOENT:
        return NOT_FOUND
    return (
        NOT_EXECUTABLE
        if error.errno in (errno.EACCES, errno.EPERM, errno.ENOEXEC, errno.EISDIR, errno.ENOTDIR)
        else OURS
    )


def main(arguments: list[str] | None = None) -> int:
    """Runs one command line; its exit status."""
    if sys.stdout is None:
        # It was closed; what is printed goes nowhere.
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8", closefd=False)
    parser = _parser()
    parsed = parser.parse_args(arguments)
    try:
        status = _COMMANDS[parsed.command](parsed)
        sys.stdout.flush()
        return status
    except Error as error:
        print(f"ringfence: {error}", file=sys.stderr)
        return exit_status(error)
    except BrokenPipeError:
        # The reader of a list has seen enough. What is still buffered goes nowhere, or the interpreter would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + signal.SIGPIPE
    except (OSError, ValueError, TypeError) as error:
        print(f"ringfence: {error}", file=sys.stderr)
        return OURS
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _exit() -> NoReturn:
    sys.exit(main())


if __name__ == "__main__":
    _exit()
