//! `WooCommerce`.

use crate::sources::conformance::case::{
    Case, Credential,
    Variation::{Body, EventId, Header, Tenant, Topic},
};

pub(super) const CASES: &[Case] = &[Case {
    name: "woocommerce",
    kind: "woocommerce",
    credential: Credential {
        header: "X-WC-Webhook-Signature",
        // openssl dgst -sha256 -hmac c0ffee00
        known_value: "iZAbF29pdqe37Xyz7ihsHK95OuIdUIbrvtMx9ldLgIQ=",
        ..Credential::HMAC
    },
    topic: "order.updated",
    tenant: "https://shop.example",
    allowed: &["https://shop.example", "https://shop.example/", "HTTPS://Shop.Example"],
    foreign: &["https://shop.example.org", "http://shop.example", "shop.example", ""],
    same_tenant: &[
        Tenant("HTTPS://Shop.Example"),
        Header("x-wc-webhook-source", "https://shop.example"),
    ],
    other_tenant: Some(Tenant("https://other.example")),
    body: br#"{"id":7,"number":"1007","status":"pending","currency":"EUR","total":"10.00"}"#,
    unmappable_body: Some(br#"{"id":7,"number":"1007","status":"pending","currency":"EUR"}"#),
    business_key: "1007",
    // The delivery id is new on each attempt and may collide.
    redelivered: &[
        Header("x-wc-webhook-delivery-id", "another attempt"),
        Header("x-wc-webhook-id", "2"),
        EventId("evt-2"),
    ],
    different_event: &[
        Topic("order.created"),
        Body(br#"{"id":7,"number":"1007","status":"pending","currency":"EUR","total":"11.00"}"#),
    ],
    redelivers_identical_body: false,
    ..Case::DEFAULT
}];
