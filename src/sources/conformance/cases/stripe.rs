//! Stripe.

use crate::sources::{
    conformance::case::{Case, Credential, Variation::Body, split_after},
    signature::MAX_SIGNATURES,
};

pub(super) const CASES: &[Case] = &[Case {
    name: "stripe",
    kind: "stripe",
    credential: Credential {
        header: "Stripe-Signature",
        // (printf '%s.' 1767323045; cat body) | openssl dgst -sha256 -hmac c0ffee00
        known_value: "t=1767323045,v1=2c39fdefae30963842890d97255c143310737a56471d0b4561f8710c0d7e26ab",
        token: |value| split_after("v1=", value),
        // The text after a comma is another item.
        tolerated: &["in upper case", "twice"],
        rejected: &[
            ("another time", |value| value.replace("t=1767323045", "t=1767323046")),
            ("the same time with a sign", |value| value.replace("t=", "t=+")),
            ("the same time with a leading zero", |value| value.replace("t=", "t=0")),
            ("no time", |value| value.replace("t=1767323045,", "")),
            ("an empty time", |value| value.replace("t=1767323045", "t=")),
            ("a time that is not a number", |value| value.replace("t=1767323045", "t=now")),
            ("two times", |value| format!("{value},t=1767323046")),
            ("the same time twice", |value| format!("{value},t=1767323045")),
            ("two times, the wrong one first", |value| format!("t=1767323046,{value}")),
            ("only the scheme for tests", |value| value.replace("v1=", "v0=")),
            ("only an unknown scheme", |value| value.replace("v1=", "v2=")),
            ("only the scheme v1a", |value| value.replace("v1=", "v1a=")),
            ("the scheme in upper case", |value| value.replace("v1=", "V1=")),
            ("after the maximum number of signatures", |value| {
                let others = format!("v1={},", "0".repeat(64)).repeat(MAX_SIGNATURES);
                value.replace("v1=", &format!("{others}v1="))
            }),
        ],
        accepted: &[
            ("beside another scheme", |value| format!("{value},v0={}", "0".repeat(64))),
            ("beside another signature", |value| format!("{value},v1={}", "0".repeat(64))),
            ("after another signature", |value| {
                value.replace("v1=", &format!("v1={},v1=", "0".repeat(64)))
            }),
            ("after a malformed one", |value| value.replace("v1=", "v1=*,v1=")),
            ("the time last", |value| {
                let (time, signature) = value.split_once(',').unwrap();
                format!("{signature},{time}")
            }),
        ],
        join: Some(|first, second| {
            let [_, token, _] = split_after("v1=", second);
            format!("{first},v1={token}")
        }),
        tolerance_s: Some(300),
        ..Credential::HMAC
    },
    topic: "invoice.paid",
    tenant: "acct_1A",
    allowed: &["acct_1A"],
    foreign: &["acct_1a", "ACCT_1A", "acct_1", ""],
    other_tenant: Some(Body(
        br#"{"id":"evt_1","object":"event","type":"invoice.paid","created":1767323000,"account":"acct_1a","data":{"object":{"id":"in_1","object":"invoice","number":"F-1","status":"paid","currency":"eur","total":1000}}}"#,
    )),
    body: br#"{"id":"evt_1","object":"event","type":"invoice.paid","created":1767323000,"account":"acct_1A","data":{"object":{"id":"in_1","object":"invoice","number":"F-1","status":"paid","currency":"eur","total":1000}}}"#,
    unmappable_body: Some(
        br#"{"id":"evt_1","object":"event","type":"invoice.paid","created":1767323000,"account":"acct_1A","data":{"object":{"id":"in_1","object":"invoice","number":"F-1","status":"paid","currency":"eur"}}}"#,
    ),
    business_key: "F-1",
    redelivered: &[
        // Counts the addresses that have not answered yet.
        Body(
            br#"{"id":"evt_1","object":"event","type":"invoice.paid","created":1767323000,"account":"acct_1A","pending_webhooks":1,"data":{"object":{"id":"in_1","object":"invoice","number":"F-1","status":"paid","currency":"eur","total":1000}}}"#,
        ),
    ],
    different_event: &[Body(
        br#"{"id":"evt_2","object":"event","type":"invoice.paid","created":1767323000,"account":"acct_1A","data":{"object":{"id":"in_1","object":"invoice","number":"F-1","status":"paid","currency":"eur","total":1000}}}"#,
    )],
    redelivers_identical_body: false,
    ..Case::DEFAULT
}];
