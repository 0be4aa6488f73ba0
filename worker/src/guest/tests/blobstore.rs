//! Objects that components keep: in which containers, under which names, how much of them, and what a run may hold open.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::memory_objects::MemoryObjects;
use super::*;
use crate::guest::ObjectFault;
use crate::guest::component::blobstore::{MAX_BODIES, MAX_NAMES, MAX_WHOLE_BYTES};
use crate::guest::objects::{CHUNK_BYTES, MAX_OBJECT_BYTES, MAX_OBJECT_NAME_BYTES};

/// A guest whose module may use these containers, of which the first is there.
fn keeper(containers: &[&str]) -> Guest {
    let mut settings = Settings::default();
    settings.grants.blobstore = containers.iter().map(|name| (*name).to_owned()).collect();
    let mut guest = Guest::file("component/keeper.wat");
    let objects = MemoryObjects::default();
    if let Some(first) = containers.first() {
        objects.kept().containers.insert((*first).to_owned(), 0);
    }
    guest.host = Arc::new(MemoryHost {
        settings,
        objects,
        ..MemoryHost::default()
    });
    guest.output_bytes(32 * MIB)
}

impl Guest {
    async fn ask(&self, name: &str, given: Value) -> Value {
        self.results(named(name, args(given))).await[0].clone()
    }

    /// Keeps an object that has these bytes.
    async fn keep(&self, name: &str, bytes: &[u8]) -> Value {
        let data = json!({"base64": BASE64_STANDARD.encode(bytes)});
        self.ask("keep", json!(["pictures", name, data])).await
    }

    async fn look(&self, name: &str, start: u64, end: u64) -> Value {
        self.ask("look", json!(["pictures", name, exact(start), exact(end)]))
            .await
    }

    fn objects(&self) -> &MemoryObjects {
        &self.host.objects
    }
}

/// A number that JSON could not bear.
fn exact(number: u64) -> String {
    number.to_string()
}

fn ok() -> Value {
    json!({"ok": null})
}

fn list(bytes: &[u8]) -> Value {
    json!({"ok": {"base64": BASE64_STANDARD.encode(bytes)}})
}

#[track_caller]
fn refused(why: &str, answer: &Value) {
    let text = answer["err"].as_str();
    assert!(
        text.is_some_and(|text| text.contains(why)),
        "{answer} is no refusal with {why}"
    );
}

/// Bytes of which no two pieces are alike.
fn pattern(bytes: u64) -> Vec<u8> {
    (0..bytes)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect()
}

#[tokio::test]
async fn an_object_is_what_was_written_in_either_order() {
    let guest = keeper(&["pictures"]);
    assert_eq!(guest.keep("a", b"hello").await, ok());
    assert_eq!(guest.look("a", 0, 99).await, list(b"hello"));
    assert_eq!(guest.keep("a", b"other").await, ok());
    assert_eq!(guest.look("a", 0, 99).await, list(b"other"));
    let info = guest.ask("info", json!(["pictures", "a"])).await;
    let expected = json!({"name": "a", "container": "pictures", "created-at": 8, "size": 5});
    assert_eq!(info, json!({"ok": expected}));

    let bytes = 3 * CHUNK_BYTES + 17;
    let filled = guest.ask("fill", json!(["pictures", "b", bytes])).await;
    let tally = guest.ask("tally", json!(["pictures", "b", 0, bytes, ""])).await;
    assert_eq!(tally, json!({"ok": [bytes, bytes, filled["ok"]]}));
    assert_eq!(
        guest.ask("fill", json!(["pictures", "none", 0])).await,
        json!({"ok": 0})
    );
    assert_eq!(guest.look("none", 0, 9).await, list(b""));
    let kept = guest.objects().kept();
    assert_eq!(
        (kept.chunks.len(), kept.discarded),
        (1 + 4, 1),
        "what was replaced is gone"
    );
    assert!(
        kept.chunks
            .values()
            .all(|chunk| chunk.len() as u64 <= CHUNK_BYTES)
    );
}

#[tokio::test]
async fn a_range_is_read_without_the_rest() {
    let guest = keeper(&["pictures"]);
    let bytes = pattern(2 * CHUNK_BYTES + 5);
    assert_eq!(guest.keep("a", &bytes).await, ok());
    let last = bytes.len() as u64 - 1;
    for (start, end, chunks) in [
        (0, 0, vec![0]),
        (3, 10, vec![0]),
        (CHUNK_BYTES - 1, CHUNK_BYTES - 1, vec![0]),
        (CHUNK_BYTES, CHUNK_BYTES, vec![1]),
        (CHUNK_BYTES - 1, CHUNK_BYTES, vec![0, 1]),
        (CHUNK_BYTES + 1, 2 * CHUNK_BYTES, vec![1, 2]),
        (last, u64::MAX, vec![2]),
        (0, last, vec![0, 1, 2]),
        (last + 1, last + 1, vec![]),
        (u64::MAX, u64::MAX, vec![]),
    ] {
        guest.objects().kept().reads.clear();
        let from = start.min(last + 1) as usize;
        let until = end.saturating_add(1).min(last + 1) as usize;
        assert_eq!(
            guest.look("a", start, end).await,
            list(&bytes[from..until]),
            "{start}-{end}"
        );
        assert_eq!(guest.objects().kept().reads, chunks, "{start}-{end}");
    }
    refused("ends at 4", &guest.look("a", 5, 4).await);
    refused(r#"no object "b""#, &guest.look("b", 0, 1).await);
}

#[tokio::test]
async fn a_container_that_is_not_granted_is_refused_wherever_it_is_named() {
    let guest = keeper(&["pictures"]);
    guest.keep("a", b"hello").await;
    guest.objects().kept().containers.insert("other".into(), 0);
    let (mine, theirs) = (object("pictures", "a"), object("other", "a"));
    for (function, given) in [
        ("make", json!(["other"])),
        ("called", json!(["other"])),
        ("remove", json!(["other"])),
        ("exists", json!(["other"])),
        ("exists", json!(["pictures/../other"])),
        ("exists", json!([""])),
        ("exists", json!(["x".repeat(100_000)])),
        ("copy", json!([mine, theirs])),
        ("copy", json!([theirs, mine])),
        ("move", json!([mine, theirs])),
    ] {
        refused("not granted the container", &guest.ask(function, given).await);
    }
    let none = keeper(&[]);
    refused("not granted", &none.ask("make", json!(["pictures"])).await);
    refused("no body", &none.ask("twice", json!([])).await);
}

fn object(container: &str, name: &str) -> Value {
    json!({"container": container, "object": name})
}

#[tokio::test]
async fn containers_are_made_found_and_deleted_with_all_that_is_in_them() {
    let guest = keeper(&["pictures", "raw"]);
    assert_eq!(guest.ask("exists", json!(["raw"])).await, json!({"ok": false}));
    refused("make it first", &guest.ask("called", json!(["raw"])).await);
    for _ in 0..2 {
        let made = guest.ask("make", json!(["raw"])).await;
        assert_eq!(made, json!({"ok": {"name": "raw", "created-at": 7}}));
    }
    assert_eq!(guest.ask("called", json!(["raw"])).await, json!({"ok": "raw"}));
    guest.keep("a", b"1").await;
    guest.keep("b", b"2").await;
    assert_eq!(
        guest
            .ask("copy", json!([object("pictures", "a"), object("raw", "a")]))
            .await,
        ok()
    );
    assert_eq!(guest.ask("clear", json!(["pictures"])).await, ok());
    assert_eq!(
        guest.ask("names", json!(["pictures", 0, 9])).await,
        json!({"ok": [[], true]})
    );
    assert_eq!(guest.ask("remove", json!(["raw"])).await, ok());
    assert_eq!(guest.ask("exists", json!(["raw"])).await, json!({"ok": false}));
    assert_eq!(
        guest.ask("remove", json!(["raw"])).await,
        ok(),
        "it is gone all the same"
    );
    assert!(guest.objects().kept().objects.is_empty() && guest.objects().kept().chunks.is_empty());
}

#[tokio::test]
async fn objects_are_copied_and_moved() {
    let guest = keeper(&["pictures", "raw"]);
    let bytes = pattern(CHUNK_BYTES + 1);
    guest.keep("a", &bytes).await;
    let (a, b) = (object("pictures", "a"), object("pictures", "b"));
    refused(
        "no such container",
        &guest.ask("copy", json!([a, object("raw", "a")])).await,
    );
    refused("no object", &guest.ask("move", json!([b, a])).await);
    for same in ["copy", "move"] {
        assert_eq!(guest.ask(same, json!([a, a])).await, ok());
        refused("no object", &guest.ask(same, json!([b, b])).await);
    }
    assert_eq!(guest.ask("copy", json!([a, b])).await, ok());
    assert_eq!(guest.look("b", 0, u64::MAX).await, list(&bytes));
    guest.ask("make", json!(["raw"])).await;
    assert_eq!(guest.ask("move", json!([a, object("raw", "c")])).await, ok());
    let there = guest.ask("look", json!(["raw", "c", 0, bytes.len()])).await;
    assert_eq!(there, list(&bytes));
    assert_eq!(
        guest.ask("has", json!(["pictures", "a"])).await,
        json!({"ok": false})
    );
    assert_eq!(guest.objects().kept().chunks.len(), 4);
}

#[tokio::test]
async fn a_name_is_any_text_of_its_length() {
    let guest = keeper(&["pictures"]);
    let longest = "n".repeat(MAX_OBJECT_NAME_BYTES);
    let odd = [
        " ", ".", "..", "../a", "a/b", "a.b", "*", ">", "a\0b", "a\r\nb", "ü💥", "$JS", &longest,
    ];
    for name in odd {
        assert_eq!(guest.keep(name, name.as_bytes()).await, ok(), "{name:?}");
    }
    for name in odd {
        assert_eq!(guest.look(name, 0, 9999).await, list(name.as_bytes()), "{name:?}");
    }
    let named = guest.ask("names", json!(["pictures", 0, 99])).await;
    assert_eq!(named, json!({"ok": [odd, true]}));
    for name in [String::new(), format!("{longest}n")] {
        for (function, given) in [
            ("keep", json!(["pictures", name, []])),
            ("fill", json!(["pictures", name, 1])),
            ("look", json!(["pictures", name, 0, 0])),
            ("has", json!(["pictures", name])),
            ("info", json!(["pictures", name])),
            ("delete", json!(["pictures", name])),
            ("delete-all", json!(["pictures", ["a", name]])),
            (
                "copy",
                json!([object("pictures", &name), object("pictures", "a")]),
            ),
            (
                "move",
                json!([object("pictures", "a"), object("pictures", &name)]),
            ),
        ] {
            refused("1 to 1024 bytes", &guest.ask(function, given).await);
        }
    }
}

#[tokio::test]
async fn what_is_left_of_an_earlier_container_is_not_shown_and_is_removed_by_and_by() {
    let guest = keeper(&["pictures", "raw"]);
    let left = || guest.objects().kept().objects.len();
    for at in 0..MAX_NAMES + 3 {
        guest.objects().kept().put("raw", &format!("n{at:04}"));
    }
    let last = format!("n{:04}", MAX_NAMES + 2);
    guest.ask("make", json!(["raw"])).await;
    assert_eq!(left(), 3);
    let is_empty = async || {
        let names = guest.ask("names", json!(["raw", 0, 9])).await;
        assert_eq!(names, json!({"ok": [[], true]}));
        let has = guest.ask("has", json!(["raw", last])).await;
        assert_eq!(has, json!({"ok": false}));
        let copied = guest.ask("copy", json!([object("raw", &last), object("pictures", "a")]));
        refused("no object", &copied.await);
    };
    is_empty().await;
    // What is written now is its own, even under such a name.
    let kept = guest.ask("keep", json!(["raw", last, [1]])).await;
    assert_eq!(kept, ok());
    guest.ask("make", json!(["raw"])).await;
    assert_eq!(left(), 1);
    assert_eq!(guest.ask("delete", json!(["raw", last])).await, ok());
    is_empty().await;
}

#[tokio::test]
async fn names_come_in_pieces_and_their_end_is_told() {
    let guest = keeper(&["pictures", "raw"]);
    let count = MAX_NAMES + 1;
    for at in 0..count {
        guest.objects().kept().put("pictures", &format!("n{at:04}"));
    }
    let names = async |skip: u64, len: u64| {
        let given = json!(["pictures", exact(skip), exact(len)]);
        let answer = guest.ask("names", given).await;
        let names = answer["ok"][0].as_array().unwrap();
        let ends = [names.first(), names.last()].map(|name| name.and_then(Value::as_str).map(str::to_owned));
        (names.len(), ends, answer["ok"][1].as_bool().unwrap())
    };
    let ends = |first: &str, last: &str| [Some(first.to_owned()), Some(last.to_owned())];
    assert_eq!(names(0, 2).await, (2, ends("n0000", "n0001"), false));
    assert_eq!(names(998, 3).await, (3, ends("n0998", "n1000"), true));
    assert_eq!(names(998, 2).await, (2, ends("n0998", "n0999"), false));
    assert_eq!(
        names(0, u64::MAX).await,
        (MAX_NAMES, ends("n0000", "n0999"), false)
    );
    assert_eq!(names(u64::MAX, 1).await, (0, [None, None], true));
    assert_eq!(names(0, 0).await, (0, [None, None], false));
    let skipped =
        async |most: u64| guest.ask("skipped", json!(["pictures", exact(most)])).await["ok"].clone();
    assert_eq!(skipped(5).await, json!([5, false]));
    assert_eq!(skipped(u64::MAX).await, json!([count, true]));

    let many: Vec<_> = (0..count).map(|at| format!("n{at:04}")).collect();
    refused(
        "at most 1000 objects",
        &guest.ask("delete-all", json!(["pictures", many])).await,
    );
    assert_eq!(
        guest.ask("delete-all", json!(["pictures", many[1..]])).await,
        ok()
    );
    assert_eq!(guest.ask("delete", json!(["pictures", "never"])).await, ok());
    assert_eq!(names(0, 9).await, (1, ends("n0000", "n0000"), true));
}

#[tokio::test]
async fn what_has_no_name_or_no_end_is_no_object() {
    let guest = keeper(&["pictures"]);
    let bytes = CHUNK_BYTES + 1;
    let leave = async |how: u32| guest.ask("leave", json!(["pictures", "a", bytes, how])).await;
    assert_eq!(leave(0).await, ok(), "dropped");
    refused("to no object", &leave(1).await);
    refused("before", &leave(2).await);
    let trapped = named("leave", args(json!(["pictures", "a", bytes, 3])));
    assert_eq!(
        guest.code(trapped).await,
        ErrorCode::GuestTrapped,
        "its body is open"
    );
    refused("no body", &guest.ask("twice", json!([])).await);
    assert_eq!(
        guest.ask("has", json!(["pictures", "a"])).await,
        json!({"ok": false})
    );
    let kept = guest.objects().kept();
    assert_eq!(
        (kept.chunks.len(), kept.discarded),
        (0, 4),
        "nothing stays of what was left"
    );
}

#[tokio::test]
async fn an_object_has_no_more_bytes_than_it_may() {
    let guest = keeper(&["pictures"]).timeout_ms(60_000);
    let most = guest
        .ask("fill", json!(["pictures", "a", MAX_OBJECT_BYTES]))
        .await;
    assert!(most.get("ok").is_some(), "{most}");
    let chunks = (MAX_OBJECT_BYTES / CHUNK_BYTES) as usize;
    for endless in [MAX_OBJECT_BYTES + 1, u64::MAX] {
        let refusal = guest.ask("fill", json!(["pictures", "b", exact(endless)])).await;
        refused("an object has at most 67108864 bytes", &refusal);
        assert_eq!(guest.objects().kept().chunks.len(), chunks);
    }
    // More than is given as a whole, and exactly so much.
    let weigh = async |start: u64| {
        guest
            .ask("weigh", json!(["pictures", "a", start, MAX_WHOLE_BYTES]))
            .await
    };
    refused("as a stream", &weigh(0).await);
    assert_eq!(weigh(1).await, json!({"ok": MAX_WHOLE_BYTES}));
}

#[tokio::test]
async fn a_run_holds_no_more_than_it_may() {
    let guest = keeper(&["pictures"]);
    for asked in [MAX_BODIES, 100] {
        assert_eq!(guest.ask("hold-bodies", json!([asked])).await, json!(MAX_BODIES));
    }
    guest.results(named("hold-values", args(json!([1000])))).await;
    let too_many = named("hold-values", args(json!([3000])));
    assert_eq!(guest.code(too_many).await, ErrorCode::GuestTrapped);
    assert_eq!(
        guest.keep("a", b"hello").await,
        ok(),
        "what one run holds is not the next one's"
    );
}

#[tokio::test]
async fn a_store_that_fails_is_told_in_the_interfaces_own_words() {
    let guest = keeper(&["pictures"]);
    guest.keep("a", b"hello").await;
    for (fault, why) in [
        (ObjectFault::Unavailable, "the object store is unavailable"),
        (ObjectFault::Full, "takes no more"),
    ] {
        guest.objects().kept().failing = Some(fault);
        for (function, given) in [
            ("make", json!(["pictures"])),
            ("called", json!(["pictures"])),
            ("exists", json!(["pictures"])),
            ("remove", json!(["pictures"])),
            ("copy", json!([object("pictures", "a"), object("pictures", "b")])),
        ] {
            refused(why, &guest.ask(function, given).await);
        }
    }
    guest.objects().kept().failing = None;
    assert_eq!(guest.look("a", 0, 9).await, list(b"hello"));
}

#[tokio::test]
async fn bytes_that_are_not_those_that_were_written_are_never_taken_for_an_object() {
    let guest = keeper(&["pictures"]);
    let bytes = pattern(CHUNK_BYTES + 5);
    let end = bytes.len() as u64;
    guest.keep("a", &bytes).await;
    let rot = |change: fn(&mut Vec<u8>)| {
        let mut kept = guest.objects().kept();
        let chunk = kept.chunks.values_mut().next_back().unwrap();
        let mut bytes = chunk.to_vec();
        change(&mut bytes);
        *chunk = bytes.into();
    };
    rot(|bytes| bytes[0] ^= 1);
    refused("damaged", &guest.look("a", 0, end).await);
    refused(
        "damaged",
        &guest.ask("tally", json!(["pictures", "a", 0, end, ""])).await,
    );
    refused(
        "damaged",
        &guest
            .ask("copy", json!([object("pictures", "a"), object("pictures", "b")]))
            .await,
    );
    assert_eq!(
        guest.ask("has", json!(["pictures", "b"])).await,
        json!({"ok": false})
    );
    rot(|bytes| bytes.truncate(1));
    refused("damaged", &guest.look("a", CHUNK_BYTES, end).await);
    // What lies before it is whole.
    assert_eq!(guest.look("a", 0, 3).await, list(&bytes[..4]));
}

#[tokio::test]
async fn an_object_that_goes_while_it_is_read_breaks_off() {
    let guest = keeper(&["pictures"]);
    guest.keep("a", &pattern(CHUNK_BYTES + 5)).await;
    let answer = guest
        .ask("tally", json!(["pictures", "a", 0, exact(u64::MAX), "a"]))
        .await;
    refused("replaced or deleted", &answer);
}

#[tokio::test]
async fn a_deadline_ends_what_waits_and_nothing_stays_of_it() {
    let guest = keeper(&["pictures"]).timeout_ms(300);
    guest.objects().kept().stuck_at = Some(2);
    let endless = named("fill", args(json!(["pictures", "a", exact(u64::MAX)])));
    assert_eq!(guest.code(endless).await, ErrorCode::DeadlineExceeded);
    let kept = guest.objects().kept();
    assert_eq!((kept.chunks.len(), kept.discarded), (0, 1));
    assert!(kept.objects.is_empty());
}
