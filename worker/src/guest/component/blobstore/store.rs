//! `wasi:blobstore/blobstore`: containers, and objects that go from one to another.

use std::sync::Arc;

use wasmtime::component::{LinkerInstance, Resource};
use wasmtime_wasi::WasiView;

use super::body::{Reading, Writing};
use super::container::{Container, find, open, sweep, told};
use super::value::ObjectId;
use super::{Allowance, Answer, Guest, MAX_NAMES, check_name, granted};
use crate::guest::host::GuestState;
use crate::guest::objects::{Found, ObjectFault, Objects};

pub(super) fn link(interface: &mut LinkerInstance<'_, GuestState>) -> wasmtime::Result<()> {
    interface.func_wrap_async("create-container", |guest, (name,): (String,)| {
        Box::new(held(guest, name, create))
    })?;
    interface.func_wrap_async("get-container", |guest, (name,): (String,)| {
        Box::new(held(guest, name, open))
    })?;
    interface.func_wrap_async("delete-container", |guest, (name,): (String,)| {
        Box::new(waited(guest, name, delete))
    })?;
    interface.func_wrap_async("container-exists", |guest, (name,): (String,)| {
        Box::new(waited(guest, name, exists))
    })?;
    interface.func_wrap_async("copy-object", |guest, (source, target): (ObjectId, ObjectId)| {
        Box::new(transfer(guest, source, target, false))
    })?;
    interface.func_wrap_async("move-object", |guest, (source, target): (ObjectId, ObjectId)| {
        Box::new(transfer(guest, source, target, true))
    })
}

/// Does something with a container that the module is granted.
async fn waited<T, F: Future<Output = Result<T, String>>>(
    guest: Guest<'_>,
    name: String,
    act: impl FnOnce(Arc<dyn Objects>, String) -> F,
) -> Answer<T> {
    Ok((match granted(&guest, &name) {
        Ok(objects) => act(objects, name).await,
        Err(why) => Err(why),
    },))
}

/// The same for what the guest then holds.
async fn held<F: Future<Output = Result<Container, String>>>(
    mut guest: Guest<'_>,
    name: String,
    act: impl FnOnce(Arc<dyn Objects>, String) -> F,
) -> Answer<Resource<Container>> {
    let container = match granted(&guest, &name) {
        Ok(objects) => act(objects, name).await,
        Err(why) => Err(why),
    };
    Ok((match container {
        Ok(container) => Ok(guest.data_mut().ctx().table.push(container)?),
        Err(why) => Err(why),
    },))
}

/// Objects that are swept away where a container is there already.
const FEW_NAMES: usize = 16;

async fn create(objects: Arc<dyn Objects>, name: String) -> Result<Container, String> {
    let is_new = objects.container(&name).await.map_err(told)?.is_none();
    let since = objects.create_container(&name).await.map_err(told)?;
    // Whoever makes sure at each run that its container is there shall not wait for others' leavings.
    let most = if is_new { MAX_NAMES } else { FEW_NAMES };
    if let Err(fault) = sweep(&objects, &name, most).await {
        tracing::debug!(%fault, "what is left of a container that was deleted stays");
    }
    Ok(Container { objects, name, since })
}

async fn delete(objects: Arc<dyn Objects>, name: String) -> Result<(), String> {
    // First the container: nothing is then written to it any more, and what is in it is nobody's, however this ends.
    objects.delete_container(&name).await.map_err(told)?;
    sweep(&objects, &name, usize::MAX).await.map_err(told)
}

async fn exists(objects: Arc<dyn Objects>, name: String) -> Result<bool, String> {
    Ok(objects.container(&name).await.map_err(told)?.is_some())
}

async fn transfer(guest: Guest<'_>, source: ObjectId, target: ObjectId, is_move: bool) -> Answer<()> {
    let may = granted(&guest, &source.container).and_then(|_| granted(&guest, &target.container));
    let allowance = Arc::clone(&guest.data().blobs);
    let done = async {
        let objects = may?;
        check_name(&source.object)?;
        check_name(&target.object)?;
        let from = open(Arc::clone(&objects), source.container.clone()).await?;
        let found = find(&from, &source.object).await?;
        if source == target {
            return Ok(());
        }
        copy(&objects, &allowance, &found, &target).await?;
        if !is_move {
            return Ok(());
        }
        // Whoever looks meanwhile finds both, and never neither; an object that was written meanwhile is another one.
        let only = Some(&found.written.upload);
        let deleted = objects.delete(&source.container, &source.object, only);
        deleted.await.map_err(told)
    };
    Ok((done.await,))
}

/// Reads an object and writes it anew, chunk by chunk.
async fn copy(
    objects: &Arc<dyn Objects>,
    allowance: &Arc<Allowance>,
    found: &Found,
    target: &ObjectId,
) -> Result<(), String> {
    if objects
        .container(&target.container)
        .await
        .map_err(told)?
        .is_none()
    {
        return Err(ObjectFault::NoContainer.to_string());
    }
    let mut writing = Writing::new(Arc::clone(objects), allowance)?;
    let mut reading = Reading::new(Arc::clone(objects), found.clone(), 0..found.written.size, None);
    while let Some(part) = reading.next().await? {
        writing.write(part).await?;
    }
    writing.finish(&target.container, &target.object).await
}
