//! `wasi:blobstore` for components: the containers that their module is granted, and the objects in them.
//!
//! Invariant: one run keeps at most [`MAX_BODIES`] bodies open, of two chunks each, and takes at most one object as a whole at
//! a time, of at most [`MAX_WHOLE_BYTES`].

mod body;
mod container;
mod store;
mod value;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use wasmtime::StoreContextMut;
use wasmtime::component::Linker;

use crate::guest::host::GuestState;
use crate::guest::objects::{MAX_OBJECT_NAME_BYTES, Objects};

const TYPES: &str = "wasi:blobstore/types@0.2.0-draft";
const CONTAINER: &str = "wasi:blobstore/container@0.2.0-draft";
const STORE: &str = "wasi:blobstore/blobstore@0.2.0-draft";
/// Most bodies that a run writes and reads at once: each is two chunks of the host's memory.
pub(in crate::guest) const MAX_BODIES: usize = 8;
/// Most bytes that a run writes into objects, copies included.
pub(in crate::guest) const MAX_WRITTEN_BYTES: u64 = 256 << 20;
/// Most bytes that are given to a guest as one list. More is to be read as a stream.
pub(in crate::guest) const MAX_WHOLE_BYTES: u64 = 8 << 20;
/// Most names that are given to a guest at once, or taken from it.
pub(in crate::guest) const MAX_NAMES: usize = 1000;

/// Whether components are given this interface.
pub(super) fn is_known(name: &str) -> bool {
    [TYPES, CONTAINER, STORE].contains(&name)
}

/// Defines them.
pub(super) fn link(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    value::link(&mut linker.instance(TYPES)?)?;
    container::link(&mut linker.instance(CONTAINER)?)?;
    store::link(&mut linker.instance(STORE)?)
}

type Guest<'a> = StoreContextMut<'a, GuestState>;
/// The interface's errors are text.
type Answer<T> = wasmtime::Result<(Result<T, String>,)>;

/// What one run has done and has open.
#[derive(Default)]
pub(in crate::guest) struct Allowance {
    bodies: AtomicUsize,
    written_bytes: AtomicU64,
}

/// Room for one body.
struct Place(Arc<Allowance>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.bodies.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Allowance {
    fn take_place(self: &Arc<Self>) -> Result<Place, String> {
        let place = Place(Arc::clone(self));
        match self.bodies.fetch_add(1, Ordering::Relaxed) < MAX_BODIES {
            true => Ok(place),
            false => Err(format!("a run keeps at most {MAX_BODIES} bodies open")),
        }
    }

    /// Counts what is about to be written.
    fn write(&self, bytes: usize) -> Result<(), String> {
        let bytes = bytes as u64;
        match self.written_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes <= MAX_WRITTEN_BYTES {
            true => Ok(()),
            false => Err(format!(
                "a run writes at most {MAX_WRITTEN_BYTES} bytes into objects"
            )),
        }
    }
}

/// The module's objects, if it may use this container.
fn granted(guest: &Guest<'_>, container: &str) -> Result<Arc<dyn Objects>, String> {
    let host = guest.data().host();
    let refused = || format!("the module is not granted the container {}", brief(container));
    match host.settings().grants.blobstore.contains(container) {
        true => host.objects().ok_or_else(refused),
        false => Err(refused()),
    }
}

fn check_name(name: &str) -> Result<(), String> {
    match name.len() {
        1..=MAX_OBJECT_NAME_BYTES => Ok(()),
        bytes => Err(format!(
            "an object's name has 1 to {MAX_OBJECT_NAME_BYTES} bytes, not {bytes}"
        )),
    }
}

fn no_object(name: &str) -> String {
    format!("there is no object {}", brief(name))
}

/// So much of a name as a message can bear.
fn brief(name: &str) -> String {
    let start: String = name.chars().take(80).collect();
    format!("{start:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_writes_no_more_than_it_may() {
        let allowance = Allowance::default();
        assert_eq!(allowance.write(MAX_WRITTEN_BYTES as usize - 1), Ok(()));
        assert_eq!(allowance.write(1), Ok(()));
        assert!(
            allowance
                .write(1)
                .unwrap_err()
                .contains("at most 268435456 bytes")
        );
    }

    #[test]
    fn a_place_is_free_again_when_its_body_goes() {
        let allowance = Arc::new(Allowance::default());
        let mut places: Vec<_> = (0..MAX_BODIES)
            .map(|_| allowance.take_place().unwrap_or_else(|why| panic!("{why}")))
            .collect();
        for _ in 0..2 {
            assert!(allowance.take_place().is_err());
        }
        places.pop();
        assert!(allowance.take_place().is_ok());
    }
}
