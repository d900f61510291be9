//! Listeners of system call filters: seccomp_unotify(2).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use once_cell::sync::OnceCell;

/// What a thread waits with: struct seccomp_notif, which is its front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    pub id: u64,
    /// Of the thread, in the pid namespace of whoever read it; 0 where it has none there.
    pub pid: i32,
    pub number: i32,
    pub arch: u32,
    pub instruction_pointer: u64,
    pub args: [u64; 6],
}

/// What it gets: SECCOMP_USER_NOTIF_FLAG_*, and an errno or else a value.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Response {
    pub value: i64,
    pub errno: i32,
    pub flags: u32,
}

/// The sizes of the kernel's structs, which may be longer than those of the headers.
fn sizes() -> io::Result<libc::seccomp_notif_sizes> {
    static SIZES: OnceCell<libc::seccomp_notif_sizes> = OnceCell::new();
    let ask = || {
        let mut sizes = MaybeUninit::<libc::seccomp_notif_sizes>::zeroed();
        // SAFETY: the kernel writes one struct of three numbers.
        let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_NOTIF_SIZES, 0, sizes.as_mut_ptr()) };
        // SAFETY: zeroes are numbers too.
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(unsafe { sizes.assume_init() }) }
    };
    SIZES.get_or_try_init(ask).copied()
}

/// Zeroes, as long as both the kernel's struct and ours, aligned for either.
fn buffer(kernel: u16, ours: usize) -> Vec<u64> {
    vec![0; usize::from(kernel).max(ours).div_ceil(8)]
}

/// _IOWR('!', number, struct) and the like; the same on every architecture that this library is for.
const fn request(direction: u64, number: u64, size: usize) -> u64 {
    direction << 30 | (size as u64) << 16 | (b'!' as u64) << 8 | number
}
const WRITE: u64 = 1;
const BOTH: u64 = 3;
const RECV: u64 = request(BOTH, 0, size_of::<libc::seccomp_notif>());
const SEND: u64 = request(BOTH, 1, size_of::<libc::seccomp_notif_resp>());
const ID_VALID: u64 = request(WRITE, 2, size_of::<u64>());
const ADDFD: u64 = request(WRITE, 3, size_of::<libc::seccomp_notif_addfd>());

fn ioctl(fd: BorrowedFd<'_>, request: u64, data: *mut libc::c_void) -> io::Result<i32> {
    loop {
        // SAFETY: the callers give a live buffer that is as long as the kernel's struct of that request.
        let result = unsafe { libc::ioctl(fd.as_raw_fd(), request as _, data) };
        if result >= 0 {
            return Ok(result);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINTR) {
            return Err(error);
        }
    }
}

/// What a listener has now.
pub(crate) enum Found {
    Received(Received),
    Nothing,
    /// No process is under the filter any more (Linux 5.9).
    Over,
}

/// Looks, without a wait as long as nobody else receives from the same listener meanwhile.
pub(crate) fn take(fd: BorrowedFd<'_>) -> io::Result<Found> {
    let mut list = [libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
    match super::stream::poll(&mut list, 0) {
        Err(error) if error.raw_os_error() == Some(libc::EINTR) => return Ok(Found::Nothing),
        Err(error) => return Err(error),
        Ok(_) => {}
    }
    // Without somebody who waits the kernel would let this thread wait.
    match list[0].revents {
        revents if revents & libc::POLLIN != 0 => match receive(fd) {
            Ok(received) => Ok(Found::Received(received)),
            // Killed just now.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Found::Nothing),
            Err(error) => Err(error),
        },
        0 => Ok(Found::Nothing),
        _ => Ok(Found::Over),
    }
}

/// The next one: waits for it. ENOENT: who waited was killed just now.
fn receive(fd: BorrowedFd<'_>) -> io::Result<Received> {
    let mut buffer = buffer(sizes()?.seccomp_notif, size_of::<libc::seccomp_notif>());
    // The kernel wants zeroes, and a signal handler may have it called anew: nothing was written then.
    ioctl(fd, RECV, buffer.as_mut_ptr().cast())?;
    // SAFETY: as long as the struct, aligned to its eight bytes, and all of it numbers.
    let notif = unsafe { &*buffer.as_ptr().cast::<libc::seccomp_notif>() };
    Ok(Received {
        id: notif.id,
        pid: notif.pid as i32,
        number: notif.data.nr,
        arch: notif.data.arch,
        instruction_pointer: notif.data.instruction_pointer,
        args: notif.data.args,
    })
}

/// Answers it. ENOENT: nobody waits any more. EINPROGRESS: it was answered.
pub(crate) fn send(fd: BorrowedFd<'_>, id: u64, response: Response) -> io::Result<()> {
    let mut buffer = buffer(sizes()?.seccomp_notif_resp, size_of::<libc::seccomp_notif_resp>());
    // SAFETY: as in `receive`.
    let resp = unsafe { &mut *buffer.as_mut_ptr().cast::<libc::seccomp_notif_resp>() };
    (resp.id, resp.val, resp.error, resp.flags) = (id, response.value, -response.errno, response.flags);
    ioctl(fd, SEND, buffer.as_mut_ptr().cast()).map(drop)
}

/// Whether the thread still waits in that call, not answered.
pub(crate) fn is_valid(fd: BorrowedFd<'_>, mut id: u64) -> io::Result<bool> {
    match ioctl(fd, ID_VALID, (&raw mut id).cast()) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Gives the thread's process a copy of a descriptor, as this number or as the lowest that is free; its number. `answer`: and that
/// number to the call as its result, at once (Linux 5.14).
pub(crate) fn add_fd(
    fd: BorrowedFd<'_>,
    id: u64,
    source: RawFd,
    number: Option<u32>,
    cloexec: bool,
    answer: bool,
) -> io::Result<i32> {
    let set = if number.is_some() { libc::SECCOMP_ADDFD_FLAG_SETFD } else { 0 };
    let send = if answer { libc::SECCOMP_ADDFD_FLAG_SEND } else { 0 };
    let mut add = libc::seccomp_notif_addfd {
        id,
        flags: (set | send) as u32,
        srcfd: source as u32,
        newfd: number.unwrap_or(0),
        newfd_flags: if cloexec { libc::O_CLOEXEC as u32 } else { 0 },
    };
    ioctl(fd, ADDFD, (&raw mut add).cast())
}

/// pidfd_getfd(2), Linux 5.6.
pub(crate) fn getfd(pidfd: BorrowedFd<'_>, number: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the result is a new descriptor, close-on-exec by definition, that nobody else owns.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd as i32)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_the_header() {
        assert_eq!([RECV, SEND, ID_VALID, ADDFD], [0xc050_2100, 0xc018_2101, 0x4008_2102, 0x4018_2103]);
    }
}
