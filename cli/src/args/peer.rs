//! `--peer NAME=URL`: a server of somebody else's that a benchmark asks as well.

use std::str::FromStr;

/// Who it is and where it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// What its row is called.
    pub name: String,
    /// Its host and port.
    pub authority: String,
    /// What is asked of it; begins with a slash.
    pub path: String,
}

/// Not a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a peer is NAME=http://HOST:PORT/PATH")]
pub struct InvalidPeer;

impl FromStr for Peer {
    type Err = InvalidPeer;

    fn from_str(text: &str) -> Result<Self, InvalidPeer> {
        let (name, url) = text.split_once('=').ok_or(InvalidPeer)?;
        let place = url.strip_prefix("http://").ok_or(InvalidPeer)?;
        let (authority, path) = place.split_at(place.find('/').unwrap_or(place.len()));
        let (host, port) = authority.rsplit_once(':').ok_or(InvalidPeer)?;
        let is_one_line = path.chars().all(|letter| letter.is_ascii_graphic());
        if name.is_empty() || host.is_empty() || port.parse::<u16>().is_err() || !is_one_line {
            return Err(InvalidPeer);
        }
        Ok(Self {
            name: name.into(),
            authority: authority.into(),
            path: if path.is_empty() { "/" } else { path }.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_a_name_a_port_and_a_path() {
        let peer: Peer = "wash dev=http://127.0.0.1:8000/a?b=c".parse().unwrap();
        assert_eq!(
            (peer.name.as_str(), peer.authority.as_str(), peer.path.as_str()),
            ("wash dev", "127.0.0.1:8000", "/a?b=c")
        );
        assert_eq!("a=http://localhost:1".parse::<Peer>().unwrap().path, "/");
    }

    #[test]
    fn what_is_no_peer_is_refused() {
        for text in [
            "http://127.0.0.1:1/",
            "=http://127.0.0.1:1/",
            "a=https://127.0.0.1:1/",
            "a=http://127.0.0.1/",
            "a=http://:1/",
            "a=http://127.0.0.1:port/",
            "a=http://127.0.0.1:1/a b",
            "a=http://127.0.0.1:1/\r\n",
        ] {
            assert_eq!(text.parse::<Peer>(), Err(InvalidPeer), "{text:?}");
        }
    }
}
