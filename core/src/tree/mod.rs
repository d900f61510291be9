//! Trees of files: copied between the host and a container, and removed.

/// What copies.
pub(crate) mod copy;
/// What removes.
pub(crate) mod remove;
/// The host's files, or a container's.
pub(crate) mod side;

pub use remove::{RemoveOptions, remove_tree};

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};

/// What a copy does about devices, sockets and FIFOs. They are never opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Special {
    /// The first one ends the copy with an error that names it.
    #[default]
    Refuse,
    /// They are left out.
    Skip,
}

impl Special {
    /// `refuse` or `skip`.
    ///
    /// # Errors
    /// InvalidArgument with field `special`.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "refuse" => Ok(Self::Refuse),
            "skip" => Ok(Self::Skip),
            _ => Err(Error::new(ErrorKind::InvalidArgument, format!("{text:?} is neither \"refuse\" nor \"skip\""))
                .with_field("special")),
        }
    }
}

/// How far a copy is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyProgress {
    /// Files, directories and symbolic links that were made.
    pub entries: u64,
    /// Bytes of files; a hole counts as if it were data.
    pub bytes: u64,
    /// Devices, sockets and FIFOs that were left out.
    pub skipped: u64,
}

/// How to copy: [`Container::copy_in`](crate::Container::copy_in), [`Container::copy_out`](crate::Container::copy_out).
#[derive(Default)]
pub struct CopyOptions<'a> {
    /// Of what is made in a container, as the spec's `user`: `uid`, `name`, `uid:gid` or `name:group`, names being those of its own
    /// /etc/passwd and /etc/group. Default: the `user` of its spec, which is its root unless it says otherwise. On the host it is
    /// always the caller.
    pub owner: Option<String>,
    /// Devices, sockets and FIFOs.
    pub special: Special,
    /// After which it is given up. Default: never.
    pub timeout: Option<Duration>,
    /// Called at least every 50 ms while something is waited for; `false` ends the copy (Closed with ECANCELED).
    pub progress: Option<&'a mut (dyn FnMut(&CopyProgress) -> bool + 'a)>,
}

/// Asked to go on, and told how far it is.
pub(crate) type Callback<'a> = &'a mut (dyn FnMut(&CopyProgress) -> bool + 'a);

/// Some work on files, while it goes on.
pub(crate) struct Work<'a> {
    deadline: Option<Instant>,
    callback: RefCell<Option<Callback<'a>>>,
    progress: Cell<CopyProgress>,
    told: Cell<Option<Instant>>,
}

impl<'a> Work<'a> {
    pub fn new(timeout: Option<Duration>, callback: Option<Callback<'a>>) -> Self {
        Self {
            deadline: timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
            callback: RefCell::new(callback),
            progress: Cell::default(),
            told: Cell::new(None),
        }
    }

    pub fn progress(&self) -> CopyProgress {
        self.progress.get()
    }

    fn change(&self, change: impl FnOnce(&mut CopyProgress)) {
        let mut progress = self.progress.get();
        change(&mut progress);
        self.progress.set(progress);
    }

    pub fn made(&self, bytes: u64) {
        self.change(|progress| {
            progress.entries += 1;
            progress.bytes += bytes;
        });
    }

    pub fn skipped(&self) {
        self.change(|progress| progress.skipped += 1);
    }

    /// A part of a file that is not whole yet.
    pub fn copying(&self, bytes: u64) {
        self.change(|progress| progress.bytes += bytes);
    }

    /// The file is counted as a whole now.
    pub fn copied_before(&self, bytes: u64) {
        self.change(|progress| progress.bytes -= bytes);
    }

    /// As `go_on`, between two entries: not each of them is told.
    pub fn go_on_at(&self, path: &[u8]) -> Result<()> {
        const SELDOM: Duration = Duration::from_millis(20);
        if self.told.get().is_some_and(|told| told.elapsed() < SELDOM) {
            return Ok(());
        }
        side::Watch::go_on(self).map_err(|e| e.with_path(String::from_utf8_lossy(path)))
    }
}

impl side::Watch for Work<'_> {
    fn go_on(&self) -> Result<()> {
        let now = Instant::now();
        self.told.set(Some(now));
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            return Err(Error::new(ErrorKind::TimedOut, "it was not done in time").with_errno(libc::ETIMEDOUT));
        }
        // It may be asked while it is being told, by what it calls.
        let Ok(mut callback) = self.callback.try_borrow_mut() else { return Ok(()) };
        if let Some(callback) = callback.as_mut()
            && !callback(&self.progress.get())
        {
            return Err(Error::new(ErrorKind::Closed, "it was cancelled").with_errno(libc::ECANCELED));
        }
        Ok(())
    }
}
