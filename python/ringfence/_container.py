"""The handle of a container."""

from __future__ import annotations

import json
import logging
import os
import socket as sockets
import subprocess
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Literal, TypeVar, cast, overload

from . import _call, _enter, _files, _host, _interpreter, _reach, _request, _ringfence
from ._errors import Error, MissingError, forked_child
from ._events import Events, options_of
from ._files import CopyProgress
from ._group import ControlGroup
from ._logs import LogReader, LogStream, LogTarget, sender
from ._logs import options_of as options_of_logs
from ._namespace import ContainerNamespaces, Namespace
from ._process import Process, TextOptions
from ._ready import HttpCheck, LogPattern, PortNumber, conditions_of
from ._syscalls import SyscallListener
from ._types import (
    Address,
    AnyPath,
    Args,
    Beancounter,
    CompletedProcess,
    Env,
    Port,
    Pressure,
    ProcessEntry,
    Seconds,
    Size,
    SpecFields,
    Stream,
    Usage,
)

if TYPE_CHECKING:
    from typing_extensions import ParamSpec, Self, Unpack

    from ._network import Network
    from ._pod import Pod
    from ._types import CommandFields, LimitFields

    _P = ParamSpec("_P")

T = TypeVar("T")


class Container:
    """A running container, started by the constructor as `subprocess.Popen` starts a process.

    With `argv` it ends when that main process ends; without, it lives until it is closed. Used as a context manager, or
    closed with `close()`; an attached container that is forgotten is killed, with a ResourceWarning. When this process
    ends in any way, its attached containers end. `detach=True` (with a `name`) is the opposite: it lives on and is found
    again with `by_name`; leaving its block or closing it only lets go of the handle, `stop` ends it.

    Keyword arguments are the fields of the vocabulary (`SpecFields`) and, for the main process, those of
    `subprocess.Popen`. Its stdin, stdout, stderr are null, log, log unless given. Every method may be called from any
    thread.
    """

    def __init__(
        self,
        argv: Args | None = None,
        *,
        stdin: Stream = None,
        stdout: Stream = None,
        stderr: Stream = None,
        shell: bool = False,
        executable: AnyPath | None = None,
        cwd: AnyPath | None = None,
        env: Env | None = None,
        user: str | int | None = None,
        group: str | int | None = None,
        umask: int = -1,
        pass_fds: Any = (),
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
        bufsize: int = -1,
        detach: bool = False,
        _home: Pod | Network | None = None,
        **fields: Unpack[SpecFields],
    ) -> None:
        text_options = TextOptions(text, None, encoding, errors, bufsize)
        options = {
            "shell": shell,
            "executable": executable,
            "cwd": cwd,
            "env": env,
            "user": user,
            "group": group,
            "umask": umask,
            "pass_fds": pass_fds,
            "detach": detach,
        }
        streams = _request.streams_of(stdin, stdout, stderr)
        self._start(argv, streams, options, dict(fields), text_options, home=_home)

    def _start(
        self,
        args: Args | None,
        streams: _request.Streams,
        options: Mapping[str, Any],
        fields: dict[str, Any],
        text_options: TextOptions,
        owns_container: bool = False,
        home: Pod | Network | None = None,
    ) -> Process[Any] | None:
        # Set first: the finalizer also sees a container that could not be started.
        self._closed = True
        _request.refuse(fields)
        request = _request.spec_request(args, streams, options, fields, owns_container)
        _host.sync_log_level()
        start = home._live("container").container if home else _ringfence.Container.start
        return self._take(start(request), args, text_options, owns_container, home)

    def _take(
        self,
        raw: _ringfence.Container,
        args: Args | None,
        text_options: TextOptions,
        owns_container: bool = False,
        home: Pod | Network | None = None,
    ) -> Process[Any] | None:
        self._raw = raw
        # A pod or a network ends when its object is forgotten: not before this one.
        self._home = home
        self._generation = _host.generation
        self._closed = False
        self._detached = raw.detached
        self._owned = not raw.detached
        main = raw.main()
        if self._owned and home is None:
            _host.attached.add(self)
        process = Process[Any](main, args, self, text_options, owns_container) if main else None
        # The process that owns it refers to it: back only weakly, so that both, with their descriptors, go when they are forgotten
        # and not when cycles are collected.
        self._held = None if owns_container else process
        self._owner = weakref.ref(process) if process and owns_container else None
        self._main_args = args, text_options
        return process

    @property
    def _main(self) -> Process[Any] | None:
        if self._owner is None:
            return self._held
        process = self._owner()
        if process is None:
            # Who was given the container alone. Its pipes went with the process that was forgotten.
            raw = self._raw.main()
            assert raw is not None
            process = Process[Any](raw, self._main_args[0], self, self._main_args[1], True)
            self._owner = weakref.ref(process)
        return process

    @classmethod
    def _launch(
        cls,
        args: Args,
        streams: _request.Streams,
        options: Mapping[str, Any],
        fields: dict[str, Any],
        text_options: TextOptions,
    ) -> Process[Any]:
        """A container for one process, which owns it."""
        self = cls.__new__(cls)
        process = self._start(args, streams, options, fields, text_options, owns_container=True)
        assert process is not None
        return process

    @classmethod
    def by_name(cls, name: str) -> Self:
        """A container by its name: one of this process, or a detached one of this user."""
        _host.sync_log_level()
        raw = _ringfence.Container.by_name(name)
        self = cls.__new__(cls)
        self._closed = True
        self._take(raw, None, TextOptions())
        # Another handle: forgetting it, or leaving its block, ends nothing.
        self._owned = False
        _host.attached.discard(self)
        return self

    def _live(self, call: str) -> _ringfence.Container:
        if self._generation != _host.generation:
            raise forked_child(f"Container.{call}")
        return self._raw

    # --- what it is

    @property
    def name(self) -> str | None:
        """Its name, when the spec had one."""
        return self._live("name").name

    @property
    def id(self) -> str:
        """Unique on this machine while it exists; also the name of its control groups."""
        return self._live("id").id

    @property
    def pid(self) -> int:
        """The pid of its pid 1 in the pid namespace of this program."""
        return self._live("pid").pid

    @property
    def pidfd(self) -> int:
        """A descriptor of its pid 1, borrowed: it lives as long as this object."""
        return self._live("pidfd").pidfd

    @property
    def events_fd(self) -> int:
        """Becomes readable when it has ended and everything is undone; borrowed. It is only to be polled."""
        return self._live("events_fd").events_fd

    @property
    def main(self) -> Process[Any] | None:
        """The main process, when there is an `argv`."""
        return self._main

    @property
    def pod(self) -> Pod | None:
        """The pod that it was started in."""
        from ._pod import Pod

        return self._home if isinstance(self._home, Pod) else None

    @property
    def running(self) -> bool:
        """It has not ended."""
        return not self._closed and self._live("running").running

    @property
    def info(self) -> dict[str, Any]:
        """What was chosen for it, and why not more: idmap, control groups, root file system, namespaces."""
        info: dict[str, Any] = json.loads(self._live("info").info())
        return info

    def port(self, port: int) -> int:
        """The host's port at which `port` of the container is reachable: `socket.create_connection(("127.0.0.1", c.port(5432)))`.

        It was asked for with `ports`; one that was not is an Error of kind `not_found`. Where TCP and UDP are published, that of
        TCP. A connection is accepted before the service is asked: where nobody listens inside yet, it is reset.
        """
        return self._live("port").port(port)

    @property
    def ports(self) -> list[Port]:
        """All published ports, in the order of `ports`, with the ports of the host that they have."""
        return [Port(**port) for port in json.loads(self._live("ports").ports())]

    @property
    def addresses(self) -> list[Address]:
        """Its devices on networks, in the order of `net`: `c.addresses[0].addresses[0]` is its first address."""
        from ._network import addresses_of

        return addresses_of(self._live("addresses").addresses())

    @property
    def namespaces(self) -> Mapping[str, Namespace]:
        """Its namespaces by kind: `c.namespaces["net"].inode`. Each lives on as long as the object that is asked for."""
        self._live("namespaces")
        return ContainerNamespaces(self)

    def processes(self) -> list[ProcessEntry]:
        """Its processes by their numbers inside, those of containers in it as well. Reads all of /proc.

        An error of kind `unsupported` when it has no pid namespace of its own.
        """
        return [ProcessEntry(**entry) for entry in json.loads(self._live("processes").processes())]

    def pidfd_of(self, pid_inside: int) -> int:
        """A pidfd, the caller's to close, of the process with this number inside."""
        return self._live("pidfd_of").pidfd_of(pid_inside)

    def attach_device(self, device: str, inside: str | None = None) -> None:
        """Moves a network device of this thread's network namespace into the container, where it is called `inside`.

        It is up if it was up, and loses its addresses. `detach_device` and the end of the container bring it back under its
        own name, as long as this program lives; otherwise the kernel gives physical devices to the machine's first network
        namespace, under their names inside, and deletes virtual ones. Takes CAP_SYS_ADMIN and CAP_NET_ADMIN here and in the container.
        """
        self._live("attach_device").attach_device(device, inside)

    def detach_device(self, inside: str) -> None:
        """Brings a network device that this handle moved in back to where it was, under its name from there. It is down."""
        self._live("detach_device").detach_device(inside)

    def attach_net(self, net: str | Network | Mapping[str, Any]) -> Address:
        """Gives the container one more device while it runs: one of those that `net` may have, a `Network` or an object for one.

        The name inside is the first of `eth0`, `eth1`, ... that is free. It goes by `detach_net`, or with the container.
        """
        from ._network import addresses_of
        from ._request import net_text

        return addresses_of(f"[{self._live('attach_net').attach_net(net_text(net))}]")[0]

    def detach_net(self, interface: str) -> None:
        """Takes a device from it that `net` or `attach_net` gave it, by its name inside. Its addresses are free then."""
        self._live("detach_net").detach_net(interface)

    def add_device(self, device: AnyPath | Mapping[str, AnyPath]) -> None:
        """Gives it a device of the host while it runs: `c.add_device("/dev/fuse")`, an entry as `devices` has them.

        A node in its /dev, and the rule that allows what `access` says; all of it or nothing. No symlink that the container has
        put in its /dev is followed, and nothing that is there is covered: that is an error of kind `already_exists`.
        """
        self._live("add_device").add_device(_request.device_text(device))

    def remove_device(self, target: AnyPath) -> None:
        """Takes a device away that `devices` or `add_device` gave it, by its path inside. What has it open keeps it."""
        self._live("remove_device").remove_device(target)

    def ns_fd(self, kind: str) -> int:
        """A descriptor of a namespace (`net`, `mnt`, ...), the caller's to close."""
        return self._live("ns_fd").ns_fd(kind)

    @overload
    def enter(self, kinds: str | Iterable[str], function: None = None) -> _enter.Entry: ...
    @overload
    def enter(
        self, kinds: str | Iterable[str], function: Callable[_P, T], *args: _P.args, **kwargs: _P.kwargs
    ) -> T: ...
    def enter(self, kinds: Any, function: Any = None, *args: Any, **kwargs: Any) -> Any:
        """This program inside, without a process.

        `with container.enter("net"):` has the calling thread in the container's namespaces of these kinds (`net`, `uts`,
        `ipc`, `cgroup`; a name or several) for the block: sockets made there are the container's, and stay so. Use no
        `await` in the block: everything else on this thread is inside as well. A thread that cannot leave again (it gave up
        its capabilities, say) is ended where it is, never returned.

        `container.enter(kinds, function, *args, **kwargs)` calls the function on a thread of its own that is inside and
        ends afterwards, and returns or raises what it does; here also `mnt`, with which paths are the container's. When
        waiting for it is interrupted (Ctrl-C), the function goes on. With `mnt`, import, load and execute nothing in it: a
        module, a library (behind `socket.getaddrinfo` and `pwd`, too) or a program would be the container's, with the rights
        of this program. `open` opens files, `call` and `popen` run code inside.

        Errors: `invalid_argument` for `pid`, `user`, `time` (no thread of a program with several can join them) and for
        what the container shares with this program; `permission_denied` without CAP_SYS_ADMIN; `closed`.
        """
        names = _enter.names_of(kinds)
        raw = self._live("enter")
        if function is None:
            if args or kwargs:
                raise TypeError("function: arguments, and no function to give them to")
            return _enter.Entry(raw, names)
        return _enter.call_inside(raw, names, _enter.bound(function, args, kwargs))

    def socket(
        self,
        family: int = sockets.AF_INET,
        type: int = sockets.SOCK_STREAM,
        proto: int = 0,
    ) -> sockets.socket:
        """A socket in the container's network, made with the rights of its root; wherever it is used it belongs there.

        Arguments as for `sockets.socket`. So every caller has packet and raw sockets, netlink, and ports below 1024 (with `listen`).
        """
        return _reach.made(self._live("socket").socket(family, type, proto))

    def listen(self, address: tuple[str, int] | str, *, backlog: int = 128) -> sockets.socket:
        """A listening stream socket inside: `("127.0.0.1", 80)`, `("::", 80)`, a path inside, or `@name` (abstract).

        Hosts are numeric, or `localhost`; "" is 0.0.0.0, port 0 any.
        """
        return _reach.made(self._live("listen").listen(_reach.address(address), _reach.backlog(backlog)))

    def connect(self, address: tuple[str, int] | str, timeout: Seconds | None = None) -> sockets.socket:
        """A stream socket that is connected to a server inside; addresses as for `listen`.

        `timeout` (seconds) is for the connection, and is the socket's afterwards, as with `socket.create_connection`.
        """
        return _reach.connect(self._live("connect"), address, timeout)

    def open_path(self, path: AnyPath, flags: int = os.O_RDONLY, mode: int = 0o666) -> int:
        """A descriptor of a path as the container sees it, the caller's to close; flags and mode as for `os.open`.

        It is opened with the rights of the container's root, below its root whatever links are there. What is read is the
        container's word: do not trust it.
        """
        return self._live("open_path").open_path(path, flags, mode)

    def open(
        self,
        path: AnyPath,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]:
        """As the builtin `open`, for a path as the container sees it; see `open_path`."""
        name = _request.path_of("path", path)
        return open(name, mode, buffering, encoding, errors, newline, opener=self.open_path)

    def read_bytes(self, path: AnyPath, limit: int | None = None) -> bytes:
        """The content of a file as the container sees it, read with the rights of its root, below its root whatever links are there.

        What is no regular file (a FIFO, a device, a directory) is not opened but an error, and so is one of more than `limit` bytes
        (default: 64 MiB). What is read is the container's word: do not trust it.
        """
        return self._live("read_bytes").read(path, limit)

    def read_text(
        self, path: AnyPath, encoding: str = "utf-8", errors: str = "strict", limit: int | None = None
    ) -> str:
        """`read_bytes`, decoded."""
        return self.read_bytes(path, limit).decode(encoding, errors)

    def write_bytes(
        self,
        path: AnyPath,
        data: bytes | bytearray | memoryview,
        *,
        mode: int | None = None,
        owner: str | int | None = None,
    ) -> int:
        """Gives a file of the container this content, and makes it if there is none (not its directories). How many bytes.

        Nobody inside sees half of it: a new file takes the old one's place, with its mode (`mode`, default 0o644 for a new one) and owner
        (`owner`, default the container's user). A file behind a symbolic link, or one that is a mount, is emptied and written.
        """
        content = _files.content(data)
        self._live("write_bytes").write(path, content, mode, _files.owner_text(owner))
        return len(content)

    def write_text(
        self,
        path: AnyPath,
        text: str,
        encoding: str = "utf-8",
        errors: str = "strict",
        *,
        mode: int | None = None,
        owner: str | int | None = None,
    ) -> int:
        """`write_bytes` of encoded text; how many characters."""
        if not isinstance(text, str):
            raise TypeError(f"text: str, not {type(text).__name__}; write_bytes writes bytes")
        self.write_bytes(path, text.encode(encoding, errors), mode=mode, owner=owner)
        return len(text)

    def copy_in(
        self,
        source: AnyPath,
        target: AnyPath,
        *,
        owner: str | int | None = None,
        special: Literal["refuse", "skip"] = "refuse",
        timeout: Seconds | None = None,
        progress: Callable[[CopyProgress], object] | None = None,
    ) -> CopyProgress:
        """Copies a file or a tree of this machine into the container, as `cp -a` would name it.

        If `target` is a directory there, the copy is in it, under the last name of `source`; else `target` is what it is called. A
        `source` that ends in `/.` stands for what is in it. Permissions, times, symbolic links, hard links and holes come along; set-uid
        bits and extended attributes do not. No link below `source` or `target` is followed.

        owner: of the copy, as `user` (`uid`, `uid:gid`, names of the container's); default: the container's user.
        special: what becomes of devices, sockets and FIFOs: an error that names the first, or left out.
        timeout: seconds. progress: called with a `CopyProgress` now and then; what it raises ends the copy.
        """
        raw = self._live("copy_in")
        return _files.copy(raw, True, source, target, owner, special, timeout, progress)

    def copy_out(
        self,
        source: AnyPath,
        target: AnyPath,
        *,
        special: Literal["refuse", "skip"] = "refuse",
        timeout: Seconds | None = None,
        progress: Callable[[CopyProgress], object] | None = None,
    ) -> CopyProgress:
        """Copies a file or a tree of the container to this machine; see `copy_in`. The copy is the caller's.

        The container is not trusted: whatever it has there, and changes meanwhile, nothing outside of `target` is touched.
        """
        raw = self._live("copy_out")
        return _files.copy(raw, False, source, target, None, special, timeout, progress)

    def usage(self) -> Usage:
        """What it uses now and has used. When this caller can have no control groups there is `net` alone, and with the host's network an
        error of kind `unsupported`.
        """
        return Usage._from_json(self._live("usage").usage())

    def beancounters(self) -> list[Beancounter]:
        """OpenVZ's table of resources: what is held, the most that was, limits, how often they were met, where that comes from.

        Some of it is added up over the processes, from /proc: it takes some 20 us for each, and is no picture of one moment.
        """
        return [Beancounter(**row) for row in json.loads(self._live("beancounters").beancounters())]

    def events(
        self,
        kinds: Iterable[str] | None = None,
        pressure: Iterable[Pressure] = (),
        timeout: Seconds | None = None,
    ) -> Events:
        """What happens to it from now on: an iterator of `Event`, a context manager, with a `fileno()` to poll.

            with c.events(["oom_kill", "pids_max"], pressure=[{"resource": "memory", "stall": 0.15, "window": 2}]) as events:
                for event in events:
                    print(event.kind, event.count)

        kinds: which (see `Event.kind`); each that cannot be had here is an error. Default: all that can be had, which
        `Events.kinds` lists. `ended` is always told, the last.
        pressure: thresholds, see `Pressure`.
        timeout: how many seconds the iterator waits for an event; then it raises `TimeoutError`.

        Any number of readers may be made. Events of a kind that come before they are read are one event with their count;
        none is lost. When an attached container ends, the last counts are told, then `ended`; of a detached one, what was
        counted after the last look may be missing.
        """
        return Events(self._live("events").events(options_of(kinds, pressure)), self, timeout)

    def syscall_listener(self, timeout: Seconds | None = None) -> SyscallListener:
        """The system calls about which this program is asked, because a rule of `seccomp` has the action `notify`.

            rules = [{"names": ["mkdir", "mkdirat"], "action": "notify"}]
            with ringfence.Container(seccomp={"profile": "default", "rules": rules}) as c:
                listener = c.syscall_listener()
                threading.Thread(target=listener.serve, args=(lambda request: request.answer_value(0),)).start()
                c.run(["mkdir", "/no/such/place"], check=True)

        It has those of the main process and of every process that is started in the container. Any number of listeners may be
        made; each request is given to one. Until somebody reads, calls wait; when the container is closed, or this program ends, the
        kernel answers them with ENOSYS.
        timeout: how many seconds the iterator waits for a request; then it raises `TimeoutError`.
        """
        return SyscallListener(self._live("syscall_listener").syscall_listener(), self, timeout)

    def wait_for(
        self,
        *,
        port: PortNumber | Iterable[PortNumber] | None = None,
        log: LogPattern | Iterable[LogPattern] | None = None,
        path: AnyPath | Iterable[AnyPath] | None = None,
        command: Iterable[AnyPath] | None = None,
        http: str | HttpCheck | None = None,
        timeout: Seconds | None = 60.0,
    ) -> None:
        """Waits until it is ready: until all that is given holds.

            c.wait_for(port=5432, log="ready to accept connections", timeout=30)

        port: something listens on it in the container's network (`"53/udp"`: is bound); nobody connects for it. One, or several.
        log: a regular expression (of the Rust crate `regex`) that matches in a line of the log, from its beginning. One, or several.
        path: it exists inside. One, or several.
        command: the arguments of a program that, run inside again and again, exits with 0.
        http: a URL, seen from inside, that answers a GET with a status from 200 to 399; or `{"url": ..., "status": 204}`.
        timeout: seconds; None waits for ever.

        Raises an `Error` that is a `TimeoutError` when the seconds pass, and one of kind `closed`, at once, when the container ends first. Both
        say what is missing and what is there, with the last 50 lines of the log (`Error.log_tail`). What held once is not
        looked at again.
        """
        # pytest shows the line of the test, and not this.
        __tracebackhide__ = True
        conditions = conditions_of(port, log, path, command, http)
        readiness = self._live("wait_for").readiness(conditions, timeout)
        try:
            readiness.wait()
        finally:
            readiness.cancel()

    @overload
    def logs(self, since: int = 0, *, tail: int | None = None, follow: Literal[False] = False) -> str: ...
    @overload
    def logs(
        self, since: int = 0, *, tail: int | None = None, follow: Literal[True], timeout: Seconds | None = None
    ) -> LogReader: ...

    def logs(
        self, since: int = 0, *, tail: int | None = None, follow: bool = False, timeout: Seconds | None = None
    ) -> str | LogReader:
        """What the main process wrote to streams that are `log`; bounded by `log_max`. Also after its end, and of a detached container.

            print(c.logs(tail=50))
            for line in c.logs(follow=True):
                print(line, end="")

        since: from this byte on, a `log_position()` or `LogReader.position`. (The kernel keeps no time of a line.)
        tail: only that many last lines; an incomplete one counts.
        follow: an iterator of lines, there are and to come, until the container has ended; see `LogReader`.
        timeout: how many seconds the iterator waits for a line; then it raises `TimeoutError`.
        """
        raw = self._live("logs")
        reader = raw.logs(options_of_logs(tail, since, follow))
        if follow:
            return LogReader(reader, self, timeout)
        return raw.log(reader.position).decode(errors="replace")

    def stream_logs(
        self, target: LogTarget, level: int = logging.INFO, *, since: int = 0, tail: int | None = None
    ) -> LogStream:
        """A block that hands on the lines of the log, as they are written, to a function or a `logging.Logger`:

            with c.stream_logs(logging.getLogger("db"), logging.DEBUG):
                ...

        A function gets each line without its end. It is called on a thread that lives as long as the block; see `LogStream`. `level` is that of the
        records, `since` and `tail` are as for `logs`.
        """
        send = sender(target, level)
        return LogStream(self, self.logs(since, tail=tail, follow=True), send)

    def log_position(self) -> int:
        """How many bytes were written to the log; the place for `since` to go on from here."""
        return self._live("log_position").log_position()

    @property
    def log_is_full(self) -> bool:
        """Fewer than 8 KiB of `log_max` are left (a quarter, below 32 KiB): what the program writes may be refused (EPERM)."""
        return self._live("log_is_full").log_is_full()

    def log_fd(self) -> int:
        """The file of the log, the caller's to close. Its offset is the writers': read it with `os.pread`."""
        return self._live("log_fd").log_fd()

    # --- processes

    def popen(
        self,
        args: Args,
        bufsize: int = -1,
        executable: AnyPath | None = None,
        stdin: Stream = None,
        stdout: Stream = None,
        stderr: Stream = None,
        *,
        shell: bool = False,
        cwd: AnyPath | None = None,
        env: Env | None = None,
        universal_newlines: bool | None = None,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
        user: str | int | None = None,
        group: str | int | None = None,
        extra_groups: Any = None,
        umask: int = -1,
        pass_fds: Any = (),
        pipesize: int = -1,
        cgroup: str | None = None,
        set_tid: int | None = None,
        **fields: Unpack[CommandFields],
    ) -> Process[Any]:
        """Starts one more process inside; the arguments of `subprocess.Popen` and those of `CommandFields`.

        `cgroup` is the name of a group that `Container.group` made. `set_tid` is the pid that it is to have inside: 2 and more, and
        not in use there.
        """
        raw = self._live("popen")
        text_options = TextOptions(text, universal_newlines, encoding, errors, bufsize, pipesize)
        options = {
            "shell": shell,
            "executable": executable,
            "cwd": cwd,
            "env": env,
            "user": user,
            "group": group,
            "extra_groups": extra_groups,
            "umask": umask,
            "pass_fds": pass_fds,
            "cgroup": cgroup,
            "set_tid": set_tid,
        }
        given: dict[str, Any] = dict(fields)
        _request.refuse(given)
        streams = _request.command_streams(stdin, stdout, stderr, given)
        request = _request.command_request(args, streams, options, given)
        _host.sync_log_level()
        try:
            process = raw.spawn(request)
        except MissingError as error:
            if request["argv"] and _interpreter.is_this(request["argv"][0]):
                raise error._with_hint("start the container with share_python=True") from None
            raise
        return Process(process, args, self, text_options, False)

    def run(
        self,
        args: Args,
        *,
        input: Any = None,
        capture_output: bool = False,
        timeout: Seconds | None = None,
        check: bool = False,
        **options: Any,
    ) -> CompletedProcess[Any]:
        """Runs a command inside to its end: `subprocess.run`, with `usage` and `reason` on the result.

        Takes what `popen` takes. On a timeout the process is killed and `subprocess.TimeoutExpired` raised; what it
        started itself goes on until the container ends.
        """
        with self.popen(args, **run_options(input, capture_output, options)) as process:
            return finish(process, input, timeout, check)

    def call(
        self,
        function: Callable[..., T],
        /,
        *args: Any,
        timeout: Seconds | None = None,
        trusted: bool = False,
        python: AnyPath | None = None,
        options: CommandFields | None = None,
        **kwargs: Any,
    ) -> T:
        """Calls `function(*args, **kwargs)` in a fresh interpreter inside; returns its value or raises its exception.

        The exception's `__cause__` has the traceback from inside. Function and arguments go in by pickle, or by cloudpickle
        where that is installed here and inside: then also lambdas. For what `__main__` defines the program's file is run once more
        inside, as the module `__mp_main__`, as `multiprocessing` does: what only the program itself is to do stands below
        `if __name__ == "__main__":`, and the container has to see the file (`mounts`, `share_cwd=True`). Modules are found along this
        program's `sys.path`, as far as the container has those directories. The interpreter is `python`, else this one (a
        container of its own has it where it is hidden with `share_python=True`). It has no standard input; what it prints goes where this
        program's output goes. `options` are those of `popen`: `cgroup`, `env`, `user`, `rlimits`, ...

        What comes out was written inside. Only plain values (numbers, text, bytes, containers of them, dates, paths, ...) and
        the built-in exceptions are taken, because to load any other pickle is to run what it says; other exceptions become a
        `CallError` that names them. `trusted=True` takes everything: for containers in which runs nothing that you would not run
        here. (To give the function arguments of these names, use `functools.partial`.)

        Raises `subprocess.TimeoutExpired` when the seconds pass, and `CallError` when the interpreter ends without a
        result, with its `returncode` and `reason`, `out_of_memory` for one.
        """
        result = self._call(_call.Call(function, args, kwargs, python, trusted), timeout, options or {})
        return cast("T", result)

    def _call(self, call: _call.Call, timeout: Seconds | None, options: Mapping[str, Any]) -> Any:
        try:
            given: dict[str, Any] = {"stdin": subprocess.DEVNULL, **options}
            with self.popen(call.args, pass_fds=call.pass_fds, **given) as process:
                try:
                    returncode = process.wait(timeout)
                except BaseException as error:
                    process._abandon()
                    if isinstance(error, subprocess.TimeoutExpired):
                        raise subprocess.TimeoutExpired(call.args[:1], _host.seconds(timeout) or 0.0) from None
                    raise
            return call.result(returncode, process.reason)
        finally:
            call.close()

    # --- its life

    def signal(self, sig: int | str) -> None:
        """Sends a signal, by number or name (`TERM`), to the main process, or pid 1 when there is none."""
        self._live("signal").signal(sig)

    def kill(self) -> None:
        """SIGKILL to every process, atomically. Does not wait."""
        self._live("kill").kill()

    def stop(self, timeout: Seconds | None = None) -> int | None:
        """`stop_signal`, then SIGKILL after `timeout` seconds (default: `stop_timeout`); waits for the end.

        Gives the returncode of the main process, None when there is none.
        """
        raw, grace = self._live("stop"), self._grace(timeout)
        if self.running:
            self._ask_to_stop()
            if not raw.wait(grace):
                self._end(raw)
        code = self._main.poll() if self._main else None
        self.close()
        return code

    def _ask_to_stop(self) -> None:
        raw = self._live("stop")
        raw.signal(raw.stop_signal)

    def _grace(self, timeout: Seconds | None) -> float:
        given = _host.seconds(timeout)
        if given is not None:
            return given
        own = self._raw.stop_timeout
        return 10.0 if own is None else own

    def wait(self, timeout: Seconds | None = None) -> int | None:
        """Waits until it has ended and everything is undone; `subprocess.TimeoutExpired` when the seconds pass first.

        Gives the returncode of the main process, None when there is none.
        """
        raw = self._live("wait")
        if not self._closed and not raw.wait(timeout):
            raise subprocess.TimeoutExpired(
                self._main.args if self._main else f"container {self.id}", _host.seconds(timeout) or 0.0
            )
        return self._main.poll() if self._main else None

    def update(self, **limits: Unpack[LimitFields]) -> None:
        """Changes limits while it runs, as in `c.update(memory="512M", cpus=None)`; None takes a limit away.

        All of it or nothing: when one limit is refused, the others get back what they were. May be called from any thread;
        meanwhile the spec is the former one. Raises `SpecError` for fields that are fixed at the start, and for limits that
        do not hold for a command that was started before (CAP_SYS_ADMIN); `ringfence.Error` with errno EBUSY when more is
        used of `memory`, `disk`, `inodes`, `shm_size` or `ptys` than the new limit and cannot be reclaimed.
        """
        self._live("update").update(_request.update_fields(limits))

    @property
    def spec(self) -> dict[str, Any]:
        """The spec as it is now: what it was started with, and what updates made of it; defaults are left out."""
        spec: dict[str, Any] = json.loads(self._raw.spec())
        return spec

    def group(self, name: str, **limits: Unpack[LimitFields]) -> ControlGroup:
        """Makes a group of processes inside, with limits of its own: `c.group("workers", cpu_weight=50).run([...])`.

        The limits hold within those of the container, the weights count against the container's other groups.
        """
        return ControlGroup(self, self._live("group").group(name, _request.update_fields(limits)))

    def find_group(self, name: str) -> ControlGroup:
        """The group of that name, made here or (in a detached container) by another program."""
        return ControlGroup(self, self._live("find_group").find_group(name))

    def reclaim(self, bytes: Size) -> bool:
        """Asks the kernel to take back memory: page cache, and what can be swapped out. False: it found less.

        cgroup v1 cannot: that is an error of kind `unsupported`.
        """
        return self._live("reclaim").reclaim(str(bytes))

    def freeze(self) -> None:
        """Stops every process where it is."""
        self._live("freeze").freeze()

    def thaw(self) -> None:
        """Lets them go on."""
        self._live("thaw").thaw()

    def close(self, timeout: Seconds | None = None) -> None:
        """Kills what runs and waits until everything is undone. Closing twice is fine.

        A detached container is left running, only this handle is closed: `stop` ends it. Raises `ringfence.Error` of kind
        `timed_out` when the seconds pass first: something in it does not die, as in an unreachable file system; `gc()`
        finishes later.
        """
        if self._closed:
            return
        raw = self._live("close")
        until = _host.deadline(timeout)
        if not self._detached:
            self._end(raw, timeout)
        raw.close(None if until is None else max(0.0, until - time.monotonic()))
        self._forget()

    def _end(self, raw: _ringfence.Container, timeout: Seconds | None = None) -> bool:
        """Kills and waits here, where Ctrl-C works; the core's own close has then nothing left to wait for."""
        try:
            raw.kill()
            return raw.wait(timeout)
        except Error as error:
            if error.kind != "closed":
                raise
            return True

    def _forget(self) -> None:
        self._closed = True
        _host.attached.discard(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._generation != _host.generation:
            return
        if self._owned or self._detached:
            self.close()

    def __del__(self) -> None:
        if getattr(self, "_closed", True) or not self._owned or self._generation != _host.generation:
            return
        if self._home is not None:
            return
        raw = self._raw
        try:
            forgotten = raw.running
        except Error:
            return
        if not forgotten:
            return
        warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
        try:
            raw.kill()
        except Error:
            pass

    def __repr__(self) -> str:
        if not hasattr(self, "_raw"):
            return "<Container: not started>"
        if self._generation != _host.generation:
            return "<Container: of the parent process>"
        name = f" {self._raw.name!r}" if self._raw.name else ""
        return f"<Container{name} {self._raw.id} pid={self._raw.pid}>"


def run_options(input: Any, capture_output: bool, options: dict[str, Any]) -> dict[str, Any]:
    """`subprocess.run`'s own rules for its arguments."""
    if input is not None:
        if options.get("stdin") is not None:
            raise ValueError("stdin and input arguments may not both be used.")
        options["stdin"] = subprocess.PIPE
    if capture_output:
        if options.get("stdout") is not None or options.get("stderr") is not None:
            raise ValueError("stdout and stderr arguments may not be used with capture_output.")
        options["stdout"] = options["stderr"] = subprocess.PIPE
    return options


def final_usage(container: Container) -> Usage:
    """The usage for a result: little or nothing is known of a container that could have no control group."""
    try:
        return container.usage()
    except Error as error:
        if error.kind != "unsupported":
            raise
        return Usage()


def finish(process: Process[Any], input: Any, timeout: Seconds | None, check: bool) -> CompletedProcess[Any]:
    """Brings a process to its end, by the rules of `subprocess.run`."""
    try:
        stdout, stderr = process.communicate(input, timeout)
    except BaseException:
        # Also for KeyboardInterrupt: nothing that was started for this call outlives it.
        process._abandon()
        raise
    returncode = process.poll()
    assert returncode is not None
    result = CompletedProcess(
        process.args,
        returncode,
        stdout,
        stderr,
        reason=process.reason or "exited",
        usage=final_usage(process.container),
    )
    if check:
        result.check_returncode()
    return result
