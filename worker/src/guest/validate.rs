//! Whether bytes are WebAssembly at all, and of the kind that we run.
//!
//! Refuses by name: what a file is instead, or the proposal that a module needs.

use std::fmt::Display;

use wasmparser::{BinaryReaderError, Encoding, Parser, Payload, Validator, WasmFeatures};

use super::engine::accepted_features;

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

/// Checks everything that the specification says, under the proposals that we accept.
pub(super) fn check(wasm: &[u8]) -> Result<(), ModuleRefused> {
    check_magic(wasm)?;
    validate(wasm)
}

/// Tells a person what their file is when it is not WebAssembly at all.
fn check_magic(wasm: &[u8]) -> Result<(), ModuleRefused> {
    let what = match wasm {
        [b'\0', b'a', b's', b'm', ..] => return Ok(()),
        [] => "no bytes at all",
        [0x1f, 0x8b, ..] => "gzip data; send the unpacked module",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd data; send the unpacked module",
        [b'P', b'K', ..] => "a zip archive",
        [0x7f, b'E', b'L', b'F', ..] => "a native program (ELF)",
        text if std::str::from_utf8(text).is_ok_and(is_assembly) => "WebAssembly text; assemble it first",
        text if std::str::from_utf8(text).is_ok() => "text",
        _ => "something without WebAssembly's magic number",
    };
    Err(ModuleRefused::Invalid(format!(
        "this is not a WebAssembly module but {what}"
    )))
}

fn is_assembly(text: &str) -> bool {
    let text = text.trim_start();
    text.starts_with("(module") || text.starts_with("(component")
}

/// Whether this is a component and not a core module.
pub(super) fn is_component(wasm: &[u8]) -> bool {
    let first = Parser::new(0).parse_all(wasm).next();
    matches!(
        first,
        Some(Ok(Payload::Version {
            encoding: Encoding::Component,
            ..
        }))
    )
}

fn validate(wasm: &[u8]) -> Result<(), ModuleRefused> {
    let accepted = accepted_features();
    let Err(error) = Validator::new_with_features(accepted).validate_all(wasm) else {
        return Ok(());
    };
    let valid_with = |features| Validator::new_with_features(features).validate_all(wasm).is_ok();
    let all = WasmFeatures::all();
    if !valid_with(all) {
        return Err(invalid(error));
    }
    let one = PROPOSALS
        .iter()
        .find(|proposal| valid_with(accepted | proposal.own | proposal.needs));
    let needed: Vec<_> = match one {
        Some(one) => vec![one.name],
        None => PROPOSALS
            .iter()
            .filter(|each| !valid_with(all.difference(each.own)))
            .map(|each| each.name)
            .collect(),
    };
    let named = if needed.is_empty() {
        String::new()
    } else {
        format!(" ({})", needed.join(", "))
    };
    let error = shown(&error);
    Err(unsupported(format!(
        "the module needs proposals that are not supported{named}: {error}"
    )))
}

/// A proposal we refuse.
struct Proposal {
    /// What its authors call it.
    name: &'static str,
    own: WasmFeatures,
    /// Features of other proposals that it builds upon.
    needs: WasmFeatures,
}

const NONE: WasmFeatures = WasmFeatures::empty();

const fn proposal(name: &'static str, own: WasmFeatures, needs: WasmFeatures) -> Proposal {
    Proposal { name, own, needs }
}

/// Proposals that modules are built with and that we refuse.
const PROPOSALS: &[Proposal] = &[
    proposal("threads", WasmFeatures::THREADS, NONE),
    proposal("memory64", WasmFeatures::MEMORY64, NONE),
    proposal("multi-memory", WasmFeatures::MULTI_MEMORY, NONE),
    proposal(
        "exception-handling",
        WasmFeatures::EXCEPTIONS.union(WasmFeatures::LEGACY_EXCEPTIONS),
        NONE,
    ),
    proposal("function-references", WasmFeatures::FUNCTION_REFERENCES, NONE),
    proposal(
        "gc",
        WasmFeatures::GC.union(WasmFeatures::GC_TYPES),
        WasmFeatures::FUNCTION_REFERENCES,
    ),
    proposal(
        "stack-switching",
        WasmFeatures::STACK_SWITCHING,
        WasmFeatures::FUNCTION_REFERENCES
            .union(WasmFeatures::GC_TYPES)
            .union(WasmFeatures::EXCEPTIONS),
    ),
    proposal("wide-arithmetic", WasmFeatures::WIDE_ARITHMETIC, NONE),
    proposal("custom-page-sizes", WasmFeatures::CUSTOM_PAGE_SIZES, NONE),
    proposal(
        "component-model-async",
        WasmFeatures::CM_ASYNC
            .union(WasmFeatures::CM_ASYNC_STACKFUL)
            .union(WasmFeatures::CM_MORE_ASYNC_BUILTINS)
            .union(WasmFeatures::CM_THREADING),
        NONE,
    ),
    proposal(
        "component-model-error-context",
        WasmFeatures::CM_ERROR_CONTEXT,
        NONE,
    ),
    proposal("component-model-values", WasmFeatures::CM_VALUES, NONE),
    proposal(
        "component-model-nested-names",
        WasmFeatures::CM_NESTED_NAMES,
        NONE,
    ),
    proposal(
        "component-model-fixed-length-lists",
        WasmFeatures::CM_FIXED_LENGTH_LISTS,
        NONE,
    ),
    proposal("component-model-map", WasmFeatures::CM_MAP, NONE),
    proposal(
        "component-model-gc",
        WasmFeatures::CM_GC,
        WasmFeatures::GC.union(WasmFeatures::GC_TYPES),
    ),
    proposal("component-model-implements", WasmFeatures::CM_IMPLEMENTS, NONE),
];

pub(super) fn unsupported(text: impl Into<String>) -> ModuleRefused {
    ModuleRefused::Unsupported(text.into())
}

/// A text with words of the module's choosing, fit to be read by a person.
pub(super) fn shown(text: &dyn Display) -> String {
    const SHOWN: usize = 200;
    let text = text.to_string();
    let more = if text.chars().nth(SHOWN).is_some() {
        "…"
    } else {
        ""
    };
    text.chars()
        .take(SHOWN)
        .flat_map(char::escape_debug)
        .chain(more.chars())
        .collect()
}

pub(super) fn invalid(error: BinaryReaderError) -> ModuleRefused {
    ModuleRefused::Invalid(format!(
        "this is not a valid WebAssembly module: {}",
        shown(&error)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A module that needs one proposal and no other.
    fn example(proposal: &str) -> Option<&'static str> {
        Some(match proposal {
            "threads" => "(module (memory 1 1 shared))",
            "memory64" => "(module (memory i64 1))",
            "multi-memory" => "(module (memory 1) (memory 1))",
            "exception-handling" => "(module (tag) (func (throw 0)))",
            "function-references" => {
                "(module (type $t (func)) (func (param (ref $t)) (call_ref $t (local.get 0))))"
            }
            "gc" => "(module (type $t (struct)) (func (param (ref null $t))))",
            "stack-switching" => "(module (type $f (func)) (type $c (cont $f)) (func (param (ref null $c))))",
            "wide-arithmetic" => {
                "(module (func (result i64 i64) (i64.mul_wide_u (i64.const 1) (i64.const 1))))"
            }
            "custom-page-sizes" => "(module (memory 1 (pagesize 1)))",
            "component-model-async" => "(component (type (func (result (stream u8)))))",
            "component-model-error-context" => "(component (type error-context))",
            "component-model-values" => {
                r#"(component (import "a" (value $v string)) (export "b" (value $v)))"#
            }
            "component-model-nested-names" => r#"(component (import "a:b:c/d" (instance)))"#,
            "component-model-fixed-length-lists" => "(component (type (list u8 4)))",
            "component-model-map" => "(component (type (map string u8)))",
            "component-model-gc" => {
                r#"(component (core module $m (func (export "f"))) (core instance $i (instantiate $m))
                    (func (canon lift (core func $i "f") gc)))"#
            }
            "component-model-implements" => r#"(component (import "a" (implements "a:b/c") (instance)))"#,
            _ => return None,
        })
    }

    #[test]
    fn every_proposal_that_is_refused_is_named_alone() {
        for Proposal { name, .. } in PROPOSALS {
            let example = example(name).unwrap_or_else(|| panic!("{name} has no example"));
            let module = wat::parse_str(example).unwrap_or_else(|error| panic!("{name}: {error}"));
            match check(&module) {
                Err(ModuleRefused::Unsupported(text)) => {
                    assert!(text.contains(&format!("({name})")), "{name}: {text}");
                }
                other => panic!("{name}: {other:?}"),
            }
        }
    }
}
