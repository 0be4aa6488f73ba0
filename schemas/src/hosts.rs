//! Where a module's guests may send HTTP requests: one entry of `grants.http`, how it is written, and what it allows.
//!
//! Invariant: a name is compared as it is written, in lower case; nothing here asks a name server.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Longest entry, in bytes.
pub const MAX_HOST_GRANT_BYTES: usize = 300;
/// Longest name that a name server knows.
const MAX_NAME: usize = 253;

/// How a request is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpScheme {
    /// In the clear.
    Http,
    /// Through TLS.
    Https,
}

impl HttpScheme {
    /// The port of an address that names none.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// The host that a request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostName {
    /// A name, in lower case.
    Name(String),
    /// An address. One of IPv4 within IPv6 is that of IPv4.
    Address(IpAddr),
}

/// Not a host that a request could name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no name or address of a host")]
pub struct InvalidHost;

impl FromStr for HostName {
    type Err = InvalidHost;

    /// A name in any case, an address of IPv4, or one of IPv6 in brackets.
    fn from_str(text: &str) -> Result<Self, InvalidHost> {
        if let Some(inside) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let address: Ipv6Addr = inside.parse().map_err(|_| InvalidHost)?;
            return Ok(Self::Address(IpAddr::V6(address).to_canonical()));
        }
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Ok(Self::Address(address.into()));
        }
        let name = text.to_ascii_lowercase();
        is_name(&name).then_some(Self::Name(name)).ok_or(InvalidHost)
    }
}

/// One entry: `api.example.com`, `https://api.example.com:8443`, `*.example.org`, `http://127.0.0.1:8080`, `10.0.0.0/8`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostGrant {
    scheme: Option<HttpScheme>,
    hosts: Hosts,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Hosts {
    Name(String),
    /// Every name that ends with this, which begins with a dot.
    Below(String),
    /// Addresses whose first so many bits are these.
    Addresses(IpAddr, u8),
}

/// Not an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHostGrant {
    /// Too long.
    #[error("it has more than {MAX_HOST_GRANT_BYTES} bytes")]
    TooLong,
    /// Neither `http` nor `https`.
    #[error("its scheme is neither http nor https")]
    Scheme,
    /// No port.
    #[error("its port is no number from 1 to 65535")]
    Port,
    /// No host.
    #[error(
        "its host is no name in lower case (of another script: in punycode), no *.name, and no address, in brackets if of IPv6"
    )]
    Host,
    /// No range of addresses.
    #[error("its range is not the first address of 2 or more, and how many bits they share, from 1 on")]
    Range,
}

impl FromStr for HostGrant {
    type Err = InvalidHostGrant;

    fn from_str(text: &str) -> Result<Self, InvalidHostGrant> {
        if text.len() > MAX_HOST_GRANT_BYTES {
            return Err(InvalidHostGrant::TooLong);
        }
        let (scheme, rest) = match text.split_once("://") {
            None => (None, text),
            Some(("http", rest)) => (Some(HttpScheme::Http), rest),
            Some(("https", rest)) => (Some(HttpScheme::Https), rest),
            Some(_) => return Err(InvalidHostGrant::Scheme),
        };
        // The colons of an IPv6 address stand before its bracket.
        let (hosts, port) = match rest.rsplit_once(':') {
            Some((_, behind)) if behind.ends_with(']') || behind.contains("]/") => (rest, None),
            Some((hosts, port)) => (hosts, Some(parse_port(port)?)),
            None => (rest, None),
        };
        let hosts = match hosts.split_once('/') {
            Some((first, bits)) => range(first, bits)?,
            None => single(hosts)?,
        };
        Ok(Self { scheme, hosts, port })
    }
}

impl HostGrant {
    /// Whether a request to this host may be sent; of where a name leads to, this says nothing.
    pub fn allows(&self, scheme: HttpScheme, host: &HostName, port: u16) -> bool {
        self.fits(scheme, port)
            && match (&self.hosts, host) {
                (Hosts::Name(allowed), HostName::Name(name)) => allowed == name,
                (Hosts::Below(suffix), HostName::Name(name)) => {
                    name.len() > suffix.len() && name.ends_with(suffix)
                }
                (Hosts::Addresses(first, bits), HostName::Address(address)) => {
                    within(*address, *first, *bits)
                }
                (Hosts::Addresses(..), HostName::Name(_))
                | (Hosts::Name(_) | Hosts::Below(_), HostName::Address(_)) => false,
            }
    }

    /// Whether it names this very address, or a range that it lies in.
    pub fn names_address(&self, scheme: HttpScheme, address: IpAddr, port: u16) -> bool {
        self.allows(scheme, &HostName::Address(address.to_canonical()), port)
    }

    fn fits(&self, scheme: HttpScheme, port: u16) -> bool {
        self.scheme.is_none_or(|allowed| allowed == scheme)
            && port == self.port.unwrap_or(scheme.default_port())
    }
}

/// Whether an address begins with the bits of another one of its kind.
pub fn within(address: IpAddr, first: IpAddr, bits: u8) -> bool {
    match (address, first) {
        (IpAddr::V4(address), IpAddr::V4(first)) => {
            let differs = address.to_bits() ^ first.to_bits();
            differs.leading_zeros() >= u32::from(bits)
        }
        (IpAddr::V6(address), IpAddr::V6(first)) => {
            let differs = address.to_bits() ^ first.to_bits();
            differs.leading_zeros() >= u32::from(bits)
        }
        _ => false,
    }
}

fn parse_port(text: &str) -> Result<u16, InvalidHostGrant> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port @ 1..) if digits => Ok(port),
        _ => Err(InvalidHostGrant::Port),
    }
}

fn single(text: &str) -> Result<Hosts, InvalidHostGrant> {
    if let Some(parent) = text.strip_prefix("*.") {
        return match is_name(parent) {
            true => Ok(Hosts::Below(format!(".{parent}"))),
            false => Err(InvalidHostGrant::Host),
        };
    }
    match text.parse() {
        Ok(HostName::Address(address)) => Ok(Hosts::Addresses(address, all_bits(address))),
        Ok(HostName::Name(name)) if name == text => Ok(Hosts::Name(name)),
        _ => Err(InvalidHostGrant::Host),
    }
}

fn range(first: &str, bits: &str) -> Result<Hosts, InvalidHostGrant> {
    let Ok(HostName::Address(first)) = first.parse() else {
        return Err(InvalidHostGrant::Host);
    };
    let bits: u8 = bits.parse().map_err(|_| InvalidHostGrant::Range)?;
    let behind = match first {
        IpAddr::V4(first) => first.to_bits().trailing_zeros(),
        IpAddr::V6(first) => first.to_bits().trailing_zeros(),
    };
    let is_first = behind >= u32::from(all_bits(first).saturating_sub(bits));
    if bits == 0 || bits >= all_bits(first) || !is_first {
        return Err(InvalidHostGrant::Range);
    }
    Ok(Hosts::Addresses(first, bits))
}

fn all_bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// A name in lower case that no resolver takes for a number in disguise, as it does `127.1` or `0x7f000001`.
pub(crate) fn is_name(text: &str) -> bool {
    let in_label =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(in_label)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    text.len() <= MAX_NAME
        && text.split('.').all(is_label)
        && !last.starts_with(|first: char| first.is_ascii_digit())
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::HttpScheme::{Http, Https};
    use super::*;

    fn allows(grant: &str, scheme: HttpScheme, host: &str, port: u16) -> bool {
        let grant: HostGrant = grant.parse().unwrap();
        grant.allows(scheme, &host.parse().unwrap(), port)
    }

    #[test]
    fn an_entry_allows_what_it_names_and_nothing_else() {
        for (grant, scheme, host, port, allowed) in [
            ("api.example.com", Https, "api.example.com", 443, true),
            ("api.example.com", Http, "API.Example.com", 80, true),
            ("api.example.com", Https, "api.example.com", 80, false),
            ("api.example.com", Https, "api.example.com", 8443, false),
            ("api.example.com", Https, "api.example.com.evil.org", 443, false),
            ("api.example.com", Https, "x-api.example.com", 443, false),
            ("https://a.example", Http, "a.example", 80, false),
            ("https://a.example", Http, "a.example", 443, false),
            ("https://a.example:8443", Https, "a.example", 8443, true),
            ("https://a.example:8443", Https, "a.example", 443, false),
            ("a.example:8443", Http, "a.example", 8443, true),
            ("*.example.org", Https, "a.example.org", 443, true),
            ("*.example.org", Https, "a.b.example.org", 443, true),
            ("*.example.org", Https, "example.org", 443, false),
            ("*.example.org", Https, "evilexample.org", 443, false),
            ("http://127.0.0.1:8080", Http, "127.0.0.1", 8080, true),
            ("http://127.0.0.1:8080", Http, "[::ffff:127.0.0.1]", 8080, true),
            ("http://127.0.0.1:8080", Http, "localhost", 8080, false),
            ("[::1]", Http, "[::1]", 80, true),
            ("[::1]:81", Http, "[::1]", 81, true),
            ("10.0.0.0/8", Http, "10.255.0.1", 80, true),
            ("10.0.0.0/8", Http, "11.0.0.0", 80, false),
            ("http://[fd00::]/8:99", Http, "[fdff::1]", 99, true),
            ("http://[fd00::]/8", Http, "[fc00::1]", 80, false),
            ("[fd00::]/8", Http, "10.0.0.1", 80, false),
        ] {
            assert_eq!(
                allows(grant, scheme, host, port),
                allowed,
                "{grant} {host}:{port}"
            );
        }
    }

    #[test]
    fn what_is_no_entry_is_refused_by_its_part() {
        let long = format!("{}.com", "a.".repeat(200));
        for (text, why) in [
            (&*long, InvalidHostGrant::TooLong),
            ("ftp://a.com", InvalidHostGrant::Scheme),
            ("HTTP://a.com", InvalidHostGrant::Scheme),
            ("a.com:", InvalidHostGrant::Port),
            ("a.com:0", InvalidHostGrant::Port),
            ("a.com:+80", InvalidHostGrant::Port),
            ("a.com:65536", InvalidHostGrant::Port),
            ("", InvalidHostGrant::Host),
            ("*", InvalidHostGrant::Host),
            ("*.", InvalidHostGrant::Host),
            ("a.*.com", InvalidHostGrant::Host),
            ("*.10.0.0.1", InvalidHostGrant::Host),
            ("A.com", InvalidHostGrant::Host),
            ("a.com.", InvalidHostGrant::Host),
            ("a..com", InvalidHostGrant::Host),
            ("-a.com", InvalidHostGrant::Host),
            ("bücher.example", InvalidHostGrant::Host),
            ("me@a.com", InvalidHostGrant::Host),
            ("127.1", InvalidHostGrant::Host),
            ("2130706433", InvalidHostGrant::Host),
            ("0x7f000001", InvalidHostGrant::Host),
            ("127.0.0.1.", InvalidHostGrant::Host),
            ("[127.0.0.1]", InvalidHostGrant::Host),
            ("[fe80::1%25eth0]", InvalidHostGrant::Host),
            ("a.com/path", InvalidHostGrant::Host),
            ("https://a.com/", InvalidHostGrant::Host),
            ("10.0.0.1/8", InvalidHostGrant::Range),
            ("10.0.0.0/0", InvalidHostGrant::Range),
            ("10.0.0.1/32", InvalidHostGrant::Range),
            ("10.0.0.0/33", InvalidHostGrant::Range),
            ("[fd00::]/129", InvalidHostGrant::Range),
        ] {
            assert_eq!(text.parse::<HostGrant>(), Err(why), "{text}");
        }
        for text in [
            "xn--bcher-kva.example",
            "my_service",
            "a-1.b",
            "0.0.0.0",
            "[::ffff:10.0.0.1]",
        ] {
            assert!(text.parse::<HostGrant>().is_ok(), "{text}");
        }
    }

    #[test]
    fn a_host_of_a_request_is_a_name_or_an_address() {
        for text in ["127.1", "0x7f.1", "a b", "a%2eb", "[::1", "::1", "", "a.com."] {
            assert_eq!(text.parse::<HostName>(), Err(InvalidHost), "{text}");
        }
        for text in ["a.com", "[::1]", "10.0.0.1"] {
            assert_eq!(text.parse::<HostName>().unwrap().to_string(), text);
        }
    }
}
