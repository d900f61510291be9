//! What /etc/hosts of those on a network is.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::lock;
use crate::launch::HostOnly;
use crate::plan::container::LOCALHOST;
use crate::spec::{NamespaceKind, NamespaceSource, Spec};

/// What /etc/hosts of those on a network is. Others read it at any time: a line is written once, where it stays, and its place is filled
/// with empty lines when it goes.
#[derive(Debug)]
pub(super) struct Hosts {
    file: File,
    length: u64,
    /// Where there are empty lines: from where on, and how many.
    free: Vec<(u64, u64)>,
}

impl Hosts {
    /// Nobody is on the network yet.
    pub(super) fn new(file: File) -> std::io::Result<Self> {
        file.write_all_at(LOCALHOST.as_bytes(), 0)?;
        Ok(Self { file, length: LOCALHOST.len() as u64, free: Vec::new() })
    }

    /// Where the lines are now.
    pub(super) fn add(&mut self, lines: &str) -> (u64, u64) {
        let needed = lines.len() as u64;
        let at = match self.free.iter_mut().find(|(_, room)| *room >= needed) {
            Some((at, room)) => {
                let place = *at;
                (*at, *room) = (*at + needed, *room - needed);
                place
            }
            None => {
                self.length += needed;
                self.length - needed
            }
        };
        self.free.retain(|(_, room)| *room > 0);
        // A full file system is the host's own: the names are missing then.
        let _ = self.file.write_all_at(lines.as_bytes(), at);
        (at, needed)
    }

    pub(super) fn remove(&mut self, (at, length): (u64, u64)) {
        let _ = self.file.write_all_at(&vec![b'\n'; length as usize], at);
        self.free.push((at, length));
        // Neighbours become one, so that longer names find room as well.
        self.free.sort_unstable();
        self.free.dedup_by(|next, one| {
            let adjacent = one.0 + one.1 == next.0;
            if adjacent {
                one.1 += next.1;
            }
            adjacent
        });
    }
}

/// /etc/hosts of a container that has entries of its own, or several networks. It can write to it, and that is its own matter.
#[derive(Debug)]
pub(crate) struct OwnHosts {
    file: HostOnly,
    front: String,
    parts: Mutex<Parts>,
}

#[derive(Debug, Default)]
struct Parts {
    by_network: BTreeMap<String, String>,
    /// The most that was ever written.
    longest: usize,
}

impl OwnHosts {
    pub(super) fn new(file: OwnedFd, front: String) -> Arc<Self> {
        Arc::new(Self { file: HostOnly::new(file), front, parts: Mutex::default() })
    }

    pub(super) fn set(&self, network: &str, text: &str) {
        let mut parts = lock(&self.parts);
        parts.by_network.insert(network.to_owned(), text.to_owned());
        let texts = [self.front.as_str()].into_iter().chain(parts.by_network.values().map(String::as_str));
        let mut whole = texts.collect::<String>().into_bytes();
        // Empty lines in the place of what there was: who reads meanwhile finds no end of a line of before.
        parts.longest = parts.longest.max(whole.len());
        whole.resize(parts.longest, b'\n');
        if !self.file.is_open() {
            return;
        }
        // The container's memory may be full: then it has the names of before.
        if let Ok(file) = self.file.as_fd().try_clone_to_owned().map(File::from)
            && file.write_all_at(&whole, 0).is_ok()
        {
            let _ = file.set_len(whole.len() as u64);
        }
    }
}

/// Whether /etc/hosts of a container on so many networks is not the network's: it has more in it.
pub(super) fn has_own_hosts(spec: &Spec, networks: usize) -> bool {
    matches!(spec.namespaces.get(&NamespaceKind::Mnt), None | Some(NamespaceSource::New))
        && !spec.files.contains_key(Path::new("/etc/hosts"))
        && (networks > 1 || networks == 1 && !spec.hosts.is_empty())
}
