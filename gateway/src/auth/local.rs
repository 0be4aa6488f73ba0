//! Without tokens, only this machine's own programs are served: not the pages that its browsers show.
//!
//! A page of any site can send requests to loopback. Its `Origin` tells, and, where the site's name was made to
//! resolve to loopback, its `Host`.

use std::net::IpAddr;

use axum::http::Uri;
use axum::http::header::{HOST, HeaderMap, ORIGIN};
use axum::http::uri::Authority;
use wess_schemas::ErrorCode;

use crate::problem::Problem;

/// Refuses what a page of another machine sent.
pub fn check(headers: &HeaderMap) -> Result<(), Problem> {
    let header = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let host = header(HOST).is_none_or(|host| host.parse().is_ok_and(|host| is_local(&host)));
    let origin = header(ORIGIN).is_none_or(is_local_origin);
    if host && origin { Ok(()) } else { Err(foreign()) }
}

fn foreign() -> Problem {
    let message =
        "without tokens, only requests whose Host and Origin are this machine are served: see --tokens";
    Problem::new(ErrorCode::Forbidden, message)
}

fn is_local_origin(origin: &str) -> bool {
    let uri = origin.parse::<Uri>().ok();
    uri.as_ref().and_then(Uri::authority).is_some_and(is_local)
}

fn is_local(authority: &Authority) -> bool {
    let host = authority.host();
    let address = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>();
    address.map_or_else(
        |_| host.eq_ignore_ascii_case("localhost") || host.to_ascii_lowercase().ends_with(".localhost"),
        |address| address.is_loopback(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(host: Option<&str>, origin: Option<&str>) -> bool {
        let given = [(HOST, host), (ORIGIN, origin)];
        let headers = given
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?.parse().unwrap())));
        check(&headers.collect()).is_ok()
    }

    #[test]
    fn programs_and_pages_of_this_machine_are_served() {
        assert!(allowed(None, None));
        for host in [
            "127.0.0.1:8080",
            "localhost",
            "LOCALHOST:1",
            "[::1]:8080",
            "wess.localhost:80",
        ] {
            assert!(allowed(Some(host), None), "{host}");
            assert!(allowed(Some(host), Some(&format!("http://{host}"))), "{host}");
        }
    }

    #[test]
    fn pages_of_other_sites_are_not() {
        for foreign in [
            "evil.example",
            "evil.example:8080",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "notlocalhost",
            "",
        ] {
            assert!(!allowed(Some(foreign), None), "{foreign}");
            assert!(
                !allowed(Some("localhost"), Some(&format!("https://{foreign}"))),
                "{foreign}"
            );
        }
        for origin in ["null", "", "file://"] {
            assert!(!allowed(Some("localhost"), Some(origin)), "{origin}");
        }
    }
}
