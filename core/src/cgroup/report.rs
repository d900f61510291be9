//! What this machine and this caller can do with control groups.

use super::layout::{self, Controller, Hierarchy, Kind};
use super::parent::{self, Place};
use super::scope;
use crate::error::Error;
use crate::systemd;

/// The layout and what works in it; see [`layout_report`].
#[derive(Clone, Debug)]
pub(crate) struct LayoutReport {
    /// `v2`, `v1`, `hybrid`, `none`.
    pub layout: &'static str,
    /// Where the hierarchies are, for people.
    pub detail: String,
    /// The limits (`memory`, `cpus`, `pids`), then `kill` and `freeze`; under systemd `detach`.
    pub controllers: Vec<ControllerReport>,
}

/// One thing that control groups are needed for.
#[derive(Clone, Debug)]
pub(crate) struct ControllerReport {
    /// The field of the spec, or what is to be done with a container.
    pub name: &'static str,
    pub usable: bool,
    /// Where groups are made for it, or why not.
    pub detail: String,
    pub remedy: Option<String>,
}

/// Looks, and changes nothing: no group is made, no controller enabled.
pub(crate) fn layout_report() -> LayoutReport {
    super::whereabouts();
    let layout = match layout::current() {
        Ok(layout) => layout,
        Err(e) => {
            return LayoutReport { layout: Kind::None.name(), detail: e.to_string(), controllers: Vec::new() };
        }
    };
    let place = Place::choose(None);
    let row = |name: &'static str, found: Result<String, Error>| match found {
        Ok(detail) => ControllerReport { name, usable: true, detail, remedy: None },
        Err(e) => {
            let remedy = e.hint().map(str::to_owned);
            let text = e.to_string();
            let detail = match &remedy {
                Some(hint) => text.strip_suffix(&format!("; {hint}")).unwrap_or(&text).to_owned(),
                None => text,
            };
            ControllerReport { name, usable: false, detail, remedy }
        }
    };
    let place = &place;
    // Only by default, and only where nothing else is there; asked once.
    let manager = systemd::Manager::of_caller();
    let by_scope = matches!(place, Ok(Place::Default)).then(scope::is_needed).filter(|&needed| needed);
    let unit = scope::own_unit();
    let answer = (by_scope.is_some() || unit.is_some()).then(|| manager.ping());
    let scope_for = |h: &Hierarchy, controller: Controller| -> Option<Result<String, Error>> {
        by_scope?;
        match answer.as_ref()? {
            Ok(()) => Some(scope::would_have(h, manager, controller)),
            // Root has its place outside of all units.
            Err(_) if manager == systemd::Manager::System => None,
            Err(e) => Some(Err(e.clone())),
        }
        .map(|found| {
            found.map(|()| format!("cgroup v2, groups in a scope of {}, from the first limit on", manager.name()))
        })
    };
    let limit = |controller: Controller| -> Result<String, Error> {
        let place = place.as_ref().map_err(Clone::clone)?;
        let Some(h) = layout.home(controller) else {
            let (why, remedy) = layout::absence(&layout, controller);
            return Err(Error::new(crate::ErrorKind::Unsupported, why).with_hint(remedy));
        };
        if let Some(found) = scope_for(h, controller) {
            return found;
        }
        let path = parent::probe(h, place, Some(controller))?;
        Ok(format!("cgroup {}, groups in {}", if h.v2 { "v2" } else { "v1" }, path.display()))
    };
    // Without a v2 tree killing takes rounds of signals, and freezing the v1 freezer.
    let v2_tree = || -> Option<Result<String, Error>> {
        let h = layout.v2()?;
        Some(place.as_ref().map_err(Clone::clone).and_then(|place| {
            let path = parent::probe(h, place, Some(Controller::Memory).filter(|&c| h.has(c)))
                .or_else(|_| parent::probe(h, place, None));
            match (path, scope_for(h, Controller::Memory)) {
                (Err(_), Some(found)) => found,
                (path, _) => Ok(format!("cgroup v2, groups in {}", path?.display())),
            }
        }))
    };
    let kill = match v2_tree() {
        Some(result) => result,
        None => {
            limit(Controller::Pids).or_else(|_| limit(Controller::Memory)).map(|d| format!("by rounds of signals: {d}"))
        }
    };
    let mut controllers = vec![
        row("memory", limit(Controller::Memory)),
        row("cpus", limit(Controller::Cpu)),
        row("pids", limit(Controller::Pids)),
        row("kill", kill),
        row("freeze", v2_tree().unwrap_or_else(|| limit(Controller::Freezer))),
    ];
    if let (Some(unit), Some(answer)) = (&unit, &answer) {
        let found =
            answer.clone().and_then(|()| manager.lasts()).map(|()| format!("outlives {unit}, in a scope of its own"));
        controllers.push(row("detach", found));
    }
    let mounts: Vec<String> =
        layout.hierarchies.iter().map(|h| format!("{} at {}", h.label(), h.mount_point.display())).collect();
    LayoutReport { layout: layout.kind().name(), detail: mounts.join(", "), controllers }
}
