//! What a command takes in: a text, a file, or stdin. Bounded: an endless pipe is refused, not read for ever.

use std::fs::File;
use std::io::{self, Read};

use bytes::Bytes;
use wess_schemas::limits::MAX_INPUT_BYTES;
use wess_schemas::{ErrorBody, ErrorCode};

use crate::exit::Exit;
use crate::fault::Fault;

/// The name that stands for stdin.
const STDIN: &str = "-";
/// No module is larger on any server: its sizes are counted in 32 bits.
const MAX_MODULE_BYTES: u64 = 1 << 32;

/// The input of a call: the text itself or stdin, else the file, else none.
pub fn of_call(text: Option<&str>, file: Option<&str>) -> Result<Option<Bytes>, Fault> {
    match (text, file) {
        (Some(STDIN), _) => read(STDIN, MAX_INPUT_BYTES).map(Some),
        (Some(text), _) => Ok(Some(Bytes::copy_from_slice(text.as_bytes()))),
        (None, Some(file)) => read(file, MAX_INPUT_BYTES).map(Some),
        (None, None) => Ok(None),
    }
}

/// A whole request in JSON, as large as its input within may make it.
pub fn of_request(file: &str) -> Result<Bytes, Fault> {
    read(file, 2 * MAX_INPUT_BYTES)
}

/// A module's bytes. Text is assembled: that of a .wat file, and from stdin what begins as such text does.
pub fn of_module(file: &str) -> Result<Bytes, Fault> {
    let bytes = read(file, MAX_MODULE_BYTES)?;
    let text = if file == STDIN {
        begins_like_text(&bytes)
    } else {
        file.ends_with(".wat")
    };
    if text { assemble(file, &bytes) } else { Ok(bytes) }
}

fn begins_like_text(bytes: &[u8]) -> bool {
    let start = bytes.trim_ascii_start();
    start.starts_with(b"(") || start.starts_with(b";;")
}

fn assemble(file: &str, text: &[u8]) -> Result<Bytes, Fault> {
    let assembled = wat::parse_bytes(text);
    let assembled = assembled.map_err(|mut error| {
        error.set_path(file);
        Fault::local(Exit::BadInput, format!("cannot assemble {error}"))
    })?;
    Ok(assembled.into_owned().into())
}

fn read(file: &str, limit: u64) -> Result<Bytes, Fault> {
    let source: io::Result<Box<dyn Read>> = if file == STDIN {
        Ok(Box::new(io::stdin()))
    } else {
        File::open(file).map(|file| Box::new(file) as _)
    };
    let mut bytes = Vec::new();
    let read = source.and_then(|source| source.take(limit + 1).read_to_end(&mut bytes));
    match read {
        Err(error) => Err(Fault::local(
            Exit::NotFound,
            format!("cannot read {file}: {error}"),
        )),
        Ok(size) if size as u64 > limit => {
            let message = format!("{file} has more than the {limit} bytes that are allowed");
            Err(ErrorBody::new(ErrorCode::PayloadTooLarge, message).into())
        }
        Ok(_) => Ok(bytes.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(suffix: &str, contents: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::Builder::new().suffix(suffix).tempfile().unwrap();
        file.write_all(contents).unwrap();
        file
    }

    #[test]
    fn text_is_assembled_by_its_ending_and_bytes_stay_as_they_are() {
        let module = |suffix, contents: &[u8]| of_module(file(suffix, contents).path().to_str().unwrap());
        assert!(module(".wat", b"(module)").unwrap().starts_with(b"\0asm"));
        assert_eq!(module(".txt", b"(module)").unwrap(), "(module)");
        let fault = module(".wat", b"(modul)").unwrap_err();
        assert_eq!(fault.exit(), Exit::BadInput);
        assert!(fault.to_string().contains(":1:2"), "{fault}");
    }

    #[test]
    fn text_from_a_pipe_is_known_by_how_it_begins() {
        assert!(begins_like_text(b"\n ;; add\n(module)") && begins_like_text(b"(module)"));
        assert!(!begins_like_text(b"\0asm") && !begins_like_text(b"") && !begins_like_text(b"hello"));
    }

    #[test]
    fn an_input_of_exactly_the_limit_passes_and_one_byte_more_is_refused() {
        let file = file("", b"hello");
        let path = file.path().to_str().unwrap();
        assert_eq!(read(path, 5).unwrap(), "hello");
        assert_eq!(read(path, 4).unwrap_err().exit(), Exit::BadInput);
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let fault = of_call(None, Some("/nowhere")).unwrap_err();
        assert_eq!(fault.exit(), Exit::NotFound);
        assert!(fault.to_string().starts_with("cannot read /nowhere"), "{fault}");
    }
}
