//! Whether this machine drops what it forwards: its own firewall, which another program has made.
//!
//! Sources: linux/netfilter/nf_tables.h; of the iptables before nftables linux/netfilter_ipv4/ip_tables.h, its IPv6 twin, x_tables.h.

use std::os::fd::AsFd;
use std::path::Path;

use netlink_packet_core::NLM_F_DUMP;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::firewall::{Message, NF_DROP, number};
use super::nat::{FORWARD, NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6};
use super::netlink::{Socket, attributes_of, text_of};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::socket::option;

pub(super) fn is_set(parameter: &str) -> bool {
    std::fs::read_to_string(Path::new("/proc/sys/net").join(parameter)).is_ok_and(|value| value.trim() == "1")
}

/// Whether the kernel leads out of networks, as the way out is chosen. `nftables`: a socket to ask it by, unless nobody has told it anything.
///
/// # Errors
/// PermissionDenied: this is not the caller's to change. As [`forwards`] and [`lets_pass`].
pub(crate) fn leads_out(nftables: Option<&Socket>) -> Result<()> {
    if let Some(Err(error)) = nftables.map(chains)
        && error.errno() == libc::EPERM
    {
        return Err(error.with_kind(ErrorKind::PermissionDenied));
    }
    forwards().and_then(|()| lets_pass(nftables))
}

/// That the machine forwards packets of IPv4.
///
/// # Errors
/// Unsupported, with the setting as hint.
pub(super) fn forwards() -> Result<()> {
    if is_set("ipv4/ip_forward") {
        return Ok(());
    }
    let error = Error::new(ErrorKind::Unsupported, "this machine forwards nothing: net.ipv4.ip_forward is 0");
    Err(error.with_errno(libc::ENOENT).with_hint("set net.ipv4.ip_forward to 1 (sysctl -w net.ipv4.ip_forward=1)"))
}

/// That no chain drops what it forwards of IPv4.
///
/// # Errors
/// Unsupported, with what to do as hint.
pub(super) fn lets_pass(nftables: Option<&Socket>) -> Result<()> {
    let Some(chain) = closed_chain(nftables, false) else { return Ok(()) };
    let what = format!("chain {chain} drops what this machine forwards, unless a rule is for it");
    let error = Error::new(ErrorKind::Unsupported, what).with_errno(libc::EPERM);
    Err(error.with_hint(
        "where it has rules for what comes from and goes to devices called rf* (iptables -I FORWARD -i rf+ -j ACCEPT, and with -o), ask \
         for way_out: kernel",
    ))
}

/// All chains of nftables, of iptables over it too.
fn chains(socket: &Socket) -> Result<Vec<Vec<u8>>> {
    const GETCHAIN: u16 = 4;
    socket.ask(NLM_F_DUMP, Message::of_nftables(0, GETCHAIN, |_| {}), "list chains of nftables", "")
}

/// A chain of this thread's network, of nftables or of iptables, that drops what is forwarded when no rule lets it through, whatever other
/// chains say: as `FAMILY TABLE CHAIN`. What cannot be asked has none.
pub(super) fn closed_chain(nftables: Option<&Socket>, ipv6: bool) -> Option<String> {
    let chains = nftables.and_then(|socket| chains(socket).ok());
    chains.iter().flatten().find_map(|chain| closed(chain, ipv6)).or_else(|| by_iptables(ipv6))
}

/// Of a chain that drops what is forwarded and that no rule lets through.
fn closed(chain: &[u8], ipv6: bool) -> Option<String> {
    let family = match *chain.first()? {
        NFPROTO_INET => "inet",
        NFPROTO_IPV4 if !ipv6 => "ip",
        NFPROTO_IPV6 if ipv6 => "ip6",
        _ => return None,
    };
    let value = |kind: u16| attributes_of(chain.get(4..)?).find(|one| one.0 == kind).map(|one| one.1);
    let hook = attributes_of(value(4)?).find(|one| one.0 == 1)?.1;
    let drops = hook == number(FORWARD) && value(5)? == number(NF_DROP);
    drops.then_some(format!("{family} {} {}", text_of(value(1)?), text_of(value(3)?)))
}

/// The same of iptables where it is not made of nftables (`iptables-legacy`).
fn by_iptables(ipv6: bool) -> Option<String> {
    /// IPT_SO_GET_INFO and IPT_SO_GET_ENTRIES; of IPv6 they are the same.
    const GET_INFO: i32 = 64;
    const GET_ENTRIES: i32 = 65;
    /// The length of a name, of struct ipt_getinfo, and of struct ipt_get_entries with what fills it up.
    const NAME: usize = 32;
    const INFO: usize = NAME + 13 * 4;
    const FRONT: usize = NAME + 8;
    const FILTER: &[u8] = b"filter";
    let (names, level, program) = match ipv6 {
        false => ("ip_tables_names", libc::SOL_IP, "iptables"),
        true => ("ip6_tables_names", libc::SOL_IPV6, "ip6tables"),
    };
    // A table that nobody has used is made by who asks for it.
    let names = std::fs::read(Path::new("/proc/thread-self/net").join(names)).ok()?;
    names.split(|byte| *byte == b'\n').find(|name| *name == FILTER)?;
    let family = if ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let socket = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).ok()?;
    let mut info = [0; INFO];
    info[..FILTER.len()].copy_from_slice(FILTER);
    option(socket.as_fd(), level, GET_INFO, &mut info).ok()?;
    // Behind the name: hooks, where each of the five begins, where the last rule of each is, how many rules, how many bytes.
    let last = word(&info, NAME + (1 + 5 + FORWARD as usize) * 4)? as usize;
    let size = word(&info, INFO - 4)?;
    let mut entries = vec![0; FRONT + size as usize];
    entries[..FILTER.len()].copy_from_slice(FILTER);
    entries[NAME..NAME + 4].copy_from_slice(&size.to_ne_bytes());
    option(socket.as_fd(), level, GET_ENTRIES, &mut entries).ok()?;
    drops(entries.get(FRONT..)?, last, ipv6)?.then(|| format!("{program} filter FORWARD"))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_ne_bytes)
}

/// Whether the rule there, the last one of a chain, drops.
fn drops(rules: &[u8], last: usize, ipv6: bool) -> Option<bool> {
    /// Of struct ipt_entry and struct ip6t_entry.
    const TARGET_OFFSET: [usize; 2] = [88, 140];
    /// Of struct xt_standard_target; it has -NF_DROP - 1.
    const VERDICT: usize = 32;
    let rule = rules.get(last..)?;
    let at = TARGET_OFFSET[usize::from(ipv6)];
    let target = u16::from_ne_bytes(rule.get(at..at + 2)?.try_into().ok()?);
    Some(word(rule, usize::from(target) + VERDICT)? == (-1i32) as u32)
}

#[cfg(any(fuzzing, test))]
pub(super) fn fuzz(bytes: &[u8]) {
    for ipv6 in [false, true] {
        closed(bytes, ipv6);
        drops(bytes, bytes.first().copied().unwrap_or_default().into(), ipv6);
    }
}
