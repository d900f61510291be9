"""Types of arguments and results."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import IO, TYPE_CHECKING, Any, TypedDict, TypeVar

if TYPE_CHECKING:
    from ._container import Container

__all__ = [
    "CommandFields",
    "CompletedProcess",
    "Entry",
    "Event",
    "Finding",
    "GcReport",
    "LimitFields",
    "Plan",
    "Pressure",
    "Report",
    "SpecFields",
    "Usage",
]

T = TypeVar("T")

AnyPath = str | bytes | os.PathLike[str] | os.PathLike[bytes]
Args = AnyPath | Iterable[AnyPath]
Env = Mapping[Any, AnyPath | int | float | None]
Stream = int | str | IO[Any] | os.PathLike[str] | None
#: Bytes, or text with K, M, G, T.
Size = int | str
#: Seconds, or text such as `500ms`, `2s`, `1m`.
Seconds = int | float | str | timedelta


class Request(TypedDict, total=False):
    """What the extension module takes: `_request.py` makes it of keyword arguments."""

    #: JSON text; the others are laid over it.
    fields: str
    argv: list[bytes]
    env: dict[bytes, bytes | None]
    cwd: bytes
    #: Path -> content, mode.
    files: dict[bytes, tuple[bytes, int]]
    pass_fds: dict[int, int]
    #: Under the text rules of C.
    set: list[tuple[str, bytes]]


class CommandFields(TypedDict, total=False):
    """Fields of the vocabulary that any command may have; the container's spec gives the defaults.

    Everything that is inside (cwd, user, groups) means the container's own paths and names.
    """

    #: Names of the caller's variables to pass through; `*` is all.
    env_inherit: Iterable[str]
    #: Supplementary groups, by id or name.
    groups: Iterable[str | int]
    #: A pseudo terminal of its own: True, or (rows, columns).
    terminal: bool | tuple[int, int] | Mapping[str, int]
    #: Names of getrlimit(2) in lower case: one value, or (soft, hard).
    rlimits: Mapping[str, int | str | tuple[int | str, int | str] | Mapping[str, int | str]]
    #: -20..19.
    nice: int
    #: `other`, `batch`, `idle`, `fifo:10`, `rr:10`, or an object with `policy`, `priority`, `runtime`, `deadline`, `period`,
    #: `reset_on_fork`, `uclamp_min`, `uclamp_max`.
    scheduler: str | Mapping[str, str | int | float | bool | timedelta]
    #: `idle`, `best-effort:0` to `best-effort:7`, `realtime:0` to `realtime:7`.
    io_priority: str
    #: -1000..1000.
    oom_score_adj: int
    #: Names with or without `CAP_`; replaces the default set.
    capabilities: str | Iterable[str] | Mapping[str, Iterable[str]]
    no_new_privs: bool
    #: How long a start may take.
    start_timeout: Seconds


class LimitFields(TypedDict, total=False):
    """Fields that can change while a container runs; None takes a limit away."""

    #: Bytes, or text: the hard limit.
    memory: Size | None
    #: Where processes are slowed down and made to give memory back.
    memory_high: Size | None
    #: Spared when the machine runs short.
    memory_low: Size | None
    #: Guaranteed.
    memory_min: Size | None
    #: Kill all processes when one has to be killed for want of memory.
    oom_group: bool | None
    #: Beside `memory`.
    swap: Size | None
    #: Cores, a hard limit.
    cpus: int | float | None
    #: Share of contended processors: 1 to 10000, 100 by default.
    cpu_weight: int | None
    #: Processor time that may be saved up and spent above `cpus`.
    cpu_burst: Seconds | None
    #: Run only when nobody else wants the processor.
    cpu_idle: bool | None
    #: `"0-3,7"`, or an object with `cpus`, `mems` and `partition`.
    cpuset: str | int | Mapping[str, str | int] | None
    #: Of real-time processes, in each `cpu_rt_period`; cgroup v1.
    cpu_rt_runtime: Seconds | None
    cpu_rt_period: Seconds | None
    #: Processes and threads.
    pids: int | None
    #: Share of contended devices: 1 to 10000, 100 by default; or `"ioprio:0"` to `"ioprio:7"`.
    io_weight: int | str | None
    #: Device (path or `MAJOR:MINOR`) -> `rbps`, `wbps`, `riops`, `wiops`.
    io_max: Mapping[str, str | Mapping[str, Size]] | None
    #: Size of the pages -> bytes.
    hugepages: Mapping[str, Size] | None
    #: Device -> `hca_handle`, `hca_object`.
    rdma: Mapping[str, Mapping[str, int]] | None
    #: Resource -> count.
    misc: Mapping[str, int] | None
    #: How long the container may run; then it is killed.
    wall_time: Seconds | None
    #: How much processor time it may use; then it is killed.
    cpu_time: Seconds | None
    #: Free text: name -> value.
    annotations: Mapping[str, str | None] | None


class SpecFields(CommandFields, LimitFields, total=False):
    """Fields of the vocabulary: what a container is to be. The same names as in C, Rust and JSON."""

    name: str
    hostname: str
    domainname: str
    #: Name servers for /etc/resolv.conf.
    dns: Iterable[str]
    #: Extra lines of /etc/hosts: name -> address.
    hosts: Mapping[str, str]
    #: `host` (default), `host:owned`, a directory, or `{"lower": [...], "upper": ..., "readonly": ...}`.
    rootfs: AnyPath | Mapping[str, Any]
    #: `source[:target][:rw]`, a path (the same path inside, read-only), or an object.
    mounts: Iterable[AnyPath | Mapping[str, Any]]
    #: Path inside -> bytes or text, or (bytes or text, mode).
    files: Mapping[Any, str | bytes | tuple[str | bytes, int]]
    #: Pseudoterminals that may be open at once.
    ptys: int
    #: Kernel parameters of its own namespaces: name -> value.
    sysctls: Mapping[str, str | int]
    #: Of /dev/shm.
    shm_size: Size
    #: False makes the payload pid 1.
    init: bool
    #: Bound of a `log` stream.
    log_max: Size
    #: Kind -> `new`, `host`, a path, a descriptor, or another container.
    namespaces: Mapping[str, str | int | Mapping[str, Any] | os.PathLike[str] | Container]
    #: `auto` (default), `host`, `keep-id`, or explicit maps.
    idmap: str | Mapping[str, Any]
    #: A number or a name such as `SIGINT`.
    stop_signal: int | str
    stop_timeout: Seconds
    #: `loopback` (default), `none` or `host`.
    net: str
    masked_paths: Iterable[AnyPath]
    readonly_paths: Iterable[AnyPath]
    #: Added to the clocks inside: `monotonic`, `boottime`.
    time_offsets: Mapping[str, Seconds]
    cgroup_parent: AnyPath
    #: Mounts the caller's directory read-only at the same path, and starts there.
    share_cwd: bool
    #: Mounts this interpreter's prefixes read-only at the same paths. By itself when `sys.executable` is the program.
    share_python: bool


@dataclass(frozen=True)
class Usage:
    """What a container uses and used. None: the machine does not count it, or not for this caller."""

    #: Bytes.
    memory_current: int | None = None
    memory_peak: int | None = None
    #: None when unlimited.
    memory_max: int | None = None
    #: Processes killed because the container's memory ran out.
    memory_oom_kills: int | None = None
    memory_limit_hits: int | None = None
    cpu_usage_usec: int | None = None
    cpu_user_usec: int | None = None
    cpu_system_usec: int | None = None
    cpu_throttled_usec: int | None = None
    cpu_throttled_periods: int | None = None
    pids_current: int | None = None
    pids_peak: int | None = None
    pids_max: int | None = None
    #: Forks refused by the limit.
    pids_refused: int | None = None

    @classmethod
    def _from_json(cls, text: str) -> Usage:
        known = {f.name for f in fields(cls)}
        return cls(**{key: value for key, value in json.loads(text).items() if key in known})


class _Pressure(TypedDict):
    #: `memory`, `cpu` or `io`.
    resource: str
    #: How long tasks have to wait within the window; whole microseconds.
    stall: Seconds


class Pressure(_Pressure, total=False):
    """A threshold of pressure: tasks of the container wait for `resource` for `stall` within `window` or longer.

    The kernel tells at most once in each window. It needs a cgroup v2 tree (as a hybrid machine has) and PSI.
    """

    #: `some` of the tasks (default), or `full`: all that are not idle.
    level: str
    #: 500 ms to 10 s with CAP_SYS_RESOURCE, else 2, 4, 6, 8 or 10 s. Default: 2 s.
    window: Seconds


@dataclass(frozen=True)
class Event:
    """Something that happened to a container, once or several times."""

    #: `oom`, `oom_kill`, `memory_high`, `memory_max`, `memory_low`, `swap_max`, `pids_max`, `pressure`, `populated`, `empty`,
    #: `frozen`, `thawed`, `ended`.
    kind: str
    #: How often since the last event of this kind (and threshold), or since the reader was made.
    count: int
    #: How often since the reader was made.
    total: int
    #: When the first of them was seen: nanoseconds since the epoch, as `time.time_ns()`.
    time_ns: int
    #: The same moment as `time.monotonic_ns()` has it.
    monotonic_ns: int
    #: Of pressure: `memory`, `cpu` or `io`.
    resource: str | None = None
    #: Of pressure: `some` or `full`.
    level: str | None = None
    #: Of pressure: which of the thresholds that were asked for.
    threshold: int | None = None


class CompletedProcess(subprocess.CompletedProcess[T]):
    """A finished process, as `subprocess` has it, with two attributes more.

    reason: why it ended: `exited`, `signaled`, `out_of_memory`, `container_ended`, `lost`, `wall_time` or `cpu_time`.
    usage: what the container had used when the process had ended.
    """

    def __init__(
        self,
        args: Any,
        returncode: int,
        stdout: T | None = None,
        stderr: T | None = None,
        *,
        reason: str = "exited",
        usage: Usage | None = None,
    ) -> None:
        super().__init__(args, returncode, stdout, stderr)
        self.reason = reason
        self.usage = usage if usage is not None else Usage()


@dataclass(frozen=True)
class Entry:
    """One named container of this user."""

    name: str
    id: str
    #: `running`, `ended` or `lost`.
    state: str
    #: Of pid 1; 0 when it has ended.
    pid: int
    detached: bool
    #: Seconds since the epoch.
    created: float
    command: list[str]
    #: 128+N for signals; None while it runs, and when nobody knows.
    exit_code: int | None


@dataclass(frozen=True)
class GcReport:
    """What was found without its keeper and ended."""

    processes: int
    cgroups: int
    files: int
    #: What could not be removed yet, and why.
    remaining: list[str]


@dataclass(frozen=True)
class Finding:
    """One thing that this machine allows this user, or not."""

    #: `namespaces.user`, `cgroup.memory`, ...
    what: str
    ok: bool
    #: What was seen.
    detail: str
    #: What to do about it, when not ok.
    remedy: str | None
    #: Without it no container starts with the defaults.
    essential: bool


@dataclass(frozen=True)
class Report:
    """What this machine allows; `str()` is a table, `json` the same for programs."""

    findings: list[Finding]
    json: str = field(repr=False)
    _text: str = field(repr=False)

    @property
    def ok(self) -> bool:
        """Containers start with the defaults."""
        return all(f.ok for f in self.findings if f.essential)

    def __str__(self) -> str:
        return self._text


@dataclass(frozen=True)
class Plan:
    """What a start would do, step by step; `str()` is for people, `json` for programs."""

    #: In order: `section`, `index`, `field`, `call`, `args`, `path`.
    steps: list[dict[str, Any]]
    #: What is removed at the end.
    undo: list[dict[str, Any]]
    json: str = field(repr=False)
    _text: str = field(repr=False)

    def __str__(self) -> str:
        return self._text
