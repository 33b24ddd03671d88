//! Rejected requests: authentic ones have a receipt, the others are sampled and counted. Secrets are
//! reported by their labels.

use std::collections::BTreeMap;

use reqwest::Response;
use tallyhook::{
    app::{Components, Roles},
    sources::Source,
};

use crate::support::{
    SHOP, TestApp, TestServer,
    amqp::long,
    app::now,
    events::shop_body,
    eventually,
    http::{client, dress},
    proxy::Proxy,
    seconds, shop_order,
};

const LIMITED: &str = "
[sources.shop]
kind = 'shopify'
secrets = ['env:SECRET']
tenants = ['demo.myshopify.com']
";

const RECEIVER: Roles = Roles { receiver: true, worker: false };

/// Posts as the shop, with these headers over the usual ones.
async fn post(app: &TestApp, server: &TestServer, body: &str, extra: &[(&str, &str)]) -> Response {
    let mut headers: BTreeMap<String, String> = dress(&app.components, "shop", "1", body)
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    headers.insert("content-type".to_owned(), "application/json".to_owned());
    for (name, value) in extra {
        headers.insert((*name).to_owned(), (*value).to_owned());
    }
    let mut request = client().post(server.url("/hooks/shop"));
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request.body(body.to_owned()).send().await.unwrap()
}

/// Waits for the receipt of a response; returns it as text.
async fn on_record(app: &TestApp, answer: &Response) -> String {
    let receipt = answer.headers()["x-tallyhook-receipt"].to_str().unwrap().to_owned();
    let count = format!("select count(*) from receipts where receipt_id = '{receipt}'");
    eventually("the receipt", seconds(20), || async { app.count(&count).await == 1 }).await;
    app.text(&format!(
        "select concat_ws('|', outcome, response_status, source, tenant, attempts,
             coalesce(length(payload), -1), error) from receipts where receipt_id = '{receipt}'"
    ))
    .await
}

#[tokio::test]
async fn rejected_request_authentic_is_logged_with_payload() {
    let app = TestApp::with(&[LIMITED], |_| ()).await;
    let server = TestServer::start(&app.config, Roles::ALL).await;
    let body = shop_body(1, 1, "1.00");
    let length = body.len();

    let form = [("content-type", "application/x-www-form-urlencoded")];
    let answer = post(&app, &server, &body, &form).await;
    assert_eq!(answer.status(), 415);
    let row = on_record(&app, &answer).await;
    assert!(row.starts_with(&format!("rejected|415|shop||0|{length}|content type")), "{row}");

    let other = [("x-shopify-shop-domain", "other.myshopify.com")];
    let answer = post(&app, &server, &body, &other).await;
    assert_eq!(answer.status(), 401);
    let row = on_record(&app, &answer).await;
    let expected = format!("rejected|401|shop|other.myshopify.com|0|{length}|the tenant");
    assert!(row.starts_with(&expected), "{row}");
    assert!(!answer.text().await.unwrap().contains("other.myshopify.com"));

    let answer = post(&app, &server, &body, &[("x-shopify-topic", "")]).await;
    assert_eq!(answer.status(), 400);
    let row = on_record(&app, &answer).await;
    assert!(row.starts_with(&format!("rejected|400|shop||0|{length}|")), "{row}");

    // An accepted request, so that the total is not zero.
    assert_eq!(post(&app, &server, &body, &[]).await.status(), 200);
    let applied = "select count(*) from receipts where outcome = 'applied'";
    eventually("the order", seconds(20), || async { app.count(applied).await == 1 }).await;
    let keys = "select count(distinct event_key) from receipts where event_key like 'shop|%'";
    assert_eq!(app.count(keys).await, 4);
    let metrics = server.service.metrics.render();
    for line in [
        r#"tallyhook_messages_total{outcome="rejected",source="shop"} 3"#,
        r#"tallyhook_invalid_signatures_total{source="shop"} 0"#,
    ] {
        assert!(metrics.contains(line), "{line} is not in:\n{metrics}");
    }
    server.stop().await;
    assert_eq!(app.totals().await.rejected, 3);
    app.assert_conserved(1).await;
}

#[tokio::test]
async fn rejected_request_oversized_is_logged_without_body_once_a_second() {
    let app = TestApp::with(&[SHOP], |config| config.receiver.body_limit_bytes = 1000).await;
    let server = TestServer::start(&app.config, Roles::ALL).await;
    let large = "x".repeat(1001);
    let first = post(&app, &server, &large, &[]).await;
    assert_eq!(first.status(), 413);
    for _ in 0..20 {
        assert_eq!(post(&app, &server, &large, &[]).await.status(), 413);
    }
    let row = on_record(&app, &first).await;
    assert!(row.starts_with("rejected|413|shop||0|-1|a body may have at most 1000 bytes"), "{row}");
    let unrecorded =
        server.service.metrics.rejected_requests_unlogged.with_label_values(&["shop"]).get();
    assert!(unrecorded >= 10, "{unrecorded}");
    let totals = || async {
        let recorded = app.count("select count(*) from receipts where outcome = 'rejected'").await;
        recorded + i64::try_from(unrecorded).unwrap() == 21
    };
    eventually("each call, on record or counted", seconds(10), totals).await;
    server.stop().await;
    app.assert_conserved(0).await;
}

#[tokio::test]
async fn rejected_request_authentic_without_broker_returns_503() {
    let mut proxy = None;
    let app = TestApp::with(&[SHOP], |config| {
        config.broker.confirm_timeout_ms = 500;
        proxy = Some(Proxy::before(&mut config.broker.url));
    })
    .await;
    let server = TestServer::start(&app.config, RECEIVER).await;
    proxy.unwrap().cut();
    let body = shop_body(1, 1, "1.00");
    let form = [("content-type", "text/plain")];
    let answer = post(&app, &server, &body, &form).await;
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.headers()["retry-after"], "5");
    // A request with an invalid signature is rejected without the broker.
    let forged = [("x-shopify-hmac-sha256", "Zm9yZ2Vk")];
    assert_eq!(post(&app, &server, &body, &forged).await.status(), 401);
    server.stop().await;
}

#[tokio::test]
async fn rejected_request_foreign_messages_do_not_stop_the_consumer() {
    let app = TestApp::with(&[LIMITED], |_| ()).await;
    let receiver = TestServer::start(&app.config, RECEIVER).await;
    let body = shop_body(1, 1, "1.00");
    let form = [("content-type", "text/plain")];
    assert_eq!(post(&app, &receiver, &body, &form).await.status(), 415);
    let amqp = app.amqp().await;
    let calls = app.context.topology.rejected_request_queue();
    // Messages that our receiver would not publish: no receipt id, invalid texts, an invalid head.
    let odd = [
        ("x-tallyhook-status", long("many")),
        ("x-tallyhook-error", long("a\0b")),
        ("x-tallyhook-received-at", long("yesterday")),
    ];
    amqp.publish(&calls, "No Source", None, &odd, b"\0\xff").await;
    let head = [("x-tallyhook-http-headers", long("\"\\u0000\""))];
    amqp.publish(&calls, "shop", None, &head, b"").await;
    assert_eq!(amqp.depth(&calls).await, Some(3));
    let depths = app.context.topology.depths(&app.link).await.unwrap();
    let ready = depths.iter().find(|depth| depth.role == "calls").unwrap().ready;
    assert_eq!(ready, Some(3));

    let server = TestServer::start(&app.config, Roles { receiver: false, worker: true }).await;
    let rejected = "select count(*) from receipts where outcome = 'rejected'";
    eventually("the calls", seconds(20), || async { app.count(rejected).await == 2 }).await;
    eventually("an empty queue", seconds(10), || async { amqp.depth(&calls).await == Some(0) })
        .await;
    let strange = "select concat_ws('|', source, response_status, length(payload), error)
                   from receipts where source = 'unknown'";
    assert_eq!(app.text(strange).await, "unknown|2|a\u{fffd}b");
    assert_eq!(app.count("select count(*) from quarantine").await, 0);
    receiver.stop().await;
    server.stop().await;
    app.assert_conserved(0).await;
}

#[tokio::test]
async fn rejected_request_unstorable_blocks_no_other() {
    let app = TestApp::with(&[SHOP], |_| ()).await;
    app.execute("alter table receipts add constraint odd check (tenant <> 'odd')").await;
    let amqp = app.amqp().await;
    let calls = app.context.topology.rejected_request_queue();
    for tenant in ["a", "odd", "b"] {
        let headers = [("x-tallyhook-tenant", long(tenant)), ("x-tallyhook-error", long("why"))];
        amqp.publish(&calls, "shop", None, &headers, b"{}").await;
    }
    let server = TestServer::start(&app.config, Roles { receiver: false, worker: true }).await;
    let rejected = "select count(*) from receipts where outcome = 'rejected'";
    eventually("the calls", seconds(20), || async { app.count(rejected).await == 3 }).await;
    let query = "select string_agg(tenant || ':' || left(error, 19), ', ' order by tenant)
                from receipts";
    assert_eq!(app.text(query).await, ":not all of the requ, a:why, b:why");
    server.stop().await;
}

/// The same sources with another secret in front: as after a rotation.
fn two_secrets() -> &'static str {
    "
[sources.shop]
kind = 'shopify'
secrets = ['env:SECRET', 'env:OLD_SECRET']
"
}

#[tokio::test]
async fn secret_usage_is_visible_in_metrics_and_table() {
    let app = TestApp::with(&[two_secrets()], |_| ()).await;
    let labels: Vec<&str> =
        Source::secret_labels(&app.components.sources[&"shop".parse().unwrap()]).collect();
    assert_eq!(labels, ["env:SECRET", "env:OLD_SECRET"]);
    let server = TestServer::start(&app.config, Roles::ALL).await;
    let used =
        |label| server.service.metrics.secret_last_used.with_label_values(&["shop", label]).get();
    assert!(server.service.metrics.render().contains(
        r#"tallyhook_secret_last_used_timestamp_seconds{secret="env:OLD_SECRET",source="shop"} 0"#
    ));
    assert_eq!(post(&app, &server, &shop_body(1, 1, "1.00"), &[]).await.status(), 200);
    assert!(used("env:SECRET") > 1_700_000_000);
    assert_eq!(used("env:OLD_SECRET"), 0);
    let noted = "select coalesce(string_agg(source || ' ' || secret, ','), '') from secret_uses";
    eventually("the use", seconds(20), || async { app.text(noted).await == "shop env:SECRET" })
        .await;
    let fresh = "select count(*) from secret_uses where last_used_at > now() - interval '1 minute'
                 and last_used_at <= now()";
    assert_eq!(app.count(fresh).await, 1);

    // A header of a foreign producer is no use of a secret.
    let mut order = shop_order(2, 1, "2.00");
    order.secret_label = Some("env:SOMETHING".to_owned());
    let mut foreign = shop_order(3, 1, "3.00");
    (foreign.secret_label, foreign.received_over_http) = (Some("env:OLD_SECRET".to_owned()), false);
    app.publish_all(&[order, foreign]).await;
    eventually("the orders", seconds(20), || async {
        app.count("select count(*) from orders").await == 3
    })
    .await;
    // A later use is recorded, and these were not.
    let old = BTreeMap::from([("SECRET".to_owned(), "an older secret of the tests".to_owned())]);
    let old = Components::from_toml(SHOP, &old).unwrap();
    let recorded = "select string_agg(secret, ',' order by last_used_at) from secret_uses";
    let mut request = client().post(server.url("/hooks/shop"));
    let body = shop_body(4, 1, "4.00");
    for (name, value) in dress(&old, "shop", "later", &body) {
        request = request.header(name.as_str(), value.as_bytes());
    }
    let received_from = now();
    assert_eq!(request.body(body).send().await.unwrap().status(), 200);
    eventually("the later use", seconds(20), || async {
        app.text(recorded).await == "env:SECRET,env:OLD_SECRET"
    })
    .await;
    let earlier = sqlx::query_scalar::<_, i64>(
        "select count(*) from secret_uses where secret = 'env:OLD_SECRET' and last_used_at < $1",
    );
    assert_eq!(earlier.bind(received_from).fetch_one(&app.db).await.unwrap(), 0);
    server.stop().await;
    app.assert_conserved(4).await;
}

#[tokio::test]
async fn secret_usage_is_recorded_once_a_minute_and_never_in_the_future() {
    use tallyhook::store::secret_uses;
    let app = TestApp::new().await;
    let mut connection = app.context.store.connection().await.unwrap();
    let source = "shop".parse().unwrap();
    let last = "select extract(epoch from now() - last_used_at)::bigint from secret_uses";
    let now = time::OffsetDateTime::now_utc();
    for (at, age) in [
        (now - time::Duration::hours(2), 7200),
        (now - time::Duration::hours(3), 7200),
        (now - time::Duration::minutes(119) - time::Duration::seconds(30), 7200),
        (now - time::Duration::hours(1), 3600),
        (now + time::Duration::days(1000), 0),
    ] {
        secret_uses::record(&mut connection, &source, "env:SECRET", at).await.unwrap();
        let count = app.count(last).await;
        assert!((age..age + 15).contains(&count), "{count} is not {age}");
    }
}
