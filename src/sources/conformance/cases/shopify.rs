//! Shopify.

use crate::sources::conformance::case::{
    Case, Credential,
    Variation::{EventId, Header, Tenant, Topic},
};

pub(super) const CASES: &[Case] = &[Case {
    name: "shopify",
    kind: "shopify",
    credential: Credential {
        header: "X-Shopify-Hmac-SHA256",
        // openssl dgst -sha256 -hmac c0ffee00
        known_value: "XXx2aq+0U28HCfhyXQe3O6JK7rKk50hKr5Px/Tm6V7Y=",
        ..Credential::HMAC
    },
    topic: "orders/updated",
    tenant: "demo.myshopify.com",
    allowed: &["demo.myshopify.com", "Demo.MyShopify.com", "demo.myshopify.com/"],
    foreign: &["myshopify.com", "demo.myshopify.com.example", "*", ""],
    same_tenant: &[
        Tenant("DEMO.myshopify.com"),
        Header("shopify-shop-domain", "demo.myshopify.com"),
    ],
    other_tenant: Some(Tenant("other.myshopify.com")),
    body: br##"{"id":1,"name":"#1001","currency":"EUR","total_price":"10.00"}"##,
    unmappable_body: Some(br##"{"id":1,"name":"#1001","currency":"EUR"}"##),
    business_key: "#1001",
    redelivered: &[
        Header("x-shopify-event-id", "another attempt"),
        Header("x-shopify-triggered-at", "2026-01-02T03:04:09Z"),
        Header("x-shopify-webhook-id", "evt-1"),
        Header("shopify-webhook-id", "evt-1"),
    ],
    // Shared by topics, so that the topic must be part of the id.
    different_event: &[EventId("evt-2"), Topic("orders/paid"), Header("x-shopify-test", "true")],
    ..Case::DEFAULT
}];
