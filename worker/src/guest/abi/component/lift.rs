//! Values of WIT to JSON, for the caller.
//!
//! Invariant: as text the JSON is at most as long as the call's output may be; making more stops at once.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use wasmtime::component::Val;
use wess_schemas::wit::{ComponentInterface, TypeIndex, WitKind};

use crate::guest::abi::number::{from_float, from_wide, widened};
use crate::guest::ending::GuestFault;

/// Makes JSON of a function's result.
pub(super) struct Lifting<'a> {
    interface: &'a ComponentInterface,
    limit: usize,
    room: usize,
}

impl<'a> Lifting<'a> {
    pub fn new(interface: &'a ComponentInterface, limit: usize) -> Self {
        Self {
            interface,
            limit,
            room: limit,
        }
    }

    fn take(&mut self, bytes: usize) -> Result<(), GuestFault> {
        self.room = self
            .room
            .checked_sub(bytes)
            .ok_or(GuestFault::OutputTooLarge(self.limit))?;
        Ok(())
    }

    fn kind(&self, ty: TypeIndex) -> Result<&'a WitKind, GuestFault> {
        let ty = self
            .interface
            .types
            .get(ty as usize)
            .ok_or(GuestFault::Mismatch)?;
        Ok(&ty.kind)
    }

    /// The JSON of a value of this type.
    pub fn value(&mut self, ty: TypeIndex, val: Val) -> Result<Value, GuestFault> {
        let made = match (self.kind(ty)?, val) {
            (WitKind::List(part), Val::List(items)) => self.list(*part, items)?,
            (WitKind::Tuple(parts), Val::Tuple(items)) => self.items(parts.iter().copied(), items)?,
            (WitKind::Record(fields), Val::Record(values)) => {
                let mut object = Map::new();
                for (field, (name, value)) in fields.iter().zip(values) {
                    self.take(name.len() + 4)?;
                    object.insert(name, self.value(field.ty, value)?);
                }
                Value::Object(object)
            }
            (WitKind::Variant(cases), Val::Variant(name, payload)) => {
                self.take(name.len() + 4)?;
                match (
                    cases
                        .iter()
                        .find(|case| case.name == name)
                        .and_then(|case| case.ty),
                    payload,
                ) {
                    (Some(ty), Some(payload)) => {
                        let payload = self.value(ty, *payload)?;
                        json!({name: payload})
                    }
                    _ => Value::String(name),
                }
            }
            (WitKind::Option(part), Val::Option(value)) => self.option(*part, value)?,
            (WitKind::Result { ok, err }, Val::Result(result)) => match result {
                Ok(value) => json!({"ok": self.payload(*ok, value)?}),
                Err(value) => json!({"err": self.payload(*err, value)?}),
            },
            (WitKind::Flags(_), Val::Flags(names)) => {
                self.take(names.iter().map(|name| name.len() + 3).sum())?;
                Value::from(names)
            }
            (_, plain) => plain_value(plain).ok_or(GuestFault::Mismatch)?,
        };
        self.take(own_bytes(&made))?;
        Ok(made)
    }

    fn items(
        &mut self,
        types: impl Iterator<Item = TypeIndex>,
        items: Vec<Val>,
    ) -> Result<Value, GuestFault> {
        let items = types.zip(items).map(|(ty, item)| self.value(ty, item));
        items.collect::<Result<_, _>>().map(Value::Array)
    }

    fn list(&mut self, part: TypeIndex, items: Vec<Val>) -> Result<Value, GuestFault> {
        if *self.kind(part)? != WitKind::U8 {
            return self.items(std::iter::repeat(part), items);
        }
        let byte = |item: Val| match item {
            Val::U8(byte) => Ok(byte),
            _ => Err(GuestFault::Mismatch),
        };
        let bytes: Vec<u8> = items.into_iter().map(byte).collect::<Result<_, _>>()?;
        self.take(bytes.len().div_ceil(3) * 4 + 12)?;
        Ok(base64(&bytes))
    }

    fn option(&mut self, part: TypeIndex, value: Option<Box<Val>>) -> Result<Value, GuestFault> {
        let Some(value) = value else {
            return Ok(Value::Null);
        };
        let is_nested = matches!(self.kind(part)?, WitKind::Option(_));
        let value = self.value(part, *value)?;
        Ok(if is_nested { json!({"some": value}) } else { value })
    }

    fn payload(&mut self, ty: Option<TypeIndex>, value: Option<Box<Val>>) -> Result<Value, GuestFault> {
        match (ty, value) {
            (Some(ty), Some(value)) => self.value(ty, *value),
            _ => Ok(Value::Null),
        }
    }
}

/// Bytes as JSON.
pub(super) fn base64(bytes: &[u8]) -> Value {
    json!({"base64": STANDARD.encode(bytes)})
}

fn plain_value(val: Val) -> Option<Value> {
    Some(match val {
        Val::Bool(truth) => Value::Bool(truth),
        Val::S8(number) => number.into(),
        Val::U8(number) => number.into(),
        Val::S16(number) => number.into(),
        Val::U16(number) => number.into(),
        Val::S32(number) => number.into(),
        Val::U32(number) => number.into(),
        Val::S64(number) => from_wide(number.into()),
        Val::U64(number) => from_wide(number.into()),
        Val::Float32(number) => from_float(widened(number)),
        Val::Float64(number) => from_float(number),
        Val::Char(char) => Value::String(char.into()),
        Val::String(text) | Val::Enum(text) => Value::String(text),
        _ => return None,
    })
}

/// What a value takes as text, at the least: what it holds was counted when that was made.
fn own_bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + 3,
        Value::Null | Value::Bool(_) => 5,
        Value::Number(number) if number.is_f64() => 4,
        Value::Number(_) => 2,
        Value::Array(_) | Value::Object(_) => 3,
    }
}
