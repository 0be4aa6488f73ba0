//! `json/` holds exactly what the types print. `WESS_BLESS=1 cargo test -p wess-schemas` writes it anew.

use std::fs;

use crate::{folder, stems};

#[test]
fn the_committed_schemas_are_those_of_the_types() {
    let blessing = blessing();
    for (name, schema) in wess_schemas::schema::all() {
        let printed = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        let file = folder("json").join(format!("{name}.json"));
        if blessing {
            fs::write(&file, &printed).unwrap();
        }
        let committed = fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(
            committed, printed,
            "json/{name}.json: if that is meant, run this test with WESS_BLESS=1"
        );
    }
}

#[test]
fn no_schema_is_left_over() {
    let known = wess_schemas::schema::all()
        .into_iter()
        .map(|(name, _)| name.to_owned())
        .collect();
    assert_eq!(stems("json"), known);
}

#[allow(clippy::disallowed_methods, reason = "a test has no Config")]
fn blessing() -> bool {
    std::env::var_os("WESS_BLESS").is_some_and(|value| value == "1")
}
