pub(crate) mod server;

use self::server::{Script, ScriptedServer, Step, response};
use super::*;

const LIMIT: usize = 1000;

fn caller(timeout_ms: u64) -> HttpCaller {
    HttpCaller::new(HttpOptions {
        hosts: vec!["127.0.0.1".to_owned()],
        allow_private_addresses: true,
        timeout: Duration::from_millis(timeout_ms),
        body_limit: LIMIT,
    })
    .unwrap()
}

async fn post(caller: &HttpCaller, url: &Url) -> Result<HttpResponse, FetchError> {
    let body = Bytes::from_static(b"{}");
    caller.send(&Method::POST, url, HeaderMap::new(), Some(body)).await
}

/// Sends a request to a server with this script; the result, and the server's requests.
async fn post_to(
    script: Script,
    timeout_ms: u64,
) -> (Result<HttpResponse, FetchError>, Vec<String>) {
    let server = ScriptedServer::start(vec![script]).await;
    let result = post(&caller(timeout_ms), &server.url("/invoices?token=hunter2")).await;
    (result, server.requests())
}

fn write(text: &str) -> Step {
    Step::Write(text.to_owned())
}

/// Never reached.
const LONG_TIMEOUT_MS: u64 = 60_000;

type KindCheck = fn(&FetchErrorKind) -> bool;

#[tokio::test]
async fn http_caller_any_status_is_a_response() {
    for status in [200, 201, 204, 302, 404, 429, 500, 503] {
        let body = if status == 204 { "" } else { "result" };
        let (result, requests) =
            post_to(vec![Step::Read, response(status, body)], LONG_TIMEOUT_MS).await;
        let result = result.unwrap();
        assert_eq!((result.status.as_u16(), &result.body[..]), (status, body.as_bytes()));
        assert_eq!((result.truncated_by, result.retry_after), (None, None));
        assert!(
            requests[0].starts_with("POST /invoices?token=hunter2 HTTP/1.1\r\n"),
            "{requests:?}"
        );
        assert!(requests[0].ends_with("\r\n\r\n{}"), "{requests:?}");
    }
}

#[tokio::test]
async fn http_caller_redirect_is_not_followed() {
    let server = ScriptedServer::start(vec![vec![
        Step::Read,
        write("HTTP/1.1 307 x\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"),
        Step::Read,
        response(200, ""),
    ]])
    .await;
    let result = post(&caller(LONG_TIMEOUT_MS), &server.url("/")).await.unwrap();
    assert_eq!(result.status, 307);
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn http_caller_retry_after_is_returned() {
    let busy = write("HTTP/1.1 429 x\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n");
    let (result, _) = post_to(vec![Step::Read, busy], LONG_TIMEOUT_MS).await;
    assert_eq!(result.unwrap().retry_after, Some(Duration::from_secs(7)));
}

#[tokio::test]
async fn http_caller_lost_response_may_have_arrived() {
    let interrupted = |kind: &FetchErrorKind| *kind == FetchErrorKind::Interrupted;
    let timeout = |kind: &FetchErrorKind| matches!(kind, FetchErrorKind::Timeout(_));
    let cases: [(Script, u64, KindCheck); 6] = [
        // Closed before the request was read.
        (vec![], LONG_TIMEOUT_MS, interrupted),
        (vec![Step::Read], LONG_TIMEOUT_MS, interrupted),
        (vec![Step::Read, write("HTTP/1.1 201 x\r\nContent-")], LONG_TIMEOUT_MS, interrupted),
        (vec![Step::Read, write("what?\r\n\r\n")], LONG_TIMEOUT_MS, interrupted),
        (vec![Step::Read, Step::KeepOpen], 200, timeout),
        (vec![Step::KeepOpen], 200, timeout),
    ];
    for (steps, timeout_ms, is_expected) in cases {
        let steps_text = format!("{steps:?}");
        let (result, _) = post_to(steps, timeout_ms).await;
        let error = result.unwrap_err();
        assert!(is_expected(&error.kind), "{steps_text}: {error:?}");
        assert!(error.may_have_arrived(), "{steps_text}: {error:?}");
        let text = format!("{:#}", anyhow::Error::from(error));
        assert!(text.starts_with("POST 127.0.0.1:") && text.contains("/invoices: "), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[tokio::test]
async fn http_caller_without_connection_has_not_arrived() {
    // The server no longer listens.
    let closed = ScriptedServer::start(vec![]).await;
    while tokio::net::TcpStream::connect(("127.0.0.1", closed.port())).await.is_ok() {}
    let refused = post(&caller(LONG_TIMEOUT_MS), &closed.url("/")).await.unwrap_err();
    // The server does not speak TLS.
    let plain = ScriptedServer::start(vec![vec![write("HTTP/1.1 400 x\r\n\r\n")]]).await;
    let secure = format!("https://127.0.0.1:{}/", plain.port()).parse().unwrap();
    let plain = post(&caller(LONG_TIMEOUT_MS), &secure).await.unwrap_err();
    // The server accepts the connection and never starts TLS.
    let mute = ScriptedServer::start(vec![vec![Step::KeepOpen]]).await;
    let secure = format!("https://127.0.0.1:{}/", mute.port()).parse().unwrap();
    let mute = post(&caller(400), &secure).await.unwrap_err();
    for error in [refused, plain, mute] {
        assert_eq!(error.kind, FetchErrorKind::Unreachable, "{error:?}");
        assert!(!error.may_have_arrived());
    }
    // The host is not allowed.
    let other = "https://127.0.0.2/".parse().unwrap();
    let error = post(&caller(LONG_TIMEOUT_MS), &other).await.unwrap_err();
    assert_eq!(error.kind, FetchErrorKind::Blocked);
    assert!(!error.may_have_arrived());
}

#[tokio::test]
async fn http_caller_incomplete_body_keeps_status() {
    let head = "HTTP/1.1 201 x\r\nContent-Length: 10\r\n\r\nhalf";
    let chunked = "HTTP/1.1 201 x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let exactly = "y".repeat(LIMIT);
    let cases: [(Script, u64, Option<FetchErrorKind>, usize); 4] = [
        (vec![Step::Read, write(head)], LONG_TIMEOUT_MS, Some(FetchErrorKind::Interrupted), 4),
        (
            vec![Step::Read, write(head), Step::KeepOpen],
            400,
            Some(FetchErrorKind::Timeout(Duration::from_millis(400))),
            4,
        ),
        (
            vec![Step::Read, write(chunked), Step::WriteEndlessly],
            LONG_TIMEOUT_MS,
            Some(FetchErrorKind::TooLarge(LIMIT)),
            LIMIT,
        ),
        (vec![Step::Read, response(201, &exactly)], LONG_TIMEOUT_MS, None, LIMIT),
    ];
    for (steps, timeout_ms, cut, length) in cases {
        let (result, _) = post_to(steps, timeout_ms).await;
        let result = result.unwrap();
        assert_eq!((result.status.as_u16(), result.body.len()), (201, length));
        assert_eq!(result.truncated_by, cut);
    }
}

#[tokio::test]
async fn http_caller_lost_pooled_connection_is_not_retried() {
    // The second request uses the connection of the first.
    let server = ScriptedServer::start(vec![
        vec![Step::Read, response(200, ""), Step::Read],
        vec![Step::Read],
    ])
    .await;
    let caller = caller(LONG_TIMEOUT_MS);
    post(&caller, &server.url("/1")).await.unwrap();
    let error = post(&caller, &server.url("/2")).await.unwrap_err();
    assert_eq!(error.kind, FetchErrorKind::Interrupted);
    assert!(error.may_have_arrived());
    assert_eq!(server.requests().len(), 2);
}
