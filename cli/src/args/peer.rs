//! `--peer` of `wess bench`: somebody else's responder, measured beside ours.

use std::str::FromStr;

/// Who it is and where it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// What it is called in the report.
    pub name: String,
    /// Where it answers.
    pub place: Place,
    /// Its process, when that is one of this machine.
    pub pid: Option<u32>,
}

/// Where somebody answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// On a subject of NATS.
    Subject(String),
    /// Over HTTP.
    Http {
        /// Host and port.
        authority: String,
        /// What is asked for; begins with a slash.
        path: String,
    },
}

/// Not a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a peer is NAME=SUBJECT or NAME=http://HOST:PORT/PATH, and maybe @PID after it")]
pub struct InvalidPeer;

impl FromStr for Peer {
    type Err = InvalidPeer;

    fn from_str(text: &str) -> Result<Self, InvalidPeer> {
        let (name, place) = text.split_once('=').ok_or(InvalidPeer)?;
        let (place, pid) = match place.rsplit_once('@') {
            Some((place, pid)) => (place, Some(pid.parse().map_err(|_| InvalidPeer)?)),
            None => (place, None),
        };
        let is_one_word = !place.is_empty() && place.chars().all(|letter| letter.is_ascii_graphic());
        if name.is_empty() || !is_one_word {
            return Err(InvalidPeer);
        }
        Ok(Self {
            name: name.into(),
            place: place.parse()?,
            pid,
        })
    }
}

impl FromStr for Place {
    type Err = InvalidPeer;

    fn from_str(text: &str) -> Result<Self, InvalidPeer> {
        if !text.contains("://") {
            return Ok(Self::Subject(text.into()));
        }
        let place = text.strip_prefix("http://").ok_or(InvalidPeer)?;
        let (authority, path) = place.split_at(place.find('/').unwrap_or(place.len()));
        let (host, port) = authority.rsplit_once(':').ok_or(InvalidPeer)?;
        if host.is_empty() || port.parse::<u16>().is_err() {
            return Err(InvalidPeer);
        }
        Ok(Self::Http {
            authority: authority.into(),
            path: if path.is_empty() { "/" } else { path }.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_a_name_a_place_and_maybe_a_process() {
        let peer = |place, pid| {
            Ok(Peer {
                name: "some one".into(),
                place,
                pid,
            })
        };
        let subject = || Place::Subject("a.b".into());
        assert_eq!("some one=a.b".parse(), peer(subject(), None));
        assert_eq!("some one=a.b@17".parse(), peer(subject(), Some(17)));
        let http = |path: &str| Place::Http {
            authority: "127.0.0.1:8000".into(),
            path: path.into(),
        };
        assert_eq!("some one=http://127.0.0.1:8000".parse(), peer(http("/"), None));
        let asked = "some one=http://127.0.0.1:8000/a?b=c@17";
        assert_eq!(asked.parse(), peer(http("/a?b=c"), Some(17)));
    }

    #[test]
    fn what_is_no_peer_is_refused() {
        for text in [
            "a",
            "=a.b",
            "a=",
            "a=a b",
            "a=a.b@",
            "a=a.b@x",
            "a=@17",
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
