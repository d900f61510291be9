//! What each limit writes, and where: one table for both versions of control groups.
//!
//! Values are checked before anything is made ([`Limits::settings`]); what the kernel rounds, clips or merges without
//! telling is read back after.

use std::os::fd::BorrowedFd;
use std::path::Path;

use nix::errno::Errno;

use super::file;
use super::layout::Controller;
use super::limits::{self, Limits, memory_in_kernel, page_size};
use crate::error::{Error, ErrorKind, Result};

/// One file of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Write {
    pub file: &'static str,
    pub value: String,
    /// What the file reads as when the kernel took the value. `None`: it takes it as it is, or refuses it.
    pub kept: Option<String>,
    /// The kernel may have been built without the file, and the limit is whole without it.
    pub optional: bool,
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
}

fn write(file: &'static str, value: impl ToString) -> Write {
    Write { file, value: value.to_string(), kept: None, optional: false, refused: &[] }
}

impl Write {
    /// Read back as it was written.
    fn checked(self) -> Self {
        let kept = self.value.clone();
        self.kept(kept)
    }

    fn kept(self, kept: impl ToString) -> Self {
        Self { kept: Some(kept.to_string()), ..self }
    }

    fn optional(self) -> Self {
        Self { optional: true, ..self }
    }

    fn refused(self, refused: &'static [(i32, &'static str)]) -> Self {
        Self { refused, ..self }
    }
}

const ABOVE_PARENT: &[(i32, &str)] = &[(
    libc::EINVAL,
    "the groups above allow less: see cpu.cfs_quota_us in the groups above; v1 refuses a larger share than theirs",
)];

impl Limits {
    /// What has to be written, in this order.
    pub(super) fn settings(&self) -> Result<Vec<Setting>> {
        self.validate()?;
        let mut out = Vec::new();
        self.memory_settings(&mut out)?;
        self.cpu_settings(&mut out)?;
        if let Some(pids) = self.pids {
            let files = vec![write("pids.max", pids).checked()];
            out.push(Setting { field: "pids", controller: Controller::Pids, v1: Ok(files.clone()), v2: files });
        }
        Ok(out)
    }

    fn memory_settings(&self, out: &mut Vec<Setting>) -> Result<()> {
        let mut push = |field, v1, v2: Vec<Write>| out.push(Setting { field, controller: Controller::Memory, v1, v2 });
        if let Some(bytes) = self.memory {
            let kept = memory_in_kernel("memory", bytes)?;
            let mut v1 = vec![write("memory.limit_in_bytes", kept).checked()];
            if self.swap.is_none() {
                // The order matters: the kernel refuses a sum below the limit of memory alone. One page more than that limit,
                // because the kernel charges the sum first: were both equal, `memory.failcnt` would never count a hit (seen
                // on 6.18, which does not count them in `memory.memsw.failcnt` either).
                v1.push(write("memory.memsw.limit_in_bytes", kept + page_size()).checked().optional());
            }
            push("memory", Ok(v1), vec![write("memory.max", bytes).kept(kept)]);
        }
        if let Some(bytes) = self.swap {
            let kept = bytes / page_size() * page_size();
            let v1 = match self.memory {
                None => Err("cgroup v1 limits swap only together with memory: give memory too"),
                Some(memory) => {
                    let sum = memory_in_kernel("memory", memory)?.saturating_add(kept).saturating_add(page_size());
                    Ok(vec![write("memory.memsw.limit_in_bytes", sum).checked()])
                }
            };
            push("swap", v1, vec![write("memory.swap.max", bytes).kept(kept)]);
        }
        let soft = [
            ("memory_high", "memory.high", self.memory_high, "cgroup v1 cannot slow a group down at a bound"),
            ("memory_low", "memory.low", self.memory_low, "cgroup v1 has no protection of memory"),
            ("memory_min", "memory.min", self.memory_min, "cgroup v1 has no guarantee of memory"),
        ];
        for (field, file, bytes, why) in soft {
            if let Some(bytes) = bytes {
                let kept = bytes / page_size() * page_size();
                push(field, Err(why), vec![write(file, bytes).kept(kept)]);
            }
        }
        Ok(())
    }

    fn cpu_settings(&self, out: &mut Vec<Setting>) -> Result<()> {
        let mut push = |field, v1, v2| out.push(Setting { field, controller: Controller::Cpu, v1: Ok(v1), v2 });
        if let Some(cpus) = self.cpus {
            let bandwidth = limits::bandwidth(cpus)?;
            let mut v1 = Vec::new();
            // Whole microseconds within the kernel's bounds are kept as they are or refused.
            if bandwidth.period != limits::DEFAULT_PERIOD {
                v1.push(write("cpu.cfs_period_us", bandwidth.period).refused(ABOVE_PARENT));
            }
            v1.push(write("cpu.cfs_quota_us", bandwidth.quota).refused(ABOVE_PARENT));
            push("cpus", v1, vec![write("cpu.max", format!("{} {}", bandwidth.quota, bandwidth.period)).checked()]);
        }
        if let Some(weight) = self.cpu_weight {
            // 100 is the default of v2 and 1024 that of v1.
            let shares = (weight * 1024 / 100).max(2);
            push(
                "cpu_weight",
                vec![write("cpu.shares", shares).checked()],
                vec![write("cpu.weight", weight).checked()],
            );
        }
        Ok(())
    }
}

/// Writes the files of one setting. `base` and `prefix` are the group, `shown` its path for messages.
pub(super) fn apply(base: BorrowedFd<'_>, prefix: &str, shown: &Path, field: &str, writes: &[Write]) -> Result<()> {
    for write in writes {
        let file = format!("{prefix}{}", write.file);
        if write.optional && !file::exists(base, &file) {
            continue;
        }
        let failed = |errno: Errno| {
            let error = Error::os(format!("write {} to", write.value), errno as i32)
                .with_field(field)
                .with_path(shown.join(write.file).to_string_lossy());
            match write.refused.iter().find(|(e, _)| *e == errno as i32) {
                Some((_, hint)) => error.with_hint(*hint),
                None => error,
            }
        };
        let Some(kept) = &write.kept else {
            file::write(base, &file, &write.value).map_err(failed)?;
            continue;
        };
        let now = file::write_and_read(base, &file, &write.value).map_err(failed)?;
        if now.trim() != kept {
            let detail = format!("the kernel made {:?} of {:?}", now.trim(), write.value);
            return Err(Error::new(ErrorKind::Unsupported, detail)
                .with_field(field)
                .with_step("write")
                .with_path(shown.join(write.file).to_string_lossy()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn settings(limits: Limits) -> Vec<Setting> {
        limits.settings().unwrap_or_else(|e| panic!("{e}"))
    }

    fn v1(setting: &Setting) -> Vec<(&'static str, String)> {
        setting.v1.as_ref().unwrap().iter().map(|w| (w.file, w.value.clone())).collect()
    }

    fn v2(setting: &Setting) -> Vec<(&'static str, String)> {
        setting.v2.iter().map(|w| (w.file, w.value.clone())).collect()
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
        assert_eq!(swap.v2[0].kept.as_deref(), Some(&*(2 * MIB).to_string()));
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
        let limits =
            Limits { memory_high: Some(MIB), memory_low: Some(MIB), memory_min: Some(4096), ..Limits::default() };
        let all = settings(limits);
        assert_eq!(all.iter().map(|s| s.field).collect::<Vec<_>>(), ["memory_high", "memory_low", "memory_min"]);
        assert!(all.iter().all(|s| s.v1.is_err() && s.v2.len() == 1));
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
