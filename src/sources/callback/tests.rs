//! Invoices of callback clients, and the responses.

use http::HeaderMap;
use rust_decimal::Decimal;
use time::macros::{date, datetime};

use super::*;
use crate::{
    domain::{Change, EventKey, Invoice, InvoiceStatus, Money},
    sources::{
        Received, Source,
        conformance::{ConfiguredSource, envelope, json_object},
    },
};

const LEAST: &[(&str, &str)] =
    &[("invoiceNumber", "\"INV-1\""), ("transactionId", "\"T-1\""), ("amount", "\"12.50\"")];

const OWN: &str = r#"
    tenant = "/company"
    [sources.inbox.invoice]
    invoice_number = "/doc/no"
    transaction_id = "/doc/booking"
    amount = "/doc/cents"
    minor_units = true
    vendor = "const:ACME"
    currency = "/doc/currency"
    due_on = "/doc/due"
    status = "/doc/state"
    statuses = { BEZAHLT = "paid" }
    version = "/doc/changed"
"#;

fn source(settings: &str) -> ConfiguredSource {
    ConfiguredSource::load("callback", settings, &["FIRST"], &[]).unwrap()
}

/// Sends an authentic request with this body.
fn request(source: &Source, body: impl Into<Bytes>, more: &[(&'static str, &str)]) -> Outcome {
    let body = body.into();
    let at = envelope("", "").received_at;
    let webhook = OutgoingWebhook {
        topic: INVOICE_TOPIC,
        tenant: "acme",
        event_id: "",
        triggered_at: at,
        sent_at: at,
        body: &body,
    };
    let mut headers: HeaderMap = source.signed_headers(&webhook).into_iter().collect();
    for (name, value) in more {
        headers.insert(*name, value.parse().unwrap());
    }
    match source.receive(&WebhookRequest {
        headers: &headers,
        query: "",
        body: &body,
        received_at: at,
    }) {
        Ok(Received::Events { mut events, .. }) if events.len() == 1 => Ok(events.remove(0)),
        Ok(other) => panic!("must be one event: {other:?}"),
        Err(rejection) => Err(rejection),
    }
}

type Outcome = Result<Event, Rejection>;

fn event(settings: &str, changes: &[(&str, &str)]) -> Event {
    let body = json_object(LEAST, changes);
    request(source(settings).source(), body.clone(), &[]).unwrap_or_else(|rejection| {
        panic!("{body}: {rejection}");
    })
}

/// The invalid fields, in the order of the response.
fn faults(outcome: Outcome) -> Vec<String> {
    match outcome {
        Err(Rejection::InvalidFields(failures)) => {
            failures.into_iter().map(|failure| failure.field).collect()
        }
        other => panic!("must be refused for its fields: {other:?}"),
    }
}

fn invoice(settings: &str, event: Event) -> Invoice {
    let envelope = Envelope {
        tenant: event.tenant,
        version: event.version,
        ..envelope(INVOICE_TOPIC, event.body)
    };
    match source(settings).source().map(&envelope) {
        Ok(MappedEvent::Change(Change::Invoice(invoice))) => *invoice,
        other => panic!("must be an invoice: {other:?}"),
    }
}

fn acceptance(event: &Event) -> String {
    let body = source("").source().success_body(&"inbox".parse().unwrap(), event).unwrap();
    String::from_utf8(body.to_vec()).unwrap()
}

#[test]
fn callback_documented_names_need_no_settings() {
    let received = event(
        "",
        &[
            ("vendor", "\"ACME\""),
            ("currency", "\"eur\""),
            ("dueDate", "\"2026-02-28\""),
            ("somethingElse", "[{}]"),
        ],
    );
    assert_eq!((received.topic.as_str(), received.tenant.as_str()), ("invoice", ""));
    let expected = Invoice {
        document_id: None,
        vendor: "ACME".to_owned(),
        invoice_number: "INV-1".to_owned(),
        transaction_id: Some("T-1".to_owned()),
        status: InvoiceStatus::Open,
        platform_status: "open".to_owned(),
        total: Money { amount: Decimal::new(1250, 2), currency: "EUR".parse().unwrap() },
        due_on: Some(date!(2026 - 02 - 28)),
        sequence: 0,
        version: envelope("", "").received_at,
    };
    assert_eq!(invoice("", received), expected);
}

#[test]
fn callback_optional_fields_may_be_missing() {
    for changes in [
        &[][..],
        &[("vendor", "null"), ("currency", "null"), ("dueDate", "null")],
        &[("vendor", "\" \""), ("currency", "\"\""), ("dueDate", "\"\"")],
    ] {
        let read = invoice("", event("", changes));
        assert_eq!((read.vendor.as_str(), read.due_on), ("", None));
        assert_eq!(read.total.currency.as_str(), "XXX");
    }
}

#[test]
fn callback_invoice_is_mapped_by_settings() {
    let doc = r#"{"no":77,"booking":"b:1","cents":-1250,"currency":"JPY","due":"2026-03-01",
        "state":"BEZAHLT","changed":"2026-01-02T12:00:00Z"}"#;
    let received = event(OWN, &[("company", "\"acme\""), ("doc", doc)]);
    assert_eq!(received.tenant, "acme");
    let read = invoice(OWN, received);
    assert_eq!((read.vendor.as_str(), read.invoice_number.as_str()), ("ACME", "77"));
    assert_eq!(read.transaction_id.as_deref(), Some("b:1"));
    assert_eq!((read.status, read.platform_status.as_str()), (InvoiceStatus::Paid, "BEZAHLT"));
    // Yen have no minor unit; a negative amount is a credit note.
    assert_eq!(read.total.amount, Decimal::from(-1250));
    assert_eq!(read.due_on, Some(date!(2026 - 03 - 01)));
    assert_eq!(read.version, datetime!(2026-01-02 12:00 UTC));
}

#[test]
fn callback_amounts_are_exact() {
    for (literal, exact) in [
        ("\"12.50\"", "12.50"),
        ("12.50", "12.50"),
        ("-0.01", "-0.01"),
        ("\" 7 \"", "7"),
        ("1e2", "100"),
        ("0", "0"),
        ("9007199254740993.01", "9007199254740993.01"),
    ] {
        let read = invoice("", event("", &[("amount", literal)]));
        assert_eq!(read.total.amount.to_string(), exact, "{literal}");
    }
}

#[test]
fn callback_all_invalid_fields_are_reported() {
    let long = format!("\"{}\"", "x".repeat(256));
    let refused = |changes: &[(&str, &str)]| {
        faults(request(source("").source(), json_object(LEAST, changes), &[]))
    };
    let all = [
        ("invoiceNumber", ""),
        ("transactionId", "\"\\u0000\""),
        ("amount", "\"ten\""),
        ("vendor", "{}"),
        ("currency", "\"EURO\""),
        ("dueDate", "\"soon\""),
    ];
    let fields =
        ["/invoiceNumber", "/transactionId", "/vendor", "/amount", "/currency", "/dueDate"];
    assert_eq!(refused(&all), fields);
    for (name, literal) in [
        ("invoiceNumber", "null"),
        ("invoiceNumber", "\"\""),
        ("invoiceNumber", "\" \\t\""),
        ("invoiceNumber", "[1]"),
        ("invoiceNumber", &long),
        ("transactionId", &long),
        ("vendor", &long),
        ("amount", "null"),
        ("amount", "\"\""),
        ("amount", "true"),
        ("amount", "\"1,50\""),
        ("amount", "\"NaN\""),
        ("amount", "1e999"),
        ("amount", "\"0.12345678901234567890123456789\""),
        ("currency", "7"),
        ("dueDate", "\"2026-02-30\""),
    ] {
        assert_eq!(refused(&[(name, literal)]), [format!("/{name}")], "{name} {literal}");
    }
    for body in [&b"[]"[..], b"7", b"null", b"\"x\"", b"{}"] {
        let refused = faults(request(source("").source(), body, &[]));
        assert_eq!(refused, ["/invoiceNumber", "/transactionId", "/amount"], "{body:?}");
    }
    for body in [&b""[..], b"<invoice/>", b"{\"amount\":1", b"\xff\xfe{}", b"{}{}"] {
        assert_eq!(faults(request(source("").source(), body, &[])), [""], "{body:?}");
    }
}

#[test]
fn callback_minor_units_require_a_currency() {
    let doc = |cents: &str, currency: &str| {
        let doc = format!(r#"{{"no":"1","booking":"2","cents":{cents},"currency":{currency}}}"#);
        let body = json_object(&[], &[("company", "\"acme\""), ("doc", &doc)]);
        request(source(OWN).source(), body, &[])
    };
    assert!(doc("1250", "\"EUR\"").is_ok());
    assert_eq!(faults(doc("1250", "null")), ["/doc/currency"]);
    assert_eq!(faults(doc("12.5", "\"EUR\"")), ["/doc/cents"]);
    assert_eq!(faults(doc("\"x\"", "\"€\"")), ["/doc/cents", "/doc/currency"]);
}

#[test]
fn callback_configured_tenant_is_required() {
    let body = || json_object(LEAST, &[]);
    assert_eq!(faults(request(source("tenant = '/company'").source(), body(), &[])), ["/company"]);
    let by_header = source("tenant = 'header:X-Company'");
    assert_eq!(request(by_header.source(), body(), &[]).unwrap().tenant, "acme");
    let without_tenant = request(by_header.source(), body(), &[("x-company", " ")]);
    assert_eq!(faults(without_tenant), ["header:x-company"]);
    let long = request(by_header.source(), body(), &[("x-company", &"x".repeat(256))]);
    assert_eq!(faults(long), ["header:x-company"]);
    // Another AMQP producer omitted it.
    let failure = by_header.source().map(&envelope(INVOICE_TOPIC, body())).unwrap_err();
    assert_eq!(failure.field, "x-tallyhook-tenant");
    // The other invalid fields are reported too.
    let missing = request(source("tenant = '/company'").source(), "{}", &[]);
    assert_eq!(faults(missing), ["/invoiceNumber", "/transactionId", "/amount", "/company"]);
}

#[test]
fn callback_response_is_stable_per_invoice() {
    let first = event("", &[("vendor", "\"ACME\"")]);
    let id = invoice("", first.clone()).id(&"inbox".parse().unwrap(), "", 0);
    let expected =
        format!(r#"{{"status":"success","invoiceId":"{id}","message":"Invoice processed"}}"#);
    assert_eq!(acceptance(&first), expected);
    // Reformatted, corrected, or with another transaction: one invoice.
    for changes in [
        &[("vendor", "\"ACME\""), ("note", "\"retry\"")][..],
        &[("vendor", "\" ACME \""), ("invoiceNumber", "\"INV-1 \"")],
        &[("vendor", "\"ACME\""), ("amount", "13")],
        &[("vendor", "\"ACME\""), ("transactionId", "\"T-2\"")],
    ] {
        assert_eq!(acceptance(&event("", changes)), expected, "{changes:?}");
    }
    for changes in
        [&[][..], &[("vendor", "\"Other\"")], &[("vendor", "\"ACME\""), ("invoiceNumber", "2")]]
    {
        assert_ne!(acceptance(&event("", changes)), expected, "{changes:?}");
    }
}

#[test]
fn callback_response_differs_per_tenant() {
    let by_header = source("tenant = 'header:X-Company'");
    let response = |company: &str| {
        let event = request(by_header.source(), json_object(LEAST, &[]), &[("x-company", company)])
            .unwrap();
        by_header.source().success_body(&"inbox".parse().unwrap(), &event)
    };
    assert_eq!(response("acme"), response("acme"));
    assert_ne!(response("acme"), response("other"));
}

#[test]
fn callback_event_id_is_vendor_number_and_transaction() {
    let id = |vendor: &str, number: &str, transaction: &str| {
        let changes = [vendor, number, transaction].map(|text| format!("{text:?}"));
        let [vendor, number, transaction] = &changes;
        let names = ["vendor", "invoiceNumber", "transactionId"];
        let literals = [vendor.as_str(), number, transaction];
        event("", &names.into_iter().zip(literals).collect::<Vec<_>>()).event_id
    };
    assert_eq!(id("ACME", "INV/1", "T-1"), "ACME:INV/1:T-1");
    assert_eq!(id("", "INV/1", "T-1"), "INV/1:T-1");
    let ids = [
        id("", "a", "b"),
        id("a", "b", "c"),
        id("", "a:b", "c"),
        id("", "a", "b:c"),
        id("a", "b:c", "d"),
        id("a:b", "c", "d"),
        id("", r"a\", "b"),
        id("", r"a\:b", "c"),
        id("", r"a\", ":b"),
    ];
    for (index, one) in ids.iter().enumerate() {
        assert!(!ids[..index].contains(one), "{one}");
    }
    let key = EventKey::new(&"erp".parse().unwrap(), "", &id("ACME", "1", "2"), 0);
    assert_eq!(key.as_str(), "erp||ACME:1:2");
}

#[test]
fn callback_conflict_policy_follows_settings() {
    let rules = |settings: &str| {
        let rules = source(settings).source().conflict_policy();
        (rules.invoice_conflict, rules.redelivers_identical_body)
    };
    assert_eq!(rules(""), (InvoiceConflict::Review, false));
    assert_eq!(rules("on_conflict = 'update'"), (InvoiceConflict::Update, false));
    assert_eq!(
        rules("on_conflict = 'duplicate'\nredelivers_identical_body = true"),
        (InvoiceConflict::Duplicate, true)
    );
}

#[test]
fn callback_other_topics_are_ignored() {
    let body = json_object(LEAST, &[]);
    let configured = source("");
    let mapped = |topic: &str| configured.source().map(&envelope(topic, body.clone()));
    assert!(matches!(mapped(""), Ok(MappedEvent::Change(_))));
    assert_eq!(mapped("order.created"), Ok(MappedEvent::Ignored));
    let bad =
        envelope(INVOICE_TOPIC, json_object(LEAST, &[("amount", "\"x\""), ("dueDate", "\"x\"")]));
    assert_eq!(configured.source().map(&bad).unwrap_err().field, "/amount");
    assert_eq!(configured.source().business_key(&bad).as_deref(), Some("INV-1"));
}

#[test]
fn callback_invalid_settings_name_the_key() {
    for (settings, tenants, key) in [
        ("[sources.inbox.invoice]\ncurrency = 'const:EURO'", &[][..], "inbox.invoice.currency"),
        ("[sources.inbox.invoice]\nstatuses = { X = 'payed' }", &[], "inbox.invoice.statuses.X"),
        ("[sources.inbox.invoice]\namount = 'amount'", &[], "sources.inbox"),
        ("[sources.inbox.invoice]\namuont = '/amount'", &[], "amuont"),
        ("[sources.inbox.invoice]\nvendor = 'header:X'", &[], "sources.inbox"),
        ("[sources.inbox.signature]\nheader = 'X-Sum'", &[], "inbox.signature"),
        ("on_conflict = 'ignore'", &[], "sources.inbox"),
        ("", &["acme"], "inbox.tenant"),
    ] {
        let loaded = ConfiguredSource::load("callback", settings, &["FIRST"], tenants);
        let error = loaded.err().unwrap_or_default();
        assert!(error.contains(key), "{settings} must name {key}, says {error:?}");
    }
}
