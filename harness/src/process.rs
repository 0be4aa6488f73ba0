//! One of our binaries as a process: started, read, signalled and waited for.
//!
//! Never outlives its test, and shows what it logged when the test fails.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

pub use rustix::process::Signal;
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::environment;
use crate::wait::{DEADLINE, eventually_blocking};

/// A command for one of our binaries, without the options that the shell's environment holds for it.
///
/// It is looked for beside the folder of the running test, where cargo puts it.
pub fn binary(name: &str) -> Command {
    let test = std::env::current_exe().expect("a test knows its own path");
    let path = test
        .ancestors()
        .skip(1)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    let path: PathBuf =
        path.unwrap_or_else(|| panic!("there is no binary {name}: run cargo build --workspace first"));
    let mut command = Command::new(path);
    for name in environment::our_options() {
        command.env_remove(name);
    }
    command
}

/// Sends a signal to a process that this test started.
pub(crate) fn send(pid: u32, signal: Signal) {
    // It may have ended by itself; whoever waits for it will see.
    let _ = rustix::process::kill_process(pid_of(pid), signal);
}

fn pid_of(pid: u32) -> Pid {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.expect("a child has a process id")
}

/// Bounds the files that a process may write, in bytes; `None` is no bound. Past it a write fails, as on a full disk.
pub(crate) fn bound_files(pid: u32, bytes: Option<u64>) {
    let limit = Rlimit {
        current: bytes,
        maximum: None,
    };
    prlimit(Some(pid_of(pid)), Resource::Fsize, limit).expect("a child's limits can be set");
}

/// A running process. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdout: Captured,
    stderr: Captured,
}

/// What a process has written so far.
#[derive(Debug)]
struct Captured {
    text: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
}

/// How long what a process wrote last may take to be read once it has ended. Its children may hold the pipe longer.
const LAST_WORDS: Duration = Duration::from_secs(2);

impl Process {
    /// Starts it without waiting for anything.
    pub fn spawn(command: &mut Command) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let stdout = Captured::of(child.stdout.take().expect("stdout is piped"));
        let stderr = Captured::of(child.stderr.take().expect("stderr is piped"));
        Self {
            child,
            stdout,
            stderr,
        }
    }

    /// Starts it and waits for its `ready` line.
    pub fn start(command: &mut Command) -> Self {
        let mut process = Self::spawn(command);
        process.wait_ready();
        process
    }

    /// Waits for the line `ready key=value…` on stdout and returns its pairs.
    pub fn wait_ready(&mut self) -> BTreeMap<String, String> {
        let ready = eventually_blocking(DEADLINE, || {
            let ended = self
                .child
                .try_wait()
                .ok()
                .flatten()
                .filter(|_| self.stdout.is_whole());
            let ready = self.ready();
            if let (None, Some(status)) = (&ready, ended) {
                panic!("the process ended with {status} before it was ready");
            }
            ready
        });
        ready.unwrap_or_else(|| panic!("the process was not ready within {DEADLINE:?}"))
    }

    /// The value of one pair of the `ready` line.
    pub fn value(&self, key: &str) -> String {
        let pairs = self.ready().expect("the process is ready");
        pairs
            .get(key)
            .cloned()
            .unwrap_or_else(|| panic!("the ready line has no {key}: {pairs:?}"))
    }

    fn ready(&self) -> Option<BTreeMap<String, String>> {
        self.stdout().split_inclusive('\n').find_map(parse_ready)
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to stdout.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it has written to stderr.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    /// Waits until it has ended by itself, and until what it wrote has been read.
    pub fn wait_exit(&mut self) -> ExitStatus {
        let status = eventually_blocking(DEADLINE, || {
            self.child.try_wait().expect("a child can be waited for")
        });
        let status = status.unwrap_or_else(|| panic!("the process did not end within {DEADLINE:?}"));
        eventually_blocking(LAST_WORDS, || {
            (self.stdout.is_whole() && self.stderr.is_whole()).then_some(())
        });
        status
    }

    /// Asks it to stop and waits until it has ended.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait_exit()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            send(self.pid(), Signal::KILL);
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- process {} logged:\n{}", self.pid(), self.stderr());
        }
    }
}

impl Captured {
    /// Reads on a thread that ends with the process: a full pipe would stop it.
    fn of(source: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let written = text.clone();
        let reader = std::thread::spawn(move || {
            let mut source = BufReader::new(source);
            let mut line = Vec::new();
            while source.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
                lock(&written).push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        });
        Self { text, reader }
    }

    fn text(&self) -> String {
        lock(&self.text).clone()
    }

    /// Whether nothing more can come.
    fn is_whole(&self) -> bool {
        self.reader.is_finished()
    }
}

fn lock(text: &Mutex<String>) -> MutexGuard<'_, String> {
    text.lock().unwrap_or_else(PoisonError::into_inner)
}

fn parse_ready(line: &str) -> Option<BTreeMap<String, String>> {
    let mut words = line.strip_suffix('\n')?.split(' ');
    if words.next() != Some("ready") {
        return None;
    }
    Some(
        words
            .filter_map(|word| word.split_once('='))
            .map(|(key, value)| (key.into(), value.into()))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.arg("-c").arg(script);
        command
    }

    #[test]
    fn the_pairs_of_the_ready_line_are_read_and_its_exit_is_seen() {
        let mut process = Process::start(&mut shell(
            "echo hello; echo ready http=127.0.0.1:1 x; echo no >&2; exit 7",
        ));
        assert_eq!(process.value("http"), "127.0.0.1:1");
        assert_eq!(process.wait_exit().code(), Some(7));
    }

    #[test]
    #[should_panic(expected = "ended with exit status: 3 before it was ready")]
    fn a_process_that_ends_early_is_reported() {
        Process::start(&mut shell("exit 3"));
    }

    #[test]
    fn a_stopped_process_is_waited_for() {
        let mut process = Process::start(&mut shell(
            "trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done",
        ));
        assert_eq!(process.stop().code(), Some(0));
    }
}
