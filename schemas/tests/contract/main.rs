//! The contract as files: what the types print is what is committed, and what was ever committed can be read.

#![allow(clippy::unwrap_used)]

mod asyncapi;
mod golden;
mod json_schema;
mod round_trip;

use std::collections::BTreeSet;
use std::path::PathBuf;

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The JSON files of a folder, by their names without ending.
fn stems(name: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder(name)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .filter_map(|name| name.strip_suffix(".json").map(str::to_owned))
        .collect()
}
