//! How single values are written: JSON in, JSON out, text of C in, JSON schema.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use super::at::At;
use super::json::{self, Json, json, wrong_type};
use super::{duration, signal, size};
use crate::error::Result;

/// One kind of value. Types of the spec that are fields implement it themselves; the markers below are for the plain types,
/// which mean different things in different fields (a `u64` is a size or a count).
pub(super) trait Codec {
    type Value: Clone;

    /// The unit of a number, for the schema.
    const UNIT: Option<&'static str> = None;

    /// Whether any text at all can be a value, so that none of it can be taken for JSON.
    const FREE_TEXT: bool = false;

    /// Whether null is a value of its own (a removed variable), not the absence of one.
    const NULL: bool = false;

    fn read(json: &Json, at: &At) -> Result<Self::Value>;

    fn write(value: &Self::Value) -> Json;

    /// Layers JSON over a value that is there.
    fn merge(value: &mut Self::Value, json: &Json, at: &At) -> Result<()> {
        *value = Self::read(json, at)?;
        Ok(())
    }

    /// The JSON that text of the C interface stands for.
    fn text(text: &[u8], at: &At) -> Result<Json> {
        match text.first() {
            Some(b'{' | b'[') if !Self::FREE_TEXT => json_text(text, at),
            _ => Ok(json::of_bytes(OsStr::from_bytes(text))),
        }
    }

    /// What JSON Schema says of [`Codec::read`].
    fn schema() -> Json;
}

/// JSON text in place of plain text.
pub(super) fn json_text(text: &[u8], at: &At) -> Result<Json> {
    let text = std::str::from_utf8(text).map_err(|_| at.error("JSON text has to be UTF-8"))?;
    json::parse(text).map_err(|error| error.with_field(at.to_string()))
}

/// Text that is a number, as that number; anything else stays text, which `read` then refuses with its own words.
fn number_text(text: &[u8]) -> Json {
    let text = String::from_utf8_lossy(text);
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    match serde_json::from_str(&text) {
        Ok(number) if plain => Json::Number(number),
        _ => Json::String(text.into_owned()),
    }
}

/// UTF-8 text.
pub(super) struct Text;

impl Codec for Text {
    type Value = String;
    const FREE_TEXT: bool = true;

    fn read(json: &Json, at: &At) -> Result<String> {
        match json {
            Json::String(text) => Ok(text.clone()),
            Json::Object(members) if members.contains_key("base64") => Err(at.error("has to be UTF-8")),
            _ => Err(wrong_type(at, "text", json)),
        }
    }

    fn write(value: &String) -> Json {
        value.as_str().into()
    }

    fn schema() -> Json {
        json!({"type": "string"})
    }
}

/// A user or group: text, or its number.
pub(super) struct User;

impl Codec for User {
    type Value = String;

    fn read(json: &Json, at: &At) -> Result<String> {
        match json {
            Json::String(text) => Ok(text.clone()),
            Json::Number(number) if number.is_u64() => Ok(number.to_string()),
            Json::Object(members) if members.contains_key("base64") => Err(at.error("has to be UTF-8")),
            _ => Err(wrong_type(at, "a name or an id", json)),
        }
    }

    fn write(value: &String) -> Json {
        value.as_str().into()
    }

    fn schema() -> Json {
        json!({"anyOf": [{"type": "string"}, {"type": "integer", "minimum": 0, "maximum": super::MAX_ID}]})
    }
}

/// Bytes: an argument, a name of a variable.
pub(super) struct Bytes;

impl Codec for Bytes {
    type Value = OsString;
    const FREE_TEXT: bool = true;

    fn read(json: &Json, at: &At) -> Result<OsString> {
        json::bytes(json, at)?.ok_or_else(|| wrong_type(at, "text or {\"base64\": ...}", json))
    }

    fn write(value: &OsString) -> Json {
        json::of_bytes(value)
    }

    fn schema() -> Json {
        json!({"$ref": "#/$defs/bytes"})
    }
}

/// The value of a variable; null removes it.
pub(super) struct Variable;

impl Codec for Variable {
    type Value = Option<OsString>;
    const FREE_TEXT: bool = true;
    const NULL: bool = true;

    fn read(json: &Json, at: &At) -> Result<Option<OsString>> {
        match json {
            Json::Null => Ok(None),
            _ => match json::bytes(json, at)? {
                Some(value) => Ok(Some(value)),
                None => Err(wrong_type(at, "text, {\"base64\": ...}, or null to remove it", json)),
            },
        }
    }

    fn write(value: &Option<OsString>) -> Json {
        value.as_deref().map_or(Json::Null, json::of_bytes)
    }

    fn schema() -> Json {
        json!({"anyOf": [{"$ref": "#/$defs/bytes"}, {"type": "null"}]})
    }
}

/// A path: bytes.
pub(super) struct FilePath;

impl Codec for FilePath {
    type Value = PathBuf;

    fn read(json: &Json, at: &At) -> Result<PathBuf> {
        json::bytes(json, at)?.map(PathBuf::from).ok_or_else(|| wrong_type(at, "a path", json))
    }

    fn write(value: &PathBuf) -> Json {
        json::of_bytes(value.as_os_str())
    }

    fn schema() -> Json {
        json!({"$ref": "#/$defs/path"})
    }
}

/// Bytes of memory or disk.
pub(super) struct Size;

impl Codec for Size {
    type Value = u64;
    const UNIT: Option<&'static str> = Some("bytes");

    fn read(json: &Json, at: &At) -> Result<u64> {
        if let Json::String(text) = json {
            return size::parse(text).map_err(|why| at.error(why));
        }
        unsigned(json, at, &format!("a size ({})", size::FORMS))
    }

    fn write(value: &u64) -> Json {
        (*value).into()
    }

    fn schema() -> Json {
        json!({"$ref": "#/$defs/size"})
    }
}

/// A number of things.
pub(super) struct Count;

impl Codec for Count {
    type Value = u64;

    fn read(json: &Json, at: &At) -> Result<u64> {
        unsigned(json, at, "a whole number")
    }

    fn write(value: &u64) -> Json {
        (*value).into()
    }

    fn text(text: &[u8], _: &At) -> Result<Json> {
        Ok(number_text(text))
    }

    fn schema() -> Json {
        json!({"type": "integer", "minimum": 0})
    }
}

/// A number of cores.
pub(super) struct Cores;

impl Codec for Cores {
    type Value = f64;
    const UNIT: Option<&'static str> = Some("cores");

    fn read(json: &Json, at: &At) -> Result<f64> {
        json.as_f64().ok_or_else(|| wrong_type(at, "a number of cores", json))
    }

    fn write(value: &f64) -> Json {
        // JSON has no infinities; text is refused when it is read back, as the value is when it is used.
        serde_json::Number::from_f64(*value).map_or_else(|| value.to_string().into(), Json::Number)
    }

    fn text(text: &[u8], _: &At) -> Result<Json> {
        Ok(number_text(text))
    }

    fn schema() -> Json {
        json!({"type": "number", "minimum": 0.001, "maximum": 10000})
    }
}

/// A signed number.
pub(super) struct Int;

impl Codec for Int {
    type Value = i32;

    fn read(json: &Json, at: &At) -> Result<i32> {
        let number = json::integer(json).ok_or_else(|| wrong_type(at, "a whole number", json))?;
        number.try_into().map_err(|_| at.error(format!("{number} is out of range")))
    }

    fn write(value: &i32) -> Json {
        (*value).into()
    }

    fn text(text: &[u8], _: &At) -> Result<Json> {
        Ok(number_text(text))
    }

    fn schema() -> Json {
        json!({"type": "integer"})
    }
}

/// Bits of a file mode: text is octal, a number is a number.
pub(super) struct Mode;

impl Codec for Mode {
    type Value = u32;

    fn read(json: &Json, at: &At) -> Result<u32> {
        let expected = "octal text like \"0644\"";
        if let Json::String(text) = json {
            let digits = text.strip_prefix("0o").unwrap_or(text);
            return match u32::from_str_radix(digits, 8) {
                Ok(mode) if digits.bytes().all(|b| b.is_ascii_digit()) => Ok(mode),
                _ => Err(wrong_type(at, expected, json)),
            };
        }
        unsigned(json, at, expected)?.try_into().map_err(|_| at.error("is too large"))
    }

    fn write(value: &u32) -> Json {
        format!("{value:04o}").into()
    }

    fn schema() -> Json {
        json!({"anyOf": [
            {"type": "string", "pattern": "^(0o)?[0-7]+$", "description": "octal"},
            {"type": "integer", "minimum": 0, "maximum": 0o7777, "description": "the number itself: 420 is 0644"},
        ]})
    }
}

/// True or false.
pub(super) struct Bool;

impl Codec for Bool {
    type Value = bool;

    fn read(json: &Json, at: &At) -> Result<bool> {
        json.as_bool().ok_or_else(|| wrong_type(at, "true or false", json))
    }

    fn write(value: &bool) -> Json {
        (*value).into()
    }

    fn text(text: &[u8], _: &At) -> Result<Json> {
        Ok(bool_text(text).unwrap_or_else(|| json::of_bytes(OsStr::from_bytes(text))))
    }

    fn schema() -> Json {
        json!({"type": "boolean"})
    }
}

/// `true` or `false`.
pub(super) fn bool_text(text: &[u8]) -> Option<Json> {
    match text {
        b"true" => Some(true.into()),
        b"false" => Some(false.into()),
        _ => None,
    }
}

/// A length of time.
pub(super) struct Time;

impl Codec for Time {
    type Value = Duration;
    const UNIT: Option<&'static str> = Some("seconds");

    fn read(json: &Json, at: &At) -> Result<Duration> {
        let read = match json {
            Json::String(text) => duration::parse(text),
            Json::Number(number) => match (number.as_u64(), number.as_f64()) {
                (Some(seconds), _) => Ok(Duration::from_secs(seconds)),
                (_, Some(seconds)) => duration::from_seconds(seconds),
                (None, None) => Err("is not finite".to_owned()),
            },
            _ => return Err(wrong_type(at, &format!("a duration ({})", duration::FORMS), json)),
        };
        read.map_err(|why| at.error(why))
    }

    fn write(value: &Duration) -> Json {
        if value.subsec_nanos() == 0 { value.as_secs().into() } else { duration::show(value.as_nanos() as i128).into() }
    }

    fn schema() -> Json {
        json!({"$ref": "#/$defs/duration"})
    }
}

/// A signal, by number or name.
pub(super) struct Signal;

impl Codec for Signal {
    type Value = i32;

    fn read(json: &Json, at: &At) -> Result<i32> {
        match json {
            Json::String(text) => signal::parse(text).map_err(|why| at.error(why)),
            _ => match json::integer(json).and_then(|number| i32::try_from(number).ok()) {
                Some(number) => Ok(number),
                None => Err(wrong_type(at, "the number or name of a signal", json)),
            },
        }
    }

    fn write(value: &i32) -> Json {
        signal::name(*value).map_or_else(|| (*value).into(), Json::String)
    }

    fn schema() -> Json {
        json!({"anyOf": [
            {"type": "integer", "minimum": 1, "maximum": signal::MAX},
            {"type": "string", "description": "SIGTERM, TERM, RTMIN+1"},
        ]})
    }
}

fn unsigned(json: &Json, at: &At, expected: &str) -> Result<u64> {
    match json::integer(json) {
        Some(number) if number < 0 => Err(at.error(format!("{number} is negative"))),
        Some(number) => number.try_into().map_err(|_| at.error(format!("{number} is too large"))),
        None => match json {
            Json::Number(number) if number.as_f64().is_some_and(|n| n >= 9_007_199_254_740_992.0) => {
                Err(at.error(format!("{number} is too large")))
            }
            _ => Err(wrong_type(at, expected, json)),
        },
    }
}
