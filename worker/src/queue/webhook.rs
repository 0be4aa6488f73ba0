//! POST to the URL that a job names: only to hosts that the operator allows, signed, and tried again while it fails.
//!
//! Follows no redirect: it would lead to a host that nobody allowed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use ring::hmac;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wess_schemas::header::{JOB_ID, SIGNATURE};
use wess_schemas::{ErrorBody, ErrorCode, JobId};

/// How long one POST may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Webhooks under way at once; jobs wait for room, with their permits.
const MAX_UNDER_WAY: usize = 256;
/// The pauses between tries, of which there is one more.
const PAUSES: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(4),
    Duration::from_secs(15),
    Duration::from_secs(40),
];

/// Where jobs may be told of.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct WebhookOptions {
    /// Hosts that webhooks of jobs may be sent to, with commas between; an entry may say a port. None unless told.
    #[arg(
        long,
        env = "WESS_WEBHOOK_HOSTS",
        value_name = "HOST,…",
        value_delimiter = ','
    )]
    pub webhook_hosts: Vec<String>,
    /// The key that webhooks are signed with.
    #[arg(long, env = "WESS_WEBHOOK_KEY", value_name = "KEY", hide_env_values = true)]
    pub webhook_key: Option<String>,
}

/// The way to URLs. Cheap to clone.
#[derive(Clone)]
pub struct Webhooks {
    hosts: Vec<String>,
    key: Vec<u8>,
    /// Absent without hosts: it takes a megabyte.
    client: Option<Client>,
    under_way: Arc<Semaphore>,
    /// Webhooks that nobody took.
    pub failed: Counter,
}

impl Webhooks {
    /// Sends to the hosts that the options name.
    pub fn new(options: &WebhookOptions) -> Result<Self, reqwest::Error> {
        let client = match options.webhook_hosts.is_empty() {
            true => None,
            false => Some(client()?),
        };
        Ok(Self {
            hosts: options.webhook_hosts.clone(),
            key: options.webhook_key.clone().unwrap_or_default().into_bytes(),
            client,
            under_way: Arc::new(Semaphore::new(MAX_UNDER_WAY)),
            failed: Counter::default(),
        })
    }

    /// Refuses a URL that nothing may be sent to.
    pub fn check(&self, url: &str) -> Result<Url, ErrorBody> {
        let invalid = |why: String| ErrorBody::new(ErrorCode::InvalidRequest, why);
        let parsed = Url::parse(url).map_err(|error| invalid(format!("webhook is no URL: {error}")))?;
        if !matches!(parsed.scheme(), "http" | "https")
            || !parsed.username().is_empty()
            || parsed.password().is_some()
        {
            return Err(invalid(
                "webhook must be an http or https URL without a user".into(),
            ));
        }
        if self.key.is_empty() || self.hosts.is_empty() {
            let text =
                "webhooks are off: the operator names hosts by --webhook-hosts and a key by --webhook-key";
            return Err(ErrorBody::new(ErrorCode::Unsupported, text));
        }
        let host = parsed.host_str().unwrap_or_default();
        let with_port = parsed
            .port_or_known_default()
            .map(|port| format!("{host}:{port}"));
        let allowed = |entry: &String| entry == host || Some(entry) == with_port.as_ref();
        if self.hosts.iter().any(allowed) {
            return Ok(parsed);
        }
        let text =
            format!("webhooks may not be sent to {host:?}: the operator allows hosts by --webhook-hosts");
        Err(ErrorBody::new(ErrorCode::Forbidden, text))
    }

    /// Waits until one more may be under way.
    pub async fn room(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.under_way).acquire_owned().await.ok()
    }

    /// Posts a body until somebody takes it, or for the last time.
    pub async fn post(&self, url: &str, job_id: &JobId, body: Bytes) {
        let Ok(url) = self.check(url) else {
            self.failed.inc();
            return tracing::warn!(%job_id, "a job names a webhook that is not allowed any more");
        };
        for pause in PAUSES.map(Some).into_iter().chain([None]) {
            match self.try_once(url.clone(), job_id, body.clone()).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(%job_id, host = url.host_str(), error, "a webhook was not taken")
                }
            }
            if let Some(pause) = pause {
                tokio::time::sleep(pause).await;
            }
        }
        self.failed.inc();
    }

    async fn try_once(&self, url: Url, job_id: &JobId, body: Bytes) -> Result<(), String> {
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        let client = self.client.as_ref().ok_or("webhooks are off")?;
        let request = client
            .post(url)
            .header("content-type", "application/json")
            .header(JOB_ID, job_id.as_str())
            .header(SIGNATURE, signature(&self.key, now, &body))
            .body(body);
        let answer = request
            .send()
            .await
            .map_err(|error| error.without_url().to_string())?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            status => Err(format!("it answered {status}")),
        }
    }
}

fn client() -> Result<Client, reqwest::Error> {
    // Another part of the process may have chosen the same already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .redirect(Policy::none())
        .timeout(TIMEOUT)
        .no_proxy()
        .build()
}

/// `t=<seconds since 1970>,v1=<hex of HMAC-SHA256 over "<t>.<body>">`: a receiver checks both, and so refuses old messages.
fn signature(key: &[u8], seconds: i64, body: &[u8]) -> String {
    let mut signing = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    signing.update(format!("{seconds}.").as_bytes());
    signing.update(body);
    let hex: String = signing
        .sign()
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("t={seconds},v1={hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn webhooks(hosts: &[&str], key: Option<&str>) -> Webhooks {
        let webhook_hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        Webhooks::new(&WebhookOptions {
            webhook_hosts,
            webhook_key: key.map(Into::into),
        })
        .unwrap()
    }

    #[test]
    fn a_signature_is_that_of_the_time_and_the_body() {
        // printf '1.{}' | openssl dgst -sha256 -hmac key
        let expected = "t=1,v1=1ba6b8171186efc613e8bcc0cbdab2748f24984d7c5a84faa2637afa0e40d224";
        assert_eq!(signature(b"key", 1, b"{}"), expected);
        assert_ne!(signature(b"key", 1, b"{}"), signature(b"key", 2, b"{}"));
        assert_ne!(signature(b"key", 1, b"{}"), signature(b"kex", 1, b"{}"));
    }

    #[test]
    fn only_allowed_hosts_are_sent_to() {
        let some = webhooks(&["hooks.example.com", "127.0.0.1:8080"], Some("key"));
        for good in [
            "https://hooks.example.com/a?b",
            "http://hooks.example.com:99",
            "http://127.0.0.1:8080/",
        ] {
            assert!(some.check(good).is_ok(), "{good}");
        }
        for (bad, code) in [
            ("https://example.com", ErrorCode::Forbidden),
            ("http://127.0.0.1:8081/", ErrorCode::Forbidden),
            (
                "http://hooks.example.com@evil.example/",
                ErrorCode::InvalidRequest,
            ),
            ("http://hooks.example.com.evil.example/", ErrorCode::Forbidden),
            ("ftp://hooks.example.com", ErrorCode::InvalidRequest),
            ("hooks.example.com", ErrorCode::InvalidRequest),
        ] {
            assert_eq!(some.check(bad).unwrap_err().code(), code, "{bad}");
        }
    }

    #[test]
    fn without_hosts_or_a_key_there_are_no_webhooks() {
        for off in [webhooks(&[], Some("key")), webhooks(&["a.example"], None)] {
            assert_eq!(
                off.check("https://a.example").unwrap_err().code(),
                ErrorCode::Unsupported
            );
        }
    }
}
