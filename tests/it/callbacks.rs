//! Robots that post an invoice: one invoice, and the same answer each time
//! (story 1).

use std::time::Duration;

use bytes::Bytes;
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use tallyhook::{
    config::Config,
    review::{self, Replay},
    service::Roles,
    store::{acts::Actor, dead_letters::Filter},
};

use crate::support::{Front, Rig, SHOP, eventually, http::client, seconds};

/// A robot that posts the documented names, and one of another make.
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

async fn front(roles: Roles, tune: impl FnOnce(&mut Config)) -> (Rig, Front) {
    let rig = Rig::with(&[SHOP, ROBOTS], tune).await;
    let front = Front::start(&rig.config, roles).await;
    (rig, front)
}

fn invoice(number: &str, transaction: &str, amount: &str) -> String {
    json!({
        "invoiceNumber": number, "transactionId": transaction, "amount": amount,
        "vendor": "ACME", "currency": "EUR", "dueDate": "2026-02-28",
    })
    .to_string()
}

/// What a robot sees of an answer: everything but the headers that name the
/// call.
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

async fn post(front: &Front, body: &str) -> Seen {
    seen(front.post("robot", "", body).await).await
}

/// Asserts that an answer is an error as robots read it; gives its fields.
async fn refused(answer: Response, status: u16, retryable: bool) -> Vec<String> {
    assert_eq!(answer.headers().contains_key("retry-after"), status == 503);
    let Seen { status: given, media_type, body } = seen(answer).await;
    let text = String::from_utf8(body.to_vec()).unwrap();
    assert_eq!((given.as_u16(), media_type.as_str()), (status, "application/json"), "{text}");
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(told.as_object().unwrap().len(), 4, "{text}");
    assert_eq!((&told["status"], &told["retryable"]), (&json!("error"), &json!(retryable)));
    assert!(text.starts_with(r#"{"status":"error","message":""#), "{text}");
    assert!(!told["message"].as_str().unwrap().is_empty());
    let errors = told["errors"].as_array().unwrap();
    assert!(errors.iter().all(|error| error["message"].is_string()), "{text}");
    errors.iter().map(|error| error["field"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_invoice_and_the_same_answer_however_often_it_is_posted() {
    let (rig, front) = front(Roles::ALL, |_| ()).await;
    let body = invoice("INV-1", "T-1", "12.50");
    let first = post(&front, &body).await;
    assert_eq!((first.status.as_u16(), first.media_type.as_str()), (200, "application/json"));
    eventually("the invoice", seconds(20), || async {
        rig.count("select count(*) from invoices").await == 1
    })
    .await;
    // The id is that of the row, and nothing else is in the body.
    let id = rig.text("select invoice_id::text from invoices").await;
    let expected =
        format!(r#"{{"status":"success","invoiceId":"{id}","message":"Invoice processed"}}"#);
    assert_eq!(first.body, expected);

    assert_eq!(post(&front, &body).await, first);
    // Written anew: another order of the fields, another number format.
    let anew = r#"{ "amount": 12.5, "transactionId": "T-1", "invoiceNumber": "INV-1",
        "currency": "eur", "vendor": "ACME", "attempt": 2 }"#;
    assert_eq!(post(&front, anew).await, first);
    let calls = (0..20).map(|_| post(&front, &body));
    for answer in futures_util::future::join_all(calls).await {
        assert_eq!(answer, first);
    }
    eventually("every call on record", seconds(20), || async {
        rig.count("select count(*) from receipts where response_status = 200").await == 23
    })
    .await;
    assert_eq!(rig.count("select count(*) from invoices").await, 1);
    assert_eq!(rig.count("select count(*) from receipts where outcome = 'applied'").await, 1);
    assert_eq!(rig.count("select count(*) from receipts where outcome = 'duplicate'").await, 22);
    let row = "select concat_ws(' ', vendor, invoice_number, transaction_id, status, currency,
                   total, due_on) from invoices";
    assert_eq!(rig.text(row).await, "ACME INV-1 T-1 open EUR 12.50 2026-02-28");
    front.stop().await;
    rig.assert_conserved(23).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_at_once_are_one_invoice_with_one_answer() {
    let (rig, front) = front(Roles::ALL, |_| ()).await;
    let body = invoice("INV-1", "T-1", "12.50");
    let mut answers = futures_util::future::join_all((0..20).map(|_| post(&front, &body))).await;
    assert_eq!(answers[0].status, 200);
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    eventually("every call on record", seconds(20), || async {
        rig.count("select count(*) from receipts").await == 20
    })
    .await;
    assert_eq!(rig.count("select count(*) from invoices").await, 1);
    front.stop().await;
    rig.assert_conserved(20).await;
}

#[tokio::test]
async fn the_answer_is_the_same_after_a_replay() {
    let (rig, front) = front(RECEIVER, |_| ()).await;
    rig.execute(
        "create function refuse() returns trigger language plpgsql as $$ begin
             raise division_by_zero; end $$;
         create trigger refuse before insert on invoices for each row execute function refuse()",
    )
    .await;
    let body = invoice("INV-1", "T-1", "12.50");
    let before = post(&front, &body).await;
    let mut lane = rig.lane("robot").await;
    lane.step().await;
    rig.archive(1).await;
    rig.execute("drop trigger refuse on invoices").await;

    let anna = Actor { name: "anna", reason: "mended" };
    let letters = review::select(&rig.tools.store, &Filter::default()).await.unwrap();
    let topology = std::sync::Arc::clone(&rig.tools.topology);
    let (store, publisher) = (&rig.tools.store, &rig.tools.publisher);
    let replay =
        Replay::open(store, publisher, topology, anna, &Filter::default(), 1).await.unwrap();
    replay.send(&letters[0]).await.unwrap();
    assert_eq!(post(&front, &body).await, before);
    lane.settle(2).await;
    assert_eq!(post(&front, &body).await, before);
    lane.step().await;
    let told: Value = serde_json::from_slice(&before.body).unwrap();
    let id = rig.text("select invoice_id::text from invoices").await;
    assert_eq!(told["invoiceId"], id.as_str());
    assert_eq!(rig.count("select count(*) from invoices").await, 1);
    front.stop().await;
}

#[tokio::test]
async fn robots_show_a_token_or_sign_as_configured() {
    let (rig, front) = front(RECEIVER, |_| ()).await;
    let url = front.url("/hooks/robot");
    let robot = client().post(&url).bearer_auth("a-token-of-the-tests");
    let answer = robot.body(invoice("INV-1", "T-1", "1")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let body = json!({"no": 7, "booking": "b", "sum": "-1.00"}).to_string();
    assert_eq!(front.post("signer", "", &body).await.status(), 200);
    for source in ["robot", "signer"] {
        let queue = rig.tools.topology.inbound_queue(&source.parse().unwrap());
        assert_eq!(rig.raw().await.depth(&queue).await, Some(1));
    }
    front.stop().await;
}

#[tokio::test]
async fn what_is_refused_is_told_as_robots_read_it() {
    let (rig, front) = front(RECEIVER, |config| {
        config.receiver.body_limit_bytes = 2000;
        config.receiver.body_timeout_ms = 300;
    })
    .await;
    let bad = json!({"invoiceNumber": "", "amount": "ten", "dueDate": "soon"}).to_string();
    let fields = refused(front.post("robot", "", &bad).await, 422, false).await;
    assert_eq!(fields, ["/invoiceNumber", "/transactionId", "/amount", "/dueDate"]);
    let fields = refused(front.post("robot", "", "<invoice/>").await, 422, false).await;
    assert_eq!(fields, [""]);

    let http = client();
    let post = || http.post(front.url("/hooks/robot"));
    let nobody = post().body(bad.clone()).send().await.unwrap();
    assert_eq!(refused(nobody, 401, false).await, [""; 0]);
    let stranger = post().bearer_auth("a guess").body(bad).send().await.unwrap();
    assert_eq!(refused(stranger, 401, false).await, [""; 0]);
    let form = post()
        .bearer_auth("a-token-of-the-tests")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(invoice("INV-1", "T-1", "1"));
    assert_eq!(refused(form.send().await.unwrap(), 415, false).await, [""; 0]);
    let large = front.post("robot", "", &"x".repeat(2001)).await;
    assert_eq!(refused(large, 413, false).await, [""; 0]);
    let slow = b"POST /hooks/robot HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc";
    let slow = front.first_answer(slow).await;
    assert!(slow.starts_with("HTTP/1.1 408 "), "{slow}");
    assert!(slow.contains("content-type: application/json\r\n"), "{slow}");
    let queue = rig.tools.topology.inbound_queue(&"robot".parse().unwrap());
    assert_eq!(rig.raw().await.depth(&queue).await, Some(0));
    front.stop().await;
}

#[tokio::test]
async fn another_method_is_told_which_one_is_right() {
    let (_rig, front) = front(RECEIVER, |_| ()).await;
    for (source, status, media_type) in [
        ("robot", 405, "application/json"),
        ("shop", 405, "application/problem+json"),
        ("nobody", 404, "application/problem+json"),
    ] {
        let url = front.url(&format!("/hooks/{source}"));
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
    front.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_away_is_worth_another_try() {
    let (mut servers, rig) = Rig::own(&[ROBOTS], |config| {
        config.broker.confirm_timeout_ms = 1000;
    })
    .await;
    let front = Front::start(&rig.config, RECEIVER).await;
    let body = invoice("INV-1", "T-1", "12.50");
    let before = post(&front, &body).await;
    // RabbitMQ forgets queues that are too young when it is killed.
    tokio::time::sleep(Duration::from_secs(3)).await;
    servers.rabbitmq.kill().await.unwrap();
    let answer = front.post("robot", "", &body).await;
    assert_eq!(answer.headers()["retry-after"], "5");
    assert_eq!(refused(answer, 503, true).await, [""; 0]);
    servers.rabbitmq.restart().await.unwrap();
    eventually("the broker", seconds(60), || async {
        front.post("robot", "", &body).await.status() == 200
    })
    .await;
    assert_eq!(post(&front, &body).await, before);
    front.stop().await;
}
