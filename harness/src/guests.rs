//! The guests under `guests/`, as Wasm bytes.

use std::fs;
use std::path::{Path, PathBuf};

/// A guest's bytes: `guests/out/<name>.wasm` as built from source, or any `guests/*/<name>.wat`, assembled now.
pub fn guest(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guests");
    let built = folder.join("out").join(name).with_extension("wasm");
    if built.is_file() {
        return fs::read(&built).unwrap_or_else(|error| panic!("cannot read {}: {error}", built.display()));
    }
    let text = find_text(&folder, name).unwrap_or_else(|| {
        panic!("there is no guest {name}: run guests/build, or see guests/README.md for names")
    });
    wat::parse_file(&text).unwrap_or_else(|error| panic!("cannot assemble {}: {error}", text.display()))
}

fn find_text(folder: &Path, name: &str) -> Option<PathBuf> {
    let rooms = fs::read_dir(folder).expect("the folder guests/ is part of every clone");
    rooms
        .flatten()
        .map(|room| room.path().join(name).with_extension("wat"))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_text_guest_is_assembled() {
        assert!(super::guest("add").starts_with(b"\0asm"));
    }
}
