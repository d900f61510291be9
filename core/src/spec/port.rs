//! Entries of `ports`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::at::At;
use super::codec::Codec;
use super::json::{self, Json, json, wrong_type};
use super::shape::{List, Shape};
use crate::error::Result;

/// What a port is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// tcp(7).
    #[default]
    Tcp,
    /// udp(7).
    Udp,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Tcp, Self::Udp];

    /// `tcp` or `udp`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.name() == name)
    }
}

/// One entry of `ports`: a port of the container, reachable at one of the host.
///
/// As text, `[[ADDRESS:]HOST_PORT:]PORT[/udp]`: `5432`, `15432:5432`, `0.0.0.0:8080:80`, `[::1]::53/udp`; without a host port, or
/// with 0, a free one. As an object `{"port": 5432, "host_port": 15432, "host": "127.0.0.1", "protocol": "tcp"}`. The whole field
/// may also be a map of ports to host ports, `{"5432": 15432}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// Where the service listens inside, on 127.0.0.1, ::1 or all addresses. Range: 1 to 65535; 0 only in what text that could
    /// not be understood became, which no container is started with.
    pub port: u16,
    /// On the host. 0: a free one, which the handle tells.
    pub host_port: u16,
    /// The host's address that it is reachable at; 127.0.0.1 by default.
    pub host: IpAddr,
    /// TCP by default.
    pub protocol: Protocol,
}

const FORMS: &str = "a port, [[ADDRESS:]HOST_PORT:]PORT[/udp] or an object";
const KEYS: [&str; 4] = ["port", "host_port", "host", "protocol"];

impl Port {
    /// A TCP port of the container at a free port of 127.0.0.1.
    pub fn new(port: u16) -> Self {
        Self { port, host_port: 0, host: Ipv4Addr::LOCALHOST.into(), protocol: Protocol::Tcp }
    }

    /// At this port of the host.
    pub fn host_port(mut self, port: u16) -> Self {
        self.host_port = port;
        self
    }

    /// At this address of the host.
    pub fn host(mut self, address: impl Into<IpAddr>) -> Self {
        self.host = address.into();
        self
    }

    /// UDP.
    pub fn udp(mut self) -> Self {
        self.protocol = Protocol::Udp;
        self
    }

    /// Where the host reaches it.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.host_port)
    }

    /// What is the same service of the host: `address` and protocol.
    pub(super) fn collides(&self, other: &Self) -> bool {
        self.host_port != 0 && self.address() == other.address() && self.protocol == other.protocol
    }

    fn parse(text: &str) -> Result<Self, String> {
        let (text, protocol) = match text.split_once('/') {
            None => (text, Protocol::Tcp),
            Some((front, name)) => {
                (front, Protocol::from_name(name).ok_or_else(|| format!("{name:?} is not tcp or udp"))?)
            }
        };
        let (rest, inside) = match text.rsplit_once(':') {
            None => (None, text),
            Some((rest, inside)) => (Some(rest), inside),
        };
        let mut port = Self { protocol, ..Self::new(number(inside, "the container's port")?) };
        if port.port == 0 {
            return Err("0 is no port of a service".to_owned());
        }
        let Some(rest) = rest else { return Ok(port) };
        let (address, outside) = match rest.rsplit_once(':') {
            None => (None, rest),
            Some((address, outside)) => (Some(address), outside),
        };
        if !outside.is_empty() {
            port.host_port = number(outside, "the host's port")?;
        }
        if let Some(address) = address {
            let plain = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
            let wrong = || format!("{address:?} is no IP address");
            let parsed: IpAddr = plain.parse().map_err(|_| wrong())?;
            if parsed.is_ipv6() == (plain == address) {
                return Err(format!("{address:?}: IPv6 addresses, and only those, are in brackets"));
            }
            port.host = parsed;
        }
        Ok(port)
    }

    /// The error of what a text became that could not be understood.
    pub(super) fn check_parsed(&self, at: &At) -> Result<()> {
        match self.port {
            0 => Err(at.error(format!("is not {FORMS}, with ports from 1 to 65535"))),
            _ => Ok(()),
        }
    }
}

fn number(text: &str, what: &str) -> Result<u16, String> {
    match text.parse::<u16>() {
        // `+1` would be a number too.
        Ok(number) if text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(number),
        _ => Err(format!("{what}, {text:?}, is not 0 to 65535")),
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.address(), self.port)?;
        if self.protocol == Protocol::Udp { f.write_str("/udp") } else { Ok(()) }
    }
}

/// A TCP port at a free port of 127.0.0.1.
impl From<u16> for Port {
    fn from(port: u16) -> Self {
        Self::new(port)
    }
}

/// At a port of the host.
impl From<(u16, u16)> for Port {
    fn from((port, host_port): (u16, u16)) -> Self {
        Self::new(port).host_port(host_port)
    }
}

/// `[[ADDRESS:]HOST_PORT:]PORT[/udp]`; text that cannot be understood is an error when the spec is checked.
impl From<&str> for Port {
    fn from(text: &str) -> Self {
        Self::parse(text).unwrap_or_else(|_| Self::new(0))
    }
}

fn port_number(json: &Json, at: &At, least: u64) -> Result<u16> {
    let most = u64::from(u16::MAX);
    let number = match json {
        Json::Number(number) => number.as_u64(),
        Json::String(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        Json::String(_) => return Err(wrong_type(at, "a port", json)),
        _ => return Err(wrong_type(at, "a port", json)),
    };
    match number.filter(|number| (least..=most).contains(number)) {
        Some(number) => Ok(number as u16),
        None => Err(at.error(format!("{json} is not {least} to {most}"))),
    }
}

impl Codec for Port {
    type Value = Self;

    fn read(json: &Json, at: &At) -> Result<Self> {
        match json {
            Json::Number(_) => return Ok(Self::new(port_number(json, at, 1)?)),
            Json::String(text) => {
                return Self::parse(text).map_err(|why| at.error(format!("{text:?} is not {FORMS}: {why}")));
            }
            _ => {}
        }
        let members = json::members(json, at, FORMS, &KEYS)?;
        let member = |key| json::member(members, key);
        let inside = member("port").ok_or_else(|| at.error("has no port"))?;
        let mut port = Self::new(port_number(inside, &at.key("port"), 1)?);
        if let Some(outside) = member("host_port") {
            port.host_port = port_number(outside, &at.key("host_port"), 0)?;
        }
        if let Some(host) = member("host") {
            let at = at.key("host");
            let text = host.as_str().ok_or_else(|| wrong_type(&at, "an IP address", host))?;
            port.host = text.parse().map_err(|_| at.error(format!("{text:?} is no IP address")))?;
        }
        if let Some(protocol) = member("protocol") {
            let at = at.key("protocol");
            let text = protocol.as_str().ok_or_else(|| wrong_type(&at, "tcp or udp", protocol))?;
            port.protocol = Protocol::from_name(text).ok_or_else(|| at.error(format!("{text:?} is not tcp or udp")))?;
        }
        Ok(port)
    }

    fn write(value: &Self) -> Json {
        json!({
            "port": value.port,
            "host_port": value.host_port,
            "host": value.host.to_string(),
            "protocol": value.protocol.name(),
        })
    }

    fn schema() -> Json {
        let port = |least: u32| json!({"type": "integer", "minimum": least, "maximum": u16::MAX});
        json!({"anyOf": [
            port(1),
            {"type": "string", "pattern": "^((([0-9.]+|\\[[0-9a-fA-F:.]+\\]):)?[0-9]*:)?[0-9]+(/(tcp|udp))?$",
             "description": "[[ADDRESS:]HOST_PORT:]PORT[/udp]"},
            {"type": "object", "additionalProperties": false, "required": ["port"], "properties": {
                "port": port(1),
                "host_port": {"type": "integer", "minimum": 0, "maximum": u16::MAX, "default": 0, "description": "0: a free one"},
                "host": {"type": "string", "default": "127.0.0.1", "description": "an IP address of the host"},
                "protocol": {"enum": ["tcp", "udp"], "default": "tcp"},
            }},
        ]})
    }
}

/// The field: a list, or a map of ports to host ports.
pub(super) struct Ports;

impl Ports {
    /// `5432` or `53/udp`, and where that is on the host.
    fn of_map(key: &str, json: &Json, at: &At) -> Result<Port> {
        let inside = at.key(key);
        if key.contains(':') {
            return Err(inside.error("the key of a map is a port of the container, like 5432 or 53/udp"));
        }
        let port = Port::parse(key).map_err(|why| inside.error(why))?;
        match json {
            Json::String(text) => match text.parse::<SocketAddr>() {
                Ok(address) => Ok(Port { host: address.ip(), host_port: address.port(), ..port }),
                Err(_) => Ok(port.host_port(port_number(json, &inside, 0)?)),
            },
            Json::Null => Ok(port),
            _ => Ok(port.host_port(port_number(json, &inside, 0)?)),
        }
    }
}

impl Shape for Ports {
    type Value = Vec<Port>;

    fn merge(value: &mut Self::Value, json: &Json, at: &At) -> Result<()> {
        let Json::Object(members) = json else { return List::<Port>::merge(value, json, at) };
        *value = members.iter().map(|(key, json)| Self::of_map(key, json, at)).collect::<Result<_>>()?;
        Ok(())
    }

    fn write(value: &Self::Value) -> Option<Json> {
        List::<Port>::write(value)
    }

    fn set(value: &mut Self::Value, text: &[u8], at: &At) -> Result<()> {
        List::<Port>::set(value, text, at)
    }

    fn schema() -> Json {
        let host = json!({"type": ["integer", "string", "null"], "minimum": 0, "maximum": u16::MAX});
        json!({"anyOf": [
            List::<Port>::schema(),
            {"type": "object", "additionalProperties": host, "description": "port inside: port of the host, or ADDRESS:PORT"},
        ]})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text() {
        let v6: IpAddr = "::1".parse().unwrap();
        for (text, port) in [
            ("5432", Port::new(5432)),
            ("53/udp", Port::new(53).udp()),
            ("80/tcp", Port::new(80)),
            ("15432:5432", Port::new(5432).host_port(15432)),
            (":80", Port::new(80)),
            ("0.0.0.0:8080:80", Port::new(80).host_port(8080).host([0, 0, 0, 0])),
            ("[::1]::53/udp", Port::new(53).host(v6).udp()),
        ] {
            assert_eq!(Port::parse(text), Ok(port), "{text}");
            assert_eq!(Port::parse(&port.to_string()), Ok(port), "{text}");
        }
        for text in [
            "",
            "0",
            "x",
            "+80",
            "65536",
            "80/sctp",
            "::1:80:80",
            "[127.0.0.1]:1:2",
            "localhost:1:2",
            "1:2:3",
            "-1",
            "1:",
            "80/",
        ] {
            assert!(Port::parse(text).is_err(), "{text:?}");
        }
    }
}
