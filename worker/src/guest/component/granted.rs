//! Interfaces beside WASI's own that components may import: `wasi:config`, `wasi:logging` and `wasi:keyvalue`, each in the
//! drafts that toolchains use today.
//!
//! What a module's settings do not grant is refused where it is asked for, in the interface's own words.

use std::sync::Arc;

use bytes::Bytes;
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker, LinkerInstance, Lower, Resource, ResourceType};
use wasmtime_wasi::WasiView;

use crate::guest::host::{GuestState, Host, MAX_STATE_KEY_BYTES, MAX_STATE_VALUE_BYTES, StateError};
use crate::guest::log::LogStream;

const CONFIG: &[&str] = &["wasi:config/store@0.2.0-rc.1", "wasi:config/runtime@0.2.0-draft"];
const LOGGING: &[&str] = &["wasi:logging/logging", "wasi:logging/logging@0.1.0-draft"];
const STORE: &str = "wasi:keyvalue/store@0.2.0-draft";
const ATOMICS: &str = "wasi:keyvalue/atomics@0.2.0-draft";
const BATCH: &str = "wasi:keyvalue/batch@0.2.0-draft";
/// Most keys of one batch.
pub(in crate::guest) const MAX_BATCH: usize = 128;
/// Most bytes of the values that one batch gives back: each may be as large as a value may be, and all are held at once.
pub(in crate::guest) const MAX_BATCH_BYTES: usize = 8 << 20;
/// Keys in one page of a listing.
pub(in crate::guest) const PAGE: usize = 1000;

/// Whether components are given this interface.
pub(super) fn is_known(name: &str) -> bool {
    CONFIG.contains(&name) || LOGGING.contains(&name) || [STORE, ATOMICS, BATCH].contains(&name)
}

/// Defines them.
pub(super) fn link(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    for name in CONFIG {
        config(&mut linker.instance(name)?)?;
    }
    for name in LOGGING {
        logging(&mut linker.instance(name)?)?;
    }
    store(&mut linker.instance(STORE)?)?;
    atomics(&mut linker.instance(ATOMICS)?)?;
    batch(&mut linker.instance(BATCH)?)
}

type Guest<'a> = StoreContextMut<'a, GuestState>;

#[derive(ComponentType, Lift, Lower, Debug)]
#[component(variant)]
enum ConfigError {
    #[component(name = "upstream")]
    Upstream(String),
    #[component(name = "io")]
    Io(String),
}

fn config(interface: &mut LinkerInstance<'_, GuestState>) -> wasmtime::Result<()> {
    interface.func_wrap("get", |guest: Guest<'_>, (key,): (String,)| {
        let value = guest.data().host().settings().config.get(&key).cloned();
        Ok((Ok::<_, ConfigError>(value),))
    })?;
    interface.func_wrap("get-all", |guest: Guest<'_>, (): ()| {
        let config = guest.data().host().settings().config.clone();
        Ok((Ok::<_, ConfigError>(config.into_iter().collect::<Vec<_>>()),))
    })
}

#[derive(ComponentType, Lift, Lower, Debug, Clone, Copy)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "only guests make these")]
enum Level {
    #[component(name = "trace")]
    Trace,
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
    #[component(name = "critical")]
    Critical,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}

fn logging(interface: &mut LinkerInstance<'_, GuestState>) -> wasmtime::Result<()> {
    let log = |guest: Guest<'_>, (level, context, message): (Level, String, String)| {
        let (level, log) = (level.as_str(), &guest.data().log);
        let (context, message) = (log.read_part(&context), log.read_part(&message));
        let line = match context.is_empty() {
            true => format!("{level}: {message}"),
            false => format!("{level} {context}: {message}"),
        };
        log.write(LogStream::Log, line.as_bytes());
        Ok(())
    };
    interface.func_wrap("log", log)
}

#[derive(ComponentType, Lift, Lower, Debug)]
#[component(variant)]
enum KeyError {
    #[component(name = "no-such-store")]
    NoSuchStore,
    #[component(name = "access-denied")]
    AccessDenied,
    #[component(name = "other")]
    Other(String),
}

impl From<StateError> for KeyError {
    fn from(error: StateError) -> Self {
        Self::Other(error.to_string())
    }
}

#[derive(ComponentType, Lift, Lower, Debug)]
#[component(record)]
struct Keys {
    #[component(name = "keys")]
    keys: Vec<String>,
    #[component(name = "cursor")]
    cursor: Option<u64>,
}

/// A handle of the module's own state, which is all that one can open.
struct Bucket;

type Handle = Resource<Bucket>;
type Answer<T> = wasmtime::Result<(Result<T, KeyError>,)>;

fn store(interface: &mut LinkerInstance<'_, GuestState>) -> wasmtime::Result<()> {
    interface.resource("bucket", ResourceType::host::<Bucket>(), |mut guest, handle| {
        guest.data_mut().ctx().table.delete(Handle::new_own(handle))?;
        Ok(())
    })?;
    interface.func_wrap("open", |mut guest: Guest<'_>, (name,): (String,)| {
        Ok((open(&mut guest, &name)?,))
    })?;
    interface.func_wrap_async("[method]bucket.get", |guest, (bucket, key): (Handle, String)| {
        Box::new(waited(guest, bucket, |host| get(host, key)))
    })?;
    interface.func_wrap_async(
        "[method]bucket.set",
        |guest, (bucket, key, value): (Handle, String, Vec<u8>)| {
            Box::new(waited(guest, bucket, |host| set(host, key, value)))
        },
    )?;
    interface.func_wrap_async(
        "[method]bucket.delete",
        |guest, (bucket, key): (Handle, String)| Box::new(waited(guest, bucket, |host| delete(host, key))),
    )?;
    interface.func_wrap_async(
        "[method]bucket.exists",
        |guest, (bucket, key): (Handle, String)| Box::new(waited(guest, bucket, |host| exists(host, key))),
    )?;
    interface.func_wrap_async(
        "[method]bucket.list-keys",
        |guest, (bucket, cursor): (Handle, Option<u64>)| {
            Box::new(waited(guest, bucket, move |host| list(host, cursor)))
        },
    )
}

fn atomics(interface: &mut LinkerInstance<'_, GuestState>) -> wasmtime::Result<()> {
    interface.func_wrap_async(
        "increment",
        |guest, (bucket, key, delta): (Handle, String, u64)| {
            Box::new(waited(guest, bucket, move |host| increment(host, key, delta)))
        },
    )
}

fn batch(interface: &mut LinkerInstance<'_, GuestState>) -> wasmtime::Result<()> {
    interface.func_wrap_async("get-many", |guest, (bucket, keys): (Handle, Vec<String>)| {
        Box::new(waited(guest, bucket, |host| get_many(host, keys)))
    })?;
    interface.func_wrap_async(
        "set-many",
        |guest, (bucket, values): (Handle, Vec<(String, Vec<u8>)>)| {
            Box::new(waited(guest, bucket, |host| set_many(host, values)))
        },
    )?;
    interface.func_wrap_async("delete-many", |guest, (bucket, keys): (Handle, Vec<String>)| {
        Box::new(waited(guest, bucket, |host| delete_many(host, keys)))
    })
}

fn open(guest: &mut Guest<'_>, name: &str) -> wasmtime::Result<Result<Handle, KeyError>> {
    if !guest.data().host().settings().grants.keyvalue {
        return Ok(Err(KeyError::AccessDenied));
    }
    if !matches!(name, "" | "default") {
        return Ok(Err(KeyError::NoSuchStore));
    }
    Ok(Ok(guest.data_mut().ctx().table.push(Bucket)?))
}

/// Does something with a bucket that the guest holds.
async fn waited<T, F: Future<Output = Result<T, KeyError>>>(
    mut guest: Guest<'_>,
    bucket: Handle,
    act: impl FnOnce(Arc<dyn Host>) -> F,
) -> Answer<T> {
    guest.data_mut().ctx().table.get(&bucket)?;
    let act = act(guest.data().host());
    Ok((act.await,))
}

async fn get(host: Arc<dyn Host>, key: String) -> Result<Option<Vec<u8>>, KeyError> {
    check_key(&key)?;
    let value = host.get_state(key.as_bytes()).await?;
    Ok(value.map(Vec::from))
}

async fn exists(host: Arc<dyn Host>, key: String) -> Result<bool, KeyError> {
    Ok(get(host, key).await?.is_some())
}

async fn set(host: Arc<dyn Host>, key: String, value: Vec<u8>) -> Result<(), KeyError> {
    check_key(&key)?;
    if value.len() > MAX_STATE_VALUE_BYTES {
        let text = format!(
            "a value has at most {MAX_STATE_VALUE_BYTES} bytes, not {}",
            value.len()
        );
        return Err(KeyError::Other(text));
    }
    Ok(host.set_state(key.as_bytes(), Bytes::from(value)).await?)
}

async fn delete(host: Arc<dyn Host>, key: String) -> Result<(), KeyError> {
    check_key(&key)?;
    Ok(host.delete_state(key.as_bytes()).await?)
}

async fn increment(host: Arc<dyn Host>, key: String, delta: u64) -> Result<u64, KeyError> {
    check_key(&key)?;
    Ok(host.increment_state(key.as_bytes(), delta).await?)
}

async fn list(host: Arc<dyn Host>, cursor: Option<u64>) -> Result<Keys, KeyError> {
    let from = usize::try_from(cursor.unwrap_or(0)).unwrap_or(usize::MAX);
    let all = host.list_state().await?;
    let texts = all.into_iter().filter_map(|key| String::from_utf8(key).ok());
    let mut keys: Vec<String> = texts.skip(from).take(PAGE + 1).collect();
    let more = keys.len() > PAGE;
    keys.truncate(PAGE);
    // There is more only after what there is, so that this is no larger than their number.
    let cursor = more.then(|| (from + PAGE) as u64);
    Ok(Keys { keys, cursor })
}

async fn get_many(
    host: Arc<dyn Host>,
    keys: Vec<String>,
) -> Result<Vec<Option<(String, Vec<u8>)>>, KeyError> {
    check_batch(keys.len())?;
    let (mut found, mut bytes) = (Vec::with_capacity(keys.len()), 0);
    for key in keys {
        let value = get(Arc::clone(&host), key.clone()).await?;
        bytes += value.as_ref().map_or(0, Vec::len);
        if bytes > MAX_BATCH_BYTES {
            let text = format!("the values of a batch have at most {MAX_BATCH_BYTES} bytes together");
            return Err(KeyError::Other(text));
        }
        found.push(value.map(|value| (key, value)));
    }
    Ok(found)
}

async fn set_many(host: Arc<dyn Host>, values: Vec<(String, Vec<u8>)>) -> Result<(), KeyError> {
    check_batch(values.len())?;
    for (key, value) in values {
        set(Arc::clone(&host), key, value).await?;
    }
    Ok(())
}

async fn delete_many(host: Arc<dyn Host>, keys: Vec<String>) -> Result<(), KeyError> {
    check_batch(keys.len())?;
    for key in keys {
        delete(Arc::clone(&host), key).await?;
    }
    Ok(())
}

fn check_key(key: &str) -> Result<(), KeyError> {
    match key.len() {
        ..=MAX_STATE_KEY_BYTES => Ok(()),
        bytes => {
            let text = format!("a key has at most {MAX_STATE_KEY_BYTES} bytes, not {bytes}");
            Err(KeyError::Other(text))
        }
    }
}

fn check_batch(count: usize) -> Result<(), KeyError> {
    match count {
        ..=MAX_BATCH => Ok(()),
        _ => Err(KeyError::Other(format!(
            "a batch has at most {MAX_BATCH} keys, not {count}"
        ))),
    }
}
