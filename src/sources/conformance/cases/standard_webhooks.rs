//! Standard Webhooks, and two platforms that sign by it.

use super::super::Secrets;
use crate::sources::conformance::case::{
    Case, Credential,
    Variation::{Body, EventId, Header},
    split_after,
};

/// 24 bytes each.
const SHARED: Secrets = [
    ("FIRST", "whsec_YzBmZmVlMDBjMGZmZWUwMGMwZmZlZTAw"),
    ("SECOND", "whsec_ZGVhZGJlZWZkZWFkYmVlZmRlYWRiZWVm"),
    ("STRANGE", "whsec_MGJhZGYwMGQwYmFkZjAwZDBiYWRmMDBk"),
    ("EMPTY", ""),
];

/// 32 bytes each.
const SEEDS: Secrets = [
    ("FIRST", "whsk_YzBmZmVlMDBjMGZmZWUwMGMwZmZlZTAwMTIzNDU2Nzg="),
    ("SECOND", "whsk_ZGVhZGJlZWZkZWFkYmVlZmRlYWRiZWVmMTIzNDU2Nzg="),
    ("STRANGE", "whsk_MGJhZGYwMGQwYmFkZjAwZDBiYWRmMDBkMTIzNDU2Nzg="),
    ("EMPTY", ""),
];

const SETTINGS: &str = r#"
    [sources.inbox.event]
    tenant = "/company"
    [sources.inbox.invoice]
    topics = ["invoice.*"]
    invoice_number = "/data/number"
    currency = "/data/currency"
    total = "/data/total"
"#;

const PROOF: Credential = Credential {
    header: "webhook-signature",
    token: |value| split_after(",", value),
    rejected: &[
        ("of an unknown version", |value| value.replace("v1", "v2")),
        ("of no version", |value| split_after(",", value)[1].to_owned()),
        ("its version in upper case", |value| value.replace("v1", "V1")),
    ],
    accepted: &[
        ("beside an unknown version", |value| format!("{value} v2,AAAA")),
        ("after malformed ones", |value| format!("v1,* v1a,* nonsense {value}")),
    ],
    join: Some(|first, second| format!("{first} {second}")),
    required_headers: &["webhook-id", "webhook-timestamp"],
    signed_headers: &[
        Header("webhook-id", "evt-2"),
        Header("webhook-timestamp", "1767323046"),
        Header("webhook-timestamp", "+1767323045"),
        Header("webhook-timestamp", "now"),
    ],
    tolerance_s: Some(300),
    ..Credential::HMAC
};

const MAPPED: Case = Case {
    name: "standard_webhooks",
    kind: "standard_webhooks",
    settings: SETTINGS,
    secrets: &SHARED,
    malformed_secrets: &["whsec_c0ffee00", "whsec_********************************", "whsec_", "whsk_c0ffee00", "whpk_c0ffee00"],
    credential: Credential {
        // (printf '%s.%s.' evt-1 1767323045; cat body) | openssl dgst -sha256 -mac HMAC
        //     -macopt hexkey:...
        known_value: "v1,isM4hSSDHQejHv1QEyBIcdJ38ceJitUnh6gUGOWShbA=",
        ..PROOF
    },
    topic: "invoice.paid",
    tenant: "ACME",
    allowed: &["ACME"],
    foreign: &["acme", "ACME2", ""],
    other_tenant: Some(Body(
        br#"{"type":"invoice.paid","timestamp":"2026-01-02T03:04:00Z","company":"acme","data":{"number":"F-1","currency":"EUR","total":"10.00"}}"#,
    )),
    body: br#"{"type":"invoice.paid","timestamp":"2026-01-02T03:04:00Z","company":"ACME","data":{"number":"F-1","currency":"EUR","total":"10.00"}}"#,
    unmappable_body: Some(
        br#"{"type":"invoice.paid","timestamp":"2026-01-02T03:04:00Z","company":"ACME","data":{"number":"F-1","currency":"EUR"}}"#,
    ),
    business_key: "F-1",
    redelivered: &[
        Header("x-attempt", "2"),
        // The signed id is the event's, whatever the body.
        Body(
            br#"{"type":"invoice.paid","timestamp":"2026-01-02T03:04:09Z","company":"ACME","data":{"number":"F-1","currency":"EUR","total":"10.00"}}"#,
        ),
        // Another family of headers beside it, which is not signed.
        Header("svix-id", "evt-2"),
    ],
    different_event: &[EventId("evt-2")],
    ..Case::DEFAULT
};

pub(super) const CASES: &[Case] = &[
    MAPPED,
    Case {
        name: "standard_webhooks, by ed25519",
        secrets: &SEEDS,
        malformed_secrets: &["whsk_", "whsk_c0ffee00"],
        credential: Credential {
            // Python's cryptography: Ed25519PrivateKey.from_private_bytes(seed).sign(...)
            known_value: "v1a,TxiAuKiuPHaWAinT13xyyfy93OIwKYgQ0jBDG07li1sL9PChAyA5czfxJooM0LYE9NPCJ90/zcYykt2fd1OjBQ==",
            ..PROOF
        },
        ..MAPPED
    },
    Case {
        name: "standard_webhooks, bigcommerce",
        settings: r#"profile = "bigcommerce""#,
        // The text is the key.
        secrets: &super::super::SECRETS,
        malformed_secrets: &[],
        credential: Credential { known_value: "v1,RuQzSu6qLFQ/RSkdl6t9yMMm2YIvPw+SniV8k0dOPjc=", ..PROOF },
        topic: "store/order/updated",
        tenant: "stores/abc1",
        allowed: &["stores/abc1"],
        foreign: &["abc1", "stores/ABC1", "stores/abc", ""],
        other_tenant: Some(Body(
            br#"{"scope":"store/order/updated","store_id":"1","data":{"type":"order","id":173331},"hash":"h","created_at":1767323000,"producer":"stores/abc2"}"#,
        )),
        body: br#"{"scope":"store/order/updated","store_id":"1","data":{"type":"order","id":173331},"hash":"h","created_at":1767323000,"producer":"stores/abc1"}"#,
        unmappable_body: Some(
            br#"{"scope":"store/order/updated","store_id":"1","data":{"type":"order","id":173331},"hash":"h","created_at":"soon","producer":"stores/abc1"}"#,
        ),
        business_key: "173331",
        redelivered: &[
            Body(
                br#"{"scope":"store/order/updated","store_id":"1","data":{"type":"order","id":173331},"hash":"g","created_at":1767323000,"producer":"stores/abc1"}"#,
            ),
        ],
        redelivers_identical_body: false,
        ..MAPPED
    },
    Case {
        name: "standard_webhooks, etsy",
        settings: r#"profile = "etsy""#,
        credential: Credential {
            known_value: "v1,WrEBlwB2WuJqyx0zuCLvWl+y9KxezayKopwsEHAWxnc=",
            // Early documentation leaves the version out.
            rejected: &[("of an unknown version", |value| value.replace("v1", "v2"))],
            accepted: &[("of no version", |value| split_after(",", value)[1].to_owned())],
            ..PROOF
        },
        topic: "order.paid",
        tenant: "4711",
        allowed: &["4711"],
        foreign: &["471", "47110", ""],
        other_tenant: Some(Body(
            br#"{"event_type":"order.paid","resource_url":"https://api.example/v3/application/shops/4712/receipts/99","shop_id":4712}"#,
        )),
        same_tenant: &[Body(
            br#"{"event_type":"order.paid","resource_url":"https://api.example/v3/application/shops/4711/receipts/99","shop_id":"4711"}"#,
        )],
        body: br#"{"event_type":"order.paid","resource_url":"https://api.example/v3/application/shops/4711/receipts/99","shop_id":4711}"#,
        unmappable_body: None,
        business_key: "99",
        redelivered: &[Header("x-attempt", "2")],
        redelivers_identical_body: false,
        ..MAPPED
    },
];
