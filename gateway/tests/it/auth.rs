//! Tokens and scopes on every route, and who is served without tokens.

use std::path::Path;

use sha2::Digest as _;
use tempfile::TempDir;
use wess_harness::eventually;
use wess_schemas::ErrorCode;

use crate::http::{get, send};
use crate::support::{House, Workers, golden, json};

pub fn entry(token: &str, scopes: &str) -> String {
    let hash: String = sha2::Sha256::digest(token)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("[[token]]\nname = \"{token}-name\"\nsha256 = \"{hash}\"\nscopes = [{scopes}]\n")
}

pub fn write(folder: &TempDir, contents: &str) -> String {
    let path = folder.path().join("tokens.toml");
    std::fs::write(&path, contents).unwrap();
    path.to_str().unwrap().to_owned()
}

async fn house(contents: &str) -> (House, TempDir) {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, contents);
    let workers = Workers::answering(|request| {
        let reply = if request.subject.ends_with("list") {
            "module-list"
        } else {
            "module"
        };
        Ok(json(&golden(reply)))
    });
    (House::with_options(workers, &["--tokens", &path]).await, folder)
}

async fn status(house: &House, method: &str, path: &str, token: &str) -> u16 {
    let bearer = format!("Bearer {token}");
    let body = if path == "/v1/invoke" {
        r#"{"module":"a"}"#
    } else {
        r#"{"steps":["a"]}"#
    };
    let body = if method == "POST" { body } else { "" };
    send(house.address, method, path, &[("Authorization", &bearer)], body)
        .await
        .status
}

#[tokio::test]
async fn each_route_asks_for_its_scope_and_no_other_will_do() {
    let tokens = ["invoke", "store", "admin"]
        .map(|scope| entry(scope, &format!("\"{scope}\"")))
        .concat();
    let (house, _folder) = house(&(tokens + &entry("reader", ""))).await;
    let routes = [
        ("POST", "/v1/modules?name=a", "store"),
        ("DELETE", "/v1/modules/a", "admin"),
        ("PUT", "/v1/modules/a/tags/stable?version=1", "admin"),
        ("DELETE", "/v1/modules/a/tags/stable", "admin"),
        ("POST", "/v1/invoke", "invoke"),
        ("POST", "/v1/modules/a/invoke", "invoke"),
        ("POST", "/v1/modules/a/invoke/run", "invoke"),
        ("POST", "/v1/chain", "invoke"),
        ("POST", "/v1/jobs", "invoke"),
        ("GET", "/v1/jobs", "invoke"),
        ("GET", "/v1/jobs/a", "invoke"),
        ("DELETE", "/v1/jobs/a", "invoke"),
        ("GET", "/v1/jobs/a/wait", "invoke"),
        ("GET", "/v1/dead", "admin"),
        ("DELETE", "/v1/dead?all=true", "admin"),
        ("GET", "/v1/dead/a", "admin"),
        ("DELETE", "/v1/dead/a", "admin"),
        ("POST", "/v1/dead/a/redrive", "admin"),
    ];
    for (method, path, scope) in routes {
        for token in ["invoke", "store", "admin", "reader"] {
            let answered = status(&house, method, path, token).await;
            assert_eq!(
                answered == 403,
                token != scope,
                "{method} {path} with {token}: {answered}"
            );
            assert_ne!(answered, 401);
        }
    }
    for path in ["/v1/modules", "/v1/modules/a"] {
        assert_eq!(status(&house, "GET", path, "reader").await, 200, "{path}");
        assert_eq!(get(house.address, path).await.status, 401);
    }
}

#[tokio::test]
async fn a_job_that_stores_asks_for_both_scopes() {
    let tokens = entry("both", r#""invoke", "store""#) + &entry("invoke", r#""invoke""#);
    let (house, _folder) = house(&tokens).await;
    let job = r#"{"store":{"name":"a","wasm_base64":"eA=="}}"#;
    for (token, refused) in [("invoke", true), ("both", false)] {
        let bearer = format!("Bearer {token}");
        let answer = send(
            house.address,
            "POST",
            "/v1/jobs",
            &[("Authorization", &bearer)],
            job,
        )
        .await;
        assert_eq!(answer.status == 403, refused, "{token}: {}", answer.status);
        if refused {
            assert_eq!(answer.problem().facts["scope"], "store");
        }
    }
}

#[tokio::test]
async fn refusals_say_what_is_missing_and_repeat_no_token() {
    let (house, _folder) = house(&entry("reader", "")).await;
    let none = get(house.address, "/v1/modules").await;
    assert_eq!(
        (none.status, none.header("www-authenticate")),
        (401, Some(r#"Bearer realm="wess""#))
    );
    assert_eq!(none.problem().code, ErrorCode::Unauthorized);
    for wrong in ["Bearer hush", "Bearer ", "Basic cmVhZGVy", "reader"] {
        let answer = send(
            house.address,
            "GET",
            "/v1/modules",
            &[("Authorization", wrong)],
            "",
        )
        .await;
        assert_eq!(answer.status, 401, "{wrong}");
        assert!(
            answer
                .header("www-authenticate")
                .unwrap()
                .contains("invalid_token")
        );
        assert!(!answer.text().contains("hush"));
    }
    let lacking = [("Authorization", "Bearer reader")];
    let answer = send(house.address, "DELETE", "/v1/modules/a", &lacking, "").await;
    let problem = answer.problem();
    assert_eq!((problem.status, problem.code), (403, ErrorCode::Forbidden));
    assert_eq!(problem.facts["scope"], "admin");
    assert!(
        answer
            .header("www-authenticate")
            .unwrap()
            .contains(r#"scope="admin""#)
    );
}

#[tokio::test]
async fn health_and_description_are_for_anyone() {
    let (house, _folder) = house(&entry("reader", "")).await;
    for path in ["/livez", "/readyz", "/openapi.json"] {
        assert_eq!(get(house.address, path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn a_changed_file_holds_without_a_restart() {
    let (house, folder) = house(&entry("old", "")).await;
    assert_eq!(status(&house, "GET", "/v1/modules", "old").await, 200);
    // Another file under the same name, as a mounted secret changes.
    let next = folder.path().join("next.toml");
    std::fs::write(&next, entry("new", "")).unwrap();
    std::fs::rename(&next, Path::new(&folder.path().join("tokens.toml"))).unwrap();
    eventually("the new token", async || {
        (status(&house, "GET", "/v1/modules", "new").await == 200).then_some(())
    })
    .await;
    assert_eq!(status(&house, "GET", "/v1/modules", "old").await, 401);
}

#[tokio::test]
async fn without_tokens_pages_of_other_sites_are_refused() {
    let house = House::start(Workers::answering(|_| Ok(json(&golden("module-list"))))).await;
    let answer = send(
        house.address,
        "GET",
        "/v1/modules",
        &[("Origin", "https://evil.example")],
        "",
    )
    .await;
    assert_eq!(
        (answer.status, answer.problem().code),
        (403, ErrorCode::Forbidden)
    );
    assert_eq!(
        send(
            house.address,
            "GET",
            "/v1/modules",
            &[("Origin", "http://localhost:3000")],
            ""
        )
        .await
        .status,
        200
    );
}
