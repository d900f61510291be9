//! `ringfence_syscall_listener`: system calls of a container that this program answers.

use std::ffi::{CString, c_char, c_int, c_void};
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd};
use std::ptr;
use std::sync::Arc;

use ringfence::{InjectedFd, Result, SyscallListener, SyscallRequest};

use crate::border::{block, border, border_for, c_string, give_string, invalid, output, quietly, timeout};
use crate::container::{container_of, ringfence_container};
use crate::error::ringfence_error;
use crate::object::{Object, borrow, give, release, running};

/// The system calls of a container about which this program is asked, because a rule of its "seccomp", or of a command's, has the
/// action "notify". Any number may be made and used by any number of threads at once: each request is given to one of them.
pub struct ringfence_syscall_listener {
    _opaque: [u8; 0],
}

impl Object for ringfence_syscall_listener {
    type Body = SyscallListener;
    const MAGIC: u64 = u64::from_ne_bytes(*b"rf-scall");
    const NAME: &'static str = "listener of system calls";
    const ARGUMENT: &'static str = "listener";
}

/// A system call that waits for an answer: ringfence_syscall_request_answer_continue(), _errno(), _value() or _fd(), once. Freed without one
/// it is answered with ENOSYS. It may be used by any thread, and outlives its listener.
pub struct ringfence_syscall_request {
    _opaque: [u8; 0],
}

pub(crate) struct Body {
    request: SyscallRequest,
    name: Option<CString>,
    arch: CString,
}

impl Object for ringfence_syscall_request {
    type Body = Body;
    const MAGIC: u64 = u64::from_ne_bytes(*b"rf-sreqs");
    const NAME: &'static str = "system call's request";
    const ARGUMENT: &'static str = "request";
}

/// The system calls of a container about which this program is asked: those of the main process and of every process that is
/// started in it, which each have a filter of their own. `*result` is for ringfence_syscall_listener_free().
///
/// Until somebody reads, calls wait. When the container's handle is closed, or this program ends, the kernel answers them with ENOSYS. The
/// thread that waits can be killed at any time: then the request is not valid any more, and answers fail with
/// RINGFENCE_KIND_NOT_FOUND. A signal that it handles ends its wait only before the request was read (Linux 5.19).
///
/// This is no security boundary for calls that are answered with ringfence_syscall_request_answer_continue(): what an argument points to
/// can be changed by another thread of the program before the kernel looks itself (seccomp_unotify(2)). Decide by memory only about what
/// this program does itself.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_syscall_listener(
    container: *const ringfence_container,
    result: *mut *mut ringfence_syscall_listener,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || {
        output(result, "result")?;
        let listener = container_of(container, |container| container.syscall_listener())?;
        // SAFETY: not NULL, and by the header's contract a place for a pointer.
        unsafe { *result = give(listener) };
        Ok(0)
    })
}

/// Frees the listener. NULL is fine. A call of ringfence_syscall_listener_next() that is under way on another thread fails with
/// RINGFENCE_KIND_CLOSED; requests that were read, and other listeners of the container, stay.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_syscall_listener_free(listener: *mut ringfence_syscall_listener) {
    quietly(|| {
        let Some(released) = release(listener) else { return };
        if released.in_its_own_process && Arc::strong_count(&released.body) > 1 {
            released.body.cancel();
        }
    });
}

/// A descriptor, borrowed, that is readable (POLLIN) when there is something to read, and when it is over. Only poll it, never
/// read it; ringfence_syscall_listener_next() with timeout 0 may then still find nothing. -1 for NULL and in a forked child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_syscall_listener_fd(listener: *const ringfence_syscall_listener) -> c_int {
    border(ptr::null_mut(), -1, || Ok(running(listener)?.fd().as_raw_fd()))
}

/// Waits for the next request: 1 there is one, 0 timed out or over (ringfence_syscall_listener_is_over()), -1 error. `*request` is for
/// ringfence_syscall_request_free(). A loop that answers them all, until the container has ended:
///
///   while ((r = ringfence_syscall_listener_next(listener, -1, &request, &err)) == 1) {
///       ringfence_syscall_request_answer_errno(request, EPERM, &err);
///       ringfence_syscall_request_free(request);
///   }
///
/// Fails with RINGFENCE_KIND_CLOSED when it was cancelled, or when the handle of a detached container was closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_syscall_listener_next(
    listener: *const ringfence_syscall_listener,
    timeout_ms: c_int,
    request: *mut *mut ringfence_syscall_request,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || {
        output(request, "request")?;
        let Some(next) = running(listener)?.next(timeout(timeout_ms)?)? else { return Ok(0) };
        let body = Body {
            name: next.name().map(|name| c_string(name.into())),
            arch: c_string(next.arch().name().into()),
            request: next,
        };
        // SAFETY: not NULL, and by the header's contract a place for a pointer.
        unsafe { *request = give(body) };
        Ok(1)
    })
}

/// Makes every call of ringfence_syscall_listener_next() with this listener, under way on any thread or begun later, fail with
/// RINGFENCE_KIND_CLOSED, unless it is over.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_syscall_listener_cancel(
    listener: *const ringfence_syscall_listener,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || {
        running(listener)?.cancel();
        Ok(0)
    })
}

/// 1 when the container has ended, so that nothing comes any more, else 0; -1 for NULL and in a forked child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_syscall_listener_is_over(listener: *const ringfence_syscall_listener) -> c_int {
    border(ptr::null_mut(), -1, || Ok(running(listener)?.is_over().into()))
}

/// Frees the request, which is answered with ENOSYS if it was not answered. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_syscall_request_free(request: *mut ringfence_syscall_request) {
    quietly(|| drop(release(request)));
}

/// `otherwise` for NULL.
fn get<T: Copy>(request: *const ringfence_syscall_request, otherwise: T, get: impl FnOnce(&Body) -> T) -> T {
    border(ptr::null_mut(), otherwise, || -> Result<T> { Ok(get(borrow(request)?)) })
}

fn with<T>(request: *const ringfence_syscall_request, work: impl FnOnce(&SyscallRequest) -> Result<T>) -> Result<T> {
    work(&running(request)?.request)
}

/// The kernel's number of the request, which no other of the same filter has; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_syscall_request_id(request: *const ringfence_syscall_request) -> u64 {
    get(request, 0, |body| body.request.id())
}

/// The pid of the thread that waits, in the pid namespace of this program; -1 for NULL. It can be given to another at any time after the thread was
/// killed: what is found by it counts only when ringfence_syscall_request_is_valid() says 1 afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_syscall_request_pid(request: *const ringfence_syscall_request) -> c_int {
    get(request, -1, |body| body.request.pid())
}

/// The pid of the process of the container whose filter it is: the main process or one that this program started
/// (ringfence_process_pid()), which made the call or started who did; -1 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_syscall_request_process(request: *const ringfence_syscall_request) -> c_int {
    get(request, -1, |body| body.request.process())
}

/// The number of the system call; -1 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_syscall_request_number(request: *const ringfence_syscall_request) -> c_int {
    get(request, -1, |body| body.request.number())
}

/// Its name; NULL for a number that is newer than this library, and for NULL. Lives as long as the request.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_syscall_request_name(request: *const ringfence_syscall_request) -> *const c_char {
    get(request, ptr::null(), |body| body.name.as_ref().map_or(ptr::null(), |name| name.as_ptr()))
}

/// The instruction set of the caller, whose numbers count: "x86_64", "i386", "aarch64"; NULL for NULL. Lives as long as the request.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_syscall_request_arch(request: *const ringfence_syscall_request) -> *const c_char {
    get(request, ptr::null(), |body| body.arch.as_ptr())
}

/// One of the six registers of arguments, 0 to 5; 0 for others, and for NULL. Addresses are the caller's:
/// ringfence_syscall_request_read_memory().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_syscall_request_arg(request: *const ringfence_syscall_request, index: c_int) -> u64 {
    let of = |body: &Body| usize::try_from(index).ok().and_then(|index| body.request.args().get(index).copied());
    get(request, 0, |body| of(body).unwrap_or(0))
}

/// The address of the call; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_syscall_request_instruction_pointer(
    request: *const ringfence_syscall_request,
) -> u64 {
    get(request, 0, |body| body.request.instruction_pointer())
}

/// The request as a JSON object (ringfence_string_free()): "id", "pid", "process", "arch", "number", "name" (null for a number that is not
/// known), "args", "instruction_pointer".
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_syscall_request_json(
    request: *const ringfence_syscall_request,
    err: *mut *mut ringfence_error,
) -> *mut c_char {
    border(err, ptr::null_mut(), || Ok(give_string(borrow(request)?.request.to_json())))
}

/// Whether the thread still waits for an answer: 1 or 0, -1 error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_syscall_request_is_valid(
    request: *const ringfence_syscall_request,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || with(request, |request| request.is_valid().map(c_int::from)))
}

/// Has the kernel do the call, as if there were no filter. Not for deciding what a program may do: between the look at its memory and
/// the kernel's own, another thread can put something else there.
///
/// Fails with RINGFENCE_KIND_NOT_FOUND when the thread does not wait any more, with RINGFENCE_KIND_INVALID_ARGUMENT when it was answered.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_syscall_request_answer_continue(
    request: *const ringfence_syscall_request,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || with(request, |request| request.answer_continue().map(|()| 0)))
}

/// Has the call fail with an errno, 1 to 4095. Fails as ringfence_syscall_request_answer_continue().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_syscall_request_answer_errno(
    request: *const ringfence_syscall_request,
    number: c_int,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || with(request, |request| request.answer_errno(number).map(|()| 0)))
}

/// Has the call succeed with this result. (From -4095 to -1 the C library takes it for an errno.) Fails as
/// ringfence_syscall_request_answer_continue().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_syscall_request_answer_value(
    request: *const ringfence_syscall_request,
    value: i64,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || with(request, |request| request.answer_value(value).map(|()| 0)))
}

/// How a descriptor of this program is given.
fn injected(fd: c_int, number: c_int, cloexec: c_int) -> Result<(BorrowedFd<'static>, InjectedFd)> {
    if fd < 0 {
        return Err(invalid("fd", format!("{fd} is no descriptor")));
    }
    if number < -1 {
        return Err(invalid("number", format!("{number}: -1 is the lowest that is free")));
    }
    // SAFETY: not -1, and used for one system call, to which a number that is no descriptor is an error.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    Ok((fd, InjectedFd { number: (number >= 0).then_some(number), cloexec: cloexec != 0 }))
}

/// Gives the caller's process a copy of a descriptor of this program, and its number there to the call as the result, both at once (Linux
/// 5.14): a call of openat or socket, say, that this program has made. `number`: what has that number there is replaced, as dup2() does; -1
/// takes the lowest that is free. `cloexec`: whether an exec closes it. The number, or -1.
///
/// Fails as ringfence_syscall_request_answer_continue(), and with RINGFENCE_KIND_EXHAUSTED (EMFILE) when the process may have no more
/// descriptors: then the call still waits.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_syscall_request_answer_fd(
    request: *const ringfence_syscall_request,
    fd: c_int,
    number: c_int,
    cloexec: c_int,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || {
        let (fd, how) = injected(fd, number, cloexec)?;
        with(request, |request| request.answer_fd(fd, how))
    })
}

/// As ringfence_syscall_request_answer_fd(), but the call waits on: for calls that make several.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_syscall_request_add_fd(
    request: *const ringfence_syscall_request,
    fd: c_int,
    number: c_int,
    cloexec: c_int,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || {
        let (fd, how) = injected(fd, number, cloexec)?;
        with(request, |request| request.add_fd(fd, how))
    })
}

/// Reads `length` bytes of the caller's memory into `buffer`, at most 64 MiB: of who made the call and of nobody else. On failure nothing is
/// written. What was read can be something else by the time the kernel looks itself.
///
/// Fails with errno EFAULT for addresses of which one is not readable, with RINGFENCE_KIND_NOT_FOUND when the thread does not wait any more,
/// with RINGFENCE_KIND_PERMISSION_DENIED where this program may not read it, as for ptrace().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_syscall_request_read_memory(
    request: *const ringfence_syscall_request,
    address: u64,
    buffer: *mut c_void,
    length: usize,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || {
        output(buffer, "buffer")?;
        let bytes = with(request, |request| request.read_memory(address, length))?;
        // SAFETY: not NULL, and by the header's contract `length` bytes long, as the result is.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), buffer.cast(), bytes.len()) };
        Ok(0)
    })
}

/// Reads text of the caller's memory up to its NUL, `most` bytes long with it (a path: 4096), for ringfence_string_free(). Fails as
/// ringfence_syscall_request_read_memory(), and with ENAMETOOLONG for text that is longer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_syscall_request_read_c_string(
    request: *const ringfence_syscall_request,
    address: u64,
    most: usize,
    err: *mut *mut ringfence_error,
) -> *mut c_char {
    border(err, ptr::null_mut(), || with(request, |request| Ok(request.read_c_string(address, most)?.into_raw())))
}

/// Writes to the caller's memory, and to nobody else's: what a call that this program makes in its place returns by an address. Pages that the
/// program may not write to itself are written to, as a debugger does. Fails as ringfence_syscall_request_read_memory(); then a part may
/// have been written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_syscall_request_write_memory(
    request: *const ringfence_syscall_request,
    address: u64,
    data: *const c_void,
    length: usize,
    err: *mut *mut ringfence_error,
) -> c_int {
    border_for(length, err, -1, || {
        let bytes = block(data, length, "data")?;
        with(request, |request| request.write_memory(address, bytes).map(|()| 0))
    })
}

/// A copy of a descriptor of the caller's process (CLOEXEC, yours): of a socket, say, that this program is to connect (pidfd_getfd()). Fails
/// with errno EBADF where it has none of that number, otherwise as ringfence_syscall_request_read_memory().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_syscall_request_dup_fd(
    request: *const ringfence_syscall_request,
    number: c_int,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || with(request, |request| Ok(request.dup_fd(number)?.into_raw_fd())))
}
