//! `WooCommerce`.

use super::super::kind::{
    Delta::{Body, EventId, Header, Tenant, Topic},
    Kind, Proof,
};

pub(super) const ROWS: &[Kind] = &[Kind {
    name: "woocommerce",
    word: "woocommerce",
    proof: Proof {
        header: "X-WC-Webhook-Signature",
        // openssl dgst -sha256 -hmac c0ffee00
        known: "iZAbF29pdqe37Xyz7ihsHK95OuIdUIbrvtMx9ldLgIQ=",
        ..Proof::HMAC
    },
    topic: "order.updated",
    tenant: "https://shop.example",
    allowed: &["https://shop.example", "https://shop.example/", "HTTPS://Shop.Example"],
    foreign: &["https://shop.example.org", "http://shop.example", "shop.example", ""],
    alike: &[Tenant("HTTPS://Shop.Example"), Header("x-wc-webhook-source", "https://shop.example")],
    elsewhere: Some(Tenant("https://other.example")),
    body: br#"{"id":7,"number":"1007","status":"pending","currency":"EUR","total":"10.00"}"#,
    unmappable: Some(br#"{"id":7,"number":"1007","status":"pending","currency":"EUR"}"#),
    number: "1007",
    // The delivery id is new on each attempt and may collide.
    redelivered: &[
        Header("x-wc-webhook-delivery-id", "another attempt"),
        Header("x-wc-webhook-id", "2"),
        EventId("evt-2"),
    ],
    another: &[
        Topic("order.created"),
        Body(br#"{"id":7,"number":"1007","status":"pending","currency":"EUR","total":"11.00"}"#),
    ],
    repeats_same_bytes: false,
    ..Kind::PLAIN
}];
