//! Users and groups as text: `uid`, `name`, `uid:gid`, `name:group`.

/// The highest id: the kernel keeps 4294967295, which is -1, for "no change".
pub const MAX_ID: u32 = u32::MAX - 1;

/// Names in the user database: useradd(8) allows 256 with the NUL (LOGIN_NAME_MAX).
const MAX_NAME: usize = 255;

/// The user that a process is to have: the text of `user`, understood.
///
/// Strict, because a lenient reader of ids makes root out of a mistake: in CVE-2026-30892 `-u 1` ran as root. Ids are decimal
/// digits only, without sign, blanks or leading zeros; whatever begins with a digit has to be an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserSpec {
    /// Before the colon.
    pub user: IdOrName,
    /// After the colon.
    pub group: Option<IdOrName>,
}

/// A user or a group: by id, or by a name to be looked up in the container's own files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdOrName {
    /// 0 to 4294967294.
    Id(u32),
    /// A letter or underscore, then letters, digits, `_`, `-` and `.`, perhaps a `$` at the end; at most 255 bytes.
    Name(String),
}

impl UserSpec {
    /// # Errors
    /// A sentence that says which part is wrong, and why.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let group = match group {
            Some("") => return Err(format!("{text:?} has no group after the colon")),
            Some(group) => Some(IdOrName::parse(group)?),
            None => None,
        };
        Ok(Self { user: IdOrName::parse(user)?, group })
    }
}

impl IdOrName {
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bytes = text.as_bytes();
        match bytes.first() {
            None => Err("an empty name is no user or group".to_owned()),
            Some(b'0'..=b'9') => Self::parse_id(text).map(Self::Id),
            Some(b'A'..=b'Z' | b'a'..=b'z' | b'_') => {
                let inner = bytes.strip_suffix(b"$").unwrap_or(bytes);
                let known = |b: &u8| b.is_ascii_alphanumeric() || b"_-.".contains(b);
                if !inner.iter().all(known) {
                    return Err(format!("{text:?} is not a name: letters, digits, \"_\", \"-\" and \".\" are"));
                }
                if bytes.len() > MAX_NAME {
                    return Err(format!("a name of {} bytes is longer than {MAX_NAME}", bytes.len()));
                }
                Ok(Self::Name(text.to_owned()))
            }
            Some(_) => Err(format!("{text:?} is neither a name nor an id in decimal digits")),
        }
    }

    fn parse_id(text: &str) -> Result<u32, String> {
        if !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(format!("{text:?} begins with a digit but is no id in decimal digits"));
        }
        if text.len() > 1 && text.starts_with('0') {
            return Err(format!("{text:?} has a leading zero, which could be meant as octal"));
        }
        match text.parse() {
            Ok(id) if id <= MAX_ID => Ok(id),
            _ => Err(format!("{text:?} is above the highest id, {MAX_ID}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_and_names() {
        let id = IdOrName::Id;
        let name = |text: &str| IdOrName::Name(text.to_owned());
        for (text, user, group) in [
            ("0", id(0), None),
            ("1", id(1), None),
            ("4294967294", id(MAX_ID), None),
            ("1000:100", id(1000), Some(id(100))),
            ("root", name("root"), None),
            ("www-data:adm", name("www-data"), Some(name("adm"))),
            ("host$:0", name("host$"), Some(id(0))),
            ("_apt", name("_apt"), None),
            ("John.Doe", name("John.Doe"), None),
        ] {
            assert_eq!(UserSpec::parse(text), Ok(UserSpec { user, group }), "{text}");
        }
    }

    #[test]
    fn nothing_becomes_root_by_mistake() {
        for text in [
            "",
            ":",
            "1:",
            ":1",
            "+1",
            "-1",
            " 1",
            "1 ",
            "1\n",
            "1\0",
            "\0",
            "0x1",
            "0x0",
            "00",
            "01",
            "1e3",
            "1a",
            "0root",
            "4294967295",
            "4294967296",
            "18446744073709551616",
            "99999999999999999999999",
            "-0",
            "+0",
            "0:",
            "0:0:0",
            "root:",
            "root:root:root",
            "../x",
            "a/b",
            "a b",
            "a$b",
            "$",
            "-a",
            ".a",
            "é",
            "٠",
            "１",
        ] {
            assert!(UserSpec::parse(text).is_err(), "{text:?}");
        }
        assert!(IdOrName::parse(&"a".repeat(255)).is_ok());
        assert!(IdOrName::parse(&"a".repeat(256)).is_err());
    }

    proptest! {
        #[test]
        fn reads_back_or_refuses(text in "[0-9a-z+:x$ \\x00_.-]{0,14}|\\PC{0,12}") {
            if let Ok(read) = UserSpec::parse(&text) {
                let part = |part: &IdOrName| match part {
                    IdOrName::Id(id) => id.to_string(),
                    IdOrName::Name(name) => name.clone(),
                };
                let again = match &read.group {
                    Some(group) => format!("{}:{}", part(&read.user), part(group)),
                    None => part(&read.user),
                };
                prop_assert_eq!(&again, &text);
                // Id 0 comes from "0" and from nothing else.
                prop_assert!(read.user != IdOrName::Id(0) || text == "0" || text.starts_with("0:"));
            }
        }
    }
}
