//! Requests with an invalid signature: counted, quarantined within limits where a source asks for it,
//! and applied once when an operator releases them.

use std::{collections::BTreeMap, time::Duration};

use reqwest::Response;
use tallyhook::{
    app::Components,
    app::Roles,
    review::{
        Actor, OperatorBroker, Selection,
        quarantine::{self, QuarantineError, Release},
    },
    store::quarantine::QuarantineFilter,
};
use uuid::Uuid;

use crate::support::{
    SHOP, TestApp, TestServer,
    amqp::long,
    events::shop_body,
    eventually,
    http::{client, dress},
    proxy::Proxy,
    seconds,
};

const SHOP_WITH_QUARANTINE: &str = "
[sources.shop]
kind = 'shopify'
secrets = ['env:SECRET']
quarantine_limit = 2
";
const ANNA: Actor<'static> = Actor { name: "anna", comment: "ticket 17" };
const QUARANTINED: &str = "select count(*) from quarantine";

/// The shop's source with a secret that the receiver does not know yet.
fn another_secret() -> Components {
    let secrets = BTreeMap::from([("SECRET".to_owned(), "another secret".to_owned())]);
    Components::from_toml(SHOP_WITH_QUARANTINE, &secrets).unwrap()
}

/// Posts a webhook signed by another secret.
async fn forge(server: &TestServer, event_id: &str, body: &str) -> Response {
    let mut request = client().post(server.url("/hooks/shop?token=hunter2"));
    for (name, value) in dress(&another_secret(), "shop", event_id, body) {
        request = request.header(name.as_str(), value.as_bytes());
    }
    request
        .header("content-type", "application/json")
        .header("authorization", "Bearer hunter2")
        .header("cookie", "session=hunter2")
        .body(body.to_owned())
        .send()
        .await
        .unwrap()
}

/// Posts until a request is let through: the receiver publishes at most one a second.
async fn forge_published(server: &TestServer, event_id: &str, body: &str) -> Response {
    let unrecorded = server.service.metrics.rejected_requests_unlogged.with_label_values(&["shop"]);
    loop {
        let before = unrecorded.get();
        let response = forge(server, event_id, body).await;
        assert_eq!(response.status(), 401);
        if unrecorded.get() == before {
            return response;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Posts a request that is quarantined; its receipt id.
async fn quarantine_one(app: &TestApp, server: &TestServer, event_id: &str, body: &str) -> Uuid {
    let response = forge_published(server, event_id, body).await;
    let id: Uuid = response.headers()["x-tallyhook-receipt"].to_str().unwrap().parse().unwrap();
    let stored = format!("{QUARANTINED} where receipt_id = '{id}'");
    eventually("the request", seconds(20), || async { app.count(&stored).await == 1 }).await;
    id
}

fn release<'a>(
    app: &'a TestApp,
    broker: &'a OperatorBroker,
    components: &'a Components,
) -> Release<'a> {
    Release { store: &app.context.store, sources: &components.sources, broker, actor: ANNA }
}

#[tokio::test]
async fn quarantine_disabled_counts_invalid_signatures_only() {
    let app = TestApp::with(&[SHOP], |_| ()).await;
    let server = TestServer::start(&app.config, Roles::ALL).await;
    for _ in 0..5 {
        assert_eq!(forge(&server, "1", &shop_body(1, 1, "1.00")).await.status(), 401);
    }
    let metrics = &server.service.metrics;
    assert_eq!(metrics.invalid_signatures.with_label_values(&["shop"]).get(), 5);
    assert_eq!(metrics.rejected_requests_unlogged.with_label_values(&["shop"]).get(), 0);
    // An accepted webhook comes after all others.
    assert_eq!(server.post("shop", "2", &shop_body(2, 1, "1.00")).await.status(), 200);
    let receipts = "select count(*) from receipts";
    eventually("the order", seconds(20), || async { app.count(receipts).await == 1 }).await;
    assert_eq!(app.count(QUARANTINED).await, 0);
    server.stop().await;
    app.assert_conserved(1).await;
}

#[tokio::test]
async fn quarantine_flood_keeps_newest_at_one_per_second() {
    let app = TestApp::with(&[SHOP_WITH_QUARANTINE], |_| ()).await;
    let server = TestServer::start(&app.config, Roles::ALL).await;
    let first = quarantine_one(&app, &server, "1", &shop_body(1, 1, "1.00")).await;
    quarantine_one(&app, &server, "2", &shop_body(2, 1, "1.00")).await;
    quarantine_one(&app, &server, "3", &shop_body(3, 1, "1.00")).await;
    let metrics = &server.service.metrics;
    let forged = metrics.invalid_signatures.with_label_values(&["shop"]);
    let unrecorded = metrics.rejected_requests_unlogged.with_label_values(&["shop"]);
    let before = (forged.get(), unrecorded.get());
    for _ in 0..20 {
        forge(&server, "4", &shop_body(4, 1, "1.00")).await;
    }
    assert_eq!(forged.get() - before.0, 20);
    assert!(unrecorded.get() - before.1 >= 10);
    // Too large for the quarantine.
    let large = format!("{{\"note\": \"{}\"}}", "x".repeat(256 * 1024));
    loop {
        forge(&server, "5", &large).await;
        let before = unrecorded.get();
        forge(&server, "6", &shop_body(6, 1, "1.00")).await;
        if unrecorded.get() == before {
            // The small one was let through, so the rate did not hold the large one back.
            break;
        }
    }
    server.stop().await;
    assert!(app.count(QUARANTINED).await <= 2);
    // The oldest is removed first.
    assert_eq!(app.count(&format!("{QUARANTINED} where receipt_id = '{first}'")).await, 0);
    assert_eq!(app.count("select count(*) from receipts").await, 0);
    let rest =
        quarantine::list(&app.context.store, &QuarantineFilter::default(), 10).await.unwrap();
    assert!(rest.iter().all(|call| call.payload_bytes < 1000), "{rest:?}");
}

#[tokio::test]
async fn quarantine_unstorable_headers_are_dropped() {
    let app = TestApp::with(&[SHOP_WITH_QUARANTINE], |_| ()).await;
    let (amqp, calls) = (app.amqp().await, app.context.topology.rejected_request_queue());
    for head in [r#"["\u0000"]"#, "{}"] {
        let headers = [("x-tallyhook-http-headers", long(head))];
        amqp.publish(&calls, "shop", None, &headers, b"{}").await;
    }
    let server = TestServer::start(&app.config, Roles { receiver: false, worker: true }).await;
    let plain =
        format!("{QUARANTINED} where headers = '[]' and error like 'not all of the request%'");
    eventually("the calls", seconds(20), || async { app.count(&plain).await == 2 }).await;
    server.stop().await;
}

#[tokio::test]
async fn quarantine_release_after_secret_fix_applies_once() {
    let app = TestApp::with(&[SHOP_WITH_QUARANTINE], |_| ()).await;
    let server = TestServer::start(&app.config, Roles::ALL).await;
    let body = shop_body(1, 1, "10.00");
    let id = quarantine_one(&app, &server, "1", &body).await;

    // Everything is shown but the credentials.
    let shown = quarantine::show(&app.context.store, id).await.unwrap();
    assert_eq!(shown.payload.as_deref(), Some(body.as_str()));
    assert_eq!(shown.parameters, ["token"]);
    let text = serde_json::to_string(&shown).unwrap();
    assert!(!text.contains("hunter2") && text.contains("authorization"), "{text}");
    assert!(!app.text("select headers::text from quarantine").await.contains("session"));

    // The signature is still invalid, so it stays.
    let broker = app.operator_broker();
    match release(&app, &broker, &app.components).request(id).await {
        Err(QuarantineError::StillRejected { id: text, .. }) => assert_eq!(text, id),
        other => panic!("{other:?}"),
    }
    assert_eq!(app.count(QUARANTINED).await, 1);

    let corrected = another_secret();
    let copy = "create temporary table copy as select * from quarantine";
    let mut session = app.db.acquire().await.unwrap();
    sqlx::query(copy).execute(&mut *session).await.unwrap();
    assert_eq!(release(&app, &broker, &corrected).request(id).await.unwrap(), 1);
    assert_eq!(app.count(QUARANTINED).await, 0);
    let applied = format!(
        "select count(*) from receipts where receipt_id = '{id}' and outcome = 'applied'
         and response_status is null"
    );
    eventually("the order", seconds(20), || async { app.count(&applied).await == 1 }).await;
    let gone = release(&app, &broker, &corrected).request(id).await;
    assert!(matches!(gone, Err(QuarantineError::NotFound(_))), "{gone:?}");

    // The row comes back, as after a crash before its deletion.
    let back = "insert into quarantine select * from copy";
    sqlx::query(back).execute(&mut *session).await.unwrap();
    assert_eq!(release(&app, &broker, &corrected).request(id).await.unwrap(), 1);
    let queue = app.context.topology.inbound_queue(&"shop".parse().unwrap());
    let amqp = app.amqp().await;
    eventually("an empty queue", seconds(10), || async { amqp.depth(&queue).await == Some(0) })
        .await;
    server.stop().await;
    assert_eq!(app.count("select count(*) from orders").await, 1);
    let audit_count = format!(
        "select count(*) from audit_log where action = 'release' and actor = 'anna'
         and comment = 'ticket 17' and detail->>'receipt_id' = '{id}' and detail->>'source' = 'shop'"
    );
    assert_eq!(app.count(&audit_count).await, 2);
    app.assert_conserved(1).await;
}

#[tokio::test]
async fn quarantine_unpublished_release_stays_and_discard_removes() {
    let mut proxy = None;
    let app = TestApp::with(&[SHOP_WITH_QUARANTINE], |config| {
        config.broker.confirm_timeout_ms = 500;
        proxy = Some(Proxy::before(&mut config.broker.url));
    })
    .await;
    let server = TestServer::start(&app.config, Roles::ALL).await;
    let id = quarantine_one(&app, &server, "1", &shop_body(1, 1, "10.00")).await;
    server.stop().await;
    proxy.unwrap().cut();
    let corrected = another_secret();
    let broker = app.operator_broker();
    let sent = release(&app, &broker, &corrected).request(id).await;
    assert!(matches!(sent, Err(QuarantineError::PublishFailed { .. })), "{sent:?}");
    assert_eq!(app.count(QUARANTINED).await, 1);
    let filter = QuarantineFilter { ids: vec![id], source: None };
    let selection = Selection::new(filter, false).unwrap();
    let selected = quarantine::select(&app.context.store, selection).await.unwrap();
    let discard = || quarantine::discard(&app.context.store, &selected, ANNA);
    assert_eq!(discard().await.unwrap(), 1);
    assert_eq!(discard().await.unwrap(), 0);
    assert_eq!(app.count("select count(*) from audit_log where action = 'discard'").await, 1);
}

#[tokio::test]
async fn quarantine_release_beyond_the_dedupe_window_is_rejected() {
    let app = TestApp::with(&[SHOP_WITH_QUARANTINE], |_| ()).await;
    let server = TestServer::start(&app.config, Roles::ALL).await;
    let id = quarantine_one(&app, &server, "1", &shop_body(1, 1, "1.00")).await;
    server.stop().await;
    // Shopify sends for four hours: a copy may have come that much earlier.
    let forgotten = |hours: u32| {
        format!(
            "delete from inbox_dropped_partitions; insert into inbox_dropped_partitions (partition_hour, processed_before)
             select 1, received_at - interval '{hours} hours' from quarantine"
        )
    };
    let config = another_secret();
    let broker = app.operator_broker();
    app.execute(&forgotten(3)).await;
    let refused = release(&app, &broker, &config).request(id).await;
    assert!(matches!(refused, Err(QuarantineError::TooOld { .. })), "{refused:?}");
    assert_eq!(app.count(QUARANTINED).await, 1);
    app.execute(&forgotten(5)).await;
    assert_eq!(release(&app, &broker, &config).request(id).await.unwrap(), 1);
}
