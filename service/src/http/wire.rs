//! HTTP heads as NATS headers, and the frames in which bodies travel that no message has room for.

use async_nats::HeaderMap as Facts;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use wess_schemas::header::{
    HTTP_AUTHORITY, HTTP_BODY, HTTP_CREDIT, HTTP_FRAME, HTTP_HEADERS, HTTP_METHOD, HTTP_PATH, HTTP_SCHEME,
    HTTP_SEQ, HTTP_STATUS, HTTP_TRAILERS,
};
use wess_schemas::{ErrorBody, ErrorCode};

use super::{MAX_HEADER_BYTES, fits};

/// The value of [`HTTP_BODY`] that announces frames.
const STREAM: &str = "stream";
/// The host that a request is for which names none.
const NOBODY: &str = "localhost";
/// Most bytes of header lines as JSON: every byte of them may be escaped.
const MAX_JSON_BYTES: usize = 8 * MAX_HEADER_BYTES;

/// What one message on an inbox says.
#[derive(Debug, PartialEq)]
pub enum Frame {
    /// The next piece of a body.
    Data(u64, Bytes),
    /// The body is complete.
    End(u64, Option<HeaderMap>),
    /// It will never be.
    Abort(Box<ErrorBody>),
    /// So many bytes more may be sent.
    Credit(u64),
    /// Somebody is there.
    Beat,
}

/// Whether a body follows in frames.
pub fn is_streamed(facts: &Facts) -> bool {
    text(facts, HTTP_BODY) == Some(STREAM)
}

/// Says that a body follows in frames.
pub fn announce_stream(facts: &mut Facts) {
    facts.insert(HTTP_BODY, STREAM);
}

/// Writes a request's head.
pub fn write_request(head: &http::request::Parts, facts: &mut Facts) {
    facts.insert(HTTP_METHOD, head.method.as_str());
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    facts.insert(HTTP_PATH, path);
    if let Some(authority) = head.uri.authority() {
        facts.insert(HTTP_AUTHORITY, authority.as_str());
    }
    if let Some(scheme) = head.uri.scheme_str() {
        facts.insert(HTTP_SCHEME, scheme);
    }
    write_lines(HTTP_HEADERS, &head.headers, facts);
}

/// Reads a request's head; what it does not say is as a plain caller would mean it.
pub fn read_request(facts: &Facts, has_body: bool) -> Result<http::request::Parts, ErrorBody> {
    let usual = if has_body { "POST" } else { "GET" };
    let method = text(facts, HTTP_METHOD).unwrap_or(usual);
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| invalid(HTTP_METHOD, "is no method"))?;
    let scheme = text(facts, HTTP_SCHEME).unwrap_or("http");
    if !matches!(scheme, "http" | "https") {
        return Err(invalid(HTTP_SCHEME, "is neither http nor https"));
    }
    let path = text(facts, HTTP_PATH).unwrap_or("/");
    if !path.starts_with('/') {
        return Err(invalid(HTTP_PATH, "does not begin with a slash"));
    }
    let uri = Uri::builder()
        .scheme(scheme)
        .authority(text(facts, HTTP_AUTHORITY).unwrap_or(NOBODY))
        .path_and_query(path)
        .build()
        .map_err(|_| invalid(HTTP_PATH, "and Wess-Http-Authority make no URI"))?;
    let (mut head, ()) = http::Request::new(()).into_parts();
    head.headers = read_lines(HTTP_HEADERS, facts)?.unwrap_or_default();
    (head.method, head.uri) = (method, uri);
    Ok(head)
}

/// Writes a response's head.
pub fn write_response(head: &http::response::Parts, facts: &mut Facts) {
    facts.insert(HTTP_STATUS, head.status.as_str());
    write_lines(HTTP_HEADERS, &head.headers, facts);
}

/// Reads a response's head; nothing if it is none.
pub fn read_response(facts: &Facts) -> Result<Option<http::response::Parts>, ErrorBody> {
    let Some(status) = text(facts, HTTP_STATUS) else {
        return Ok(None);
    };
    let (mut head, ()) = http::Response::new(()).into_parts();
    head.status =
        StatusCode::from_bytes(status.as_bytes()).map_err(|_| invalid(HTTP_STATUS, "is no status"))?;
    head.headers = read_lines(HTTP_HEADERS, facts)?.unwrap_or_default();
    Ok(Some(head))
}

/// Writes trailers, if there are any.
pub fn write_trailers(trailers: Option<&HeaderMap>, facts: &mut Facts) {
    if let Some(trailers) = trailers {
        write_lines(HTTP_TRAILERS, trailers, facts);
    }
}

/// Reads trailers.
pub fn read_trailers(facts: &Facts) -> Result<Option<HeaderMap>, ErrorBody> {
    read_lines(HTTP_TRAILERS, facts)
}

/// Writes a frame: its headers and its payload.
pub fn write_frame(frame: Frame) -> (Facts, Bytes) {
    let mut facts = Facts::new();
    let mut name = |kind: &str| facts.insert(HTTP_FRAME, kind);
    let mut payload = Bytes::new();
    match frame {
        Frame::Data(seq, data) => {
            name("data");
            facts.insert(HTTP_SEQ, seq.to_string());
            payload = data;
        }
        Frame::End(seq, trailers) => {
            name("end");
            facts.insert(HTTP_SEQ, seq.to_string());
            write_trailers(trailers.as_ref(), &mut facts);
        }
        Frame::Abort(error) => {
            name("abort");
            // Errors of ours always serialize.
            payload = serde_json::to_vec(&error).unwrap_or_default().into();
        }
        Frame::Credit(bytes) => {
            name("credit");
            facts.insert(HTTP_CREDIT, bytes.to_string());
        }
        Frame::Beat => name("beat"),
    }
    (facts, payload)
}

/// Reads a frame; nothing if the message is none.
pub fn read_frame(facts: &Facts, payload: Bytes) -> Result<Option<Frame>, ErrorBody> {
    let Some(kind) = text(facts, HTTP_FRAME) else {
        return Ok(None);
    };
    let number = |name: &'static str| {
        let number = text(facts, name).and_then(|number| number.parse().ok());
        number.ok_or_else(|| invalid(name, "is no number"))
    };
    let frame = match kind {
        "data" => Frame::Data(number(HTTP_SEQ)?, payload),
        "end" => Frame::End(number(HTTP_SEQ)?, read_trailers(facts)?),
        "abort" => Frame::Abort(Box::new(
            serde_json::from_slice(&payload).map_err(|_| invalid(HTTP_FRAME, "aborts without an error"))?,
        )),
        "credit" => Frame::Credit(number(HTTP_CREDIT)?),
        "beat" => Frame::Beat,
        _ => return Err(invalid(HTTP_FRAME, "is no kind of frame")),
    };
    Ok(Some(frame))
}

fn text<'a>(facts: &'a Facts, name: &'static str) -> Option<&'a str> {
    facts.get(name).map(|value| value.as_str())
}

fn invalid(name: &str, why: &str) -> ErrorBody {
    ErrorBody::new(ErrorCode::InvalidRequest, format!("the header {name} {why}"))
}

/// As pairs in JSON. Values are bytes, each of them written as the character of that number.
fn write_lines(name: &'static str, lines: &HeaderMap, facts: &mut Facts) {
    let pair = |(name, value): (&HeaderName, &HeaderValue)| {
        let value: String = value.as_bytes().iter().copied().map(char::from).collect();
        (name.as_str().to_owned(), value)
    };
    let pairs: Vec<(String, String)> = lines.iter().map(pair).collect();
    if !pairs.is_empty() {
        // Pairs of text always serialize, and JSON has no line breaks in it.
        facts.insert(name, serde_json::to_string(&pairs).unwrap_or_default());
    }
}

fn read_lines(name: &'static str, facts: &Facts) -> Result<Option<HeaderMap>, ErrorBody> {
    let Some(json) = text(facts, name) else {
        return Ok(None);
    };
    if json.len() > MAX_JSON_BYTES {
        return Err(invalid(name, "is too long"));
    }
    let wrong = || invalid(name, "is not a list of pairs of names and values in JSON");
    let pairs: Vec<(String, String)> = serde_json::from_str(json).map_err(|_| wrong())?;
    let mut lines = HeaderMap::new();
    for (name, value) in pairs {
        let value: Option<Vec<u8>> = value.chars().map(|c| u8::try_from(c).ok()).collect();
        let value = value.and_then(|value| HeaderValue::from_bytes(&value).ok());
        let line = name.parse::<HeaderName>().ok().zip(value);
        let (name, value) = line.ok_or_else(wrong)?;
        lines.try_append(name, value).map_err(|_| wrong())?;
    }
    if !fits(&lines) {
        return Err(invalid(name, "has more lines or bytes than a head may have"));
    }
    Ok(Some(lines))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_come_back_as_they_were_byte_for_byte() {
        let request = http::Request::builder()
            .method("PROPFIND")
            .uri("https://a.example:1/x%20y//z?q=%F0&r")
            .header("x-bytes", HeaderValue::from_bytes(b"a\xff\xe9\"\\").unwrap())
            .header("cookie", "a=1")
            .header("cookie", "b=2");
        let (head, ()) = request.body(()).unwrap().into_parts();
        let mut facts = Facts::new();
        write_request(&head, &mut facts);
        let back = read_request(&facts, false).unwrap();
        assert_eq!(
            (&back.method, &back.uri, &back.headers),
            (&head.method, &head.uri, &head.headers)
        );
        let response = http::Response::builder().status(418).header("x", "1");
        let (head, ()) = response.body(()).unwrap().into_parts();
        let mut facts = Facts::new();
        write_response(&head, &mut facts);
        let back = read_response(&facts).unwrap().unwrap();
        assert_eq!((back.status, back.headers), (head.status, head.headers));
    }

    #[test]
    fn a_plain_caller_may_leave_everything_out() {
        let head = read_request(&Facts::new(), false).unwrap();
        assert_eq!(
            (head.method, head.uri.to_string()),
            (Method::GET, "http://localhost/".into())
        );
        assert_eq!(read_request(&Facts::new(), true).unwrap().method, Method::POST);
    }

    #[test]
    fn heads_that_are_none_are_refused_by_the_name_of_the_header() {
        let many = format!("[{}]", vec![r#"["a","b"]"#; 257].join(","));
        for (name, value) in [
            (HTTP_METHOD, "A B"),
            (HTTP_SCHEME, "ftp"),
            (HTTP_PATH, "x"),
            (HTTP_HEADERS, "{}"),
            (HTTP_HEADERS, r#"[["a b","c"]]"#),
            (HTTP_HEADERS, r#"[["a","\n"]]"#),
            (HTTP_HEADERS, r#"[["a","€"]]"#),
            (HTTP_HEADERS, &many),
        ] {
            let mut facts = Facts::new();
            facts.insert(name, value);
            let refused = read_request(&facts, false).unwrap_err();
            assert!(
                refused.error.message.contains(name),
                "{value}: {}",
                refused.error.message
            );
        }
    }

    #[test]
    fn every_frame_comes_back() {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("1"));
        for frame in [
            || Frame::Data(7, "abc".into()),
            || Frame::End(8, None),
            || Frame::Credit(9),
            || Frame::Beat,
            || Frame::Abort(Box::new(ErrorBody::new(ErrorCode::Cancelled, "x"))),
        ] {
            let (facts, payload) = write_frame(frame());
            assert_eq!(read_frame(&facts, payload).unwrap(), Some(frame()));
        }
        let (facts, payload) = write_frame(Frame::End(1, Some(trailers.clone())));
        assert_eq!(
            read_frame(&facts, payload).unwrap(),
            Some(Frame::End(1, Some(trailers)))
        );
        assert_eq!(read_frame(&Facts::new(), Bytes::new()).unwrap(), None);
    }
}
