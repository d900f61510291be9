//! The start of a container.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use once_cell::sync::OnceCell;
use serde_json::{Value, json};

use super::chosen::Chosen;
use super::end::{End, sweep_lingering};
use super::exec::{other_credentials, with_null_hint, with_program_hint, with_rules_hint};
use super::joined::{joined_user_allows_setgroups, keeper_of_joined, open_namespaces};
use super::named::NAMED;
use super::own_group::{Making, check_nested_rates, describe_group, member_group, own_group, share, time_counter};
use super::role::{Membership, Role};
use super::streams::streams_of_main;
use super::{Container, Handle, Inner, SHORT, disk, lock, logs, nodes, parameters, ports, short};
use crate::cgroup::{Group, Limits, Purpose, V1Part};
use crate::error::{Error, ErrorKind, Result};
use crate::events::Readers;
use crate::launch::facts::{self, IdChoice};
use crate::launch::{self, Channel, Keeper, Outcome, Owner, Request, Times};
use crate::namespace::Namespace;
use crate::net;
use crate::plan::attribute::Attribute;
use crate::plan::builder::Compiled;
use crate::plan::container::{DISK, HOSTS, NETLINK, clone_flag, namespace_source};
use crate::plan::facts::{DiskFact, TapsFact};
use crate::plan::process::TERMINAL;
use crate::process::{self, OomCount, Process, Source};
use crate::proto::{Record, record, request};
use crate::spec::{BindSource, MountKind, NamespaceKind, NamespaceSource, Spec, Stdio};
use crate::state::names::{self, NameClaim};
use crate::syscalls::Filters;
use crate::volume;

impl Container {
    /// Starts a container; its main process, when `argv` is not empty, has been executed when this returns.
    ///
    /// # Errors
    /// They name the field of the spec, the step, the path and the errno; nothing is left behind.
    pub fn start(spec: &Spec) -> Result<Self> {
        Self::start_as(spec, Role::Alone)
    }

    pub(super) fn start_as(spec: &Spec, role: Role<'_>) -> Result<Self> {
        spec.validate().and_then(|()| check_descriptors(spec)).map_err(|e| e.with_context(context(spec)))?;
        sweep_lingering();
        let mut refused = Vec::new();
        let mut left = 0;
        loop {
            match Self::attempt(spec, role, &refused).map_err(|e| e.with_context(context(spec)))? {
                Attempt::Done(container) => {
                    let name = container.name().map(|name| format!(" {name:?}")).unwrap_or_default();
                    log::info!("started {}{name}, pid {}", container.id(), container.pid());
                    return Ok(container);
                }
                Attempt::Refused(_) if role.member().is_some() => {
                    return Err(other_credentials("the pod").with_context(context(spec)));
                }
                Attempt::Refused(keeper) => refused.push(keeper),
                Attempt::KeeperLeft if let Some(pod) = role.member() => {
                    return Err(pod.holder.keeper_is_gone().with_context(context(spec)));
                }
                // It went after its idle time, just now.
                Attempt::KeeperLeft => left += 1,
            }
            if refused.len() > 8 || left > 8 {
                return Err(
                    Error::new(ErrorKind::KeeperDied, "no keeper takes the request").with_context(context(spec))
                );
            }
        }
    }

    fn attempt(spec: &Spec, role: Role<'_>, refused: &[Arc<Keeper>]) -> Result<Attempt> {
        let logs = !spec.argv.is_empty() && logs::is_wanted(spec);
        let log = if logs { Some(logs::new_log(spec.log_max.unwrap_or(Spec::LOG_MAX))?) } else { None };
        let name = match &spec.name {
            Some(name) => Some(names::claim_name(name, spec.detach)?),
            None => None,
        };
        let prepared = if spec.detach {
            Self::prepare_detached(spec, name, log)?
        } else if let Some(Membership { holder, .. }) = role.member() {
            let Chosen { mode, maps, why, .. } = &holder.chosen;
            let (mode, maps, why) = (*mode, maps.clone(), why.clone());
            let ids = IdChoice { maps, claims: Vec::new(), detached_claims: None, mode, why };
            Prepared { keeper: holder.keeper.clone(), ids, name, log }
        } else {
            let of_networks = match role {
                Role::Switch(_) => net::keeper_of_others(),
                Role::Beside(switch) => Some(switch.keeper().clone()),
                _ => net::keeper_of_networks(spec),
            };
            let keeper = match of_networks.or_else(|| keeper_of_joined(spec)) {
                Some(keeper) if refused.is_empty() => keeper,
                _ => launch::acquire(refused)?,
            };
            let ids = match role {
                // Nobody's code runs in it, or the host's own.
                Role::Switch(_) | Role::Beside(_) => {
                    IdChoice { maps: None, claims: Vec::new(), detached_claims: None, mode: "host", why: None }
                }
                _ => facts::choose_ids(spec, keeper.outer.as_ref())?,
            };
            Prepared { keeper, ids, name, log }
        };
        let keeper = prepared.keeper.clone();
        keeper.starting.fetch_add(1, Ordering::Relaxed);
        let result = Self::launch(spec, role, prepared);
        keeper.starting.fetch_sub(1, Ordering::Relaxed);
        result
    }

    /// A detached container has a keeper of its own, which gets the socket, the name and the claims at its birth.
    fn prepare_detached(spec: &Spec, name: Option<NameClaim>, log: Option<OwnedFd>) -> Result<Prepared> {
        let name = name.ok_or_else(|| Error::spec("detach", "a detached container needs a name"))?;
        let null = || {
            std::fs::File::open("/dev/null")
                .map(OwnedFd::from)
                .map_err(|e| Error::io("open", &e).with_path("/dev/null"))
        };
        // Ids are chosen with the rights that the keeper will have: this thread's.
        let probe = launch::prospect()?;
        let mut ids = facts::choose_ids(spec, probe.as_ref())?;
        let copy = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().map_err(|e| Error::io("dup", &e));
        let detached = launch::Detached {
            listen: name.listen()?,
            name_lock: copy(name.lock_fd())?.into(),
            status: name.open_status()?,
            log: match &log {
                Some(log) => copy(log.as_fd())?,
                None => null()?,
            },
            log_file: name.open_log()?,
            claims: match ids.detached_claims.take() {
                Some(fd) => fd.into(),
                None => null()?.into(),
            },
        };
        let keeper = launch::start_detached(detached)?;
        Ok(Prepared { keeper, ids, name: Some(name), log })
    }

    fn launch(spec: &Spec, role: Role<'_>, prepared: Prepared) -> Result<Attempt> {
        static COUNTER: AtomicU64 = AtomicU64::new(1);
        let Prepared { keeper, ids, name, log } = prepared;
        let id = format!("{}{}-{}", keeper.id_prefix(), keeper.start_time, COUNTER.fetch_add(1, Ordering::Relaxed));
        let own_pids = namespace_source(spec, NamespaceKind::Pid) == NamespaceSource::New;
        let pod = role.member();
        let namespaces = open_namespaces(spec, keeper.privileged, pod)?;
        let mut listening = ports::Listening::open(spec)?;
        let mut joining = match pod.filter(|pod| pod.kinds.contains(&NamespaceKind::Net)) {
            Some(pod) => net::Joining::in_pod(spec, &lock(&pod.holder.kept).devices),
            None => net::Joining::begin(spec, &keeper)?,
        };
        joining.publish(listening.take_led_on())?;
        let default_ids =
            pod.map_or_else(|| facts::default_ids(spec, keeper.outer.as_ref()), |pod| pod.holder.default_ids);
        let seen = match role {
            // Nothing of the host's tree is looked at for it.
            Role::Holder { .. } | Role::Switch(_) | Role::Undo(..) => {
                &Spec { namespaces: [(NamespaceKind::Mnt, NamespaceSource::Host)].into(), ..spec.clone() }
            }
            _ => spec,
        };
        let (mut facts, mut left_out) = facts::gather(seen, keeper.outer.as_ref(), ids.maps.clone(), default_ids)?;
        facts.holder = matches!(role, Role::Holder { .. } | Role::Switch(_) | Role::Undo(..));
        facts.switch = matches!(role, Role::Switch(_));
        let outer_ids = matches!(role, Role::Switch(_) | Role::Beside(_));
        facts.may_setgroups &= !outer_ids || keeper.outer.as_ref().is_none_or(|outer| outer.pool() > 0);
        facts.ipv6 = net::has_ipv6();
        facts.name_servers = joining.leads_out().then(|| net::name_servers(spec)).flatten();
        if let Role::Undo(messages, claim) = role {
            facts.undo_net = Some((claim.as_raw_fd(), messages.to_vec()));
        }
        facts.hosts = joining.hosts().map(Into::into);
        facts.sends_hosts = joining.sends_hosts();
        let mut taps_made = Arc::default();
        if let Some((field, devices)) = joining.taps() {
            let has_dev = !facts.holder && namespace_source(spec, NamespaceKind::Mnt) == NamespaceSource::New;
            let taps = launch::taps(has_dev, &facts, spec.mount_label.as_deref())
                .map_err(|e| if e.field() == Some("mount_label") { e } else { e.with_field(field) })?;
            facts.taps = Some(TapsFact { directory: taps.directory.as_fd().as_raw_fd(), devices });
            joining.take_taps(&taps);
            taps_made = taps.numbers;
        }
        let (volumes, of_volumes) = volume::make(seen, &id)?;
        let volumes = volume::Starting::new(volumes);
        for (mount, path) in of_volumes {
            if let Some(of_mount) = facts.mount_paths.get_mut(mount) {
                *of_mount = Some(path);
            }
        }
        let mut shared_memory = None;
        if let Some(pod) = pod {
            facts.shared = pod.owned();
            facts.shared_shm = pod.shares_memory(spec);
            if facts.shared_shm {
                shared_memory = Some(pod.holder.clone_shared_memory(spec.start_timeout)?);
            }
        }
        let streams = streams_of_main(spec, log.as_ref())?;
        facts.streams = streams.facts;
        let disk = disk::prepare(spec, keeper.privileged)?;
        facts.may_setgroups &= joined_user_allows_setgroups(spec);

        let limits = Limits::of(spec);
        check_nested_rates(spec)?;
        let heir = if spec.nesting { facts::heir(&facts, keeper.outer.as_ref())? } else { None };
        let pod_group = pod.and_then(|pod| pod.holder.group.as_ref());
        // Of a pod it is not known yet.
        let ports = listening.has_others() || matches!(role, Role::Holder { .. });
        let mut nodes = nodes::Nodes { given: facts.devices.clone(), taps: Vec::new() };
        let standard = nodes::has_own_dev(spec);
        let rules = match role {
            Role::Alone | Role::Member(_) => nodes::rules(spec, &nodes, standard)?,
            Role::Holder { .. } => nodes::rules_of_pod(spec)?,
            // The library's own.
            Role::Switch(_) | Role::Beside(_) | Role::Undo(..) => None,
        };
        let made = match pod_group {
            Some(above) => member_group(above, &keeper, &id, &limits)?,
            None => {
                let purpose = Purpose { heir, ports, devices: rules.as_ref() };
                own_group(spec, role, &keeper, &id, (&limits, purpose))?
            }
        };
        let group = match made {
            Ok(group) => group,
            Err(not_made) => return Ok(not_made),
        };
        let mut making = Making { group, done: false };
        if let (Some(_), Some(group), Some(rules)) = (pod_group, &making.group, &rules) {
            group.set_device_rules(None, rules)?;
        }
        if !own_pids && !making.group.as_ref().is_some_and(Group::can_kill) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "without a pid namespace of its own only a control group can end it",
            )
            .with_field("namespaces.pid")
            .with_hint("see doctor() for why there is none"));
        }
        if spec.cpu_time.is_some() {
            time_counter(making.group.as_ref())?;
        }
        if let Some(group) = &making.group
            && let Err(not_taken) = describe_group(&mut facts, &keeper, group, pod_group, (heir.is_some(), own_pids))?
        {
            return Ok(not_taken);
        }
        if let Some(name) = name.as_ref().filter(|_| !spec.detach) {
            if let Role::Switch(switch) = role {
                lock(switch).hosts = Some(name.open_hosts()?);
            }
            let (names, undo) = name.undo(&id)?;
            let index = match share(&keeper, &names)? {
                Ok(index) => index,
                Err(not_taken) => return Ok(not_taken),
            };
            facts.undo_name = Some((index, undo));
        }
        facts.pure_v2 = crate::cgroup::is_pure_v2();
        facts.disk = disk.kind.unwrap_or_default();
        facts.quota_calls = disk.calls.clone();
        // An image and a directory of the host are at hand.
        facts.watch_disk = disk.kind == Some(DiskFact::Tmpfs);
        let (compiled, needs) = crate::plan::container::compile(spec, &facts);

        let user_namespace = match pod {
            Some(pod) if compiled.idmapped.iter().any(|one| one.by_caller && one.maps.is_none()) => {
                let found = Namespace::of_pidfd(pod.holder.pidfd(), NamespaceKind::User);
                Some(found.map_err(|e| e.with_field("idmap"))?)
            }
            _ => None,
        };
        let users = match launch::namespaces_of_mounts(&keeper, &compiled)? {
            Ok(users) => users,
            Err(launch::Shared::Refused) => return Ok(Attempt::Refused(keeper)),
            Err(_) => return Ok(Attempt::KeeperLeft),
        };
        let (channel, there) = Channel::pair()?;
        let (status, status_there) = if spec.detach {
            let file = name.as_ref().expect("a detached container has a name").open_status()?;
            (Source::Container, file)
        } else {
            let (here, there) = Channel::pipe()?;
            (Source::Channel(here), there)
        };
        let key = keeper.next_key();
        let oom = OomCount { before: making.group.as_ref().and_then(Group::oom_kills), sub: None };
        let timeout = spec.start_timeout.unwrap_or(Spec::START_TIMEOUT);
        let v1 = making.group.as_ref().map(Group::v1).unwrap_or_default();
        let sent = Request {
            group: making.group.as_ref(),
            tasks: &v1.iter().map(V1Part::tasks).collect::<Vec<_>>(),
            streams: [0, 1, 2].map(|i| streams.given[i].as_ref().map(|fd: &OwnedFd| fd.as_fd())),
            times: Times { wall: spec.wall_time, cpu: spec.cpu_time },
            disk: disk.fd.as_ref().map(AsFd::as_fd),
            namespaces: &namespaces,
            pod: pod.map(|pod| launch::OfPod {
                key: pod.holder.key,
                shared_memory: shared_memory.as_ref().map(AsFd::as_fd),
                user_namespace: user_namespace.as_ref().map(AsFd::as_fd),
            }),
            users: &users,
            ..Request::default()
        }
        .send(
            &keeper,
            request::START,
            key,
            Some(timeout),
            there.as_fd(),
            Some(status_there.as_fd()),
            &compiled,
            &needs,
        )?;
        let Some(plan) = sent else { return Ok(Attempt::KeeperLeft) };
        // The other ends: an end of file has to mean that nobody inside has them any more.
        drop((there, status_there, streams.given));

        // The numbers of macvtaps are known when they are there.
        let mut settled = || {
            nodes.taps = lock(&taps_made).clone();
            let (Some(group), Some(before), false) = (&making.group, &rules, nodes.taps.is_empty()) else { return 0 };
            let changed = nodes::rules(spec, &nodes, standard);
            let set = changed.and_then(|rules| group.set_device_rules(Some(before), rules.as_ref().unwrap_or(before)));
            set.map_or_else(|e| e.errno().max(1), |()| 0)
        };
        let attending = Attending { asks: &compiled.asks, joining: &mut joining, settled: &mut settled, plan: &plan };
        let outcome = launch::wait_started(&channel, Some(timeout), record::STARTED, attending)?;
        let (pidfd, created, listening_filter, mut fds) = match outcome {
            Outcome::Started { pidfd, created, listening, fds, left_out: more } => {
                let paths = more.iter().filter_map(|&(section, op)| compiled.tag(section, op)?.path.as_ref());
                left_out.extend(paths.map(Into::into));
                (pidfd, created, listening, fds)
            }
            Outcome::Refused => return Ok(Attempt::Refused(keeper)),
            Outcome::KeeperDied => {
                keeper.mark_dead();
                let _ = crate::state::collect_dead();
                return Err(keeper_killed());
            }
            Outcome::Ended(_) => return Err(Error::new(ErrorKind::Internal, "an end without a start")),
            Outcome::Failed(failed) => {
                // The keeper undoes it: the groups are gone when it says so, and perhaps already.
                let counted = short::Counted::of(making.group.as_ref());
                let _ = launch::wait_started(&channel, Some(SHORT), record::ENDED, NOBODY);
                return Err(joining.failure().unwrap_or_else(|| {
                    let pod = pod.map(|pod| &*pod.holder);
                    short::at_start(explain(&failed, &compiled, spec), &counted, spec, pod)
                }));
            }
        };
        let created =
            created.ok_or_else(|| Error::new(ErrorKind::Internal, "the keeper gave no pidfd of the container"))?;
        making.done = true;
        let before = plan.found(&compiled);
        drop(plan);
        let pid = process::pid_of(created.as_fd());
        let group = making.group.take();
        if listening.has_others() {
            let served = listening.serve(&keeper, key, (group.as_ref(), pod_group), timeout);
            served.or_else(|error| give_up_ports(error, &keeper, key, &channel, created.as_fd()))?;
        }
        let ports = listening.done();
        let own = own_namespaces(spec, keeper.privileged);
        let may_setgroups = facts.may_setgroups;
        if let Role::Switch(switch) = role {
            let (of_switch, others) = fds.into_iter().partition(|(number, _)| *number >= NETLINK);
            fds = others;
            lock(switch).sockets = of_switch;
        }
        let sent_disk = fds.iter().position(|(number, _)| *number == DISK).map(|i| fds.swap_remove(i).1);
        let at_home = sent_disk.as_ref().map(AsFd::as_fd).or(disk.fd.as_ref().map(AsFd::as_fd));
        let home = at_home.and_then(|fd| disk::Home::of(fd).ok());
        let (mode, maps, why) = (ids.mode, ids.maps.clone(), ids.why.clone());
        let pod_id = pod.map(|pod| pod.holder.id.clone());
        let single = keeper.outer.as_ref().is_some_and(|outer| outer.pool() == 0);
        let groups = if single { launch::own_groups() } else { Vec::new() };
        let chosen = Chosen { mode, maps, why, groups, left_out, disk: disk.kind, home, pod: pod_id };
        if let Some(name) = &name {
            let mut record = chosen.describe(spec, &id, pid, &keeper, group.as_ref());
            record["keeper"] = json!(keeper.pid);
            record["privileged"] = json!(keeper.privileged);
            record["ports"] = ports::describe(&ports);
            record["namespaces_flags"] = json!(own);
            record["may_setgroups"] = json!(may_setgroups);
            record["default_ids"] = json!(default_ids);
            record[parameters::BEFORE] = json!(before);
            record[nodes::NODES] = nodes.describe();
            record["spec"] = serde_json::from_str(&spec.to_json()).unwrap_or(Value::Null);
            record["command"] = spec.argv.iter().map(|a| a.to_string_lossy()).collect();
            name.write_record(record)?;
        }
        let mut end = End::default();
        let name = match name {
            Some(name) if spec.detach => {
                end.ended = keep(&keeper, key, &channel, created.as_fd())?;
                name.keep();
                None
            }
            other => other,
        };
        // Others need it only when they are to be limited, and then find it by what was noted of it.
        let watched = !spec.detach && spec.limits_disk();
        let disk_fd = sent_disk.or_else(|| disk.for_figures()).filter(|_| watched);
        let mut kept = joining.done(&id);
        let moved = std::mem::take(&mut kept.moved);
        let inner = Arc::new(Inner {
            owner: Owner::this(),
            kept: Mutex::new(kept),
            id,
            spec: spec.clone(),
            spec_now: Mutex::new(spec.clone()),
            updating: Mutex::default(),
            granted: Mutex::default(),
            before: Mutex::new(before),
            nodes: Mutex::new(nodes),
            holder: matches!(role, Role::Holder { .. }),
            keeper,
            key,
            pid,
            pidfd: created,
            channel: Some(channel),
            end: Mutex::new(end),
            closed: AtomicBool::new(false),
            killed: AtomicBool::new(false),
            cancel: process::event()?,
            group,
            subs: Mutex::default(),
            layer: disk::Layer::new(disk.kind, home, disk_fd),
            net: Mutex::default(),
            devices: Mutex::new(moved),
            ports,
            readers: Readers::default(),
            syscalls: Filters::default(),
            claims: Mutex::new(ids.claims),
            name: Mutex::new(name),
            volumes: Mutex::new(volumes.done()),
            log: logs::Log::new(log),
            pod: pod.cloned(),
            info: OnceCell::new(),
            chosen,
            namespaces: own,
            may_setgroups,
            default_ids,
        });
        let main = match pidfd {
            Some(pidfd) if !spec.argv.is_empty() => {
                let pid = process::pid_of(pidfd.as_fd());
                let mut host = streams.host;
                host.terminal = fds.into_iter().find(|(number, _)| *number == TERMINAL).map(|(_, fd)| fd);
                if let Some(listening) = listening_filter {
                    inner.syscalls.add(listening, pid)?;
                }
                Some(Process::new(inner.clone(), pid, pidfd, status, host, oom)?)
            }
            _ => None,
        };
        let handle = Arc::new(Handle { inner, main });
        if let Some(name) = &spec.name {
            lock(&NAMED).insert(name.clone(), Arc::downgrade(&handle));
        }
        Ok(Attempt::Done(Self { handle }))
    }
}

/// Before anything is opened: the number of a closed descriptor would come to mean one of the library's own.
fn check_descriptors(spec: &Spec) -> Result<()> {
    let streams = [("stdin", &spec.stdin), ("stdout", &spec.stdout), ("stderr", &spec.stderr)];
    for (field, stream) in streams {
        if let Some(Stdio::Fd(fd)) = stream {
            launch::check_open(*fd, field)?;
        }
    }
    for fd in spec.pass_fds.keys() {
        launch::check_open(*fd, &format!("pass_fds.{fd}"))?;
    }
    for (i, mount) in spec.mounts.iter().enumerate() {
        if let MountKind::Bind { source: BindSource::Fd(fd), .. } = &mount.kind {
            launch::check_open(*fd, &format!("mounts[{i}].fd"))?;
        }
    }
    for (kind, source) in &spec.namespaces {
        if let NamespaceSource::Fd(fd) = source {
            launch::check_open(*fd, &format!("namespaces.{}", kind.name()))?;
        }
    }
    Ok(())
}

fn context(spec: &Spec) -> String {
    match &spec.name {
        Some(name) => format!("start container {name:?}"),
        None => "start container".to_owned(),
    }
}

fn keeper_killed() -> Error {
    Error::new(ErrorKind::KeeperDied, "the keeper was killed during the start").with_errno(libc::EPIPE)
}

/// Everything that a start has made so far.
struct Prepared {
    keeper: Arc<Keeper>,
    ids: IdChoice,
    name: Option<NameClaim>,
    log: Option<OwnedFd>,
}

/// What one attempt with one keeper came to.
pub(super) enum Attempt {
    Done(Container),
    Refused(Arc<Keeper>),
    KeeperLeft,
}

pub(super) const NOBODY: &[Attribute] = &[];

/// This thread, while a container starts.
struct Attending<'a> {
    asks: &'a [Attribute],
    joining: &'a mut net::Joining,
    /// What is to be done when it is on its networks; an errno.
    settled: &'a mut dyn FnMut() -> i32,
    plan: &'a launch::PlanFile,
}

impl launch::Attend for Attending<'_> {
    fn take(&mut self, number: u32, fd: OwnedFd) -> Option<OwnedFd> {
        const ROUTE: u32 = NETLINK + libc::NETLINK_ROUTE as u32;
        match number {
            ROUTE if !self.joining.is_empty() => self.joining.connect(fd),
            HOSTS => self.joining.take_hosts(fd),
            _ => return Some(fd),
        }
        None
    }

    fn ask(&mut self, index: usize, process: BorrowedFd<'_>) -> i32 {
        match self.asks.get(index) {
            Some(Attribute::Network) => match self.joining.settle() {
                0 => (self.settled)(),
                errno => errno,
            },
            Some(attribute) => attribute.set(process),
            None => libc::EINVAL,
        }
    }

    fn plan(&self) -> Option<&launch::PlanFile> {
        Some(self.plan)
    }
}

fn explain(failed: &Record, compiled: &Compiled, spec: &Spec) -> Error {
    let error = with_null_hint(launch::explain_failure(failed, compiled), &spec.device_rules);
    if error.errno() == libc::ENOENT && error.field() == Some("namespaces") {
        // cgroup2's mount option nsdelegate: the kernel finds no group there for who is born.
        return error
            .with_kind(ErrorKind::Unsupported)
            .with_field("cgroup_parent")
            .with_detail("the control group is outside of this program's cgroup namespace, or somebody removed it")
            .with_hint("mount the tree anew in that namespace (mount -t cgroup2 none /sys/fs/cgroup)");
    }
    if spec.limits_disk() && matches!(error.errno(), libc::ENOSPC | libc::EDQUOT) {
        let field = if spec.disk.is_some() && spec.inodes.is_none() { "disk" } else { "inodes" };
        return error.with_field(field).with_hint(
            "what a container has of its own counts: some 60 inodes and a few blocks, and its files; give more",
        );
    }
    let program = spec.argv.first().map(std::path::Path::new);
    with_rules_hint(with_program_hint(error, program, spec.argv.len() == 1, spec.cwd.as_deref(), spec), &spec.landlock)
}

/// The kinds of namespaces that are not the host's, as flags of clone.
fn own_namespaces(spec: &Spec, privileged: bool) -> u64 {
    // A privileged keeper is in a mount namespace of its own, so even the host's is joined.
    let is_own = |kind: &NamespaceKind| {
        namespace_source(spec, *kind) != NamespaceSource::Host || *kind == NamespaceKind::Mnt && privileged
    };
    NamespaceKind::ALL.into_iter().filter(is_own).fold(0, |flags, kind| flags | clone_flag(kind))
}

/// Its ports could not be served: it is ended, unless it has ended by itself.
fn give_up_ports(error: Error, keeper: &Keeper, key: u64, channel: &Channel, created: BorrowedFd<'_>) -> Result<()> {
    // One that has ended in the meantime needs none, and fails in many ways; EPERM: it is without memory already.
    let patience = if matches!(error.errno(), libc::ESRCH | libc::EPERM) { SHORT } else { Duration::from_millis(100) };
    if launch::poll([created], launch::deadline(Some(patience)))?[0] {
        return Ok(());
    }
    // Nobody wants a last look at it.
    let _ = process::send_signal(created, libc::SIGKILL);
    let _ = keeper.send(request::RELEASE, key, 0, 0, &[]);
    let _ = launch::wait_started(channel, Some(SHORT), record::ENDED, NOBODY);
    Err(if error.field().is_some() { error } else { error.with_field("ports") })
}

/// Until it is told so, the keeper of a detached container ends it together with this process. Its last word, if it was over
/// before that.
fn keep(keeper: &Keeper, key: u64, channel: &Channel, created: BorrowedFd<'_>) -> Result<Option<Record>> {
    keeper.send(request::KEEP, key, 0, 0, &[])?;
    match launch::wait_started(channel, Some(SHORT), record::KEPT, NOBODY) {
        Ok(Outcome::Started { .. }) => Ok(None),
        // That is in the state directory, too.
        Ok(Outcome::Ended(record)) => Ok(Some(record)),
        failed => {
            // It may be kept after all, and then nobody would find it.
            let _ = process::send_signal(created, libc::SIGKILL);
            Err(failed.err().unwrap_or_else(keeper_killed))
        }
    }
}
