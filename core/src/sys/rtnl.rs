//! Network devices: rtnetlink(7), netdevice(7). All of it in the network namespace of the calling thread.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const RTM_NEWLINK: u16 = 16;
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_NEW_IFINDEX: u16 = 49;
const NLMSG_ERROR: u16 = 2;
const HEADER: usize = 16;

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn socket(domain: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; a new descriptor is nobody else's.
    unsafe {
        let fd = checked(libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// The number of a device. ENODEV: there is none of that name.
pub(crate) fn index(name: &str) -> io::Result<u32> {
    Ok(nix::net::if_::if_nametoindex(name)?)
}

/// Whether a device is administratively up.
pub(crate) fn is_up(name: &str) -> io::Result<bool> {
    let socket = socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
    // SAFETY: all zeroes is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY: the kernel reads the name and writes the flags of this ifreq.
    unsafe {
        checked(libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &raw mut request))?;
        Ok(i32::from(request.ifr_ifru.ifru_flags) & libc::IFF_UP != 0)
    }
}

fn attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend_from_slice(&(4 + value.len() as u16).to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

/// Moves a device into another network namespace, where it has this name, and this number if one is given, and is up or down. It
/// loses its addresses. EBUSY: the number is taken.
///
/// An error can come after the move: a name that is taken there is found last.
pub(crate) fn move_device(
    index: u32,
    namespace: BorrowedFd<'_>,
    name: &str,
    number: Option<u32>,
    up: bool,
) -> io::Result<()> {
    let up = if up { libc::IFF_UP as u32 } else { 0 };
    let mut message = vec![0; HEADER];
    // struct ifinfomsg: family, padding and type (4 bytes), index, flags, which of them.
    for word in [0, index, up, libc::IFF_UP as u32] {
        message.extend_from_slice(&word.to_ne_bytes());
    }
    attribute(&mut message, IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
    attribute(&mut message, IFLA_IFNAME, &[name.as_bytes(), b"\0"].concat());
    if let Some(number) = number {
        attribute(&mut message, IFLA_NEW_IFINDEX, &number.to_ne_bytes());
    }
    const SEQUENCE: u32 = 1;
    let length = message.len() as u32;
    message[..4].copy_from_slice(&length.to_ne_bytes());
    message[4..6].copy_from_slice(&RTM_NEWLINK.to_ne_bytes());
    message[6..8].copy_from_slice(&((libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16).to_ne_bytes());
    message[8..12].copy_from_slice(&SEQUENCE.to_ne_bytes());
    let socket = socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)?;
    let patience = libc::timeval { tv_sec: 10, tv_usec: 0 };
    // SAFETY: a struct timeval of its size; the message and its length.
    unsafe {
        let size = std::mem::size_of_val(&patience) as libc::socklen_t;
        let option = (&raw const patience).cast();
        checked(libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVTIMEO, option, size))?;
        if libc::send(socket.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    loop {
        let mut answer = [0u8; 4096];
        // SAFETY: all zeroes is a valid address.
        let mut from: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        let mut size = std::mem::size_of_val(&from) as libc::socklen_t;
        // SAFETY: the kernel writes at most the sizes given.
        let got = unsafe {
            let place = answer.as_mut_ptr().cast();
            libc::recvfrom(socket.as_raw_fd(), place, answer.len(), 0, (&raw mut from).cast(), &raw mut size)
        };
        match got {
            -1 => match io::Error::last_os_error() {
                e if e.kind() == io::ErrorKind::Interrupted => continue,
                e => return Err(e),
            },
            // Only the kernel answers, and an answer has an errno behind its header.
            got if from.nl_pid != 0 || got < HEADER as isize + 4 => continue,
            _ => {}
        }
        let word = |at: usize| u32::from_ne_bytes(answer[at..at + 4].try_into().expect("four bytes"));
        if u16::from_ne_bytes([answer[4], answer[5]]) == NLMSG_ERROR && word(8) == SEQUENCE {
            return match word(HEADER) as i32 {
                0 => Ok(()),
                errno => Err(io::Error::from_raw_os_error(-errno)),
            };
        }
    }
}
