//! stdin to stdout through WASI preview 1: no files, no sockets, only the environment that the caller gave.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use wasmtime::Store;
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wess_schemas::{ErrorBody, ErrorCode};

use super::CallInput;
use crate::guest::artifact::Prepared;
use crate::guest::ending::{Answer, GuestFault};
use crate::guest::host::GuestState;
use crate::guest::pipe::{OutputSink, Pipe};
use crate::guest::wasi::{self, Exited};

/// The export that a command is detected by.
pub const ENTRY: &str = "_start";

/// A run of a command.
#[derive(Debug)]
pub struct CommandPlan {
    argv: Vec<String>,
    env: BTreeMap<String, String>,
    stdin: Bytes,
}

impl CommandPlan {
    pub(super) fn new(argv0: &str, call: CallInput) -> Result<Self, ErrorBody> {
        let mut argv = vec![argv0.to_owned()];
        for (at, arg) in call.args.into_iter().flatten().enumerate() {
            argv.push(argument(arg).ok_or_else(|| {
                let message = format!(
                    "args[{at}] must be text or a number, without NUL: it becomes an argument of a command"
                );
                ErrorBody::new(ErrorCode::InvalidArguments, message).with("argument", at)
            })?);
        }
        Ok(Self {
            argv,
            env: call.env,
            stdin: call.input.unwrap_or_default(),
        })
    }

    pub(in crate::guest) async fn run(
        self,
        store: &mut Store<GuestState>,
        prepared: &Prepared,
    ) -> Result<Answer, GuestFault> {
        let stdout = OutputSink::new(store.data().output_limit);
        if prepared.uses_wasi() {
            let mut builder = wasi::builder(&store.data().log);
            builder
                .args(&self.argv)
                .stdin(MemoryInputPipe::new(self.stdin))
                .stdout(Pipe(Arc::clone(&stdout)));
            for (name, value) in &self.env {
                builder.env(name, value);
            }
            store.data_mut().wasi = Some(wasi::context(builder));
        }
        let exit_code = run_start(store, prepared).await?;
        Ok(Answer {
            output: Some(stdout.take_written()),
            exit_code: Some(exit_code),
            results: None,
        })
    }
}

async fn run_start(store: &mut Store<GuestState>, prepared: &Prepared) -> Result<i32, GuestFault> {
    let exited = async {
        let instance = prepared.instantiate_bare(store).await?;
        instance
            .get_typed_func::<(), ()>(&mut *store, ENTRY)?
            .call_async(&mut *store, ())
            .await
    };
    match exited.await {
        Ok(()) => Ok(0),
        Err(error) => match error.downcast_ref::<Exited>() {
            Some(exit) => Ok(exit.0),
            None => Err(error.into()),
        },
    }
}

fn argument(arg: Value) -> Option<String> {
    match arg {
        Value::String(text) if !text.contains('\0') => Some(text),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}
