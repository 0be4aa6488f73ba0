//! `wasi:blobstore/container`: what can be done with the objects of one container.
//!
//! A handle of a container stays what it was when the container goes: what is then written to it is refused.

use std::sync::Arc;

use wasmtime::component::{LinkerInstance, Resource, ResourceType};
use wasmtime_wasi::WasiView;

use super::value::{self, ContainerMetadata, IncomingValue, ObjectMetadata, OutgoingValue};
use super::{Answer, Guest, MAX_NAMES, brief, check_name, no_object};
use crate::guest::host::GuestState;
use crate::guest::objects::{Found, ObjectFault, Objects};

/// A container that the module is granted, and that was there.
#[derive(Clone)]
pub(super) struct Container {
    pub objects: Arc<dyn Objects>,
    pub name: String,
    /// Its place: what lies before it is not its.
    pub since: u64,
}

/// The names of a container's objects, in the order in which they were written, read so far.
struct Names {
    container: Container,
    last: u64,
    /// Read to know whether there is one, and not given out yet.
    ahead: Option<String>,
}

type Handle = Resource<Container>;
type NamesHandle = Resource<Names>;

pub(super) fn link(interface: &mut LinkerInstance<'_, GuestState>) -> wasmtime::Result<()> {
    interface.resource(
        "container",
        ResourceType::host::<Container>(),
        |mut guest, handle| {
            guest.data_mut().ctx().table.delete(Handle::new_own(handle))?;
            Ok(())
        },
    )?;
    let names = ResourceType::host::<Names>();
    interface.resource("stream-object-names", names, |mut guest, handle| {
        guest
            .data_mut()
            .ctx()
            .table
            .delete(NamesHandle::new_own(handle))?;
        Ok(())
    })?;
    interface.func_wrap(
        "[method]container.name",
        |mut guest: Guest<'_>, (handle,): (Handle,)| {
            let container = guest.data_mut().ctx().table.get(&handle)?;
            Ok((Ok::<_, String>(container.name.clone()),))
        },
    )?;
    interface.func_wrap_async("[method]container.info", |guest, (handle,): (Handle,)| {
        Box::new(waited(guest, handle, info))
    })?;
    data(interface)?;
    objects(interface)?;
    names_of(interface)
}

fn data(interface: &mut LinkerInstance<'_, GuestState>) -> wasmtime::Result<()> {
    interface.func_wrap_async(
        "[method]container.get-data",
        |guest, (handle, name, start, end): (Handle, String, u64, u64)| {
            Box::new(get_data(guest, handle, name, start, end))
        },
    )?;
    interface.func_wrap_async(
        "[method]container.write-data",
        |guest, (handle, name, value): (Handle, String, Resource<OutgoingValue>)| {
            Box::new(write_data(guest, handle, name, value))
        },
    )
}

fn objects(interface: &mut LinkerInstance<'_, GuestState>) -> wasmtime::Result<()> {
    interface.func_wrap_async(
        "[method]container.delete-object",
        |guest, (handle, name): (Handle, String)| {
            Box::new(waited(guest, handle, |container| delete(container, vec![name])))
        },
    )?;
    interface.func_wrap_async(
        "[method]container.delete-objects",
        |guest, (handle, names): (Handle, Vec<String>)| {
            Box::new(waited(guest, handle, |container| delete(container, names)))
        },
    )?;
    interface.func_wrap_async(
        "[method]container.has-object",
        |guest, (handle, name): (Handle, String)| {
            Box::new(waited(guest, handle, |container| has(container, name)))
        },
    )?;
    interface.func_wrap_async(
        "[method]container.object-info",
        |guest, (handle, name): (Handle, String)| {
            Box::new(waited(guest, handle, |container| object_info(container, name)))
        },
    )?;
    interface.func_wrap_async("[method]container.clear", |guest, (handle,): (Handle,)| {
        Box::new(waited(guest, handle, clear))
    })
}

fn names_of(interface: &mut LinkerInstance<'_, GuestState>) -> wasmtime::Result<()> {
    interface.func_wrap(
        "[method]container.list-objects",
        |mut guest: Guest<'_>, (handle,): (Handle,)| {
            let table = guest.data_mut().ctx().table;
            let container = table.get(&handle)?.clone();
            let names = Names {
                last: container.since,
                container,
                ahead: None,
            };
            Ok((Ok::<_, String>(table.push(names)?),))
        },
    )?;
    interface.func_wrap_async(
        "[method]stream-object-names.read-stream-object-names",
        |guest, (names, len): (NamesHandle, u64)| Box::new(read(guest, names, len)),
    )?;
    interface.func_wrap_async(
        "[method]stream-object-names.skip-stream-object-names",
        |guest, (names, num): (NamesHandle, u64)| Box::new(skip(guest, names, num)),
    )
}

/// Does something with a container that the guest holds.
async fn waited<T, F: Future<Output = Result<T, String>>>(
    mut guest: Guest<'_>,
    handle: Handle,
    act: impl FnOnce(Container) -> F,
) -> Answer<T> {
    let act = act(guest.data_mut().ctx().table.get(&handle)?.clone());
    Ok((act.await,))
}

async fn info(container: Container) -> Result<ContainerMetadata, String> {
    let created = container.objects.container(&container.name).await;
    match created.map_err(told)? {
        Some(made) => Ok(ContainerMetadata {
            name: container.name,
            created_at: made.created_s,
        }),
        None => Err(ObjectFault::NoContainer.to_string()),
    }
}

/// What an object is, if it is there.
async fn look(container: &Container, name: &str) -> Result<Option<Found>, String> {
    check_name(name)?;
    let found = container.objects.find(&container.name, name).await;
    Ok(found.map_err(told)?.filter(|found| found.place > container.since))
}

/// What an object is, which must be there.
pub(super) async fn find(container: &Container, name: &str) -> Result<Found, String> {
    look(container, name).await?.ok_or_else(|| no_object(name))
}

async fn get_data(
    mut guest: Guest<'_>,
    handle: Handle,
    name: String,
    start: u64,
    end: u64,
) -> Answer<Resource<IncomingValue>> {
    let container = guest.data_mut().ctx().table.get(&handle)?.clone();
    if start > end {
        let why = format!("the range ends at {end}, before it begins at {start}");
        return Ok((Err(why),));
    }
    let found = match find(&container, &name).await {
        Ok(found) => found,
        Err(why) => return Ok((Err(why),)),
    };
    // The end is the last byte that is asked for; what lies behind the object's own end is not there to be given.
    let size = found.written.size;
    let value = IncomingValue {
        objects: container.objects,
        found,
        range: start.min(size)..end.saturating_add(1).min(size),
    };
    Ok((Ok(guest.data_mut().ctx().table.push(value)?),))
}

async fn write_data(
    mut guest: Guest<'_>,
    handle: Handle,
    name: String,
    value: Resource<OutgoingValue>,
) -> Answer<()> {
    let container = guest.data_mut().ctx().table.get(&handle)?.clone();
    match check_name(&name) {
        Ok(()) => value::write(guest, container.objects, container.name, name, value).await,
        Err(why) => Ok((Err(why),)),
    }
}

async fn delete(container: Container, names: Vec<String>) -> Result<(), String> {
    if names.len() > MAX_NAMES {
        let count = names.len();
        return Err(format!(
            "at most {MAX_NAMES} objects are deleted at once, not {count}"
        ));
    }
    names.iter().try_for_each(|name| check_name(name))?;
    for name in names {
        let deleted = container.objects.delete(&container.name, &name, None);
        deleted.await.map_err(told)?;
    }
    Ok(())
}

async fn has(container: Container, name: String) -> Result<bool, String> {
    Ok(look(&container, &name).await?.is_some())
}

async fn object_info(container: Container, name: String) -> Result<ObjectMetadata, String> {
    let found = find(&container, &name).await?;
    Ok(ObjectMetadata {
        name,
        container: container.name,
        created_at: found.created_s,
        size: found.written.size,
    })
}

/// Deletes what there is, whatever is written meanwhile.
async fn clear(container: Container) -> Result<(), String> {
    delete_all(&container.objects, &container.name)
        .await
        .map_err(told)
}

/// Deletes all that is in a container, and what is left of an earlier one.
async fn delete_all(objects: &Arc<dyn Objects>, container: &str) -> Result<(), ObjectFault> {
    let mut last = 0;
    while let Some((place, name)) = objects.next(container, last).await? {
        objects.delete(container, &name, None).await?;
        last = place;
    }
    Ok(())
}

/// Deletes, at most so many, objects of containers that are no more: nobody is shown them anyway.
pub(super) async fn sweep(
    objects: &Arc<dyn Objects>,
    container: &str,
    most: usize,
) -> Result<(), ObjectFault> {
    let mut last = 0;
    for _ in 0..most {
        let Some((place, name)) = objects.next(container, last).await? else {
            break;
        };
        // Asked each time: somebody may make the container again meanwhile.
        let since = objects.container(container).await?.map(|made| made.place);
        let is_left = |place: u64| since.is_none_or(|since| place < since);
        if !is_left(place) {
            break;
        }
        match objects.find(container, &name).await {
            // One that is written anew meanwhile has another upload.
            Ok(Some(found)) if is_left(found.place) => {
                let only = Some(&found.written.upload);
                objects.delete(container, &name, only).await?;
            }
            // What cannot be read hides nothing that lies behind it.
            Ok(_) | Err(ObjectFault::Damaged) => {}
            Err(fault) => return Err(fault),
        }
        last = place;
    }
    Ok(())
}

impl Names {
    async fn next(&mut self) -> Result<Option<String>, String> {
        if let Some(ahead) = self.ahead.take() {
            return Ok(Some(ahead));
        }
        let next = self.container.objects.next(&self.container.name, self.last).await;
        Ok(next.map_err(told)?.map(|(place, name)| {
            self.last = place;
            name
        }))
    }

    async fn is_at_end(&mut self) -> Result<bool, String> {
        self.ahead = self.next().await?;
        Ok(self.ahead.is_none())
    }

    async fn read(&mut self, most: usize) -> Result<(Vec<String>, bool), String> {
        let mut names = Vec::new();
        while names.len() < most {
            match self.next().await? {
                Some(name) => names.push(name),
                None => return Ok((names, true)),
            }
        }
        Ok((names, self.is_at_end().await?))
    }

    async fn skip(&mut self, most: u64) -> Result<(u64, bool), String> {
        let mut skipped = 0;
        while skipped < most {
            match self.next().await? {
                Some(_) => skipped += 1,
                None => return Ok((skipped, true)),
            }
        }
        Ok((skipped, self.is_at_end().await?))
    }
}

async fn read(mut guest: Guest<'_>, names: NamesHandle, len: u64) -> Answer<(Vec<String>, bool)> {
    let names = guest.data_mut().ctx().table.get_mut(&names)?;
    let most = usize::try_from(len).unwrap_or(MAX_NAMES).min(MAX_NAMES);
    Ok((names.read(most).await,))
}

async fn skip(mut guest: Guest<'_>, names: NamesHandle, num: u64) -> Answer<(u64, bool)> {
    let names = guest.data_mut().ctx().table.get_mut(&names)?;
    Ok((names.skip(num).await,))
}

pub(super) fn told(fault: ObjectFault) -> String {
    fault.to_string()
}

/// A container that is there, of those that are granted.
pub(super) async fn open(objects: Arc<dyn Objects>, name: String) -> Result<Container, String> {
    match objects.container(&name).await.map_err(told)? {
        Some(made) => Ok(Container {
            objects,
            name,
            since: made.place,
        }),
        None => Err(format!("there is no container {}: make it first", brief(&name))),
    }
}
