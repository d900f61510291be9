//! What is undone at the end.

use super::{CLOEXEC, ContainerPlan};
use crate::plan::builder::{Arg, call};
use crate::plan::facts::{Need, UndoName};
use crate::proto::{section, slot};

impl<'a> ContainerPlan<'a> {
    pub(super) fn undo(&mut self) {
        self.b.section(section::END);
        self.kill_group();
        self.b.section(section::UNDO);
        self.kill_group();
        self.b.field("cgroup");
        let shared = |index: usize| Arg::Slot((slot::SHARED + index) as u16);
        for (index, name) in &self.facts.undo_groups {
            let text = self.b.text(name);
            self.b.op(call::REMOVE_GROUP, [shared(*index), text]).ok(&[libc::ENOENT]).path(name.clone());
        }
        if let Some((index, name)) = self.facts.undo_name.clone() {
            self.undo_name(shared(index), &name);
        }
    }

    /// Sent by who lifts what would outlive the container, since the keeper has the descriptor as long. What is gone already is no
    /// error, and nobody reads the answers.
    pub(super) fn undo_net(&mut self) {
        let Some((claim, messages)) = self.facts.undo_net.clone() else { return };
        const ANY: &[i32] = &[crate::proto::ANY as i32];
        self.b.field("net");
        self.b.kept_slot = Some(self.need(Need::Pass(claim)));
        self.b.section(section::LIFT);
        let length = messages.len() as u64;
        let messages = self.b.bytes(&messages);
        let first = self.b.len();
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        let args = [libc::AF_NETLINK.into(), kind.into(), libc::NETLINK_ROUTE.into()];
        let socket = self.b.op(call::SOCKET, args).ok(ANY).path("AF_NETLINK").keep();
        self.b.op(call::WRITE, [Arg::Slot(socket), messages, length.into()]).ok(ANY).path("AF_NETLINK");
        self.b.op(call::CLOSE, [Arg::Slot(socket)]);
        self.b.skip_from(first, false);
    }

    fn kill_group(&mut self) {
        let Some((index, name)) = self.facts.kill_group.clone() else { return };
        self.b.field("cgroup");
        let path = self.b.text(format!("{name}/cgroup.kill"));
        let one = self.b.text("1");
        let flags = libc::O_WRONLY | CLOEXEC;
        let at = self.b.len();
        let gone = [libc::ENOENT, libc::ENODEV, libc::EOPNOTSUPP];
        let shared = Arg::Slot((slot::SHARED + index) as u16);
        let file = self.b.op(call::OPENAT, [shared, path, flags.into()]).ok(&gone).keep();
        self.b.op(call::WRITE, [Arg::Slot(file), one, 1.into()]).ok(&gone);
        self.b.op(call::CLOSE, [Arg::Slot(file)]);
        self.b.skip_from(at, false);
    }

    /// The host removes its container's name itself, and holds the lock until then: only when it was killed, or executed
    /// something else, the keeper gets the lock. What fails is left to gc.
    fn undo_name(&mut self, names: Arg, name: &UndoName) {
        const ANY: &[i32] = &[crate::proto::ANY as i32];
        self.b.field("name");
        let first = self.b.len();
        let path = self.b.text(&name.lock);
        let flags = libc::O_RDWR | CLOEXEC | libc::O_NOFOLLOW;
        let lock = self.b.op(call::OPENAT, [names, path, flags.into()]).ok(ANY).path(&*name.lock).keep();
        // struct flock: type and whence 16 bits each, start, length, pid. The first byte, as for everybody who takes the name.
        let whole = self.b.words(&[libc::F_WRLCK as u64, 0, 1, 0]);
        let taken = self.b.len();
        self.b.op(call::FCNTL, [Arg::Slot(lock), libc::F_OFD_SETLK.into(), whole]).ok(ANY).path(&*name.lock);
        let other = self.b.len();
        let files = [&name.owner].into_iter().chain(&name.files).map(|file| (file, 0));
        for (file, flags) in files.chain([(&name.directory, libc::AT_REMOVEDIR)]) {
            let path = self.b.text(file);
            self.b.op(call::UNLINKAT, [names, path, flags.into()]).ok(ANY).path(&**file);
        }
        self.b.skip_from(taken, false);
        self.b.skip_from(other, false);
        self.b.op(call::CLOSE, [Arg::Slot(lock)]);
        self.b.skip_from(first, false);
    }
}
