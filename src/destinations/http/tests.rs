use std::collections::BTreeMap;

use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::{
    app::Components,
    destinations::{DestinationResponse, Transport},
    net::{
        call_limiter::CallResult,
        http_client::server::{Script, ScriptedServer, Step, response},
    },
};

const KEY: Uuid = Uuid::from_u128(7);

/// A destination at this server, with further settings.
fn destination(server: &ScriptedServer, more: &str) -> HttpDestination {
    let text = format!(
        "[sources.vendors]\nkind = 'shopify'\nsecrets = ['env:TOKEN']\n\
         [destinations.accounting]\nkind = 'http'\nevents = ['invoice.created']\ntimeout_ms = 60000\n\
         url = '{}'\nallow_private_addresses = true\n\
         body = '{{\"vendor\": {{{{ vendor }}}}, \"due\": {{{{ due_on }}}}}}'\n{more}",
        server.text("/invoices")
    );
    let variables = BTreeMap::from([("TOKEN".to_owned(), "hunter2".to_owned())]);
    let components = Components::from_toml(&text, &variables).unwrap();
    let destinations = std::sync::Arc::into_inner(components.destinations).unwrap();
    match destinations.into_iter().next().unwrap().1.transport {
        Transport::Http(destination) => *destination,
        Transport::Amqp { .. } => panic!("not an HTTP destination"),
    }
}

/// Settings of a look-up by vendor and number.
fn lookup(server: &ScriptedServer) -> String {
    format!(
        "[destinations.accounting.response]\nid = '/id'\n[destinations.accounting.lookup]\n\
         url = '{}'\nid = '/invoices/0/id'\n\
         [destinations.accounting.lookup.matches]\n'/invoices/0/vendor' = 'vendor'\n",
        server.text("/invoices?of={tenant}&vendor={vendor}&number={number}")
    )
}

fn document() -> Value {
    json!({"vendor": "Müller & Söhne", "number": "A/1 ü&x=1", "due_on": null})
}

fn payload(document: &Value) -> DeliveryPayload<'_> {
    DeliveryPayload {
        document,
        event: "invoice.created",
        source: "vendors",
        tenant: "",
        document_id: "32d02f0b-c140-5d1b-8b80-5c04c9bbee3d",
        document_number: Some("A/1 ü&x=1"),
        issue: 0,
        idempotency_key: KEY,
    }
}

/// Delivers to a server with this script. Returns the report and the requests
/// that the server got.
async fn deliver(scripts: Vec<Script>, has_lookup: bool) -> (AttemptReport, Vec<String>) {
    let server = ScriptedServer::start(scripts).await;
    let more = if has_lookup { lookup(&server) } else { "response.id = '/id'\n".to_owned() };
    let destination = destination(&server, &more);
    let document = document();
    let payload = payload(&document);
    let request = destination.render(&payload).unwrap();
    let report = destination.send(&payload, &request).await;
    (report, server.requests())
}

fn status(report: &AttemptReport) -> Option<u16> {
    report.response.as_ref().and_then(|response| response.status)
}

/// An expectation.
type Test = fn(&AttemptResult) -> bool;

#[tokio::test]
async fn send_makes_one_request_with_idempotency_key() {
    let server =
        ScriptedServer::start(vec![vec![Step::Read, response(201, r#"{"id": "INV-1"}"#)]]).await;
    let destination = destination(
        &server,
        "response.id = '/id'\n[destinations.accounting.headers]\nAuthorization = 'Bearer env:TOKEN'\n",
    );
    let document = document();
    let payload = payload(&document);
    let request = destination.render(&payload).unwrap();
    assert_eq!(request, r#"{"vendor": "Müller & Söhne", "due": null}"#);
    // An earlier rendering is sent unchanged, whatever the document is now.
    let report = destination.send(&payload, r#"{"as": "before"}"#).await;
    let result = AttemptResult::Delivered { remote_id: Some("INV-1".to_owned()), warning: None };
    let response = DestinationResponse { status: Some(201), body: r#"{"id": "INV-1"}"#.to_owned() };
    assert_eq!(report, AttemptReport { result, response: Some(response) });
    let requests = &server.requests()[0];
    assert!(requests.starts_with("POST /invoices HTTP/1.1\r\n"), "{requests}");
    assert!(requests.ends_with("\r\n\r\n{\"as\": \"before\"}"), "{requests}");
    for header in [
        "content-type: application/json",
        "authorization: Bearer hunter2",
        "idempotency-key: 00000000-0000-0000-0000-000000000007",
    ] {
        assert!(requests.contains(&format!("{header}\r\n")), "{requests}");
    }
}

#[tokio::test]
async fn send_classifies_every_response() {
    let unknown: Test = |result| matches!(result, AttemptResult::Unknown(_));
    let away = CallResult::Unavailable(None);
    let cases: [(Script, Test, Option<u16>, CallResult); 8] = [
        (vec![], unknown, None, away),
        (vec![Step::Read], unknown, None, away),
        (vec![Step::Read, response(200, "{}")], unknown, Some(200), CallResult::Responded),
        (vec![Step::Read, response(500, "")], unknown, Some(500), away),
        (
            vec![Step::Read, response(503, "")],
            |result| matches!(result, AttemptResult::RetryLater { counts_as_attempt: true, .. }),
            Some(503),
            away,
        ),
        (
            vec![Step::Read, response(401, "")],
            |result| matches!(result, AttemptResult::RetryLater { counts_as_attempt: false, .. }),
            Some(401),
            away,
        ),
        (
            vec![Step::Read, response(422, "no")],
            |result| {
                matches!(
                    result,
                    AttemptResult::Rejected { reason: ReasonCode::DeliveryRefused, .. }
                )
            },
            Some(422),
            CallResult::Responded,
        ),
        (
            vec![Step::Read, response(409, r#"{"id": 3}"#)],
            |result| {
                matches!(result, AttemptResult::Delivered { remote_id: Some(id), warning: Some(warning) }
                    if id == "3" && warning.contains("409"))
            },
            Some(409),
            CallResult::Responded,
        ),
    ];
    for (script, is_expected, code, call_result) in cases {
        let shown = format!("{script:?}");
        let (report, _) = deliver(vec![script], false).await;
        assert!(is_expected(&report.result), "{shown}: {report:?}");
        assert_eq!((status(&report), report.call_result()), (code, call_result), "{shown}");
    }
}

#[tokio::test]
async fn send_without_connection_does_not_count_as_attempt() {
    let server = ScriptedServer::start(vec![]).await;
    let destination = destination(&server, "");
    while tokio::net::TcpStream::connect(("127.0.0.1", server.port())).await.is_ok() {}
    let document = document();
    let report = destination.send(&payload(&document), "{}").await;
    assert!(
        matches!(report.result, AttemptResult::RetryLater { counts_as_attempt: false, .. }),
        "{report:?}"
    );
    assert_eq!(
        (report.response.as_ref(), report.call_result()),
        (None, CallResult::Unavailable(None))
    );
}

#[tokio::test]
async fn send_with_unreadable_secret_does_not_count_as_attempt() {
    let server = ScriptedServer::start(vec![]).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "hunter2\n").unwrap();
    let headers = format!(
        "[destinations.accounting.headers]\nAuthorization = 'Bearer file:{}'\n",
        path.display()
    );
    let destination = destination(&server, &headers);
    std::fs::remove_file(&path).unwrap();
    let document = document();
    let report = destination.send(&payload(&document), "{}").await;
    assert!(
        matches!(&report.result, AttemptResult::RetryLater { counts_as_attempt: false, error, .. } if error.contains("authorization")),
        "{report:?}"
    );
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn send_existing_document_is_looked_up() {
    let found = r#"{"invoices": [{"id": 9, "vendor": "Müller & Söhne"}]}"#;
    let others = r#"{"invoices": [{"id": 9, "vendor": "Meier"}]}"#;
    let has: Test = |result| matches!(result, AttemptResult::Delivered { remote_id: Some(id), warning: Some(_) } if id == "9");
    let unknown: Test = |result| matches!(result, AttemptResult::Unknown(_));
    let gone: Test =
        |result| matches!(result, AttemptResult::Rejected { reason: ReasonCode::DeliveryGone, .. });
    for (code, body, looked_up, is_expected) in [
        (409, r#"{"id": 3}"#, response(200, found), has),
        (422, "already exists", response(200, found), has),
        (409, "", response(200, others), unknown),
        (409, "", response(500, ""), unknown),
        (422, "already exists", response(200, others), gone),
        (422, "already exists", response(404, ""), unknown),
        (422, "already exists", response(503, ""), unknown),
    ] {
        let script = vec![Step::Read, response(code, body), Step::Read, looked_up.clone()];
        let (report, requests) = deliver(vec![script], true).await;
        assert!(is_expected(&report.result), "{code} {looked_up:?}: {report:?}");
        // The report has the response to the delivery, not to the look-up.
        assert_eq!(status(&report), Some(code));
        assert_eq!(requests.len(), 2, "{requests:?}");
    }
}

#[tokio::test]
async fn lookup_requests_document_by_number() {
    let server = ScriptedServer::start(vec![vec![
        Step::Read,
        response(200, r#"{"invoices": [{"id": 9, "vendor": "Müller & Söhne"}]}"#),
        Step::Read,
        response(200, r#"{"invoices": []}"#),
        Step::Read,
    ]])
    .await;
    let more = format!("headers.Authorization = 'Bearer env:TOKEN'\n{}", lookup(&server));
    let destination = destination(&server, &more);
    let document = document();
    let payload = payload(&document);
    assert!(destination.supports_lookup());
    let found = destination.look_up_document(&payload).await;
    assert_eq!(found, Ok(LookupResult::Found { remote_id: Some("9".to_owned()) }));
    assert_eq!(destination.look_up_document(&payload).await, Ok(LookupResult::NotFound));
    let error = destination.look_up_document(&payload).await.unwrap_err();
    assert!(error.contains("GET 127.0.0.1:") && !error.contains("hunter2"), "{error}");
    // A document without a number cannot be looked up by it.
    let numberless =
        destination.look_up_document(&DeliveryPayload { document_number: None, ..payload }).await;
    assert!(numberless.unwrap_err().contains("{number}"));
    let requests = server.requests();
    assert!(
        requests[0].starts_with(
            "GET /invoices?of=&vendor=M%C3%BCller%20%26%20S%C3%B6hne&number=A%2F1%20%C3%BC%26x%3D1 "
        ),
        "{requests:?}"
    );
    assert!(requests[0].contains("authorization: Bearer hunter2\r\n"), "{requests:?}");
    assert!(!requests[0].contains("idempotency-key"), "{requests:?}");
    assert_eq!(requests.len(), 3);
}

#[tokio::test]
async fn send_put_uses_document_url() {
    let server = ScriptedServer::start(vec![vec![Step::Read, response(204, "")]]).await;
    let mut destination = destination(&server, "method = 'PUT'\nidempotency_header = 'X-Key'\n");
    let url = server.text("/invoices/{number}");
    destination.settings.url = UrlTemplate::parse(&url, URL_PLACEHOLDERS, &[]).unwrap();
    let document = document();
    let payload = payload(&document);
    let report = destination.send(&payload, "{}").await;
    assert_eq!(report.result, AttemptResult::Delivered { remote_id: None, warning: None });
    let requests = server.requests();
    assert!(requests[0].starts_with("PUT /invoices/A%2F1%20%C3%BC%26x%3D1 "), "{requests:?}");
    assert!(requests[0].contains("x-key: 00000000-"), "{requests:?}");

    let numberless = DeliveryPayload { document_number: None, ..payload };
    let failure = destination.render(&numberless).unwrap_err();
    assert_eq!(failure.field, "destinations.accounting.url");
    let report = destination.send(&numberless, "{}").await;
    assert!(matches!(
        report.result,
        AttemptResult::Rejected { reason: ReasonCode::InvalidValue, .. }
    ));
    assert_eq!(report.call_result(), CallResult::NotCalled);
}
