//! The profiles that come with the library, as data; and what a spec's filter is for a process.

use super::rules::{
    Context, Filter, Seccomp, SeccompAction, SeccompArch, SeccompOp, SeccompProfile, SeccompRule, SeccompRules,
    SeccompWhen,
};

/// What containers customarily may do, whatever their capabilities: in effect the profile of Docker (moby/profiles, its
/// seccomp/default.json), with which the tests compare it.
const DEFAULT: &str = "\
    read readv pread64 preadv preadv2 write writev pwrite64 pwritev pwritev2 lseek _llseek sendfile sendfile64 splice tee vmsplice \
    copy_file_range readahead fadvise64 fadvise64_64 fallocate ftruncate ftruncate64 truncate truncate64 fsync fdatasync sync \
    syncfs sync_file_range cachestat \
    open openat openat2 creat close close_range dup dup2 dup3 fcntl fcntl64 flock ioctl pipe pipe2 memfd_create memfd_secret \
    name_to_handle_at \
    stat stat64 lstat lstat64 fstat fstat64 fstatat64 newfstatat statx statfs statfs64 fstatfs fstatfs64 statmount listmount \
    access faccessat faccessat2 getdents getdents64 readlink readlinkat getcwd chdir fchdir umask \
    mkdir mkdirat rmdir mknod mknodat link linkat symlink symlinkat unlink unlinkat rename renameat renameat2 \
    chmod fchmod fchmodat fchmodat2 chown chown32 fchown fchown32 fchownat lchown lchown32 utime utimes futimesat utimensat \
    utimensat_time64 file_getattr file_setattr \
    getxattr lgetxattr fgetxattr getxattrat setxattr lsetxattr fsetxattr setxattrat listxattr llistxattr flistxattr \
    listxattrat removexattr lremovexattr fremovexattr removexattrat \
    poll ppoll ppoll_time64 select _newselect pselect6 pselect6_time64 epoll_create epoll_create1 epoll_ctl epoll_ctl_old \
    epoll_wait epoll_wait_old epoll_pwait epoll_pwait2 eventfd eventfd2 signalfd signalfd4 inotify_init inotify_init1 \
    inotify_add_watch inotify_rm_watch fanotify_mark \
    io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents io_pgetevents_time64 \
    brk mmap mmap2 munmap mprotect mremap msync madvise mincore mlock mlock2 mlockall munlock munlockall mseal membarrier \
    remap_file_pages map_shadow_stack pkey_alloc pkey_free pkey_mprotect \
    fork vfork execve execveat exit exit_group wait4 waitid waitpid getpid getppid gettid getpgid getpgrp setpgid getsid setsid \
    set_tid_address set_robust_list get_robust_list set_thread_area get_thread_area rseq prctl uname sysinfo getrusage times \
    getcpu pidfd_open pidfd_send_signal process_mrelease restart_syscall uretprobe \
    kill tkill tgkill pause alarm sigaltstack sigprocmask sigreturn rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo \
    rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo \
    futex futex_time64 futex_waitv futex_wait futex_wake futex_requeue \
    time gettimeofday adjtimex clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 \
    clock_nanosleep clock_nanosleep_time64 nanosleep getitimer setitimer timer_create timer_delete timer_getoverrun \
    timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 \
    timerfd_settime timerfd_settime64 \
    sched_yield sched_getaffinity sched_setaffinity sched_getattr sched_setattr sched_getparam sched_setparam \
    sched_getscheduler sched_setscheduler sched_get_priority_max sched_get_priority_min sched_rr_get_interval \
    sched_rr_get_interval_time64 getpriority setpriority ioprio_get ioprio_set getrlimit ugetrlimit setrlimit prlimit64 \
    getuid getuid32 geteuid geteuid32 getgid getgid32 getegid getegid32 getresuid getresuid32 getresgid getresgid32 getgroups \
    getgroups32 setuid setuid32 setgid setgid32 setreuid setreuid32 setregid setregid32 setresuid setresuid32 setresgid \
    setresgid32 setfsuid setfsuid32 setfsgid setfsgid32 setgroups setgroups32 capget capset \
    bind listen accept accept4 connect getsockname getpeername getsockopt setsockopt shutdown \
    sendto sendmsg sendmmsg recvfrom recvmsg recvmmsg recvmmsg_time64 \
    ipc msgget msgctl msgsnd msgrcv semget semctl semop semtimedop semtimedop_time64 shmget shmat shmctl shmdt mq_open \
    mq_unlink mq_notify mq_getsetattr mq_timedsend mq_timedsend_time64 mq_timedreceive mq_timedreceive_time64 \
    seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self getrandom \
    ptrace process_vm_readv process_vm_writev arch_prctl modify_ldt";

const SYS_ADMIN: u32 = 21;

/// What capabilities give beyond that, by their numbers.
const WITH_CAPABILITY: [(u32, &str); 14] = [
    (2, "open_by_handle_at"),
    (16, "init_module finit_module delete_module"),
    (17, "iopl ioperm"),
    (18, "chroot"),
    (19, "kcmp pidfd_getfd process_madvise"),
    (20, "acct"),
    (
        SYS_ADMIN,
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr lsm_list_modules \
         lsm_set_self_attr mount mount_setattr move_mount open_tree open_tree_attr perf_event_open quotactl quotactl_fd \
         setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    (22, "reboot"),
    (23, "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    (25, "settimeofday stime clock_settime clock_settime64"),
    (26, "vhangup"),
    (34, "syslog"),
    (38, "perf_event_open"),
    (39, "bpf"),
];

/// What a container of containers needs beyond what CAP_SYS_ADMIN gives: in the user namespaces that it makes it has that.
const NESTING: &str = "pivot_root";

/// Of the default profile, what few programs need: tracing and reading others, the ways in which the kernel was broken into,
/// what is the whole machine's (its clock, what is in its page cache), and what has no filter of its own (ipc of 32-bit programs).
const NOT_STRICT: &str = "\
    ptrace process_vm_readv process_vm_writev kcmp pidfd_getfd process_madvise process_mrelease modify_ldt remap_file_pages \
    vmsplice userfaultfd memfd_secret name_to_handle_at fanotify_mark statmount listmount io_setup io_destroy io_submit \
    io_cancel io_getevents io_pgetevents io_pgetevents_time64 adjtimex clock_adjtime clock_adjtime64 ipc mknod mknodat \
    cachestat";

/// The flags of clone(2) that make namespaces.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

fn errno(errno: i32) -> SeccompAction {
    SeccompAction::Errno(errno as u16)
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_ascii_whitespace()
}

fn allow(names: &str) -> SeccompRule {
    SeccompRule::new(words(names), SeccompAction::Allow)
}

/// `int` arguments: the upper half is not theirs.
const INT: SeccompOp = SeccompOp::MaskedEqual(0xffff_ffff);

fn personality(rules: &mut Vec<SeccompRule>, values: &[u64]) {
    let rule = |&value: &u64| allow("personality").arg(0, INT, value);
    rules.extend(values.iter().map(rule));
}

/// New namespaces take another way, and clone3 has its flags in memory, where no filter sees them: a program that is told that
/// there is none takes clone.
fn no_namespaces(rules: &mut Vec<SeccompRule>) {
    rules.push(allow("clone").arg(0, SeccompOp::MaskedEqual(NEW_NAMESPACES), 0));
    rules.push(SeccompRule::new(["clone3"], errno(libc::ENOSYS)));
}

/// What types into a terminal for somebody else, and what copies from a console and pastes into it.
fn no_typing() -> Vec<SeccompRule> {
    let refuse = |request| SeccompRule::new(["ioctl"], errno(libc::EPERM)).arg(1, INT, request);
    vec![refuse(libc::TIOCSTI), refuse(libc::TIOCLINUX)]
}

fn default_rules(nesting: bool, context: &Context) -> Vec<SeccompRule> {
    let capabilities = context.capabilities | if nesting { 1 << SYS_ADMIN } else { 0 };
    let mut rules = no_typing();
    rules.push(allow(DEFAULT));
    for (capability, names) in WITH_CAPABILITY {
        if capabilities & 1 << capability != 0 {
            rules.push(allow(names));
        }
    }
    if nesting {
        rules.push(allow(NESTING));
    }
    if capabilities & 1 << SYS_ADMIN == 0 {
        no_namespaces(&mut rules);
    }
    // They lead out of every namespace: to the kernel's cryptography, and to a hypervisor. (The kernel makes sockets of a family, and
    // loads its module, before it says that there are no pairs of them.)
    for family in [libc::AF_ALG, libc::AF_VSOCK] {
        rules.push(SeccompRule::new(["socket", "socketpair"], errno(libc::EPERM)).arg(0, INT, family as u64));
    }
    // And by the multiplexer of 32-bit programs, which has the family in memory: they have socket itself since Linux 4.3.
    const SOCKET: u64 = 1;
    const SOCKETPAIR: u64 = 8;
    for call in [SOCKET, SOCKETPAIR] {
        rules.push(SeccompRule::new(["socketcall"], errno(libc::ENOSYS)).arg(0, INT, call));
    }
    rules.push(allow("socket socketpair socketcall"));
    // PER_LINUX and PER_LINUX32, with and without UNAME26; and what only asks.
    personality(&mut rules, &[0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff]);
    rules
}

fn strict_rules() -> Vec<SeccompRule> {
    let names = words(DEFAULT).filter(|name| !words(NOT_STRICT).any(|not| not == *name));
    let mut rules = no_typing();
    // Line disciplines are drivers that a terminal of one's own gets by this, loaded as modules.
    rules.push(SeccompRule::new(["ioctl"], errno(libc::EPERM)).arg(1, INT, libc::TIOCSETD));
    // Urgent data of AF_UNIX (CVE-2025-38236): refused as by a kernel without.
    const OUT_OF_BAND: u64 = libc::MSG_OOB as u64;
    for (name, flags) in [("sendto", 3), ("sendmsg", 2), ("sendmmsg", 3)] {
        let urgent = SeccompOp::MaskedEqual(OUT_OF_BAND);
        rules.push(SeccompRule::new([name], errno(libc::EOPNOTSUPP)).arg(flags, urgent, OUT_OF_BAND));
    }
    rules.push(SeccompRule::new(names, SeccompAction::Allow));
    // Files and fifos; devices and sockets come from others.
    for (name, mode) in [("mknod", 1), ("mknodat", 2)] {
        for kind in [0, libc::S_IFREG, libc::S_IFIFO] {
            rules.push(allow(name).arg(mode, SeccompOp::MaskedEqual(libc::S_IFMT.into()), kind.into()));
        }
    }
    no_namespaces(&mut rules);
    rules.push(allow("socket socketpair").arg(0, INT, libc::AF_UNIX as u64));
    rules.push(SeccompRule::new(["socket", "socketpair"], errno(libc::EAFNOSUPPORT)));
    personality(&mut rules, &[0, 0xffff_ffff]);
    rules
}

/// What Landlock's rules about TCP ports do not see: sockets that speak TCP under another protocol, data that connects, and what
/// makes and uses sockets where no filter looks. The answers are those of a kernel that has none of it, so that programs take TCP.
/// listen(2) on a socket without an address, of which Landlock is not asked, is not among it: the socket could as well be of AF_UNIX.
fn no_way_round_ports() -> Vec<SeccompRule> {
    const AF_SMC: u64 = 43;
    const IPPROTO_SMC: u64 = 256;
    let mut rules = vec![SeccompRule::new(["socket"], errno(libc::EAFNOSUPPORT)).arg(0, INT, AF_SMC)];
    for protocol in [libc::IPPROTO_MPTCP as u64, IPPROTO_SMC] {
        rules.push(SeccompRule::new(["socket"], errno(libc::EPROTONOSUPPORT)).arg(2, INT, protocol));
    }
    const FAST_OPEN: u64 = libc::MSG_FASTOPEN as u64;
    for (name, flags) in [("sendto", 3), ("sendmsg", 2), ("sendmmsg", 3)] {
        let connects = SeccompOp::MaskedEqual(FAST_OPEN);
        rules.push(SeccompRule::new([name], errno(libc::EOPNOTSUPP)).arg(flags, connects, FAST_OPEN));
    }
    // By the multiplexer of 32-bit programs: socket, sendto, sendmsg, sendmmsg.
    for call in [1, 11, 16, 20] {
        rules.push(SeccompRule::new(["socketcall"], errno(libc::ENOSYS)).arg(0, INT, call));
    }
    rules.push(SeccompRule::new(["io_uring_setup"], errno(libc::EPERM)));
    rules
}

/// What a filter answers to calls that its rules do not know: as a kernel that does not know them either, so that programs take
/// another way. Where nobody is refused anything, or somebody decides call by call, there is no such answer.
fn unknown(default: SeccompAction) -> Option<SeccompAction> {
    default.refuses().then_some(errno(libc::ENOSYS))
}

/// What the spec's filter is for a process; `None`: there is none. Rules of one's own have been validated.
pub(super) fn filter(seccomp: &Seccomp, nesting: bool, context: &Context) -> Option<Filter> {
    let profile = |profile| SeccompRules { profile: Some(profile), ..SeccompRules::default() };
    match seccomp {
        Seccomp::Unconfined if context.ports => Some(Filter {
            default: SeccompAction::Allow,
            unknown: None,
            architectures: context.native.family().to_vec(),
            rules: no_way_round_ports(),
        }),
        Seccomp::Unconfined => None,
        Seccomp::Default => Some(of_rules(&profile(SeccompProfile::Default), nesting, context)),
        Seccomp::Strict => Some(of_rules(&profile(SeccompProfile::Strict), nesting, context)),
        Seccomp::Rules(rules) => Some(of_rules(rules, nesting, context)),
    }
}

fn of_rules(own: &SeccompRules, nesting: bool, context: &Context) -> Filter {
    let family = context.native.family();
    let (more, all): (_, &[SeccompArch]) = match own.profile {
        Some(SeccompProfile::Default) => (default_rules(nesting, context), family),
        Some(SeccompProfile::Strict) => (strict_rules(), &family[..1]),
        None => (Vec::new(), &family[..1]),
    };
    let ports = if context.ports { no_way_round_ports() } else { Vec::new() };
    let default = own.default_action.unwrap_or(errno(libc::EPERM));
    let counts = |rule: &&SeccompRule| rule.when == SeccompWhen::default() || rule.when.holds(context);
    let architectures = match own.architectures.as_slice() {
        [] => all.to_vec(),
        listed => family.iter().copied().filter(|arch| listed.contains(arch)).collect(),
    };
    Filter {
        default,
        unknown: unknown(default),
        architectures,
        // Before one's own: an allowed call is not allowed the way round.
        rules: ports.into_iter().chain(own.rules.iter().filter(counts).cloned()).chain(more).collect(),
    }
}
