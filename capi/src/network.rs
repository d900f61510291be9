//! `ringfence_network`: containers on a network of their own.

use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr;

use ringfence::spec::{Firewall, NetworkSpec};
use ringfence::{Container, Direction, Error, ErrorKind, Network, Result, Shape};

use crate::border::{border, border_for, c_string, give_string, length, output, quietly, text, timeout};
use crate::container::{give_container, ringfence_container};
use crate::error::ringfence_error;
use crate::object::{Object, borrow, give, release, running};
use crate::spec::{ringfence_spec, with_spec};

/// Several containers on a network of their own: they reach each other by address and by name, and nobody else. It is a bridge in a
/// network namespace of its own, of which nothing is seen on the host, and it takes no rights. May be used by any number of threads
/// at once.
///
/// "net" of a container's spec names it: "network:NAME", or an object that says more, {"network": "shop", "interface": "eth0",
/// "addresses": ["10.89.0.5"], "mac": "02:00:0a:59:00:05", "aliases": ["db"]}, or an array of those. /etc/hosts of those on it has the name,
/// the host name and the aliases of each, until its end was seen (by a wait, a close, or when others start). A container sends from its own addresses only.
pub struct ringfence_network {
    _opaque: [u8; 0],
}

pub(crate) struct Body {
    network: Network,
    name: CString,
}

impl Object for ringfence_network {
    type Body = Body;
    const MAGIC: u64 = u64::from_ne_bytes(*b"rf-net\0\0");
    const NAME: &'static str = "network";
}

fn network_of<T>(network: *const ringfence_network, call: impl FnOnce(&Network) -> Result<T>) -> Result<T> {
    call(&running(network)?.network)
}

fn done(
    network: *const ringfence_network,
    err: *mut *mut ringfence_error,
    call: impl FnOnce(&Network) -> Result<()>,
) -> c_int {
    border(err, -1, || network_of(network, |network| call(network).map(|()| 0)))
}

fn take(result: *mut *mut ringfence_network, find: impl FnOnce() -> Result<Network>) -> Result<c_int> {
    output(result, "result")?;
    let network = find()?;
    let name = c_string(network.name().into());
    // SAFETY: checked not to be NULL, and by the header's contract a place for a pointer.
    unsafe { *result = give(Body { network, name }) };
    Ok(0)
}

/// Makes a network. `options` is JSON, or NULL for the defaults:
///
///   {"name": "shop", "subnets": ["10.1.2.0/24", "fd00:1::/64"], "mtu": 1500, "internal": false, "way_out": "auto"}
///
/// "name": by which containers name it; one that no other has by default. "subnets": at most one of IPv4 and one of IPv6; by default
/// 10.89.0.0/16 and fd4f:9a1c:77e2::/64, or the next ones that no other network of this program overlaps. Networks do not see each
/// other, so that they can have the same; a container is not on two whose subnets overlap. "internal":
/// whether nothing leads out of it, the default; without, by the kernel for root where net.ipv4.ip_forward is set, else by pasta or
/// slirp4netns. "way_out": which it is to be, "kernel", "pasta", "slirp4netns", or "auto". `*result` is for
/// ringfence_network_free().
///
/// Fails with RINGFENCE_KIND_INVALID_SPEC, with RINGFENCE_KIND_ALREADY_EXISTS for a name that is taken, with
/// RINGFENCE_KIND_UNSUPPORTED for a kernel without bridges and their filters, and with field "internal" (or "way_out", where that is given) where
/// nothing can lead out.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_network_start(
    options: *const c_char,
    result: *mut *mut ringfence_network,
    err: *mut *mut ringfence_error,
) -> c_int {
    border_for(length(options), err, -1, || {
        take(result, || {
            let spec = match options.is_null() {
                true => NetworkSpec::new(),
                false => NetworkSpec::from_json(text(options, "options")?)?,
            };
            Network::start(&spec)
        })
    })
}

/// The network of that name of this program. `*result` is one more handle of it, for ringfence_network_free(). Fails with
/// RINGFENCE_KIND_NOT_FOUND.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_network_by_name(
    name: *const c_char,
    result: *mut *mut ringfence_network,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || take(result, || Network::by_name(text(name, "name")?)))
}

/// Starts a container on it, as ringfence_container_start() does; one whose "net" is not set gets a device on this network, eth0. From
/// any thread. `*result` is for ringfence_container_free(), which ends nothing: the network keeps the container until it has
/// ended or is closed, or the network is.
///
/// Fails with RINGFENCE_KIND_ALREADY_EXISTS and the field "net.addresses" for an address that another has, with
/// RINGFENCE_KIND_EXHAUSTED and the field "net" when there is none left, with RINGFENCE_KIND_CLOSED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_network_container(
    network: *const ringfence_network,
    spec: *const ringfence_spec,
    result: *mut *mut ringfence_container,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || {
        output(result, "result")?;
        let container = network_of(network, |network| with_spec(spec, |spec| network.container(spec)))?;
        // SAFETY: as in `take`.
        unsafe { *result = give_container(container) };
        Ok(0)
    })
}

/// Its name; NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_network_name(network: *const ringfence_network) -> *const c_char {
    border(ptr::null_mut(), ptr::null(), || {
        let body = borrow(network)?;
        Ok(CStr::as_ptr(&body.name))
    })
}

/// What it is, as a JSON object (ringfence_string_free()): "name", "subnets", "mtu", "internal", "way_out" ("kernel",
/// "pasta", "slirp4netns" or null), and "members", an array with "container" (its id),
/// "interface", "addresses" and "mac" of each container on it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_network_info_json(
    network: *const ringfence_network,
    err: *mut *mut ringfence_error,
) -> *mut c_char {
    border(err, ptr::null_mut(), || network_of(network, |network| Ok(give_string(network.info_json()))))
}

/// 1 while containers can be started on it, 0 when it has ended; -1 for NULL and in a forked child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_network_is_running(network: *const ringfence_network) -> c_int {
    border(ptr::null_mut(), -1, || network_of(network, |network| Ok(network.is_running().into())))
}

/// The handles of an array.
fn handles(field: &'static str, array: *const *const ringfence_container, count: c_int) -> Result<Vec<Container>> {
    let count = usize::try_from(count)
        .map_err(|_| Error::new(ErrorKind::InvalidArgument, format!("{count} is negative")).with_field(field))?;
    if array.is_null() && count > 0 {
        return Err(Error::new(ErrorKind::InvalidArgument, "is NULL").with_field(field));
    }
    // SAFETY: not NULL, and by the header's contract an array of as many pointers.
    let each = (0..count).map(|i| unsafe { *array.add(i) });
    each.map(|one| Ok(running(one).map_err(|e| e.with_field(field))?.container.clone())).collect()
}

/// Cuts the network: nothing passes between the `one_count` containers of `one` and the `other_count` of `other` any more, whatever the
/// direction; who is in neither reaches both. Further cuts add to it, ringfence_network_heal() takes all away.
///
/// Fails with RINGFENCE_KIND_INVALID_ARGUMENT and the field "one" or "other" for an empty side and for a container on both, with
/// RINGFENCE_KIND_NOT_FOUND for one that is not on the network.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_network_partition(
    network: *const ringfence_network,
    one: *const *const ringfence_container,
    one_count: c_int,
    other: *const *const ringfence_container,
    other_count: c_int,
    err: *mut *mut ringfence_error,
) -> c_int {
    done(network, err, |network| {
        let (one, other) = (handles("one", one, one_count)?, handles("other", other, other_count)?);
        network.partition(&one.iter().collect::<Vec<_>>(), &other.iter().collect::<Vec<_>>())
    })
}

/// Everybody reaches everybody again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_network_heal(
    network: *const ringfence_network,
    err: *mut *mut ringfence_error,
) -> c_int {
    done(network, err, Network::heal)
}

/// Takes a container off the network (`up` 0), or lets it on again: its device has no carrier meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_network_set_link(
    network: *const ringfence_network,
    container: *const ringfence_container,
    up: c_int,
    err: *mut *mut ringfence_error,
) -> c_int {
    done(network, err, |network| network.set_link(&running(container)?.container, up != 0))
}

/// Gives the link of a container a rate, a delay, losses, in the place of what it had. `shape` is JSON, "{}" for the link as it was:
///
///   {"rate": "10M", "delay": "50ms", "jitter": "5ms", "loss": 0.01, "duplicate": 0.01, "reorder": 0.1, "corrupt": 0.001}
///
/// "rate": bytes per second. "loss" and those behind it: shares of the packets, from 0 to 1. `direction` is "both" (each way on its own;
/// NULL is that), "in" for what it receives, "out" for what it sends.
///
/// Fails with RINGFENCE_KIND_INVALID_ARGUMENT and the member as field, with RINGFENCE_KIND_UNSUPPORTED for a kernel without tbf ("rate")
/// or netem (the others).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_network_shape(
    network: *const ringfence_network,
    container: *const ringfence_container,
    shape: *const c_char,
    direction: *const c_char,
    err: *mut *mut ringfence_error,
) -> c_int {
    border_for(length(shape), err, -1, || {
        let shape = Shape::from_json(text(shape, "shape")?)?;
        let direction =
            if direction.is_null() { Direction::Both } else { Direction::parse(text(direction, "direction")?)? };
        network_of(network, |network| network.shape(&running(container)?.container, &shape, direction).map(|()| 0))
    })
}

/// Gives a container another firewall, in the place of what it had, at once: what is open and passes no longer stalls, what still passes
/// goes on. Its counters begin anew. `firewall` is JSON as the key "firewall" of a spec's "net" has it, "{}" lets everything pass:
///
///   {"incoming": "deny", "outgoing": "allow", "rules": [{"direction": "in", "action": "allow", "protocol": "tcp",
///    "ports": [5432, "8000-8010"], "peer": "10.89.0.0/24"}, {"direction": "out", "action": "deny", "peer": "db"}]}
///
/// The first rule that fits decides, then the default of the direction. Answers to what was let pass do pass.
///
/// Fails with RINGFENCE_KIND_INVALID_SPEC and the member as field, like "firewall.rules[0].ports"; with RINGFENCE_KIND_EXHAUSTED for
/// more rules than the kernel takes at once; with RINGFENCE_KIND_NOT_FOUND for a container that is not on the network. The firewall is then
/// what it was.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_network_set_firewall(
    network: *const ringfence_network,
    container: *const ringfence_container,
    firewall: *const c_char,
    err: *mut *mut ringfence_error,
) -> c_int {
    border_for(length(firewall), err, -1, || {
        let firewall = Firewall::from_json(text(firewall, "firewall")?)?;
        network_of(network, |network| network.set_firewall(&running(container)?.container, &firewall).map(|()| 0))
    })
}

/// The firewall of a container as JSON (ringfence_string_free()), with what it decided about since it was set: "packets" and "bytes" in
/// each of "rules", and for what no rule said "defaults": {"incoming": {"packets": 1, "bytes": 60}, "outgoing": ...}. Answers to what
/// had passed are not counted. A container that was given none lets everything pass, and counts nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_network_firewall_json(
    network: *const ringfence_network,
    container: *const ringfence_container,
    err: *mut *mut ringfence_error,
) -> *mut c_char {
    border(err, ptr::null_mut(), || {
        network_of(network, |network| Ok(give_string(network.firewall_json(&running(container)?.container)?)))
    })
}

/// SIGKILL to every process of the containers that ringfence_network_container() started. Does not wait; the network goes on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_network_kill(
    network: *const ringfence_network,
    err: *mut *mut ringfence_error,
) -> c_int {
    done(network, err, Network::kill)
}

/// Ends the containers that ringfence_network_container() started, then the network; waits until everything is undone. Later calls
/// return RINGFENCE_KIND_CLOSED. Closing it again is fine. Fails as ringfence_container_close().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_network_close(
    network: *const ringfence_network,
    timeout_ms: c_int,
    err: *mut *mut ringfence_error,
) -> c_int {
    let timeout = timeout(timeout_ms);
    done(network, err, |network| network.close(timeout?))
}

/// Frees the handle. NULL is fine. With the last one a network that was not closed ends, bounded, and the containers with it that it
/// started.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_network_free(network: *mut ringfence_network) {
    quietly(|| drop(release(network)));
}

/// The container's devices on networks, in the order of its spec, as a JSON array (ringfence_string_free()):
/// [{"network": "shop", "interface": "eth0", "addresses": ["10.89.0.2", "fd4f:9a1c:77e2::2"], "mac": "02:00:0a:59:00:02"}].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_addresses_json(
    container: *const ringfence_container,
    err: *mut *mut ringfence_error,
) -> *mut c_char {
    border(err, ptr::null_mut(), || Ok(give_string(running(container)?.container.addresses_json()?)))
}
