//! `ringfence_group`: several containers with an order.

use std::ffi::{c_char, c_int};
use std::ptr;

use ringfence::{Group, Member, Result};

use crate::border::{border, border_for, give_string, length, output, quietly, text, timeout};
use crate::container::{give_container, ringfence_container};
use crate::error::ringfence_error;
use crate::object::{Object, give, release, running};
use crate::pod::{pod_of, ringfence_pod};
use crate::spec::{ringfence_spec, with_spec};

/// Several containers with an order: a member starts when those that it comes after are ready, members that do not need each other
/// at the same time; all of them start or none, and they stop in reverse. May be used by any number of threads at once.
///
/// They have networks of their own, or that of a pod. The end of this program ends them, as it ends every container.
pub struct ringfence_group {
    _opaque: [u8; 0],
}

impl Object for ringfence_group {
    type Body = Group;
    const MAGIC: u64 = u64::from_ne_bytes(*b"rf-compo");
    const NAME: &'static str = "group";
}

fn done(
    group: *const ringfence_group,
    err: *mut *mut ringfence_error,
    call: impl FnOnce(&Group) -> Result<()>,
) -> c_int {
    border(err, -1, || call(&*running(group)?).map(|()| 0))
}

/// A group without members yet. With a pod (NULL is none) its members start in that, and reach each other at 127.0.0.1; the pod goes
/// on when the group is closed. For ringfence_group_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_group_new(
    pod: *const ringfence_pod,
    err: *mut *mut ringfence_error,
) -> *mut ringfence_group {
    border(err, ptr::null_mut(), || {
        let group = if pod.is_null() { Group::new() } else { pod_of(pod, |pod| Ok(Group::in_pod(pod)))? };
        Ok(give(group))
    })
}

/// Adds the members of a description, all of them or none: a JSON object that has for each name an object with the fields of a
/// container, "after", a list of the names of those that must be ready before it starts, and "wait_for", what makes it ready, as
/// ringfence_container_wait_for() takes it.
///
/// Fails as ringfence_group_add().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_group_merge_json(
    group: *const ringfence_group,
    json: *const c_char,
    err: *mut *mut ringfence_error,
) -> c_int {
    border_for(length(json), err, -1, || {
        let json = text(json, "json")?;
        running(group)?.merge_json(json).map(|()| 0)
    })
}

/// Adds a member with this spec, which is copied. `after` has the names of those that must be ready before it starts, with commas
/// between them; NULL and "" are none. `wait_for` is what makes it ready, JSON as for ringfence_container_wait_for(); NULL: that it was
/// started.
///
/// Fails with RINGFENCE_KIND_INVALID_SPEC and the field "name" for what is no name (1 to 64 letters, digits, "_", "." and "-"), or for
/// a spec that can never work or has "detach"; with RINGFENCE_KIND_ALREADY_EXISTS; with RINGFENCE_KIND_EXHAUSTED for more than 256
/// members; with RINGFENCE_KIND_INVALID_ARGUMENT and EBUSY when the group has started; with RINGFENCE_KIND_CLOSED. Who is in `after`
/// is looked for at the start.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_group_add(
    group: *const ringfence_group,
    name: *const c_char,
    spec: *const ringfence_spec,
    after: *const c_char,
    wait_for: *const c_char,
    err: *mut *mut ringfence_error,
) -> c_int {
    border_for(length(after) + length(wait_for), err, -1, || {
        let after = if after.is_null() { "" } else { text(after, "after")? };
        let after = after.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
        let spec = with_spec(spec, |spec| Ok(spec.clone()))?;
        let member = Member { spec, after, wait_for: None };
        let member = if wait_for.is_null() { member } else { member.wait_for_json(text(wait_for, "wait_for")?)? };
        running(group)?.add(text(name, "name")?, member).map(|()| 0)
    })
}

/// The names of its members in the order of their starts, as a JSON array of arrays (ringfence_string_free()): those in one array
/// start at the same time.
///
/// Fails with RINGFENCE_KIND_INVALID_SPEC and the field "after" for names that the group does not have, and for members that wait
/// for each other, which it shows.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_group_order_json(
    group: *const ringfence_group,
    err: *mut *mut ringfence_error,
) -> *mut c_char {
    border(err, ptr::null_mut(), || {
        let order = running(group)?.order()?;
        // Names have no characters that JSON escapes.
        let levels: Vec<String> = order.iter().map(|names| format!("[\"{}\"]", names.join("\",\""))).collect();
        Ok(give_string(format!("[{}]", levels.join(","))))
    })
}

/// Starts all members; they are ready when this returns. It takes threads, one for each, which end before that.
///
/// Fails with the first error of a member, whose message begins with its name; then those that had started were stopped in reverse
/// order, and the group can be started again. With RINGFENCE_KIND_TIMED_OUT when not all are ready in time; with RINGFENCE_KIND_CLOSED
/// when another thread closes it meanwhile; as ringfence_group_order_json(); with RINGFENCE_KIND_INVALID_ARGUMENT when it has started
/// or has no members.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_group_start(
    group: *const ringfence_group,
    timeout_ms: c_int,
    err: *mut *mut ringfence_error,
) -> c_int {
    let timeout = timeout(timeout_ms);
    done(group, err, |group| group.start(timeout?))
}

/// The container of a member: `*result` is one more handle of it, for ringfence_container_free(), which ends nothing as long as the
/// group has it. Fails with RINGFENCE_KIND_NOT_FOUND and the field "name"; with RINGFENCE_KIND_CLOSED when the group has not started.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_group_container(
    group: *const ringfence_group,
    name: *const c_char,
    result: *mut *mut ringfence_container,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || {
        output(result, "result")?;
        let container = running(group)?.container(text(name, "name")?)?;
        // SAFETY: checked not to be NULL, and by the header's contract a place for a pointer.
        unsafe { *result = give_container(container) };
        Ok(0)
    })
}

/// 1 when it was started and not closed, else 0; -1 for NULL and in a forked child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_group_is_started(group: *const ringfence_group) -> c_int {
    border(ptr::null_mut(), -1, || Ok(running(group)?.is_started().into()))
}

/// Waits until all members have ended: 1 ended, 0 timed out, -1 error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_group_wait(
    group: *const ringfence_group,
    timeout_ms: c_int,
    err: *mut *mut ringfence_error,
) -> c_int {
    let timeout = timeout(timeout_ms);
    border(err, -1, || Ok(running(group)?.wait_end(timeout?)?.into()))
}

/// Waits until a member has ended: 1 and its name in `*name` (ringfence_string_free()), 0 timed out, -1 error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_group_wait_any(
    group: *const ringfence_group,
    timeout_ms: c_int,
    name: *mut *mut c_char,
    err: *mut *mut ringfence_error,
) -> c_int {
    let timeout = timeout(timeout_ms);
    border(err, -1, || {
        output(name, "name")?;
        let Some(found) = running(group)?.wait_any(timeout?)? else { return Ok(0) };
        // SAFETY: as in `ringfence_group_container`.
        unsafe { *name = give_string(found) };
        Ok(1)
    })
}

/// SIGKILL to every process of all members. Does not wait; the group stays to be closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_group_kill(group: *const ringfence_group, err: *mut *mut ringfence_error) -> c_int {
    done(group, err, Group::kill)
}

/// Stops the members in reverse order: those that nobody else needs get their "stop_signal", and SIGKILL after their "stop_timeout";
/// when they have ended, those that they needed, and so on. Closes them and the group. What is left after `timeout_ms` is killed.
/// Calls on other threads return RINGFENCE_KIND_CLOSED, a start that is under way too. Closing it again is fine. Fails as
/// ringfence_container_close(): with the first error, all are closed nevertheless.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_group_close(
    group: *const ringfence_group,
    timeout_ms: c_int,
    err: *mut *mut ringfence_error,
) -> c_int {
    let timeout = timeout(timeout_ms);
    done(group, err, |group| group.close(timeout?))
}

/// Frees the handle. NULL is fine. Members of a group that was not closed are killed, without waiting for that. After
/// ringfence_group_close() it never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_group_free(group: *mut ringfence_group) {
    quietly(|| {
        let Some(released) = release(group) else { return };
        if released.in_its_own_process
            && released.body.is_started()
            && let Err(error) = released.body.kill()
        {
            log::warn!("kill the members of a group that was freed: {error}");
        }
    });
}
