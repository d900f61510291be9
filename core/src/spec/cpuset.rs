//! Processors and memory nodes.

use std::collections::BTreeSet;

use super::at::At;
use super::codec::Codec;
use super::json::{self, Json, json, wrong_type};
use crate::error::Result;

/// The highest number that a kernel can be built for (NR_CPUS), and far more than there are memory nodes.
const MAX_NUMBER: u32 = 8191;

/// The processors on which the payload may run, and the memory nodes that it gets memory from.
///
/// In JSON text is the list of processors (`"0-3,7"`); an object has `cpus`, `mems` and `partition`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cpuset {
    /// Processors by number, as a list of numbers and ranges: `0-3,7`. `None`: those of the group above.
    pub cpus: Option<String>,
    /// NUMA nodes, in the same form. `None`: those of the group above.
    pub mems: Option<String>,
    /// Whether the processors are this container's alone. `None`: they are shared.
    pub partition: Option<Partition>,
}

/// How exclusive processors are scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partition {
    /// A scheduling domain of its own.
    Root,
    /// No load balancing: each task stays where it is put.
    Isolated,
}

impl Partition {
    /// As `cpuset.cpus.partition` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Isolated => "isolated",
        }
    }
}

impl From<&str> for Cpuset {
    /// Processors only.
    fn from(cpus: &str) -> Self {
        Self { cpus: Some(cpus.to_owned()), ..Self::default() }
    }
}

/// The numbers of a list such as `0-3,7`; the error is a sentence.
pub(crate) fn parse_list(text: &str) -> std::result::Result<BTreeSet<u32>, String> {
    let wrong = || format!("{text:?} is not a list of numbers and ranges, like \"0-3,7\"");
    let number = |word: &str| -> std::result::Result<u32, String> {
        if word.is_empty() || !word.bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong());
        }
        match word.parse() {
            Ok(number) if number <= MAX_NUMBER => Ok(number),
            _ => Err(format!("{word} is more than {MAX_NUMBER}, the last that Linux can have")),
        }
    };
    let mut numbers = BTreeSet::new();
    for part in text.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        if first > last {
            return Err(format!("{part} ends before it begins"));
        }
        numbers.extend(first..=last);
    }
    Ok(numbers)
}

/// As the kernel shows it.
pub(crate) fn show_list(numbers: &BTreeSet<u32>) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let shown: Vec<String> =
        ranges.iter().map(|(a, b)| if a == b { a.to_string() } else { format!("{a}-{b}") }).collect();
    shown.join(",")
}

impl Cpuset {
    pub(super) fn validate(&self) -> Result<()> {
        let field = At::Field("cpuset");
        for (key, list) in [("cpus", &self.cpus), ("mems", &self.mems)] {
            if let Some(list) = list {
                parse_list(list).map_err(|why| field.key(key).error(why))?;
            }
        }
        if self.partition.is_some() && self.cpus.is_none() {
            return Err(field.key("partition").error("takes cpus: which are to be this container's alone"));
        }
        Ok(())
    }
}

impl Codec for Cpuset {
    type Value = Self;

    fn read(json: &Json, at: &At) -> Result<Self> {
        let list = |json: &Json, at: &At| match json {
            Json::String(text) => parse_list(text).map(|list| show_list(&list)).map_err(|why| at.error(why)),
            Json::Number(number) if number.is_u64() => {
                parse_list(&number.to_string()).map(|list| show_list(&list)).map_err(|why| at.error(why))
            }
            _ => Err(wrong_type(at, "a list of numbers like \"0-3,7\"", json)),
        };
        if !json.is_object() {
            return Ok(Self { cpus: Some(list(json, at)?), ..Self::default() });
        }
        let members = json::members(json, at, "", &["cpus", "mems", "partition"])?;
        let member = |key| json::member(members, key);
        Ok(Self {
            cpus: member("cpus").map(|json| list(json, &at.key("cpus"))).transpose()?,
            mems: member("mems").map(|json| list(json, &at.key("mems"))).transpose()?,
            partition: match member("partition") {
                None => None,
                Some(json) => match json.as_str() {
                    Some("root") => Some(Partition::Root),
                    Some("isolated") => Some(Partition::Isolated),
                    _ => return Err(wrong_type(&at.key("partition"), "\"root\" or \"isolated\"", json)),
                },
            },
        })
    }

    fn write(value: &Self) -> Json {
        if let (Some(cpus), None, None) = (&value.cpus, &value.mems, &value.partition) {
            return cpus.as_str().into();
        }
        let partition = value.partition.map(|partition| partition.name().to_owned());
        let members = [("cpus", &value.cpus), ("mems", &value.mems), ("partition", &partition)];
        let given = members.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value.as_deref()?.into())));
        Json::Object(given.collect())
    }

    fn schema() -> Json {
        let list = json!({"anyOf": [
            {"type": "string", "pattern": "^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$"},
            {"type": "integer", "minimum": 0, "maximum": MAX_NUMBER},
        ]});
        json!({"anyOf": [
            list,
            {"type": "object", "additionalProperties": false,
                "properties": {"cpus": list, "mems": list, "partition": {"enum": ["root", "isolated"]}}},
        ]})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_shown_as_the_kernel_does() {
        for (text, shown) in [("0", "0"), ("0-3,7", "0-3,7"), ("1,0", "0-1"), ("2,3,5-6,4", "2-6"), ("0,0", "0")] {
            assert_eq!(parse_list(text).map(|list| show_list(&list)).as_deref(), Ok(shown));
        }
        for bad in ["", ",", "1-", "-1", "3-1", "a", "0-9999", "1 2", "99999999999"] {
            assert!(parse_list(bad).is_err(), "{bad:?}");
        }
    }
}
