//! Generic, by settings alone.

use super::callback::{BASIC, BEARER, USERS};
use crate::sources::conformance::case::{
    Case, Credential,
    Variation::{Body, EventId, Header, Tenant},
    split_after,
};

/// Settings of the fields, after these settings of the authentication.
macro_rules! by_pointers {
    ($signed:literal) => {
        concat!(
            $signed,
            r#"
            [sources.inbox.event]
            id = "/event_id"
            topic = "/type"
            tenant = "/company"
            [sources.inbox.order]
            topics = ["order.*"]
            id = "/order/id"
            number = "/order/number"
            currency = "/order/currency"
            total = "/order/total"
            [sources.inbox.invoice]
            topics = ["invoice.*"]
            invoice_number = "/invoice/number"
            currency = "/invoice/currency"
            total = "/invoice/total"
            "#
        )
    };
}

const POINTERS: Case = Case {
    name: "generic, by pointers",
    kind: "generic",
    settings: by_pointers!(
        r#"
        [sources.inbox.signature]
        prefix = "sha256="
        "#
    ),
    credential: Credential {
        header: "X-Signature",
        // openssl dgst -sha256 -hmac c0ffee00
        known_value: "sha256=e5c77076e739ddc9b5ec00756d6dbc3d5c265e7da2ab2bebbe81fa9b49d1ce43",
        token: |value| split_after("sha256=", value),
        tolerated: &["in upper case"],
        ..Credential::HMAC
    },
    topic: "order.paid",
    tenant: "ACME",
    allowed: &["ACME"],
    // A company's id is a text like any other: its case counts.
    foreign: &["acme", "ACME2", ""],
    other_tenant: Some(Body(
        br#"{"event_id":"e1","type":"order.paid","company":"acme","order":{"id":1,"number":"A-1","currency":"EUR","total":10.00}}"#,
    )),
    body: br#"{"event_id":"e1","type":"order.paid","company":"ACME","order":{"id":1,"number":"A-1","currency":"EUR","total":10.00}}"#,
    unmappable_body: Some(br#"{"event_id":"e1","type":"order.paid","company":"ACME","order":{"id":1,"number":"A-1","currency":"EUR"}}"#),
    business_key: "A-1",
    redelivered: &[
        Header("x-attempt", "2"),
        Body(
            br#"{"event_id":"e1","type":"order.paid","company":"ACME","order":{"id":1,"number":"A-1","currency":"EUR","total":11.00}}"#,
        ),
    ],
    different_event: &[Body(
        br#"{"event_id":"e2","type":"order.paid","company":"ACME","order":{"id":1,"number":"A-1","currency":"EUR","total":10.00}}"#,
    )],
    ..Case::DEFAULT
};

/// A signature beside which an id, a time and an address are signed.
const SIGNED_BESIDE: Credential = Credential {
    header: "X-Signatures",
    // (printf 'evt-1.1767323045000.%s.' "$url"; cat body) | openssl dgst -sha256 -hmac c0ffee00
    known_value: "v1,gox5AqXawiqptCjPULI1YJPIdZ1perbgv3PBr/OH7gQ=",
    token: |value| split_after("v1,", value),
    rejected: &[
        ("of another version", |value| value.replace("v1,", "v2,")),
        ("of no version", |value| value.replace("v1,", "")),
    ],
    accepted: &[("among others", |value| format!("v1,* {value} v2,AAAA"))],
    join: Some(|first, second| format!("{first} {second}")),
    required_headers: &["X-Id", "X-Time"],
    signed_headers: &[
        Header("X-Id", "evt-2"),
        Header("X-Time", "1767323045001"),
        Header("X-Time", "1767323045"),
        Header("X-Time", "now"),
    ],
    tolerance_s: Some(300),
    foreign_settings: &[by_pointers!(
        r#"
        [sources.inbox.signature]
        header = "X-Signatures"
        prefix = "v1,"
        encoding = "base64"
        list = true
        template = "{id}.{timestamp}.{url}.{body}"
        id = "header:X-Id"
        timestamp = "header:X-Time"
        timestamp_unit = "ms"
        url = "https://hooks.example/hooks/inbox/"
        "#
    )],
    ..Credential::HMAC
};

pub(super) const CASES: &[Case] = &[
    POINTERS,
    Case {
        name: "generic, by headers",
        kind: "generic",
        settings: r#"
            redelivers_identical_body = false
            [sources.inbox.signature]
            header = "X-Sum"
            algorithm = "sha512"
            encoding = "base64"
            key = "hex"
            [sources.inbox.event]
            id = "header:X-Event-Id"
            topic = "header:X-Topic"
            tenant = "header:X-Company"
            [sources.inbox.invoice]
            invoice_number = "/number"
            currency = "const:EUR"
            total = "/total"
        "#,
        credential: Credential {
            header: "X-Sum",
            // openssl dgst -sha512 -mac HMAC -macopt hexkey:c0ffee00
            known_value: "jNQL7W2INGuzhTRIajk4/uIEBe62iQEVdWo+S3z7uD0JzuYlxLvzikUaq6qY3Z3RJIaJ3UVc06XT5/2/Xj8A4g==",
            ..Credential::HMAC
        },
        topic: "invoice",
        tenant: "Müller & Co",
        allowed: &["Müller & Co"],
        foreign: &["müller & co", "Müller & Co/", ""],
        other_tenant: Some(Tenant("ACME")),
        body: br#"{"number":"R/7","total":"10.00"}"#,
        unmappable_body: Some(br#"{"number":"R/7","total":"ten"}"#),
        business_key: "R/7",
        redelivered: &[Header("x-attempt", "2"), Body(br#"{"number":"R/7","total":"11.00"}"#)],
        different_event: &[EventId("evt-2")],
        redelivers_identical_body: false,
        ..Case::DEFAULT
    },
    Case {
        name: "generic, signed with a time",
        settings: by_pointers!(
            r#"
            [sources.inbox.signature]
            header = "X-Signature"
            item = "v1"
            template = "{timestamp}.{body}"
            timestamp = "item:t"
            tolerance_s = 60
            "#
        ),
        credential: Credential {
            header: "X-Signature",
            // (printf '%s.' 1767323045; cat body) | openssl dgst -sha256 -hmac c0ffee00
            known_value: "t=1767323045,v1=6607e754acb2c87ac2aa634e4b27146f49032d5b66b838302a36b90c80a100a8",
            token: |value| split_after("v1=", value),
            // The text after a comma is another item.
            tolerated: &["in upper case", "twice"],
            rejected: &[
                ("another time", |value| value.replace("t=1767323045", "t=1767323046")),
                ("no time", |value| value.replace("t=1767323045,", "")),
                ("a time that is no number", |value| value.replace("t=1767323045", "t=now")),
                ("a wrong time first", |value| format!("t=1767323046,{value}")),
                ("another item alone", |value| value.replace("v1=", "v0=")),
            ],
            accepted: &[
                ("beside another item", |value| format!("{value},v0=00")),
                ("after a malformed one", |value| value.replace("v1=", "v1=*,v1=")),
            ],
            join: Some(|first, second| {
                let [_, token, _] = split_after("v1=", second);
                format!("{first},v1={token}")
            }),
            tolerance_s: Some(60),
            ..Credential::HMAC
        },
        ..POINTERS
    },
    Case {
        name: "generic, signed with an id and an address",
        settings: by_pointers!(
            r#"
            [sources.inbox.signature]
            header = "X-Signatures"
            prefix = "v1,"
            encoding = "base64"
            list = true
            template = "{id}.{timestamp}.{url}.{body}"
            id = "header:X-Id"
            timestamp = "header:X-Time"
            timestamp_unit = "ms"
            url = "https://hooks.example/hooks/inbox"
            "#
        ),
        credential: SIGNED_BESIDE,
        ..POINTERS
    },
    Case {
        name: "generic, by token",
        settings: by_pointers!(r#"authentication = "bearer""#),
        malformed_secrets: &["two words"],
        credential: BEARER,
        ..POINTERS
    },
    Case {
        name: "generic, by password",
        settings: by_pointers!(r#"authentication = "basic""#),
        secrets: &USERS,
        malformed_secrets: &["robot", "robot:"],
        credential: BASIC,
        ..POINTERS
    },
];
