//! The mapping of Shopify's events.

use time::macros::datetime;

use super::*;
use crate::{
    domain::ReasonCode,
    sources::{
        Received,
        conformance::{ConfiguredSource, envelope, json_object},
    },
};

const ORDER: &[(&str, &str)] = &[
    ("id", "9007199254740993"),
    ("name", "\"#2041\""),
    ("order_number", "2041"),
    ("financial_status", "\"paid\""),
    ("currency", "\"EUR\""),
    ("total_price", "\"598.94\""),
    ("customer", r#"{"id":9007199254740995,"email":null}"#),
    ("created_at", "\"2026-01-01T12:00:00+01:00\""),
    ("updated_at", "\"2026-01-02T12:00:00-05:00\""),
];

fn mapped(topic: &str, changes: &[(&str, &str)]) -> Result<MappedEvent, PermanentFailure> {
    Shopify {}.map(&envelope(topic, json_object(ORDER, changes)))
}

fn state(mapped: Result<MappedEvent, PermanentFailure>) -> (String, OffsetDateTime, Order) {
    match mapped {
        Ok(MappedEvent::Change(crate::domain::Change::Order(update))) => match *update {
            OrderUpdate::State { order_id, version, order, restored: false } => {
                (order_id, version, *order)
            }
            other => panic!("must be a state, is {other:?}"),
        },
        other => panic!("must be an order, is {other:?}"),
    }
}

fn order(changes: &[(&str, &str)]) -> Order {
    state(mapped("orders/updated", changes)).2
}

#[test]
fn shopify_order_topics_are_mapped() {
    for topic in ORDER_TOPICS {
        assert!(matches!(mapped(topic, &[]), Ok(MappedEvent::Change(_))), "{topic}");
    }
    for topic in ["orders/edited", "shop/redact", "test:orders/paid", ""] {
        assert_eq!(mapped(topic, &[]), Ok(MappedEvent::Ignored), "{topic}");
    }
}

#[test]
fn shopify_ids_and_timestamps_are_exact() {
    let (id, version, order) = state(mapped("orders/updated", &[]));
    assert_eq!(id, "9007199254740993");
    assert_eq!(order.customer_ref.as_deref(), Some("9007199254740995"));
    assert_eq!(order.placed_at, Some(datetime!(2026-01-01 11:00 UTC)));
    assert_eq!(version, datetime!(2026-01-02 17:00 UTC));
}

#[test]
fn shopify_statuses_are_normalized() {
    use OrderStatus::{
        Authorized, Cancelled, Other, Paid, PartiallyPaid, PartiallyRefunded, Pending, Refunded,
    };
    for (word, ours) in [
        ("pending", Pending),
        ("authorized", Authorized),
        ("partially_paid", PartiallyPaid),
        ("paid", Paid),
        ("partially_refunded", PartiallyRefunded),
        ("refunded", Refunded),
        ("voided", Cancelled),
        ("expired", Other),
        ("an unknown word", Other),
    ] {
        let literal = format!("{word:?}");
        let plain = order(&[("financial_status", &literal)]);
        assert_eq!((plain.status, plain.platform_status.as_str()), (ours, word), "{word}");
        let cancelled_at = ("cancelled_at", "\"2026-01-02T00:00:00Z\"");
        let cancelled = order(&[("financial_status", &literal), cancelled_at]);
        assert_eq!(cancelled.status, Cancelled, "{word}, cancelled");
        assert_eq!(cancelled.platform_status, word, "{word}, cancelled");
    }
    assert_eq!(order(&[("cancelled_at", "null")]).status, Paid);
    let without = order(&[("financial_status", "null")]);
    assert_eq!((without.status, without.platform_status.as_str()), (Other, ""));
}

#[test]
fn shopify_money_is_exact() {
    for (literal, amount) in [
        ("\"598.94\"", "598.94"),
        ("12.10", "12.10"),
        ("1e2", "100"),
        ("0.1", "0.1"),
        ("\"1234567890123456.78\"", "1234567890123456.78"),
    ] {
        let total = order(&[("total_price", literal)]).total;
        assert_eq!(total.amount.to_string(), amount, "{literal}");
    }
    let yen = order(&[("currency", "\"jpy\""), ("total_price", "\"1200\"")]).total;
    assert_eq!((yen.amount.to_string(), yen.currency.as_str()), ("1200".to_owned(), "JPY"));
}

#[test]
fn shopify_current_total_takes_precedence() {
    for (current, expected) in
        [("\"199.65\"", "199.65"), ("\"0.00\"", "0.00"), ("null", "598.94"), ("", "598.94")]
    {
        let total = order(&[("current_total_price", current)]).total;
        assert_eq!(total.amount.to_string(), expected, "{current}");
    }
}

#[test]
fn shopify_order_counts_successful_refunds_in_its_currency() {
    let refunds = r#"[
        {"transactions":[
            {"kind":"refund","status":"success","amount":"10.05","currency":"EUR"},
            {"kind":"refund","status":"failure","amount":"20.00","currency":"EUR"},
            {"kind":"refund","status":"pending","amount":"40.00","currency":"EUR"},
            {"kind":"void","status":"success","amount":"80.00","currency":"EUR"},
            {"kind":"refund","status":"success","amount":"160.00","currency":"USD"}]},
        {"transactions":[{"kind":"refund","status":"success","amount":1.10}]},
        {"transactions":[]},
        {}]"#;
    assert_eq!(order(&[("refunds", refunds)]).refunded.to_string(), "11.15");
    for none in ["null", "[]", ""] {
        assert_eq!(order(&[("refunds", none)]).refunded, Decimal::ZERO, "{none}");
    }
}

#[test]
fn shopify_customer_is_optional() {
    for literal in ["null", "", "{}", r#"{"id":null}"#] {
        assert_eq!(order(&[("customer", literal)]).customer_ref, None, "{literal}");
    }
}

#[test]
fn shopify_order_number_falls_back_to_id() {
    assert_eq!(order(&[]).number, "#2041");
    assert_eq!(order(&[("name", "null")]).number, "2041");
    assert_eq!(order(&[("name", ""), ("order_number", "")]).number, "9007199254740993");
}

#[test]
fn shopify_lines_have_current_quantities() {
    let items = r#"[
        {"id":9007199254740997,"sku":"A-1","title":"Mug","quantity":3,"current_quantity":2,
         "price":"4.15"},
        {"title":"Gift","quantity":1,"sku":null}]"#;
    let decimal = |text: &str| text.parse::<Decimal>().ok();
    let mug = OrderLine {
        id: Some("9007199254740997".to_owned()),
        sku: Some("A-1".to_owned()),
        title: Some("Mug".to_owned()),
        quantity: decimal("2"),
        unit_price: decimal("4.15"),
        total: decimal("8.30"),
    };
    let gift = OrderLine {
        id: None,
        sku: None,
        title: Some("Gift".to_owned()),
        quantity: decimal("1"),
        unit_price: None,
        total: None,
    };
    assert_eq!(order(&[("line_items", items)]).lines, [mug, gift]);
}

#[test]
fn shopify_failure_names_the_field() {
    let lines = r#"[{"price":"1"},{"price":"x"}]"#;
    let refunds = r#"[{"transactions":[{"kind":"refund","status":"success"}]}]"#;
    for (change, reason, field) in [
        (("id", ""), ReasonCode::MissingField, "/id"),
        (("currency", "null"), ReasonCode::MissingField, "/currency"),
        (("currency", "\"EURO\""), ReasonCode::InvalidValue, "/currency"),
        (("total_price", "\"\""), ReasonCode::MissingField, "/total_price"),
        (("total_price", "\"1,50\""), ReasonCode::InvalidValue, "/total_price"),
        (("cancelled_at", "\"soon\""), ReasonCode::InvalidValue, "/cancelled_at"),
        (("line_items", "{}"), ReasonCode::InvalidValue, "/line_items"),
        (("line_items", lines), ReasonCode::InvalidValue, "/line_items/1/price"),
        (("refunds", refunds), ReasonCode::MissingField, "/refunds/0/transactions/0/amount"),
    ] {
        let failure = mapped("orders/updated", &[change]).unwrap_err();
        assert_eq!((failure.reason, failure.field.as_str()), (reason, field), "{change:?}");
    }
}

#[test]
fn shopify_version_prefers_body_then_header() {
    let triggered_at = datetime!(2026-01-03 0:00 UTC);
    let received_at = envelope("", "").received_at;
    for (updated_at, header, expected) in [
        ("\"2026-01-02T00:00:00Z\"", Some(triggered_at), datetime!(2026-01-02 0:00 UTC)),
        ("", Some(triggered_at), triggered_at),
        ("null", None, received_at),
    ] {
        let body = json_object(ORDER, &[("updated_at", updated_at)]);
        let envelope = Envelope { version: header, ..envelope("orders/updated", body) };
        assert_eq!(state(Shopify {}.map(&envelope)).1, expected, "{updated_at}, {header:?}");
    }
}

#[test]
fn shopify_deletion_needs_only_the_id() {
    let mut envelope = envelope("orders/delete", r#"{"id":9007199254740993}"#);
    for version in [None, Some(datetime!(2026-01-03 0:00 UTC))] {
        envelope.version = version;
        let update = OrderUpdate::Deleted {
            order_id: "9007199254740993".to_owned(),
            deleted_at: version.unwrap_or(envelope.received_at),
        };
        let expected = MappedEvent::from(update);
        assert_eq!(Shopify {}.map(&envelope), Ok(expected));
    }
    envelope.body = "{}".into();
    assert_eq!(Shopify {}.map(&envelope), Err(PermanentFailure::missing("/id")));
}

#[test]
fn shopify_order_replayed_as_deletion_fails() {
    let failure = mapped("orders/delete", &[]).unwrap_err();
    assert_eq!(
        (failure.reason, failure.field.as_str()),
        (ReasonCode::InvalidValue, "/total_price")
    );
    let body = r#"{"id":1,"total_price":null,"current_total_price":null,"financial_status":null}"#;
    assert!(Shopify {}.map(&envelope("orders/delete", body)).is_ok());
}

/// Receives a valid request with these headers replaced.
fn received(changes: &[(&'static str, &str)]) -> Result<Received, Rejection> {
    let source = ConfiguredSource::load("shopify", "", &["FIRST"], &[]).unwrap();
    let webhook = OutgoingWebhook {
        topic: "orders/paid",
        tenant: "demo.myshopify.com",
        event_id: "w-1",
        triggered_at: datetime!(2026-01-03 0:00 UTC),
        sent_at: datetime!(2026-01-04 0:00 UTC),
        body: b"{}",
    };
    let mut headers: http::HeaderMap =
        source.source().signed_headers(&webhook).into_iter().collect();
    for (name, value) in changes {
        headers.insert(*name, value.parse().unwrap());
    }
    let body = bytes::Bytes::from_static(b"{}");
    let received_at = datetime!(2026-01-04 0:00 UTC);
    source.source().receive(&WebhookRequest {
        headers: &headers,
        query: "",
        body: &body,
        received_at,
    })
}

fn event(changes: &[(&'static str, &str)]) -> Event {
    match received(changes) {
        Ok(Received::Events { events, .. }) => events[0].clone(),
        other => panic!("{changes:?}: must be an event, is {other:?}"),
    }
}

#[test]
fn shopify_newer_header_family_takes_precedence() {
    let older = event(&[]);
    assert_eq!(older.event_id, "orders/paid:w-1");
    assert_eq!(older.version, Some(datetime!(2026-01-03 0:00 UTC)));
    let newer = event(&[
        ("shopify-topic", "orders/create"),
        ("shopify-shop-domain", "Other.myshopify.com"),
        ("shopify-webhook-id", "w-2"),
        ("shopify-triggered-at", "2026-01-05T00:00:00Z"),
    ]);
    assert_eq!(newer.event_id, "orders/create:w-2");
    assert_eq!(newer.topic, "orders/create");
    assert_eq!(newer.tenant, "other.myshopify.com");
    assert_eq!(newer.version, Some(datetime!(2026-01-05 0:00 UTC)));
    // "not the signature" in base64; the older header beside it is valid.
    let bad = received(&[("shopify-hmac-sha256", "bm90IHRoZSBzaWduYXR1cmU=")]);
    assert!(matches!(bad, Err(Rejection::InvalidSignature(_))), "{bad:?}");
}

#[test]
fn shopify_test_notification_is_ignored() {
    for (name, value, topic) in [
        ("x-shopify-test", "true", "test:orders/paid"),
        ("shopify-test", "True", "test:orders/paid"),
        ("x-shopify-test", "false", "orders/paid"),
    ] {
        assert_eq!(event(&[(name, value)]).topic, topic, "{name}: {value}");
    }
    assert_eq!(mapped("test:orders/paid", &[]), Ok(MappedEvent::Ignored));
}

#[test]
fn shopify_required_headers_are_checked() {
    for name in ["x-shopify-topic", "x-shopify-shop-domain"] {
        let given = received(&[(name, "")]);
        assert!(matches!(given, Err(Rejection::Malformed(_))), "{name}: {given:?}");
    }
    // Without a webhook id, the digest is used: SHA-256 of {}.
    let nameless = event(&[("x-shopify-webhook-id", "")]);
    assert!(nameless.event_id.starts_with("orders/paid:44136fa3"), "{}", nameless.event_id);
}

#[test]
fn shopify_refund_amount_is_the_refunded_money() {
    let refund = |transactions: &str| {
        let body = format!(
            r#"{{"id":509562969,"order_id":450789469,"processed_at":"2026-01-02T03:04:05+01:00",
                "transactions":{transactions}}}"#
        );
        Shopify {}.map(&envelope("refunds/create", body))
    };
    let back = |amount: &str, currency: &str| {
        format!(
            r#"{{"kind":"refund","status":"success","amount":"{amount}","currency":"{currency}"}}"#
        )
    };
    let failed = r#"{"kind":"refund","status":"failure","amount":"5.00","currency":"EUR"}"#;
    let charge = r#"{"kind":"sale","status":"success","amount":"99.00","currency":"EUR"}"#;
    let mapped_refund =
        refund(&format!("[{},{failed},{charge},{}]", back("1.10", "EUR"), back("2.20", "EUR")));
    let expected = Refund {
        refund_id: "509562969".to_owned(),
        target: RefundTarget::Order("450789469".to_owned()),
        status: RefundStatus::Succeeded,
        platform_status: "success".to_owned(),
        amount: Money { amount: "3.30".parse().unwrap(), currency: "EUR".parse().unwrap() },
        cumulative: false,
        version: datetime!(2026-01-02 2:04:05 UTC),
    };
    assert_eq!(mapped_refund, Ok(MappedEvent::from(expected)));
    // Goods that were only restocked, and failed refunds.
    for transactions in ["[]", &format!("[{failed},{charge}]")] {
        assert_eq!(refund(transactions), Ok(MappedEvent::Ignored), "{transactions}");
    }
    for (transactions, field) in [
        (format!("[{},{}]", back("1.00", "EUR"), back("1.00", "USD")), "/transactions"),
        (format!("[{}]", back("1,00", "EUR")), "/transactions/0/amount"),
        (format!("[{}]", back("1.00", "EURO")), "/transactions/0/currency"),
    ] {
        assert_eq!(refund(&transactions).unwrap_err().field, field, "{transactions}");
    }
}
