//! What a component exports, as its version record keeps it: functions over a table of WIT types.
//!
//! Invariant of a sound interface: a type is made of types that come before it, so that nothing is ever within itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A component's functions, and the types that they are made of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ComponentInterface {
    /// Every type that a function needs, each after those that it is made of.
    pub types: Vec<WitType>,
    /// Exported functions, in the order of the component.
    pub functions: Vec<WitFunction>,
    /// The component's world as WIT text; left out when it is too long for the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wit: Option<String>,
}

/// A place in [`ComponentInterface::types`].
pub type TypeIndex = u32;

/// A WIT type and what its author calls it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WitType {
    /// The name, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it is.
    pub kind: WitKind,
}

/// What a WIT type is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are WIT's own")]
pub enum WitKind {
    Bool,
    S8,
    U8,
    S16,
    U16,
    S32,
    U32,
    S64,
    U64,
    F32,
    F64,
    Char,
    String,
    List(TypeIndex),
    Tuple(Vec<TypeIndex>),
    Record(Vec<WitField>),
    Variant(Vec<WitCase>),
    Enum(Vec<String>),
    Option(TypeIndex),
    Result {
        ok: Option<TypeIndex>,
        err: Option<TypeIndex>,
    },
    Flags(Vec<String>),
    /// What JSON cannot carry, a handle for one, as a person would call it.
    Foreign(String),
}

/// A field of a record, or a parameter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct WitField {
    /// Its name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub ty: TypeIndex,
}

/// A case of a variant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct WitCase {
    /// Its name.
    pub name: String,
    /// What comes with it, if anything does.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub ty: Option<TypeIndex>,
}

/// An exported function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WitFunction {
    /// `ns:pkg/iface@version#func`, or `func` for one of the world's own.
    pub name: String,
    /// Its parameters, in order.
    pub params: Vec<WitField>,
    /// What it returns, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<TypeIndex>,
}

impl WitKind {
    /// The types that this one is made of.
    pub fn parts(&self) -> Vec<TypeIndex> {
        match self {
            Self::List(part) | Self::Option(part) => vec![*part],
            Self::Tuple(parts) => parts.clone(),
            Self::Record(fields) => fields.iter().map(|field| field.ty).collect(),
            Self::Variant(cases) => cases.iter().filter_map(|case| case.ty).collect(),
            Self::Result { ok, err } => ok.iter().chain(err).copied().collect(),
            _ => Vec::new(),
        }
    }
}

impl WitFunction {
    /// The types of its parameters and result.
    pub fn types(&self) -> impl Iterator<Item = TypeIndex> + '_ {
        self.params.iter().map(|param| param.ty).chain(self.result)
    }

    /// Whether it is the one that makes a component a command.
    pub fn is_command(&self) -> bool {
        let (interface, function) = self.parts();
        let interface =
            interface.map(|interface| interface.split_once('@').map_or(interface, |(name, _)| name));
        interface == Some("wasi:cli/run") && function == "run" && self.params.is_empty()
    }

    /// Whether it is what a toolchain left behind from setting the guest up, which nobody calls: componentize-py's, or
    /// componentize-qjs's.
    pub fn is_left_over(&self) -> bool {
        const QUICKJS: [&str; 4] = ["shim", "script", "entry-path", "disable-gc"];
        let params = self.params.iter().map(|param| param.name.as_str());
        match self.parts() {
            (Some("exports"), "init") => true,
            (None, "init") => params.eq(QUICKJS),
            _ => false,
        }
    }

    /// Whether it is the one that answers HTTP requests.
    pub fn serves_http(&self) -> bool {
        Self::names_http_handler(&self.name)
    }

    /// Whether a function of this name is the one that answers HTTP requests.
    pub fn names_http_handler(name: &str) -> bool {
        let (interface, function) = Self::split(name);
        let parts = interface.and_then(|interface| interface.split_once('@'));
        let is_handler = |(interface, version): (&str, &str)| {
            interface == "wasi:http/incoming-handler" && version.starts_with("0.2.")
        };
        parts.is_some_and(is_handler) && function == "handle"
    }

    /// The interface and the function's own name.
    pub fn parts(&self) -> (Option<&str>, &str) {
        Self::split(&self.name)
    }

    /// The two parts of a function's full name.
    pub fn split(name: &str) -> (Option<&str>, &str) {
        match name.split_once('#') {
            Some((interface, function)) => (Some(interface), function),
            None => (None, name),
        }
    }
}

impl ComponentInterface {
    /// Whether every type is made of earlier ones and every function of types that there are.
    pub fn is_sound(&self) -> bool {
        let earlier = |(at, ty): (usize, &WitType)| ty.kind.parts().iter().all(|part| (*part as usize) < at);
        let known = |function: &WitFunction| function.types().all(|ty| (ty as usize) < self.types.len());
        self.types.iter().enumerate().all(earlier) && self.functions.iter().all(known)
    }

    /// What of a function's signature JSON cannot carry, if anything.
    pub fn foreign(&self, function: &WitFunction) -> Option<&str> {
        let mut seen = vec![false; self.types.len()];
        let mut open: Vec<TypeIndex> = function.types().collect();
        while let Some(index) = open.pop() {
            let Some(seen) = seen.get_mut(index as usize).filter(|seen| !**seen) else {
                continue;
            };
            *seen = true;
            match &self.types[index as usize].kind {
                WitKind::Foreign(what) => return Some(what),
                kind => open.extend(kind.parts()),
            }
        }
        None
    }

    /// A type as WIT writes it.
    pub fn type_text(&self, index: TypeIndex) -> String {
        let Some(ty) = self.types.get(index as usize) else {
            return "?".into();
        };
        match &ty.name {
            Some(name) => name.clone(),
            None => self.kind_text(&ty.kind),
        }
    }

    fn kind_text(&self, kind: &WitKind) -> String {
        let text = |index: &TypeIndex| self.type_text(*index);
        match kind {
            WitKind::List(part) => format!("list<{}>", text(part)),
            WitKind::Option(part) => format!("option<{}>", text(part)),
            WitKind::Tuple(parts) => {
                format!("tuple<{}>", parts.iter().map(text).collect::<Vec<_>>().join(", "))
            }
            WitKind::Result { ok: None, err: None } => "result".into(),
            WitKind::Result {
                ok: Some(ok),
                err: None,
            } => format!("result<{}>", text(ok)),
            WitKind::Result { ok, err: Some(err) } => {
                let ok = ok.as_ref().map_or("_".into(), text);
                format!("result<{ok}, {}>", text(err))
            }
            WitKind::Foreign(what) => what.clone(),
            WitKind::Record(_) => "record".into(),
            WitKind::Variant(_) => "variant".into(),
            WitKind::Enum(_) => "enum".into(),
            WitKind::Flags(_) => "flags".into(),
            plain => plain.plain_name().unwrap_or("?").into(),
        }
    }

    /// A function's parameters and result as WIT writes them.
    pub fn signature(&self, function: &WitFunction) -> String {
        let param = |param: &WitField| format!("{}: {}", param.name, self.type_text(param.ty));
        let params: Vec<_> = function.params.iter().map(param).collect();
        let result = function
            .result
            .map(|result| format!(" -> {}", self.type_text(result)));
        format!("({}){}", params.join(", "), result.unwrap_or_default())
    }
}

impl WitKind {
    /// The name of a type that is made of nothing.
    pub const fn plain_name(&self) -> Option<&'static str> {
        Some(match self {
            Self::Bool => "bool",
            Self::S8 => "s8",
            Self::U8 => "u8",
            Self::S16 => "s16",
            Self::U16 => "u16",
            Self::S32 => "s32",
            Self::U32 => "u32",
            Self::S64 => "s64",
            Self::U64 => "u64",
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::Char => "char",
            Self::String => "string",
            _ => return None,
        })
    }
}
