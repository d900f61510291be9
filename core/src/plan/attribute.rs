//! What a process asks its host to do to it, where it may not do it itself.

use crate::spec::{Policy, Resource, Rlimit, Scheduler};

/// An attribute of a process for which the kernel wants rights in the first user namespace, whatever the process has in its
/// own: the host, which has them or not, sets it from outside while the process waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attribute {
    Nice(i32),
    /// struct sched_attr.
    Scheduler([u64; 7]),
    /// As ioprio_set(2) takes it.
    IoPriority(u32),
    Rlimit(Resource, Rlimit),
    OomScoreAdj(i32),
    /// Its devices on networks.
    Network,
}

/// struct sched_attr, as of Linux 5.3.
pub(super) fn sched_attr(scheduler: &Scheduler, nice: i32) -> [u64; 7] {
    const RESET_ON_FORK: u64 = 1;
    const UTIL_CLAMP_MIN: u64 = 0x20;
    const UTIL_CLAMP_MAX: u64 = 0x40;
    let (mut priority, mut times) = (0, [0; 3]);
    match scheduler.policy {
        Policy::Fifo { priority: of } | Policy::RoundRobin { priority: of } => priority = of,
        Policy::Deadline { runtime, deadline, period } => {
            times = [runtime, deadline, period].map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        }
        Policy::Other | Policy::Batch | Policy::Idle => {}
    }
    let flag = |flag, set| if set { flag } else { 0 };
    let flags = flag(RESET_ON_FORK, scheduler.reset_on_fork)
        | flag(UTIL_CLAMP_MIN, scheduler.uclamp_min.is_some())
        | flag(UTIL_CLAMP_MAX, scheduler.uclamp_max.is_some());
    let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    let clamps = pair(scheduler.uclamp_min.unwrap_or(0), scheduler.uclamp_max.unwrap_or(0));
    let size = size_of::<[u64; 7]>() as u32;
    [pair(size, scheduler.policy.number()), flags, pair(nice as u32, priority), times[0], times[1], times[2], clamps]
}
