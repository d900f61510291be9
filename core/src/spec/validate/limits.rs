//! Limits.

use std::time::Duration;

use super::MAX_OFFSET_SECONDS;
use super::devices::is_number_pair;
use super::syntax::{range, word};
use crate::error::Result;
use crate::spec::at::At;
use crate::spec::{Spec, TimeOffsets, signal};

/// The smallest size of a tmpfs or a log; to tmpfs 0 means unbounded.
pub(super) const MIN_SIZE: u64 = 4096;

const MIN_MEMORY: u64 = 64 << 10;

/// PID_MAX_LIMIT of the kernel.
pub(super) const MAX_PIDS: u64 = 4 << 20;

/// NR_UNIX98_PTY_MAX of the kernel.
const MAX_PTYS: u64 = 1 << 20;

pub(super) const MAX_TIMEOUT: Duration = Duration::from_secs(1_000_000_000);

impl Spec {
    fn validate_devices(&self) -> Result<()> {
        let io_max = At::Field("io_max");
        for (device, limits) in &self.io_max {
            let at = io_max.key(device);
            if device.is_empty() || device.contains('\0') || !(device.starts_with('/') || is_number_pair(device)) {
                return Err(at.error("is neither an absolute path nor MAJOR:MINOR"));
            }
            limits.validate(&at)?;
        }
        let hugepages = At::Field("hugepages");
        for (size, &bytes) in &self.hugepages {
            let at = hugepages.key(size);
            let page = crate::spec::parse_size(size).map_err(|why| at.error(why))?;
            if !page.is_power_of_two() {
                return Err(at.error("is not the size of a page").with_hint("2M and 1G on x86-64"));
            }
            if bytes > i64::MAX as u64 {
                return Err(at.error(format!("{bytes} bytes are more than the kernel can count")));
            }
        }
        let rdma = At::Field("rdma");
        for (device, limits) in &self.rdma {
            word(&rdma.key(device), device)?;
            limits.validate(&rdma.key(device))?;
        }
        let misc = At::Field("misc");
        for (resource, &count) in &self.misc {
            word(&misc.key(resource), resource)?;
            if count > i64::MAX as u64 {
                return Err(misc.key(resource).error(format!("{count} is more than Linux can count")));
            }
        }
        Ok(())
    }

    pub(super) fn validate_limits(&self) -> Result<()> {
        self.validate_memory()?;
        for (field, time) in [("wall_time", self.wall_time), ("cpu_time", self.cpu_time)] {
            if let Some(time) = time {
                if time.is_zero() {
                    return Err(At::Field(field)
                        .error("0 leaves no time to run")
                        .with_hint("leave it out for no limit"));
                }
                range(field, time.as_secs_f64(), 0.0, MAX_TIMEOUT.as_secs_f64())?;
            }
        }
        self.validate_processors()?;
        if let Some(cpuset) = &self.cpuset {
            cpuset.validate()?;
        }
        self.validate_ports()?;
        self.validate_devices()?;
        self.validate_device_rules()?;
        self.validate_disk()?;
        self.validate_cpus()?;
        if let Some(pids) = self.pids {
            range("pids", pids, 1, MAX_PIDS)?;
        }
        if let Some(ptys) = self.ptys {
            // devpts takes 0 for no limit at all.
            range("ptys", ptys, 1, MAX_PTYS)?;
        }
        if let Some(size) = self.shm_size {
            range("shm_size", size, MIN_SIZE, i64::MAX as u64)?;
        }
        if let Some(size) = self.log_max {
            range("log_max", size, MIN_SIZE, 1 << 40)?;
        }
        if let Some(signal) = self.stop_signal {
            range("stop_signal", signal, 1, signal::MAX)?;
        }
        if let Some(timeout) = self.stop_timeout {
            range("stop_timeout", timeout.as_secs_f64(), 0.0, MAX_TIMEOUT.as_secs_f64())?;
        }
        let TimeOffsets { monotonic, boottime } = self.time_offsets;
        for (clock, offset) in [("monotonic", monotonic), ("boottime", boottime)] {
            if TimeOffsets::seconds_and_nanoseconds(offset).0.abs() > MAX_OFFSET_SECONDS {
                return Err(At::Field("time_offsets").key(clock).error(format!(
                    "{offset} ns are more than the {MAX_OFFSET_SECONDS} s either way that the kernel takes"
                )));
            }
        }
        Ok(())
    }

    fn validate_memory(&self) -> Result<()> {
        if let Some(bytes) = self.memory {
            let at = At::Field("memory");
            if bytes < MIN_MEMORY {
                return Err(at.error(format!(
                    "{bytes} bytes are less than 64K: the first stack and page tables of a program need more"
                )));
            }
            if bytes > i64::MAX as u64 {
                return Err(at
                    .error(format!("{bytes} bytes are more than the kernel can count"))
                    .with_hint("leave it out for no limit"));
            }
        }
        for (field, bytes) in
            [("memory_high", self.memory_high), ("memory_low", self.memory_low), ("memory_min", self.memory_min)]
        {
            let Some(bytes) = bytes else { continue };
            range(field, bytes, MIN_SIZE, i64::MAX as u64)?;
            if self.memory.is_some_and(|memory| bytes > memory) {
                return Err(At::Field(field).error(format!("{bytes} bytes are more than memory, the hard limit")));
            }
        }
        if let (Some(min), Some(low)) = (self.memory_min, self.memory_low)
            && min > low
        {
            return Err(
                At::Field("memory_min").error(format!("{min} bytes are more than memory_low, their outer bound"))
            );
        }
        if let Some(swap) = self.swap {
            range("swap", swap, 0, i64::MAX as u64)?;
        }
        Ok(())
    }

    fn validate_processors(&self) -> Result<()> {
        for (field, weight) in [("cpu_weight", self.cpu_weight), ("io_weight", self.io_weight)] {
            if let Some(weight) = weight {
                range(field, weight, 1, 10_000)?;
            }
        }
        if self.cpu_idle && self.cpu_weight.is_some() {
            return Err(At::Field("cpu_idle").error("an idle group has no weight: leave out cpu_weight"));
        }
        if let Some(burst) = self.cpu_burst {
            let at = At::Field("cpu_burst");
            if self.cpus.is_none() {
                return Err(at.error("takes cpus: what is saved up is a part of that limit"));
            }
            if burst.as_micros() == 0 {
                return Err(at.error("is less than a microsecond").with_hint("leave it out for no burst"));
            }
        }
        self.validate_real_time()?;
        Ok(())
    }

    fn validate_cpus(&self) -> Result<()> {
        if let Some(cpus) = self.cpus {
            let at = At::Field("cpus");
            if !cpus.is_finite() {
                return Err(at.error(format!("{cpus} is not a number of cores")));
            }
            if cpus <= 0.0 {
                return Err(at.error(format!("{cpus} is not more than 0")).with_hint("leave it out for no limit"));
            }
            if cpus < 0.001 {
                return Err(
                    at.error(format!("{cpus} is less than 0.001: the kernel's smallest quota is 1 ms per second"))
                );
            }
            if cpus > 10_000.0 {
                return Err(at.error(format!("{cpus} is more than 10000 cores")));
            }
        }
        Ok(())
    }

    fn validate_real_time(&self) -> Result<()> {
        let at = At::Field("cpu_rt_period");
        let period = match (self.cpu_rt_period, self.cpu_rt_runtime) {
            (Some(_), None) => return Err(at.error("takes cpu_rt_runtime: how much of each period")),
            (Some(period), _) if period.as_micros() > i32::MAX as u128 => {
                return Err(at.error("is more than 2147483647 microseconds, the kernel's longest"));
            }
            (Some(period), _) if period.as_micros() == 0 => return Err(at.error("is less than a microsecond")),
            (period, _) => period.unwrap_or(Self::CPU_RT_PERIOD),
        };
        let Some(runtime) = self.cpu_rt_runtime else { return Ok(()) };
        let at = At::Field("cpu_rt_runtime");
        if runtime.as_micros() == 0 {
            return Err(at.error("is less than a microsecond").with_hint("leave it out for no budget"));
        }
        if runtime > period {
            return Err(at.error(format!("{runtime:?} is more than cpu_rt_period, {period:?}")));
        }
        Ok(())
    }
}
