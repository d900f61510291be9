//! What happens on a link, as JSON.

use super::at::At;
use super::codec::{Codec, Size, Time};
use super::json::{self, Json, wrong_type};
use crate::error::{ErrorKind, Result};
use crate::net::Shape;

const KNOWN: [&str; 7] = ["rate", "delay", "jitter", "loss", "duplicate", "reorder", "corrupt"];

/// `{"rate": "10M", "delay": "50ms", "jitter": "5ms", "loss": 0.01, "duplicate": 0.01, "reorder": 0.1, "corrupt": 0.001}`
pub(crate) fn link_shape(text: &str) -> Result<Shape> {
    read(text).map_err(|e| e.with_kind(ErrorKind::InvalidArgument))
}

fn read(text: &str) -> Result<Shape> {
    let json = json::parse(text)?;
    let members = json::members(&json, &At::Field("shape"), "an object", &KNOWN)?;
    let time = |key: &'static str| {
        let read = json::member(members, key).map(|json| Time::read(json, &At::Field(key)));
        read.transpose().map(Option::unwrap_or_default)
    };
    let share = |key: &'static str| match json::member(members, key) {
        None => Ok(0.0),
        Some(Json::Number(number)) => Ok(number.as_f64().unwrap_or(f64::NAN)),
        Some(other) => Err(wrong_type(&At::Field(key), "a share from 0 to 1", other)),
    };
    let rate = json::member(members, "rate").map(|json| Size::read(json, &At::Field("rate"))).transpose()?;
    let shape = Shape {
        rate,
        delay: time("delay")?,
        jitter: time("jitter")?,
        loss: share("loss")?,
        duplicate: share("duplicate")?,
        reorder: share("reorder")?,
        corrupt: share("corrupt")?,
    };
    shape.validate()?;
    Ok(shape)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn all_members() {
        let all = r#"{"rate": "10M", "delay": "50ms", "jitter": 0.005, "loss": 0.01, "duplicate": 0.02, "reorder": 0.1, "corrupt": 1}"#;
        let shape = Shape {
            rate: Some(10 << 20),
            delay: Duration::from_millis(50),
            jitter: Duration::from_millis(5),
            loss: 0.01,
            duplicate: 0.02,
            reorder: 0.1,
            corrupt: 1.0,
        };
        assert_eq!(link_shape(all).unwrap(), shape);
        assert_eq!(link_shape("{}").unwrap(), Shape::default());
    }

    #[test]
    fn bad_shapes_name_their_field() {
        for (text, field) in [
            ("[]", "shape"),
            (r#"{"lost": 1}"#, "shape.lost"),
            (r#"{"loss": "1%"}"#, "loss"),
            (r#"{"loss": 2}"#, "loss"),
            (r#"{"rate": "fast"}"#, "rate"),
            (r#"{"rate": 10}"#, "rate"),
            (r#"{"delay": -1}"#, "delay"),
            (r#"{"delay": "2h"}"#, "delay"),
            (r#"{"jitter": "1ms"}"#, "jitter"),
            (r#"{"reorder": 0.5}"#, "reorder"),
        ] {
            let error = link_shape(text).unwrap_err();
            assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidArgument, Some(field)), "{text}: {error}");
        }
    }
}
