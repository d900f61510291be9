//! Limits as numbers that a kernel takes as they are, or an error that names the field.

use std::collections::BTreeMap;
use std::time::Duration;

use super::parent::Parent;
use crate::error::{Error, Result};
use crate::spec::{Cpuset, IoMax, RdmaMax, Spec};

/// What the payload may use at most. `None`: not limited by this group.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Limits {
    /// Bytes; the kernel counts in pages and rounds down.
    ///
    /// On cgroup v1 with swap accounting the sum of memory and swap gets the same limit (and one page): v1 knows only limits of memory
    /// and of that sum, and without the second one a payload at its limit is swapped out instead of stopped. On v2 swap
    /// is a resource of its own (`memory.swap.max`), which this field leaves alone.
    pub memory: Option<u64>,
    /// Bytes beside `memory`: what may be swapped out.
    pub swap: Option<u64>,
    /// Bytes from which the kernel slows the group down and reclaims.
    pub memory_high: Option<u64>,
    /// Bytes that are reclaimed only when nothing else is left to reclaim.
    pub memory_low: Option<u64>,
    /// Bytes that are never reclaimed.
    pub memory_min: Option<u64>,
    /// Cores: 0.5 is half of one.
    pub cpus: Option<f64>,
    /// The share of contended processors against other groups: 1 to 10000, 100 is everybody's.
    pub cpu_weight: Option<u64>,
    /// Processor time that may be saved up.
    pub cpu_burst: Option<Duration>,
    pub cpu_idle: bool,
    /// Processor time of real-time tasks in each period.
    pub cpu_rt_runtime: Option<Duration>,
    pub cpu_rt_period: Option<Duration>,
    pub cpuset: Option<Cpuset>,
    /// Tasks, that is processes and threads, pid 1 included.
    pub pids: Option<u64>,
    /// Kill all when one has to be killed.
    pub oom_group: bool,
    pub io_weight: Option<u64>,
    pub io_max: BTreeMap<String, IoMax>,
    /// Bytes by the size of the pages.
    pub hugepages: BTreeMap<String, u64>,
    pub rdma: BTreeMap<String, RdmaMax>,
    pub misc: BTreeMap<String, u64>,
}

/// CFS bandwidth, or a budget of real-time: `quota` microseconds in each `period` microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bandwidth {
    pub quota: u64,
    pub period: u64,
}

/// The kernel's default period, and what other container runtimes use.
pub(super) const DEFAULT_PERIOD: u64 = 100_000;
/// The kernel refuses quotas below 1 ms and periods above 1 s (`min_cfs_quota_period`, `max_cfs_quota_period`).
const MIN_QUOTA: u64 = 1_000;
const MAX_PERIOD: u64 = 1_000_000;
/// Far above any machine, far below the kernel's own bound of 2^44 microseconds of quota.
const MAX_CPUS: f64 = 65_536.0;
/// `pids.max` takes values below PIDS_MAX, which is PID_MAX_LIMIT + 1 on 64-bit kernels.
const MAX_PIDS: u64 = 4 * 1024 * 1024;

impl Limits {
    pub(crate) fn of(spec: &Spec) -> Self {
        Self {
            memory: spec.memory,
            swap: spec.swap,
            memory_high: spec.memory_high,
            memory_low: spec.memory_low,
            memory_min: spec.memory_min,
            cpus: spec.cpus,
            cpu_weight: spec.cpu_weight,
            cpu_burst: spec.cpu_burst,
            cpu_idle: spec.cpu_idle,
            cpu_rt_runtime: spec.cpu_rt_runtime,
            cpu_rt_period: spec.cpu_rt_period,
            cpuset: spec.cpuset.clone(),
            pids: spec.pids,
            oom_group: spec.oom_group,
            io_weight: spec.io_weight,
            io_max: spec.io_max.clone(),
            hugepages: spec.hugepages.clone(),
            rdma: spec.rdma.clone(),
            misc: spec.misc.clone(),
        }
    }

    /// Microseconds of real-time in each so many microseconds.
    pub(super) fn real_time(&self) -> Option<Bandwidth> {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let period = micros(self.cpu_rt_period.unwrap_or(Spec::CPU_RT_PERIOD));
        Some(Bandwidth { quota: micros(self.cpu_rt_runtime?), period })
    }

    /// For a budget of real-time: what the groups above have to have.
    pub(super) fn lend_real_time(&self, parent: &Parent, name: &str) -> Result<()> {
        match self.real_time() {
            Some(budget) if !parent.v2 => super::real_time::lend(parent, name, budget),
            _ => Ok(()),
        }
    }

    /// The first field that needs a group, if one does.
    pub(crate) fn first_field(&self) -> Result<Option<&'static str>> {
        Ok(self.settings()?.first().map(|setting| setting.field))
    }

    /// For processors of its own: what the groups above have to allow.
    pub(super) fn set_apart(&self, parent: &Parent) {
        if let Some(Cpuset { cpus: Some(cpus), partition: Some(_), .. }) = &self.cpuset
            && let Ok(cpus) = crate::spec::cpuset::parse_list(cpus)
        {
            parent.set_apart(&cpus);
        }
    }

    /// Refuses what a kernel would refuse, clip or turn into something else.
    pub(super) fn validate(&self) -> Result<()> {
        if let Some(bytes) = self.memory {
            memory_in_kernel("memory", bytes)?;
        }
        for (field, bytes) in
            [("memory_high", self.memory_high), ("memory_low", self.memory_low), ("memory_min", self.memory_min)]
        {
            let Some(bytes) = bytes else { continue };
            memory_in_kernel(field, bytes)?;
            if self.memory.is_some_and(|memory| bytes > memory) {
                return Err(Error::spec(field, "is more than memory, the hard limit"));
            }
        }
        if let (Some(min), Some(low)) = (self.memory_min, self.memory_low)
            && min > low
        {
            return Err(Error::spec("memory_min", "is more than memory_low, which it is a part of"));
        }
        // 0 is none at all.
        if let Some(bytes) = self.swap.filter(|&bytes| bytes > 0) {
            memory_in_kernel("swap", bytes)?;
        }
        if let Some(weight) = self.cpu_weight
            && !(1..=10_000).contains(&weight)
        {
            return Err(Error::spec("cpu_weight", format!("{weight} is not within 1 to 10000")));
        }
        if let Some(cpus) = self.cpus {
            bandwidth(cpus)?;
        }
        match self.pids {
            Some(0) => Err(Error::spec("pids", "0 tasks: nothing could start")),
            Some(pids) if pids > MAX_PIDS => Err(Error::spec("pids", format!("{pids} is more than Linux can count"))
                .with_hint(format!("at most {MAX_PIDS}"))),
            _ => Ok(()),
        }
    }
}

/// The number of bytes that the kernel keeps for a limit of `bytes`.
pub(super) fn memory_in_kernel(field: &'static str, bytes: u64) -> Result<u64> {
    let page = page_size();
    // page_counter clips at this value without a word, and reads it as "no limit".
    let unlimited = i64::MAX as u64 / page * page;
    if bytes < page {
        return Err(Error::spec(field, format!("{bytes} bytes is less than one page ({page} bytes)")));
    }
    if bytes >= unlimited - page {
        return Err(Error::spec(field, format!("{bytes} bytes is more than Linux can count"))
            .with_hint("leave the field out for no limit"));
    }
    Ok(bytes / page * page)
}

/// Quota and period for a number of cores, exact to a microsecond of quota.
pub(super) fn bandwidth(cpus: f64) -> Result<Bandwidth> {
    if !cpus.is_finite() || cpus <= 0.0 {
        return Err(Error::spec("cpus", format!("{cpus} is not a positive number of cores")));
    }
    if cpus > MAX_CPUS {
        return Err(Error::spec("cpus", format!("{cpus} cores is more than any machine has"))
            .with_hint("leave the field out for no limit"));
    }
    let quota = |period: u64| (cpus * period as f64).round() as u64;
    // A share too small for the default period gets a longer one: the same share, in coarser slices.
    for period in [DEFAULT_PERIOD, MAX_PERIOD] {
        if quota(period) >= MIN_QUOTA {
            return Ok(Bandwidth { quota: quota(period), period });
        }
    }
    Err(Error::spec("cpus", format!("{cpus} is less than the kernel can enforce")).with_hint("at least 0.001"))
}

pub(super) fn page_size() -> u64 {
    match nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE) {
        Ok(Some(size)) => size as u64,
        _ => 4096,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cores_become_quota_and_period() {
        assert_eq!(bandwidth(0.5).unwrap(), Bandwidth { quota: 50_000, period: 100_000 });
        assert_eq!(bandwidth(3.0).unwrap(), Bandwidth { quota: 300_000, period: 100_000 });
        assert_eq!(bandwidth(0.005).unwrap(), Bandwidth { quota: 5_000, period: 1_000_000 });
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY, 0.000_1, 1e9] {
            assert_eq!(bandwidth(bad).unwrap_err().field(), Some("cpus"), "{bad}");
        }
    }

    #[test]
    fn impossible_limits_name_their_field() {
        let field = |limits: Limits| limits.validate().unwrap_err().field().map(str::to_owned);
        assert_eq!(field(Limits { memory: Some(1), ..Limits::default() }).as_deref(), Some("memory"));
        assert_eq!(field(Limits { memory: Some(u64::MAX), ..Limits::default() }).as_deref(), Some("memory"));
        assert_eq!(field(Limits { memory: Some(i64::MAX as u64), ..Limits::default() }).as_deref(), Some("memory"));
        assert_eq!(field(Limits { pids: Some(0), ..Limits::default() }).as_deref(), Some("pids"));
        assert_eq!(field(Limits { pids: Some(u64::MAX), ..Limits::default() }).as_deref(), Some("pids"));
        assert_eq!(Limits::default().validate(), Ok(()));
    }

    proptest! {
        #[test]
        fn a_share_is_kept_to_the_microsecond(cpus in 0.001f64..65_536.0) {
            let b = bandwidth(cpus).unwrap();
            prop_assert!(b.quota >= MIN_QUOTA && b.period <= MAX_PERIOD);
            prop_assert!((b.quota as f64 / b.period as f64 - cpus).abs() <= 1.0 / b.period as f64);
        }

        #[test]
        fn memory_is_rounded_down_to_pages(bytes in 4096u64..1 << 62) {
            let kept = memory_in_kernel("memory", bytes).unwrap();
            prop_assert!(kept <= bytes && bytes - kept < page_size());
        }
    }
}
