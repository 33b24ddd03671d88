//! Signatures as Stripe makes them, and what its events map to.

use bytes::Bytes;
use http::HeaderMap;
use time::{Duration as Span, macros::datetime};

use super::{objects::minor_digits, *};
use crate::{
    adapter::{
        Adapter, Received,
        conformance::{envelope, object},
        signature::Key,
    },
    config::Config,
    domain::{
        Change, Invoice, InvoiceStatus, Order, OrderStatus, OrderUpdate, Reason, Refund,
        RefundStatus, Refunded,
    },
};

/// The signature and the bytes that async-stripe's tests publish, made by
/// Stripe's own library. `v0` is a decoy.
const SIGNED: &str = "t=1533204620,v1=d7373bc68f4bd320b253cd7461f87af6e1cdf1b4d7db1614d8d1d746972d2d0a,v0=63f3a72374a733066c4be69ed7f8e5ac85c22c9f0a6a612ab9a025a9e4ee7eef";
const ITEM: &str = r#"{"account":"acct_123","api_version":"2017-05-25","created":1533204620,"data":{"object":{"amount":1000,"currency":"usd","customer":"cus_123","date":1533204620,"description":"Test Invoice Item","discountable":false,"id":"ii_123","invoice":"in_123","livemode":false,"metadata":{},"object":"invoiceitem","period":{"end":1533204620,"start":1533204620},"proration":false,"quantity":3,"quantity_decimal":"0"}},"id":"evt_123","livemode":false,"object":"event","pending_webhooks":1,"request":{"id":"req_123","idempotency_key":"idempotency-key-123"},"type":"invoiceitem.created"}"#;
const AT: OffsetDateTime = datetime!(2018-08-02 10:10:20 UTC);

fn stripe() -> Stripe {
    Stripe::new(&Settings::default()).unwrap()
}

fn source(secrets: &[&str]) -> Adapter {
    let secret = |text: &&str| Secret::new(*text, stripe().key(text).unwrap()).unwrap();
    Adapter::new(Box::new(stripe()), secrets.iter().map(secret).collect(), Vec::new())
}

fn receive(
    source: &Adapter,
    header: &str,
    received_at: OffsetDateTime,
) -> Result<Received, Rejection> {
    let headers = HeaderMap::from_iter([(
        HeaderName::from_static(SIGNATURE),
        HeaderValue::from_str(header).unwrap(),
    )]);
    let body = Bytes::from_static(ITEM.as_bytes());
    source.receive(&Call { headers: &headers, query: "", body: &body, received_at })
}

fn refusal(received: Result<Received, Rejection>) -> String {
    match received {
        Err(Rejection::Signature(detail)) => detail,
        other => panic!("must be refused for its signature, is {other:?}"),
    }
}

#[test]
fn the_published_vector_verifies() {
    let expected = Event {
        event_id: "evt_123".to_owned(),
        tenant: "acct_123".to_owned(),
        topic: "invoiceitem.created".to_owned(),
        version: None,
        body: Bytes::from_static(ITEM.as_bytes()),
    };
    let expected = Received::Events { events: vec![expected], secret: "secret".to_owned() };
    assert_eq!(receive(&source(&["secret"]), SIGNED, AT), Ok(expected));
    refusal(receive(&source(&["whsec_secret"]), SIGNED, AT));
}

#[test]
fn the_whole_text_is_the_key() {
    // "whsec_" and all, and nothing of it decoded.
    assert_eq!(stripe().key("whsec_c2VjcmV0"), Ok(Key::Shared(b"whsec_c2VjcmV0".to_vec())));
}

#[test]
fn any_signature_by_any_secret_will_do() {
    let v1 = SIGNED.split(',').nth(1).unwrap();
    let zeros = format!("v1={}", "00".repeat(32));
    for header in [
        format!("t=1533204620,{zeros},{v1}"),
        format!("t=1533204620,{v1},{zeros}"),
        format!("{v1}, t=1533204620"),
        format!("t=1533204620,v1=,v1=nonsense,v2=x,loose,{v1}"),
        format!("t=1533204620,{}", v1.to_uppercase().replace("V1", "v1")),
    ] {
        for secrets in [&["secret"][..], &["secret", "other"], &["other", "secret"]] {
            let received = receive(&source(secrets), &header, AT);
            let Ok(Received::Events { secret, .. }) = received else {
                panic!("{header} by {secrets:?}: {received:?}");
            };
            assert_eq!(secret, "secret");
        }
    }
}

#[test]
fn what_is_not_signed_so_is_refused() {
    let v1 = SIGNED.split(',').nth(1).unwrap();
    let hex = &v1["v1=".len()..];
    let zeros = format!("v1={}", "00".repeat(32));
    for header in [
        // The right bytes under another scheme or another time.
        format!("t=1533204620,v0={hex}"),
        format!("t=1533204620,v1a={hex}"),
        format!("t=1533204621,{v1}"),
        format!("t=1533204620.0,{v1}"),
        // The same number, written otherwise.
        format!("t=01533204620,{v1}"),
        format!("t=+1533204620,{v1}"),
        // Which of two times was signed?
        format!("t=1533204620,t=1533204621,{v1}"),
        format!("t=1533204620,t=1533204620,{v1}"),
        format!("t=,{v1}"),
        format!("t=now,{v1}"),
        v1.to_owned(),
        "t=1533204620".to_owned(),
        format!("t=1533204620,{}", &v1[..v1.len() - 2]),
        format!("t=1533204620,{v1}00"),
        hex.to_owned(),
        // Beyond as many as are looked at.
        format!("t=1533204620,{}{v1}", format!("{zeros},").repeat(MOST_SIGNATURES)),
    ] {
        refusal(receive(&source(&["secret"]), &header, AT));
    }
    assert!(refusal(receive(&source(&["secret"]), " ", AT)).contains(SIGNATURE));
}

#[test]
fn the_signed_time_may_be_five_minutes_away_in_either_direction() {
    for (away, taken) in [(0, true), (300, true), (301, false), (86_400 * 30, false)] {
        for received_at in [AT + Span::seconds(away), AT - Span::seconds(away)] {
            let received = receive(&source(&["secret"]), SIGNED, received_at);
            assert_eq!(received.is_ok(), taken, "{received_at}");
            if !taken {
                assert!(refusal(received).contains(&format!("{away} s from now")));
            }
        }
    }
    // A forger is not told of the clock.
    let forged = receive(&source(&["other"]), SIGNED, AT + Span::days(1));
    assert_eq!(forged, Err(Rejection::forged()));
}

#[test]
fn the_tolerance_is_a_day_at_the_most() {
    let load = |settings: &str| {
        let text = format!("[sources.s]\nkind = 'stripe'\nsecrets = ['env:S']\n{settings}");
        let variables = [("S".to_owned(), "secret".to_owned())].into();
        Config::from_toml(&text, &variables).map_err(|error| format!("{error:#}"))
    };
    let received = |settings: &str, away: i64| {
        let config = load(settings).unwrap();
        let source = config.sources.values().next().unwrap();
        receive(source, SIGNED, AT + Span::seconds(away)).is_ok()
    };
    assert!(received("tolerance_s = 0", 0) && !received("tolerance_s = 0", 1));
    assert!(received("tolerance_s = 86400", 86_400) && !received("tolerance_s = 86400", 86_401));
    assert!(received("tenants = ['acct_123']", 0));
    assert!(!received("tenants = ['acct_12']", 0) && !received("tenants = ['ACCT_123']", 0));
    for (settings, key) in
        [("tolerance_s = 86401", "sources.s.tolerance_s"), ("tolerance_s = -1", "sources.s")]
    {
        let error = load(settings).err().unwrap_or_default();
        assert!(error.contains(key), "{settings}: {error}");
    }
    assert!(load("tolerance = 5").is_err());
}

#[test]
fn what_is_dressed_is_received() {
    let source = source(&["whsec_a", "whsec_b"]);
    let body = Bytes::from_static(b"{}");
    let delivery = Delivery {
        topic: "",
        tenant: "",
        event_id: "",
        triggered_at: OffsetDateTime::UNIX_EPOCH,
        sent_at: AT,
        body: &body,
    };
    let headers: HeaderMap = source.dress(&delivery).into_iter().collect();
    let call = Call { headers: &headers, query: "", body: &body, received_at: AT };
    assert!(source.receive(&call).is_ok());
}

const INVOICE: &[(&str, &str)] = &[
    ("object", "\"invoice\""),
    ("id", "\"in_1\""),
    ("number", "\"A-0001\""),
    ("account_name", "\"Müller & Co\""),
    ("currency", "\"eur\""),
    ("total", "59894"),
    ("status", "\"open\""),
    ("due_date", "1767355200"),
];
const SESSION: &[(&str, &str)] = &[
    ("object", "\"checkout.session\""),
    ("id", "\"cs_1\""),
    ("client_reference_id", "9007199254740993"),
    ("currency", "\"eur\""),
    ("amount_total", "59894"),
    ("status", "\"complete\""),
    ("payment_status", "\"paid\""),
    ("payment_intent", "\"pi_1\""),
    ("customer", "\"cus_1\""),
    ("customer_details", r#"{"email":"a@shop.example"}"#),
    ("created", "1767268800"),
];
const REFUND: &[(&str, &str)] = &[
    ("object", "\"refund\""),
    ("id", "\"re_1\""),
    ("payment_intent", "\"pi_1\""),
    ("charge", "\"ch_1\""),
    ("currency", "\"eur\""),
    ("amount", "1000"),
    ("status", "\"succeeded\""),
];

fn event(topic: &str, object: &str) -> String {
    format!(
        r#"{{"id":"evt_1","object":"event","type":{topic:?},"created":1767355205,"data":{{"object":{object}}}}}"#
    )
}

fn mapped(topic: &str, base: &[(&str, &str)], changes: &[(&str, &str)]) -> Result<Mapped, Failure> {
    stripe().map(&envelope(topic, event(topic, &object(base, changes))))
}

fn as_invoice(topic: &str, changes: &[(&str, &str)]) -> Invoice {
    match mapped(topic, INVOICE, changes) {
        Ok(Mapped::Change(Change::Invoice(invoice))) => *invoice,
        other => panic!("{topic} {changes:?}: {other:?}"),
    }
}

fn as_order(topic: &str, changes: &[(&str, &str)]) -> (String, OffsetDateTime, Order) {
    match mapped(topic, SESSION, changes) {
        Ok(Mapped::Change(Change::Order(update))) => match *update {
            OrderUpdate::State { order_id, version, order, restored: false } => {
                (order_id, version, *order)
            }
            other => panic!("{topic} {changes:?}: {other:?}"),
        },
        other => panic!("{topic} {changes:?}: {other:?}"),
    }
}

fn as_refund(topic: &str, changes: &[(&str, &str)]) -> Refund {
    match mapped(topic, REFUND, changes) {
        Ok(Mapped::Change(Change::Refund(refund))) => *refund,
        other => panic!("{topic} {changes:?}: {other:?}"),
    }
}

#[test]
fn an_invoice_is_a_row() {
    let invoice = as_invoice("invoice.finalized", &[]);
    assert_eq!(invoice.document_id.as_deref(), Some("in_1"));
    assert_eq!(
        (invoice.invoice_number.as_str(), invoice.vendor.as_str()),
        ("A-0001", "Müller & Co")
    );
    assert_eq!(
        (invoice.total.amount.to_string().as_str(), invoice.total.currency.as_str()),
        ("598.94", "EUR")
    );
    assert_eq!(invoice.due_on, Some(time::macros::date!(2026 - 01 - 02)));
    assert_eq!(invoice.version, datetime!(2026-01-02 12:00:05 UTC));
    assert_eq!((invoice.transaction_id, invoice.sequence), (None, 1));
    let draft = [
        ("number", "null"),
        ("account_name", "null"),
        ("due_date", "null"),
        ("status", "\"draft\""),
    ];
    let draft = as_invoice("invoice.created", &draft);
    assert_eq!((draft.invoice_number.as_str(), draft.vendor.as_str()), ("in_1", ""));
    assert_eq!(
        draft.document_id.as_deref(),
        Some("in_1"),
        "the same document, once it has a number"
    );
    assert_eq!((draft.due_on, draft.sequence), (None, 0));
}

#[test]
fn statuses_of_invoices_rank_where_time_tells_no_order() {
    for (topic, word, status, rank) in [
        ("invoice.created", "draft", InvoiceStatus::Draft, 0),
        ("invoice.finalized", "open", InvoiceStatus::Open, 1),
        ("invoice.payment_failed", "open", InvoiceStatus::Open, 1),
        ("invoice.updated", "a word of tomorrow", InvoiceStatus::Other, 1),
        ("invoice.marked_uncollectible", "uncollectible", InvoiceStatus::Uncollectible, 2),
        ("invoice.paid", "paid", InvoiceStatus::Paid, 3),
        ("invoice.voided", "void", InvoiceStatus::Void, 3),
        ("invoice.a_topic_of_tomorrow", "paid", InvoiceStatus::Paid, 3),
    ] {
        let invoice = as_invoice(topic, &[("status", &format!("{word:?}"))]);
        assert_eq!((invoice.status, invoice.sequence), (status, rank), "{topic} {word}");
        assert_eq!(invoice.platform_status, word);
    }
    let deleted = as_invoice("invoice.deleted", &[("status", "\"draft\""), ("number", "null")]);
    assert_eq!((deleted.status, deleted.sequence), (InvoiceStatus::Void, 3));
    assert_eq!(deleted.platform_status, "deleted");
}

#[test]
fn a_checkout_session_is_an_order() {
    let (id, version, order) = as_order("checkout.session.completed", &[]);
    assert_eq!((id.as_str(), order.number.as_str()), ("cs_1", "9007199254740993"));
    assert_eq!(version, datetime!(2026-01-02 12:00:05 UTC));
    assert_eq!(order.placed_at, Some(datetime!(2026-01-01 12:00 UTC)));
    assert_eq!(order.total.amount.to_string(), "598.94");
    assert_eq!(order.payment_ref.as_deref(), Some("pi_1"));
    assert_eq!(order.customer_ref.as_deref(), Some("cus_1"));
    let guest = [("customer", "null"), ("client_reference_id", "null"), ("payment_intent", "null")];
    let (_, _, guest) = as_order("checkout.session.completed", &guest);
    assert_eq!((guest.number.as_str(), guest.payment_ref), ("cs_1", None));
    assert_eq!(guest.customer_ref.as_deref(), Some("a@shop.example"));
    // A session that saves a card is about no money.
    let setup = [("amount_total", "null"), ("currency", "null")];
    assert_eq!(mapped("checkout.session.completed", SESSION, &setup), Ok(Mapped::Ignored));
}

#[test]
fn statuses_of_sessions_are_of_session_and_payment() {
    for (topic, session, payment, expected) in [
        ("completed", "complete", "paid", (OrderStatus::Paid, "paid", 3)),
        (
            "completed",
            "complete",
            "no_payment_required",
            (OrderStatus::Paid, "no_payment_required", 3),
        ),
        ("completed", "complete", "unpaid", (OrderStatus::Pending, "unpaid", 1)),
        ("async_payment_succeeded", "complete", "paid", (OrderStatus::Paid, "paid", 3)),
        (
            "async_payment_failed",
            "complete",
            "unpaid",
            (OrderStatus::Failed, "async_payment_failed", 2),
        ),
        ("expired", "expired", "unpaid", (OrderStatus::Cancelled, "expired", 2)),
        ("of_tomorrow", "open", "unpaid", (OrderStatus::Pending, "open", 0)),
        ("of_tomorrow", "complete", "halved", (OrderStatus::Other, "halved", 1)),
        ("of_tomorrow", "parked", "unpaid", (OrderStatus::Other, "parked", 1)),
    ] {
        let changes =
            [("status", &*format!("{session:?}")), ("payment_status", &format!("{payment:?}"))];
        let (_, _, order) = as_order(&format!("checkout.session.{topic}"), &changes);
        let told = (order.status, order.platform_status.as_str(), order.sequence);
        assert_eq!(told, expected, "{topic} {session} {payment}");
    }
    let (_, _, older) = as_order("checkout.session.completed", &[("status", "")]);
    assert_eq!(older.status, OrderStatus::Paid, "older versions have no status of the session");
}

#[test]
fn a_refund_names_the_payment() {
    for topic in ["refund.created", "refund.updated", "refund.failed", "charge.refund.updated"] {
        let refund = as_refund(topic, &[]);
        assert_eq!(refund.refund_id, "re_1");
        assert_eq!(refund.refunded, Refunded::Payment("pi_1".to_owned()));
        assert_eq!(refund.amount.amount.to_string(), "10.00");
        assert_eq!(refund.version, datetime!(2026-01-02 12:00:05 UTC));
    }
    let older = as_refund("refund.created", &[("payment_intent", "null")]);
    assert_eq!(older.refunded, Refunded::Payment("ch_1".to_owned()));
    for (literal, status, word) in [
        ("\"succeeded\"", RefundStatus::Succeeded, "succeeded"),
        ("\"pending\"", RefundStatus::Pending, "pending"),
        ("\"requires_action\"", RefundStatus::Pending, "requires_action"),
        ("\"failed\"", RefundStatus::Failed, "failed"),
        ("\"canceled\"", RefundStatus::Cancelled, "canceled"),
        ("\"of tomorrow\"", RefundStatus::Other, "of tomorrow"),
        ("null", RefundStatus::Other, ""),
    ] {
        let refund = as_refund("refund.updated", &[("status", literal)]);
        assert_eq!((refund.status, refund.platform_status.as_str()), (status, word));
    }
}

#[test]
fn stripe_counts_some_currencies_its_own_way() {
    for (code, digits) in [
        ("BIF", 0),
        ("CLP", 0),
        ("DJF", 0),
        ("GNF", 0),
        ("JPY", 0),
        ("KMF", 0),
        ("KRW", 0),
        ("MGA", 0),
        ("PYG", 0),
        ("RWF", 0),
        ("VND", 0),
        ("VUV", 0),
        ("XAF", 0),
        ("XOF", 0),
        ("XPF", 0),
        ("BHD", 3),
        ("JOD", 3),
        ("KWD", 3),
        ("OMR", 3),
        ("TND", 3),
        ("ISK", 2),
        ("UGX", 2),
        ("HUF", 2),
        ("TWD", 2),
        ("IQD", 2),
        ("LYD", 2),
        ("CLF", 2),
        ("UYI", 2),
        ("UYW", 2),
        ("EUR", 2),
        ("USD", 2),
        ("USDC", 2),
    ] {
        let Ok(currency) = code.parse() else { continue };
        assert_eq!(minor_digits(currency), digits, "{code}");
    }
    for (code, expected) in [
        ("jpy", "59894"),
        ("kwd", "59.894"),
        ("isk", "598.94"),
        ("ugx", "598.94"),
        ("mga", "59894"),
    ] {
        let invoice = as_invoice("invoice.paid", &[("currency", &format!("{code:?}"))]);
        assert_eq!(invoice.total.amount.to_string(), expected, "{code}");
    }
    let large = as_invoice("invoice.paid", &[("total", "900719925474099301")]);
    assert_eq!(large.total.amount.to_string(), "9007199254740993.01");
}

#[test]
fn what_nobody_maps_is_ignored() {
    for (topic, base) in [
        ("invoice.upcoming", INVOICE),
        // Nothing went back.
        (
            "charge.refunded",
            &[
                ("object", "\"charge\""),
                ("id", "\"ch_1\""),
                ("amount_refunded", "0"),
                ("currency", "\"eur\""),
            ],
        ),
        ("plan.created", &[("object", "\"plan\""), ("id", "\"price_1\"")]),
        ("charge.refund.updated", &[("object", "\"charge\""), ("id", "\"ch_1\"")]),
        ("invoice.payment.paid", &[("object", "\"invoice_payment\""), ("id", "\"inpay_1\"")]),
        ("checkout.session.of_tomorrow", &[("object", "\"something\"")]),
        ("terminal.reader.action_failed", &[]),
    ] {
        assert_eq!(mapped(topic, base, &[]), Ok(Mapped::Ignored), "{topic}");
    }
    assert_eq!(stripe().map(&envelope("invoiceitem.created", ITEM)), Ok(Mapped::Ignored));
}

#[test]
fn a_body_that_cannot_be_read_is_never_ignored() {
    for (topic, body, reason, field) in [
        ("", "<event/>", Reason::InvalidJson, ""),
        ("", "", Reason::InvalidJson, ""),
        ("plan.created", "{\"type\":", Reason::InvalidJson, ""),
        ("", "{}", Reason::MissingField, "/type"),
        ("", r#"{"type":{}}"#, Reason::InvalidValue, "/type"),
    ] {
        let failure = stripe().map(&envelope(topic, body)).unwrap_err();
        assert_eq!((failure.reason, failure.field.as_str()), (reason, field), "{body}");
    }
    // Where another producer told no topic, the body's own counts.
    let body = event("invoice.paid", &object(INVOICE, &[]));
    assert!(matches!(stripe().map(&envelope("", body)), Ok(Mapped::Change(_))));
    let broken = Bytes::from_static(b"<event/>");
    let source = source(&["whsec_a"]);
    let delivery = Delivery {
        topic: "",
        tenant: "",
        event_id: "",
        triggered_at: AT,
        sent_at: AT,
        body: &broken,
    };
    let headers: HeaderMap = source.dress(&delivery).into_iter().collect();
    let call = Call { headers: &headers, query: "", body: &broken, received_at: AT };
    let Ok(Received::Events { events, .. }) = source.receive(&call) else { panic!("is refused") };
    assert_eq!((events[0].event_id.as_str(), events[0].topic.as_str()), (&*digest_of(&broken), ""));
}

#[test]
fn a_failure_names_the_field() {
    for (topic, base, change, reason, field) in [
        ("invoice.paid", INVOICE, ("id", ""), Reason::MissingField, "/data/object/id"),
        ("invoice.paid", INVOICE, ("status", "null"), Reason::MissingField, "/data/object/status"),
        ("invoice.paid", INVOICE, ("total", "null"), Reason::MissingField, "/data/object/total"),
        ("invoice.paid", INVOICE, ("total", "9.5"), Reason::InvalidValue, "/data/object/total"),
        (
            "invoice.paid",
            INVOICE,
            ("currency", "\"euro\""),
            Reason::InvalidValue,
            "/data/object/currency",
        ),
        (
            "invoice.paid",
            INVOICE,
            ("due_date", "\"soon\""),
            Reason::InvalidValue,
            "/data/object/due_date",
        ),
        (
            "checkout.session.completed",
            SESSION,
            ("amount_total", "\"x\""),
            Reason::InvalidValue,
            "/data/object/amount_total",
        ),
        (
            "checkout.session.completed",
            SESSION,
            ("currency", "null"),
            Reason::MissingField,
            "/data/object/currency",
        ),
        ("refund.created", REFUND, ("amount", ""), Reason::MissingField, "/data/object/amount"),
    ] {
        let failure = mapped(topic, base, &[change]).unwrap_err();
        assert_eq!((failure.reason, failure.field.as_str()), (reason, field), "{topic} {change:?}");
    }
    let nowhere = mapped("refund.created", REFUND, &[("payment_intent", ""), ("charge", "null")]);
    assert_eq!(nowhere, Err(Failure::missing("/data/object/charge")));
}

#[test]
fn an_account_that_is_told_is_not_left_out() {
    let of = |account: &str, tenant: &str| {
        let body = event("invoice.paid", &object(INVOICE, &[]));
        let body = body.replacen('{', &format!("{{\"account\":{account},"), 1);
        let mut told = envelope("invoice.paid", body);
        tenant.clone_into(&mut told.tenant);
        stripe().map(&told).map(|_| ())
    };
    assert_eq!(of("\"acct_1\"", "acct_1"), Ok(()));
    assert_eq!(of("null", ""), Ok(()));
    assert_eq!(of("\"acct_1\"", ""), Err(Failure::missing("x-tallyhook-tenant")));
    assert_eq!(of("[1]", "").unwrap_err().field, "/account");
}

#[test]
fn a_thin_event_names_a_resource() {
    let thin = |related: &str| {
        let body = format!(
            r#"{{"id":"evt_2","object":"v2.core.event","type":"v2.core.account.updated","created":"2026-01-02T12:00:05.250Z","context":null,"related_object":{related}}}"#
        );
        stripe().map(&envelope("v2.core.account.updated", body))
    };
    let expected = Reference {
        platform: "stripe",
        kind: "v2.core.account".to_owned(),
        id: "acct_9".to_owned(),
        version: None,
        changed_at: datetime!(2026-01-02 12:00:05.25 UTC),
        action: "updated".to_owned(),
    };
    let related = r#"{"id":"acct_9","type":"v2.core.account","url":"/v2/core/accounts/acct_9"}"#;
    assert_eq!(thin(related), Ok(Mapped::from(expected)));
    for nothing in ["null", "{}"] {
        assert_eq!(thin(nothing), Ok(Mapped::Ignored));
    }
    assert_eq!(thin(r#"{"id":"acct_9"}"#), Err(Failure::missing("/related_object/type")));
    assert_eq!(thin(r#"{"type":"x"}"#), Err(Failure::missing("/related_object/id")));
}

#[test]
fn the_number_is_the_one_of_the_row() {
    for (topic, base, changes, expected) in [
        ("invoice.paid", INVOICE, &[][..], "A-0001"),
        ("invoice.created", INVOICE, &[("number", "null")], "in_1"),
        ("checkout.session.completed", SESSION, &[], "9007199254740993"),
        ("checkout.session.completed", SESSION, &[("client_reference_id", "null")], "cs_1"),
        ("refund.created", REFUND, &[], "pi_1"),
        ("refund.created", REFUND, &[("payment_intent", "null")], "ch_1"),
    ] {
        let envelope = envelope(topic, event(topic, &object(base, changes)));
        assert_eq!(stripe().number(&envelope).as_deref(), Some(expected), "{topic}");
        let Ok(Mapped::Change(change)) = stripe().map(&envelope) else { panic!("{topic}") };
        assert_eq!(change.business_key(), expected);
    }
    assert_eq!(stripe().number(&envelope("", "<event/>")), None);
}

#[test]
fn a_charge_tells_all_that_went_back_of_it_so_far() {
    let charge: &[(&str, &str)] = &[
        ("object", "\"charge\""),
        ("id", "\"ch_1\""),
        ("amount", "5000"),
        ("amount_refunded", "1999"),
        ("currency", "\"eur\""),
        ("status", "\"succeeded\""),
        ("payment_intent", "\"pi_1\""),
    ];
    let refund = |changes: &[(&str, &str)]| match mapped("charge.refunded", charge, changes) {
        Ok(Mapped::Change(crate::domain::Change::Refund(refund))) => *refund,
        other => panic!("not a refund: {other:?}"),
    };
    let told = refund(&[]);
    assert_eq!((told.refund_id.as_str(), told.cumulative), ("ch_1", true));
    assert_eq!(told.refunded, Refunded::Payment("pi_1".to_owned()));
    assert_eq!(told.amount.amount.to_string(), "19.99");
    // Without an intent the charge is the payment.
    let alone = refund(&[("payment_intent", "")]);
    assert_eq!(alone.refunded, Refunded::Payment("ch_1".to_owned()));
    let failure = mapped("charge.refunded", charge, &[("amount_refunded", "")]).unwrap_err();
    assert_eq!(failure.field, "/data/object/amount_refunded");
}
