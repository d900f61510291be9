//! The table that OpenVZ has in /proc/user_beancounters.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::OwnedFd;

use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, fstatat};
use serde_json::json;

use super::{Container, Inner, lock, net_usage};
use crate::cgroup::{Controls, Usage};
use crate::error::Result;
use crate::plan::container::namespace_source;
use crate::spec::{NamespaceKind, NamespaceSource, Resource, Rlimit};

/// One resource of OpenVZ's table, as this kernel counts it for a container.
///
/// `None`: there is no such figure here; `source` says why, or what stands for it. A limit that is not set is `None` too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beancounter {
    /// OpenVZ's name: `numproc`, `physpages`, ...
    pub resource: &'static str,
    /// Of all figures but `failcnt`: `items`, `pages` (of this machine's size) or `bytes`.
    pub unit: &'static str,
    /// In use now.
    pub held: Option<u64>,
    /// The most that was in use at once.
    pub maxheld: Option<u64>,
    /// A soft limit or a guarantee.
    pub barrier: Option<u64>,
    /// The hard limit.
    pub limit: Option<u64>,
    /// How often something was refused, or had to give way.
    pub failcnt: Option<u64>,
    /// Where the figures come from, and why some or all of them are missing.
    pub source: &'static str,
}

impl Beancounter {
    /// A JSON array of objects with the fields of this struct; `null` for what is not there.
    pub fn to_json(counters: &[Self]) -> String {
        let object = |c: &Self| {
            json!({
                "resource": c.resource, "unit": c.unit, "held": c.held, "maxheld": c.maxheld, "barrier": c.barrier,
                "limit": c.limit, "failcnt": c.failcnt, "source": c.source,
            })
        };
        serde_json::Value::from(counters.iter().map(object).collect::<Vec<_>>()).to_string()
    }
}

impl Container {
    /// Every resource that OpenVZ counts: what is held of it, the most that was, its limits, how often they were met, as far as
    /// this kernel can tell; for each where the figures come from or why there are none.
    ///
    /// What no control group counts is added up over the processes, from /proc. That takes some 20 us for each process, and is no
    /// picture of one moment. After the end nothing is held.
    ///
    /// # Errors
    /// Unsupported when it has no control group (an ordinary caller without delegation).
    pub fn beancounters(&self) -> Result<Vec<Beancounter>> {
        let usage = self.usage()?;
        let inner = self.inner();
        let group = self.control_group()?;
        let pids = group.members().unwrap_or_default();
        let rlimits = lock(&inner.spec_now).rlimits.clone();
        let processes = Processes::look(&pids);
        let own_net = namespace_source(&inner.spec, NamespaceKind::Net) != NamespaceSource::Host;
        let sockets = match inner.net_directory() {
            Some(directory) => Sockets::look(&directory),
            None if pids.is_empty() && own_net => Sockets::none(),
            None => Sockets::default(),
        };
        let ptys = Ptys::look(inner, pids.is_empty());
        Ok(table(&usage, &group.controls(), &processes, &sockets, &ptys, &rlimits))
    }
}

/// What processes have, added up.
#[derive(Debug, Default, PartialEq, Eq)]
struct Processes {
    /// Open descriptors; `None`: those of a process may not be seen.
    files: Option<u64>,
    /// Bytes.
    locked: u64,
    /// Bytes.
    private: u64,
    /// For each user once: the kernel counts them so.
    signals: u64,
    locks: u64,
}

impl Processes {
    fn look(pids: &[i32]) -> Self {
        let mut all = Self { files: Some(0), ..Self::default() };
        let mut signals: BTreeMap<u64, u64> = BTreeMap::new();
        for pid in pids {
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            // It may have ended meanwhile.
            let Ok(process) = nix::fcntl::open(format!("/proc/{pid}").as_str(), flags, Mode::empty()) else { continue };
            let Some(status) = net_usage::open(&process, "status").and_then(|file| net_usage::text(&file)) else {
                continue;
            };
            let (mut uid, mut queued) = (0, 0);
            for (key, value) in status.lines().filter_map(|line| line.split_once(':')) {
                // `VmLck: 8 kB`, `Uid: 0 0 0 0`, `SigQ: 1/7823`.
                let mut numbers = value.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u64>().ok());
                let first = numbers.next().unwrap_or(0);
                match key {
                    "VmLck" => all.locked += first << 10,
                    "VmData" | "VmStk" => all.private += first << 10,
                    "Uid" => uid = first,
                    "SigQ" => queued = first,
                    _ => {}
                }
            }
            let most = signals.entry(uid).or_default();
            *most = queued.max(*most);
            match open_files(&process) {
                Ok(files) => all.files = all.files.map(|n| n + files),
                // Ended.
                Err(nix::errno::Errno::ENOENT | nix::errno::Errno::ESRCH) => {}
                Err(_) => all.files = None,
            }
        }
        all.signals = signals.values().sum();
        all.locks = locks(&fs::read_to_string("/proc/locks").unwrap_or_default(), pids);
        all
    }
}

/// The size of the directory is their number since Linux 6.2; before, they have to be listed, which takes more rights.
fn open_files(process: &OwnedFd) -> nix::Result<u64> {
    let size = fstatat(process, "fd", AtFlags::empty())?.st_size;
    if size > 0 {
        return Ok(size as u64);
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut listed = nix::dir::Dir::openat(process, "fd", flags, Mode::empty())?;
    let dots = 2;
    Ok((listed.iter().flatten().count() as u64).saturating_sub(dots))
}

/// proc_locks(5): `1: POSIX  ADVISORY  WRITE PID ...`; what waits has `->` behind its number.
fn locks(text: &str, pids: &[i32]) -> u64 {
    let pids: BTreeSet<i32> = pids.iter().copied().collect();
    let held = |line: &&str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        matches!(words.get(1), Some(&("POSIX" | "FLOCK")))
            && words.get(4).and_then(|pid| pid.parse().ok()).is_some_and(|pid: i32| pids.contains(&pid))
    };
    text.lines().filter(held).count() as u64
}

/// Of a network namespace.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sockets {
    tcp: Option<u64>,
    all: Option<u64>,
    /// Bytes in the queues of TCP.
    tcp_sent: Option<u64>,
    tcp_received: Option<u64>,
    /// Bytes of buffers with what UDP received.
    datagrams: Option<u64>,
    devices: Option<u64>,
}

impl Sockets {
    fn none() -> Self {
        let none = Some(0);
        Self { tcp: none, all: none, tcp_sent: none, tcp_received: none, datagrams: none, devices: none }
    }

    fn look(directory: &OwnedFd) -> Self {
        let text = |name: &str| net_usage::open(directory, name).and_then(|file| net_usage::text(&file));
        let all = text("sockstat").unwrap_or_default();
        // Without IPv6 there are no such files.
        let all6 = text("sockstat6").unwrap_or_default();
        let tcp = figure(&all, "TCP:", "inuse").map(|tcp| tcp + figure(&all6, "TCP6:", "inuse").unwrap_or(0));
        let queues = |names: [&str; 2]| {
            let [v4, v6] = names.map(|name| text(name).map(|text| queued(&text)));
            let (a, b) = (v4?, v6.unwrap_or_default());
            Some((a.0 + b.0, a.1 + b.1))
        };
        let (streams, datagrams) = (queues(["tcp", "tcp6"]), queues(["udp", "udp6"]));
        Self {
            tcp,
            all: figure(&all, "sockets:", "used"),
            tcp_sent: streams.map(|(sent, _)| sent),
            tcp_received: streams.map(|(_, received)| received),
            datagrams: datagrams.map(|(_, received)| received),
            devices: text("dev").map(|text| text.lines().skip(2).count() as u64),
        }
    }
}

/// `TCP: inuse 3 orphan 0 ...`.
fn figure(text: &str, line: &str, key: &str) -> Option<u64> {
    let mut words = text.lines().find_map(|l| l.strip_prefix(line))?.split_whitespace();
    words.find(|word| *word == key)?;
    words.next()?.parse().ok()
}

/// proc_pid_net(5): the fifth column of tcp and udp is `SENT:RECEIVED`, hexadecimal; of a listening socket that is another thing.
fn queued(text: &str) -> (u64, u64) {
    const LISTENING: &str = "0A";
    text.lines().skip(1).fold((0, 0), |(sent, received), line| {
        let mut words = line.split_whitespace().skip(3);
        let (state, queues) = (words.next(), words.next().and_then(|queues| queues.split_once(':')));
        match (state, queues) {
            (Some(state), Some((tx, rx))) if state != LISTENING => {
                let bytes = |text| u64::from_str_radix(text, 16).unwrap_or(0);
                (sent + bytes(tx), received + bytes(rx))
            }
            _ => (sent, received),
        }
    })
}

/// Of the container's own devpts.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ptys {
    held: Option<u64>,
    limit: Option<u64>,
}

impl Ptys {
    fn look(inner: &Inner, ended: bool) -> Self {
        if ended {
            return Self { held: Some(0), limit: None };
        }
        let listed = fs::read_dir(format!("/proc/{}/root/dev/pts", inner.pid));
        let number = |entry: &fs::DirEntry| entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok());
        let held = listed.ok().map(|entries| entries.flatten().filter(number).count() as u64);
        let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", inner.pid)).unwrap_or_default();
        if !inner.runs() {
            return Self::default();
        }
        match pty_mount(&mounts) {
            // Somebody else's terminals, if any.
            None => Self::default(),
            Some(limit) => Self { held, limit },
        }
    }
}

/// The option `max` of the devpts at /dev/pts, if there is one mounted.
fn pty_mount(mountinfo: &str) -> Option<Option<u64>> {
    let line = mountinfo.lines().rfind(|line| line.split(' ').nth(4) == Some("/dev/pts"))?;
    let (_, file_system) = line.split_once(" - devpts ")?;
    let options = file_system.split_once(' ')?.1;
    Some(options.split(',').find_map(|option| option.strip_prefix("max=")?.parse().ok()))
}

fn table(
    usage: &Usage,
    controls: &Controls,
    processes: &Processes,
    sockets: &Sockets,
    ptys: &Ptys,
    rlimits: &BTreeMap<Resource, Rlimit>,
) -> Vec<Beancounter> {
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096) as u64;
    let pages = |bytes: Option<u64>| bytes.map(|bytes| bytes.div_ceil(page));
    let soft = |resource| rlimits.get(&resource).map(|r| r.soft).filter(|&n| n != Rlimit::UNLIMITED);
    let hard = |resource| rlimits.get(&resource).map(|r| r.hard).filter(|&n| n != Rlimit::UNLIMITED);
    let row = |resource, unit, [held, maxheld, barrier, limit, failcnt]: [Option<u64>; 5], source| Beancounter {
        resource,
        unit,
        held,
        maxheld,
        barrier,
        limit,
        failcnt,
        source,
    };
    let held = |held| [held, None, None, None, None];
    let with_swap = usage.memory_current.map(|memory| memory + usage.memory_swap.unwrap_or(0));
    vec![
        row(
            "kmemsize",
            "bytes",
            [usage.memory_kernel, controls.kernel_peak, None, None, controls.kernel_failures],
            "memory.stat kernel (v1: memory.kmem.*); part of physpages, no limit of its own",
        ),
        row(
            "lockedpages",
            "pages",
            [pages(Some(processes.locked)), None, pages(soft(Resource::Memlock)), pages(hard(Resource::Memlock)), None],
            "sum of VmLck of the processes; limits: rlimits.memlock, for each user inside",
        ),
        row(
            "privvmpages",
            "pages",
            held(pages(Some(processes.private))),
            "sum of VmData and VmStk of the processes; no limit of what may be allocated in sum: rlimits.as and .data for each \
             process, memory for what is used",
        ),
        row(
            "shmpages",
            "pages",
            held(pages(usage.memory_shmem)),
            "memory.stat shmem (v1: total_shmem): tmpfs, System V, POSIX and anonymous shared memory; part of physpages; \
             shm_size limits /dev/shm",
        ),
        row(
            "numproc",
            "items",
            [usage.pids_current, usage.pids_peak, None, usage.pids_max, usage.pids_refused],
            "pids.current, .peak, .max, pids.events max: processes and threads",
        ),
        row(
            "physpages",
            "pages",
            [
                pages(usage.memory_current),
                pages(usage.memory_peak),
                pages(controls.high),
                pages(usage.memory_max),
                usage.memory_limit_hits,
            ],
            "memory.current, .peak, .high, .max, memory.events max (v1: memory.usage_in_bytes and its neighbours)",
        ),
        row(
            "vmguarpages",
            "pages",
            [None, None, pages(controls.low), None, usage.memory_low_hits],
            "memory.low, and memory.events low for how often it had to give way; a guarantee of memory in use, not of \
             allocation; v1 has none",
        ),
        row(
            "oomguarpages",
            "pages",
            [pages(with_swap), None, pages(controls.min), None, usage.memory_oom_kills],
            "memory.current and memory.swap.current, memory.min, memory.events oom_kill; v1 has no guarantee",
        ),
        row(
            "swappages",
            "pages",
            [
                pages(usage.memory_swap),
                pages(usage.memory_swap_peak),
                pages(controls.swap_high),
                pages(usage.memory_swap_max),
                usage.memory_swap_limit_hits,
            ],
            "memory.swap.current, .peak, .high, .max, memory.swap.events max (v1: memory.stat total_swap, \
             memory.memsw.limit_in_bytes without memory.limit_in_bytes)",
        ),
        row(
            "numtcpsock",
            "items",
            held(sockets.tcp),
            "inuse of TCP in /proc/PID/net/sockstat and sockstat6: of the container's network namespace; the kernel has no limit",
        ),
        row(
            "numflock",
            "items",
            held(Some(processes.locks)),
            "POSIX and flock locks in /proc/locks that its processes hold (those of open file descriptions name nobody); the \
             kernel has no limit",
        ),
        row(
            "numpty",
            "items",
            [ptys.held, None, None, ptys.limit, None],
            "entries of the container's devpts, and its mount option max",
        ),
        row(
            "numsiginfo",
            "items",
            [Some(processes.signals), None, soft(Resource::Sigpending), hard(Resource::Sigpending), None],
            "SigQ of the processes, each user once (idmap host: with the host's processes of that user); limits: \
             rlimits.sigpending, for each user inside",
        ),
        row(
            "tcpsndbuf",
            "bytes",
            held(sockets.tcp_sent),
            "bytes that TCP has to send or to be acknowledged, from /proc/PID/net/tcp and tcp6, without the kernel's own \
             overhead, which memory.stat sock has; limits only for each socket: net.ipv4.tcp_wmem",
        ),
        row(
            "tcprcvbuf",
            "bytes",
            held(sockets.tcp_received),
            "bytes that TCP has received and nobody has read, from /proc/PID/net/tcp and tcp6, without the kernel's own \
             overhead, which memory.stat sock has; limits only for each socket: net.ipv4.tcp_rmem",
        ),
        row("othersockbuf", "bytes", held(None), "none: the kernel does not tell the buffers of other sockets in sum"),
        row(
            "dgramrcvbuf",
            "bytes",
            held(sockets.datagrams),
            "buffers of what UDP received, from /proc/PID/net/udp and udp6; limits only for each socket: net.core.rmem_max",
        ),
        row(
            "numothersock",
            "items",
            held(sockets.all.zip(sockets.tcp).map(|(all, tcp)| all.saturating_sub(tcp))),
            "sockets used in /proc/PID/net/sockstat, without those of TCP: of the container's network namespace; the kernel has \
             no limit",
        ),
        row(
            "dcachesize",
            "bytes",
            held(usage.memory_slab_reclaimable),
            "memory.stat slab_reclaimable: for the most part names and inodes; part of kmemsize; v1 does not tell it",
        ),
        row(
            "numfile",
            "items",
            held(processes.files),
            "descriptors in /proc/PID/fd of all processes, an open file once for each that has it; limits: rlimits.nofile for \
             each process, times pids",
        ),
        row("avnumproc", "items", held(None), "none: no average is kept; numproc has the most at once"),
        row(
            "numiptent",
            "items",
            held(None),
            "none: the kernel does not count netfilter rules; their memory is part of kmemsize",
        ),
        row("numnetif", "items", held(sockets.devices), "devices in /proc/PID/net/dev; the kernel has no limit"),
    ]
}

#[cfg(any(fuzzing, test))]
pub(super) fn fuzz(text: &str) {
    locks(text, &[1, 2]);
    figure(text, "TCP:", "inuse");
    queued(text);
    pty_mount(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Table 1.1a of the OpenVZ research: the names of kernel UBC 2.5.
    const NAMES: [&str; 23] = [
        "avnumproc",
        "dcachesize",
        "dgramrcvbuf",
        "kmemsize",
        "lockedpages",
        "numfile",
        "numflock",
        "numiptent",
        "numnetif",
        "numothersock",
        "numproc",
        "numpty",
        "numsiginfo",
        "numtcpsock",
        "oomguarpages",
        "othersockbuf",
        "physpages",
        "privvmpages",
        "shmpages",
        "swappages",
        "tcprcvbuf",
        "tcpsndbuf",
        "vmguarpages",
    ];

    fn of(usage: &Usage, controls: &Controls) -> Vec<Beancounter> {
        let rlimits = [(Resource::Memlock, Rlimit { soft: 8192, hard: Rlimit::UNLIMITED })].into();
        table(usage, controls, &Processes::default(), &Sockets::default(), &Ptys::default(), &rlimits)
    }

    #[test]
    fn every_beancounter_is_there_and_says_where_it_comes_from() {
        let counters = of(&Usage::default(), &Controls::default());
        let mut names: Vec<_> = counters.iter().map(|c| c.resource).collect();
        names.sort();
        assert_eq!(names, NAMES);
        for counter in &counters {
            assert!(!counter.source.is_empty() && !counter.source.contains("  "), "{counter:?}");
            assert!(["items", "pages", "bytes"].contains(&counter.unit), "{counter:?}");
        }
        let json: serde_json::Value = serde_json::from_str(&Beancounter::to_json(&counters)).unwrap();
        assert_eq!(json.as_array().unwrap().len(), NAMES.len());
        assert_eq!(json[0]["resource"], "kmemsize");
        assert_eq!(json[0]["held"], serde_json::Value::Null);
    }

    #[test]
    fn bytes_become_pages() {
        let usage = Usage {
            memory_current: Some(8193),
            memory_swap: Some(4096),
            memory_max: Some(1 << 20),
            ..Usage::default()
        };
        let counters = of(&usage, &Controls { high: Some(65536), ..Controls::default() });
        let get = |name: &str| counters.iter().find(|c| c.resource == name).unwrap().clone();
        if nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE) == Ok(Some(4096)) {
            let memory = get("physpages");
            assert_eq!((memory.held, memory.barrier, memory.limit), (Some(3), Some(16), Some(256)));
            assert_eq!(get("oomguarpages").held, Some(4));
            assert_eq!((get("lockedpages").barrier, get("lockedpages").limit), (Some(2), None));
        }
    }

    #[test]
    fn what_proc_says() {
        let text = "1: POSIX  ADVISORY  WRITE 12 08:01:1 0 EOF\n1: -> POSIX  ADVISORY  WRITE 13 08:01:1 0 EOF\n\
                    2: FLOCK  ADVISORY  WRITE 13 08:01:2 0 EOF\n3: OFDLCK ADVISORY  READ -1 08:01:3 0 EOF\n\
                    4: POSIX  ADVISORY  READ  99 08:01:4 0 0\n";
        assert_eq!(locks(text, &[12, 13]), 2);
        let text = "sockets: used 7\nTCP: inuse 2 orphan 0 tw 1 alloc 3 mem 1\nUDP: inuse 1 mem 0\n";
        assert_eq!((figure(text, "sockets:", "used"), figure(text, "TCP:", "inuse")), (Some(7), Some(2)));
        assert_eq!((figure(text, "TCP6:", "inuse"), figure(text, "TCP:", "nothing")), (None, None));
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
                    0: 0100007F:1F90 00000000:0000 0A 00000000:00000003 00:00000000 00000000     0        0 1\n\
                    1: 0100007F:1F90 0100007F:9C40 01 00000010:000000FF 00:00000000 00000000     0        0 2\n";
        assert_eq!(queued(text), (16, 255));
        let text = "50 40 0:40 / /dev/pts rw,nosuid - devpts devpts rw,gid=5,mode=620,ptmxmode=666,max=8\n";
        assert_eq!(pty_mount(text), Some(Some(8)));
        assert_eq!(pty_mount(&text.replace(",max=8", "")), Some(None));
        assert_eq!(pty_mount(&text.replace("devpts", "tmpfs")), None);
    }
}
