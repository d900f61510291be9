//! Where in a spec something stands, for errors: `mounts[2].target`, `files["/etc/motd"]`.

use std::fmt;

use crate::error::Error;

/// A place in a spec. Made on the way down, turned into text only when there is something to say.
#[derive(Clone, Copy)]
pub(super) enum At<'a> {
    Field(&'a str),
    Index(&'a At<'a>, usize),
    Key(&'a At<'a>, &'a str),
}

impl<'a> At<'a> {
    pub(super) fn index(&'a self, index: usize) -> At<'a> {
        At::Index(self, index)
    }

    pub(super) fn key(&'a self, key: &'a str) -> At<'a> {
        At::Key(self, key)
    }

    pub(super) fn error(&self, detail: impl Into<String>) -> Error {
        Error::spec(self.to_string(), detail)
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            At::Field(name) => f.write_str(name),
            At::Index(parent, index) => write!(f, "{parent}[{index}]"),
            At::Key(parent, key) => {
                let word = |key: &str| {
                    key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
                };
                if word(key) { write!(f, "{parent}.{key}") } else { write!(f, "{parent}[{key:?}]") }
            }
        }
    }
}
