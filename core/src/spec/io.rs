//! Limits and shares of block devices.

use super::at::At;
use super::codec::{Codec, Size};
use super::json::{self, Json, json, wrong_type};
use crate::error::Result;

/// What may be read and written in a second on one device. `None`: not limited.
///
/// In JSON an object with these keys; text is `rbps=1M wiops=100`, as the kernel writes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoMax {
    /// Bytes read per second.
    pub rbps: Option<u64>,
    /// Bytes written per second.
    pub wbps: Option<u64>,
    /// Reads per second.
    pub riops: Option<u64>,
    /// Writes per second.
    pub wiops: Option<u64>,
}

impl IoMax {
    pub(crate) const KEYS: [&'static str; 4] = ["rbps", "wbps", "riops", "wiops"];

    /// The values in the order of the keys.
    pub(crate) fn values(&self) -> [Option<u64>; 4] {
        [self.rbps, self.wbps, self.riops, self.wiops]
    }

    pub(super) fn validate(&self, at: &At) -> Result<()> {
        if self.values().iter().all(Option::is_none) {
            return Err(at.error(format!("limits nothing; give {}", Self::KEYS.join(", "))));
        }
        for (key, value) in Self::KEYS.iter().zip(self.values()) {
            match value {
                Some(0) => return Err(at.key(key).error("0 per second: nothing would ever come through")),
                // The kernel counts operations in 32 bits, and takes more for "no limit".
                Some(n) if key.ends_with("iops") && n >= u64::from(u32::MAX) => {
                    return Err(at.key(key).error(format!("{n} is more than Linux can count")));
                }
                Some(n) if n >= i64::MAX as u64 => {
                    return Err(at.key(key).error(format!("{n} is more than Linux can count")));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Codec for IoMax {
    type Value = Self;

    fn read(json: &Json, at: &At) -> Result<Self> {
        let members = match json {
            Json::String(text) => {
                let mut members = json::Members::new();
                for word in text.split_ascii_whitespace() {
                    let Some((key, value)) = word.split_once('=') else {
                        return Err(at.error(format!("{word:?} is not KEY=VALUE, like \"rbps=1M wiops=100\"")));
                    };
                    members.insert(key.to_owned(), value.into());
                }
                &Json::Object(members)
            }
            Json::Object(_) => json,
            _ => return Err(wrong_type(at, "an object with rbps, wbps, riops, wiops", json)),
        };
        let members = json::members(members, at, "", &Self::KEYS)?;
        let value = |key: &str| json::member(members, key).map(|json| Size::read(json, &at.key(key))).transpose();
        Ok(Self { rbps: value("rbps")?, wbps: value("wbps")?, riops: value("riops")?, wiops: value("wiops")? })
    }

    fn write(value: &Self) -> Json {
        let given = Self::KEYS.iter().zip(value.values());
        Json::Object(given.filter_map(|(key, value)| Some(((*key).to_owned(), Json::from(value?)))).collect())
    }

    fn schema() -> Json {
        let size = json!({"$ref": "#/$defs/size"});
        json!({"anyOf": [
            {"type": "object", "additionalProperties": false,
                "properties": {"rbps": size, "wbps": size, "riops": size, "wiops": size}},
            {"type": "string", "pattern": "^[rw](bps|iops)=[^ ]+( [rw](bps|iops)=[^ ]+)*$"},
        ]})
    }
}

/// A weight of 1 to 10000, or OpenVZ's priority: `ioprio:0` to `ioprio:7`.
pub(super) struct IoWeight;

/// OpenVZ: 0 to 7, the greater the more, 4 by default, which is the default weight here.
fn of_priority(priority: u64) -> u64 {
    (priority + 1) * 20
}

impl Codec for IoWeight {
    type Value = u64;

    fn read(json: &Json, at: &At) -> Result<u64> {
        match json {
            Json::Number(number) if number.is_u64() => Ok(number.as_u64().unwrap_or_default()),
            Json::String(text) => match text.strip_prefix("ioprio:").map(str::parse::<u64>) {
                Some(Ok(priority)) if priority <= 7 => Ok(of_priority(priority)),
                Some(_) => Err(at.error(format!("{text:?}: the priority is 0 to 7"))),
                None => match text.parse() {
                    Ok(weight) if text.bytes().all(|b| b.is_ascii_digit()) => Ok(weight),
                    _ => Err(
                        at.error(format!("{text:?} is neither a weight (1 to 10000) nor \"ioprio:0\" to \"ioprio:7\""))
                    ),
                },
            },
            _ => Err(wrong_type(at, "a weight (1 to 10000) or \"ioprio:0\" to \"ioprio:7\"", json)),
        }
    }

    fn write(value: &u64) -> Json {
        (*value).into()
    }

    fn schema() -> Json {
        json!({"anyOf": [
            {"type": "integer", "minimum": 1, "maximum": 10000},
            {"type": "string", "pattern": "^(ioprio:[0-7]|[0-9]+)$"},
        ]})
    }
}

/// The most handles and objects of one RDMA device. `None`: not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RdmaMax {
    /// Open handles of the device.
    pub hca_handle: Option<u64>,
    /// Objects such as queue pairs and memory regions.
    pub hca_object: Option<u64>,
}

impl RdmaMax {
    const KEYS: [&'static str; 2] = ["hca_handle", "hca_object"];

    pub(super) fn validate(&self, at: &At) -> Result<()> {
        if *self == Self::default() {
            return Err(at.error("limits nothing; give hca_handle or hca_object"));
        }
        for (key, value) in Self::KEYS.iter().zip([self.hca_handle, self.hca_object]) {
            if value.is_some_and(|n| n > i32::MAX as u64) {
                return Err(at.key(key).error("is more than Linux can count (2147483647)"));
            }
        }
        Ok(())
    }
}

impl Codec for RdmaMax {
    type Value = Self;

    fn read(json: &Json, at: &At) -> Result<Self> {
        let members = json::members(json, at, "an object with hca_handle and hca_object", &Self::KEYS)?;
        let value = |key: &str| {
            json::member(members, key).map(|json| super::codec::Count::read(json, &at.key(key))).transpose()
        };
        Ok(Self { hca_handle: value("hca_handle")?, hca_object: value("hca_object")? })
    }

    fn write(value: &Self) -> Json {
        let given = Self::KEYS.iter().zip([value.hca_handle, value.hca_object]);
        Json::Object(given.filter_map(|(key, value)| Some(((*key).to_owned(), Json::from(value?)))).collect())
    }

    fn schema() -> Json {
        let count = json!({"type": "integer", "minimum": 0});
        json!({"type": "object", "additionalProperties": false,
            "properties": {"hca_handle": count, "hca_object": count}})
    }
}
