//! Import: one invoice, posted by itself.

use super::{
    super::kind::{
        Delta::{Body, Header},
        Kind, Unreadable,
    },
    callback::{BASIC, BEARER, USERS},
};

const FILES: Kind = Kind {
    name: "import",
    word: "import",
    // A pointer, as the suite names fields; columns have tests of their own.
    settings: r#"
        tenant = "/company"
        [sources.inbox.invoice]
        currency = "/currency"
    "#,
    malformed: &["two words"],
    proof: BEARER,
    topic: "invoice",
    tenant: "ACME",
    allowed: &["ACME"],
    foreign: &["acme", "ACME2", ""],
    elsewhere: Some(Body(
        br#"{"vendor":"Smith","invoice_number":"F-1","amount":10.00,"currency":"EUR","due_date":"2026-02-01","company":"acme"}"#,
    )),
    alike: &[Body(
        br#"{"vendor":"Smith","invoice_number":"F-1","amount":10.00,"currency":"EUR","due_date":"2026-02-01","company":" ACME "}"#,
    )],
    body: br#"{"vendor":"Smith","invoice_number":"F-1","amount":10.00,"currency":"EUR","due_date":"2026-02-01","company":"ACME"}"#,
    unmappable: Some(
        br#"{"vendor":"Smith","invoice_number":"F-1","amount":10.00,"currency":"EURO","company":"ACME"}"#,
    ),
    number: "F-1",
    redelivered: &[
        Header("x-attempt", "2"),
        // Written otherwise, it says the same.
        Body(
            br#"{ "company":"ACME", "currency":"eur", "due_date":"2026-02-01T00:00:00Z", "amount":"10", "invoice_number":" F-1", "vendor": "Smith ", "note":"" }"#,
        ),
    ],
    another: &[
        Body(
            br#"{"vendor":"Jones","invoice_number":"F-1","amount":10.00,"currency":"EUR","due_date":"2026-02-01","company":"ACME"}"#,
        ),
        Body(
            br#"{"vendor":"Smith","invoice_number":"F-2","amount":10.00,"currency":"EUR","due_date":"2026-02-01","company":"ACME"}"#,
        ),
        Body(
            br#"{"vendor":"Smith","invoice_number":"F-1","amount":10.01,"currency":"EUR","due_date":"2026-02-01","company":"ACME"}"#,
        ),
        Body(
            br#"{"vendor":"Smith","invoice_number":"F-1","amount":10.00,"currency":"SEK","due_date":"2026-02-01","company":"ACME"}"#,
        ),
        Body(
            br#"{"vendor":"Smith","invoice_number":"F-1","amount":10.00,"currency":"EUR","company":"ACME"}"#,
        ),
    ],
    repeats_same_bytes: false,
    unreadable: Unreadable::Refused,
    ..Kind::PLAIN
};

pub(super) const ROWS: &[Kind] = &[
    FILES,
    Kind {
        name: "import, by password",
        settings: r#"
            authentication = "basic"
            tenant = "/company"
            [sources.inbox.invoice]
            currency = "/currency"
        "#,
        secrets: &USERS,
        malformed: &["robot", "robot:"],
        proof: BASIC,
        ..FILES
    },
];
