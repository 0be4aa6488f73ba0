//! From a component's types to the table that calls are checked against, and to WIT text for people.
//!
//! Invariant: the table is sound, names each type once, and would be short if it were written out.

use std::collections::HashMap;
use std::panic::catch_unwind;
use std::thread;

use wess_schemas::wit::{ComponentInterface, TypeIndex, WitCase, WitField, WitFunction, WitKind, WitType};
use wit_component::{OutputToString, WitPrinter};
use wit_parser::decoding::{DecodedWasm, decode};
use wit_parser::{Function, Handle, PackageId, Resolve, Type, TypeDefKind, TypeId, WorldId, WorldItem};

use crate::guest::inspect::{MAX_EXPORT_NAME_BYTES, MAX_EXPORTS};
use crate::guest::validate::{ModuleRefused, shown, unsupported};

/// Most types in the table.
const MAX_TYPES: usize = 4000;
/// Most parts that a function's types may have when they are written out, names not followed.
const MAX_PARTS: u64 = 4000;
/// Longest WIT text that is kept.
const MAX_WIT_BYTES: usize = 96 << 10;
/// Reading nested types recurses; 100 levels are valid.
const STACK_BYTES: usize = 16 << 20;

/// Reads what a valid component exports.
pub(super) fn read(wasm: &[u8]) -> Result<ComponentInterface, ModuleRefused> {
    let reading = || catch_unwind(|| read_here(wasm));
    let read = thread::scope(|scope| {
        let reader = thread::Builder::new()
            .name("wess-wit".into())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, reading);
        reader.map(|reader| reader.join())
    });
    match read {
        Ok(Ok(Ok(result))) => result,
        _ => Err(unsupported("the component's interface could not be read")),
    }
}

fn read_here(wasm: &[u8]) -> Result<ComponentInterface, ModuleRefused> {
    let unreadable = |error: &dyn std::fmt::Display| {
        unsupported(format!(
            "WIT cannot describe what the component exports: {}",
            shown(error)
        ))
    };
    let (resolve, world) = match decode(wasm).map_err(|error| unreadable(&format!("{error:#}")))? {
        DecodedWasm::Component(resolve, world) => (resolve, world),
        DecodedWasm::WitPackage(..) => {
            return Err(unsupported(
                "this is a WIT package; it holds no code that could be called",
            ));
        }
    };
    let mut table = Table::new(&resolve);
    for (key, item) in &resolve.worlds[world].exports {
        match item {
            WorldItem::Function(function) => table.function(function.name.clone(), function)?,
            WorldItem::Interface { id, .. } => {
                let interface = resolve.name_world_key(key);
                for (name, function) in &resolve.interfaces[*id].functions {
                    table.function(format!("{interface}#{name}"), function)?;
                }
            }
            WorldItem::Type { .. } => {}
        }
    }
    let wit = text(&resolve, world);
    Ok(ComponentInterface {
        wit,
        ..table.interface
    })
}

/// Builds the table.
struct Table<'a> {
    resolve: &'a Resolve,
    interface: ComponentInterface,
    /// How many parts each has when it is written out.
    parts: Vec<u64>,
    named: HashMap<TypeId, TypeIndex>,
    plain: HashMap<WitKind, TypeIndex>,
}

impl<'a> Table<'a> {
    fn new(resolve: &'a Resolve) -> Self {
        Self {
            resolve,
            interface: ComponentInterface::default(),
            parts: Vec::new(),
            named: HashMap::new(),
            plain: HashMap::new(),
        }
    }

    fn function(&mut self, name: String, function: &Function) -> Result<(), ModuleRefused> {
        if name.len() > MAX_EXPORT_NAME_BYTES {
            return Err(unsupported(
                "the component exports a function whose name is too long",
            ));
        }
        if self.interface.functions.len() == MAX_EXPORTS {
            let text = format!("the component exports more than {MAX_EXPORTS} functions");
            return Err(unsupported(text));
        }
        let params = function.params.iter().map(|param| {
            let ty = self.ty(&param.ty)?;
            Ok(WitField {
                name: param.name.clone(),
                ty,
            })
        });
        let params = params.collect::<Result<Vec<_>, ModuleRefused>>()?;
        let result = function.result.as_ref().map(|ty| self.ty(ty)).transpose()?;
        let function = WitFunction { name, params, result };
        let parts = function
            .types()
            .map(|ty| self.parts[ty as usize])
            .fold(0, u64::saturating_add);
        if parts > MAX_PARTS {
            return Err(too_many_types());
        }
        self.interface.functions.push(function);
        Ok(())
    }

    fn ty(&mut self, ty: &Type) -> Result<TypeIndex, ModuleRefused> {
        let plain = match ty {
            Type::Id(id) => return self.defined(*id),
            Type::Bool => WitKind::Bool,
            Type::S8 => WitKind::S8,
            Type::U8 => WitKind::U8,
            Type::S16 => WitKind::S16,
            Type::U16 => WitKind::U16,
            Type::S32 => WitKind::S32,
            Type::U32 => WitKind::U32,
            Type::S64 => WitKind::S64,
            Type::U64 => WitKind::U64,
            Type::F32 => WitKind::F32,
            Type::F64 => WitKind::F64,
            Type::Char => WitKind::Char,
            Type::String => WitKind::String,
            Type::ErrorContext => WitKind::Foreign("an error-context".into()),
        };
        self.anonymous(plain)
    }

    fn defined(&mut self, id: TypeId) -> Result<TypeIndex, ModuleRefused> {
        if let Some(index) = self.named.get(&id) {
            return Ok(*index);
        }
        let def = &self.resolve.types[id];
        let index = match (&def.kind, &def.name) {
            // A name for another type.
            (TypeDefKind::Type(ty), _) => self.ty(ty)?,
            (kind, name) => {
                let kind = self.kind(kind)?;
                match (kind, name) {
                    (kind @ WitKind::Foreign(_), _) | (kind, None) => self.anonymous(kind)?,
                    (kind, Some(name)) => self.push(Some(name.clone()), kind)?,
                }
            }
        };
        self.named.insert(id, index);
        Ok(index)
    }

    fn anonymous(&mut self, kind: WitKind) -> Result<TypeIndex, ModuleRefused> {
        if let Some(index) = self.plain.get(&kind) {
            return Ok(*index);
        }
        let index = self.push(None, kind.clone())?;
        self.plain.insert(kind, index);
        Ok(index)
    }

    fn push(&mut self, name: Option<String>, kind: WitKind) -> Result<TypeIndex, ModuleRefused> {
        let inside = kind.parts();
        let inside = inside
            .iter()
            .map(|part| match &self.interface.types[*part as usize].name {
                Some(_) => 1,
                None => self.parts[*part as usize],
            });
        let parts = inside.fold(1, u64::saturating_add);
        if self.interface.types.len() == MAX_TYPES || parts > MAX_PARTS {
            return Err(too_many_types());
        }
        self.parts.push(parts);
        self.interface.types.push(WitType { name, kind });
        Ok((self.interface.types.len() - 1) as TypeIndex)
    }

    fn kind(&mut self, kind: &TypeDefKind) -> Result<WitKind, ModuleRefused> {
        let foreign = |text: &str| Ok(WitKind::Foreign(text.into()));
        Ok(match kind {
            TypeDefKind::Record(record) => WitKind::Record(
                record
                    .fields
                    .iter()
                    .map(|field| {
                        Ok(WitField {
                            name: field.name.clone(),
                            ty: self.ty(&field.ty)?,
                        })
                    })
                    .collect::<Result<_, ModuleRefused>>()?,
            ),
            TypeDefKind::Variant(variant) => WitKind::Variant(
                variant
                    .cases
                    .iter()
                    .map(|case| {
                        Ok(WitCase {
                            name: case.name.clone(),
                            ty: self.optional(&case.ty)?,
                        })
                    })
                    .collect::<Result<_, ModuleRefused>>()?,
            ),
            TypeDefKind::Tuple(tuple) => WitKind::Tuple(
                tuple
                    .types
                    .iter()
                    .map(|ty| self.ty(ty))
                    .collect::<Result<_, _>>()?,
            ),
            TypeDefKind::Flags(flags) => {
                WitKind::Flags(flags.flags.iter().map(|flag| flag.name.clone()).collect())
            }
            TypeDefKind::Enum(cases) => {
                WitKind::Enum(cases.cases.iter().map(|case| case.name.clone()).collect())
            }
            TypeDefKind::Option(ty) => WitKind::Option(self.ty(ty)?),
            TypeDefKind::List(ty) => WitKind::List(self.ty(ty)?),
            TypeDefKind::Result(result) => WitKind::Result {
                ok: self.optional(&result.ok)?,
                err: self.optional(&result.err)?,
            },
            TypeDefKind::Type(ty) => {
                let index = self.ty(ty)?;
                self.interface.types[index as usize].kind.clone()
            }
            TypeDefKind::Handle(Handle::Own(id) | Handle::Borrow(id)) => {
                let name = self.resolve.types[*id].name.as_deref().unwrap_or("?");
                return foreign(&format!("a handle of the resource {name}"));
            }
            TypeDefKind::Resource => return foreign("a resource"),
            TypeDefKind::Stream(_) => return foreign("a stream"),
            TypeDefKind::Future(_) => return foreign("a future"),
            TypeDefKind::Map(..) => return foreign("a map"),
            TypeDefKind::FixedLengthList(..) => return foreign("a list of fixed length"),
            TypeDefKind::Unknown => return foreign("an unknown type"),
        })
    }

    fn optional(&mut self, ty: &Option<Type>) -> Result<Option<TypeIndex>, ModuleRefused> {
        ty.as_ref().map(|ty| self.ty(ty)).transpose()
    }
}

fn too_many_types() -> ModuleRefused {
    unsupported(format!(
        "the types of the component's functions have more than {MAX_PARTS} parts"
    ))
}

/// The world and the interfaces that it exports, as text; WASI's own are left out.
fn text(resolve: &Resolve, world: WorldId) -> Option<String> {
    let main = resolve.worlds[world].package?;
    let others: Vec<PackageId> = resolve
        .packages
        .iter()
        .filter(|(id, package)| *id != main && package.name.namespace != "wasi")
        .map(|(id, _)| id)
        .collect();
    let mut printer = WitPrinter::<OutputToString>::default();
    printer.print(resolve, main, &others).ok()?;
    let text = String::from(printer.output);
    (text.len() <= MAX_WIT_BYTES).then_some(text)
}
