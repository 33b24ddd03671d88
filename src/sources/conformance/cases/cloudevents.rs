//! CloudEvents, in all three modes.

use super::callback::BEARER;
use crate::sources::conformance::case::{
    Case, Credential, MultiEventCase,
    Variation::{Body, EventId, Header, Tenant},
};

const BINARY: Case = Case {
    name: "cloudevents",
    kind: "cloudevents",
    settings: r#"
        [sources.inbox.event]
        tenant = "attribute:company"
        [sources.inbox.order]
        topics = ["com.example.order.*"]
        id = "/id"
        number = "/number"
        currency = "const:EUR"
        total = "/total"
    "#,
    malformed_secrets: &["two words"],
    credential: Credential { query_parameter: Some("access_token"), ..BEARER },
    topic: "com.example.order.paid",
    tenant: "Müller & Co",
    allowed: &["Müller & Co"],
    foreign: &["müller & co", "M%C3%BCller & Co", ""],
    other_tenant: Some(Tenant("ACME")),
    same_tenant: &[Header("ce-company", "Müller & Co"), Header("ce-company", "\"M%c3%bcller & Co\"")],
    body: br#"{"id":7,"number":"A-7","total":1.50}"#,
    unmappable_body: Some(br#"{"id":7,"number":"A-7","total":"much"}"#),
    business_key: "A-7",
    equivalent_forms: &[
        &[
            Header("content-type", "application/cloudevents+json"),
            Body(
                r#"{"specversion":"1.0","id":"evt-1","source":"/tallyhook/send","type":"com.example.order.paid","company":"Müller & Co","data":{"id":7,"number":"A-7","total":1.50}}"#.as_bytes(),
            ),
        ],
        &[
            Header("content-type", "application/cloudevents+json; charset=utf-8"),
            // printf '{"id":7,"number":"A-7","total":1.50}' | base64
            Body(
                r#"{"specversion":"1.0","id":"evt-1","source":"/tallyhook/send","type":"com.example.order.paid","company":"Müller & Co","data_base64":"eyJpZCI6NywibnVtYmVyIjoiQS03IiwidG90YWwiOjEuNTB9"}"#.as_bytes(),
            ),
        ],
        &[
            Header("content-type", "application/cloudevents-batch+json"),
            Body(
                r#"[{"specversion":"1.0","id":"evt-1","source":"/tallyhook/send","type":"com.example.order.paid","company":"Müller & Co","data":{"id":7,"number":"A-7","total":1.50}}]"#.as_bytes(),
            ),
        ],
    ],
    redelivered: &[
        Header("x-attempt", "2"),
        Header("ce-time", "2026-01-02T03:04:09Z"),
        Body(br#"{"id":7,"number":"A-7","total":2.50}"#),
    ],
    different_event: &[EventId("evt-2"), Header("ce-source", "/another")],
    redelivers_identical_body: false,
    // Structured ones need another body: they are among the forms.
    accepted_media_types: &[
        "application/json",
        "application/json; charset=utf-8",
        "Application/JSON;charset=UTF-8",
        "application/vnd.api+json",
        "",
    ],
    multi_event: Some(MultiEventCase {
        variations: &[Header("content-type", "application/cloudevents-batch+json; charset=utf-8")],
        // The same id of two senders is two events.
        body: br#"[
            {"specversion":"1.0","id":"1","source":"/a","type":"com.example.order.paid","company":"ACME","data":{"id":7,"number":"A-7","total":1.50}},
            {"specversion":"1.0","id":"1","source":"/b","type":"com.example.order.paid","company":"Bolt","data":{"id":8,"number":"A-8","total":1.50}},
            {"specversion":"1.0","id":"2","source":"/a","type":"com.example.lead.made","company":"ACME","data":null}
        ]"#,
        events: &[
            ["/a 1", "ACME", "com.example.order.paid"],
            ["/b 1", "Bolt", "com.example.order.paid"],
            ["/a 2", "ACME", "com.example.lead.made"],
        ],
        regrouped: &[
            &[
                br#"[{"specversion":"1.0","id":"2","source":"/a","type":"com.example.lead.made","company":"ACME","data":null},{"specversion":"1.0","id":"1","source":"/b","type":"com.example.order.paid","company":"Bolt","data":{"id":8,"number":"A-8","total":1.50}},{"data":{"id":7,"number":"A-7","total":1.50},"specversion":"1.0","id":"1","source":"/a","type":"com.example.order.paid","company":"ACME"}]"#,
            ],
            &[
                br#"[{"specversion":"1.0","id":"1","source":"/b","type":"com.example.order.paid","company":"Bolt","data":{"id":8,"number":"A-8","total":1.50}}]"#,
                br#"[{"specversion":"1.0","id":"1","source":"/a","type":"com.example.order.paid","company":"ACME","data":{"id":7,"number":"A-7","total":1.50}},{"specversion":"1.0","id":"2","source":"/a","type":"com.example.lead.made","company":"ACME","data":null}]"#,
            ],
        ],
    }),
    ..Case::DEFAULT
};

pub(super) const CASES: &[Case] = &[BINARY];
