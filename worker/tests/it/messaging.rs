//! Messages that components send over NATS, through `wasi:messaging`.

use futures_util::StreamExt;
use serde_json::{Value, json};
use wess_schemas::Module;

use crate::rig::Rig;

impl Rig {
    /// What `send` of `guests/component/messenger.wat` answers.
    async fn sent(&self, topic: &str, data: Value, metadata: Value) -> Value {
        self.called("send", json!([topic, data, "text/plain", metadata]))
            .await
    }

    async fn called(&self, function: &str, args: Value) -> Value {
        let call = json!({"module": "messenger", "function": function, "args": args});
        let results = self.caller.invoke(call).await.unwrap().results;
        results.unwrap_or_default().pop().unwrap_or_default()
    }

    async fn grant(&self, settings: Value) {
        let newest = "wess.modules.get.messenger";
        let newest: Module = self.caller.ask_json(newest, &json!({})).await.unwrap();
        let store = json!({"name": "messenger", "digest": newest.digest, "settings": settings});
        let _: Module = self.caller.ask_json("wess.store", &store).await.unwrap();
    }
}

#[tokio::test]
async fn a_component_sends_where_its_module_may_and_nowhere_else() {
    let rig = Rig::start(&["messenger"]).await;
    let mut heard = rig.caller.client.subscribe("orders.>").await.unwrap();
    // The server knows of the subscription before anything is sent.
    rig.caller.client.flush().await.unwrap();
    let denied = rig.sent("orders.new", json!([104, 105]), json!([])).await;
    assert!(denied["err"]["permission-denied"].is_string(), "{denied}");

    rig.grant(json!({"grants": {"publish": ["orders.*", "audit.>"]}}))
        .await;
    for topic in [
        "orders.new.eu",
        "orders",
        "wess.store",
        "$JS.API.INFO",
        "orders.*",
        "orders.a b",
        "orders.x\r\n",
        "",
    ] {
        let denied = rig.sent(topic, json!([]), json!([])).await;
        assert!(
            denied["err"]["permission-denied"].is_string(),
            "{topic}: {denied}"
        );
    }
    let forged = rig
        .sent("orders.new", json!([]), json!([["Nats-Rollup", "all"]]))
        .await;
    assert!(forged["err"]["permission-denied"].is_string(), "{forged}");
    // Small enough for us; its headers make it too large for the server.
    let large = rig
        .called("send-bytes", json!(["orders.new", (1 << 20) - 10]))
        .await;
    let why = large["err"]["other"].as_str().unwrap_or_default();
    assert!(why.contains("larger than the NATS server takes"), "{large}");

    let sent = rig
        .sent("orders.new", json!([104, 105]), json!([["tenant", "a ü"]]))
        .await;
    assert_eq!(sent, json!({"ok": null}));
    let message = heard.next().await.unwrap();
    assert_eq!(
        (message.subject.as_str(), &message.payload[..]),
        ("orders.new", &b"hi"[..])
    );
    let headers = message.headers.unwrap();
    assert_eq!(headers.get("tenant").unwrap().as_str(), "a ü");
    assert_eq!(headers.get("Content-Type").unwrap().as_str(), "text/plain");
    rig.is_unharmed().await;
}
