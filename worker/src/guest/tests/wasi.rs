//! Every function of WASI under arguments that no honest guest gives: each ends in an errno or a trap, in time.

use std::collections::BTreeSet;

use super::super::wasi::FUNCTIONS;
use super::*;

/// Each function's parameters. Those marked by `*` look at a pointer whatever the descriptor is, so some of this must be a
/// trap in them.
const SIGNATURES: [(&str, &str); 46] = [
    ("args_get", "* i32 i32"),
    ("args_sizes_get", "* i32 i32"),
    ("clock_res_get", "* i32 i32"),
    ("clock_time_get", "* i32 i64 i32"),
    ("environ_get", "i32 i32"),
    ("environ_sizes_get", "* i32 i32"),
    ("fd_advise", "i32 i64 i64 i32"),
    ("fd_allocate", "i32 i64 i64"),
    ("fd_close", "i32"),
    ("fd_datasync", "i32"),
    ("fd_fdstat_get", "* i32 i32"),
    ("fd_fdstat_set_flags", "i32 i32"),
    ("fd_fdstat_set_rights", "i32 i64 i64"),
    ("fd_filestat_get", "* i32 i32"),
    ("fd_filestat_set_size", "i32 i64"),
    ("fd_filestat_set_times", "i32 i64 i64 i32"),
    ("fd_pread", "* i32 i32 i32 i64 i32"),
    ("fd_prestat_dir_name", "i32 i32 i32"),
    ("fd_prestat_get", "i32 i32"),
    ("fd_pwrite", "* i32 i32 i32 i64 i32"),
    ("fd_read", "* i32 i32 i32 i32"),
    ("fd_readdir", "i32 i32 i32 i64 i32"),
    ("fd_renumber", "i32 i32"),
    ("fd_seek", "* i32 i64 i32 i32"),
    ("fd_sync", "i32"),
    ("fd_tell", "i32 i32"),
    ("fd_write", "* i32 i32 i32 i32"),
    ("path_create_directory", "i32 i32 i32"),
    ("path_filestat_get", "* i32 i32 i32 i32 i32"),
    ("path_filestat_set_times", "i32 i32 i32 i32 i64 i64 i32"),
    ("path_link", "* i32 i32 i32 i32 i32 i32 i32"),
    ("path_open", "* i32 i32 i32 i32 i32 i64 i64 i32 i32"),
    ("path_readlink", "i32 i32 i32 i32 i32 i32"),
    ("path_remove_directory", "i32 i32 i32"),
    ("path_rename", "i32 i32 i32 i32 i32 i32"),
    ("path_symlink", "i32 i32 i32 i32 i32"),
    ("path_unlink_file", "i32 i32 i32"),
    ("poll_oneoff", "* i32 i32 i32 i32"),
    ("proc_exit", "i32"),
    ("proc_raise", "i32"),
    ("random_get", "* i32 i32"),
    ("sched_yield", ""),
    ("sock_accept", "i32 i32 i32"),
    ("sock_recv", "i32 i32 i32 i32 i32 i32"),
    ("sock_send", "i32 i32 i32 i32 i32"),
    ("sock_shutdown", "i32 i32"),
];
/// What the first argument may be: each standard stream, what could be a folder, and none.
const FIRST: [i32; 6] = [0, 1, 2, 3, 16, -1];
/// What all others are: outside memory, at its end, larger than it, and beyond what a sum of two can hold.
const OTHERS: [i32; 7] = [-1, -8, i32::MAX, i32::MIN, 65_535, 65_536, 1];
/// WASI's largest errno.
const LAST_ERRNO: i32 = 76;

/// A command that reads two numbers from its stdin, calls the function with the first one and then the second one for all
/// other arguments, and exits with what it gets.
fn prober(name: &str, params: &[&str]) -> Guest {
    let arguments: String = params
        .iter()
        .enumerate()
        .map(|(at, ty)| {
            let number = format!("(i32.load (i32.const {}))", if at == 0 { 64 } else { 68 });
            match *ty {
                "i64" => format!("(i64.extend_i32_s {number})"),
                _ => number,
            }
        })
        .collect();
    let (import, result, exit) = match name {
        "proc_exit" => ("f", "", "(call $exit (i32.const 0))"),
        _ => ("f", "(result i32)", "call $exit"),
    };
    Guest::wat(&format!(
        r#"(module
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "{name}" (func ${import} (param {}) {result}))
            (memory (export "memory") 1)
            (func (export "_start")
                (i32.store (i32.const 0) (i32.const 64))
                (i32.store (i32.const 4) (i32.const 8))
                (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
                (call ${import} {arguments})
                {exit}))"#,
        params.join(" ")
    ))
}

#[tokio::test]
async fn hostile_arguments_to_every_function_end_in_an_errno_or_a_trap() {
    assert_eq!(SIGNATURES.map(|(name, _)| name), FUNCTIONS);
    let (mut looks, mut trapped) = (BTreeSet::new(), BTreeSet::new());
    for (name, signature) in SIGNATURES {
        let params: Vec<_> = signature
            .split(' ')
            .filter(|word| word.starts_with('i'))
            .collect();
        let guest = prober(name, &params).timeout_ms(5000);
        if signature.starts_with('*') {
            looks.insert(name);
        }
        for (first, other) in FIRST
            .into_iter()
            .flat_map(|first| OTHERS.map(|other| (first, other)))
        {
            let stdin = [first.to_le_bytes(), other.to_le_bytes()].concat();
            match guest.run(input(stdin)).await.result {
                Ok(_) if name == "proc_exit" => {}
                Ok(Answer { exit_code, .. }) => {
                    let errno = exit_code.unwrap();
                    assert!(
                        (0..=LAST_ERRNO).contains(&errno),
                        "{name}({first}, {other}…) is {errno}"
                    );
                }
                Err(GuestFault::Trapped {
                    kind: "host_call", ..
                }) => {
                    trapped.insert(name);
                }
                Err(fault) => panic!("{name}({first}, {other}…): {fault:?}"),
            }
        }
    }
    let silent: Vec<_> = looks.difference(&trapped).collect();
    assert!(
        silent.is_empty(),
        "{silent:?} take whatever pointer they are given"
    );
}
