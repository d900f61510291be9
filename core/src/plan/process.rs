//! The PAYLOAD section: from a fresh child to the program.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::attribute::{Attribute, sched_attr};
use super::builder::{Arg, Builder, Denied, call};
use super::confine::{self, Confinement};
use super::facts::{Credentials, Inherited, Need, StreamFact};
use crate::proto::{section, slot};
use crate::security::filter::{Instruction, Program};
use crate::spec::{Capabilities, IoPriority, Policy, Resource, Rlimit, Scheduler, Securebits, Spec, Terminal};

/// The kernel looks at a new label when the program is there, and says no more than that it is refused.
const LABEL_REFUSED: Denied = Denied {
    errnos: &[libc::EACCES, libc::EPERM],
    field: "argv[0]",
    hint: "the policy may refuse the program's label: it has to allow the caller process { transition } to it, the label file \
           { entrypoint } of the program's file, and process2 { nnp_transition } under no_new_privs, { nosuid_transition } on a mount \
           with nosuid",
};

/// What main and exec'd processes have in common.
pub(crate) struct ProcessPlan<'a> {
    pub argv: &'a [OsString],
    pub env: &'a [Vec<u8>],
    pub cwd: Option<&'a std::path::Path>,
    pub umask: Option<u32>,
    pub terminal: Option<Terminal>,
    pub streams: [StreamFact; 3],
    pub pass_fds: &'a std::collections::BTreeMap<i32, i32>,
    pub rlimits: &'a std::collections::BTreeMap<Resource, Rlimit>,
    pub inherited: &'a Inherited,
    pub nice: Option<i32>,
    pub scheduler: Option<Scheduler>,
    pub io_priority: Option<IoPriority>,
    pub oom_score_adj: Option<i32>,
    pub capabilities: &'a Capabilities,
    pub no_new_privs: bool,
    pub confinement: Confinement<'a>,
    pub filter: Option<&'a Program>,
    pub credentials: &'a Credentials,
    /// setgroups(2) is denied in a user namespace with a single id; the caller's groups then show as nobody's.
    pub may_setgroups: bool,
    /// A joining process has the keeper's ids until it takes these.
    pub joined: Option<(u32, u32)>,
    /// It gets a session keyring of its own; the main process has its container's.
    pub keyring: bool,
    /// `init: false`: it is pid 1 itself, and holds the pipe by which the stage learns of its exec.
    pub is_pid_one: bool,
}

const EXEC_PIPE: u16 = slot::INIT as u16;

/// The number of the descriptor that a terminal is sent with.
pub(crate) const TERMINAL: u32 = 1;
/// The same of a filter's listener.
pub(crate) const LISTENER: u32 = 4;

const PR_SET_DUMPABLE: i32 = 4;
const CAP_SYS_ADMIN: u32 = 21;

impl ProcessPlan<'_> {
    pub fn write(&self, b: &mut Builder, needs: &mut Vec<Need>) {
        b.section(section::PAYLOAD);
        let argv0 = self.argv.first().map_or(OsStr::new(""), OsString::as_os_str);

        if self.keyring {
            confine::keyring(b, self.confinement.selinux);
        }
        if self.joined.is_some() {
            self.oom_score_adj(b);
        }
        b.field("user");
        if let Some((uid, gid)) = self.joined {
            // Until now its ids are the keeper's, which the container does not have.
            if self.may_setgroups {
                b.op(call::SETGROUPS, [0.into(), 0.into()]);
            }
            b.op(call::SETRESGID, [gid.into(), gid.into(), gid.into()]);
            b.op(call::SETRESUID, [uid.into(), uid.into(), uid.into()]);
            b.op(call::PRCTL, [PR_SET_DUMPABLE.into(), 0.into(), 0.into(), 0.into(), 0.into()]);
        }
        b.field("terminal");
        b.op(call::SETSID, []).ok(&[libc::EPERM]);
        if self.joined.is_none() {
            self.oom_score_adj(b);
        }
        self.scheduling(b);
        self.raised_limits(b);
        confine::labels(b, &self.confinement);
        self.streams(b, needs);

        b.field("umask");
        b.op(call::UMASK, [self.umask.unwrap_or(Spec::UMASK).into()]);
        self.limits(b);
        if self.no_new_privs {
            b.field("no_new_privs");
            const PR_SET_NO_NEW_PRIVS: i32 = 38;
            b.op(call::PRCTL, [PR_SET_NO_NEW_PRIVS.into(), 1.into(), 0.into(), 0.into(), 0.into()]);
        }
        confine::landlock(b, self.confinement.landlock);
        self.credentials(b);
        if self.is_pid_one {
            // A change of ids clears the death signal. Whoever holds the other end of this goes with the keeper.
            b.op(call::LIFELINE, [Arg::Slot(EXEC_PIPE)]);
        }

        b.field("cwd");
        let cwd = self.cwd.unwrap_or(std::path::Path::new("/"));
        let path = b.text(cwd.as_os_str().as_bytes());
        b.op(call::CHDIR, [path]).path(cwd.to_string_lossy());
        b.op(call::CHECK_CWD, []).path(cwd.to_string_lossy()).hint("the directory is not below the container's root");

        b.field("argv[0]");
        let argv: Vec<&[u8]> = self.argv.iter().map(|a| a.as_bytes()).collect();
        let argv = b.pointers(&argv);
        let envp = b.pointers(self.env);
        b.op(call::SIGNALS, []);
        self.filter(b);
        b.field("argv[0]");
        let candidates = candidates(argv0, self.env);
        let errnos = [libc::ENOENT, libc::ENOTDIR, libc::EACCES];
        let shown = argv0.to_string_lossy().into_owned();
        let denied = self.confinement.selinux.map(|_| LABEL_REFUSED);
        if let [only] = &candidates[..] {
            let path = b.text(only);
            b.op(call::EXECVE, [path, argv, envp]).path(shown).denied(denied);
        } else {
            for candidate in &candidates {
                let path = b.text(candidate);
                b.op(call::EXECVE, [path, argv, envp]).ok(&errnos).path(shown.clone()).denied(denied);
            }
            b.op(call::EXEC_FAILED, []).path(shown).denied(denied);
        }
    }

    /// The first number above those that are asked for.
    fn first_free(&self) -> i32 {
        self.pass_fds.values().copied().max().unwrap_or(0).max(2) + 1
    }

    /// The number by which the channel stays open up to the exec: a listener goes over it.
    fn channel(&self) -> Option<i32> {
        self.filter?.listener.as_ref().map(|_| self.first_free())
    }

    fn streams(&self, b: &mut Builder, needs: &mut Vec<Need>) {
        const O_PATH_DIR: i32 = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
        // Descriptors that are passed on are first moved out of the way of each other's numbers.
        b.field("pass_fds");
        let top = self.first_free();
        let mut moved = Vec::new();
        for (&from, &to) in self.pass_fds {
            let given = need(needs, Need::Pass(from));
            let slot = b.op(call::FCNTL, [Arg::Slot(given), libc::F_DUPFD_CLOEXEC.into(), top.into()]).keep();
            moved.push((slot, to));
        }
        const NAMES: [&str; 3] = ["stdin", "stdout", "stderr"];
        let mut sources: [Option<Arg>; 3] = [None; 3];
        if let Some(terminal) = self.terminal {
            b.field("terminal");
            let pts = b.text("/dev/pts");
            let ptmx = b.text("ptmx");
            let dir = b.op(call::OPENAT, [libc::AT_FDCWD.into(), pts, O_PATH_DIR.into()]).path("/dev/pts").keep();
            let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC | libc::O_NOFOLLOW;
            let master = b.op(call::OPENAT, [Arg::Slot(dir), ptmx, flags.into()]).path("/dev/pts/ptmx").keep();
            // An image or a payload may have put something else there (CVE-2025-52565): a pty's multiplexer is 5:2.
            let ptmx_device = libc::makedev(5, 2);
            b.op(call::VERIFY, [Arg::Slot(master), libc::S_IFCHR.into(), ptmx_device.into()]).path("/dev/pts/ptmx");
            let zero = b.words(&[0]);
            b.op(call::IOCTL, [Arg::Slot(master), (libc::TIOCSPTLCK).into(), zero]);
            let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
            let peer = b.op(call::IOCTL, [Arg::Slot(master), (libc::TIOCGPTPEER).into(), flags.into()]).keep();
            let size = u64::from(terminal.rows) | u64::from(terminal.cols) << 16;
            let size = b.words(&[size]);
            b.op(call::IOCTL, [Arg::Slot(master), (libc::TIOCSWINSZ).into(), size]);
            b.op(call::IOCTL, [Arg::Slot(peer), (libc::TIOCSCTTY).into(), 0.into()]);
            b.op(call::SEND_FD, [Arg::Slot(master), TERMINAL.into()]);
            sources = [Some(Arg::Slot(peer)); 3];
        } else {
            let null = b.text("/dev/null");
            for (i, stream) in self.streams.into_iter().enumerate() {
                b.field(NAMES[i]);
                sources[i] = match stream {
                    StreamFact::Given => Some(Arg::Slot(need(needs, Need::Stream(i)))),
                    StreamFact::SameAsStdout => sources[1],
                    StreamFact::Null => {
                        // The keeper's own /dev/null is of its mount namespace; this one is the container's.
                        let flags = libc::O_RDWR | libc::O_CLOEXEC;
                        let fd =
                            b.op(call::OPENAT, [libc::AT_FDCWD.into(), null, flags.into()]).path("/dev/null").keep();
                        let device = libc::makedev(1, 3);
                        b.op(call::VERIFY, [Arg::Slot(fd), libc::S_IFCHR.into(), device.into()]).path("/dev/null");
                        Some(Arg::Slot(fd))
                    }
                };
            }
        }
        for (i, source) in sources.into_iter().enumerate() {
            b.field(NAMES[i]);
            if let Some(source) = source {
                b.op(call::DUP3, [source, (i as i32).into(), 0.into()]);
            }
        }
        b.field("pass_fds");
        if self.is_pid_one {
            // Its role knows of the exec by this descriptor's end: out of the way of the numbers that are asked for.
            let above = top + i32::from(self.channel().is_some());
            let moved = b.op(call::FCNTL, [Arg::Slot(EXEC_PIPE), libc::F_DUPFD_CLOEXEC.into(), above.into()]);
            moved.keep_in(EXEC_PIPE);
        }
        let channel = self.channel().map(|number| {
            let given = Arg::Slot(slot::CHANNEL as u16);
            (b.op(call::FCNTL, [given, libc::F_DUPFD_CLOEXEC.into(), top.into()]).keep(), number)
        });
        let mut keep = vec![0u32, 1, 2];
        for (slot, to) in moved {
            b.op(call::DUP3, [Arg::Slot(slot), to.into(), 0.into()]);
            keep.push(to as u32);
        }
        if let Some((slot, number)) = channel {
            // EINVAL: it has this number already.
            let flags = libc::O_CLOEXEC.into();
            b.op(call::DUP3, [Arg::Slot(slot), number.into(), flags]).ok(&[libc::EINVAL]);
            keep.push(number as u32);
        }
        // All others are closed by the exec, which is too late: a working directory, a program or the interpreter of a
        // script could be reached through /proc/self/fd before (CVE-2024-21626).
        let bytes: Vec<u8> = keep.iter().flat_map(|fd| fd.to_ne_bytes()).collect();
        let list = b.bytes(&bytes);
        let pipe = if self.is_pid_one { Arg::Slot(EXEC_PIPE) } else { (-1).into() };
        b.op(call::CLOSE_OTHERS, [list, (keep.len() as u64).into(), pipe]);
    }

    /// The file of a task that is not dumpable belongs to root of the namespace in which its program, the keeper, was
    /// executed. A joining process still is that. The main process makes itself dumpable for this moment, in which the
    /// container has nobody else who could look into it.
    fn oom_score_adj(&self, b: &mut Builder) {
        let Some(value) = self.oom_score_adj else { return };
        b.field("oom_score_adj");
        let dumpable = |yes: i32, b: &mut Builder| {
            if self.joined.is_none() {
                b.op(call::PRCTL, [PR_SET_DUMPABLE.into(), yes.into(), 0.into(), 0.into(), 0.into()]);
            }
        };
        dumpable(1, b);
        let path = b.text("self/oom_score_adj");
        let flags = libc::O_WRONLY | libc::O_CLOEXEC;
        let file = b.op(call::OPENAT, [Arg::Slot(slot::PROC as u16), path, flags.into()]).keep();
        dumpable(0, b);
        let text = value.to_string();
        let data = b.text(&text);
        b.op(call::WRITE_ALL, [Arg::Slot(file), data, (text.len() as u64).into()]).path("/proc/self/oom_score_adj");
        b.or_ask(Attribute::OomScoreAdj(value), "below the caller's own value it takes CAP_SYS_RESOURCE on the host");
        b.op(call::CLOSE, [Arg::Slot(file)]);
    }

    /// Before the streams: what the process may not do itself it asks its host for, by a channel that is closed then.
    fn scheduling(&self, b: &mut Builder) {
        b.field("nice");
        let nice = self.nice.unwrap_or(self.inherited.nice);
        b.op(call::SETPRIORITY, [0.into(), 0.into(), nice.into()]);
        b.or_ask(
            Attribute::Nice(nice),
            "below the caller's own value it takes CAP_SYS_NICE on the host, or RLIMIT_NICE of 20 less the value",
        );
        if !self.inherited.affinity.is_empty() {
            b.field("cpu affinity of the caller");
            let mask = b.bytes(&self.inherited.affinity);
            // The container's cpuset may exclude them all.
            b.op(call::SCHED_SETAFFINITY, [0.into(), (self.inherited.affinity.len() as u64).into(), mask])
                .ok(&[libc::EINVAL]);
        }
        if let Some(scheduler) = &self.scheduler {
            // After the affinity, which a deadline forbids to change.
            b.field("scheduler");
            let attr = sched_attr(scheduler, nice);
            let data = b.words(&attr);
            let hint = match scheduler.policy {
                _ if scheduler.uclamp_min.is_some() || scheduler.uclamp_max.is_some() => {
                    "uclamp_min and uclamp_max take a kernel with CONFIG_UCLAMP_TASK (and the policy the rights that it takes)"
                }
                Policy::Fifo { .. } | Policy::RoundRobin { .. } => {
                    "real-time policies take CAP_SYS_NICE on the host, or RLIMIT_RTPRIO of at least the priority; in a group \
                     of the cpu controller of cgroup v1 also cpu_rt_runtime"
                }
                Policy::Deadline { .. } => {
                    "deadline takes CAP_SYS_NICE on the host, all processors for caller and container, and processor time that \
                     other deadlines have left"
                }
                _ => "it takes CAP_SYS_NICE on the host where the caller has a lower standing itself",
            };
            b.op(call::SCHED_SETATTR, [0.into(), data, 0.into()]).hint(hint);
            b.or_ask(Attribute::Scheduler(attr), hint);
        }
        if let Some(priority) = self.io_priority {
            b.field("io_priority");
            const IOPRIO_WHO_PROCESS: i32 = 1;
            let number = priority.number();
            b.op(call::IOPRIO_SET, [IOPRIO_WHO_PROCESS.into(), 0.into(), number.into()]);
            b.or_ask(
                Attribute::IoPriority(number),
                "the realtime class takes CAP_SYS_NICE or CAP_SYS_ADMIN on the host",
            );
        }
    }

    /// A hard limit above the caller's is the host's to give.
    fn raised_limits(&self, b: &mut Builder) {
        for (resource, inherited) in &self.inherited.rlimits {
            let Some(asked) = self.rlimits.get(resource).filter(|asked| asked.hard > inherited.hard) else { continue };
            b.field(format!("rlimits.{}", resource.name()));
            // The soft limit comes last, so that it holds nothing up.
            let limit = Rlimit { soft: inherited.soft, hard: asked.hard };
            let data = b.words(&[limit.soft, limit.hard]);
            b.op(call::PRLIMIT64, [0.into(), resource.number().into(), data, 0.into()]);
            b.or_ask(
                Attribute::Rlimit(*resource, limit),
                "a hard limit above the caller's own takes CAP_SYS_RESOURCE on the host",
            );
        }
    }

    fn limits(&self, b: &mut Builder) {
        for (resource, inherited) in &self.inherited.rlimits {
            let asked = self.rlimits.get(resource);
            b.field(format!("rlimits.{}", resource.name()));
            let limit = asked.unwrap_or(inherited);
            let data = b.words(&[limit.soft, limit.hard]);
            let step = b
                .op(call::PRLIMIT64, [0.into(), resource.number().into(), data, 0.into()])
                .hint("a hard limit above the caller's own takes CAP_SYS_RESOURCE on the host");
            if asked.is_none() {
                // The keeper's own hard limit may have been lowered since its start.
                step.ok(&[libc::EPERM]);
            }
        }
    }

    fn credentials(&self, b: &mut Builder) {
        let Credentials { uid, gid, groups } = self.credentials;
        let securebits = self.confinement.securebits;
        let mut sets = self.capabilities.sets(*uid == 0 && !securebits.has(Securebits::NOROOT));
        sets.ambient &= sets.bounding;
        b.field("capabilities");
        b.op(call::BOUNDING, [sets.bounding.into()]);
        const PR_SET_KEEPCAPS: i32 = 8;
        let keeps = sets.permitted != 0 || sets.inheritable != 0 || securebits.0 != 0;
        if *uid != 0 && (keeps || self.needs_admin()) {
            b.op(call::PRCTL, [PR_SET_KEEPCAPS.into(), 1.into(), 0.into(), 0.into(), 0.into()]);
        }
        b.field(if groups.is_empty() { "user" } else { "groups" });
        if self.may_setgroups {
            let bytes: Vec<u8> = groups.iter().flat_map(|g| g.to_ne_bytes()).collect();
            let list = b.bytes(&bytes);
            b.op(call::SETGROUPS, [(groups.len() as u64).into(), list]).hint("every id has to be mapped: see idmap");
        }
        b.field("user");
        let id_hint = "the id has to be mapped into the container: see idmap";
        b.op(call::SETRESGID, [(*gid).into(), (*gid).into(), (*gid).into()]).hint(id_hint);
        b.op(call::SETRESUID, [(*uid).into(), (*uid).into(), (*uid).into()]).hint(id_hint);
        b.field("capabilities");
        // What the exec makes of these is what was asked for: Capabilities::check_exec. Inheritable has what is ambient, which
        // the kernel demands, and is otherwise empty (CVE-2022-29162) unless the spec says more.
        // It has what a filter takes up to the exec, which gives what the bounding and ambient sets say whatever was permitted before.
        let admin = if self.needs_admin() { 1 << CAP_SYS_ADMIN } else { 0 };
        let (permitted, effective) = (sets.permitted | admin, sets.effective | admin);
        if securebits.0 == 0 {
            capset(b, permitted, effective, sets.inheritable);
            if sets.ambient != 0 {
                b.op(call::AMBIENT, [sets.ambient.into()]);
            }
            return;
        }
        // The bits take CAP_SETPCAP, and one of them would forbid what is ambient: they come between.
        const SETPCAP: u64 = 1 << 8;
        const PR_SET_SECUREBITS: i32 = 28;
        let meanwhile = permitted | SETPCAP;
        capset(b, meanwhile, meanwhile, sets.inheritable);
        if sets.ambient != 0 {
            b.op(call::AMBIENT, [sets.ambient.into()]);
        }
        b.field("securebits");
        let step = b.op(call::PRCTL, [PR_SET_SECUREBITS.into(), securebits.0.into(), 0.into(), 0.into(), 0.into()]);
        if securebits.0 & Securebits::OF_INTERPRETERS != 0 {
            step.hint("exec_restrict_file and exec_deny_interactive take Linux 6.14");
        } else {
            step.hint("it takes CAP_SETPCAP in the user namespace, and what is locked stays");
        }
        b.field("capabilities");
        capset(b, permitted, effective, sets.inheritable);
    }

    /// Without no_new_privs a filter takes CAP_SYS_ADMIN, which is kept up to the exec then.
    fn needs_admin(&self) -> bool {
        self.filter.is_some() && !self.no_new_privs
    }

    /// The last thing before the exec: nothing else has to be let through by it.
    fn filter(&self, b: &mut Builder) {
        let Some(program) = self.filter else { return };
        b.field("seccomp");
        const SET_MODE_FILTER: i32 = 1;
        if let (Some(listener), Some(channel)) = (&program.listener, self.channel()) {
            let fprog = fprog(b, &listener.instructions);
            let fd = b.op(call::SECCOMP_LISTENER, [SET_MODE_FILTER.into(), listener.flags.into(), fprog]).keep();
            b.op(call::HAND_OVER, [Arg::Slot(fd), LISTENER.into(), channel.into(), listener.sends_by.into()]);
        }
        let fprog = fprog(b, &program.instructions);
        b.op(call::SECCOMP, [SET_MODE_FILTER.into(), program.flags.into(), fprog]).hint(
            "it takes a kernel with CONFIG_SECCOMP_FILTER, and without no_new_privs CAP_SYS_ADMIN; seccomp \"none\" goes without",
        );
    }
}

/// struct sock_fprog: the length, and after padding the address, which is an offset until it is relocated.
fn fprog(b: &mut Builder, instructions: &[Instruction]) -> Arg {
    let bytes: Vec<u8> = instructions.iter().flat_map(|instruction| instruction.bytes()).collect();
    let Arg::Data(at) = b.bytes(&bytes) else { unreachable!("bytes gives an offset") };
    let fprog = b.words(&[instructions.len() as u64, at]);
    let Arg::Data(words) = fprog else { unreachable!("words gives an offset") };
    b.op(call::RELOCATE, [(words + 8).into(), 1.into()]);
    fprog
}

fn capset(b: &mut Builder, permitted: u64, effective: u64, inheritable: u64) {
    let header = b.words(&[u64::from(0x2008_0522u32)]);
    let half = |mask: u64, shift: u32| (mask >> shift) & 0xffff_ffff;
    let data = b.words(&[
        half(effective, 0) | half(permitted, 0) << 32,
        half(inheritable, 0) | half(effective, 32) << 32,
        half(permitted, 32) | half(inheritable, 32) << 32,
    ]);
    b.op(call::CAPSET, [header, data]).hint("a capability that the caller does not have cannot be given");
}

/// Notes a need once; its slot.
pub(crate) fn need(needs: &mut Vec<Need>, what: Need) -> u16 {
    needs.push(what);
    (slot::FIRST as usize + needs.len() - 1) as u16
}

/// Where execvp(3) would look.
fn candidates(program: &OsStr, env: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let program = program.as_bytes();
    if program.contains(&b'/') || program.is_empty() {
        return vec![program.to_vec()];
    }
    let path = env.iter().find_map(|v| v.strip_prefix(b"PATH=")).unwrap_or(b"/usr/local/bin:/usr/bin:/bin");
    path.split(|&b| b == b':')
        .map(|dir| {
            let mut candidate = if dir.is_empty() { b".".to_vec() } else { dir.to_vec() };
            candidate.push(b'/');
            candidate.extend_from_slice(program);
            candidate
        })
        .collect()
}
