//! Addresses and messages of sockets.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::sys::socket::SockaddrLike;

/// An address as bind(2) and connect(2) take it.
pub(crate) fn address_bytes(address: &impl SockaddrLike) -> Vec<u8> {
    // SAFETY: nix says that the address is that long, and it lives.
    unsafe { std::slice::from_raw_parts(address.as_ptr().cast::<u8>(), address.len() as usize) }.to_vec()
}

/// What is there now of a message, and the descriptor that came with it (close-on-exec). EAGAIN: nothing is there.
pub(crate) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut iov = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // Room for one descriptor: the kernel gives away no more than fit. cmsghdr is a length, then level and type.
    let mut control = [0u64; 3];
    // SAFETY: all zeroes is a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut iov;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = 20;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the message points to live, writable buffers of the sizes given.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    if length < 0 {
        return Err(io::Error::last_os_error());
    }
    let rights = u64::from(libc::SOL_SOCKET as u32) | u64::from(libc::SCM_RIGHTS as u32) << 32;
    let passed = message.msg_controllen as usize >= 20 && control[0] == 20 && control[1] == rights;
    // SAFETY: SCM_RIGHTS gave this process a new descriptor, which nobody else owns.
    let passed = passed.then(|| unsafe { OwnedFd::from_raw_fd(control[2] as u32 as i32) });
    Ok((length as usize, passed))
}

/// Has the kernel answer in the buffer, of which an option may read the front. How long the answer is.
pub(crate) fn option(socket: BorrowedFd<'_>, level: i32, name: i32, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = buffer.len() as libc::socklen_t;
    let value = buffer.as_mut_ptr().cast();
    // SAFETY: the buffer is live and writable, and as long as the kernel is told.
    let got = unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, value, &raw mut length) };
    if got < 0 { Err(io::Error::last_os_error()) } else { Ok(length as usize) }
}
