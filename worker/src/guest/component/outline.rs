//! What a component is made of: its core modules, what it instantiates, what it imports.
//!
//! Counts what a compiler will have to unfold, so that no small component becomes a huge program.

use std::time::Duration;

use wasmparser::{
    ComponentAlias, ComponentExternalKind, ComponentInstance, ComponentOuterAliasKind, ComponentTypeRef,
    Parser, Payload,
};

use super::{blobstore, granted, messaging};
use crate::guest::inspect::check_part;
use crate::guest::validate::{ModuleRefused, invalid, shown, unsupported};
use crate::guest::wasi;

/// Most instances in one component, those in instances of instances included. Tools make one for each exported interface.
const MAX_INSTANCES: u64 = 2000;
/// Most functions that cross between components or to the host, counted in the same way. Compiling one takes up to 10 ms.
const MAX_CROSSINGS: u64 = 2000;
/// Most types that it declares, before any is made of others.
const MAX_TYPES: u64 = 20_000;

/// Refuses by name what we would not run.
pub(super) fn check(wasm: &[u8]) -> Result<(), ModuleRefused> {
    let mut outline = Outline::default();
    for payload in Parser::new(0).parse_all(wasm) {
        outline.take(wasm, payload.map_err(invalid)?)?;
    }
    Ok(())
}

#[derive(Default)]
struct Outline {
    /// The component that is being read, within those that it lies in.
    open: Vec<Frame>,
    /// Inside of a core module, whose payloads were read in one go.
    in_module: bool,
    types: u64,
    effort: Duration,
}

/// One component.
#[derive(Default)]
struct Frame {
    /// What comes with one of each component in its index space.
    components: Vec<Cost>,
    /// What comes with one of itself.
    own: Cost,
}

/// What has to be unfolded for one instance of a component.
#[derive(Default, Clone, Copy)]
struct Cost {
    instances: u64,
    crossings: u64,
}

impl Cost {
    const BEYOND: Self = Self {
        instances: u64::MAX,
        crossings: u64::MAX,
    };

    fn add(&mut self, instances: u64, crossings: u64) -> Result<(), ModuleRefused> {
        self.instances = self.instances.saturating_add(instances);
        self.crossings = self.crossings.saturating_add(crossings);
        bounded(self.instances, MAX_INSTANCES, "instances within it")?;
        bounded(self.crossings, MAX_CROSSINGS, "functions that cross its borders")
    }
}

impl Outline {
    fn take(&mut self, wasm: &[u8], payload: Payload<'_>) -> Result<(), ModuleRefused> {
        if self.in_module {
            self.in_module = !matches!(payload, Payload::End(_));
            return Ok(());
        }
        match payload {
            Payload::Version { .. } => self.open.push(Frame::default()),
            Payload::ModuleSection { unchecked_range, .. } => {
                self.in_module = true;
                check_part(wasm.get(unchecked_range).unwrap_or_default(), &mut self.effort)?;
            }
            Payload::ComponentImportSection(section) => {
                for import in section {
                    let import = import.map_err(invalid)?;
                    self.take_import(import.name.name, import.ty)?;
                }
            }
            Payload::InstanceSection(section) => self.add(section.count().into(), 0)?,
            Payload::ComponentInstanceSection(section) => {
                for instance in section {
                    self.take_instance(&instance.map_err(invalid)?)?;
                }
            }
            Payload::ComponentAliasSection(section) => {
                for alias in section {
                    self.take_alias(&alias.map_err(invalid)?)?;
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section {
                    let export = export.map_err(invalid)?;
                    if export.kind == ComponentExternalKind::Component {
                        self.name_again(0, export.index);
                    }
                }
            }
            Payload::ComponentCanonicalSection(section) => {
                self.add(0, section.count().into())?;
            }
            Payload::ComponentTypeSection(section) => {
                self.types = self.types.saturating_add(section.count().into());
                bounded(self.types, MAX_TYPES, "types")?;
            }
            Payload::End(_) => self.close(),
            _ => {}
        }
        Ok(())
    }

    fn take_import(&self, name: &str, ty: ComponentTypeRef) -> Result<(), ModuleRefused> {
        let name_shown = shown(&name);
        match ty {
            ComponentTypeRef::Component(_) | ComponentTypeRef::Module(_) => Err(unsupported(format!(
                "the component imports {name_shown}, which is code"
            ))),
            // What lies within gets its imports from the component around it.
            _ if self.open.len() > 1 => Ok(()),
            ComponentTypeRef::Type(_) => Ok(()),
            ComponentTypeRef::Instance(_) if is_known(name) => Ok(()),
            _ => Err(unsupported(format!(
                "the component imports {name_shown}, which does not exist here"
            ))),
        }
    }

    fn take_instance(&mut self, instance: &ComponentInstance<'_>) -> Result<(), ModuleRefused> {
        let ComponentInstance::Instantiate { component_index, .. } = instance else {
            return Ok(());
        };
        let frame = self.open.last();
        let inside = frame.and_then(|frame| frame.components.get(*component_index as usize));
        let inside = inside.copied().unwrap_or(Cost::BEYOND);
        self.add(inside.instances.saturating_add(1), inside.crossings)
    }

    fn add(&mut self, instances: u64, crossings: u64) -> Result<(), ModuleRefused> {
        let frame = self.open.last_mut();
        frame.map_or(Ok(()), |frame| frame.own.add(instances, crossings))
    }

    fn take_alias(&mut self, alias: &ComponentAlias<'_>) -> Result<(), ModuleRefused> {
        match alias {
            ComponentAlias::Outer {
                kind: ComponentOuterAliasKind::Component,
                count,
                index,
            } => self.name_again(*count, *index),
            ComponentAlias::InstanceExport {
                kind: ComponentExternalKind::Component | ComponentExternalKind::Module,
                name,
                ..
            } => {
                return Err(unsupported(format!(
                    "the component takes {} out of an instance, which is code",
                    shown(name)
                )));
            }
            _ => {}
        }
        Ok(())
    }

    /// A component gets another index.
    fn name_again(&mut self, count: u32, index: u32) {
        let from = self.open.len().checked_sub(1 + count as usize);
        let cost = from.and_then(|at| self.open[at].components.get(index as usize).copied());
        if let Some(frame) = self.open.last_mut() {
            frame.components.push(cost.unwrap_or(Cost::BEYOND));
        }
    }

    fn close(&mut self) {
        let closed = self.open.pop().unwrap_or_default();
        if let Some(around) = self.open.last_mut() {
            around.components.push(closed.own);
        }
    }
}

fn is_known(interface: &str) -> bool {
    wasi::is_known_interface(interface)
        || granted::is_known(interface)
        || messaging::is_known(interface)
        || blobstore::is_known(interface)
}

fn bounded(count: u64, most: u64, what: &str) -> Result<(), ModuleRefused> {
    if count > most {
        return Err(unsupported(format!("the component has more than {most} {what}")));
    }
    Ok(())
}
