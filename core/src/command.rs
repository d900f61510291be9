//! A program to run in a container, built as with `std::process::Command`.

use std::ffi::{OsStr, OsString};
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::container::Container;
use crate::error::{Error, ErrorKind, Result};
use crate::process::{Output, Process};
use crate::spec::{
    Capabilities, IoPriority, Landlock, Resource, Rlimit, Scheduler, Seccomp, Securebits, Stdio, Terminal, fields,
};

/// A program to run in a container: plain data; the fields mean what the same fields of the spec mean.
#[derive(Clone, Debug, Default)]
pub struct Command {
    pub argv: Vec<OsString>,
    /// In the order given; `None` removes.
    pub env: std::collections::BTreeMap<OsString, Option<OsString>>,
    pub env_inherit: Vec<OsString>,
    pub cwd: Option<PathBuf>,
    pub user: Option<String>,
    pub groups: Vec<String>,
    pub umask: Option<u32>,
    pub terminal: Option<Terminal>,
    pub stdin: Option<Stdio>,
    pub stdout: Option<Stdio>,
    pub stderr: Option<Stdio>,
    pub rlimits: std::collections::BTreeMap<Resource, Rlimit>,
    pub nice: Option<i32>,
    pub scheduler: Option<Scheduler>,
    pub io_priority: Option<IoPriority>,
    pub oom_score_adj: Option<i32>,
    /// `None`: what the container's spec says.
    pub capabilities: Option<Capabilities>,
    /// `None`: those of the container's spec.
    pub securebits: Option<Securebits>,
    /// `None`: the rules of the container's spec; rules that are empty restrict nothing.
    pub landlock: Option<Landlock>,
    /// `None`: that of the container's spec.
    pub apparmor: Option<String>,
    /// `None`: that of the container's spec.
    pub selinux: Option<String>,
    /// `None`: what the container's spec says, with the capabilities of this command.
    pub seccomp: Option<Seccomp>,
    pub no_new_privs: Option<bool>,
    pub pass_fds: std::collections::BTreeMap<RawFd, RawFd>,
    /// The container's group ([`Container::group`]) in which it runs; `None`: that of the container's own processes.
    pub cgroup: Option<String>,
    /// The pid that it is to have inside, as clone3(2) gives it (Linux 5.5): 2 up to `kernel.pid_max`, not one that is in use by a
    /// process, a thread, a process group or a session. The container has to have a pid namespace of its own. `None`: the next.
    pub set_tid: Option<i32>,
    /// How long a start may take.
    pub start_timeout: Option<Duration>,
    pub(crate) container: Option<Container>,
}

impl Command {
    /// A command for [`Container::spawn`]. The program is looked up inside: by PATH of the command's environment when it
    /// has no slash.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self { argv: vec![program.as_ref().to_owned()], ..Self::default() }
    }
    pub fn arg(&mut self, arg: impl AsRef<OsStr>) -> &mut Self {
        self.argv.push(arg.as_ref().to_owned());
        self
    }
    pub fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&mut self, args: I) -> &mut Self {
        self.argv.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }
    pub fn env(&mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Self {
        self.env.insert(key.as_ref().to_owned(), Some(value.as_ref().to_owned()));
        self
    }
    pub fn env_remove(&mut self, key: impl AsRef<OsStr>) -> &mut Self {
        self.env.insert(key.as_ref().to_owned(), None);
        self
    }
    pub fn current_dir(&mut self, dir: impl AsRef<Path>) -> &mut Self {
        self.cwd = Some(dir.as_ref().to_owned());
        self
    }
    pub fn user(&mut self, user: impl Into<String>) -> &mut Self {
        self.user = Some(user.into());
        self
    }
    pub fn stdin(&mut self, stdio: Stdio) -> &mut Self {
        self.stdin = Some(stdio);
        self
    }
    pub fn stdout(&mut self, stdio: Stdio) -> &mut Self {
        self.stdout = Some(stdio);
        self
    }
    pub fn stderr(&mut self, stdio: Stdio) -> &mut Self {
        self.stderr = Some(stdio);
        self
    }
    /// Wants this pid inside: [`set_tid`](Self::set_tid).
    pub fn set_tid(&mut self, tid: i32) -> &mut Self {
        self.set_tid = Some(tid);
        self
    }
    /// Sets a field by its name in the vocabulary, with the text rules of the C API (`ringfence_command_set`): those of
    /// [`Spec::set`](crate::Spec::set), for the fields that a process has.
    ///
    /// # Errors
    /// Kind [`InvalidSpec`](crate::ErrorKind::InvalidSpec) with the field; then nothing is changed.
    pub fn set(&mut self, key: &str, value: &[u8]) -> Result<()> {
        fields::set(self, key, value)
    }
    /// Layers JSON over what is there: [`Spec::merge_json`](crate::Spec::merge_json) for the fields that a process has.
    ///
    /// # Errors
    /// As [`Command::set`].
    pub fn merge_json(&mut self, text: &str) -> Result<()> {
        fields::merge_json(self, text)
    }
    /// The names of the fields that [`Command::set`] and [`Command::merge_json`] know.
    pub fn keys() -> Vec<&'static str> {
        fields::keys::<Self>()
    }
    fn bound(&self) -> Result<&Container> {
        self.container.as_ref().ok_or_else(|| {
            Error::new(ErrorKind::InvalidArgument, "the command was not made for a container")
                .with_errno(libc::EINVAL)
                .with_hint("use container.command(...), container.spawn(&command), or run()")
        })
    }

    /// Starts it in the container that it was made for with [`Container::command`]. Streams that are not set are inherited.
    ///
    /// # Errors
    /// As [`Container::spawn`].
    pub fn spawn(&self) -> Result<Process> {
        self.bound()?.spawn(self)
    }

    /// Starts it with stdout and stderr as pipes and stdin as null (unless set otherwise), reads both to their end, waits.
    ///
    /// # Errors
    /// As [`Container::spawn`].
    pub fn output(&self) -> Result<Output> {
        let container = self.bound()?;
        // Without the handle: the copy is data only.
        let mut command = Self { container: None, ..self.clone() };
        if command.terminal.is_none() {
            command.stdin.get_or_insert(Stdio::Null);
            command.stdout.get_or_insert(Stdio::Pipe);
            command.stderr.get_or_insert(Stdio::Pipe);
        }
        container.spawn(&command)?.communicate(None, None)
    }
}
