//! Callback: clients that read the response.

use super::super::Secrets;
use crate::sources::conformance::case::{
    Case, Credential, UnreadableBody,
    Variation::{Body, Header},
    split_after,
};

/// A user and a password, in whose base64 there is padding.
pub(super) const USERS: Secrets = [
    ("FIRST", "robot:c0ffee00"),
    ("SECOND", "robot:deadbeef"),
    ("STRANGE", "robot:0badf00d"),
    ("EMPTY", ""),
];

/// A token that is shown as it is.
pub(super) const BEARER: Credential = Credential {
    header: "Authorization",
    // It is the secret.
    known_value: "Bearer c0ffee00",
    token: |value| split_after("Bearer ", value),
    signs_body: false,
    rejected: &[
        ("of another scheme", |value| value.replace("Bearer", "Basic")),
        ("of no scheme", |value| value.replace("Bearer ", "")),
        ("the scheme without a space", |value| value.replace(' ', "")),
    ],
    accepted: &[("the scheme in lower case", |value| value.replace("Bearer", "bearer"))],
    ..Credential::HMAC
};

/// A user and a password.
pub(super) const BASIC: Credential = Credential {
    // printf robot:c0ffee00 | base64
    known_value: "Basic cm9ib3Q6YzBmZmVlMDA=",
    token: |value| split_after("Basic ", value),
    rejected: &[
        ("of another scheme", |value| value.replace("Basic", "Bearer")),
        ("not encoded", |_| "Basic robot:c0ffee00".to_owned()),
        // printf robot: | base64, printf :c0ffee00 | base64
        ("no password", |_| "Basic cm9ib3Q6".to_owned()),
        ("no user", |_| "Basic OmMwZmZlZTAw".to_owned()),
    ],
    accepted: &[("the scheme in lower case", |value| value.replace("Basic", "basic"))],
    ..BEARER
};

const ROBOT: Case = Case {
    name: "callback",
    kind: "callback",
    settings: r#"tenant = "/company""#,
    malformed_secrets: &["two words"],
    credential: BEARER,
    topic: "invoice",
    tenant: "ACME",
    allowed: &["ACME"],
    foreign: &["acme", "ACME2", ""],
    other_tenant: Some(Body(
        br#"{"invoiceNumber":"F-1","transactionId":"t-1","amount":10.00,"vendor":"Robots","currency":"EUR","company":"acme"}"#,
    )),
    same_tenant: &[Body(
        br#"{"invoiceNumber":"F-1","transactionId":"t-1","amount":10.00,"vendor":"Robots","currency":"EUR","company":" ACME "}"#,
    )],
    body: br#"{"invoiceNumber":"F-1","transactionId":"t-1","amount":10.00,"vendor":"Robots","currency":"EUR","company":"ACME"}"#,
    unmappable_body: Some(
        br#"{"invoiceNumber":"F-1","vendor":"Robots","currency":"EURO","company":"ACME"}"#,
    ),
    business_key: "F-1",
    redelivered: &[
        Header("x-attempt", "2"),
        // Robots serialize the body again for each request.
        Body(
            br#"{ "vendor": " Robots ", "currency":"EUR","company":"ACME", "invoiceNumber":"F-1 ","transactionId":"t-1","amount":"10.0"}"#,
        ),
        Body(
            br#"{"invoiceNumber":"F-1","transactionId":"t-1","amount":11.00,"vendor":"Robots","currency":"EUR","company":"ACME"}"#,
        ),
    ],
    different_event: &[
        Body(
            br#"{"invoiceNumber":"F-2","transactionId":"t-1","amount":10.00,"vendor":"Robots","currency":"EUR","company":"ACME"}"#,
        ),
        Body(
            br#"{"invoiceNumber":"F-1","transactionId":"t-2","amount":10.00,"vendor":"Robots","currency":"EUR","company":"ACME"}"#,
        ),
        Body(
            br#"{"invoiceNumber":"F-1","transactionId":"t-1","amount":10.00,"vendor":"robots","currency":"EUR","company":"ACME"}"#,
        ),
    ],
    redelivers_identical_body: false,
    unreadable: UnreadableBody::Rejected,
    ..Case::DEFAULT
};

pub(super) const CASES: &[Case] = &[
    ROBOT,
    Case {
        name: "callback, by password",
        settings: r#"
            authentication = "basic"
            tenant = "/company"
        "#,
        secrets: &USERS,
        malformed_secrets: &["robot", "robot:"],
        credential: BASIC,
        ..ROBOT
    },
    Case {
        name: "callback, signed",
        settings: r#"
            authentication = "hmac"
            tenant = "/company"
        "#,
        malformed_secrets: &[],
        credential: Credential {
            header: "X-Signature",
            // openssl dgst -sha256 -hmac c0ffee00
            known_value: "efef5e1e615030ce124dcc0185b3f504f2ca72d7feac481f3b2c40f5729b5311",
            tolerated: &["in upper case"],
            ..Credential::HMAC
        },
        ..ROBOT
    },
];
