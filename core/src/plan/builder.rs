//! Puts a plan together: operations with tags, and the flat buffer that the keeper's children interpret.

use std::path::PathBuf;
use std::sync::Arc;

use super::attribute::Attribute;
use super::facts::Need;
use super::idmap::OwnMaps;
use crate::proto::{self, Header, Op, Span, arg, pseudo, section, slot};
use crate::sys::plain::bytes_of;

/// What an operation is for: the front of an error message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    /// The spec's field, or a few words.
    pub field: Arc<str>,
    /// The system call's name.
    pub call: &'static str,
    pub path: Option<String>,
    pub hint: Option<&'static str>,
    pub denied: Option<Denied>,
}

/// What is said of errnos by which a security module may refuse an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Denied {
    pub errnos: &'static [i32],
    pub field: &'static str,
    pub hint: &'static str,
}

/// One argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arg {
    Imm(u64),
    /// An offset in the buffer, passed as an address.
    Data(u64),
    Slot(u16),
}

impl From<u64> for Arg {
    fn from(value: u64) -> Self {
        Self::Imm(value)
    }
}
impl From<i32> for Arg {
    fn from(value: i32) -> Self {
        Self::Imm(value as i64 as u64)
    }
}
impl From<u32> for Arg {
    fn from(value: u32) -> Self {
        Self::Imm(value.into())
    }
}

/// Names a system call and knows its number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call(pub u32, pub &'static str);

macro_rules! calls {
    ($($name:ident = $number:ident $text:literal;)*) => {
        $(pub(crate) const $name: Call = Call(libc::$number as u32, $text);)*
    };
}

/// The system calls that plans are made of.
pub(crate) mod call {
    use super::{Call, pseudo};
    calls! {
        OPENAT = SYS_openat "openat"; OPENAT2 = SYS_openat2 "openat2"; CLOSE = SYS_close "close";
        MKDIRAT = SYS_mkdirat "mkdirat"; MKNODAT = SYS_mknodat "mknodat"; SYMLINKAT = SYS_symlinkat "symlinkat";
        UNLINKAT = SYS_unlinkat "unlinkat";
        FSOPEN = SYS_fsopen "fsopen"; FSCONFIG = SYS_fsconfig "fsconfig"; FSMOUNT = SYS_fsmount "fsmount";
        FSPICK = SYS_fspick "fspick"; MOVE_MOUNT = SYS_move_mount "move_mount"; OPEN_TREE = SYS_open_tree "open_tree";
        MOUNT_SETATTR = SYS_mount_setattr "mount_setattr"; MOUNT = SYS_mount "mount"; UMOUNT2 = SYS_umount2 "umount2";
        PIVOT_ROOT = SYS_pivot_root "pivot_root"; FCHDIR = SYS_fchdir "fchdir"; CHDIR = SYS_chdir "chdir";
        UNSHARE = SYS_unshare "unshare"; SETNS = SYS_setns "setns"; SETHOSTNAME = SYS_sethostname "sethostname";
        SETDOMAINNAME = SYS_setdomainname "setdomainname"; SOCKET = SYS_socket "socket"; BIND = SYS_bind "bind"; LISTEN = SYS_listen "listen";
        CONNECT = SYS_connect "connect"; SETSOCKOPT = SYS_setsockopt "setsockopt"; IOCTL = SYS_ioctl "ioctl";
        SETGROUPS = SYS_setgroups "setgroups"; SETRESUID = SYS_setresuid "setresuid"; SETRESGID = SYS_setresgid "setresgid";
        SETSID = SYS_setsid "setsid"; DUP3 = SYS_dup3 "dup3"; FCNTL = SYS_fcntl "fcntl"; UMASK = SYS_umask "umask";
        PRLIMIT64 = SYS_prlimit64 "prlimit64"; SETPRIORITY = SYS_setpriority "setpriority"; PRCTL = SYS_prctl "prctl";
        CAPSET = SYS_capset "capset"; EXECVE = SYS_execve "execve"; WRITE = SYS_write "write";
        PREAD64 = SYS_pread64 "read";
        SCHED_SETAFFINITY = SYS_sched_setaffinity "sched_setaffinity"; SCHED_SETATTR = SYS_sched_setattr "sched_setattr";
        IOPRIO_SET = SYS_ioprio_set "ioprio_set";
        KEYCTL = SYS_keyctl "keyctl";
        LANDLOCK_CREATE_RULESET = SYS_landlock_create_ruleset "landlock_create_ruleset";
        LANDLOCK_ADD_RULE = SYS_landlock_add_rule "landlock_add_rule";
        LANDLOCK_RESTRICT_SELF = SYS_landlock_restrict_self "landlock_restrict_self";
        SECCOMP = SYS_seccomp "seccomp";
        FSETXATTR = SYS_fsetxattr "fsetxattr"; FREMOVEXATTR = SYS_fremovexattr "fremovexattr";
    }
    /// The same number on every architecture; libc does not have it everywhere.
    pub(crate) const QUOTACTL_FD: Call = Call(crate::sys::quota::SYS_QUOTACTL_FD as u32, "quotactl_fd");
    pub(crate) const WRITE_ALL: Call = Call(pseudo::WRITE_ALL, "write");
    pub(crate) const RELOCATE: Call = Call(pseudo::RELOCATE, "relocate");
    pub(crate) const SIGNALS: Call = Call(pseudo::SIGNALS, "reset signals");
    pub(crate) const BOUNDING: Call = Call(pseudo::BOUNDING, "prctl PR_CAPBSET_DROP");
    pub(crate) const AMBIENT: Call = Call(pseudo::AMBIENT, "prctl PR_CAP_AMBIENT");
    pub(crate) const VERIFY: Call = Call(pseudo::VERIFY, "verify");
    /// A name of its own, because it fails for reasons of its own.
    pub(crate) const SECCOMP_LISTENER: Call =
        Call(libc::SYS_seccomp as u32, "seccomp SECCOMP_FILTER_FLAG_NEW_LISTENER");
    pub(crate) const HAND_OVER: Call = Call(pseudo::HAND_OVER, "hand over");
    pub(crate) const SEND_FD: Call = Call(pseudo::SEND_FD, "send descriptor");
    pub(crate) const SKIP_IF_NEGATIVE: Call = Call(pseudo::SKIP_IF_NEGATIVE, "skip");
    pub(crate) const LEFT_OUT: Call = Call(pseudo::LEFT_OUT, "leave out");
    pub(crate) const RELAY: Call = Call(pseudo::RELAY, "relay");
    pub(crate) const REMOVE_GROUP: Call = Call(pseudo::REMOVE_GROUP, "rmdir");
    pub(crate) const COMPARE: Call = Call(pseudo::COMPARE, "read back");
    pub(crate) const LANDLOCK_PATH: Call = Call(pseudo::LANDLOCK_PATH, "landlock_add_rule");
    pub(crate) const FILES: Call = Call(pseudo::FILES, "serve files");
    pub(crate) const EXEC_FAILED: Call = Call(pseudo::EXEC_FAILED, "exec");
    pub(crate) const LIFELINE: Call = Call(pseudo::LIFELINE, "lifeline");
    pub(crate) const CLOSE_OTHERS: Call = Call(pseudo::CLOSE_OTHERS, "close_range");
    pub(crate) const CHECK_CWD: Call = Call(pseudo::CHECK_CWD, "getcwd");
}

/// Results have their slots after those for as many descriptors as a message can bring: how many it brings is known only when
/// all operations are written. Where there are more, they are written once again.
const FIRST_RESULT: u32 = slot::FIRST + proto::MAX_FDS as u32;

/// A step that is still being written: chain the rest.
pub(crate) struct Step<'a> {
    op: &'a mut Op,
    tag: &'a mut Tag,
    nslots: &'a mut u32,
}

impl Step<'_> {
    /// Errnos that are no failure (at most four).
    pub fn ok(self, errnos: &[i32]) -> Self {
        for &errno in errnos {
            if let Some(free) = self.op.ok.iter_mut().find(|e| **e == 0) {
                *free = errno as u16;
            }
        }
        self
    }
    /// Every errno is no failure.
    pub fn ok_all(self) -> Self {
        self.op.ok[0] = proto::ANY;
        self
    }
    pub fn path(self, path: impl Into<String>) -> Self {
        self.tag.path = Some(path.into());
        self
    }
    pub fn hint(self, hint: &'static str) -> Self {
        self.tag.hint = Some(hint);
        self
    }
    pub fn denied(self, denied: Option<Denied>) -> Self {
        self.tag.denied = denied;
        self
    }
    /// Keeps the result in a slot that another operation has already.
    pub fn keep_in(self, slot: u16) {
        self.op.out = slot;
    }
    /// Keeps the result in a new slot.
    pub fn keep(self) -> u16 {
        let slot = *self.nslots as u16;
        *self.nslots += 1;
        self.op.out = slot;
        slot
    }
}

/// A descriptor of the request that is idmapped.
#[derive(Clone)]
pub(crate) struct Idmapped {
    pub slot: u16,
    pub recursive: bool,
    /// `None`: with the container's user namespace.
    pub maps: Option<OwnMaps>,
    /// By whoever sends the request, before that: the keeper may not.
    pub by_caller: bool,
    /// The rest is for errors: what of the spec asked for it.
    pub field: Arc<str>,
    /// What is mounted.
    pub path: PathBuf,
}

/// A plan under construction.
pub(crate) struct Builder {
    /// The front of the buffer: header, then data. Operations and slots follow at the end.
    data: Vec<u8>,
    ops: [Vec<(Op, Tag)>; section::COUNT],
    nslots: u32,
    pub flags: u32,
    pub clone_flags: u64,
    pub cgroup_slot: Option<u16>,
    pub kept_slot: Option<u16>,
    /// The pid that the process of an EXEC is to have.
    pub set_tid: Option<i32>,
    pub uid_map: Vec<u8>,
    pub gid_map: Vec<u8>,
    pub idmapped: Vec<Idmapped>,
    sends_namespaces: bool,
    asks: Vec<Attribute>,
    found: Vec<(String, Span)>,
    /// The field that the next operations are for.
    pub field: Arc<str>,
    at: usize,
}

/// A plan, and the descriptors that its request has to bring.
pub(crate) fn build(write: impl Fn(Builder) -> (Builder, Vec<Need>)) -> (Compiled, Vec<Need>) {
    let (mut b, mut needs) = write(Builder::new());
    if needs.len() > proto::MAX_FDS {
        let first_result = slot::FIRST + needs.len() as u32;
        (b, needs) = write(Builder { nslots: first_result, ..Builder::new() });
    }
    (b.build(), needs)
}

impl Builder {
    pub fn new() -> Self {
        Self {
            data: vec![0; size_of::<Header>()],
            ops: Default::default(),
            nslots: FIRST_RESULT,
            flags: 0,
            clone_flags: 0,
            cgroup_slot: None,
            kept_slot: None,
            set_tid: None,
            uid_map: Vec::new(),
            gid_map: Vec::new(),
            idmapped: Vec::new(),
            sends_namespaces: false,
            asks: Vec::new(),
            found: Vec::new(),
            field: "".into(),
            at: section::PREPARE,
        }
    }

    /// The next operations go to this section.
    pub fn section(&mut self, section: usize) {
        self.at = section;
    }

    pub fn field(&mut self, field: impl Into<Arc<str>>) {
        self.field = field.into();
    }

    /// How many operations the current section has.
    pub fn len(&self) -> usize {
        self.ops[self.at].len()
    }

    pub fn op<const N: usize>(&mut self, call: Call, args: [Arg; N]) -> Step<'_> {
        let mut op = Op { nr: call.0, out: slot::NONE, ..Op::default() };
        for (i, value) in args.into_iter().enumerate() {
            (op.kinds[i], op.args[i]) = match value {
                Arg::Imm(value) => (arg::IMM, value),
                Arg::Data(offset) => (arg::DATA, offset),
                Arg::Slot(slot) => (arg::SLOT, slot.into()),
            };
        }
        let tag = Tag { field: self.field.clone(), call: call.1, path: None, hint: None, denied: None };
        let list = &mut self.ops[self.at];
        list.push((op, tag));
        let (op, tag) = list.last_mut().expect("just pushed");
        Step { op, tag, nslots: &mut self.nslots }
    }

    /// Makes operation `index` of the current section pass over what follows it up to here, when it succeeds (or when it
    /// fails with an errno that is fine).
    pub fn skip_from(&mut self, index: usize, on_success: bool) {
        let count = u16::try_from(self.len() - index - 1).expect("plans pass over a few operations");
        let op = &mut self.ops[self.at][index].0;
        if on_success {
            op.skip_success = count;
        } else {
            op.skip_ok_errno = count;
        }
    }

    /// Lets any operation from `first` on fail with one of these: then the others up to here are passed over, and the handle's
    /// list of what was left out gets the path.
    pub fn may_be_left_out(&mut self, first: usize, errnos: [i32; 4], path: &str) {
        let end = self.len();
        for index in first..end {
            let op = &mut self.ops[self.at][index].0;
            op.ok = errnos.map(|errno| errno as u16);
            op.skip_ok_errno = u16::try_from(end - index - 1).expect("plans pass over a few operations");
        }
        self.ops[self.at][end - 1].0.skip_success = 1;
        self.op(call::LEFT_OUT, []).path(path);
    }

    /// Has the host do something, which is no matter of an attribute that the process could set itself.
    pub fn ask(&mut self, what: Attribute, name: &'static str) {
        let index = self.asks.len() as u64;
        self.asks.push(what);
        self.op(Call(pseudo::ASK, name), [index.into()]);
    }

    /// Lets the last operation fail for want of rights: then the host does to this process what it should have done.
    pub fn or_ask(&mut self, attribute: Attribute, hint: &'static str) {
        let (op, tag) = self.ops[self.at].last_mut().expect("there is an operation");
        op.ok[..2].copy_from_slice(&[libc::EPERM as u16, libc::EACCES as u16]);
        op.skip_success = 1;
        let path = tag.path.clone();
        let call = Call(pseudo::ASK, tag.call);
        let index = self.asks.len() as u64;
        self.asks.push(attribute);
        let step = self.op(call, [index.into()]).hint(hint);
        step.tag.path = path;
    }

    fn align(&mut self, to: usize) {
        while !self.data.len().is_multiple_of(to) {
            self.data.push(0);
        }
    }

    pub fn bytes(&mut self, bytes: &[u8]) -> Arg {
        self.align(8);
        let at = self.data.len();
        self.data.extend_from_slice(bytes);
        Arg::Data(at as u64)
    }

    /// Room for text that an operation of the plan reads; see [`Compiled::found`].
    pub fn room(&mut self, name: &str, len: usize) -> Arg {
        let room = self.bytes(&vec![0; len]);
        let Arg::Data(off) = room else { unreachable!("bytes gives an offset") };
        self.found.push((name.to_owned(), Span { off: off as u32, len: len as u32 }));
        room
    }

    /// A NUL-ended string; NUL bytes inside were refused by validation.
    pub fn text(&mut self, text: impl AsRef<[u8]>) -> Arg {
        let at = self.data.len();
        self.data.extend_from_slice(text.as_ref());
        self.data.push(0);
        Arg::Data(at as u64)
    }

    pub fn words(&mut self, words: &[u64]) -> Arg {
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
        self.bytes(&bytes)
    }

    /// An array of pointers to strings, ended by a null pointer; the operation that makes addresses of its offsets is added
    /// to the current section.
    pub fn pointers(&mut self, strings: &[impl AsRef<[u8]>]) -> Arg {
        let mut offsets = Vec::with_capacity(strings.len() + 1);
        for string in strings {
            let Arg::Data(at) = self.text(string) else { unreachable!("text gives an offset") };
            offsets.push(at);
        }
        offsets.push(0);
        let array = self.words(&offsets);
        let Arg::Data(at) = array else { unreachable!("words gives an offset") };
        self.op(call::RELOCATE, [at.into(), (offsets.len() as u64).into()]);
        array
    }

    /// A plan that makes only the user namespaces with which the caller idmaps its mounts, and sends them.
    pub fn build_namespaces(mut self) -> Compiled {
        self.sends_namespaces = true;
        let mut compiled = self.build();
        // No mount comes with it.
        compiled.idmapped.iter_mut().for_each(|one| one.by_caller = false);
        compiled
    }

    pub fn build(mut self) -> Compiled {
        let mut header = Header {
            magic: proto::MAGIC,
            flags: self.flags,
            nslots: self.nslots,
            cgroup_slot: self.cgroup_slot.map_or(u32::MAX, u32::from),
            clone_flags: self.clone_flags,
            kept_slot: self.kept_slot.map_or(u32::MAX, u32::from),
            set_tid: self.set_tid.unwrap_or(0),
            ..Header::default()
        };
        let span = |bytes: &[u8], data: &mut Vec<u8>| {
            let off = data.len() as u32;
            data.extend_from_slice(bytes);
            Span { off, len: bytes.len() as u32 }
        };
        header.uid_map = span(&std::mem::take(&mut self.uid_map), &mut self.data);
        header.gid_map = span(&std::mem::take(&mut self.gid_map), &mut self.data);
        self.align(8);
        // One user namespace serves all that have the same maps, if they follow each other.
        let sends = self.sends_namespaces;
        let listed = self.idmapped.iter().enumerate().filter(|(_, one)| one.by_caller == sends);
        let (mut with_maps, without): (Vec<_>, Vec<_>) = listed.partition(|(_, one)| one.maps.is_some());
        with_maps.sort_by_key(|(_, one)| one.maps.as_ref().map(|maps| (&maps.uid, &maps.gid)));
        let without = if sends { Vec::new() } else { without };
        header.idmaps = Span { off: self.data.len() as u32, len: without.len() as u32 };
        for (index, one) in without {
            let (slot, index) = (one.slot.into(), index as u32);
            self.data.extend_from_slice(bytes_of(&proto::IdmapEntry {
                slot,
                recursive: one.recursive.into(),
                index,
                pad: 0,
            }));
        }
        let mut entries: Vec<proto::OwnMapEntry> = Vec::with_capacity(with_maps.len());
        let mut last: Option<&OwnMaps> = None;
        for (index, one) in with_maps {
            let maps = one.maps.as_ref().expect("these have maps");
            let same = last.replace(maps).is_some_and(|last| (&last.uid, &last.gid) == (&maps.uid, &maps.gid));
            let (uid_map, gid_map) = match entries.last().filter(|_| same) {
                Some(last) => (last.uid_map, last.gid_map),
                None => (span(maps.uid.as_bytes(), &mut self.data), span(maps.gid.as_bytes(), &mut self.data)),
            };
            let flags = if sends { proto::own_map::SEND } else { proto::own_map::RECURSIVE * u32::from(one.recursive) };
            let (slot, index) = (if sends { 0 } else { one.slot.into() }, index as u32);
            entries.push(proto::OwnMapEntry { slot, flags, uid_map, gid_map, index });
        }
        if !entries.is_empty() {
            self.align(8);
            header.own_maps = self.data.len() as u32;
            self.data.extend_from_slice(&(entries.len() as u32).to_ne_bytes());
        }
        for entry in &entries {
            self.data.extend_from_slice(bytes_of(entry));
        }
        for (index, ops) in self.ops.iter().enumerate() {
            while !self.data.len().is_multiple_of(8) {
                self.data.push(0);
            }
            header.sections[index] = Span { off: self.data.len() as u32, len: ops.len() as u32 };
            for (op, _) in ops {
                self.data.extend_from_slice(bytes_of(op));
            }
        }
        self.align(8);
        header.slots = self.data.len() as u32;
        self.data.resize(self.data.len() + self.nslots as usize * 8, 0);
        header.total = self.data.len() as u32;
        self.data[..size_of::<Header>()].copy_from_slice(bytes_of(&header));
        Compiled {
            buffer: self.data,
            ops: self.ops,
            idmapped: self.idmapped,
            asks: self.asks,
            found: self.found,
            set_tid: self.set_tid,
        }
    }
}

/// The buffer for the keeper, and the tags that stay here.
#[derive(Clone)]
pub(crate) struct Compiled {
    pub buffer: Vec<u8>,
    pub ops: [Vec<(Op, Tag)>; section::COUNT],
    /// Mounts that are idmapped, as the keeper counts them.
    pub idmapped: Vec<Idmapped>,
    /// What a process of the plan may ask the host to do to it.
    pub asks: Vec<Attribute>,
    /// What the plan reads while it runs: name and place in the buffer, NUL-ended. Empty when it could not be read; full to its
    /// end when it is longer.
    pub found: Vec<(String, Span)>,
    /// The pid that was asked for.
    pub set_tid: Option<i32>,
}

impl Compiled {
    pub fn tag(&self, section: u32, op: u32) -> Option<&Tag> {
        self.ops.get(section as usize)?.get(op as usize).map(|(_, tag)| tag)
    }

    /// The string at an offset of the buffer, for showing it.
    pub fn text_at(&self, offset: u64) -> Option<String> {
        let rest = self.buffer.get(offset as usize..)?;
        let end = rest.iter().take(4096).position(|&b| b == 0)?;
        let text = std::str::from_utf8(&rest[..end]).ok()?;
        (!text.is_empty() && text.chars().all(|c| !c.is_control())).then(|| text.to_owned())
    }
}
