//! `ringfence_events`: what happens to a container.

use std::ffi::{CStr, c_char, c_int};
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard};

use ringfence::{Event, EventOptions, Events, PressureLevel, PressureResource, Result};

use crate::border::{border, give_string, output, quietly, text, timeout};
use crate::container::{container_of, ringfence_container};
use crate::error::ringfence_error;
use crate::object::{Object, borrow, give, release, running};
use crate::pod::{pod_of, ringfence_pod};

/// A reader of the events of a container. Reading (ringfence_events_next() and what it is about: _kind, _count, ...) is for one
/// thread at a time, because there is one current event; _cancel, _fd and _free may be called by any thread meanwhile. Any number
/// of readers may be made for one container, for other threads too. It outlives the handle of its container.
pub struct ringfence_events {
    _opaque: [u8; 0],
}

pub(crate) struct Body {
    events: Events,
    current: Mutex<Option<Event>>,
}

impl Body {
    fn current(&self) -> MutexGuard<'_, Option<Event>> {
        self.current.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Object for ringfence_events {
    type Body = Body;
    const MAGIC: u64 = u64::from_ne_bytes(*b"rf-evnts");
    const NAME: &'static str = "reader of events";
    const ARGUMENT: &'static str = "events";
}

/// What can happen to a container. The numbers never change; later versions add some. The names are those of
/// ringfence_event_kind_name(): "oom", "oom_kill", ...
#[derive(Clone, Copy)]
#[repr(i32)]
pub enum ringfence_event_kind {
    /// The limit of memory was reached and nothing could be reclaimed.
    Oom = 1,
    /// A process was killed for want of memory.
    OomKill = 2,
    /// Use went above "memory_high" and was slowed down. Only on cgroup v2.
    MemoryHigh = 3,
    /// Use came up against "memory". On cgroup v1 the kernel does not notify: it is looked at five times a second.
    MemoryMax = 4,
    /// Memory below "memory_low" was reclaimed nevertheless. Only on cgroup v2.
    MemoryLow = 5,
    /// Something could not be swapped out because of "swap". Only on cgroup v2.
    SwapMax = 6,
    /// A fork or a new thread was refused because of "pids". On cgroup v1 it is looked at five times a second.
    PidsMax = 7,
    /// Tasks waited longer for a resource than a threshold allows: ringfence_events_threshold() says which.
    Pressure = 8,
    /// A process is in the group, which was empty. This and the next three need a cgroup v2 tree, as a hybrid machine has.
    Populated = 9,
    /// No process is left.
    Empty = 10,
    /// All processes were stopped.
    Frozen = 11,
    /// They run again.
    Thawed = 12,
    /// It has ended and everything was undone. Always told, once, and the last.
    Ended = 13,
    /// A device of the container's network came, went, or is another than it was (its name, up or down, its carrier). This and the next
    /// only when asked for by name.
    Link = 14,
    /// An address of a device of the container's network came, went, or can be used now.
    Address = 15,
}

const NAMES: [(ringfence_event_kind, &CStr); 15] = [
    (ringfence_event_kind::Oom, c"oom"),
    (ringfence_event_kind::OomKill, c"oom_kill"),
    (ringfence_event_kind::MemoryHigh, c"memory_high"),
    (ringfence_event_kind::MemoryMax, c"memory_max"),
    (ringfence_event_kind::MemoryLow, c"memory_low"),
    (ringfence_event_kind::SwapMax, c"swap_max"),
    (ringfence_event_kind::PidsMax, c"pids_max"),
    (ringfence_event_kind::Pressure, c"pressure"),
    (ringfence_event_kind::Populated, c"populated"),
    (ringfence_event_kind::Empty, c"empty"),
    (ringfence_event_kind::Frozen, c"frozen"),
    (ringfence_event_kind::Thawed, c"thawed"),
    (ringfence_event_kind::Ended, c"ended"),
    (ringfence_event_kind::Link, c"link"),
    (ringfence_event_kind::Address, c"address"),
];

fn name_of(number: c_int) -> Option<&'static CStr> {
    NAMES.iter().find(|(kind, _)| *kind as c_int == number).map(|(_, name)| *name)
}

/// The name of a kind of events: "oom_kill", ...; NULL for a number that is none. Lives for ever.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_event_kind_name(kind: c_int) -> *const c_char {
    name_of(kind).map_or(ptr::null(), CStr::as_ptr)
}

/// What happens to a container from now on. `options` is JSON, or NULL for the defaults:
///
///   {"kinds": ["oom_kill", "pids_max"],
///    "pressure": [{"resource": "memory", "level": "some", "stall": "150ms", "window": "2s"}]}
///
/// "kinds" are names of ringfence_event_kind; each that cannot be had here is an error. Left out: all that can be had but
/// those of the network (ringfence_events_kinds_json()). "ended" is always told. "pressure" are thresholds: tasks wait for "resource" ("memory", "cpu",
/// "io") for "stall" (seconds or text) within "window" (default: 2 s); some of them or, with "level" "full", all that are not
/// idle. The kernel takes windows of 500 ms to 10 s, without CAP_SYS_RESOURCE only whole multiples of 2 s.
///
/// Events of one kind that come before they are read are one event with a count; none is lost. When an attached container ends,
/// the last counts are told, then RINGFENCE_EVENT_KIND_ENDED. Of a detached one, what was counted after the last look may be
/// missing. `*result` is for ringfence_events_free().
///
/// Fails with RINGFENCE_KIND_INVALID_SPEC for options that can never work, with RINGFENCE_KIND_UNSUPPORTED or
/// RINGFENCE_KIND_PERMISSION_DENIED for what this machine or caller cannot have; ringfence_error_field() says which of the options.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_events(
    container: *const ringfence_container,
    options: *const c_char,
    result: *mut *mut ringfence_events,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || {
        give_reader(result, || container_of(container, |container| container.events(&options_of(options)?)))
    })
}

/// As ringfence_container_events(), for all containers of a pod together; the last event is the end of the pod.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_pod_events(
    pod: *const ringfence_pod,
    options: *const c_char,
    result: *mut *mut ringfence_events,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || give_reader(result, || pod_of(pod, |pod| pod.events(&options_of(options)?))))
}

fn give_reader(result: *mut *mut ringfence_events, make: impl FnOnce() -> Result<Events>) -> Result<c_int> {
    output(result, "result")?;
    let events = make()?;
    // SAFETY: checked not to be NULL, and by the header's contract a place for a pointer.
    unsafe { *result = give(Body { events, current: Mutex::new(None) }) };
    Ok(0)
}

fn options_of(options: *const c_char) -> Result<EventOptions> {
    match options.is_null() {
        true => Ok(EventOptions::default()),
        false => EventOptions::from_json(text(options, "options")?),
    }
}

/// Frees the reader. NULL is fine. A call of ringfence_events_next() that is under way on another thread fails with
/// RINGFENCE_KIND_CLOSED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_events_free(events: *mut ringfence_events) {
    quietly(|| {
        let Some(released) = release(events) else { return };
        if released.in_its_own_process && Arc::strong_count(&released.body) > 1 {
            released.body.events.cancel();
        }
    });
}

/// A descriptor, borrowed, that is readable (POLLIN) when there is something to read, and when it is over. Only poll it, never
/// read it; ringfence_events_next() with timeout 0 may then still find nothing. -1 for NULL and in a forked child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_events_fd(events: *const ringfence_events) -> c_int {
    border(ptr::null_mut(), -1, || Ok(running(events)?.events.fd().as_raw_fd()))
}

/// Waits for the next event and makes it the current one: 1 there is one, 0 timed out or over, -1 error. After
/// RINGFENCE_EVENT_KIND_ENDED it returns 0 at once, whatever the timeout (ringfence_events_is_over()); so with a timeout of -1
/// this reads them all:
///
///   while ((r = ringfence_events_next(events, -1, &err)) == 1)
///       printf("%s %llu\n", ringfence_events_kind_name(events), (unsigned long long)ringfence_events_count(events));
///
/// Fails with RINGFENCE_KIND_CLOSED when it was cancelled, or when the handle of a detached container was closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_events_next(
    events: *const ringfence_events,
    timeout_ms: c_int,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || {
        let body = running(events)?;
        let Some(event) = body.events.next(timeout(timeout_ms)?)? else { return Ok(0) };
        *body.current() = Some(event);
        Ok(1)
    })
}

/// Makes every call of ringfence_events_next(), under way on any thread or begun later, fail with RINGFENCE_KIND_CLOSED, unless it
/// is over.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_events_cancel(
    events: *const ringfence_events,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || {
        running(events)?.events.cancel();
        Ok(0)
    })
}

/// 1 after RINGFENCE_EVENT_KIND_ENDED was read, else 0; -1 for NULL and in a forked child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_events_is_over(events: *const ringfence_events) -> c_int {
    border(ptr::null_mut(), -1, || Ok(running(events)?.events.is_over().into()))
}

/// Which kinds are told here, as a JSON list of their names (ringfence_string_free()).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_events_kinds_json(
    events: *const ringfence_events,
    err: *mut *mut ringfence_error,
) -> *mut c_char {
    border(err, ptr::null_mut(), || {
        let names: Vec<String> =
            running(events)?.events.kinds().iter().map(|kind| format!("{:?}", kind.name())).collect();
        Ok(give_string(format!("[{}]", names.join(", "))))
    })
}

/// Of the current event; `otherwise` when there is none yet, and for NULL.
fn current<T>(events: *const ringfence_events, otherwise: T, get: impl FnOnce(&Event) -> T) -> T
where
    T: Copy,
{
    border(ptr::null_mut(), otherwise, || -> Result<T> {
        Ok(borrow(events)?.current().as_ref().map_or(otherwise, get))
    })
}

/// The kind of the current event, a ringfence_event_kind; 0 before the first, and for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_events_kind(events: *const ringfence_events) -> c_int {
    current(events, 0, |event| event.kind as c_int)
}

/// Its name: "oom_kill", ...; NULL before the first, and for NULL. Lives for ever.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_events_kind_name(events: *const ringfence_events) -> *const c_char {
    current(events, ptr::null(), |event| name_of(event.kind as c_int).map_or(ptr::null(), CStr::as_ptr))
}

/// How often it happened since the last event of its kind (and threshold), or since the reader was made; 0 before the first.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_events_count(events: *const ringfence_events) -> u64 {
    current(events, 0, |event| event.count)
}

/// How often it happened since the reader was made; 0 before the first.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_events_total(events: *const ringfence_events) -> u64 {
    current(events, 0, |event| event.total)
}

/// When it was seen (the first of several): nanoseconds since the epoch, CLOCK_REALTIME; 0 before the first.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_events_time_ns(events: *const ringfence_events) -> u64 {
    current(events, 0, |event| event.time_ns)
}

/// The same moment by CLOCK_MONOTONIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_events_monotonic_ns(events: *const ringfence_events) -> u64 {
    current(events, 0, |event| event.monotonic_ns)
}

/// Of pressure, the resource: "memory", "cpu", "io"; NULL for other kinds. Lives for ever.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_events_resource(events: *const ringfence_events) -> *const c_char {
    current(events, ptr::null(), |event| match event.threshold {
        None => ptr::null(),
        Some((_, pressure)) => match pressure.resource {
            PressureResource::Memory => c"memory".as_ptr(),
            PressureResource::Cpu => c"cpu".as_ptr(),
            PressureResource::Io => c"io".as_ptr(),
        },
    })
}

/// Of pressure, the level: "some", "full"; NULL for other kinds. Lives for ever.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_events_level(events: *const ringfence_events) -> *const c_char {
    current(events, ptr::null(), |event| match event.threshold {
        None => ptr::null(),
        Some((_, pressure)) => match pressure.level {
            PressureLevel::Some => c"some".as_ptr(),
            PressureLevel::Full => c"full".as_ptr(),
        },
    })
}

/// Of pressure, which of the thresholds in the options: 0, 1, ...; -1 for other kinds.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_events_threshold(events: *const ringfence_events) -> c_int {
    current(events, -1, |event| event.threshold.map_or(-1, |(index, _)| index as c_int))
}

/// The current event as a JSON object (ringfence_string_free()): "kind", "count", "total", "resource", "level", "threshold" (null
/// where there is none), "time_ns", "monotonic_ns"; "null" before the first.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_events_json(
    events: *const ringfence_events,
    err: *mut *mut ringfence_error,
) -> *mut c_char {
    border(err, ptr::null_mut(), || {
        let event = *running(events)?.current();
        Ok(give_string(event.map_or("null".to_owned(), |event| event.to_json())))
    })
}

#[cfg(test)]
mod tests {
    use ringfence::EventKind;

    use super::*;

    #[test]
    fn kinds_are_those_of_the_core() {
        for kind in EventKind::ALL {
            assert_eq!(name_of(kind as c_int).and_then(|name| name.to_str().ok()), Some(kind.name()));
        }
        assert_eq!((NAMES.len(), name_of(0), name_of(99)), (EventKind::ALL.len(), None, None));
    }
}
