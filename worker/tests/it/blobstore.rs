//! Objects that components keep in JetStream, through `wasi:blobstore`: shared by workers, apart from other modules', gone
//! when they are deleted.

use async_nats::jetstream::{self, stream};
use serde_json::{Value, json};
use wess_harness::{Signal, eventually, guest};
use wess_schemas::subject::ObjectSubjects;
use wess_schemas::{ErrorCode, Module, Tenant};

use crate::faults::answers_again;
use crate::rig::{Caller, Rig, Worker, refused};

const STORE: &str = "OBJ_wess-objects-default";
const CHUNK_BYTES: u64 = 128 << 10;

impl Caller {
    /// What a function of `guests/component/keeper.wat` answers.
    async fn kept(&self, module: &str, function: &str, args: Value) -> Value {
        let call = json!({"module": module, "function": function, "args": args});
        let results = self.invoke(call).await.unwrap().results;
        results.unwrap_or_default().pop().unwrap_or_default()
    }

    async fn keeper(&self, name: &str, containers: Value) {
        let stored = self.store(name, guest("keeper")).await;
        let settings = json!({"grants": {"blobstore": containers}});
        let store = json!({"name": name, "digest": stored.digest, "settings": settings});
        let _: Module = self.ask_json("wess.store", &store).await.unwrap();
    }

    /// Waits until the object store holds so many messages.
    async fn store_holds(&self, messages: u64) {
        let jetstream = jetstream::new(self.client.clone());
        let what = format!("{STORE} to hold {messages} messages");
        eventually(&what, async || {
            let stream = jetstream.get_stream(STORE).await.ok()?;
            (stream.cached_info().state.messages == messages).then_some(())
        })
        .await;
    }
}

fn ok() -> Value {
    json!({"ok": null})
}

#[track_caller]
fn told(why: &str, answer: &Value) {
    let text = answer["err"].as_str();
    assert!(
        text.is_some_and(|text| text.contains(why)),
        "{answer} does not say {why}"
    );
}

async fn keeping() -> Rig {
    let rig = Rig::with(&["--executors", "1"], &["upper"]).await;
    rig.caller.keeper("keeper", json!(["pictures", "raw"])).await;
    rig
}

impl Rig {
    async fn kept(&self, function: &str, args: Value) -> Value {
        self.caller.kept("keeper", function, args).await
    }
}

#[tokio::test]
async fn an_object_is_the_same_for_every_worker_and_nothing_of_an_old_one_stays() {
    let rig = keeping().await;
    let _other = Worker::start(&rig.nats, &[]);
    rig.worker.shows("wess_worker_fleet_workers", 2).await;
    let made = rig.kept("make", json!(["pictures"])).await;
    assert!(
        made["ok"]["created-at"].as_u64().unwrap() > 1_700_000_000,
        "{made}"
    );

    let bytes = 5 * CHUNK_BYTES + 3;
    rig.kept("fill", json!(["pictures", "a/b ü.png", 2 * CHUNK_BYTES]))
        .await;
    let filled = rig.kept("fill", json!(["pictures", "a/b ü.png", bytes])).await;
    for _ in 0..8 {
        let tally = rig
            .kept(
                "tally",
                json!(["pictures", "a/b ü.png", 0, "18446744073709551615", ""]),
            )
            .await;
        assert_eq!(tally, json!({"ok": [bytes, bytes, filled["ok"]]}));
    }
    let part = rig
        .kept(
            "tally",
            json!(["pictures", "a/b ü.png", CHUNK_BYTES - 1, 3 * CHUNK_BYTES, ""]),
        )
        .await;
    assert_eq!(part["ok"][1], json!(2 * CHUNK_BYTES + 2));
    let info = rig.kept("info", json!(["pictures", "a/b ü.png"])).await;
    assert_eq!(
        (&info["ok"]["size"], &info["ok"]["container"]),
        (&json!(bytes), &json!("pictures"))
    );
    // The container, the object, its chunks.
    rig.caller.store_holds(1 + 1 + 6).await;

    let (a, b) = (object("pictures", "a/b ü.png"), object("pictures", "b"));
    assert_eq!(rig.kept("copy", json!([a, b])).await, ok());
    assert_eq!(rig.kept("move", json!([b, object("pictures", "c")])).await, ok());
    let names = rig.kept("names", json!(["pictures", 0, 9])).await;
    assert_eq!(names, json!({"ok": [["a/b ü.png", "c"], true]}));
    assert_eq!(rig.kept("delete", json!(["pictures", "a/b ü.png"])).await, ok());
    assert_eq!(
        rig.kept("has", json!(["pictures", "a/b ü.png"])).await,
        json!({"ok": false})
    );
    rig.caller.store_holds(1 + 1 + 6).await;
    assert_eq!(rig.kept("remove", json!(["pictures"])).await, ok());
    assert_eq!(
        rig.kept("exists", json!(["pictures"])).await,
        json!({"ok": false})
    );
    rig.caller.store_holds(0).await;
}

fn object(container: &str, name: &str) -> Value {
    json!({"container": container, "object": name})
}

#[tokio::test]
async fn modules_have_their_containers_to_themselves_and_only_those_that_are_granted() {
    let rig = keeping().await;
    rig.caller.keeper("other", json!(["pictures"])).await;
    rig.caller.store("bare", guest("keeper")).await;
    for module in ["keeper", "other"] {
        rig.caller.kept(module, "make", json!(["pictures"])).await;
        let mine = json!(["pictures", "a", module.as_bytes()]);
        assert_eq!(rig.caller.kept(module, "keep", mine).await, ok());
    }
    rig.caller
        .kept("other", "keep", json!(["pictures", "b", []]))
        .await;
    let look = json!(["pictures", "a", 0, 9]);
    let seen = rig.caller.kept("keeper", "look", look).await;
    assert_eq!(seen, json!({"ok": {"base64": "a2VlcGVy"}}));
    let names = rig.kept("names", json!(["pictures", 0, 9])).await;
    assert_eq!(names, json!({"ok": [["a"], true]}));
    told(
        "not granted",
        &rig.caller.kept("other", "make", json!(["raw"])).await,
    );
    told(
        "not granted",
        &rig.caller.kept("bare", "make", json!(["pictures"])).await,
    );
    rig.kept("remove", json!(["pictures"])).await;
    let theirs = rig.caller.kept("other", "names", json!(["pictures", 0, 9])).await;
    assert_eq!(theirs, json!({"ok": [["a", "b"], true]}));
    rig.is_unharmed().await;
}

#[tokio::test]
async fn many_write_one_object_at_once_and_one_of_them_is_there_whole() {
    let rig = keeping().await;
    rig.kept("make", json!(["pictures"])).await;
    let bytes = |at: u64| 2 * CHUNK_BYTES + at;
    let fills = (1..=12).map(|at| rig.kept("fill", json!(["pictures", "a", bytes(at)])));
    let fills = futures_util::future::join_all(fills).await;
    let tally = rig
        .kept("tally", json!(["pictures", "a", 0, "18446744073709551615", ""]))
        .await;
    let size = tally["ok"][0].as_u64().unwrap();
    let winner = &fills[(size - bytes(1)) as usize];
    assert_eq!(
        (&tally["ok"][1], &tally["ok"][2]),
        (&json!(size), &winner["ok"]),
        "{fills:?}"
    );
    rig.caller.store_holds(1 + 1 + 3).await;
    rig.is_unharmed().await;
}

#[tokio::test]
async fn what_an_endless_writer_and_one_that_is_cut_off_have_written_is_removed() {
    let rig = keeping().await;
    rig.kept("make", json!(["pictures"])).await;
    let endless = rig
        .kept("fill", json!(["pictures", "a", "18446744073709551615"]))
        .await;
    told("at most 67108864 bytes", &endless);
    rig.caller.store_holds(1).await;
    let call = json!({"module": "keeper", "function": "fill", "args": ["pictures", "a", 64 << 20], "limits": {"timeout_ms": 30}});
    refused(ErrorCode::DeadlineExceeded, rig.caller.invoke(call).await);
    rig.caller.store_holds(1).await;
    assert_eq!(
        rig.kept("has", json!(["pictures", "a"])).await,
        json!({"ok": false})
    );
    rig.is_unharmed().await;
}

#[tokio::test]
async fn a_store_that_is_away_or_lost_is_told_and_found_again() {
    let rig = keeping().await;
    rig.kept("make", json!(["pictures"])).await;
    assert_eq!(rig.kept("keep", json!(["pictures", "a", [104, 105]])).await, ok());
    let (mut nats, caller) = (rig.nats, rig.caller);
    // Killed and back without JetStream, which has all that is stored.
    nats.restart_with("jetstream: false");
    answers_again(&caller, "upper", "hello").await;
    let away = caller
        .kept("keeper", "look", json!(["pictures", "a", 0, 9]))
        .await;
    told("unavailable", &away);
    nats.restart_with("");
    caller.is_back().await;
    let back = eventually("the object to be found", async || {
        let looked = caller
            .kept("keeper", "look", json!(["pictures", "a", 0, 9]))
            .await;
        looked.get("ok").cloned()
    });
    assert_eq!(back.await, json!({"base64": "aGk="}));

    let jetstream = jetstream::new(caller.client.clone());
    jetstream.delete_stream(STORE).await.unwrap();
    eventually("the store to be made anew", async || {
        let made = caller.kept("keeper", "make", json!(["pictures"])).await;
        made.get("ok").map(drop)
    })
    .await;
    told(
        "no object",
        &caller
            .kept("keeper", "look", json!(["pictures", "a", 0, 9]))
            .await,
    );
    rig.worker.comes_to_rest().await;
}

/// Lets everybody connect and do everything, but takes no chunks, and tells nobody so.
const MUTE: &str = r#"
    authorization { users: [{ user: anybody, password: "", permissions: { publish: { allow: ">", deny: [
        "$O.wess-objects-default.C.>" ] } } }] }
    no_auth_user: anybody"#;

#[tokio::test]
async fn a_store_that_does_not_answer_is_told_and_no_run_outlives_its_deadline() {
    let rig = keeping().await;
    rig.kept("make", json!(["pictures"])).await;
    let (mut nats, caller) = (rig.nats, rig.caller);
    nats.restart_with(MUTE);
    answers_again(&caller, "upper", "hello").await;
    let keep = |timeout_ms: u64| {
        json!({"module": "keeper", "function": "keep", "args": ["pictures", "a", [104, 105]],
            "limits": {"timeout_ms": timeout_ms}})
    };
    refused(ErrorCode::DeadlineExceeded, caller.invoke(keep(1000)).await);
    let answer = caller.invoke(keep(20_000)).await.unwrap().results.unwrap();
    told("unavailable", &answer[0]);
    nats.restart_with("");
    answers_again(&caller, "upper", "hello").await;
    assert_eq!(
        caller.kept("keeper", "has", json!(["pictures", "a"])).await,
        json!({"ok": false})
    );
    rig.worker.comes_to_rest().await;
}

/// Gives the object store other bounds; -1 is none.
async fn bound(caller: &Caller, max_bytes: i64, max_messages: i64) {
    let jetstream = caller.jetstream();
    let stream = jetstream.get_stream(STORE).await.unwrap();
    let config = stream::Config {
        max_bytes,
        max_messages,
        ..stream.cached_info().config.clone()
    };
    jetstream.update_stream(config).await.unwrap();
}

#[tokio::test]
async fn a_full_store_takes_no_more_and_keeps_what_it_has() {
    let rig = keeping().await;
    rig.kept("make", json!(["pictures"])).await;
    let bytes = 2 * CHUNK_BYTES + 3;
    let first = rig.kept("fill", json!(["pictures", "a", bytes])).await;
    let is_whole = async || {
        let all = json!(["pictures", "a", 0, "18446744073709551615", ""]);
        assert_eq!(
            rig.kept("tally", all).await,
            json!({"ok": [bytes, bytes, first["ok"]]})
        );
    };
    rig.caller.store_holds(1 + 1 + 3).await;
    // Full before the first chunk; then with the last one, so that there is no room for what would make them an object.
    for (max_bytes, max_messages) in [(3 * CHUNK_BYTES as i64, -1), (-1, 1 + 1 + 3 + 3)] {
        bound(&rig.caller, max_bytes, max_messages).await;
        for name in ["a", "b"] {
            let refused = rig.kept("fill", json!(["pictures", name, bytes])).await;
            told("takes no more", &refused);
            rig.caller.store_holds(1 + 1 + 3).await;
        }
        told(
            "takes no more",
            &rig.kept("copy", json!([object("pictures", "a"), object("pictures", "b")]))
                .await,
        );
        is_whole().await;
        let names = rig.kept("names", json!(["pictures", 0, 9])).await;
        assert_eq!(names, json!({"ok": [["a"], true]}));
        rig.caller.store_holds(1 + 1 + 3).await;
    }
    // What is deleted makes room.
    bound(&rig.caller, 4 * CHUNK_BYTES as i64, -1).await;
    assert_eq!(rig.kept("delete", json!(["pictures", "a"])).await, ok());
    rig.caller.store_holds(1).await;
    let second = rig.kept("fill", json!(["pictures", "b", bytes])).await;
    assert_eq!(second, first);
    rig.is_unharmed().await;
}

#[tokio::test]
async fn an_operator_bounds_the_store_that_a_worker_makes() {
    let rig = Rig::with(&["--objects-mb", "1"], &[]).await;
    rig.caller.keeper("keeper", json!(["pictures"])).await;
    rig.kept("make", json!(["pictures"])).await;
    let jetstream = rig.caller.jetstream();
    let stream = jetstream.get_stream(STORE).await.unwrap();
    assert_eq!(stream.cached_info().config.max_bytes, 1 << 20);
    let large = rig.kept("fill", json!(["pictures", "a", 8 * CHUNK_BYTES])).await;
    told("takes no more", &large);
    rig.caller.store_holds(1).await;
    let small = rig.kept("fill", json!(["pictures", "a", 7 * CHUNK_BYTES])).await;
    assert!(small.get("ok").is_some(), "{small}");
    rig.is_unharmed().await;
}

#[tokio::test]
async fn what_is_written_while_its_container_goes_is_refused_or_goes_too() {
    let rig = Rig::with(&["--executors", "1"], &[]).await;
    rig.caller.keeper("keeper", json!(["pictures"])).await;
    let bytes = CHUNK_BYTES + 1;
    for round in 0..20 {
        rig.kept("make", json!(["pictures"])).await;
        rig.kept("fill", json!(["pictures", "a", bytes])).await;
        let names: [&str; 4] = ["a", "b", "c", "d"];
        let fills = names.map(|name| rig.kept("fill", json!(["pictures", name, bytes])));
        let (removed, filled) = tokio::join!(
            rig.kept("remove", json!(["pictures"])),
            futures_util::future::join_all(fills)
        );
        assert_eq!(removed, ok());
        for answer in filled {
            if answer.get("ok").is_none() {
                told("make it first", &answer);
            }
        }
        let exists = rig.kept("exists", json!(["pictures"])).await;
        assert_eq!(exists, json!({"ok": false}), "round {round}");
        rig.caller.store_holds(0).await;
    }
    rig.is_unharmed().await;
}

#[tokio::test]
async fn a_container_whose_deletion_was_cut_off_is_empty_when_it_is_made_again() {
    let rig = keeping().await;
    rig.kept("make", json!(["pictures"])).await;
    for name in ["a", "b"] {
        let kept = rig.kept("keep", json!(["pictures", name, [104, 105]])).await;
        assert_eq!(kept, ok());
    }
    // Whoever deletes a container begins with this, and may be killed then.
    let subjects = ObjectSubjects::new(&Tenant::default(), "keeper".parse().unwrap());
    let stream = rig.caller.jetstream().get_stream(STORE).await.unwrap();
    let gone = stream
        .purge()
        .filter(subjects.container("pictures"))
        .await
        .unwrap();
    assert_eq!(gone.purged, 1);
    rig.caller.store_holds(2 + 2).await;
    assert_eq!(
        rig.kept("exists", json!(["pictures"])).await,
        json!({"ok": false})
    );
    rig.kept("make", json!(["raw"])).await;
    let taken = json!([object("pictures", "a"), object("raw", "a")]);
    told("make it first", &rig.kept("copy", taken).await);

    // Neither is anything shown before what is left is removed: as if the new one were made by somebody who removes nothing.
    let last = async |subject: String| stream.get_last_raw_message_by_subject(&subject).await.unwrap();
    let left = last(subjects.object("pictures", "a")).await;
    rig.kept("make", json!(["pictures"])).await;
    rig.caller.store_holds(1 + 1).await;
    let jetstream = rig.caller.jetstream();
    let made = last(subjects.container("pictures")).await;
    for message in [left, made] {
        let sent = jetstream.publish(message.subject, message.payload).await.unwrap();
        sent.await.unwrap();
    }
    is_empty(&rig).await;
    assert_eq!(rig.kept("keep", json!(["pictures", "a", [104]])).await, ok());
    let names = rig.kept("names", json!(["pictures", 0, 9])).await;
    assert_eq!(names, json!({"ok": [["a"], true]}));
    rig.is_unharmed().await;
}

/// Nothing is found in the container `pictures`, by no way.
async fn is_empty(rig: &Rig) {
    let names = rig.kept("names", json!(["pictures", 0, 9])).await;
    assert_eq!(names, json!({"ok": [[], true]}));
    let has = rig.kept("has", json!(["pictures", "a"])).await;
    assert_eq!(has, json!({"ok": false}));
    told(
        "no object",
        &rig.kept("look", json!(["pictures", "a", 0, 9])).await,
    );
    told("no object", &rig.kept("info", json!(["pictures", "a"])).await);
    let taken = json!([object("pictures", "a"), object("raw", "a")]);
    told("no object", &rig.kept("copy", taken).await);
}

#[tokio::test]
async fn a_container_whose_deleter_was_killed_is_empty_when_it_is_made_again() {
    let rig = keeping().await;
    rig.kept("make", json!(["pictures"])).await;
    rig.kept("make", json!(["raw"])).await;
    let names: Vec<_> = (0..300).map(|at| format!("n{at}")).chain(["a".into()]).collect();
    let keeps = names
        .iter()
        .map(|name| rig.kept("keep", json!(["pictures", name, [104]])));
    assert!(
        futures_util::future::join_all(keeps)
            .await
            .iter()
            .all(|kept| *kept == ok())
    );
    let subjects = ObjectSubjects::new(&Tenant::default(), "keeper".parse().unwrap());
    let stream = rig.caller.jetstream().get_stream(STORE).await.unwrap();
    let removing = rig
        .caller
        .begin(json!({"module": "keeper", "function": "remove", "args": ["pictures"]}));
    eventually("the container to go", async || {
        let container = subjects.container("pictures");
        let last = stream.get_last_raw_message_by_subject(&container).await;
        last.is_err().then_some(())
    })
    .await;
    rig.worker.process.signal(Signal::KILL);
    removing.abort();
    let rig = Rig {
        worker: Worker::start(&rig.nats, &["--executors", "1"]),
        ..rig
    };
    rig.kept("make", json!(["pictures"])).await;
    is_empty(&rig).await;
    rig.is_unharmed().await;
}
