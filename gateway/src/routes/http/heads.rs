//! What a proxy does to heads: takes out what is between two neighbours only, and says how the request came.

use std::net::SocketAddr;

use axum::http::HeaderValue;
use axum::http::header::{
    CONNECTION, EXPECT, FORWARDED, HeaderMap, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRANSFER_ENCODING, UPGRADE,
};
use axum::http::request::Parts;
use axum::http::uri::{Authority, Scheme};

use crate::listener::Peer;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// Headers of one connection, besides those that `Connection` names.
const HOPS: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    EXPECT,
];

/// Takes out what is not to be passed on.
pub fn without_hops(headers: &mut HeaderMap) {
    let named = |line: &HeaderValue| {
        let names = line.to_str().unwrap_or_default().split(',');
        names
            .filter_map(|name| name.trim().parse().ok())
            .collect::<Vec<HeaderName>>()
    };
    let named: Vec<HeaderName> = headers.get_all(CONNECTION).iter().flat_map(named).collect();
    for name in named.iter().chain(&HOPS) {
        headers.remove(name);
    }
}

/// Says from whom and to what the request came, after what proxies before this one have said; the scheme as it began.
pub fn forward(head: &mut Parts, prefix: Option<&str>, authority: &Authority) -> Scheme {
    let peer = head.extensions.get::<Peer>().map(|peer| peer.0);
    let headers = &mut head.headers;
    let scheme = scheme(headers.get(FORWARDED_PROTO));
    if let Some(peer) = peer {
        append(headers, FORWARDED_FOR, &peer.ip().to_string());
        if headers.contains_key(FORWARDED) {
            let hop = format!("for=\"{}\";host=\"{authority}\";proto={scheme}", node(peer));
            append(headers, FORWARDED, &hop);
        }
    }
    for (name, text) in [
        (FORWARDED_HOST, authority.as_str()),
        (FORWARDED_PROTO, scheme.as_str()),
    ] {
        if let (false, Ok(text)) = (headers.contains_key(&name), text.parse()) {
            headers.insert(name, text);
        }
    }
    if let Some(Ok(prefix)) = prefix.map(str::parse) {
        headers.insert(FORWARDED_PREFIX, prefix);
    }
    scheme
}

fn scheme(said: Option<&HeaderValue>) -> Scheme {
    match said {
        Some(said) if said.as_bytes().eq_ignore_ascii_case(b"https") => Scheme::HTTPS,
        _ => Scheme::HTTP,
    }
}

/// As RFC 7239 writes it: version 6 in brackets.
fn node(peer: SocketAddr) -> String {
    match peer {
        SocketAddr::V4(peer) => peer.ip().to_string(),
        SocketAddr::V6(peer) => format!("[{}]", peer.ip()),
    }
}

/// One list, whatever lines it came in.
fn append(headers: &mut HeaderMap, name: HeaderName, last: &str) {
    let lines = headers.get_all(&name).iter();
    let said = lines.map(|line| String::from_utf8_lossy(line.as_bytes()).into_owned());
    let list: Vec<String> = said.chain([last.to_owned()]).collect();
    if let Ok(list) = list.join(", ").parse() {
        headers.insert(name, list);
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn head(lines: &[(&str, &str)]) -> Parts {
        let builder = lines.iter().fold(Request::builder(), |builder, (name, value)| {
            builder.header(*name, *value)
        });
        let (mut head, ()) = builder.body(()).unwrap().into_parts();
        head.extensions.insert(Peer("192.0.2.7:9".parse().unwrap()));
        head
    }

    #[test]
    fn headers_of_the_connection_go_and_those_that_it_names() {
        let mut head = head(&[
            ("connection", "close, X-Mine"),
            ("connection", "x-other"),
            ("x-mine", "1"),
            ("x-other", "1"),
            ("te", "trailers"),
            ("upgrade", "websocket"),
            ("trailer", "x-sum"),
            ("accept", "*/*"),
        ]);
        without_hops(&mut head.headers);
        let mut left: Vec<_> = head.headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "trailer"]);
    }

    #[test]
    fn what_proxies_said_is_kept_and_continued() {
        let authority: Authority = "a.example:81".parse().unwrap();
        let mut first = head(&[]);
        assert_eq!(forward(&mut first, Some("/v1/http/x"), &authority), Scheme::HTTP);
        for (name, value) in [
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-host", "a.example:81"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-prefix", "/v1/http/x"),
        ] {
            assert_eq!(first.headers[name], value);
        }
        assert!(!first.headers.contains_key(FORWARDED));
        let mut second = head(&[
            ("x-forwarded-for", "203.0.113.1"),
            ("x-forwarded-for", "203.0.113.2"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "b.example"),
            ("forwarded", "for=203.0.113.1"),
        ]);
        assert_eq!(
            forward(&mut second, Some("/v1/http/x"), &authority),
            Scheme::HTTPS
        );
        for (name, value) in [
            ("x-forwarded-for", "203.0.113.1, 203.0.113.2, 192.0.2.7"),
            ("x-forwarded-host", "b.example"),
            (
                "forwarded",
                "for=203.0.113.1, for=\"192.0.2.7\";host=\"a.example:81\";proto=https",
            ),
        ] {
            assert_eq!(second.headers[name], value);
        }
        assert_eq!(second.headers.get_all("x-forwarded-for").iter().count(), 1);
    }
}
