//! stdin to stdout through WASI, of a core module or a component: no files, no sockets, only the environment that the
//! caller gave.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use wasmtime::Store;
use wasmtime_wasi::I32Exit;
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wess_schemas::{ErrorBody, ErrorCode};

use super::CallInput;
use crate::guest::artifact::Code;
use crate::guest::component::LoadedComponent;
use crate::guest::ending::{Answer, GuestFault};
use crate::guest::host::GuestState;
use crate::guest::module::LoadedModule;
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
    /// The full name of a component's `run`.
    pub(super) run: Option<String>,
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
            run: None,
        })
    }

    pub(in crate::guest) async fn run(
        self,
        store: &mut Store<GuestState>,
        code: &Code,
    ) -> Result<Answer, GuestFault> {
        let stdout = OutputSink::new(store.data().output_limit);
        let uses_wasi = match code {
            Code::Module(module) => module.uses_wasi(),
            Code::Component(component) => component.uses_wasi(),
        };
        if uses_wasi {
            let mut builder = wasi::builder(store.data());
            builder
                .args(&self.argv)
                .stdin(MemoryInputPipe::new(self.stdin))
                .stdout(Pipe(Arc::clone(&stdout)));
            for (name, value) in &self.env {
                builder.env(name, value);
            }
            store.data_mut().wasi = Some(wasi::context(builder));
        }
        let exited = match (code, &self.run) {
            (Code::Module(module), None) => run_start(store, module).await,
            (Code::Component(component), Some(run)) => run_component(store, component, run).await,
            _ => return Err(GuestFault::Mismatch),
        };
        let exit_code = exited.or_else(exit_code)?;
        Ok(Answer {
            output: Some(stdout.take_written()),
            exit_code: Some(exit_code),
            results: None,
        })
    }
}

async fn run_start(store: &mut Store<GuestState>, module: &LoadedModule) -> wasmtime::Result<i32> {
    let instance = module.instantiate_bare(store).await?;
    let start = instance.get_typed_func::<(), ()>(&mut *store, ENTRY)?;
    start.call_async(&mut *store, ()).await.map(|()| 0)
}

async fn run_component(
    store: &mut Store<GuestState>,
    component: &LoadedComponent,
    run: &str,
) -> wasmtime::Result<i32> {
    let instance = component.instantiate(store).await?;
    let run = component.function(&instance, store, run)?;
    let run = run.typed::<(), (Result<(), ()>,)>(&*store)?;
    let (ended,) = run.call_async(&mut *store, ()).await?;
    Ok(i32::from(ended.is_err()))
}

/// The code that a guest gave when it ended itself.
fn exit_code(error: wasmtime::Error) -> Result<i32, GuestFault> {
    let core = error.downcast_ref::<Exited>().map(|exited| exited.0);
    let component = error.downcast_ref::<I32Exit>().map(|exited| exited.0);
    core.or(component).ok_or_else(|| error.into())
}

fn argument(arg: Value) -> Option<String> {
    match arg {
        Value::String(text) if !text.contains('\0') => Some(text),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}
