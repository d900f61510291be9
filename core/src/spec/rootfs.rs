//! Where `/` comes from.

use std::path::PathBuf;

/// Where `/` comes from.
///
/// As text, in JSON and in `From<&str>`: `host`, `host:owned`, or an absolute path.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Rootfs {
    /// The tree.
    pub kind: RootfsKind,
    /// Whether nothing below `/` can be written but what is mounted there. Default: false.
    pub readonly: bool,
}

/// The kinds of root file systems.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum RootfsKind {
    /// The host's own tree, read-only below, a private overlay on top; what only root of the host can read stays unreadable.
    #[default]
    Host,
    /// The same, owned by the container's root (idmapped): it can read and change (a copy of) everything, host secrets
    /// included.
    HostOwned,
    /// A directory used in place (read-write unless `readonly`).
    Directory(PathBuf),
    /// Lower directories (the topmost first) with an upper directory, or a private one in memory.
    Layers {
        /// At least one, at most 500, which is the kernel's bound; the topmost first, as overlayfs has it.
        lower: Vec<PathBuf>,
        /// Where changes are kept; `None` keeps them in memory until the container ends.
        upper: Option<PathBuf>,
    },
}

impl From<RootfsKind> for Rootfs {
    fn from(kind: RootfsKind) -> Self {
        Self { kind, readonly: false }
    }
}

impl From<PathBuf> for Rootfs {
    fn from(path: PathBuf) -> Self {
        let kind = match path.as_os_str().as_encoded_bytes() {
            b"host" => RootfsKind::Host,
            b"host:owned" => RootfsKind::HostOwned,
            _ => RootfsKind::Directory(path),
        };
        kind.into()
    }
}

impl From<&str> for Rootfs {
    fn from(path: &str) -> Self {
        PathBuf::from(path).into()
    }
}

impl From<&std::path::Path> for Rootfs {
    fn from(path: &std::path::Path) -> Self {
        path.to_owned().into()
    }
}
