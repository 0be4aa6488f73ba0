//! Which export a call means and how its input gets in: decided and checked before anything runs.

pub mod command;
pub mod component;
pub mod http;
mod number;
pub mod plugin;
pub mod typed;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use wess_schemas::module::{Abi, FunctionExport};
use wess_schemas::reference::FunctionName;
use wess_schemas::wit::ComponentInterface;
use wess_schemas::{ErrorBody, ErrorCode};

/// What a caller gave.
#[derive(Debug, Clone, Default)]
pub struct CallInput {
    /// Which export, when one was named.
    pub function: Option<FunctionName>,
    /// Input bytes; `None` when there was no input at all.
    pub input: Option<Bytes>,
    /// Typed arguments, or argv after argv[0].
    pub args: Option<Vec<Value>>,
    /// The guest's environment.
    pub env: BTreeMap<String, String>,
}

impl CallInput {
    /// Adds what a module's owner says of the environment, over whatever the caller says of the same names.
    pub fn put_env(&mut self, env: &BTreeMap<String, String>) {
        for (name, value) in env {
            self.env.insert(name.clone(), value.clone());
        }
    }

    /// What it holds in memory, about.
    pub fn size_bytes(&self) -> usize {
        let env = self
            .env
            .iter()
            .map(|(name, value)| 2 * ENTRY_BYTES + name.len() + value.len());
        let args = self.args.iter().flatten().map(value_bytes);
        self.input.as_ref().map_or(0, Bytes::len) + env.sum::<usize>() + args.sum::<usize>()
    }
}

/// What a value that is stored by itself takes, its text or numbers not counted.
const ENTRY_BYTES: usize = size_of::<Value>();

fn value_bytes(value: &Value) -> usize {
    let inside = match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(value_bytes).sum(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| 2 * ENTRY_BYTES + name.len() + value_bytes(value))
            .sum(),
    };
    ENTRY_BYTES + inside
}

/// A call that fits its module.
#[derive(Debug)]
pub enum Plan {
    /// Numbers in, numbers out.
    Typed(typed::TypedPlan),
    /// Bytes in linear memory.
    Plugin(plugin::PluginPlan),
    /// stdin to stdout.
    Command(command::CommandPlan),
    /// Values of WIT in, values of WIT out.
    Component(component::ComponentPlan),
    /// A request in, its response out.
    Http(http::HttpPlan),
}

/// What a module's record says of how to call it.
#[derive(Debug, Clone, Copy)]
pub struct Callable<'a> {
    /// How bytes and arguments get in and out.
    pub abi: Abi,
    /// What a core module exports.
    pub exports: &'a [FunctionExport],
    /// What a component exports.
    pub component: Option<&'a Arc<ComponentInterface>>,
}

impl Plan {
    /// The export that will run.
    pub fn function(&self) -> &str {
        match self {
            Self::Typed(plan) => &plan.function,
            Self::Plugin(plan) => &plan.function,
            Self::Command(plan) => plan.run.as_deref().unwrap_or(command::ENTRY),
            Self::Component(plan) => &plan.function,
            Self::Http(plan) => &plan.function,
        }
    }

    /// Whether an instance can serve this call and others. A command runs once; a component may read its environment at any
    /// time and keep it, which must not be one caller's own.
    pub fn may_share_its_instance(&self, has_env: bool) -> bool {
        match self {
            Self::Typed(_) | Self::Plugin(_) => true,
            Self::Component(_) | Self::Http(_) => !has_env,
            Self::Command(_) => false,
        }
    }

    /// Fits a call to a module; `argv0` is what a command sees as its name.
    pub fn new(module: Callable<'_>, argv0: &str, call: CallInput) -> Result<Self, ErrorBody> {
        match module.component {
            Some(interface) => Self::of_component(module.abi, interface, argv0, call),
            None => Self::of_module(module, argv0, call),
        }
    }

    /// Fits an HTTP request to a module.
    pub fn serving(
        module: Callable<'_>,
        exchange: Box<http::HttpExchange>,
        env: BTreeMap<String, String>,
    ) -> Result<Self, ErrorBody> {
        let handler = module.component.and_then(|interface| {
            let mut functions = interface.functions.iter();
            functions.find(|function| function.serves_http())
        });
        match handler {
            Some(handler) => Ok(Self::Http(http::HttpPlan {
                function: handler.name.clone(),
                exchange,
                env,
            })),
            None => {
                let text = format!(
                    "the module does not serve HTTP requests: its ABI is {}, and it exports no wasi:http/incoming-handler",
                    module.abi.as_str()
                );
                Err(ErrorBody::new(ErrorCode::Unsupported, text))
            }
        }
    }

    fn of_module(module: Callable<'_>, argv0: &str, call: CallInput) -> Result<Self, ErrorBody> {
        let Callable { abi, exports, .. } = module;
        let export = match &call.function {
            Some(function) => find(exports, function.as_str())?,
            None => entry(abi, exports)?,
        };
        let is_entry = |entry: &str| export.name == entry;
        match abi {
            Abi::Command if is_entry(command::ENTRY) => {
                command::CommandPlan::new(argv0, call).map(Self::Command)
            }
            Abi::Plugin if plugin::is_entry(export) && call.args.is_none() => {
                Ok(Self::Plugin(plugin::PluginPlan::new(export, call)))
            }
            Abi::Typed | Abi::Plugin | Abi::Command | Abi::Component | Abi::Http | Abi::Chain => {
                typed::TypedPlan::new(export, call).map(Self::Typed)
            }
        }
    }

    fn of_component(
        abi: Abi,
        interface: &Arc<ComponentInterface>,
        argv0: &str,
        call: CallInput,
    ) -> Result<Self, ErrorBody> {
        let mut run = interface
            .functions
            .iter()
            .filter(|function| function.is_command());
        let function = match (&call.function, run.next()) {
            (Some(function), _) => component::find(interface, function.as_str())?,
            (None, Some(run)) if abi == Abi::Command => run,
            (None, _) if abi == Abi::Http => {
                let text = "the module serves HTTP requests: send them to /v1/http, or name a function";
                return Err(ErrorBody::new(ErrorCode::Unsupported, text));
            }
            (None, _) => component::entry(interface)?,
        };
        if !function.is_command() {
            return component::ComponentPlan::new(interface, function, argv0, call).map(Self::Component);
        }
        let mut plan = command::CommandPlan::new(argv0, call)?;
        plan.run = Some(function.name.clone());
        Ok(Self::Command(plan))
    }
}

fn find<'a>(exports: &'a [FunctionExport], function: &str) -> Result<&'a FunctionExport, ErrorBody> {
    exports
        .iter()
        .find(|export| export.name == function)
        .ok_or_else(|| {
            let message = format!(
                "the module has no function {function:?}; it has {}",
                listed(exports)
            );
            ErrorBody::new(ErrorCode::FunctionNotFound, message)
        })
}

/// The function that a call without a function means.
fn entry(abi: Abi, exports: &[FunctionExport]) -> Result<&FunctionExport, ErrorBody> {
    let named = match abi {
        Abi::Command => command::ENTRY,
        Abi::Plugin => plugin::ENTRY,
        Abi::Typed | Abi::Component | Abi::Http | Abi::Chain => {
            let mut callable = exports.iter().filter(|export| export.name != INITIALIZE);
            return match (callable.next(), callable.next()) {
                (Some(only), None) => Ok(only),
                _ => {
                    let message = format!(
                        "the module has several functions, name one of {}",
                        listed(exports)
                    );
                    Err(ErrorBody::new(ErrorCode::InvalidRequest, message))
                }
            };
        }
    };
    find(exports, named)
}

/// Called before anything else in a module that exports it (a WASI reactor).
pub(super) const INITIALIZE: &str = "_initialize";

/// The first few names, for a message.
fn listed(exports: &[FunctionExport]) -> String {
    const SHOWN: usize = 10;
    let names: Vec<&str> = exports
        .iter()
        .take(SHOWN)
        .map(|export| export.name.as_str())
        .collect();
    let more = if exports.len() > SHOWN { ", …" } else { "" };
    format!("{}{more}", names.join(", "))
}
