//! What `wess up` says when it can answer: one line for programs, and what a person would try next.

use std::fmt::Display;
use std::io;

use wess_service::lifecycle::Lifecycle;
use wess_service::nats::DEFAULT_URL;

/// Where everything listens, as URLs.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// The gateway.
    pub http: String,
    /// Health and metrics.
    pub admin: String,
    /// The NATS server.
    pub nats: String,
    /// The Unix socket's path, if there is one.
    pub socket: Option<String>,
}

impl Addresses {
    /// The line `ready http=… admin=… nats=…` on stdout, with `socket=…` at its end where there is one.
    pub fn announce(&self, lifecycle: &Lifecycle) -> io::Result<()> {
        let mut facts: Vec<(&str, &dyn Display)> =
            vec![("http", &self.http), ("admin", &self.admin), ("nats", &self.nats)];
        facts.extend(self.socket.iter().map(|path| ("socket", path as &dyn Display)));
        lifecycle.announce(&facts)
    }

    /// Commands that work as they stand here, in this order; a test runs them.
    pub fn what_to_try(&self) -> String {
        let Self {
            http, admin, nats, ..
        } = self;
        let (there, server) = match nats == DEFAULT_URL {
            true => (String::new(), String::new()),
            false => (
                format!("  export WESS_NATS_URL={nats}\n"),
                format!(" --server {nats}"),
            ),
        };
        format!(
            "\nWess is up. What to try, from another terminal:\n\n{there}  \
             echo '(module (func (export \"add\") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1))))' | wess store add -\n  \
             wess invoke add --args '[2,3]'\n  \
             wess describe add\n  \
             curl -sS -d '[2,3]' {http}/v1/modules/add/invoke\n  \
             curl -sS {admin}/readyz\n  \
             nats{server} req wess.invoke.add '[2,3]'\n\n\
             Ctrl-C stops everything.\n\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_server_in_an_unusual_place_has_to_be_named() {
        let at = |nats: &str| {
            let addresses = Addresses {
                http: "http://h".into(),
                admin: "http://a".into(),
                nats: nats.into(),
                socket: None,
            };
            addresses.what_to_try()
        };
        assert!(!at(DEFAULT_URL).contains("WESS_NATS_URL"));
        assert!(at("nats://127.0.0.1:5").contains("export WESS_NATS_URL=nats://127.0.0.1:5\n"));
        assert!(at("nats://127.0.0.1:5").contains("nats --server nats://127.0.0.1:5 req"));
    }
}
