//! `LoadBinary`, `ListBinaries` and `UnloadBinary`: modules that are files on the gateway's machine.
//!
//! Invariant: a path is a module's name, so that the registry alone remembers which module a file was loaded as.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use bytes::Bytes;
use rustix::fs::OFlags;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use wess_schemas::header::MODULE;
use wess_schemas::module::{Deleted, ListRequest, ModuleList, ModuleSummary};
use wess_schemas::seed::{Binaries, Binary, LoadBinary, Loaded, MAX_LISTED, UnloadBinary, Unloaded};
use wess_schemas::store::StoreRequest;
use wess_schemas::subject::Endpoint;
use wess_schemas::{Digest, ErrorCode, ModuleId, ModuleName, Reference};
use wess_service::objects::ObjectError;
use wess_service::payloads::PayloadError;
use wess_service::trace_context::TraceParent;

use crate::app::App;
use crate::bodies;
use crate::large::Uploaded;
use crate::problem::Problem;
use crate::routes::store::SMALL_MODULE_BYTES;
use crate::workers::{Question, json, unreadable};

/// What the names of loaded modules begin with.
const PREFIX: &str = "file-";
/// How much of a file's own name is in its module's.
const STEM_BYTES: usize = 24;
/// How much of the path's digest is: with the rest, as much as a name may have.
const DIGEST_BYTES: usize = 16;
/// Modules in a page of a list.
const PAGE: u32 = 1000;

/// Stores the module in a file.
pub async fn load(app: &App, LoadBinary { path }: LoadBinary) -> Result<Loaded, Problem> {
    let path = absolute(&path)?;
    let name = name_of(&path)?;
    let small = SMALL_MODULE_BYTES.min(app.workers.inline_bytes() as u64);
    let limit = app.bounds.module_bytes;
    let opened = path.clone();
    // A file system may take its time: not on a thread that answers.
    let reading = tokio::task::spawn_blocking(move || read(&opened, small, limit)).await;
    let stored = match reading
        .map_err(|error| Problem::new(ErrorCode::Internal, "the file was not read").because(&error))??
    {
        Contents::Small(wasm) => {
            let wasm = app.admission.hold(wasm)?;
            let question = Question::store(wasm, TraceParent::generate());
            app.workers
                .ask(question.with_header(MODULE, name.as_str()))
                .await?
        }
        Contents::Large(file) => store_large(app, name, file).await?,
    };
    let module: Stored = serde_json::from_slice(&stored.payload).map_err(|error| unreadable(&error))?;
    Ok(module.loaded_from(path))
}

/// What of a stored module is told.
#[derive(Deserialize)]
struct Stored {
    id: ModuleId,
    name: ModuleName,
    version: u32,
    digest: Digest,
    size: u64,
}

impl Stored {
    fn loaded_from(self, path: String) -> Loaded {
        Loaded {
            binary_id: self.id,
            path,
            name: self.name,
            version: self.version,
            digest: self.digest,
            size_bytes: self.size,
        }
    }
}

enum Contents {
    Small(Bytes),
    Large(File),
}

fn absolute(path: &str) -> Result<String, Problem> {
    let absolute = std::path::absolute(path).map_err(|error| refused(path, "cannot be opened", &error))?;
    let text = absolute.into_os_string().into_string();
    // The client's part is text; the folder that the gateway was started in may be anything.
    text.map_err(|_| Problem::invalid("the gateway's working folder is not UTF-8: a path must be absolute"))
}

fn refused(path: &str, what: &str, error: &io::Error) -> Problem {
    Problem::invalid(format!("the file {path:?} {what}: {error}"))
}

/// Opens a file and reads it if it is small. Never waits for a writer, as opening a FIFO would.
fn read(path: &str, small: u64, limit: u64) -> Result<Contents, Problem> {
    let cannot = |error: &io::Error| refused(path, "cannot be opened", error);
    let no_file = || Problem::invalid(format!("{path:?} is no regular file"));
    // Looked at first: to open a device may do something.
    if !std::fs::metadata(path).map_err(|error| cannot(&error))?.is_file() {
        return Err(no_file());
    }
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = opened.map_err(|error| cannot(&error))?;
    let metadata = file.metadata().map_err(|error| cannot(&error))?;
    if !metadata.is_file() {
        return Err(no_file());
    }
    if metadata.len() > limit {
        return Err(too_large(path, limit));
    }
    if metadata.len() > small {
        return Ok(Contents::Large(file));
    }
    let mut wasm = Vec::new();
    let read = file.take(small + 1).read_to_end(&mut wasm);
    read.map_err(|error| refused(path, "cannot be read", &error))?;
    if wasm.len() as u64 > small {
        return Err(Problem::invalid(format!(
            "the file {path:?} grew while it was read"
        )));
    }
    Ok(Contents::Small(wasm.into()))
}

fn too_large(path: &str, limit: u64) -> Problem {
    let message = format!("the file {path:?} is larger than the {limit} bytes that are allowed");
    Problem::new(ErrorCode::PayloadTooLarge, message).with("limit_bytes", limit)
}

async fn store_large(app: &App, name: ModuleName, file: File) -> Result<wess_service::bus::Reply, Problem> {
    let (limit, patience) = (app.bounds.module_bytes, app.bounds.upload_timeout);
    let uploading = app
        .stores
        .payloads
        .put_stream(tokio::fs::File::from_std(file), limit);
    let uploaded = tokio::time::timeout(patience, uploading)
        .await
        .map_err(|_| Problem::invalid(format!("the file could not be read within {patience:?}")))?;
    let reference = uploaded.map_err(|error| not_taken(error, limit))?;
    let request = StoreRequest {
        name,
        wasm_base64: None,
        digest: Some(reference.digest),
        object: Some(reference.object.clone()),
        limits: None,
        settings: None,
    };
    let reply = app
        .workers
        .ask(Question::store(json(&request)?, TraceParent::generate()))
        .await;
    let uploaded = Uploaded {
        reference,
        ours: true,
    };
    app.stores.settle(Some(uploaded), &reply).await;
    reply
}

fn not_taken(error: PayloadError, limit: u64) -> Problem {
    match &error {
        PayloadError::Object(ObjectError::TooLarge { .. }) => bodies::too_large(limit),
        PayloadError::Object(ObjectError::Copy { .. }) => {
            Problem::invalid("the file could not be read to its end").because(&error)
        }
        other => Problem::new(other.code(), "the module could not be taken in")
            .before_guest()
            .because(other),
    }
}

/// `file-<the file's name>-<the path's digest>`: readable, and another one for every path.
fn name_of(path: &str) -> Result<ModuleName, Problem> {
    let stem = Path::new(path)
        .file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or_default();
    let label = |byte: u8| match byte.to_ascii_lowercase() {
        byte if byte.is_ascii_alphanumeric() => byte as char,
        _ => '-',
    };
    let stem: String = stem.bytes().take(STEM_BYTES).map(label).collect();
    let digest: String = Sha256::digest(path)[..DIGEST_BYTES]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let name = match stem.trim_matches('-') {
        "" => format!("{PREFIX}{digest}"),
        stem => format!("{PREFIX}{stem}-{digest}"),
    };
    name.parse().map_err(|error| {
        Problem::new(ErrorCode::Internal, "the path makes no name")
            .because(&error as &wess_schemas::id::InvalidName)
    })
}

/// Names what was loaded, by any gateway.
pub async fn list(app: &App) -> Result<Binaries, Problem> {
    let mut request = ListRequest {
        prefix: Some(PREFIX.into()),
        after: None,
        limit: Some(PAGE),
    };
    let mut binaries = Vec::new();
    loop {
        let question = Question::record(Endpoint::ModulesList, json(&request)?, TraceParent::generate());
        let page = app.workers.ask(question).await?.payload;
        let page: ModuleList = serde_json::from_slice(&page).map_err(|error| unreadable(&error))?;
        binaries.extend(page.modules.into_iter().map(binary));
        let complete = page.next.is_none();
        if complete || binaries.len() >= MAX_LISTED {
            return Ok(Binaries { binaries, complete });
        }
        request.after = page.next;
    }
}

fn binary(module: ModuleSummary) -> Binary {
    Binary {
        binary_id: module.id,
        name: module.name,
        version: module.version,
        digest: module.digest,
        size_bytes: module.size,
    }
}

/// Deletes a module.
pub async fn unload(app: &App, UnloadBinary { binary_id }: UnloadBinary) -> Result<Unloaded, Problem> {
    let endpoint = Endpoint::ModulesDelete(Reference::Id(binary_id));
    let question = Question::record(endpoint, Bytes::new(), TraceParent::generate());
    let deleted = app.workers.ask(question).await?.payload;
    let Deleted { name, .. } = serde_json::from_slice(&deleted).map_err(|error| unreadable(&error))?;
    Ok(Unloaded { binary_id, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_has_a_name_of_its_own_that_begins_with_the_files() {
        let name = |path: &str| name_of(path).unwrap().to_string();
        assert!(name("/srv/Up_per.v1.wasm").starts_with("file-up-per-v1-"));
        assert_eq!(name("/a").len(), "file-a-".len() + 2 * DIGEST_BYTES);
        assert_eq!(name("/é").len(), "file-".len() + 2 * DIGEST_BYTES);
        assert_eq!(name(&format!("/{}", "x".repeat(200))).len(), 62);
        let names: std::collections::BTreeSet<_> = ["/a/x.wasm", "/b/x.wasm", "/a/X.wasm", "/a/x", "/"]
            .map(name)
            .into();
        assert_eq!(names.len(), 5);
        assert_eq!(name("/a/x.wasm"), name("/a/x.wasm"));
    }

    #[test]
    fn a_relative_path_is_the_same_file_as_its_absolute_one() {
        let here = std::env::current_dir().unwrap().join("x.wasm");
        assert_eq!(absolute("./x.wasm").unwrap(), here.to_str().unwrap());
        assert!(absolute("").unwrap_err().message().contains("\"\""));
    }

    #[test]
    fn what_is_no_regular_file_is_not_opened() {
        let folder = tempfile::TempDir::new().unwrap();
        let fifo = folder.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "12345").unwrap();
        let read = |path: &Path, small, limit| read(path.to_str().unwrap(), small, limit);
        for (path, said) in [
            (fifo.as_path(), "no regular file"),
            (folder.path(), "no regular file"),
            (Path::new("/dev/null"), "no regular file"),
            (Path::new("/nowhere"), "cannot be opened"),
            (Path::new("/a\0b"), "cannot be opened"),
        ] {
            let refused = read(path, 10, 10).err().unwrap();
            assert!(refused.message().contains(said), "{}", refused.message());
            assert_eq!(refused.code(), ErrorCode::InvalidRequest);
        }
        assert!(matches!(read(&file, 5, 5), Ok(Contents::Small(wasm)) if wasm == "12345"));
        assert!(matches!(read(&file, 4, 5), Ok(Contents::Large(_))));
        assert_eq!(
            read(&file, 4, 4).err().unwrap().code(),
            ErrorCode::PayloadTooLarge
        );
    }
}
