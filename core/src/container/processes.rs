//! The processes of a container.

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use serde_json::{Value, json};

use super::{Container, ended, process_runs};
use crate::error::{Error, ErrorKind, Result};
use crate::namespace::{Namespace, is_short};
use crate::plan::container::namespace_source;
use crate::process::pid_of;
use crate::spec::{NamespaceKind, NamespaceSource};
use crate::sys::pidfd::pidfd_open;

/// A process of a container, as it was at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessEntry {
    /// Its number in the caller's pid namespace.
    pub pid: i32,
    /// Its number in the container: 1 is its pid 1.
    pub pid_inside: i32,
    /// The number of its parent in the container; `None` when that is outside.
    pub parent_inside: Option<i32>,
    /// As proc_pid_stat(5) has it: `R` running, `S` sleeping, `D` waiting for a disk, `T` stopped, `t` traced, `Z` a zombie, `I` idle.
    pub state: char,
    /// The name of its first thread, at most 15 bytes.
    pub name: String,
    /// Its arguments, as it shows them, of which the first 4096 bytes; empty for zombies.
    pub argv: Vec<String>,
    /// Its user, as the caller's user namespace knows it.
    pub uid: u32,
    /// Threads.
    pub threads: u64,
    /// Bytes of memory that it has resident; what it shares with others is counted for each.
    pub memory: u64,
    /// Microseconds of processor time, in its own code and in the kernel.
    pub cpu_usec: u64,
    /// Its control group: of the v2 hierarchy, or of the first of v1; as the caller's cgroup namespace shows it.
    pub cgroup: Option<String>,
}

impl ProcessEntry {
    fn to_value(&self) -> Value {
        let Self { pid, pid_inside, parent_inside, state, name, argv, uid, threads, memory, cpu_usec, cgroup } = self;
        json!({
            "pid": pid, "pid_inside": pid_inside, "parent_inside": parent_inside, "state": state.to_string(),
            "name": name, "argv": argv, "uid": uid, "threads": threads, "memory": memory, "cpu_usec": cpu_usec,
            "cgroup": cgroup,
        })
    }

    /// A list of them as JSON: objects with the names of the fields.
    pub fn to_json(entries: &[Self]) -> String {
        Value::from(entries.iter().map(Self::to_value).collect::<Vec<_>>()).to_string()
    }
}

impl Container {
    /// Its processes, by their numbers inside: those of its pid namespace and of the ones below. Each was looked at while a pidfd
    /// held its number, so that no figure is another process's; together they are no picture of one moment. It reads all of /proc.
    ///
    /// # Errors
    /// Unsupported with `pid: host`, where nothing tells whose a process is; EMFILE, ENFILE or ENOMEM when the caller has not what
    /// it takes to look; Closed.
    pub fn processes(&self) -> Result<Vec<ProcessEntry>> {
        let pids = self.pid_namespace()?;
        let proc = fs::read_dir("/proc").map_err(|e| Error::io("read", &e).with_path("/proc"))?;
        let all = proc.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let mut found = Vec::new();
        for pid in all {
            match look(&pids, pid) {
                Ok(entry) => found.push(entry),
                // Not a part of the list as if it were the whole.
                Err(Left::Short(errno)) => return Err(Error::os("look at a process", errno)),
                Err(Left::Out) => {}
            }
        }
        if found.is_empty() && !self.is_running() {
            return Err(ended());
        }
        found.sort_by_key(|entry| entry.pid_inside);
        Ok(found)
    }

    /// A pidfd (CLOEXEC, the caller's) of the process that has the number `pid_inside` in the container.
    ///
    /// # Errors
    /// NotFound with field `pid` when there is none; Unsupported with `pid: host`; Closed.
    pub fn pidfd_of(&self, pid_inside: i32) -> Result<OwnedFd> {
        let pids = self.pid_namespace()?;
        let pid = pids.pid_from(pid_inside)?;
        let pidfd = pidfd_open(pid).map_err(|e| {
            let error = Error::io("pidfd_open", &e).with_field("pid");
            // Numbers of threads translate, too.
            if e.raw_os_error() == Some(libc::EINVAL) { error.with_kind(ErrorKind::NotFound) } else { error }
        })?;
        // The number may have gone to another process between the two.
        if pids.pid_from(pid_inside).ok() == Some(pid_of(pidfd.as_fd())) {
            return Ok(pidfd);
        }
        let gone = format!("the process {pid_inside} of the container has just ended");
        Err(Error::new(ErrorKind::NotFound, gone).with_field("pid").with_errno(libc::ESRCH))
    }

    fn pid_namespace(&self) -> Result<Namespace> {
        let inner = self.open()?;
        if namespace_source(&inner.spec, NamespaceKind::Pid) == NamespaceSource::Host {
            return Err(Error::new(ErrorKind::Unsupported, "the container has no pid namespace of its own")
                .with_field("namespaces")
                .with_errno(libc::EOPNOTSUPP)
                .with_hint("its control group, where it has one, lists its processes: see info_json()"));
        }
        self.namespace(NamespaceKind::Pid)
    }
}

/// Why there is no entry.
enum Left {
    /// It is not in the namespace, or gone, or hidden.
    Out,
    /// The caller has no more descriptors, or memory.
    Short(i32),
}

impl From<io::Error> for Left {
    fn from(error: io::Error) -> Self {
        is_short(&error).map_or(Self::Out, Self::Short)
    }
}

impl From<Error> for Left {
    fn from(error: Error) -> Self {
        is_short(&io::Error::from_raw_os_error(error.errno())).map_or(Self::Out, Self::Short)
    }
}

/// As much as is read of the arguments of a process, which can have megabytes of them.
const MOST_ARGUMENTS: u64 = 4096;

/// A process, if it is in the namespace.
fn look(pids: &Namespace, pid: i32) -> Result<ProcessEntry, Left> {
    // Most are not: asked without a descriptor first, and again when that holds the number.
    let pid_inside = pids.pid_in(pid)?;
    let pidfd = pidfd_open(pid)?;
    if pids.pid_in(pid)? != pid_inside {
        return Err(Left::Out);
    }
    let text = |name: &str| -> Result<String, Left> {
        Ok(String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/{name}"))?).into_owned())
    };
    let stat = text("stat")?;
    let (name, mut fields) = stat_fields(&stat).ok_or(Left::Out)?;
    let state = fields.next().and_then(|field| field.chars().next()).ok_or(Left::Out)?;
    let parent = fields.next().and_then(|field| field.parse().ok()).filter(|parent| *parent > 0);
    let status = text("status")?;
    // From field 5 on: utime and stime are 14 and 15, num_threads 20.
    let numbers: Vec<u64> = fields.map(|field| field.parse().unwrap_or_default()).collect();
    let number = |field: usize| numbers.get(field - 5).copied().unwrap_or_default();
    let mut argv = Vec::new();
    fs::File::open(format!("/proc/{pid}/cmdline"))?.take(MOST_ARGUMENTS).read_to_end(&mut argv)?;
    let argv = argv.strip_suffix(b"\0").unwrap_or(&argv);
    let words = argv.split(|&b| b == 0).map(|word| String::from_utf8_lossy(word).into_owned());
    let entry = ProcessEntry {
        pid,
        pid_inside,
        parent_inside: parent.and_then(|parent| pids.pid_in(parent).ok()),
        state,
        name: name.to_owned(),
        argv: if argv.is_empty() { Vec::new() } else { words.collect() },
        uid: status_field(&status, "Uid:", 1).ok_or(Left::Out)?,
        threads: number(20),
        // The figure in `stat` is not exact (proc_pid_stat(5)); kernel threads and zombies have none.
        memory: status_field::<u64>(&status, "VmRSS:", 0).unwrap_or_default() << 10,
        cpu_usec: (number(14) + number(15)) * 1_000_000 / ticks(),
        cgroup: text("cgroup").ok().and_then(|text| own_group(&text)),
    };
    // It has the number still, so that all of this was its own.
    if pid_of(pidfd.as_fd()) == pid && (process_runs(&pidfd) || state == 'Z') { Ok(entry) } else { Err(Left::Out) }
}

/// The name, which may have blanks and parentheses in it, and the fields behind it.
fn stat_fields(stat: &str) -> Option<(&str, std::str::SplitWhitespace<'_>)> {
    let (front, rest) = stat.rsplit_once(')')?;
    Some((front.split_once('(')?.1, rest.split_whitespace()))
}

/// A number of a line of /proc/PID/status. (The owner of the directory in /proc would be root for processes that keep their memory
/// to themselves, as pid 1 does.)
fn status_field<T: std::str::FromStr>(status: &str, name: &str, index: usize) -> Option<T> {
    status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().nth(index)?.parse().ok()
}

fn own_group(text: &str) -> Option<String> {
    let path = |line: &str| line.splitn(3, ':').nth(2).map(str::to_owned);
    let v2 = text.lines().find_map(|line| line.strip_prefix("0::")).filter(|path| *path != "/");
    v2.map(str::to_owned)
        .or_else(|| text.lines().find(|line| !line.starts_with("0::")).and_then(path))
        .or_else(|| path(text.lines().next()?))
}

fn ticks() -> u64 {
    nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(1).max(1) as u64
}

#[cfg(any(fuzzing, test))]
pub(super) fn fuzz(text: &str) {
    if let Some((_, fields)) = stat_fields(text) {
        fields.for_each(drop);
    }
    status_field::<u32>(text, "Uid:", 1);
    own_group(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_have_anything_in_them() {
        let (name, mut fields) = stat_fields("12 (a) b (c)) S 1 12 12 0").unwrap();
        assert_eq!((name, fields.next(), fields.next()), ("a) b (c)", Some("S"), Some("1")));
        assert!(stat_fields("12 nonsense").is_none());
        let status = "Name:\tx\nUid:\t1\t2\t3\t4\nVmRSS:\t    12 kB\n";
        assert_eq!((status_field(status, "Uid:", 1), status_field(status, "VmRSS:", 0)), (Some(2u32), Some(12u64)));
    }

    #[test]
    fn groups_of_both_versions() {
        assert_eq!(own_group("0::/a/b\n").as_deref(), Some("/a/b"));
        assert_eq!(own_group("4:pids:/x\n0::/a\n").as_deref(), Some("/a"));
        assert_eq!(own_group("4:pids:/x\n0::/\n").as_deref(), Some("/x"));
        assert_eq!(own_group("0::/\n").as_deref(), Some("/"));
    }
}
