//! Bad requests: each is refused with its code, and the message names what is wrong. No guest runs for them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use wess_harness::{NatsServer, guest};
use wess_schemas::module::Abi;
use wess_schemas::{ErrorCode, header};

use crate::rig::{Rig, parse, refused, refused_naming, wat};
use crate::support::{assets, digest_of};

#[tokio::test]
async fn a_missing_module_version_tag_or_function_is_named() {
    let rig = Rig::start(&["math", "cat"]).await;
    for (target, code, named) in [
        ("nobody", ErrorCode::ModuleNotFound, "nobody"),
        ("math@7", ErrorCode::ModuleNotFound, "version 7"),
        ("math@stable", ErrorCode::ModuleNotFound, "tag stable"),
        (
            "0190e5a4-7b1c-7000-8000-000000000000",
            ErrorCode::ModuleNotFound,
            "0190e5a4",
        ),
        ("math.nope", ErrorCode::FunctionNotFound, "nope"),
        ("cat.main", ErrorCode::FunctionNotFound, "main"),
        ("math", ErrorCode::InvalidRequest, "divmod"),
        ("MATH", ErrorCode::InvalidRequest, "MATH"),
        ("math@0", ErrorCode::InvalidRequest, "math@0"),
    ] {
        let error = refused_naming(code, named, rig.caller.raw(target, "").await);
        assert!(error.job_id.is_some() && !error.error.retryable, "{target}");
    }
    let unknown = json!({"module": format!("sha256:{}", "0".repeat(64))});
    refused(ErrorCode::ModuleNotFound, rig.caller.invoke(unknown).await);
    rig.is_unharmed().await;
}

#[tokio::test]
async fn arguments_that_do_not_fit_are_refused_by_position() {
    let rig = Rig::start(&["cat", "upper"]).await;
    for (request, named) in [
        (
            json!({"module": "add", "args": [1]}),
            "2 arguments (i32, i32), but 1",
        ),
        (json!({"module": "add", "args": [1, 2, 3]}), "but 3"),
        (json!({"module": "add"}), "but 0"),
        (json!({"module": "add", "args": [1, [2]]}), "args[1] is an array"),
        (json!({"module": "add", "args": [1, true]}), "a boolean"),
        (json!({"module": "add", "input": "one and two"}), "JSON"),
        (json!({"module": "cat", "args": ["-x", {}]}), "args[1]"),
        (json!({"module": "upper", "args": ["a"]}), "2 arguments"),
    ] {
        refused_naming(
            ErrorCode::InvalidArguments,
            named,
            rig.caller.invoke(request).await,
        );
    }
    let both = json!({"module": "add", "args": [1, 2], "input": "[1,2]"});
    refused_naming(
        ErrorCode::InvalidRequest,
        "exclude",
        rig.caller.invoke(both).await,
    );
    refused(ErrorCode::InvalidArguments, rig.caller.raw("add", "[1").await);
    rig.is_unharmed().await;
}

#[tokio::test]
async fn a_body_that_breaks_the_contract_is_refused_and_what_is_wrong_is_named() {
    let rig = Rig::start(&[]).await;
    for (subject, body, named) in [
        ("wess.invoke", "{]", "line 1"),
        ("wess.invoke", "", "EOF"),
        ("wess.invoke", r#"{"input":"a"}"#, "`module`"),
        ("wess.invoke", r#"{"module":"add","inputs":1}"#, "`inputs`"),
        ("wess.invoke", r#"{"module":"add","limits":{"cpu":1}}"#, "`cpu`"),
        (
            "wess.invoke",
            r#"{"module":"add","limits":{"memory_mb":513}}"#,
            "memory_mb",
        ),
        (
            "wess.invoke",
            r#"{"module":"add","limits":{"timeout_ms":0}}"#,
            "timeout_ms",
        ),
        ("wess.invoke", r#"{"module":"add","wait_ms":120001}"#, "wait_ms"),
        (
            "wess.invoke",
            r#"{"module":"add","input":1,"input_base64":""}"#,
            "exclude",
        ),
        ("wess.invoke", r#"{"module":"add","input_base64":"?"}"#, "base64"),
        ("wess.invoke", r#"{"module":"add","env":{"A=B":"1"}}"#, "env"),
        ("wess.invoke", r#"{"module":"Add"}"#, "Add"),
        ("wess.invoke", "\u{ff}\u{0}", "line 1"),
        ("wess.chain", "[]", "ChainRequest"),
        ("wess.store", r#"{"name":"a","wasm":"x"}"#, "`wasm`"),
        ("wess.modules.list", r#"{"page":1}"#, "`page`"),
        (
            "wess.modules.tag.add",
            r#"{"tag":"Stable","version":1}"#,
            "Stable",
        ),
        ("wess.modules.nope", "", "wess.modules.nope"),
    ] {
        refused_naming(
            ErrorCode::InvalidRequest,
            named,
            rig.caller.ask(subject, &[], body).await,
        );
    }
    let twice = rig
        .caller
        .ask(
            "wess.invoke",
            &[(header::FUEL, "5")],
            r#"{"module":"add","limits":{"fuel":5}}"#,
        )
        .await;
    refused_naming(ErrorCode::InvalidRequest, "limits.fuel", twice);
    rig.is_unharmed().await;
}

#[tokio::test]
async fn an_oversize_input_is_too_large_in_every_form() {
    let nats = NatsServer::builder().config("max_payload: 33554432").start();
    let rig = Rig::on(nats, &[], &["cat"]).await;
    let most = 10 << 20;
    let text = rig.caller.raw("cat", vec![b'a'; most]).await.unwrap();
    assert_eq!(text.payload.len(), most);
    let large = "a".repeat(most + 1);
    refused_naming(
        ErrorCode::PayloadTooLarge,
        "10485761",
        rig.caller.raw("cat", large.clone()).await,
    );
    let reference = json!({"object": "x", "digest": digest_of(b""), "size": most + 1});
    for request in [
        json!({"module": "cat", "input": large}),
        json!({"module": "cat", "input_base64": BASE64.encode(&large)}),
        json!({"module": "cat", "input_ref": reference}),
    ] {
        refused(ErrorCode::PayloadTooLarge, rig.caller.invoke(request).await);
    }
    let by_header = [(header::INPUT_REF, &*reference.to_string())];
    refused(
        ErrorCode::PayloadTooLarge,
        rig.caller.ask("wess.invoke.cat", &by_header, "").await,
    );
    refused(
        ErrorCode::PayloadTooLarge,
        rig.caller.chain(json!({"steps": ["cat"], "input": large})).await,
    );
    rig.is_unharmed().await;
}

#[tokio::test]
async fn a_module_is_stored_in_each_of_the_three_forms() {
    let rig = Rig::start(&[]).await;
    let wasm = guest("upper");
    let raw = rig.caller.store("raw", wasm.clone()).await;
    assert_eq!(
        (raw.abi, raw.version, raw.stored, raw.size),
        (Abi::Plugin, 1, Some(true), wasm.len() as u64)
    );
    assert_eq!(raw.digest, digest_of(&wasm));
    let within =
        json!({"name": "within", "wasm_base64": BASE64.encode(&wasm), "limits": {"timeout_ms": 100}});
    let within: wess_schemas::module::Module = rig.caller.ask_json("wess.store", &within).await.unwrap();
    assert_eq!((within.digest, within.limits.timeout_ms), (raw.digest, Some(100)));
    let upload = assets(&rig.nats).await.payloads().put(&wasm).await.unwrap();
    let upload = json!({"name": "upload", "digest": upload.digest, "object": upload.object});
    let uploaded: wess_schemas::module::Module = rig.caller.ask_json("wess.store", &upload).await.unwrap();
    assert_eq!(uploaded.digest, raw.digest);
    for name in ["raw", "within", "upload"] {
        assert_eq!(
            rig.caller.raw(name, "hello").await.unwrap().payload,
            "HELLO",
            "{name}"
        );
    }
    let list: Value = rig
        .caller
        .ask_json("wess.modules.list", &json!({}))
        .await
        .unwrap();
    let names: Vec<_> = list["modules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|module| &module["name"])
        .collect();
    assert_eq!(names, ["add", "raw", "upload", "within"]);
}

#[tokio::test]
async fn the_same_bytes_again_make_no_version_and_other_bytes_make_one_under_the_same_id() {
    let rig = Rig::start(&[]).await;
    let mut versions = Vec::new();
    for guest_name in ["upper", "upper", "in_place", "upper"] {
        let module = rig.caller.store("text", guest(guest_name)).await;
        versions.push((module.version, module.stored, module.propagated));
    }
    let stored = |version, is_new| (version, Some(is_new), Some(true));
    assert_eq!(
        versions,
        [
            stored(1, true),
            stored(1, false),
            stored(2, true),
            stored(3, true)
        ]
    );
    for (reference, output) in [("text@1", "HELLO"), ("text@2", "olleh"), ("text", "HELLO")] {
        assert_eq!(
            rig.caller.raw(reference, "hello").await.unwrap().payload,
            output,
            "{reference}"
        );
    }
}

#[tokio::test]
async fn a_store_request_that_names_no_module_or_no_bytes_is_refused() {
    let rig = Rig::start(&[]).await;
    let wasm = guest("add");
    let unnamed = rig.caller.ask("wess.store", &[], wasm.clone()).await;
    refused_naming(ErrorCode::InvalidRequest, header::MODULE, unnamed);
    for name in [
        "Upper",
        "a.b",
        "-a",
        "0190e5a4-7b1c-7000-8000-000000000000",
        "a@1",
    ] {
        refused_naming(
            ErrorCode::InvalidRequest,
            name,
            rig.caller.try_store(name, wasm.clone()).await,
        );
    }
    let payloads = assets(&rig.nats).await.payloads();
    let upload = payloads.put(&wasm).await.unwrap();
    for (request, named) in [
        (json!({"name": "a"}), "wasm_base64"),
        (json!({"name": "a", "wasm_base64": "?"}), "base64"),
        (
            json!({"name": "a", "wasm_base64": "", "digest": upload.digest, "object": upload.object}),
            "either",
        ),
        (
            json!({"name": "a", "digest": upload.digest, "object": "nothing-there"}),
            "nothing-there",
        ),
        (
            json!({"name": "a", "digest": digest_of(b"other"), "object": upload.object}),
            "digest",
        ),
        (
            json!({"name": "a", "wasm_base64": "AGFzbQ==", "limits": {"memory_mb": 513}}),
            "memory_mb",
        ),
    ] {
        let answered = rig.caller.ask_json::<Value>("wess.store", &request).await;
        refused_naming(ErrorCode::InvalidRequest, named, answered);
    }
    assert_eq!(
        rig.caller
            .ask_json::<Value>("wess.modules.list", &json!({}))
            .await
            .unwrap()["modules"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn what_is_no_module_is_invalid_and_said_to_be_what_it_is() {
    let rig = Rig::start(&[]).await;
    let add = guest("add");
    let mut wrong_magic = add.clone();
    wrong_magic[..4].copy_from_slice(&[0xde, 0xad, 0xbe, 0xef]);
    let mut wrong_code = add.clone();
    *wrong_code.last_mut().unwrap() = 0xff;
    for (bytes, named) in [
        (vec![], "no bytes"),
        (b"hello".to_vec(), "text"),
        (b"(module)".to_vec(), "WebAssembly text"),
        (vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0], "gzip"),
        (b"\x7fELF\x02\x01\x01".to_vec(), "ELF"),
        (wrong_magic, "magic number"),
        (add[..add.len() - 3].to_vec(), "not a valid WebAssembly module"),
        (wrong_code, "not a valid WebAssembly module"),
    ] {
        refused_naming(
            ErrorCode::InvalidModule,
            named,
            rig.caller.try_store("bad", bytes).await,
        );
    }
    rig.is_unharmed().await;
}

#[tokio::test]
async fn what_we_do_not_support_is_refused_by_its_name() {
    let rig = Rig::start(&[]).await;
    for (name, named) in [
        ("unknown_import", "env.launch_missiles"),
        ("wrong_import_type", "host.log"),
        ("imported_memory", "env.memory"),
        ("thread_spawn", "wasi.thread-spawn"),
        ("shared_memory", "threads"),
        ("atomics", "threads"),
        ("memory64", "memory64"),
        ("many_memories", "multi-memory"),
        ("exceptions", "exception-handling"),
        ("gc", "gc"),
        ("huge_memory", "65536 pages"),
        ("huge_table", "100000000"),
        ("no_exports", "exports no function"),
    ] {
        refused_naming(
            ErrorCode::UnsupportedModule,
            named,
            rig.caller.try_store("bad", guest(name)).await,
        );
    }
    let component = wat("(component)");
    refused_naming(
        ErrorCode::UnsupportedModule,
        "component",
        rig.caller.try_store("bad", component).await,
    );
    let huge = format!(
        "(module (func (export \"f\") (result i32) (i32.const 0) {}))",
        "(i32.add (i32.const 1))".repeat(200_000)
    );
    refused_naming(
        ErrorCode::UnsupportedModule,
        "function 0",
        rig.caller.try_store("bad", wat(&huge)).await,
    );
    refused(ErrorCode::ModuleNotFound, rig.caller.raw("bad", "").await);
    assert_eq!(
        rig.worker.metric("wess_worker_registry_compilations_total").await,
        1,
        "of the good module"
    );
    rig.is_unharmed().await;
}

#[tokio::test]
async fn a_module_larger_than_allowed_is_refused_with_its_size() {
    let nats = NatsServer::builder().config("max_payload: 8388608").start();
    let rig = Rig::on(nats, &["--max-module-mb", "1"], &[]).await;
    let large = wat(&format!(
        "(module (func (export \"f\")) (@custom \"padding\" \"{}\"))",
        "a".repeat(1 << 20)
    ));
    refused_naming(
        ErrorCode::PayloadTooLarge,
        "1 MiB",
        rig.caller.try_store("large", large.clone()).await,
    );
    let upload = assets(&rig.nats).await.payloads().put(&large).await.unwrap();
    let upload = json!({"name": "large", "digest": upload.digest, "object": upload.object});
    refused(
        ErrorCode::PayloadTooLarge,
        rig.caller.ask_json::<Value>("wess.store", &upload).await,
    );
    let reply = rig.caller.ask("wess.modules.list", &[], "").await.unwrap();
    assert_eq!(parse::<Value>(&reply)["modules"].as_array().unwrap().len(), 1);
}
