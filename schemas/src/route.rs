//! The hosts that a module serves: how a route is written, and which of several takes a host.
//!
//! Refuses ports, addresses, and `localhost`, where Wess itself is looked for. Invariant: a host is taken by its own name before any pattern, and by the longest pattern
//! before a shorter one.

use crate::hosts::is_name;

/// Most routes of one module.
pub const MAX_ROUTES: usize = 16;
/// Longest host that a route can take: more no name server knows.
const MAX_HOST: usize = 253;
/// The host that no module takes.
const OWN: &str = "localhost";
/// What a pattern begins with.
const BELOW: &str = "*.";

/// Whether this is `hello.example.com`, or `*.example.com` for all names below.
pub fn is_route(text: &str) -> bool {
    match text.strip_prefix(BELOW) {
        Some(parent) => is_name(parent) && parent.contains('.'),
        None => is_name(text) && text != OWN,
    }
}

/// Whether this is `*.` and a name, with or without a dot in it.
pub fn is_below(text: &str) -> bool {
    text.strip_prefix(BELOW).is_some_and(is_name)
}

/// Whether everything that a route takes is taken by a wider one, too.
pub fn is_within(route: &str, wider: &str) -> bool {
    match wider.strip_prefix('*') {
        Some(below) => route.ends_with(below),
        None => route == wider,
    }
}

/// What takes a host, a name without its port in any case: the first that `find` knows.
pub fn take<T>(host: &str, find: impl Fn(&str) -> Option<T>) -> Option<T> {
    // A longer one would be looked up once for each of its dots.
    if host.len() > MAX_HOST {
        return None;
    }
    let host = host.to_ascii_lowercase();
    find(&host).or_else(|| {
        let dots = host.match_indices('.').skip_while(|(at, _)| *at == 0);
        dots.map(|(at, _)| format!("*{}", &host[at..]))
            .find_map(|pattern| find(&pattern))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(host: &str) -> Option<&'static str> {
        let routes = ["a.example.com", "*.example.com", "*.b.example.com", "single"];
        take(host, |route| routes.into_iter().find(|known| *known == route))
    }

    #[test]
    fn a_route_is_within_itself_and_what_is_wider() {
        for (route, wider) in [
            ("a.example.com", "a.example.com"),
            ("a.example.com", "*.example.com"),
            ("*.b.example.com", "*.example.com"),
            ("*.example.com", "*.example.com"),
        ] {
            assert!(is_within(route, wider), "{route} in {wider}");
        }
        for (route, wider) in [
            ("example.com", "*.example.com"),
            ("badexample.com", "*.example.com"),
            ("*.example.com", "a.example.com"),
            ("*.com", "*.example.com"),
            ("a.example.com.evil.org", "*.example.com"),
        ] {
            assert!(!is_within(route, wider), "{route} in {wider}");
        }
        assert!(is_below("*.localhost") && !is_below("localhost") && !is_below("*.") && !is_below("*.*.a"));
    }

    #[test]
    fn a_route_is_a_name_or_all_names_below_one_with_a_dot() {
        let long = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(61));
        for route in [
            "hello.example.com",
            "*.example.com",
            "xn--bcher-kva.example",
            "a",
            &long,
        ] {
            assert!(is_route(route), "{route}");
        }
        let longer = format!("{long}b");
        for text in [
            "",
            "*",
            "*.",
            "*.com",
            "a.*.com",
            "**.example.com",
            "Hello.example.com",
            "bücher.example",
            "a.example.com:80",
            "http://a.example.com",
            "a.example.com/b",
            "a.example.com.",
            ".example.com",
            "10.0.0.1",
            "*.0.0.1",
            "[::1]",
            "localhost",
            &longer,
        ] {
            assert!(!is_route(text), "{text}");
        }
    }

    #[test]
    fn a_host_is_taken_by_its_name_then_by_the_longest_pattern() {
        for (host, route) in [
            ("a.example.com", Some("a.example.com")),
            ("A.Example.COM", Some("a.example.com")),
            ("c.example.com", Some("*.example.com")),
            ("d.c.example.com", Some("*.example.com")),
            ("b.example.com", Some("*.example.com")),
            ("c.b.example.com", Some("*.b.example.com")),
            ("single", Some("single")),
            ("example.com", None),
            (".example.com", None),
            ("aexample.com", None),
            ("a.single", None),
            ("", None),
        ] {
            assert_eq!(taken(host), route, "{host}");
        }
        let longest = format!("{}.example.com", "a".repeat(MAX_HOST - ".example.com".len()));
        assert_eq!(taken(&longest), Some("*.example.com"));
        assert_eq!(taken(&format!("a{longest}")), None);
    }
}
