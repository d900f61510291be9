//! systemd, where it runs the machine: it owns the tree of control groups, and hands a part of it to whoever asks.
//!
//! Asked is the manager of the caller: the user's own (`user@UID.service`) over the user's bus, the system's for root. A
//! *scope* is a unit made of processes that exist already; with `Delegate=yes` the groups below it are its processes' to make.
//! Sources: org.freedesktop.systemd1(5), systemd.scope(5), <https://systemd.io/CGROUP_DELEGATION>.

mod bus;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cgroups_rs::systemd::props::PropertiesBuilder;
use cgroups_rs::systemd::{NO_SUCH_UNIT, Property};
use zbus::zvariant::Value;

use crate::error::{Error, ErrorKind, Result};
use bus::Bus;

/// How long a question may take. It takes a few milliseconds; a manager that is busy (it reloads) some hundreds.
const PATIENCE: Duration = Duration::from_secs(5);
/// sd-bus-errors of systemd.
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
/// After a conversation that took longer than it might nobody waits again for this long.
const DEAF: Duration = Duration::from_secs(30);
/// What a stopped scope gives its processes between SIGTERM and SIGKILL; systemd's own default, 90 s, would hold up a
/// shutdown, because a keeper ends by itself only when its containers have.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether systemd is pid 1 here; as sd_booted(3), and not merely visible in a container's /run.
pub(crate) fn is_running() -> bool {
    Path::new("/run/systemd/system").is_dir() && fs::read("/proc/1/comm").is_ok_and(|comm| comm == b"systemd\n")
}

/// The manager that this caller asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manager {
    System,
    /// Of the user with this id.
    User(u32),
}

impl Manager {
    pub fn of_caller() -> Self {
        match nix::unistd::geteuid() {
            uid if uid.is_root() => Self::System,
            uid => Self::User(uid.as_raw()),
        }
    }

    fn socket(self) -> PathBuf {
        match self {
            Self::System => PathBuf::from("/run/dbus/system_bus_socket"),
            // Not XDG_RUNTIME_DIR: what runs as this user with another directory has the same manager.
            Self::User(uid) => PathBuf::from(format!("/run/user/{uid}/bus")),
        }
    }

    /// For people.
    pub fn name(self) -> String {
        match self {
            Self::System => "systemd".to_owned(),
            Self::User(uid) => format!("user@{uid}.service"),
        }
    }

    /// Where its units' groups are.
    pub fn group(self) -> PathBuf {
        match self {
            Self::System => PathBuf::new(),
            Self::User(uid) => PathBuf::from(format!("user.slice/user-{uid}.slice/user@{uid}.service")),
        }
    }

    fn remedy(self) -> String {
        match self {
            Self::System => "systemctl start dbus.socket (package dbus), or set cgroup_parent".to_owned(),
            Self::User(uid) => format!(
                "as root: systemctl start user@{uid}.service (for good: loginctl enable-linger {uid}); its bus is in Debian's \
                 package dbus-user-session"
            ),
        }
    }

    /// Whether it answers. Changes nothing.
    pub fn ping(self) -> Result<()> {
        self.talk(PATIENCE, |bus, _| {
            bus.call("GetUnit", &("init.scope",)).map(drop).map_err(|e| self.refused("ask", &e))
        })
    }

    /// Whether its units live on when nobody is logged in.
    pub fn lasts(self) -> Result<()> {
        let Self::User(uid) = self else { return Ok(()) };
        let user = nix::unistd::User::from_uid(uid.into()).ok().flatten().map(|user| user.name);
        if user.as_ref().is_none_or(|name| Path::new("/var/lib/systemd/linger").join(name).exists()) {
            return Ok(());
        }
        let user = user.unwrap_or_default();
        Err(Error::new(
            ErrorKind::NotAvailable,
            format!("{} ends with the last session of {user}, and its scopes with it", self.name()),
        )
        .with_hint(format!("loginctl enable-linger {user}")))
    }

    /// Makes a delegated scope of one process, in a slice or in the manager's default one. The process has been moved when
    /// this returns; the result is its group as /proc/PID/cgroup has it.
    pub fn start_scope(
        self,
        unit: &str,
        slice: Option<&str>,
        description: &str,
        pid: i32,
        patience: Duration,
    ) -> Result<PathBuf> {
        let mut properties = PropertiesBuilder::default()
            .description(description.to_owned())
            .delegate(true)
            .pids(vec![pid as u32])
            .timeout_stop_usec(STOP_TIMEOUT.as_micros() as u64);
        if let Some(slice) = slice {
            properties = properties.slice(slice.to_owned());
        }
        let mut properties = properties.build();
        // One that failed is not kept for systemctl to show.
        properties.push(("CollectMode", Value::from("inactive-or-failed")));
        let auxiliary: &[(&str, Vec<Property<'_>>)] = &[];
        self.talk(patience, |bus, deadline| {
            match bus.call("StartTransientUnit", &(unit, "fail", &properties, auxiliary)) {
                // Asked for before, by a start that did not wait as long as the manager took.
                Err(e) if is_error(&e, UNIT_EXISTS) => {}
                result => drop(result.map_err(|e| self.refused("StartTransientUnit", &e).with_path(unit))?),
            }
            // The answer is a job, which is done when the process has been moved.
            let mut pause = Duration::from_micros(200);
            let mut asked = Instant::now();
            loop {
                if let Some(group) = group_of(pid).filter(|group| group.ends_with(unit)) {
                    return Ok(group);
                }
                if Instant::now() >= deadline {
                    let what = format!("{} has not started the scope yet", self.name());
                    return Err(Error::new(ErrorKind::TimedOut, what)
                        .with_errno(libc::ETIMEDOUT)
                        .with_path(unit)
                        .with_hint("the next start waits for it again; systemctl list-jobs says what it waits for"));
                }
                if asked.elapsed() > Duration::from_millis(100) {
                    asked = Instant::now();
                    if matches!(bus.call("GetUnit", &(unit,)), Err(e) if is_error(&e, NO_SUCH_UNIT))
                        && !group_of(pid).is_some_and(|group| group.ends_with(unit))
                    {
                        return Err(Error::new(
                            ErrorKind::PermissionDenied,
                            format!("{} could not put the keeper (pid {pid}) into the scope", self.name()),
                        )
                        .with_step("StartTransientUnit")
                        .with_path(unit)
                        .with_hint(format!("journalctl -b _COMM=systemd says why; {}", self.delegate())));
                    }
                }
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(20));
            }
        })
    }

    /// Moves a process into the group `below` of a scope.
    pub fn attach(self, unit: &str, below: &str, pid: i32, patience: Duration) -> Result<()> {
        self.talk(patience, |bus, _| {
            bus.call("AttachProcessesToUnit", &(unit, below, &[pid as u32][..]))
                .map(drop)
                .map_err(|e| self.refused("AttachProcessesToUnit", &e).with_path(unit))
        })
    }

    /// Asks for the end of a scope in which nobody is, and does not wait for it: one whose process ended while it was moved
    /// would never be seen to become empty.
    pub fn drop_scope(self, unit: &str) {
        let _ = self.talk(PATIENCE, |bus, _| Ok(bus.call("StopUnit", &(unit, "replace")).map(drop)));
    }

    fn talk<T>(self, patience: Duration, converse: impl FnOnce(&Bus, Instant) -> Result<T>) -> Result<T> {
        static DEAF_SINCE: Mutex<Option<Instant>> = Mutex::new(None);
        let since = || DEAF_SINCE.lock().unwrap_or_else(PoisonError::into_inner);
        if since().is_some_and(|since| since.elapsed() < DEAF) {
            return Err(self.late());
        }
        let deadline = Instant::now() + patience;
        let mut answers = false;
        let result = Bus::connect(&self.socket(), deadline)
            .map_err(|e| self.refused("connect to the message bus", &e).with_path(self.socket().to_string_lossy()))
            .and_then(|bus| {
                let result = converse(&bus, deadline);
                answers = bus.answered.get();
                result
            });
        // One that answers, and is late with what it was asked for, is not deaf.
        if !answers && result.as_ref().is_err_and(|e| e.kind() == ErrorKind::TimedOut) {
            *since() = Some(Instant::now());
        }
        result
    }

    fn late(self) -> Error {
        Error::new(ErrorKind::TimedOut, format!("{} does not answer in time", self.name()))
            .with_errno(libc::ETIMEDOUT)
            .with_hint(self.remedy())
    }

    fn delegate(self) -> String {
        match self {
            Self::System => "or give the service Delegate=yes and start the program in a leaf of its group".to_owned(),
            Self::User(_) => "or start the program with systemd-run --user --scope -p Delegate=yes".to_owned(),
        }
    }

    fn refused(self, step: &str, error: &zbus::Error) -> Error {
        match error {
            zbus::Error::InputOutput(error) if error.kind() == io::ErrorKind::TimedOut => self.late().with_step(step),
            zbus::Error::InputOutput(error) => {
                let kind = match error.kind() {
                    io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
                    _ => ErrorKind::NotAvailable,
                };
                Error::io(step, error).with_kind(kind).with_hint(self.remedy())
            }
            zbus::Error::MethodError(name, text, _) => {
                let denied = ["AccessDenied", "InteractiveAuthorizationRequired", "AuthFailed"];
                let kind = if denied.iter().any(|end| name.ends_with(end)) {
                    ErrorKind::PermissionDenied
                } else {
                    ErrorKind::NotAvailable
                };
                let text = text.as_deref().unwrap_or("no reason given");
                Error::new(kind, format!("{} refuses: {text} ({name})", self.name()))
                    .with_step(step)
                    .with_hint(self.delegate())
            }
            error => Error::new(ErrorKind::NotAvailable, format!("{}: {error}", self.name()))
                .with_step(step)
                .with_hint(self.remedy()),
        }
    }
}

fn is_error(error: &zbus::Error, wanted: &str) -> bool {
    matches!(error, zbus::Error::MethodError(name, ..) if name.as_str() == wanted)
}

/// The v2 group of a process.
fn group_of(pid: i32) -> Option<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("0::")).map(PathBuf::from)
}

/// The unit that a group belongs to: what systemd kills together.
pub(crate) fn unit_of(group: &Path) -> Option<&str> {
    let names = group.iter().filter_map(|name| name.to_str());
    // The outermost but for user@UID.service, which is a manager with units of its own.
    let unit = |name: &&str| name.ends_with(".service") || name.ends_with(".scope");
    let mut last = None;
    for name in names.filter(unit) {
        last = Some(name);
        if !name.starts_with("user@") {
            break;
        }
    }
    last
}

/// The slice of a unit of this manager, so that a scope beside it is bound by what binds the slice. Of the slices of login
/// sessions none: they go with the session.
pub(crate) fn slice_of(group: &Path, manager: Manager) -> Option<&str> {
    let below = group.strip_prefix(manager.group()).ok()?;
    let slices = below.iter().map_while(|name| name.to_str().filter(|name| name.ends_with(".slice")));
    if manager == Manager::System && slices.clone().next() == Some("user.slice") {
        return None;
    }
    slices.last()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_and_slices() {
        let user = Manager::User(1000);
        let session = Path::new("user.slice/user-1000.slice/session-3.scope");
        assert_eq!(unit_of(session), Some("session-3.scope"));
        assert_eq!(slice_of(session, user), None);
        assert_eq!(slice_of(session, Manager::System), None);
        let service = Path::new("work.slice/work-heavy.slice/db.service/leaf");
        assert_eq!(unit_of(service), Some("db.service"));
        assert_eq!(slice_of(service, Manager::System), Some("work-heavy.slice"));
        let own = Path::new("user.slice/user-1000.slice/user@1000.service/app.slice/run-7.scope/inner.service");
        assert_eq!(unit_of(own), Some("run-7.scope"));
        assert_eq!(slice_of(own, user), Some("app.slice"));
        assert_eq!(unit_of(Path::new("user.slice/user-1000.slice/user@1000.service")), Some("user@1000.service"));
        assert_eq!(unit_of(Path::new("machine/leaf")), None);
        assert_eq!(unit_of(Path::new("")), None);
        assert_eq!(slice_of(Path::new(""), Manager::System), None);
    }
}
