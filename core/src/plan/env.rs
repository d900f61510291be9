//! The environment of a payload.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// PATH of the clean base.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The clean base, what is passed through from the caller, what is given; `None` removes.
pub(crate) fn environment(
    home: &OsStr,
    terminal: bool,
    inherit: &[OsString],
    caller: &mut dyn FnMut() -> Vec<(OsString, OsString)>,
    given: &BTreeMap<OsString, Option<OsString>>,
) -> Vec<Vec<u8>> {
    let mut vars: BTreeMap<OsString, OsString> = BTreeMap::new();
    vars.insert("PATH".into(), PATH.into());
    vars.insert("HOME".into(), home.to_owned());
    vars.insert("TERM".into(), if terminal { "xterm" } else { "dumb" }.into());
    vars.insert("LANG".into(), "C.UTF-8".into());
    if !inherit.is_empty() {
        let all = inherit.iter().any(|name| name == "*");
        vars.extend(caller().into_iter().filter(|(name, _)| all || inherit.contains(name)));
    }
    for (name, value) in given {
        match value {
            Some(value) => vars.insert(name.clone(), value.clone()),
            None => vars.remove(name),
        };
    }
    vars.into_iter().map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_beats_inherited_beats_the_base() {
        let given = BTreeMap::from([("A".into(), Some("1".into())), ("TERM".into(), None)]);
        let mut caller = || vec![("A".into(), "0".into()), ("PATH".into(), "/x".into()), ("B".into(), "2".into())];
        let env = environment("/root".as_ref(), false, &["PATH".into(), "A".into()], &mut caller, &given);
        let text: Vec<_> = env.iter().map(|v| String::from_utf8_lossy(v).into_owned()).collect();
        assert_eq!(text, ["A=1", "HOME=/root", "LANG=C.UTF-8", "PATH=/x"]);
    }
}
