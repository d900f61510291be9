//! Flags of capabilities(7) that change what uid 0 is and how capabilities pass.

use super::at::At;
use super::codec::Codec;
use super::json::{Json, json, wrong_type};
use super::suggest;
use crate::error::Result;

/// The securebits of a process: bits of prctl(2), PR_SET_SECUREBITS. They pass to everything that it starts; those with
/// `_LOCKED` keep the one before from being changed, for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Securebits(pub u32);

impl Securebits {
    /// uid 0 is a user as any other: it gets no capabilities by an exec.
    pub const NOROOT: u32 = 1;
    pub const NOROOT_LOCKED: u32 = 1 << 1;
    /// A change of ids from or to 0 changes no capabilities.
    pub const NO_SETUID_FIXUP: u32 = 1 << 2;
    pub const NO_SETUID_FIXUP_LOCKED: u32 = 1 << 3;
    /// Refused in a spec: execve(2) clears it, so that no program can begin with it. Its lock is not.
    pub const KEEP_CAPS: u32 = 1 << 4;
    pub const KEEP_CAPS_LOCKED: u32 = 1 << 5;
    /// Nothing can be made ambient.
    pub const NO_CAP_AMBIENT_RAISE: u32 = 1 << 6;
    pub const NO_CAP_AMBIENT_RAISE_LOCKED: u32 = 1 << 7;
    /// For interpreters: only files that could be executed are run. Linux 6.14.
    pub const EXEC_RESTRICT_FILE: u32 = 1 << 8;
    pub const EXEC_RESTRICT_FILE_LOCKED: u32 = 1 << 9;
    /// For interpreters: no program text from a terminal or an argument. Linux 6.14.
    pub const EXEC_DENY_INTERACTIVE: u32 = 1 << 10;
    pub const EXEC_DENY_INTERACTIVE_LOCKED: u32 = 1 << 11;

    /// Those that Linux has since 6.14 only.
    pub(crate) const OF_INTERPRETERS: u32 = 0xf00;

    pub(crate) fn has(self, bit: u32) -> bool {
        self.0 & bit != 0
    }

    /// The names, in the order of the bits.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES.into_iter().enumerate().filter(move |(bit, _)| self.has(1 << bit)).map(|(_, name)| name)
    }

    pub(super) fn validate(self) -> Result<()> {
        let at = At::Field("securebits");
        if self.0 >> NAMES.len() != 0 {
            return Err(at.error(format!("0x{:x} has bits that are none", self.0)));
        }
        if self.has(Self::KEEP_CAPS) {
            return Err(at
                .error("keep_caps is cleared by the exec of the program, which then never has it")
                .with_hint("what a program keeps when it is not root is capabilities.ambient"));
        }
        Ok(())
    }
}

/// linux/securebits.h, by bit.
const NAMES: [&str; 12] = [
    "noroot",
    "noroot_locked",
    "no_setuid_fixup",
    "no_setuid_fixup_locked",
    "keep_caps",
    "keep_caps_locked",
    "no_cap_ambient_raise",
    "no_cap_ambient_raise_locked",
    "exec_restrict_file",
    "exec_restrict_file_locked",
    "exec_deny_interactive",
    "exec_deny_interactive_locked",
];

impl Codec for Securebits {
    type Value = Self;

    fn read(json: &Json, at: &At) -> Result<Self> {
        let bit = |name: &str, at: &At| match NAMES.iter().position(|known| *known == name) {
            Some(bit) => Ok(1 << bit),
            None => {
                let error = at.error(format!("{name:?} is not a securebit; known are {}", NAMES.join(", ")));
                Err(match suggest::nearest(name, NAMES) {
                    Some(near) => error.with_hint(format!("did you mean {near:?}?")),
                    None => error,
                })
            }
        };
        let bits = match json {
            Json::String(text) => text.split(',').try_fold(0, |bits, name| Ok(bits | bit(name.trim(), at)?))?,
            Json::Array(items) => items.iter().enumerate().try_fold(0, |bits, (i, item)| {
                let at = at.index(i);
                let Json::String(name) = item else { return Err(wrong_type(&at, "the name of a securebit", item)) };
                Ok(bits | bit(name, &at)?)
            })?,
            _ => return Err(wrong_type(at, "a list of names", json)),
        };
        Ok(Self(bits))
    }

    fn write(value: &Self) -> Json {
        let unnamed = (NAMES.len() as u32..32).filter(|&bit| value.has(1 << bit)).map(Json::from);
        value.names().map(Json::from).chain(unnamed).collect()
    }

    fn schema() -> Json {
        json!({"anyOf": [
            {"type": "array", "items": {"enum": &NAMES[..]}},
            {"type": "string", "description": "names, with commas between them"},
        ]})
    }
}
