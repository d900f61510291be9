//! More processes in a container.

use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::streams::open_streams;
use super::{Container, Inner, groups, lock, process_runs};
use crate::cgroup::Group;
use crate::command::Command;
use crate::error::{Error, ErrorKind, Result};
use crate::launch::facts::{self, UserFiles};
use crate::launch::{self, Channel, Outcome, Request};
use crate::plan::confine::Confinement;
use crate::plan::container::namespace_source;
use crate::plan::exec::Joining;
use crate::plan::process::{ProcessPlan, TERMINAL};
use crate::process::{self, OomCount, Process, Source};
use crate::proto::{Record, record, request};
use crate::spec::{DeviceRule, Landlock, NamespaceKind, NamespaceSource, Spec, Stdio};

impl Container {
    /// A command for this container: add arguments, then `spawn` or `output`.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        Command { container: Some(self.clone()), ..Command::new(program) }
    }

    /// Starts one more process inside; it has been executed when this returns. Any number may be started at once.
    ///
    /// # Errors
    /// Closed when the container has ended; Frozen when it is frozen and stays so for the command's `start_timeout` (none:
    /// at once); otherwise as [`start`](Self::start).
    pub fn spawn(&self, command: &Command) -> Result<Process> {
        let inner = self.open()?;
        let shown = command.argv.first().map(|a| a.to_string_lossy().into_owned()).unwrap_or_default();
        let process = inner.spawn(command).map_err(|e| e.with_context(format!("exec {shown:?}")))?;
        log::debug!("executed {shown:?} in {}, pid {}", inner.id, process.pid());
        Ok(process)
    }
}

/// A process's pidfd, and numbered descriptors that the plan sent.
pub(super) struct Answered {
    pidfd: Option<OwnedFd>,
    listening: Option<launch::Listening>,
    pub(super) fds: Vec<(u32, OwnedFd)>,
}

impl Inner {
    pub(super) fn joining(&self) -> Joining {
        Joining {
            namespaces: self.namespaces,
            group_dir: self.group.as_ref().is_some_and(|g| g.v2_dir().is_some()),
            group_tasks: self.group.as_ref().map_or(0, |g| g.v1().len()),
            root: facts::root_ids(self.may_setgroups, self.default_ids),
        }
    }

    fn spawn(self: &Arc<Self>, command: &Command) -> Result<Process> {
        command.validate()?;
        if command.set_tid.is_some() && namespace_source(&self.spec, NamespaceKind::Pid) != NamespaceSource::New {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "the container has no pid namespace of its own, whose numbers are its",
            )
            .with_field("set_tid")
            .with_hint("leave namespaces.pid of the container at its default"));
        }
        if self.keeper.is_dead() {
            return Err(self.keeper_is_gone());
        }
        self.wait_thawed(command.start_timeout)?;
        let sub = command.cgroup.as_deref().map(|name| self.sub(name)).transpose()?;
        let files = InsideFiles(self);
        let (credentials, home) =
            facts::resolve_user(command.user.as_deref(), &command.groups, self.default_ids, &files)?;
        let capabilities = command.capabilities.as_ref().unwrap_or(&self.spec.capabilities);
        let no_new_privs = command.no_new_privs.unwrap_or(self.spec.no_new_privs);
        let confinement = Confinement::of_command(command, &self.spec);
        let label = launch::confinement::check(&confinement, capabilities, no_new_privs, Some(credentials.uid))?;
        let confinement = Confinement { selinux: label.as_deref(), ..confinement };
        let mut caller = || std::env::vars_os().collect();
        let env = crate::plan::env::environment(
            &home,
            command.terminal.is_some(),
            &command.env_inherit,
            &mut caller,
            &command.env,
        );
        let asked = [command.stdin.as_ref(), command.stdout.as_ref(), command.stderr.as_ref()];
        let streams = open_streams(asked, [Stdio::Inherit, Stdio::Inherit, Stdio::Inherit], None)?;
        let inherited = facts::inherited();
        let seccomp = command.seccomp.as_ref().unwrap_or(&self.spec.seccomp);
        let filter = facts::filter(seccomp, capabilities, confinement.landlock, self.spec.nesting)?;
        let _joining = self.group.as_ref().map(Group::joining);
        let (compiled, needs) = crate::plan::exec::process(
            &self.joining(),
            &ProcessPlan {
                argv: &command.argv,
                env: &env,
                cwd: command.cwd.as_deref(),
                umask: command.umask,
                terminal: command.terminal,
                streams: streams.facts,
                pass_fds: &command.pass_fds,
                rlimits: &command.rlimits,
                inherited: &inherited,
                nice: command.nice,
                scheduler: command.scheduler,
                io_priority: command.io_priority,
                oom_score_adj: command.oom_score_adj,
                capabilities,
                no_new_privs,
                confinement,
                filter: filter.as_deref(),
                credentials: &credentials,
                may_setgroups: self.may_setgroups,
                joined: Some(facts::root_ids(self.may_setgroups, self.default_ids)),
                keyring: launch::confinement::may_take_keyring(),
                is_pid_one: false,
            },
            command.set_tid,
        );
        let counted = sub.clone().filter(|sub| sub.group.oom_kills().is_some());
        let oom = OomCount { before: self.oom_kills(counted.as_deref()), sub: counted };
        if let Some(capabilities) = &command.capabilities {
            self.grant(capabilities)?;
        }
        let (channel, Answered { pidfd, listening, fds }) = {
            let given = &streams.given;
            self.ask(request::EXEC, command.start_timeout, (&compiled, &needs), given, sub.as_deref(), record::STARTED)
                .map_err(|e| {
                    let e = self.short_of_memory(e, oom.sub.as_deref(), oom.before);
                    let e = with_null_hint(e, &lock(&self.spec_now).device_rules);
                    let program = command.argv.first().map(std::path::Path::new);
                    let alone = command.argv.len() == 1;
                    with_rules_hint(
                        with_program_hint(e, program, alone, command.cwd.as_deref(), &self.spec),
                        confinement.landlock,
                    )
                })?
        };
        let pidfd = pidfd.ok_or_else(|| Error::new(ErrorKind::Internal, "the keeper gave no pidfd"))?;
        let pid = process::pid_of(pidfd.as_fd());
        let mut host = streams.host;
        host.terminal = fds.into_iter().find(|(number, _)| *number == TERMINAL).map(|(_, fd)| fd);
        if let Some(listening) = listening {
            self.syscalls.add(listening, pid)?;
        }
        Process::new(self.clone(), pid, pidfd, Source::Channel(channel), host, oom)
    }

    /// Itself, or with its pod.
    fn is_frozen(&self) -> bool {
        let frozen = |inner: &Self| inner.group.as_ref().is_some_and(|group| group.is_frozen().unwrap_or(false));
        frozen(self) || self.pod.as_ref().is_some_and(|pod| frozen(&pod.holder))
    }

    pub(super) fn wait_thawed(&self, timeout: Option<Duration>) -> Result<()> {
        let deadline = Instant::now() + timeout.unwrap_or(Duration::ZERO);
        while self.is_frozen() {
            if Instant::now() >= deadline {
                return Err(Error::new(ErrorKind::Frozen, "the container is frozen")
                    .with_errno(libc::EBUSY)
                    .with_hint("thaw it first, or give a start_timeout within which somebody else does"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// A request that joins, up to the record that says that it worked.
    #[allow(clippy::type_complexity)]
    pub(super) fn ask(
        &self,
        kind: u32,
        timeout: Option<Duration>,
        (compiled, needs): (&crate::plan::builder::Compiled, &[crate::plan::facts::Need]),
        given: &[Option<OwnedFd>; 3],
        sub: Option<&groups::Sub>,
        until: u32,
    ) -> Result<(Channel, Answered)> {
        let (plan, channel) = self.request(kind, timeout, (compiled, needs), given, sub)?;
        let answered = self.answer(&channel, &plan, timeout, until, compiled);
        Ok((channel, answered.map_err(|e| self.short_of_pids(self.explain_group(e, sub), sub))?))
    }

    /// Files of a control group that is not there any more fail with errnos of their own.
    fn explain_group(&self, error: Error, sub: Option<&groups::Sub>) -> Error {
        let group = sub.map(|sub| &sub.group).or(self.group.as_ref());
        let missing = matches!(error.errno(), libc::ENOENT | libc::ENODEV) && error.kind() != ErrorKind::Closed;
        if !missing || !group.is_some_and(Group::is_gone) {
            return error;
        }
        Error::new(ErrorKind::NotFound, "somebody removed the control group")
            .with_errno(error.errno())
            .with_field("cgroup")
            .with_hint("nothing can be started in it any more: close the container")
    }

    /// A request that joins, sent.
    pub(super) fn request(
        &self,
        kind: u32,
        timeout: Option<Duration>,
        (compiled, needs): (&crate::plan::builder::Compiled, &[crate::plan::facts::Need]),
        given: &[Option<OwnedFd>; 3],
        sub: Option<&groups::Sub>,
    ) -> Result<(launch::PlanFile, Channel)> {
        let (channel, there) = Channel::pair()?;
        let timeout = timeout.unwrap_or(Spec::START_TIMEOUT);
        let v1 = self.group.as_ref().map(Group::v1).unwrap_or_default();
        let own = sub.map(|sub| sub.group.v1()).unwrap_or_default();
        let sent = Request {
            group: sub.map(|sub| &sub.group).or(self.group.as_ref()),
            tasks: &Group::tasks_with(&v1, &own),
            streams: [0, 1, 2].map(|i| given[i].as_ref().map(|fd: &OwnedFd| fd.as_fd())),
            ..Request::default()
        }
        .send(&self.keeper, kind, self.key, Some(timeout), there.as_fd(), None, compiled, needs)?;
        sent.map(|plan| (plan, channel)).ok_or_else(|| self.keeper_is_gone())
    }

    /// Waits for the record that says that the request worked.
    pub(super) fn answer(
        &self,
        channel: &Channel,
        plan: &launch::PlanFile,
        timeout: Option<Duration>,
        until: u32,
        compiled: &crate::plan::builder::Compiled,
    ) -> Result<Answered> {
        let timeout = timeout.unwrap_or(Spec::START_TIMEOUT);
        let attending = launch::Joiner { asks: &compiled.asks, plan };
        match launch::wait_started(channel, Some(timeout), until, attending)? {
            Outcome::Started { pidfd, fds, listening, .. } => Ok(Answered { pidfd, listening, fds }),
            Outcome::Failed(failed) => Err(self.explain(&failed, compiled)),
            Outcome::Refused => Err(other_credentials("the container")),
            Outcome::KeeperDied | Outcome::Ended(_) => Err(self.keeper_is_gone()),
        }
    }

    pub(super) fn explain(&self, failed: &Record, compiled: &crate::plan::builder::Compiled) -> Error {
        let error = launch::explain_failure(failed, compiled);
        // A container that ends while it is joined fails in many places.
        let ended = !process_runs(&self.pidfd);
        if ended { error.with_kind(ErrorKind::Closed).with_detail("the container has ended") } else { error }
    }

    /// A file as the container sees it.
    fn open_inside(&self, path: &[u8]) -> Result<OwnedFd> {
        self.open_joined(&self.joining(), path, libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY)
    }

    pub(super) fn open_joined(&self, joining: &Joining, path: &[u8], flags: i32) -> Result<OwnedFd> {
        let (compiled, needs) = crate::plan::reach::open(joining, path, flags, 0, self.may_setgroups);
        let (_, answered) =
            self.ask(request::CALL, None, (&compiled, &needs), &[None, None, None], None, record::ENDED)?;
        let fds = answered.fds;
        fds.into_iter()
            .next()
            .map(|(_, fd)| fd)
            .ok_or_else(|| Error::new(ErrorKind::Internal, "no descriptor came back"))
    }
}

/// /etc/passwd and /etc/group of a running container.
struct InsideFiles<'a>(&'a Inner);

impl InsideFiles<'_> {
    fn read(&self, path: &[u8]) -> Option<Vec<u8>> {
        let file = std::fs::File::from(self.0.open_inside(path).ok()?);
        let mut bytes = Vec::new();
        file.metadata().ok().filter(|m| m.is_file())?;
        file.take(16 << 20).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }
}

impl UserFiles for InsideFiles<'_> {
    fn passwd(&self) -> Option<Vec<u8>> {
        self.read(b"/etc/passwd")
    }
    fn group(&self) -> Option<Vec<u8>> {
        self.read(b"/etc/group")
    }
}

pub(super) fn other_credentials(started: &str) -> Error {
    let what = format!("this thread's credentials are not those that started {started}");
    Error::new(ErrorKind::PermissionDenied, what)
        .with_errno(libc::EPERM)
        .with_hint("ids, groups, capabilities and namespaces have to be the same")
}

/// A program that the host has, but below a directory that containers do not see, or one that is a whole command line,
/// `alone` in argv.
pub(super) fn with_program_hint(
    error: Error,
    program: Option<&std::path::Path>,
    alone: bool,
    cwd: Option<&std::path::Path>,
    spec: &Spec,
) -> Error {
    if error.field() != Some("argv[0]") && error.field() != Some("cwd") || error.errno() != libc::ENOENT {
        return error;
    }
    let path = match error.field() {
        Some("cwd") => cwd,
        _ => program,
    };
    match path.filter(|p| p.is_absolute()).and_then(|p| facts::hidden_hint(&spec.rootfs, p)) {
        Some(hint) => error.with_hint(hint),
        // No shell takes a command line apart.
        None if error.field() == Some("argv[0]")
            && alone
            && path.is_some_and(|p| p.as_os_str().as_encoded_bytes().contains(&b' ')) =>
        {
            error.with_hint("argv[0] is the program alone: each of its arguments is an element of its own")
        }
        None => error,
    }
}

/// A stream that is null is the device of that name, which rules about devices may deny.
pub(super) fn with_null_hint(error: Error, rules: &[DeviceRule]) -> Error {
    if error.errno() != libc::EPERM || error.path() != Some("/dev/null") || rules.is_empty() {
        return error;
    }
    error.with_hint(
        "device_rules deny it, and this stream is null: add \"allow c 1:3 rw\" behind them, or give the stream something else",
    )
}

/// The program is a file that rules may not let it execute.
pub(super) fn with_rules_hint(error: Error, rules: &Landlock) -> Error {
    if error.field() != Some("argv[0]") || error.errno() != libc::EACCES || rules.paths.is_empty() {
        return error;
    }
    error.with_hint("landlock.paths has to allow to execute it and to read it, and what interprets it")
}
