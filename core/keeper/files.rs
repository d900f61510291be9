//! A task that serves the files that it can reach: of a container that it joined, or of the keeper's user namespace.

use crate::calls::{Place, ROOM};
use crate::nr;
use crate::sys::{self, PollFd};

const EAGAIN: i64 = -(nr::EAGAIN as i64);

/// Runs what comes on a socket until its other end is closed.
///
/// # Safety
/// Whoever has the other end answers for what the calls of its programs do, as for those of a plan.
pub unsafe fn serve(socket: i32, proc: i32) -> i64 {
    // Request, answer, content.
    let memory = sys::map(ROOM * 6, true);
    if memory < 0 {
        return memory;
    }
    let base = memory as *mut u8;
    // SAFETY: three parts of a mapping that is nobody else's and is never unmapped.
    let (request, answer, buffer) = unsafe {
        (
            core::slice::from_raw_parts_mut(base, ROOM),
            core::slice::from_raw_parts_mut(base.add(ROOM), ROOM),
            core::slice::from_raw_parts_mut(base.add(2 * ROOM), 4 * ROOM),
        )
    };
    let mut place = Place { call: sys::call_of_plan, proc, buffer };
    loop {
        if !wait(socket, nr::POLLIN) {
            return 0;
        }
        let mut fds = [-1i32; 256];
        let got = match sys::receive(socket, request, &mut fds) {
            Ok(got) if got.len == 0 => return 0,
            Ok(got) => got,
            Err(EAGAIN) => continue,
            Err(errno) => return errno,
        };
        let fds = &fds[..got.nfds];
        // SAFETY: the caller's promise.
        let answered = unsafe { place.run(&request[..got.len], fds, answer) };
        fds.iter().for_each(|&fd| sys::close(fd));
        let Some((len, pass)) = answered else { return -nr::EINVAL as i64 };
        loop {
            match sys::send(socket, &answer[..len], pass) {
                EAGAIN if wait(socket, POLLOUT) => {}
                // Nobody is there any more.
                sent if sent < 0 => return 0,
                _ => break,
            }
        }
    }
}

const POLLOUT: i16 = 4;
const POLLERR_HUP: i16 = 8 | 16;

/// False when there is nobody at the other end and nothing left to be read.
fn wait(socket: i32, events: i16) -> bool {
    let mut fds = [PollFd { fd: socket, events, revents: 0 }];
    loop {
        sys::poll(&mut fds, -1);
        if fds[0].revents & events != 0 {
            return true;
        }
        if fds[0].revents & POLLERR_HUP != 0 {
            return false;
        }
    }
}
