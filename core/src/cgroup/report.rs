//! What this machine and this caller can do with control groups.

use super::layout::{self, Controller, Kind};
use super::parent::{self, Place};
use crate::error::Error;

/// The layout and what works in it; see [`layout_report`].
#[derive(Clone, Debug)]
pub(crate) struct LayoutReport {
    /// `v2`, `v1`, `hybrid`, `none`.
    pub layout: &'static str,
    /// Where the hierarchies are, for people.
    pub detail: String,
    /// The limits (`memory`, `cpus`, `pids`), then `kill` and `freeze`.
    pub controllers: Vec<ControllerReport>,
}

/// One thing that control groups are needed for.
#[derive(Clone, Debug)]
pub(crate) struct ControllerReport {
    /// The field of the spec, or `kill`, `freeze`.
    pub name: &'static str,
    pub usable: bool,
    /// Where groups are made for it, or why not.
    pub detail: String,
    pub remedy: Option<String>,
}

/// Looks, and changes nothing: no group is made, no controller enabled.
pub(crate) fn layout_report() -> LayoutReport {
    if layout::refresh_if_moved() {
        parent::forget();
    }
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
    let limit = |controller: Controller| -> Result<String, Error> {
        let place = place.as_ref().map_err(Clone::clone)?;
        let Some(h) = layout.home(controller) else {
            let (why, remedy) = layout::absence(&layout, controller);
            return Err(Error::new(crate::ErrorKind::Unsupported, why).with_hint(remedy));
        };
        let path = parent::probe(h, place, Some(controller))?;
        Ok(format!("cgroup {}, groups in {}", if h.v2 { "v2" } else { "v1" }, path.display()))
    };
    // Without a v2 tree killing takes rounds of signals, and freezing the v1 freezer.
    let v2_tree = || -> Option<Result<String, Error>> {
        let h = layout.v2()?;
        Some(place.as_ref().map_err(Clone::clone).and_then(|place| {
            let path = parent::probe(h, place, Some(Controller::Memory).filter(|&c| h.has(c)))
                .or_else(|_| parent::probe(h, place, None))?;
            Ok(format!("cgroup v2, groups in {}", path.display()))
        }))
    };
    let kill = match v2_tree() {
        Some(result) => result,
        None => {
            limit(Controller::Pids).or_else(|_| limit(Controller::Memory)).map(|d| format!("by rounds of signals: {d}"))
        }
    };
    let controllers = vec![
        row("memory", limit(Controller::Memory)),
        row("cpus", limit(Controller::Cpu)),
        row("pids", limit(Controller::Pids)),
        row("kill", kill),
        row("freeze", v2_tree().unwrap_or_else(|| limit(Controller::Freezer))),
    ];
    let mounts: Vec<String> =
        layout.hierarchies.iter().map(|h| format!("{} at {}", h.label(), h.mount_point.display())).collect();
    LayoutReport { layout: layout.kind().name(), detail: mounts.join(", "), controllers }
}
