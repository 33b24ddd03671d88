//! Square.

use super::super::kind::{
    Delta::{Body, Header},
    Kind, Proof,
};

const INVOICE: Kind = Kind {
    name: "square",
    word: "square",
    settings: r#"url = "https://hooks.example/hooks/square?a=1""#,
    proof: Proof {
        header: "x-square-hmacsha256-signature",
        // (printf %s "$url"; cat body) | openssl dgst -sha256 -hmac c0ffee00
        known: "Jgk5AhRGczb0eEwI5u+u5jfCgDJF+46cEA0EcqWpa/w=",
        strangers: &[
            r#"url = "https://hooks.example/hooks/square?a=2""#,
            r#"url = "https://hooks.example/hooks/square""#,
            r#"url = "https://hooks.example/hooks/square?a=1/""#,
            r#"url = "http://hooks.example/hooks/square?a=1""#,
            r#"url = "https://hooks.example:443/hooks/square?a=1""#,
        ],
        ..Proof::HMAC
    },
    topic: "invoice.published",
    tenant: "MLEFBHHSJGVHD",
    allowed: &["MLEFBHHSJGVHD"],
    foreign: &["mlefbhhsjgvhd", "MLEFBHHSJGVH", ""],
    elsewhere: Some(Body(
        br#"{"merchant_id":"ML2","type":"invoice.published","event_id":"e-1","created_at":"2026-01-02T03:04:00Z","data":{"type":"invoice","id":"inv:1","object":{"invoice":{"id":"inv:1","version":2,"invoice_number":"F-1","status":"UNPAID","updated_at":"2026-01-02T03:04:00Z","payment_requests":[{"due_date":"2026-02-01","computed_amount_money":{"amount":1000,"currency":"EUR"}}]}}}}"#,
    )),
    body: br#"{"merchant_id":"MLEFBHHSJGVHD","type":"invoice.published","event_id":"e-1","created_at":"2026-01-02T03:04:00Z","data":{"type":"invoice","id":"inv:1","object":{"invoice":{"id":"inv:1","version":2,"invoice_number":"F-1","status":"UNPAID","updated_at":"2026-01-02T03:04:00Z","payment_requests":[{"due_date":"2026-02-01","computed_amount_money":{"amount":1000,"currency":"EUR"}}]}}}}"#,
    unmappable: Some(
        br#"{"merchant_id":"MLEFBHHSJGVHD","type":"invoice.published","event_id":"e-1","created_at":"2026-01-02T03:04:00Z","data":{"type":"invoice","id":"inv:1","object":{"invoice":{"id":"inv:1","version":2,"invoice_number":"F-1","status":"UNPAID","updated_at":"2026-01-02T03:04:00Z","payment_requests":[]}}}}"#,
    ),
    number: "F-1",
    redelivered: &[
        Header("square-retry-number", "1"),
        Header("square-retry-reason", "http_timeout"),
        Header("square-initial-delivery-timestamp", "2026-01-02T03:04:09Z"),
        Header("x-square-signature", "the older one"),
        Body(
            br#"{"event_id":"e-1","merchant_id":"MLEFBHHSJGVHD","type":"invoice.published","created_at":"2026-01-02T03:04:00Z","data":{"type":"invoice","id":"inv:1","object":{"invoice":{"id":"inv:1"}}}}"#,
        ),
    ],
    another: &[Body(
        br#"{"merchant_id":"MLEFBHHSJGVHD","type":"invoice.published","event_id":"e-2","created_at":"2026-01-02T03:04:00Z","data":{"type":"invoice","id":"inv:1","object":{"invoice":{"id":"inv:1"}}}}"#,
    )],
    repeats_same_bytes: false,
    ..Kind::PLAIN
};

pub(super) const ROWS: &[Kind] = &[
    INVOICE,
    Kind {
        name: "square, an order",
        proof: Proof { known: "SUAeWPmYnx/NdlcOo2fsALOBsZliJCGOvL7q1jztzzE=", ..INVOICE.proof },
        topic: "order.updated",
        elsewhere: Some(Body(
            br#"{"merchant_id":"ML2","type":"order.updated","event_id":"e-1","data":{"type":"order_updated","id":"o-1","object":{"order_updated":{"order_id":"o-1","version":3,"state":"OPEN","updated_at":"2026-01-02T03:04:00Z"}}}}"#,
        )),
        body: br#"{"merchant_id":"MLEFBHHSJGVHD","type":"order.updated","event_id":"e-1","data":{"type":"order_updated","id":"o-1","object":{"order_updated":{"order_id":"o-1","version":3,"state":"OPEN","updated_at":"2026-01-02T03:04:00Z"}}}}"#,
        unmappable: Some(
            br#"{"merchant_id":"MLEFBHHSJGVHD","type":"order.updated","event_id":"e-1","data":{"type":"order_updated","id":"o-1","object":{"order_updated":{"order_id":"o-1","version":"three","state":"OPEN"}}}}"#,
        ),
        number: "o-1",
        redelivered: &[Header("square-retry-number", "1")],
        another: &[Body(
            br#"{"merchant_id":"MLEFBHHSJGVHD","type":"order.updated","event_id":"e-2","data":{"type":"order_updated","id":"o-1","object":{"order_updated":{"order_id":"o-1","version":3,"state":"OPEN","updated_at":"2026-01-02T03:04:00Z"}}}}"#,
        )],
        ..INVOICE
    },
];
