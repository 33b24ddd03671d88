//! GitHub.

use crate::sources::conformance::case::{
    Case, Credential,
    Variation::{Body, EventId, Header},
    split_after,
};

pub(super) const CASES: &[Case] = &[Case {
    name: "github",
    kind: "github",
    settings: r#"
        [sources.inbox.event]
        tenant = "/repository/full_name"
        [sources.inbox.order]
        topics = ["issues"]
        id = "/issue/id"
        number = "/issue/number"
        currency = "const:EUR"
        total = "/issue/cost"
    "#,
    credential: Credential {
        header: "X-Hub-Signature-256",
        // openssl dgst -sha256 -hmac c0ffee00
        known_value: "sha256=8ba501afc458cb22fbdb1e7efe9990ed44a09a72c806ce3bb73d54eed1d8c018",
        token: |value| split_after("sha256=", value),
        tolerated: &["in upper case"],
        rejected: &[
            ("of the older hash", |value| value.replace("sha256=", "sha1=")),
            ("of no hash", |value| value.replace("sha256=", "")),
        ],
        ..Credential::HMAC
    },
    topic: "issues",
    tenant: "acme/shop",
    allowed: &["acme/shop"],
    foreign: &["acme", "shop", "ACME/shop", "acme/shop2", ""],
    other_tenant: Some(Body(
        br#"{"action":"opened","issue":{"id":7,"number":12,"cost":"10.00"},"repository":{"full_name":"acme/other"}}"#,
    )),
    body: br#"{"action":"opened","issue":{"id":7,"number":12,"cost":"10.00"},"repository":{"full_name":"acme/shop"}}"#,
    unmappable_body: Some(
        br#"{"action":"opened","issue":{"id":7,"number":12},"repository":{"full_name":"acme/shop"}}"#,
    ),
    business_key: "12",
    // A webhook may be set to send forms; the signature is over the form.
    equivalent_forms: &[&[
        Header("content-type", "application/x-www-form-urlencoded"),
        Body(
            b"payload=%7B%22action%22%3A%22opened%22%2C%22issue%22%3A%7B%22id%22%3A7%2C%22number%22%3A12%2C%22cost%22%3A%2210.00%22%7D%2C%22repository%22%3A%7B%22full_name%22%3A%22acme%2Fshop%22%7D%7D",
        ),
    ]],
    redelivered: &[
        Header("x-github-hook-id", "2"),
        Header("x-hub-signature", "sha1=00"),
        Header("user-agent", "GitHub-Hookshot/2"),
    ],
    different_event: &[EventId("evt-2")],
    accepted_media_types: &[
        "application/json",
        "application/json; charset=utf-8",
        "application/vnd.api+json",
        "application/x-www-form-urlencoded",
        "",
    ],
    rejected_media_types: &["text/plain", "application/jsonp", "multipart/form-data"],
    ..Case::DEFAULT
}];
