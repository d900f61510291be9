//! What a container is to have before it is ready, as JSON.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::at::At;
use super::json::{self, Json, wrong_type};
use crate::container::{HttpCheck, PortCheck, WaitFor};
use crate::error::{ErrorKind, Result};

const KNOWN: [&str; 5] = ["port", "log", "path", "command", "http"];

/// `{"port": [5432, "53/udp"], "log": "regex", "path": "/run/x", "command": ["pg_isready"], "http": "http://127.0.0.1:80/"}`
pub(crate) fn wait_for(text: &str) -> Result<WaitFor> {
    read(text).map_err(|e| e.with_kind(ErrorKind::InvalidArgument))
}

fn read(text: &str) -> Result<WaitFor> {
    let json = json::parse(text)?;
    let members = json::members(&json, &At::Field("conditions"), "an object with conditions", &KNOWN)?;
    let each = |key: &'static str, read: &mut dyn FnMut(&Json, &At) -> Result<()>| match json::member(members, key) {
        None => Ok(()),
        Some(Json::Array(list)) => {
            list.iter().enumerate().try_for_each(|(i, json)| read(json, &At::Field(key).index(i)))
        }
        Some(json) => read(json, &At::Field(key)),
    };
    let mut wanted = WaitFor::default();
    each("port", &mut |json, at| {
        wanted.ports.push(port(json, at)?);
        Ok(())
    })?;
    each("log", &mut |json, at| match json {
        Json::String(pattern) => {
            wanted.logs.push(pattern.clone());
            Ok(())
        }
        other => Err(wrong_type(at, "a regular expression", other)),
    })?;
    each("path", &mut |json, at| match json::bytes(json, at)? {
        Some(path) => {
            wanted.paths.push(PathBuf::from(path));
            Ok(())
        }
        None => Err(wrong_type(at, "a path", json)),
    })?;
    if let Some(command) = json::member(members, "command") {
        let at = At::Field("command");
        let Json::Array(list) = command else { return Err(wrong_type(&at, "a list of arguments", command)) };
        for (i, json) in list.iter().enumerate() {
            let at = at.index(i);
            let argument: OsString =
                json::bytes(json, &at)?.ok_or_else(|| wrong_type(&at, "an argument (text)", json))?;
            if argument.as_bytes().contains(&0) {
                return Err(at.error("has a NUL byte"));
            }
            wanted.command.push(argument);
        }
        if list.is_empty() {
            return Err(at.error("has no program"));
        }
    }
    if let Some(http) = json::member(members, "http") {
        let at = At::Field("http");
        wanted.http = Some(match http {
            Json::String(url) => HttpCheck { url: url.clone(), status: None },
            _ => {
                let members = json::members(http, &at, "a URL, or an object with url and status", &["url", "status"])?;
                let url = match json::member(members, "url") {
                    Some(Json::String(url)) => url.clone(),
                    Some(other) => return Err(wrong_type(&at.key("url"), "a URL", other)),
                    None => return Err(at.key("url").error("is missing")),
                };
                let status = json::member(members, "status").map(|json| {
                    let status = json::integer(json).and_then(|n| u16::try_from(n).ok());
                    status.ok_or_else(|| wrong_type(&at.key("status"), "a status from 100 to 599", json))
                });
                HttpCheck { url, status: status.transpose()? }
            }
        });
    }
    wanted.validate()?;
    Ok(wanted)
}

fn port(json: &Json, at: &At) -> Result<PortCheck> {
    let expected = "a port from 1 to 65535, or text like \"53/udp\"";
    let (number, udp) = match json {
        Json::String(text) => {
            let (number, udp) = match text.split_once('/') {
                None => (text.as_str(), false),
                Some((number, "tcp")) => (number, false),
                Some((number, "udp")) => (number, true),
                Some((_, other)) => return Err(at.error(format!("unknown protocol {other:?}; known are tcp, udp"))),
            };
            let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
            (digits.then(|| number.parse().unwrap_or(i128::MAX)), udp)
        }
        _ => (json::integer(json), false),
    };
    match number.ok_or_else(|| wrong_type(at, expected, json))? {
        number @ 1..=65535 => Ok(PortCheck { number: number as u16, udp }),
        _ => Err(at.error("is not in the range 1 to 65535")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms() {
        let all = wait_for(
            r#"{"port": [5432, "53/udp", "80"], "log": "ready", "path": ["/run/x", {"base64": "L/8="}],
                "command": ["pg_isready", "-q"], "http": {"url": "http://[::1]:8080/health?x=1", "status": 204}}"#,
        )
        .unwrap();
        let tcp = |number| PortCheck { number, udp: false };
        assert_eq!(all.ports, [tcp(5432), PortCheck { number: 53, udp: true }, tcp(80)]);
        assert_eq!(all.logs, ["ready"]);
        assert_eq!(all.paths[1].as_os_str().as_bytes(), b"/\xff");
        assert_eq!(all.command, ["pg_isready", "-q"]);
        assert_eq!(all.http, Some(HttpCheck { url: "http://[::1]:8080/health?x=1".into(), status: Some(204) }));
        let one = wait_for(r#"{"port": 1, "http": "http://localhost"}"#).unwrap();
        assert_eq!(one, WaitFor::default().port(1).http("http://localhost"));
    }

    #[test]
    fn bad_conditions_name_their_field() {
        for (text, field, has) in [
            ("{}", Some("conditions"), "nothing"),
            (r#"{"port": []}"#, Some("conditions"), "nothing"),
            ("[]", Some("conditions"), "an object"),
            (r#"{"ports": 80}"#, Some("conditions.ports"), "did you mean \"port\""),
            (r#"{"port": 0}"#, Some("port"), "1 to 65535"),
            (r#"{"port": 70000}"#, Some("port"), "1 to 65535"),
            (r#"{"port": "x"}"#, Some("port"), "a port"),
            (r#"{"port": "+80"}"#, Some("port"), "a port"),
            (r#"{"port": [80, "99999999999999999999999999999999999999999999/tcp"]}"#, Some("port[1]"), "65535"),
            (r#"{"port": "53/sctp"}"#, Some("port"), "tcp, udp"),
            (r#"{"port": true}"#, Some("port"), "true"),
            (r#"{"log": "("}"#, Some("log"), "unclosed group"),
            (r#"{"log": 7}"#, Some("log"), "a regular expression"),
            (r#"{"path": "run/x"}"#, Some("path"), "absolute"),
            (r#"{"path": ""}"#, Some("path"), "absolute"),
            (r#"{"path": "/a\u0000"}"#, Some("path"), "NUL"),
            (r#"{"command": "pg_isready"}"#, Some("command"), "a list"),
            (r#"{"command": []}"#, Some("command"), "no program"),
            (r#"{"command": ["a", "\u0000"]}"#, Some("command[1]"), "NUL"),
            (r#"{"http": "https://127.0.0.1/"}"#, Some("http"), "https"),
            (r#"{"http": "ftp://127.0.0.1/"}"#, Some("http"), "http://"),
            (r#"{"http": "http://example.org/"}"#, Some("http"), "looked up"),
            (r#"{"http": "http://127.0.0.1:0/"}"#, Some("http"), "port"),
            (r#"{"http": "http://127.0.0.1:99999/"}"#, Some("http"), "port"),
            (r#"{"http": "http://u:p@127.0.0.1/"}"#, Some("http"), "logs in"),
            (r#"{"http": "http://127.0.0.1/a b"}"#, Some("http"), "character"),
            (r#"{"http": "http://127.0.0.1/a\r\nX: y"}"#, Some("http"), "character"),
            (r#"{"http": {"status": 200}}"#, Some("http.url"), "missing"),
            (r#"{"http": {"url": "http://127.0.0.1/", "status": 99}}"#, Some("http.status"), "100 to 599"),
            (r#"{"http": {"url": "http://127.0.0.1/", "statu": 200}}"#, Some("http.statu"), "did you mean \"status\""),
        ] {
            let error = wait_for(text).unwrap_err();
            assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidArgument, field), "{text}: {error}");
            assert!(error.to_string().contains(has), "{text}: {error}");
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }
}
