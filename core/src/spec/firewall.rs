//! What passes at a device on a network: the key `firewall` of an attachment.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use super::at::At;
use super::json::{self, Json, json, wrong_type};
use crate::error::{Error, Result};
use crate::net::Direction;

/// What passes at a container's device on a [`Network`](crate::Network). The default lets everything pass.
///
/// The first rule that fits decides, without one the default of the direction. What answers to something that was let pass
/// passes: packets back on connections of TCP, UDP, SCTP, replies to pings, errors of ICMP about either. So do ARP and neighbour
/// discovery. What passes between two containers is what the firewalls of both let pass. What a container sends to many (broadcast,
/// multicast) is for each peer, too: a rule that denies one of them denies it.
///
/// As JSON `{"incoming": "deny", "outgoing": "allow", "rules": [{"direction": "in", "action": "allow", "protocol": "tcp", "ports":
/// [5432, "8000-8010"], "peer": "10.89.0.0/24"}]}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Firewall {
    /// What becomes of what nobody asked for and no rule says: of what comes in.
    pub incoming: FirewallAction,
    /// Likewise, of what goes out.
    pub outgoing: FirewallAction,
    /// The first that fits decides. Up to [`MAX_RULES`](Self::MAX_RULES).
    pub rules: Vec<FirewallRule>,
}

/// What a firewall does with a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FirewallAction {
    /// It passes.
    #[default]
    Allow,
    /// It is dropped without a word.
    Deny,
}

impl FirewallAction {
    /// `allow`, `deny`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// A rule of a [`Firewall`]. What is not said of a packet may be anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirewallRule {
    /// Which way: `in` to the container, `out` of it, or both.
    pub direction: Direction,
    /// What becomes of it.
    pub action: FirewallAction,
    /// The protocol above IP.
    pub protocol: Option<FirewallProtocol>,
    /// Ports of who is asked, never of who asks. They take a protocol that has ports. Up to [`MAX_PORTS`](Self::MAX_PORTS) of
    /// these.
    pub ports: Vec<FirewallPorts>,
    /// The other end.
    pub peer: Option<FirewallPeer>,
}

/// A protocol above IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirewallProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// ICMP of IPv4 and that of IPv6.
    Icmp,
    /// The one with this number (the registry of IANA).
    Number(u8),
}

impl FirewallProtocol {
    const NAMED: [(&'static str, Self); 4] =
        [("tcp", Self::Tcp), ("udp", Self::Udp), ("sctp", Self::Sctp), ("icmp", Self::Icmp)];

    /// Its numbers over IPv4 and over IPv6.
    pub(crate) fn numbers(self) -> [u8; 2] {
        let one = match self {
            Self::Tcp => libc::IPPROTO_TCP as u8,
            Self::Udp => libc::IPPROTO_UDP as u8,
            Self::Sctp => libc::IPPROTO_SCTP as u8,
            Self::Icmp => return [libc::IPPROTO_ICMP as u8, libc::IPPROTO_ICMPV6 as u8],
            Self::Number(number) => number,
        };
        [one; 2]
    }

    fn has_ports(self) -> bool {
        matches!(self, Self::Tcp | Self::Udp | Self::Sctp)
    }

    fn to_json(self) -> Json {
        match Self::NAMED.iter().find(|(_, one)| *one == self) {
            Some((name, _)) => (*name).into(),
            None => self.numbers()[0].into(),
        }
    }
}

/// Ports from the first to the last; both are meant, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirewallPorts {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

impl From<u16> for FirewallPorts {
    fn from(port: u16) -> Self {
        Self { first: port, last: port }
    }
}

impl FromStr for FirewallPorts {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let port = |text: &str| text.parse::<u16>().ok().filter(|&port| port > 0 && digits(text));
        match (port(first), port(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            _ => Err(format!("{text:?} is not a port from 1 to 65535, or a range of them like 8000-8010")),
        }
    }
}

/// The other end of what a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirewallPeer {
    /// One of these addresses.
    Net(IpNet),
    /// Containers on the network with this `name`, `hostname` or alias, whenever they come.
    Name(String),
}

impl From<IpAddr> for FirewallPeer {
    fn from(address: IpAddr) -> Self {
        Self::Net(address.into())
    }
}

impl From<IpNet> for FirewallPeer {
    fn from(net: IpNet) -> Self {
        Self::Net(net)
    }
}

impl FromStr for FirewallPeer {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let net = match text.parse::<IpAddr>() {
            Ok(IpAddr::V6(address)) if let Some(ipv4) = address.to_ipv4_mapped() => {
                return Err(format!("{text:?} is in no packet: {ipv4} is meant"));
            }
            Ok(address) => return Ok(address.into()),
            Err(_) => text.parse::<IpNet>(),
        };
        match net {
            Ok(net) if net.addr() != net.network() => {
                Err(format!("{text:?} has bits behind its prefix: {} or {} is meant", net.trunc(), net.addr()))
            }
            Ok(net) => Ok(Self::Net(net)),
            // What looks like an address and is none is no name either: nobody would ever have it.
            Err(_) if text.contains(['/', ':']) || text.bytes().all(|b| b.is_ascii_digit() || b == b'.') => {
                Err(format!("{text:?} is not an address, nor a subnet like 10.1.2.0/24, nor the name of a container"))
            }
            Err(_) => Ok(Self::Name(text.to_owned())),
        }
    }
}

impl fmt::Display for FirewallPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net(net) if net.prefix_len() == net.max_prefix_len() => net.addr().fmt(f),
            Self::Net(net) => net.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl FirewallRule {
    /// Ports and ranges of one rule.
    pub const MAX_PORTS: usize = 32;

    /// About everything in this direction.
    pub fn new(direction: Direction, action: FirewallAction) -> Self {
        Self { direction, action, protocol: None, ports: Vec::new(), peer: None }
    }

    /// Lets in.
    pub fn allow_in() -> Self {
        Self::new(Direction::In, FirewallAction::Allow)
    }

    /// Does not let in.
    pub fn deny_in() -> Self {
        Self::new(Direction::In, FirewallAction::Deny)
    }

    /// Lets out.
    pub fn allow_out() -> Self {
        Self::new(Direction::Out, FirewallAction::Allow)
    }

    /// Does not let out.
    pub fn deny_out() -> Self {
        Self::new(Direction::Out, FirewallAction::Deny)
    }

    /// Sets [`protocol`](Self#structfield.protocol).
    pub fn protocol(mut self, protocol: FirewallProtocol) -> Self {
        self.protocol = Some(protocol);
        self
    }

    /// Adds to [`ports`](Self#structfield.ports).
    pub fn port(mut self, port: impl Into<FirewallPorts>) -> Self {
        self.ports.push(port.into());
        self
    }

    /// Adds to [`ports`](Self#structfield.ports).
    pub fn ports(mut self, first: u16, last: u16) -> Self {
        self.ports.push(FirewallPorts { first, last });
        self
    }

    /// Sets [`peer`](Self#structfield.peer).
    pub fn peer(mut self, peer: impl Into<FirewallPeer>) -> Self {
        self.peer = Some(peer.into());
        self
    }

    /// Sets [`peer`](Self#structfield.peer) to containers of this name.
    pub fn peer_name(self, name: impl Into<String>) -> Self {
        self.peer(FirewallPeer::Name(name.into()))
    }

    fn read(json: &Json, at: &At) -> Result<Self> {
        let members = json::members(json, at, "an object", &RULE_KEYS)?;
        let direction = word(members, at, "direction", &Direction::ALL.map(|one| (one.name(), one)))?;
        let action = word(members, at, "action", &ACTIONS)?;
        let protocol = json::member(members, "protocol").map(|json| read_protocol(json, &at.key("protocol")));
        let place = at.key("ports");
        let ports = match json::member(members, "ports") {
            None => Vec::new(),
            Some(Json::Array(list)) => {
                list.iter().enumerate().map(|(i, json)| read_ports(json, &place.index(i))).collect::<Result<_>>()?
            }
            Some(one) => vec![read_ports(one, &place)?],
        };
        let peer = match json::member(members, "peer") {
            None => None,
            Some(Json::String(text)) => Some(text.parse().map_err(|why: String| at.key("peer").error(why))?),
            Some(other) => return Err(wrong_type(&at.key("peer"), "an address, a subnet or a name", other)),
        };
        let missing = |key: &str, known: &str| at.key(key).error(format!("is missing: {known}"));
        Ok(Self {
            direction: direction.ok_or_else(|| missing("direction", "in, out or both"))?,
            action: action.ok_or_else(|| missing("action", "allow or deny"))?,
            protocol: protocol.transpose()?,
            ports,
            peer,
        })
    }

    pub(crate) fn to_json(&self) -> Json {
        let mut json = json!({"direction": self.direction.name(), "action": self.action.name()});
        if let Some(protocol) = self.protocol {
            json["protocol"] = protocol.to_json();
        }
        if !self.ports.is_empty() {
            let shown = |ports: &FirewallPorts| match ports.first == ports.last {
                true => Json::from(ports.first),
                false => format!("{}-{}", ports.first, ports.last).into(),
            };
            json["ports"] = self.ports.iter().map(shown).collect();
        }
        if let Some(peer) = &self.peer {
            json["peer"] = peer.to_string().into();
        }
        json
    }

    fn validate(&self, at: &At, host_name: &impl Fn(&At, &str) -> Result<()>) -> Result<()> {
        let place = at.key("ports");
        if !self.ports.is_empty() && !self.protocol.is_some_and(FirewallProtocol::has_ports) {
            return Err(place.error("takes a protocol that has ports: tcp, udp or sctp"));
        }
        if self.ports.len() > Self::MAX_PORTS {
            return Err(place.error(format!("{} are more than {}", self.ports.len(), Self::MAX_PORTS)));
        }
        for (i, ports) in self.ports.iter().enumerate() {
            if ports.first == 0 || ports.first > ports.last {
                let what = format!("{}-{} is not a range of ports from 1 to 65535", ports.first, ports.last);
                return Err(place.index(i).error(what));
            }
        }
        match &self.peer {
            // The `name` of a container need not be the name of a host.
            Some(FirewallPeer::Name(name)) if super::name_syntax(name).is_ok() => Ok(()),
            Some(FirewallPeer::Name(name)) => host_name(&at.key("peer"), name),
            Some(FirewallPeer::Net(net)) if net.addr() != net.network() => {
                Err(at.key("peer").error(format!("{net} has bits behind its prefix")))
            }
            _ => Ok(()),
        }
    }
}

const ACTIONS: [(&str, FirewallAction); 2] = [("allow", FirewallAction::Allow), ("deny", FirewallAction::Deny)];
const KEYS: [&str; 3] = ["incoming", "outgoing", "rules"];
const RULE_KEYS: [&str; 5] = ["direction", "action", "protocol", "ports", "peer"];

fn word<T: Copy>(members: &json::Members, at: &At, key: &str, known: &[(&str, T)]) -> Result<Option<T>> {
    let Some(json) = json::member(members, key) else { return Ok(None) };
    let found = json.as_str().and_then(|text| known.iter().find(|(name, _)| *name == text));
    let names = || known.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    found.map(|(_, value)| Some(*value)).ok_or_else(|| wrong_type(&at.key(key), &names(), json))
}

fn read_protocol(json: &Json, at: &At) -> Result<FirewallProtocol> {
    let named = |text: &str| FirewallProtocol::NAMED.iter().find(|(name, _)| *name == text).map(|(_, one)| *one);
    // A number of a protocol that has a name is that protocol: there and back it is the same.
    let by_number = |number: u8| {
        let same = |one: &FirewallProtocol| one.has_ports() && one.numbers()[0] == number;
        let known = FirewallProtocol::NAMED.iter().map(|(_, one)| *one).find(same);
        known.unwrap_or(FirewallProtocol::Number(number))
    };
    let found = match json {
        Json::String(text) => named(text),
        _ => json::integer(json).and_then(|number| u8::try_from(number).ok()).map(by_number),
    };
    found.ok_or_else(|| wrong_type(at, "tcp, udp, sctp, icmp or a number up to 255", json))
}

fn read_ports(json: &Json, at: &At) -> Result<FirewallPorts> {
    let text = match json {
        Json::String(text) => text.clone(),
        _ => json::integer(json).ok_or_else(|| wrong_type(at, "a port, or a range like 8000-8010", json))?.to_string(),
    };
    text.parse().map_err(|why: String| at.error(why))
}

impl Firewall {
    /// Rules of one device.
    pub const MAX_RULES: usize = 128;

    /// Everything passes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing passes but what rules let pass.
    pub fn closed() -> Self {
        Self::new().incoming(FirewallAction::Deny).outgoing(FirewallAction::Deny)
    }

    /// Sets [`incoming`](Self#structfield.incoming).
    pub fn incoming(mut self, action: FirewallAction) -> Self {
        self.incoming = action;
        self
    }

    /// Sets [`outgoing`](Self#structfield.outgoing).
    pub fn outgoing(mut self, action: FirewallAction) -> Self {
        self.outgoing = action;
        self
    }

    /// Adds to [`rules`](Self#structfield.rules).
    pub fn rule(mut self, rule: FirewallRule) -> Self {
        self.rules.push(rule);
        self
    }

    /// Reads it from JSON; all members are optional.
    ///
    /// # Errors
    /// InvalidSpec with `firewall` and the member as field.
    pub fn from_json(text: &str) -> Result<Self> {
        let at = At::Field("firewall");
        let firewall = Self::read(&json::parse(text).map_err(|e| e.with_field("firewall"))?, &at)?;
        firewall.check()?;
        Ok(firewall)
    }

    /// As [`from_json`](Self::from_json) reads it.
    pub fn to_json(&self) -> String {
        self.json().to_string()
    }

    pub(super) fn read(json: &Json, at: &At) -> Result<Self> {
        let members = json::members(json, at, "an object", &KEYS)?;
        let action = |key| Ok::<_, Error>(word(members, at, key, &ACTIONS)?.unwrap_or_default());
        let place = at.key("rules");
        let rules = match json::member(members, "rules") {
            None => Vec::new(),
            Some(Json::Array(list)) => {
                let rule = |(i, json)| FirewallRule::read(json, &place.index(i));
                list.iter().enumerate().map(rule).collect::<Result<_>>()?
            }
            Some(other) => return Err(wrong_type(&place, "a list", other)),
        };
        Ok(Self { incoming: action("incoming")?, outgoing: action("outgoing")?, rules })
    }

    pub(super) fn json(&self) -> Json {
        let rules: Json = self.rules.iter().map(FirewallRule::to_json).collect();
        json!({"incoming": self.incoming.name(), "outgoing": self.outgoing.name(), "rules": rules})
    }

    pub(super) fn schema() -> Json {
        let action = json!({"enum": ACTIONS.map(|(name, _)| name), "default": "allow"});
        let port =
            json!({"type": ["integer", "string"], "minimum": 1, "maximum": u16::MAX, "pattern": "^[0-9]+(-[0-9]+)?$"});
        let rule = json!({"type": "object", "additionalProperties": false, "required": ["direction", "action"], "properties": {
            "direction": {"enum": Direction::ALL.map(Direction::name)},
            "action": {"enum": ACTIONS.map(|(name, _)| name)},
            "protocol": {"type": ["string", "integer"], "description": "tcp, udp, sctp, icmp, or a number"},
            "ports": {"anyOf": [port, {"type": "array", "items": port}]},
            "peer": {"type": "string", "description": "an address, a subnet, or a name on the network"},
        }});
        json!({"type": "object", "additionalProperties": false, "properties": {
            "incoming": action, "outgoing": action, "rules": {"type": "array", "items": rule},
        }})
    }

    pub(super) fn validate(&self, at: &At, host_name: &impl Fn(&At, &str) -> Result<()>) -> Result<()> {
        let place = at.key("rules");
        if self.rules.len() > Self::MAX_RULES {
            return Err(place.error(format!("{} are more than {}", self.rules.len(), Self::MAX_RULES)));
        }
        self.rules.iter().enumerate().try_for_each(|(i, rule)| rule.validate(&place.index(i), host_name))
    }

    /// # Errors
    /// InvalidSpec with `firewall` and the member as field.
    pub(crate) fn check(&self) -> Result<()> {
        self.validate(&At::Field("firewall"), &super::validate::name_of_host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_there_and_back() {
        let text = r#"{"incoming":"deny","outgoing":"allow","rules":[{"action":"allow","direction":"in","peer":"10.89.0.0/24","ports":[5432,"8000-8010"],"protocol":"tcp"},{"action":"deny","direction":"out","peer":"db"},{"action":"deny","direction":"both","peer":"fd00::1","protocol":47}]}"#;
        let firewall = Firewall::from_json(text).unwrap();
        assert_eq!(firewall.to_json(), text);
        let built = Firewall::new()
            .incoming(FirewallAction::Deny)
            .rule(
                FirewallRule::allow_in()
                    .protocol(FirewallProtocol::Tcp)
                    .port(5432)
                    .ports(8000, 8010)
                    .peer("10.89.0.0/24".parse::<IpNet>().unwrap()),
            )
            .rule(FirewallRule::deny_out().peer_name("db"))
            .rule(
                FirewallRule::new(Direction::Both, FirewallAction::Deny)
                    .protocol(FirewallProtocol::Number(47))
                    .peer("fd00::1".parse::<IpAddr>().unwrap()),
            );
        assert_eq!(built, firewall);
        assert_eq!(Firewall::from_json("{}").unwrap(), Firewall::new());
        let six =
            Firewall::from_json(r#"{"rules": [{"direction": "in", "action": "deny", "protocol": 6, "ports": 22}]}"#);
        assert_eq!(six.unwrap().rules[0].protocol, Some(FirewallProtocol::Tcp));
    }

    #[test]
    fn bad_firewalls_name_their_field() {
        let rule = |more: &str| format!(r#"{{"rules": [{{"direction": "in", "action": "deny"{more}}}]}}"#);
        let many = format!(r#"{{"rules": [{}]}}"#, vec![r#"{"direction": "in", "action": "deny"}"#; 129].join(","));
        for (text, field, has) in [
            ("[]".to_owned(), "firewall", "an object"),
            ("{".to_owned(), "firewall", "JSON"),
            (r#"{"incomming": "deny"}"#.to_owned(), "firewall.incomming", "did you mean \"incoming\""),
            (r#"{"incoming": "drop"}"#.to_owned(), "firewall.incoming", "allow, deny"),
            (r#"{"rules": {}}"#.to_owned(), "firewall.rules", "a list"),
            (r#"{"rules": [{"action": "deny"}]}"#.to_owned(), "firewall.rules[0].direction", "is missing"),
            (r#"{"rules": [{"direction": "in"}]}"#.to_owned(), "firewall.rules[0].action", "is missing"),
            (
                r#"{"rules": [{"direction": "up", "action": "deny"}]}"#.to_owned(),
                "firewall.rules[0].direction",
                "both, in",
            ),
            (rule(r#", "port": 5"#), "firewall.rules[0].port", "did you mean \"ports\""),
            (rule(r#", "ports": 5"#), "firewall.rules[0].ports", "takes a protocol"),
            (rule(r#", "protocol": "icmp", "ports": 5"#), "firewall.rules[0].ports", "takes a protocol"),
            (rule(r#", "protocol": "tpc""#), "firewall.rules[0].protocol", "tcp, udp"),
            (rule(r#", "protocol": 256"#), "firewall.rules[0].protocol", "255"),
            (rule(r#", "protocol": "tcp", "ports": [0]"#), "firewall.rules[0].ports[0]", "1 to 65535"),
            (rule(r#", "protocol": "tcp", "ports": ["9-8"]"#), "firewall.rules[0].ports[0]", "8000-8010"),
            (rule(r#", "protocol": "tcp", "ports": ["+9"]"#), "firewall.rules[0].ports[0]", "8000-8010"),
            (rule(r#", "protocol": "tcp", "ports": [true]"#), "firewall.rules[0].ports[0]", "a port"),
            (rule(r#", "peer": 7"#), "firewall.rules[0].peer", "an address"),
            (rule(r#", "peer": "10.0.0.1/24""#), "firewall.rules[0].peer", "10.0.0.0/24"),
            (rule(r#", "peer": "10.0.0.256""#), "firewall.rules[0].peer", "not an address"),
            (rule(r#", "peer": "a b""#), "firewall.rules[0].peer", ""),
            (many, "firewall.rules", "128"),
        ] {
            let error = Firewall::from_json(&text).unwrap_err();
            assert_eq!(error.field(), Some(field), "{text}: {error}");
            assert!(error.to_string().contains(has), "{text}: {error}");
        }
    }
}
