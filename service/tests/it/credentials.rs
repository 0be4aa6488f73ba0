//! Every way to authenticate, against a server that demands it, and a rotated file used at the next connect.

use async_nats::ConnectErrorKind;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use wess_harness::{NatsServer, eventually};

use crate::support::config;

fn file(contents: &str) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), contents).unwrap();
    file
}

async fn connects(server: &NatsServer, args: &[&str]) -> Result<(), ConnectErrorKind> {
    let url = server.url();
    let args = [&["--nats", &url], args].concat();
    config(&args)
        .connect("test")
        .await
        .map(drop)
        .map_err(|error| error.source.kind())
}

#[tokio::test]
async fn user_and_password() {
    let server = NatsServer::builder()
        .config("authorization { user: wess, password: hush }")
        .start();
    assert_eq!(
        connects(&server, &["--nats-user", "wess", "--nats-password", "hush"]).await,
        Ok(())
    );
}

#[tokio::test]
async fn a_token() {
    let server = NatsServer::builder()
        .config("authorization { token: hush }")
        .start();
    assert_eq!(connects(&server, &["--nats-token", "hush"]).await, Ok(()));
}

#[tokio::test]
async fn a_server_that_refuses_us_is_not_waited_for() {
    let server = NatsServer::builder()
        .config("authorization { token: hush }")
        .start();
    let refused = Err(ConnectErrorKind::AuthorizationViolation);
    assert_eq!(connects(&server, &[]).await, refused);
    assert_eq!(
        connects(&server, &["--nats-token", "wrong", "--nats-wait"]).await,
        refused
    );
}

#[tokio::test]
async fn a_rotated_nkey_file_is_used_at_the_next_connect() {
    let authorization =
        |key: &KeyPair| format!("authorization {{ users: [ {{ nkey: {} }} ] }}", key.public_key());
    let (first, second) = (KeyPair::new_user(), KeyPair::new_user());
    let seed = file(&first.seed().unwrap());
    let mut server = NatsServer::builder().config(&authorization(&first)).start();
    let args = [
        "--nats",
        &server.url(),
        "--nats-nkey",
        seed.path().to_str().unwrap(),
    ];
    let mut connection = config(&args).connect("test").await.unwrap();
    std::fs::write(seed.path(), second.seed().unwrap()).unwrap();
    server.restart_with(&authorization(&second));
    assert!(connection.watch.reconnected().await.unwrap().connected);
}

#[tokio::test]
async fn a_rotated_credentials_file_is_used_at_the_next_connect() {
    let issuer = Issuer::new();
    let creds = file(&issuer.creds("first"));
    let mut server = NatsServer::builder().config(&issuer.server_config(&[])).start();
    let args = [
        "--nats",
        &server.url(),
        "--nats-creds",
        creds.path().to_str().unwrap(),
    ];
    let mut connection = config(&args).connect("test").await.unwrap();
    let revoked = creds_user(creds.path());
    server.restart_with(&issuer.server_config(&[&revoked]));
    let refused = async || server.log().contains("authentication error").then_some(());
    eventually("the refusal of the revoked user", refused).await;
    std::fs::write(creds.path(), issuer.creds("second")).unwrap();
    assert!(connection.watch.reconnected().await.unwrap().connected);
}

/// An operator and an account: what `nsc` would make.
struct Issuer {
    operator: KeyPair,
    account: KeyPair,
}

impl Issuer {
    fn new() -> Self {
        Self {
            operator: KeyPair::new_operator(),
            account: KeyPair::new_account(),
        }
    }

    /// A server of this operator that holds this account, without the revoked users.
    fn server_config(&self, revoked: &[&str]) -> String {
        let revocations: Value = revoked
            .iter()
            .map(|user| ((*user).to_owned(), json!(now() + 60)))
            .collect();
        let unlimited = json!({ "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "conn": -1, "leaf": -1, "wildcards": true });
        let account =
            json!({ "type": "account", "version": 2, "limits": unlimited, "revocations": revocations });
        let operator = json!({ "type": "operator", "version": 2 });
        let operator = jwt(&self.operator, &self.operator, "operator", &operator);
        let account = jwt(&self.operator, &self.account, "account", &account);
        let key = self.account.public_key();
        // JetStream of the harness needs a system account in operator mode; any account will do.
        format!(
            "operator: {operator}\nresolver: MEMORY\nresolver_preload: {{ {key}: {account} }}\nsystem_account: {key}"
        )
    }

    fn creds(&self, name: &str) -> String {
        let user = KeyPair::new_user();
        let claims = json!({ "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1, "pub": {}, "sub": {} });
        let (jwt, seed) = (jwt(&self.account, &user, name, &claims), user.seed().unwrap());
        format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
    }
}

fn creds_user(path: &std::path::Path) -> String {
    let creds = std::fs::read_to_string(path).unwrap();
    let seed = creds.lines().find(|line| line.starts_with("SU")).unwrap();
    KeyPair::from_seed(seed).unwrap().public_key()
}

fn jwt(issuer: &KeyPair, subject: &KeyPair, name: &str, claims: &Value) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let head = encode(&json!({ "typ": "JWT", "alg": "ed25519-nkey" }));
    let body = json!({
        "jti": name, "iat": now(), "iss": issuer.public_key(), "sub": subject.public_key(), "name": name, "nats": claims,
    });
    let signed = format!("{head}.{}", encode(&body));
    let signature = URL_SAFE_NO_PAD.encode(issuer.sign(signed.as_bytes()).unwrap());
    format!("{signed}.{signature}")
}

fn now() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()
}
