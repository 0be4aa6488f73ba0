//! An exported function as clients see it: its signature, and JSON Schemas of what it takes and gives.
//!
//! Invariant: a module's schemas take a bounded room together; what does not fit is left out, never cut.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::module::{Abi, FunctionExport, ModuleVersion, ValueType};
use crate::wit::{ComponentInterface, TypeIndex, WitCase, WitField, WitFunction, WitKind};

/// Most bytes that the schemas of one module take in a reply.
const MAX_SCHEMAS_BYTES: usize = 256 << 10;
/// 64-bit integers in digits, as long as they may be: no pattern knows their bounds.
const SIGNED: &str = "^-?[0-9]{1,19}$";
const UNSIGNED: &str = "^[0-9]{1,20}$";
/// Padded, and without stray bits at the end.
const BASE64: &str = "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$";
const NO_NUL: &str = "^[^\\u0000]*$";
/// The shortest text of the largest 32-bit float, which is what a guest's own is told as.
const MAX_F32: f64 = 3.402_823_5e38;
/// The largest integer that every JSON reader keeps exact.
const MAX_EXACT: i64 = 1 << 53;

/// An exported function as clients see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Export {
    /// The name to call it by.
    pub name: String,
    /// Parameter types, in order, as WebAssembly or WIT names them.
    pub params: Vec<String>,
    /// Result types, in order.
    pub results: Vec<String>,
    /// Both in one line, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub signature: String,
    /// A JSON Schema of `args`; left out of a function that cannot be called, of one that answers HTTP requests, and where a
    /// module's schemas grow too long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args_schema: Option<Value>,
    /// A JSON Schema of `results`; left out too where the answer is bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results_schema: Option<Value>,
    /// Why it cannot be called, if it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsupported: Option<String>,
}

/// Describes all that a version exports.
pub fn describe(version: &ModuleVersion) -> Vec<Export> {
    let mut left = MAX_SCHEMAS_BYTES;
    match &version.component {
        Some(component) => component
            .functions
            .iter()
            .map(|function| fitted(of_component(component, function, left), &mut left))
            .collect(),
        None => version
            .exports
            .iter()
            .map(|export| fitted(of_core(version.abi, export), &mut left))
            .collect(),
    }
}

/// The export, without its schemas when there is no room for them.
fn fitted(export: Export, left: &mut usize) -> Export {
    let schemas = [&export.args_schema, &export.results_schema];
    let size: usize = schemas
        .into_iter()
        .flatten()
        .map(|schema| schema.to_string().len())
        .sum();
    match left.checked_sub(size) {
        Some(rest) => {
            *left = rest;
            export
        }
        None => {
            *left = 0;
            Export {
                args_schema: None,
                results_schema: None,
                ..export
            }
        }
    }
}

fn of_core(abi: Abi, export: &FunctionExport) -> Export {
    let names = |types: &[ValueType]| types.iter().map(|ty| ty.as_str().to_owned()).collect::<Vec<_>>();
    let (params, results) = (names(&export.params), names(&export.results));
    let signature = match &results[..] {
        [] => format!("({})", params.join(", ")),
        [single] => format!("({}) -> {single}", params.join(", ")),
        several => format!("({}) -> ({})", params.join(", "), several.join(", ")),
    };
    let mut foreign = export
        .params
        .iter()
        .chain(&export.results)
        .filter(|ty| !ty.is_number());
    let unsupported = foreign
        .next()
        .map(|ty| format!("{} in its signature", ty.as_str()));
    let callable = unsupported.is_none();
    let is_command = abi == Abi::Command && export.name == "_start";
    let of = |types: &[ValueType]| array(types.iter().map(|ty| number(*ty)).collect());
    let args_schema = if is_command { argv() } else { of(&export.params) };
    Export {
        name: export.name.clone(),
        args_schema: callable.then_some(args_schema),
        results_schema: (callable && !is_command).then(|| of(&export.results)),
        params,
        results,
        signature,
        unsupported,
    }
}

/// What a command takes after its name.
fn argv() -> Value {
    json!({"type": "array", "items": {"type": ["string", "number", "boolean"], "pattern": NO_NUL}})
}

fn of_component(component: &ComponentInterface, function: &WitFunction, left: usize) -> Export {
    let is_run = function.is_command();
    let serves_http = function.serves_http();
    // What a handler is handed is not JSON, nor does it come from a caller.
    let foreign = component.foreign(function).filter(|_| !serves_http);
    let mut schemas = Schemas {
        component,
        definitions: Map::new(),
        left,
    };
    let (args_schema, results_schema) = match foreign {
        Some(_) => (None, None),
        None if serves_http => (None, None),
        None if is_run => (Some(argv()), None),
        None => (
            schemas.of(function.params.iter().map(|param| param.ty)),
            schemas.of(function.result.into_iter()),
        ),
    };
    let text = |ty| component.type_text(ty);
    Export {
        name: function.name.clone(),
        params: function.params.iter().map(|param| text(param.ty)).collect(),
        results: function.result.into_iter().map(text).collect(),
        signature: component.signature(function),
        args_schema,
        results_schema,
        unsupported: foreign.map(|what| format!("{what} in its signature")),
    }
}

/// Writes schemas of one function's types.
struct Schemas<'a> {
    component: &'a ComponentInterface,
    /// Named types that were met.
    definitions: Map<String, Value>,
    left: usize,
}

impl Schemas<'_> {
    /// The schema of an array of these, with the named types that it needs; `None` when it would grow too long.
    fn of(&mut self, types: impl Iterator<Item = TypeIndex>) -> Option<Value> {
        let items = types.map(|ty| self.ty(ty)).collect::<Option<_>>()?;
        let mut schema = array(items);
        let definitions = std::mem::take(&mut self.definitions);
        if !definitions.is_empty() {
            schema["$defs"] = Value::Object(definitions);
        }
        Some(schema)
    }

    fn ty(&mut self, index: TypeIndex) -> Option<Value> {
        const ABOUT_BYTES: usize = 16;
        self.left = self.left.checked_sub(ABOUT_BYTES)?;
        let ty = self.component.types.get(index as usize)?;
        let Some(name) = &ty.name else {
            return self.kind(&ty.kind);
        };
        let shadowed = |other: &crate::wit::WitType| other.name.as_ref() == Some(name);
        let before = self.component.types[..index as usize]
            .iter()
            .filter(|other| shadowed(other))
            .count();
        let name = if before == 0 {
            name.clone()
        } else {
            format!("{name}-{}", before + 1)
        };
        if !self.definitions.contains_key(&name) {
            let definition = self.kind(&ty.kind)?;
            self.definitions.insert(name.clone(), definition);
        }
        Some(json!({"$ref": format!("#/$defs/{name}")}))
    }

    fn kind(&mut self, kind: &WitKind) -> Option<Value> {
        let integer = |least: i64, most: i64| json!({"type": "integer", "minimum": least, "maximum": most});
        Some(match kind {
            WitKind::Bool => json!({"type": "boolean"}),
            WitKind::S8 => integer(i8::MIN.into(), i8::MAX.into()),
            WitKind::U8 => integer(0, u8::MAX.into()),
            WitKind::S16 => integer(i16::MIN.into(), i16::MAX.into()),
            WitKind::U16 => integer(0, u16::MAX.into()),
            WitKind::S32 => integer(i32::MIN.into(), i32::MAX.into()),
            WitKind::U32 => integer(0, u32::MAX.into()),
            WitKind::S64 => wide(-MAX_EXACT, SIGNED),
            WitKind::U64 => wide(0, UNSIGNED),
            WitKind::F32 => float(Some(MAX_F32)),
            WitKind::F64 => float(None),
            WitKind::Char => json!({"type": "string", "minLength": 1, "maxLength": 1}),
            WitKind::String => json!({"type": "string"}),
            WitKind::List(part) => self.list(*part)?,
            WitKind::Tuple(parts) => array(parts.iter().map(|part| self.ty(*part)).collect::<Option<_>>()?),
            WitKind::Record(fields) => self.record(fields)?,
            WitKind::Variant(cases) => self.variant(cases)?,
            WitKind::Enum(names) => json!({"enum": names}),
            WitKind::Option(part) => {
                let inner = self.ty(*part)?;
                let is_nested = matches!(self.component.types[*part as usize].kind, WitKind::Option(_));
                let some = if is_nested { only("some", inner) } else { inner };
                json!({"anyOf": [{"type": "null"}, some]})
            }
            WitKind::Result { ok, err } => {
                json!({"anyOf": [only("ok", self.payload(*ok)?), only("err", self.payload(*err)?)]})
            }
            WitKind::Flags(names) => {
                json!({"type": "array", "items": {"enum": names}, "uniqueItems": true})
            }
            WitKind::Foreign(_) => return None,
        })
    }

    fn payload(&mut self, ty: Option<TypeIndex>) -> Option<Value> {
        ty.map_or(Some(json!({"type": "null"})), |ty| self.ty(ty))
    }

    fn list(&mut self, part: TypeIndex) -> Option<Value> {
        let items = json!({"type": "array", "items": self.ty(part)?});
        if self.component.types[part as usize].kind != WitKind::U8 {
            return Some(items);
        }
        let bytes = only(
            "base64",
            json!({"type": "string", "contentEncoding": "base64", "pattern": BASE64}),
        );
        Some(json!({"anyOf": [bytes, items]}))
    }

    fn record(&mut self, fields: &[WitField]) -> Option<Value> {
        let mut properties = Map::new();
        let mut required = Vec::new();
        for field in fields {
            properties.insert(field.name.clone(), self.ty(field.ty)?);
            if !matches!(self.component.types[field.ty as usize].kind, WitKind::Option(_)) {
                required.push(field.name.as_str());
            }
        }
        Some(
            json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false}),
        )
    }

    fn variant(&mut self, cases: &[WitCase]) -> Option<Value> {
        let case = |case: &WitCase| match case.ty {
            Some(ty) => Some(only(&case.name, self.ty(ty)?)),
            None => Some(json!({"const": case.name})),
        };
        let cases = cases.iter().map(case).collect::<Option<Vec<_>>>()?;
        Some(json!({"anyOf": cases}))
    }
}

/// An object with this one field.
fn only(name: &str, schema: Value) -> Value {
    json!({"type": "object", "properties": {name: schema}, "required": [name], "additionalProperties": false})
}

/// An array with exactly these items.
fn array(items: Vec<Value>) -> Value {
    let count = items.len();
    if items.is_empty() {
        return json!({"type": "array", "maxItems": 0});
    }
    json!({"type": "array", "prefixItems": items, "items": false, "minItems": count, "maxItems": count})
}

/// A 64-bit integer: a number while it is exact, else a string.
fn wide(least: i64, pattern: &str) -> Value {
    json!({"anyOf": [
        {"type": "integer", "minimum": least, "maximum": MAX_EXACT},
        {"type": "string", "pattern": pattern},
    ]})
}

fn float(most: Option<f64>) -> Value {
    let mut finite = json!({"type": "number"});
    if let Some(most) = most {
        finite["minimum"] = json!(-most);
        finite["maximum"] = json!(most);
    }
    json!({"anyOf": [finite, {"enum": ["NaN", "Infinity", "-Infinity"]}]})
}

fn number(ty: ValueType) -> Value {
    match ty {
        ValueType::I32 => json!({"type": "integer", "minimum": i32::MIN, "maximum": i32::MAX}),
        ValueType::I64 => wide(-MAX_EXACT, SIGNED),
        ValueType::F32 => float(Some(MAX_F32)),
        ValueType::F64 => float(None),
        ValueType::V128 | ValueType::Ref => Value::Bool(false),
    }
}
