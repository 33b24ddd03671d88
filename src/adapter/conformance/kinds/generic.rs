//! Generic, by settings alone.

use super::super::kind::{
    Delta::{Body, EventId, Header, Tenant},
    Kind, Proof, behind,
};

pub(super) const ROWS: &[Kind] = &[
    Kind {
        name: "generic, by pointers",
        word: "generic",
        settings: r#"
            [sources.inbox.signature]
            prefix = "sha256="
            [sources.inbox.event]
            id = "/event_id"
            topic = "/type"
            tenant = "/company"
            [sources.inbox.order]
            topics = ["order.*"]
            id = "/order/id"
            number = "/order/number"
            currency = "/order/currency"
            total = "/order/total"
            [sources.inbox.invoice]
            topics = ["invoice.*"]
            invoice_number = "/invoice/number"
            currency = "/invoice/currency"
            total = "/invoice/total"
        "#,
        proof: Proof {
            header: "X-Signature",
            // openssl dgst -sha256 -hmac c0ffee00
            known: "sha256=e5c77076e739ddc9b5ec00756d6dbc3d5c265e7da2ab2bebbe81fa9b49d1ce43",
            token: |value| behind("sha256=", value),
            forgives: &["in upper case"],
            ..Proof::HMAC
        },
        topic: "order.paid",
        tenant: "ACME",
        allowed: &["ACME"],
        // A company's id is a text like any other: its case counts.
        foreign: &["acme", "ACME2", ""],
        elsewhere: Some(Body(
            br#"{"event_id":"e1","type":"order.paid","company":"acme","order":{"id":1,"number":"A-1","currency":"EUR","total":10.00}}"#,
        )),
        body: br#"{"event_id":"e1","type":"order.paid","company":"ACME","order":{"id":1,"number":"A-1","currency":"EUR","total":10.00}}"#,
        unmappable: Some(br#"{"event_id":"e1","type":"order.paid","company":"ACME","order":{"id":1,"number":"A-1","currency":"EUR"}}"#),
        number: "A-1",
        redelivered: &[
            Header("x-attempt", "2"),
            Body(
                br#"{"event_id":"e1","type":"order.paid","company":"ACME","order":{"id":1,"number":"A-1","currency":"EUR","total":11.00}}"#,
            ),
        ],
        another: &[Body(
            br#"{"event_id":"e2","type":"order.paid","company":"ACME","order":{"id":1,"number":"A-1","currency":"EUR","total":10.00}}"#,
        )],
        ..Kind::PLAIN
    },
    Kind {
        name: "generic, by headers",
        word: "generic",
        settings: r#"
            repeats_same_bytes = false
            [sources.inbox.signature]
            header = "X-Sum"
            algorithm = "sha512"
            encoding = "base64"
            key = "hex"
            [sources.inbox.event]
            id = "header:X-Event-Id"
            topic = "header:X-Topic"
            tenant = "header:X-Company"
            [sources.inbox.invoice]
            invoice_number = "/number"
            currency = "const:EUR"
            total = "/total"
        "#,
        proof: Proof {
            header: "X-Sum",
            // openssl dgst -sha512 -mac HMAC -macopt hexkey:c0ffee00
            known: "jNQL7W2INGuzhTRIajk4/uIEBe62iQEVdWo+S3z7uD0JzuYlxLvzikUaq6qY3Z3RJIaJ3UVc06XT5/2/Xj8A4g==",
            ..Proof::HMAC
        },
        topic: "invoice",
        tenant: "Müller & Co",
        allowed: &["Müller & Co"],
        foreign: &["müller & co", "Müller & Co/", ""],
        elsewhere: Some(Tenant("ACME")),
        body: br#"{"number":"R/7","total":"10.00"}"#,
        unmappable: Some(br#"{"number":"R/7","total":"ten"}"#),
        number: "R/7",
        redelivered: &[Header("x-attempt", "2"), Body(br#"{"number":"R/7","total":"11.00"}"#)],
        another: &[EventId("evt-2")],
        repeats_same_bytes: false,
        ..Kind::PLAIN
    },
];
