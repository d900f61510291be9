//! One request to a keeper: the plan's descriptors opened, the message sent, the answers turned into results and errors.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io::Write;
use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::channel::{Answer, Channel, deadline, poll};
use super::fork::HostOnly;
use super::keeper::{Keeper, Times};
use crate::cgroup::Group;
use crate::error::{Error, ErrorKind, Result};
use crate::plan::attribute::Attribute;
use crate::plan::builder::Compiled;
use crate::plan::facts::Need;
use crate::plan::process::LISTENER;
use crate::proto::{Header, MAX_GIVEN, Op, Record, Span, keeper_step, record, section};
use crate::security::filter::{audit, rules::SeccompArch};
use crate::sys::unotify::{self, Found, Received, Response};

/// A descriptor of the request: opened for it, or borrowed.
enum Given<'a> {
    /// Clones of the host's mounts among them: a forked worker would keep their file systems busy.
    Own(HostOnly),
    Borrowed(BorrowedFd<'a>),
}

impl AsFd for Given<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Own(fd) => fd.as_fd(),
            Self::Borrowed(fd) => *fd,
        }
    }
}

/// What a plan's needs are taken from: nothing by default.
#[derive(Default)]
pub(crate) struct Request<'a> {
    pub group: Option<&'a Group>,
    /// `tasks` of the groups on v1, as the plan counts them.
    pub tasks: &'a [BorrowedFd<'a>],
    pub streams: [Option<BorrowedFd<'a>>; 3],
    pub times: Times,
    /// The writable layer's mount or directory.
    pub disk: Option<BorrowedFd<'a>>,
    /// Namespaces to join, by kind.
    pub namespaces: &'a [(crate::spec::NamespaceKind, OwnedFd)],
    pub pod: Option<OfPod<'a>>,
    /// User namespaces for mounts that the caller idmaps, as the plan counts them.
    pub users: &'a [Option<OwnedFd>],
    /// The host's sockets of published ports.
    pub listeners: &'a [BorrowedFd<'a>],
}

/// What a member of a pod takes from it.
#[derive(Clone, Copy)]
pub(crate) struct OfPod<'a> {
    /// The key of the container that holds the namespaces.
    pub key: u64,
    /// A clone of its /dev/shm.
    pub shared_memory: Option<BorrowedFd<'a>>,
    /// To idmap mounts with; privileged keepers only.
    pub user_namespace: Option<BorrowedFd<'a>>,
}

/// A detached clone, cut off from the mounts that it was made from: under systemd every mount is shared, a clone is in the
/// same peer group, and what a container mounts on it would appear on the host (and pivot_root refuses a shared parent).
fn open_tree(fd: RawFd, path: &CString, flags: i32) -> Result<OwnedFd> {
    // SAFETY: the path is NUL-ended; the result is a new descriptor.
    let tree = unsafe { libc::syscall(libc::SYS_open_tree, fd, path.as_ptr(), flags) };
    if tree < 0 {
        return Err(Error::io("open_tree", &std::io::Error::last_os_error()));
    }
    // SAFETY: just made, nobody else's.
    let tree = unsafe { OwnedFd::from_raw_fd(tree as i32) };
    // struct mount_attr: attr_set, attr_clr, propagation, userns_fd.
    let attr = [0, 0, libc::MS_PRIVATE, 0];
    let flags = libc::AT_EMPTY_PATH | flags & RECURSIVE;
    // SAFETY: an empty NUL-ended path and a struct mount_attr of the size given; both outlive the call.
    let set = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            attr.as_ptr(),
            std::mem::size_of_val(&attr),
        )
    };
    if set < 0 {
        return Err(Error::io("mount_setattr", &std::io::Error::last_os_error()));
    }
    Ok(tree)
}

fn missing(what: &str) -> Error {
    Error::new(ErrorKind::Internal, format!("a plan needs {what} that is not there"))
}

/// An error of a program that has no more descriptors says why it needs them.
fn too_many(error: Error, needed: usize) -> Error {
    match error.errno() {
        libc::EMFILE => error.with_hint(format!(
            "this start takes {needed} descriptors of this program, one for each bind, until it is over: RLIMIT_NOFILE (ulimit -n)"
        )),
        _ => error,
    }
}

const TREE_CLONE: i32 = 1 | libc::O_CLOEXEC;
const RECURSIVE: i32 = 0x8000;

impl Request<'_> {
    fn open(&self, need: &Need) -> Result<Given<'_>> {
        match need {
            Need::GroupDir => {
                let dir = self.group.and_then(Group::join_dir).ok_or_else(|| missing("a control group"))?;
                Ok(Given::Borrowed(dir))
            }
            Need::GroupTop => {
                let group = self.group.ok_or_else(|| missing("a control group"))?;
                group.open_inside().map(|fd| Given::Own(fd.into())).map_err(|e| e.with_field("nesting"))
            }
            Need::GroupLeaf => {
                let leaf = self.group.ok_or_else(|| missing("a control group"))?;
                leaf.open_leaf().map(|fd| Given::Own(fd.into())).map_err(|e| e.with_field("nesting"))
            }
            Need::GroupTasks(i) => {
                let tasks = self.tasks.get(*i).ok_or_else(|| missing("a control group"))?;
                Ok(Given::Borrowed(*tasks))
            }
            Need::Tree { path, recursive, field } => {
                let text = CString::new(path.as_os_str().as_bytes())
                    .map_err(|_| Error::spec(&**field, "a path has a NUL byte"))?;
                let flags = TREE_CLONE | if *recursive { RECURSIVE } else { 0 };
                open_tree(libc::AT_FDCWD, &text, flags)
                    .map(|fd| Given::Own(fd.into()))
                    .map_err(|e| e.with_field(&**field).with_path(path.to_string_lossy()))
            }
            Need::TreeOfFd { fd, recursive, field } => {
                let flags = TREE_CLONE | libc::AT_EMPTY_PATH | if *recursive { RECURSIVE } else { 0 };
                open_tree(*fd, &CString::default(), flags)
                    .map(|fd| Given::Own(fd.into()))
                    .map_err(|e| e.with_field(&**field).with_path(format!("fd {fd}")))
            }
            Need::Nodes(devices, label) => {
                super::nodes::make(devices, label.as_deref()).map(|fd| Given::Own(fd.into()))
            }
            Need::Disk => self.disk.map(Given::Borrowed).ok_or_else(|| missing("a writable layer")),
            Need::Namespace { kind, .. } => self
                .namespaces
                .iter()
                .find(|(k, _)| k == kind)
                .map(|(_, fd)| Given::Borrowed(fd.as_fd()))
                .ok_or_else(|| missing("a namespace")),
            Need::SharedMemory => {
                let shared = self.pod.and_then(|pod| pod.shared_memory);
                shared.map(Given::Borrowed).ok_or_else(|| missing("the pod's /dev/shm"))
            }
            Need::Stream(i) => self.streams[*i].map(Given::Borrowed).ok_or_else(|| missing("a stream")),
            Need::Listener(i) => {
                self.listeners.get(*i).copied().map(Given::Borrowed).ok_or_else(|| missing("a listener"))
            }
            Need::Pass(fd) => {
                // SAFETY: only to duplicate it: a number that is no descriptor gives EBADF.
                let copy = unsafe { libc::fcntl(*fd, libc::F_DUPFD_CLOEXEC, 3) };
                if copy < 0 {
                    let error = std::io::Error::last_os_error();
                    return Err(Error::io("dup", &error)
                        .with_field(format!("pass_fds[{fd}]"))
                        .with_kind(ErrorKind::InvalidArgument));
                }
                // SAFETY: just made, nobody else's.
                Ok(Given::Own(unsafe { OwnedFd::from_raw_fd(copy) }.into()))
            }
        }
    }

    /// Sends it. `Ok(None)`: the keeper has left.
    #[allow(clippy::too_many_arguments)]
    pub fn send(
        &self,
        keeper: &Keeper,
        kind: u32,
        key: u64,
        timeout: Option<Duration>,
        channel: BorrowedFd<'_>,
        status: Option<BorrowedFd<'_>>,
        compiled: &Compiled,
        needs: &[Need],
    ) -> Result<Option<PlanFile>> {
        // `nslots` of the header: the fourth number.
        let slots = compiled.buffer.get(12..16).map_or(0, |b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
        if slots > crate::proto::slot::MAX {
            return Err(Error::new(ErrorKind::Exhausted, format!("a start would need {slots} intermediate results"))
                .with_field("mounts")
                .with_hint("fewer mounts and files"));
        }
        // The channel, the plan and the status go with them.
        let room = MAX_GIVEN - 3;
        if let Some(first) = needs.get(room) {
            let error = format!("it takes {} descriptors of this program, and {room} can be passed", needs.len());
            return Err(Error::new(ErrorKind::Exhausted, error)
                .with_field(first.field())
                .with_errno(libc::E2BIG)
                .with_hint("fewer mounts, devices or passed descriptors"));
        }
        let plan =
            memfd_create(c"ringfence-plan", MFdFlags::MFD_CLOEXEC).map_err(|e| Error::os("memfd_create", e as i32))?;
        let mut file = std::fs::File::from(plan);
        file.write_all(&compiled.buffer).map_err(|e| Error::io("write plan", &e))?;
        let opened = needs.iter().map(|need| self.open(need).map_err(|error| too_many(error, needs.len())));
        let mut given: Vec<Given<'_>> = opened.collect::<Result<_>>()?;
        for (index, one) in compiled.idmapped.iter().enumerate().filter(|(_, one)| one.by_caller) {
            let tree = given.get_mut((u32::from(one.slot) - crate::proto::slot::FIRST) as usize);
            let own = || self.users.get(index)?.as_ref().map(AsFd::as_fd);
            let user = if one.maps.is_some() { own() } else { self.pod.and_then(|pod| pod.user_namespace) };
            let (Some(tree), Some(user)) = (tree, user) else { return Err(missing("a user namespace")) };
            let replaces = one.maps.as_ref().is_some_and(|maps| maps.replaces);
            let done = crate::sys::mount::idmap(tree.as_fd(), user, one.recursive, replaces);
            if let Some(copy) = done.map_err(|errno| super::idmap::refusal(one, errno))? {
                *tree = Given::Own(copy.into());
            }
        }
        let mut fds = vec![channel, file.as_fd()];
        fds.extend(status);
        fds.extend(given.iter().map(AsFd::as_fd));
        let timeout = timeout.map_or(0, |t| u32::try_from(t.as_millis()).unwrap_or(u32::MAX).max(1));
        let sent = keeper.send_limited(kind, key, self.pod.map_or(0, |pod| pod.key), 0, timeout, self.times, &fds)?;
        Ok(sent.then_some(PlanFile(file)))
    }
}

/// A plan that was sent: whoever runs it writes to it.
pub(crate) struct PlanFile(std::fs::File);

impl PlanFile {
    /// What the plan read, by name; without what could not be read, or not in full.
    pub fn found(&self, compiled: &Compiled) -> BTreeMap<String, String> {
        let text = |span: &Span| {
            let mut bytes = vec![0; span.len as usize];
            self.0.read_exact_at(&mut bytes, span.off.into()).ok()?;
            let end = bytes.iter().position(|&byte| byte == 0).filter(|&end| end > 0 && end + 1 < bytes.len())?;
            String::from_utf8(bytes[..end].to_vec()).ok()
        };
        let found = compiled.found.iter().filter_map(|(name, span)| Some((name.clone(), text(span)?)));
        found.map(|(name, text)| (name, text.trim_end_matches('\n').to_owned())).collect()
    }
}

/// The listener of a process that is being started. What the start itself still does under the filter (the second filter, the
/// exec, its end after a failure) goes on without anybody being asked.
pub(crate) struct Listening {
    pub fd: OwnedFd,
    /// The last operation of the plan that went on.
    went_on: Option<u32>,
    /// A call of the program itself, which was executed meanwhile: for whoever is to be asked.
    pub early: Option<Received>,
    /// Nobody is under the filter any more.
    over: bool,
}

impl Listening {
    fn new(fd: OwnedFd) -> Self {
        Self { fd, went_on: None, early: None, over: false }
    }

    /// Something came.
    fn attend(&mut self, plan: &PlanFile) -> Result<()> {
        let found = unotify::take(self.fd.as_fd());
        let received = match found.map_err(|e| Error::io("SECCOMP_IOCTL_NOTIF_RECV", &e).with_field("seccomp"))? {
            Found::Received(received) => received,
            Found::Nothing => return Ok(()),
            Found::Over => {
                self.over = true;
                return Ok(());
            }
        };
        let native = received.arch == audit(SeccompArch::NATIVE);
        match plan.at_work() {
            // Each operation makes one call. The program can make the same one, but cannot change what the plan says of progress.
            Some(AtWork::Operation(index, nr)) if native && nr == received.number && self.went_on != Some(index) => {
                self.went_on = Some(index);
            }
            Some(AtWork::Failed) => {}
            _ => {
                self.early = Some(received);
                return Ok(());
            }
        }
        let go_on = Response { flags: libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32, ..Response::default() };
        match unotify::send(self.fd.as_fd(), received.id, go_on) {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => {
                Err(Error::io("SECCOMP_IOCTL_NOTIF_SEND", &error).with_field("seccomp"))
            }
            _ => Ok(()),
        }
    }
}

/// Where whoever runs a plan is.
enum AtWork {
    /// The index in PAYLOAD, and the number of the system call.
    Operation(u32, i32),
    Failed,
}

impl PlanFile {
    fn at_work(&self) -> Option<AtWork> {
        let word = |at: usize| {
            let mut bytes = [0; 4];
            self.0.read_exact_at(&mut bytes, at as u64).ok()?;
            Some(u32::from_ne_bytes(bytes))
        };
        if word(offset_of!(Header, fail_errno))? != 0 {
            return Some(AtWork::Failed);
        }
        let progress = word(offset_of!(Header, progress))?;
        let (section, index) = (progress >> 24, progress & 0xff_ffff);
        if section != section::PAYLOAD as u32 {
            return None;
        }
        let operations = word(offset_of!(Header, sections) + section::PAYLOAD * size_of::<Span>())?;
        let nr = word(operations as usize + index as usize * size_of::<Op>() + offset_of!(Op, nr))?;
        Some(AtWork::Operation(index, nr as i32))
    }
}

/// What a start or exec came to.
pub(crate) enum Outcome {
    Started {
        pidfd: Option<OwnedFd>,
        created: Option<OwnedFd>,
        listening: Option<Listening>,
        fds: Vec<(u32, OwnedFd)>,
        /// Section and operation of parts that the start went on without.
        left_out: Vec<(u32, u32)>,
    },
    Failed(Record),
    /// The whole container, before what was waited for.
    Ended(Record),
    Refused,
    KeeperDied,
}

/// What this thread does for a process that is being started.
pub(crate) trait Attend {
    /// The plan sent a descriptor. What is not for it is given back.
    fn take(&mut self, _number: u32, fd: OwnedFd) -> Option<OwnedFd> {
        Some(fd)
    }

    /// The process waits for an errno.
    fn ask(&mut self, index: usize, process: BorrowedFd<'_>) -> i32;

    /// What is run: of those that start a program.
    fn plan(&self) -> Option<&PlanFile> {
        None
    }
}

/// One more process.
pub(crate) struct Joiner<'a> {
    pub asks: &'a [Attribute],
    pub plan: &'a PlanFile,
}

impl Attend for Joiner<'_> {
    fn ask(&mut self, index: usize, process: BorrowedFd<'_>) -> i32 {
        self.asks.ask(index, process)
    }

    fn plan(&self) -> Option<&PlanFile> {
        Some(self.plan)
    }
}

/// What a process may not do to itself, although its plan says so.
impl Attend for &[Attribute] {
    fn ask(&mut self, index: usize, process: BorrowedFd<'_>) -> i32 {
        self.get(index).map_or(libc::EINVAL, |attribute| attribute.set(process))
    }
}

/// Waits for the answer. The keeper keeps `timeout` itself; a bit later than that it is taken for dead.
pub(crate) fn wait_started(
    channel: &Channel,
    timeout: Option<Duration>,
    until: u32,
    mut attend: impl Attend,
) -> Result<Outcome> {
    let limit: Option<Instant> = deadline(timeout.map(|t| t.saturating_add(Duration::from_secs(5))));
    let mut created = None;
    let (mut fds, mut left_out) = (Vec::new(), Vec::new());
    let mut listening: Option<Listening> = None;
    loop {
        if let (Some(listening), Some(plan)) = (&mut listening, attend.plan())
            && listening.early.is_none()
            && !listening.over
        {
            let [answered, asked] = poll([channel.as_fd(), listening.fd.as_fd()], limit)?;
            if asked {
                listening.attend(plan)?;
            }
            if asked && !answered {
                continue;
            }
        }
        match channel.receive(limit, None)? {
            Answer::Record(answer, fd) => match answer.kind {
                record::CREATED => created = fd,
                record::FD if answer.op == LISTENER => listening = fd.map(Listening::new),
                record::FD => {
                    let number = answer.op;
                    fds.extend(fd.and_then(|fd| attend.take(number, fd)).map(|fd| (number, fd)));
                }
                record::FAILED => return Ok(Outcome::Failed(answer)),
                record::LEFT_OUT => left_out.push((answer.section, answer.op)),
                record::ASK => {
                    let errno = fd.map_or(libc::EINVAL, |process| attend.ask(answer.op as usize, process.as_fd()));
                    channel.answer(errno);
                }
                record::REFUSED => return Ok(Outcome::Refused),
                record::ENDED if until != record::ENDED => return Ok(Outcome::Ended(answer)),
                kind if kind == until => {
                    return Ok(Outcome::Started { pidfd: fd, created, listening, fds, left_out });
                }
                _ => {}
            },
            Answer::End => return Ok(Outcome::KeeperDied),
            Answer::Nothing | Answer::Cancelled => {
                return Err(
                    Error::new(ErrorKind::TimedOut, "the keeper did not answer in time").with_errno(libc::ETIMEDOUT)
                );
            }
        }
    }
}

/// What is said of a process that was killed before its program ran.
const KILLED: &str = "it was killed while it started";

/// Whether that is what an error says.
pub(crate) fn was_killed(error: &Error) -> bool {
    error.errno() == libc::ESRCH && error.detail() == Some(KILLED)
}

/// A failed step as an error: the plan's tag says what it was for.
pub(crate) fn explain_failure(failed: &Record, compiled: &Compiled) -> Error {
    let errno = failed.errno;
    if failed.section != section::KEEPER {
        let Some(tag) = compiled.tag(failed.section, failed.op) else {
            return Error::os("start", errno);
        };
        if errno == libc::ETIMEDOUT {
            let mut error = Error::new(ErrorKind::TimedOut, "the start took longer than start_timeout")
                .with_field(&*tag.field)
                .with_step(tag.call)
                .with_errno(errno);
            if let Some(path) = &tag.path {
                error = error.with_path(path.clone());
            }
            return error;
        }
        let denied = tag.denied.filter(|denied| denied.errnos.contains(&errno));
        let mut error = Error::os(tag.call, errno).with_field(denied.map_or(&*tag.field, |denied| denied.field));
        if errno == libc::ENODEV && tag.call == "fsopen" {
            error = error.with_kind(ErrorKind::Unsupported);
        }
        if errno == libc::EPERM || errno == libc::EINVAL {
            error = error.with_kind(if errno == libc::EPERM { ErrorKind::PermissionDenied } else { ErrorKind::Os });
        }
        if let Some(path) = &tag.path {
            error = error.with_path(path.clone());
        }
        // An ordinary user's keeper opens them inside.
        let of_keeper = "a start has a descriptor for each bind until it is over: the hard RLIMIT_NOFILE (ulimit -Hn)";
        let hint = match errno {
            libc::EMFILE => Some(of_keeper.to_owned()),
            _ if denied.is_some() => denied.map(|denied| denied.hint.to_owned()),
            _ => tag.hint.map(str::to_owned).or_else(|| crate::doctor::explain(tag.call, errno)),
        };
        return match hint {
            Some(hint) if !hint.is_empty() => error.with_hint(hint),
            _ => error,
        };
    }
    let step = failed.op & 0xff;
    let at = failed.op >> 8;
    let (field, step_name) = match step {
        keeper_step::CLONE => ("namespaces", "clone3"),
        keeper_step::CPU_STAT => ("cpu_time", "open cpu.stat"),
        keeper_step::UID_MAP => ("idmap", "write uid_map"),
        keeper_step::GID_MAP => ("idmap", "write gid_map"),
        keeper_step::SETGROUPS => ("idmap", "write setgroups"),
        keeper_step::IDMAP | keeper_step::OWN_IDMAP if compiled.idmapped.len() > at as usize => {
            return super::idmap::refusal(&compiled.idmapped[at as usize], errno);
        }
        keeper_step::OWN_MAP => return no_namespace(compiled, at, errno),
        keeper_step::PAYLOAD_CLONE => match compiled.set_tid.and_then(|tid| wanted_tid(tid, errno)) {
            Some(error) => return error,
            None => ("argv", "clone3"),
        },
        keeper_step::NO_CONTAINER => {
            return Error::new(ErrorKind::Closed, "the container has ended").with_errno(libc::ESRCH);
        }
        keeper_step::TABLE_FULL => ("containers", "keeper's table"),
        keeper_step::MORE => {
            return Error::os("receive descriptors", errno)
                .with_field("mounts")
                .with_hint("the keeper has as many as the hard RLIMIT_NOFILE allows; each bind of a start takes one");
        }
        keeper_step::KILLED => {
            return Error::new(ErrorKind::Closed, KILLED).with_errno(libc::ESRCH);
        }
        keeper_step::MAP_PLAN | keeper_step::BAD_REQUEST => {
            return Error::new(ErrorKind::Internal, "the keeper did not accept the plan").with_errno(errno);
        }
        _ => ("keeper", "keeper"),
    };
    let error = Error::os(step_name, errno).with_field(field);
    match crate::doctor::explain(step_name, errno) {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

/// There is no user namespace with the maps of a mount.
fn no_namespace(compiled: &Compiled, index: u32, errno: i32) -> Error {
    let error = Error::os("user namespace of a mount", errno);
    let Some(one) = compiled.idmapped.get(index as usize) else { return error };
    let error = error.with_field(&*one.field).with_path(one.path.to_string_lossy());
    match errno {
        libc::ENOSPC | libc::EUSERS => {
            error.with_hint("sysctl user.max_user_namespaces, and 32 levels, are the kernel's bounds")
        }
        libc::EPERM => error.with_hint("its map takes CAP_SETUID, CAP_SETGID and, for the host's id 0, CAP_SETFCAP"),
        _ => error,
    }
}

/// Why clone3(2) does not give a process this number; `None` when it is for something else.
fn wanted_tid(tid: i32, errno: i32) -> Option<Error> {
    let error =
        |kind, why: String| Some(Error::new(kind, why).with_field("set_tid").with_step("clone3").with_errno(errno));
    match errno {
        libc::EEXIST => error(ErrorKind::AlreadyExists, format!("pid {tid} is taken in the container")),
        // Its pid_max, since Linux 6.14 one of each pid namespace's own.
        libc::EINVAL => {
            error(ErrorKind::InvalidSpec, format!("{tid} is not below kernel.pid_max, or Linux is older than 5.5"))
        }
        libc::EPERM => error(
            ErrorKind::PermissionDenied,
            "it takes CAP_CHECKPOINT_RESTORE in the user namespace that the container's pid namespace belongs to"
                .into(),
        ),
        _ => None,
    }
}

/// Opens a file for a stream on the host, with the caller's rights.
pub(crate) fn open_stream_file(path: &Path, input: bool, field: &str) -> Result<OwnedFd> {
    let mut options = std::fs::File::options();
    if input {
        options.read(true);
    } else {
        options.write(true).create(true).truncate(true);
    }
    options
        .open(path)
        .map(OwnedFd::from)
        .map_err(|e| Error::io("open", &e).with_field(field).with_path(path.to_string_lossy()))
}

/// Fails with EBADF for a number that is no open descriptor of the caller: closed, or one of this library's own (a
/// keeper's socket, a lock, a layer) that got the number of one that was closed.
pub(crate) fn check_open(fd: RawFd, field: &str) -> Result<()> {
    // SAFETY: no pointers; a number that is no descriptor gives EBADF.
    if unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0 && !super::fork::is_ours(fd) {
        return Ok(());
    }
    Err(Error::os("fcntl", libc::EBADF)
        .with_field(field)
        .with_path(format!("fd {fd}"))
        .with_kind(ErrorKind::InvalidArgument))
}

/// A copy of a descriptor of the caller.
pub(crate) fn duplicate(fd: RawFd, field: &str) -> Result<OwnedFd> {
    // SAFETY: a number that is no descriptor gives EBADF.
    let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
    if copy < 0 {
        let error = std::io::Error::last_os_error();
        return Err(Error::io("dup", &error)
            .with_field(field)
            .with_path(format!("fd {fd}"))
            .with_kind(ErrorKind::InvalidArgument));
    }
    // SAFETY: just made, nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}
