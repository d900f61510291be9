//! Which part of a log is wanted, as JSON.

use super::at::At;
use super::json::{self, Json, wrong_type};
use crate::container::LogOptions;
use crate::error::{ErrorKind, Result};

/// `{"tail": 50, "since": 0, "follow": true}`
pub(crate) fn log_options(text: &str) -> Result<LogOptions> {
    read(text).map_err(|e| e.with_kind(ErrorKind::InvalidArgument))
}

fn read(text: &str) -> Result<LogOptions> {
    let json = json::parse(text)?;
    let members = json::members(
        &json,
        &At::Field("options"),
        "an object with tail, since and follow",
        &["tail", "since", "follow"],
    )?;
    let number = |key: &'static str, what: &str| match json::member(members, key) {
        None => Ok(None),
        Some(json) => match json::integer(json).map(u64::try_from) {
            Some(Ok(number)) => Ok(Some(number)),
            Some(Err(_)) => Err(At::Field(key).error(format!("{json} is not in the range 0 to {}", u64::MAX))),
            None => Err(wrong_type(&At::Field(key), what, json)),
        },
    };
    let follow = match json::member(members, "follow") {
        None => false,
        Some(Json::Bool(follow)) => *follow,
        Some(other) => return Err(wrong_type(&At::Field("follow"), "true or false", other)),
    };
    let tail = number("tail", "a number of lines")?;
    Ok(LogOptions { tail, since: number("since", "a number of bytes")?.unwrap_or(0), follow })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_has_its_default() {
        assert_eq!(log_options("{}"), Ok(LogOptions::default()));
        let all = LogOptions { tail: Some(3), since: 17, follow: true };
        assert_eq!(log_options(r#"{"tail": 3, "since": 17.0, "follow": true}"#), Ok(all));
        assert_eq!(log_options(r#"{"tail": null, "since": null, "follow": null}"#), Ok(LogOptions::default()));
    }

    #[test]
    fn bad_options_name_their_field() {
        for (text, field, has) in [
            ("7", Some("options"), "an object"),
            ("{", None, "JSON"),
            (r#"{"tial": 3}"#, Some("options.tial"), "did you mean \"tail\""),
            (r#"{"tail": -1}"#, Some("tail"), "-1"),
            (r#"{"tail": 1.5}"#, Some("tail"), "lines"),
            (r#"{"since": "10m"}"#, Some("since"), "bytes"),
            (r#"{"since": 1e30}"#, Some("since"), "bytes"),
            (r#"{"follow": 1}"#, Some("follow"), "true or false"),
        ] {
            let error = log_options(text).unwrap_err();
            assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidArgument, field), "{text}: {error}");
            assert!(error.to_string().contains(has), "{text}: {error}");
        }
    }
}
