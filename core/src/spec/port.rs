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

    /// Its number in a header of IP.
    pub(crate) fn number(self) -> u8 {
        let number = match self {
            Self::Tcp => libc::IPPROTO_TCP,
            Self::Udp => libc::IPPROTO_UDP,
        };
        number as u8
    }

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
/// with 0, a free one. As an object `{"port": 5432, "host_port": 15432, "host": "127.0.0.1", "protocol": "tcp", "nat": false}`. The whole
/// field may also be a map of ports to host ports, `{"5432": 15432}`. There, text, and `port` and `host_port` of an object, may say
/// several ports in a row: `9000-9009:8000-8009` is ten entries.
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
    /// Whether the host's kernel leads packets on to the container, which sees who sent them: on a [`Network`](crate::Network) that
    /// is not internal and has its way out by the kernel, and by which the container leads out (in a pod: the pod's own `ports`). Nobody reaches such
    /// a port by ::1. Default: no, a relay beside the container carries what is sent; that
    /// takes no rights and no such network.
    pub nat: bool,
}

const FORMS: &str = "a port, [[ADDRESS:]HOST_PORT:]PORT[/udp] or an object";
const KEYS: [&str; 5] = ["port", "host_port", "host", "protocol", "nat"];

impl Port {
    /// A TCP port of the container at a free port of 127.0.0.1.
    pub fn new(port: u16) -> Self {
        Self { port, host_port: 0, host: Ipv4Addr::LOCALHOST.into(), protocol: Protocol::Tcp, nat: false }
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

    /// Led on by the host's kernel.
    pub fn nat(mut self) -> Self {
        self.nat = true;
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
        match member("nat") {
            None => {}
            Some(Json::Bool(nat)) => port.nat = *nat,
            Some(other) => return Err(wrong_type(&at.key("nat"), "true or false", other)),
        }
        Ok(port)
    }

    fn write(value: &Self) -> Json {
        let mut json = json!({
            "port": value.port,
            "host_port": value.host_port,
            "host": value.host.to_string(),
            "protocol": value.protocol.name(),
        });
        if value.nat {
            json["nat"] = true.into();
        }
        json
    }

    fn schema() -> Json {
        let port = |least: u32| json!({"type": ["integer", "string"], "minimum": least, "maximum": u16::MAX, "pattern": "^[0-9]+(-[0-9]+)?$"});
        json!({"anyOf": [
            {"type": "integer", "minimum": 1, "maximum": u16::MAX},
            {"type": "string", "pattern": "^((([0-9.]+|\\[[0-9a-fA-F:.]+\\]):)?([0-9]+(-[0-9]+)?)?:)?[0-9]+(-[0-9]+)?(/(tcp|udp))?$",
             "description": "[[ADDRESS:]HOST_PORT:]PORT[/udp], or FIRST-LAST in the place of ports"},
            {"type": "object", "additionalProperties": false, "required": ["port"], "properties": {
                "port": port(1),
                "host_port": {"anyOf": [port(0)], "default": 0, "description": "0: a free one"},
                "host": {"type": "string", "default": "127.0.0.1", "description": "an IP address of the host"},
                "protocol": {"enum": ["tcp", "udp"], "default": "tcp"},
                "nat": {"type": "boolean", "default": false, "description": "led on by the kernel of the host"},
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

/// `8000-8009` as its first and its last.
fn row(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-')?;
    let number = |text: &str| number(text, "").ok().filter(|number| *number > 0);
    Some((number(first)?, number(last)?)).filter(|(first, last)| first < last)
}

/// The texts of single ports that `text`, with rows of ports in the places of ports, stands for. `None`: it has no rows.
fn spread(text: &str) -> Option<Result<Vec<String>, String>> {
    let (ports, protocol) = match text.split_once('/') {
        None => (text, String::new()),
        Some((ports, name)) => (ports, format!("/{name}")),
    };
    let (rest, inside) = match ports.rsplit_once(':') {
        None => (None, ports),
        Some((rest, inside)) => (Some(rest), inside),
    };
    let parts = rest.map(|rest: &str| rest.rsplit_once(':').unwrap_or(("", rest)));
    let (address, outside): (&str, &str) = parts.unwrap_or_default();
    if !inside.contains('-') && !outside.contains('-') {
        return None;
    }
    let Some((first, last)) = row(inside) else {
        return Some(Err(format!("{inside:?} is not a row of ports like 8000-8009")));
    };
    let count = last - first;
    let near = match outside {
        "" | "0" => None,
        outside => match row(outside) {
            Some((first, last)) if last - first == count => Some(first),
            _ => return Some(Err(format!("{outside:?} is not a row of {} ports", u32::from(count) + 1))),
        },
    };
    let front = |i: u16| match (rest, address, near) {
        (None, ..) => String::new(),
        (Some(_), "", near) => format!("{}:", near.map(|near| (near + i).to_string()).unwrap_or_default()),
        (Some(_), address, near) => {
            format!("{address}:{}:", near.map(|near| (near + i).to_string()).unwrap_or_default())
        }
    };
    Some(Ok((0..=count).map(|i| format!("{}{}{protocol}", front(i), first + i)).collect()))
}

impl Ports {
    /// One entry, or those of a row.
    fn entries(json: &Json, at: &At) -> Result<Vec<Port>> {
        let wrong = |why: String| at.error(format!("{json} is not {FORMS}: {why}"));
        if let Some(texts) = json.as_str().and_then(spread) {
            let texts = texts.map_err(wrong)?;
            return texts.iter().map(|text| Port::parse(text).map_err(wrong)).collect();
        }
        let member = |key: &str| json.get(key).and_then(Json::as_str).filter(|text| text.contains('-'));
        let (inside, outside) = (member("port"), member("host_port"));
        if inside.is_none() && outside.is_none() {
            return Ok(vec![Port::read(json, at)?]);
        }
        let shown = |key: &str| match json.get(key) {
            None => String::new(),
            Some(Json::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        let text = format!("{}:{}", shown("host_port"), shown("port"));
        // A hyphen behind a slash is no row's.
        let Some(texts) = spread(&text) else { return Ok(vec![Port::read(json, at)?]) };
        let texts = texts.map_err(wrong)?;
        let one = |text: &String| {
            let Port { port, host_port, .. } = Port::parse(text).map_err(wrong)?;
            let mut json = json.clone();
            json["port"] = port.into();
            json["host_port"] = host_port.into();
            Port::read(&json, at)
        };
        texts.iter().map(one).collect()
    }
}

impl Shape for Ports {
    type Value = Vec<Port>;

    fn merge(value: &mut Self::Value, json: &Json, at: &At) -> Result<()> {
        let all: Result<Vec<Vec<Port>>> = match json {
            Json::Object(members) => members.iter().map(|(key, json)| Ok(vec![Self::of_map(key, json, at)?])).collect(),
            Json::Array(list) => list.iter().enumerate().map(|(i, json)| Self::entries(json, &at.index(i))).collect(),
            other => return List::<Port>::merge(value, other, at),
        };
        *value = all?.concat();
        Ok(())
    }

    fn write(value: &Self::Value) -> Option<Json> {
        List::<Port>::write(value)
    }

    fn set(value: &mut Self::Value, text: &[u8], at: &At) -> Result<()> {
        let Ok(text) = std::str::from_utf8(text) else { return List::<Port>::set(value, text, at) };
        // `[::1]:53:53` is no JSON.
        let json = match json::parse(text) {
            Ok(list @ Json::Array(_)) => return Self::merge_whole(value, &list, at),
            Ok(object @ Json::Object(_)) => object,
            _ => Json::String(text.to_owned()),
        };
        let place = at.index(value.len());
        value.extend(Self::entries(&json, &place)?);
        Ok(())
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

    #[test]
    fn rows() {
        let read = |json: Json| Ports::entries(&json, &At::Field("ports"));
        for (json, ports) in [
            (json!("8000-8001"), vec![Port::new(8000), Port::new(8001)]),
            (
                json!("9000-9001:80-81/udp"),
                vec![Port::new(80).host_port(9000).udp(), Port::new(81).host_port(9001).udp()],
            ),
            (json!("0.0.0.0::80-81"), vec![Port::new(80).host([0, 0, 0, 0]), Port::new(81).host([0, 0, 0, 0])]),
            (
                json!({"port": "80-81", "host_port": "9000-9001", "nat": true}),
                vec![Port::new(80).host_port(9000).nat(), Port::new(81).host_port(9001).nat()],
            ),
            (json!({"port": "80-81"}), vec![Port::new(80), Port::new(81)]),
        ] {
            assert_eq!(read(json.clone()).unwrap(), ports, "{json}");
        }
        for json in [
            json!("81-80"),
            json!("80-80"),
            json!("9000-9002:80-81"),
            json!("9000-9001:80"),
            json!("0-1"),
            json!("-"),
            json!("80-"),
            json!("80-81-82"),
            json!("65535-65536"),
            json!({"port": 80, "host_port": "90-91"}),
            json!({"port": "80-81", "host_port": 90}),
            json!({"port": "4/-82", "nat": true}),
            json!({"port": "4:x", "host_port": "1/a-b"}),
        ] {
            assert!(read(json.clone()).is_err(), "{json}");
        }
    }
}
