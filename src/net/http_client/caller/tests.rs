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

/// What came of a call to a server that plays this, and what it heard.
async fn play(play: Script, timeout_ms: u64) -> (Result<HttpResponse, FetchError>, Vec<String>) {
    let server = ScriptedServer::start(vec![play]).await;
    let told = post(&caller(timeout_ms), &server.url("/invoices?token=hunter2")).await;
    (told, server.requests())
}

fn say(text: &str) -> Step {
    Step::Write(text.to_owned())
}

/// Long enough never to strike.
const PATIENT: u64 = 60_000;

/// What must be so.
type Test = fn(&FetchErrorKind) -> bool;

#[tokio::test]
async fn an_answer_is_one_whatever_its_status() {
    for status in [200, 201, 204, 302, 404, 429, 500, 503] {
        let body = if status == 204 { "" } else { "told" };
        let (told, heard) = play(vec![Step::Read, response(status, body)], PATIENT).await;
        let told = told.unwrap();
        assert_eq!((told.status.as_u16(), &told.body[..]), (status, body.as_bytes()));
        assert_eq!((told.truncated_by, told.retry_after), (None, None));
        assert!(heard[0].starts_with("POST /invoices?token=hunter2 HTTP/1.1\r\n"), "{heard:?}");
        assert!(heard[0].ends_with("\r\n\r\n{}"), "{heard:?}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let server = ScriptedServer::start(vec![vec![
        Step::Read,
        say("HTTP/1.1 307 x\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"),
        Step::Read,
        response(200, ""),
    ]])
    .await;
    let told = post(&caller(PATIENT), &server.url("/")).await.unwrap();
    assert_eq!(told.status, 307);
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn what_it_asks_to_wait_is_told() {
    let busy = say("HTTP/1.1 429 x\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n");
    let (told, _) = play(vec![Step::Read, busy], PATIENT).await;
    assert_eq!(told.unwrap().retry_after, Some(Duration::from_secs(7)));
}

#[tokio::test]
async fn what_was_never_sent_is_told_from_what_may_have_been() {
    let interrupted = |cause: &FetchErrorKind| *cause == FetchErrorKind::Interrupted;
    let timeout = |cause: &FetchErrorKind| matches!(cause, FetchErrorKind::Timeout(_));
    let cases: [(Script, u64, Test); 6] = [
        // Closed before the request was read.
        (vec![], PATIENT, interrupted),
        (vec![Step::Read], PATIENT, interrupted),
        (vec![Step::Read, say("HTTP/1.1 201 x\r\nContent-")], PATIENT, interrupted),
        (vec![Step::Read, say("what?\r\n\r\n")], PATIENT, interrupted),
        (vec![Step::Read, Step::KeepOpen], 200, timeout),
        (vec![Step::KeepOpen], 200, timeout),
    ];
    for (steps, timeout_ms, is_cause) in cases {
        let shown = format!("{steps:?}");
        let (told, _) = play(steps, timeout_ms).await;
        let error = told.unwrap_err();
        assert!(is_cause(&error.kind), "{shown}: {error:?}");
        assert!(error.may_have_arrived(), "{shown}: {error:?}");
        let text = format!("{:#}", anyhow::Error::from(error));
        assert!(text.starts_with("POST 127.0.0.1:") && text.contains("/invoices: "), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[tokio::test]
async fn without_a_connection_nothing_arrives() {
    // Nobody listens there any more.
    let closed = ScriptedServer::start(vec![]).await;
    while tokio::net::TcpStream::connect(("127.0.0.1", closed.port())).await.is_ok() {}
    let refused = post(&caller(PATIENT), &closed.url("/")).await.unwrap_err();
    // Whoever answers there knows nothing of TLS.
    let plain = ScriptedServer::start(vec![vec![say("HTTP/1.1 400 x\r\n\r\n")]]).await;
    let secure = format!("https://127.0.0.1:{}/", plain.port()).parse().unwrap();
    let plain = post(&caller(PATIENT), &secure).await.unwrap_err();
    // It takes the connection and never greets.
    let mute = ScriptedServer::start(vec![vec![Step::KeepOpen]]).await;
    let secure = format!("https://127.0.0.1:{}/", mute.port()).parse().unwrap();
    let mute = post(&caller(400), &secure).await.unwrap_err();
    for error in [refused, plain, mute] {
        assert_eq!(error.kind, FetchErrorKind::Unreachable, "{error:?}");
        assert!(!error.may_have_arrived());
    }
    // We do not call there.
    let other = "https://127.0.0.2/".parse().unwrap();
    let error = post(&caller(PATIENT), &other).await.unwrap_err();
    assert_eq!(error.kind, FetchErrorKind::Blocked);
    assert!(!error.may_have_arrived());
}

#[tokio::test]
async fn a_status_outlives_its_body() {
    let head = "HTTP/1.1 201 x\r\nContent-Length: 10\r\n\r\nhalf";
    let chunked = "HTTP/1.1 201 x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let exactly = "y".repeat(LIMIT);
    let cases: [(Script, u64, Option<FetchErrorKind>, usize); 4] = [
        (vec![Step::Read, say(head)], PATIENT, Some(FetchErrorKind::Interrupted), 4),
        (
            vec![Step::Read, say(head), Step::KeepOpen],
            400,
            Some(FetchErrorKind::Timeout(Duration::from_millis(400))),
            4,
        ),
        (
            vec![Step::Read, say(chunked), Step::WriteEndlessly],
            PATIENT,
            Some(FetchErrorKind::TooLarge(LIMIT)),
            LIMIT,
        ),
        (vec![Step::Read, response(201, &exactly)], PATIENT, None, LIMIT),
    ];
    for (steps, timeout_ms, cut, length) in cases {
        let (told, _) = play(steps, timeout_ms).await;
        let told = told.unwrap();
        assert_eq!((told.status.as_u16(), told.body.len()), (201, length));
        assert_eq!(told.truncated_by, cut);
    }
}

#[tokio::test]
async fn on_a_kept_connection_that_breaks_a_request_is_not_repeated() {
    // The second call comes over the connection of the first.
    let server = ScriptedServer::start(vec![
        vec![Step::Read, response(200, ""), Step::Read],
        vec![Step::Read],
    ])
    .await;
    let caller = caller(PATIENT);
    post(&caller, &server.url("/1")).await.unwrap();
    let error = post(&caller, &server.url("/2")).await.unwrap_err();
    assert_eq!(error.kind, FetchErrorKind::Interrupted);
    assert!(error.may_have_arrived());
    assert_eq!(server.requests().len(), 2);
}
