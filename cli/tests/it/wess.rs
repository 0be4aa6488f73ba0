//! A `wess up` of a test's own, and the command that asks it through either door.

use std::ffi::OsStr;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use wess_harness::{Process, binary, guest};

/// The two doors of every command.
pub const DOORS: [Door; 2] = [Door::Nats, Door::Http];

/// How a command reaches Wess.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    Nats,
    Http,
}

/// A running `wess up`, and the folder of its test.
pub struct Wess {
    pub process: Process,
    pub folder: TempDir,
}

impl Wess {
    /// Starts one on free ports, with a nats-server of its own.
    pub fn up() -> Self {
        Self::up_in(TempDir::new().unwrap(), &["--nats-listen", "127.0.0.1:0"])
    }

    /// Starts one with its data in `folder`.
    pub fn up_in(folder: TempDir, flags: &[&str]) -> Self {
        let process = Process::start(&mut command(&folder, flags));
        Self { process, folder }
    }

    /// Runs `wess` through a door.
    pub fn ask(&self, door: Door, args: &[&str]) -> Output {
        self.pipe(door, args, b"")
    }

    /// As [`Wess::ask`], with stdin.
    pub fn pipe(&self, door: Door, args: &[&str], stdin: &[u8]) -> Output {
        let mut command = self.command(door, args);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            // A command that does not read its stdin closes it.
            scope.spawn(move || drop(pipe.write_all(stdin)));
            child.wait_with_output().unwrap()
        })
    }

    /// `wess` through a door.
    pub fn command(&self, door: Door, args: &[&str]) -> Command {
        let (variable, key) = match door {
            Door::Nats => ("WESS_NATS_URL", "nats"),
            Door::Http => ("WESS_GATEWAY", "http"),
        };
        let mut command = binary("wess");
        command.args(args).env(variable, self.process.value(key));
        command
    }

    /// Runs `wess`, which must succeed; what it prints.
    pub fn must(&self, door: Door, args: &[&str]) -> String {
        let output = self.ask(door, args);
        assert_eq!(code(&output), 0, "{door:?} {args:?}: {}", stderr(&output));
        stdout(&output)
    }

    /// As [`Wess::must`], for programs.
    pub fn json(&self, door: Door, args: &[&str]) -> Value {
        serde_json::from_str(&self.must(door, &[args, &["--output", "json"]].concat())).unwrap()
    }

    /// Stores one of the guests.
    pub fn store(&self, door: Door, name: &str, guest_name: &str) {
        let file = self.file(name, &guest(guest_name));
        self.must(door, &["store", name, &file]);
    }

    /// A file in the test's folder.
    pub fn file(&self, name: &str, contents: &[u8]) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, contents).unwrap();
        path.into_os_string().into_string().unwrap()
    }

    /// The process id of its nats-server, as it logged when it started it last.
    pub fn nats_pid(&self) -> u32 {
        let log = self.process.stderr();
        let line = log
            .lines()
            .rev()
            .find(|line| line.contains("started ") && line.contains("pid="))
            .unwrap();
        line.rsplit("pid=").next().unwrap().trim().parse().unwrap()
    }
}

/// `wess up` on free ports with its data in `folder`.
pub fn command(folder: &TempDir, flags: &[&str]) -> Command {
    let mut command = binary("wess");
    command.args(["up", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"]);
    command.arg(folder.path().join("data")).args(flags);
    command
}

/// Whether a process of this id runs. One that has ended and was not waited for yet is a zombie.
pub fn runs(pid: u32) -> bool {
    state_and_parent(&pid.to_string()).is_some_and(|(state, _)| state != "Z")
}

/// The processes that this one started and that run.
pub fn children(pid: u32) -> Vec<u32> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let all = all.filter_map(|entry| entry.file_name().into_string().unwrap().parse().ok());
    let parent = pid.to_string();
    all.filter(|pid: &u32| {
        state_and_parent(&pid.to_string()).is_some_and(|(state, of)| state != "Z" && of == parent)
    })
    .collect()
}

/// `7 (name) S 1 …`
fn state_and_parent(pid: &str) -> Option<(String, String)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').map(String::from);
    Some((fields.next()?, fields.next()?))
}

/// The folder of the binary under test.
pub fn binaries() -> PathBuf {
    PathBuf::from(OsStr::new(env!("CARGO_BIN_EXE_wess")))
        .parent()
        .unwrap()
        .into()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

pub fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}
