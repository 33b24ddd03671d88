//! Callback: robots that read the answer.

use super::super::{
    Secrets,
    kind::{
        Delta::{Body, Header},
        Kind, Proof, Unreadable, behind,
    },
};

/// A user and a password, in whose base64 there is padding.
pub(super) const USERS: Secrets = [
    ("FIRST", "robot:c0ffee00"),
    ("SECOND", "robot:deadbeef"),
    ("STRANGE", "robot:0badf00d"),
    ("EMPTY", ""),
];

/// A token that is shown as it is.
pub(super) const BEARER: Proof = Proof {
    header: "Authorization",
    // It is the secret.
    known: "Bearer c0ffee00",
    token: |value| behind("Bearer ", value),
    signs_body: false,
    refuses: &[
        ("of another scheme", |value| value.replace("Bearer", "Basic")),
        ("of no scheme", |value| value.replace("Bearer ", "")),
        ("the scheme written together with it", |value| value.replace(' ', "")),
    ],
    takes: &[("the scheme in lower case", |value| value.replace("Bearer", "bearer"))],
    ..Proof::HMAC
};

/// A user and a password.
pub(super) const BASIC: Proof = Proof {
    // printf robot:c0ffee00 | base64
    known: "Basic cm9ib3Q6YzBmZmVlMDA=",
    token: |value| behind("Basic ", value),
    refuses: &[
        ("of another scheme", |value| value.replace("Basic", "Bearer")),
        ("as it is", |_| "Basic robot:c0ffee00".to_owned()),
        // printf robot: | base64, printf :c0ffee00 | base64
        ("no password", |_| "Basic cm9ib3Q6".to_owned()),
        ("no user", |_| "Basic OmMwZmZlZTAw".to_owned()),
    ],
    takes: &[("the scheme in lower case", |value| value.replace("Basic", "basic"))],
    ..BEARER
};

const ROBOT: Kind = Kind {
    name: "callback",
    word: "callback",
    settings: r#"tenant = "/company""#,
    malformed: &["two words"],
    proof: BEARER,
    topic: "invoice",
    tenant: "ACME",
    allowed: &["ACME"],
    foreign: &["acme", "ACME2", ""],
    elsewhere: Some(Body(
        br#"{"invoiceNumber":"F-1","transactionId":"t-1","amount":10.00,"vendor":"Robots","currency":"EUR","company":"acme"}"#,
    )),
    alike: &[Body(
        br#"{"invoiceNumber":"F-1","transactionId":"t-1","amount":10.00,"vendor":"Robots","currency":"EUR","company":" ACME "}"#,
    )],
    body: br#"{"invoiceNumber":"F-1","transactionId":"t-1","amount":10.00,"vendor":"Robots","currency":"EUR","company":"ACME"}"#,
    unmappable: Some(
        br#"{"invoiceNumber":"F-1","vendor":"Robots","currency":"EURO","company":"ACME"}"#,
    ),
    number: "F-1",
    redelivered: &[
        Header("x-attempt", "2"),
        // Robots write their bodies anew.
        Body(
            br#"{ "vendor": " Robots ", "currency":"EUR","company":"ACME", "invoiceNumber":"F-1 ","transactionId":"t-1","amount":"10.0"}"#,
        ),
        Body(
            br#"{"invoiceNumber":"F-1","transactionId":"t-1","amount":11.00,"vendor":"Robots","currency":"EUR","company":"ACME"}"#,
        ),
    ],
    another: &[
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
    repeats_same_bytes: false,
    unreadable: Unreadable::Refused,
    ..Kind::PLAIN
};

pub(super) const ROWS: &[Kind] = &[
    ROBOT,
    Kind {
        name: "callback, by password",
        settings: r#"
            authentication = "basic"
            tenant = "/company"
        "#,
        secrets: &USERS,
        malformed: &["robot", "robot:"],
        proof: BASIC,
        ..ROBOT
    },
    Kind {
        name: "callback, signed",
        settings: r#"
            authentication = "hmac"
            tenant = "/company"
        "#,
        malformed: &[],
        proof: Proof {
            header: "X-Signature",
            // openssl dgst -sha256 -hmac c0ffee00
            known: "efef5e1e615030ce124dcc0185b3f504f2ca72d7feac481f3b2c40f5729b5311",
            forgives: &["in upper case"],
            ..Proof::HMAC
        },
        ..ROBOT
    },
];
