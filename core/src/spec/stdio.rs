//! The three standard streams and the terminal.

use std::os::fd::RawFd;
use std::path::PathBuf;

/// Where a standard stream leads. As text: `null`, `inherit`, `pipe`, `log`, `file:PATH`, `fd:N`, `stdout`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stdio {
    /// /dev/null.
    Null,
    /// The caller's own stream.
    Inherit,
    /// A pipe, whose other end is read or written through the handle of the process.
    Pipe,
    /// Output only: a bounded file, readable through the handle, kept for detached containers.
    Log,
    /// Opened by the caller's authority on the host: created and truncated for output, read for input. An absolute path.
    File(PathBuf),
    /// An open descriptor of the caller; it is duplicated, never closed.
    Fd(RawFd),
    /// stderr only: the same as stdout.
    Stdout,
}

/// The size of a pseudoterminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terminal {
    /// 1 to 65535.
    pub rows: u16,
    /// 1 to 65535.
    pub cols: u16,
}

/// 24 rows of 80 columns.
impl Default for Terminal {
    fn default() -> Self {
        Self { rows: 24, cols: 80 }
    }
}
