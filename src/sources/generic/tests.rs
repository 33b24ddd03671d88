//! The mapping of generic events.

use rust_decimal::Decimal;
use time::macros::{date, datetime};

use super::*;
use crate::{
    domain::{
        Change, Invoice, InvoiceStatus, Money, Order, OrderLine, OrderStatus, OrderUpdate,
        ReasonCode,
    },
    sources::{
        conformance::{ConfiguredSource, envelope, json_object},
        selector::{FieldSource, Selector},
    },
};

const ORDERS: &str = r#"
    [sources.inbox.event]
    topic = "header:X-Topic"
    [sources.inbox.order]
    topics = ["order.*", "sale"]
    deleted_topics = ["order.deleted"]
    id = "/id"
    number = "/number"
    status = "/state"
    statuses = { "Bezahlt" = "paid", "PAID.LATE" = "pending" }
    currency = "/money/currency"
    total = "/money/amount"
    refunded = "/money/back"
    customer = "/customer"
    placed_at = "/placed"
    version = "/changed"
    lines = "/items"
    [sources.inbox.order.line]
    id = "/no"
    sku = "/sku"
    title = "/text"
    quantity = "/count"
    unit_price = "/price"
    total = "/sum"
"#;

const ORDER: &[(&str, &str)] = &[
    ("id", "9007199254740993"),
    ("number", "\"G-41\""),
    ("state", "\"Bezahlt\""),
    ("money", r#"{"currency":"eur","amount":12.10,"back":"2.05"}"#),
    ("customer", "\"C 9\""),
    ("placed", "\"2026-01-01T12:00:00\""),
    ("changed", "1767355200"),
];

const INVOICES: &str = r#"
    [sources.inbox.invoice]
    vendor = "/vendor"
    invoice_number = "/number"
    transaction_id = "/booking"
    status = "/state"
    statuses = { SETTLED = "paid" }
    currency = "const:CHF"
    total = "/total"
    due_on = "/due"
    version = "/changed"
"#;

const INVOICE: &[(&str, &str)] = &[
    ("vendor", "\"ACME\""),
    ("number", "9007199254740993"),
    ("booking", "77"),
    ("state", "\"SETTLED\""),
    ("total", "1e2"),
    ("due", "\"2026-02-28\""),
    ("changed", "\"2026-01-02T12:00:00Z\""),
];

fn mapped(settings: &str, topic: &str, body: String) -> Result<MappedEvent, PermanentFailure> {
    let source = ConfiguredSource::load("generic", settings, &["FIRST"], &[]).unwrap();
    source.source().map(&envelope(topic, body))
}

fn state(settings: &str, changes: &[(&str, &str)]) -> (String, time::OffsetDateTime, Order) {
    match mapped(settings, "order.paid", json_object(ORDER, changes)) {
        Ok(MappedEvent::Change(Change::Order(update))) => match *update {
            OrderUpdate::State { order_id, version, order, restored: false } => {
                (order_id, version, *order)
            }
            other => panic!("{changes:?}: {other:?}"),
        },
        other => panic!("{changes:?}: {other:?}"),
    }
}

fn invoice(settings: &str, changes: &[(&str, &str)]) -> Invoice {
    match mapped(settings, "", json_object(INVOICE, changes)) {
        Ok(MappedEvent::Change(Change::Invoice(invoice))) => *invoice,
        other => panic!("{changes:?}: {other:?}"),
    }
}

#[test]
fn generic_order_is_mapped_by_settings() {
    let items = r#"[{"no":1,"sku":"S","text":"Mug","count":2,"price":4.10,"sum":"8.20"}, {}]"#;
    let (id, version, order) = state(ORDERS, &[("items", items)]);
    assert_eq!(id, "9007199254740993");
    assert_eq!(version, datetime!(2026-01-02 12:00 UTC));
    let decimal = |text: &str| text.parse::<Decimal>().unwrap();
    let line = OrderLine {
        id: Some("1".to_owned()),
        sku: Some("S".to_owned()),
        title: Some("Mug".to_owned()),
        quantity: Some(decimal("2")),
        unit_price: Some(decimal("4.10")),
        total: Some(decimal("8.20")),
    };
    let empty_line = OrderLine {
        id: None,
        sku: None,
        title: None,
        quantity: None,
        unit_price: None,
        total: None,
    };
    let expected = Order {
        payment_ref: None,
        sequence: 0,
        number: "G-41".to_owned(),
        status: OrderStatus::Paid,
        platform_status: "Bezahlt".to_owned(),
        total: Money { amount: decimal("12.10"), currency: "EUR".parse().unwrap() },
        refunded: decimal("2.05"),
        customer_ref: Some("C 9".to_owned()),
        placed_at: Some(datetime!(2026-01-01 12:00 UTC)),
        lines: vec![line, empty_line],
    };
    assert_eq!(order.total.amount.to_string(), "12.10");
    assert_eq!(order, expected);
}

#[test]
fn generic_optional_fields_may_be_missing() {
    let least =
        "[sources.inbox.order]\nid = '/id'\ncurrency = 'const:JPY'\ntotal = '/money/amount'\n";
    let (id, version, order) = state(least, &[]);
    assert_eq!((id, order.number), ("9007199254740993".to_owned(), "9007199254740993".to_owned()));
    assert_eq!((order.status, order.platform_status.as_str()), (OrderStatus::Other, ""));
    assert_eq!(order.total.currency.as_str(), "JPY");
    assert_eq!((order.refunded, order.customer_ref), (Decimal::ZERO, None));
    assert_eq!(version, envelope("", "").received_at);
    let nulls = [("number", "null"), ("customer", ""), ("placed", "null"), ("changed", "")];
    let (_, version, order) = state(ORDERS, &nulls);
    assert_eq!((order.customer_ref, order.placed_at), (None, None));
    assert_eq!(order.number, "9007199254740993");
    assert_eq!(version, envelope("", "").received_at);
}

#[test]
fn generic_statuses_are_normalized() {
    for (word, ours) in [
        ("Bezahlt", OrderStatus::Paid),
        ("PAID.LATE", OrderStatus::Pending),
        ("Refunded", OrderStatus::Refunded),
        ("bezahlt", OrderStatus::Other),
        ("an unknown word", OrderStatus::Other),
    ] {
        let order = state(ORDERS, &[("state", &format!("{word:?}"))]).2;
        assert_eq!((order.status, order.platform_status.as_str()), (ours, word), "{word}");
    }
    for (literal, ours, word) in [
        ("\"SETTLED\"", InvoiceStatus::Paid, "SETTLED"),
        ("\"Void\"", InvoiceStatus::Void, "Void"),
        ("\"lost\"", InvoiceStatus::Other, "lost"),
        ("null", InvoiceStatus::Open, "open"),
    ] {
        let invoice = invoice(INVOICES, &[("state", literal)]);
        assert_eq!((invoice.status, invoice.platform_status.as_str()), (ours, word), "{word}");
    }
}

#[test]
fn generic_topics_select_the_mapping() {
    for (topic, expected) in [
        ("order.paid", "state"),
        ("order.", "state"),
        ("sale", "state"),
        ("order.deleted", "deleted"),
        ("sale.done", "ignored"),
        ("Order.paid", "ignored"),
        ("preorder.paid", "ignored"),
        ("", "ignored"),
    ] {
        let found = match mapped(ORDERS, topic, json_object(ORDER, &[])) {
            Ok(MappedEvent::Change(Change::Order(update))) => match *update {
                OrderUpdate::State { .. } => "state",
                OrderUpdate::Deleted { .. } => "deleted",
            },
            Ok(MappedEvent::Ignored) => "ignored",
            other => panic!("{topic}: {other:?}"),
        };
        assert_eq!(found, expected, "{topic:?}");
    }
}

#[test]
fn generic_topic_is_read_from_the_body() {
    let settings = ORDERS.replace("header:X-Topic", "/type");
    let topic = |literal| mapped(&settings, "", json_object(ORDER, &[("type", literal)]));
    assert!(matches!(topic("\"order.paid\""), Ok(MappedEvent::Change(_))));
    assert_eq!(topic("\"customer.paid\""), Ok(MappedEvent::Ignored));
    let broken = mapped(&settings, "", "{\"type\":".to_owned()).unwrap_err();
    assert_eq!(broken.reason, ReasonCode::InvalidJson);
}

#[test]
fn generic_deletion_needs_only_the_id() {
    let source = ConfiguredSource::load("generic", ORDERS, &["FIRST"], &[]).unwrap();
    let mut envelope = envelope("order.deleted", r#"{"id":"a"}"#);
    for version in [None, Some(datetime!(2026-01-03 0:00 UTC))] {
        envelope.version = version;
        let deleted_at = version.unwrap_or(envelope.received_at);
        let update = OrderUpdate::Deleted { order_id: "a".to_owned(), deleted_at };
        let expected = MappedEvent::Change(Change::Order(Box::new(update)));
        assert_eq!(source.source().map(&envelope), Ok(expected));
    }
}

#[test]
fn generic_invoice_is_mapped_by_settings() {
    let expected = Invoice {
        document_id: None,
        sequence: 0,
        vendor: "ACME".to_owned(),
        invoice_number: "9007199254740993".to_owned(),
        transaction_id: Some("77".to_owned()),
        status: InvoiceStatus::Paid,
        platform_status: "SETTLED".to_owned(),
        total: Money { amount: Decimal::ONE_HUNDRED, currency: "CHF".parse().unwrap() },
        due_on: Some(date!(2026 - 02 - 28)),
        version: datetime!(2026-01-02 12:00 UTC),
    };
    assert_eq!(invoice(INVOICES, &[]), expected);
    for (literal, day) in
        [("\"2026-02-28T23:30:00+01:00\"", Some(date!(2026 - 02 - 28))), ("null", None), ("", None)]
    {
        assert_eq!(invoice(INVOICES, &[("due", literal)]).due_on, day, "{literal}");
    }
    let bare = invoice(INVOICES, &[("vendor", ""), ("booking", "null"), ("changed", "")]);
    assert_eq!((bare.vendor.as_str(), bare.transaction_id), ("", None));
    assert_eq!(bare.version, envelope("", "").received_at);
}

#[test]
fn generic_failure_names_the_field() {
    for (settings, base, change, reason, field) in [
        (ORDERS, ORDER, ("id", ""), ReasonCode::MissingField, "/id"),
        (ORDERS, ORDER, ("money", "null"), ReasonCode::MissingField, "/money/amount"),
        (
            ORDERS,
            ORDER,
            ("money", r#"{"amount":1,"currency":"EURO"}"#),
            ReasonCode::InvalidValue,
            "/money/currency",
        ),
        (
            ORDERS,
            ORDER,
            ("items", r#"[{},{"price":"x"}]"#),
            ReasonCode::InvalidValue,
            "/items/1/price",
        ),
        (ORDERS, ORDER, ("changed", "\"x\""), ReasonCode::InvalidValue, "/changed"),
        (INVOICES, INVOICE, ("number", "null"), ReasonCode::MissingField, "/number"),
        (INVOICES, INVOICE, ("total", "\"x\""), ReasonCode::InvalidValue, "/total"),
        (INVOICES, INVOICE, ("due", "\"soon\""), ReasonCode::InvalidValue, "/due"),
    ] {
        let failure = mapped(settings, "order.paid", json_object(base, &[change])).unwrap_err();
        assert_eq!((failure.reason, failure.field.as_str()), (reason, field), "{change:?}");
    }
}

#[test]
fn selector_is_pointer_header_or_constant() {
    let selector = |text: &str| Selector::try_from(text.to_owned());
    assert_eq!(selector("/a/b"), Ok(Selector::Pointer("/a/b".to_owned())));
    assert_eq!(selector("header:X-Id"), Ok(Selector::Header("x-id".to_owned())));
    assert_eq!(selector("const:header:x"), Ok(Selector::Constant("header:x".to_owned())));
    for bad in ["", "a", "header:", "header:a b", "Header:x"] {
        assert!(selector(bad).is_err(), "{bad:?}");
    }
    assert!(FieldSource::try_from("header:X".to_owned()).is_err());
}

#[test]
fn generic_invalid_settings_name_the_key() {
    let orders = "[sources.inbox.order]\nid = '/i'\ncurrency = '/c'\ntotal = '/t'\n";
    let invoices =
        "[sources.inbox.invoice]\ninvoice_number = '/n'\ncurrency = '/c'\ntotal = '/t'\n";
    let topics = "[sources.inbox.event]\ntopic = '/type'\n";
    for (settings, key) in [
        (format!("{topics}{orders}{invoices}"), "inbox.order.topics"),
        (format!("{topics}{orders}{invoices}topics = ['i.*']\n"), "inbox.order.topics"),
        (format!("{orders}deleted_topics = ['gone']\n"), "inbox.event.topic"),
        (format!("{invoices}topics = ['i.*']\n"), "inbox.event.topic"),
        (format!("{orders}statuses = {{ X = 'payed' }}\n"), "inbox.order.statuses.X"),
        (format!("{invoices}statuses = {{ X = 'refunded' }}\n"), "inbox.invoice.statuses.X"),
        ("[sources.inbox.signature]\nheader = 'a b'\n".to_owned(), "inbox.signature.header"),
        ("[sources.inbox.signature]\nalgorithm = 'md5'\n".to_owned(), "md5"),
        ("[sources.inbox.event]\nid = 'header:'\n".to_owned(), "sources.inbox"),
    ] {
        let error =
            ConfiguredSource::load("generic", &settings, &["FIRST"], &[]).err().unwrap_or_default();
        assert!(error.contains(key), "{settings} must name {key}, says {error:?}");
    }
    let both = format!("{topics}{orders}topics = ['o.*']\n{invoices}");
    assert!(ConfiguredSource::load("generic", &both, &["FIRST"], &[]).is_ok());
}

#[test]
fn generic_unreadable_tenant_fails_mapping() {
    let settings = format!("[sources.inbox.event]\ntenant = '/company'\n{INVOICES}");
    for (company, field, reason) in [
        ("null", "/company", ReasonCode::MissingField),
        ("\"a\\u0000b\"", "/company", ReasonCode::InvalidValue),
        ("{}", "/company", ReasonCode::InvalidValue),
        // Readable, so another producer omitted the header.
        ("\"acme\"", "x-tallyhook-tenant", ReasonCode::MissingField),
    ] {
        let source = ConfiguredSource::load("generic", &settings, &["FIRST"], &[]).unwrap();
        let mut without_tenant = envelope("", json_object(INVOICE, &[("company", company)]));
        without_tenant.tenant.clear();
        let failure = source.source().map(&without_tenant).unwrap_err();
        assert_eq!((failure.field.as_str(), failure.reason), (field, reason), "{company}");
    }
}
