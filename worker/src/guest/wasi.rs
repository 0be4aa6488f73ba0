//! WASI preview 1 as guests get it: clocks, randomness, standard streams. No files, no sockets, nothing of the worker's.
//!
//! Invariant: one call takes no more memory or time of the host than its bound here, or the guest's own memory, allows.

use wasmtime::Linker;
use wasmtime_wasi::p1::{self, WasiP1Ctx};
use wasmtime_wasi::{WasiCtxBuilder, WasiView};

use super::host::GuestState;
use super::log::LineSink;
use super::pipe::Pipe;

/// The module that these imports come from.
pub(super) const MODULE: &str = "wasi_snapshot_preview1";
/// Most random bytes of one call; asking for more is a trap.
const MAX_RANDOM_BYTES: u64 = 1 << 20;
/// Most things of the host's that a guest may hold; more is a trap. `poll_oneoff` takes two for each that it waits for.
const MAX_RESOURCES: usize = 2048;
/// WASI's `notsock`: no descriptor here is a socket.
const NOT_A_SOCKET: i32 = 57;

/// Every function of WASI preview 1.
pub(super) const FUNCTIONS: &[&str] = &[
    "args_get",
    "args_sizes_get",
    "clock_res_get",
    "clock_time_get",
    "environ_get",
    "environ_sizes_get",
    "fd_advise",
    "fd_allocate",
    "fd_close",
    "fd_datasync",
    "fd_fdstat_get",
    "fd_fdstat_set_flags",
    "fd_fdstat_set_rights",
    "fd_filestat_get",
    "fd_filestat_set_size",
    "fd_filestat_set_times",
    "fd_pread",
    "fd_prestat_dir_name",
    "fd_prestat_get",
    "fd_pwrite",
    "fd_read",
    "fd_readdir",
    "fd_renumber",
    "fd_seek",
    "fd_sync",
    "fd_tell",
    "fd_write",
    "path_create_directory",
    "path_filestat_get",
    "path_filestat_set_times",
    "path_link",
    "path_open",
    "path_readlink",
    "path_remove_directory",
    "path_rename",
    "path_symlink",
    "path_unlink_file",
    "poll_oneoff",
    "proc_exit",
    "proc_raise",
    "random_get",
    "sched_yield",
    "sock_accept",
    "sock_recv",
    "sock_send",
    "sock_shutdown",
];

/// The interfaces of WASI 0.2 that components are given.
const INTERFACES: &[&str] = &[
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:http/outgoing-handler",
    "wasi:http/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
    // Programs that were made with all of WASI import them, and are told that they have no access once they ask.
    "wasi:sockets/instance-network",
    "wasi:sockets/ip-name-lookup",
    "wasi:sockets/network",
    "wasi:sockets/tcp",
    "wasi:sockets/tcp-create-socket",
    "wasi:sockets/udp",
    "wasi:sockets/udp-create-socket",
];

/// Whether components are given this interface. Whether of this very version shows when one is compiled.
pub(super) fn is_known_interface(name: &str) -> bool {
    let (interface, version) = name.split_once('@').unwrap_or((name, ""));
    INTERFACES.contains(&interface) && version.starts_with("0.2.")
}

/// A guest ended itself by `proc_exit`.
#[derive(Debug, thiserror::Error)]
#[error("the guest ended itself by proc_exit({0})")]
pub(super) struct Exited(pub i32);

/// Defines every import of [`MODULE`].
pub(super) fn link(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    p1::add_to_linker_async(linker, |state: &mut GuestState| {
        state
            .wasi
            .as_mut()
            .expect("a module that imports WASI is prepared with a WASI context")
    })?;
    linker.allow_shadowing(true);
    // Wasmtime's own takes exit codes beyond 125 for faults, and writes a warning for each call about a socket.
    linker.func_wrap(MODULE, "proc_exit", |code: i32| -> wasmtime::Result<()> {
        Err(Exited(code).into())
    })?;
    linker.func_wrap(MODULE, "sock_accept", |_: i32, _: i32, _: i32| NOT_A_SOCKET)?;
    linker.func_wrap(
        MODULE,
        "sock_recv",
        |_: i32, _: i32, _: i32, _: i32, _: i32, _: i32| NOT_A_SOCKET,
    )?;
    linker.func_wrap(MODULE, "sock_send", |_: i32, _: i32, _: i32, _: i32, _: i32| {
        NOT_A_SOCKET
    })?;
    linker.func_wrap(MODULE, "sock_shutdown", |_: i32, _: i32| NOT_A_SOCKET)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// What a guest's WASI is made of: an empty stdin and a stdout that nobody reads, unless told; stderr goes to the log.
pub(super) fn builder(state: &GuestState) -> WasiCtxBuilder {
    let mut builder = WasiCtxBuilder::new();
    builder
        .max_random_size(MAX_RANDOM_BYTES)
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .stderr(Pipe(LineSink::new(state.log.clone())));
    if let Some(fixed) = state.fixed {
        fixed.put_into(&mut builder);
    }
    builder
}

/// One run's WASI.
pub(super) fn context(mut builder: WasiCtxBuilder) -> WasiP1Ctx {
    let mut context = builder.build_p1();
    context.ctx().table.set_max_capacity(MAX_RESOURCES);
    context
}
