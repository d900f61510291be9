//! How single processes are scheduled, on processors and on block devices.

use std::time::Duration;

use super::at::At;
use super::codec::{Bool, Codec, Count, Time};
use super::json::{self, Json, json, wrong_type};
use crate::error::Result;

/// How the kernel schedules a process against others.
///
/// In JSON `"batch"`, `"fifo:10"`, or an object: `{"policy": "fifo", "priority": 10}`,
/// `{"policy": "deadline", "runtime": "2ms", "deadline": "10ms", "period": "20ms"}`, with `reset_on_fork`, `uclamp_min` and
/// `uclamp_max` for every policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheduler {
    /// The policy, with what it is told.
    pub policy: Policy,
    /// Whether children begin with `other` and a nice value of at least 0 instead of what their parent has.
    pub reset_on_fork: bool,
    /// The utilization, 0 to 1024, that the choice of processor and frequency takes for the least. Needs CONFIG_UCLAMP_TASK.
    pub uclamp_min: Option<u32>,
    /// The utilization, 0 to 1024, that the choice of processor and frequency takes for the most. Needs CONFIG_UCLAMP_TASK.
    pub uclamp_max: Option<u32>,
}

/// A policy of sched(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The customary one.
    Other,
    /// As `Other`, taken for one that computes: woken up later.
    Batch,
    /// Behind everything else in the same control group, nice 19 too.
    Idle,
    /// Real-time: runs until it waits, or one of higher priority comes.
    Fifo {
        /// 1 to 99.
        priority: u32,
    },
    /// Real-time: as `Fifo`, taking turns with those of the same priority.
    RoundRobin {
        /// 1 to 99.
        priority: u32,
    },
    /// `runtime` of processor time before `deadline` in each `period`, before all others. Such a process cannot fork unless
    /// `reset_on_fork` is set.
    Deadline {
        /// At least 1024 ns.
        runtime: Duration,
        /// At least `runtime`.
        deadline: Duration,
        /// At least `deadline`.
        period: Duration,
    },
}

impl From<Policy> for Scheduler {
    fn from(policy: Policy) -> Self {
        Self { policy, reset_on_fork: false, uclamp_min: None, uclamp_max: None }
    }
}

impl Policy {
    const NAMES: [&'static str; 6] = ["other", "batch", "idle", "fifo", "rr", "deadline"];

    /// As the spec has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::Batch => "batch",
            Self::Idle => "idle",
            Self::Fifo { .. } => "fifo",
            Self::RoundRobin { .. } => "rr",
            Self::Deadline { .. } => "deadline",
        }
    }

    /// SCHED_* of the kernel.
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Other => 0,
            Self::Fifo { .. } => 1,
            Self::RoundRobin { .. } => 2,
            Self::Batch => 3,
            Self::Idle => 5,
            Self::Deadline { .. } => 6,
        }
    }
}

const KEYS: [&str; 8] =
    ["policy", "priority", "runtime", "deadline", "period", "reset_on_fork", "uclamp_min", "uclamp_max"];
/// The kernel's scale of utilization.
const FULL: u32 = 1024;
/// What is shorter than 2^DL_SCALE ns is refused by the kernel.
const MIN_RUNTIME: Duration = Duration::from_nanos(1024);

impl Scheduler {
    pub(super) fn validate(&self) -> Result<()> {
        let field = At::Field("scheduler");
        match self.policy {
            Policy::Fifo { priority } | Policy::RoundRobin { priority } if !(1..=99).contains(&priority) => {
                return Err(field.key("priority").error(format!("{priority} is not within 1 to 99")));
            }
            Policy::Deadline { runtime, deadline, period } => {
                if runtime < MIN_RUNTIME {
                    return Err(field.key("runtime").error("is less than 1024 ns, the kernel's shortest"));
                }
                if deadline < runtime {
                    return Err(field.key("deadline").error("comes before runtime could have passed"));
                }
                if period < deadline {
                    return Err(field.key("period").error("is shorter than deadline"));
                }
                if u64::try_from(period.as_nanos()).is_err() {
                    return Err(field.key("period").error("is more than the kernel can count"));
                }
            }
            _ => {}
        }
        for (key, clamp) in [("uclamp_min", self.uclamp_min), ("uclamp_max", self.uclamp_max)] {
            if let Some(clamp) = clamp.filter(|clamp| *clamp > FULL) {
                return Err(field.key(key).error(format!("{clamp} is not within 0 to {FULL}")));
            }
        }
        if let (Some(min), Some(max)) = (self.uclamp_min, self.uclamp_max)
            && min > max
        {
            return Err(field.key("uclamp_min").error(format!("{min} is more than uclamp_max, {max}")));
        }
        Ok(())
    }
}

impl Codec for Scheduler {
    type Value = Self;

    fn read(json: &Json, at: &At) -> Result<Self> {
        let shorthand;
        let members = match json {
            Json::String(text) => {
                let mut members = json::Members::new();
                let name = match text.split_once(':') {
                    None => text.as_str(),
                    Some((name, priority)) => {
                        let number =
                            priority.parse::<u32>().ok().filter(|_| priority.bytes().all(|b| b.is_ascii_digit()));
                        let Some(number) = number else {
                            return Err(at.error(format!("{text:?}: {priority:?} is not a priority")));
                        };
                        members.insert("priority".into(), number.into());
                        name
                    }
                };
                members.insert("policy".into(), name.into());
                shorthand = Json::Object(members);
                &shorthand
            }
            Json::Object(_) => json,
            _ => return Err(wrong_type(at, "a policy like \"batch\" or \"fifo:10\", or an object", json)),
        };
        let members = json::members(members, at, "", &KEYS)?;
        let member = |key: &str| json::member(members, key);
        let Some(name) = member("policy") else { return Err(at.key("policy").error("is missing")) };
        let Some(name) = name.as_str() else { return Err(wrong_type(&at.key("policy"), "a policy", name)) };
        let number = |key: &str| -> Result<Option<u32>> {
            let read = |json| Count::read(json, &at.key(key)).map(|n| u32::try_from(n).unwrap_or(u32::MAX));
            member(key).map(read).transpose()
        };
        let time = |key: &str| member(key).map(|json| Time::read(json, &at.key(key))).transpose();
        let own: &[&str] = match name {
            "fifo" | "rr" => &["priority"],
            "deadline" => &["runtime", "deadline", "period"],
            _ => &[],
        };
        let needed = |key: &str| at.key(key).error(format!("{name} needs it"));
        let policy = match name {
            "other" => Policy::Other,
            "batch" => Policy::Batch,
            "idle" => Policy::Idle,
            "fifo" => Policy::Fifo { priority: number("priority")?.ok_or_else(|| needed("priority"))? },
            "rr" => Policy::RoundRobin { priority: number("priority")?.ok_or_else(|| needed("priority"))? },
            "deadline" => {
                let runtime = time("runtime")?.ok_or_else(|| needed("runtime"))?;
                let deadline = time("deadline")?.ok_or_else(|| needed("deadline"))?;
                Policy::Deadline { runtime, deadline, period: time("period")?.unwrap_or(deadline) }
            }
            _ => {
                let names = Policy::NAMES.join(", ");
                return Err(at.error(format!("{name:?} is not a policy")).with_hint(format!("one of {names}")));
            }
        };
        if let Some(key) = KEYS[1..5].iter().find(|key| !own.contains(key) && member(key).is_some()) {
            return Err(at.key(key).error(format!("means nothing to {name}")));
        }
        let reset = member("reset_on_fork").map(|json| Bool::read(json, &at.key("reset_on_fork"))).transpose()?;
        Ok(Self {
            policy,
            reset_on_fork: reset.unwrap_or(false),
            uclamp_min: number("uclamp_min")?,
            uclamp_max: number("uclamp_max")?,
        })
    }

    fn write(value: &Self) -> Json {
        let mut members = json::Members::new();
        members.insert("policy".into(), value.policy.name().into());
        match value.policy {
            Policy::Fifo { priority } | Policy::RoundRobin { priority } => {
                members.insert("priority".into(), priority.into());
            }
            Policy::Deadline { runtime, deadline, period } => {
                for (key, time) in [("runtime", runtime), ("deadline", deadline), ("period", period)] {
                    members.insert(key.into(), Time::write(&time));
                }
            }
            Policy::Other | Policy::Batch | Policy::Idle => {}
        }
        if *value == Self::from(value.policy) {
            match value.policy {
                Policy::Other | Policy::Batch | Policy::Idle => return value.policy.name().into(),
                Policy::Fifo { priority } | Policy::RoundRobin { priority } => {
                    return format!("{}:{priority}", value.policy.name()).into();
                }
                Policy::Deadline { .. } => {}
            }
        }
        if value.reset_on_fork {
            members.insert("reset_on_fork".into(), true.into());
        }
        for (key, clamp) in [("uclamp_min", value.uclamp_min), ("uclamp_max", value.uclamp_max)] {
            if let Some(clamp) = clamp {
                members.insert(key.into(), clamp.into());
            }
        }
        Json::Object(members)
    }

    fn schema() -> Json {
        let clamp = json!({"type": "integer", "minimum": 0, "maximum": FULL});
        let time = json!({"$ref": "#/$defs/duration"});
        json!({"anyOf": [
            {"type": "string", "pattern": "^(other|batch|idle|(fifo|rr):[1-9][0-9]?)$"},
            {"type": "object", "additionalProperties": false, "required": ["policy"], "properties": {
                "policy": {"enum": Policy::NAMES},
                "priority": {"type": "integer", "minimum": 1, "maximum": 99},
                "runtime": time, "deadline": time, "period": time,
                "reset_on_fork": {"type": "boolean"}, "uclamp_min": clamp, "uclamp_max": clamp,
            }},
        ]})
    }
}

/// Which requests for a block device go first. In JSON `"idle"`, `"best-effort:0"` to `"best-effort:7"`, `"realtime:0"` to
/// `"realtime:7"`; of the levels, 0 is served first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoPriority {
    /// When nobody else wants the device.
    Idle,
    /// The customary class.
    BestEffort(u8),
    /// Before all others. Needs CAP_SYS_NICE or CAP_SYS_ADMIN on the host.
    Realtime(u8),
}

impl IoPriority {
    /// The last level.
    const LAST: u8 = 7;

    /// As ioprio_set(2) takes it: the class above bit 13, then the level.
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Realtime(level) => 1 << 13 | u32::from(level),
            Self::BestEffort(level) => 2 << 13 | u32::from(level),
            Self::Idle => 3 << 13,
        }
    }

    pub(super) fn validate(self) -> Result<()> {
        match self {
            Self::BestEffort(level) | Self::Realtime(level) if level > Self::LAST => {
                Err(At::Field("io_priority").error(format!("level {level} is not within 0 to {}", Self::LAST)))
            }
            _ => Ok(()),
        }
    }
}

impl Codec for IoPriority {
    type Value = Self;

    fn read(json: &Json, at: &At) -> Result<Self> {
        const FORMS: &str = "\"idle\", \"best-effort:0\" to \"best-effort:7\" or \"realtime:0\" to \"realtime:7\"";
        let Json::String(text) = json else {
            let error = wrong_type(at, FORMS, json);
            return Err(match json {
                Json::Number(_) => error.with_hint("a container's priority of OpenVZ is io_weight, \"ioprio:4\""),
                _ => error,
            });
        };
        let level = |level: &str| level.parse::<u8>().ok().filter(|n| *n <= Self::LAST && level.len() == 1);
        let read = match text.split_once(':') {
            None if text == "idle" => Some(Self::Idle),
            Some(("best-effort", text)) => level(text).map(Self::BestEffort),
            Some(("realtime", text)) => level(text).map(Self::Realtime),
            _ => None,
        };
        read.ok_or_else(|| at.error(format!("{text:?} is not {FORMS}")))
    }

    fn write(value: &Self) -> Json {
        match value {
            Self::Idle => "idle".into(),
            Self::BestEffort(level) => format!("best-effort:{level}").into(),
            Self::Realtime(level) => format!("realtime:{level}").into(),
        }
    }

    fn schema() -> Json {
        json!({"type": "string", "pattern": "^(idle|(best-effort|realtime):[0-7])$"})
    }
}
