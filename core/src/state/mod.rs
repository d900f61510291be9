//! The state directory: names, records of detached containers, claims of id ranges.

mod dir;
mod gc;
mod identity;
/// Claims of id ranges.
pub(crate) mod ids;
mod locks;
/// Names and records.
pub(crate) mod names;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use serde_json::Value;

use self::dir::Place;
pub(crate) use self::gc::give_up_groups;
use self::names::{Life, Names};
use crate::container::Container;
use crate::error::{Error, ErrorKind, Result};
use crate::launch::HostOnly;

/// When a process started, in clock ticks since boot.
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    identity::Identity::of(pid).map(|identity| identity.start_time)
}

/// The inode of this process's pid namespace; 0 when unknown.
pub(crate) fn pid_namespace() -> u64 {
    identity::pid_namespace()
}

/// A lock among all processes that have this state directory, until it is dropped.
pub(crate) struct Exclusive(HostOnly);

impl Exclusive {
    /// Waits at most 10 s; what is done under such a lock takes milliseconds.
    pub(crate) fn take(name: &str) -> Result<Self> {
        let dir = Place::now().open()?;
        let path = || dir.path.join(name).to_string_lossy().into_owned();
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(&dir.fd, name, flags, Mode::from_bits_truncate(0o600))
            .map(HostOnly::new)
            .map_err(|errno| Error::os("open", errno as i32).with_path(path()))?;
        let patience = Instant::now() + Duration::from_secs(10);
        while !locks::acquire(&file, 0, 1)
            .map_err(|errno| Error::os("fcntl(F_OFD_SETLK)", errno as i32).with_path(path()))?
        {
            if Instant::now() > patience {
                return Err(Error::new(ErrorKind::TimedOut, "another process has held this lock for 10 s")
                    .with_errno(libc::ETIMEDOUT)
                    .with_path(path()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(Self(file))
    }
}

impl Drop for Exclusive {
    fn drop(&mut self) {
        // Closing would leave it to a child that the host forks at this moment.
        locks::release(&self.0, 0, 1);
    }
}

/// One line of `ls`.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub name: String,
    pub id: String,
    /// `running`, `ended`, `lost`.
    pub state: &'static str,
    /// Of pid 1; 0 when ended, and while the container is being started.
    pub pid: i32,
    pub detached: bool,
    /// Seconds since the epoch.
    pub created: f64,
    pub command: Vec<String>,
    /// 128+N for signals; `None` while running or unknown.
    pub exit_code: Option<i32>,
}

/// What `gc` found and ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GcReport {
    pub processes: usize,
    pub cgroups: usize,
    pub files: usize,
    /// What could not be removed yet, or which network has no way out again, and why.
    pub remaining: Vec<String>,
}

/// The state directory of this caller, without making it: RINGFENCE_STATE_DIR, else /run/ringfence (root),
/// $XDG_RUNTIME_DIR/ringfence, /run/user/UID/ringfence, or a private directory in /tmp; nobody else can write there.
pub(crate) fn dir() -> Result<PathBuf> {
    Place::now().look()
}

/// The named containers of this user, in order of their names.
pub fn ls() -> Result<Vec<Entry>> {
    list(&Place::now())
}

fn list(place: &Place) -> Result<Vec<Entry>> {
    let Some(names) = Names::find(place)? else { return Ok(Vec::new()) };
    let mut entries = Vec::new();
    for name in names.list()? {
        match names.read(&name) {
            // Its host was killed. Nobody can ask for its status: it is as if it had been closed.
            Ok(record) if record.is_abandoned() => {
                names.remove_if_dead(&name, |now| now.is_none_or(names::Record::is_abandoned))?;
            }
            Ok(record) => entries.push(record.into()),
            // One that ends while the list is made is not in it.
            Err(_) => {}
        }
    }
    Ok(entries)
}

/// Ends and removes what dead keepers left, the records of ended detached containers, and volumes without a name whose container is gone.
/// Starts again what led out of this program's [networks](crate::Network) and has ended; `remaining` says so of one that cannot be.
///
/// The state directory stays, with an empty file `ids`, where projects limited a directory also `projects`, and an empty directory `names`:
/// programs that start at the same time lock the bytes of one and the same file, which nobody may remove between two of them.
pub fn gc() -> Result<GcReport> {
    let mut report = gc::collect(&Place::now(), true)?;
    match crate::volume::collect() {
        Ok(removed) => report.files += removed,
        Err(error) => report.remaining.push(error.to_string()),
    }
    report.remaining.extend(crate::net::reopen().iter().map(ToString::to_string));
    Ok(report)
}

/// Forgets a detached container of this user that has ended: its record and its log. With `force` one that runs is killed first.
///
/// # Errors
/// NotFound; InvalidArgument with EBUSY for one that runs, without `force`; PermissionDenied for one that is attached to a program;
/// TimedOut when the kernel does not let go of its processes: `gc` finishes later.
pub fn rm(name: &str, force: bool) -> Result<()> {
    let context = |e: Error| e.with_context(format!("remove container {name:?}"));
    let record = names::lookup(name).map_err(context)?;
    if record.detached && record.life == Life::Running {
        if !force {
            return Err(context(
                Error::new(ErrorKind::InvalidArgument, "it runs")
                    .with_errno(libc::EBUSY)
                    .with_hint("stop it, or remove it by force"),
            ));
        }
        let container = Container::by_name(name).map_err(context)?;
        container.kill().map_err(context)?;
        container.wait_end(Some(Duration::from_secs(10))).map_err(context)?;
    }
    gc::forget(&Place::now(), name).map_err(context)
}

/// `gc`, but ended detached containers can still be asked for their status: for the start after a keeper was killed.
pub(crate) fn collect_dead() -> Result<GcReport> {
    gc::collect(&Place::now(), false)
}

impl From<names::Record> for Entry {
    fn from(record: names::Record) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (state, exit_code) = match record.life {
            Life::Running => ("running", None),
            Life::Ended(status) => ("ended", status.and_then(exit_code)),
            Life::Lost => ("lost", None),
        };
        Self {
            id: text(&record.data["id"]),
            state,
            pid: record.init.filter(|_| record.life == Life::Running).map_or(0, |init| init.pid),
            detached: record.detached,
            created: record.created,
            command: record.data["command"].as_array().map(|list| list.iter().map(text).collect()).unwrap_or_default(),
            exit_code,
            name: record.name,
        }
    }
}

/// As a shell shows a wait status.
fn exit_code(status: i32) -> Option<i32> {
    if libc::WIFEXITED(status) {
        Some(libc::WEXITSTATUS(status))
    } else if libc::WIFSIGNALED(status) {
        Some(128 + libc::WTERMSIG(status))
    } else {
        None
    }
}

#[cfg(any(fuzzing, test))]
pub(crate) fn fuzz(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    ids::fuzz(&text);
    identity::fuzz(&text);
    gc::fuzz(&text);
    names::fuzz(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::process::{Child, Command, Stdio};

    /// Something that runs until it is dropped.
    pub(super) struct Process(Child);

    impl Process {
        pub(super) fn new() -> Self {
            let mut sleep = Command::new("sleep");
            // Without this program's output: whoever reads that does not wait for what a failed test leaves.
            sleep.arg("1000").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            Self(sleep.spawn().unwrap())
        }

        pub(super) fn id(&self) -> u32 {
            self.0.id()
        }

        /// Waits until somebody else has ended it.
        fn wait(mut self) -> std::process::ExitStatus {
            self.0.wait().unwrap()
        }
    }

    impl Drop for Process {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn what_ended_is_listed_until_it_is_collected() {
        let base = tempfile::tempdir().unwrap();
        let place = Place::at(&base.path().join("state"));
        let claim = |name, detached| Names::open(&place).unwrap().claim(name, detached).unwrap();
        assert_eq!(list(&place).unwrap(), []);
        assert_eq!(names::find(&place, "b").unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(gc::forget(&place, "b").unwrap_err().kind(), ErrorKind::NotFound);
        // Who looks makes nothing.
        assert!(!base.path().join("state").exists());

        let (keeper, init) = (Process::new(), Process::new());
        let data = json!({"id": "rf-1-2-3", "keeper": keeper.id(), "pid": init.id(), "command": ["sh", "-c", "x"]});
        let running = claim("b", false);
        running.write_record(data.clone()).unwrap();
        let lost = claim("a", true);
        lost.write_record(json!({"keeper": 1 << 30, "pid": 1 << 30})).unwrap();
        lost.keep();

        let entries = list(&place).unwrap();
        assert_eq!(entries.iter().map(|e| (&*e.name, e.state)).collect::<Vec<_>>(), [("a", "lost"), ("b", "running")]);
        let entry = &entries[1];
        assert_eq!((&*entry.id, entry.pid, entry.detached), ("rf-1-2-3", init.id() as i32, false));
        assert_eq!(entry.command, ["sh", "-c", "x"]);
        assert!(entry.created > 1.7e9);

        // A keeper that is killed: its pid 1 is found by the record.
        let orphaned = claim("c", true);
        orphaned.write_record(data).unwrap();
        orphaned.keep();
        drop(keeper);
        let reaper = std::thread::spawn(move || init.wait());
        drop(running);
        // An attached one whose host was killed is not listed, and gone.
        claim("d", false).keep();
        assert_eq!(list(&place).unwrap().iter().map(|e| &*e.name).collect::<Vec<_>>(), ["a", "c"]);
        assert!(!base.path().join("state/names/d").exists());
        // Not all of `collect`: that would end what other tests leave on purpose.
        let report = gc::collect_names(&place, false).unwrap();
        assert_eq!((report.processes, report.files), (1, 2), "{report:?}");
        assert!(reaper.join().unwrap().code().is_none());
        assert_eq!(list(&place).unwrap(), []);
    }

    #[test]
    fn wait_statuses_as_a_shell_shows_them() {
        assert_eq!([0, 3 << 8, 9, 0x80 | 11, 0x137f].map(exit_code), [Some(0), Some(3), Some(137), Some(139), None]);
    }
}
