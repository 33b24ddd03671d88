//! Import: one invoice, posted by itself.

use super::callback::{BASIC, BEARER, USERS};
use crate::sources::conformance::case::{
    Case, UnreadableBody,
    Variation::{Body, Header},
};

const FILES: Case = Case {
    name: "import",
    kind: "import",
    // A pointer, as the suite names fields; columns have tests of their own.
    settings: r#"
        tenant = "/company"
        [sources.inbox.invoice]
        currency = "/currency"
    "#,
    malformed_secrets: &["two words"],
    credential: BEARER,
    topic: "invoice",
    tenant: "ACME",
    allowed: &["ACME"],
    foreign: &["acme", "ACME2", ""],
    other_tenant: Some(Body(
        br#"{"vendor":"Smith","invoice_number":"F-1","amount":10.00,"currency":"EUR","due_date":"2026-02-01","company":"acme"}"#,
    )),
    same_tenant: &[Body(
        br#"{"vendor":"Smith","invoice_number":"F-1","amount":10.00,"currency":"EUR","due_date":"2026-02-01","company":" ACME "}"#,
    )],
    body: br#"{"vendor":"Smith","invoice_number":"F-1","amount":10.00,"currency":"EUR","due_date":"2026-02-01","company":"ACME"}"#,
    unmappable_body: Some(
        br#"{"vendor":"Smith","invoice_number":"F-1","amount":10.00,"currency":"EURO","company":"ACME"}"#,
    ),
    business_key: "F-1",
    redelivered: &[
        Header("x-attempt", "2"),
        // Written otherwise, it says the same.
        Body(
            br#"{ "company":"ACME", "currency":"eur", "due_date":"2026-02-01T00:00:00Z", "amount":"10", "invoice_number":" F-1", "vendor": "Smith ", "note":"" }"#,
        ),
    ],
    different_event: &[
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
    redelivers_identical_body: false,
    unreadable: UnreadableBody::Rejected,
    ..Case::DEFAULT
};

pub(super) const CASES: &[Case] = &[
    FILES,
    Case {
        name: "import, by password",
        settings: r#"
            authentication = "basic"
            tenant = "/company"
            [sources.inbox.invoice]
            currency = "/currency"
        "#,
        secrets: &USERS,
        malformed_secrets: &["robot", "robot:"],
        credential: BASIC,
        ..FILES
    },
];
