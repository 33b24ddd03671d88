use time::{OffsetDateTime, macros::datetime};

use super::{super::Books, *};
use crate::{
    domain::{InvoiceStatus, Money, PermanentFailure},
    store::inbox::ProcessedKey,
};

const NEWER: OffsetDateTime = datetime!(2026-02-01 0:00 UTC);
const OLDER: OffsetDateTime = datetime!(2026-01-01 0:00 UTC);

/// A line about invoice `id`, under an event key of its own or another's.
fn told(key: u128, id: u128, transaction: Option<&str>, version: OffsetDateTime) -> ParsedEvent {
    let invoice = Invoice {
        document_id: None,
        status: InvoiceStatus::Open,
        vendor: "ACME".to_owned(),
        invoice_number: id.to_string(),
        transaction_id: transaction.map(str::to_owned),
        platform_status: "open".to_owned(),
        total: Money { amount: "12.50".parse().unwrap(), currency: "EUR".parse().unwrap() },
        due_on: None,
        sequence: 0,
        version,
    };
    ParsedEvent {
        key: Uuid::from_u128(key),
        number: Some(id.to_string()),
        mapped: Ok(Some((Uuid::from_u128(id), Box::new(invoice)))),
    }
}

fn standing(id: u128, transaction: Option<&str>, is_deleted: bool) -> (Uuid, ExistingInvoice) {
    let transaction_id = transaction.map(str::to_owned);
    let version = OLDER + time::Duration::DAY;
    (Uuid::from_u128(id), ExistingInvoice { transaction_id, sequence: 0, version, is_deleted })
}

/// The words for each line, one after the other.
fn words(on_conflict: InvoiceConflict, books: &Books, events: Vec<ParsedEvent>) -> Vec<String> {
    let mut forecast = Forecast::new(on_conflict);
    let lines = events.into_iter().map(|event| forecast.tell(1, Ok(event), books));
    lines.map(|line| line.write_kind.unwrap_or(line.outcome)).collect()
}

#[test]
fn a_line_does_what_it_would_do_behind_the_books_and_the_lines_before() {
    let settled = ProcessedKey { receipt_id: Uuid::nil(), body_digest: Uuid::nil() };
    let books = Books {
        settled: [(Uuid::from_u128(1), settled)].into(),
        invoices: [standing(50, Some("a"), false), standing(60, Some("a"), true)].into(),
    };
    let events = || {
        vec![
            // Known to the database.
            told(1, 10, None, NEWER),
            // New, the same again, and the same invoice told otherwise.
            told(2, 20, Some("a"), NEWER),
            told(2, 20, Some("a"), NEWER),
            told(3, 20, None, NEWER),
            // It still stands with its transaction.
            told(4, 20, Some("b"), NEWER),
            told(4, 20, Some("b"), NEWER),
            // Against the books: newer, older, another transaction.
            told(5, 50, Some("a"), NEWER),
            told(6, 50, Some("a"), OLDER),
            told(7, 50, Some("b"), NEWER),
            // Deleted.
            told(8, 60, Some("a"), NEWER),
        ]
    };
    let review = words(InvoiceConflict::Review, &books, events());
    assert_eq!(
        review,
        [
            "duplicate",
            "created",
            "duplicate",
            "updated",
            "dead",
            "dead",
            "updated",
            "stale",
            "dead",
            "stale"
        ]
    );
    let first_stands = words(InvoiceConflict::Duplicate, &books, events());
    assert_eq!(first_stands[4..6], ["duplicate", "duplicate"]);
    assert_eq!(first_stands[8], "duplicate");
    let later_stands = words(InvoiceConflict::Update, &books, events());
    assert_eq!(later_stands[4..6], ["updated", "duplicate"]);
    assert_eq!(later_stands[8], "updated");
}

#[test]
fn what_is_wrong_is_told_with_its_number() {
    let mut forecast = Forecast::new(InvoiceConflict::Review);
    let books = Books::default();
    let line = forecast.tell(7, Err("amount: is missing or null".to_owned()), &books);
    assert_eq!((line.line, line.outcome.as_str()), (7, "rejected"));
    assert_eq!(line.error.as_deref(), Some("amount: is missing or null"));

    let mapped = Err(PermanentFailure::missing("/amount"));
    let dead = ParsedEvent { mapped, ..told(1, 10, None, NEWER) };
    let line = forecast.tell(8, Ok(dead), &books);
    assert_eq!((line.outcome.as_str(), line.business_key.as_deref()), ("dead", Some("10")));

    let ignored = ParsedEvent { mapped: Ok(None), ..told(1, 10, None, NEWER) };
    assert_eq!(forecast.tell(9, Ok(ignored), &books).outcome, "ignored");

    forecast.tell(10, Ok(told(2, 20, Some("a"), NEWER)), &books);
    let conflict = forecast.tell(11, Ok(told(3, 20, Some("b"), NEWER)), &books);
    let error = conflict.error.unwrap();
    assert!(error.contains("invoice 20 stands with transaction a"), "{error}");
    assert!(error.contains("tells transaction b"), "{error}");
}
