//! The platforms' own client libraries post webhooks to the receiver and verify our signatures.
//! `tests/clients` holds the programs; `deploy/clients.sh` installs the libraries.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::Stdio,
};

use serde_json::{Value, json};
use tallyhook::{app::Roles, sources::OutgoingWebhook};
use time::OffsetDateTime;
use tokio::{io::AsyncWriteExt as _, process::Command, time::timeout};

use crate::support::{TestApp, TestServer, WHSEC, seconds};

/// Another secret, as good as [`WHSEC`].
const OTHER_SECRET: &str = "whsec_Tm9ib2R5IGtub3dzIHRoaXMgc2VjcmV0Li4u";

const STRIPE: Platform = Platform {
    source: "
        [sources.pay]
        kind = 'stripe'
        secrets = ['env:WHSEC']",
    name: "pay",
    topic: "invoice.paid",
    number: "MUELLER-0001",
    body: stripe_event,
    row: "select concat_ws(' ', vendor, invoice_number, document_id, status, total, currency, \
          due_on) from invoices",
    expected: "Müller & Söhne MUELLER-0001 in_1 paid 123.45 EUR 2026-02-01",
};

const STANDARD_WEBHOOKS: Platform = Platform {
    source: "
        [sources.orders]
        kind = 'standard_webhooks'
        secrets = ['env:WHSEC']
        [sources.orders.order]
        topics = ['order.*']
        id = '/data/id'
        number = '/data/number'
        status = '/data/status'
        currency = '/data/currency'
        total = '/data/total'
        customer = '/data/customer'
        version = '/timestamp'",
    name: "orders",
    topic: "order.paid",
    number: "1001",
    body: standard_event,
    row: "select concat_ws(' ', order_id, number, status, total, currency, customer_ref) from orders",
    expected: "ord_1 1001 paid 29.35 EUR Jürgen",
};

/// The platform of a library.
struct Platform {
    /// The settings of its source, and the name they give it.
    source: &'static str,
    name: &'static str,
    /// The topic and the number of its event.
    topic: &'static str,
    number: &'static str,
    /// Its event under an id, for libraries that leave the id to the body.
    body: fn(&str) -> String,
    /// The query of the only row, and the expected text.
    row: &'static str,
    expected: &'static str,
}

/// An event as Stripe sends it.
fn stripe_event(id: &str) -> String {
    json!({
        "id": id,
        "object": "event",
        "api_version": "2026-09-30.clover",
        "created": 1_767_323_045,
        "data": {"object": {
            "id": "in_1",
            "object": "invoice",
            "account_country": "DE",
            "account_name": "Müller & Söhne",
            "amount_due": 12345,
            "amount_paid": 12345,
            "amount_remaining": 0,
            "attempted": true,
            "collection_method": "send_invoice",
            "created": 1_767_319_445,
            "currency": "eur",
            "customer": "cus_1",
            "due_date": 1_769_904_000,
            "lines": {"object": "list", "data": [], "has_more": false, "url": "/v1/invoices/in_1/lines"},
            "livemode": false,
            "metadata": {},
            "number": "MUELLER-0001",
            "status": "paid",
            "subtotal": 10374,
            "total": 12345,
        }},
        "livemode": false,
        "pending_webhooks": 1,
        "request": {"id": null, "idempotency_key": null},
        "type": "invoice.paid",
    })
    .to_string()
}

/// An event in the shape that Standard Webhooks recommends; its id is signed
/// beside it.
fn standard_event(_id: &str) -> String {
    json!({
        "type": "order.paid",
        "timestamp": "2026-01-02T03:04:05Z",
        "data": {
            "id": "ord_1",
            "number": "1001",
            "status": "paid",
            "currency": "EUR",
            "total": "29.35",
            "customer": "Jürgen",
        },
    })
    .to_string()
}

/// An installed library.
struct Library {
    folder: PathBuf,
    name: &'static str,
    /// Python's, else that for Node.js.
    python: bool,
}

impl Library {
    /// The library if it is installed; prints a message if not.
    fn find(name: &'static str, python: bool) -> Option<Self> {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("clients");
        if folder.join("stamp").is_file() {
            return Some(Self { folder, name, python });
        }
        // Not `println!`, which the test runner keeps to itself.
        drop(writeln!(std::io::stdout(), "skipped: no clients; deploy/clients.sh installs them"));
        None
    }

    /// Runs its program; returns the output.
    async fn run(&self, verb: &str, mut message: Value) -> Value {
        message["library"] = self.name.into();
        let (program, script) = if self.python {
            (self.folder.join("venv/bin/python"), "send.py")
        } else {
            (PathBuf::from("node"), "send.mjs")
        };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(script);
        let mut child = Command::new(program)
            .arg(script)
            .arg(verb)
            .current_dir(&self.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(message.to_string().as_bytes()).await.unwrap();
        drop(input);
        let output = timeout(seconds(60), child.wait_with_output()).await.unwrap().unwrap();
        let output_text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {output_text}", self.name);
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Signs the platform's event with a secret, so many seconds ago, and
    /// posts it; the answer.
    async fn send(&self, to: &Door<'_>, id: &str, secret: &str, age: i64) -> Value {
        let at = OffsetDateTime::now_utc().unix_timestamp() - age;
        let body = (to.platform.body)(id);
        let message = json!({"url": to.url, "secret": secret, "id": id, "at": at, "body": body});
        self.run("send", message).await
    }

    /// Whether the library accepts a signature.
    async fn accepts(&self, headers: &Value, secret: &str, body: &str) -> bool {
        let message = json!({"secret": secret, "headers": headers, "body": body});
        self.run("verify", message).await["accepted"].as_bool().unwrap()
    }
}

/// Where a platform's webhooks go.
struct Door<'a> {
    platform: &'a Platform,
    url: String,
}

/// Checks signatures in both directions, and that an event is applied once.
async fn is_understood(library: Option<Library>, platform: &Platform) {
    let Some(library) = library else { return };
    let app = TestApp::with(&[platform.source], |_| ()).await;
    let server = TestServer::start(&app.config, Roles { receiver: true, worker: false }).await;
    let door = Door { platform, url: server.url(&format!("/hooks/{}", platform.name)) };
    is_refused_if_forged_or_old(&library, &door, &app).await;
    is_applied_once(&library, &door, &app).await;
    accepts_what_we_sign(&library, platform, &app).await;
    server.stop().await;
}

async fn is_refused_if_forged_or_old(library: &Library, door: &Door<'_>, app: &TestApp) {
    for (secret, age, why) in
        [(OTHER_SECRET, 0, "no configured secret"), (WHSEC, 600, "signed timestamp")]
    {
        let answer = library.send(door, "evt_1", secret, age).await;
        assert_eq!(answer["status"], 401, "{answer}");
        assert!(answer["body"].as_str().unwrap().contains(why), "{answer}");
    }
    let queue = app.context.topology.inbound_queue(&door.platform.name.parse().unwrap());
    assert_eq!(app.amqp().await.depth(&queue).await.unwrap(), 0);
}

async fn is_applied_once(library: &Library, door: &Door<'_>, app: &TestApp) {
    let Platform { name, topic, number, row, expected, .. } = door.platform;
    let mut consumer = app.consumer(name).await;
    // A redelivery is signed with its own time.
    for (age, outcome) in [(0, "applied"), (120, "duplicate")] {
        let answer = library.send(door, "evt_1", WHSEC, age).await;
        assert_eq!((&answer["status"], &answer["body"]), (&200.into(), &"".into()), "{answer}");
        consumer.drain(1).await;
        let receipt = format!(
            "select concat_ws(' ', source, topic, business_key, response_status, outcome) \
             from receipts where receipt_id = '{}'",
            answer["receipt"].as_str().unwrap()
        );
        assert_eq!(app.text(&receipt).await, format!("{name} {topic} {number} 200 {outcome}"));
        assert_eq!(app.text(row).await, *expected);
    }
    let books = "select (select count(*) from orders) + (select count(*) from invoices)";
    assert_eq!(app.count(books).await, 1);
    app.assert_conserved(2).await;
}

async fn accepts_what_we_sign(library: &Library, platform: &Platform, app: &TestApp) {
    let body = (platform.body)("evt_2");
    let now = OffsetDateTime::now_utc();
    let delivery = OutgoingWebhook {
        topic: platform.topic,
        tenant: "",
        event_id: "evt_2",
        triggered_at: now,
        sent_at: now,
        body: body.as_bytes(),
    };
    let headers = app.components.sources[&platform.name.parse().unwrap()].signed_headers(&delivery);
    let headers: Value = headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().into()))
        .collect::<serde_json::Map<_, _>>()
        .into();
    assert!(library.accepts(&headers, WHSEC, &body).await, "{headers}");
    assert!(!library.accepts(&headers, OTHER_SECRET, &body).await);
    assert!(!library.accepts(&headers, WHSEC, &body.replace("paid", "void")).await);
}

#[tokio::test]
async fn vendor_client_python_standard_webhooks_is_accepted() {
    is_understood(Library::find("standardwebhooks", true), &STANDARD_WEBHOOKS).await;
}

#[tokio::test]
async fn vendor_client_python_svix_is_accepted() {
    is_understood(Library::find("svix", true), &STANDARD_WEBHOOKS).await;
}

#[tokio::test]
async fn vendor_client_python_stripe_is_accepted() {
    is_understood(Library::find("stripe", true), &STRIPE).await;
}

#[tokio::test]
async fn vendor_client_node_stripe_is_accepted() {
    is_understood(Library::find("stripe", false), &STRIPE).await;
}
