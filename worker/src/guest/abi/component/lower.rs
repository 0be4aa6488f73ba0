//! JSON arguments to values of WIT, checked against a function's types; what does not fit is named by its path.
//!
//! Invariant: what is made takes at most [`MAX_VALUE_BYTES`] of memory, however the JSON is made.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use wasmtime::component::Val;
use wess_schemas::wit::{ComponentInterface, TypeIndex, WitCase, WitField, WitKind};
use wess_schemas::{ErrorBody, ErrorCode};

use crate::guest::abi::number::{float, integer, to_wide};
use crate::guest::component::MAX_VALUE_BYTES;

/// What one value takes, what it refers to not counted.
const VALUE_BYTES: usize = size_of::<Val>();

/// Why an argument does not fit.
#[derive(Debug)]
pub(super) struct Misfit {
    /// Where, innermost first.
    path: Vec<String>,
    kind: MisfitKind,
}

#[derive(Debug)]
enum MisfitKind {
    Wrong(String),
    TooLarge,
}

impl Misfit {
    fn at(mut self, step: impl FnOnce() -> String) -> Self {
        self.path.push(step());
        self
    }

    /// What the caller is told.
    pub fn to_error(&self) -> ErrorBody {
        let path: String = self.path.iter().rev().map(String::as_str).collect();
        match &self.kind {
            MisfitKind::Wrong(why) => {
                ErrorBody::new(ErrorCode::InvalidArguments, format!("{path}: {why}")).with("path", path)
            }
            MisfitKind::TooLarge => ErrorBody::new(
                ErrorCode::PayloadTooLarge,
                format!("the arguments take more than {MAX_VALUE_BYTES} bytes as values of WIT"),
            ),
        }
    }
}

fn wrong(why: String) -> Misfit {
    Misfit {
        path: Vec::new(),
        kind: MisfitKind::Wrong(why),
    }
}

/// Makes values of arguments.
pub(super) struct Lowering<'a> {
    interface: &'a ComponentInterface,
    room: usize,
}

impl<'a> Lowering<'a> {
    pub fn new(interface: &'a ComponentInterface) -> Self {
        Self {
            interface,
            room: MAX_VALUE_BYTES,
        }
    }

    /// The argument at a place.
    pub fn arg(&mut self, at: usize, param: &WitField, arg: &Value) -> Result<Val, Misfit> {
        self.value(param.ty, arg)
            .map_err(|misfit| misfit.at(|| format!("args[{at}]")))
    }

    fn take(&mut self, bytes: usize) -> Result<(), Misfit> {
        match self.room.checked_sub(bytes) {
            Some(room) => {
                self.room = room;
                Ok(())
            }
            None => Err(Misfit {
                path: Vec::new(),
                kind: MisfitKind::TooLarge,
            }),
        }
    }

    fn kind(&self, ty: TypeIndex) -> Option<&'a WitKind> {
        self.interface.types.get(ty as usize).map(|ty| &ty.kind)
    }

    fn expected(&self, ty: TypeIndex, got: &Value) -> Misfit {
        wrong(format!(
            "expected {}, got {}",
            self.interface.type_text(ty),
            shown(got)
        ))
    }

    fn value(&mut self, ty: TypeIndex, arg: &Value) -> Result<Val, Misfit> {
        self.take(VALUE_BYTES)?;
        let misfit = || self.expected(ty, arg);
        let Some(kind) = self.kind(ty) else {
            return Err(misfit());
        };
        match kind {
            WitKind::List(part) => self.list(ty, *part, arg),
            WitKind::Tuple(parts) => self.tuple(ty, parts, arg),
            WitKind::Record(fields) => self.record(ty, fields, arg),
            WitKind::Variant(cases) => self.variant(ty, cases, arg),
            WitKind::Option(part) => self.option(*part, arg),
            WitKind::Result { ok, err } => self.result(ty, *ok, *err, arg),
            WitKind::Flags(names) => self.flags(ty, names, arg),
            WitKind::Enum(names) => {
                let name = arg.as_str().ok_or_else(misfit)?;
                if !names.iter().any(|known| known == name) {
                    return Err(wrong(format!(
                        "expected one of {}, got {}",
                        listed(names),
                        shown(arg)
                    )));
                }
                self.text(name).map(Val::Enum)
            }
            WitKind::String => {
                let text = arg.as_str().ok_or_else(misfit)?;
                self.text(text).map(Val::String)
            }
            plain => number(plain, arg)?.ok_or_else(misfit),
        }
    }

    fn text(&mut self, text: &str) -> Result<String, Misfit> {
        self.take(text.len())?;
        Ok(text.to_owned())
    }

    fn list(&mut self, ty: TypeIndex, part: TypeIndex, arg: &Value) -> Result<Val, Misfit> {
        let is_bytes = self.kind(part) == Some(&WitKind::U8);
        match arg {
            Value::Array(items) => {
                let items = items.iter().enumerate();
                let items = items.map(|(at, item)| {
                    self.value(part, item)
                        .map_err(|misfit| misfit.at(|| format!("[{at}]")))
                });
                items.collect::<Result<_, _>>().map(Val::List)
            }
            Value::Object(fields) if is_bytes => {
                let text = fields.get("base64").filter(|_| fields.len() == 1);
                let Some(text) = text.and_then(Value::as_str) else {
                    return Err(self.expected(ty, arg));
                };
                self.take(text.len() / 4 * 3 * VALUE_BYTES)?;
                let bytes = STANDARD
                    .decode(text)
                    .map_err(|error| wrong(format!("invalid base64: {error}")))?;
                Ok(Val::List(bytes.into_iter().map(Val::U8).collect()))
            }
            _ => Err(self.expected(ty, arg)),
        }
    }

    fn tuple(&mut self, ty: TypeIndex, parts: &[TypeIndex], arg: &Value) -> Result<Val, Misfit> {
        let items = arg.as_array().ok_or_else(|| self.expected(ty, arg))?;
        if items.len() != parts.len() {
            let text = self.interface.type_text(ty);
            return Err(wrong(format!("expected {text}, got an array of {}", items.len())));
        }
        let items = parts.iter().zip(items).enumerate();
        let items = items.map(|(at, (part, item))| {
            self.value(*part, item)
                .map_err(|misfit| misfit.at(|| format!("[{at}]")))
        });
        items.collect::<Result<_, _>>().map(Val::Tuple)
    }

    fn record(&mut self, ty: TypeIndex, fields: &[WitField], arg: &Value) -> Result<Val, Misfit> {
        let given = arg.as_object().ok_or_else(|| self.expected(ty, arg))?;
        if let Some(stranger) = given
            .keys()
            .find(|name| !fields.iter().any(|field| field.name == **name))
        {
            let known = fields.iter().map(|field| field.name.as_str());
            let text = format!(
                "no such field; {} has {}",
                self.interface.type_text(ty),
                listed(known)
            );
            return Err(wrong(text).at(|| dotted(stranger)));
        }
        let fields = fields.iter().map(|field| {
            let name = self.text(&field.name)?;
            let value = self
                .field(field, given)
                .map_err(|misfit| misfit.at(|| dotted(&field.name)))?;
            Ok((name, value))
        });
        fields.collect::<Result<_, _>>().map(Val::Record)
    }

    fn field(&mut self, field: &WitField, given: &Map<String, Value>) -> Result<Val, Misfit> {
        match given.get(&field.name) {
            Some(value) => self.value(field.ty, value),
            None if matches!(self.kind(field.ty), Some(WitKind::Option(_))) => {
                self.take(VALUE_BYTES)?;
                Ok(Val::Option(None))
            }
            None => Err(wrong(format!(
                "expected {}, got nothing",
                self.interface.type_text(field.ty)
            ))),
        }
    }

    fn variant(&mut self, ty: TypeIndex, cases: &[WitCase], arg: &Value) -> Result<Val, Misfit> {
        let (name, payload) = match arg {
            Value::String(name) => (name, None),
            Value::Object(fields) if fields.len() == 1 => match fields.iter().next() {
                Some((name, payload)) => (name, Some(payload)),
                None => return Err(self.expected(ty, arg)),
            },
            _ => return Err(self.expected(ty, arg)),
        };
        let Some(case) = cases.iter().find(|case| case.name == *name) else {
            let known = cases.iter().map(|case| case.name.as_str());
            return Err(wrong(format!(
                "expected one of {}, got {}",
                listed(known),
                shown(arg)
            )));
        };
        let text = self.text(name)?;
        match (case.ty, payload) {
            (None, None) => Ok(Val::Variant(text, None)),
            (Some(ty), Some(payload)) => {
                let value = self
                    .value(ty, payload)
                    .map_err(|misfit| misfit.at(|| dotted(name)))?;
                Ok(Val::Variant(text, Some(Box::new(value))))
            }
            (None, Some(_)) => Err(wrong(format!(
                "the case {name} has no payload: expected {name:?}"
            ))),
            (Some(ty), None) => {
                let payload = self.interface.type_text(ty);
                Err(wrong(format!(
                    "the case {name} needs its payload: expected {{{name:?}: {payload}}}"
                )))
            }
        }
    }

    fn option(&mut self, part: TypeIndex, arg: &Value) -> Result<Val, Misfit> {
        if arg.is_null() {
            return Ok(Val::Option(None));
        }
        let some = if matches!(self.kind(part), Some(WitKind::Option(_))) {
            let inner = only(arg, "some");
            let inner = inner
                .ok_or_else(|| wrong(format!("expected null or {{\"some\": …}}, got {}", shown(arg))))?;
            self.value(part, inner)
                .map_err(|misfit| misfit.at(|| ".some".into()))?
        } else {
            self.value(part, arg)?
        };
        Ok(Val::Option(Some(Box::new(some))))
    }

    fn result(
        &mut self,
        ty: TypeIndex,
        ok: Option<TypeIndex>,
        err: Option<TypeIndex>,
        arg: &Value,
    ) -> Result<Val, Misfit> {
        let sides =
            [("ok", ok), ("err", err)].map(|(name, ty)| only(arg, name).map(|value| (name, ty, value)));
        let Some((name, ty, value)) = sides.into_iter().flatten().next() else {
            let text = self.interface.type_text(ty);
            return Err(wrong(format!(
                "expected {text} as {{\"ok\": …}} or {{\"err\": …}}, got {}",
                shown(arg)
            )));
        };
        let payload = match ty {
            Some(ty) => self.value(ty, value).map(|value| Some(Box::new(value))),
            None if value.is_null() => Ok(None),
            None => Err(wrong(format!("expected null, got {}", shown(value)))),
        };
        let payload = payload.map_err(|misfit| misfit.at(|| dotted(name)))?;
        Ok(Val::Result(if name == "ok" { Ok(payload) } else { Err(payload) }))
    }

    fn flags(&mut self, ty: TypeIndex, names: &[String], arg: &Value) -> Result<Val, Misfit> {
        let given = arg.as_array().ok_or_else(|| self.expected(ty, arg))?;
        let given = given.iter().enumerate().map(|(at, flag)| {
            let name = flag
                .as_str()
                .filter(|name| names.iter().any(|known| known == name));
            let name = name.ok_or_else(|| {
                wrong(format!("expected one of {}, got {}", listed(names), shown(flag)))
                    .at(|| format!("[{at}]"))
            })?;
            self.take(VALUE_BYTES)?;
            self.text(name)
        });
        given.collect::<Result<_, _>>().map(Val::Flags)
    }
}

/// A value of a type that is made of nothing; `None` when the argument is of another.
fn number(kind: &WitKind, arg: &Value) -> Result<Option<Val>, Misfit> {
    fn narrow<T: TryFrom<i128>>(arg: &Value) -> Option<T> {
        integer(arg).and_then(|wide| T::try_from(wide).ok())
    }
    fn wide<T: TryFrom<i128>>(arg: &Value) -> Result<Option<T>, Misfit> {
        let wide = to_wide(arg).map_err(|why| wrong(format!("{} {why}", shown(arg))))?;
        Ok(wide.and_then(|wide| T::try_from(wide).ok()))
    }
    Ok(match kind {
        WitKind::Bool => arg.as_bool().map(Val::Bool),
        WitKind::S8 => narrow(arg).map(Val::S8),
        WitKind::U8 => narrow(arg).map(Val::U8),
        WitKind::S16 => narrow(arg).map(Val::S16),
        WitKind::U16 => narrow(arg).map(Val::U16),
        WitKind::S32 => narrow(arg).map(Val::S32),
        WitKind::U32 => narrow(arg).map(Val::U32),
        WitKind::S64 => wide(arg)?.map(Val::S64),
        WitKind::U64 => wide(arg)?.map(Val::U64),
        WitKind::F32 => float(arg)
            .map(|wide| (wide, wide as f32))
            .and_then(|(wide, narrow)| {
                (narrow.is_finite() || !wide.is_finite()).then_some(Val::Float32(narrow))
            }),
        WitKind::F64 => float(arg).map(Val::Float64),
        WitKind::Char => single(arg).map(Val::Char),
        _ => None,
    })
}

fn single(arg: &Value) -> Option<char> {
    let mut chars = arg.as_str()?.chars();
    chars.next().filter(|_| chars.next().is_none())
}

/// The value of an object's one field.
fn only<'a>(arg: &'a Value, name: &str) -> Option<&'a Value> {
    let fields = arg.as_object()?;
    fields.get(name).filter(|_| fields.len() == 1)
}

fn dotted(name: &str) -> String {
    let name: String = name.chars().take(64).collect();
    format!(".{name}")
}

/// The first few names, for a message.
fn listed(names: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    const SHOWN: usize = 12;
    let mut names = names.into_iter();
    let first: Vec<_> = names
        .by_ref()
        .take(SHOWN)
        .map(|name| name.as_ref().to_owned())
        .collect();
    let more = if names.next().is_some() { ", …" } else { "" };
    format!("{}{more}", first.join(", "))
}

/// A caller's value as a message names it.
fn shown(value: &Value) -> String {
    const SHOWN: usize = 40;
    match value {
        Value::Array(items) => format!("an array of {}", items.len()),
        Value::Object(_) => "an object".into(),
        Value::String(text) if text.chars().nth(SHOWN).is_some() => "a long string".into(),
        plain => plain.to_string(),
    }
}
