//! `--peer` of `wess bench`: somebody else's responder.

use std::str::FromStr;

/// A responder that is measured beside ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// What it is called in the report.
    pub name: String,
    /// Where it listens.
    pub subject: String,
    /// Its process, when that is one of this machine.
    pub pid: Option<u32>,
}

impl FromStr for Peer {
    type Err = &'static str;

    /// `NAME=SUBJECT` or `NAME=SUBJECT@PID`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, place) = text.split_once('=').ok_or("NAME=SUBJECT is missing its =")?;
        let (subject, pid) = match place.split_once('@') {
            Some((subject, pid)) => (
                subject,
                Some(pid.parse().map_err(|_| "after @ comes a process id")?),
            ),
            None => (place, None),
        };
        if name.is_empty() || subject.is_empty() || subject.contains(char::is_whitespace) {
            return Err("a peer has a name and a subject");
        }
        Ok(Self {
            name: name.into(),
            subject: subject.into(),
            pid,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_a_name_a_subject_and_maybe_a_process() {
        let peer = |pid| Peer {
            name: "other".into(),
            subject: "a.b".into(),
            pid,
        };
        assert_eq!("other=a.b".parse(), Ok(peer(None)));
        assert_eq!("other=a.b@17".parse(), Ok(peer(Some(17))));
        for wrong in [
            "other",
            "=a.b",
            "other=",
            "other=a b",
            "other=a.b@",
            "other=a.b@x",
            "other=@17",
        ] {
            assert!(wrong.parse::<Peer>().is_err(), "{wrong}");
        }
    }
}
