//! All namespaces of the machine, as far as the caller may see them: found by their processes, by open descriptors, by bind mounts,
//! and as parents or owners of others.

use std::collections::HashMap;
use std::ffi::{CString, OsString};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use serde_json::{Value, json};

use super::{Key, Namespace, key_of, reopen};
use crate::error::{Error, Result};
use crate::spec::NamespaceKind;
use crate::sys::nsfs;

/// One namespace of the machine, and what keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NamespaceEntry {
    /// Its kind.
    pub kind: NamespaceKind,
    /// The inode, which /proc/PID/ns shows.
    pub inode: u64,
    /// The device of its file (`st_dev`).
    pub device: u64,
    /// The kernel's number of it; see [`Namespace::id`].
    pub id: Option<u64>,
    /// Who made the user namespace that it is, or that owns it; see [`Namespace::owner_uid`]. `None`: hidden from this caller.
    pub owner_uid: Option<u32>,
    /// The inode of the user namespace that owns it. `None`: it is the first one, or the owner is hidden from this caller.
    pub owner: Option<u64>,
    /// The inode of the parent of a user or pid namespace. `None`: it has none, or that is hidden from this caller.
    pub parent: Option<u64>,
    /// The processes that are in it with at least one thread, in order.
    pub members: Vec<i32>,
    /// The command line of the first of them, or its name in brackets when it has none.
    pub command: Option<String>,
    /// The processes that hold a descriptor of it, or whose next child is born in it, in order.
    pub held_by: Vec<i32>,
    /// Where it is mounted, as the processes of the mount namespace with that mount see it, in order.
    pub mounts: Vec<PathBuf>,
}

impl NamespaceEntry {
    /// Entries as a JSON array of objects with the names of the fields.
    pub fn to_json(entries: &[Self]) -> String {
        let object = |e: &Self| {
            json!({
                "kind": e.kind.name(), "inode": e.inode, "device": e.device, "id": e.id, "owner_uid": e.owner_uid,
                "owner": e.owner, "parent": e.parent, "members": e.members, "command": e.command, "held_by": e.held_by,
                "mounts": e.mounts.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>(),
            })
        };
        Value::from(entries.iter().map(object).collect::<Vec<_>>()).to_string()
    }
}

/// All namespaces of the machine that the caller may see, by kind and then by inode: found by the processes that it may trace
/// (ptrace(2)), for an ordinary user its own. Also those without a process, which a bind mount, an open descriptor, or a namespace
/// below them keeps.
///
/// It reads /proc from end to end (some 40 us for each thread, 5 us for each open descriptor) and is no picture of one moment.
/// It waits for no file system: of a mount whose own it would have to ask, only kind and inode are told.
///
/// # Errors
/// When /proc cannot be read; Exhausted when descriptors or memory run out: never a part of the list for the whole.
pub fn namespaces() -> Result<Vec<NamespaceEntry>> {
    let own = "/proc/self/ns/mnt";
    let (device, _) = key_of(own).map_err(|e| Error::io("stat", &e).with_path(own))?;
    let mut scan = Scan { device, found: HashMap::new(), short_of: None };
    let mut mount_namespaces = Vec::new();
    for pid in processes()? {
        scan.process(pid, &mut mount_namespaces);
    }
    for task in mount_namespaces {
        scan.mounts(&task);
    }
    if let Some(errno) = scan.short_of {
        return Err(Error::os("open", errno).with_path("/proc"));
    }
    let owners: HashMap<Key, u32> = scan.found.iter().filter_map(|(key, f)| Some((*key, f.made_by?))).collect();
    let mut entries: Vec<_> = scan.found.into_iter().map(|(key, found)| found.entry(key, &owners)).collect();
    entries.sort_by_key(|entry| (entry.kind, entry.inode));
    Ok(entries)
}

/// The processes that are in a namespace.
pub(super) fn members(namespace: &Namespace) -> Result<Vec<i32>> {
    let link = format!("{}:[{}]", namespace.kind.name(), namespace.inode);
    let is_in = |task: &Path| {
        fs::read_link(task.join("ns").join(namespace.kind.name())).is_ok_and(|found| found.as_os_str() == link.as_str())
    };
    let mut members = Vec::new();
    for pid in processes()? {
        match tasks(pid) {
            Ok(tasks) if tasks.iter().any(|task| is_in(task)) => members.push(pid),
            Err(e) if is_short(&e).is_some() => {
                return Err(Error::io("read", &e).with_path(format!("/proc/{pid}/task")));
            }
            _ => {}
        }
    }
    Ok(members)
}

/// The numbers of all processes, in order.
pub(super) fn processes() -> Result<Vec<i32>> {
    let entries = fs::read_dir("/proc").map_err(|e| Error::io("read", &e).with_path("/proc"))?;
    let mut pids: Vec<i32> = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    Ok(pids)
}

/// The directories of a process's threads. Each may be in namespaces of its own, and the first may have ended before the others.
fn tasks(pid: i32) -> io::Result<Vec<PathBuf>> {
    Ok(fs::read_dir(format!("/proc/{pid}/task"))?.flatten().map(|entry| entry.path()).collect())
}

/// Whether it is the caller who lacks something: all other errors are about what is looked at.
pub(crate) fn is_short(error: &io::Error) -> Option<i32> {
    error.raw_os_error().filter(|errno| matches!(*errno, libc::EMFILE | libc::ENFILE | libc::ENOMEM))
}

#[derive(Debug)]
struct Found {
    kind: NamespaceKind,
    /// It could be opened, and what it says of itself is here.
    asked: bool,
    id: Option<u64>,
    /// Of a user namespace.
    made_by: Option<u32>,
    owner: Option<Key>,
    parent: Option<Key>,
    members: Vec<i32>,
    held_by: Vec<i32>,
    mounts: Vec<PathBuf>,
}

impl Found {
    fn new(kind: NamespaceKind) -> Self {
        Self {
            kind,
            asked: false,
            id: None,
            made_by: None,
            owner: None,
            parent: None,
            members: Vec::new(),
            held_by: Vec::new(),
            mounts: Vec::new(),
        }
    }

    fn entry(mut self, key: Key, owners: &HashMap<Key, u32>) -> NamespaceEntry {
        self.mounts.sort();
        self.mounts.dedup();
        let owner_uid = match self.kind {
            NamespaceKind::User => self.made_by,
            _ => self.owner.and_then(|owner| owners.get(&owner).copied()),
        };
        NamespaceEntry {
            kind: self.kind,
            inode: key.1,
            device: key.0,
            id: self.id,
            owner_uid,
            owner: self.owner.map(|(_, inode)| inode),
            parent: self.parent.map(|(_, inode)| inode),
            command: self.members.first().and_then(|pid| command(*pid)),
            members: self.members,
            held_by: self.held_by,
            mounts: self.mounts,
        }
    }
}

#[derive(Debug)]
struct Scan {
    /// The files of all namespaces are on one.
    device: u64,
    found: HashMap<Key, Found>,
    /// Descriptors or memory ran out: the errno.
    short_of: Option<i32>,
}

impl Scan {
    /// Adds a process and its threads, and its descriptors. `mount_namespaces` gets the first thread of each.
    fn process(&mut self, pid: i32, mount_namespaces: &mut Vec<PathBuf>) {
        for task in self.done(tasks(pid)).unwrap_or_default() {
            // From here a name is one step, and of the same thread even when its number is given to another.
            let Some(ns) = self.done(open_path(&task.join("ns"))) else { continue };
            for kind in NamespaceKind::ALL {
                let Some(inode) = inode_at(&ns, kind.name()) else {
                    // Refused for one, refused for all: the right to trace is asked for each time.
                    if kind == NamespaceKind::ALL[0] {
                        break;
                    }
                    continue;
                };
                let found = self.seen((self.device, inode), kind, || open_at(&ns, kind.name()));
                if found.members.last() != Some(&pid) {
                    found.members.push(pid);
                    if kind == NamespaceKind::Mnt && found.members.len() == 1 {
                        mount_namespaces.push(task.clone());
                    }
                }
            }
            for (kind, name) in [(NamespaceKind::Pid, "pid_for_children"), (NamespaceKind::Time, "time_for_children")] {
                let Some(inode) = inode_at(&ns, name) else { continue };
                let found = self.seen((self.device, inode), kind, || open_at(&ns, name));
                if found.members.last() != Some(&pid) && found.held_by.last() != Some(&pid) {
                    found.held_by.push(pid);
                }
            }
        }
        for entry in self.done(fs::read_dir(format!("/proc/{pid}/fd"))).into_iter().flatten().flatten() {
            let path = entry.path();
            let Some((kind, inode)) = fs::read_link(&path).ok().and_then(|link| parse(link.as_os_str().as_bytes()))
            else {
                continue;
            };
            let found = self.seen((self.device, inode), kind, || open_checked(&path));
            if found.held_by.last() != Some(&pid) {
                found.held_by.push(pid);
            }
        }
    }

    /// Adds the bind mounts of namespaces in the mount namespace of a thread.
    fn mounts(&mut self, task: &Path) {
        let Some(file) = self.done(fs::File::open(task.join("mountinfo"))) else { return };
        let mut root: Option<OwnedFd> = None;
        // Line by line: a container can have a hundred thousand mounts.
        let lines = BufReader::new(file).split(b'\n').map_while(io::Result::ok);
        for (key, kind, path) in lines.filter_map(|line| mounted(&line)) {
            let found = self.seen(key, kind, || {
                let root = match &root {
                    Some(root) => root,
                    None => root.insert(open_path(&task.join("root"))?),
                };
                let text = CString::new(path.as_os_str().as_bytes())?;
                reopen(nsfs::open_cached(root.as_fd(), &text)?.as_fd())?.ok_or_else(gone)
            });
            found.mounts.push(path);
        }
    }

    /// What is gone or hidden is left out.
    fn done<T>(&mut self, result: io::Result<T>) -> Option<T> {
        result.map_err(|e| self.short_of = self.short_of.or_else(|| is_short(&e))).ok()
    }

    /// The record of a namespace, asked of itself when it is opened for the first time.
    fn seen(&mut self, key: Key, kind: NamespaceKind, open: impl FnOnce() -> io::Result<OwnedFd>) -> &mut Found {
        if !self.found.get(&key).is_some_and(|found| found.asked)
            && let Some(fd) = self.done(open())
            && same(fd.as_fd(), key)
        {
            self.ask(key, kind, fd.as_fd());
        }
        self.found.entry(key).or_insert_with(|| Found::new(kind))
    }

    /// At most two descriptors for each of 32 levels are open at a time.
    fn ask(&mut self, key: Key, kind: NamespaceKind, fd: BorrowedFd<'_>) {
        let found = self.found.entry(key).or_insert_with(|| Found::new(kind));
        found.asked = true;
        found.id = nsfs::id(fd);
        if kind == NamespaceKind::User {
            found.made_by = nsfs::owner_uid(fd).ok();
        }
        let owner = self.done(nsfs::owner(fd)).and_then(|owner| self.relative(owner, NamespaceKind::User));
        let parent = match kind {
            // The owner of a user namespace is its parent.
            NamespaceKind::User => owner,
            NamespaceKind::Pid => self.done(nsfs::parent(fd)).and_then(|parent| self.relative(parent, kind)),
            _ => None,
        };
        let found = self.found.get_mut(&key).expect("entered above");
        (found.owner, found.parent) = (owner, parent);
    }

    fn relative(&mut self, fd: OwnedFd, kind: NamespaceKind) -> Option<Key> {
        let stat = nix::sys::stat::fstat(&fd).ok()?;
        let key = (stat.st_dev, stat.st_ino);
        self.seen(key, kind, || Ok(fd));
        Some(key)
    }
}

fn same(fd: BorrowedFd<'_>, key: Key) -> bool {
    nix::sys::stat::fstat(fd).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == key)
}

/// What the link says: half the price of stat(2), which makes the kernel find the file of the namespace.
fn inode_at(directory: &OwnedFd, name: &str) -> Option<u64> {
    let link = nix::fcntl::readlinkat(directory, name).ok()?;
    Some(parse(link.as_bytes())?.1)
}

fn open_at(directory: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    Ok(nix::fcntl::openat(directory, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?)
}

fn open_path(path: &Path) -> io::Result<OwnedFd> {
    fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path).map(OwnedFd::from)
}

/// The number may have come to mean another file since it was looked at.
fn open_checked(path: &Path) -> io::Result<OwnedFd> {
    reopen(open_path(path)?.as_fd())?.ok_or_else(gone)
}

fn gone() -> io::Error {
    io::ErrorKind::NotFound.into()
}

/// `net:[4026531840]`
fn parse(link: &[u8]) -> Option<(NamespaceKind, u64)> {
    let text = std::str::from_utf8(link).ok()?;
    let (kind, inode) = text.strip_suffix(']')?.split_once(":[")?;
    Some((NamespaceKind::from_name(kind)?, inode.parse().ok()?))
}

/// A line of /proc/PID/mountinfo (proc_pid_mountinfo(5)) that is the mount of a namespace.
fn mounted(line: &[u8]) -> Option<(Key, NamespaceKind, PathBuf)> {
    let mut words = line.split(|byte| *byte == b' ');
    let device = std::str::from_utf8(words.nth(2)?).ok()?;
    let root = words.next()?;
    let point = words.next()?;
    // After a list of optional fields of any length.
    words.find(|word| *word == b"-")?;
    if words.next()? != b"nsfs" {
        return None;
    }
    let (major, minor) = device.split_once(':')?;
    let (kind, inode) = parse(root)?;
    let device = libc::makedev(major.parse().ok()?, minor.parse().ok()?);
    Some(((device, inode), kind, unescape(point).into()))
}

/// `\040` is a blank.
fn unescape(text: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let octal = text.get(at + 1..at + 4).filter(|_| text[at] == b'\\');
        let octal = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        out.push(octal.unwrap_or(text[at]));
        at += if octal.is_some() { 4 } else { 1 };
    }
    OsString::from_vec(out)
}

/// As ps(1) shows it.
fn command(pid: i32) -> Option<String> {
    use std::io::Read;
    let mut line = Vec::new();
    File::open(format!("/proc/{pid}/cmdline")).and_then(|file| file.take(4096).read_to_end(&mut line)).ok()?;
    let words = line.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    let words: Vec<_> = words.map(String::from_utf8_lossy).collect();
    if !words.is_empty() {
        return Some(words.join(" "));
    }
    let name = fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(format!("[{}]", String::from_utf8_lossy(name.strip_suffix(b"\n").unwrap_or(&name))))
}

#[cfg(any(fuzzing, test))]
pub(crate) fn fuzz(bytes: &[u8]) {
    parse(bytes);
    bytes.split(|&byte| byte == b'\n').for_each(|line| drop(mounted(line)));
    unescape(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_of_mounts() {
        let line = b"612 29 0:4 net:[4026532177] /run/netns/a\\040b rw shared:6 - nsfs nsfs rw";
        let wanted = (libc::makedev(0, 4), 4_026_532_177);
        assert_eq!(mounted(line), Some((wanted, NamespaceKind::Net, "/run/netns/a b".into())));
        assert_eq!(mounted(b"29 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw"), None);
        assert_eq!(mounted(b"612 29 0:4 net:[x] /run/netns/a rw - nsfs nsfs rw"), None);
    }

    #[test]
    fn what_a_link_says() {
        assert_eq!(parse(b"user:[4026531837]"), Some((NamespaceKind::User, 4_026_531_837)));
        for other in ["pipe:[1]", "net:[]", "net:[1", "/tmp/net:[1]", "pid_for_children:[1]"] {
            assert_eq!(parse(other.as_bytes()), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(line in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (mounted(&line), parse(&line), unescape(&line));
        }

        #[test]
        fn what_the_kernel_escapes_comes_back(path in "[ -~\n\t]{1,40}") {
            let escaped: Vec<u8> = path.bytes().flat_map(|byte| match byte {
                b' ' | b'\t' | b'\n' | b'\\' => format!("\\{byte:03o}").into_bytes(),
                other => vec![other],
            }).collect();
            prop_assert_eq!(unescape(&escaped), OsString::from(path));
        }
    }
}
