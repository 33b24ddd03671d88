//! The events of QuickBooks requests, and their mapping.

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
        // Nothing is copied: each body is a slice of the request's.
        let within = body.as_ptr_range();
        let is_slice = |event: &Event| {
            event.body.as_ptr() >= within.start && event.body.as_ptr() <= within.end
        };
        assert!(events.iter().all(is_slice));
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

fn change_of(event: Event) -> ResourceChange {
    match (QuickBooks {}).map(&as_received(event)) {
        Ok(MappedEvent::Change(Change::ResourceChanged(change))) => *change,
        other => panic!("must be a change, is {other:?}"),
    }
}

/// The only event of a request.
fn only(body: &str) -> Event {
    let mut events = events(body);
    assert_eq!(events.len(), 1, "{body}: {events:?}");
    events.remove(0)
}

fn mapping_failure(body: &str) -> PermanentFailure {
    let event = only(body);
    assert_eq!((event.topic.as_str(), event.event_id.len()), ("", 64), "{body}");
    (QuickBooks {}).map(&as_received(event)).unwrap_err()
}

#[test]
fn quickbooks_signature_matches_intuit_vector() {
    // QuickBooks-V3-Java-SDK, WebhooksServiceTest.
    let secret = Secret::new("env:S", Key::shared("b5771f19b12ddb4bcdb9f08bdc50bc63878a")).unwrap();
    assert_eq!(
        SIGNATURE.sign(&secret, &[LEGACY.as_bytes()]),
        "JC2GUwciPmRBwEO7WvrRmKqu9tGOKL8FFallocTFi8Q="
    );
}

#[test]
fn quickbooks_cloud_events_of_several_companies_are_split() {
    let events = events(&format!(" [ {CREATED} ,\n{DELETED}]"));
    let properties: Vec<_> = events
        .iter()
        .map(|event| (event.event_id.as_str(), event.tenant.as_str(), event.topic.as_str()))
        .collect();
    assert_eq!(
        properties,
        [
            ("88cd52aa-33b6-4351-9aa4-47572edbd068", "310687", "qbo.invoice.created.v1"),
            ("2", "310688", "qbo.bill.deleted.v1"),
        ]
    );
    assert_eq!([&events[0].body[..], &events[1].body[..]], [CREATED, DELETED].map(str::as_bytes));
    assert_eq!(events[0].version, Some(datetime!(2025-09-10 21:31:25.179550586 UTC)));

    let [created, deleted] = [0, 1].map(|index| change_of(events[index].clone()));
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
fn quickbooks_notifications_of_several_companies_are_split() {
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
    let properties: Vec<_> =
        events.iter().map(|event| (event.event_id.as_str(), event.tenant.as_str())).collect();
    assert_eq!(
        properties,
        [
            ("1:Invoice:5:Update:2015-10-05T14:42:19-0700", "1"),
            ("1:Invoice:5:Update:2015-10-05T14:42:20-0700", "1"),
            ("2:Invoice:5:Update:2015-10-05T14:42:19-0700", "2"),
        ]
    );
    assert!(events.iter().all(|event| event.topic == "invoice.update"));
    // Each has its own time.
    assert!(events[0].version < events[1].version);
    assert!(events[0].body.starts_with(b"{\"name\"") && events[0].body.ends_with(b"}"));
    let change = change_of(events[1].clone());
    assert_eq!((change.kind.as_str(), change.action.as_str()), ("invoice", "updated"));
    assert_eq!(change.changed_at, datetime!(2015-10-05 21:42:20 UTC));
}

#[test]
fn quickbooks_actions_are_equal_in_both_formats() {
    for (older, newer) in [
        ("Create", "created"),
        ("Update", "updated"),
        ("Delete", "deleted"),
        ("Merge", "merged"),
        ("Void", "voided"),
        ("Emailed", "emailed"),
        ("Unknown", "unknown"),
    ] {
        let entity = only(&LEGACY.replace("Create", older));
        assert_eq!(change_of(entity).action, newer);
        let event = only(&format!("[{}]", CREATED.replace(".created.", &format!(".{newer}."))));
        assert_eq!(change_of(event).action, newer);
    }
    let other = only(&format!("[{}]", CREATED.replace("qbo.", "payroll.")));
    assert_eq!((QuickBooks {}).map(&as_received(other)), Ok(MappedEvent::Ignored));
}

#[test]
fn quickbooks_request_without_events_is_ignored() {
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
fn quickbooks_unreadable_request_fails_mapping() {
    for body in ["", "[{]", "{\"eventNotifications\":[", "nonsense", "[1,]"] {
        assert_eq!(mapping_failure(body).reason, ReasonCode::InvalidJson, "{body}");
    }
    for (body, reason, field) in [
        ("{}", ReasonCode::MissingField, "/eventNotifications"),
        ("1", ReasonCode::MissingField, "/eventNotifications"),
        (r#"{"eventNotifications":{}}"#, ReasonCode::InvalidValue, "/eventNotifications"),
    ] {
        let failure = mapping_failure(body);
        assert_eq!((failure.reason, failure.field.as_str()), (reason, field), "{body}");
    }
}

#[test]
fn quickbooks_invalid_part_does_not_affect_others() {
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
    // The id of an entity without a time is its digest.
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
fn quickbooks_too_many_events_are_rejected() {
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
fn quickbooks_unsplit_message_fails_mapping() {
    for body in [LEGACY, &format!("[{CREATED}]"), &LEGACY[23..LEGACY.len() - 2]] {
        let failure = (QuickBooks {}).map(&envelope("x", body.to_owned())).unwrap_err();
        assert_eq!(failure.reason, ReasonCode::InvalidValue, "{body}");
    }
    let failure = (QuickBooks {}).map(&envelope("x", CREATED)).unwrap_err();
    assert_eq!(failure, PermanentFailure::missing("x-tallyhook-tenant"));
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
    let change = ResourceChange {
        platform: "quickbooks",
        kind: kind.to_owned(),
        id: "130".to_owned(),
        version: None,
        changed_at: OffsetDateTime::UNIX_EPOCH,
        action: action.to_owned(),
    };
    match (QuickBooks {}).map_resource(&change, &envelope("", ""), resource.as_bytes())? {
        Some(Change::Invoice(invoice)) => Ok(*invoice),
        other => panic!("must be an invoice, is {other:?}"),
    }
}

#[test]
fn quickbooks_fetched_document_is_mapped() {
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
fn quickbooks_status_is_derived_from_balance() {
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
fn quickbooks_amounts_are_exact() {
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
fn quickbooks_other_kinds_are_not_mapped() {
    let customer = change_of(only(LEGACY));
    assert_eq!(customer.kind, "customer");
    let resource = br#"{"Customer":{"Id":"1"}}"#;
    assert_eq!((QuickBooks {}).map_resource(&customer, &envelope("", ""), resource), Ok(None));
    let number = (QuickBooks {}).business_key(&envelope("", CREATED));
    assert_eq!(number.as_deref(), Some("9007199254740993"));
}
