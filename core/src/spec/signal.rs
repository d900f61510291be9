//! Signals by name and number.

/// The signals of signal(7) by number; 16 (SIGSTKFLT) and 29 (SIGIO) have a second name in the table of aliases.
const NAMES: [&str; 31] = [
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGSTKFLT",
    "SIGCHLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGWINCH",
    "SIGIO",
    "SIGPWR",
    "SIGSYS",
];

const ALIASES: [(&str, i32); 4] = [("SIGIOT", 6), ("SIGCLD", 17), ("SIGPOLL", 29), ("SIGUNUSED", 31)];

/// The C libraries keep 32 and 33 for their threads.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// The highest signal number.
pub(crate) const MAX: i32 = RTMAX;

/// The name of a signal, like `SIGTERM`; `SIGRTMIN+3` for the real-time ones; `None` for 0, 32, 33 and what is no signal.
pub fn name(signal: i32) -> Option<String> {
    match signal {
        1..=31 => Some(NAMES[signal as usize - 1].to_owned()),
        RTMIN => Some("SIGRTMIN".to_owned()),
        _ if (RTMIN..=RTMAX).contains(&signal) => Some(format!("SIGRTMIN+{}", signal - RTMIN)),
        _ => None,
    }
}

/// The signal that text names: `SIGTERM`, `TERM`, `term`, `15`, `RTMIN+3`, `RTMAX-1`.
///
/// # Errors
/// A sentence, when there is no such signal.
pub fn parse(text: &str) -> Result<i32, String> {
    let unknown = || format!("{text:?} is not a signal; give a number from 1 to {MAX} or a name like \"SIGTERM\"");
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return match text.parse() {
            Ok(number) if (1..=MAX).contains(&number) && !text.starts_with('0') => Ok(number),
            _ => Err(unknown()),
        };
    }
    let upper = text.to_ascii_uppercase();
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |rest: &str| match rest {
        "" => Some(0),
        _ => rest.strip_prefix(['+', '-'])?.starts_with(|c: char| c.is_ascii_digit()).then(|| rest.parse().ok())?,
    };
    let number = if let Some(rest) = short.strip_prefix("RTMIN") {
        offset(rest).filter(|n| (0..=RTMAX - RTMIN).contains(n)).map(|n| RTMIN + n)
    } else if let Some(rest) = short.strip_prefix("RTMAX") {
        offset(rest).filter(|n| (RTMIN - RTMAX..=0).contains(n)).map(|n| RTMAX + n)
    } else {
        let named = NAMES.iter().position(|name| &name[3..] == short).map(|index| index as i32 + 1);
        named.or_else(|| ALIASES.iter().find(|(name, _)| &name[3..] == short).map(|(_, number)| *number))
    };
    number.ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_the_kernels() {
        for (text, number) in [
            ("SIGTERM", libc::SIGTERM),
            ("TERM", libc::SIGTERM),
            ("kill", libc::SIGKILL),
            ("SIGUSR2", libc::SIGUSR2),
            ("SIGCLD", libc::SIGCHLD),
            ("SIGSYS", libc::SIGSYS),
            ("9", 9),
            ("64", 64),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX", 64),
            ("RTMAX-1", 63),
        ] {
            assert_eq!(parse(text), Ok(number), "{text}");
        }
        for text in
            ["", "0", "65", "-1", "+9", "09", "SIG", "SIGSIGTERM", "NOPE", "RTMIN+31", "RTMAX+1", "RTMIN3", "RTMIN+"]
        {
            assert!(parse(text).is_err(), "{text:?}");
        }
        for number in 1..=MAX {
            if let Some(name) = name(number) {
                assert_eq!(parse(&name), Ok(number));
            }
        }
        assert_eq!((name(0), name(32), name(65)), (None, None, None));
    }

    proptest! {
        #[test]
        fn never_panics(text in "(SIG)?(RTMIN|RTMAX)?.{0,12}") {
            let _ = parse(&text);
        }
    }
}
