//! What a spec says of its program and a command of its own.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use super::limits::{MAX_PIDS, MAX_TIMEOUT};
use super::syntax::{absolute, descriptor, no_nul, range};
use crate::command::Command;
use crate::error::{Error, Result};
use crate::spec::at::At;
use crate::spec::{
    Capabilities, IdOrName, IoPriority, Landlock, Resource, Rlimit, Scheduler, Seccomp, Securebits, Spec, Stdio,
    Terminal, UserSpec,
};

/// The longest argument or variable: MAX_ARG_STRLEN of the kernel is 32 pages, with the NUL. Pages are 4 KiB on x86-64;
/// where they are larger, more fits, and execve has the last word.
const MAX_STRING: usize = 32 * 4096 - 1;

/// All arguments and variables together: three quarters of the 8 MiB that the kernel takes as the standard stack (4.13).
const MAX_STRINGS: usize = 6 << 20;

/// What a spec and a command have in common.
pub(super) struct Payload<'a> {
    argv: &'a [OsString],
    env: &'a BTreeMap<OsString, Option<OsString>>,
    env_inherit: &'a [OsString],
    cwd: Option<&'a Path>,
    user: Option<&'a str>,
    groups: &'a [String],
    umask: Option<u32>,
    terminal: Option<Terminal>,
    streams: [(&'static str, Option<&'a Stdio>); 3],
    rlimits: &'a BTreeMap<Resource, Rlimit>,
    nice: Option<i32>,
    scheduler: Option<Scheduler>,
    io_priority: Option<IoPriority>,
    oom_score_adj: Option<i32>,
    capabilities: Option<&'a Capabilities>,
    securebits: Option<Securebits>,
    landlock: Option<&'a Landlock>,
    labels: [(&'static str, Option<&'a str>); 2],
    seccomp: Option<&'a Seccomp>,
    pass_fds: &'a BTreeMap<RawFd, RawFd>,
    start_timeout: Option<Duration>,
}

macro_rules! payload {
    ($from:expr, $capabilities:expr, $securebits:expr, $landlock:expr, $seccomp:expr) => {
        Payload {
            argv: &$from.argv,
            env: &$from.env,
            env_inherit: &$from.env_inherit,
            cwd: $from.cwd.as_deref(),
            user: $from.user.as_deref(),
            groups: &$from.groups,
            umask: $from.umask,
            terminal: $from.terminal,
            streams: [
                ("stdin", $from.stdin.as_ref()),
                ("stdout", $from.stdout.as_ref()),
                ("stderr", $from.stderr.as_ref()),
            ],
            rlimits: &$from.rlimits,
            nice: $from.nice,
            scheduler: $from.scheduler,
            io_priority: $from.io_priority,
            oom_score_adj: $from.oom_score_adj,
            capabilities: $capabilities,
            securebits: $securebits,
            landlock: $landlock,
            labels: [("apparmor", $from.apparmor.as_deref()), ("selinux", $from.selinux.as_deref())],
            seccomp: $seccomp,
            pass_fds: &$from.pass_fds,
            start_timeout: $from.start_timeout,
        }
    };
}

impl<'a> Payload<'a> {
    pub(super) fn of_spec(spec: &'a Spec) -> Self {
        let (capabilities, securebits) = (Some(&spec.capabilities), Some(spec.securebits));
        payload!(spec, capabilities, securebits, Some(&spec.landlock), Some(&spec.seccomp))
    }

    fn of_command(command: &'a Command) -> Self {
        let (capabilities, landlock) = (command.capabilities.as_ref(), command.landlock.as_ref());
        payload!(command, capabilities, command.securebits, landlock, command.seccomp.as_ref())
    }

    pub(super) fn validate(&self) -> Result<()> {
        self.validate_argv()?;
        self.validate_env()?;
        if let Some(path) = self.cwd {
            absolute(&At::Field("cwd"), path)?;
        }
        self.validate_ids()?;
        self.validate_streams()?;
        if let Some(umask) = self.umask
            && umask > 0o777
        {
            return Err(Error::spec("umask", format!("0o{umask:o} is more than 0o777")));
        }
        for (resource, limit) in self.rlimits {
            if limit.soft > limit.hard {
                let at = At::Field("rlimits");
                return Err(at
                    .key(resource.name())
                    .error(format!("the soft limit {} is above the hard limit {}", limit.soft, limit.hard)));
            }
        }
        if let Some(nice) = self.nice {
            range("nice", nice, -20, 19)?;
        }
        if let Some(scheduler) = &self.scheduler {
            scheduler.validate()?;
        }
        if let Some(priority) = self.io_priority {
            priority.validate()?;
        }
        if let Some(adjustment) = self.oom_score_adj {
            range("oom_score_adj", adjustment, -1000, 1000)?;
        }
        if let Some(timeout) = self.start_timeout {
            if timeout.is_zero() {
                return Err(Error::spec("start_timeout", "0 leaves no time to start"));
            }
            range("start_timeout", timeout.as_secs_f64(), 0.0, MAX_TIMEOUT.as_secs_f64())?;
        }
        if let Some(capabilities) = self.capabilities {
            capabilities.validate()?;
        }
        if let Some(securebits) = self.securebits {
            securebits.validate()?;
        }
        if let Some(rules) = self.landlock {
            rules.validate()?;
        }
        if let Some(seccomp) = self.seccomp {
            seccomp.validate()?;
        }
        self.labels
            .into_iter()
            .try_for_each(|(field, label)| label.map_or(Ok(()), |label| security_label(field, label)))
    }

    fn validate_argv(&self) -> Result<()> {
        let at = At::Field("argv");
        if self.argv.first().is_some_and(|program| program.is_empty()) {
            return Err(at.index(0).error("is empty; it names the program"));
        }
        for (i, argument) in self.argv.iter().enumerate() {
            no_nul(&at.index(i), argument)?;
            string(&at.index(i), argument.len())?;
        }
        let total: usize = self.argv.iter().map(|argument| argument.len() + 1 + size_of::<usize>()).sum();
        if total > MAX_STRINGS {
            return Err(at.error(format!("{total} bytes with their pointers; the kernel takes {MAX_STRINGS} in all")));
        }
        Ok(())
    }

    fn validate_env(&self) -> Result<()> {
        let at = At::Field("env");
        for (name, value) in self.env {
            let shown = name.to_string_lossy();
            let at = at.key(&shown);
            variable_name(&at, name)?;
            let value = value.as_deref().unwrap_or_default();
            no_nul(&at, value)?;
            string(&at, name.len() + 1 + value.len())?;
        }
        let at = At::Field("env_inherit");
        for (i, name) in self.env_inherit.iter().enumerate() {
            variable_name(&at.index(i), name)?;
        }
        Ok(())
    }

    fn validate_ids(&self) -> Result<()> {
        if let Some(user) = self.user {
            UserSpec::parse(user).map_err(|why| Error::spec("user", why))?;
        }
        let at = At::Field("groups");
        for (i, group) in self.groups.iter().enumerate() {
            IdOrName::parse(group).map_err(|why| at.index(i).error(why))?;
        }
        // NGROUPS_MAX of the kernel.
        if self.groups.len() > 65_536 {
            return Err(at.error(format!("{} groups; a process can have 65536", self.groups.len())));
        }
        Ok(())
    }

    fn validate_streams(&self) -> Result<()> {
        for (field, stream) in &self.streams {
            let Some(stream) = stream else { continue };
            let at = At::Field(field);
            match stream {
                _ if self.terminal.is_some() => {
                    return Err(at
                        .error("with a terminal, the terminal is stdin, stdout and stderr")
                        .with_hint(format!("leave out {field} or terminal")));
                }
                Stdio::Log if *field == "stdin" => return Err(at.error("a log is for output")),
                Stdio::Stdout if *field != "stderr" => return Err(at.error("\"stdout\" is for stderr only")),
                Stdio::File(path) => absolute(&at, path)?,
                Stdio::Fd(fd) => descriptor(&at, *fd)?,
                Stdio::Null | Stdio::Inherit | Stdio::Pipe | Stdio::Log | Stdio::Stdout => {}
            }
        }
        if let Some(Terminal { rows, cols }) = self.terminal {
            for (side, length) in [("rows", rows), ("cols", cols)] {
                if length == 0 {
                    return Err(At::Field("terminal").key(side).error("is 0; a terminal has at least 1"));
                }
            }
        }
        let at = At::Field("pass_fds");
        let mut taken = BTreeMap::new();
        for (&fd, &number) in self.pass_fds {
            let key = fd.to_string();
            let at = at.key(&key);
            descriptor(&at, fd)?;
            if number < 3 {
                return Err(
                    at.error(format!("{number} inside: 0, 1 and 2 are stdin, stdout and stderr, set by their fields"))
                );
            }
            // NR_OPEN's default in the kernel; a higher RLIMIT_NOFILE needs fs.nr_open to be raised first.
            if number >= 1 << 20 {
                return Err(at.error(format!("{number} inside is above 1048575, the highest number of a descriptor")));
            }
            if let Some(other) = taken.insert(number, fd) {
                return Err(at.error(format!("{number} inside is taken by {other} already")));
            }
        }
        Ok(())
    }
}

impl Command {
    /// The checks of [`Spec::validate`] for what a command has; every start of a process does them first.
    ///
    /// # Errors
    /// The first impossible value, with the field.
    pub fn validate(&self) -> Result<()> {
        if self.argv.is_empty() {
            return Err(Error::spec("argv", "is empty; a program is needed"));
        }
        if let Some(tid) = self.set_tid {
            // 1 is init's; the kernel has the last word on what is below its pid_max.
            range("set_tid", tid, 2, MAX_PIDS as i32 - 1)?;
        }
        Payload::of_command(self).validate()
    }
}

/// The kernel takes a page at most, in one write, with a word before it.
const MAX_LABEL: usize = 4000;

/// The name of a profile or a label: what the kernel is told in one line.
pub(super) fn security_label(field: &str, label: &str) -> Result<()> {
    let at = At::Field(field);
    if label.is_empty() {
        return Err(at.error("is empty"));
    }
    if label.len() > MAX_LABEL {
        return Err(at.error(format!("has {} bytes; at most {MAX_LABEL}", label.len())));
    }
    if label.bytes().any(|b| b.is_ascii_control()) || label.trim() != label {
        return Err(at.error(format!("{label:?} has a control character in it, or a space at its end")));
    }
    Ok(())
}

fn string(at: &At, length: usize) -> Result<()> {
    if length > MAX_STRING && cfg!(target_arch = "x86_64") {
        return Err(at
            .error(format!("{length} bytes; the kernel takes {MAX_STRING} in one string (MAX_ARG_STRLEN)"))
            .with_hint("pass it in a file or on stdin"));
    }
    Ok(())
}

fn variable_name(at: &At, name: &OsStr) -> Result<()> {
    if name.is_empty() {
        return Err(at.error("a name is empty"));
    }
    if name.as_bytes().contains(&b'=') {
        return Err(at.error("a name cannot have a \"=\""));
    }
    no_nul(at, name)
}
