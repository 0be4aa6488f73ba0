//! `wasi:messaging` for components, its producer's half: messages that a guest makes, and sends to granted subjects.
//!
//! Refuses what a NATS server would take for its own, and more than a message may be. Invariant: all messages that one run
//! holds fit into [`MAX_HELD_BYTES`].

use std::sync::Arc;

use bytes::Bytes;
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker, LinkerInstance, Lower, Resource, ResourceType};
use wasmtime_wasi::WasiView;
use wess_schemas::settings::MAX_GRANT_BYTES;

use crate::guest::host::{GuestState, HostFault, StateError};

const TYPES: &str = "wasi:messaging/types@0.2.0-draft";
const PRODUCER: &str = "wasi:messaging/producer@0.2.0-draft";
/// Most bytes of one message, metadata included: what a NATS server with default settings takes.
pub(in crate::guest) const MAX_MESSAGE_BYTES: usize = 1 << 20;
/// Most entries of one message's metadata, and most bytes in them.
pub(in crate::guest) const MAX_METADATA: usize = 64;
pub(in crate::guest) const MAX_METADATA_BYTES: usize = 8 << 10;
/// Most bytes in all messages that a run holds: they are the host's memory, not the guest's.
pub(in crate::guest) const MAX_HELD_BYTES: usize = 8 << 20;
/// What a content type is called among the headers.
const CONTENT_TYPE: &str = "Content-Type";
/// What names of headers begin with that a NATS server acts on, or a worker believes.
const RESERVED: &[&str] = &["nats-", "wess-"];

/// Whether components are given this interface.
pub(super) fn is_known(name: &str) -> bool {
    [TYPES, PRODUCER].contains(&name)
}

/// Defines them.
pub(super) fn link(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    types(&mut linker.instance(TYPES)?)?;
    linker.instance(PRODUCER)?.func_wrap_async(
        "send",
        |guest, (client, topic, message): (Resource<Client>, String, Resource<Message>)| {
            Box::new(send(guest, client, topic, message))
        },
    )
}

type Guest<'a> = StoreContextMut<'a, GuestState>;
type Metadata = Vec<(String, String)>;

#[derive(ComponentType, Lift, Lower, Debug)]
#[component(variant)]
enum MessagingError {
    /// Sending waits for nobody, so that this never comes to be.
    #[component(name = "timeout")]
    Timeout,
    #[component(name = "connection")]
    Connection(String),
    #[component(name = "permission-denied")]
    PermissionDenied(String),
    #[component(name = "other")]
    Other(String),
}

/// A guest's way to the broker; all lead to the worker's own connection.
struct Client {
    is_connected: bool,
}

/// A message that is not sent yet.
#[derive(Default)]
struct Message {
    data: Vec<u8>,
    content_type: Option<String>,
    metadata: Option<Metadata>,
}

impl Message {
    fn bytes(&self) -> usize {
        self.data.len() + self.content_type.as_ref().map_or(0, String::len) + self.metadata_bytes()
    }

    fn metadata_bytes(&self) -> usize {
        let entries = self.metadata.iter().flatten();
        entries.map(|(key, value)| key.len() + value.len()).sum()
    }

    fn check(&self) -> Result<(), HostFault> {
        let (entries, bytes) = (self.metadata.as_ref().map_or(0, Vec::len), self.metadata_bytes());
        if entries > MAX_METADATA {
            let (what, most) = ("entries of a message's metadata", MAX_METADATA);
            return Err(HostFault::TooMany { what, most });
        }
        within("a message's metadata", bytes, MAX_METADATA_BYTES)
    }

    /// What goes before the data.
    fn headers(&mut self) -> Result<Metadata, MessagingError> {
        let mut headers = self.metadata.take().unwrap_or_default();
        for (name, value) in &headers {
            check_header(name, value)?;
            if self.content_type.is_some() && name.eq_ignore_ascii_case(CONTENT_TYPE) {
                return Err(other("the content type stands in the metadata, too"));
            }
        }
        if let Some(content_type) = self.content_type.take() {
            check_header(CONTENT_TYPE, &content_type)?;
            headers.push((CONTENT_TYPE.to_owned(), content_type));
        }
        Ok(headers)
    }
}

fn within(what: &'static str, bytes: usize, most: usize) -> Result<(), HostFault> {
    match bytes <= most {
        true => Ok(()),
        false => Err(HostFault::StateTooLarge { what, bytes, most }),
    }
}

fn check_header(name: &str, value: &str) -> Result<(), MessagingError> {
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
    if !is_name || value.contains(|c: char| c.is_control() && c != '\t') {
        let shown: String = name.chars().take(80).collect();
        return Err(other(format!("metadata {shown:?} cannot be a header")));
    }
    let begins = |prefix: &&str| {
        let start = name.as_bytes().get(..prefix.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
    };
    match RESERVED.iter().any(begins) {
        true => Err(denied(format!(
            "metadata {name} would be taken for the server's own"
        ))),
        false => Ok(()),
    }
}

fn other(why: impl Into<String>) -> MessagingError {
    MessagingError::Other(why.into())
}

fn denied(why: impl Into<String>) -> MessagingError {
    MessagingError::PermissionDenied(why.into())
}

fn types(interface: &mut LinkerInstance<'_, GuestState>) -> wasmtime::Result<()> {
    interface.resource("client", ResourceType::host::<Client>(), |mut guest, handle| {
        let table = guest.data_mut().ctx().table;
        table.delete(Resource::<Client>::new_own(handle))?;
        Ok(())
    })?;
    interface.func_wrap("[static]client.connect", |guest: Guest<'_>, (_,): (String,)| {
        Ok((connect(guest)?,))
    })?;
    interface.func_wrap(
        "[method]client.disconnect",
        |mut guest: Guest<'_>, (client,): (Resource<Client>,)| {
            let table = guest.data_mut().ctx().table;
            table.get_mut(&client)?.is_connected = false;
            Ok((Ok::<(), MessagingError>(()),))
        },
    )?;
    interface.resource("message", ResourceType::host::<Message>(), |mut guest, handle| {
        take(&mut guest, Resource::new_own(handle)).map(drop)
    })?;
    interface.func_wrap(
        "[constructor]message",
        |mut guest: Guest<'_>, (data,): (Vec<u8>,)| {
            let message = guest.data_mut().ctx().table.push(Message::default())?;
            change(&mut guest, &message, |message| message.data = data)?;
            Ok((message,))
        },
    )?;
    parts(interface)?;
    metadata(interface)
}

fn parts(interface: &mut LinkerInstance<'_, GuestState>) -> wasmtime::Result<()> {
    interface.func_wrap(
        "[method]message.topic",
        |mut guest: Guest<'_>, (message,): (Resource<Message>,)| {
            guest.data_mut().ctx().table.get(&message)?;
            // Only a message that was received has come on one.
            Ok((None::<String>,))
        },
    )?;
    interface.func_wrap(
        "[method]message.content-type",
        |mut guest: Guest<'_>, (message,): (Resource<Message>,)| {
            Ok((guest.data_mut().ctx().table.get(&message)?.content_type.clone(),))
        },
    )?;
    interface.func_wrap(
        "[method]message.set-content-type",
        |mut guest: Guest<'_>, (message, content_type): (Resource<Message>, String)| {
            change(&mut guest, &message, |message| {
                message.content_type = Some(content_type);
            })
        },
    )?;
    interface.func_wrap(
        "[method]message.data",
        |mut guest: Guest<'_>, (message,): (Resource<Message>,)| {
            Ok((guest.data_mut().ctx().table.get(&message)?.data.clone(),))
        },
    )?;
    interface.func_wrap(
        "[method]message.set-data",
        |mut guest: Guest<'_>, (message, data): (Resource<Message>, Vec<u8>)| {
            change(&mut guest, &message, |message| message.data = data)
        },
    )
}

fn metadata(interface: &mut LinkerInstance<'_, GuestState>) -> wasmtime::Result<()> {
    interface.func_wrap(
        "[method]message.metadata",
        |mut guest: Guest<'_>, (message,): (Resource<Message>,)| {
            Ok((guest.data_mut().ctx().table.get(&message)?.metadata.clone(),))
        },
    )?;
    interface.func_wrap(
        "[method]message.add-metadata",
        |mut guest: Guest<'_>, (message, key, value): (Resource<Message>, String, String)| {
            change(&mut guest, &message, |message| {
                let entries = message.metadata.get_or_insert_default();
                entries.retain(|(there, _)| *there != key);
                entries.push((key, value));
            })
        },
    )?;
    interface.func_wrap(
        "[method]message.set-metadata",
        |mut guest: Guest<'_>, (message, metadata): (Resource<Message>, Metadata)| {
            change(&mut guest, &message, |message| message.metadata = Some(metadata))
        },
    )?;
    interface.func_wrap(
        "[method]message.remove-metadata",
        |mut guest: Guest<'_>, (message, key): (Resource<Message>, String)| {
            change(&mut guest, &message, |message| {
                let entries = message.metadata.iter_mut();
                entries.for_each(|entries| entries.retain(|(there, _)| *there != key));
            })
        },
    )
}

fn connect(mut guest: Guest<'_>) -> wasmtime::Result<Result<Resource<Client>, MessagingError>> {
    if guest.data().host().settings().grants.publish.is_empty() {
        return Ok(Err(denied("the module is granted no subject to publish to")));
    }
    let client = Client { is_connected: true };
    Ok(Ok(guest.data_mut().ctx().table.push(client)?))
}

/// Changes a message; one that then is more than a run may hold ends the run.
fn change(
    guest: &mut Guest<'_>,
    message: &Resource<Message>,
    act: impl FnOnce(&mut Message),
) -> wasmtime::Result<()> {
    let state = guest.data_mut();
    let message = state.ctx().table.get_mut(message)?;
    let before = message.bytes();
    act(message);
    message.check()?;
    let after = message.bytes();
    state.messages_bytes = state.messages_bytes - before + after;
    within(
        "what a guest holds in messages",
        state.messages_bytes,
        MAX_HELD_BYTES,
    )?;
    Ok(())
}

/// Takes a message out of the guest's hands.
fn take(guest: &mut Guest<'_>, message: Resource<Message>) -> wasmtime::Result<Message> {
    let state = guest.data_mut();
    let message = state.ctx().table.delete(message)?;
    state.messages_bytes -= message.bytes();
    Ok(message)
}

async fn send(
    mut guest: Guest<'_>,
    client: Resource<Client>,
    topic: String,
    message: Resource<Message>,
) -> wasmtime::Result<(Result<(), MessagingError>,)> {
    let mut message = take(&mut guest, message)?;
    let is_connected = guest.data_mut().ctx().table.get(&client)?.is_connected;
    let sent = match is_connected {
        true => publish(guest, &topic, &mut message).await,
        false => Err(MessagingError::Connection("the client has disconnected".into())),
    };
    Ok((sent,))
}

async fn publish(guest: Guest<'_>, topic: &str, message: &mut Message) -> Result<(), MessagingError> {
    if topic.len() > MAX_GRANT_BYTES {
        return Err(other(format!("a topic has at most {MAX_GRANT_BYTES} bytes")));
    }
    let bytes = message.bytes();
    if bytes > MAX_MESSAGE_BYTES {
        let text = format!("a message has at most {MAX_MESSAGE_BYTES} bytes with its metadata, not {bytes}");
        return Err(other(text));
    }
    let (headers, data) = (message.headers()?, std::mem::take(&mut message.data));
    let host = Arc::clone(&guest.data().host());
    match host.publish(topic, &headers, Bytes::from(data)).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(denied("the module is not granted this topic")),
        Err(error @ StateError::MessageTooLarge) => Err(other(error.to_string())),
        Err(_) => Err(MessagingError::Connection("NATS is unavailable".into())),
    }
}
