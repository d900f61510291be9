"""Types of arguments and results."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import IO, TYPE_CHECKING, Any, Literal, TypedDict, TypeVar, cast

if TYPE_CHECKING:
    from ._container import Container
    from ._network import Network

__all__ = [
    "Address",
    "CommandFields",
    "CompletedProcess",
    "Entry",
    "Event",
    "Finding",
    "Firewall",
    "FirewallCount",
    "FirewallDefaults",
    "FirewallRule",
    "FirewallRuleUsage",
    "FirewallUsage",
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
    # There, when nobody could answer system calls.
    unanswered: bool


class CommandFields(TypedDict, total=False):
    """Fields of the vocabulary that any command may have. `capabilities`, `securebits`, `landlock`, `apparmor`, `selinux`, `seccomp` and
    `no_new_privs` are those of the container where a command has none.

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
    #: Names with or without `CAP_`: the exact set; or `add`, `drop`, and the five sets: `bounding`, `permitted`, `effective`,
    #: `inheritable`, `ambient`.
    capabilities: str | Iterable[str] | Mapping[str, str | Iterable[str]]
    #: `noroot`, `no_setuid_fixup`, `no_cap_ambient_raise`, `exec_restrict_file`, `exec_deny_interactive`, each also with `_locked`.
    securebits: str | Iterable[str]
    #: What files, TCP ports and processes it can reach: `paths` (path inside -> `read`, `execute`, `write`, `create`, `remove`,
    #: `all`, or the kernel's names), `bind`, `connect` (ports), `scopes` (`signal`, `abstract_unix_socket`), `abi`.
    landlock: Mapping[str, Any]
    #: The AppArmor profile, by name.
    apparmor: str
    #: The SELinux label: `user:role:type:level`.
    selinux: str
    #: `default`, `strict`, `none`, an object with `rules`, or a profile of OCI.
    seccomp: str | Mapping[str, Any]
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
    #: Device nodes of the host: `path[:target][:access]`, a path (the same path inside), or an object with `path`, `target` and
    #: `access` (`rw`).
    devices: Iterable[AnyPath | Mapping[str, AnyPath]] | None
    #: What may be done with devices: `[allow|deny] TYPE [MAJOR:MINOR] [ACCESS]` as in `c 1:11 r`, or objects as in OCI.
    device_rules: Iterable[str | Mapping[str, str | int | bool]] | None
    #: Size of the writable layer; or `size`, `backend`, `filesystem` and `path`.
    disk: Size | Mapping[str, Size | AnyPath] | None
    #: The most inodes of it.
    inodes: int | None
    #: `uid:N` or `gid:N` -> size, or `disk` and `inodes`.
    quota: Mapping[str, Size | Mapping[str, Size] | None] | None
    #: Pseudoterminals that may be open at once.
    ptys: int | None
    #: Kernel parameters of its own namespaces: name -> value. None for a value puts back what it was before.
    sysctls: Mapping[str, str | int | None] | None
    #: Of /dev/shm; 64 MiB by default.
    shm_size: Size | None
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
    #: The SELinux label of the files of its own file systems.
    mount_label: str
    #: `host` (default), `host:owned`, a directory, `{"path": ..., "idmap": ...}`, or `{"lower": [...], "upper": ..., "readonly": ...}`.
    rootfs: AnyPath | Mapping[str, Any]
    #: `source[:target][:rw]`, a path (the same path inside, read-only), or an object. With `"owner": "payload"` (as text
    #: `:rw,owner=payload`) what the main process writes is the source's owner's outside. `"idmap"` is `container`, `host`, or ranges
    #: `INSIDE OUTSIDE COUNT` of ids inside and in the file system.
    mounts: Iterable[AnyPath | Mapping[str, Any]]
    #: Ports of the container at ports of the host: numbers (a free one), `[[ADDRESS:]HOST_PORT:]PORT[/udp]`, objects; or a map of
    #: ports to host ports.
    ports: (
        Iterable[int | str | Mapping[str, int | str]] | Mapping[int, int | str | None] | Mapping[str, int | str | None]
    )
    #: Path inside -> bytes or text, or (bytes or text, mode).
    files: Mapping[Any, str | bytes | tuple[str | bytes, int]]
    #: False makes the payload pid 1.
    init: bool
    #: Programs inside can start containers of their own.
    nesting: bool
    #: Bound of a `log` stream.
    log_max: Size
    #: Kind -> `new`, `host`, a path, a descriptor, or another container.
    namespaces: Mapping[str, str | int | Mapping[str, Any] | os.PathLike[str] | Container]
    #: `auto` (default), `host`, `keep-id`, or explicit maps.
    idmap: str | Mapping[str, Any]
    #: A number or a name such as `SIGINT`.
    stop_signal: int | str
    stop_timeout: Seconds
    #: `loopback` (default), `none`, `host`, a `Network` (or `network:NAME`), `bridge:NAME`, `netkit:BRIDGE`, `macvlan:PARENT`,
    #: `macvtap:PARENT`, `ipvlan:PARENT`, `device:NAME`, an object that says more (`{"network": ..., "addresses": [...]}`), or a list of those.
    net: str | Network | Mapping[str, Any] | Iterable[str | Network | Mapping[str, Any]]
    masked_paths: Iterable[AnyPath]
    readonly_paths: Iterable[AnyPath]
    #: Added to the clocks inside: `monotonic`, `boottime`.
    time_offsets: Mapping[str, Seconds]
    cgroup_parent: AnyPath
    #: Mounts the caller's directory read-only at the same path; the main process starts there.
    share_cwd: bool
    #: Mounts this interpreter's prefixes read-only at the same paths. By itself when `sys.executable` is the program.
    share_python: bool


@dataclass(frozen=True)
class Port:
    """A port of a container that is reachable at one of the host."""

    #: Inside.
    port: int
    #: `tcp` or `udp`.
    protocol: str
    #: The host's address and port.
    host: str
    host_port: int
    #: Led on by the host's kernel, without a relay.
    nat: bool = False


@dataclass(frozen=True)
class Address:
    """A device of a container."""

    #: The name of the network, of one that this program made.
    network: str | None
    #: The name of the device inside.
    interface: str
    #: Its addresses; on a network IPv4, then IPv6, if there are both.
    addresses: tuple[str, ...]
    #: The address of the device; None is the kernel's choice, which was not asked for.
    mac: str | None


class _FirewallRule(TypedDict):
    #: Which way: `in` to the container, `out` of it.
    direction: Literal["in", "out", "both"]
    action: Literal["allow", "deny"]


class FirewallRule(_FirewallRule, total=False):
    """A rule of a `Firewall`. What is not said of a packet may be anything."""

    #: `tcp`, `udp`, `sctp`, `icmp` (that of IPv6 too), or the number of a protocol above IP.
    protocol: str | int
    #: Ports of who is asked, or ranges of them like `8000-8010`. They take `tcp`, `udp` or `sctp`.
    ports: int | str | Sequence[int | str]
    #: The other end: an address, a subnet, or the `name`, `hostname` or alias of containers on the network, whenever they come.
    peer: str


class Firewall(TypedDict, total=False):
    """What passes at a container's device on a network: the key `firewall` of `net`, and `Network.set_firewall`.

    The first rule that fits decides, then the default of the direction. Answers to what was let pass do pass.
    """

    #: What becomes of what comes in without a rule; `allow` by default.
    incoming: Literal["allow", "deny"]
    #: What becomes of what goes out without a rule; `allow` by default.
    outgoing: Literal["allow", "deny"]
    rules: Sequence[FirewallRule]


class FirewallCount(TypedDict):
    """What packets a rule of a firewall, or a default, decided about."""

    packets: int
    #: With the headers of IP.
    bytes: int


class FirewallRuleUsage(FirewallRule, FirewallCount):
    """A rule and what it decided about."""


class FirewallDefaults(TypedDict):
    """What no rule decided about."""

    incoming: FirewallCount
    outgoing: FirewallCount


class FirewallUsage(TypedDict):
    """A container's firewall, and what it decided about. Answers to what had passed are not counted."""

    incoming: Literal["allow", "deny"]
    outgoing: Literal["allow", "deny"]
    rules: list[FirewallRuleUsage]
    defaults: FirewallDefaults


@dataclass(frozen=True)
class IoUsage:
    """What a container did on one block device."""

    #: The kernel's name of the device, as in /dev: `sda`.
    name: str | None = None
    #: Bytes.
    read_bytes: int = 0
    write_bytes: int = 0
    #: Requests.
    reads: int = 0
    writes: int = 0
    #: Bytes that were given back to the device (TRIM), and requests for that.
    discard_bytes: int = 0
    discards: int = 0


@dataclass(frozen=True)
class NetUsage:
    """What one network device carried, since it is there."""

    #: Bytes, packets, bad packets, and packets that were dropped, for want of room for example.
    rx_bytes: int = 0
    rx_packets: int = 0
    rx_errors: int = 0
    rx_dropped: int = 0
    tx_bytes: int = 0
    tx_packets: int = 0
    tx_errors: int = 0
    tx_dropped: int = 0


@dataclass(frozen=True)
class HugePageUsage:
    """Huge pages of one size."""

    #: Bytes in use now.
    current: int | None = None
    #: The most bytes that were in use at once; cgroup v1 only.
    peak: int | None = None
    #: None when unlimited.
    max: int | None = None
    #: Bytes that are reserved and perhaps not yet in use.
    reserved: int | None = None
    #: Allocations that the limit refused.
    refused: int | None = None


@dataclass(frozen=True)
class QuotaUsage:
    """What one user or group of a container has on its writable layer."""

    #: Bytes.
    disk_used: int = 0
    #: The limit in bytes; None when unlimited.
    disk_max: int | None = None
    inodes_used: int = 0
    inodes_max: int | None = None


@dataclass(frozen=True)
class Stall:
    """Time lost in waiting: shares of the last 10, 60 and 300 seconds in percent, and the sum since the start."""

    avg10: float = 0.0
    avg60: float = 0.0
    avg300: float = 0.0
    #: Microseconds.
    total_usec: int = 0


@dataclass(frozen=True)
class Stalls:
    """Time lost in waiting for one resource."""

    #: At least one task waited. The kernel does not tell it of interrupts.
    some: Stall | None = None
    #: All tasks that were not idle waited.
    full: Stall | None = None


@dataclass(frozen=True)
class PressureUsage:
    """Time in which tasks waited for what they needed to go on (the kernel's PSI)."""

    memory: Stalls | None = None
    #: For a processor, or because `cpus` was used up.
    cpu: Stalls | None = None
    #: For a block device.
    io: Stalls | None = None
    #: While interrupts were served.
    irq: Stalls | None = None


@dataclass(frozen=True)
class Usage:
    """What a container uses and used. None: the machine does not count it, or not for this caller.

    After the end, what outlives the processes stays as it was then: peaks, counts, processor time, I/O. Memory by kind, pressure,
    network and huge pages are there when a snapshot was made while it ran.
    """

    #: Bytes in use now, page cache and kernel memory included.
    memory_current: int | None = None
    #: The most bytes that were in use at once. v2: Linux 5.19.
    memory_peak: int | None = None
    #: The limit in bytes; None when unlimited.
    memory_max: int | None = None
    #: Processes that were killed because the group was out of memory.
    memory_oom_kills: int | None = None
    #: How often use came up against the limit (and something was reclaimed, or a process was killed).
    memory_limit_hits: int | None = None
    #: How often processes were slowed down because use was above `memory_high`; v2.
    memory_high_hits: int | None = None
    #: How often memory was taken although use was below `memory_low`: the machine was short; v2.
    memory_low_hits: int | None = None
    #: Bytes of the processes' own data: heap, stacks, private mappings. (The names of these are those of the kernel's
    #: memory.stat.)
    memory_anon: int | None = None
    #: Bytes of cached files, shared memory included.
    memory_file: int | None = None
    #: Bytes of tmpfs, System V and POSIX shared memory, and shared anonymous mappings.
    memory_shmem: int | None = None
    #: Bytes of files that are mapped.
    memory_file_mapped: int | None = None
    #: Bytes of cached files that have to be written back.
    memory_file_dirty: int | None = None
    #: Bytes of cached files that are just being written back.
    memory_file_writeback: int | None = None
    #: Bytes that the kernel uses for it: stacks, page tables, slab and more. v2: Linux 5.18.
    memory_kernel: int | None = None
    #: Bytes of kernel stacks; v2.
    memory_kernel_stack: int | None = None
    #: Bytes of page tables; v2.
    memory_pagetables: int | None = None
    #: Bytes of the kernel's data for each processor; v2.
    memory_percpu: int | None = None
    #: Bytes of network buffers. v1: of TCP only.
    memory_sock: int | None = None
    #: Bytes of kernel objects; v2.
    memory_slab: int | None = None
    #: Those that can be given up when memory is short, as cached names and inodes; v2.
    memory_slab_reclaimable: int | None = None
    #: Those that cannot; v2.
    memory_slab_unreclaimable: int | None = None
    #: Bytes that cannot be reclaimed: locked memory for the most part.
    memory_unevictable: int | None = None
    #: Page faults.
    memory_pgfault: int | None = None
    #: Page faults for which something had to be read from a device.
    memory_pgmajfault: int | None = None
    #: Bytes in swap now.
    memory_swap: int | None = None
    #: The most bytes in swap at once; v2, Linux 6.5.
    memory_swap_peak: int | None = None
    #: The limit of swap in bytes; None when unlimited.
    memory_swap_max: int | None = None
    #: How often the limit of swap was met; v2.
    memory_swap_limit_hits: int | None = None
    #: Microseconds of CPU time, user and system.
    cpu_usage_usec: int | None = None
    #: Microseconds in the processes' own code.
    cpu_user_usec: int | None = None
    #: Microseconds in the kernel.
    cpu_system_usec: int | None = None
    #: Microseconds in which tasks were ready to run and the limit held them.
    cpu_throttled_usec: int | None = None
    #: Periods in which that happened.
    cpu_throttled_periods: int | None = None
    #: Periods of the limit in which anything ran.
    cpu_periods: int | None = None
    #: Periods in which saved time was spent (`cpu_burst`); Linux 5.15.
    cpu_bursts: int | None = None
    #: Microseconds that were spent above the limit in them.
    cpu_burst_usec: int | None = None
    #: Tasks (processes and threads) now.
    pids_current: int | None = None
    #: The most tasks at once. Linux 6.1; on v1 too.
    pids_peak: int | None = None
    #: The limit; None when unlimited.
    pids_max: int | None = None
    #: Forks that the limit refused.
    pids_refused: int | None = None
    #: Bytes of the writable layer, when `disk`, `inodes` or `quota` limits it.
    disk_used: int | None = None
    disk_max: int | None = None
    inodes_used: int | None = None
    inodes_max: int | None = None
    #: What was done on block devices, by `MAJOR:MINOR`. On cgroup v2 a device that is not in it was not used. On v1 the kernel
    #: counts only with `io_max` or `io_weight`, and only on devices that have a rate limit or are scheduled by bfq.
    io: dict[str, IoUsage] | None = None
    #: What network devices carried, by their names inside. None for groups inside a container, and with `net="host"`.
    net: dict[str, NetUsage] | None = None
    #: By size, as `hugepages` has it (`2M`). Counted when that field is set.
    hugepages: dict[str, HugePageUsage] | None = None
    #: Time lost in waiting. Needs a cgroup v2 tree (a hybrid machine has one) and a kernel with PSI.
    pressure: PressureUsage | None = None
    #: What those have that `quota` limits, by its keys: `uid:N` or `gid:N`.
    quota: dict[str, QuotaUsage] | None = None

    def get(self, key: str) -> int | None:
        """A counter by its name in C: `memory_peak`, `io.8:0.read_bytes`, `net.eth0.rx_bytes`, `pressure.memory.some.total_usec`.

        None for what is not counted here, and for a device that is not there or was not used. KeyError when there is no such name.
        """
        first, dot, rest = key.partition(".")
        value: Any
        if not dot:
            value = self.__dict__[first]
            if first in _STRUCTURED:
                raise KeyError(key)
            return cast("int | None", value)
        of, _, name = rest.rpartition(".")
        known = _FIGURES.get(first, frozenset())
        if not of or name not in known:
            raise KeyError(key)
        if first == "pressure":
            resource, _, level = of.partition(".")
            if resource not in PressureUsage.__dataclass_fields__ or level not in Stalls.__dataclass_fields__:
                raise KeyError(key)
            value = getattr(self.pressure, resource, None)
            value = getattr(value, level, None)
        else:
            value = (self.__dict__[first] or {}).get(of)
        return cast("int | None", getattr(value, name, None))

    @classmethod
    def _from_json(cls, text: str) -> Usage:
        known = {f.name for f in fields(cls)}
        figures = {key: value for key, value in json.loads(text).items() if key in known}
        for name, kind in _MAPS.items():
            if figures.get(name) is not None:
                figures[name] = {of: kind(**values) for of, values in figures[name].items()}
        if figures.get("pressure") is not None:
            figures["pressure"] = PressureUsage(
                **{
                    resource: levels and Stalls(**{level: stall and Stall(**stall) for level, stall in levels.items()})
                    for resource, levels in figures["pressure"].items()
                }
            )
        return cls(**figures)


_MAPS: dict[str, Any] = {"io": IoUsage, "net": NetUsage, "hugepages": HugePageUsage, "quota": QuotaUsage}
_STRUCTURED = {*_MAPS, "pressure"}
#: The counters of structured fields.
_FIGURES = {name: frozenset(kind.__dataclass_fields__) - {"name"} for name, kind in _MAPS.items()}
_FIGURES["pressure"] = frozenset({"total_usec"})


@dataclass(frozen=True)
class Beancounter:
    """One resource of OpenVZ's table. None: there is no such figure here, or the limit is not set; `source` says why."""

    #: OpenVZ's name: `numproc`, `physpages`, ...
    resource: str
    #: Of all figures but `failcnt`: `items`, `pages` (of this machine's size) or `bytes`.
    unit: str
    #: In use now.
    held: int | None
    #: The most that was in use at once.
    maxheld: int | None
    #: A soft limit or a guarantee.
    barrier: int | None
    #: The hard limit.
    limit: int | None
    #: How often something was refused, or had to give way.
    failcnt: int | None
    #: Where the figures come from, and why some or all of them are missing.
    source: str


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
    #: `frozen`, `thawed`, `ended`; `link` and `address`, of devices of its network, only when asked for by name.
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
class NamespaceEntry:
    """One namespace of the machine, and what keeps it."""

    #: `mnt`, `pid`, `net`, `ipc`, `uts`, `user`, `cgroup` or `time`.
    kind: str
    #: As /proc/PID/ns shows it.
    inode: int
    #: The device of its file, `st_dev`.
    device: int
    #: The kernel's number of it, where there is one; see `Namespace.id`.
    id: int | None
    #: Who made the user namespace that it is, or that owns it; None when that is hidden from this caller.
    owner_uid: int | None
    #: The inode of the user namespace that owns it; None for the first one, and when it is hidden from this caller.
    owner: int | None
    #: The inode of the parent of a user or pid namespace; None when there is none, or it is hidden from this caller.
    parent: int | None
    #: The processes that are in it with at least one thread, in order.
    members: list[int]
    #: The command line of the first of them, or its name in brackets.
    command: str | None
    #: The processes that hold a descriptor of it, or whose next child is born in it.
    held_by: list[int]
    #: Where it is mounted, in any mount namespace.
    mounts: list[str]


@dataclass(frozen=True)
class ProcessEntry:
    """A process of a container, as it was at one moment."""

    #: Its number in this program's pid namespace.
    pid: int
    #: Its number in the container: 1 is its pid 1.
    pid_inside: int
    #: The number of its parent in the container; None when that is outside.
    parent_inside: int | None
    #: As proc_pid_stat(5) has it: `R` running, `S` sleeping, `D` waiting for a disk, `T` stopped, `t` traced, `Z` a zombie, `I` idle.
    state: str
    #: The name of its first thread, at most 15 bytes.
    name: str
    #: Its arguments, as it shows them; empty for zombies.
    argv: list[str]
    #: Its user, as this program's user namespace knows it.
    uid: int
    #: Threads.
    threads: int
    #: Resident bytes; what it shares with others is counted for each.
    memory: int
    #: Microseconds of processor time.
    cpu_usec: int
    #: Its control group: of the v2 hierarchy, or of the first of v1.
    cgroup: str | None


@dataclass(frozen=True)
class GcReport:
    """What was found without its keeper and ended."""

    processes: int
    cgroups: int
    files: int
    #: What could not be removed yet, or which network has no way out again, and why.
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
