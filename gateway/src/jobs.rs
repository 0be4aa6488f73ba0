//! What the gateway reads of a submitted job in JSON: what it does, and where an input is that has to be uploaded.
//!
//! As with calls, a body is taken apart in place, and what is not read here, the worker judges.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use wess_schemas::invocation::Input;
use wess_schemas::payload::PayloadRef;
use wess_schemas::{Digest, JobId, ModuleName};

use crate::calls::{Body, Call, Chain, input};
use crate::problem::Problem;
use crate::workers::{RECORD_PATIENCE, Workers};

/// A JobRequest.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Job<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    job_id: Option<JobId>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    invoke: Option<Box<Call<'a>>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    chain: Option<Chain<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    store: Option<Store<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    retry: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    delay_ms: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    cron: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    time_zone: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    reply_to: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    webhook: Option<&'a RawValue>,
}

/// A StoreRequest.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Store<'a> {
    name: ModuleName,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    wasm_base64: Option<&'a RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    object: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    limits: Option<&'a RawValue>,
}

impl Job<'_> {
    /// Whether it stores a module.
    pub fn stores(&self) -> bool {
        self.store.is_some()
    }
}

impl Body for Job<'_> {
    /// It is accepted, not run, while its caller waits.
    fn patience(&self, _: &Workers) -> Duration {
        RECORD_PATIENCE
    }

    /// Of a job that is several, which the worker refuses, any.
    fn take_input(&mut self) -> Result<Input, Problem> {
        if let Some(call) = &mut self.invoke {
            call.take_input()
        } else if let Some(chain) = &mut self.chain {
            chain.take_input()
        } else {
            let wasm = self.store.as_mut().and_then(|store| store.wasm_base64.take());
            input(None, wasm, None)
        }
    }

    fn refer(&mut self, input: PayloadRef) {
        if let Some(call) = &mut self.invoke {
            call.refer(input);
        } else if let Some(chain) = &mut self.chain {
            chain.refer(input);
        } else if let Some(store) = &mut self.store {
            store.digest = Some(input.digest);
            store.object = Some(input.object.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bodies;
    use serde_json::{Value, json};

    fn reference() -> PayloadRef {
        let digest = "0".repeat(64);
        let text = format!(r#"{{"object":"o","digest":"sha256:{digest}","size":9}}"#);
        serde_json::from_str(&text).unwrap()
    }

    /// The job's input, and the job that is sent with a reference instead.
    fn referred(job: &Value) -> (Input, Value) {
        let body = job.to_string();
        let mut job: Job<'_> = bodies::json(body.as_bytes()).unwrap();
        let input = job.take_input().unwrap();
        job.refer(reference());
        (
            input,
            serde_json::from_slice(&serde_json::to_vec(&job).unwrap()).unwrap(),
        )
    }

    #[test]
    fn an_input_goes_out_of_whatever_the_job_does_and_all_else_stays() {
        let rest = json!({"job_id": "a", "retry": {"max_attempts": 2}, "delay_ms": 1, "cron": "x", "time_zone": "y", "reply_to": "z", "webhook": "w"});
        let with = |field: &str, what: Value| {
            let mut job = rest.clone();
            job[field] = what;
            job
        };
        let at = json!(reference());
        for field in ["invoke", "chain"] {
            let steps = if field == "chain" { "steps" } else { "module" };
            let value = if field == "chain" {
                json!(["a"])
            } else {
                json!("a")
            };
            let (input, sent) = referred(&with(field, json!({steps: value, "input": "hello"})));
            assert_eq!(input, Input::Bytes("hello".into()));
            assert_eq!(sent, with(field, json!({steps: value, "input_ref": at})));
        }
        let store = json!({"name": "a", "limits": {"fuel": 1}});
        let (input, sent) = referred(&with("store", {
            let mut store = store.clone();
            store["wasm_base64"] = json!("eHg=");
            store
        }));
        assert_eq!(input, Input::Bytes("xx".into()));
        let mut expected = store;
        expected["digest"] = at["digest"].clone();
        expected["object"] = json!("o");
        assert_eq!(sent, with("store", expected));
    }

    #[test]
    fn a_store_of_bytes_that_are_stored_already_is_left_as_it_is() {
        let digest = json!(reference().digest);
        let body = json!({"store": {"name": "a", "digest": digest, "object": "mine"}}).to_string();
        let mut job: Job<'_> = bodies::json(body.as_bytes()).unwrap();
        assert!(job.stores());
        assert_eq!(job.take_input().unwrap(), Input::Absent);
        assert_eq!(
            serde_json::from_slice::<Value>(&serde_json::to_vec(&job).unwrap()).unwrap(),
            serde_json::from_str::<Value>(&body).unwrap()
        );
    }

    #[test]
    fn what_a_client_can_make_large_stays_where_it_came() {
        let body =
            r#"{"store":{"name":"a","wasm_base64":"eA==","object":"o"},"webhook":"h","cron":"c","retry":{}}"#;
        let job: Job<'_> = bodies::json(body.as_bytes()).unwrap();
        let store = job.store.unwrap();
        for part in [store.wasm_base64, job.webhook, job.cron, job.retry] {
            let within = body.as_bytes().as_ptr_range();
            assert!(within.contains(&part.unwrap().get().as_ptr()));
        }
    }
}
