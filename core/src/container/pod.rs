//! Containers that share namespaces.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::role::{Membership, Role};
use super::update::{LIVE, OF_THE_CONTAINER};
use super::{Container, Inner, SHORT, lock, process_runs};
use crate::cgroup::{Group, Usage};
use crate::error::{Error, ErrorKind, Result};
use crate::events::{EventOptions, Events};
use crate::launch;
use crate::namespace::Namespace;
use crate::plan::container::namespace_source;
use crate::proto::{record, request};
use crate::spec::{Idmap, NamespaceKind, NamespaceSource, Net, Spec, fields, sysctl};

/// A set of containers that share namespaces: network, System V IPC and POSIX message queues with /dev/shm, and host name; process
/// ids on request. What is in files stays apart: each has its own root file system and mounts.
///
/// The namespaces belong to a container that has nothing in it but its pid 1, the holder; [`container`](Self::container) starts the
/// others in them. All have the holder's user namespace, so that an object of IPC has the same owner for all, and their control
/// groups are in the holder's: limits of the pod hold for all of them together.
///
/// - A container ends as any other does: by its main process, `stop`, `kill`, `close`. The pod and the other containers go on.
///   The pod keeps it: to drop its handle ends nothing.
/// - The pod is empty, and goes on, when no container is left.
/// - [`close`](Self::close), or the drop of the last clone of the `Pod`, ends the containers, then the namespaces. So does the
///   end of the holder however it comes (`kill`, `wall_time`, somebody's SIGKILL), of the keeper, and of this program. Nothing
///   outlives the pod but what is kept otherwise: a [`Namespace`], a pinned one.
///
/// ```
/// use ringfence::{Pod, Spec};
///
/// # fn main() -> ringfence::Result<()> {
/// let pod = Pod::start(&Spec::new().hostname("shop").pids(64), Pod::SHARE)?;
/// let web = pod.container(&Spec::new())?;
/// let client = pod.container(&Spec::new())?;
/// let _server = web.listen("127.0.0.1:80", 1)?;
/// client.connect("127.0.0.1:80", None)?;
/// assert_eq!(client.command("hostname").output()?.stdout, b"shop\n");
/// pod.close(None)
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Pod {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    holder: Container,
    share: Vec<NamespaceKind>,
    members: Mutex<Members>,
}

#[derive(Debug, Default)]
struct Members {
    closed: bool,
    started: Vec<Container>,
    /// Of containers that are not listed any more, where the pod's group does not count them.
    oom_kills: u64,
}

impl Members {
    /// Without those that were closed.
    fn listed(&mut self) -> &[Container] {
        let (closed, started) =
            std::mem::take(&mut self.started).into_iter().partition::<Vec<_>, _>(Container::is_closed);
        self.oom_kills += closed.iter().filter_map(|member| member.inner().oom_kills(None)).sum::<u64>();
        self.started = started;
        &self.started
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let members = self.members.get_mut().unwrap_or_else(|e| e.into_inner());
        for member in &members.started {
            // In a forked child it is refused.
            let _ = member.kill();
        }
        // The holder goes with its last handle.
    }
}

/// Fields of a pod that are no limits of its control group.
const OF_THE_POD: [&str; 15] = [
    "name",
    "hostname",
    "domainname",
    "dns",
    "hosts",
    "net",
    "sysctls",
    "shm_size",
    "mount_label",
    "namespaces",
    "idmap",
    "cgroup_parent",
    "start_timeout",
    "wall_time",
    "cpu_time",
];

fn is_of_pods(field: &str) -> bool {
    let limit = LIVE.contains(&field) && !OF_THE_CONTAINER.contains(&field);
    limit || OF_THE_POD.contains(&field) || field == "annotations"
}

impl Pod {
    /// What the containers of a pod share unless something else is asked for: net, ipc and uts.
    pub const SHARE: &[NamespaceKind] = &[NamespaceKind::Net, NamespaceKind::Ipc, NamespaceKind::Uts];

    /// The kinds that they may share.
    const MAY_SHARE: [NamespaceKind; 4] =
        [NamespaceKind::Net, NamespaceKind::Ipc, NamespaceKind::Uts, NamespaceKind::Pid];

    /// The kinds of a text like `net,ipc,uts,pid`.
    ///
    /// # Errors
    /// InvalidArgument (`share`).
    pub fn parse_share(text: &str) -> Result<Vec<NamespaceKind>> {
        let kinds = text.split(',').map(str::trim).map(NamespaceKind::parse).collect::<Result<Vec<_>>>();
        kinds.and_then(|kinds| checked_share(&kinds).map(|()| kinds)).map_err(|e| e.with_field("share"))
    }

    /// Makes the namespaces. `share`: net, ipc, uts and pid, or some of them.
    ///
    /// Of the spec: `hostname`, `domainname`, `net`, `sysctls`, `shm_size`, `mount_label` (of /dev/shm), `dns`, `hosts`, `idmap`, `name`, `namespaces`
    /// (for net, ipc, uts: the pod joins what is there, a pinned network for one), `cgroup_parent`, `wall_time`, `cpu_time`, and the limits of
    /// a control group, which hold for all containers of the pod together. `dns` and `hosts` are for containers that have none.
    ///
    /// # Errors
    /// As [`Container::start`]; InvalidSpec for fields that belong to its containers, or to a namespace that is not shared;
    /// Unsupported (`share`) for pid without a control group: only with one can a container be ended that has no pid namespace
    /// of its own.
    pub fn start(spec: &Spec, share: &[NamespaceKind]) -> Result<Self> {
        let context = |e: Error| match &spec.name {
            Some(name) => e.with_context(format!("start pod {name:?}")),
            None => e.with_context("start pod"),
        };
        let pids = share.contains(&NamespaceKind::Pid);
        let holder = checked_share(share)
            .and_then(|()| check_pod(spec, share))
            .and_then(|()| Container::start_as(spec, Role::Holder { pids }))
            .map_err(context)?;
        // By the keeper, which takes a v2 tree.
        let can_end = |group: &Group| group.can_kill() && group.v2_dir().is_some();
        if pids && !holder.inner().group.as_ref().is_some_and(can_end) {
            let error = Error::new(
                ErrorKind::Unsupported,
                "a container without a pid namespace of its own is ended by its control group, and there is none",
            );
            return Err(context(error.with_field("share").with_hint("doctor() says why; leave pid out")));
        }
        let share = NamespaceKind::ALL.into_iter().filter(|kind| share.contains(kind)).collect();
        Ok(Self { shared: Arc::new(Shared { holder, share, members: Mutex::default() }) })
    }

    /// Starts a container in it, from any thread.
    ///
    /// # Errors
    /// As [`Container::start`]; InvalidSpec for fields that are the pod's: `hostname`, `domainname`, `net`, `shm_size`, `sysctls` and
    /// `namespaces` of what is shared, `idmap`, `cgroup_parent`, `nesting`, `detach`; Closed when the pod has ended or was closed; Frozen;
    /// PermissionDenied from a thread with other credentials than those that started the pod.
    pub fn container(&self, spec: &Spec) -> Result<Container> {
        self.start_member(spec).map_err(|e| match &spec.name {
            Some(name) => e.with_context(format!("start container {name:?}")),
            None => e.with_context("start container"),
        })
    }

    fn start_member(&self, spec: &Spec) -> Result<Container> {
        let Shared { holder, share, members } = &*self.shared;
        let inner = holder.open().map_err(|e| if e.kind() == ErrorKind::Closed { closed() } else { e })?;
        check_member(spec, &inner.spec, share)?;
        if lock(members).closed || !process_runs(&inner.pidfd) {
            return Err(closed());
        }
        let spec = effective(spec, &inner.spec, share, inner.pid);
        inner.wait_thawed(spec.start_timeout)?;
        inner.grant(&spec.capabilities)?;
        let membership = Membership { holder: inner.clone(), kinds: share.clone() };
        let started = Container::start_as(&spec, Role::Member(&membership));
        let ended = || !process_runs(&inner.pidfd) || lock(members).closed;
        let container = started.map_err(|e| if ended() { closed() } else { e })?;
        let mut members = lock(members);
        if members.closed {
            drop(members);
            let _ = container.close(Some(SHORT));
            return Err(closed());
        }
        members.listed();
        members.started.push(container.clone());
        Ok(container)
    }

    /// Its containers in the order of their starts, also those that have ended; not those that were closed.
    pub fn containers(&self) -> Vec<Container> {
        // In a forked child another thread's lock would never be given back.
        if !self.shared.holder.inner().owner.is_this() {
            return Vec::new();
        }
        lock(&self.shared.members).listed().to_vec()
    }

    /// One of them, by name.
    ///
    /// # Errors
    /// NotFound (`name`).
    pub fn find_container(&self, name: &str) -> Result<Container> {
        self.shared.holder.inner().owner.check()?;
        let found = self.containers().into_iter().find(|container| container.name() == Some(name));
        found.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("no container of the pod is named {name:?}"))
                .with_field("name")
                .with_errno(libc::ENOENT)
        })
    }

    /// What is shared.
    pub fn share(&self) -> &[NamespaceKind] {
        &self.shared.share
    }

    /// Its name, if it has one: `namespaces: {"net": "container:NAME"}` of any other container takes it.
    pub fn name(&self) -> Option<&str> {
        self.shared.holder.name()
    }

    /// Unique on this machine while it exists; also the name of its control groups.
    pub fn id(&self) -> &str {
        self.shared.holder.id()
    }

    /// The pid of the holder.
    pub fn pid(&self) -> i32 {
        self.shared.holder.pid()
    }

    /// A pidfd of the holder, borrowed: readable when the pod has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.shared.holder.pidfd()
    }

    /// Readable when the pod has ended and its namespaces and groups are undone. Borrowed.
    pub fn events_fd(&self) -> BorrowedFd<'_> {
        self.shared.holder.events_fd()
    }

    /// Whether containers can be started in it.
    pub fn is_running(&self) -> bool {
        self.shared.holder.is_running()
    }

    /// One of its namespaces, to be pinned or given to others; it lives on as long as the value.
    ///
    /// # Errors
    /// InvalidArgument (`kind`) for what is not shared; Closed; PermissionDenied as [`Container::namespace`].
    pub fn namespace(&self, kind: NamespaceKind) -> Result<Namespace> {
        if kind != NamespaceKind::User && !self.shared.share.contains(&kind) {
            let what = format!("the containers of this pod do not share a namespace of kind {}", kind.name());
            return Err(Error::new(ErrorKind::InvalidArgument, what).with_field("kind").with_errno(libc::EINVAL));
        }
        self.shared.holder.namespace(kind)
    }

    /// As it is now, after updates.
    pub fn spec(&self) -> Spec {
        self.shared.holder.spec()
    }

    /// Changes limits of the pod, as [`Container::update`] does.
    pub fn update(&self, change: impl FnOnce(&mut Spec)) -> Result<()> {
        self.change(|spec| {
            change(spec);
            Ok(())
        })
    }

    /// As [`update`](Self::update), with JSON; null takes a limit away.
    pub fn update_json(&self, json: &str) -> Result<()> {
        self.change(|spec| spec.merge_json(json))
    }

    fn change(&self, change: impl FnOnce(&mut Spec) -> Result<()>) -> Result<()> {
        let share = &self.shared.share;
        let checked = |spec: &mut Spec| change(spec).and_then(|()| check_pod(spec, share));
        self.shared.holder.change(checked).map_err(|e| match self.name() {
            Some(name) => e.with_context(format!("update pod {name:?}")),
            None => e.with_context("update pod"),
        })
    }

    /// What its containers use and used together.
    ///
    /// # Errors
    /// Unsupported when it has no control group.
    pub fn usage(&self) -> Result<Usage> {
        let mut usage = self.shared.holder.usage()?;
        if let Some(group) = self.shared.holder.inner().group.as_ref().filter(|group| !group.counts_what_is_inside()) {
            let mut members = lock(&self.shared.members);
            let kills: u64 = members.listed().iter().filter_map(|member| member.inner().oom_kills(None)).sum();
            let all = kills + members.oom_kills;
            drop(members);
            usage.memory_oom_kills = group.oom_kills().map(|own| own + all);
        }
        Ok(usage)
    }

    /// Events of the whole pod, as [`Container::events`]; the last is its end.
    pub fn events(&self, options: &EventOptions) -> Result<Events> {
        self.shared.holder.events(options)
    }

    /// Stops every process of every container in it where it is.
    ///
    /// # Errors
    /// As [`Container::freeze`].
    pub fn freeze(&self) -> Result<()> {
        self.shared.holder.freeze()
    }

    /// Undoes [`freeze`](Self::freeze).
    pub fn thaw(&self) -> Result<()> {
        self.shared.holder.thaw()
    }

    /// SIGKILL to every process of every container in it. Does not wait.
    pub fn kill(&self) -> Result<()> {
        self.shared.holder.open()?;
        for member in self.containers() {
            let _ = member.kill();
        }
        self.shared.holder.kill()
    }

    /// The containers' `stop_signal` to each, SIGKILL after `timeout` (default: the longest of their `stop_timeout`s); then
    /// closes.
    pub fn stop(&self, timeout: Option<Duration>) -> Result<()> {
        self.shared.holder.open()?;
        let members = self.containers();
        let own = |member: &Container| member.inner().spec.stop_timeout.unwrap_or(Spec::STOP_TIMEOUT);
        let timeout = timeout.or_else(|| members.iter().map(own).max()).unwrap_or_default();
        for member in &members {
            let _ = member.signal(member.inner().spec.stop_signal.unwrap_or(Spec::STOP_SIGNAL));
        }
        let deadline = Instant::now() + timeout;
        for member in &members {
            // Its status is read before it is closed. What was closed meanwhile has ended.
            let _ = member.wait_end(Some(deadline.saturating_duration_since(Instant::now())));
        }
        self.close(None)
    }

    /// Waits for the pod's end, when its containers have ended and everything was undone; it ends when it is closed or killed, or by
    /// `wall_time` or `cpu_time`. `Ok(false)`: the time passed first.
    pub fn wait_end(&self, timeout: Option<Duration>) -> Result<bool> {
        let deadline = launch::deadline(timeout);
        let left = || deadline.map(|at| at.saturating_duration_since(Instant::now()));
        self.shared.holder.open()?;
        // The groups of the containers go first.
        let [ended, cancelled] = launch::poll([self.pidfd(), self.shared.holder.inner().cancel.as_fd()], deadline)?;
        if !ended {
            return if cancelled { Err(closed()) } else { Ok(false) };
        }
        for member in self.containers() {
            match member.wait_end(left()) {
                Ok(false) => return Ok(false),
                Err(e) if e.kind() != ErrorKind::Closed => return Err(e),
                _ => {}
            }
        }
        self.shared.holder.wait_end(left())
    }

    /// Kills what runs in its containers, closes them, then ends the namespaces; waits until all is undone. Later calls on any
    /// clone fail with Closed. Closing it again is fine.
    ///
    /// # Errors
    /// As [`Container::close`]: the first.
    pub fn close(&self, timeout: Option<Duration>) -> Result<()> {
        self.shared.holder.inner().owner.check()?;
        let members = {
            let mut members = lock(&self.shared.members);
            members.closed = true;
            members.listed().to_vec()
        };
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let left = || deadline.map(|at| at.saturating_duration_since(Instant::now()));
        // All at once, then one after the other waited for.
        for member in &members {
            let _ = member.kill();
        }
        let mut result = Ok(());
        for member in &members {
            result = result.and(member.close(left()));
        }
        result.and(self.shared.holder.close(left()))
    }

    /// What was chosen for it, as JSON: what [`Container::info_json`] tells, `share`, and `containers`, which has that of each.
    pub fn info_json(&self) -> String {
        let parse = |text: String| serde_json::from_str(&text).unwrap_or(Value::Null);
        let mut info = parse(self.shared.holder.info_json());
        let containers: Vec<Value> = self.containers().iter().map(|member| parse(member.info_json())).collect();
        info["share"] = self.shared.share.iter().map(|kind| kind.name()).collect();
        info["containers"] = json!(containers);
        info.to_string()
    }
}

impl Membership {
    /// The shared namespaces that were made for the pod, and the user namespace that owns them.
    pub(super) fn owned(&self) -> Vec<NamespaceKind> {
        let made = |kind: NamespaceKind| namespace_source(&self.holder.spec, kind) == NamespaceSource::New;
        if !made(NamespaceKind::User) {
            return Vec::new();
        }
        self.kinds.iter().copied().chain([NamespaceKind::User]).filter(|&kind| made(kind)).collect()
    }

    /// Whether /dev/shm of a container with this spec is the pod's.
    pub(super) fn shares_memory(&self, spec: &Spec) -> bool {
        self.kinds.contains(&NamespaceKind::Ipc) && namespace_source(spec, NamespaceKind::Mnt) == NamespaceSource::New
    }
}

impl Inner {
    /// A clone of its /dev/shm that is attached nowhere.
    pub(super) fn clone_shared_memory(&self, timeout: Option<Duration>) -> Result<OwnedFd> {
        let joining = self.outside_of_groups();
        let (compiled, needs) = crate::plan::reach::tree(&joining, "/dev/shm", self.may_setgroups);
        let given = &[None, None, None];
        let (_, answered) = self.ask(request::CALL, timeout, (&compiled, &needs), given, None, record::ENDED)?;
        let tree = answered.fds.into_iter().next().map(|(_, fd)| fd);
        tree.ok_or_else(|| Error::new(ErrorKind::Internal, "no descriptor came back"))
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the pod has ended").with_errno(libc::ESRCH)
}

fn checked_share(share: &[NamespaceKind]) -> Result<()> {
    let hint = "the kinds are net, ipc, uts and pid; the user namespace is always the pod's";
    let wrong = |what: String| Error::new(ErrorKind::InvalidArgument, what).with_field("share").with_hint(hint);
    match share.iter().find(|kind| !Pod::MAY_SHARE.contains(kind)) {
        Some(kind) => Err(wrong(format!("the containers of a pod cannot share {}", kind.name()))),
        None if share.is_empty() => Err(wrong("nothing is shared".to_owned())),
        None => Ok(()),
    }
}

/// The fields of a pod; a value for a namespace that no container has would do nothing.
fn check_pod(spec: &Spec, share: &[NamespaceKind]) -> Result<()> {
    let set = fields::differences(&Spec::default(), spec);
    if let Some(field) = set.iter().find(|field| !is_of_pods(field)) {
        let error = Error::spec(*field, "belongs to the containers of a pod, not to the pod");
        return Err(error.with_hint("give it to those that are started in it"));
    }
    let unshared = |field: &str, kind: NamespaceKind| {
        Err(Error::spec(field, format!("the containers of this pod do not share the {} namespace", kind.name()))
            .with_hint(format!("share {} too, or give {field} to the containers", kind.name())))
    };
    let shared = |kind: NamespaceKind| kind == NamespaceKind::User || share.contains(&kind);
    for (field, kind) in [
        ("hostname", NamespaceKind::Uts),
        ("domainname", NamespaceKind::Uts),
        ("net", NamespaceKind::Net),
        ("shm_size", NamespaceKind::Ipc),
        ("mount_label", NamespaceKind::Ipc),
    ] {
        if set.contains(&field) && !shared(kind) {
            return unshared(field, kind);
        }
    }
    for name in spec.sysctls.keys() {
        let kind = sysctl::namespace_of(name)?;
        if !shared(kind) {
            return unshared(&format!("sysctls[{name:?}]"), kind);
        }
    }
    for kind in spec.namespaces.keys() {
        let field = format!("namespaces.{}", kind.name());
        if !Pod::SHARE.contains(kind) {
            return Err(Error::spec(field, "a pod makes this one itself").with_hint("it may join net, ipc and uts"));
        }
        if !shared(*kind) {
            return unshared(&field, *kind);
        }
    }
    Ok(())
}

/// Fields of a container that are its pod's.
fn check_member(spec: &Spec, pod: &Spec, share: &[NamespaceKind]) -> Result<()> {
    let set = fields::differences(&Spec::default(), spec);
    let shares = |kind: NamespaceKind| share.contains(&kind);
    if shares(NamespaceKind::Pid) && spec.oom_score_adj.is_some() {
        // To write it, the main process lets itself be looked at for a moment, with all that it has then.
        return Err(Error::spec("oom_score_adj", "cannot be set where others see the process while it starts")
            .with_hint("give it to a command, or leave pid out of the pod's share"));
    }
    for (field, the_pods) in [
        ("hostname", shares(NamespaceKind::Uts)),
        ("domainname", shares(NamespaceKind::Uts)),
        ("net", shares(NamespaceKind::Net)),
        ("shm_size", shares(NamespaceKind::Ipc)),
        ("idmap", true),
        ("cgroup_parent", true),
    ] {
        if the_pods && set.contains(&field) {
            return Err(Error::spec(field, "is the pod's").with_hint("give it to the pod"));
        }
    }
    if shares(NamespaceKind::Net) && pod.net == Net::None && !spec.ports.is_empty() {
        return Err(Error::spec("ports", "the pod has no network (net: none), so nobody reaches a service in it")
            .with_hint("give the pod net: loopback, which leads nowhere either, or leave out ports"));
    }
    if spec.detach {
        return Err(Error::spec("detach", "a container of a pod ends with it"));
    }
    if spec.nesting {
        let error =
            Error::spec("nesting", "takes a user namespace of its own, and that of this container is its pod's");
        return Err(error.with_hint("start it outside of the pod"));
    }
    for kind in spec.namespaces.keys() {
        if *kind == NamespaceKind::User || shares(*kind) {
            let field = format!("namespaces.{}", kind.name());
            return Err(Error::spec(field, "is the pod's").with_hint("leave it out"));
        }
    }
    for name in spec.sysctls.keys() {
        let kind = sysctl::namespace_of(name)?;
        if kind == NamespaceKind::User || shares(kind) {
            let error = Error::spec(format!("sysctls[{name:?}]"), "is the pod's");
            return Err(error.with_hint("give it to the pod"));
        }
    }
    Ok(())
}

/// What is started: the container's spec, with what it has from its pod.
fn effective(spec: &Spec, pod: &Spec, share: &[NamespaceKind], holder: i32) -> Spec {
    let mut spec = spec.clone();
    let mut kinds = share.to_vec();
    if pod.idmap == Idmap::Host {
        spec.idmap = Idmap::Host;
    } else {
        kinds.push(NamespaceKind::User);
    }
    for kind in kinds {
        let source = match namespace_source(pod, kind) {
            NamespaceSource::Host => NamespaceSource::Host,
            _ => NamespaceSource::Pid(holder),
        };
        spec.namespaces.insert(kind, source);
    }
    if namespace_source(&spec, NamespaceKind::Net) == NamespaceSource::Host {
        spec.net = Net::Host;
    }
    // Names are files of its root.
    if namespace_source(&spec, NamespaceKind::Mnt) != NamespaceSource::New {
        return spec;
    }
    let is_file = |path: &str| spec.files.contains_key(Path::new(path));
    if spec.dns.is_empty() && !is_file("/etc/resolv.conf") {
        spec.dns = pod.dns.clone();
    }
    if !is_file("/etc/hosts") {
        // On a network it has an address that others know by its name.
        let alone = pod.net.attachments().iter().all(|one| one.on_network().is_none());
        let of_host = pod.hostname.iter().filter(|_| alone).map(|name| (name.clone(), "127.0.1.1".to_owned()));
        for (name, address) in pod.hosts.clone().into_iter().chain(of_host) {
            spec.hosts.entry(name).or_insert(address);
        }
    }
    spec
}
