//! What xero calls are divided into, and what their events map to.

use http::HeaderMap;
use time::{
    OffsetDateTime,
    macros::{date, datetime},
};

use super::*;
use crate::{
    domain::{Invoice, InvoiceStatus, ReasonCode},
    sources::{
        Received,
        conformance::{ConfiguredSource, envelope, json_object},
        signature::Key,
    },
};

const INVOICE: &str = r#"{"resourceUrl":"https://api.xero.com/api.xro/2.0/Invoices/44aa0707-f718-4f1c-8d53-f2da9ca59533","resourceId":"44aa0707-f718-4f1c-8d53-f2da9ca59533","tenantId":"AEF86862-2015-4b6b-88bc-d89032cecc50","tenantType":"ORGANISATION","eventCategory":"INVOICE","eventType":"UPDATE","eventDateUtc":"2025-12-02T00:44:09.923"}"#;
const CREDIT_NOTE: &str = r#"{"resourceId":"55d84274-a3da-4829-a7c0-0cab601b95cc","tenantId":"b0000000-2015-4b6b-88bc-d89032cecc50","eventCategory":"CreditNote","eventType":"Create","eventDateUtc":"2025-12-02T00:44:10","data":{"Type":"ACCPAYCREDIT","Status":"DRAFT"}}"#;
const INTENT_BODY: &str =
    r#"{"events":[],"lastEventSequence":0,"firstEventSequence":0,"entropy":"S0m3r4Nd0mt3xt"}"#;

fn call(events: &[&str]) -> String {
    format!(
        r#"{{"events": [{}],"firstEventSequence":7,"lastEventSequence":8,"entropy":"X"}}"#,
        events.join(" , ")
    )
}

fn received(body: &str, tenants: &[&str]) -> Result<Received, Rejection> {
    let source = ConfiguredSource::load("xero", "", &["FIRST"], tenants).unwrap();
    let body = Bytes::copy_from_slice(body.as_bytes());
    source.receive(&body)
}

fn events(body: &str) -> Vec<Event> {
    match received(body, &[]) {
        Ok(Received::Events { events, .. }) => events,
        other => panic!("{body}: must be events, is {other:?}"),
    }
}

fn only(body: &str) -> Event {
    let mut events = events(body);
    assert_eq!(events.len(), 1, "{body}: {events:?}");
    events.remove(0)
}

fn mapped(event: Event) -> Result<MappedEvent, PermanentFailure> {
    let Event { tenant, version, topic, body, .. } = event;
    Xero {}.map(&Envelope { tenant, version, ..envelope(&topic, body) })
}

fn reference_of(event: Event) -> ResourceChange {
    match mapped(event) {
        Ok(MappedEvent::Change(Change::ResourceChanged(reference))) => *reference,
        other => panic!("must be a reference, is {other:?}"),
    }
}

#[test]
fn a_call_spans_organisations() {
    let events = events(&call(&[INVOICE, CREDIT_NOTE]));
    let told: Vec<_> = events
        .iter()
        .map(|event| (event.event_id.as_str(), event.tenant.as_str(), event.topic.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            (
                "AEF86862-2015-4b6b-88bc-d89032cecc50:44aa0707-f718-4f1c-8d53-f2da9ca59533:UPDATE:2025-12-02T00:44:09.923",
                "aef86862-2015-4b6b-88bc-d89032cecc50",
                "invoice.update",
            ),
            (
                "b0000000-2015-4b6b-88bc-d89032cecc50:55d84274-a3da-4829-a7c0-0cab601b95cc:Create:2025-12-02T00:44:10",
                "b0000000-2015-4b6b-88bc-d89032cecc50",
                "creditnote.create",
            ),
        ]
    );
    assert_eq!(
        [&events[0].body[..], &events[1].body[..]],
        [INVOICE, CREDIT_NOTE].map(str::as_bytes)
    );
    assert_eq!(events[0].version, Some(datetime!(2025-12-02 0:44:09.923 UTC)));

    let expected = ResourceChange {
        platform: "xero",
        kind: "invoice".to_owned(),
        id: "44aa0707-f718-4f1c-8d53-f2da9ca59533".to_owned(),
        version: None,
        changed_at: datetime!(2025-12-02 0:44:09.923 UTC),
        action: "updated".to_owned(),
    };
    assert_eq!(reference_of(events[0].clone()), expected);
    let note = reference_of(events[1].clone());
    assert_eq!((note.kind.as_str(), note.action.as_str()), ("credit_note", "created"));
    assert_eq!(Xero {}.map_resource(&note, &envelope("", ""), b"{}"), Ok(None));
}

#[test]
fn an_event_is_the_same_at_whatever_place_it_comes_again() {
    let alone = only(&call(&[CREDIT_NOTE]));
    assert_eq!(events(&call(&[INVOICE, CREDIT_NOTE]))[1], alone);
    let later = only(&call(&[&CREDIT_NOTE.replace("00:44:10", "00:44:11")]));
    assert_ne!(later.event_id, alone.event_id);
    assert!(later.version > alone.version, "out of order or not, each says when");
    assert!(!Xero {}.redelivers_identical_body());
}

#[test]
fn the_intent_to_receive_is_answered_and_changes_nothing() {
    assert_eq!(Xero {}.response_style(), ResponseStyle::StatusOnly);
    let event = only(INTENT_BODY);
    assert_eq!((event.topic.as_str(), event.tenant.as_str()), (INTENT_TOPIC, ""));
    assert_eq!(&event.body[..], INTENT_BODY.as_bytes());
    let another = only(&INTENT_BODY.replace("S0m3", "0th3"));
    assert_ne!(another.event_id, event.event_id);
    assert_eq!(mapped(event), Ok(MappedEvent::Ignored));
    // An allow-list does not stand in its way: it names nobody.
    assert!(received(INTENT_BODY, &["aef86862-2015-4b6b-88bc-d89032cecc50"]).is_ok());

    // Wrongly signed, as some of them are: exactly 401.
    let body = Bytes::from(INTENT_BODY);
    let mut headers = HeaderMap::new();
    headers.insert(SIGNATURE.header, "bm90IHRoZSBzaWduYXR1cmU=".parse().unwrap());
    let secret = Secret::new("env:S", Key::Shared(b"key".to_vec())).unwrap();
    let received_at = OffsetDateTime::UNIX_EPOCH;
    let call = WebhookRequest { headers: &headers, query: "", body: &body, received_at };
    assert_eq!(Xero {}.verify(&call, &[secret]), Err(Rejection::invalid_signature()));
}

#[test]
fn what_cannot_be_divided_is_buried_whole() {
    for (body, reason, field) in [
        ("", ReasonCode::InvalidJson, ""),
        ("{\"events\":[", ReasonCode::InvalidJson, ""),
        ("{}", ReasonCode::MissingField, "/events"),
        ("[]", ReasonCode::MissingField, "/events"),
        (r#"{"events":{}}"#, ReasonCode::InvalidValue, "/events"),
    ] {
        let event = only(body);
        assert_eq!((event.topic.as_str(), event.event_id.len()), ("", 64), "{body}");
        let failure = mapped(event).unwrap_err();
        assert_eq!((failure.reason, failure.field.as_str()), (reason, field), "{body}");
    }
    let whole = Xero {}.map(&envelope("invoice.update", call(&[INVOICE]))).unwrap_err();
    assert_eq!(whole.reason, ReasonCode::InvalidValue);
    let too_many = call(&vec![INVOICE; 1001]);
    assert!(matches!(received(&too_many, &[]), Err(Rejection::Malformed(_))));
}

#[test]
fn one_bad_event_does_not_cost_the_others() {
    let without = |field: &str| {
        let at = INVOICE.find(&format!("\"{field}\"")).unwrap();
        let end = INVOICE[at..].find(',').map_or(INVOICE.len() - 2, |comma| at + comma);
        format!("{}{}", &INVOICE[..at], &INVOICE[end + 1..])
    };
    for field in ["resourceId", "tenantId", "eventCategory", "eventType"] {
        let events = events(&call(&[&without(field), CREDIT_NOTE]));
        assert_eq!(events[0].event_id.len() == 64, field != "eventCategory", "{field}");
        let failure = mapped(events[0].clone()).unwrap_err();
        assert_eq!(failure, PermanentFailure::missing(format!("/{field}")));
        assert!(mapped(events[1].clone()).is_ok());
    }
    let late = INVOICE.replace("2025-12-02T00:44:09.923", "now");
    assert_eq!(mapped(only(&call(&[&late]))).unwrap_err().field, "/eventDateUtc");
}

#[test]
fn kinds_of_tomorrow_are_named_too() {
    let event = INVOICE.replace("INVOICE", "PURCHASEORDER").replace("UPDATE", "APPROVE");
    let reference = reference_of(only(&call(&[&event])));
    assert_eq!((reference.kind.as_str(), reference.action.as_str()), ("purchaseorder", "approve"));
}

#[test]
fn a_foreign_organisation_holds_up_nobody() {
    let allowed = ["AEF86862-2015-4B6B-88BC-D89032CECC50"];
    let Ok(Received::Events { events, .. }) = received(&call(&[INVOICE, CREDIT_NOTE]), &allowed)
    else {
        panic!("one organisation is allowed");
    };
    let topics: Vec<_> = events.iter().map(|event| event.topic.as_str()).collect();
    assert_eq!(topics, ["invoice.update", "foreign:creditnote.create"]);
    let refused = received(&call(&[CREDIT_NOTE]), &allowed);
    assert!(matches!(refused, Err(Rejection::UnknownTenant("tenantId", _))), "{refused:?}");
}

const DOCUMENT: &[(&str, &str)] = &[
    ("Type", "\"ACCREC\""),
    ("InvoiceID", "\"44aa0707-f718-4f1c-8d53-f2da9ca59533\""),
    ("InvoiceNumber", "\"INV-0017\""),
    ("Contact", r#"{"ContactID":"c-1","Name":"Ridgeway University"}"#),
    ("Status", "\"AUTHORISED\""),
    ("CurrencyCode", "\"NZD\""),
    ("Total", "6187.50"),
    ("AmountDue", "6187.50"),
    ("DueDate", r#""/Date(1766620800000+0000)/""#),
    ("DueDateString", "\"2025-12-24T00:00:00\""),
    ("UpdatedDateUTC", r#""/Date(1764636249923+0000)/""#),
];

fn fetched(changes: &[(&str, &str)]) -> Result<Invoice, PermanentFailure> {
    let resource = format!(r#"{{"Status":"OK","Invoices":[{}]}}"#, json_object(DOCUMENT, changes));
    let reference = reference_of(only(&call(&[INVOICE])));
    match (Xero {}).map_resource(&reference, &envelope("", ""), resource.as_bytes())? {
        Some(Change::Invoice(invoice)) => Ok(*invoice),
        other => panic!("must be an invoice, is {other:?}"),
    }
}

#[test]
fn a_fetched_invoice_is_its_whole_state() {
    let expected = Invoice {
        document_id: Some("44aa0707-f718-4f1c-8d53-f2da9ca59533".to_owned()),
        vendor: String::new(),
        invoice_number: "INV-0017".to_owned(),
        transaction_id: None,
        status: InvoiceStatus::Open,
        platform_status: "AUTHORISED".to_owned(),
        total: crate::domain::Money {
            amount: "6187.50".parse().unwrap(),
            currency: "NZD".parse().unwrap(),
        },
        due_on: Some(date!(2025 - 12 - 24)),
        sequence: 0,
        version: datetime!(2025-12-02 0:44:09.923 UTC),
    };
    assert_eq!(fetched(&[]).unwrap(), expected);
    let bill = fetched(&[("Type", "\"ACCPAY\""), ("InvoiceNumber", "\"\"")]).unwrap();
    assert_eq!(bill.vendor, "Ridgeway University");
    assert_eq!(bill.invoice_number, "44aa0707-f718-4f1c-8d53-f2da9ca59533");
    let odd = fetched(&[("DueDateString", ""), ("UpdatedDateUTC", "")]).unwrap();
    assert_eq!(odd.due_on, Some(date!(2025 - 12 - 25)), "from DueDate");
    assert_eq!(odd.version, datetime!(2025-12-02 0:44:09.923 UTC), "from the event");
    assert_eq!(fetched(&[("DueDateString", ""), ("DueDate", "")]).unwrap().due_on, None);
}

#[test]
fn statuses_are_ours_and_xeros() {
    use InvoiceStatus::{Draft, Open, Other, Paid, Void};
    for (word, ours) in [
        ("DRAFT", Draft),
        ("SUBMITTED", Draft),
        ("AUTHORISED", Open),
        ("PAID", Paid),
        ("VOIDED", Void),
        ("DELETED", Void),
        ("A_WORD_OF_TOMORROW", Other),
    ] {
        let invoice = fetched(&[("Status", &format!("{word:?}"))]).unwrap();
        assert_eq!((invoice.status, invoice.platform_status.as_str()), (ours, word), "{word}");
    }
}

#[test]
fn what_a_fetched_invoice_lacks_is_named() {
    for (field, literal) in [
        ("InvoiceID", ""),
        ("Status", ""),
        ("Total", "\"ten\""),
        ("CurrencyCode", "\"dollar\""),
        ("DueDateString", "\"soon\""),
        ("UpdatedDateUTC", "\"/Date(x)/\""),
    ] {
        let failure = fetched(&[(field, literal)]).unwrap_err();
        assert_eq!(failure.field, format!("/Invoices/0/{field}"));
    }
    let reference = reference_of(only(&call(&[INVOICE])));
    let none = Xero {}.map_resource(&reference, &envelope("", ""), br#"{"Invoices":[]}"#);
    assert_eq!(none, Err(PermanentFailure::missing("/Invoices/0/InvoiceID")));
}
