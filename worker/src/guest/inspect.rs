//! What a module is, read from its bytes: whether we can run it, how it is called, what it exports.
//!
//! Refuses by name: the import, the proposal, the function or the size that is in the way.

use std::time::Duration;

use wasmparser::{
    CompositeInnerType, ExternalKind, FuncType, FunctionBody, Imports, Parser, Payload, TypeRef, ValType,
};
use wess_schemas::module::{Abi, FunctionExport, ValueType};
use wess_schemas::wit::ComponentInterface;

use super::abi::{INITIALIZE, command, plugin};
use super::component;
use super::effort::{self, Signatures};
use super::engine::{MAX_MEMORY_BYTES, MAX_TABLES};
use super::limits::MAX_TABLE_ELEMENTS;
use super::validate::{ModuleRefused, check, invalid, is_component, shown, unsupported};
use super::wasi;

/// Longest body of one function: compiling so much of the plainest code takes 2 s.
pub const MAX_FUNCTION_BYTES: usize = 512 << 10;
/// Most that a function's shape may add to that. Large interpreters and databases stay below 1 s.
const MAX_FUNCTION_EFFORT: Duration = Duration::from_secs(2);
/// Most that all functions of a module may add together. The largest programs we know stay below 15 s.
const MAX_MODULE_EFFORT: Duration = Duration::from_secs(60);
/// Most exported functions that a module record lists.
pub(super) const MAX_EXPORTS: usize = 1000;
/// Longest export name.
pub(super) const MAX_EXPORT_NAME_BYTES: usize = 256;
/// The pages of the largest memory any guest can be given.
const MAX_MEMORY_PAGES: u64 = (MAX_MEMORY_BYTES >> 16) as u64;

/// What a stored module is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// How bytes and arguments get in and out.
    pub abi: Abi,
    /// Its exported functions, in the order of the module; those of a component are in `component`.
    pub exports: Vec<FunctionExport>,
    /// What it exports if it is a component.
    pub component: Option<ComponentInterface>,
}

/// Reads a module without compiling it. Takes time in proportion to its size: not for a thread that answers calls.
pub fn inspect(wasm: &[u8]) -> Result<Inspection, ModuleRefused> {
    check(wasm)?;
    if is_component(wasm) {
        return component::inspect(wasm);
    }
    let outline = Outline::default().read(wasm)?;
    let abi = outline.abi()?;
    Ok(Inspection {
        abi,
        exports: outline.exports,
        component: None,
    })
}

/// Checks a core module within a component, which gives it what it imports; `effort` is that of all of them.
pub(super) fn check_part(wasm: &[u8], effort: &mut Duration) -> Result<(), ModuleRefused> {
    let part = Outline {
        is_part: true,
        effort: *effort,
        ..Outline::default()
    };
    *effort = part.read(wasm)?.effort;
    Ok(())
}

/// What the sections say, as far as we care.
#[derive(Default)]
struct Outline {
    types: Vec<Option<FuncType>>,
    function_types: Vec<u32>,
    imported_functions: u32,
    bodies: u32,
    tables: u32,
    effort: Duration,
    exports: Vec<FunctionExport>,
    exports_memory: bool,
    /// It lies in a component: nobody but the component gives it imports and calls its exports.
    is_part: bool,
}

impl Outline {
    fn read(mut self, wasm: &[u8]) -> Result<Self, ModuleRefused> {
        for payload in Parser::new(0).parse_all(wasm) {
            self.take(payload.map_err(invalid)?)?;
        }
        Ok(self)
    }

    fn take(&mut self, payload: Payload<'_>) -> Result<(), ModuleRefused> {
        match payload {
            Payload::TypeSection(section) => {
                for group in section {
                    self.types.extend(
                        group
                            .map_err(invalid)?
                            .types()
                            .map(|ty| function_type(&ty.composite_type.inner)),
                    );
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
                    self.take_table(table.map_err(invalid)?.ty.initial)?;
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
            Payload::CodeSectionEntry(body) => self.take_body(&body)?,
            _ => {}
        }
        Ok(())
    }

    fn take_import(&mut self, module: &str, name: &str, ty: &TypeRef) -> Result<(), ModuleRefused> {
        if self.is_part {
            if let TypeRef::Func(index) = ty {
                self.function_types.push(*index);
                self.imported_functions += 1;
            }
            return Ok(());
        }
        let refused = |why| {
            Err(unsupported(format!(
                "the module imports {}.{}, {why}",
                shown(&module),
                shown(&name)
            )))
        };
        let TypeRef::Func(index) = ty else {
            return refused("which is not a function");
        };
        if !is_known_import(module, name) {
            return refused("which does not exist here");
        }
        let (params, results) = self.signature(*index);
        if module == "host" && !plugin::import_has_signature(name, &params, &results) {
            return refused("but by another signature than it has");
        }
        self.function_types.push(*index);
        self.imported_functions += 1;
        Ok(())
    }

    fn take_table(&mut self, initial: u64) -> Result<(), ModuleRefused> {
        self.tables += 1;
        if self.tables > MAX_TABLES {
            return Err(unsupported(format!(
                "the module has more than {MAX_TABLES} tables"
            )));
        }
        if initial > MAX_TABLE_ELEMENTS as u64 {
            let text = format!(
                "the module starts with a table of {initial} elements; {MAX_TABLE_ELEMENTS} is the most"
            );
            return Err(unsupported(text));
        }
        Ok(())
    }

    fn take_export(&mut self, name: &str, kind: ExternalKind, index: u32) -> Result<(), ModuleRefused> {
        match kind {
            _ if self.is_part => {}
            ExternalKind::Memory => self.exports_memory |= name == "memory",
            ExternalKind::Func => {
                if name.is_empty() || name.len() > MAX_EXPORT_NAME_BYTES || name.contains(char::is_control) {
                    let text = "the module exports a function whose name is empty, too long or unprintable";
                    return Err(unsupported(text));
                }
                if self.exports.len() == MAX_EXPORTS {
                    return Err(unsupported(format!(
                        "the module exports more than {MAX_EXPORTS} functions"
                    )));
                }
                let (params, results) = self
                    .function_types
                    .get(index as usize)
                    .map(|ty| self.signature(*ty))
                    .unwrap_or_default();
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

    fn take_body(&mut self, body: &FunctionBody<'_>) -> Result<(), ModuleRefused> {
        let index = self.imported_functions + self.bodies;
        self.bodies += 1;
        let bytes = body.range().len();
        if bytes > MAX_FUNCTION_BYTES {
            return Err(unsupported(format!(
                "function {index} is {bytes} bytes long; {MAX_FUNCTION_BYTES} is the most"
            )));
        }
        let signatures = Signatures {
            types: &self.types,
            functions: &self.function_types,
        };
        let effort = effort::estimate(index, body, &signatures).map_err(invalid)?;
        self.effort += effort;
        if effort > MAX_FUNCTION_EFFORT {
            return Err(unsupported(format!(
                "function {index} would take too long to compile: too many loops, branches or calls for its number of locals"
            )));
        }
        if self.effort > MAX_MODULE_EFFORT {
            return Err(unsupported(
                "the module's functions would together take too long to compile",
            ));
        }
        Ok(())
    }

    fn signature(&self, ty: u32) -> (Vec<ValueType>, Vec<ValueType>) {
        let Some(Some(func)) = self.types.get(ty as usize) else {
            return Default::default();
        };
        let of = |types: &[ValType]| types.iter().map(value_type).collect();
        (of(func.params()), of(func.results()))
    }

    /// Decides how the module is called.
    fn abi(&self) -> Result<Abi, ModuleRefused> {
        let export = |name: &str| self.exports.iter().find(|export| export.name == name);
        if let Some(start) = export(command::ENTRY) {
            if start.params.is_empty() && start.results.is_empty() {
                return Ok(Abi::Command);
            }
            let text = "the module exports _start, but not as a function without parameters and results";
            return Err(unsupported(text));
        }
        if self.exports_memory && export(plugin::ENTRY).is_some_and(plugin::is_entry) {
            return Ok(Abi::Plugin);
        }
        if self.exports.iter().any(|export| export.name != INITIALIZE) {
            return Ok(Abi::Typed);
        }
        Err(unsupported("the module exports no function that could be called"))
    }
}

fn function_type(ty: &CompositeInnerType) -> Option<FuncType> {
    match ty {
        CompositeInnerType::Func(func) => Some(func.clone()),
        _ => None,
    }
}

/// Whether we give a module this import.
fn is_known_import(module: &str, name: &str) -> bool {
    match module {
        "host" => plugin::IMPORTS.iter().any(|import| import.name == name),
        wasi::MODULE => wasi::FUNCTIONS.contains(&name),
        _ => false,
    }
}

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
