//! Xero.

use crate::sources::conformance::case::{
    Case, Credential, MultiEventCase,
    Variation::{Body, Header},
};

pub(super) const CASES: &[Case] = &[Case {
    name: "xero",
    kind: "xero",
    credential: Credential {
        header: "x-xero-signature",
        // openssl dgst -sha256 -hmac c0ffee00
        known_value: "ETBAaLNGNRZC8ynDo8yPguYaJA8ADf5iFIs93oE2WIk=",
        ..Credential::HMAC
    },
    topic: "invoice.update",
    tenant: "c2cc9b6e-9458-4c7d-93cc-f02b81b0594f",
    allowed: &[
        "c2cc9b6e-9458-4c7d-93cc-f02b81b0594f",
        "C2CC9B6E-9458-4C7D-93CC-F02B81B0594F",
    ],
    foreign: &["c2cc9b6e", "c2cc9b6e-9458-4c7d-93cc-f02b81b0594e", ""],
    same_tenant: &[Body(
        br#"{"events":[{"resourceUrl":"https://api.example/Invoices/a1","resourceId":"a1","tenantId":"C2CC9B6E-9458-4c7d-93cc-f02b81b0594f","tenantType":"ORGANISATION","eventCategory":"INVOICE","eventType":"UPDATE","eventDateUtc":"2026-01-02T03:04:00.120"}],"firstEventSequence":1,"lastEventSequence":1,"entropy":"A"}"#,
    )],
    other_tenant: Some(Body(
        br#"{"events":[{"resourceUrl":"https://api.example/Invoices/a1","resourceId":"a1","tenantId":"00000000-9458-4c7d-93cc-f02b81b0594f","tenantType":"ORGANISATION","eventCategory":"INVOICE","eventType":"UPDATE","eventDateUtc":"2026-01-02T03:04:00.120"}],"firstEventSequence":1,"lastEventSequence":1,"entropy":"A"}"#,
    )),
    body: br#"{"events":[{"resourceUrl":"https://api.example/Invoices/a1","resourceId":"a1","tenantId":"c2cc9b6e-9458-4c7d-93cc-f02b81b0594f","tenantType":"ORGANISATION","eventCategory":"INVOICE","eventType":"UPDATE","eventDateUtc":"2026-01-02T03:04:00.120"}],"firstEventSequence":1,"lastEventSequence":1,"entropy":"A"}"#,
    stored_body: Some(
        br#"{"resourceUrl":"https://api.example/Invoices/a1","resourceId":"a1","tenantId":"c2cc9b6e-9458-4c7d-93cc-f02b81b0594f","tenantType":"ORGANISATION","eventCategory":"INVOICE","eventType":"UPDATE","eventDateUtc":"2026-01-02T03:04:00.120"}"#,
    ),
    unmappable_body: Some(
        br#"{"events":[{"resourceId":"a1","tenantId":"c2cc9b6e-9458-4c7d-93cc-f02b81b0594f","eventCategory":"INVOICE","eventType":"UPDATE","eventDateUtc":"soon"}],"firstEventSequence":1,"lastEventSequence":1,"entropy":"A"}"#,
    ),
    business_key: "a1",
    redelivered: &[
        Header("x-attempt", "2"),
        // In another call, with other numbers and another entropy.
        Body(
            br#"{"events": [{"resourceId":"a1","resourceUrl":"https://api.example/Invoices/a1","tenantId":"c2cc9b6e-9458-4c7d-93cc-f02b81b0594f","tenantType":"ORGANISATION","eventCategory":"INVOICE","eventType":"UPDATE","eventDateUtc":"2026-01-02T03:04:00.120"}],"firstEventSequence":7,"lastEventSequence":7,"entropy":"B"}"#,
        ),
    ],
    different_event: &[
        Body(
            br#"{"events":[{"resourceId":"a1","tenantId":"c2cc9b6e-9458-4c7d-93cc-f02b81b0594f","eventCategory":"INVOICE","eventType":"UPDATE","eventDateUtc":"2026-01-02T03:04:00.121"}],"firstEventSequence":1,"lastEventSequence":1,"entropy":"A"}"#,
        ),
        Body(
            br#"{"events":[{"resourceId":"a1","tenantId":"c2cc9b6e-9458-4c7d-93cc-f02b81b0594f","eventCategory":"INVOICE","eventType":"CREATE","eventDateUtc":"2026-01-02T03:04:00.120"}],"firstEventSequence":1,"lastEventSequence":1,"entropy":"A"}"#,
        ),
        Body(
            br#"{"events":[{"resourceId":"a2","tenantId":"c2cc9b6e-9458-4c7d-93cc-f02b81b0594f","eventCategory":"INVOICE","eventType":"UPDATE","eventDateUtc":"2026-01-02T03:04:00.120"}],"firstEventSequence":1,"lastEventSequence":1,"entropy":"A"}"#,
        ),
    ],
    redelivers_identical_body: false,
    multi_event: Some(MultiEventCase {
        variations: &[],
        body: br#"{"events":[
            {"resourceId":"a1","tenantId":"c2cc9b6e-9458-4c7d-93cc-f02b81b0594f","eventCategory":"INVOICE","eventType":"UPDATE","eventDateUtc":"2026-01-02T03:04:00.120"},
            {"resourceId":"a1","tenantId":"c2cc9b6e-9458-4c7d-93cc-f02b81b0594f","eventCategory":"INVOICE","eventType":"UPDATE","eventDateUtc":"2026-01-02T03:04:00.125"},
            {"resourceId":"a1","tenantId":"00000000-9458-4c7d-93cc-f02b81b0594f","eventCategory":"CREDITNOTE","eventType":"Create","eventDateUtc":"2026-01-02T03:04:00.120","data":{}}
            ],"firstEventSequence":1,"lastEventSequence":3,"entropy":"A"}"#,
        events: &[
            [
                "c2cc9b6e-9458-4c7d-93cc-f02b81b0594f:a1:UPDATE:2026-01-02T03:04:00.120",
                "c2cc9b6e-9458-4c7d-93cc-f02b81b0594f",
                "invoice.update",
            ],
            [
                "c2cc9b6e-9458-4c7d-93cc-f02b81b0594f:a1:UPDATE:2026-01-02T03:04:00.125",
                "c2cc9b6e-9458-4c7d-93cc-f02b81b0594f",
                "invoice.update",
            ],
            [
                "00000000-9458-4c7d-93cc-f02b81b0594f:a1:Create:2026-01-02T03:04:00.120",
                "00000000-9458-4c7d-93cc-f02b81b0594f",
                "creditnote.create",
            ],
        ],
        regrouped: &[
            &[
                br#"{"events":[{"resourceId":"a1","tenantId":"00000000-9458-4c7d-93cc-f02b81b0594f","eventCategory":"CREDITNOTE","eventType":"Create","eventDateUtc":"2026-01-02T03:04:00.120","data":{}},{"resourceId":"a1","tenantId":"c2cc9b6e-9458-4c7d-93cc-f02b81b0594f","eventCategory":"INVOICE","eventType":"UPDATE","eventDateUtc":"2026-01-02T03:04:00.125"},{"resourceId":"a1","tenantId":"c2cc9b6e-9458-4c7d-93cc-f02b81b0594f","eventCategory":"INVOICE","eventType":"UPDATE","eventDateUtc":"2026-01-02T03:04:00.120"}],"firstEventSequence":1,"lastEventSequence":3,"entropy":"B"}"#,
            ],
            &[
                br#"{"events":[{"resourceId":"a1","tenantId":"c2cc9b6e-9458-4c7d-93cc-f02b81b0594f","eventCategory":"INVOICE","eventType":"UPDATE","eventDateUtc":"2026-01-02T03:04:00.125"}],"firstEventSequence":2,"lastEventSequence":2,"entropy":"C"}"#,
                br#"{"events":[{"resourceId":"a1","tenantId":"c2cc9b6e-9458-4c7d-93cc-f02b81b0594f","eventCategory":"INVOICE","eventType":"UPDATE","eventDateUtc":"2026-01-02T03:04:00.120"},{"resourceId":"a1","tenantId":"00000000-9458-4c7d-93cc-f02b81b0594f","eventCategory":"CREDITNOTE","eventType":"Create","eventDateUtc":"2026-01-02T03:04:00.120","data":{}}],"firstEventSequence":1,"lastEventSequence":3,"entropy":"D"}"#,
            ],
        ],
    }),
    ..Case::DEFAULT
}];
