//! QuickBooks, in both of its formats.

use crate::sources::conformance::case::{
    Case, Credential, MultiEventCase,
    Variation::{Body, Header},
};

const CLOUD: Case = Case {
    name: "quickbooks",
    kind: "quickbooks",
    credential: Credential {
        header: "intuit-signature",
        // openssl dgst -sha256 -hmac c0ffee00
        known_value: "Gda3I/yQkWodaHv7M9IroUL/gx+CYb+KNHXG9R21pxo=",
        ..Credential::HMAC
    },
    topic: "qbo.invoice.updated.v1",
    tenant: "9130347",
    allowed: &["9130347"],
    foreign: &["913034", "91303470", ""],
    other_tenant: Some(Body(
        br#"[{"specversion":"1.0","id":"e-1","source":"intuit.x","type":"qbo.invoice.updated.v1","time":"2026-01-02T03:04:00Z","intuitentityid":"42","intuitaccountid":"9130348","data":{}}]"#,
    )),
    body: br#"[{"specversion":"1.0","id":"e-1","source":"intuit.x","type":"qbo.invoice.updated.v1","time":"2026-01-02T03:04:00Z","intuitentityid":"42","intuitaccountid":"9130347","data":{}}]"#,
    stored_body: Some(
        br#"{"specversion":"1.0","id":"e-1","source":"intuit.x","type":"qbo.invoice.updated.v1","time":"2026-01-02T03:04:00Z","intuitentityid":"42","intuitaccountid":"9130347","data":{}}"#,
    ),
    unmappable_body: Some(
        br#"[{"specversion":"1.0","id":"e-1","source":"intuit.x","type":"qbo.invoice.updated.v1","time":"soon","intuitentityid":"42","intuitaccountid":"9130347","data":{}}]"#,
    ),
    business_key: "42",
    redelivered: &[
        Header("x-attempt", "2"),
        Header("content-type", "application/cloudevents+json"),
        Header("content-type", "application/cloudevents-batch+json"),
        Body(
            br#"[ {"id":"e-1","specversion":"1.0","source":"intuit.x","type":"qbo.invoice.updated.v1","time":"2026-01-02T03:04:00Z","intuitentityid":"42","intuitaccountid":"9130347"} ]"#,
        ),
    ],
    different_event: &[Body(
        br#"[{"specversion":"1.0","id":"e-2","source":"intuit.x","type":"qbo.invoice.updated.v1","time":"2026-01-02T03:04:00Z","intuitentityid":"42","intuitaccountid":"9130347","data":{}}]"#,
    )],
    redelivers_identical_body: false,
    multi_event: Some(MultiEventCase {
        variations: &[Header("content-type", "application/cloudevents-batch+json")],
        body: br#"[
            {"specversion":"1.0","id":"e-1","source":"intuit.x","type":"qbo.invoice.updated.v1","time":"2026-01-02T03:04:00Z","intuitentityid":"42","intuitaccountid":"9130347","data":{}},
            {"specversion":"1.0","id":"e-2","source":"intuit.x","type":"qbo.bill.deleted.v1","time":"2026-01-02T03:04:00Z","intuitentityid":"43","intuitaccountid":"9130348","data":{}}
        ]"#,
        events: &[
            ["e-1", "9130347", "qbo.invoice.updated.v1"],
            ["e-2", "9130348", "qbo.bill.deleted.v1"],
        ],
        regrouped: &[
            &[
                br#"[{"specversion":"1.0","id":"e-2","source":"intuit.x","type":"qbo.bill.deleted.v1","time":"2026-01-02T03:04:00Z","intuitentityid":"43","intuitaccountid":"9130348","data":{}},{"specversion":"1.0","id":"e-1","source":"intuit.x","type":"qbo.invoice.updated.v1","time":"2026-01-02T03:04:00Z","intuitentityid":"42","intuitaccountid":"9130347","data":{}}]"#,
            ],
            &[
                br#"[{"specversion":"1.0","id":"e-2","source":"intuit.x","type":"qbo.bill.deleted.v1","time":"2026-01-02T03:04:00Z","intuitentityid":"43","intuitaccountid":"9130348","data":{}}]"#,
                br#"[{"specversion":"1.0","id":"e-1","source":"intuit.x","type":"qbo.invoice.updated.v1","time":"2026-01-02T03:04:00Z","intuitentityid":"42","intuitaccountid":"9130347","data":{}}]"#,
            ],
        ],
    }),
    ..Case::DEFAULT
};

pub(super) const CASES: &[Case] = &[
    CLOUD,
    Case {
        name: "quickbooks, the older format",
        credential: Credential { known_value: "H4q+jiBWVm4mf8VsTncfx2b2DgGLQb4gCTxLC9wJYrU=", ..CLOUD.credential },
        topic: "invoice.update",
        other_tenant: Some(Body(
            br#"{"eventNotifications":[{"realmId":"9130348","dataChangeEvent":{"entities":[{"name":"Invoice","id":"42","operation":"Update","lastUpdated":"2026-01-02T03:04:00.000Z"}]}}]}"#,
        )),
        body: br#"{"eventNotifications":[{"realmId":"9130347","dataChangeEvent":{"entities":[{"name":"Invoice","id":"42","operation":"Update","lastUpdated":"2026-01-02T03:04:00.000Z"}]}}]}"#,
        stored_body: Some(
            br#"{"name":"Invoice","id":"42","operation":"Update","lastUpdated":"2026-01-02T03:04:00.000Z"}"#,
        ),
        unmappable_body: Some(
            br#"{"eventNotifications":[{"realmId":"9130347","dataChangeEvent":{"entities":[{"name":"Invoice","id":"42","operation":"Update","lastUpdated":"soon"}]}}]}"#,
        ),
        redelivered: &[
            Header("x-attempt", "2"),
            Body(
                br#"{"eventNotifications":[ {"dataChangeEvent":{"entities":[{"id":"42","name":"Invoice","operation":"Update","lastUpdated":"2026-01-02T03:04:00.000Z"}]},"realmId":"9130347"}]}"#,
            ),
        ],
        different_event: &[
            Body(
                br#"{"eventNotifications":[{"realmId":"9130347","dataChangeEvent":{"entities":[{"name":"Invoice","id":"42","operation":"Update","lastUpdated":"2026-01-02T03:04:01.000Z"}]}}]}"#,
            ),
            Body(
                br#"{"eventNotifications":[{"realmId":"9130347","dataChangeEvent":{"entities":[{"name":"Invoice","id":"42","operation":"Void","lastUpdated":"2026-01-02T03:04:00.000Z"}]}}]}"#,
            ),
            Body(
                br#"{"eventNotifications":[{"realmId":"9130347","dataChangeEvent":{"entities":[{"name":"Bill","id":"42","operation":"Update","lastUpdated":"2026-01-02T03:04:00.000Z"}]}}]}"#,
            ),
            Body(
                br#"{"eventNotifications":[{"realmId":"9130347","dataChangeEvent":{"entities":[{"name":"Invoice","id":"43","operation":"Update","lastUpdated":"2026-01-02T03:04:00.000Z"}]}}]}"#,
            ),
        ],
        multi_event: Some(MultiEventCase {
            variations: &[],
            // The same document of two companies, and two of one.
            body: br#"{"eventNotifications":[
                {"realmId":"9130347","dataChangeEvent":{"entities":[
                    {"name":"Invoice","id":"42","operation":"Update","lastUpdated":"2026-01-02T03:04:00.000Z"},
                    {"name":"Bill","id":"42","operation":"Delete","lastUpdated":"2026-01-02T03:04:00.000Z"}]}},
                {"realmId":"9130348","dataChangeEvent":{"entities":[
                    {"name":"Invoice","id":"42","operation":"Update","lastUpdated":"2026-01-02T03:04:00.000Z"}]}}]}"#,
            events: &[
                ["9130347:Invoice:42:Update:2026-01-02T03:04:00.000Z", "9130347", "invoice.update"],
                ["9130347:Bill:42:Delete:2026-01-02T03:04:00.000Z", "9130347", "bill.delete"],
                ["9130348:Invoice:42:Update:2026-01-02T03:04:00.000Z", "9130348", "invoice.update"],
            ],
            regrouped: &[
                &[
                    br#"{"eventNotifications":[{"realmId":"9130348","dataChangeEvent":{"entities":[{"name":"Invoice","id":"42","operation":"Update","lastUpdated":"2026-01-02T03:04:00.000Z"}]}},{"realmId":"9130347","dataChangeEvent":{"entities":[{"name":"Bill","id":"42","operation":"Delete","lastUpdated":"2026-01-02T03:04:00.000Z"}]}},{"realmId":"9130347","dataChangeEvent":{"entities":[{"name":"Invoice","id":"42","operation":"Update","lastUpdated":"2026-01-02T03:04:00.000Z"}]}}]}"#,
                ],
                &[
                    br#"{"eventNotifications":[{"realmId":"9130347","dataChangeEvent":{"entities":[{"name":"Bill","id":"42","operation":"Delete","lastUpdated":"2026-01-02T03:04:00.000Z"},{"name":"Invoice","id":"42","operation":"Update","lastUpdated":"2026-01-02T03:04:00.000Z"}]}}]}"#,
                    br#"{"eventNotifications":[{"realmId":"9130348","dataChangeEvent":{"entities":[{"name":"Invoice","id":"42","operation":"Update","lastUpdated":"2026-01-02T03:04:00.000Z"}]}}]}"#,
                ],
            ],
        }),
        ..CLOUD
    },
];
