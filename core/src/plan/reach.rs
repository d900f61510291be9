//! Plans for what the host wants to have of a container without being inside: sockets, and files as the container sees them.

use super::builder::{Arg, Builder, Compiled, call};
use super::exec::Joining;
use super::facts::Need;
use super::process::need;
use crate::proto::{section, slot};

/// What is done with a new socket before it is sent.
pub(crate) enum Then {
    Nothing,
    /// bind(2) and listen(2).
    Listen {
        address: Vec<u8>,
        backlog: i32,
    },
    /// connect(2), of sockets that have their peer at once.
    Connect {
        address: Vec<u8>,
    },
}

/// A task that joins with the rights of the container's root.
fn begin(joining: &Joining, may_setgroups: bool) -> (Builder, Vec<Need>) {
    let mut b = Builder::new();
    let mut needs = Vec::new();
    joining.prepare(&mut b, &mut needs);
    b.section(section::PAYLOAD);
    b.field("user");
    joining.become_root(&mut b, may_setgroups);
    (b, needs)
}

/// Clones a mount of the container and sends the clone, which is attached nowhere.
pub(crate) fn tree(joining: &Joining, path: &str, may_setgroups: bool) -> (Compiled, Vec<Need>) {
    const TREE_CLONE: i32 = 1 | libc::O_CLOEXEC;
    let (mut b, needs) = begin(joining, may_setgroups);
    b.field("path");
    let text = b.text(path);
    let tree = b.op(call::OPEN_TREE, [libc::AT_FDCWD.into(), text, TREE_CLONE.into()]).path(path).keep();
    b.op(call::SEND_FD, [Arg::Slot(tree), 0.into()]);
    (b.build(), needs)
}

/// Makes a socket and sends it; `shown` is the address for errors.
pub(crate) fn socket(
    joining: &Joining,
    may_setgroups: bool,
    (domain, kind, protocol): (i32, i32, i32),
    then: &Then,
    shown: &str,
) -> (Compiled, Vec<Need>) {
    let (mut b, needs) = begin(joining, may_setgroups);
    b.field(if matches!(then, Then::Nothing) { "domain" } else { "address" });
    let kind = kind | libc::SOCK_CLOEXEC;
    let socket = b.op(call::SOCKET, [domain.into(), kind.into(), protocol.into()]).path(shown).keep();
    if domain == libc::AF_UNIX {
        // bind(2) and connect(2) follow links of /proc, and this one is the keeper's.
        b.op(call::CLOSE, [Arg::Slot(slot::PROC as u16)]);
    }
    match then {
        Then::Nothing => {}
        Then::Listen { address, backlog } => {
            if domain != libc::AF_UNIX {
                let one = b.bytes(&1i32.to_ne_bytes());
                let level = [Arg::Slot(socket), libc::SOL_SOCKET.into(), libc::SO_REUSEADDR.into(), one, 4.into()];
                b.op(call::SETSOCKOPT, level);
            }
            b.op(call::UMASK, [0o022.into()]);
            let (length, data) = (address.len() as u64, b.bytes(address));
            b.op(call::BIND, [Arg::Slot(socket), data, length.into()]).path(shown);
            b.op(call::LISTEN, [Arg::Slot(socket), (*backlog).into()]).path(shown);
        }
        Then::Connect { address } => {
            let (length, data) = (address.len() as u64, b.bytes(address));
            b.op(call::CONNECT, [Arg::Slot(socket), data, length.into()]).path(shown);
        }
    }
    b.op(call::SEND_FD, [Arg::Slot(socket), 0.into()]);
    (b.build(), needs)
}

/// Opens a file as the container sees it and sends the descriptor. No link leads out of its root, and none of /proc's anywhere.
pub(crate) fn open(
    joining: &Joining,
    path: &[u8],
    flags: i32,
    mode: u32,
    may_setgroups: bool,
) -> (Compiled, Vec<Need>) {
    let (mut b, needs) = begin(joining, may_setgroups);
    b.field("path");
    const RESOLVE_NO_MAGICLINKS: u64 = 2;
    const RESOLVE_IN_ROOT: u64 = 16;
    let makes = flags & libc::O_CREAT != 0 || flags & libc::O_TMPFILE == libc::O_TMPFILE;
    let mode = if makes { u64::from(mode) } else { 0 };
    let how = b.words(&[(flags | libc::O_CLOEXEC) as u32 as u64, mode, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS]);
    let (slash, text) = (b.text("/"), b.text(path));
    let shown = String::from_utf8_lossy(path).into_owned();
    b.op(call::UMASK, [0o022.into()]);
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    let root = b.op(call::OPENAT, [libc::AT_FDCWD.into(), slash, flags.into()]).path("/").keep();
    let file = b.op(call::OPENAT2, [Arg::Slot(root), text, how, 24.into()]).path(shown).keep();
    b.op(call::SEND_FD, [Arg::Slot(file), 0.into()]);
    (b.build(), needs)
}

/// A task that runs what it is asked on the request's first stream: with the rights of the container's root in the container, or
/// without one with those of the keeper.
pub(crate) fn files(joining: Option<&Joining>, may_setgroups: bool) -> (Compiled, Vec<Need>) {
    let (mut b, mut needs) = match joining {
        Some(joining) => begin(joining, may_setgroups),
        None => (Builder::new(), Vec::new()),
    };
    b.section(section::PAYLOAD);
    b.field("path");
    let socket = need(&mut needs, Need::Stream(0));
    // A change of ids takes the death signal away.
    b.op(call::LIFELINE, [Arg::Slot(slot::LIFELINE as u16)]);
    b.op(call::UMASK, [0.into()]);
    b.op(call::FILES, [Arg::Slot(socket)]);
    (b.build(), needs)
}
