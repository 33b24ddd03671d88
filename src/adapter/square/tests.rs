//! What square events and orders map to.

use bytes::Bytes;
use http::HeaderMap;
use rust_decimal::Decimal;
use time::{
    OffsetDateTime,
    macros::{date, datetime},
};

use super::*;
use crate::{
    adapter::{
        Received,
        conformance::{Source, envelope, object},
        signature::Key,
    },
    domain::{
        Invoice, InvoiceStatus, Order, OrderStatus, OrderUpdate, Reason, Refund, RefundStatus,
        Refunded,
    },
};

const URL: &str = "https://hooks.example/square?shop=1";

fn square() -> Square {
    Square::new(Settings { url: Some(URL.to_owned()) }).unwrap()
}

/// A whole event around an object.
fn event(topic: &str, object: &str) -> String {
    format!(
        r#"{{"merchant_id":"MLEFBHHSJGVHD","type":"{topic}","event_id":"e-1","created_at":"2026-01-02T03:04:05.123456789Z","data":{{"type":"x","id":"d-1","object":{object}}}}}"#
    )
}

fn mapped(topic: &str, object: &str) -> Result<Mapped, Failure> {
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

fn invoice(changes: &[(&str, &str)]) -> Result<Invoice, Failure> {
    let object = format!(r#"{{"invoice":{}}}"#, object(INVOICE, changes));
    match mapped("invoice.updated", &object)? {
        Mapped::Change(Change::Invoice(invoice)) => Ok(*invoice),
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

fn refund(changes: &[(&str, &str)]) -> Result<Refund, Failure> {
    let object = format!(r#"{{"refund":{}}}"#, object(REFUND, changes));
    match mapped("refund.updated", &object)? {
        Mapped::Change(Change::Refund(refund)) => Ok(*refund),
        other => panic!("must be a refund, is {other:?}"),
    }
}

fn reference(topic: &str, object: &str) -> Reference {
    match mapped(topic, object) {
        Ok(Mapped::Change(Change::Reference(reference))) => *reference,
        other => panic!("must be a reference, is {other:?}"),
    }
}

const ORDER: &[(&str, &str)] = &[
    ("id", "\"o-1\""),
    ("version", "9007199254740993"),
    ("state", "\"OPEN\""),
    ("total_money", r#"{"amount":1999,"currency":"USD"}"#),
    ("net_amount_due_money", r#"{"amount":1999,"currency":"USD"}"#),
    ("customer_id", "\"c-1\""),
    ("created_at", "\"2026-01-01T00:00:00Z\""),
    ("updated_at", "\"2026-01-02T00:00:00Z\""),
];

fn fetched(changes: &[(&str, &str)]) -> Result<Option<Change>, Failure> {
    let reference =
        reference("order.updated", r#"{"order_updated":{"order_id":"o-1","version":3}}"#);
    let resource = format!(r#"{{"order":{}}}"#, object(ORDER, changes));
    square().map_resource(&reference, &envelope("order.updated", ""), resource.as_bytes())
}

fn order(changes: &[(&str, &str)]) -> (String, OffsetDateTime, Order) {
    match fetched(changes) {
        Ok(Some(Change::Order(update))) => match *update {
            OrderUpdate::State { order_id, version, order, restored: false } => {
                (order_id, version, *order)
            }
            other => panic!("must be a state, is {other:?}"),
        },
        other => panic!("must be an order, is {other:?}"),
    }
}

#[test]
fn squares_own_vectors_verify() {
    // square-nodejs-sdk, tests/integration/webhooks.test.ts.
    for (url, key, body, signature) in [
        (
            "https://webhook.site/679a4f3a-dcfa-49ee-bac5-9d0edad886b9",
            "Ibxx_5AKakO-3qeNVR61Dw",
            r#"{"merchant_id":"MLEFBHHSJGVHD","type":"webhooks.test_notification","event_id":"ac3ac95b-f97d-458c-a6e6-18981597e05f","created_at":"2022-07-13T20:30:59.037339943Z","data":{"type":"webhooks","id":"bc368e64-01aa-407e-b46e-3231809b1129"}}"#,
            "GF4YkrJgGBDZ9NIYbNXBnMzqb2HoL4RW/S6vkZ9/2N4=",
        ),
        (
            "https://webhook.site/webhooks",
            "signature-key",
            r#"{"data":{"type":"webhooks","id":"fake_id"}}"#,
            "W3FlCNk5IA3ZQ2LHTWoajvzfaDu/OwY2tNHIHC3IUOA=",
        ),
    ] {
        let verify = |url: &str, header: &str| {
            let square = Square::new(Settings { url: Some(url.to_owned()) }).unwrap();
            let secret = Secret::new("env:S", Key::Shared(key.as_bytes().to_vec())).unwrap();
            let mut headers = HeaderMap::new();
            headers.insert(
                HeaderName::from_bytes(header.as_bytes()).unwrap(),
                signature.parse().unwrap(),
            );
            let body = Bytes::from(body);
            let received_at = datetime!(2026-01-02 0:00 UTC);
            let call = Call { headers: &headers, query: "", body: &body, received_at };
            square.verify(&call, &[secret])
        };
        assert_eq!(verify(url, SIGNATURE), Ok(0), "{url}");
        // Byte for byte: the same place under another spelling is no match.
        for other in [
            format!("{url}/"),
            url.replace("https", "http"),
            url.to_uppercase().replace("HTTPS", "https"),
        ] {
            assert_eq!(verify(&other, SIGNATURE), Err(Rejection::forged()), "{other}");
        }
        let legacy = verify(url, "x-square-signature");
        assert!(matches!(legacy, Err(Rejection::Signature(_))), "{legacy:?}");
    }
}

#[test]
fn the_url_is_needed_whole() {
    for settings in ["", "url = ''", "url = 'hooks.example/square'", "url = 'https://a b'"] {
        let error = Source::load("square", settings, &["FIRST"], &[]).err().unwrap_or_default();
        assert!(error.contains("sources.inbox.url"), "{settings}: {error}");
    }
    let error = Source::load("square", "uri = 'https://a'", &["FIRST"], &[]).err().unwrap();
    assert!(error.contains("sources.inbox") && error.contains("uri"), "{error}");
}

fn received(
    body: &str,
    tenants: &[&str],
    more: &[(&'static str, &str)],
) -> Result<Received, Rejection> {
    let source = Source::load("square", &format!("url = '{URL}'"), &["FIRST"], tenants).unwrap();
    let adapter = source.adapter();
    let body = Bytes::copy_from_slice(body.as_bytes());
    let received_at = datetime!(2026-01-02 3:04:05 UTC);
    let delivery = Delivery {
        topic: "",
        tenant: "",
        event_id: "",
        triggered_at: received_at,
        sent_at: received_at,
        body: &body,
    };
    let mut headers: HeaderMap = adapter.dress(&delivery).into_iter().collect();
    for (name, value) in more {
        headers.insert(*name, value.parse().unwrap());
    }
    adapter.receive(&Call { headers: &headers, query: "", body: &body, received_at })
}

fn only(received: Result<Received, Rejection>) -> Event {
    match received {
        Ok(Received::Events { mut events, .. }) if events.len() == 1 => events.remove(0),
        other => panic!("must be one event, is {other:?}"),
    }
}

#[test]
fn an_event_is_known_by_its_own_id_whatever_the_attempt() {
    let body = event("invoice.updated", "{}");
    let first = only(received(&body, &[], &[]));
    assert_eq!(first.event_id, "e-1");
    assert_eq!(first.topic, "invoice.updated");
    assert_eq!(first.tenant, "MLEFBHHSJGVHD");
    assert_eq!(first.version, Some(datetime!(2026-01-02 3:04:05.123456789 UTC)));
    let again = [("square-retry-number", "2"), ("square-retry-reason", "http_timeout")];
    assert_eq!(only(received(&body, &[], &again)), first);
    assert!(!square().repeats_same_bytes());
}

#[test]
fn a_merchants_id_keeps_its_case_in_the_allow_list() {
    let body = event("invoice.updated", "{}");
    assert!(received(&body, &["MLEFBHHSJGVHD"], &[]).is_ok());
    let refused = received(&body, &["mlefbhhsjgvhd"], &[]);
    assert_eq!(refused, Err(Rejection::Tenant("merchant_id")));
}

#[test]
fn what_nobody_maps_is_ignored() {
    for topic in [
        "webhooks.test_notification",
        "payment.updated",
        "payment.created",
        "customer.created",
        "order.custom_attribute.owned.updated",
    ] {
        assert_eq!(mapped(topic, "{}"), Ok(Mapped::Ignored), "{topic}");
    }
}

#[test]
fn what_cannot_be_read_goes_before_a_person() {
    // The second of Square's vectors has no event in it.
    let bare = only(received(r#"{"data":{"type":"webhooks","id":"fake_id"}}"#, &["M1"], &[]));
    assert_eq!((bare.topic.as_str(), bare.tenant.as_str()), ("", ""));
    let failure = square().map(&envelope("", bare.body)).unwrap_err();
    assert_eq!(failure, Failure::missing("/type"));

    let broken = only(received("{\"type\":", &[], &[]));
    assert_eq!(broken.event_id.len(), 64);
    let failure = square().map(&envelope("", broken.body)).unwrap_err();
    assert_eq!(failure.reason, Reason::InvalidJson);

    let nameless = r#"{"type":"invoice.updated","data":{}}"#;
    let failure = square().map(&envelope("invoice.updated", nameless)).unwrap_err();
    assert_eq!(failure, Failure::missing("/merchant_id"));
}

#[test]
fn an_invoice_is_its_whole_state() {
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
fn of_two_states_the_higher_version_is_the_later() {
    // Sent out of order, within the same second.
    let [newer, older] = ["4", "3"].map(|version| invoice(&[("version", version)]).unwrap());
    assert_eq!(newer.version, older.version);
    assert!(newer.sequence > older.sequence);
}

#[test]
fn invoice_statuses_are_ours_and_squares() {
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
        ("A_WORD_OF_TOMORROW", Other),
    ] {
        let invoice = invoice(&[("status", &format!("{word:?}"))]).unwrap();
        assert_eq!((invoice.status, invoice.platform_status.as_str()), (ours, word), "{word}");
    }
}

#[test]
fn an_invoice_is_over_the_sum_of_its_payment_requests() {
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
fn a_sum_that_cannot_be_made_names_its_field() {
    let within = "/data/object/invoice/payment_requests";
    for (requests, reason, field) in [
        ("[]", Reason::MissingField, ""),
        ("", Reason::MissingField, ""),
        ("{}", Reason::InvalidValue, ""),
        (
            r#"[{"due_date":"2026-02-01"}]"#,
            Reason::MissingField,
            "/0/computed_amount_money/currency",
        ),
        (
            r#"[{"computed_amount_money":{"amount":1,"currency":"USD"}},{"computed_amount_money":{"amount":1,"currency":"CAD"}}]"#,
            Reason::InvalidValue,
            "/1/computed_amount_money/currency",
        ),
        (
            r#"[{"computed_amount_money":{"amount":1,"currency":"USD"}},{}]"#,
            Reason::MissingField,
            "/1/computed_amount_money/amount",
        ),
        (
            r#"[{"computed_amount_money":{"amount":1.5,"currency":"USD"}}]"#,
            Reason::InvalidValue,
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
fn a_deleted_draft_is_only_named() {
    let reference = reference("invoice.deleted", "null");
    assert_eq!((reference.kind.as_str(), reference.id.as_str()), ("invoice", "d-1"));
    assert!(reference.is_gone());
    assert_eq!(reference.changed_at, datetime!(2026-01-02 3:04:05.123456789 UTC));
    let resource = square().map_resource(&reference, &envelope("", ""), b"{}");
    assert_eq!(resource, Ok(None));
}

#[test]
fn an_order_is_only_named() {
    for (topic, name, action) in [
        ("order.created", "order_created", "created"),
        ("order.updated", "order_updated", "updated"),
        ("order.fulfillment.updated", "order_fulfillment_updated", "updated"),
    ] {
        let object = format!(
            r#"{{"{name}":{{"order_id":"o-1","version":7,"state":"OPEN","created_at":"2026-01-01T00:00:00Z","updated_at":"2026-01-02T00:00:00Z"}}}}"#
        );
        let expected = Reference {
            platform: "square",
            kind: "order".to_owned(),
            id: "o-1".to_owned(),
            version: Some(7),
            changed_at: datetime!(2026-01-02 0:00 UTC),
            action: action.to_owned(),
        };
        assert_eq!(reference(topic, &object), expected, "{topic}");
        let bare =
            format!(r#"{{"{name}":{{"order_id":"o-1","created_at":"2026-01-01T00:00:00Z"}}}}"#);
        let bare = reference(topic, &bare);
        assert_eq!((bare.version, bare.changed_at), (None, datetime!(2026-01-01 0:00 UTC)));
        let failure = mapped(topic, "{}").unwrap_err();
        assert_eq!(failure, Failure::missing(format!("/data/object/{name}/order_id")));
    }
}

#[test]
fn a_refund_leads_to_the_order_by_its_payment() {
    let whole = refund(&[]).unwrap();
    assert_eq!(whole.refund_id, "r-1");
    assert_eq!(whole.refunded, Refunded::Payment("p-1".to_owned()));
    assert_eq!(whole.amount.amount.to_string(), "2.50");
    assert_eq!(whole.version, datetime!(2026-01-02 3:04:05 UTC));
    let unlinked = refund(&[("payment_id", "")]).unwrap();
    assert_eq!(unlinked.refunded, Refunded::Order("return-1".to_owned()));
    for field in ["id", "status"] {
        let failure = refund(&[(field, "null")]).unwrap_err();
        assert_eq!(failure, Failure::missing(format!("/data/object/refund/{field}")));
    }
}

#[test]
fn refund_statuses_are_ours_and_squares() {
    use RefundStatus::{Failed, Other, Pending, Succeeded};
    for (word, ours) in [
        ("PENDING", Pending),
        ("COMPLETED", Succeeded),
        ("REJECTED", Failed),
        ("FAILED", Failed),
        ("A_WORD_OF_TOMORROW", Other),
    ] {
        let refund = refund(&[("status", &format!("{word:?}"))]).unwrap();
        assert_eq!((refund.status, refund.platform_status.as_str()), (ours, word), "{word}");
    }
}

#[test]
fn a_fetched_order_is_its_whole_state() {
    let lines = r#"[{"uid":"l-1","catalog_object_id":"a-1","name":"Tea","quantity":"1.5",
        "base_price_money":{"amount":1000,"currency":"USD"},"total_money":{"amount":1500,"currency":"USD"}},
        {"uid":"l-2"}]"#;
    let tenders = r#"[{"id":"t-1","payment_id":"p-1"},{"payment_id":"p-2"}]"#;
    let (id, version, whole) =
        order(&[("line_items", lines), ("tenders", tenders), ("reference_id", "\"A-17\"")]);
    assert_eq!(id, "o-1");
    assert_eq!(version, datetime!(2026-01-02 0:00 UTC));
    assert_eq!(whole.number, "A-17");
    assert_eq!(whole.total.amount.to_string(), "19.99");
    assert_eq!(whole.sequence, 9_007_199_254_740_993);
    assert_eq!(whole.customer_ref.as_deref(), Some("c-1"));
    assert_eq!(whole.payment_ref.as_deref(), Some("p-1"));
    assert_eq!(whole.placed_at, Some(datetime!(2026-01-01 0:00 UTC)));
    let expected = serde_json::json!([
        {"id": "l-1", "sku": "a-1", "title": "Tea", "quantity": "1.5", "unit_price": "10.00", "total": "15.00"},
        {"id": "l-2"},
    ]);
    assert_eq!(serde_json::to_value(&whole.lines).unwrap(), expected);

    let (_, _, plain) = order(&[("tenders", r#"[{"id":"t-1"}]"#)]);
    assert_eq!((plain.number.as_str(), plain.payment_ref.as_deref()), ("o-1", Some("t-1")));
    let (_, _, yen) = order(&[
        ("total_money", r#"{"amount":1200,"currency":"JPY"}"#),
        ("net_amount_due_money", ""),
    ]);
    assert_eq!(yen.total.amount.to_string(), "1200");
}

#[test]
fn a_fetched_orders_status_tells_what_is_due_and_what_went_back() {
    use OrderStatus::{
        Cancelled, Other, Paid, PartiallyPaid, PartiallyRefunded, Pending, Refunded,
    };
    let back = |amount| {
        format!(
            r#"[{{"status":"COMPLETED","amount_money":{{"amount":{amount},"currency":"USD"}}}}]"#
        )
    };
    let due = |amount| format!(r#"{{"amount":{amount},"currency":"USD"}}"#);
    for (state, due, refunds, ours) in [
        ("OPEN", due(1999), String::new(), Pending),
        ("OPEN", String::new(), String::new(), Pending),
        ("OPEN", due(1), String::new(), PartiallyPaid),
        ("OPEN", due(0), String::new(), Paid),
        ("COMPLETED", String::new(), String::new(), Paid),
        ("COMPLETED", due(0), back(1), PartiallyRefunded),
        ("COMPLETED", due(0), back(1999), Refunded),
        ("CANCELED", due(0), String::new(), Cancelled),
        ("DRAFT", due(0), String::new(), Pending),
        ("A_WORD_OF_TOMORROW", due(0), String::new(), Other),
    ] {
        let (_, _, order) = order(&[
            ("state", &format!("{state:?}")),
            ("net_amount_due_money", &due),
            ("refunds", &refunds),
        ]);
        assert_eq!(
            (order.status, order.platform_status.as_str()),
            (ours, state),
            "{due} {refunds}"
        );
    }
}

#[test]
fn only_refunds_that_came_about_count() {
    let refunds = r#"[{"status":"COMPLETED","amount_money":{"amount":100,"currency":"USD"}},
        {"status":"APPROVED","amount_money":{"amount":10,"currency":"USD"}},
        {"status":"PENDING","amount_money":{"amount":1000,"currency":"USD"}},
        {"status":"REJECTED","amount_money":{"amount":1000,"currency":"USD"}}]"#;
    assert_eq!(order(&[("refunds", refunds)]).2.refunded.to_string(), "1.10");
    let foreign = r#"[{"status":"COMPLETED","amount_money":{"amount":1,"currency":"CAD"}}]"#;
    let failure = fetched(&[("refunds", foreign)]).unwrap_err();
    assert_eq!(failure.field, "/order/refunds/0/amount_money/currency");
}

#[test]
fn an_order_that_only_returns_is_no_order_of_the_books() {
    assert_eq!(fetched(&[("returns", r#"[{"source_order_id":"o-0"}]"#)]), Ok(None));
    let exchange = [("returns", "[{}]"), ("line_items", "[{}]")];
    assert!(fetched(&exchange).unwrap().is_some());
    assert_eq!(fetched(&[("id", "")]), Err(Failure::missing("/order/id")));
    assert_eq!(fetched(&[("state", "")]), Err(Failure::missing("/order/state")));
}

#[test]
fn the_number_is_found_where_the_mapping_fails() {
    for (object, number) in [
        (r#"{"invoice":{"id":"i","invoice_number":"000017"}}"#, Some("000017")),
        (r#"{"invoice":{"id":"i"}}"#, Some("i")),
        (r#"{"refund":{"id":"r","payment_id":"p","order_id":"o"}}"#, Some("p")),
        (r#"{"order_fulfillment_updated":{"order_id":"o"}}"#, Some("o")),
        ("{}", None),
    ] {
        let found = square().number(&envelope("x", event("x", object)));
        assert_eq!(found.as_deref(), number, "{object}");
    }
}
