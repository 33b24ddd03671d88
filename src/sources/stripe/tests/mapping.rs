//! The mapping of Stripe's events.

use super::*;

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

fn mapped(
    topic: &str,
    base: &[(&str, &str)],
    changes: &[(&str, &str)],
) -> Result<MappedEvent, PermanentFailure> {
    stripe().map(&envelope(topic, event(topic, &json_object(base, changes))))
}

fn as_invoice(topic: &str, changes: &[(&str, &str)]) -> Invoice {
    match mapped(topic, INVOICE, changes) {
        Ok(MappedEvent::Change(Change::Invoice(invoice))) => *invoice,
        other => panic!("{topic} {changes:?}: {other:?}"),
    }
}

fn as_order(topic: &str, changes: &[(&str, &str)]) -> (String, OffsetDateTime, Order) {
    match mapped(topic, SESSION, changes) {
        Ok(MappedEvent::Change(Change::Order(update))) => match *update {
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
        Ok(MappedEvent::Change(Change::Refund(refund))) => *refund,
        other => panic!("{topic} {changes:?}: {other:?}"),
    }
}

#[test]
fn stripe_invoice_is_mapped() {
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
fn stripe_invoice_statuses_are_ranked() {
    for (topic, word, status, rank) in [
        ("invoice.created", "draft", InvoiceStatus::Draft, 0),
        ("invoice.finalized", "open", InvoiceStatus::Open, 1),
        ("invoice.payment_failed", "open", InvoiceStatus::Open, 1),
        ("invoice.updated", "an unknown word", InvoiceStatus::Other, 1),
        ("invoice.marked_uncollectible", "uncollectible", InvoiceStatus::Uncollectible, 2),
        ("invoice.paid", "paid", InvoiceStatus::Paid, 3),
        ("invoice.voided", "void", InvoiceStatus::Void, 3),
        ("invoice.a_topic_unknown", "paid", InvoiceStatus::Paid, 3),
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
fn stripe_checkout_session_is_an_order() {
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
    // A session that only saves a card has no total.
    let setup = [("amount_total", "null"), ("currency", "null")];
    assert_eq!(mapped("checkout.session.completed", SESSION, &setup), Ok(MappedEvent::Ignored));
}

#[test]
fn stripe_session_status_depends_on_payment() {
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
        ("unknown", "open", "unpaid", (OrderStatus::Pending, "open", 0)),
        ("unknown", "complete", "halved", (OrderStatus::Other, "halved", 1)),
        ("unknown", "parked", "unpaid", (OrderStatus::Other, "parked", 1)),
    ] {
        let changes =
            [("status", &*format!("{session:?}")), ("payment_status", &format!("{payment:?}"))];
        let (_, _, order) = as_order(&format!("checkout.session.{topic}"), &changes);
        let actual = (order.status, order.platform_status.as_str(), order.sequence);
        assert_eq!(actual, expected, "{topic} {session} {payment}");
    }
    let (_, _, older) = as_order("checkout.session.completed", &[("status", "")]);
    assert_eq!(older.status, OrderStatus::Paid, "older versions have no status of the session");
}

#[test]
fn stripe_refund_refers_to_the_payment() {
    for topic in ["refund.created", "refund.updated", "refund.failed", "charge.refund.updated"] {
        let refund = as_refund(topic, &[]);
        assert_eq!(refund.refund_id, "re_1");
        assert_eq!(refund.target, RefundTarget::Payment("pi_1".to_owned()));
        assert_eq!(refund.amount.amount.to_string(), "10.00");
        assert_eq!(refund.version, datetime!(2026-01-02 12:00:05 UTC));
    }
    let older = as_refund("refund.created", &[("payment_intent", "null")]);
    assert_eq!(older.target, RefundTarget::Payment("ch_1".to_owned()));
    for (literal, status, word) in [
        ("\"succeeded\"", RefundStatus::Succeeded, "succeeded"),
        ("\"pending\"", RefundStatus::Pending, "pending"),
        ("\"requires_action\"", RefundStatus::Pending, "requires_action"),
        ("\"failed\"", RefundStatus::Failed, "failed"),
        ("\"canceled\"", RefundStatus::Cancelled, "canceled"),
        ("\"unknown\"", RefundStatus::Other, "unknown"),
        ("null", RefundStatus::Other, ""),
    ] {
        let refund = as_refund("refund.updated", &[("status", literal)]);
        assert_eq!((refund.status, refund.platform_status.as_str()), (status, word));
    }
}

#[test]
fn stripe_minor_digits_differ_from_iso() {
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
        assert_eq!(stripe_minor_digits(currency), digits, "{code}");
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
fn stripe_unmapped_topics_are_ignored() {
    for (topic, base) in [
        ("invoice.upcoming", INVOICE),
        // Nothing was refunded.
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
        ("checkout.session.unknown", &[("object", "\"something\"")]),
        ("terminal.reader.action_failed", &[]),
    ] {
        assert_eq!(mapped(topic, base, &[]), Ok(MappedEvent::Ignored), "{topic}");
    }
    assert_eq!(stripe().map(&envelope("invoiceitem.created", ITEM)), Ok(MappedEvent::Ignored));
}

#[test]
fn stripe_unreadable_body_fails_mapping() {
    for (topic, body, reason, field) in [
        ("", "<event/>", ReasonCode::InvalidJson, ""),
        ("", "", ReasonCode::InvalidJson, ""),
        ("plan.created", "{\"type\":", ReasonCode::InvalidJson, ""),
        ("", "{}", ReasonCode::MissingField, "/type"),
        ("", r#"{"type":{}}"#, ReasonCode::InvalidValue, "/type"),
    ] {
        let failure = stripe().map(&envelope(topic, body)).unwrap_err();
        assert_eq!((failure.reason, failure.field.as_str()), (reason, field), "{body}");
    }
    // If another producer omits the topic, the body's is used.
    let body = event("invoice.paid", &json_object(INVOICE, &[]));
    assert!(matches!(stripe().map(&envelope("", body)), Ok(MappedEvent::Change(_))));
    let broken = Bytes::from_static(b"<event/>");
    let source = source(&["whsec_a"]);
    let webhook = OutgoingWebhook {
        topic: "",
        tenant: "",
        event_id: "",
        triggered_at: AT,
        sent_at: AT,
        body: &broken,
    };
    let headers: HeaderMap = source.signed_headers(&webhook).into_iter().collect();
    let request = WebhookRequest { headers: &headers, query: "", body: &broken, received_at: AT };
    let Ok(Received::Events { events, .. }) = source.receive(&request) else {
        panic!("is refused")
    };
    assert_eq!(
        (events[0].event_id.as_str(), events[0].topic.as_str()),
        (&*sha256_hex(&broken), "")
    );
}

#[test]
fn stripe_failure_names_the_field() {
    for (topic, base, change, reason, field) in [
        ("invoice.paid", INVOICE, ("id", ""), ReasonCode::MissingField, "/data/object/id"),
        (
            "invoice.paid",
            INVOICE,
            ("status", "null"),
            ReasonCode::MissingField,
            "/data/object/status",
        ),
        (
            "invoice.paid",
            INVOICE,
            ("total", "null"),
            ReasonCode::MissingField,
            "/data/object/total",
        ),
        ("invoice.paid", INVOICE, ("total", "9.5"), ReasonCode::InvalidValue, "/data/object/total"),
        (
            "invoice.paid",
            INVOICE,
            ("currency", "\"euro\""),
            ReasonCode::InvalidValue,
            "/data/object/currency",
        ),
        (
            "invoice.paid",
            INVOICE,
            ("due_date", "\"soon\""),
            ReasonCode::InvalidValue,
            "/data/object/due_date",
        ),
        (
            "checkout.session.completed",
            SESSION,
            ("amount_total", "\"x\""),
            ReasonCode::InvalidValue,
            "/data/object/amount_total",
        ),
        (
            "checkout.session.completed",
            SESSION,
            ("currency", "null"),
            ReasonCode::MissingField,
            "/data/object/currency",
        ),
        ("refund.created", REFUND, ("amount", ""), ReasonCode::MissingField, "/data/object/amount"),
    ] {
        let failure = mapped(topic, base, &[change]).unwrap_err();
        assert_eq!((failure.reason, failure.field.as_str()), (reason, field), "{topic} {change:?}");
    }
    let nowhere = mapped("refund.created", REFUND, &[("payment_intent", ""), ("charge", "null")]);
    assert_eq!(nowhere, Err(PermanentFailure::missing("/data/object/charge")));
}

#[test]
fn stripe_account_without_tenant_fails() {
    let of = |account: &str, tenant: &str| {
        let body = event("invoice.paid", &json_object(INVOICE, &[]));
        let body = body.replacen('{', &format!("{{\"account\":{account},"), 1);
        let mut actual = envelope("invoice.paid", body);
        tenant.clone_into(&mut actual.tenant);
        stripe().map(&actual).map(|_| ())
    };
    assert_eq!(of("\"acct_1\"", "acct_1"), Ok(()));
    assert_eq!(of("null", ""), Ok(()));
    assert_eq!(of("\"acct_1\"", ""), Err(PermanentFailure::missing("x-tallyhook-tenant")));
    assert_eq!(of("[1]", "").unwrap_err().field, "/account");
}

#[test]
fn stripe_thin_event_names_a_resource() {
    let thin = |related: &str| {
        let body = format!(
            r#"{{"id":"evt_2","object":"v2.core.event","type":"v2.core.account.updated","created":"2026-01-02T12:00:05.250Z","context":null,"related_object":{related}}}"#
        );
        stripe().map(&envelope("v2.core.account.updated", body))
    };
    let expected = ResourceChange {
        platform: "stripe",
        kind: "v2.core.account".to_owned(),
        id: "acct_9".to_owned(),
        version: None,
        changed_at: datetime!(2026-01-02 12:00:05.25 UTC),
        action: "updated".to_owned(),
    };
    let related = r#"{"id":"acct_9","type":"v2.core.account","url":"/v2/core/accounts/acct_9"}"#;
    assert_eq!(thin(related), Ok(MappedEvent::from(expected)));
    for related in ["null", "{}"] {
        assert_eq!(thin(related), Ok(MappedEvent::Ignored));
    }
    assert_eq!(thin(r#"{"id":"acct_9"}"#), Err(PermanentFailure::missing("/related_object/type")));
    assert_eq!(thin(r#"{"type":"x"}"#), Err(PermanentFailure::missing("/related_object/id")));
}

#[test]
fn stripe_business_key_equals_mapped_one() {
    for (topic, base, changes, expected) in [
        ("invoice.paid", INVOICE, &[][..], "A-0001"),
        ("invoice.created", INVOICE, &[("number", "null")], "in_1"),
        ("checkout.session.completed", SESSION, &[], "9007199254740993"),
        ("checkout.session.completed", SESSION, &[("client_reference_id", "null")], "cs_1"),
        ("refund.created", REFUND, &[], "pi_1"),
        ("refund.created", REFUND, &[("payment_intent", "null")], "ch_1"),
    ] {
        let envelope = envelope(topic, event(topic, &json_object(base, changes)));
        assert_eq!(stripe().business_key(&envelope).as_deref(), Some(expected), "{topic}");
        let Ok(MappedEvent::Change(change)) = stripe().map(&envelope) else { panic!("{topic}") };
        assert_eq!(change.business_key(), expected);
    }
    assert_eq!(stripe().business_key(&envelope("", "<event/>")), None);
}

#[test]
fn stripe_charge_has_the_refunded_total() {
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
        Ok(MappedEvent::Change(crate::domain::Change::Refund(refund))) => *refund,
        other => panic!("not a refund: {other:?}"),
    };
    let actual = refund(&[]);
    assert_eq!((actual.refund_id.as_str(), actual.cumulative), ("ch_1", true));
    assert_eq!(actual.target, RefundTarget::Payment("pi_1".to_owned()));
    assert_eq!(actual.amount.amount.to_string(), "19.99");
    // Without an intent, the charge is the payment.
    let alone = refund(&[("payment_intent", "")]);
    assert_eq!(alone.target, RefundTarget::Payment("ch_1".to_owned()));
    let failure = mapped("charge.refunded", charge, &[("amount_refunded", "")]).unwrap_err();
    assert_eq!(failure.field, "/data/object/amount_refunded");
}
