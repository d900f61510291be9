//! `ringfence_container`: the handle of a container.

use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::ffi::OsStrExt;
use std::ptr;
use std::sync::Arc;

use ringfence::spec::NamespaceKind;
use ringfence::{Beancounter, Container, Error, ErrorKind, ProcessEntry, Result, Usage};

use crate::border::{border, border_for, c_string, give_string, invalid, length, output, quietly, text, timeout};
use crate::command::{ringfence_command, with_command};
use crate::error::ringfence_error;
use crate::object::{Object, borrow, give, release, running};
use crate::process::{give_process, ringfence_process};
use crate::spec::{ringfence_spec, with_spec};

/// A container. May be used by any number of threads at once.
pub struct ringfence_container {
    _opaque: [u8; 0],
}

pub(crate) struct Body {
    pub(crate) container: Container,
    name: Option<CString>,
    id: CString,
}

impl Object for ringfence_container {
    type Body = Body;
    const MAGIC: u64 = u64::from_ne_bytes(*b"rf-cntnr");
    const NAME: &'static str = "container";
}

pub(crate) fn give_container(container: Container) -> *mut ringfence_container {
    let name = container.name().map(|name| c_string(name.into()));
    let id = c_string(container.id().into());
    give(Body { container, name, id })
}

/// For the calls of other objects.
pub(crate) fn container_of<T>(
    container: *const ringfence_container,
    call: impl FnOnce(&Container) -> Result<T>,
) -> Result<T> {
    call(&running(container)?.container)
}

/// A getter without an `err`.
fn get(container: *const ringfence_container, get: impl FnOnce(&Container) -> c_int) -> c_int {
    border(ptr::null_mut(), -1, || Ok(get(&running(container)?.container)))
}

/// Starts a container. When the spec has an "argv", its main process has been executed when this returns. Without one the
/// container lives, empty, until it is closed.
///
/// Costs about two milliseconds whatever the size of the program; never forks it. Fails with the field of the spec, the step,
/// the path and the errno; then nothing is left behind. `*result` is for ringfence_container_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_start(
    spec: *const ringfence_spec,
    result: *mut *mut ringfence_container,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || {
        output(result, "result")?;
        let container = with_spec(spec, Container::start)?;
        // SAFETY: checked not to be NULL, and by the header's contract a place for a pointer.
        unsafe { *result = give_container(container) };
        Ok(0)
    })
}

/// Finds a container by the "name" of its spec: one of this program, or a detached one of this user, started by any program.
/// `*result` is for ringfence_container_free(). Fails with RINGFENCE_KIND_NOT_FOUND.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_by_name(
    name: *const c_char,
    result: *mut *mut ringfence_container,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || {
        output(result, "result")?;
        let container = Container::by_name(text(name, "name")?)?;
        // SAFETY: as in `ringfence_container_start`.
        unsafe { *result = give_container(container) };
        Ok(0)
    })
}

/// Starts one more process inside, any number of times and concurrently; the program has been executed when this returns. The
/// command can be used again. `*result` is for ringfence_process_free().
///
/// Fails with RINGFENCE_KIND_FROZEN for a frozen container, RINGFENCE_KIND_CLOSED for one that has ended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_spawn(
    container: *const ringfence_container,
    command: *const ringfence_command,
    result: *mut *mut ringfence_process,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || {
        output(result, "result")?;
        let container = running(container)?;
        let process = with_command(command, |command| container.container.spawn(command))?;
        // SAFETY: checked not to be NULL, and by the header's contract a place for a pointer.
        unsafe { *result = give_process(process) };
        Ok(0)
    })
}

/// The main process, the one of the spec's "argv". `*result` is for ringfence_process_free(). Fails with
/// RINGFENCE_KIND_NOT_FOUND when there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_main(
    container: *const ringfence_container,
    result: *mut *mut ringfence_process,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || {
        output(result, "result")?;
        let process = running(container)?.container.main().ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "the container has no main process")
                .with_errno(libc::ESRCH)
                .with_hint("give the spec an \"argv\"")
        })?;
        // SAFETY: as in `ringfence_container_spawn`.
        unsafe { *result = give_process(process) };
        Ok(0)
    })
}

/// Kills what runs and waits until everything is undone: processes, mounts, control groups, files. Calls on other threads
/// return RINGFENCE_KIND_CLOSED, later ones too; process handles stay readable. Closing it again is fine. A detached container
/// lives on: only the handle is closed.
///
/// Fails with RINGFENCE_KIND_TIMED_OUT when a task does not end within the time (-1: 30 s), because the kernel does not let it
/// go; the error says what it waits for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_close(
    container: *const ringfence_container,
    timeout_ms: c_int,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || {
        running(container)?.container.close(timeout(timeout_ms)?)?;
        Ok(0)
    })
}

/// Frees the handle. NULL is fine. The last handle of an attached container that was not closed kills it, without waiting for
/// the end; a detached container lives on. After ringfence_container_close() it never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_free(container: *mut ringfence_container) {
    quietly(|| {
        let Some(released) = release(container) else { return };
        // A call that is under way on another thread keeps the container: if it waits for the end, it would wait for ever.
        if released.in_its_own_process && Arc::strong_count(&released.body) > 1 {
            let container = &released.body.container;
            if !container.spec().detach
                && container.is_running()
                && let Err(error) = container.kill()
            {
                log::warn!("kill a container that was freed while in use: {error}");
            }
        }
    });
}

/// The name of the spec; NULL when it has none, and for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_name(container: *const ringfence_container) -> *const c_char {
    border(ptr::null_mut(), ptr::null(), || Ok(borrow(container)?.name.as_deref().map_or(ptr::null(), CStr::as_ptr)))
}

/// Its id, unique on this machine while it exists, and the name of its control groups; NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_id(container: *const ringfence_container) -> *const c_char {
    border(ptr::null_mut(), ptr::null(), || Ok(borrow(container)?.id.as_ptr()))
}

/// The pid of its pid 1, seen from this program's pid namespace; -1 for NULL and in a forked child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_pid(container: *const ringfence_container) -> c_int {
    get(container, Container::pid)
}

/// The pidfd of its pid 1, borrowed; -1 for NULL and in a forked child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_pidfd(container: *const ringfence_container) -> c_int {
    get(container, |container| container.pidfd().as_raw_fd())
}

/// A descriptor, borrowed, that becomes readable or hangs up (POLLIN, POLLHUP) when the container has ended and everything was
/// undone. Only poll it, never read it. -1 for NULL and in a forked child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_events_fd(container: *const ringfence_container) -> c_int {
    get(container, |container| container.events_fd().as_raw_fd())
}

/// 1 while it runs (frozen too), 0 when it has ended; -1 for NULL and in a forked child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_is_running(container: *const ringfence_container) -> c_int {
    get(container, |container| container.is_running().into())
}

/// Sends a signal to the main process, or to pid 1 when there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_signal(
    container: *const ringfence_container,
    signal: c_int,
    err: *mut *mut ringfence_error,
) -> c_int {
    done(container, err, |container| container.signal(signal))
}

/// SIGKILL to every process inside, atomically. Does not wait.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_kill(
    container: *const ringfence_container,
    err: *mut *mut ringfence_error,
) -> c_int {
    done(container, err, Container::kill)
}

/// Asks it to end: the spec's "stop_signal", then SIGKILL when `timeout_ms` have passed (-1: the spec's "stop_timeout"); waits
/// for the end. How the main process ended can be read from its handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_stop(
    container: *const ringfence_container,
    timeout_ms: c_int,
    err: *mut *mut ringfence_error,
) -> c_int {
    let timeout = timeout(timeout_ms);
    done(container, err, |container| container.stop(timeout?).map(drop))
}

/// Waits until it has ended and everything was undone: 1 ended, 0 timed out, -1 error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_wait(
    container: *const ringfence_container,
    timeout_ms: c_int,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || Ok(running(container)?.container.wait_end(timeout(timeout_ms)?)?.into()))
}

/// Stops all its processes where they are.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_freeze(
    container: *const ringfence_container,
    err: *mut *mut ringfence_error,
) -> c_int {
    done(container, err, Container::freeze)
}

/// Lets them run again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_thaw(
    container: *const ringfence_container,
    err: *mut *mut ringfence_error,
) -> c_int {
    done(container, err, Container::thaw)
}

/// Changes limits while it runs: JSON like {"memory": "512M", "pids": null} is layered over its spec; null takes a limit away.
///
/// All of it or nothing: when one limit is refused, the others get back what they were. Fails with RINGFENCE_KIND_INVALID_SPEC
/// for fields that are fixed at the start and for limits that do not hold for a command that was started before
/// (CAP_SYS_ADMIN), with errno EBUSY when more is used of memory, disk, inodes, shm_size or ptys than the new limit and cannot
/// be reclaimed. Concurrent calls take turns; meanwhile the spec is the former one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_update(
    container: *const ringfence_container,
    json: *const c_char,
    err: *mut *mut ringfence_error,
) -> c_int {
    border_for(length(json), err, -1, || {
        running(container)?.container.update_json(text(json, "json")?)?;
        Ok(0)
    })
}

/// Its spec as it is now, with what updates made of it, as a JSON object (ringfence_string_free()).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_spec_json(
    container: *const ringfence_container,
    err: *mut *mut ringfence_error,
) -> *mut c_char {
    border(err, ptr::null_mut(), || Ok(give_string(running(container)?.container.spec().to_json())))
}

/// Asks the kernel to take back up to `bytes` of its memory: 1 done, 0 it found less, -1 error (cgroup v1 cannot).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_reclaim(
    container: *const ringfence_container,
    bytes: u64,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || Ok(running(container)?.container.reclaim(bytes)?.into()))
}

fn done(
    container: *const ringfence_container,
    err: *mut *mut ringfence_error,
    call: impl FnOnce(&Container) -> Result<()>,
) -> c_int {
    border(err, -1, || call(&running(container)?.container).map(|()| 0))
}

/// One figure of its usage, by name: "memory_current", "memory_peak" (bytes), "cpu_usage_usec" (microseconds),
/// "pids_current", ... (all in ringfence_container_usage_json()). Figures of devices, huge pages and pressure have names with
/// dots: "io.8:0.read_bytes", "net.eth0.rx_bytes", "hugepages.2M.current", "pressure.memory.some.total_usec". A limit that is
/// not set ("memory_max", "pids_max") is UINT64_MAX.
///
/// Fails with RINGFENCE_KIND_UNSUPPORTED for what this machine does not count for this caller, and for a device that is not
/// there or was not used.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_usage_u64(
    container: *const ringfence_container,
    key: *const c_char,
    value: *mut u64,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || {
        output(value, "value")?;
        let key = text(key, "key")?;
        let container = running(container)?;
        if Usage::default().get(key).is_none() {
            return Err(invalid("key", format!("there is no usage {key:?}")));
        }
        let number = match container.container.usage()?.get(key).flatten() {
            Some(number) => number,
            None if key.ends_with("_max") || key.ends_with(".max") => u64::MAX,
            None => {
                return Err(Error::new(ErrorKind::Unsupported, format!("{key} is not counted for this container"))
                    .with_errno(libc::EOPNOTSUPP)
                    .with_hint("ringfence_doctor_json() says which control groups can be used"));
            }
        };
        // SAFETY: checked not to be NULL, and by the header's contract a place for a uint64_t.
        unsafe { *value = number };
        Ok(0)
    })
}

/// Its usage as a JSON object (ringfence_string_free()): memory by kind, CPU time, processes, each with peaks and counts of what
/// was refused; "io", "net" and "hugepages" with an object for each device or size, and "pressure"; null for what is not
/// counted or not limited.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_usage_json(
    container: *const ringfence_container,
    err: *mut *mut ringfence_error,
) -> *mut c_char {
    border(err, ptr::null_mut(), || Ok(give_string(running(container)?.container.usage()?.to_json())))
}

/// OpenVZ's table of resources for it, as a JSON array (ringfence_string_free()): objects with "resource", "unit" ("items", "pages",
/// "bytes"), "held", "maxheld", "barrier", "limit", "failcnt" (null for what is not there) and "source": where the figures come from,
/// or why there are none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_beancounters_json(
    container: *const ringfence_container,
    err: *mut *mut ringfence_error,
) -> *mut c_char {
    border(err, ptr::null_mut(), || {
        Ok(give_string(Beancounter::to_json(&running(container)?.container.beancounters()?)))
    })
}

/// What was chosen for it, as a JSON object (ringfence_string_free()): id maps and why not more, control groups, root file
/// system, namespaces.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_info_json(
    container: *const ringfence_container,
    err: *mut *mut ringfence_error,
) -> *mut c_char {
    border(err, ptr::null_mut(), || Ok(give_string(running(container)?.container.info_json())))
}

/// Copies from its bounded log (what the main process wrote to streams of kind `log`), from byte `from` on, at most `size`
/// bytes. Returns how many; 0 at the end of what was written so far.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_log_read(
    container: *const ringfence_container,
    from: u64,
    buffer: *mut c_void,
    size: usize,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || {
        output(buffer, "buffer")?;
        let log = running(container)?.container.log_part(from, size.min(c_int::MAX as usize))?;
        let length = log.len();
        // SAFETY: not NULL, by the header's contract `size` bytes that nobody else uses, and the log is not longer than that.
        unsafe { ptr::copy_nonoverlapping(log.as_ptr(), buffer.cast(), length) };
        Ok(length as c_int)
    })
}

/// The file of its bounded log: a descriptor of the caller's (CLOEXEC). The file is as long as the bound, "log_max"; what was
/// written so far ends at its offset, lseek(fd, 0, SEEK_CUR), which is the writers' too: read it with pread() only.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_log_fd(
    container: *const ringfence_container,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || Ok(running(container)?.container.log_fd()?.into_raw_fd()))
}

/// A descriptor of one of its namespaces ("mnt", "pid", "net", "ipc", "uts", "user", "cgroup", "time"): the caller's (CLOEXEC),
/// for setns() or the "namespaces" of another spec.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_ns_fd(
    container: *const ringfence_container,
    kind: *const c_char,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || {
        let kind = NamespaceKind::parse(text(kind, "kind")?)?;
        Ok(running(container)?.container.ns_fd(kind)?.into_raw_fd())
    })
}

/// What is run inside by ringfence_container_enter(); `argument` is the pointer given there.
pub type ringfence_function = Option<unsafe extern "C" fn(argument: *mut c_void) -> c_int>;

/// A pointer of the program, for its own function.
struct Handed(*mut c_void);

// SAFETY: only handed back to the program's function, which by the header's contract may run on another thread; the calling
// thread waits meanwhile.
unsafe impl Send for Handed {}

fn kinds(names: *const c_char) -> Result<Vec<NamespaceKind>> {
    NamespaceKind::from_names(text(names, "kinds")?.split(',').map(str::trim).filter(|name| !name.is_empty()))
}

/// Runs `function(argument)` inside the container, on a thread of its own that joins these namespaces and ends afterwards, and
/// waits for it. `kinds` are names with commas between: "net", "net,mnt". What it returns is in `*result` (which may be NULL).
///
/// With "net" the sockets that it makes are the container's, and stay so on every thread; with "mnt" paths are the container's.
/// No process is made; threads and processes that the function makes are inside, too. It must return: no longjmp() and no C++
/// exception out of it. With "mnt", load and execute nothing in it: a library (by dlopen(), and so by getaddrinfo(), getpwnam(),
/// iconv()) or a program would be the container's, with the rights of this program.
///
/// Fails with RINGFENCE_KIND_INVALID_ARGUMENT for "pid", "user" and "time", which the kernel lets no thread of a program with
/// several join, and for what the container shares with the program; with RINGFENCE_KIND_PERMISSION_DENIED without CAP_SYS_ADMIN.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_enter(
    container: *const ringfence_container,
    kinds: *const c_char,
    function: ringfence_function,
    argument: *mut c_void,
    result: *mut c_int,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || {
        let function = function.ok_or_else(|| invalid("function", "is NULL"))?;
        let kinds = self::kinds(kinds)?;
        let argument = Handed(argument);
        let act = move || {
            let Handed(argument) = { argument };
            // SAFETY: by the header's contract the function takes this argument.
            unsafe { function(argument) }
        };
        let returned = running(container)?.container.enter(&kinds, act)?;
        if !result.is_null() {
            // SAFETY: by the header's contract NULL or a place for an int.
            unsafe { *result = returned };
        }
        Ok(0)
    })
}

/// Joins the calling thread to these namespaces of the container for good: for a thread that ends when its work inside is done.
/// `kinds` and errors as with ringfence_container_enter(); after an error the thread is where it was.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_join(
    container: *const ringfence_container,
    kinds: *const c_char,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || {
        running(container)?.container.join(&self::kinds(kinds)?)?;
        Ok(0)
    })
}

/// Makes a socket in the container's network with the rights of its root: for packet and raw sockets, AF_NETLINK, any port, by
/// every caller. Arguments as for socket(). The descriptor is the caller's (CLOEXEC, blocking unless SOCK_NONBLOCK is given); it
/// belongs to that network wherever it is used.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_socket(
    container: *const ringfence_container,
    domain: c_int,
    kind: c_int,
    protocol: c_int,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || Ok(running(container)?.container.socket(domain, kind, protocol)?.into_raw_fd()))
}

/// A stream socket that listens in the container. `address` is numeric ("127.0.0.1:80", "[::]:80", "localhost:80"; port 0 for
/// any), a path inside, or "@name" (abstract). SO_REUSEADDR is set. The descriptor is the caller's (CLOEXEC, blocking).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_listen(
    container: *const ringfence_container,
    address: *const c_char,
    backlog: c_int,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || {
        let backlog = u32::try_from(backlog).map_err(|_| invalid("backlog", "is negative"))?;
        Ok(running(container)?.container.listen(text(address, "address")?, backlog)?.into_raw_fd())
    })
}

/// A stream socket that is connected to a server in the container; `address` as for ringfence_container_listen(). Waits
/// `timeout_ms` (-1: as long as the kernel tries); then fails with RINGFENCE_KIND_TIMED_OUT. The descriptor is the caller's
/// (CLOEXEC, blocking).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_connect(
    container: *const ringfence_container,
    address: *const c_char,
    timeout_ms: c_int,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || {
        let timeout = timeout(timeout_ms)?;
        Ok(running(container)?.container.connect(text(address, "address")?, timeout)?.into_raw_fd())
    })
}

/// Opens a path as the container sees it, with the rights of its root, below its root whatever links it has there. `flags` and
/// `mode` as for open(). Never waits for the other end of a FIFO. The descriptor is the caller's (CLOEXEC); do not trust what it
/// reads.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_open_path(
    container: *const ringfence_container,
    path: *const c_char,
    flags: c_int,
    mode: u32,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || {
        if path.is_null() {
            return Err(invalid("path", "is NULL"));
        }
        // SAFETY: by the header's contract a NUL-terminated string.
        let path = OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes());
        Ok(running(container)?.container.open_path(path, flags, mode)?.into_raw_fd())
    })
}

/// Its processes as a JSON list (ringfence_string_free()), by their numbers inside: objects with pid (as this program knows it),
/// pid_inside, parent_inside, state (a letter of proc_pid_stat(5)), name, argv, uid, threads, memory (resident bytes), cpu_usec and
/// cgroup. Each was looked at while a pidfd held its number.
///
/// Fails with RINGFENCE_KIND_UNSUPPORTED when the container has no pid namespace of its own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_processes_json(
    container: *const ringfence_container,
    err: *mut *mut ringfence_error,
) -> *mut c_char {
    border(err, ptr::null_mut(), || Ok(give_string(ProcessEntry::to_json(&running(container)?.container.processes()?))))
}

/// A pidfd (the caller's, CLOEXEC) of the process that has the number `pid_inside` in the container. Fails with
/// RINGFENCE_KIND_NOT_FOUND when there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_pidfd_of(
    container: *const ringfence_container,
    pid_inside: c_int,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || Ok(running(container)?.container.pidfd_of(pid_inside)?.into_raw_fd()))
}

/// Moves a network device of this thread's network namespace into the container, where it is called `inside` (NULL: as here), up if
/// it was up. It loses its addresses. ringfence_container_detach_device() and the end of the container bring it back, as long as this
/// program lives; otherwise the kernel gives physical devices to the machine's first network namespace, under their names inside, and deletes virtual ones.
///
/// Fails with RINGFENCE_KIND_NOT_FOUND (field `device`), RINGFENCE_KIND_ALREADY_EXISTS (`inside`), and with
/// RINGFENCE_KIND_PERMISSION_DENIED without CAP_SYS_ADMIN and CAP_NET_ADMIN; then it is where it was.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_attach_device(
    container: *const ringfence_container,
    device: *const c_char,
    inside: *const c_char,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || {
        let inside = if inside.is_null() { None } else { Some(text(inside, "inside")?) };
        running(container)?.container.attach_device(text(device, "device")?, inside)?;
        Ok(0)
    })
}

/// Gives the container one more device while it runs: `net` is a value of the field "net" that means one device, "network:shop" for one, or
/// the JSON of an object. Returns what ringfence_container_addresses_json() tells of it, as a JSON object (ringfence_string_free()).
///
/// It goes by ringfence_container_detach_net(), or with the container. Fails as a start with that field does, with
/// RINGFENCE_KIND_ALREADY_EXISTS (field "net.interface") for a name that is taken inside, with RINGFENCE_KIND_INVALID_ARGUMENT (field "net")
/// for a container that has no network namespace of its own, is detached or another program's, and with RINGFENCE_KIND_CLOSED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_attach_net(
    container: *const ringfence_container,
    net: *const c_char,
    err: *mut *mut ringfence_error,
) -> *mut c_char {
    border_for(length(net), err, ptr::null_mut(), || {
        Ok(give_string(running(container)?.container.attach_net_json(text(net, "net")?)?))
    })
}

/// Takes a device from the container that the field "net" or ringfence_container_attach_net() gave it, by its name inside. Its addresses are
/// free then, and a device of the host comes back. Fails with RINGFENCE_KIND_NOT_FOUND (field `interface`) for what was not given so.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_detach_net(
    container: *const ringfence_container,
    interface: *const c_char,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || {
        running(container)?.container.detach_net(text(interface, "interface")?)?;
        Ok(0)
    })
}

/// Brings the network device that is called `inside` in the container back to where it was, down, under its name from there. Fails
/// with RINGFENCE_KIND_NOT_FOUND (field `inside`) for what this handle did not bring in, with RINGFENCE_KIND_ALREADY_EXISTS when its name
/// is taken there, and as ringfence_container_attach_device().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_detach_device(
    container: *const ringfence_container,
    inside: *const c_char,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || {
        running(container)?.container.detach_device(text(inside, "inside")?)?;
        Ok(0)
    })
}

/// Gives the container a device of the host while it runs: a node in its /dev, and the rule that allows it. `device` is a value of the
/// field "devices": "PATH[:TARGET][:ACCESS]", or the JSON of an object.
///
/// All of it or nothing; no symlink that the container has put in its /dev is followed. Fails as a start with that entry does, with
/// RINGFENCE_KIND_ALREADY_EXISTS (field "devices[N].target") when something is there, with RINGFENCE_KIND_PERMISSION_DENIED for an access
/// without "r" or "w" without CAP_SYS_ADMIN, and with RINGFENCE_KIND_CLOSED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_add_device(
    container: *const ringfence_container,
    device: *const c_char,
    err: *mut *mut ringfence_error,
) -> c_int {
    border_for(length(device), err, -1, || {
        running(container)?.container.add_device_json(text(device, "device")?)?;
        Ok(0)
    })
}

/// Takes a device away that the field "devices" or ringfence_container_add_device() gave it, by its path inside. What has it open keeps
/// it. Fails with RINGFENCE_KIND_NOT_FOUND (field "target") for what was not given so.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_remove_device(
    container: *const ringfence_container,
    target: *const c_char,
    err: *mut *mut ringfence_error,
) -> c_int {
    border_for(length(target), err, -1, || {
        running(container)?.container.remove_device(text(target, "target")?)?;
        Ok(0)
    })
}
