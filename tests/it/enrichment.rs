//! Thin events: the document is fetched from the platform, at its rate and from its host only, and
//! applied.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, StatusCode, header};
use serde_json::json;
use tallyhook::domain::{Envelope, EventKey, SourceName};
use tokio::{net::TcpListener, time::timeout};
use uuid::Uuid;

use crate::support::{TestApp, app::now, events::again};

type Respond = Box<dyn Fn(&str) -> Response + Send>;

/// A platform's API on this machine. Ends with the test's runtime.
#[derive(Clone)]
struct Platform {
    address: SocketAddr,
    respond: Arc<Mutex<Respond>>,
    requests: Arc<Mutex<Vec<(String, HeaderMap)>>>,
}

impl Platform {
    /// Responds to each path by this function.
    async fn start(respond: impl Fn(&str) -> Response + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let platform = Self {
            address: listener.local_addr().unwrap(),
            respond: Arc::new(Mutex::new(Box::new(respond))),
            requests: Arc::default(),
        };
        let this = platform.clone();
        let router = Router::new().fallback(move |request: Request| {
            let this = this.clone();
            async move { this.take(&request) }
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        platform
    }

    fn take(&self, request: &Request) -> Response {
        let path = request.uri().path_and_query().unwrap().to_string();
        let response = self.respond.lock().unwrap()(&path);
        self.requests.lock().unwrap().push((path, request.headers().clone()));
        response
    }

    fn set_response(&self, respond: impl Fn(&str) -> Response + Send + 'static) {
        *self.respond.lock().unwrap() = Box::new(respond);
    }

    /// The requested paths in alphabetical order.
    fn requested_paths(&self) -> Vec<String> {
        let mut paths: Vec<_> =
            self.requests.lock().unwrap().iter().map(|(path, _)| path.clone()).collect();
        paths.sort();
        paths
    }

    fn header(&self, name: &str) -> String {
        let requests = self.requests.lock().unwrap();
        let (_, headers) = requests.last().unwrap();
        headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    }

    /// An app whose source `books` is fetched from here.
    async fn app(&self, settings: &str) -> TestApp {
        let source = format!(
            "
            [sources.books]
            kind = 'quickbooks'
            secrets = ['env:SECRET']
            [sources.books.enrich]
            allow_private_addresses = true
            rate_limit_per_second = 1000
            {settings}
            [sources.books.enrich.headers]
            Authorization = 'Bearer env:SECRET'
            [sources.books.enrich.urls]
            invoice = 'http://{}/v3/company/{{tenant}}/{{kind}}/{{id}}?minorversion=75'
            ",
            self.address
        );
        TestApp::with(&[&source], |_| ()).await
    }
}

/// An invoice as QuickBooks has it.
fn invoice(id: &str, total: &str) -> String {
    json!({"Invoice": {
        "Id": id, "DocNumber": format!("INV-{id}"), "SyncToken": "2", "TotalAmt": total,
        "Balance": total, "CurrencyRef": {"value": "USD"},
        "MetaData": {"LastUpdatedTime": "2026-01-02T03:04:05Z"},
    }})
    .to_string()
}

/// Responds with an invoice of 12.50.
fn invoices(path: &str) -> Response {
    let id = path.split('?').next().unwrap().rsplit('/').next().unwrap();
    invoice(id, "12.50").into_response()
}

fn event(source: &str, tenant: &str, event_id: &str, body: &serde_json::Value) -> Envelope {
    let source: SourceName = source.parse().unwrap();
    Envelope {
        receipt_id: Uuid::now_v7(),
        key: EventKey::new(&source, tenant, event_id, 0),
        source,
        tenant: tenant.to_owned(),
        topic: "thin".to_owned(),
        version: None,
        received_at: now(),
        failed_attempts: 0,
        generation: 0,
        replay_id: None,
        received_over_http: true,
        secret_label: None,
        import: None,
        body: body.to_string().into(),
    }
}

/// An event of QuickBooks: `invoice.updated` and the like.
pub(crate) fn thin(event_type: &str, id: &str) -> Envelope {
    thin_at(event_type, id, "03:04:05")
}

/// The same at another time of the day.
fn thin_at(event_type: &str, id: &str, time: &str) -> Envelope {
    let event_id = Uuid::now_v7().to_string();
    let body = json!({
        "specversion": "1.0", "id": event_id, "type": format!("qbo.{event_type}.v1"),
        "time": format!("2026-01-02T{time}Z"), "intuitentityid": id, "intuitaccountid": "310687",
    });
    event("books", "310687", &event_id, &body)
}

fn single(event: &Envelope) -> &[Envelope] {
    std::slice::from_ref(event)
}

#[tokio::test]
async fn enrichment_fetches_each_document_once() {
    let platform = Platform::start(invoices).await;
    let app = platform.app("").await;
    let events = [
        thin("invoice.created", "7"),
        thin("invoice.updated", "7"),
        thin("invoice.updated", "8"),
        thin("invoice.deleted", "9"),
        thin("customer.updated", "1"),
    ];
    app.publish_all(&events).await;
    let mut consumer = app.consumer("books").await;
    consumer.drain(5).await;
    let path = |id: &str| format!("/v3/company/310687/invoice/{id}?minorversion=75");
    assert_eq!(platform.requested_paths(), [path("7"), path("8")]);
    assert_eq!(platform.header("authorization"), "Bearer a secret of the tests");
    assert_eq!(platform.header("accept"), "application/json");
    app.assert_outcomes(&events, &["applied"; 5]).await;
    let books = "select string_agg(concat_ws(' ', invoice_number, total::float, currency), ', '
                     order by invoice_number) from invoices";
    assert_eq!(app.text(books).await, "INV-7 12.5 USD, INV-8 12.5 USD");
    assert_eq!(app.count("select count(*) from resource_changes").await, 4);
    let key = "select business_key from receipts where business_key like '%8'";
    assert_eq!(app.text(key).await, "INV-8");
    let result =
        |result| app.context.metrics.enrichments.with_label_values(&["books", result]).get();
    assert_eq!((result("fetched"), result("failed")), (3, 0));

    // Duplicates change nothing, so nothing is fetched for them.
    app.publish_all(&[again(&events[0]), again(&events[2])]).await;
    consumer.drain(2).await;
    assert_eq!(platform.requested_paths().len(), 2);
    app.assert_conserved(7).await;
}

#[tokio::test]
async fn enrichment_deleted_document_is_not_fetched() {
    let platform = Platform::start(invoices).await;
    let app = platform.app("").await;
    let mut consumer = app.consumer("books").await;
    let first = thin("invoice.created", "7");
    app.publish_all(single(&first)).await;
    consumer.drain(1).await;
    // From now on every document is 404.
    platform.set_response(|_| StatusCode::NOT_FOUND.into_response());
    let events = [
        thin_at("invoice.deleted", "7", "09:00:00"),
        // An older event in the same batch, and one of another document.
        thin_at("invoice.updated", "7", "08:00:00"),
        thin_at("bill.deleted", "7", "09:00:00"),
    ];
    app.publish_all(&events).await;
    consumer.drain(3).await;
    // An older event in a later batch.
    let older = thin_at("invoice.updated", "7", "08:30:00");
    app.publish_all(single(&older)).await;
    consumer.drain(1).await;
    app.assert_outcomes(&events, &["applied", "stale", "applied"]).await;
    app.assert_outcomes(&[older], &["stale"]).await;
    assert_eq!(platform.requested_paths().len(), 1, "{:?}", platform.requested_paths());
    let query =
        "select concat_ws(' ', invoice_number, status, to_char(deleted_at at time zone 'utc',
                    'HH24:MI'), last_receipt) from invoices";
    let expected = format!("INV-7 open 09:00 {}", events[0].receipt_id);
    assert_eq!(app.text(query).await, expected);
    app.assert_conserved(5).await;
}

#[tokio::test]
async fn enrichment_failing_fetch_exhausts_retries_and_dead_letters() {
    let platform = Platform::start(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response()).await;
    let app = platform.app("circuit_breaker_threshold = 100").await;
    let events = [thin("invoice.updated", "7"), thin("customer.updated", "1")];
    app.publish_all(&events).await;
    let mut consumer = app.consumer("books").await;
    consumer.drain(2).await;
    app.assert_outcomes(&events, &["retried", "applied"]).await;
    for attempts in 2..=3 {
        assert_eq!(consumer.step().await, 1);
        assert_eq!(app.outcome_of(&events[0]).await, Some(("retried".to_owned(), attempts)));
    }
    assert_eq!(consumer.step().await, 1, "the last attempt");
    app.archive_dead_letters(1).await;
    assert_eq!(app.outcome_of(&events[0]).await, Some(("dead".to_owned(), 4)));
    let dead_letter =
        app.text("select concat_ws(' ', reason, attempts, error) from dead_letters").await;
    let path = "/v3/company/310687/invoice/7: answered 500 Internal Server Error";
    let actual = format!("GET {}{path}", platform.address);
    assert!(dead_letter.starts_with("attempts_exhausted 4 4 attempts failed"), "{dead_letter}");
    assert!(dead_letter.ends_with(&actual), "{dead_letter}");
    assert_eq!(platform.requested_paths().len(), 4);
    app.assert_conserved(2).await;
}

#[tokio::test]
async fn enrichment_open_circuit_fetches_nothing_and_counts_no_attempt() {
    let platform = Platform::start(|_| StatusCode::BAD_GATEWAY.into_response()).await;
    let app = platform.app("circuit_breaker_threshold = 1\ncircuit_breaker_open_ms = 3000").await;
    let open = app.context.metrics.circuit_breaker_open.with_label_values(&["enrichment", "books"]);
    let first = thin("invoice.updated", "7");
    app.publish_all(single(&first)).await;
    let mut consumer = app.consumer("books").await;
    assert_eq!(consumer.step().await, 1);
    assert_eq!(app.outcome_of(&first).await, Some(("retried".to_owned(), 1)));
    assert_eq!(open.get(), 1);

    platform.set_response(invoices);
    let second = thin("invoice.updated", "8");
    let unaffected = thin("customer.updated", "1");
    app.publish_all(&[second.clone(), unaffected.clone()]).await;
    // Deferred messages come back every 200 ms.
    consumer.step().await;
    while app.outcome_of(&unaffected).await.is_none() || app.outcome_of(&second).await.is_none() {
        consumer.step().await;
    }
    consumer.step().await;
    assert_eq!(app.outcome_of(&first).await, Some(("retried".to_owned(), 1)));
    assert_eq!(app.outcome_of(&second).await, Some(("retried".to_owned(), 0)));
    assert_eq!(app.outcome_of(&unaffected).await, Some(("applied".to_owned(), 0)));
    assert_eq!(
        platform.requested_paths().len(),
        1,
        "a document was fetched while the circuit was open"
    );
    let error = app.text("select error from receipts where attempts = 0 and error <> ''").await;
    assert!(error.contains("circuit breaker"), "{error}");

    while app.count("select count(*) from receipts where outcome = 'retried'").await > 0 {
        consumer.step().await;
    }
    assert_eq!(open.get(), 0);
    assert_eq!(app.outcome_of(&first).await, Some(("applied".to_owned(), 1)));
    assert_eq!(app.outcome_of(&second).await, Some(("applied".to_owned(), 0)));
    assert_eq!(platform.requested_paths().len(), 3);
    app.assert_conserved(3).await;
}

#[tokio::test]
async fn enrichment_deferred_without_ack_is_applied_once() {
    let platform = Platform::start(|_| StatusCode::BAD_GATEWAY.into_response()).await;
    let app = platform.app("circuit_breaker_threshold = 1\ncircuit_breaker_open_ms = 2000").await;
    let first = thin("invoice.updated", "7");
    app.publish_all(single(&first)).await;
    app.consumer("books").await.drain(1).await;
    platform.set_response(invoices);
    let second = thin("invoice.updated", "8");
    app.publish_all(single(&second)).await;
    // The worker dies after it deferred the message and before it acknowledges.
    let (link, mut dying) = app.consumer_on_own_connection("books").await;
    while app.outcome_of(&second).await.is_none() {
        let batch = dying.0.collect_batch().await.unwrap();
        dying.0.handle_batch(batch).await.unwrap();
    }
    link.close().await;
    drop(dying);
    let mut consumer = app.consumer("books").await;
    while app.count("select count(*) from receipts where outcome = 'retried'").await > 0 {
        consumer.step().await;
    }
    // The other copies.
    while timeout(Duration::from_millis(1500), consumer.0.step()).await.is_ok() {}
    assert_eq!(app.outcome_of(&first).await, Some(("applied".to_owned(), 1)));
    assert_eq!(app.outcome_of(&second).await, Some(("applied".to_owned(), 0)));
    app.assert_conserved(2).await;
}

#[tokio::test]
async fn enrichment_retry_after_is_respected() {
    let platform = Platform::start(|_| {
        (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "2")]).into_response()
    })
    .await;
    let app = platform.app("circuit_breaker_open_ms = 100").await;
    let event = thin("invoice.updated", "7");
    app.publish_all(single(&event)).await;
    let mut consumer = app.consumer("books").await;
    consumer.step().await;
    platform.set_response(invoices);
    let begun = std::time::Instant::now();
    while app.outcome_of(&event).await != Some(("applied".to_owned(), 1)) {
        consumer.step().await;
    }
    assert!(begun.elapsed() > Duration::from_millis(1500), "{:?}", begun.elapsed());
    assert_eq!(platform.requested_paths().len(), 2);
    app.assert_conserved(1).await;
}

#[tokio::test]
async fn enrichment_failed_fetch_records_the_cause() {
    let redirected = Platform::start(invoices).await;
    let location = format!("http://{}/x", redirected.address);
    let platform = Platform::start(move |path| match path.split(['/', '?']).nth(5).unwrap() {
        "1" => (StatusCode::FOUND, [(header::LOCATION, location.clone())]).into_response(),
        "2" => vec![b' '; 2000].into_response(),
        "3" => {
            let pieces = futures_util::stream::iter([vec![b' '; 600], vec![b' '; 600]]);
            Body::from_stream(futures_util::StreamExt::map(pieces, Ok::<_, std::io::Error>))
                .into_response()
        }
        "4" => {
            let silence = futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>();
            Body::from_stream(silence).into_response()
        }
        "5" => StatusCode::NOT_FOUND.into_response(),
        "6" => (StatusCode::FOUND, [(header::LOCATION, "?again")]).into_response(),
        "7" => (StatusCode::FOUND, [(header::LOCATION, "/v3/company/310687/invoice/70")])
            .into_response(),
        "70" => invoice("7", "12.50").into_response(),
        other => panic!("{other}"),
    })
    .await;
    let app = platform.app("timeout_ms = 500\nbody_limit_bytes = 1000").await;
    let mut consumer = app.consumer("books").await;
    for (id, why) in [
        ("1", "the response redirects to another origin, 127.0.0.1"),
        ("2", "the body has more than 1000 bytes"),
        ("3", "the body has more than 1000 bytes"),
        ("4", "no complete response within 500 ms"),
        ("5", "answered 404 Not Found"),
        ("6", "there are more than 3 redirects"),
    ] {
        let event = thin("invoice.updated", id);
        app.publish_all(single(&event)).await;
        for _ in 0..4 {
            consumer.step().await;
        }
        app.archive_dead_letters(1).await;
        let dead_letter = app.text("select error from dead_letters").await;
        assert!(
            dead_letter.contains(&format!("invoice/{id}: ")) && dead_letter.contains(why),
            "{dead_letter}"
        );
        assert!(!dead_letter.contains("minorversion"), "{dead_letter}");
        app.execute("delete from dead_letters").await;
    }
    assert_eq!(redirected.requested_paths(), [""; 0], "the redirect was followed");
    let event = thin("invoice.updated", "7");
    app.publish_all(single(&event)).await;
    consumer.step().await;
    assert_eq!(app.outcome_of(&event).await, Some(("applied".to_owned(), 0)));
}

#[tokio::test]
async fn enrichment_private_address_is_blocked_by_default() {
    let platform = Platform::start(invoices).await;
    let port = platform.address.port();
    let source = format!(
        "
        [sources.books]
        kind = 'quickbooks'
        secrets = ['env:SECRET']
        [sources.books.enrich.urls]
        invoice = 'https://localhost:{port}/{{id}}'
        "
    );
    let app = TestApp::with(&[&source], |_| ()).await;
    let event = thin("invoice.updated", "7");
    app.publish_all(single(&event)).await;
    let mut consumer = app.consumer("books").await;
    consumer.step().await;
    let why = app.text("select error from receipts").await;
    assert!(why.contains("localhost is at a private address"), "{why}");
    assert!(platform.requested_paths().is_empty());
    let refused = app.context.metrics.enrichments.with_label_values(&["books", "blocked"]).get();
    assert_eq!(refused, 1);
}

#[tokio::test]
async fn enrichment_unmappable_document_is_dead_lettered() {
    let platform = Platform::start(|_| "{\"Invoice\":{}}".into_response()).await;
    let app = platform.app("").await;
    let event = thin("invoice.updated", "7");
    app.publish_all(single(&event)).await;
    app.consumer("books").await.step().await;
    app.archive_dead_letters(1).await;
    let dead_letter =
        app.text("select concat_ws(' ', reason, attempts, error) from dead_letters").await;
    assert!(dead_letter.starts_with("missing_field 1 /Invoice/Id"), "{dead_letter}");
    assert_eq!(app.count("select count(*) from resource_changes").await, 0);
    app.assert_conserved(1).await;
}

#[tokio::test]
async fn enrichment_token_file_is_reread_and_tenant_header_is_sent() {
    let xero = json!({"Invoices": [{
        "InvoiceID": "5f2c", "InvoiceNumber": "X-1", "Type": "ACCREC", "Status": "AUTHORISED",
        "CurrencyCode": "NZD", "Total": 99.5, "UpdatedDateUTC": "/Date(1767322800000+0000)/",
    }]});
    let platform = Platform::start(move |_| xero.to_string().into_response()).await;
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "first\n").unwrap();
    let source = format!(
        "
        [sources.xero]
        kind = 'xero'
        secrets = ['env:SECRET']
        [sources.xero.enrich]
        allow_private_addresses = true
        [sources.xero.enrich.headers]
        Authorization = 'Bearer file:{}'
        Xero-tenant-id = 'const:{{tenant}}'
        [sources.xero.enrich.urls]
        invoice = 'http://{}/api.xro/2.0/Invoices/{{id}}'
        ",
        token.display(),
        platform.address,
    );
    let app = TestApp::with(&[&source], |_| ()).await;
    let mut consumer = app.consumer("xero").await;
    for (token_text, date) in [("first", "2026-01-02T03:04:05"), ("second", "2026-01-02T03:05:05")]
    {
        std::fs::write(&token, format!("{token_text}\n")).unwrap();
        let body = json!({
            "resourceId": "5f2c", "tenantId": "c2cc9b6e", "eventCategory": "INVOICE",
            "eventType": "UPDATE", "eventDateUtc": date,
        });
        let event = event("xero", "c2cc9b6e", date, &body);
        app.publish_all(single(&event)).await;
        consumer.step().await;
        assert_eq!(app.outcome_of(&event).await, Some(("applied".to_owned(), 0)));
        assert_eq!(platform.header("authorization"), format!("Bearer {token_text}"));
        assert_eq!(platform.header("xero-tenant-id"), "c2cc9b6e");
    }
    assert_eq!(platform.requested_paths(), ["/api.xro/2.0/Invoices/5f2c"; 2]);
    assert_eq!(app.text("select invoice_number from invoices").await, "X-1");
    app.assert_conserved(2).await;
}
