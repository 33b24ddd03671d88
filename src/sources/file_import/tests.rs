//! Items of imported files, and the errors that senders get.

use http::HeaderMap;
use rust_decimal::Decimal;
use time::{
    OffsetDateTime,
    macros::{date, datetime},
};

use super::*;
use crate::{
    domain::{Change, Invoice, InvoiceStatus, Money},
    sources::{
        Received, Source,
        conformance::{ConfiguredSource, envelope, json_object},
    },
};

const BEGUN_AT: OffsetDateTime = datetime!(2026-01-02 3:04:05 UTC);

const LEAST: &[(&str, &str)] = &[
    ("vendor", "\"ACME\""),
    ("invoice_number", "\"INV-1\""),
    ("amount", "\"12.50\""),
    ("currency", "\"EUR\""),
];

/// Other names, nested members, and all optional fields.
const OWN: &str = r#"
    tenant = "/company"
    [sources.inbox.invoice]
    vendor = "/supplier/name"
    invoice_number = "Invoice no."
    transaction_id = "a/b~c"
    amount = "cents"
    minor_units = true
    currency = "const:EUR"
    due_on = "Fällig"
    status = "state"
    statuses = { BEZAHLT = "paid" }
    version = "/changed"
"#;

const COMMA: &str = "[sources.inbox.csv]\ndelimiter = ';'\ndecimal_comma = true";

fn source(settings: &str) -> ConfiguredSource {
    ConfiguredSource::load("import", settings, &["FIRST"], &[]).unwrap()
}

fn item_in(
    source: &Source,
    format: ImportFormat,
    body: impl Into<bytes::Bytes>,
    line: u32,
) -> Result<Event, Vec<PermanentFailure>> {
    let headers: HeaderMap = source.import_headers("acme", BEGUN_AT).into_iter().collect();
    let body = body.into();
    let request =
        WebhookRequest { headers: &headers, query: "", body: &body, received_at: BEGUN_AT };
    source.import_event(&request, format, line)
}

fn item(settings: &str, changes: &[(&str, &str)]) -> Result<Event, Vec<PermanentFailure>> {
    item_in(source(settings).source(), ImportFormat::NdJson, json_object(LEAST, changes), 7)
}

fn event(settings: &str, changes: &[(&str, &str)]) -> Event {
    item(settings, changes).unwrap_or_else(|failures| panic!("{changes:?}: {failures:?}"))
}

/// The invalid fields, in the order of the response.
fn faults(outcome: Result<Event, Vec<PermanentFailure>>) -> Vec<String> {
    let failures = outcome.err().unwrap_or_default();
    failures.into_iter().map(|failure| failure.field).collect()
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

#[test]
fn import_documented_columns_need_no_settings() {
    let received = event("", &[("due_date", "\"2026-02-28\""), ("note", "[{}]")]);
    assert_eq!((received.topic.as_str(), received.tenant.as_str()), ("invoice", ""));
    let expected = Invoice {
        document_id: None,
        vendor: "ACME".to_owned(),
        invoice_number: "INV-1".to_owned(),
        transaction_id: None,
        status: InvoiceStatus::Open,
        platform_status: "open".to_owned(),
        total: Money { amount: Decimal::new(1250, 2), currency: "EUR".parse().unwrap() },
        due_on: Some(date!(2026 - 02 - 28)),
        sequence: 0,
        version: datetime!(2026-01-02 3:04:05.000007 UTC),
    };
    assert_eq!(invoice("", received), expected);
    assert_eq!(invoice("", event("", &[("due_date", "\"\"")])).due_on, None);
}

#[test]
fn import_invoice_is_mapped_by_settings() {
    let body = r#"{"company":"acme","supplier":{"name":"Ü"},"Invoice no.":"7","a/b~c":"T-1",
        "cents":"1250","Fällig":"2026-03-01","state":"BEZAHLT","changed":"2026-01-01T00:00:00Z"}"#;
    let read_item = item_in(source(OWN).source(), ImportFormat::NdJson, body, 1).unwrap();
    assert_eq!(read_item.tenant, "acme");
    let read = invoice(OWN, read_item);
    assert_eq!((read.vendor.as_str(), read.invoice_number.as_str()), ("Ü", "7"));
    assert_eq!(read.transaction_id.as_deref(), Some("T-1"));
    assert_eq!((read.status, read.platform_status.as_str()), (InvoiceStatus::Paid, "BEZAHLT"));
    assert_eq!(read.total.amount.to_string(), "12.50");
    assert_eq!(read.due_on, Some(date!(2026 - 03 - 01)));
    assert_eq!(read.version, datetime!(2026-01-01 0:00 UTC));
}

#[test]
fn import_all_invalid_fields_are_reported_by_configured_name() {
    let all = [
        ("vendor", "\" \""),
        ("invoice_number", ""),
        ("amount", "\"ten\""),
        ("currency", "\"EURO\""),
        ("due_date", "\"soon\""),
    ];
    let fields = ["invoice_number", "vendor", "amount", "currency", "due_date"];
    assert_eq!(faults(item("", &all)), fields);
    let own = source(OWN);
    let empty = faults(item_in(own.source(), ImportFormat::NdJson, "{}", 1));
    assert_eq!(empty, ["Invoice no.", "a/b~c", "/supplier/name", "cents", "/company"]);
    let long = format!("\"{}\"", "x".repeat(256));
    for (name, literal) in [
        ("vendor", "null"),
        ("vendor", &long),
        ("invoice_number", "\"\\u0000\""),
        ("invoice_number", "[1]"),
        ("amount", "\"\""),
        ("amount", "\"1,50\""),
        ("currency", ""),
        ("currency", "\"\""),
        ("due_date", "\"2026-02-30\""),
    ] {
        assert_eq!(faults(item("", &[(name, literal)])), [name], "{name} {literal}");
    }
    // Also in the worker: settings may change while a message waits.
    let late = envelope(INVOICE_TOPIC, json_object(LEAST, &[("amount", "\"x\"")]));
    let failure = source("").source().map(&late).unwrap_err();
    assert_eq!(failure.to_string(), "amount: is not a decimal number of at most 28 digits");
    assert_eq!(source("").source().business_key(&late).as_deref(), Some("INV-1"));
}

#[test]
fn import_event_id_depends_on_content() {
    let id = |changes: &[(&str, &str)]| event("", changes).event_id;
    let first = id(&[]);
    // A changed id would import every invoice again.
    assert_eq!(first, "ACME:INV-1:bd1d6cecaa17fedc");
    for same in [
        &[("amount", "12.5")][..],
        &[("amount", "\"12.500\"")],
        &[("amount", "125e-1"), ("currency", "\"eur\"")],
        &[("vendor", "\" ACME \""), ("note", "1")],
        &[("due_date", "\"\"")],
        &[("due_date", "null")],
    ] {
        assert_eq!(id(same), first, "{same:?}");
    }
    let others = [
        first,
        id(&[("amount", "12.51")]),
        id(&[("amount", "-12.50")]),
        id(&[("currency", "\"SEK\"")]),
        id(&[("due_date", "\"2026-02-28\"")]),
        id(&[("vendor", "\"Acme\"")]),
        id(&[("invoice_number", "\"INV-2\"")]),
        id(&[("vendor", "\"ACME:INV-1\""), ("invoice_number", "\"1\"")]),
    ];
    for (index, one) in others.iter().enumerate() {
        assert!(!others[..index].contains(one), "{one}");
    }
    let read_item =
        "[sources.inbox.invoice]\nstatus = 'state'\nversion = 'at'\ntransaction_id = 'tx'";
    let id = |state: &str, at: &str, tx: &str| {
        let [state, at, tx] = [state, at, tx].map(|text| format!("{text:?}"));
        event(read_item, &[("state", &state), ("at", &at), ("tx", &tx)]).event_id
    };
    let first = id("open", "2026-01-02T00:00:00Z", "T:1");
    assert!(first.starts_with(r"ACME:INV-1:T\:1:"), "{first}");
    assert_eq!(id("", "2026-01-02T01:00:00+01:00", "T:1"), first);
    for other in [
        id("paid", "2026-01-02T00:00:00Z", "T:1"),
        id("open", "2026-01-03T00:00:00Z", "T:1"),
        id("open", "2026-01-02T00:00:00Z", "T:2"),
    ] {
        assert_ne!(other, first);
    }
}

#[test]
fn import_change_is_a_duplicate_if_configured() {
    let id = |changes: &[(&str, &str)]| event("on_change = 'duplicate'", changes).event_id;
    assert_eq!(id(&[]), "ACME:INV-1");
    assert_eq!(id(&[("amount", "99")]), "ACME:INV-1");
    assert_ne!(id(&[("invoice_number", "2")]), "ACME:INV-1");
}

#[test]
fn import_later_line_has_the_higher_version() {
    let configured = source("");
    let version = |line: u32| {
        let body = json_object(LEAST, &[]);
        item_in(configured.source(), ImportFormat::NdJson, body, line).unwrap().version.unwrap()
    };
    assert!(version(2) < version(3));
    assert!(version(u32::MAX) > version(u32::MAX - 1));
}

#[test]
fn import_decimal_comma_applies_to_csv_only() {
    let configured = source(COMMA);
    let amount = |format: ImportFormat, literal: &str| {
        let body = json_object(LEAST, &[("amount", literal)]);
        let event = item_in(configured.source(), format, body, 1);
        event.map(|event| invoice(COMMA, event).total.amount.to_string()).map_err(|f| f.len())
    };
    for (format, literal, expected) in [
        (ImportFormat::Csv, "\"1.234,56\"", Ok("1234.56")),
        (ImportFormat::Csv, "\"1.234\"", Ok("1234")),
        (ImportFormat::Csv, "\"12.50\"", Err(1)),
        (ImportFormat::Csv, "\"ten\"", Err(1)),
        (ImportFormat::NdJson, "\"12.50\"", Ok("12.50")),
        (ImportFormat::NdJson, "1.234", Ok("1.234")),
        (ImportFormat::Json, "1.234", Ok("1.234")),
        (ImportFormat::NdJson, "\"1.234,56\"", Err(1)),
    ] {
        let read = amount(format, literal);
        assert_eq!(read.as_deref(), expected.as_ref().map(|text| *text), "{format:?} {literal}");
    }
    // The stored body contains the converted amount, in whatever format it is read again.
    let row = json_object(LEAST, &[("amount", "\"1.234,56\"")]);
    let read_item = item_in(configured.source(), ImportFormat::Csv, row, 1).unwrap();
    let json = item_in(source("").source(), ImportFormat::Json, read_item.body.clone(), 1).unwrap();
    assert_eq!(read_item, json);
    // Other invalid fields are reported too.
    let bad = json_object(LEAST, &[("amount", "\"12.50\""), ("currency", "7"), ("vendor", "")]);
    let read_item = item_in(configured.source(), ImportFormat::Csv, bad, 1);
    assert_eq!(faults(read_item), ["vendor", "currency", "amount"]);
    let bad = json_object(LEAST, &[("amount", "\"\"")]);
    assert_eq!(faults(item_in(configured.source(), ImportFormat::Csv, bad, 1)), ["amount"]);
}

#[test]
fn import_upload_is_authenticated_by_headers() {
    let by_header = source("tenant = 'header:X-Company'");
    let source = by_header.source();
    let mut headers: HeaderMap = source.import_headers("acme", BEGUN_AT).into_iter().collect();
    let admitted = |headers: &HeaderMap| {
        // The body is not read.
        let body = "no file".into();
        source.authenticate_upload(&WebhookRequest {
            headers,
            query: "",
            body: &body,
            received_at: BEGUN_AT,
        })
    };
    assert_eq!(admitted(&headers), Ok("env:FIRST".to_owned()));
    let read_item = item_in(source, ImportFormat::NdJson, json_object(LEAST, &[]), 1).unwrap();
    assert_eq!(read_item.tenant, "acme");
    headers.insert("authorization", "Bearer c0ffee01".parse().unwrap());
    assert!(matches!(admitted(&headers), Err(Rejection::InvalidSignature(_))));
    headers.remove("authorization");
    assert!(matches!(admitted(&headers), Err(Rejection::InvalidSignature(_))));
    // Other kinds of sources verify bodies and accept no files.
    let callback = ConfiguredSource::load("callback", "", &["FIRST"], &[]).unwrap();
    let other = callback.source();
    assert!(!other.accepts_imports() && source.accepts_imports());
    let headers: HeaderMap = other.import_headers("", BEGUN_AT).into_iter().collect();
    let request =
        WebhookRequest { headers: &headers, query: "", body: &"{}".into(), received_at: BEGUN_AT };
    assert!(matches!(other.authenticate_upload(&request), Err(Rejection::InvalidSignature(_))));
    assert!(other.import_event(&request, ImportFormat::Csv, 1).is_err());
}

#[test]
fn import_line_of_other_tenant_is_rejected() {
    let allowed =
        ConfiguredSource::load("import", "tenant = '/company'", &["FIRST"], &["acme"]).unwrap();
    let of = |company: &str| {
        let body = json_object(LEAST, &[("company", company)]);
        item_in(allowed.source(), ImportFormat::NdJson, body, 1)
    };
    assert_eq!(of("\"acme\"").unwrap().tenant, "acme");
    assert_eq!(faults(of("\"other\"")), ["/company"]);
    assert_eq!(faults(of("\"\"")), ["/company"]);
}

#[test]
fn import_configured_columns_are_required() {
    let columns =
        |settings: &str| source(settings).source().csv_dialect().unwrap().required_columns.clone();
    assert_eq!(columns(""), ["amount", "currency", "invoice_number", "vendor"]);
    let own = ["/supplier/name", "Fällig", "Invoice no.", "a/b~c", "cents", "changed", "company"];
    assert_eq!(columns(OWN), [&own[..], &["state"]].concat());
    let due = "[sources.inbox.invoice]\ndue_on = 'due_date'\nvendor = 'const:ACME'";
    assert_eq!(columns(due), ["amount", "currency", "due_date", "invoice_number"]);
    assert_eq!(source(COMMA).source().csv_dialect().unwrap().delimiter, b';');
}

#[test]
fn import_single_invoice_is_accepted() {
    let posted = source("");
    let body = json_object(LEAST, &[]).into();
    let Ok(Received::Events { events, .. }) = posted.receive(&body) else {
        panic!("must be accepted");
    };
    let in_file = event("", &[]);
    assert_eq!(events, [Event { version: None, ..in_file }]);
    let refused = posted.receive(&json_object(LEAST, &[("amount", ""), ("vendor", "")]).into());
    let Err(Rejection::InvalidFields(failures)) = refused else { panic!("must be refused") };
    assert_eq!(faults(Err(failures)), ["vendor", "amount"]);
}

#[test]
fn import_invalid_settings_name_the_key() {
    for (settings, tenants, key) in [
        ("authentication = 'hmac'", &[][..], "inbox.authentication"),
        ("[sources.inbox.invoice]\ncurrency = 'const:EURO'", &[], "inbox.invoice.currency"),
        ("[sources.inbox.invoice]\nstatuses = { X = 'payed' }", &[], "inbox.invoice.statuses.X"),
        ("[sources.inbox.invoice]\namount = 'const:1'", &[], "const:1"),
        ("[sources.inbox.invoice]\namount = ' '", &[], "sources.inbox"),
        ("[sources.inbox.invoice]\nvendor = 'header:X'", &[], "header:X"),
        ("[sources.inbox.invoice]\namuont = 'amount'", &[], "amuont"),
        ("[sources.inbox.signature]\nheader = 'X'", &[], "signature"),
        ("[sources.inbox.csv]\ndelimiter = ''", &[], "inbox.csv.delimiter"),
        ("[sources.inbox.csv]\ndelimiter = ',,'", &[], "inbox.csv.delimiter"),
        ("[sources.inbox.csv]\ndelimiter = 'ü'", &[], "inbox.csv.delimiter"),
        ("[sources.inbox.csv]\ndelimiter = '\"'", &[], "inbox.csv.delimiter"),
        ("[sources.inbox.csv]\nquote = \"'\"", &[], "quote"),
        ("on_conflict = 'ignore'", &[], "sources.inbox"),
        ("on_change = 'review'", &[], "sources.inbox"),
        ("", &["acme"], "inbox.tenant"),
    ] {
        let loaded = ConfiguredSource::load("import", settings, &["FIRST"], tenants);
        let error = loaded.err().unwrap_or_default();
        assert!(error.contains(key), "{settings} must name {key}, says {error:?}");
    }
    let rules = source("on_conflict = 'duplicate'").source().conflict_policy();
    assert_eq!(rules.invoice_conflict, InvoiceConflict::Duplicate);
    assert_eq!(source("").source().conflict_policy().invoice_conflict, InvoiceConflict::Review);
}
