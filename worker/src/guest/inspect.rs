//! What a module is, read from its bytes: whether we can run it, how it is called, what it exports.
//!
//! Refuses by name: the import, the proposal, the function or the size that is in the way.

use std::collections::HashMap;

use wasmparser::{
    CompositeInnerType, Encoding, ExternalKind, FuncType, Imports, Parser, Payload, TypeRef, ValType,
    Validator, WasmFeatures,
};
use wess_schemas::module::{Abi, FunctionExport, ValueType};

use super::abi::plugin;
use super::engine::{MAX_MEMORY_BYTES, accepted_features};
use super::limits::MAX_TABLE_ELEMENTS;

/// Longest body of one function. Compile time grows faster than a function's length: this much takes seconds.
pub const MAX_FUNCTION_BYTES: usize = 512 << 10;
/// Most exported functions that a module record lists.
const MAX_EXPORTS: usize = 1000;
/// Longest export name.
const MAX_EXPORT_NAME_BYTES: usize = 256;
/// The pages of the largest memory any guest can be given.
const MAX_MEMORY_PAGES: u64 = (MAX_MEMORY_BYTES >> 16) as u64;

/// What a stored module is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// How bytes and arguments get in and out.
    pub abi: Abi,
    /// Its exported functions, in the order of the module.
    pub exports: Vec<FunctionExport>,
}

/// Why a module is not taken. The text names what is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModuleRefused {
    /// Not valid WebAssembly.
    #[error("{0}")]
    Invalid(String),
    /// Valid, but it needs what we do not give.
    #[error("{0}")]
    Unsupported(String),
}

fn unsupported(text: impl Into<String>) -> ModuleRefused {
    ModuleRefused::Unsupported(text.into())
}

/// Reads a module without compiling it. Takes time in proportion to its size: not for a thread that answers calls.
pub fn inspect(wasm: &[u8]) -> Result<Inspection, ModuleRefused> {
    check_magic(wasm)?;
    validate(wasm)?;
    let outline = Outline::read(wasm)?;
    let abi = outline.abi()?;
    Ok(Inspection {
        abi,
        exports: outline.exports,
    })
}

/// Tells a person what their file is when it is not WebAssembly at all.
fn check_magic(wasm: &[u8]) -> Result<(), ModuleRefused> {
    let what = match wasm {
        [b'\0', b'a', b's', b'm', ..] => return check_layer(wasm),
        [] => "no bytes at all",
        [0x1f, 0x8b, ..] => "gzip data; send the unpacked module",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd data; send the unpacked module",
        [b'P', b'K', ..] => "a zip archive",
        [0x7f, b'E', b'L', b'F', ..] => "a native program (ELF)",
        text if std::str::from_utf8(text).is_ok_and(|text| text.trim_start().starts_with("(module")) => {
            "WebAssembly text; assemble it first"
        }
        text if std::str::from_utf8(text).is_ok() => "text",
        _ => "something without WebAssembly's magic number",
    };
    Err(ModuleRefused::Invalid(format!(
        "this is not a WebAssembly module but {what}"
    )))
}

fn check_layer(wasm: &[u8]) -> Result<(), ModuleRefused> {
    match Parser::new(0).parse_all(wasm).next() {
        Some(Ok(Payload::Version {
            encoding: Encoding::Component,
            ..
        })) => Err(unsupported(
            "this is a component; only core modules are supported",
        )),
        _ => Ok(()),
    }
}

fn validate(wasm: &[u8]) -> Result<(), ModuleRefused> {
    let accepted = accepted_features();
    let Err(error) = Validator::new_with_features(accepted).validate_all(wasm) else {
        return Ok(());
    };
    if Validator::new_with_features(WasmFeatures::all())
        .validate_all(wasm)
        .is_err()
    {
        return Err(ModuleRefused::Invalid(format!(
            "this is not a valid WebAssembly module: {error}"
        )));
    }
    let needed = refused_proposals().find(|(_, features)| {
        Validator::new_with_features(accepted | *features)
            .validate_all(wasm)
            .is_ok()
    });
    Err(unsupported(match needed {
        Some((name, _)) => format!("the module needs the proposal {name}, which is not supported: {error}"),
        None => format!("the module needs several proposals that are not supported: {error}"),
    }))
}

/// Proposals we refuse, by the names their authors gave them.
fn refused_proposals() -> impl Iterator<Item = (&'static str, WasmFeatures)> {
    [
        ("threads", WasmFeatures::THREADS),
        ("memory64", WasmFeatures::MEMORY64),
        ("multi-memory", WasmFeatures::MULTI_MEMORY),
        (
            "exception-handling",
            WasmFeatures::EXCEPTIONS | WasmFeatures::LEGACY_EXCEPTIONS,
        ),
        ("function-references", WasmFeatures::FUNCTION_REFERENCES),
        (
            "gc",
            WasmFeatures::GC | WasmFeatures::GC_TYPES | WasmFeatures::FUNCTION_REFERENCES,
        ),
        (
            "stack-switching",
            WasmFeatures::STACK_SWITCHING | WasmFeatures::FUNCTION_REFERENCES | WasmFeatures::EXCEPTIONS,
        ),
        ("wide-arithmetic", WasmFeatures::WIDE_ARITHMETIC),
        ("custom-page-sizes", WasmFeatures::CUSTOM_PAGE_SIZES),
    ]
    .into_iter()
}

/// What the sections say, as far as we care.
#[derive(Default)]
struct Outline {
    types: Vec<Option<FuncType>>,
    function_types: Vec<u32>,
    imported_functions: u32,
    bodies: u32,
    exports: Vec<FunctionExport>,
    exports_memory: bool,
}

impl Outline {
    fn read(wasm: &[u8]) -> Result<Self, ModuleRefused> {
        let mut outline = Self::default();
        for payload in Parser::new(0).parse_all(wasm) {
            let payload = payload.map_err(invalid)?;
            outline.take(payload)?;
        }
        Ok(outline)
    }

    fn take(&mut self, payload: Payload<'_>) -> Result<(), ModuleRefused> {
        match payload {
            Payload::TypeSection(section) => {
                for group in section {
                    self.types.extend(group.map_err(invalid)?.types().map(
                        |ty| match &ty.composite_type.inner {
                            CompositeInnerType::Func(func) => Some(func.clone()),
                            _ => None,
                        },
                    ));
                }
            }
            Payload::ImportSection(section) => {
                for imports in section {
                    let Imports::Single(_, import) = imports.map_err(invalid)? else {
                        return Err(unsupported(
                            "the module needs compact imports, which are not supported",
                        ));
                    };
                    self.take_import(import.module, import.name, &import.ty)?;
                }
            }
            Payload::FunctionSection(section) => {
                for ty in section {
                    self.function_types.push(ty.map_err(invalid)?);
                }
            }
            Payload::TableSection(section) => {
                for table in section {
                    check_table(table.map_err(invalid)?.ty.initial)?;
                }
            }
            Payload::MemorySection(section) => {
                for memory in section {
                    check_memory(memory.map_err(invalid)?.initial)?;
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export.map_err(invalid)?;
                    self.take_export(export.name, export.kind, export.index)?;
                }
            }
            Payload::CodeSectionEntry(body) => {
                check_body(self.imported_functions + self.bodies, body.range().len())?;
                self.bodies += 1;
            }
            _ => {}
        }
        Ok(())
    }

    fn take_import(&mut self, module: &str, name: &str, ty: &TypeRef) -> Result<(), ModuleRefused> {
        let TypeRef::Func(index) = ty else {
            return Err(unsupported(format!(
                "the module imports {module}.{name}, which is not a function"
            )));
        };
        let signature = self.signature(*index);
        if !is_known_import(module, name) {
            return Err(unsupported(format!(
                "the module imports {module}.{name}, which does not exist here"
            )));
        }
        if let (true, Some((params, results))) = (module == "host", signature)
            && !plugin::import_has_signature(name, &params, &results)
        {
            return Err(unsupported(format!(
                "the module imports {module}.{name} with another signature than it has"
            )));
        }
        self.function_types.push(*index);
        self.imported_functions += 1;
        Ok(())
    }

    fn take_export(&mut self, name: &str, kind: ExternalKind, index: u32) -> Result<(), ModuleRefused> {
        match kind {
            ExternalKind::Memory => self.exports_memory |= name == "memory",
            ExternalKind::Func => {
                if name.is_empty() || name.len() > MAX_EXPORT_NAME_BYTES || name.contains(char::is_control) {
                    return Err(unsupported(
                        "the module exports a function whose name is empty, too long or unprintable",
                    ));
                }
                if self.exports.len() == MAX_EXPORTS {
                    return Err(unsupported(format!(
                        "the module exports more than {MAX_EXPORTS} functions"
                    )));
                }
                let ty = self
                    .function_types
                    .get(index as usize)
                    .copied()
                    .unwrap_or(u32::MAX);
                let (params, results) = self.signature(ty).unwrap_or_default();
                self.exports.push(FunctionExport {
                    name: name.into(),
                    params,
                    results,
                });
            }
            _ => {}
        }
        Ok(())
    }

    fn signature(&self, ty: u32) -> Option<(Vec<ValueType>, Vec<ValueType>)> {
        let func = self.types.get(ty as usize)?.as_ref()?;
        let of = |types: &[ValType]| types.iter().map(value_type).collect();
        Some((of(func.params()), of(func.results())))
    }

    /// Decides how the module is called.
    fn abi(&self) -> Result<Abi, ModuleRefused> {
        let by_name: HashMap<&str, &FunctionExport> =
            self.exports.iter().map(|e| (e.name.as_str(), e)).collect();
        if let Some(start) = by_name.get("_start") {
            return match (
                start.params.is_empty(),
                start.results.is_empty(),
                self.exports_memory,
            ) {
                (true, true, _) => Ok(Abi::Command),
                _ => Err(unsupported(
                    "the module exports _start, but not as a function without parameters and results",
                )),
            };
        }
        if self.exports_memory
            && by_name
                .get("process")
                .is_some_and(|process| plugin::is_entry(process))
        {
            return Ok(Abi::Plugin);
        }
        if by_name.keys().any(|name| *name != "_initialize") {
            return Ok(Abi::Typed);
        }
        Err(unsupported("the module exports no function that could be called"))
    }
}

/// Whether we give a module this import.
fn is_known_import(module: &str, name: &str) -> bool {
    match module {
        "host" => plugin::IMPORTS.iter().any(|import| import.name == name),
        "wasi_snapshot_preview1" => WASI_PREVIEW1.contains(&name),
        _ => false,
    }
}

/// Every function of WASI preview 1.
const WASI_PREVIEW1: &[&str] = &[
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

fn value_type(ty: &ValType) -> ValueType {
    match ty {
        ValType::I32 => ValueType::I32,
        ValType::I64 => ValueType::I64,
        ValType::F32 => ValueType::F32,
        ValType::F64 => ValueType::F64,
        ValType::V128 => ValueType::V128,
        ValType::Ref(_) => ValueType::Ref,
    }
}

fn check_memory(initial_pages: u64) -> Result<(), ModuleRefused> {
    if initial_pages > MAX_MEMORY_PAGES {
        let text =
            format!("the module starts with {initial_pages} pages of memory; {MAX_MEMORY_PAGES} is the most");
        return Err(unsupported(text));
    }
    Ok(())
}

fn check_table(initial: u64) -> Result<(), ModuleRefused> {
    if initial > MAX_TABLE_ELEMENTS as u64 {
        let text =
            format!("the module starts with a table of {initial} elements; {MAX_TABLE_ELEMENTS} is the most");
        return Err(unsupported(text));
    }
    Ok(())
}

fn check_body(index: u32, bytes: usize) -> Result<(), ModuleRefused> {
    if bytes > MAX_FUNCTION_BYTES {
        return Err(unsupported(format!(
            "function {index} is {bytes} bytes long; {MAX_FUNCTION_BYTES} is the most"
        )));
    }
    Ok(())
}

fn invalid(error: wasmparser::BinaryReaderError) -> ModuleRefused {
    ModuleRefused::Invalid(format!("this is not a valid WebAssembly module: {error}"))
}
