//! Callback sources: one invoice per key, and the same response each time (story 1).

use bytes::Bytes;
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use tallyhook::{app::Roles, config::Config, review::Actor};

use crate::support::{SHOP, TestApp, TestServer, eventually, http::client, proxy::Proxy, seconds};

/// A callback source with the documented field names, and one with its own names and an HMAC.
const ROBOTS: &str = "
[sources.robot]
kind = 'callback'
secrets = ['env:TOKEN']
[sources.signer]
kind = 'callback'
secrets = ['env:SECRET']
authentication = 'hmac'
[sources.signer.invoice]
invoice_number = '/no'
transaction_id = '/booking'
total = '/sum'
";

const RECEIVER: Roles = Roles { receiver: true, worker: false };

async fn server(roles: Roles, tune: impl FnOnce(&mut Config)) -> (TestApp, TestServer) {
    let app = TestApp::with(&[SHOP, ROBOTS], tune).await;
    let server = TestServer::start(&app.config, roles).await;
    (app, server)
}

fn invoice(number: &str, transaction: &str, amount: &str) -> String {
    json!({
        "invoiceNumber": number, "transactionId": transaction, "amount": amount,
        "vendor": "ACME", "currency": "EUR", "dueDate": "2026-02-28",
    })
    .to_string()
}

/// A response without the headers that identify the request.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    status: StatusCode,
    media_type: String,
    body: Bytes,
}

async fn seen(answer: Response) -> Seen {
    assert!(answer.headers().contains_key("x-tallyhook-receipt"));
    let status = answer.status();
    let media_type = answer.headers()["content-type"].to_str().unwrap().to_owned();
    Seen { status, media_type, body: answer.bytes().await.unwrap() }
}

async fn post(server: &TestServer, body: &str) -> Seen {
    seen(server.post("robot", "", body).await).await
}

/// Asserts the error format of callback sources; returns the names of the fields.
async fn refused(answer: Response, status: u16, retryable: bool) -> Vec<String> {
    assert_eq!(answer.headers().contains_key("retry-after"), status == 503);
    let Seen { status: given, media_type, body } = seen(answer).await;
    let text = String::from_utf8(body.to_vec()).unwrap();
    assert_eq!((given.as_u16(), media_type.as_str()), (status, "application/json"), "{text}");
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json.as_object().unwrap().len(), 4, "{text}");
    assert_eq!((&json["status"], &json["retryable"]), (&json!("error"), &json!(retryable)));
    assert!(text.starts_with(r#"{"status":"error","message":""#), "{text}");
    assert!(!json["message"].as_str().unwrap().is_empty());
    let errors = json["errors"].as_array().unwrap();
    assert!(errors.iter().all(|error| error["message"].is_string()), "{text}");
    errors.iter().map(|error| error["field"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callback_repeated_post_returns_identical_response_and_one_invoice() {
    let (app, server) = server(Roles::ALL, |_| ()).await;
    let body = invoice("INV-1", "T-1", "12.50");
    let first = post(&server, &body).await;
    assert_eq!((first.status.as_u16(), first.media_type.as_str()), (200, "application/json"));
    eventually("the invoice", seconds(20), || async {
        app.count("select count(*) from invoices").await == 1
    })
    .await;
    // The id is the row's id, and the body holds nothing else.
    let id = app.text("select invoice_id::text from invoices").await;
    let expected =
        format!(r#"{{"status":"success","invoiceId":"{id}","message":"Invoice processed"}}"#);
    assert_eq!(first.body, expected);

    assert_eq!(post(&server, &body).await, first);
    // The same invoice with another field order and number format.
    let reformatted = r#"{ "amount": 12.5, "transactionId": "T-1", "invoiceNumber": "INV-1",
        "currency": "eur", "vendor": "ACME", "attempt": 2 }"#;
    assert_eq!(post(&server, reformatted).await, first);
    let calls = (0..20).map(|_| post(&server, &body));
    for answer in futures_util::future::join_all(calls).await {
        assert_eq!(answer, first);
    }
    eventually("every call on record", seconds(20), || async {
        app.count("select count(*) from receipts where response_status = 200").await == 23
    })
    .await;
    assert_eq!(app.count("select count(*) from invoices").await, 1);
    assert_eq!(app.count("select count(*) from receipts where outcome = 'applied'").await, 1);
    assert_eq!(app.count("select count(*) from receipts where outcome = 'duplicate'").await, 22);
    let row = "select concat_ws(' ', vendor, invoice_number, transaction_id, status, currency,
                   total, due_on) from invoices";
    assert_eq!(app.text(row).await, "ACME INV-1 T-1 open EUR 12.50 2026-02-28");
    server.stop().await;
    app.assert_conserved(23).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callback_concurrent_posts_create_one_invoice() {
    let (app, server) = server(Roles::ALL, |_| ()).await;
    let body = invoice("INV-1", "T-1", "12.50");
    let mut answers = futures_util::future::join_all((0..20).map(|_| post(&server, &body))).await;
    assert_eq!(answers[0].status, 200);
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    eventually("every call on record", seconds(20), || async {
        app.count("select count(*) from receipts").await == 20
    })
    .await;
    assert_eq!(app.count("select count(*) from invoices").await, 1);
    server.stop().await;
    app.assert_conserved(20).await;
}

#[tokio::test]
async fn callback_replayed_dead_letter_keeps_the_response() {
    let (app, server) = server(RECEIVER, |_| ()).await;
    app.execute(
        "create function refuse() returns trigger language plpgsql as $$ begin
             raise division_by_zero; end $$;
         create trigger refuse before insert on invoices for each row execute function refuse()",
    )
    .await;
    let body = invoice("INV-1", "T-1", "12.50");
    let before = post(&server, &body).await;
    let mut consumer = app.consumer("robot").await;
    consumer.step().await;
    app.archive_dead_letters(1).await;
    app.execute("drop trigger refuse on invoices").await;

    let anna = Actor { name: "anna", comment: "corrected" };
    let dead_letters = app.dead_letters().await;
    app.replay(&dead_letters, anna).await;
    assert_eq!(post(&server, &body).await, before);
    consumer.drain(2).await;
    assert_eq!(post(&server, &body).await, before);
    consumer.step().await;
    let json: Value = serde_json::from_slice(&before.body).unwrap();
    let id = app.text("select invoice_id::text from invoices").await;
    assert_eq!(json["invoiceId"], id.as_str());
    assert_eq!(app.count("select count(*) from invoices").await, 1);
    server.stop().await;
}

#[tokio::test]
async fn callback_bearer_token_or_hmac_is_accepted_as_configured() {
    let (app, server) = server(RECEIVER, |_| ()).await;
    let url = server.url("/hooks/robot");
    let robot = client().post(&url).bearer_auth("a-token-of-the-tests");
    let answer = robot.body(invoice("INV-1", "T-1", "1")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let body = json!({"no": 7, "booking": "b", "sum": "-1.00"}).to_string();
    assert_eq!(server.post("signer", "", &body).await.status(), 200);
    for source in ["robot", "signer"] {
        let queue = app.context.topology.inbound_queue(&source.parse().unwrap());
        assert_eq!(app.amqp().await.depth(&queue).await, Some(1));
    }
    server.stop().await;
}

#[tokio::test]
async fn callback_rejection_uses_the_callback_error_format() {
    let (app, server) = server(RECEIVER, |config| {
        config.receiver.body_limit_bytes = 2000;
        config.receiver.body_timeout_ms = 300;
    })
    .await;
    let bad = json!({"invoiceNumber": "", "amount": "ten", "dueDate": "soon"}).to_string();
    let fields = refused(server.post("robot", "", &bad).await, 422, false).await;
    assert_eq!(fields, ["/invoiceNumber", "/transactionId", "/amount", "/dueDate"]);
    let fields = refused(server.post("robot", "", "<invoice/>").await, 422, false).await;
    assert_eq!(fields, [""]);

    let http = client();
    let post = || http.post(server.url("/hooks/robot"));
    let unauthenticated = post().body(bad.clone()).send().await.unwrap();
    assert_eq!(refused(unauthenticated, 401, false).await, [""; 0]);
    let wrong_token = post().bearer_auth("a guess").body(bad).send().await.unwrap();
    assert_eq!(refused(wrong_token, 401, false).await, [""; 0]);
    let form = post()
        .bearer_auth("a-token-of-the-tests")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(invoice("INV-1", "T-1", "1"));
    assert_eq!(refused(form.send().await.unwrap(), 415, false).await, [""; 0]);
    let large = server.post("robot", "", &"x".repeat(2001)).await;
    assert_eq!(refused(large, 413, false).await, [""; 0]);
    let slow = b"POST /hooks/robot HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc";
    let slow = server.first_answer(slow).await;
    assert!(slow.starts_with("HTTP/1.1 408 "), "{slow}");
    assert!(slow.contains("content-type: application/json\r\n"), "{slow}");
    let queue = app.context.topology.inbound_queue(&"robot".parse().unwrap());
    assert_eq!(app.amqp().await.depth(&queue).await, Some(0));
    server.stop().await;
}

#[tokio::test]
async fn callback_wrong_method_returns_405_with_allow() {
    let (_rig, server) = server(RECEIVER, |_| ()).await;
    for (source, status, media_type) in [
        ("robot", 405, "application/json"),
        ("shop", 405, "application/problem+json"),
        ("unknown", 404, "application/problem+json"),
    ] {
        let url = server.url(&format!("/hooks/{source}"));
        let options = client().request(reqwest::Method::OPTIONS, &url).send().await.unwrap();
        assert_eq!(options.status(), status, "{source}");
        assert_eq!(options.headers()["content-type"], media_type, "{source}");
        assert!(options.headers().contains_key("x-tallyhook-receipt"), "{source}");
        let put = client().put(&url).send().await.unwrap();
        assert_eq!(
            (put.status().as_u16(), &put.headers()["allow"]),
            (405, &"POST".parse().unwrap())
        );
        if status == 405 {
            assert_eq!(options.headers()["allow"], "POST", "{source}");
        }
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callback_broker_unreachable_returns_retryable_503() {
    let mut proxy = None;
    let app = TestApp::with(&[ROBOTS], |config| {
        config.broker.confirm_timeout_ms = 1000;
        proxy = Some(Proxy::before(&mut config.broker.url));
    })
    .await;
    let proxy = proxy.unwrap();
    let server = TestServer::start(&app.config, RECEIVER).await;
    let body = invoice("INV-1", "T-1", "12.50");
    let before = post(&server, &body).await;
    proxy.cut();
    let answer = server.post("robot", "", &body).await;
    assert_eq!(answer.headers()["retry-after"], "5");
    assert_eq!(refused(answer, 503, true).await, [""; 0]);
    proxy.restore();
    eventually("the broker", seconds(60), || async {
        server.post("robot", "", &body).await.status() == 200
    })
    .await;
    assert_eq!(post(&server, &body).await, before);
    server.stop().await;
}
