//! Every metric has the right value after known events.

use std::{collections::BTreeMap, time::Duration};

use tallyhook::{app::Roles, observability::metrics::MetricSet};

use crate::{
    enrichment::thin,
    support::{
        SHOP, TestApp, TestServer,
        events::shop_body,
        eventually,
        http::client,
        import_files::{HEADER, VENDORS, import_csv, row},
        seconds,
    },
};

/// A platform and a destination that do not accept connections. One failure opens the circuit.
const UNREACHABLE: &str = "
[sources.books]
kind = 'quickbooks'
secrets = ['env:SECRET']
[sources.books.enrich]
allow_private_addresses = true
circuit_breaker_threshold = 1
[sources.books.enrich.urls]
invoice = 'http://127.0.0.1:1/{id}'
[destinations.ledger]
kind = 'http'
events = ['order.upserted']
url = 'http://127.0.0.1:1/orders'
body = '{\"id\": {{ order_id }}}'
allow_private_addresses = true
circuit_breaker_threshold = 1
";

/// The expected value of a series.
#[derive(Clone, Copy, Debug)]
enum Value {
    Is(f64),
    AtLeast(f64),
    Between(f64, f64),
    Absent,
}
use Value::{Absent, AtLeast, Between, Is};

/// Seconds since 1970 of some day before these tests were written.
const RECENTLY: f64 = 1.7e9;

/// The series after the events of the test. `{prefix}` is the prefix of the queues.
const EXPECTED: &[(&str, Value)] = &[
    // An order, its duplicate, a body that is not JSON; three requests without a signature.
    (r#"tallyhook_http_requests_total{source="shop",status="200"}"#, Is(3.0)),
    (r#"tallyhook_http_requests_total{source="shop",status="401"}"#, Is(3.0)),
    (r#"tallyhook_http_requests_total{source="vendors",status="202"}"#, Is(1.0)),
    (r#"tallyhook_http_request_duration_seconds_count{source="shop"}"#, Is(6.0)),
    (r"tallyhook_http_requests_in_flight", Is(0.0)),
    (r#"tallyhook_invalid_signatures_total{source="shop"}"#, Is(3.0)),
    // One request a second is quarantined.
    (r#"tallyhook_rejected_requests_unlogged_total{source="shop"}"#, Between(1.0, 2.0)),
    (
        r#"tallyhook_secret_last_used_timestamp_seconds{secret="env:SECRET",source="shop"}"#,
        AtLeast(RECENTLY),
    ),
    (
        r#"tallyhook_secret_last_used_timestamp_seconds{secret="env:SECRET",source="books"}"#,
        Is(0.0),
    ),
    // Three webhooks, two items, the progress of the import, a record, a retry.
    (r"tallyhook_publish_confirm_duration_seconds_count", AtLeast(8.0)),
    (r#"tallyhook_messages_total{outcome="applied",source="shop"}"#, Is(1.0)),
    (r#"tallyhook_messages_total{outcome="duplicate",source="shop"}"#, Is(1.0)),
    (r#"tallyhook_messages_total{outcome="dead",source="shop"}"#, Is(1.0)),
    (r#"tallyhook_messages_total{outcome="stale",source="shop"}"#, Is(0.0)),
    (r#"tallyhook_messages_total{outcome="applied",source="vendors"}"#, Is(1.0)),
    (r"tallyhook_batch_messages_sum", AtLeast(4.0)),
    (r"tallyhook_batch_duration_seconds_count", AtLeast(2.0)),
    (r#"tallyhook_end_to_end_lag_seconds_count{source="shop"}"#, AtLeast(2.0)),
    // While the circuit is open, messages wait and attempts are not counted.
    (r#"tallyhook_failed_attempts_total{source="books"}"#, Is(1.0)),
    (r#"tallyhook_enrichments_total{result="failed",source="books"}"#, Is(1.0)),
    (r#"tallyhook_enrichment_duration_seconds_count{source="books"}"#, Is(1.0)),
    (r#"tallyhook_circuit_breaker_open{kind="enrichment",name="books"}"#, Is(1.0)),
    (r#"tallyhook_circuit_breaker_open{kind="destination",name="ledger"}"#, Is(1.0)),
    (r#"tallyhook_imports_total{source="vendors",state="received"}"#, Is(1.0)),
    (r#"tallyhook_import_duplicate_ratio{source="vendors"}"#, Is(0.5)),
    (r"tallyhook_import_items_in_flight", Is(0.0)),
    (r#"tallyhook_deliveries{destination="ledger",state="pending"}"#, Is(1.0)),
    (
        r#"tallyhook_delivery_oldest_age_seconds{destination="ledger",state="pending"}"#,
        Between(0.001, 120.0),
    ),
    (
        r#"tallyhook_delivery_attempts_total{destination="ledger",result="retry_later"}"#,
        AtLeast(1.0),
    ),
    (r#"tallyhook_delivery_attempts_total{destination="ledger",result="rejected"}"#, Is(0.0)),
    (r#"tallyhook_delivery_duration_seconds_count{destination="ledger"}"#, AtLeast(1.0)),
    (r#"tallyhook_dead_letters{reason="invalid_json",state="open"}"#, Is(1.0)),
    (
        r#"tallyhook_dead_letter_oldest_age_seconds{reason="invalid_json",state="open"}"#,
        Between(0.001, 120.0),
    ),
    (
        r#"tallyhook_queue_messages_ready{queue="{prefix}.inbound.shop",role="inbound",source="shop"}"#,
        Is(0.0),
    ),
    (
        r#"tallyhook_queue_missing{queue="{prefix}.inbound.shop",role="inbound",source="shop"}"#,
        Is(0.0),
    ),
    // The test deletes this queue.
    (
        r#"tallyhook_queue_messages_ready{queue="{prefix}.retry.100ms",role="retry",source=""}"#,
        Absent,
    ),
    (r#"tallyhook_queue_missing{queue="{prefix}.retry.100ms",role="retry",source=""}"#, Is(1.0)),
    (r#"tallyhook_broker_up{connection="publish"}"#, Is(1.0)),
    (r#"tallyhook_broker_up{connection="consume"}"#, Is(1.0)),
    (r#"tallyhook_inbox_partitions{state="active"}"#, AtLeast(1.0)),
    (r#"tallyhook_inbox_partitions{state="retained"}"#, Is(0.0)),
    (r"tallyhook_inbox_bytes", AtLeast(1.0)),
    (r"tallyhook_inbox_dedupe_window_seconds", Between(0.0, 7200.0)),
    (r"tallyhook_inbox_partitions_dropped_total", Is(0.0)),
    (r"tallyhook_receipts_dropped_total", Is(0.0)),
    (r"tallyhook_receipts_partitions_retained", Is(0.0)),
    (r"tallyhook_maintenance_last_success_timestamp_seconds", AtLeast(RECENTLY)),
    (r"tallyhook_maintenance_failures_total", Is(0.0)),
    (r"tallyhook_database_up", Is(1.0)),
    (r#"tallyhook_database_connections{state="idle"}"#, Between(0.0, 8.0)),
    (r#"tallyhook_database_connections{state="used"}"#, Between(0.0, 8.0)),
];

/// The seconds since the hour of the oldest partition of the inbox began.
const INBOX_AGE: &str = "
    select ceil(extract(epoch from now()))::bigint
        - 3600 * min(substring(inhrelid::regclass::text from '[0-9]+')::bigint)
    from pg_inherits where inhparent = 'inbox'::regclass";

/// The values of a text in the Prometheus format, by series.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series.to_owned(), value.parse().unwrap())
        })
        .collect()
}

/// The series without the expected value.
#[expect(clippy::float_arithmetic, reason = "metric values are floats")]
fn unexpected(text: &str, prefix: &str) -> Vec<String> {
    let values = parse(text);
    let check = |(series, expected): &(&str, Value)| {
        let series = series.replace("{prefix}", prefix);
        let value = values.get(&series).copied();
        let is_expected = match (*expected, value) {
            (Is(expected), Some(value)) => (value - expected).abs() < 1e-9,
            (AtLeast(min), Some(value)) => value >= min,
            (Between(min, max), Some(value)) => (min..=max).contains(&value),
            (Absent, None) => true,
            _ => false,
        };
        (!is_expected).then(|| format!("{series} is {value:?}, expected {expected:?}"))
    };
    let mut unexpected: Vec<String> = EXPECTED.iter().filter_map(check).collect();
    let connections =
        |state| values.get(&format!("tallyhook_database_connections{{state=\"{state}\"}}"));
    let open: f64 = ["idle", "used"].into_iter().filter_map(connections).sum();
    if open < 1.0 {
        unexpected.push(format!("{open} database connections are open"));
    }
    unexpected
}

#[test]
fn metrics_every_name_has_an_expected_value() {
    for name in MetricSet::NAMES {
        let is_expected = EXPECTED.iter().any(|(series, _)| {
            let series = series.split('{').next().unwrap();
            let base = ["_count", "_sum"].iter().find_map(|suffix| series.strip_suffix(suffix));
            base.unwrap_or(series) == *name
        });
        assert!(is_expected, "no test asserts the value of {name}");
    }
}

#[tokio::test]
async fn metrics_known_events_have_expected_values() {
    let shop = format!("{SHOP}quarantine_limit = 1\n");
    let app = TestApp::with(&[&shop, VENDORS, UNREACHABLE], |_| ()).await;
    let prefix = &app.config.broker.prefix;
    let server = TestServer::start(&app.config, Roles::ALL).await;
    app.amqp().await.delete(&format!("{prefix}.retry.100ms")).await;

    let order = shop_body(1, 1, "1.00");
    assert_eq!(server.post("shop", "1", &order).await.status(), 200);
    eventually("the order", seconds(20), || async {
        app.count("select count(*) from orders").await == 1
    })
    .await;
    assert_eq!(server.post("shop", "1", &order).await.status(), 200);
    assert_eq!(server.post("shop", "2", "not JSON").await.status(), 200);
    for _ in 0..3 {
        let unsigned = client().post(server.url("/hooks/shop")).body("{}").send().await.unwrap();
        assert_eq!(unsigned.status(), 401);
    }
    let file = format!("{HEADER}{}{}", row("INV-1", "1.00"), row("INV-1", "1.00"));
    import_csv(&server, file).await;
    app.publish_all(&[thin("invoice.updated", "7")]).await;

    let deadline = std::time::Instant::now() + seconds(60);
    loop {
        let unexpected = unexpected(&server.service.metrics.render(), prefix);
        if unexpected.is_empty() {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{unexpected:#?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // No partition was dropped: the window starts with the hour of the only one. Maintenance ran
    // when the worker started.
    let window = server.service.metrics.inbox_dedupe_window.get();
    let age = app.count(INBOX_AGE).await;
    assert!((age - 120..=age).contains(&window), "{window} s of {age} s");
    server.stop().await;
}
