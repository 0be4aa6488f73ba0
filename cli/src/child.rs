//! Processes that end with this one, however it ends: started by way of ourselves, since only the child itself can ask
//! the kernel for that.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::ExitCode;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;

use crate::args::ChildArgs;
use crate::exit::Exit;

/// A command for `binary`, to which its arguments are to be added. Killed when its handle is dropped.
pub fn command(binary: &Path) -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["child", "--parent", &std::process::id().to_string(), "--"])
        .arg(binary)
        .kill_on_drop(true);
    Ok(command)
}

/// The hidden command that [`command`] starts: becomes the binary. Returns only when it could not.
pub fn become_it(args: &ChildArgs) -> ExitCode {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::TERM));
    // Had the parent ended before that was asked for, nobody would end this process.
    if rustix::process::getppid() != Pid::from_raw(args.parent) {
        return Exit::Unavailable.into();
    }
    let error = std::process::Command::new(&args.binary)
        .args(&args.arguments)
        .exec();
    eprintln!("error: cannot run {}: {error}", args.binary.display());
    Exit::Unavailable.into()
}

/// Sends a signal to a child of ours; one that has ended takes none.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}
