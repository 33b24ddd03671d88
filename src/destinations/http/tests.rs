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

/// A target at this server, with these settings besides.
fn target(server: &ScriptedServer, more: &str) -> HttpDestination {
    let text = format!(
        "[sources.vendors]\nkind = 'shopify'\nsecrets = ['env:TOKEN']\n\
         [destinations.economy]\nkind = 'http'\nevents = ['invoice.created']\ntimeout_ms = 60000\n\
         url = '{}'\nallow_private_addresses = true\n\
         body = '{{\"vendor\": {{{{ vendor }}}}, \"due\": {{{{ due_on }}}}}}'\n{more}",
        server.text("/invoices")
    );
    let variables = BTreeMap::from([("TOKEN".to_owned(), "hunter2".to_owned())]);
    let components = Components::from_toml(&text, &variables).unwrap();
    let targets = std::sync::Arc::into_inner(components.destinations).unwrap();
    match targets.into_iter().next().unwrap().1.transport {
        Transport::Http(target) => *target,
        Transport::Amqp { .. } => panic!("no HTTP target"),
    }
}

/// Looks up in a list by vendor and number.
fn lookup(server: &ScriptedServer) -> String {
    format!(
        "[destinations.economy.response]\nid = '/id'\n[destinations.economy.lookup]\n\
         url = '{}'\nid = '/invoices/0/id'\n\
         [destinations.economy.lookup.matches]\n'/invoices/0/vendor' = 'vendor'\n",
        server.text("/invoices?of={tenant}&vendor={vendor}&number={number}")
    )
}

fn document() -> Value {
    json!({"vendor": "Müller & Söhne", "number": "A/1 ü&x=1", "due_on": null})
}

fn about(document: &Value) -> DeliveryPayload<'_> {
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

/// What came of a delivery to a server that plays this, with a look-up or
/// without, and what the server heard.
async fn deliver(plays: Vec<Script>, looks_up: bool) -> (AttemptReport, Vec<String>) {
    let server = ScriptedServer::start(plays).await;
    let more = if looks_up { lookup(&server) } else { "response.id = '/id'\n".to_owned() };
    let target = target(&server, &more);
    let document = document();
    let about = about(&document);
    let request = target.render(&about).unwrap();
    let report = target.send(&about, &request).await;
    (report, server.requests())
}

fn status(report: &AttemptReport) -> Option<u16> {
    report.response.as_ref().and_then(|answer| answer.status)
}

/// What must be so.
type Test = fn(&AttemptResult) -> bool;

#[tokio::test]
async fn a_delivery_is_one_call_under_its_key() {
    let server =
        ScriptedServer::start(vec![vec![Step::Read, response(201, r#"{"id": "INV-1"}"#)]]).await;
    let target = target(
        &server,
        "response.id = '/id'\n[destinations.economy.headers]\nAuthorization = 'Bearer env:TOKEN'\n",
    );
    let document = document();
    let about = about(&document);
    let request = target.render(&about).unwrap();
    assert_eq!(request, r#"{"vendor": "Müller & Söhne", "due": null}"#);
    // What is sent is what was rendered once, whatever the document is now.
    let report = target.send(&about, r#"{"as": "before"}"#).await;
    let told = AttemptResult::Delivered { remote_id: Some("INV-1".to_owned()), warning: None };
    let answered = DestinationResponse { status: Some(201), body: r#"{"id": "INV-1"}"#.to_owned() };
    assert_eq!(report, AttemptReport { result: told, response: Some(answered) });
    let heard = &server.requests()[0];
    assert!(heard.starts_with("POST /invoices HTTP/1.1\r\n"), "{heard}");
    assert!(heard.ends_with("\r\n\r\n{\"as\": \"before\"}"), "{heard}");
    for header in [
        "content-type: application/json",
        "authorization: Bearer hunter2",
        "idempotency-key: 00000000-0000-0000-0000-000000000007",
    ] {
        assert!(heard.contains(&format!("{header}\r\n")), "{heard}");
    }
}

#[tokio::test]
async fn each_end_of_a_call_means_this() {
    let unknown: Test = |told| matches!(told, AttemptResult::Unknown(_));
    let away = CallResult::Unavailable(None);
    let cases: [(Script, Test, Option<u16>, CallResult); 8] = [
        (vec![], unknown, None, away),
        (vec![Step::Read], unknown, None, away),
        (vec![Step::Read, response(200, "{}")], unknown, Some(200), CallResult::Responded),
        (vec![Step::Read, response(500, "")], unknown, Some(500), away),
        (
            vec![Step::Read, response(503, "")],
            |told| matches!(told, AttemptResult::RetryLater { counts_as_attempt: true, .. }),
            Some(503),
            away,
        ),
        (
            vec![Step::Read, response(401, "")],
            |told| matches!(told, AttemptResult::RetryLater { counts_as_attempt: false, .. }),
            Some(401),
            away,
        ),
        (
            vec![Step::Read, response(422, "no")],
            |told| {
                matches!(told, AttemptResult::Rejected { reason: ReasonCode::DeliveryRefused, .. })
            },
            Some(422),
            CallResult::Responded,
        ),
        (
            vec![Step::Read, response(409, r#"{"id": 3}"#)],
            |told| {
                matches!(told, AttemptResult::Delivered { remote_id: Some(id), warning: Some(warning) }
                    if id == "3" && warning.contains("409"))
            },
            Some(409),
            CallResult::Responded,
        ),
    ];
    for (play, is_told, code, verdict) in cases {
        let shown = format!("{play:?}");
        let (report, _) = deliver(vec![play], false).await;
        assert!(is_told(&report.result), "{shown}: {report:?}");
        assert_eq!((status(&report), report.call_result()), (code, verdict), "{shown}");
    }
}

#[tokio::test]
async fn who_is_not_there_costs_no_attempt() {
    let server = ScriptedServer::start(vec![]).await;
    let target = target(&server, "");
    while tokio::net::TcpStream::connect(("127.0.0.1", server.port())).await.is_ok() {}
    let document = document();
    let report = target.send(&about(&document), "{}").await;
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
async fn a_token_that_cannot_be_read_costs_no_attempt() {
    let server = ScriptedServer::start(vec![]).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "hunter2\n").unwrap();
    let headers = format!(
        "[destinations.economy.headers]\nAuthorization = 'Bearer file:{}'\n",
        path.display()
    );
    let target = target(&server, &headers);
    std::fs::remove_file(&path).unwrap();
    let document = document();
    let report = target.send(&about(&document), "{}").await;
    assert!(
        matches!(&report.result, AttemptResult::RetryLater { counts_as_attempt: false, error, .. } if error.contains("authorization")),
        "{report:?}"
    );
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn what_exists_already_is_looked_up() {
    let found = r#"{"invoices": [{"id": 9, "vendor": "Müller & Söhne"}]}"#;
    let others = r#"{"invoices": [{"id": 9, "vendor": "Meier"}]}"#;
    let has: Test = |told| matches!(told, AttemptResult::Delivered { remote_id: Some(id), warning: Some(_) } if id == "9");
    let unknown: Test = |told| matches!(told, AttemptResult::Unknown(_));
    let gone: Test =
        |told| matches!(told, AttemptResult::Rejected { reason: ReasonCode::DeliveryGone, .. });
    for (code, body, looked_up, is_told) in [
        (409, r#"{"id": 3}"#, response(200, found), has),
        (422, "already exists", response(200, found), has),
        (409, "", response(200, others), unknown),
        (409, "", response(500, ""), unknown),
        (422, "already exists", response(200, others), gone),
        (422, "already exists", response(404, ""), unknown),
        (422, "already exists", response(503, ""), unknown),
    ] {
        let play = vec![Step::Read, response(code, body), Step::Read, looked_up.clone()];
        let (report, heard) = deliver(vec![play], true).await;
        assert!(is_told(&report.result), "{code} {looked_up:?}: {report:?}");
        // The answer to the delivery is kept, not that to the look-up.
        assert_eq!(status(&report), Some(code));
        assert_eq!(heard.len(), 2, "{heard:?}");
    }
}

#[tokio::test]
async fn a_look_up_asks_for_the_document_by_its_number() {
    let server = ScriptedServer::start(vec![vec![
        Step::Read,
        response(200, r#"{"invoices": [{"id": 9, "vendor": "Müller & Söhne"}]}"#),
        Step::Read,
        response(200, r#"{"invoices": []}"#),
        Step::Read,
    ]])
    .await;
    let more = format!("headers.Authorization = 'Bearer env:TOKEN'\n{}", lookup(&server));
    let target = target(&server, &more);
    let document = document();
    let about = about(&document);
    assert!(target.supports_lookup());
    let found = target.look_up_document(&about).await;
    assert_eq!(found, Ok(LookupResult::Found { remote_id: Some("9".to_owned()) }));
    assert_eq!(target.look_up_document(&about).await, Ok(LookupResult::NotFound));
    let error = target.look_up_document(&about).await.unwrap_err();
    assert!(error.contains("GET 127.0.0.1:") && !error.contains("hunter2"), "{error}");
    // What has no number cannot be asked for by it.
    let numberless =
        target.look_up_document(&DeliveryPayload { document_number: None, ..about }).await;
    assert!(numberless.unwrap_err().contains("{number}"));
    let heard = server.requests();
    assert!(
        heard[0].starts_with(
            "GET /invoices?of=&vendor=M%C3%BCller%20%26%20S%C3%B6hne&number=A%2F1%20%C3%BC%26x%3D1 "
        ),
        "{heard:?}"
    );
    assert!(heard[0].contains("authorization: Bearer hunter2\r\n"), "{heard:?}");
    assert!(!heard[0].contains("idempotency-key"), "{heard:?}");
    assert_eq!(heard.len(), 3);
}

#[tokio::test]
async fn a_put_goes_to_the_documents_own_place() {
    let server = ScriptedServer::start(vec![vec![Step::Read, response(204, "")]]).await;
    let mut target = target(&server, "method = 'PUT'\nidempotency_header = 'X-Key'\n");
    let url = server.text("/invoices/{number}");
    target.settings.url = UrlTemplate::parse(&url, URL_PLACEHOLDERS, &[]).unwrap();
    let document = document();
    let about = about(&document);
    let report = target.send(&about, "{}").await;
    assert_eq!(report.result, AttemptResult::Delivered { remote_id: None, warning: None });
    let heard = server.requests();
    assert!(heard[0].starts_with("PUT /invoices/A%2F1%20%C3%BC%26x%3D1 "), "{heard:?}");
    assert!(heard[0].contains("x-key: 00000000-"), "{heard:?}");

    let numberless = DeliveryPayload { document_number: None, ..about };
    let failure = target.render(&numberless).unwrap_err();
    assert_eq!(failure.field, "destinations.economy.url");
    let report = target.send(&numberless, "{}").await;
    assert!(matches!(
        report.result,
        AttemptResult::Rejected { reason: ReasonCode::InvalidValue, .. }
    ));
    assert_eq!(report.call_result(), CallResult::NotCalled);
}
