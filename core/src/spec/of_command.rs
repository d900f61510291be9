//! The fields of a command by name: those of the spec that belong to a process.

use std::ffi::OsString;

use super::codec::{Bool, Bytes, FilePath, Int, Mode, Text, Time, User, Variable};
use super::fields::table;
use super::shape::{Descriptors, List, Map, Opt};
use super::{Capabilities, IoPriority, Landlock, Resource, Rlimit, Scheduler, Seccomp, Securebits, Stdio, Terminal};
use crate::command::Command;

table!(Command {
    argv: List<Bytes>,
    env: Map<OsString, Variable>,
    env_inherit: List<Bytes>,
    cwd: Opt<FilePath>,
    user: Opt<User>,
    groups: List<User>,
    umask: Opt<Mode>,
    terminal: Opt<Terminal>,
    stdin: Opt<Stdio>,
    stdout: Opt<Stdio>,
    stderr: Opt<Stdio>,
    rlimits: Map<Resource, Rlimit>,
    nice: Opt<Int>,
    scheduler: Opt<Scheduler>,
    io_priority: Opt<IoPriority>,
    oom_score_adj: Opt<Int>,
    cgroup: Opt<Text>,
    set_tid: Opt<Int>,
    start_timeout: Opt<Time>,
    capabilities: Opt<Capabilities>,
    securebits: Opt<Securebits>,
    landlock: Opt<Landlock>,
    apparmor: Opt<Text>,
    selinux: Opt<Text>,
    seccomp: Opt<Seccomp>,
    no_new_privs: Opt<Bool>,
    pass_fds: Descriptors,
});
