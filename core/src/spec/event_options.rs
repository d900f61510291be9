//! What a reader of events asks for, as JSON.

use super::at::At;
use super::codec::{Codec, Time};
use super::json::{self, Json, wrong_type};
use super::suggest;
use crate::error::Result;
use crate::events::{EventKind, EventOptions, Pressure, PressureLevel, PressureResource};

/// `{"kinds": ["oom_kill", ...], "pressure": [{"resource": "memory", "level": "some", "stall": "150ms", "window": "2s"}]}`
pub(crate) fn event_options(text: &str) -> Result<EventOptions> {
    let json = json::parse(text)?;
    let at = At::Field("options");
    let members = match &json {
        Json::Object(members) => members,
        other => return Err(wrong_type(&at, "an object with kinds and pressure", other)),
    };
    const KNOWN: [&str; 2] = ["kinds", "pressure"];
    if let Some(key) = members.keys().find(|key| !KNOWN.contains(&key.as_str())) {
        return Err(json::unknown_key(&at, key, &KNOWN));
    }
    let mut options = EventOptions::default();
    if let Some(kinds) = json::member(members, "kinds") {
        let at = At::Field("kinds");
        let Json::Array(list) = kinds else { return Err(wrong_type(&at, "a list of kinds", kinds)) };
        let names = EventKind::ALL.map(EventKind::name);
        let read = list.iter().enumerate().map(|(i, json)| named(json, &at.index(i), &names, EventKind::from_name));
        options.kinds = Some(read.collect::<Result<_>>()?);
    }
    if let Some(pressure) = json::member(members, "pressure") {
        let at = At::Field("pressure");
        let Json::Array(list) = pressure else { return Err(wrong_type(&at, "a list of thresholds", pressure)) };
        let read = list.iter().enumerate().map(|(i, json)| threshold(json, &at.index(i)));
        options.pressure = read.collect::<Result<_>>()?;
    }
    options.validate()?;
    Ok(options)
}

fn threshold(json: &Json, at: &At) -> Result<Pressure> {
    let expected = "an object with resource, level, stall and window";
    let members = json::members(json, at, expected, &["resource", "level", "stall", "window"])?;
    let resource = match json::member(members, "resource") {
        Some(json) => named(json, &at.key("resource"), &["memory", "cpu", "io"], PressureResource::from_name)?,
        None => return Err(at.key("resource").error("is missing: memory, cpu or io")),
    };
    let stall = match json::member(members, "stall") {
        Some(json) => Time::read(json, &at.key("stall"))?,
        None => return Err(at.key("stall").error("is missing: how long tasks have to wait within the window")),
    };
    let level = json::member(members, "level")
        .map(|json| named(json, &at.key("level"), &["some", "full"], PressureLevel::from_name));
    let window = json::member(members, "window").map(|json| Time::read(json, &at.key("window")));
    Ok(Pressure {
        level: level.transpose()?.unwrap_or(PressureLevel::Some),
        window: window.transpose()?.unwrap_or(Pressure::WINDOW),
        ..Pressure::new(resource, stall)
    })
}

fn named<T>(json: &Json, at: &At, names: &[&str], from_name: impl Fn(&str) -> Option<T>) -> Result<T> {
    let Json::String(name) = json else { return Err(wrong_type(at, &format!("one of {}", names.join(", ")), json)) };
    from_name(name).ok_or_else(|| {
        let error = at.error(format!("unknown; known are {}", names.join(", ")));
        match suggest::nearest(name, names.iter().copied()) {
            Some(name) => error.with_hint(format!("did you mean {name:?}?")),
            None => error,
        }
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ErrorKind;

    #[test]
    fn what_is_left_out_has_its_default() {
        assert_eq!(event_options("{}"), Ok(EventOptions::default()));
        assert_eq!(event_options(r#"{"kinds": null, "pressure": []}"#), Ok(EventOptions::default()));
        let options = event_options(
            r#"{"kinds": ["oom", "pids_max"], "pressure": [{"resource": "io", "stall": 0.25},
                {"resource": "memory", "level": "full", "stall": "150ms", "window": "4s"}]}"#,
        )
        .unwrap();
        assert_eq!(options.kinds, Some(vec![EventKind::Oom, EventKind::PidsMax]));
        assert_eq!(options.pressure[0], Pressure::new(PressureResource::Io, Duration::from_millis(250)));
        assert_eq!(options.pressure[0].window, Duration::from_secs(2));
        assert_eq!(options.pressure[1].level, PressureLevel::Full);
        assert_eq!(options.pressure[1].window, Duration::from_secs(4));
    }

    #[test]
    fn bad_options_name_their_field() {
        for (text, field, has) in [
            ("[]", "options", "an object"),
            (r#"{"kind": []}"#, "options.kind", "did you mean \"kinds\""),
            (r#"{"kinds": "oom"}"#, "kinds", "a list"),
            (r#"{"kinds": ["oom", "oom_kil"]}"#, "kinds[1]", "did you mean \"oom_kill\""),
            (r#"{"kinds": [7]}"#, "kinds[0]", "the number 7"),
            (r#"{"kinds": ["pressure"]}"#, "kinds[0]", "thresholds"),
            (r#"{"pressure": {}}"#, "pressure", "a list"),
            (r#"{"pressure": [{}]}"#, "pressure[0].resource", "missing"),
            (r#"{"pressure": [{"resource": "irq", "stall": 1}]}"#, "pressure[0].resource", "memory, cpu, io"),
            (r#"{"pressure": [{"resource": "io"}]}"#, "pressure[0].stall", "missing"),
            (r#"{"pressure": [{"resource": "io", "stall": 1, "level": "all"}]}"#, "pressure[0].level", "some, full"),
            (r#"{"pressure": [{"resource": "io", "stall": 0}]}"#, "pressure[0].stall", "0"),
            (r#"{"pressure": [{"resource": "io", "stall": "1.5us"}]}"#, "pressure[0].stall", "microseconds"),
            (r#"{"pressure": [{"resource": "io", "stall": 3}]}"#, "pressure[0].stall", "window"),
            (r#"{"pressure": [{"resource": "io", "stall": 0.1, "window": 0.4}]}"#, "pressure[0].window", "500 ms"),
            (r#"{"pressure": [{"resource": "io", "stall": 0.1, "window": "11s"}]}"#, "pressure[0].window", "10 s"),
            (r#"{"pressure": [{"resource": "io", "stall": "1d"}]}"#, "pressure[0].stall", "not a duration"),
        ] {
            let error = event_options(text).unwrap_err();
            assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidSpec, Some(field)), "{text}: {error}");
            assert!(error.to_string().contains(has), "{text}: {error}");
        }
    }
}
