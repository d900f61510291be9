//! Which limit was in the way of a process that could not be started.

use super::{Inner, groups, lock};
use crate::cgroup::Group;
use crate::error::{Error, ErrorKind};
use crate::launch;
use crate::spec::Spec;

/// Processes that the start of a command takes at once: what joins, and the command.
const OF_A_COMMAND: u64 = 2;
/// Processes that a start takes at most: init, the main process, and what makes them where namespaces are joined.
const OF_A_START: u64 = 3;

/// Some other limit than the container's can be what clone3(2) failed at: RLIMIT_NPROC, kernel.pid_max, the groups above.
fn is_clone(error: &Error) -> bool {
    error.errno() == libc::EAGAIN && error.step() == Some("clone3")
}

fn too_few_pids(whose: &str, max: u64, takes: &str) -> Error {
    Error::new(ErrorKind::Exhausted, format!("{whose} may have at most {max} processes and threads; {takes}"))
        .with_field("pids")
        .with_step("clone3")
        .with_errno(libc::EAGAIN)
        .with_hint("raise pids, or end some of them")
}

fn no_memory(limit: Option<u64>, whose: &str) -> Error {
    let what = "it was killed for want of memory while it started";
    let error = match limit {
        Some(limit) => Error::new(ErrorKind::Exhausted, format!("{what}: {whose} may have {limit} bytes"))
            .with_field("memory")
            .with_hint("give more: to start even the smallest program takes about half a MiB"),
        None => Error::new(ErrorKind::Exhausted, what),
    };
    error.with_errno(libc::ENOMEM)
}

/// A limit that leaves no room for a program: whatever failed for want of memory failed for that.
fn is_little(limit: Option<u64>) -> bool {
    limit.is_some_and(|limit| limit < 1 << 20)
}

/// What the group of a start that failed has counted, all of it of this start; nothing where the keeper has removed it already.
#[derive(Default)]
pub(super) struct Counted {
    killed: bool,
    refused: bool,
}

impl Counted {
    pub fn of(group: Option<&Group>) -> Self {
        let Some(group) = group else { return Self::default() };
        Self {
            killed: group.oom_kills().is_some_and(|count| count > 0),
            refused: group.usage().ok().and_then(|usage| usage.pids_refused).is_some_and(|count| count > 0),
        }
    }
}

/// Of a start that failed.
pub(super) fn at_start(error: Error, counted: &Counted, spec: &Spec, pod: Option<&Inner>) -> Error {
    let killed = launch::was_killed(&error);
    if killed && counted.killed || (killed || error.errno() == libc::ENOMEM) && is_little(spec.memory) {
        return no_memory(spec.memory, "the container");
    }
    if !is_clone(&error) {
        return error;
    }
    match spec.pids {
        Some(max) if counted.refused || max < OF_A_START => too_few_pids(
            "the container",
            max,
            "its init and its main process take one each, and one more for a moment at times",
        ),
        _ => of_pod(error, pod),
    }
}

fn of_pod(error: Error, pod: Option<&Inner>) -> Error {
    match pod.and_then(|pod| full(pod.group.as_ref()?)) {
        Some(max) => too_few_pids("the pod", max, "all its containers count"),
        None => error,
    }
}

/// The limit of a group that has no room for one more command.
fn full(group: &Group) -> Option<u64> {
    let usage = group.usage().ok()?;
    let (max, current) = (usage.pids_max?, usage.pids_current?);
    (current + OF_A_COMMAND > max).then_some(max)
}

impl Inner {
    /// Of a request that joins.
    pub(super) fn short_of_pids(&self, error: Error, sub: Option<&groups::Sub>) -> Error {
        if !is_clone(&error) {
            return error;
        }
        let takes = "to start a command takes two for a moment";
        let of_sub = sub.and_then(|sub| full(&sub.group)).map(|max| ("the group inside", max));
        let of_all = || self.group.as_ref().and_then(full).map(|max| ("the container", max));
        match of_sub.or_else(of_all) {
            Some((whose, max)) => too_few_pids(whose, max, takes),
            None => of_pod(error, self.pod.as_ref().map(|pod| &*pod.holder)),
        }
    }

    /// Of a command, before which so many had been killed.
    pub(super) fn short_of_memory(&self, error: Error, sub: Option<&groups::Sub>, before: Option<u64>) -> Error {
        if !launch::was_killed(&error) || before.is_none() || self.oom_kills(sub) <= before {
            return error;
        }
        let of_sub = sub.and_then(|sub| lock(&sub.limits).memory).map(|limit| (limit, "the group inside"));
        let own = || lock(&self.spec_now).memory.map(|limit| (limit, "the container"));
        let of_pod = || lock(&self.pod.as_ref()?.holder.spec_now).memory.map(|limit| (limit, "the pod"));
        // The smallest is the one that was in the way.
        match of_sub.into_iter().chain(own()).chain(of_pod()).min_by_key(|(limit, _)| *limit) {
            Some((limit, whose)) => no_memory(Some(limit), whose),
            None => no_memory(None, ""),
        }
    }
}
