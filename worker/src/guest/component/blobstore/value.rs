//! `wasi:blobstore/types`: values on their way into objects and out of them.
//!
//! A value becomes an object when it has both a name and an end: the last of `write-data`, with its body closed, and `finish`.

use std::ops::Range;
use std::sync::Arc;

use wasmtime::component::{ComponentType, Lift, LinkerInstance, Lower, Resource, ResourceType};
use wasmtime_wasi::WasiView;
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream};

use super::body::{Body, Reading, Writing};
use super::{Answer, Guest, MAX_WHOLE_BYTES};
use crate::guest::host::GuestState;
use crate::guest::objects::{Found, Objects};

#[derive(ComponentType, Lift, Lower, Debug)]
#[component(record)]
pub(super) struct ContainerMetadata {
    #[component(name = "name")]
    pub name: String,
    /// In seconds since 1970.
    #[component(name = "created-at")]
    pub created_at: u64,
}

#[derive(ComponentType, Lift, Lower, Debug)]
#[component(record)]
pub(super) struct ObjectMetadata {
    #[component(name = "name")]
    pub name: String,
    #[component(name = "container")]
    pub container: String,
    /// In seconds since 1970.
    #[component(name = "created-at")]
    pub created_at: u64,
    #[component(name = "size")]
    pub size: u64,
}

#[derive(ComponentType, Lift, Lower, Debug, PartialEq, Eq)]
#[component(record)]
pub(super) struct ObjectId {
    #[component(name = "container")]
    pub container: String,
    #[component(name = "object")]
    pub object: String,
}

/// Where a value is to be an object.
struct Target {
    objects: Arc<dyn Objects>,
    container: String,
    name: String,
}

/// What a guest makes an object of.
#[derive(Default)]
pub(super) struct OutgoingValue {
    body: Option<Body>,
    target: Option<Target>,
    /// Its body was given out: there is no second one.
    has_stream: bool,
    stored: Option<Result<(), String>>,
}

/// A range of an object as it was when the guest asked for it.
pub(super) struct IncomingValue {
    pub objects: Arc<dyn Objects>,
    pub found: Found,
    pub range: Range<u64>,
}

pub(super) fn link(interface: &mut LinkerInstance<'_, GuestState>) -> wasmtime::Result<()> {
    let outgoing = ResourceType::host::<OutgoingValue>();
    interface.resource("outgoing-value", outgoing, |mut guest, handle| {
        let table = guest.data_mut().ctx().table;
        table.delete(Resource::<OutgoingValue>::new_own(handle))?;
        Ok(())
    })?;
    let incoming = ResourceType::host::<IncomingValue>();
    interface.resource("incoming-value", incoming, |mut guest, handle| {
        take(&mut guest, Resource::new_own(handle)).map(drop)
    })?;
    outgoing_value(interface)?;
    incoming_value(interface)
}

fn outgoing_value(interface: &mut LinkerInstance<'_, GuestState>) -> wasmtime::Result<()> {
    interface.func_wrap(
        "[static]outgoing-value.new-outgoing-value",
        |mut guest: Guest<'_>, (): ()| {
            let value = guest.data_mut().ctx().table.push(OutgoingValue::default())?;
            Ok((value,))
        },
    )?;
    interface.func_wrap(
        "[method]outgoing-value.outgoing-value-write-body",
        |mut guest: Guest<'_>, (value,): (Resource<OutgoingValue>,)| Ok((open(&mut guest, value)?,)),
    )?;
    interface.func_wrap_async(
        "[static]outgoing-value.finish",
        |guest, (value,): (Resource<OutgoingValue>,)| Box::new(finish(guest, value)),
    )
}

fn incoming_value(interface: &mut LinkerInstance<'_, GuestState>) -> wasmtime::Result<()> {
    interface.func_wrap_async(
        "[static]incoming-value.incoming-value-consume-sync",
        |guest, (value,): (Resource<IncomingValue>,)| Box::new(consume_whole(guest, value)),
    )?;
    interface.func_wrap(
        "[static]incoming-value.incoming-value-consume-async",
        |mut guest: Guest<'_>, (value,): (Resource<IncomingValue>,)| consume(&mut guest, value),
    )?;
    interface.func_wrap(
        "[method]incoming-value.size",
        |mut guest: Guest<'_>, (value,): (Resource<IncomingValue>,)| {
            let range = &guest.data_mut().ctx().table.get(&value)?.range;
            Ok((range.end - range.start,))
        },
    )
}

/// The stream of a value's body, which the value does not outlive. The interface has no words for why there is none.
fn open(
    guest: &mut Guest<'_>,
    value: Resource<OutgoingValue>,
) -> wasmtime::Result<Result<Resource<DynOutputStream>, ()>> {
    let state = guest.data_mut();
    let host = state.host();
    // Whoever may not use any container writes nothing anywhere.
    let objects = host
        .objects()
        .filter(|_| !host.settings().grants.blobstore.is_empty());
    let allowance = Arc::clone(&state.blobs);
    let table = state.ctx().table;
    let entry = table.get_mut(&value)?;
    let writing = objects.and_then(|objects| Writing::new(objects, &allowance).ok());
    let (Some(writing), false) = (writing, entry.has_stream) else {
        return Ok(Err(()));
    };
    let body = Body::new(writing);
    entry.has_stream = true;
    entry.body = Some(body.clone());
    let stream: DynOutputStream = Box::new(body);
    Ok(Ok(table.push_child(stream, &value)?))
}

/// Gives a value its name; one whose body is closed is an object with that.
pub(super) async fn write(
    mut guest: Guest<'_>,
    objects: Arc<dyn Objects>,
    container: String,
    name: String,
    value: Resource<OutgoingValue>,
) -> Answer<()> {
    let entry = guest.data_mut().ctx().table.get_mut(&value)?;
    if entry.target.is_some() {
        return Ok((Err("the value was written to an object before".into()),));
    }
    entry.target = Some(Target {
        objects,
        container: container.clone(),
        name: name.clone(),
    });
    let written = match entry.body.take().map(Body::close) {
        Some(Ok(written)) => written,
        Some(Err(open)) => {
            entry.body = Some(open);
            return Ok((Ok(()),));
        }
        None => return Ok((Ok(()),)),
    };
    let stored = written.finish(&container, &name).await;
    guest.data_mut().ctx().table.get_mut(&value)?.stored = Some(stored.clone());
    Ok((stored,))
}

/// Ends a value whose stream is dropped; another one ends the run, as the interface has it.
async fn finish(mut guest: Guest<'_>, value: Resource<OutgoingValue>) -> Answer<()> {
    let state = guest.data_mut();
    let allowance = Arc::clone(&state.blobs);
    let value = state.ctx().table.delete(value)?;
    if let Some(stored) = value.stored {
        return Ok((stored,));
    }
    let Some(target) = value.target else {
        return Ok((Err("the value was written to no object".into()),));
    };
    let writing = match value.body.map(Body::close) {
        Some(Ok(writing)) => Ok(writing),
        Some(Err(_)) => Err("the value's body is still open".into()),
        // An object of no bytes.
        None => Writing::new(target.objects, &allowance),
    };
    Ok((match writing {
        Ok(writing) => writing.finish(&target.container, &target.name).await,
        Err(why) => Err(why),
    },))
}

fn take(guest: &mut Guest<'_>, value: Resource<IncomingValue>) -> wasmtime::Result<IncomingValue> {
    Ok(guest.data_mut().ctx().table.delete(value)?)
}

async fn consume_whole(mut guest: Guest<'_>, value: Resource<IncomingValue>) -> Answer<Vec<u8>> {
    let value = take(&mut guest, value)?;
    let size = value.range.end - value.range.start;
    if size > MAX_WHOLE_BYTES {
        let why =
            format!("at most {MAX_WHOLE_BYTES} bytes are read as a whole, not {size}: read them as a stream");
        return Ok((Err(why),));
    }
    let mut reading = Reading::new(value.objects, value.found, value.range, None);
    let mut bytes = Vec::with_capacity(size as usize);
    loop {
        match reading.next().await {
            Ok(Some(part)) => bytes.extend_from_slice(&part),
            Ok(None) => return Ok((Ok(bytes),)),
            Err(why) => return Ok((Err(why),)),
        }
    }
}

fn consume(guest: &mut Guest<'_>, value: Resource<IncomingValue>) -> Answer<Resource<DynInputStream>> {
    let value = take(guest, value)?;
    let place = match guest.data().blobs.take_place() {
        Ok(place) => place,
        Err(why) => return Ok((Err(why),)),
    };
    let stream: DynInputStream = Box::new(Reading::new(value.objects, value.found, value.range, Some(place)));
    Ok((Ok(guest.data_mut().ctx().table.push(stream)?),))
}
