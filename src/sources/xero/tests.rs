//! The events of Xero requests, and their mapping.

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

fn request(events: &[&str]) -> String {
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

fn change_of(event: Event) -> ResourceChange {
    match mapped(event) {
        Ok(MappedEvent::Change(Change::ResourceChanged(change))) => *change,
        other => panic!("must be a change, is {other:?}"),
    }
}

#[test]
fn xero_events_of_several_organisations_are_split() {
    let events = events(&request(&[INVOICE, CREDIT_NOTE]));
    let properties: Vec<_> = events
        .iter()
        .map(|event| (event.event_id.as_str(), event.tenant.as_str(), event.topic.as_str()))
        .collect();
    assert_eq!(
        properties,
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
    assert_eq!(change_of(events[0].clone()), expected);
    let note = change_of(events[1].clone());
    assert_eq!((note.kind.as_str(), note.action.as_str()), ("credit_note", "created"));
    assert_eq!(Xero {}.map_resource(&note, &envelope("", ""), b"{}"), Ok(None));
}

#[test]
fn xero_intent_to_receive_is_ignored() {
    assert_eq!(Xero {}.response_style(), ResponseStyle::StatusOnly);
    let event = only(INTENT_BODY);
    assert_eq!((event.topic.as_str(), event.tenant.as_str()), (INTENT_TOPIC, ""));
    assert_eq!(&event.body[..], INTENT_BODY.as_bytes());
    let another = only(&INTENT_BODY.replace("S0m3", "0th3"));
    assert_ne!(another.event_id, event.event_id);
    assert_eq!(mapped(event), Ok(MappedEvent::Ignored));
    // It has no tenant, so an allow-list does not reject it.
    assert!(received(INTENT_BODY, &["aef86862-2015-4b6b-88bc-d89032cecc50"]).is_ok());

    // Some are sent with an invalid signature, to which Xero expects 401.
    let body = Bytes::from(INTENT_BODY);
    let mut headers = HeaderMap::new();
    headers.insert(SIGNATURE.header, "bm90IHRoZSBzaWduYXR1cmU=".parse().unwrap());
    let secret = Secret::new("env:S", Key::shared("key")).unwrap();
    let received_at = OffsetDateTime::UNIX_EPOCH;
    let request = WebhookRequest { headers: &headers, query: "", body: &body, received_at };
    assert_eq!(Xero {}.verify(&request, &[secret]), Err(Rejection::invalid_signature()));
}

#[test]
fn xero_unreadable_request_fails_mapping() {
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
    let failure = Xero {}.map(&envelope("invoice.update", request(&[INVOICE]))).unwrap_err();
    assert_eq!(failure.reason, ReasonCode::InvalidValue);
    let too_many = request(&vec![INVOICE; 1001]);
    assert!(matches!(received(&too_many, &[]), Err(Rejection::Malformed(_))));
}

#[test]
fn xero_invalid_event_does_not_affect_others() {
    let without = |field: &str| {
        let at = INVOICE.find(&format!("\"{field}\"")).unwrap();
        let end = INVOICE[at..].find(',').map_or(INVOICE.len() - 2, |comma| at + comma);
        format!("{}{}", &INVOICE[..at], &INVOICE[end + 1..])
    };
    for field in ["resourceId", "tenantId", "eventCategory", "eventType"] {
        let events = events(&request(&[&without(field), CREDIT_NOTE]));
        assert_eq!(events[0].event_id.len() == 64, field != "eventCategory", "{field}");
        let failure = mapped(events[0].clone()).unwrap_err();
        assert_eq!(failure, PermanentFailure::missing(format!("/{field}")));
        assert!(mapped(events[1].clone()).is_ok());
    }
    let late = INVOICE.replace("2025-12-02T00:44:09.923", "now");
    assert_eq!(mapped(only(&request(&[&late]))).unwrap_err().field, "/eventDateUtc");
}

#[test]
fn xero_unknown_kind_is_recorded() {
    let event = INVOICE.replace("INVOICE", "PURCHASEORDER").replace("UPDATE", "APPROVE");
    let change = change_of(only(&request(&[&event])));
    assert_eq!((change.kind.as_str(), change.action.as_str()), ("purchaseorder", "approve"));
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
    let change = change_of(only(&request(&[INVOICE])));
    match (Xero {}).map_resource(&change, &envelope("", ""), resource.as_bytes())? {
        Some(Change::Invoice(invoice)) => Ok(*invoice),
        other => panic!("must be an invoice, is {other:?}"),
    }
}

#[test]
fn xero_fetched_invoice_is_mapped() {
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
fn xero_statuses_are_normalized() {
    use InvoiceStatus::{Draft, Open, Other, Paid, Void};
    for (word, ours) in [
        ("DRAFT", Draft),
        ("SUBMITTED", Draft),
        ("AUTHORISED", Open),
        ("PAID", Paid),
        ("VOIDED", Void),
        ("DELETED", Void),
        ("UNKNOWN", Other),
    ] {
        let invoice = fetched(&[("Status", &format!("{word:?}"))]).unwrap();
        assert_eq!((invoice.status, invoice.platform_status.as_str()), (ours, word), "{word}");
    }
}

#[test]
fn xero_failure_names_the_field() {
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
    let change = change_of(only(&request(&[INVOICE])));
    let none = Xero {}.map_resource(&change, &envelope("", ""), br#"{"Invoices":[]}"#);
    assert_eq!(none, Err(PermanentFailure::missing("/Invoices/0/InvoiceID")));
}
