//! Serves HTTP: says hello and which path was asked for.

wit_bindgen::generate!({ path: "../wit", world: "hello", generate_all });

use exports::wasi::http::incoming_handler::Guest;
use wasi::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};

struct Hello;

impl Guest for Hello {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_else(|| "/".into());
        let headers = Fields::from_list(&[("content-type".into(), b"text/plain".to_vec())]).expect("allowed headers");
        let response = OutgoingResponse::new(headers);
        let body = response.body().expect("asked for once");
        let stream = body.write().expect("asked for once");
        ResponseOutparam::set(out, Ok(response));
        stream.blocking_write_and_flush(format!("hello from {path}\n").as_bytes()).expect("a client");
        // The stream has to go before its body, and the body has to be finished: else the response breaks off.
        drop(stream);
        OutgoingBody::finish(body, None).expect("a client");
    }
}

export!(Hello);
