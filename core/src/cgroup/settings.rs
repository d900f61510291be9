//! What each limit writes, and where: one table for both versions of control groups.
//!
//! Values are checked before anything is made ([`Limits::settings`]); what the kernel rounds, clips or merges without
//! telling is read back after. A change of several limits ([`apply`] with `take_back`) is whole or not at all.

use std::borrow::Cow;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::devices;
use super::file;
use super::layout::Controller;
use super::limits::{self, Limits, memory_in_kernel, page_size};
use super::real_time;
use super::{V1Part, V2Part};
use crate::error::{Error, ErrorKind, Result};
use crate::spec::{IoMax, Partition};

/// What a file reads as when the kernel took the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// It takes it as it is, or refuses it.
    Surely,
    Same(String),
    /// Another file tells: what is had of what was asked.
    In(&'static str, String),
}

/// What a file is written with when there is to be no limit any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reset {
    To(Cow<'static, str>),
    /// What the group above has, by this file of it.
    Above(&'static str),
}

/// One file of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Write {
    pub file: Cow<'static, str>,
    pub value: String,
    pub kept: Kept,
    pub reset: Reset,
    /// The file has a line for each device, and this is the first word of ours.
    pub line: Option<String>,
    /// The kernel may have been built without the file, and the limit is whole without it.
    pub optional: bool,
    /// A new group has this value already.
    pub initial: bool,
    /// What a refusal means, by errno.
    pub refused: &'static [(i32, &'static str)],
}

/// One field of the spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub field: &'static str,
    pub controller: Controller,
    /// On v1; or why that cannot be had there.
    pub v1: std::result::Result<Vec<Write>, &'static str>,
    pub v2: Vec<Write>,
    /// Why that cannot be had on v2.
    pub only_v1: Option<&'static str>,
}

impl Setting {
    /// Whether the payload's own group on v2 has to have the controller.
    pub fn is_for_payload(&self) -> bool {
        self.v2.iter().any(|write| Level::of(&write.file) != Level::Whole)
    }
}

/// Where a file of v2 is written of a group in which the payload has its own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Whole,
    Payload,
    /// The groups in the payload's are protected as far as all those above are, and a container that looks at its limits sees
    /// its payload's group as the topmost.
    Both,
}

impl Level {
    fn of(file: &str) -> Self {
        match file {
            "pids.max" => Self::Payload,
            "cpu.max" | "cpu.max.burst" | "memory.high" | "memory.low" | "memory.max" | "memory.min"
            | "memory.oom.group" | "memory.swap.max" => Self::Both,
            _ => Self::Whole,
        }
    }
}

fn write(file: impl Into<Cow<'static, str>>, value: impl ToString, reset: impl Into<Cow<'static, str>>) -> Write {
    Write {
        file: file.into(),
        value: value.to_string(),
        kept: Kept::Surely,
        reset: Reset::To(reset.into()),
        line: None,
        optional: false,
        initial: false,
        refused: &[],
    }
}

impl Write {
    /// Read back as it was written.
    fn checked(self) -> Self {
        let kept = self.value.clone();
        self.kept(kept)
    }

    fn kept(self, kept: impl ToString) -> Self {
        Self { kept: Kept::Same(kept.to_string()), ..self }
    }

    fn optional(self) -> Self {
        Self { optional: true, ..self }
    }

    fn refused(self, refused: &'static [(i32, &'static str)]) -> Self {
        Self { refused, ..self }
    }

    /// The same file, without the limit.
    pub fn taken_away(&self) -> Self {
        let value = match &self.reset {
            Reset::To(value) => value.clone().into_owned(),
            Reset::Above(_) => String::new(),
        };
        Self { value, kept: Kept::Surely, initial: false, ..self.clone() }
    }
}

const ABOVE_PARENT: &[(i32, &str)] = &[(
    libc::EINVAL,
    "the groups above allow less: see cpu.cfs_quota_us in the groups above; v1 refuses a larger share than theirs",
)];
const RT_ABOVE: &[(i32, &str)] = &[
    (libc::EINVAL, "the groups above have no more left: see cpu.rt_runtime_us in them"),
    (libc::EBUSY, "a real-time process would be left without a budget: end it, or give it another policy"),
];
const IN_USE: &[(i32, &str)] = &[(libc::EBUSY, "the container uses more than that, and it cannot be reclaimed")];
const BURST: &[(i32, &str)] = &[(libc::EINVAL, "at most what cpus allows in one period")];
const NOT_ABOVE: &[(i32, &str)] = &[
    (libc::EACCES, "the group above has not all of these: see cpuset.cpus and cpuset.mems there"),
    (libc::EINVAL, "the group above has not all of these: see cpuset.cpus and cpuset.mems there"),
    (libc::ENOSPC, "a group with processes needs a processor and a memory node"),
];

impl Limits {
    /// What has to be written, in this order.
    pub(super) fn settings(&self) -> Result<Vec<Setting>> {
        self.settings_after(&Self::default())
    }

    /// As [`Limits::settings`], where `old` is in force: what is in it already is passed over when the machine has lost the
    /// device since, so that it does not stand in the way of other changes, its own removal among them.
    pub(super) fn settings_after(&self, old: &Self) -> Result<Vec<Setting>> {
        self.validate()?;
        let mut out = Vec::new();
        self.memory_settings(&mut out)?;
        self.cpu_settings(&mut out)?;
        self.cpuset_settings(&mut out)?;
        if let Some(pids) = self.pids {
            let v2 = vec![write("pids.max", pids, "max").checked()];
            let v1 = Ok(v2.clone());
            out.push(Setting { field: "pids", controller: Controller::Pids, v1, v2, only_v1: None });
        }
        self.io_settings(old, &mut out)?;
        self.countable_settings(old, &mut out)?;
        Ok(out)
    }

    fn memory_settings(&self, out: &mut Vec<Setting>) -> Result<()> {
        let mut push = |field, v1, v2: Vec<Write>| {
            out.push(Setting { field, controller: Controller::Memory, v1, v2, only_v1: None })
        };
        if let Some(bytes) = self.memory {
            let kept = memory_in_kernel("memory", bytes)?;
            let mut v1 = vec![write("memory.limit_in_bytes", kept, "-1").checked().refused(IN_USE)];
            if self.swap.is_none() {
                // The order matters: the kernel refuses a sum below the limit of memory alone. One page more than that limit,
                // because the kernel charges the sum first: were both equal, `memory.failcnt` would never count a hit (seen
                // on 6.18, which does not count them in `memory.memsw.failcnt` either).
                let sum = kept + page_size();
                v1.push(write("memory.memsw.limit_in_bytes", sum, "-1").checked().optional().refused(IN_USE));
            }
            push("memory", Ok(v1), vec![write("memory.max", bytes, "max").kept(kept)]);
        }
        if let Some(bytes) = self.swap {
            let kept = bytes / page_size() * page_size();
            let v1 = match self.memory {
                None => Err("cgroup v1 limits swap only together with memory: give memory too"),
                Some(memory) => {
                    let sum = memory_in_kernel("memory", memory)?.saturating_add(kept).saturating_add(page_size());
                    Ok(vec![write("memory.memsw.limit_in_bytes", sum, "-1").checked().refused(IN_USE)])
                }
            };
            push("swap", v1, vec![write("memory.swap.max", bytes, "max").kept(kept)]);
        }
        let soft = [
            ("memory_high", "memory.high", self.memory_high, "max", "cgroup v1 cannot slow a group down at a bound"),
            ("memory_low", "memory.low", self.memory_low, "0", "cgroup v1 has no protection of memory"),
            ("memory_min", "memory.min", self.memory_min, "0", "cgroup v1 has no guarantee of memory"),
        ];
        for (field, file, bytes, reset, why) in soft {
            if let Some(bytes) = bytes {
                let kept = bytes / page_size() * page_size();
                push(field, Err(why), vec![write(file, bytes, reset).kept(kept)]);
            }
        }
        if self.oom_group {
            let v2 = vec![write("memory.oom.group", 1, "0").checked()];
            push("oom_group", Err("cgroup v1 kills one process at a time"), v2);
        }
        Ok(())
    }

    fn cpu_settings(&self, out: &mut Vec<Setting>) -> Result<()> {
        let mut push =
            |field, v1, v2| out.push(Setting { field, controller: Controller::Cpu, v1: Ok(v1), v2, only_v1: None });
        if let Some(cpus) = self.cpus {
            let bandwidth = limits::bandwidth(cpus)?;
            // Whole microseconds within the kernel's bounds are kept as they are or refused.
            let period = write("cpu.cfs_period_us", bandwidth.period, limits::DEFAULT_PERIOD.to_string());
            let initial = bandwidth.period == limits::DEFAULT_PERIOD;
            let v1 = vec![
                Write { initial, ..period.refused(ABOVE_PARENT) },
                write("cpu.cfs_quota_us", bandwidth.quota, "-1").refused(ABOVE_PARENT),
            ];
            let both = format!("{} {}", bandwidth.quota, bandwidth.period);
            push("cpus", v1, vec![write("cpu.max", both, "max 100000").checked()]);
        }
        if let Some(burst) = self.cpu_burst {
            let burst = u64::try_from(burst.as_micros()).unwrap_or(u64::MAX);
            let file = |name| vec![write(name, burst, "0").checked().refused(BURST)];
            push("cpu_burst", file("cpu.cfs_burst_us"), file("cpu.max.burst"));
        }
        if self.cpu_idle {
            let files = vec![write("cpu.idle", 1, "0").checked()];
            push("cpu_idle", files.clone(), files);
        }
        if let Some(weight) = self.cpu_weight {
            // 100 is the default of v2 and 1024 that of v1.
            let shares = (weight * 1024 / 100).max(2);
            let v1 = vec![write("cpu.shares", shares, "1024").checked()];
            push("cpu_weight", v1, vec![write("cpu.weight", weight, "100").checked()]);
        }
        if let Some(budget) = self.real_time() {
            let period = write("cpu.rt_period_us", budget.period, "1000000");
            let v1 = vec![
                Write { initial: budget.period == 1_000_000, ..period.checked().refused(RT_ABOVE) },
                write("cpu.rt_runtime_us", budget.quota, "0").checked().refused(RT_ABOVE),
            ];
            out.push(Setting {
                field: "cpu_rt_runtime",
                controller: Controller::Cpu,
                v1: Ok(v1),
                v2: Vec::new(),
                only_v1: Some(
                    "cgroup v2 has no budget of real-time: real-time processes of all groups share the machine's \
                     (kernel.sched_rt_runtime_us)",
                ),
            });
        }
        Ok(())
    }

    fn cpuset_settings(&self, out: &mut Vec<Setting>) -> Result<()> {
        let Some(cpuset) = &self.cpuset else { return Ok(()) };
        let (mut v1, mut v2) = (Vec::new(), Vec::new());
        let lists = [
            (&cpuset.cpus, "cpuset.cpus", "cpuset.cpus.effective", "cpuset.effective_cpus"),
            (&cpuset.mems, "cpuset.mems", "cpuset.mems.effective", "cpuset.effective_mems"),
        ];
        for (list, file, effective, effective_v1) in lists {
            let Some(list) = list else { continue };
            let list = crate::spec::cpuset::parse_list(list).map_err(|why| Error::spec("cpuset", why))?;
            let list = crate::spec::cpuset::show_list(&list);
            // A list that the machine has only a part of is taken as it is: what is had stands in another file.
            // It cannot be emptied while processes are in the group.
            let one = |told| Write {
                kept: Kept::In(told, list.clone()),
                reset: Reset::Above(told),
                ..write(file, &list, "").refused(NOT_ABOVE)
            };
            v1.push(one(effective_v1));
            v2.push(one(effective));
        }
        if let Some(partition) = cpuset.partition {
            // The kernel grants a partition to a group below one that is none when the processors are set apart for it.
            let cpus = cpuset.cpus.clone().unwrap_or_default();
            v2.push(write("cpuset.cpus.exclusive", cpus, "\n"));
            v2.push(write("cpuset.cpus.partition", partition.name(), "member").checked());
        }
        let v1 = match cpuset.partition {
            Some(Partition::Root | Partition::Isolated) => Err("partitions of processors are for cgroup v2"),
            None => Ok(v1),
        };
        out.push(Setting { field: "cpuset", controller: Controller::Cpuset, v1, v2, only_v1: None });
        Ok(())
    }

    fn io_settings(&self, old: &Self, out: &mut Vec<Setting>) -> Result<()> {
        let ways = match self.io_weight.map(devices::weight_ways) {
            Some(Err(_)) if old.io_weight == self.io_weight => None,
            ways => ways.transpose()?,
        };
        if let (Some(weight), Some(ways)) = (self.io_weight, ways) {
            let v1 = match ways.bfq {
                true => Ok(vec![write("blkio.bfq.weight", weight, "100").checked()]),
                false => Err("cgroup v1 shares devices by weight only where bfq schedules them"),
            };
            let mut v2 = Vec::new();
            if ways.iocost {
                v2.push(write("io.weight", weight, "100").kept(format!("default {weight}")));
            }
            if ways.bfq {
                v2.push(write("io.bfq.weight", weight, "100").kept(format!("default {weight}")));
            }
            out.push(Setting { field: "io_weight", controller: Controller::Io, v1, v2, only_v1: None });
        }
        let (mut v1, mut v2) = (Vec::new(), Vec::new());
        for (name, limits) in &self.io_max {
            let device = match devices::number(name) {
                Err(_) if old.io_max.get(name) == Some(limits) => continue,
                device => device?,
            };
            if v2.iter().any(|other: &Write| other.line.as_deref() == Some(&*device)) {
                let field = format!("io_max[{name:?}]");
                return Err(Error::spec(field, format!("the device {device} has limits under another name already")));
            }
            let file = ["read_bps_device", "write_bps_device", "read_iops_device", "write_iops_device"];
            let mut shown = device.clone();
            for ((key, value), file) in IoMax::KEYS.iter().zip(limits.values()).zip(file) {
                shown += &value.map_or(format!(" {key}=max"), |value| format!(" {key}={value}"));
                let Some(value) = value else { continue };
                let line = write(format!("blkio.throttle.{file}"), format!("{device} {value}"), format!("{device} 0"));
                v1.push(Write { line: Some(device.clone()), ..line.checked() });
            }
            let none = format!("{device} rbps=max wbps=max riops=max wiops=max");
            v2.push(Write { line: Some(device), ..write("io.max", shown, none).checked() });
        }
        if !v2.is_empty() {
            out.push(Setting { field: "io_max", controller: Controller::Io, v1: Ok(v1), v2, only_v1: None });
        }
        Ok(())
    }

    /// Resources of which each group has a number.
    fn countable_settings(&self, old: &Self, out: &mut Vec<Setting>) -> Result<()> {
        let (mut v1, mut v2) = (Vec::new(), Vec::new());
        for (size, bytes) in &self.hugepages {
            let page = devices::huge_page(size)?;
            let kept = bytes / page.bytes * page.bytes;
            // What is reserved and what is touched are counted apart. Without the first, the limit kills by SIGBUS at the
            // first touch instead of refusing the mapping.
            for (v1_file, v2_file) in [("rsvd.limit_in_bytes", "rsvd.max"), ("limit_in_bytes", "max")] {
                let name = |file: &str| format!("hugetlb.{}.{file}", page.name);
                v1.push(write(name(v1_file), bytes, "-1").kept(kept));
                v2.push(write(name(v2_file), bytes, "max").kept(kept));
            }
        }
        if !v2.is_empty() {
            out.push(Setting { field: "hugepages", controller: Controller::Hugetlb, v1: Ok(v1), v2, only_v1: None });
        }
        let mut lines = Vec::new();
        for (device, limits) in &self.rdma {
            match devices::rdma(device) {
                Err(_) if old.rdma.get(device) == Some(limits) => continue,
                there => there?,
            }
            let shown = |count: Option<u64>| count.map_or("max".to_owned(), |count| count.to_string());
            let line = |handles: &str, objects: &str| format!("{device} hca_handle={handles} hca_object={objects}");
            let value = line(&shown(limits.hca_handle), &shown(limits.hca_object));
            lines.push(Write { line: Some(device.clone()), ..write("rdma.max", value, line("max", "max")).checked() });
        }
        if !lines.is_empty() {
            let v1 = Ok(lines.clone());
            let v2 = std::mem::take(&mut lines);
            out.push(Setting { field: "rdma", controller: Controller::Rdma, v1, v2, only_v1: None });
        }
        for (resource, count) in &self.misc {
            let value = format!("{resource} {count}");
            let write = write("misc.max", value, format!("{resource} max")).checked().refused(NO_RESOURCE);
            lines.push(Write { line: Some(resource.clone()), ..write });
        }
        if !lines.is_empty() {
            let v1 = Ok(lines.clone());
            out.push(Setting { field: "misc", controller: Controller::Misc, v1, v2: lines, only_v1: None });
        }
        Ok(())
    }
}

const NO_RESOURCE: &[(i32, &str)] =
    &[(libc::EINVAL, "this machine has no such resource: see misc.capacity of the root group")];

/// The group to which a setting is written.
pub(super) struct Place<'a> {
    base: BorrowedFd<'a>,
    prefix: String,
    path: PathBuf,
    v2: bool,
    /// On v2, where it is another group: the payload's.
    inner: Option<(BorrowedFd<'a>, PathBuf)>,
}

impl<'a> Place<'a> {
    /// `None`: there is no group with the setting's controller. That of v2 is taken when none of v1 has it.
    pub fn of(setting: &Setting, v1: &'a [V1Part], v2: Option<&'a V2Part>, name: &str) -> Option<Self> {
        let on_v1 = setting.controller.name_on(false);
        if let Some(part) = v1.iter().find(|part| super::has(&part.parent, on_v1)) {
            let (base, path) = (part.parent.dir.as_fd(), part.parent.path.join(name));
            return Some(Self { base, prefix: format!("{name}/"), path, v2: false, inner: None });
        }
        let V2Part { parent, dir, inner } = v2?;
        let path = parent.path.join(name);
        let inner = inner.as_ref().map(|inner| (inner.as_fd(), path.join(super::SUB_PAYLOAD)));
        Some(Self { base: dir.as_fd(), prefix: String::new(), path, v2: true, inner })
    }

    pub fn writes<'s>(&self, setting: &'s Setting) -> &'s [Write] {
        match &setting.v1 {
            Ok(writes) if !self.v2 => writes,
            _ => &setting.v2,
        }
    }

    pub fn steps<'s>(&'s self, field: &'static str, write: &Write) -> Vec<Step<'s>> {
        let step = |base: BorrowedFd<'s>, group: &'s Path| Step {
            field,
            write: write.clone(),
            base,
            prefix: Cow::Borrowed(&self.prefix),
            group,
        };
        let whole = || step(self.base, &self.path);
        match (&self.inner, Level::of(&write.file)) {
            (None, _) | (_, Level::Whole) => vec![whole()],
            (Some((base, path)), Level::Payload) => vec![step(*base, path)],
            (Some((base, path)), Level::Both) => vec![whole(), step(*base, path)],
        }
    }
}

/// Writes the settings of groups that were just made, in which nobody is yet.
pub(super) fn set_all(settings: &[Setting], v1: &[V1Part], v2: Option<&V2Part>, name: &str) -> Result<()> {
    let mut places = Vec::new();
    for setting in settings {
        let place = Place::of(setting, v1, v2, name);
        places.push((setting, place.ok_or_else(|| super::update::nowhere(setting))?));
    }
    let steps: Vec<Step<'_>> = places
        .iter()
        .flat_map(|(setting, place)| place.writes(setting).iter().flat_map(|write| place.steps(setting.field, write)))
        .filter(|step| !step.write.initial)
        .collect();
    apply(&steps, false)
}

/// A write into one group.
pub(super) struct Step<'a> {
    pub field: &'static str,
    pub write: Write,
    /// The group, and its path for messages.
    pub base: BorrowedFd<'a>,
    pub prefix: Cow<'a, str>,
    pub group: &'a Path,
}

impl Step<'_> {
    fn file(&self) -> String {
        format!("{}{}", self.prefix, self.write.file)
    }

    fn shown(&self) -> PathBuf {
        self.group.join(&*self.write.file)
    }

    fn failed(&self, step: &str, errno: Errno) -> Error {
        let error = super::failed_at(step, errno, &self.shown()).with_field(self.field);
        match self.write.refused.iter().find(|(e, _)| *e == errno as i32) {
            Some((_, hint)) => error.with_hint(*hint),
            None => error,
        }
    }

    /// The value now, as it would be written: the whole file, or the line of a device.
    fn now(&self, file: &str) -> Result<String> {
        let text = file::read(self.base, file).map_err(|e| self.failed("read", e))?;
        Ok(match &self.write.line {
            None => text.trim().to_owned(),
            Some(line) => {
                let ours = text.lines().find(|l| l.split(' ').next() == Some(line));
                ours.map(|l| l.trim().to_owned()).unwrap_or_else(|| self.write.taken_away().value)
            }
        })
    }

    fn run(&self) -> Result<()> {
        let (file, write) = (self.file(), &self.write);
        if write.optional && !file::exists(self.base, &file) {
            return Ok(());
        }
        let mut value = Cow::Borrowed(&*write.value);
        if let (true, Reset::Above(from)) = (value.is_empty(), &write.reset) {
            let above = if self.prefix.is_empty() { format!("../{from}") } else { (*from).to_owned() };
            value = file::read(self.base, &above).map_err(|e| self.failed("read", e))?.into();
        }
        let failed = |e| self.failed(&format!("write {} to", write.value.trim()), e);
        let (told, kept) = match &write.kept {
            Kept::Surely => return file::write(self.base, &file, &value).map_err(failed),
            Kept::Same(kept) if write.line.is_none() => {
                let write = || file::write_and_read(self.base, &file, &value);
                let written = if self.write.file == real_time::RUNTIME { real_time::patiently(write) } else { write() };
                let now = written.map_err(failed)?;
                (now.trim().to_owned(), kept)
            }
            Kept::Same(kept) => {
                file::write(self.base, &file, &value).map_err(failed)?;
                (self.now(&file)?, kept)
            }
            Kept::In(other, kept) => {
                file::write(self.base, &file, &value).map_err(failed)?;
                let other = format!("{}{other}", self.prefix);
                (file::read(self.base, &other).map_err(|e| self.failed("read", e))?.trim().to_owned(), kept)
            }
        };
        if told == *kept {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Unsupported, format!("the kernel made {told:?} of {:?}", write.value))
            .with_field(self.field)
            .with_step("write")
            .with_path(self.shown().to_string_lossy()))
    }
}

/// Writes all. `take_back`: when one is refused, what was written before gets its former values back.
///
/// The kernel refuses some values before others are written (v1: a limit of memory above that of memory and swap), which
/// depends on the values there are. So what is EINVAL is tried again as long as others go through.
pub(super) fn apply(steps: &[Step<'_>], take_back: bool) -> Result<()> {
    let mut former: Vec<Step<'_>> = Vec::new();
    let mut waiting: Vec<&Step<'_>> = steps.iter().collect();
    while !waiting.is_empty() {
        let before = waiting.len();
        let mut refused = None;
        let mut later = Vec::new();
        for step in waiting {
            let was = if take_back { step.former() } else { None };
            match step.run() {
                Ok(()) => former.extend(was),
                Err(e) if e.errno() == libc::EINVAL => {
                    refused.get_or_insert(e);
                    later.push(step);
                }
                Err(e) => {
                    // It may have been written, and not have come to what was asked.
                    former.extend(was);
                    restore(former);
                    return Err(e);
                }
            }
        }
        if later.len() == before {
            restore(former);
            return Err(refused.expect("something was refused"));
        }
        waiting = later;
    }
    Ok(())
}

impl<'a> Step<'a> {
    /// The write that puts back what there is now. `None`: there is no such file.
    fn former(&self) -> Option<Step<'a>> {
        let value = self.now(&self.file()).ok()?;
        let above = matches!(self.write.reset, Reset::Above(_));
        // An empty write would not reach the kernel.
        let value = if value.is_empty() && !above { "\n".to_owned() } else { value };
        let write = Write { value, kept: Kept::Surely, ..self.write.clone() };
        Some(Step { write, prefix: self.prefix.clone(), ..*self })
    }
}

fn restore(mut former: Vec<Step<'_>>) {
    former.reverse();
    if let Err(e) = apply(&former, false) {
        // The group may be gone; otherwise the kernel took these values before.
        log::warn!("a refused change of limits was not taken back: {e}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::spec::Cpuset;

    fn settings(limits: Limits) -> Vec<Setting> {
        limits.settings().unwrap_or_else(|e| panic!("{e}"))
    }

    fn v1(setting: &Setting) -> Vec<(&str, String)> {
        setting.v1.as_ref().unwrap().iter().map(|w| (&*w.file, w.value.clone())).collect()
    }

    fn v2(setting: &Setting) -> Vec<(&str, String)> {
        setting.v2.iter().map(|w| (&*w.file, w.value.clone())).collect()
    }

    const MIB: u64 = 1 << 20;

    #[test]
    fn memory_and_swap_are_one_sum_on_v1() {
        let page = page_size();
        let [memory] = &settings(Limits { memory: Some(8 * MIB), ..Limits::default() })[..] else { panic!() };
        let sum = (8 * MIB + page).to_string();
        assert_eq!(v1(memory)[1], ("memory.memsw.limit_in_bytes", sum));
        assert!(memory.v1.as_ref().unwrap()[1].optional);

        let limits = Limits { memory: Some(8 * MIB), swap: Some(2 * MIB + 1), ..Limits::default() };
        let [memory, swap] = &settings(limits)[..] else { panic!() };
        assert_eq!(v1(memory), [("memory.limit_in_bytes", (8 * MIB).to_string())]);
        assert_eq!(v1(swap), [("memory.memsw.limit_in_bytes", (10 * MIB + page).to_string())]);
        assert_eq!(v2(swap), [("memory.swap.max", (2 * MIB + 1).to_string())]);
        assert_eq!(swap.v2[0].kept, Kept::Same((2 * MIB).to_string()));
        assert!(!swap.v1.as_ref().unwrap()[0].optional, "an asked limit that cannot be had is an error");

        let [alone] = &settings(Limits { swap: Some(0), ..Limits::default() })[..] else { panic!() };
        assert!(alone.v1.is_err());
        assert_eq!(v2(alone), [("memory.swap.max", "0".into())]);
    }

    #[test]
    fn weights_have_the_same_default_on_both() {
        for (weight, shares) in [(1, 10), (100, 1024), (10_000, 102_400)] {
            let [setting] = &settings(Limits { cpu_weight: Some(weight), ..Limits::default() })[..] else { panic!() };
            assert_eq!(v1(setting), [("cpu.shares", shares.to_string())]);
            assert_eq!(v2(setting), [("cpu.weight", weight.to_string())]);
        }
    }

    #[test]
    fn protections_are_for_v2() {
        let limits = Limits {
            memory_high: Some(MIB),
            memory_low: Some(MIB),
            memory_min: Some(4096),
            oom_group: true,
            ..Limits::default()
        };
        let all = settings(limits);
        let fields = ["memory_high", "memory_low", "memory_min", "oom_group"];
        assert_eq!(all.iter().map(|s| s.field).collect::<Vec<_>>(), fields);
        assert!(all.iter().all(|s| s.v1.is_err() && s.v2.len() == 1));
        let reset: Vec<String> = all.iter().map(|s| s.v2[0].taken_away().value).collect();
        assert_eq!(reset, ["max", "0", "0", "0"]);
    }

    #[test]
    fn processors_are_read_back_as_those_that_are_had() {
        let cpuset = Some(Cpuset { cpus: Some("1,0".into()), mems: Some("0".into()), partition: None });
        let [setting] = &settings(Limits { cpuset, ..Limits::default() })[..] else { panic!() };
        assert_eq!(v1(setting), [("cpuset.cpus", "0-1".into()), ("cpuset.mems", "0".into())]);
        assert_eq!(setting.v2[0].kept, Kept::In("cpuset.cpus.effective", "0-1".into()));
        let cpuset = Some(Cpuset { cpus: Some("1".into()), mems: None, partition: Some(Partition::Root) });
        let [setting] = &settings(Limits { cpuset, ..Limits::default() })[..] else { panic!() };
        assert!(setting.v1.is_err());
        assert_eq!(v2(setting)[2], ("cpuset.cpus.partition", "root".into()));
    }

    #[test]
    fn contradictions_name_their_field() {
        let field = |limits: Limits| {
            let e = limits.settings().unwrap_err();
            assert_eq!(e.kind(), ErrorKind::InvalidSpec, "{e}");
            e.field().map(str::to_owned).unwrap()
        };
        let memory = Some(MIB);
        assert_eq!(field(Limits { memory, memory_high: Some(2 * MIB), ..Limits::default() }), "memory_high");
        assert_eq!(field(Limits { memory, memory_low: Some(2 * MIB), ..Limits::default() }), "memory_low");
        let (memory_low, memory_min) = (Some(MIB), Some(2 * MIB));
        assert_eq!(field(Limits { memory_low, memory_min, ..Limits::default() }), "memory_min");
        assert_eq!(field(Limits { swap: Some(u64::MAX), ..Limits::default() }), "swap");
        assert_eq!(field(Limits { cpu_weight: Some(0), ..Limits::default() }), "cpu_weight");
        assert_eq!(field(Limits { cpu_weight: Some(10_001), ..Limits::default() }), "cpu_weight");
    }
}
