//! Spec + what the machine offers -> Plan: pure functions, no system call.

use crate::error::Result;
use crate::spec::Spec;

/// What a start would do, step by step. `Display` is for people.
#[derive(Clone, Debug)]
pub struct Plan {}

impl Plan {
    /// `{"steps": [{"section", "index", "field", "call", "args", "path"}...], "undo": [...], ...}`
    pub fn to_json(&self) -> String {
        unimplemented!()
    }
}

impl std::fmt::Display for Plan {
    fn fmt(&self, _f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        unimplemented!()
    }
}

/// Explains a start without doing it.
pub fn plan(spec: &Spec) -> Result<Plan> {
    let _ = spec;
    unimplemented!()
}
