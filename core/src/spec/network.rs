//! What a network of containers is to be.

use std::net::IpAddr;

use ipnet::IpNet;

use super::at::At;
use super::json::{self, Json, json, wrong_type};
use crate::error::{Error, Result};

/// What leads out of a network that is not internal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WayOut {
    /// The kernel where it can, else a program: the default.
    #[default]
    Auto,
    /// The kernel's masquerade. It takes CAP_NET_ADMIN, and `net.ipv4.ip_forward`. That a chain of nftables drops what it has no rule for
    /// is no reason against it, as it is for [`Auto`](Self::Auto): its rules may be for this.
    Kernel,
    /// pasta, of the package passt.
    Pasta,
    /// slirp4netns, of the package of that name. IPv4 only.
    Slirp4netns,
}

impl WayOut {
    pub(crate) const ALL: [Self; 4] = [Self::Auto, Self::Kernel, Self::Pasta, Self::Slirp4netns];

    /// `auto`, `kernel`, `pasta`, `slirp4netns`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Kernel => "kernel",
            Self::Pasta => "pasta",
            Self::Slirp4netns => "slirp4netns",
        }
    }
}

/// What a [`Network`](crate::Network) is to be. As JSON `{"name": "shop", "subnets": ["10.1.2.0/24", "fd00:1::/64"], "mtu": 1500,
/// "internal": false, "way_out": "kernel"}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkSpec {
    /// By which containers name it. Default: one that no other has. 1 to 48 letters, digits, `_`, `.` and `-`.
    pub name: Option<String>,
    /// At most one of IPv4 and one of IPv6, as `ADDRESS/PREFIX`. Default: [`NetworkSpec::SUBNETS`] or the next ones that no other
    /// network of this program overlaps, without the second where the kernel has no IPv6. The first address of each is kept for a
    /// gateway. Networks do not see each other, so that they can have the same when it is asked for; a container is not on two whose
    /// subnets overlap.
    pub subnets: Vec<String>,
    /// The largest packet in bytes: 1280 to 65535. Default: 1500.
    pub mtu: Option<u32>,
    /// Whether nothing leads out of it: the default. Without, its containers reach what this program reaches, and what is open on this
    /// machine but not on 127.0.0.1 alone, as if they were this program: by the kernel's masquerade, with CAP_NET_ADMIN and where `net.ipv4.ip_forward` is
    /// set; else by `pasta` (package passt) or `slirp4netns`. See `way_out`.
    pub internal: bool,
    /// What leads out of a network that is not internal. Default: [`WayOut::Auto`].
    pub way_out: WayOut,
}

impl Default for NetworkSpec {
    fn default() -> Self {
        Self { name: None, subnets: Vec::new(), mtu: None, internal: true, way_out: WayOut::Auto }
    }
}

const KEYS: [&str; 5] = ["name", "subnets", "mtu", "internal", "way_out"];

impl NetworkSpec {
    /// What a network has unless something else is asked for, or another of this program has it: the next one has 10.90.0.0/16 and
    /// fd4f:9a1c:77e2:1::/64, and so on up to 10.255.0.0/16. Where there are more than these 167, some have the same.
    pub const SUBNETS: [&str; 2] = ["10.89.0.0/16", "fd4f:9a1c:77e2::/64"];
    /// The default.
    pub const MTU: u32 = 1500;

    /// A network with all defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`name`](Self#structfield.name).
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Adds to [`subnets`](Self#structfield.subnets).
    pub fn subnet(mut self, subnet: impl Into<String>) -> Self {
        self.subnets.push(subnet.into());
        self
    }

    /// Sets [`mtu`](Self#structfield.mtu).
    pub fn mtu(mut self, bytes: u32) -> Self {
        self.mtu = Some(bytes);
        self
    }

    /// Sets [`internal`](Self#structfield.internal).
    pub fn internal(mut self, internal: bool) -> Self {
        self.internal = internal;
        self
    }

    /// Sets [`way_out`](Self#structfield.way_out).
    pub fn way_out(mut self, way_out: WayOut) -> Self {
        self.way_out = way_out;
        self
    }

    /// Reads it from JSON.
    ///
    /// # Errors
    /// InvalidSpec with the member's name as field.
    pub fn from_json(text: &str) -> Result<Self> {
        let json = json::parse(text)?;
        let members = json::members(&json, &At::Field("network"), "an object", &KEYS)?;
        let name = match json::member(members, "name") {
            None => None,
            Some(Json::String(name)) => Some(name.clone()),
            Some(other) => return Err(wrong_type(&At::Field("name"), "a name", other)),
        };
        let field = At::Field("subnets");
        let subnet = |json: &Json, at: &At| match json {
            Json::String(text) => Ok(text.clone()),
            other => Err(wrong_type(at, "a subnet like 10.1.2.0/24", other)),
        };
        let subnets = match json::member(members, "subnets") {
            None => Vec::new(),
            Some(Json::Array(list)) => {
                list.iter().enumerate().map(|(i, json)| subnet(json, &field.index(i))).collect::<Result<_>>()?
            }
            Some(one) => vec![subnet(one, &field)?],
        };
        let mtu = match json::member(members, "mtu") {
            None => None,
            Some(json) => {
                let mtu =
                    json::integer(json).ok_or_else(|| wrong_type(&At::Field("mtu"), "a number of bytes", json))?;
                Some(
                    u32::try_from(mtu)
                        .map_err(|_| At::Field("mtu").error(format!("{mtu} is not in the range 1280 to 65535")))?,
                )
            }
        };
        let internal = match json::member(members, "internal") {
            None => true,
            Some(Json::Bool(internal)) => *internal,
            Some(other) => return Err(wrong_type(&At::Field("internal"), "true or false", other)),
        };
        let way_out = match json::member(members, "way_out") {
            None => WayOut::Auto,
            Some(Json::String(text)) => read_way_out(text)?,
            Some(other) => return Err(wrong_type(&At::Field("way_out"), "a word", other)),
        };
        let spec = Self { name, subnets, mtu, internal, way_out };
        spec.validate()?;
        Ok(spec)
    }

    /// As [`from_json`](Self::from_json) reads it.
    pub fn to_json(&self) -> String {
        let mut json = json!({});
        if let Some(name) = &self.name {
            json["name"] = name.as_str().into();
        }
        if !self.subnets.is_empty() {
            json["subnets"] = self.subnets.as_slice().into();
        }
        if let Some(mtu) = self.mtu {
            json["mtu"] = mtu.into();
        }
        if !self.internal {
            json["internal"] = false.into();
        }
        if self.way_out != WayOut::Auto {
            json["way_out"] = self.way_out.as_str().into();
        }
        json.to_string()
    }

    /// [`SUBNETS`](Self::SUBNETS), and those that follow.
    pub(crate) fn defaults() -> impl ExactSizeIterator<Item = [IpNet; 2]> {
        const FIRST: u8 = 89;
        (FIRST..=u8::MAX).map(|number| {
            let ipv6 = [0xfd4f, 0x9a1c, 0x77e2, (number - FIRST).into(), 0, 0, 0, 0];
            [IpNet::new_assert([10, number, 0, 0].into(), 16), IpNet::new_assert(ipv6.into(), 64)]
        })
    }

    /// The subnets that are asked for.
    ///
    /// # Errors
    /// InvalidSpec with the member's name as field.
    pub(crate) fn validate(&self) -> Result<Vec<IpNet>> {
        if let Some(name) = &self.name {
            super::name_syntax(name).map_err(|why| Error::spec("name", why))?;
            if name.len() > 48 {
                return Err(Error::spec("name", format!("{} characters are more than 48", name.len())));
            }
        }
        if let Some(mtu) = self.mtu.filter(|mtu| !(1280..=65535).contains(mtu)) {
            return Err(Error::spec("mtu", format!("{mtu} is not in the range 1280 to 65535")));
        }
        if self.internal && self.way_out != WayOut::Auto {
            return Err(Error::spec("way_out", "an internal network has none").with_hint("internal: false"));
        }
        let field = At::Field("subnets");
        let mut found: Vec<IpNet> = Vec::new();
        for (i, text) in self.subnets.iter().enumerate() {
            let at = field.index(i);
            let subnet = read_subnet(text).map_err(|why| at.error(why))?;
            if found.iter().any(|other| other.addr().is_ipv4() == subnet.addr().is_ipv4()) {
                return Err(at.error("a network has one subnet of IPv4 and one of IPv6"));
            }
            found.push(subnet);
        }
        Ok(found)
    }
}

fn read_way_out(text: &str) -> Result<WayOut> {
    WayOut::ALL.into_iter().find(|way| way.as_str() == text).ok_or_else(|| {
        let known = WayOut::ALL.map(WayOut::as_str);
        At::Field("way_out").error(format!("{text:?} is none of {}", known.join(", ")))
    })
}

fn read_subnet(text: &str) -> std::result::Result<IpNet, String> {
    let subnet: IpNet =
        text.parse().map_err(|_| format!("{text:?} is not a subnet like 10.1.2.0/24 or fd00:1::/64"))?;
    if subnet.addr() != subnet.network() {
        return Err(format!(
            "{text:?} has bits behind its prefix: {} is meant, or an address of a container",
            subnet.trunc()
        ));
    }
    let (shortest, longest) = if subnet.addr().is_ipv4() { (8, 29) } else { (16, 124) };
    if !(shortest..=longest).contains(&subnet.prefix_len()) {
        return Err(format!("the prefix of {text:?} is not in the range {shortest} to {longest}"));
    }
    let usable = match subnet.network() {
        IpAddr::V4(first) => {
            !first.is_loopback()
                && !first.is_multicast()
                && !first.is_link_local()
                && first.octets()[0] != 0
                && first.octets()[0] < 240
        }
        IpAddr::V6(first) => {
            !first.is_loopback() && !first.is_multicast() && !first.is_unspecified() && !first.is_unicast_link_local()
        }
    };
    if usable { Ok(subnet) } else { Err(format!("{text:?} has no addresses of single hosts that others reach")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_there_and_back() {
        for text in [
            "{}",
            r#"{"internal":false,"mtu":9000,"name":"shop","subnets":["10.1.2.0/24","fd00:1::/64"],"way_out":"pasta"}"#,
        ] {
            let spec = NetworkSpec::from_json(text).unwrap();
            assert_eq!(spec.to_json(), text);
        }
        let spec =
            NetworkSpec::new().name("shop").subnet("10.1.2.0/24").mtu(1400).internal(false).way_out(WayOut::Kernel);
        assert_eq!(NetworkSpec::from_json(&spec.to_json()).unwrap(), spec);
        assert_eq!(NetworkSpec::from_json(r#"{"subnets": "10.1.2.0/24"}"#).unwrap().subnets, ["10.1.2.0/24"]);
        let first = NetworkSpec::SUBNETS.iter().fold(NetworkSpec::new(), |spec, subnet| spec.subnet(*subnet));
        assert_eq!(first.validate().unwrap(), NetworkSpec::defaults().next().unwrap());
        assert_eq!(NetworkSpec::defaults().len(), 167);
    }

    #[test]
    fn bad_networks_name_their_field() {
        for (text, field, has) in [
            ("[]", Some("network"), "an object"),
            (r#"{"subnet": "10.0.0.0/8"}"#, Some("network.subnet"), "did you mean \"subnets\""),
            (r#"{"name": 7}"#, Some("name"), "a name"),
            (r#"{"name": ""}"#, Some("name"), "not a name"),
            (r#"{"name": "a/b"}"#, Some("name"), "not a name"),
            (r#"{"name": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}"#, Some("name"), "48"),
            (r#"{"internal": "no"}"#, Some("internal"), "true or false"),
            (r#"{"internal": false, "way_out": "pastor"}"#, Some("way_out"), "slirp4netns"),
            (r#"{"way_out": true}"#, Some("way_out"), "a word"),
            (r#"{"way_out": "kernel"}"#, Some("way_out"), "an internal network"),
            (r#"{"mtu": "big"}"#, Some("mtu"), "bytes"),
            (r#"{"mtu": 100}"#, Some("mtu"), "1280"),
            (r#"{"mtu": 99999999999}"#, Some("mtu"), "65535"),
            (r#"{"subnets": 10}"#, Some("subnets"), "a subnet"),
            (r#"{"subnets": ["10.0.0.0"]}"#, Some("subnets[0]"), "a subnet"),
            (r#"{"subnets": ["10.0.0.1/24"]}"#, Some("subnets[0]"), "10.0.0.0/24"),
            (r#"{"subnets": ["10.0.0.0/24", "10.1.0.0/24"]}"#, Some("subnets[1]"), "one subnet"),
            (r#"{"subnets": ["10.0.0.0/30"]}"#, Some("subnets[0]"), "8 to 29"),
            (r#"{"subnets": ["10.0.0.0/33"]}"#, Some("subnets[0]"), "a subnet"),
            (r#"{"subnets": ["fd00::/126"]}"#, Some("subnets[0]"), "16 to 124"),
            (r#"{"subnets": ["127.0.0.0/8"]}"#, Some("subnets[0]"), "reach"),
            (r#"{"subnets": ["224.0.0.0/8"]}"#, Some("subnets[0]"), "reach"),
            (r#"{"subnets": ["fe80::/64"]}"#, Some("subnets[0]"), "reach"),
        ] {
            let error = NetworkSpec::from_json(text).unwrap_err();
            assert_eq!(error.field(), field, "{text}: {error}");
            assert!(error.to_string().contains(has), "{text}: {error}");
        }
    }
}
