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
    check_layer(wasm)?;
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
        return Err(invalid(error));
    }
    let error = shown(&error);
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
            WasmFeatures::STACK_SWITCHING
                | WasmFeatures::FUNCTION_REFERENCES
                | WasmFeatures::GC_TYPES
                | WasmFeatures::EXCEPTIONS,
        ),
        ("wide-arithmetic", WasmFeatures::WIDE_ARITHMETIC),
        ("custom-page-sizes", WasmFeatures::CUSTOM_PAGE_SIZES),
    ]
    .into_iter()
}

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
