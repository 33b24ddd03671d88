//! The mapping of WooCommerce's events.

use bytes::Bytes;
use time::{OffsetDateTime, macros::datetime};

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
    ("number", "\"W-41\""),
    ("status", "\"pending\""),
    ("currency", "\"EUR\""),
    ("total", "\"59.90\""),
    ("customer_id", "12"),
    ("date_created_gmt", "\"2026-01-01T12:00:00\""),
    ("date_modified_gmt", "\"2026-01-02T12:00:00\""),
];

fn mapped(topic: &str, changes: &[(&str, &str)]) -> Result<MappedEvent, PermanentFailure> {
    WooCommerce {}.map(&envelope(topic, json_object(ORDER, changes)))
}

fn state(topic: &str, changes: &[(&str, &str)]) -> (String, OffsetDateTime, Order, bool) {
    match mapped(topic, changes) {
        Ok(MappedEvent::Change(crate::domain::Change::Order(update))) => match *update {
            OrderUpdate::State { order_id, version, order, restored } => {
                (order_id, version, *order, restored)
            }
            other @ OrderUpdate::Deleted { .. } => {
                panic!("{changes:?}: must be a state, is {other:?}")
            }
        },
        other => panic!("{changes:?}: must be an order, is {other:?}"),
    }
}

fn order(changes: &[(&str, &str)]) -> Order {
    state("order.updated", changes).2
}

#[test]
fn woocommerce_timestamps_are_utc_and_ids_are_exact() {
    let (id, version, order, _) = state("order.created", &[]);
    assert_eq!(id, "9007199254740993");
    assert_eq!(version, datetime!(2026-01-02 12:00 UTC));
    assert_eq!(order.placed_at, Some(datetime!(2026-01-01 12:00 UTC)));
    assert_eq!((order.number.as_str(), order.customer_ref.as_deref()), ("W-41", Some("12")));
    let (_, version, order, _) =
        state("order.created", &[("date_modified_gmt", "null"), ("number", "")]);
    assert_eq!(version, envelope("", "").received_at);
    assert_eq!(order.number, "9007199254740993");
}

#[test]
fn woocommerce_topics_are_mapped() {
    for (topic, restored) in
        [("order.created", false), ("order.updated", false), ("order.restored", true)]
    {
        assert_eq!(state(topic, &[]).3, restored, "{topic}");
    }
    let envelope = envelope("order.deleted", r#"{"id":9007199254740993}"#);
    let order_id = "9007199254740993".to_owned();
    let update = OrderUpdate::Deleted { order_id, deleted_at: envelope.received_at };
    let expected = MappedEvent::from(update);
    assert_eq!(WooCommerce {}.map(&envelope), Ok(expected));
    for topic in ["customer.created", "action.woocommerce_add_to_cart", ""] {
        assert_eq!(mapped(topic, &[]), Ok(MappedEvent::Ignored), "{topic}");
    }
}

#[test]
fn woocommerce_statuses_are_normalized() {
    use OrderStatus::{Cancelled, Failed, Other, Paid, Pending, Refunded};
    let (unpaid, paid) = ("null", "\"2026-01-01T13:00:00\"");
    for (word, date_paid, ours) in [
        ("pending", unpaid, Pending),
        ("on-hold", unpaid, Pending),
        // Cash on delivery.
        ("processing", unpaid, Pending),
        ("completed", "", Pending),
        ("processing", paid, Paid),
        ("completed", paid, Paid),
        ("on-hold", paid, Pending),
        ("cancelled", paid, Cancelled),
        ("refunded", paid, Refunded),
        ("failed", unpaid, Failed),
        ("trash", unpaid, Other),
        ("a-plugins-word", paid, Other),
    ] {
        let literal = format!("{word:?}");
        let order = order(&[("status", &literal), ("date_paid_gmt", date_paid)]);
        assert_eq!(order.status, ours, "{word}, paid {date_paid}");
        assert_eq!(order.platform_status, word, "{word}");
    }
}

#[test]
fn woocommerce_money_is_exact_and_refunds_are_negative() {
    for (literal, amount) in [("\"59.90\"", "59.90"), ("12.10", "12.10"), ("1e2", "100")] {
        assert_eq!(order(&[("total", literal)]).total.amount.to_string(), amount, "{literal}");
    }
    let yen = order(&[("currency", "\"JPY\""), ("total", "\"1200\"")]).total;
    assert_eq!((yen.amount.to_string(), yen.currency.as_str()), ("1200".to_owned(), "JPY"));
    for (literal, sum) in [
        (r#"[{"id":1,"total":"-5.00"},{"id":2,"total":"-0.10"},{"id":3}]"#, "5.10"),
        (r#"[{"id":1,"total":"5.00"}]"#, "5.00"),
        ("[]", "0"),
        ("", "0"),
    ] {
        assert_eq!(order(&[("refunds", literal)]).refunded.to_string(), sum, "{literal}");
    }
}

#[test]
fn woocommerce_guest_has_no_customer() {
    for literal in ["0", "null", "", "\"\""] {
        assert_eq!(order(&[("customer_id", literal)]).customer_ref, None, "{literal:?}");
    }
}

#[test]
fn woocommerce_lines_are_exact() {
    let items = r#"[{"id":3,"sku":"","name":"Mug","quantity":2,"price":4.15,"total":"8.30"}]"#;
    let decimal = |text: &str| text.parse::<Decimal>().ok();
    let mug = OrderLine {
        id: Some("3".to_owned()),
        sku: None,
        title: Some("Mug".to_owned()),
        quantity: decimal("2"),
        unit_price: decimal("4.15"),
        total: decimal("8.30"),
    };
    assert_eq!(order(&[("line_items", items)]).lines, [mug]);
}

#[test]
fn woocommerce_failure_names_the_field() {
    for (change, reason, field) in [
        (("id", "null"), ReasonCode::MissingField, "/id"),
        (("status", ""), ReasonCode::MissingField, "/status"),
        (("currency", ""), ReasonCode::MissingField, "/currency"),
        (("total", ""), ReasonCode::MissingField, "/total"),
        (("total", "\"1 200\""), ReasonCode::InvalidValue, "/total"),
        (("date_modified_gmt", "\"now\""), ReasonCode::InvalidValue, "/date_modified_gmt"),
        (("line_items", r#"[{},{"total":"x"}]"#), ReasonCode::InvalidValue, "/line_items/1/total"),
        (("refunds", r#"[{"total":[]}]"#), ReasonCode::InvalidValue, "/refunds/0/total"),
    ] {
        let failure = mapped("order.updated", &[change]).unwrap_err();
        assert_eq!((failure.reason, failure.field.as_str()), (reason, field), "{change:?}");
    }
    let failure = WooCommerce {}.map(&envelope("order.deleted", "{}")).unwrap_err();
    assert_eq!(failure, PermanentFailure::missing("/id"));
}

fn received(
    body: &'static str,
    headers: &[(&'static str, &'static str)],
) -> Result<Received, Rejection> {
    let source = ConfiguredSource::load("woocommerce", "", &["FIRST"], &[]).unwrap();
    let headers = headers
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect();
    let body = Bytes::from_static(body.as_bytes());
    let received_at = datetime!(2026-01-04 0:00 UTC);
    source.source().receive(&WebhookRequest {
        headers: &headers,
        query: "",
        body: &body,
        received_at,
    })
}

#[test]
fn woocommerce_ping_is_recognized_by_its_exact_form() {
    let form = ("content-type", "application/x-www-form-urlencoded");
    for body in ["webhook_id=2", "webhook_id=18446744073709551615"] {
        assert_eq!(received(body, &[form]), Ok(Received::Ping), "{body}");
        assert_eq!(received(body, &[]), Ok(Received::Ping), "{body}");
    }
    for body in [
        "",
        "webhook_id=",
        "webhook_id=x",
        "webhook_id=-1",
        "webhook_id=2&a=1",
        "webhook_id=2\n",
        " webhook_id=2",
        "webhook_id=111111111111111111111",
        r#"{"webhook_id":2}"#,
    ] {
        let given = received(body, &[form]);
        assert!(matches!(given, Err(Rejection::InvalidSignature(_))), "{body:?}: {given:?}");
    }
    let signed = received("webhook_id=2", &[form, ("x-wc-webhook-signature", "AAAA")]);
    assert!(matches!(signed, Err(Rejection::InvalidSignature(_))), "signed: {signed:?}");
}

#[test]
fn woocommerce_required_headers_are_checked() {
    let signed = ("x-wc-webhook-signature", "yEjP+rlZEQvphhe4lt6u/serJ/Qc9KKTu3vqX/5O5mE=");
    let topic = ("x-wc-webhook-topic", "order.updated");
    let shop = ("x-wc-webhook-source", "https://shop.example/");
    assert!(received("{}", &[signed, topic, shop]).is_ok());
    for headers in [[signed, topic], [signed, shop]] {
        let given = received("{}", &headers);
        assert!(matches!(given, Err(Rejection::Malformed(_))), "{headers:?}: {given:?}");
    }
}

#[test]
fn woocommerce_order_replayed_as_deletion_fails() {
    let failure = mapped("order.deleted", &[]).unwrap_err();
    assert_eq!((failure.reason, failure.field.as_str()), (ReasonCode::InvalidValue, "/status"));
}

#[test]
fn woocommerce_tenant_of_slashes_is_rejected() {
    let source =
        ConfiguredSource::load("woocommerce", "", &["FIRST"], &["https://shop.example"]).unwrap();
    let body = Bytes::from_static(b"{}");
    let sent = OutgoingWebhook {
        topic: "order.updated",
        tenant: "https://shop.example",
        event_id: "",
        triggered_at: OffsetDateTime::UNIX_EPOCH,
        sent_at: OffsetDateTime::UNIX_EPOCH,
        body: &body,
    };
    let mut headers: http::HeaderMap = source.source().signed_headers(&sent).into_iter().collect();
    for (shop, let_in) in
        [("https://shop.example//", true), ("https://other.example/", false), ("//", false)]
    {
        headers.insert("x-wc-webhook-source", HeaderValue::from_static(shop));
        let received_at = OffsetDateTime::UNIX_EPOCH;
        let request = WebhookRequest { headers: &headers, query: "", body: &body, received_at };
        assert_eq!(source.source().receive(&request).is_ok(), let_in, "{shop}");
    }
}

#[test]
fn woocommerce_second_deletion_is_another_event() {
    let source = ConfiguredSource::load("woocommerce", "", &["FIRST"], &[]).unwrap();
    let received = |topic: &str, webhook: &'static str| {
        let body = Bytes::from_static(b"{\"id\":7}");
        let sent = OutgoingWebhook {
            topic,
            tenant: "https://shop.example",
            event_id: "",
            triggered_at: OffsetDateTime::UNIX_EPOCH,
            sent_at: OffsetDateTime::UNIX_EPOCH,
            body: &body,
        };
        let mut headers: http::HeaderMap =
            source.source().signed_headers(&sent).into_iter().collect();
        let name = HeaderName::from_static("x-wc-webhook-delivery-id");
        headers.insert(name, HeaderValue::from_static(webhook));
        let received_at = OffsetDateTime::UNIX_EPOCH;
        let request = WebhookRequest { headers: &headers, query: "", body: &body, received_at };
        match source.source().receive(&request) {
            Ok(Received::Events { mut events, .. }) => events.remove(0).event_id,
            other => panic!("{other:?}"),
        }
    };
    assert_ne!(received("order.deleted", "one"), received("order.deleted", "two"));
    assert_eq!(received("order.deleted", "one"), received("order.deleted", "one"));
    // Other events are identified by the body; the delivery id is new on each attempt.
    assert_eq!(received("order.updated", "one"), received("order.updated", "two"));
}
