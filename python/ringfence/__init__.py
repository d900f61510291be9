"""Linux containers inside your program.

    >>> import ringfence
    >>> r = ringfence.run(["sh", "-c", "echo $$; hostname"], hostname="box", memory="64M", capture_output=True, text=True)
    >>> print(r.stdout, r.returncode, r.usage.memory_peak)

`run` and `popen` are `subprocess.run` and `subprocess.Popen` in a container of their own; `Container` is one that stays; a `Pod`
has several that share a network, a `Group` several that need each other, a `Network` several that reach each other;
`ringfence.aio` has the same names as coroutines. The fields of a container are keyword arguments: see `SpecFields`.
What differs from `subprocess` is listed in SUBPROCESS.md beside this file, and tested line by line.
"""

from __future__ import annotations

from subprocess import DEVNULL, PIPE, STDOUT, CalledProcessError, SubprocessError, TimeoutExpired

from ._call import CallError
from ._compose import Conditions, Group
from ._container import Container
from ._errors import Error, SpecError
from ._events import Events
from ._executor import ContainerExecutor
from ._files import CopyProgress, Volume, remove_volume, rmtree, volumes
from ._group import ControlGroup
from ._logs import LogReader, LogStream
from ._machine import doctor, end_keepers, gc, ls, namespaces, plan, rm, schema
from ._namespace import Namespace
from ._network import Network
from ._pod import Pod
from ._process import Process
from ._ready import HttpCheck
from ._ringfence import __version__
from ._run import popen, run
from ._syscalls import SyscallListener, SyscallRequest
from ._types import (
    Address,
    Beancounter,
    CommandFields,
    CompletedProcess,
    Entry,
    Event,
    Finding,
    Firewall,
    FirewallCount,
    FirewallDefaults,
    FirewallRule,
    FirewallRuleUsage,
    FirewallUsage,
    GcReport,
    HugePageUsage,
    IoUsage,
    LimitFields,
    NamespaceEntry,
    NetUsage,
    Plan,
    Port,
    Pressure,
    PressureUsage,
    ProcessEntry,
    QuotaUsage,
    Report,
    SpecFields,
    Stall,
    Stalls,
    Usage,
)

by_name = Container.by_name

__all__ = [
    "DEVNULL",
    "PIPE",
    "STDOUT",
    "Address",
    "Beancounter",
    "CallError",
    "CalledProcessError",
    "CommandFields",
    "CompletedProcess",
    "Conditions",
    "Container",
    "ContainerExecutor",
    "ControlGroup",
    "CopyProgress",
    "Entry",
    "Error",
    "Event",
    "Events",
    "Finding",
    "Firewall",
    "FirewallCount",
    "FirewallDefaults",
    "FirewallRule",
    "FirewallRuleUsage",
    "FirewallUsage",
    "GcReport",
    "Group",
    "HttpCheck",
    "HugePageUsage",
    "IoUsage",
    "LimitFields",
    "LogReader",
    "LogStream",
    "Namespace",
    "NamespaceEntry",
    "NetUsage",
    "Network",
    "Plan",
    "Pod",
    "Port",
    "Pressure",
    "PressureUsage",
    "Process",
    "ProcessEntry",
    "QuotaUsage",
    "Report",
    "SpecError",
    "SpecFields",
    "Stall",
    "Stalls",
    "SubprocessError",
    "SyscallListener",
    "SyscallRequest",
    "TimeoutExpired",
    "Usage",
    "Volume",
    "__version__",
    "by_name",
    "doctor",
    "end_keepers",
    "gc",
    "ls",
    "namespaces",
    "plan",
    "popen",
    "remove_volume",
    "rm",
    "rmtree",
    "run",
    "schema",
    "volumes",
]
