//! Groups of processes inside a container, by name.

use std::ffi::{c_char, c_int};
use std::ptr;

use ringfence::{ControlGroup, Result, Spec};

use crate::border::{border, border_for, give_string, length, text};
use crate::container::ringfence_container;
use crate::error::ringfence_error;
use crate::object::running;

fn on(
    container: *const ringfence_container,
    name: *const c_char,
    err: *mut *mut ringfence_error,
    call: impl FnOnce(&ControlGroup) -> Result<()>,
) -> c_int {
    border(err, -1, || {
        let name = text(name, "name")?;
        call(&running(container)?.container.find_group(name)?).map(|()| 0)
    })
}

/// Makes a group of processes inside: the second of two levels. Its limits (JSON like {"memory": "64M", "cpu_weight": 50}, NULL for
/// none) hold within those of the container, its weights count against the container's other groups.
///
/// Processes run in it when the command's field "cgroup" is its name. It goes with the container. Fails with
/// RINGFENCE_KIND_ALREADY_EXISTS, and with RINGFENCE_KIND_INVALID_SPEC for fields that are no limits.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_group(
    container: *const ringfence_container,
    name: *const c_char,
    limits: *const c_char,
    err: *mut *mut ringfence_error,
) -> c_int {
    border_for(length(limits), err, -1, || {
        let name = text(name, "name")?;
        let limits = if limits.is_null() { Spec::new() } else { Spec::from_json(text(limits, "limits")?)? };
        running(container)?.container.group(name, &limits)?;
        Ok(0)
    })
}

/// Changes limits of a group while it is used, as ringfence_container_update() does for the container's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_group_update(
    container: *const ringfence_container,
    name: *const c_char,
    json: *const c_char,
    err: *mut *mut ringfence_error,
) -> c_int {
    border_for(length(json), err, -1, || {
        let (name, json) = (text(name, "name")?, text(json, "json")?);
        running(container)?.container.find_group(name)?.update_json(json)?;
        Ok(0)
    })
}

/// The limits of a group as they are now, as a JSON object (ringfence_string_free()).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_group_limits_json(
    container: *const ringfence_container,
    name: *const c_char,
    err: *mut *mut ringfence_error,
) -> *mut c_char {
    border(err, ptr::null_mut(), || {
        let name = text(name, "name")?;
        Ok(give_string(running(container)?.container.find_group(name)?.limits().to_json()))
    })
}

/// What the processes of a group use and used, as a JSON object (ringfence_string_free()) with the keys of
/// ringfence_container_usage_json().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_group_usage_json(
    container: *const ringfence_container,
    name: *const c_char,
    err: *mut *mut ringfence_error,
) -> *mut c_char {
    border(err, ptr::null_mut(), || {
        let name = text(name, "name")?;
        Ok(give_string(running(container)?.container.find_group(name)?.usage()?.to_json()))
    })
}

/// Stops all processes of a group where they are.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_group_freeze(
    container: *const ringfence_container,
    name: *const c_char,
    err: *mut *mut ringfence_error,
) -> c_int {
    on(container, name, err, ControlGroup::freeze)
}

/// Lets them run again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_group_thaw(
    container: *const ringfence_container,
    name: *const c_char,
    err: *mut *mut ringfence_error,
) -> c_int {
    on(container, name, err, ControlGroup::thaw)
}

/// SIGKILL to every process of a group, also while they fork; it can be used further.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_group_kill(
    container: *const ringfence_container,
    name: *const c_char,
    err: *mut *mut ringfence_error,
) -> c_int {
    on(container, name, err, ControlGroup::kill)
}

/// Removes a group. Fails with errno EBUSY while processes are in it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_group_remove(
    container: *const ringfence_container,
    name: *const c_char,
    err: *mut *mut ringfence_error,
) -> c_int {
    on(container, name, err, ControlGroup::remove)
}
