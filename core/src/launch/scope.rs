//! Where a start's groups are made; and the scope of systemd in which the keepers are, where that is needed.

use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::fork::{Owner, Turn};
use super::keeper::Keeper;
use crate::cgroup::{Limits, Place, scope};
use crate::error::{Error, ErrorKind, Result};
use crate::proto::request;
use crate::spec::Spec;
use crate::systemd::Manager;

/// The place for the groups of a container of this keeper's. Where no other place will do for what is asked, systemd is
/// asked for a scope, once in the life of a keeper. `needed`: what takes a group, besides limits. `None`: the keeper has left.
pub(crate) fn place(
    keeper: &Keeper,
    spec: &Spec,
    limits: &Limits,
    needed: Option<&'static str>,
) -> Result<Option<Place>> {
    let place = Place::choose(spec.cgroup_parent.as_deref())?;
    let patience = spec.start_timeout.unwrap_or(Spec::START_TIMEOUT);
    if spec.detach {
        return apart(keeper, place, patience).map(Some);
    }
    if place != Place::Default {
        return Ok(Some(place));
    }
    if let Some(scope) = keeper.scope.get() {
        return Ok(Some(scope.clone()));
    }
    let field = limits.first_field()?.or(spec.cpu_time.map(|_| "cpu_time")).or(needed);
    let Some(field) = field else { return Ok(Some(place)) };
    if !scope::is_needed() {
        return Ok(Some(place));
    }
    // A busy manager can take longer than a keeper waits for its first container.
    let Some(_hold) = Hold::begin(keeper)? else { return Ok(None) };
    match share_scope(keeper, patience) {
        Ok(scope) => Ok(Some(scope)),
        // It was on its way out before it was told to wait.
        Err(_) if has_ended(keeper) => Ok(None),
        // Root can do without: outside of all units.
        Err(error) if Manager::of_caller() == Manager::System => {
            log::warn!("no scope for the containers of this process, their groups are in /ringfence: {error}");
            Ok(Some(place))
        }
        Err(error) => Err(because("no control group is delegated to this user", &error).with_field(field)),
    }
}

/// Keeps a keeper without containers from leaving.
struct Hold<'a>(&'a Keeper);

impl<'a> Hold<'a> {
    fn begin(keeper: &'a Keeper) -> Result<Option<Self>> {
        Ok(keeper.send(request::HOLD, 0, 1, 0, &[])?.then(|| Self(keeper)))
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        let _ = self.0.send(request::HOLD, 0, -1, 0, &[]);
    }
}

/// The scope of this host's attached containers; one for all, so that their weights count against each other.
struct Shared {
    owner: Owner,
    unit: String,
    place: Place,
}

static SHARED: Mutex<Option<Arc<Shared>>> = Mutex::new(None);

fn shared() -> std::sync::MutexGuard<'static, Option<Arc<Shared>>> {
    SHARED.lock().unwrap_or_else(|e| e.into_inner())
}

fn share_scope(keeper: &Keeper, patience: Duration) -> Result<Place> {
    static ASKING: AtomicU32 = AtomicU32::new(0);
    // One at a time, or many threads that start at once would get as many scopes.
    let _turn = loop {
        if let Some(turn) = Turn::begin(&ASKING) {
            break turn;
        }
        std::thread::sleep(Duration::from_micros(200));
    };
    if let Some(scope) = keeper.scope.get() {
        return Ok(scope.clone());
    }
    let manager = Manager::of_caller();
    let known = shared().clone().filter(|known| known.owner.is_this());
    if let Some(known) = known
        && manager.attach(&known.unit, &format!("/{}", scope::LEAF), keeper.pid, patience).is_ok()
    {
        return Ok(keeper.enter(known.place.clone()));
    }
    // None yet, or it went with the last keeper in it.
    let (unit, place) = start(manager, keeper, "containers of", patience)?;
    *shared() = Some(Arc::new(Shared { owner: Owner::this(), unit, place: place.clone() }));
    Ok(keeper.enter(place))
}

fn start(manager: Manager, keeper: &Keeper, what: &str, patience: Duration) -> Result<(String, Place)> {
    let unit = format!("ringfence-{}-{}.scope", keeper.pid, keeper.start_time);
    let host = std::fs::read_to_string("/proc/self/comm").unwrap_or_default();
    let description = format!("ringfence: {what} {} ({})", host.trim_end(), std::process::id());
    let slice = scope::own_slice(manager);
    let place = manager
        .start_scope(&unit, slice.as_deref(), &description, keeper.pid, patience)
        .and_then(|group| scope::settle(&group, keeper.pid))
        .inspect_err(|_| {
            if has_ended(keeper) {
                manager.drop_scope(&unit);
            }
        })?;
    log::info!("systemd made {unit}");
    Ok((unit, place))
}

/// What is detached has to outlive its starter's unit, too: systemd ends every process of a unit that it stops.
fn apart(keeper: &Keeper, place: Place, patience: Duration) -> Result<Place> {
    let Some(unit) = scope::own_unit() else { return Ok(place) };
    let doomed = format!("systemd would end it together with {unit}, in which this program runs");
    let (_, scope) = start(Manager::of_caller(), keeper, "detached from", patience)
        .map_err(|error| because(&doomed, &error).with_field("detach"))?;
    if !scope::can_reach(&place, &scope) {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("{doomed}, and from a unit of its own it cannot be in cgroup_parent"),
        )
        .with_field("detach")
        .with_hint("leave cgroup_parent (RINGFENCE_CGROUP_PARENT) out, or give a group below the user's manager"));
    }
    let scope = keeper.enter(scope);
    Ok(if place == Place::Default { scope } else { place })
}

/// Also while nobody has reaped it.
fn has_ended(keeper: &Keeper) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", keeper.pid)).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest.as_bytes()[0]);
    matches!(state, None | Some(b'Z' | b'X')) || crate::state::start_time(keeper.pid) != Some(keeper.start_time)
}

/// Why a scope was asked for, why there is none, and what helps.
fn because(what: &str, why: &Error) -> Error {
    let text = why.to_string();
    let text = why.hint().and_then(|hint| text.strip_suffix(&format!("; {hint}"))).unwrap_or(&text);
    let error = Error::new(why.kind(), format!("{what}, and there is no scope for it: {text}")).with_errno(why.errno());
    match why.hint() {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}
