//! The mapping of Square's events and orders.

mod orders;
mod requests;

use bytes::Bytes;
use http::HeaderMap;
use rust_decimal::Decimal;
use time::{
    OffsetDateTime,
    macros::{date, datetime},
};

use super::*;
use crate::{
    domain::{
        Invoice, InvoiceStatus, Order, OrderStatus, OrderUpdate, ReasonCode, Refund, RefundStatus,
        RefundTarget,
    },
    sources::{
        Received,
        conformance::{ConfiguredSource, envelope, json_object},
        signature::Key,
    },
};

const URL: &str = "https://hooks.example/square?shop=1";

fn square() -> Square {
    Square::new(SquareSettings { url: Some(URL.to_owned()) }).unwrap()
}

/// An event that contains an object.
fn event(topic: &str, object: &str) -> String {
    format!(
        r#"{{"merchant_id":"MLEFBHHSJGVHD","type":"{topic}","event_id":"e-1","created_at":"2026-01-02T03:04:05.123456789Z","data":{{"type":"x","id":"d-1","object":{object}}}}}"#
    )
}

fn mapped(topic: &str, object: &str) -> Result<MappedEvent, PermanentFailure> {
    let mut envelope = envelope(topic, event(topic, object));
    envelope.tenant = "MLEFBHHSJGVHD".to_owned();
    square().map(&envelope)
}

const INVOICE: &[(&str, &str)] = &[
    ("id", "\"inv:0-ChCHu2mZEabLeeHahQnXDjZQECY\""),
    ("version", "3"),
    ("invoice_number", "\"000017\""),
    ("order_id", "\"o-1\""),
    ("status", "\"UNPAID\""),
    (
        "payment_requests",
        r#"[{"due_date":"2026-02-01","computed_amount_money":{"amount":10001,"currency":"USD"}}]"#,
    ),
    ("updated_at", "\"2026-01-02T03:04:05Z\""),
];

fn invoice(changes: &[(&str, &str)]) -> Result<Invoice, PermanentFailure> {
    let object = format!(r#"{{"invoice":{}}}"#, json_object(INVOICE, changes));
    match mapped("invoice.updated", &object)? {
        MappedEvent::Change(Change::Invoice(invoice)) => Ok(*invoice),
        other => panic!("must be an invoice, is {other:?}"),
    }
}

const REFUND: &[(&str, &str)] = &[
    ("id", "\"r-1\""),
    ("order_id", "\"return-1\""),
    ("payment_id", "\"p-1\""),
    ("status", "\"COMPLETED\""),
    ("amount_money", r#"{"amount":250,"currency":"USD"}"#),
    ("updated_at", "\"2026-01-02T03:04:05Z\""),
];

fn refund(changes: &[(&str, &str)]) -> Result<Refund, PermanentFailure> {
    let object = format!(r#"{{"refund":{}}}"#, json_object(REFUND, changes));
    match mapped("refund.updated", &object)? {
        MappedEvent::Change(Change::Refund(refund)) => Ok(*refund),
        other => panic!("must be a refund, is {other:?}"),
    }
}

fn change(topic: &str, object: &str) -> ResourceChange {
    match mapped(topic, object) {
        Ok(MappedEvent::Change(Change::ResourceChanged(change))) => *change,
        other => panic!("must be a change, is {other:?}"),
    }
}

#[test]
fn square_unmapped_topics_are_ignored() {
    for topic in [
        "webhooks.test_notification",
        "payment.updated",
        "payment.created",
        "customer.created",
        "order.custom_attribute.owned.updated",
    ] {
        assert_eq!(mapped(topic, "{}"), Ok(MappedEvent::Ignored), "{topic}");
    }
}

#[test]
fn square_invoice_is_mapped() {
    assert_eq!(
        invoice(&[]).unwrap(),
        Invoice {
            document_id: Some("inv:0-ChCHu2mZEabLeeHahQnXDjZQECY".to_owned()),
            vendor: String::new(),
            invoice_number: "000017".to_owned(),
            transaction_id: None,
            status: InvoiceStatus::Open,
            platform_status: "UNPAID".to_owned(),
            total: crate::domain::Money {
                amount: Decimal::new(10001, 2),
                currency: "USD".parse().unwrap(),
            },
            due_on: Some(date!(2026 - 02 - 01)),
            sequence: 3,
            version: datetime!(2026-01-02 3:04:05 UTC),
        }
    );
    let draft = invoice(&[("invoice_number", "")]).unwrap();
    assert_eq!(draft.invoice_number, "inv:0-ChCHu2mZEabLeeHahQnXDjZQECY");
    let large = invoice(&[("version", "9007199254740993"), ("id", "9007199254740993")]).unwrap();
    assert_eq!(large.sequence, 9_007_199_254_740_993);
    assert_eq!(large.document_id.as_deref(), Some("9007199254740993"));
}

#[test]
fn square_invoice_version_orders_states() {
    // Within the same second, in any order.
    let [newer, older] = ["4", "3"].map(|version| invoice(&[("version", version)]).unwrap());
    assert_eq!(newer.version, older.version);
    assert!(newer.sequence > older.sequence);
}

#[test]
fn square_invoice_statuses_are_normalized() {
    use InvoiceStatus::{Draft, Open, Other, Paid, Void};
    for (word, ours) in [
        ("DRAFT", Draft),
        ("UNPAID", Open),
        ("SCHEDULED", Open),
        ("PARTIALLY_PAID", Open),
        ("PAYMENT_PENDING", Open),
        ("PAID", Paid),
        ("PARTIALLY_REFUNDED", Paid),
        ("REFUNDED", Paid),
        ("CANCELED", Void),
        ("FAILED", Void),
        ("UNKNOWN", Other),
    ] {
        let invoice = invoice(&[("status", &format!("{word:?}"))]).unwrap();
        assert_eq!((invoice.status, invoice.platform_status.as_str()), (ours, word), "{word}");
    }
}

#[test]
fn square_invoice_total_is_the_sum_of_payment_requests() {
    for (requests, total, due_on) in [
        (
            r#"[{"due_date":"2026-03-01","computed_amount_money":{"amount":100,"currency":"EUR"}},
                {"due_date":"2026-02-01","computed_amount_money":{"amount":1,"currency":"EUR"}},
                {"computed_amount_money":{"amount":0,"currency":"eur"}}]"#,
            "1.01",
            Some(date!(2026 - 03 - 01)),
        ),
        (r#"[{"computed_amount_money":{"amount":1200,"currency":"JPY"}}]"#, "1200", None),
        (r#"[{"computed_amount_money":{"amount":1250,"currency":"KWD"}}]"#, "1.250", None),
        (
            r#"[{"computed_amount_money":{"amount":9007199254740993,"currency":"USD"}}]"#,
            "90071992547409.93",
            None,
        ),
    ] {
        let invoice = invoice(&[("payment_requests", requests)]).unwrap();
        assert_eq!(invoice.total.amount.to_string(), total, "{requests}");
        assert_eq!(invoice.due_on, due_on, "{requests}");
    }
}

#[test]
fn square_invoice_failure_names_the_field() {
    let within = "/data/object/invoice/payment_requests";
    for (requests, reason, field) in [
        ("[]", ReasonCode::MissingField, ""),
        ("", ReasonCode::MissingField, ""),
        ("{}", ReasonCode::InvalidValue, ""),
        (
            r#"[{"due_date":"2026-02-01"}]"#,
            ReasonCode::MissingField,
            "/0/computed_amount_money/currency",
        ),
        (
            r#"[{"computed_amount_money":{"amount":1,"currency":"USD"}},{"computed_amount_money":{"amount":1,"currency":"CAD"}}]"#,
            ReasonCode::InvalidValue,
            "/1/computed_amount_money/currency",
        ),
        (
            r#"[{"computed_amount_money":{"amount":1,"currency":"USD"}},{}]"#,
            ReasonCode::MissingField,
            "/1/computed_amount_money/amount",
        ),
        (
            r#"[{"computed_amount_money":{"amount":1.5,"currency":"USD"}}]"#,
            ReasonCode::InvalidValue,
            "/0/computed_amount_money/amount",
        ),
    ] {
        let failure = invoice(&[("payment_requests", requests)]).unwrap_err();
        assert_eq!((failure.reason, failure.field), (reason, format!("{within}{field}")));
    }
    for (field, literal) in
        [("id", ""), ("status", ""), ("version", "\"x\""), ("updated_at", "\"x\"")]
    {
        let failure = invoice(&[(field, literal)]).unwrap_err();
        assert_eq!(failure.field, format!("/data/object/invoice/{field}"));
    }
}

#[test]
fn square_deleted_draft_is_a_thin_event() {
    let change = change("invoice.deleted", "null");
    assert_eq!((change.kind.as_str(), change.id.as_str()), ("invoice", "d-1"));
    assert!(change.is_deletion());
    assert_eq!(change.changed_at, datetime!(2026-01-02 3:04:05.123456789 UTC));
    let resource = square().map_resource(&change, &envelope("", ""), b"{}");
    assert_eq!(resource, Ok(None));
}

#[test]
fn square_order_is_a_thin_event() {
    for (topic, name, action) in [
        ("order.created", "order_created", "created"),
        ("order.updated", "order_updated", "updated"),
        ("order.fulfillment.updated", "order_fulfillment_updated", "updated"),
    ] {
        let object = format!(
            r#"{{"{name}":{{"order_id":"o-1","version":7,"state":"OPEN","created_at":"2026-01-01T00:00:00Z","updated_at":"2026-01-02T00:00:00Z"}}}}"#
        );
        let expected = ResourceChange {
            platform: "square",
            kind: "order".to_owned(),
            id: "o-1".to_owned(),
            version: Some(7),
            changed_at: datetime!(2026-01-02 0:00 UTC),
            action: action.to_owned(),
        };
        assert_eq!(change(topic, &object), expected, "{topic}");
        let bare =
            format!(r#"{{"{name}":{{"order_id":"o-1","created_at":"2026-01-01T00:00:00Z"}}}}"#);
        let bare = change(topic, &bare);
        assert_eq!((bare.version, bare.changed_at), (None, datetime!(2026-01-01 0:00 UTC)));
        let failure = mapped(topic, "{}").unwrap_err();
        assert_eq!(failure, PermanentFailure::missing(format!("/data/object/{name}/order_id")));
    }
}

#[test]
fn square_refund_refers_to_the_payment() {
    let complete = refund(&[]).unwrap();
    assert_eq!(complete.refund_id, "r-1");
    assert_eq!(complete.target, RefundTarget::Payment("p-1".to_owned()));
    assert_eq!(complete.amount.amount.to_string(), "2.50");
    assert_eq!(complete.version, datetime!(2026-01-02 3:04:05 UTC));
    let unlinked = refund(&[("payment_id", "")]).unwrap();
    assert_eq!(unlinked.target, RefundTarget::Order("return-1".to_owned()));
    for field in ["id", "status"] {
        let failure = refund(&[(field, "null")]).unwrap_err();
        assert_eq!(failure, PermanentFailure::missing(format!("/data/object/refund/{field}")));
    }
}

#[test]
fn square_refund_statuses_are_normalized() {
    use RefundStatus::{Failed, Other, Pending, Succeeded};
    for (word, ours) in [
        ("PENDING", Pending),
        ("COMPLETED", Succeeded),
        ("REJECTED", Failed),
        ("FAILED", Failed),
        ("UNKNOWN", Other),
    ] {
        let refund = refund(&[("status", &format!("{word:?}"))]).unwrap();
        assert_eq!((refund.status, refund.platform_status.as_str()), (ours, word), "{word}");
    }
}

#[test]
fn square_business_key_is_readable_if_mapping_fails() {
    for (object, number) in [
        (r#"{"invoice":{"id":"i","invoice_number":"000017"}}"#, Some("000017")),
        (r#"{"invoice":{"id":"i"}}"#, Some("i")),
        (r#"{"refund":{"id":"r","payment_id":"p","order_id":"o"}}"#, Some("p")),
        (r#"{"order_fulfillment_updated":{"order_id":"o"}}"#, Some("o")),
        ("{}", None),
    ] {
        let found = square().business_key(&envelope("x", event("x", object)));
        assert_eq!(found.as_deref(), number, "{object}");
    }
}
