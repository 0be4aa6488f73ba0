//! Storing modules, finding them again, tagging and removing them.

use serde_json::{Value, json};
use wess_harness::guest;

use crate::wess::{DOORS, Door, Wess, code, stderr, stdout};

#[test]
fn the_same_bytes_change_nothing_and_other_bytes_are_the_next_version() {
    let wess = Wess::up();
    let (one, two) = (wess.file("one", &guest("add")), wess.file("two", &guest("math")));
    for (door, name) in DOORS.into_iter().zip(["by-nats", "by-http"]) {
        assert!(
            wess.must(door, &["store", name, &one])
                .contains("is stored as version 1: typed")
        );
        assert!(
            wess.must(door, &["store", name, &one])
                .contains("is unchanged at version 1")
        );
        let module = wess.json(door, &["store", name, &two]);
        assert_eq!(
            (&module["version"], &module["stored"], &module["name"]),
            (&json!(2), &json!(true), &json!(name))
        );
    }
}

#[test]
fn text_is_assembled_from_a_file_and_from_a_pipe() {
    let wess = Wess::up();
    let text = "(module (func (export \"one\") (result i32) (i32.const 1)))";
    for door in DOORS {
        let file = wess.file("one.wat", text.as_bytes());
        wess.must(door, &["store", "file", &file]);
        let piped = wess.pipe(door, &["store", "pipe", "-"], text.as_bytes());
        assert_eq!(code(&piped), 0, "{}", stderr(&piped));
        assert_eq!(wess.must(door, &["chain", "file", "--input", "[]"]), "1");
        assert_eq!(wess.must(door, &["invoke", "pipe"]), "1");
        let bytes = wess.pipe(door, &["store", "bytes", "-"], &guest("add"));
        assert_eq!(code(&bytes), 0, "{}", stderr(&bytes));
    }
}

#[test]
fn a_module_larger_than_a_message_is_uploaded() {
    let wess = Wess::up();
    for (door, name) in DOORS.into_iter().zip(["by-nats", "by-http"]) {
        let text = format!(
            "(module (@custom \"{name}\" \"{}\") (func (export \"f\")))",
            "x".repeat(3_000_000)
        );
        let file = wess.file("large.wat", text.as_bytes());
        let module = wess.json(door, &["store", name, &file]);
        assert!(module["size"].as_u64().unwrap() > 3_000_000);
        wess.must(door, &["invoke", name]);
    }
}

#[test]
fn what_cannot_run_is_refused_with_what_is_wrong() {
    let wess = Wess::up();
    let (text, import) = (
        wess.file("text", b"hello"),
        wess.file("import", &guest("unknown_import")),
    );
    for door in DOORS {
        let output = wess.ask(door, &["store", "broken", &text]);
        assert_eq!(code(&output), 65);
        assert!(
            stderr(&output).contains("(invalid_module)"),
            "{}",
            stderr(&output)
        );
        let output = wess.ask(door, &["store", "broken", &import]);
        assert_eq!(code(&output), 65);
        assert!(
            stderr(&output).contains("launch_missiles") && stderr(&output).contains("(unsupported_module)")
        );
    }
}

#[test]
fn a_modules_own_limits_are_stored_shown_and_kept() {
    let wess = Wess::up();
    let spin = wess.file("spin", &guest("spin"));
    for (door, name) in DOORS.into_iter().zip(["by-nats", "by-http"]) {
        let module = wess.json(
            door,
            &["store", name, &spin, "--timeout", "150ms", "--memory-mb", "3"],
        );
        assert_eq!(module["limits"], json!({ "timeout_ms": 150, "memory_mb": 3 }));
        assert!(
            wess.must(door, &["describe", name])
                .contains("150 ms, 3 MiB memory")
        );
        let output = wess.ask(door, &["invoke", name, "--function", "spin"]);
        assert!(
            stderr(&output).contains("(deadline_exceeded)\nhint: --timeout"),
            "{}",
            stderr(&output)
        );
    }
}

#[test]
fn ls_shows_a_line_for_each_and_can_be_narrowed() {
    let wess = Wess::up();
    for door in DOORS {
        let output = wess.ask(door, &["ls"]);
        assert_eq!((code(&output), stdout(&output).as_str()), (0, ""));
        assert!(stderr(&output).contains("wess store"), "{}", stderr(&output));
        assert_eq!(wess.json(door, &["ls"]), json!({ "modules": [] }));
    }
    for name in ["image-b", "image-a", "text"] {
        wess.store(Door::Nats, name, "add");
    }
    for door in DOORS {
        let table = wess.must(door, &["ls"]);
        let names: Vec<_> = table
            .lines()
            .map(|line| line.split(' ').next().unwrap())
            .collect();
        assert_eq!(names, ["NAME", "image-a", "image-b", "text"]);
        let narrowed = wess.json(door, &["ls", "image-"]);
        let names: Vec<_> = narrowed["modules"]
            .as_array()
            .unwrap()
            .iter()
            .map(|module| &module["name"])
            .collect();
        assert_eq!(names, ["image-a", "image-b"]);
    }
}

#[test]
fn what_answers_http_requests_is_described_as_that() {
    let wess = Wess::up();
    wess.store(Door::Nats, "web", "web");
    for door in DOORS {
        let shown = wess.must(door, &["describe", "web"]);
        assert!(shown.contains("(answers HTTP requests)"), "{shown}");
        assert!(!shown.contains("cannot be called"), "{shown}");
        let export = wess.json(door, &["describe", "web"])["exports"][0].clone();
        assert_eq!(export.get("unsupported"), None, "{export}");
        assert_eq!(export.get("args_schema"), None, "{export}");
    }
}

#[test]
fn describe_shows_functions_signatures_versions_and_tags() {
    let wess = Wess::up();
    wess.store(Door::Nats, "calc", "add");
    wess.store(Door::Nats, "calc", "math");
    wess.must(Door::Nats, &["tag", "calc", "stable", "1"]);
    for door in DOORS {
        let shown = wess.must(door, &["describe", "calc"]);
        for part in [
            "calc@2",
            "typed",
            "divmod",
            "(i64, i64) -> (i64, i64)",
            "latest",
            "stable",
            "sha256:",
        ] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        assert!(
            wess.must(door, &["describe", "calc@stable"])
                .contains("(i32, i32) -> i32")
        );
        let module = wess.json(door, &["describe", "calc"]);
        let id = module["id"].as_str().unwrap();
        assert_eq!(wess.json(door, &["describe", id])["version"], 2);
        assert_eq!(
            wess.json(door, &["describe", module["digest"].as_str().unwrap()])["digest"],
            module["digest"]
        );
    }
}

#[test]
fn what_holds_for_a_module_is_said_by_flags_or_a_file_and_is_part_of_its_versions() {
    let wess = Wess::up();
    for (door, name) in DOORS.into_iter().zip(["by-nats", "by-http"]) {
        wess.store(door, name, "greet");
        wess.must(
            door,
            &[
                "configure",
                name,
                "--env",
                "GREETING=Salut",
                "--description",
                "greets: café",
            ],
        );
        assert_eq!(
            wess.must(door, &["invoke", name, "Ada"]).trim_end(),
            "Salut, Ada!"
        );
        let shown = wess.must(door, &["describe", name]);
        for part in ["GREETING=Salut", "greets: café", &format!("{name}@2")] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        assert_eq!(
            wess.must(door, &["invoke", &format!("{name}@1"), "Ada"])
                .trim_end(),
            "Hello, Ada!"
        );
        let module = wess.file("my_greeter.wasm", &guest("greet"));
        let file = wess.file(
            "wess.toml",
            "module = \"my_greeter.wasm\"\n[env]\nGREETING = \"\u{c7}a va\"\n[limits]\ntimeout_ms = 900\n"
                .as_bytes(),
        );
        wess.must(door, &["store", "--settings", &file]);
        let stored = wess.json(door, &["describe", "my-greeter"]);
        assert_eq!(stored["limits"]["timeout_ms"], 900);
        assert_eq!(stored["settings"]["env"]["GREETING"], "\u{c7}a va");
        // Named by its file, and by what is said.
        wess.must(door, &["store", &module]);
        let again = wess.json(
            door,
            &["store", &format!("{name}-2"), &module, "--settings", &file],
        );
        assert_eq!(
            (&again["name"], &again["version"]),
            (&format!("{name}-2").into(), &1.into())
        );
        let refused = wess.ask(door, &["configure", name, "--allow-publish", "$JS.API.>"]);
        assert_ne!(code(&refused), 0);
        assert!(stderr(&refused).contains("$JS.API.>"));
        assert_ne!(code(&wess.ask(door, &["configure", name])), 0, "nothing is said");
    }
}

#[test]
fn tags_are_set_moved_and_taken_away() {
    let wess = Wess::up();
    wess.store(Door::Nats, "calc", "add");
    wess.store(Door::Nats, "calc", "math");
    for door in DOORS {
        assert_eq!(
            wess.must(door, &["tag", "calc", "stable", "1"]),
            "calc@stable is version 1\n"
        );
        assert_eq!(wess.must(door, &["invoke", "calc@stable", "[2,3]"]), "5");
        assert_eq!(
            wess.json(door, &["tag", "calc", "stable", "2"])["tags"]["stable"],
            2
        );
        assert_eq!(code(&wess.ask(door, &["tag", "calc", "stable", "9"])), 66);
        assert_eq!(code(&wess.ask(door, &["tag", "calc", "latest", "1"])), 65);
        assert_eq!(
            wess.must(door, &["tag", "calc", "stable", "--remove"]),
            "calc has no tag stable any more\n"
        );
        assert_eq!(
            wess.json(door, &["describe", "calc"])["tags"],
            json!({ "latest": 2 })
        );
    }
}

#[test]
fn rm_takes_away_what_was_named_and_nothing_that_a_tag_holds() {
    let wess = Wess::up();
    for door in DOORS {
        wess.store(door, "calc", "add");
        wess.store(door, "calc", "math");
        wess.must(door, &["tag", "calc", "keep", "1"]);
        let output = wess.ask(door, &["rm", "calc@1"]);
        assert_eq!(code(&output), 73, "{}", stderr(&output));
        assert!(wess.must(door, &["rm", "calc@keep"]).contains("calc@keep"));
        let deleted = wess.json(door, &["rm", "calc@1", "--yes"]);
        assert_eq!(
            (&deleted["versions"], &deleted["name"]),
            (&json!([1]), &Value::from("calc"))
        );
        assert!(wess.must(door, &["rm", "calc"]).starts_with("removed calc@2"));
        assert_eq!(code(&wess.ask(door, &["rm", "calc"])), 66);
        assert_eq!(code(&wess.ask(door, &["describe", "calc"])), 66);
    }
}

#[test]
fn a_secret_is_sealed_before_it_leaves_and_only_the_guest_has_it() {
    let wess = Wess::up();
    let greet = wess.file("greet.wasm", &guest("greet"));
    let secret = wess.file("greeting", b"Salut-from-a-vault\n");
    let from_file = format!("GREETING=@{secret}");
    wess.must(Door::Nats, &["store", "greet", &greet, "--secret", &from_file]);
    assert_eq!(
        wess.must(Door::Nats, &["invoke", "greet", "Ada"]),
        "Salut-from-a-vault, Ada!"
    );
    for output in ["human", "json"] {
        let shown = wess.must(Door::Nats, &["describe", "greet", "--output", output]);
        assert!(shown.contains("GREETING") && !shown.contains("vault"), "{shown}");
    }

    let sealed = wess.pipe(
        Door::Nats,
        &["seal", "greet", "GREETING"],
        b"Salut-from-a-vault\n",
    );
    assert_eq!(code(&sealed), 0, "{}", stderr(&sealed));
    let toml = format!("[secrets]\nGREETING = \"{}\"\n", stdout(&sealed).trim());
    let toml = wess.file("wess.toml", toml.as_bytes());
    wess.must(Door::Http, &["configure", "greet", "--settings", &toml]);
    assert_eq!(
        wess.must(Door::Http, &["invoke", "greet", "Bo"]),
        "Salut-from-a-vault, Bo!"
    );
    let other = wess.ask(Door::Http, &["store", "other", &greet, "--settings", &toml]);
    assert_eq!(code(&other), 65, "{}", stderr(&other));
}
