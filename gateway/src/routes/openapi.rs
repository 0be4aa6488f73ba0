//! The description of this interface: `schemas/openapi.yaml`, with the JSON Schemas of the contract's types put in.
//!
//! Made once, at the first request for it. A test compares its paths with the router's.

use std::sync::LazyLock;

use axum::response::Response;
use bytes::Bytes;
use serde_json::{Map, Value};
use wess_schemas::ErrorCode;

use crate::problem::Problem;
use crate::routes::json_answer;

const SOURCE: &str = include_str!("../../../schemas/openapi.yaml");
/// How the source refers to a message's schema: `json/<name>.json`.
const FILE_PREFIX: &str = "json/";
const FILE_SUFFIX: &str = ".json";
const DEFS: &str = "#/$defs/";
const COMPONENTS: &str = "#/components/schemas/";

static DOCUMENT: LazyLock<Option<Bytes>> = LazyLock::new(|| {
    let document = bundled().inspect_err(|error| tracing::error!(%error, "the OpenAPI document is wrong"));
    document.ok().map(|document| document.to_string().into())
});

/// `GET /openapi.json`
pub async fn document() -> Result<Response, Problem> {
    let missing = || Problem::new(ErrorCode::Internal, "there is no OpenAPI document").before_guest();
    DOCUMENT.clone().map(json_answer).ok_or_else(missing)
}

/// The source with every schema that it refers to among its components.
fn bundled() -> Result<Value, serde_saphyr::Error> {
    let mut document: Value = serde_saphyr::from_str(SOURCE)?;
    let mut components = Map::new();
    for (file, schema) in wess_schemas::schema::all() {
        let mut schema = schema.to_value();
        point_into_components(&mut schema);
        let Some(fields) = schema.as_object_mut() else {
            continue;
        };
        fields.remove("$schema");
        if let Some(Value::Object(defs)) = fields.remove("$defs") {
            components.extend(defs);
        }
        components.insert(component_of(file), schema);
    }
    point_into_components(&mut document);
    if let Some(Value::Object(own)) = document.pointer_mut("/components/schemas") {
        components.append(own);
        *own = components;
    }
    Ok(document)
}

fn point_into_components(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(target)) = fields.get_mut("$ref") {
                *target = component_reference(target);
            }
            fields.values_mut().for_each(point_into_components);
        }
        Value::Array(items) => items.iter_mut().for_each(point_into_components),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => (),
    }
}

fn component_reference(target: &str) -> String {
    let file = target
        .strip_prefix(FILE_PREFIX)
        .and_then(|name| name.strip_suffix(FILE_SUFFIX));
    match (file, target.strip_prefix(DEFS)) {
        (Some(file), _) => format!("{COMPONENTS}{}", component_of(file)),
        (None, Some(name)) => format!("{COMPONENTS}{name}"),
        (None, None) => target.into(),
    }
}

/// `module-list` is the component `ModuleList`, as its type is called.
fn component_of(file: &str) -> String {
    let capital = |word: &str| word[..1].to_ascii_uppercase() + &word[1..];
    file.split('-').map(capital).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn served() -> Value {
        bundled().unwrap()
    }

    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => (),
        }
    }

    #[test]
    fn every_reference_leads_somewhere_within_the_document() {
        let document = served();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 20, "{found:?}");
        for reference in found {
            let pointer = reference
                .strip_prefix('#')
                .unwrap_or_else(|| panic!("{reference} leads out"));
            assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
        }
    }
}
