//! `ringfence_pod`: containers that share namespaces.

use std::ffi::{CStr, CString, c_char, c_int};
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::ptr;
use std::sync::Arc;

use ringfence::spec::NamespaceKind;
use ringfence::{Container, Error, ErrorKind, Pod, Result};

use crate::border::{border, border_for, c_string, give_string, length, output, quietly, text, timeout};
use crate::container::{give_container, ringfence_container};
use crate::error::ringfence_error;
use crate::object::{Object, borrow, give, release, running};
use crate::spec::{ringfence_spec, with_spec};

/// Containers that share namespaces: network, IPC (System V, POSIX message queues, /dev/shm) and host name; process ids on request.
/// Files, mounts and control groups stay apart. May be used by any number of threads at once.
///
/// The namespaces belong to a container that has nothing in it but its pid 1, the holder; the others are started in them with
/// ringfence_pod_container(). A container ends as any other does, and the pod goes on, without any container too; to free the
/// handle of a container ends nothing here, the pod keeps it until it is closed. When the pod ends, all end: by
/// ringfence_pod_close(), by the free of its last handle, by the end of the holder or of this program, however it comes.
pub struct ringfence_pod {
    _opaque: [u8; 0],
}

pub(crate) struct Body {
    pod: Pod,
    name: Option<CString>,
    id: CString,
}

impl Object for ringfence_pod {
    type Body = Body;
    const MAGIC: u64 = u64::from_ne_bytes(*b"rf-pod\0\0");
    const NAME: &'static str = "pod";
}

/// For the calls of other objects.
pub(crate) fn pod_of<T>(pod: *const ringfence_pod, call: impl FnOnce(&Pod) -> Result<T>) -> Result<T> {
    call(&running(pod)?.pod)
}

/// A getter without an `err`.
fn get(pod: *const ringfence_pod, get: impl FnOnce(&Pod) -> c_int) -> c_int {
    border(ptr::null_mut(), -1, || pod_of(pod, |pod| Ok(get(pod))))
}

fn done(pod: *const ringfence_pod, err: *mut *mut ringfence_error, call: impl FnOnce(&Pod) -> Result<()>) -> c_int {
    border(err, -1, || pod_of(pod, |pod| call(pod).map(|()| 0)))
}

fn take(
    result: *mut *mut ringfence_container,
    err: *mut *mut ringfence_error,
    find: impl FnOnce() -> Result<Container>,
) -> c_int {
    border(err, -1, || {
        output(result, "result")?;
        let container = find()?;
        // SAFETY: checked not to be NULL, and by the header's contract a place for a pointer.
        unsafe { *result = give_container(container) };
        Ok(0)
    })
}

/// Makes the namespaces of a pod. `share` names them: "net,ipc,uts" (NULL is that) or "net,ipc,uts,pid", or some of these.
///
/// Of the spec: "hostname", "domainname", "net", "sysctls", "shm_size", "mount_label" (of /dev/shm), "dns", "hosts", "idmap", "name", "namespaces"
/// (net, ipc, uts: what is there is joined, a pinned network for one), "cgroup_parent", "wall_time", "cpu_time", and the limits of a control group,
/// which hold for all containers of the pod together. `*result` is for ringfence_pod_free().
///
/// Fails with RINGFENCE_KIND_INVALID_SPEC for fields that belong to the containers, or to a namespace that is not shared; with
/// RINGFENCE_KIND_INVALID_ARGUMENT and the field "share"; with RINGFENCE_KIND_UNSUPPORTED and the field "share" for pid where
/// there is no control group, by which alone such a container can be ended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_pod_start(
    spec: *const ringfence_spec,
    share: *const c_char,
    result: *mut *mut ringfence_pod,
    err: *mut *mut ringfence_error,
) -> c_int {
    border_for(length(share), err, -1, || {
        output(result, "result")?;
        let share = if share.is_null() { Pod::SHARE.to_vec() } else { Pod::parse_share(text(share, "share")?)? };
        let pod = with_spec(spec, |spec| Pod::start(spec, &share))?;
        let name = pod.name().map(|name| c_string(name.into()));
        let id = c_string(pod.id().into());
        // SAFETY: as in `take`.
        unsafe { *result = give(Body { pod, name, id }) };
        Ok(0)
    })
}

/// Starts a container in the pod, as ringfence_container_start() does; from any thread. `*result` is for
/// ringfence_container_free(), which ends nothing: the pod keeps the container until ringfence_container_close().
///
/// Fails with RINGFENCE_KIND_INVALID_SPEC for fields that are the pod's ("hostname", "net", "idmap", ...), with
/// RINGFENCE_KIND_CLOSED when the pod has ended, with RINGFENCE_KIND_FROZEN for a frozen one, with
/// RINGFENCE_KIND_PERMISSION_DENIED from a thread with other credentials than those that started the pod.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_pod_container(
    pod: *const ringfence_pod,
    spec: *const ringfence_spec,
    result: *mut *mut ringfence_container,
    err: *mut *mut ringfence_error,
) -> c_int {
    take(result, err, || pod_of(pod, |pod| with_spec(spec, |spec| pod.container(spec))))
}

/// A container of the pod by the "name" of its spec. `*result` is one more handle of it, for ringfence_container_free(). Fails
/// with RINGFENCE_KIND_NOT_FOUND.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_pod_find_container(
    pod: *const ringfence_pod,
    name: *const c_char,
    result: *mut *mut ringfence_container,
    err: *mut *mut ringfence_error,
) -> c_int {
    take(result, err, || pod_of(pod, |pod| pod.find_container(text(name, "name")?)))
}

/// How many containers it has, those that have ended too, without those that were closed; -1 for NULL and in a forked child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_pod_container_count(pod: *const ringfence_pod) -> c_int {
    get(pod, |pod| c_int::try_from(pod.containers().len()).unwrap_or(c_int::MAX))
}

/// A container of the pod by its place, 0 for the first, in the order of their starts: one that is closed moves those after it up.
/// `*result` is one more handle of it, for ringfence_container_free(). Fails with RINGFENCE_KIND_NOT_FOUND and the field "index".
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_pod_container_at(
    pod: *const ringfence_pod,
    index: c_int,
    result: *mut *mut ringfence_container,
    err: *mut *mut ringfence_error,
) -> c_int {
    take(result, err, || {
        let all = pod_of(pod, |pod| Ok(pod.containers()))?;
        let found = usize::try_from(index).ok().and_then(|index| all.get(index).cloned());
        found.ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("the pod has {} containers, and none with index {index}", all.len()),
            )
            .with_field("index")
            .with_errno(libc::ENOENT)
        })
    })
}

/// Kills what runs in its containers, closes them, then ends the namespaces; waits until everything is undone. Calls on other threads
/// return RINGFENCE_KIND_CLOSED, later ones too. Closing it again is fine. Fails as ringfence_container_close().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_pod_close(
    pod: *const ringfence_pod,
    timeout_ms: c_int,
    err: *mut *mut ringfence_error,
) -> c_int {
    let timeout = timeout(timeout_ms);
    done(pod, err, |pod| pod.close(timeout?))
}

/// Frees the handle. NULL is fine. A pod that was not closed ends, and its containers with it, without waiting for that. After
/// ringfence_pod_close() it never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_pod_free(pod: *mut ringfence_pod) {
    quietly(|| {
        let Some(released) = release(pod) else { return };
        // A call that is under way on another thread keeps the pod: if it waits for the end, it would wait for ever.
        if released.in_its_own_process && Arc::strong_count(&released.body) > 1 {
            let pod = &released.body.pod;
            if pod.is_running()
                && let Err(error) = pod.kill()
            {
                log::warn!("kill a pod that was freed while in use: {error}");
            }
        }
    });
}

/// The "name" of its spec, by which "namespaces" of other specs find it ("container:NAME"); NULL when it has none, and for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_pod_name(pod: *const ringfence_pod) -> *const c_char {
    border(ptr::null_mut(), ptr::null(), || Ok(borrow(pod)?.name.as_deref().map_or(ptr::null(), CStr::as_ptr)))
}

/// Its id, unique on this machine while it exists, and the name of its control groups; NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_pod_id(pod: *const ringfence_pod) -> *const c_char {
    border(ptr::null_mut(), ptr::null(), || Ok(borrow(pod)?.id.as_ptr()))
}

/// The pid of the holder, seen from this program's pid namespace; -1 for NULL and in a forked child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_pod_pid(pod: *const ringfence_pod) -> c_int {
    get(pod, Pod::pid)
}

/// The pidfd of the holder, borrowed; -1 for NULL and in a forked child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_pod_pidfd(pod: *const ringfence_pod) -> c_int {
    get(pod, |pod| pod.pidfd().as_raw_fd())
}

/// A descriptor, borrowed, that becomes readable or hangs up when the pod has ended and its namespaces and groups are undone. Only
/// poll it, never read it. -1 for NULL and in a forked child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_pod_events_fd(pod: *const ringfence_pod) -> c_int {
    get(pod, |pod| pod.events_fd().as_raw_fd())
}

/// 1 while containers can be started in it (frozen too), 0 when it has ended; -1 for NULL and in a forked child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_pod_is_running(pod: *const ringfence_pod) -> c_int {
    get(pod, |pod| pod.is_running().into())
}

/// SIGKILL to every process of every container in it, and to the holder. Does not wait.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_pod_kill(pod: *const ringfence_pod, err: *mut *mut ringfence_error) -> c_int {
    done(pod, err, Pod::kill)
}

/// Their "stop_signal" to its containers, SIGKILL when the time has passed (-1: the longest of their "stop_timeout"s); then closes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_pod_stop(
    pod: *const ringfence_pod,
    timeout_ms: c_int,
    err: *mut *mut ringfence_error,
) -> c_int {
    let timeout = timeout(timeout_ms);
    done(pod, err, |pod| pod.stop(timeout?))
}

/// Waits until it has ended, by ringfence_pod_kill() or "wall_time" for one, and everything was undone: 1 ended, 0 timed out, -1
/// error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_pod_wait(
    pod: *const ringfence_pod,
    timeout_ms: c_int,
    err: *mut *mut ringfence_error,
) -> c_int {
    let timeout = timeout(timeout_ms);
    border(err, -1, || pod_of(pod, |pod| Ok(pod.wait_end(timeout?)?.into())))
}

/// Stops all processes of its containers where they are.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_pod_freeze(pod: *const ringfence_pod, err: *mut *mut ringfence_error) -> c_int {
    done(pod, err, Pod::freeze)
}

/// Lets them run again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_pod_thaw(pod: *const ringfence_pod, err: *mut *mut ringfence_error) -> c_int {
    done(pod, err, Pod::thaw)
}

/// Changes limits of the pod while it runs, as ringfence_container_update() does.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_pod_update(
    pod: *const ringfence_pod,
    json: *const c_char,
    err: *mut *mut ringfence_error,
) -> c_int {
    border_for(length(json), err, -1, || {
        let json = text(json, "json")?;
        pod_of(pod, |pod| pod.update_json(json).map(|()| 0))
    })
}

/// Its spec as it is now, as a JSON object (ringfence_string_free()).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_pod_spec_json(
    pod: *const ringfence_pod,
    err: *mut *mut ringfence_error,
) -> *mut c_char {
    border(err, ptr::null_mut(), || pod_of(pod, |pod| Ok(give_string(pod.spec().to_json()))))
}

/// What its containers use and used together, as a JSON object (ringfence_string_free()) with the keys of
/// ringfence_container_usage_json().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_pod_usage_json(
    pod: *const ringfence_pod,
    err: *mut *mut ringfence_error,
) -> *mut c_char {
    border(err, ptr::null_mut(), || pod_of(pod, |pod| Ok(give_string(pod.usage()?.to_json()))))
}

/// What was chosen for it, as a JSON object (ringfence_string_free()): what ringfence_container_info_json() tells, and "share" and
/// "containers", an array with that of each.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_pod_info_json(
    pod: *const ringfence_pod,
    err: *mut *mut ringfence_error,
) -> *mut c_char {
    border(err, ptr::null_mut(), || pod_of(pod, |pod| Ok(give_string(pod.info_json()))))
}

/// A descriptor of one of its namespaces, of a kind that is shared or "user": the caller's (CLOEXEC). The namespace exists as long
/// as it is open, also without the pod; ringfence_namespace_pin() keeps it at a path.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_pod_ns_fd(
    pod: *const ringfence_pod,
    kind: *const c_char,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || {
        let kind = NamespaceKind::parse(text(kind, "kind")?)?;
        pod_of(pod, |pod| Ok(OwnedFd::from(pod.namespace(kind)?).into_raw_fd()))
    })
}
