//! The keeper's other end: start it, speak to it, statuses.

mod attribute;
mod birth;
mod channel;
/// Whether the kernel has what programs are to be confined by.
pub(crate) mod confinement;
pub(crate) mod facts;
mod fork;
/// With which ids mounts show the host's files.
mod idmap;
mod keeper;
/// Device nodes for containers.
pub(crate) mod nodes;
mod pool;
mod request;
mod scope;

pub(crate) use birth::{kept_groups, lent_ids, own_groups, prospect};
pub(crate) use channel::{Answer, Channel, deadline, next, poll};
pub(crate) use fork::{HostOnly, Owner};
pub(crate) use idmap::namespaces as namespaces_of_mounts;
pub(crate) use keeper::{Detached, Keeper, Shared, Times};
pub(crate) use nodes::{refused_label, taps};
pub(crate) use pool::{acquire, keepers, start_detached};
pub(crate) use request::{
    Attend, Joiner, Listening, OfPod, Outcome, PlanFile, Request, check_open, duplicate, explain_failure,
    open_stream_file, wait_started, was_killed,
};
pub(crate) use scope::place;

/// Ends this process's idle keepers and tells the others to leave after their last container. For hosts that are about to
/// drop privileges for good: the next start begins with a new keeper that has what the host has then.
pub fn end_keepers() {
    pool::end_all();
}

/// What [`plan`](crate::plan()) is made from: as for a start, with nothing claimed, made or opened.
pub(crate) fn prospective_facts(spec: &crate::Spec) -> crate::Result<crate::plan::facts::Facts> {
    let outer = prospect()?;
    let maps = facts::prospective_maps(spec, outer.as_ref())?;
    let (mut facts, _) = facts::gather(spec, outer.as_ref(), maps, facts::default_ids(spec, outer.as_ref()))?;
    let stream = |stdio: &Option<crate::spec::Stdio>, default| match stdio {
        None => default,
        Some(crate::spec::Stdio::Null) => crate::plan::facts::StreamFact::Null,
        Some(crate::spec::Stdio::Stdout) => crate::plan::facts::StreamFact::SameAsStdout,
        Some(_) => crate::plan::facts::StreamFact::Given,
    };
    use crate::plan::facts::StreamFact::{Given, Null};
    facts.streams = [stream(&spec.stdin, Null), stream(&spec.stdout, Given), stream(&spec.stderr, Given)];
    facts.pure_v2 = crate::cgroup::is_pure_v2();
    (facts.disk, facts.quota_calls) = crate::container::prospect_disk(spec)?;
    facts.watch_disk = spec.disk_backend() == crate::spec::DiskBackend::Tmpfs;
    Ok(facts)
}
