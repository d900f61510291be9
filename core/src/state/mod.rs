//! The state directory: names, records of detached containers, claims of id ranges.

mod dir;
mod identity;
/// Claims of id ranges.
pub(crate) mod ids;
mod locks;
/// Names and records.
pub(crate) mod names;
mod private_fd;

use crate::error::Result;

/// One line of `ls`.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub name: String,
    pub id: String,
    /// `running`, `ended`, `lost`.
    pub state: &'static str,
    /// Of pid 1; 0 when ended.
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
    /// What could not be removed yet, and why.
    pub remaining: Vec<String>,
}

/// The named containers of this user.
pub fn ls() -> Result<Vec<Entry>> {
    unimplemented!()
}

/// Ends and removes what dead keepers left, and the records of ended detached containers.
pub fn gc() -> Result<GcReport> {
    unimplemented!()
}
