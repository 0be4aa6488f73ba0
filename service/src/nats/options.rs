//! The NATS options of every command line, each also an environment variable, and their validation.
//!
//! Refuses combinations that would leave it open which credentials are used; reports every mistake by name.

use std::convert::Infallible;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use async_nats::{ConnectOptions, ServerAddr};
use clap::builder::BoolishValueParser;
use wess_schemas::subject::{Prefix, Subjects};

use super::{Credentials, NatsConfig};
use crate::config::{ConfigError, Problems};

/// Where NATS is looked for when nothing is said.
pub const DEFAULT_URL: &str = "nats://127.0.0.1:4222";

/// How to reach NATS, as written by the user.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "NATS")]
pub struct NatsOptions {
    /// Servers, separated by commas [default: nats://127.0.0.1:4222].
    #[arg(
        long = "nats",
        env = "WESS_NATS_URL",
        hide_env_values = true,
        value_name = "URL[,URL]"
    )]
    pub urls: Option<String>,
    /// Credentials file (JWT and nkey seed), read again on each reconnect.
    #[arg(long = "nats-creds", env = "WESS_NATS_CREDS", value_name = "FILE")]
    pub creds: Option<PathBuf>,
    /// File with an nkey seed, read again on each reconnect.
    #[arg(long = "nats-nkey", env = "WESS_NATS_NKEY", value_name = "FILE")]
    pub nkey: Option<PathBuf>,
    /// User name.
    #[arg(long = "nats-user", env = "WESS_NATS_USER", value_name = "NAME")]
    pub user: Option<String>,
    /// The user's password.
    #[arg(
        long = "nats-password",
        env = "WESS_NATS_PASSWORD",
        hide_env_values = true,
        value_name = "PASSWORD"
    )]
    pub password: Option<Secret>,
    /// Token.
    #[arg(
        long = "nats-token",
        env = "WESS_NATS_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    pub token: Option<Secret>,
    /// Certificates to trust instead of the system's, PEM.
    #[arg(long = "nats-tls-ca", env = "WESS_NATS_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// Our certificate, PEM.
    #[arg(long = "nats-tls-cert", env = "WESS_NATS_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// The key of our certificate, PEM.
    #[arg(long = "nats-tls-key", env = "WESS_NATS_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Refuse to speak without TLS. Implied by the other TLS options.
    #[arg(long = "nats-tls-required", env = "WESS_NATS_TLS_REQUIRED", value_parser = BoolishValueParser::new())]
    pub tls_required: bool,
    /// At start, wait for a server that is not there yet instead of exiting.
    #[arg(long = "nats-wait", env = "WESS_NATS_WAIT", value_parser = BoolishValueParser::new())]
    pub wait: bool,
    /// What every subject begins with.
    #[arg(long, env = "WESS_PREFIX", default_value = "wess")]
    pub prefix: String,
}

/// A secret that does not print.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub(super) fn into_inner(self) -> String {
        self.0
    }
}

impl FromStr for Secret {
    type Err = Infallible;
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// The TLS files, read again on each connect.
#[derive(Debug, Clone, Default)]
pub struct TlsFiles {
    ca: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
    required: bool,
}

impl TlsFiles {
    pub(super) fn apply(&self, mut options: ConnectOptions) -> ConnectOptions {
        if let Some(ca) = &self.ca {
            options = options.add_root_certificates(ca.clone());
        }
        if let Some((cert, key)) = &self.identity {
            options = options.add_client_certificate(cert.clone(), key.clone());
        }
        options.require_tls(self.required)
    }
}

impl NatsOptions {
    /// Whether the user said where NATS is.
    pub fn is_given(&self) -> bool {
        self.urls.is_some()
    }

    /// Checks everything, reading each named file once.
    pub fn validate(&self) -> Result<NatsConfig, ConfigError> {
        let mut problems = Problems::default();
        let servers = self.servers(&mut problems);
        let credentials = self.credentials(&mut problems);
        let tls = self.tls(&mut problems);
        let prefix: Option<Prefix> = problems.parse("--prefix", self.prefix.parse());
        problems.finish()?;
        let subjects = Subjects::new(prefix.unwrap_or_default());
        Ok(NatsConfig {
            subjects,
            servers,
            credentials,
            tls,
            wait: self.wait,
            slow_consumers: Default::default(),
        })
    }

    fn servers(&self, problems: &mut Problems) -> Vec<ServerAddr> {
        let urls = self.urls.as_deref().unwrap_or(DEFAULT_URL);
        let parsed = urls.split(',').map(|url| parse_server(url.trim()));
        parsed
            .filter_map(|server| problems.parse("--nats", server))
            .collect()
    }

    fn credentials(&self, problems: &mut Problems) -> Credentials {
        let mut ways = Vec::new();
        ways.extend(
            self.creds
                .clone()
                .map(|path| ("--nats-creds", Credentials::File(path))),
        );
        ways.extend(
            self.nkey
                .clone()
                .map(|path| ("--nats-nkey", Credentials::Nkey(path))),
        );
        ways.extend(self.user_and_password(problems).map(|user| ("--nats-user", user)));
        ways.extend(
            self.token
                .clone()
                .map(|token| ("--nats-token", Credentials::Token(token))),
        );
        for (option, credentials) in &ways {
            if let Err(error) = credentials.check() {
                problems.add(option, with_cause(&error));
            }
        }
        if let [(first, _), others @ ..] = ways.as_slice() {
            others.iter().for_each(|(option, _)| {
                problems.add(option, format!("{first} is given too: use one of them"))
            });
        }
        ways.into_iter()
            .next()
            .map_or(Credentials::None, |(_, credentials)| credentials)
    }

    fn user_and_password(&self, problems: &mut Problems) -> Option<Credentials> {
        match (self.user.clone(), self.password.clone()) {
            (Some(name), Some(password)) => return Some(Credentials::User { name, password }),
            (Some(_), None) => problems.add("--nats-user", "needs --nats-password"),
            (None, Some(_)) => problems.add("--nats-password", "needs --nats-user"),
            (None, None) => (),
        }
        None
    }

    fn tls(&self, problems: &mut Problems) -> TlsFiles {
        let files = [
            ("--nats-tls-ca", &self.tls_ca),
            ("--nats-tls-cert", &self.tls_cert),
            ("--nats-tls-key", &self.tls_key),
        ];
        for (option, file) in files {
            if let Some(file) = file {
                check_pem(option, file, problems);
            }
        }
        let identity = match (self.tls_cert.clone(), self.tls_key.clone()) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (Some(_), None) => {
                problems.add("--nats-tls-cert", "needs --nats-tls-key");
                None
            }
            (None, Some(_)) => {
                problems.add("--nats-tls-key", "needs --nats-tls-cert");
                None
            }
            (None, None) => None,
        };
        let required = self.tls_required || self.tls_ca.is_some() || identity.is_some();
        TlsFiles {
            ca: self.tls_ca.clone(),
            identity,
            required,
        }
    }
}

/// Says nothing of the URL itself, which may hold a password.
fn parse_server(url: &str) -> Result<ServerAddr, &'static str> {
    const EXPECTED: &str = "expected nats://HOST:PORT or tls://HOST:PORT, separated by commas";
    if url.is_empty() || url.contains(char::is_whitespace) {
        return Err(EXPECTED);
    }
    let server: ServerAddr = url.parse().map_err(|_| EXPECTED)?;
    if server.host().is_empty() || !matches!(server.scheme(), "nats" | "tls") {
        return Err(EXPECTED);
    }
    // async-nats ignores what a URL says of users.
    if server.has_user_pass() || server.password().is_some() {
        return Err(
            "give the user by --nats-user and --nats-password, or a token by --nats-token, not in the URL",
        );
    }
    Ok(server)
}

fn check_pem(option: &'static str, path: &Path, problems: &mut Problems) {
    match std::fs::read_to_string(path) {
        Ok(contents) if contents.contains("-----BEGIN ") => (),
        Ok(_) => problems.add(option, format!("{} is not a PEM file", path.display())),
        Err(error) => problems.add(option, format!("cannot read {}: {error}", path.display())),
    }
}

fn with_cause(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        nats: NatsOptions,
    }

    fn options(args: &[&str]) -> NatsOptions {
        Cli::try_parse_from(std::iter::once("wess").chain(args.iter().copied()))
            .unwrap()
            .nats
    }

    fn names(args: &[&str]) -> Vec<&'static str> {
        options(args)
            .validate()
            .unwrap_err()
            .problems()
            .map(|problem| problem.option)
            .collect()
    }

    #[test]
    fn nothing_said_means_the_local_server_and_is_seen() {
        let options = options(&[]);
        assert!(!options.is_given());
        assert_eq!(options.validate().unwrap().server_names(), "127.0.0.1:4222");
    }

    #[test]
    fn several_servers_and_the_default_port() {
        let config = options(&["--nats", "nats://a:1,b, tls://c"]).validate().unwrap();
        assert_eq!(config.server_names(), "a:1, b:4222, c:4222");
    }

    #[test]
    fn every_mistake_is_reported_by_name() {
        let args = [
            "--nats",
            "http://x,",
            "--nats-user",
            "u",
            "--nats-tls-key",
            "/nowhere",
            "--nats-creds",
            "/no",
        ];
        let expected = [
            "--nats",
            "--nats",
            "--nats-user",
            "--nats-creds",
            "--nats-tls-key",
            "--nats-tls-key",
        ];
        assert_eq!(names(&args), expected);
    }

    #[test]
    fn two_kinds_of_credentials_are_refused() {
        assert_eq!(
            names(&["--nats-user", "u", "--nats-password", "p", "--nats-token", "t"]),
            ["--nats-token"]
        );
        assert_eq!(names(&["--nats-password", "p"]), ["--nats-password"]);
    }

    #[test]
    fn credentials_in_a_url_are_refused_rather_than_ignored() {
        for url in ["nats://u:p@h", "nats://token@h", "tls://:p@h:1"] {
            assert_eq!(names(&["--nats", url]), ["--nats"]);
        }
    }

    #[test]
    fn a_prefix_is_one_token() {
        assert_eq!(
            options(&["--prefix", "fn"])
                .validate()
                .unwrap()
                .subjects
                .worker_beat(),
            "fn.worker.beat"
        );
        for prefix in ["", "a.b", "a>", "$KV"] {
            assert_eq!(names(&["--prefix", prefix]), ["--prefix"]);
        }
    }

    #[test]
    fn secrets_do_not_print() {
        let args = ["--nats", "nats://u:hush@h:1", "--nats-tls-cert", "/nowhere"];
        let wrong = options(&args).validate().unwrap_err();
        let token = options(&["--nats-token", "hush"]);
        let password = options(&["--nats-user", "u", "--nats-password", "hush"]);
        let texts = [
            format!("{wrong}"),
            format!("{token:?}"),
            format!("{:?}", password.validate().unwrap()),
        ];
        assert!(texts.iter().all(|text| !text.contains("hush")), "{texts:?}");
    }

    #[test]
    fn a_certificate_implies_tls() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "-----BEGIN CERTIFICATE-----\n").unwrap();
        let config = options(&["--nats-tls-ca", file.path().to_str().unwrap()])
            .validate()
            .unwrap();
        assert!(config.tls.required);
    }
}
