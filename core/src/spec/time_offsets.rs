//! Offsets of the container's clocks.

use super::at::At;
use super::codec::Codec;
use super::duration;
use super::json::{self, Json, json, wrong_type};
use crate::error::Result;

/// What is added to the container's clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TimeOffsets {
    /// Nanoseconds added to CLOCK_MONOTONIC.
    pub monotonic: i64,
    /// Nanoseconds added to CLOCK_BOOTTIME.
    pub boottime: i64,
}

impl TimeOffsets {
    /// An offset as /proc/PID/timens_offsets takes it: whole seconds, rounded down, and 0 to 999,999,999 nanoseconds.
    pub fn seconds_and_nanoseconds(offset: i64) -> (i64, u32) {
        (offset.div_euclid(1_000_000_000), offset.rem_euclid(1_000_000_000) as u32)
    }
}

impl Codec for TimeOffsets {
    type Value = Self;
    const UNIT: Option<&'static str> = Some("seconds");

    fn read(json: &Json, at: &At) -> Result<Self> {
        let mut offsets = Self::default();
        Self::merge(&mut offsets, json, at)?;
        Ok(offsets)
    }

    /// A clock that is not named keeps its offset.
    fn merge(value: &mut Self, json: &Json, at: &At) -> Result<()> {
        let members = json::members(json, at, "an object with monotonic and boottime", &["monotonic", "boottime"])?;
        for (key, clock) in [("monotonic", &mut value.monotonic), ("boottime", &mut value.boottime)] {
            if let Some(json) = members.get(key) {
                *clock = if json.is_null() { 0 } else { nanoseconds(json, &at.key(key))? };
            }
        }
        Ok(())
    }

    fn write(value: &Self) -> Json {
        let clocks = [("monotonic", value.monotonic), ("boottime", value.boottime)];
        let show = |offset: i64| match offset % 1_000_000_000 {
            0 => Json::from(offset / 1_000_000_000),
            _ => duration::show(offset.into()).into(),
        };
        let given = clocks.into_iter().filter(|(_, offset)| *offset != 0);
        Json::Object(given.map(|(key, offset)| (key.to_owned(), show(offset))).collect())
    }

    fn schema() -> Json {
        let clock = json!({"anyOf": [
            {"type": "number"},
            {"type": "string", "pattern": "^[+-]?[0-9]+(\\.[0-9]+)?(h|m|s|ms|us|ns)?$"},
            {"type": "null"},
        ]});
        json!({"type": "object", "additionalProperties": false, "properties": {"monotonic": clock, "boottime": clock}})
    }
}

fn nanoseconds(json: &Json, at: &At) -> Result<i64> {
    let too_long = || at.error(format!("{json} s are too long"));
    match json {
        Json::String(text) => duration::parse_signed(text).map_err(|why| at.error(why)),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(seconds), _) => seconds.checked_mul(1_000_000_000).ok_or_else(too_long),
            (_, Some(seconds)) => {
                let nanoseconds = (seconds * 1e9).round();
                if nanoseconds.abs() < i64::MAX as f64 { Ok(nanoseconds as i64) } else { Err(too_long()) }
            }
            (None, None) => Err(too_long()),
        },
        _ => Err(wrong_type(at, &format!("an offset ({}, with a sign)", duration::FORMS), json)),
    }
}
