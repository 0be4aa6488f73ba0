//! A real nats-server on a free loopback port with JetStream in a folder of its own.
//!
//! Survives being killed: the next start has the same port and the same store.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use tempfile::TempDir;

use crate::environment;
use crate::process::{Signal, bound_files, send};
use crate::wait::{DEADLINE, eventually_blocking};

/// A running nats-server. Killed when dropped, its folder removed.
#[derive(Debug)]
pub struct NatsServer {
    folder: TempDir,
    config: String,
    port: u16,
    child: Option<Child>,
}

/// What to start.
#[derive(Debug, Default)]
pub struct NatsServerBuilder {
    config: String,
}

impl NatsServerBuilder {
    /// Adds lines to the server's configuration file.
    #[must_use]
    pub fn config(mut self, lines: &str) -> Self {
        self.config.push_str(lines);
        self.config.push('\n');
        self
    }

    /// Starts it and waits until it listens.
    pub fn start(self) -> NatsServer {
        let folder = TempDir::with_prefix("wess-nats-").expect("a temporary folder can be made");
        let mut server = NatsServer {
            folder,
            config: self.config,
            port: 0,
            child: None,
        };
        server.launch();
        server
    }
}

impl NatsServer {
    /// Starts one that asks for no credentials.
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// To start one with a configuration.
    pub fn builder() -> NatsServerBuilder {
        NatsServerBuilder::default()
    }

    /// Where clients connect; the same after every restart.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The port in [`NatsServer::url`].
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it tells of itself over HTTP: for servers whose configuration has `http: "127.0.0.1:-1"`.
    pub fn monitor(&self) -> SocketAddr {
        let ports = fs::read_to_string(self.ports_path(self.pid())).expect("the server listens");
        let port = parse_port(&ports, "monitoring");
        SocketAddr::from(([127, 0, 0, 1], port.expect("its configuration has http")))
    }

    /// The process's id, while it runs.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the server runs").id()
    }

    /// Where JetStream keeps its files.
    pub fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// Kills it, as a crash would.
    pub fn kill(&mut self) {
        self.end(Signal::KILL);
    }

    /// Stops it in order.
    pub fn stop(&mut self) {
        self.end(Signal::TERM);
    }

    /// Holds it still, as a lost network would: connections stay open and nothing answers.
    pub fn freeze(&self) {
        send(self.pid(), Signal::STOP);
    }

    /// Lets a frozen one go on.
    pub fn thaw(&self) {
        send(self.pid(), Signal::CONT);
    }

    /// Has every write to its disk fail, as if that were full.
    pub fn fail_writes(&self) {
        bound_files(self.pid(), Some(0));
    }

    /// Starts it again, on the same port and store; kills it first if it runs.
    pub fn restart(&mut self) {
        self.kill();
        self.launch();
    }

    /// As [`NatsServer::restart`], with other lines in its configuration file.
    pub fn restart_with(&mut self, lines: &str) {
        self.config = format!("{lines}\n");
        self.restart();
    }

    fn launch(&mut self) {
        let config = self.folder.path().join("server.conf");
        fs::write(&config, self.config_file()).expect("the configuration can be written");
        let log = fs::File::create(self.log_path()).expect("the log can be made");
        let binary = environment::nats_server();
        let child = Command::new(&binary)
            .arg("-c")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let child = child.unwrap_or_else(|error| panic!("cannot start {}: {error}", binary.display()));
        let ports = self.ports_path(child.id());
        self.child = Some(child);
        self.port = self.wait_for_port(&ports);
    }

    fn config_file(&self) -> String {
        let (folder, store) = (self.folder.path().display(), self.store());
        let port = if self.port == 0 {
            "-1".to_owned()
        } else {
            self.port.to_string()
        };
        format!(
            "host: 127.0.0.1\nport: {port}\nports_file_dir: \"{folder}\"\n\
             jetstream {{ store_dir: \"{}\" }}\n{}",
            store.display(),
            self.config
        )
    }

    /// The file is written once the server listens; it may be seen half written.
    fn wait_for_port(&mut self, ports: &Path) -> u16 {
        let port = eventually_blocking(DEADLINE, || {
            let exited = self.child.as_mut()?.try_wait().ok()?;
            assert!(exited.is_none(), "nats-server ended at start:\n{}", self.log());
            parse_port(&fs::read_to_string(ports).ok()?, "nats")
        });
        port.unwrap_or_else(|| panic!("nats-server does not listen:\n{}", self.log()))
    }

    fn end(&mut self, signal: Signal) -> Option<ExitStatus> {
        let mut child = self.child.take()?;
        send(child.id(), signal);
        let status = child.wait().expect("a child can be waited for");
        Some(status)
    }

    fn ports_path(&self, pid: u32) -> PathBuf {
        self.folder.path().join(format!("nats-server_{pid}.ports"))
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }

    /// What it logged since its last start.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- nats-server logged:\n{}", self.log());
        }
        self.kill();
    }
}

/// `{"nats":["nats://127.0.0.1:41233"],…}`
fn parse_port(ports: &str, kind: &str) -> Option<u16> {
    let (_, addresses) = ports.split_once(&format!("\"{kind}\""))?;
    let (url, _) = addresses.split_once(']')?;
    let digits = url.rsplit(':').next()?.trim_end().trim_end_matches('"');
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_half_written_ports_file_is_no_port() {
        let whole = r#"{"nats":["nats://127.0.0.1:41233"],"cluster":["nats://127.0.0.1:6222"]}"#;
        assert_eq!(parse_port(whole, "nats"), Some(41233));
        assert_eq!(parse_port(whole, "cluster"), Some(6222));
        assert_eq!((0..34).find_map(|end| parse_port(&whole[..end], "nats")), None);
    }

    #[test]
    fn a_killed_server_comes_back_on_its_port() {
        let mut server = NatsServer::start();
        let (url, pid) = (server.url(), server.pid());
        server.restart();
        assert_eq!(server.url(), url);
        assert_ne!(server.pid(), pid);
    }
}
