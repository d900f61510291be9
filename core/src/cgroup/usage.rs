//! What a group uses and used.
//!
//! A snapshot reads every control file once, from descriptors that are kept open: a pread takes 0.7 us for a file of one number,
//! 1.4 us for `cpu.stat`, 2.1 us for a pressure file and 9 us for `memory.stat` (which has the kernel add up what its processors
//! counted); to open, read and close takes 7 us more, each (medians on 6.18). So what is kept open is worth its descriptor, as
//! long as the program has enough of them: see [`may_keep`].

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::uio::pread;
use serde_json::{Map, Value, json};

use super::file;
use super::file::{keyed, number};
use super::layout::Controller;
use super::limits::{Limits, memory_in_kernel};
use super::parent::Parent;
use super::{Group, V1Part, V2Part, devices};

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

    fn to_value(self) -> Value {
        let Self { disk_used, disk_max, inodes_used, inodes_max } = self;
        json!({ "disk_used": disk_used, "disk_max": disk_max, "inodes_used": inodes_used, "inodes_max": inodes_max })
    }
}

/// What a container did on one block device. On v2: every device that it used, direct I/O and, with memory, written pages too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IoUsage {
    /// The kernel's name of the device, as in /dev: `sda`.
    pub name: Option<String>,
    /// Bytes.
    pub read_bytes: u64,
    /// Bytes.
    pub write_bytes: u64,
    /// Requests.
    pub reads: u64,
    /// Requests.
    pub writes: u64,
    /// Bytes that were given back to the device (TRIM).
    pub discard_bytes: u64,
    /// Requests.
    pub discards: u64,
}

/// What one network device carried, since it is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetUsage {
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Bad packets received.
    pub rx_errors: u64,
    /// Packets that were received and dropped, for want of room for example.
    pub rx_dropped: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Failed transmissions.
    pub tx_errors: u64,
    /// Packets that were not sent, for want of room for example.
    pub tx_dropped: u64,
}

/// Huge pages of one size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HugePageUsage {
    /// Bytes in use now.
    pub current: Option<u64>,
    /// The most bytes that were in use at once; v1 only.
    pub peak: Option<u64>,
    /// The limit in bytes; `None` when unlimited.
    pub max: Option<u64>,
    /// Bytes that are reserved and perhaps not yet in use.
    pub reserved: Option<u64>,
    /// Allocations that the limit refused.
    pub refused: Option<u64>,
}

/// How much time was lost in waiting: the shares of the last 10, 60 and 300 seconds in percent, and the sum since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stall {
    /// Percent.
    pub avg10: f64,
    /// Percent.
    pub avg60: f64,
    /// Percent.
    pub avg300: f64,
    /// Microseconds.
    pub total_usec: u64,
}

/// Time lost in waiting for one resource.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stalls {
    /// At least one task waited. The kernel does not tell it of interrupts.
    pub some: Option<Stall>,
    /// All tasks that were not idle waited.
    pub full: Option<Stall>,
}

/// Pressure (the kernel's accounting/psi): time in which tasks waited for what they needed to go on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PressureUsage {
    /// For memory to be reclaimed, read back or swapped in.
    pub memory: Option<Stalls>,
    /// For a processor, or because `cpus` was used up.
    pub cpu: Option<Stalls>,
    /// For a block device.
    pub io: Option<Stalls>,
    /// While interrupts were served; Linux 6.1 with CONFIG_IRQ_TIME_ACCOUNTING.
    pub irq: Option<Stalls>,
}

/// The counters of a struct of plain numbers, by their names.
macro_rules! figures {
    ($type:ty { $($field:ident)* }) => {
        impl $type {
            fn figure(&self, name: &str) -> Option<u64> {
                match name {
                    $(stringify!($field) => Some(self.$field),)*
                    _ => None,
                }
            }

            fn to_value(&self) -> Value {
                let mut object = Map::new();
                $(object.insert(stringify!($field).to_owned(), self.$field.into());)*
                object.into()
            }
        }
    };
}

figures!(IoUsage { read_bytes write_bytes reads writes discard_bytes discards });
figures!(NetUsage { rx_bytes rx_packets rx_errors rx_dropped tx_bytes tx_packets tx_errors tx_dropped });

impl HugePageUsage {
    fn figure(&self, name: &str) -> Option<Option<u64>> {
        Some(match name {
            "current" => self.current,
            "peak" => self.peak,
            "max" => self.max,
            "reserved" => self.reserved,
            "refused" => self.refused,
            _ => return None,
        })
    }

    fn to_value(&self) -> Value {
        let Self { current, peak, max, reserved, refused } = self;
        json!({ "current": current, "peak": peak, "max": max, "reserved": reserved, "refused": refused })
    }
}

impl Stalls {
    fn parse(text: &str) -> Self {
        let mut stalls = Self::default();
        for line in text.lines() {
            let mut words = line.split(' ');
            let level = words.next();
            let mut stall = Stall::default();
            for (key, value) in words.filter_map(|word| word.split_once('=')) {
                match key {
                    "avg10" => stall.avg10 = value.parse().unwrap_or_default(),
                    "avg60" => stall.avg60 = value.parse().unwrap_or_default(),
                    "avg300" => stall.avg300 = value.parse().unwrap_or_default(),
                    "total" => stall.total_usec = value.parse().unwrap_or_default(),
                    _ => {}
                }
            }
            match level {
                Some("some") => stalls.some = Some(stall),
                Some("full") => stalls.full = Some(stall),
                _ => {}
            }
        }
        stalls
    }

    fn to_value(self) -> Value {
        let value = |stall: Option<Stall>| {
            stall.map(|s| json!({ "avg10": s.avg10, "avg60": s.avg60, "avg300": s.avg300, "total_usec": s.total_usec }))
        };
        json!({ "some": value(self.some), "full": value(self.full) })
    }
}

impl PressureUsage {
    fn of(&self, resource: &str) -> Option<Option<Stalls>> {
        Some(match resource {
            "memory" => self.memory,
            "cpu" => self.cpu,
            "io" => self.io,
            "irq" => self.irq,
            _ => return None,
        })
    }
}

macro_rules! usage {
    ($($(#[$doc:meta])* $field:ident,)*) => {
        /// A snapshot of what a container uses and used. `None`: the machine does not count it (or not for this caller).
        ///
        /// After the end, what outlives the processes stays as it was then: peaks, counts, processor time, I/O. What was opened by
        /// a snapshot while it ran is read once more (memory by kind, pressure, network, huge pages); what was not is `None`.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct Usage {
            $($(#[$doc])* pub $field: Option<u64>,)*
            /// What was done on block devices, by `MAJOR:MINOR`. On v2 a device that is not in it was not used. On v1 the kernel
            /// counts only for a container with `io_max` or `io_weight`, and only on devices that have a rate limit (since Linux
            /// 6.10) or are scheduled by bfq.
            pub io: Option<BTreeMap<String, IoUsage>>,
            /// What network devices carried, by their names inside. `None` for groups inside a container, with `net: host`, and
            /// for a container of which no snapshot was made while it ran.
            pub net: Option<BTreeMap<String, NetUsage>>,
            /// Huge pages, by their size as `hugepages` of the spec has it (`2M`). Counted when that field is set.
            pub hugepages: Option<BTreeMap<String, HugePageUsage>>,
            /// Time lost in waiting. Needs a v2 tree (a hybrid machine has one) and a kernel with PSI.
            pub pressure: Option<PressureUsage>,
            /// What those have that `quota` limits, by its keys: `uid:1000`.
            pub quota: Option<BTreeMap<String, QuotaUsage>>,
        }

        impl Usage {
            /// The names of the plain counters: the names of the fields. (Not of `io`, `net`, `hugepages`, `pressure`, `quota`.)
            pub const KEYS: &[&str] = &[$(stringify!($field)),*];

            /// A counter by its name. `None`: there is no counter of that name; `Some(None)`: it is not counted here.
            ///
            /// Those of structured fields have names with dots: `io.8:0.read_bytes`, `net.eth0.rx_bytes`, `hugepages.2M.current`,
            /// `pressure.memory.some.total_usec`, `quota.uid:1000.disk_used`. A device that is not there (or, of block devices, was
            /// not used) has none.
            pub fn get(&self, key: &str) -> Option<Option<u64>> {
                match key {
                    $(stringify!($field) => Some(self.$field),)*
                    _ => self.dotted(key),
                }
            }

            /// One JSON object with all figures; `null` for those that are not counted here.
            pub fn to_json(&self) -> String {
                let mut object = Map::new();
                $(object.insert(stringify!($field).to_owned(), self.$field.into());)*
                self.add_structured(&mut object);
                Value::Object(object).to_string()
            }

            /// What `newer` does not have, from `self`.
            fn merge(&mut self, newer: Usage) {
                $(if newer.$field.is_some() { self.$field = newer.$field; })*
                self.io = newer.io.or(self.io.take());
                self.net = newer.net.or(self.net.take());
                self.hugepages = newer.hugepages.or(self.hugepages.take());
                self.pressure = newer.pressure.or(self.pressure.take());
                self.quota = newer.quota.or(self.quota.take());
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
    /// How often processes were slowed down because use was above `memory_high`; v2.
    memory_high_hits,
    /// How often memory was taken although use was below `memory_low`: the machine was short; v2.
    memory_low_hits,
    /// Bytes of the processes' own data: heap, stacks, private mappings. (The names of these are those of the kernel's memory.stat.)
    memory_anon,
    /// Bytes of cached files, shared memory included.
    memory_file,
    /// Bytes of tmpfs, System V and POSIX shared memory, and shared anonymous mappings.
    memory_shmem,
    /// Bytes of files that are mapped.
    memory_file_mapped,
    /// Bytes of cached files that have to be written back.
    memory_file_dirty,
    /// Bytes of cached files that are just being written back.
    memory_file_writeback,
    /// Bytes that the kernel uses for it: stacks, page tables, slab and more. v2: Linux 5.18.
    memory_kernel,
    /// Bytes of kernel stacks; v2.
    memory_kernel_stack,
    /// Bytes of page tables; v2.
    memory_pagetables,
    /// Bytes of the kernel's data for each processor; v2.
    memory_percpu,
    /// Bytes of network buffers. v1: of TCP only.
    memory_sock,
    /// Bytes of kernel objects; v2.
    memory_slab,
    /// Those that can be given up when memory is short, as cached names and inodes; v2.
    memory_slab_reclaimable,
    /// Those that cannot; v2.
    memory_slab_unreclaimable,
    /// Bytes that cannot be reclaimed: locked memory for the most part.
    memory_unevictable,
    /// Page faults.
    memory_pgfault,
    /// Page faults for which something had to be read from a device.
    memory_pgmajfault,
    /// Bytes in swap now.
    memory_swap,
    /// The most bytes in swap at once; v2, Linux 6.5.
    memory_swap_peak,
    /// The limit of swap in bytes; `None` when unlimited.
    memory_swap_max,
    /// How often the limit of swap was met; v2.
    memory_swap_limit_hits,
    /// Microseconds of CPU time, user and system.
    cpu_usage_usec,
    /// Microseconds in the processes' own code.
    cpu_user_usec,
    /// Microseconds in the kernel.
    cpu_system_usec,
    /// Microseconds in which tasks were ready to run and the limit held them.
    cpu_throttled_usec,
    /// Periods in which that happened.
    cpu_throttled_periods,
    /// Periods of the limit in which anything ran.
    cpu_periods,
    /// Periods in which saved time was spent (`cpu_burst`); Linux 5.15.
    cpu_bursts,
    /// Microseconds that were spent above the limit in them.
    cpu_burst_usec,
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
    fn dotted(&self, key: &str) -> Option<Option<u64>> {
        let (field, rest) = key.split_once('.')?;
        // Names of devices may have dots.
        let (of, name) = rest.rsplit_once('.').filter(|(of, _)| !of.is_empty())?;
        match field {
            "io" => {
                IoUsage::default().figure(name)?;
                Some(self.io.as_ref().and_then(|io| io.get(of)?.figure(name)))
            }
            "net" => {
                NetUsage::default().figure(name)?;
                Some(self.net.as_ref().and_then(|net| net.get(of)?.figure(name)))
            }
            "hugepages" => {
                HugePageUsage::default().figure(name)?;
                Some(self.hugepages.as_ref().and_then(|pages| pages.get(of)?.figure(name)?))
            }
            "quota" => {
                QuotaUsage::default().figure(name)?;
                Some(self.quota.as_ref().and_then(|quota| quota.get(of)?.figure(name)?))
            }
            "pressure" if name == "total_usec" => {
                let (resource, level) = of.split_once('.')?;
                let stalls = self.pressure.unwrap_or_default().of(resource)?;
                let stall = match level {
                    "some" => stalls.and_then(|s| s.some),
                    "full" => stalls.and_then(|s| s.full),
                    _ => return None,
                };
                Some(stall.map(|s| s.total_usec))
            }
            _ => None,
        }
    }

    fn add_structured(&self, object: &mut Map<String, Value>) {
        fn map<T>(of: &Option<BTreeMap<String, T>>, value: impl Fn(&T) -> Value) -> Value {
            of.as_ref().map_or(Value::Null, |map| map.iter().map(|(key, item)| (key.clone(), value(item))).collect())
        }
        let io = |device: &IoUsage| {
            let mut value = device.to_value();
            value["name"] = device.name.clone().into();
            value
        };
        object.insert("io".to_owned(), map(&self.io, io));
        object.insert("net".to_owned(), map(&self.net, NetUsage::to_value));
        object.insert("hugepages".to_owned(), map(&self.hugepages, HugePageUsage::to_value));
        object.insert("quota".to_owned(), map(&self.quota, |of| of.to_value()));
        let pressure = self.pressure.map(|p| {
            let of = |stalls: Option<Stalls>| stalls.map(Stalls::to_value);
            json!({ "memory": of(p.memory), "cpu": of(p.cpu), "io": of(p.io), "irq": of(p.irq) })
        });
        object.insert("pressure".to_owned(), pressure.into());
    }

    /// Nothing is in use any more.
    fn emptied(&mut self) {
        self.memory_current = self.memory_oom_kills.and(Some(0));
        self.pids_current = self.pids_refused.and(Some(0));
        for now in [
            &mut self.memory_anon,
            &mut self.memory_file,
            &mut self.memory_shmem,
            &mut self.memory_file_mapped,
            &mut self.memory_file_dirty,
            &mut self.memory_file_writeback,
            &mut self.memory_kernel,
            &mut self.memory_kernel_stack,
            &mut self.memory_pagetables,
            &mut self.memory_percpu,
            &mut self.memory_sock,
            &mut self.memory_slab,
            &mut self.memory_slab_reclaimable,
            &mut self.memory_slab_unreclaimable,
            &mut self.memory_unevictable,
            &mut self.memory_swap,
        ] {
            *now = now.and(Some(0));
        }
        for pages in self.hugepages.iter_mut().flat_map(BTreeMap::values_mut) {
            pages.current = pages.current.and(Some(0));
            pages.reserved = pages.reserved.and(Some(0));
        }
    }
}

type Parse = fn(&str, &mut Usage);

/// Each line `key value`.
fn keys(text: &str) -> impl Iterator<Item = (&str, Option<u64>)> {
    text.lines().filter_map(|line| line.split_once(' ')).map(|(key, value)| (key, value.parse().ok()))
}

const V2_MEMORY: &[(&str, Parse)] = &[
    (OOM_V2, |text, usage| {
        for (key, value) in keys(text) {
            match key {
                "oom_kill" => usage.memory_oom_kills = value,
                "max" => usage.memory_limit_hits = value,
                "high" => usage.memory_high_hits = value,
                "low" => usage.memory_low_hits = value,
                _ => {}
            }
        }
    }),
    ("memory.current", |text, usage| usage.memory_current = number(text)),
    ("memory.peak", |text, usage| usage.memory_peak = number(text)),
    ("memory.max", |text, usage| usage.memory_max = number(text)),
    ("memory.swap.current", |text, usage| usage.memory_swap = number(text)),
    ("memory.swap.peak", |text, usage| usage.memory_swap_peak = number(text)),
    ("memory.swap.max", |text, usage| usage.memory_swap_max = number(text)),
    ("memory.swap.events", |text, usage| usage.memory_swap_limit_hits = keyed(text, "max")),
    ("memory.stat", |text, usage| {
        for (key, value) in keys(text) {
            match key {
                "anon" => usage.memory_anon = value,
                "file" => usage.memory_file = value,
                "shmem" => usage.memory_shmem = value,
                "file_mapped" => usage.memory_file_mapped = value,
                "file_dirty" => usage.memory_file_dirty = value,
                "file_writeback" => usage.memory_file_writeback = value,
                "kernel" => usage.memory_kernel = value,
                "kernel_stack" => usage.memory_kernel_stack = value,
                "pagetables" => usage.memory_pagetables = value,
                "percpu" => usage.memory_percpu = value,
                "sock" => usage.memory_sock = value,
                "slab" => usage.memory_slab = value,
                "slab_reclaimable" => usage.memory_slab_reclaimable = value,
                "slab_unreclaimable" => usage.memory_slab_unreclaimable = value,
                "unevictable" => usage.memory_unevictable = value,
                "pgfault" => usage.memory_pgfault = value,
                "pgmajfault" => usage.memory_pgmajfault = value,
                _ => {}
            }
        }
    }),
];

const OOM_V2: &str = "memory.events";

/// Exists for every group of the v2 tree; what needs the cpu controller is in it only then.
const V2_CPU: &[(&str, Parse)] = &[("cpu.stat", |text, usage| {
    for (key, value) in keys(text) {
        match key {
            "usage_usec" => usage.cpu_usage_usec = value,
            "user_usec" => usage.cpu_user_usec = value,
            "system_usec" => usage.cpu_system_usec = value,
            "throttled_usec" => usage.cpu_throttled_usec = value,
            "nr_throttled" => usage.cpu_throttled_periods = value,
            "nr_periods" => usage.cpu_periods = value,
            "nr_bursts" => usage.cpu_bursts = value,
            "burst_usec" => usage.cpu_burst_usec = value,
            _ => {}
        }
    }
})];

/// `MAJOR:MINOR rbytes=N wbytes=N rios=N wios=N dbytes=N dios=N`, perhaps with more.
const V2_IO: &[(&str, Parse)] = &[("io.stat", |text, usage| {
    let io = usage.io.get_or_insert_default();
    for (device, rest) in text.lines().filter_map(|line| line.split_once(' ')) {
        let mut seen = IoUsage::default();
        let mut counted = false;
        for (key, value) in rest.split(' ').filter_map(|word| word.split_once('=')) {
            let field = match key {
                "rbytes" => &mut seen.read_bytes,
                "wbytes" => &mut seen.write_bytes,
                "rios" => &mut seen.reads,
                "wios" => &mut seen.writes,
                "dbytes" => &mut seen.discard_bytes,
                "dios" => &mut seen.discards,
                _ => continue,
            };
            *field = value.parse().unwrap_or_default();
            counted = true;
        }
        if counted {
            io.insert(device.to_owned(), seen);
        }
    }
})];

/// These exist in the v2 tree for every group.
const PRESSURE: &[(&str, Parse)] = &[
    ("memory.pressure", |text, usage| usage.pressure.get_or_insert_default().memory = Some(Stalls::parse(text))),
    ("cpu.pressure", |text, usage| usage.pressure.get_or_insert_default().cpu = Some(Stalls::parse(text))),
    ("io.pressure", |text, usage| usage.pressure.get_or_insert_default().io = Some(Stalls::parse(text))),
    ("irq.pressure", |text, usage| usage.pressure.get_or_insert_default().irq = Some(Stalls::parse(text))),
];

/// The same files on v1 and v2.
const PIDS: &[(&str, Parse)] = &[
    ("pids.current", |text, usage| usage.pids_current = number(text)),
    ("pids.peak", |text, usage| usage.pids_peak = number(text)),
    ("pids.max", |text, usage| usage.pids_max = number(text)),
    (PIDS_EVENTS, |text, usage| usage.pids_refused = keyed(text, "max")),
];

const OOM_V1: &str = "memory.oom_control";
const PIDS_EVENTS: &str = "pids.events";

/// "No limit" is the largest number of whole pages; no settable limit is within a page of it.
fn limit_of_v1(text: &str) -> Option<u64> {
    number(text).filter(|&n| n < i64::MAX as u64 - 0x1_0000)
}

const V1_MEMORY: &[(&str, Parse)] = &[
    (OOM_V1, |text, usage| usage.memory_oom_kills = keyed(text, "oom_kill")),
    ("memory.usage_in_bytes", |text, usage| usage.memory_current = number(text)),
    ("memory.max_usage_in_bytes", |text, usage| usage.memory_peak = number(text)),
    ("memory.limit_in_bytes", |text, usage| usage.memory_max = limit_of_v1(text)),
    // The limit of memory and swap together.
    ("memory.memsw.limit_in_bytes", |text, usage| {
        let swap = |(sum, memory): (u64, u64)| sum.saturating_sub(memory);
        usage.memory_swap_max = limit_of_v1(text).zip(usage.memory_max).map(swap);
    }),
    // A hit of the limit of memory and swap is one too.
    ("memory.failcnt", |text, usage| usage.memory_limit_hits = number(text)),
    ("memory.memsw.failcnt", |text, usage| {
        usage.memory_limit_hits =
            usage.memory_limit_hits.zip(number(text)).map(|(a, b)| a.saturating_add(b)).or(usage.memory_limit_hits);
    }),
    ("memory.kmem.usage_in_bytes", |text, usage| usage.memory_kernel = number(text)),
    ("memory.kmem.tcp.usage_in_bytes", |text, usage| usage.memory_sock = number(text)),
    // The totals have the groups inside in them.
    ("memory.stat", |text, usage| {
        for (key, value) in keys(text) {
            match key {
                "total_rss" => usage.memory_anon = value,
                "total_cache" => usage.memory_file = value,
                "total_shmem" => usage.memory_shmem = value,
                "total_mapped_file" => usage.memory_file_mapped = value,
                "total_dirty" => usage.memory_file_dirty = value,
                "total_writeback" => usage.memory_file_writeback = value,
                "total_unevictable" => usage.memory_unevictable = value,
                "total_pgfault" => usage.memory_pgfault = value,
                "total_pgmajfault" => usage.memory_pgmajfault = value,
                "total_swap" => usage.memory_swap = value,
                _ => {}
            }
        }
    }),
];

const V1_CPU: &[(&str, Parse)] = &[("cpu.stat", |text, usage| {
    for (key, value) in keys(text) {
        match key {
            "throttled_time" => usage.cpu_throttled_usec = value.map(|ns| ns / 1000),
            "nr_throttled" => usage.cpu_throttled_periods = value,
            "nr_periods" => usage.cpu_periods = value,
            "nr_bursts" => usage.cpu_bursts = value,
            "burst_time" => usage.cpu_burst_usec = value.map(|ns| ns / 1000),
            _ => {}
        }
    }
})];

const V1_CPUACCT: &[(&str, Parse)] = &[
    ("cpuacct.usage", |text, usage| usage.cpu_usage_usec = number(text).map(|ns| ns / 1000)),
    ("cpuacct.usage_user", |text, usage| usage.cpu_user_usec = number(text).map(|ns| ns / 1000)),
    ("cpuacct.usage_sys", |text, usage| usage.cpu_system_usec = number(text).map(|ns| ns / 1000)),
];

/// `MAJOR:MINOR Read N`, one line for each device and kind. What comes later counts where it is not less: a device that bfq
/// schedules may have a rate limit too, and then both files have its requests.
fn io_of_v1(text: &str, usage: &mut Usage, requests: bool) {
    let io = usage.io.get_or_insert_default();
    for line in text.lines() {
        let mut words = line.split(' ');
        let (Some(device), Some(kind), Some(value)) = (words.next(), words.next(), words.next()) else { continue };
        let Ok(value) = value.parse::<u64>() else { continue };
        if !matches!(kind, "Read" | "Write" | "Discard") {
            continue;
        }
        let seen = io.entry(device.to_owned()).or_default();
        let field = match (kind, requests) {
            ("Read", false) => &mut seen.read_bytes,
            ("Read", true) => &mut seen.reads,
            ("Write", false) => &mut seen.write_bytes,
            ("Write", true) => &mut seen.writes,
            (_, false) => &mut seen.discard_bytes,
            (_, true) => &mut seen.discards,
        };
        *field = value.max(*field);
    }
}

/// With the groups inside.
const V1_IO: &[(&str, Parse)] = &[
    ("blkio.throttle.io_service_bytes_recursive", |text, usage| io_of_v1(text, usage, false)),
    ("blkio.throttle.io_serviced_recursive", |text, usage| io_of_v1(text, usage, true)),
    ("blkio.bfq.io_service_bytes_recursive", |text, usage| io_of_v1(text, usage, false)),
    ("blkio.bfq.io_serviced_recursive", |text, usage| io_of_v1(text, usage, true)),
];

type ParsePages = fn(&str, &mut HugePageUsage);
type PagesTable = &'static [(&'static str, ParsePages)];

/// "No limit" is the largest number of whole huge pages; on v2 too, with small ones, until somebody writes to the file (6.18).
fn limit_of_hugepages(text: &str) -> Option<u64> {
    const LARGEST: u64 = 16 << 30;
    number(text).filter(|&n| n < i64::MAX as u64 - LARGEST)
}

const V2_HUGEPAGES: PagesTable = &[
    ("current", |text, pages| pages.current = number(text)),
    ("max", |text, pages| pages.max = limit_of_hugepages(text)),
    ("rsvd.current", |text, pages| pages.reserved = number(text)),
    ("events", |text, pages| pages.refused = keyed(text, "max")),
];

const V1_HUGEPAGES: PagesTable = &[
    ("usage_in_bytes", |text, pages| pages.current = number(text)),
    ("max_usage_in_bytes", |text, pages| pages.peak = number(text)),
    ("limit_in_bytes", |text, pages| pages.max = limit_of_hugepages(text)),
    ("rsvd.usage_in_bytes", |text, pages| pages.reserved = number(text)),
    ("failcnt", |text, pages| pages.refused = number(text)),
];

/// What outlives the processes, and is read at the end even of a container of which nothing was read before.
const LASTING: &[&str] = &[
    OOM_V2,
    "memory.peak",
    OOM_V1,
    "memory.max_usage_in_bytes",
    "memory.failcnt",
    "memory.memsw.failcnt",
    "cpu.stat",
    "cpuacct.usage",
    "cpuacct.usage_user",
    "cpuacct.usage_sys",
    "pids.peak",
    "pids.events",
    "io.stat",
    "blkio.throttle.io_service_bytes_recursive",
    "blkio.throttle.io_serviced_recursive",
    "blkio.bfq.io_service_bytes_recursive",
    "blkio.bfq.io_serviced_recursive",
];

enum State {
    Unopened,
    Open(OwnedFd),
    /// The program has not many descriptors left: it is opened for each reading.
    Unkept,
    /// Not on this kernel, or not for this group.
    Absent,
}

enum Figure {
    Plain(Parse),
    /// Of huge pages of that size.
    Pages(String, ParsePages),
}

/// One control file, opened at its first reading and kept.
struct Source {
    dir: Arc<OwnedFd>,
    name: Cow<'static, str>,
    figure: Figure,
    state: State,
}

pub(super) enum Failure {
    /// The group was removed.
    Gone,
    Os(Errno, String),
}

/// A quarter of the descriptors that this program may have stays free for others: those that are kept here come from the
/// rest. (The kernel gives the lowest free number, so the number tells how many are in use.)
fn may_keep(fd: &OwnedFd) -> bool {
    let soft = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    (fd.as_raw_fd() as u64) < soft / 4 * 3
}

/// What a seq_file gives at once. Shorter than this by a record or more, it was all.
const RECORD: usize = 2048;

/// The whole text of a control file, in `buffer`.
fn read_text<'a>(fd: &OwnedFd, buffer: &'a mut Vec<u8>) -> nix::Result<&'a str> {
    let mut length = 0;
    loop {
        if buffer.len() < length + file::BUFFER {
            buffer.resize(length + file::BUFFER, 0);
        }
        match pread(fd, &mut buffer[length..], length as i64) {
            Ok(n) => {
                length += n;
                if n < RECORD {
                    return Ok(std::str::from_utf8(&buffer[..length]).unwrap_or_default());
                }
            }
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e),
        }
    }
}

impl Source {
    fn new(dir: &Arc<OwnedFd>, name: Cow<'static, str>, figure: Figure) -> Self {
        Self { dir: dir.clone(), name, figure, state: State::Unopened }
    }

    fn read(&mut self, group: &str, buffer: &mut Vec<u8>, usage: &mut Usage) -> Result<(), Failure> {
        let opened;
        let fd = match &self.state {
            State::Open(fd) => fd,
            State::Absent => return Ok(()),
            State::Unopened | State::Unkept => {
                match file::open_file(&self.dir, &format!("{group}/{}", self.name), OFlag::O_RDONLY) {
                    Ok(fd) if may_keep(&fd) => {
                        self.state = State::Open(fd);
                        let State::Open(fd) = &self.state else { unreachable!("just set") };
                        fd
                    }
                    Ok(fd) => {
                        self.state = State::Unkept;
                        opened = fd;
                        &opened
                    }
                    Err(Errno::ENOENT | Errno::ENODEV) if !file::exists(&self.dir, group) => return Err(Failure::Gone),
                    // EOPNOTSUPP: pressure that was switched off.
                    Err(Errno::ENOENT | Errno::EACCES | Errno::EOPNOTSUPP) => {
                        self.state = State::Absent;
                        return Ok(());
                    }
                    Err(e) => return Err(Failure::Os(e, self.name.clone().into_owned())),
                }
            }
        };
        match read_text(fd, buffer) {
            Ok(text) => {
                match &self.figure {
                    Figure::Plain(parse) => parse(text, usage),
                    Figure::Pages(size, parse) => {
                        let pages = usage.hugepages.get_or_insert_default();
                        parse(text, pages.entry(size.clone()).or_default());
                    }
                }
                Ok(())
            }
            // What kernfs answers once the group is removed.
            Err(Errno::ENODEV) => Err(Failure::Gone),
            Err(Errno::EOPNOTSUPP) => Ok(()),
            Err(e) => Err(Failure::Os(e, self.name.clone().into_owned())),
        }
    }
}

/// The control files of one group.
pub(super) struct Reader {
    sources: Vec<Source>,
    /// Where huge pages are counted, until it is known whether they are.
    pages: Option<(Arc<OwnedFd>, PagesTable)>,
    looked_for_pages: bool,
    /// Names of block devices.
    devices: BTreeMap<String, Option<String>>,
    buffer: Vec<u8>,
    last: Option<Usage>,
    /// `last` is what there is to know.
    ended: bool,
}

impl Reader {
    pub fn new(v1: &[V1Part], of: Option<&V2Part>) -> Self {
        let v2 = of.map(|v2| &v2.parent);
        let mut sources = Vec::new();
        let mut add = |parent: &Arc<Parent>, table: &'static [(&'static str, Parse)]| {
            let source = |&(name, parse)| Source::new(&parent.dir, Cow::Borrowed(name), Figure::Plain(parse));
            sources.extend(table.iter().map(source));
        };
        let part = |controller: &str| v1.iter().find(|p| super::has(&p.parent, controller));
        let on_v1 = |controller: &str| part(controller).map(|part| &part.parent);
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
        match (on_v1("blkio"), v2) {
            (Some(parent), _) => add(parent, V1_IO),
            (None, Some(parent)) => add(parent, V2_IO),
            (None, None) => {}
        }
        if let Some(parent) = v2 {
            add(parent, PRESSURE);
        }
        let in_leaf = |controller: &str| part(controller).is_some_and(|part| part.leaf);
        // What serves ports is no task of the payload.
        let beside = part("pids").is_none() && of.is_some_and(|v2| v2.inner.is_some());
        for source in &mut sources {
            // What v1 counts where the process was.
            let local = (source.name == OOM_V1 && in_leaf("memory")) || (source.name == PIDS_EVENTS && in_leaf("pids"));
            if local || (beside && source.name.starts_with("pids.")) {
                source.name = Cow::Owned(format!("{}/{}", super::SUB_PAYLOAD, source.name));
            }
        }
        let pages = match (on_v1("hugetlb"), v2) {
            (Some(parent), _) => Some((parent.dir.clone(), V1_HUGEPAGES)),
            (None, parent) => parent.map(|parent| (parent.dir.clone(), V2_HUGEPAGES)),
        };
        Self {
            sources,
            pages,
            looked_for_pages: false,
            devices: BTreeMap::new(),
            buffer: Vec::new(),
            last: None,
            ended: false,
        }
    }

    /// Only groups with that limit have the controller: one look instead of one for each size and figure.
    fn find_pages(&mut self, group: &str) {
        let Some((dir, table)) = self.pages.as_ref().filter(|_| !std::mem::replace(&mut self.looked_for_pages, true))
        else {
            return;
        };
        let sizes = devices::huge_pages();
        let first = sizes.first().map(|size| format!("{group}/hugetlb.{}.{}", size.name, table[0].0));
        if !first.is_some_and(|first| file::exists(dir, &first)) {
            return;
        }
        for size in sizes {
            self.sources.extend(table.iter().map(|&(name, parse)| {
                let file = format!("hugetlb.{}.{name}", size.name);
                Source::new(dir, Cow::Owned(file), Figure::Pages(size.size(), parse))
            }));
        }
        self.pages = None;
    }

    /// For a group that was given one more controller.
    pub fn look_again(&mut self) {
        for source in self.sources.iter_mut().filter(|source| matches!(source.state, State::Absent)) {
            source.state = State::Unopened;
        }
        self.looked_for_pages = false;
    }

    fn read(&mut self, group: &str, wanted: impl Fn(&Source) -> bool, usage: &mut Usage) -> Result<(), Failure> {
        for source in self.sources.iter_mut().filter(|source| wanted(source)) {
            source.read(group, &mut self.buffer, usage)?;
        }
        for (number, device) in usage.io.iter_mut().flatten() {
            if !self.devices.contains_key(number) {
                self.devices.insert(number.clone(), devices::name(number));
            }
            device.name = self.devices[number].clone();
        }
        Ok(())
    }

    /// All counters; after the group's end the last ones that were read.
    pub fn usage(&mut self, group: &str) -> Result<Usage, Failure> {
        if self.ended {
            return self.last.clone().ok_or(Failure::Gone);
        }
        self.find_pages(group);
        let mut usage = Usage::default();
        match self.read(group, |_| true, &mut usage) {
            Ok(()) => {}
            Err(Failure::Gone) => {
                // Removed between two files, or before: what was still read is newer than what was known.
                let mut last = self.last.take().ok_or(Failure::Gone)?;
                last.merge(usage);
                usage = last;
            }
            Err(e) => return Err(e),
        }
        self.last = Some(usage.clone());
        Ok(usage)
    }

    /// The figures that outlive the processes, at about a third of the cost of a first [`Reader::usage`], because opening the
    /// control files is what costs (7-12 us each): only those that last, and what was read before. What is in use now is nothing,
    /// and the limits are `limits` where nobody has read them yet.
    pub fn final_usage(&mut self, group: &str, limits: &Limits) -> Result<Usage, Failure> {
        if self.ended {
            return self.usage(group);
        }
        let mut usage = Usage::default();
        let lasts = |source: &Source| source.name.rsplit('/').next().is_some_and(|name| LASTING.contains(&name));
        let wanted = |source: &Source| !matches!(source.state, State::Unopened) || lasts(source);
        match self.read(group, wanted, &mut usage) {
            Ok(()) => {}
            Err(Failure::Gone) => return self.usage(group),
            Err(e) => return Err(e),
        }
        self.let_go();
        usage.emptied();
        usage.memory_max = usage.memory_max.or(limits.memory.and_then(|bytes| memory_in_kernel("memory", bytes).ok()));
        usage.pids_max = usage.pids_max.or(limits.pids);
        self.last = Some(usage.clone());
        Ok(usage)
    }

    /// Closes the files: a handle may be kept long after the end, and descriptors are for who runs.
    pub fn let_go(&mut self) {
        self.sources.clear();
        self.ended = true;
    }

    /// One file instead of all.
    pub fn oom_kills(&mut self, group: &str) -> Option<u64> {
        let Self { sources, buffer, last, .. } = self;
        let Some(source) = sources.iter_mut().find(|s| s.name.ends_with(OOM_V1) || s.name == OOM_V2) else {
            return last.as_ref()?.memory_oom_kills;
        };
        let mut usage = Usage::default();
        match source.read(group, buffer, &mut usage) {
            Ok(()) => usage.memory_oom_kills,
            Err(_) => last.as_ref()?.memory_oom_kills,
        }
    }
}

/// What only OpenVZ's table has: limits that are not hard, and a count that v1 alone keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Controls {
    /// Bytes, these four.
    pub high: Option<u64>,
    pub low: Option<u64>,
    pub min: Option<u64>,
    pub swap_high: Option<u64>,
    /// The most bytes of kernel memory at once.
    pub kernel_peak: Option<u64>,
    /// How often its limit was met: never, as it has none.
    pub kernel_failures: Option<u64>,
}

impl Group {
    /// Read anew each time, from files that are opened for that.
    pub fn controls(&self) -> Controls {
        let read = |name: &str| {
            let fd = self.event_file(Some(Controller::Memory), name, OFlag::O_RDONLY).ok()?;
            number(read_text(&fd, &mut Vec::new()).ok()?)
        };
        // 0 is no guarantee.
        let guarantee = |name: &str| read(name).filter(|&bytes| bytes > 0);
        Controls {
            high: read("memory.high"),
            low: guarantee("memory.low"),
            min: guarantee("memory.min"),
            swap_high: read("memory.swap.high"),
            kernel_peak: read("memory.kmem.max_usage_in_bytes"),
            kernel_failures: read("memory.kmem.failcnt"),
        }
    }
}

#[cfg(any(fuzzing, test))]
pub(crate) fn fuzz(text: &str) {
    let mut usage = Usage::default();
    let tables = [V2_MEMORY, V2_CPU, V2_IO, PRESSURE, PIDS, V1_MEMORY, V1_CPU, V1_CPUACCT, V1_IO];
    for (_, parse) in tables.into_iter().flatten() {
        parse(text, &mut usage);
    }
    for (_, parse) in [V2_HUGEPAGES, V1_HUGEPAGES].into_iter().flatten() {
        parse(text, &mut HugePageUsage::default());
    }
    let _ = usage.to_json();
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
        assert_eq!(object.len(), Usage::KEYS.len() + ["io", "net", "hugepages", "pressure", "quota"].len());
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

    #[test]
    fn structured_figures_have_names_with_dots() {
        let mut usage = Usage::default();
        for key in [
            "io.8:0.read_bytes",
            "net.eth0.10.rx_bytes",
            "hugepages.2M.current",
            "pressure.memory.some.total_usec",
            "pressure.irq.full.total_usec",
        ] {
            assert_eq!(usage.get(key), Some(None), "{key}");
        }
        for key in [
            "io",
            "io.",
            "io.8:0",
            "io..read_bytes",
            "io.8:0.name",
            "net.lo.read_bytes",
            "pressure.memory.total_usec",
            "pressure.disk.some.total_usec",
            "pressure.memory.most.total_usec",
            "pressure.memory.some.avg10",
            "x.y.z",
        ] {
            assert_eq!(usage.get(key), None, "{key}");
        }
        for (name, text) in [("memory.pressure", PSI), ("cpu.pressure", PSI)] {
            (PRESSURE.iter().find(|(n, _)| *n == name).unwrap().1)(text, &mut usage);
        }
        (V2_IO[0].1)("8:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0 cost.usage=5\n254:0 \n", &mut usage);
        assert_eq!(usage.get("pressure.memory.some.total_usec"), Some(Some(123)));
        assert_eq!(usage.get("pressure.cpu.full.total_usec"), Some(Some(4)));
        assert_eq!(usage.get("pressure.io.full.total_usec"), Some(None));
        assert_eq!(usage.get("io.8:0.write_bytes"), Some(Some(8192)));
        assert_eq!(usage.get("io.254:0.write_bytes"), Some(None));
        let json: Value = serde_json::from_str(&usage.to_json()).unwrap();
        assert_eq!(json["pressure"]["memory"]["some"]["avg60"], 1.5);
        assert_eq!(json["pressure"]["io"], Value::Null);
        assert_eq!(json["io"]["8:0"]["writes"], 2);
        assert_eq!(json["net"], Value::Null);
    }

    const PSI: &str =
        "some avg10=0.00 avg60=1.50 avg300=0.12 total=123\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=4\n";

    #[test]
    fn devices_of_v1() {
        let mut usage = Usage::default();
        let text =
            "7:0 Read 4096\n7:0 Write 512\n7:0 Sync 4608\n7:0 Async 0\n7:0 Discard 0\n7:0 Total 4608\nTotal 4608\n";
        (V1_IO[0].1)(text, &mut usage);
        (V1_IO[1].1)("7:0 Read 1\n7:0 Write 1\n7:0 Total 2\nTotal 2\n", &mut usage);
        (V1_IO[2].1)("7:0 Read 0\n8:0 Read 9\n", &mut usage);
        let wanted = IoUsage { read_bytes: 4096, write_bytes: 512, reads: 1, writes: 1, ..IoUsage::default() };
        assert_eq!(usage.io.as_ref().unwrap()["7:0"], wanted);
        assert_eq!(usage.get("io.8:0.read_bytes"), Some(Some(9)));
    }

    #[test]
    fn nothing_is_in_use_after_the_end() {
        let mut usage =
            Usage { memory_oom_kills: Some(1), memory_anon: Some(5), memory_pgfault: Some(6), ..Usage::default() };
        usage.emptied();
        assert_eq!((usage.memory_current, usage.memory_anon, usage.memory_pgfault), (Some(0), Some(0), Some(6)));
        assert_eq!(usage.memory_swap, None);
    }

    #[test]
    fn long_files_are_read_to_their_end() {
        let file = tempfile::tempfile().unwrap();
        let text = "x".repeat(9000);
        std::io::Write::write_all(&mut &file, text.as_bytes()).unwrap();
        assert_eq!(read_text(&file.into(), &mut Vec::new()), Ok(&*text));
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
        let mut u = parsed(V1_MEMORY, "memory.failcnt", "18446744073709551615\n");
        V1_MEMORY.iter().find(|(name, _)| *name == "memory.memsw.failcnt").unwrap().1("2\n", &mut u);
        assert_eq!(u.memory_limit_hits, Some(u64::MAX));
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
