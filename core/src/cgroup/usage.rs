//! What a group uses and used.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::uio::pread;

use super::file;
use super::file::{keyed, number};
use super::limits::{Limits, memory_in_kernel};
use super::parent::Parent;

/// What one user or group of a container has on its writable layer. `None`: not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuotaUsage {
    /// Bytes.
    pub disk_used: u64,
    /// The limit in bytes.
    pub disk_max: Option<u64>,
    pub inodes_used: u64,
    pub inodes_max: Option<u64>,
}

impl QuotaUsage {
    fn figure(&self, name: &str) -> Option<Option<u64>> {
        Some(match name {
            "disk_used" => Some(self.disk_used),
            "disk_max" => self.disk_max,
            "inodes_used" => Some(self.inodes_used),
            "inodes_max" => self.inodes_max,
            _ => return None,
        })
    }

    fn to_value(self) -> serde_json::Value {
        let Self { disk_used, disk_max, inodes_used, inodes_max } = self;
        serde_json::json!({
            "disk_used": disk_used, "disk_max": disk_max, "inodes_used": inodes_used, "inodes_max": inodes_max,
        })
    }
}

macro_rules! usage {
    ($($(#[$doc:meta])* $field:ident,)*) => {
        /// A snapshot of what a container uses and used. `None`: the machine does not count it (or not for this caller).
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct Usage {
            $($(#[$doc])* pub $field: Option<u64>,)*
            /// What those have that `quota` limits, by its keys: `uid:1000`.
            pub quota: Option<BTreeMap<String, QuotaUsage>>,
        }

        impl Usage {
            /// The names of the plain counters: the names of the fields. (`quota` is none.)
            pub const KEYS: &[&str] = &[$(stringify!($field)),*];

            /// A counter by its name. `None`: there is no counter of that name; `Some(None)`: it is not counted here.
            ///
            /// Those of `quota` have names with dots: `quota.uid:1000.disk_used`.
            pub fn get(&self, key: &str) -> Option<Option<u64>> {
                match key {
                    $(stringify!($field) => Some(self.$field),)*
                    _ => self.quota_figure(key),
                }
            }

            /// One JSON object with all counters; `null` for those that are not counted here.
            pub fn to_json(&self) -> String {
                let mut object = serde_json::Map::new();
                $(object.insert(stringify!($field).to_owned(), self.$field.into());)*
                let quota = self.quota.as_ref().map(|quota| {
                    quota.iter().map(|(id, usage)| (id.clone(), usage.to_value())).collect::<serde_json::Map<_, _>>()
                });
                object.insert("quota".to_owned(), quota.into());
                serde_json::Value::Object(object).to_string()
            }

            /// What `newer` does not have, from `self`.
            fn merge(&mut self, newer: Usage) {
                $(if newer.$field.is_some() { self.$field = newer.$field; })*
            }
        }
    };
}

usage! {
    /// Bytes in use now, page cache and kernel memory included.
    memory_current,
    /// The most bytes that were in use at once. v2: Linux 5.19.
    memory_peak,
    /// The limit in bytes; `None` when unlimited.
    memory_max,
    /// Processes that were killed because the group was out of memory.
    memory_oom_kills,
    /// How often use came up against the limit (and something was reclaimed, or a process was killed).
    memory_limit_hits,
    /// Microseconds of CPU time, user and system.
    cpu_usage_usec,
    cpu_user_usec,
    cpu_system_usec,
    /// Microseconds in which tasks were ready to run and the limit held them.
    cpu_throttled_usec,
    /// Periods in which that happened.
    cpu_throttled_periods,
    /// Tasks (processes and threads) now.
    pids_current,
    /// The most tasks at once. Linux 6.1; on v1 too.
    pids_peak,
    /// The limit; `None` when unlimited.
    pids_max,
    /// Forks that the limit refused.
    pids_refused,
    /// Bytes of the writable layer in use. These four are counted when `disk`, `inodes` or `quota` limits it.
    disk_used,
    /// Its size; `None` when `disk` is not set.
    disk_max,
    /// Its inodes in use.
    inodes_used,
    /// The most; `None` when `inodes` is not set.
    inodes_max,
}

impl Usage {
    fn quota_figure(&self, key: &str) -> Option<Option<u64>> {
        let (id, name) = key.strip_prefix("quota.")?.rsplit_once('.')?;
        let none = QuotaUsage::default();
        match self.quota.as_ref().and_then(|quota| quota.get(id)) {
            Some(usage) => usage.figure(name),
            None => none.figure(name).map(|_| None),
        }
    }
}

type Parse = fn(&str, &mut Usage);

const V2_MEMORY: &[(&str, Parse)] = &[
    ("memory.current", |text, usage| usage.memory_current = number(text)),
    ("memory.peak", |text, usage| usage.memory_peak = number(text)),
    ("memory.max", |text, usage| usage.memory_max = number(text)),
    (OOM_V2, |text, usage| {
        usage.memory_oom_kills = keyed(text, "oom_kill");
        usage.memory_limit_hits = keyed(text, "max");
    }),
];

const OOM_V2: &str = "memory.events";

/// Exists for every group of the v2 tree; what needs the cpu controller is in it only then.
const V2_CPU: &[(&str, Parse)] = &[("cpu.stat", |text, usage| {
    usage.cpu_usage_usec = keyed(text, "usage_usec");
    usage.cpu_user_usec = keyed(text, "user_usec");
    usage.cpu_system_usec = keyed(text, "system_usec");
    usage.cpu_throttled_usec = keyed(text, "throttled_usec").or(usage.cpu_throttled_usec);
    usage.cpu_throttled_periods = keyed(text, "nr_throttled").or(usage.cpu_throttled_periods);
})];

/// The same files on v1 and v2.
const PIDS: &[(&str, Parse)] = &[
    ("pids.current", |text, usage| usage.pids_current = number(text)),
    ("pids.peak", |text, usage| usage.pids_peak = number(text)),
    ("pids.max", |text, usage| usage.pids_max = number(text)),
    ("pids.events", |text, usage| usage.pids_refused = keyed(text, "max")),
];

const OOM_V1: &str = "memory.oom_control";

const V1_MEMORY: &[(&str, Parse)] = &[
    ("memory.usage_in_bytes", |text, usage| usage.memory_current = number(text)),
    ("memory.max_usage_in_bytes", |text, usage| usage.memory_peak = number(text)),
    // "No limit" is the largest number of whole pages; no settable limit is within a page of it.
    ("memory.limit_in_bytes", |text, usage| {
        usage.memory_max = number(text).filter(|&n| n < i64::MAX as u64 - 0x1_0000)
    }),
    // A hit of the limit of memory and swap is one too.
    ("memory.failcnt", |text, usage| usage.memory_limit_hits = number(text)),
    ("memory.memsw.failcnt", |text, usage| {
        usage.memory_limit_hits =
            usage.memory_limit_hits.zip(number(text)).map(|(a, b)| a + b).or(usage.memory_limit_hits);
    }),
    (OOM_V1, |text, usage| usage.memory_oom_kills = keyed(text, "oom_kill")),
];

const V1_CPU: &[(&str, Parse)] = &[("cpu.stat", |text, usage| {
    usage.cpu_throttled_usec = keyed(text, "throttled_time").map(|ns| ns / 1000);
    usage.cpu_throttled_periods = keyed(text, "nr_throttled");
})];

const V1_CPUACCT: &[(&str, Parse)] = &[
    ("cpuacct.usage", |text, usage| usage.cpu_usage_usec = number(text).map(|ns| ns / 1000)),
    ("cpuacct.usage_user", |text, usage| usage.cpu_user_usec = number(text).map(|ns| ns / 1000)),
    ("cpuacct.usage_sys", |text, usage| usage.cpu_system_usec = number(text).map(|ns| ns / 1000)),
];

/// What says nothing about the past.
const MOMENTARY: &[&str] =
    &["memory.current", "memory.max", "memory.usage_in_bytes", "memory.limit_in_bytes", "pids.current", "pids.max"];

enum State {
    Unopened,
    Open(OwnedFd),
    /// Not on this kernel, or not for this group.
    Absent,
}

/// One control file, opened at its first reading and kept.
struct Source {
    dir: Arc<OwnedFd>,
    name: &'static str,
    parse: Parse,
    state: State,
}

pub(super) enum Failure {
    /// The group was removed.
    Gone,
    Os(Errno, &'static str),
}

impl Source {
    fn read(&mut self, group: &str, usage: &mut Usage) -> Result<(), Failure> {
        if let State::Unopened = self.state {
            self.state = match file::open_file(&self.dir, &format!("{group}/{}", self.name), OFlag::O_RDONLY) {
                Ok(fd) => State::Open(fd),
                Err(Errno::ENOENT | Errno::ENODEV) if !file::exists(&self.dir, group) => return Err(Failure::Gone),
                Err(Errno::ENOENT | Errno::EACCES) => State::Absent,
                Err(e) => return Err(Failure::Os(e, self.name)),
            };
        }
        let State::Open(fd) = &self.state else { return Ok(()) };
        let mut buffer = [0u8; file::BUFFER];
        loop {
            return match pread(fd, &mut buffer, 0) {
                Ok(n) => {
                    (self.parse)(std::str::from_utf8(&buffer[..n]).unwrap_or_default(), usage);
                    Ok(())
                }
                Err(Errno::EINTR) => continue,
                // What kernfs answers once the group is removed.
                Err(Errno::ENODEV) => Err(Failure::Gone),
                Err(Errno::EOPNOTSUPP) => Ok(()),
                Err(e) => Err(Failure::Os(e, self.name)),
            };
        }
    }
}

/// The control files of one group.
pub(super) struct Reader {
    sources: Vec<Source>,
    last: Option<Usage>,
}

impl Reader {
    pub fn new<'a>(v1: impl Iterator<Item = &'a Arc<Parent>> + Clone, v2: Option<&Arc<Parent>>) -> Self {
        let mut sources = Vec::new();
        let mut add = |parent: &Arc<Parent>, table: &'static [(&'static str, Parse)]| {
            for &(name, parse) in table {
                sources.push(Source { dir: parent.dir.clone(), name, parse, state: State::Unopened });
            }
        };
        let on_v1 = |controller: &str| v1.clone().find(|p| p.controllers.iter().any(|c| c == controller));
        // The order is that of use: `oom_kills` looks at the first sources.
        match (on_v1("memory"), v2) {
            (Some(parent), _) => add(parent, V1_MEMORY),
            (None, Some(parent)) => add(parent, V2_MEMORY),
            (None, None) => {}
        }
        match (on_v1("pids"), v2) {
            (Some(parent), _) | (None, Some(parent)) => add(parent, PIDS),
            (None, None) => {}
        }
        if let Some(parent) = on_v1("cpu") {
            add(parent, V1_CPU);
        }
        match (v2, on_v1("cpuacct")) {
            (Some(parent), _) => add(parent, V2_CPU),
            (None, Some(parent)) => add(parent, V1_CPUACCT),
            (None, None) => {}
        }
        Self { sources, last: None }
    }

    /// All counters; after the group's end the last ones that were read.
    pub fn usage(&mut self, group: &str) -> Result<Usage, Failure> {
        let mut usage = Usage::default();
        for source in &mut self.sources {
            match source.read(group, &mut usage) {
                Ok(()) => {}
                Err(Failure::Gone) => {
                    // Removed between two files, or before: what was still read is newer than what was known.
                    let mut last = self.last.take().ok_or(Failure::Gone)?;
                    last.merge(usage);
                    self.last = Some(last.clone());
                    return Ok(last);
                }
                Err(e) => return Err(e),
            }
        }
        self.last = Some(usage.clone());
        Ok(usage)
    }

    /// The figures that outlive the processes, at about half the cost of a first [`Reader::usage`], because opening the
    /// control files is what costs (7-12 us each). What is in use now is nothing, and the limits are `limits` where nobody
    /// has read them yet.
    pub fn final_usage(&mut self, group: &str, limits: &Limits) -> Result<Usage, Failure> {
        let mut usage = Usage::default();
        for source in &mut self.sources {
            if matches!(source.state, State::Unopened) && MOMENTARY.contains(&source.name) {
                continue;
            }
            match source.read(group, &mut usage) {
                Ok(()) => {}
                Err(Failure::Gone) => return self.usage(group),
                Err(e) => return Err(e),
            }
        }
        usage.memory_current = usage.memory_oom_kills.and(Some(0));
        usage.pids_current = usage.pids_refused.and(Some(0));
        usage.memory_max = usage.memory_max.or(limits.memory.and_then(|bytes| memory_in_kernel("memory", bytes).ok()));
        usage.pids_max = usage.pids_max.or(limits.pids);
        self.last = Some(usage.clone());
        Ok(usage)
    }

    /// One file instead of all.
    pub fn oom_kills(&mut self, group: &str) -> Option<u64> {
        let source = self.sources.iter_mut().find(|s| s.name == OOM_V1 || s.name == OOM_V2)?;
        let mut usage = Usage::default();
        match source.read(group, &mut usage) {
            Ok(()) => usage.memory_oom_kills,
            Err(_) => self.last.as_ref()?.memory_oom_kills,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_its_name() {
        let usage = Usage { memory_peak: Some(7), ..Usage::default() };
        assert_eq!(usage.get("memory_peak"), Some(Some(7)));
        assert_eq!(usage.get("memory_max"), Some(None));
        assert_eq!(usage.get("memory"), None);
        let json: serde_json::Value = serde_json::from_str(&usage.to_json()).unwrap();
        let object = json.as_object().unwrap();
        assert_eq!(object.len(), Usage::KEYS.len() + 1);
        for key in Usage::KEYS {
            assert_eq!(object[*key].as_u64(), usage.get(key).unwrap(), "{key}");
        }
        let of = QuotaUsage { disk_used: 5, inodes_max: Some(9), ..QuotaUsage::default() };
        let usage = Usage { quota: Some([("uid:7".to_owned(), of)].into()), ..Usage::default() };
        assert_eq!(usage.get("quota.uid:7.disk_used"), Some(Some(5)));
        assert_eq!(usage.get("quota.uid:7.disk_max"), Some(None));
        assert_eq!(usage.get("quota.uid:8.inodes_max"), Some(None));
        assert_eq!(usage.get("quota.uid:7.disk"), None);
        assert!(usage.to_json().contains(r#""quota":{"uid:7":{"disk_max":null,"disk_used":5,"inodes_max":9,"#));
    }

    fn parsed(table: &[(&str, Parse)], name: &str, text: &str) -> Usage {
        let mut usage = Usage::default();
        (table.iter().find(|(n, _)| *n == name).unwrap().1)(text, &mut usage);
        usage
    }

    #[test]
    fn control_files_of_both_versions() {
        let u = parsed(V2_MEMORY, "memory.events", "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n");
        assert_eq!((u.memory_limit_hits, u.memory_oom_kills), (Some(12), Some(2)));
        assert_eq!(parsed(V2_MEMORY, "memory.max", "max\n").memory_max, None);
        assert_eq!(parsed(V1_MEMORY, "memory.limit_in_bytes", "9223372036854771712\n").memory_max, None);
        assert_eq!(parsed(V1_MEMORY, "memory.limit_in_bytes", "67108864\n").memory_max, Some(64 << 20));
        let u = parsed(V1_MEMORY, OOM_V1, "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n");
        assert_eq!(u.memory_oom_kills, Some(5));
        // Before 4.13 there is no such line.
        assert_eq!(parsed(V1_MEMORY, OOM_V1, "oom_kill_disable 0\nunder_oom 0\n").memory_oom_kills, None);
        let u = parsed(
            V2_CPU,
            "cpu.stat",
            "usage_usec 9\nuser_usec 4\nsystem_usec 5\nnr_periods 3\nnr_throttled 2\nthrottled_usec 77\n",
        );
        assert_eq!((u.cpu_usage_usec, u.cpu_throttled_periods, u.cpu_throttled_usec), (Some(9), Some(2), Some(77)));
        let u = parsed(V1_CPU, "cpu.stat", "nr_periods 3\nnr_throttled 2\nthrottled_time 5000\n");
        assert_eq!((u.cpu_throttled_periods, u.cpu_throttled_usec), (Some(2), Some(5)));
    }
}
