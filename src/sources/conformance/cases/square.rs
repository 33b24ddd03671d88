//! Square.

use crate::sources::conformance::case::{
    Case, Credential,
    Variation::{Body, Header},
};

const INVOICE: Case = Case {
    name: "square",
    kind: "square",
    settings: r#"url = "https://hooks.example/hooks/square?a=1""#,
    credential: Credential {
        header: "x-square-hmacsha256-signature",
        // (printf %s "$url"; cat body) | openssl dgst -sha256 -hmac c0ffee00
        known_value: "Jgk5AhRGczb0eEwI5u+u5jfCgDJF+46cEA0EcqWpa/w=",
        foreign_settings: &[
            r#"url = "https://hooks.example/hooks/square?a=2""#,
            r#"url = "https://hooks.example/hooks/square""#,
            r#"url = "https://hooks.example/hooks/square?a=1/""#,
            r#"url = "http://hooks.example/hooks/square?a=1""#,
            r#"url = "https://hooks.example:443/hooks/square?a=1""#,
        ],
        ..Credential::HMAC
    },
    topic: "invoice.published",
    tenant: "MLEFBHHSJGVHD",
    allowed: &["MLEFBHHSJGVHD"],
    foreign: &["mlefbhhsjgvhd", "MLEFBHHSJGVH", ""],
    other_tenant: Some(Body(
        br#"{"merchant_id":"ML2","type":"invoice.published","event_id":"e-1","created_at":"2026-01-02T03:04:00Z","data":{"type":"invoice","id":"inv:1","object":{"invoice":{"id":"inv:1","version":2,"invoice_number":"F-1","status":"UNPAID","updated_at":"2026-01-02T03:04:00Z","payment_requests":[{"due_date":"2026-02-01","computed_amount_money":{"amount":1000,"currency":"EUR"}}]}}}}"#,
    )),
    body: br#"{"merchant_id":"MLEFBHHSJGVHD","type":"invoice.published","event_id":"e-1","created_at":"2026-01-02T03:04:00Z","data":{"type":"invoice","id":"inv:1","object":{"invoice":{"id":"inv:1","version":2,"invoice_number":"F-1","status":"UNPAID","updated_at":"2026-01-02T03:04:00Z","payment_requests":[{"due_date":"2026-02-01","computed_amount_money":{"amount":1000,"currency":"EUR"}}]}}}}"#,
    unmappable_body: Some(
        br#"{"merchant_id":"MLEFBHHSJGVHD","type":"invoice.published","event_id":"e-1","created_at":"2026-01-02T03:04:00Z","data":{"type":"invoice","id":"inv:1","object":{"invoice":{"id":"inv:1","version":2,"invoice_number":"F-1","status":"UNPAID","updated_at":"2026-01-02T03:04:00Z","payment_requests":[]}}}}"#,
    ),
    business_key: "F-1",
    redelivered: &[
        Header("square-retry-number", "1"),
        Header("square-retry-reason", "http_timeout"),
        Header("square-initial-delivery-timestamp", "2026-01-02T03:04:09Z"),
        Header("x-square-signature", "the older one"),
        Body(
            br#"{"event_id":"e-1","merchant_id":"MLEFBHHSJGVHD","type":"invoice.published","created_at":"2026-01-02T03:04:00Z","data":{"type":"invoice","id":"inv:1","object":{"invoice":{"id":"inv:1"}}}}"#,
        ),
    ],
    different_event: &[Body(
        br#"{"merchant_id":"MLEFBHHSJGVHD","type":"invoice.published","event_id":"e-2","created_at":"2026-01-02T03:04:00Z","data":{"type":"invoice","id":"inv:1","object":{"invoice":{"id":"inv:1"}}}}"#,
    )],
    redelivers_identical_body: false,
    ..Case::DEFAULT
};

pub(super) const CASES: &[Case] = &[
    INVOICE,
    Case {
        name: "square, an order",
        credential: Credential { known_value: "SUAeWPmYnx/NdlcOo2fsALOBsZliJCGOvL7q1jztzzE=", ..INVOICE.credential },
        topic: "order.updated",
        other_tenant: Some(Body(
            br#"{"merchant_id":"ML2","type":"order.updated","event_id":"e-1","data":{"type":"order_updated","id":"o-1","object":{"order_updated":{"order_id":"o-1","version":3,"state":"OPEN","updated_at":"2026-01-02T03:04:00Z"}}}}"#,
        )),
        body: br#"{"merchant_id":"MLEFBHHSJGVHD","type":"order.updated","event_id":"e-1","data":{"type":"order_updated","id":"o-1","object":{"order_updated":{"order_id":"o-1","version":3,"state":"OPEN","updated_at":"2026-01-02T03:04:00Z"}}}}"#,
        unmappable_body: Some(
            br#"{"merchant_id":"MLEFBHHSJGVHD","type":"order.updated","event_id":"e-1","data":{"type":"order_updated","id":"o-1","object":{"order_updated":{"order_id":"o-1","version":"three","state":"OPEN"}}}}"#,
        ),
        business_key: "o-1",
        redelivered: &[Header("square-retry-number", "1")],
        different_event: &[Body(
            br#"{"merchant_id":"MLEFBHHSJGVHD","type":"order.updated","event_id":"e-2","data":{"type":"order_updated","id":"o-1","object":{"order_updated":{"order_id":"o-1","version":3,"state":"OPEN","updated_at":"2026-01-02T03:04:00Z"}}}}"#,
        )],
        ..INVOICE
    },
];
