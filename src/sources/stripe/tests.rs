//! Stripe's signatures and the mapping of its events.

mod mapping;
mod signature;

use bytes::Bytes;
use http::HeaderMap;
use time::{Duration as Span, macros::datetime};

use super::{objects::stripe_minor_digits, *};
use crate::{
    app::Components,
    domain::{
        Change, Invoice, InvoiceStatus, Order, OrderStatus, OrderUpdate, ReasonCode, Refund,
        RefundStatus, RefundTarget,
    },
    sources::{
        Received, Source,
        conformance::{envelope, json_object},
    },
};

/// A signature and body from the tests of async-stripe, created by Stripe's own library.
/// `v0` must be ignored.
const SIGNED: &str = "t=1533204620,v1=d7373bc68f4bd320b253cd7461f87af6e1cdf1b4d7db1614d8d1d746972d2d0a,v0=63f3a72374a733066c4be69ed7f8e5ac85c22c9f0a6a612ab9a025a9e4ee7eef";
const ITEM: &str = r#"{"account":"acct_123","api_version":"2017-05-25","created":1533204620,"data":{"object":{"amount":1000,"currency":"usd","customer":"cus_123","date":1533204620,"description":"Test Invoice Item","discountable":false,"id":"ii_123","invoice":"in_123","livemode":false,"metadata":{},"object":"invoiceitem","period":{"end":1533204620,"start":1533204620},"proration":false,"quantity":3,"quantity_decimal":"0"}},"id":"evt_123","livemode":false,"object":"event","pending_webhooks":1,"request":{"id":"req_123","idempotency_key":"idempotency-key-123"},"type":"invoiceitem.created"}"#;
const AT: OffsetDateTime = datetime!(2018-08-02 10:10:20 UTC);

fn stripe() -> Stripe {
    Stripe::new(&StripeSettings::default()).unwrap()
}

fn source(secrets: &[&str]) -> Source {
    let secret = |text: &&str| Secret::new(*text, stripe().parse_key(text).unwrap()).unwrap();
    Source::new(Box::new(stripe()), secrets.iter().map(secret).collect(), Vec::new())
}

fn receive(
    source: &Source,
    header: &str,
    received_at: OffsetDateTime,
) -> Result<Received, Rejection> {
    let headers = HeaderMap::from_iter([(
        HeaderName::from_static(SIGNATURE_HEADER),
        HeaderValue::from_str(header).unwrap(),
    )]);
    let body = Bytes::from_static(ITEM.as_bytes());
    source.receive(&WebhookRequest { headers: &headers, query: "", body: &body, received_at })
}
