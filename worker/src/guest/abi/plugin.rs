//! Bytes in linear memory: input is copied in, `process` runs, its return value is the exit code.
//!
//! Every pointer a guest gives is checked; one outside its memory is a trap.

use bytes::Bytes;
use wasmtime::{Memory, Store, TypedFunc, WasmParams};
use wess_schemas::module::{FunctionExport, ValueType};

use super::CallInput;
use crate::guest::ending::{Answer, GuestFault};
use crate::guest::host::{GuestState, HostFault, slice};
use crate::guest::limits::Refused;
use crate::guest::module::{LiveModule, LoadedModule};

/// The export that a plugin is detected by.
pub const ENTRY: &str = "process";
const PAGE_BYTES: usize = 64 << 10;

/// One import of the module `host`.
pub struct HostImport {
    /// Its name.
    pub name: &'static str,
    /// How many i32 parameters it has.
    params: usize,
    /// Whether it returns an i32.
    returns: bool,
}

/// Every import of the module `host`.
pub const IMPORTS: &[HostImport] = &[
    HostImport {
        name: "log",
        params: 2,
        returns: false,
    },
    HostImport {
        name: "set_output",
        params: 2,
        returns: false,
    },
    HostImport {
        name: "get_state",
        params: 2,
        returns: true,
    },
    HostImport {
        name: "read_state",
        params: 2,
        returns: true,
    },
    HostImport {
        name: "set_state",
        params: 4,
        returns: false,
    },
    HostImport {
        name: "delete_state",
        params: 2,
        returns: false,
    },
    HostImport {
        name: "publish",
        params: 4,
        returns: true,
    },
];

/// Whether an import of `host` has the signature that it is defined with.
pub fn import_has_signature(name: &str, params: &[ValueType], results: &[ValueType]) -> bool {
    let all_i32 = params.iter().chain(results).all(|ty| *ty == ValueType::I32);
    IMPORTS.iter().any(|import| {
        import.name == name
            && all_i32
            && import.params == params.len()
            && usize::from(import.returns) == results.len()
    })
}

/// Whether a function has the signature of a plugin's entry: `(ptr, len) -> i32` or `(ptr, len, env_ptr, env_len) -> i32`.
pub fn is_entry(export: &FunctionExport) -> bool {
    let all_i32 = export
        .params
        .iter()
        .chain(&export.results)
        .all(|ty| *ty == ValueType::I32);
    all_i32 && export.results.len() == 1 && matches!(export.params.len(), 2 | 4)
}

/// A call of a plugin's function.
#[derive(Debug)]
pub struct PluginPlan {
    pub(super) function: String,
    input: Bytes,
    /// The environment as JSON, for a function that takes it.
    env: Option<Vec<u8>>,
}

impl PluginPlan {
    pub(super) fn new(export: &FunctionExport, call: CallInput) -> Self {
        let env = (export.params.len() == 4).then(|| serde_json::json!(call.env).to_string().into_bytes());
        Self {
            function: export.name.clone(),
            input: call.input.unwrap_or_default(),
            env,
        }
    }

    pub(in crate::guest) async fn run(
        self,
        store: &mut Store<GuestState>,
        module: &LoadedModule,
        live: &mut Option<LiveModule>,
    ) -> Result<Answer, GuestFault> {
        let live = module.instance(store, live).await?;
        let memory = live.memory(module, store)?;
        let input = place(store, module, live, memory, &self.input).await?;
        let exit_code = match &self.env {
            None => {
                let process = typed::<(u32, u32)>(module, live, store, self.function)?;
                process.call_async(&mut *store, (input.start, input.len)).await?
            }
            Some(env) => {
                let env = place(store, module, live, memory, env).await?;
                let process = typed::<(u32, u32, u32, u32)>(module, live, store, self.function)?;
                process
                    .call_async(&mut *store, (input.start, input.len, env.start, env.len))
                    .await?
            }
        };
        let output = output(store, module, live, memory, input).await?;
        Ok(Answer {
            output: Some(output),
            exit_code: Some(exit_code),
            results: None,
        })
    }
}

fn typed<P: WasmParams>(
    module: &LoadedModule,
    live: &mut LiveModule,
    store: &mut Store<GuestState>,
    function: String,
) -> Result<TypedFunc<P, i32>, GuestFault> {
    let function = live
        .function(module, store, function)
        .ok_or(GuestFault::Mismatch)?;
    function.typed(store).map_err(|_| GuestFault::Mismatch)
}

/// A part of guest memory as a guest sees it.
#[derive(Clone, Copy)]
struct Region {
    start: u32,
    len: u32,
}

/// Copies bytes to where the guest's `alloc` says, or to freshly grown memory.
async fn place(
    store: &mut Store<GuestState>,
    module: &LoadedModule,
    live: &mut LiveModule,
    memory: Memory,
    bytes: &[u8],
) -> Result<Region, GuestFault> {
    let len = u32::try_from(bytes.len()).map_err(|_| GuestFault::MemoryExceeded)?;
    if len == 0 {
        return Ok(Region { start: 0, len });
    }
    let start = match live.alloc(module, store) {
        Some(alloc) => match alloc.call_async(&mut *store, len).await? {
            // What `malloc` answers when the memory that it asked for was refused.
            0 if store.data().limiter.refused().is_some() => return Err(no_room(store)),
            start => start,
        },
        None => grow(store, memory, bytes.len())?,
    };
    let target = memory.data_mut(&mut *store);
    let range = start as usize..start as usize + bytes.len();
    let target = target.get_mut(range).ok_or(HostFault::OutOfBounds("alloc"))?;
    target.copy_from_slice(bytes);
    Ok(Region { start, len })
}

fn grow(store: &mut Store<GuestState>, memory: Memory, bytes: usize) -> Result<u32, GuestFault> {
    let pages = bytes.div_ceil(PAGE_BYTES) as u64;
    let old_pages = memory.grow(&mut *store, pages).map_err(|_| no_room(store))?;
    u32::try_from(old_pages * PAGE_BYTES as u64).map_err(|_| GuestFault::MemoryExceeded)
}

/// The guest's code may have run, and done what cannot be repeated.
fn no_room(store: &Store<GuestState>) -> GuestFault {
    match store.data().limiter.refused() {
        Some(Refused::Budget) => GuestFault::MemoryBudget,
        Some(Refused::Limit) | None => GuestFault::MemoryExceeded,
    }
}

/// What the guest gave `set_output`, else what its getters name, else its input buffer as it is now.
async fn output(
    store: &mut Store<GuestState>,
    module: &LoadedModule,
    live: &mut LiveModule,
    memory: Memory,
    input: Region,
) -> Result<Vec<u8>, GuestFault> {
    if let Some(output) = store.data_mut().output.take() {
        return Ok(output);
    }
    let region = match live.output_getters(module, store) {
        Some((get_start, get_len)) => {
            let start = get_start.call_async(&mut *store, ()).await?;
            Region {
                start,
                len: get_len.call_async(&mut *store, ()).await?,
            }
        }
        None => input,
    };
    let output = slice(memory.data(&*store), region.start, region.len, "output")?;
    let limit = store.data().output_limit;
    if output.len() > limit {
        return Err(GuestFault::OutputTooLarge(limit));
    }
    Ok(output.to_vec())
}
