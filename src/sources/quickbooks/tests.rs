//! What quickbooks calls are divided into, and what their events map to.

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

const CREATED: &str = r#"{"specversion":"1.0","id":"88cd52aa-33b6-4351-9aa4-47572edbd068","source":"intuit.dsnBgbseACLLRZNxo2dfc4evmEJdxde58xeeYcZliOU=","type":"qbo.invoice.created.v1","datacontenttype":"application/json","time":"2025-09-10T21:31:25.179550586Z","intuitentityid":"9007199254740993","intuitaccountid":"310687","data":{}}"#;
const DELETED: &str = r#"{"specversion":"1.0","id":"2","type":"qbo.bill.deleted.v1","time":"2025-09-10T21:31:26Z","intuitentityid":"7","intuitaccountid":"310688","data":{}}"#;
const LEGACY: &str = r#"{"eventNotifications":[{"realmId":"1185883450","dataChangeEvent":{"entities":[{"name":"Customer","id":"1","operation":"Create","lastUpdated":"2015-10-05T14:42:19-0700"}]}}]}"#;

fn received(body: &str, tenants: &[&str]) -> Result<Received, Rejection> {
    let source = ConfiguredSource::load("quickbooks", "", &["FIRST"], tenants).unwrap();
    let body = Bytes::copy_from_slice(body.as_bytes());
    let received = source.receive(&body)?;
    if let Received::Events { events, .. } = &received {
        // Nothing is copied: each body lies within the call's.
        let within = body.as_ptr_range();
        let kept = |event: &Event| {
            event.body.as_ptr() >= within.start && event.body.as_ptr() <= within.end
        };
        assert!(events.iter().all(kept));
    }
    Ok(received)
}

fn events(body: &str) -> Vec<Event> {
    match received(body, &[]) {
        Ok(Received::Events { events, .. }) => events,
        other => panic!("{body}: must be events, is {other:?}"),
    }
}

fn as_received(event: Event) -> Envelope {
    Envelope { tenant: event.tenant, version: event.version, ..envelope(&event.topic, event.body) }
}

fn reference_of(event: Event) -> ResourceChange {
    match (QuickBooks {}).map(&as_received(event)) {
        Ok(MappedEvent::Change(Change::ResourceChanged(reference))) => *reference,
        other => panic!("must be a reference, is {other:?}"),
    }
}

/// The event of this one CloudEvent or older entity.
fn only(body: &str) -> Event {
    let mut events = events(body);
    assert_eq!(events.len(), 1, "{body}: {events:?}");
    events.remove(0)
}

fn buried(body: &str) -> PermanentFailure {
    let event = only(body);
    assert_eq!((event.topic.as_str(), event.event_id.len()), ("", 64), "{body}");
    (QuickBooks {}).map(&as_received(event)).unwrap_err()
}

#[test]
fn intuits_own_vector_verifies() {
    // QuickBooks-V3-Java-SDK, WebhooksServiceTest.
    let secret =
        Secret::new("env:S", Key::Shared(b"b5771f19b12ddb4bcdb9f08bdc50bc63878a".to_vec()))
            .unwrap();
    assert_eq!(
        SIGNATURE.sign(&secret, LEGACY.as_bytes()),
        "JC2GUwciPmRBwEO7WvrRmKqu9tGOKL8FFallocTFi8Q="
    );
}

#[test]
fn a_call_of_cloud_events_spans_companies() {
    let events = events(&format!(" [ {CREATED} ,\n{DELETED}]"));
    let told: Vec<_> = events
        .iter()
        .map(|event| (event.event_id.as_str(), event.tenant.as_str(), event.topic.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            ("88cd52aa-33b6-4351-9aa4-47572edbd068", "310687", "qbo.invoice.created.v1"),
            ("2", "310688", "qbo.bill.deleted.v1"),
        ]
    );
    assert_eq!([&events[0].body[..], &events[1].body[..]], [CREATED, DELETED].map(str::as_bytes));
    assert_eq!(events[0].version, Some(datetime!(2025-09-10 21:31:25.179550586 UTC)));

    let [created, deleted] = [0, 1].map(|index| reference_of(events[index].clone()));
    let expected = ResourceChange {
        platform: "quickbooks",
        kind: "invoice".to_owned(),
        id: "9007199254740993".to_owned(),
        version: None,
        changed_at: datetime!(2025-09-10 21:31:25.179550586 UTC),
        action: "created".to_owned(),
    };
    assert_eq!(created, expected);
    assert_eq!((deleted.kind.as_str(), deleted.id.as_str()), ("bill", "7"));
    assert!(deleted.is_deletion());
    assert_eq!(only(CREATED).tenant, "310687", "one without a list around it");
}

#[test]
fn an_older_call_spans_companies() {
    let events = events(
        r#"{"eventNotifications":[
            {"realmId":"1","dataChangeEvent":{"entities":[
                {"name":"Invoice","id":"5","operation":"Update","lastUpdated":"2015-10-05T14:42:19-0700"},
                {"name":"Invoice","id":"5","operation":"Update","lastUpdated":"2015-10-05T14:42:20-0700"}]}},
            {"realmId":"2","dataChangeEvent":{"entities":[
                {"name":"Invoice","id":"5","operation":"Update","lastUpdated":"2015-10-05T14:42:19-0700"}]}},
            {"realmId":"3","dataChangeEvent":{"entities":[]}},
            {"realmId":"4"}]}"#,
    );
    let told: Vec<_> =
        events.iter().map(|event| (event.event_id.as_str(), event.tenant.as_str())).collect();
    assert_eq!(
        told,
        [
            ("1:Invoice:5:Update:2015-10-05T14:42:19-0700", "1"),
            ("1:Invoice:5:Update:2015-10-05T14:42:20-0700", "1"),
            ("2:Invoice:5:Update:2015-10-05T14:42:19-0700", "2"),
        ]
    );
    assert!(events.iter().all(|event| event.topic == "invoice.update"));
    // Out of order or not: each says when.
    assert!(events[0].version < events[1].version);
    assert!(events[0].body.starts_with(b"{\"name\"") && events[0].body.ends_with(b"}"));
    let reference = reference_of(events[1].clone());
    assert_eq!((reference.kind.as_str(), reference.action.as_str()), ("invoice", "updated"));
    assert_eq!(reference.changed_at, datetime!(2015-10-05 21:42:20 UTC));
}

#[test]
fn an_event_is_the_same_in_whatever_call_it_comes_again() {
    let alone = only(&format!("[{DELETED}]"));
    let among = events(&format!("[{CREATED},{DELETED}]"));
    assert_eq!(alone, among[1]);
    let customer = only(LEGACY);
    assert_eq!(customer.topic, "customer.create");
    let spaced = LEGACY.replace("[{\"realm", "[ {\"realm");
    assert_eq!(only(&spaced).event_id, customer.event_id);
    assert!(!(QuickBooks {}).redelivers_identical_body());
}

#[test]
fn both_formats_have_the_same_words_for_what_happened() {
    for (older, newer) in [
        ("Create", "created"),
        ("Update", "updated"),
        ("Delete", "deleted"),
        ("Merge", "merged"),
        ("Void", "voided"),
        ("Emailed", "emailed"),
        ("Tomorrow", "tomorrow"),
    ] {
        let entity = only(&LEGACY.replace("Create", older));
        assert_eq!(reference_of(entity).action, newer);
        let event = only(&format!("[{}]", CREATED.replace(".created.", &format!(".{newer}."))));
        assert_eq!(reference_of(event).action, newer);
    }
    let other = only(&format!("[{}]", CREATED.replace("qbo.", "payroll.")));
    assert_eq!((QuickBooks {}).map(&as_received(other)), Ok(MappedEvent::Ignored));
}

#[test]
fn a_well_formed_call_without_events_is_ignored() {
    for body in [
        "[]",
        " [ ] ",
        r#"{"eventNotifications":[]}"#,
        r#"{"eventNotifications":[{"realmId":"1"}]}"#,
    ] {
        let event = only(body);
        assert_eq!((event.topic.as_str(), &event.body[..]), ("", body.as_bytes()));
        assert_eq!((QuickBooks {}).map(&as_received(event)), Ok(MappedEvent::Ignored), "{body}");
    }
}

#[test]
fn what_cannot_be_divided_is_buried_whole() {
    for body in ["", "[{]", "{\"eventNotifications\":[", "nonsense", "[1,]"] {
        assert_eq!(buried(body).reason, ReasonCode::InvalidJson, "{body}");
    }
    for (body, reason, field) in [
        ("{}", ReasonCode::MissingField, "/eventNotifications"),
        ("1", ReasonCode::MissingField, "/eventNotifications"),
        (r#"{"eventNotifications":{}}"#, ReasonCode::InvalidValue, "/eventNotifications"),
    ] {
        let failure = buried(body);
        assert_eq!((failure.reason, failure.field.as_str()), (reason, field), "{body}");
    }
}

#[test]
fn one_bad_part_does_not_cost_the_others() {
    let calls = events(
        r#"{"eventNotifications":[
            {"dataChangeEvent":{"entities":[{"name":"Invoice","id":"5"}]}},
            {"realmId":"2","dataChangeEvent":{"entities":7}},
            {"realmId":"3","dataChangeEvent":{"entities":[{"id":"5"},{"name":"Bill","id":"6","operation":"Update"}]}}]}"#,
    );
    let failed: Vec<_> = calls
        .iter()
        .map(|event| {
            let failure = (QuickBooks {}).map(&as_received(event.clone())).err();
            (event.tenant.as_str(), event.topic.as_str(), failure.map(|failure| failure.field))
        })
        .collect();
    let named = |field: &str| Some(field.to_owned());
    assert_eq!(
        failed,
        [
            ("", "", named("/realmId")),
            ("2", "", named("/dataChangeEvent/entities")),
            ("3", ".", named("/eventNotifications")),
            ("3", "bill.update", None),
        ]
    );
    // Without its time, an entity is known by its bytes.
    assert_eq!(calls[3].event_id.len(), 64);

    let nameless = CREATED.replace(r#""intuitaccountid":"310687","#, "");
    let typeless = DELETED.replace(r#""type":"qbo.bill.deleted.v1","#, "");
    let timeless = DELETED.replace("2025-09-10T21:31:26Z", "yesterday");
    let events = events(&format!("[{nameless},{typeless},{timeless},{CREATED}]"));
    let fields: Vec<_> = events
        .iter()
        .map(|event| (QuickBooks {}).map(&as_received(event.clone())).err().map(|f| f.field))
        .collect();
    assert_eq!(fields, [named("/intuitaccountid"), named("/type"), named("/time"), None]);
}

#[test]
fn a_call_with_too_many_events_is_refused() {
    let event = r#"{"id":"1","type":"qbo.item.created.v1"}"#;
    let list = |count| format!("[{}]", vec![event; count].join(","));
    assert_eq!(events(&list(1000)).len(), 1000);
    for body in [list(1001), list(10_001), format!("[{}]", vec!["0"; 100_000].join(","))] {
        assert!(matches!(received(&body, &[]), Err(Rejection::Malformed(_))), "{}", body.len());
    }
    let entities = |count| {
        let entities = vec![r#"{"name":"Item","id":"1"}"#; count].join(",");
        format!(r#"{{"realmId":"1","dataChangeEvent":{{"entities":[{entities}]}}}}"#)
    };
    for notifications in [entities(1001), format!("{},{}", entities(600), entities(401))] {
        let body = format!(r#"{{"eventNotifications":[{notifications}]}}"#);
        assert!(matches!(received(&body, &[]), Err(Rejection::Malformed(_))), "{}", body.len());
    }
}

#[test]
fn a_whole_call_from_another_producer_is_not_taken_for_one_event() {
    for body in [LEGACY, &format!("[{CREATED}]"), &LEGACY[23..LEGACY.len() - 2]] {
        let failure = (QuickBooks {}).map(&envelope("x", body.to_owned())).unwrap_err();
        assert_eq!(failure.reason, ReasonCode::InvalidValue, "{body}");
    }
    let failure = (QuickBooks {}).map(&envelope("x", CREATED)).unwrap_err();
    assert_eq!(failure, PermanentFailure::missing("x-tallyhook-tenant"));
}

#[test]
fn a_foreign_company_stays_out_of_the_books_and_holds_up_nobody() {
    let body = format!("[{CREATED},{DELETED}]");
    let Ok(Received::Events { events, .. }) = received(&body, &["310688"]) else {
        panic!("one company is allowed");
    };
    let told: Vec<_> =
        events.iter().map(|event| (event.event_id.as_str(), event.topic.as_str())).collect();
    assert_eq!(
        told,
        [
            // Once it is let in, it is not a duplicate of what was kept out.
            ("foreign:88cd52aa-33b6-4351-9aa4-47572edbd068", "foreign:qbo.invoice.created.v1"),
            ("2", "qbo.bill.deleted.v1"),
        ]
    );
    assert_eq!(&events[0].body[..], CREATED.as_bytes());
    let source = ConfiguredSource::load("quickbooks", "", &["FIRST"], &["310688"]).unwrap();
    let mut outcomes = events.into_iter().map(|event| source.source().map(&as_received(event)));
    assert_eq!(outcomes.next(), Some(Ok(MappedEvent::Ignored)));
    assert!(matches!(outcomes.next(), Some(Ok(MappedEvent::Change(_)))));

    let refused = received(&body, &["310689"]);
    assert!(
        matches!(refused, Err(Rejection::UnknownTenant("intuitaccountid or realmId", _))),
        "{refused:?}"
    );
}

const DOCUMENT: &[(&str, &str)] = &[
    ("Id", "\"130\""),
    ("DocNumber", "\"1037\""),
    ("SyncToken", "\"2\""),
    ("TotalAmt", "362.07"),
    ("Balance", "362.07"),
    ("CurrencyRef", r#"{"value":"USD","name":"United States Dollar"}"#),
    ("DueDate", "\"2026-02-01\""),
    ("CustomerRef", r#"{"value":"24","name":"Sonnenschein"}"#),
    (
        "MetaData",
        r#"{"CreateTime":"2026-01-01T00:00:00-08:00","LastUpdatedTime":"2026-01-02T00:00:00-08:00"}"#,
    ),
];

fn fetched(
    kind: &str,
    action: &str,
    changes: &[(&str, &str)],
) -> Result<Invoice, PermanentFailure> {
    let root = if kind == "bill" { "Bill" } else { "Invoice" };
    let resource = format!(r#"{{"{root}":{},"time":"x"}}"#, json_object(DOCUMENT, changes));
    let reference = ResourceChange {
        platform: "quickbooks",
        kind: kind.to_owned(),
        id: "130".to_owned(),
        version: None,
        changed_at: OffsetDateTime::UNIX_EPOCH,
        action: action.to_owned(),
    };
    match (QuickBooks {}).map_resource(&reference, &envelope("", ""), resource.as_bytes())? {
        Some(Change::Invoice(invoice)) => Ok(*invoice),
        other => panic!("must be an invoice, is {other:?}"),
    }
}

#[test]
fn a_fetched_document_is_its_whole_state() {
    let expected = Invoice {
        document_id: Some("invoice:130".to_owned()),
        vendor: String::new(),
        invoice_number: "1037".to_owned(),
        transaction_id: None,
        status: InvoiceStatus::Open,
        platform_status: String::new(),
        total: crate::domain::Money {
            amount: "362.07".parse().unwrap(),
            currency: "USD".parse().unwrap(),
        },
        due_on: Some(date!(2026 - 02 - 01)),
        sequence: 2,
        version: datetime!(2026-01-02 8:00 UTC),
    };
    assert_eq!(fetched("invoice", "updated", &[]).unwrap(), expected);

    let vendor = ("VendorRef", r#"{"value":"56","name":"Bob's Burger Joint"}"#);
    let bill = fetched("bill", "updated", &[vendor, ("DocNumber", "")]).unwrap();
    assert_eq!(bill.document_id.as_deref(), Some("bill:130"), "ids are per kind");
    assert_eq!((bill.vendor.as_str(), bill.invoice_number.as_str()), ("Bob's Burger Joint", "130"));
    let unnamed = fetched("bill", "updated", &[("VendorRef", r#"{"value":"56"}"#)]).unwrap();
    assert_eq!(unnamed.vendor, "56");
}

#[test]
fn a_fetched_documents_status_is_what_is_left_to_pay() {
    use InvoiceStatus::{Open, Paid, Void};
    let zero = [("TotalAmt", "0"), ("Balance", "0.00")];
    let voided = [zero[0], zero[1], ("PrivateNote", "\"Voided - typed twice\"")];
    let noted = [("PrivateNote", "\"Voided the other one\"")];
    for (action, changes, ours) in [
        ("updated", &[][..], Open),
        ("updated", &[("Balance", "0.01")], Open),
        ("updated", &[("Balance", "null")], Open),
        ("updated", &[("Balance", "0")], Paid),
        ("updated", &zero, Paid),
        ("updated", &voided, Void),
        ("updated", &noted, Open),
        ("voided", &zero, Void),
    ] {
        let status = fetched("invoice", action, changes).unwrap().status;
        assert_eq!(status, ours, "{action} {changes:?}");
    }
}

#[test]
fn amounts_are_as_they_are_written() {
    for (literal, amount) in
        [("9007199254740993.01", "9007199254740993.01"), ("1E+3", "1000"), ("0.10", "0.10")]
    {
        let invoice = fetched("invoice", "updated", &[("TotalAmt", literal)]).unwrap();
        assert_eq!(invoice.total.amount.to_string(), amount);
    }
    for (field, literal, named) in [
        ("Id", "", "/Invoice/Id"),
        ("TotalAmt", "\"ten\"", "/Invoice/TotalAmt"),
        ("CurrencyRef", "", "/Invoice/CurrencyRef/value"),
        ("SyncToken", "\"two\"", "/Invoice/SyncToken"),
        ("DueDate", "\"soon\"", "/Invoice/DueDate"),
    ] {
        assert_eq!(fetched("invoice", "updated", &[(field, literal)]).unwrap_err().field, named);
    }
}

#[test]
fn other_kinds_are_not_fetched_into_the_books() {
    let customer = reference_of(only(LEGACY));
    assert_eq!(customer.kind, "customer");
    let resource = br#"{"Customer":{"Id":"1"}}"#;
    assert_eq!((QuickBooks {}).map_resource(&customer, &envelope("", ""), resource), Ok(None));
    let number = (QuickBooks {}).business_key(&envelope("", CREATED));
    assert_eq!(number.as_deref(), Some("9007199254740993"));
}
