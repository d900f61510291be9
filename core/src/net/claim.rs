//! Addresses that are one container's among all programs on a machine, as long as it has them.
//!
//! The kernel keeps the list: for each address there is an empty table of nftables whose owner is a socket (Linux 5.12), in the network
//! namespace in which the address is used. Nobody else can make a table of that name; it goes when the last descriptor of the socket is
//! closed, however its program ends. So there is no file to be locked, found stale, or be in another place for another program.
//!
//! Sources: the kernel's net/netfilter/nf_tables_api.c (NFT_TABLE_F_OWNER), linux/netfilter/nf_tables.h.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};

use super::firewall::{GETTABLE, Message, NEWTABLE, NFT_TABLE_F_OWNER, number, text};
use super::netlink::{Attributes, Batch, Socket, attributes_of, text_of};
use crate::error::{Error, ErrorKind, Result};
use crate::spec::AddressPool;
use crate::state;

const NFPROTO_NETDEV: u8 = 5;
/// NFTA_TABLE_USERDATA, in which libnftnl has a kind, a length and a value; a comment is the first kind.
const USERDATA: u16 = 6;

/// By which programs know each other's claims: pid, start time, pid namespace. nft(8) shows it as a comment.
fn claimant() -> String {
    let pid = std::process::id();
    let started = state::start_time(pid as i32).unwrap_or_default();
    format!("ringfence {pid} {started} {}", state::pid_namespace())
}

/// Whether the program that has claimed something lives; `None`: it is not known, in another pid namespace for one.
fn lives(claimant: &str) -> Option<bool> {
    let mut words = claimant.strip_prefix("ringfence ")?.split(' ');
    let (pid, started, namespace) = (words.next()?.parse().ok()?, words.next()?, words.next()?);
    let is_here = namespace == state::pid_namespace().to_string();
    is_here.then(|| state::start_time(pid).is_some_and(|time| time.to_string() == started) && !is_ending(pid))
}

/// Whether a process was sent SIGKILL, or ends already: until that is done it has all its descriptors.
fn is_ending(pid: i32) -> bool {
    const PF_EXITING: u64 = 4;
    let read = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let status = read("status");
    let pending = String::from_utf8_lossy(&status).lines().any(|line| {
        let set = line.strip_prefix("SigPnd:").or_else(|| line.strip_prefix("ShdPnd:"));
        let set = set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
        set.is_some_and(|set| set & 1 << (libc::SIGKILL - 1) != 0)
    });
    // Field 9 of stat; the third is the first behind the name.
    let stat = read("stat");
    let flags = String::from_utf8_lossy(&stat)
        .rsplit_once(')')
        .and_then(|(_, rest)| rest.split_whitespace().nth(6)?.parse().ok());
    pending || flags.is_some_and(|flags: u64| flags & PF_EXITING != 0)
}

/// What somebody who was killed had goes by itself: not before his keeper has seen it.
const DYING: Duration = Duration::from_secs(5);
/// Who cannot be looked at may have been killed.
pub(super) const UNKNOWN: Duration = Duration::from_secs(1);

/// Takes a name if it is nobody's now. False: it is another's.
pub(super) fn try_claim(socket: &Socket, name: &str) -> Result<bool> {
    let mut batch = Batch::default();
    batch.transaction(|batch| batch.owned_table(name));
    match socket.request(batch) {
        Ok(()) => Ok(true),
        // The kernel says nothing else of what has another owner.
        Err(e) if matches!(e.errno(), libc::EEXIST | libc::EPERM) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Takes a name, when its owner was killed as soon as that is over. False: it is another's.
pub(super) fn claim(socket: &Socket, name: &str) -> Result<bool> {
    let began = Instant::now();
    let mut lived = false;
    while !try_claim(socket, name)? {
        let patience = match claimant_of(socket, name)?.map(|claimant| lives(&claimant)) {
            Some(Some(true)) if lived => return Ok(false),
            // Once more: it may be just about to end.
            Some(Some(true)) => {
                lived = true;
                DYING
            }
            Some(None) => UNKNOWN,
            Some(Some(false)) | None => DYING,
        };
        if began.elapsed() > patience {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(true)
}

/// `None`: nobody has it now.
fn claimant_of(socket: &Socket, name: &str) -> Result<Option<String>> {
    let question = Message::of_nftables(NFPROTO_NETDEV, GETTABLE, |attributes| attributes.put(1, &text(name)));
    match socket.ask(0, question, "find table of nftables", name) {
        Ok(found) => Ok(Some(found.first().map(|payload| table_of(payload).1).unwrap_or_default())),
        Err(e) if e.errno() == libc::ENOENT => Ok(None),
        Err(e) => Err(e),
    }
}

/// All names that are somebody's.
fn claimed(socket: &Socket) -> Result<BTreeSet<String>> {
    let question = Message::of_nftables(NFPROTO_NETDEV, GETTABLE, |_| ());
    let found = socket.ask(NLM_F_DUMP, question, "list tables of nftables", "")?;
    Ok(found.iter().map(|payload| table_of(payload).0).collect())
}

/// A table's name and comment.
fn table_of(payload: &[u8]) -> (String, String) {
    let (mut name, mut comment) = (String::new(), String::new());
    // Behind struct nfgenmsg.
    for (kind, value) in attributes_of(payload.get(4..).unwrap_or_default()) {
        match (kind, value) {
            (1, value) => name = text_of(value),
            (USERDATA, [0, length, rest @ ..]) => {
                comment = text_of(rest.get(..usize::from(*length)).unwrap_or(rest));
            }
            _ => {}
        }
    }
    (name, comment)
}

/// By which an address is claimed that the host routes, or one on the wire of a device.
pub(super) fn name_of(wire: Option<&str>, address: IpAddr) -> String {
    match wire {
        None => format!("ringfence-{address}"),
        Some(wire) => format!("ringfence-{wire}-{address}"),
    }
}

/// Takes the first address of a pool that nobody has and that `suits`.
///
/// # Errors
/// Exhausted.
pub(super) fn take(
    socket: &Socket,
    wire: Option<&str>,
    pool: &AddressPool,
    suits: impl Fn(IpAddr) -> Result<bool>,
) -> Result<IpAddr> {
    let taken = claimed(socket)?;
    for address in pool.addresses() {
        let name = name_of(wire, address);
        // One that another was faster to take is passed over as well.
        if !taken.contains(&name) && suits(address)? && try_claim(socket, &name)? {
            return Ok(address);
        }
    }
    let error = Error::new(ErrorKind::Exhausted, format!("all addresses of {pool} are taken"));
    Err(error.with_errno(libc::EADDRNOTAVAIL))
}

/// What the kernel says where it has no such tables.
pub(super) fn explain(error: Error) -> Error {
    match error.errno() {
        libc::EPERM => error
            .with_kind(ErrorKind::PermissionDenied)
            .with_hint("it takes CAP_NET_ADMIN in this program's network; a Network takes no rights"),
        libc::ENOENT | libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::EINVAL => error
            .with_kind(ErrorKind::Unsupported)
            .with_hint("it takes Linux 5.12 with CONFIG_NF_TABLES and CONFIG_NF_TABLES_NETDEV"),
        _ => error,
    }
}

impl Batch {
    pub(super) fn netdev(
        &mut self,
        kind: u16,
        flags: u16,
        step: &'static str,
        table: &str,
        build: impl FnOnce(&mut Attributes),
    ) {
        let message = Message::of_nftables(NFPROTO_NETDEV, kind, |attributes| {
            attributes.put(1, &text(table));
            build(attributes);
        });
        self.push(flags, message, step, table);
    }

    /// A table that is there as long as the socket.
    pub(super) fn owned_table(&mut self, name: &str) {
        self.netdev(NEWTABLE, NLM_F_CREATE | NLM_F_EXCL, "make table of nftables", name, |table| {
            table.put(2, &number(NFT_TABLE_F_OWNER));
            let comment = text(&claimant());
            table.put(USERDATA, &[&[0, comment.len() as u8][..], &comment].concat());
        });
    }
}

#[cfg(any(fuzzing, test))]
pub(super) fn fuzz(bytes: &[u8]) {
    lives(&table_of(bytes).1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_claims_is_known_to_live() {
        let own = claimant();
        assert_eq!(lives(&own), Some(true));
        let words: Vec<&str> = own.split(' ').collect();
        assert_eq!(lives(&[words[0], words[1], "1", words[3]].join(" ")), Some(false));
        assert_eq!(lives(&[words[0], words[1], words[2], "1"].join(" ")), None);
        for text in ["", "ringfence", "ringfence x y z", "somebody 1 2 3"] {
            assert_eq!(lives(text), None);
        }
    }
}
