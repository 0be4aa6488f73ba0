//! Where a request goes, and whether its module may send it there.
//!
//! Two looks: at what the request names, before anything is looked up; then at each address that the name leads to.

use std::collections::BTreeSet;
use std::net::IpAddr;

use http::uri::Scheme;
use http::{HeaderValue, Uri};
use wess_schemas::hosts::{HostGrant, HostName, HttpScheme};

use super::address::is_public;
use super::{OutboundFault, OutboundPolicy};

/// A host that a module may send this request to.
#[derive(Debug)]
pub struct Target {
    pub scheme: HttpScheme,
    pub host: HostName,
    pub port: u16,
    policy: OutboundPolicy,
    granted: Vec<HostGrant>,
}

impl Target {
    /// Where a URI with scheme and authority leads.
    pub fn of(uri: &Uri, granted: &BTreeSet<String>, policy: OutboundPolicy) -> Result<Self, OutboundFault> {
        let scheme = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => HttpScheme::Http,
            Some(scheme) if *scheme == Scheme::HTTPS => HttpScheme::Https,
            _ => return Err(OutboundFault::UriInvalid),
        };
        let authority = uri.authority().ok_or(OutboundFault::UriInvalid)?;
        let host = authority.host().parse().map_err(|_| OutboundFault::UriInvalid)?;
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => scheme.default_port(),
            Some(_) => authority.port_u16().ok_or(OutboundFault::UriInvalid)?,
            // Somebody's name before the host.
            None => return Err(OutboundFault::UriInvalid),
        };
        // They were checked when they were stored.
        let granted: Vec<HostGrant> = granted.iter().flat_map(|entry| entry.parse()).collect();
        let named = granted.iter().any(|grant| grant.allows(scheme, &host, port));
        if policy == OutboundPolicy::Off || !named {
            return Err(OutboundFault::Denied);
        }
        Ok(Self {
            scheme,
            host,
            port,
            policy,
            granted,
        })
    }

    /// Whether this very address may be connected to.
    pub fn may_connect(&self, address: IpAddr) -> bool {
        let by_itself = |grant: &HostGrant| grant.names_address(self.scheme, address, self.port);
        is_public(address) || self.policy == OutboundPolicy::Granted && self.granted.iter().any(by_itself)
    }

    /// What `Host` says: nothing but where the request goes.
    pub fn host_header(&self) -> Result<HeaderValue, OutboundFault> {
        let text = match self.port == self.scheme.default_port() {
            true => self.host.to_string(),
            false => format!("{}:{}", self.host, self.port),
        };
        HeaderValue::try_from(text).map_err(|_| OutboundFault::UriInvalid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(uri: &str, granted: &[&str], policy: OutboundPolicy) -> Result<Target, OutboundFault> {
        let granted = granted.iter().map(|entry| (*entry).to_owned()).collect();
        Target::of(&uri.parse().unwrap(), &granted, policy)
    }

    #[test]
    fn a_request_goes_where_it_is_granted_and_says_so_in_its_host_header() {
        for (uri, granted, header) in [
            ("http://A.example/x", "a.example", "a.example"),
            ("http://a.example:80/", "a.example", "a.example"),
            ("https://a.example:8443/", "a.example:8443", "a.example:8443"),
            ("https://[::1]/", "[::1]", "[::1]"),
            ("http://[::ffff:10.0.0.1]:81/", "10.0.0.1:81", "10.0.0.1:81"),
        ] {
            let target = target(uri, &[granted], OutboundPolicy::Granted).expect(uri);
            assert_eq!(target.host_header().unwrap(), header, "{uri}");
        }
    }

    #[test]
    fn what_is_not_granted_is_denied_and_what_is_no_address_is_told() {
        let granted = ["a.example", "10.0.0.1"];
        for (uri, fault) in [
            ("http://b.example/", OutboundFault::Denied),
            ("http://a.example:8080/", OutboundFault::Denied),
            ("http://a.example:0/", OutboundFault::Denied),
            ("http://10.0.0.2/", OutboundFault::Denied),
            ("ftp://a.example/", OutboundFault::UriInvalid),
            ("http://me@a.example/", OutboundFault::UriInvalid),
            ("http://a.example:99999/", OutboundFault::UriInvalid),
            ("http://a.example./", OutboundFault::UriInvalid),
            ("http://0x0a000001/", OutboundFault::UriInvalid),
            ("http://167772161/", OutboundFault::UriInvalid),
            ("/path", OutboundFault::UriInvalid),
        ] {
            let refused = target(uri, &granted, OutboundPolicy::Granted).expect_err(uri);
            assert_eq!(refused, fault, "{uri}");
        }
        let off = target("http://a.example/", &granted, OutboundPolicy::Off).unwrap_err();
        assert_eq!(off, OutboundFault::Denied);
    }

    #[test]
    fn an_address_that_is_not_public_is_reached_only_by_its_own_entry() {
        let by_name = |granted: &[&str], policy, address: &str| {
            let target = target("http://a.example:81/", granted, policy).unwrap();
            target.may_connect(address.parse().unwrap())
        };
        use OutboundPolicy::{Granted, Public};
        for (granted, policy, address, may) in [
            (&["a.example:81"][..], Granted, "1.1.1.1", true),
            (&["a.example:81"], Granted, "10.0.0.1", false),
            (&["a.example:81"], Granted, "::ffff:10.0.0.1", false),
            (&["a.example:81", "10.0.0.1:81"], Granted, "10.0.0.1", true),
            (&["a.example:81", "10.0.0.1:81"], Granted, "::ffff:10.0.0.1", true),
            (&["a.example:81", "10.0.0.0/8:81"], Granted, "10.9.9.9", true),
            (&["a.example:81", "10.0.0.1:81"], Granted, "10.0.0.2", false),
            (&["a.example:81", "10.0.0.1"], Granted, "10.0.0.1", false),
            (
                &["a.example:81", "https://10.0.0.1:81"],
                Granted,
                "10.0.0.1",
                false,
            ),
            (&["a.example:81", "10.0.0.1:81"], Public, "10.0.0.1", false),
            (&["a.example:81"], Public, "1.1.1.1", true),
        ] {
            assert_eq!(
                by_name(granted, policy, address),
                may,
                "{granted:?} {policy:?} {address}"
            );
        }
    }
}
