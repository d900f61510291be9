//! Network devices: netdevice(7). In the network namespace of the calling thread, where no socket is given.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

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

/// A socket that speaks a protocol of netlink(7).
pub(crate) fn netlink_socket(protocol: i32) -> io::Result<OwnedFd> {
    socket(libc::AF_NETLINK, libc::SOCK_RAW, protocol)
}

/// Turns an option of SOL_NETLINK on.
pub(crate) fn netlink_option(socket: BorrowedFd<'_>, option: i32) -> io::Result<()> {
    let (one, size) = (1i32, size_of::<i32>() as libc::socklen_t);
    // SAFETY: the kernel reads one int, of that size.
    unsafe {
        let value = (&raw const one).cast();
        checked(libc::setsockopt(socket.as_raw_fd(), libc::SOL_NETLINK, option, value, size)).map(drop)
    }
}

/// The longest message that a socket sends becomes as long as may be: `net.core.wmem_max` twice, or for root this.
pub(crate) fn long_messages(socket: BorrowedFd<'_>, bytes: i32) {
    let size = size_of::<i32>() as libc::socklen_t;
    for option in [libc::SO_SNDBUFFORCE, libc::SO_SNDBUF] {
        // SAFETY: the kernel reads one int, of that size.
        let set = unsafe {
            let value = (&raw const bytes).cast();
            libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, value, size)
        };
        if set == 0 {
            return;
        }
    }
}

/// The network namespace of a socket (Linux 4.10).
pub(crate) fn namespace_of(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the answer is a new descriptor, close-on-exec, which nobody else owns.
    unsafe {
        let fd = checked(libc::ioctl(socket.as_raw_fd(), libc::SIOCGSKNS as _))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// The number of a device. ENODEV: there is none of that name.
pub(crate) fn index(name: &str) -> io::Result<u32> {
    Ok(nix::net::if_::if_nametoindex(name)?)
}

/// The number of a device in the network namespace of a socket, whatever socket that is.
pub(crate) fn index_at(socket: BorrowedFd<'_>, name: &str) -> io::Result<u32> {
    // SAFETY: this request writes the number.
    let index = unsafe { ask_at(socket, name, libc::SIOCGIFINDEX)?.ifr_ifru.ifru_ifindex };
    Ok(index as u32)
}

/// An ioctl that asks something of a device.
fn ask(name: &str, request: libc::c_ulong) -> io::Result<libc::ifreq> {
    ask_at(socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?.as_fd(), name, request)
}

fn ask_at(socket: BorrowedFd<'_>, name: &str, request: libc::c_ulong) -> io::Result<libc::ifreq> {
    // SAFETY: all zeroes is a valid ifreq.
    let mut asked: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in asked.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY: the kernel reads the name and writes the answer into this ifreq.
    unsafe { checked(libc::ioctl(socket.as_raw_fd(), request as _, &raw mut asked))? };
    Ok(asked)
}

/// Whether a device is administratively up.
pub(crate) fn is_up(name: &str) -> io::Result<bool> {
    // SAFETY: this request writes the flags.
    let flags = unsafe { ask(name, libc::SIOCGIFFLAGS)?.ifr_ifru.ifru_flags };
    Ok(i32::from(flags) & libc::IFF_UP != 0)
}

/// The address of a device of Ethernet.
pub(crate) fn mac(name: &str) -> io::Result<[u8; 6]> {
    // SAFETY: this request writes the address.
    let address = unsafe { ask(name, libc::SIOCGIFHWADDR)?.ifr_ifru.ifru_hwaddr };
    Ok(std::array::from_fn(|i| address.sa_data[i] as u8))
}

/// The address of a device, if it is one of Ethernet.
pub(crate) fn ethernet_address(name: &str) -> io::Result<Option<[u8; 6]>> {
    // SAFETY: this request writes the address.
    let address = unsafe { ask(name, libc::SIOCGIFHWADDR)?.ifr_ifru.ifru_hwaddr };
    let mac = std::array::from_fn(|i| address.sa_data[i] as u8);
    Ok((address.sa_family == libc::ARPHRD_ETHER).then_some(mac))
}

/// Sends a frame with all its headers by a device: packet(7).
pub(crate) fn send_frame(index: u32, frame: &[u8]) -> io::Result<()> {
    let socket = socket(libc::AF_PACKET, libc::SOCK_RAW, 0)?;
    // SAFETY: all zeroes is a valid address.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = libc::AF_PACKET as u16;
    to.sll_ifindex = index as i32;
    let size = size_of_val(&to) as libc::socklen_t;
    // SAFETY: the frame and the address are as long as is said, and live.
    let sent = unsafe {
        libc::sendto(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0, (&raw const to).cast(), size)
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The largest packet of a device, in bytes.
pub(crate) fn mtu(name: &str) -> io::Result<u32> {
    // SAFETY: this request writes the size.
    let mtu = unsafe { ask(name, libc::SIOCGIFMTU)?.ifr_ifru.ifru_mtu };
    Ok(mtu as u32)
}
