//! What a command prints on stdout: raw bytes, JSON, or tables for people.
//!
//! A reader that goes away (`| head`) is no error.

use std::io::{self, ErrorKind, IsTerminal, Write};

use comfy_table::presets::{ASCII_MARKDOWN, NOTHING};
use comfy_table::{ContentArrangement, Table};
use serde::Serialize;
use wess_schemas::timestamp::Timestamp;
use wess_schemas::{Digest, ErrorCode};

use crate::exit::Exit;
use crate::fault::Fault;

/// Prints bytes as they are. On a terminal a line that does not end is ended.
pub fn bytes(bytes: &[u8]) -> Result<(), Fault> {
    let ragged = !bytes.is_empty() && !bytes.ends_with(b"\n") && io::stdout().is_terminal();
    write(&[bytes, if ragged { b"\n" } else { b"" }].concat())
}

/// Prints lines for people.
pub fn text(text: &str) -> Result<(), Fault> {
    write(format!("{text}\n").as_bytes())
}

/// Prints one JSON document.
pub fn json(document: &impl Serialize) -> Result<(), Fault> {
    let text = serde_json::to_string_pretty(document);
    self::text(&text.map_err(|error| Fault::coded(ErrorCode::Internal, &error))?)
}

fn write(bytes: &[u8]) -> Result<(), Fault> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Fault::local(
            Exit::Internal,
            format!("cannot write to stdout: {error}"),
        )),
        _ => Ok(()),
    }
}

/// A table without lines. It wraps to the terminal's width; elsewhere each row is a line.
pub fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header).add_rows(rows);
    if io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// Names and what they are, a line each, but for those that are nothing.
pub fn facts<const N: usize>(rows: [(&str, Option<String>); N]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
    let lines = rows
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name:width$}{}", value?)));
    lines.collect::<Vec<_>>().join("\n")
}

/// A table in Markdown.
pub fn markdown<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(header).add_rows(rows);
    table.trim_fmt()
}

/// An instant for people, to the second.
pub fn time(instant: Timestamp) -> String {
    let text = instant.to_string();
    match text.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => text,
    }
}

/// The beginning of a digest, enough for people to tell two apart.
pub fn brief(digest: Digest) -> String {
    digest.to_string().chars().take("sha256:".len() + 12).collect()
}

/// A number of bytes for people: three digits and a binary unit.
pub fn size(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_and_digests_are_shown_as_far_as_people_read_them() {
        let instant = |text: &str| serde_json::from_value::<Timestamp>(text.into()).unwrap();
        assert_eq!(time(instant("2026-01-02T03:04:05.678Z")), "2026-01-02T03:04:05Z");
        assert_eq!(time(instant("2026-01-02T03:04:05Z")), "2026-01-02T03:04:05Z");
        assert_eq!(brief(Digest::from_bytes([0xab; 32])), "sha256:abababababab");
    }

    #[test]
    fn a_table_has_a_line_for_each_row_and_no_space_at_its_ends() {
        let rows = [["upper", "2"], ["a", "11"]].map(|row| row.map(String::from));
        assert_eq!(
            table(["NAME", "VERSION"], rows),
            "NAME   VERSION\nupper  2\na      11"
        );
    }
}
