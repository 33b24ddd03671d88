//! What every adapter must do, whatever its platform: one suite over a table.
//!
//! A new kind of source is one more row of [`KINDS`]. Each row is configured
//! through [`Config::from_toml`], so that configuration and adapter are held
//! together; each assertion says which kind broke which rule.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use time::{OffsetDateTime, macros::datetime};
use uuid::Uuid;

use super::{Adapter, Call, Delivery, Event, Received, Rejection, signature::Encoding};
use crate::{
    config::{Config, source},
    domain::{Envelope, EventKey, Mapped, Reason, SourceName},
};

/// One kind of source, and what tells its calls apart.
struct Kind {
    /// For messages.
    name: &'static str,
    /// Its word in the configuration.
    word: &'static str,
    /// Its own settings, below `[sources.inbox]`.
    settings: &'static str,
    /// The header with the signature, what stands before it, how it is written.
    signature: (&'static str, &'static str, Encoding),
    /// The signature of `body` under the secret `c0ffee00` as another program
    /// made it: `openssl dgst -sha256 -hmac c0ffee00`.
    known: &'static str,
    /// A topic that is mapped.
    topic: &'static str,
    /// The tenant as events name it.
    tenant: &'static str,
    /// How a person may write that tenant in the allow-list.
    allowed: &'static [&'static str],
    /// What an allow-list may hold without letting the tenant in.
    foreign: &'static [&'static str],
    /// The same tenant, written otherwise in the call.
    alike: &'static [Delta],
    /// A call of a tenant that is not [`Kind::tenant`].
    elsewhere: Delta,
    /// A body that can be mapped.
    body: &'static [u8],
    /// A body that cannot, though its number can be read.
    unmappable: &'static [u8],
    /// The number in both.
    number: &'static str,
    /// What a redelivery may change.
    redelivered: &'static [Delta],
    /// What makes it another event.
    another: &'static [Delta],
    /// Whether other bytes under a known key are a conflict.
    repeats_same_bytes: bool,
}

/// Makes a bad signature out of a good one.
type Spoil = fn(&str) -> String;

/// How a call differs from the row's good one.
#[derive(Clone, Copy, Debug)]
enum Delta {
    Topic(&'static str),
    Tenant(&'static str),
    EventId(&'static str),
    Body(&'static [u8]),
    Header(&'static str, &'static str),
}

use Delta::{Body, EventId, Header, Tenant, Topic};

const KINDS: [Kind; 4] = [
    Kind {
        name: "shopify",
        word: "shopify",
        settings: "",
        signature: ("X-Shopify-Hmac-SHA256", "", Encoding::Base64),
        known: "XXx2aq+0U28HCfhyXQe3O6JK7rKk50hKr5Px/Tm6V7Y=",
        topic: "orders/updated",
        tenant: "demo.myshopify.com",
        allowed: &["demo.myshopify.com", "Demo.MyShopify.com", "demo.myshopify.com/"],
        foreign: &["myshopify.com", "demo.myshopify.com.example", "*", ""],
        alike: &[Tenant("DEMO.myshopify.com"), Header("shopify-shop-domain", "demo.myshopify.com")],
        elsewhere: Tenant("other.myshopify.com"),
        body: br##"{"id":1,"name":"#1001","currency":"EUR","total_price":"10.00"}"##,
        unmappable: br##"{"id":1,"name":"#1001","currency":"EUR"}"##,
        number: "#1001",
        redelivered: &[
            Header("x-shopify-event-id", "another attempt"),
            Header("x-shopify-triggered-at", "2026-01-02T03:04:09Z"),
            Header("x-shopify-webhook-id", "evt-1"),
            Header("shopify-webhook-id", "evt-1"),
        ],
        // Shared by topics, so that the topic must be part of the id.
        another: &[EventId("evt-2"), Topic("orders/paid"), Header("x-shopify-test", "true")],
        repeats_same_bytes: true,
    },
    Kind {
        name: "woocommerce",
        word: "woocommerce",
        settings: "",
        signature: ("X-WC-Webhook-Signature", "", Encoding::Base64),
        known: "iZAbF29pdqe37Xyz7ihsHK95OuIdUIbrvtMx9ldLgIQ=",
        topic: "order.updated",
        tenant: "https://shop.example",
        allowed: &["https://shop.example", "https://shop.example/", "HTTPS://Shop.Example"],
        foreign: &["https://shop.example.org", "http://shop.example", "shop.example", ""],
        alike: &[
            Tenant("HTTPS://Shop.Example"),
            Header("x-wc-webhook-source", "https://shop.example"),
        ],
        elsewhere: Tenant("https://other.example"),
        body: br#"{"id":7,"number":"1007","status":"pending","currency":"EUR","total":"10.00"}"#,
        unmappable: br#"{"id":7,"number":"1007","status":"pending","currency":"EUR"}"#,
        number: "1007",
        // The delivery id is new on each attempt and may collide.
        redelivered: &[
            Header("x-wc-webhook-delivery-id", "another attempt"),
            Header("x-wc-webhook-id", "2"),
            EventId("evt-2"),
        ],
        another: &[
            Topic("order.created"),
            Body(
                br#"{"id":7,"number":"1007","status":"pending","currency":"EUR","total":"11.00"}"#,
            ),
        ],
        repeats_same_bytes: false,
    },
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
        signature: ("X-Signature", "sha256=", Encoding::Hex),
        known: "sha256=e5c77076e739ddc9b5ec00756d6dbc3d5c265e7da2ab2bebbe81fa9b49d1ce43",
        topic: "order.paid",
        tenant: "ACME",
        allowed: &["ACME"],
        // A company's id is a text like any other: its case counts.
        foreign: &["acme", "ACME2", ""],
        alike: &[],
        elsewhere: Body(
            br#"{"event_id":"e1","type":"order.paid","company":"acme","order":{"id":1,"number":"A-1","currency":"EUR","total":10.00}}"#,
        ),
        body: br#"{"event_id":"e1","type":"order.paid","company":"ACME","order":{"id":1,"number":"A-1","currency":"EUR","total":10.00}}"#,
        unmappable: br#"{"event_id":"e1","type":"order.paid","company":"ACME","order":{"id":1,"number":"A-1","currency":"EUR"}}"#,
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
        repeats_same_bytes: true,
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
        signature: ("X-Sum", "", Encoding::Base64),
        known: "jNQL7W2INGuzhTRIajk4/uIEBe62iQEVdWo+S3z7uD0JzuYlxLvzikUaq6qY3Z3RJIaJ3UVc06XT5/2/Xj8A4g==",
        topic: "invoice",
        tenant: "Müller & Co",
        allowed: &["Müller & Co"],
        foreign: &["müller & co", "Müller & Co/", ""],
        alike: &[],
        elsewhere: Tenant("ACME"),
        body: br#"{"number":"R/7","total":"10.00"}"#,
        unmappable: br#"{"number":"R/7","total":"ten"}"#,
        number: "R/7",
        redelivered: &[Header("x-attempt", "2"), Body(br#"{"number":"R/7","total":"11.00"}"#)],
        another: &[EventId("evt-2")],
        repeats_same_bytes: false,
    },
];

/// Secrets that are well-formed as text, as hexadecimal and as base64.
const SECRETS: [(&str, &str); 4] =
    [("FIRST", "c0ffee00"), ("SECOND", "deadbeef"), ("STRANGE", "0badf00d"), ("EMPTY", "")];

const AT: OffsetDateTime = datetime!(2026-01-02 3:04:05 UTC);

/// An envelope as the receiver makes it, for mapping tests.
pub(super) fn envelope(topic: &str, body: impl Into<Bytes>) -> Envelope {
    let source: SourceName = "inbox".parse().unwrap();
    Envelope {
        receipt_id: Uuid::nil(),
        key: EventKey::new(&source, "", "1", 0),
        source,
        tenant: String::new(),
        topic: topic.to_owned(),
        version: None,
        received_at: AT,
        attempt: 0,
        generation: 0,
        replay: None,
        over_http: true,
        body: body.into(),
    }
}

/// A JSON object of these fields, each value a literal; a change replaces a
/// field of the same name, and an empty literal leaves it out.
pub(super) fn object(fields: &[(&str, &str)], changes: &[(&str, &str)]) -> String {
    let mut merged: BTreeMap<&str, &str> = fields.iter().copied().collect();
    merged.extend(changes.iter().copied());
    merged.retain(|_, literal| !literal.is_empty());
    let members: Vec<_> =
        merged.iter().map(|(name, literal)| format!("\"{name}\":{literal}")).collect();
    format!("{{{}}}", members.join(","))
}

/// A configured source.
pub(super) struct Source(Config);

impl Source {
    /// A section with these settings, secrets (`env:NAME`) and tenants.
    pub(super) fn load(
        kind: &str,
        settings: &str,
        secrets: &[&str],
        tenants: &[&str],
    ) -> Result<Self, String> {
        let references: Vec<_> = secrets.iter().map(|name| format!("env:{name}")).collect();
        let text = format!(
            "[sources.inbox]\nkind = {kind:?}\nsecrets = {references:?}\ntenants = {tenants:?}\n{settings}"
        );
        let variables = SECRETS.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Config::from_toml(&text, &variables).map(Self).map_err(|error| format!("{error:#}"))
    }

    pub(super) fn adapter(&self) -> &Adapter {
        self.0.sources.values().next().unwrap()
    }
}

/// A call to be made.
struct Request {
    headers: HeaderMap,
    body: Bytes,
}

impl Request {
    fn set(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        self.headers.insert(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        self
    }

    fn made_to(&self, source: &Source) -> Result<Received, Rejection> {
        let call = Call { headers: &self.headers, query: "", body: &self.body, received_at: AT };
        source.adapter().receive(&call)
    }
}

impl Kind {
    fn source(&self, secrets: &[&str], tenants: &[&str]) -> Source {
        Source::load(self.word, self.settings, secrets, tenants)
            .unwrap_or_else(|error| panic!("{}: must be configurable: {error}", self.name))
    }

    fn plain(&self) -> Source {
        self.source(&["FIRST"], &[])
    }

    /// The row's good call, changed and then signed by `signer`'s first secret.
    fn request(&self, signer: &Source, deltas: &[Delta]) -> Request {
        let mut delivery = Delivery {
            topic: self.topic,
            tenant: self.tenant,
            event_id: "evt-1",
            triggered_at: AT,
            sent_at: AT,
            body: self.body,
        };
        for delta in deltas {
            match *delta {
                Topic(topic) => delivery.topic = topic,
                Tenant(tenant) => delivery.tenant = tenant,
                EventId(id) => delivery.event_id = id,
                Body(body) => delivery.body = body,
                Header(..) => {}
            }
        }
        let headers = signer.adapter().dress(&delivery).into_iter().collect();
        let dressed = Request { headers, body: Bytes::copy_from_slice(delivery.body) };
        deltas.iter().fold(dressed, |request, delta| match *delta {
            Header(name, value) => request.set(name, value),
            _ => request,
        })
    }

    /// The good call with another text as its signature, made to `source`.
    fn with_signature(
        &self,
        source: &Source,
        change: impl FnOnce(&str) -> String,
    ) -> Result<Received, Rejection> {
        let (header, prefix, _) = self.signature;
        let request = self.request(source, &[]);
        let whole = request.headers[header].to_str().unwrap().to_owned();
        let bare = whole.strip_prefix(prefix).unwrap();
        request.set(header, &format!("{prefix}{}", change(bare))).made_to(source)
    }

    /// The only event of a call that must be taken.
    fn event(&self, source: &Source, deltas: &[Delta], rule: &str) -> Event {
        match self.request(source, deltas).made_to(source) {
            Ok(Received::Events { events, .. }) if events.len() == 1 => events[0].clone(),
            other => panic!("{}: {rule} {deltas:?}: must be one event, is {other:?}", self.name),
        }
    }

    /// The event as the worker gets it.
    fn envelope(&self, source: &Source, deltas: &[Delta], rule: &str) -> Envelope {
        let event = self.event(source, deltas, rule);
        Envelope {
            tenant: event.tenant,
            version: event.version,
            ..envelope(&event.topic, event.body)
        }
    }

    fn refuses_signature(&self, result: &Result<Received, Rejection>, rule: &str) {
        assert!(
            matches!(result, Err(Rejection::Signature(_))),
            "{}: {rule}: must be refused for its signature, is {result:?}",
            self.name
        );
    }
}

fn label(result: &Result<Received, Rejection>) -> Option<&str> {
    match result {
        Ok(Received::Events { secret, .. }) => Some(secret),
        _ => None,
    }
}

#[test]
fn every_kind_has_a_row() {
    for kind in source::KINDS {
        assert!(KINDS.iter().any(|row| row.word == kind), "{kind}: has no row here");
    }
}

#[test]
fn signatures_are_what_another_program_makes() {
    for kind in &KINDS {
        let (header, _, _) = kind.signature;
        let source = kind.plain();
        let request = kind.request(&source, &[]);
        assert_eq!(request.headers[header], kind.known, "{}: known signature", kind.name);
        let given = request.set(header, kind.known).made_to(&source);
        assert_eq!(label(&given), Some("env:FIRST"), "{}: known signature", kind.name);
    }
}

#[test]
fn what_is_dressed_is_received() {
    for kind in &KINDS {
        let event = kind.event(&kind.plain(), &[], "round trip");
        assert_eq!(event.topic, kind.topic, "{}: the topic survives", kind.name);
        assert_eq!(event.tenant, kind.tenant, "{}: the tenant survives", kind.name);
        assert_eq!(event.body, kind.body, "{}: the body survives", kind.name);
        let repeats = kind.plain().adapter().rules().repeats_same_bytes;
        assert_eq!(repeats, kind.repeats_same_bytes, "{}: repeats the same bytes", kind.name);
    }
}

#[test]
fn a_tampered_body_is_refused() {
    for kind in &KINDS {
        let source = kind.plain();
        let mut request = kind.request(&source, &[]);
        for body in [&[kind.body, b" "].concat()[..], &kind.body[1..], b""] {
            request.body = Bytes::copy_from_slice(body);
            kind.refuses_signature(&request.made_to(&source), "tampered body");
        }
    }
}

#[test]
fn a_bad_signature_is_refused() {
    for kind in &KINDS {
        let source = kind.plain();
        let (_, _, encoding) = kind.signature;
        let changes: [(&str, Spoil); 9] = [
            ("tampered", |text| {
                let first = if text.starts_with('0') { '1' } else { '0' };
                format!("{first}{}", &text[1..])
            }),
            ("truncated by four characters", |text| text[..text.len() - 4].to_owned()),
            ("truncated by one character", |text| text[..text.len() - 1].to_owned()),
            ("without its padding", |text| match text.trim_end_matches('=') {
                bare if bare.len() < text.len() => bare.to_owned(),
                bare => bare[1..].to_owned(),
            }),
            ("lengthened", |text| format!("0000{text}")),
            ("twice", |text| format!("{text},{text}")),
            ("not of the alphabet", |text| "*".repeat(text.len())),
            ("with white space within", |text| format!("{} {}", &text[..8], &text[8..])),
            ("empty", |_| String::new()),
        ];
        for (rule, change) in changes {
            kind.refuses_signature(&kind.with_signature(&source, change), rule);
        }
        // The right bytes, written the wrong way.
        let other = match encoding {
            Encoding::Hex => Encoding::Base64,
            Encoding::Base64 => Encoding::Hex,
        };
        let recoded =
            kind.with_signature(&source, |text| other.encode(&encoding.decode(text).unwrap()));
        kind.refuses_signature(&recoded, "in the other encoding");
    }
}

#[test]
fn case_and_white_space_are_as_the_encoding_allows() {
    for kind in &KINDS {
        let source = kind.plain();
        let (header, _, encoding) = kind.signature;
        let upper = kind.with_signature(&source, str::to_ascii_uppercase);
        match encoding {
            Encoding::Hex => assert_eq!(
                label(&upper),
                Some("env:FIRST"),
                "{}: hexadecimal knows no case",
                kind.name
            ),
            Encoding::Base64 => kind.refuses_signature(&upper, "upper-case base64"),
        }
        let request = kind.request(&source, &[]);
        let padded = format!(" {}\t", request.headers[header].to_str().unwrap());
        let given = request.set(header, &padded).made_to(&source);
        assert!(given.is_ok(), "{}: white space around the signature: {given:?}", kind.name);
    }
}

#[test]
fn a_call_without_a_signature_is_refused() {
    for kind in &KINDS {
        let source = kind.plain();
        let (header, prefix, _) = kind.signature;
        let mut request = kind.request(&source, &[]);
        for value in ["", "  ", prefix] {
            request = request.set(header, value);
            kind.refuses_signature(&request.made_to(&source), "empty signature header");
        }
        request.headers.remove(header);
        kind.refuses_signature(&request.made_to(&source), "no signature header");
    }
}

#[test]
fn each_configured_secret_verifies_and_no_other() {
    for kind in &KINDS {
        let both = kind.source(&["FIRST", "SECOND"], &[]);
        for (signer, expected) in [("FIRST", "env:FIRST"), ("SECOND", "env:SECOND")] {
            let given = kind.request(&kind.source(&[signer], &[]), &[]).made_to(&both);
            assert_eq!(label(&given), Some(expected), "{}: rotated secret", kind.name);
        }
        let forged = kind.request(&kind.source(&["STRANGE"], &[]), &[]);
        kind.refuses_signature(&forged.made_to(&both), "wrong secret");
        kind.refuses_signature(&forged.made_to(&kind.plain()), "wrong secret");
    }
}

#[test]
fn an_empty_secret_is_refused_at_configuration() {
    for kind in &KINDS {
        for secrets in [&["EMPTY"][..], &["FIRST", "EMPTY"], &[]] {
            let error =
                Source::load(kind.word, kind.settings, secrets, &[]).err().unwrap_or_default();
            assert!(
                error.contains("sources.inbox.secrets"),
                "{}: empty secret {secrets:?}: must be refused by its key, is {error:?}",
                kind.name
            );
        }
    }
}

#[test]
fn only_tenants_of_the_allow_list_come_in() {
    for kind in &KINDS {
        for tenant in kind.allowed {
            let source = kind.source(&["FIRST"], &["nobody", tenant]);
            let rule = format!("tenant allowed as {tenant:?}");
            let event = kind.event(&source, &[], &rule);
            assert_eq!(event.tenant, kind.tenant, "{}: {rule}", kind.name);
            let given = kind.request(&source, &[kind.elsewhere]).made_to(&source);
            assert!(
                matches!(given, Err(Rejection::Tenant(_))),
                "{}: another tenant than {tenant:?}: {given:?}",
                kind.name
            );
        }
        for tenant in kind.foreign {
            let source = kind.source(&["FIRST"], &[tenant]);
            let given = kind.request(&source, &[]).made_to(&source);
            assert!(
                matches!(given, Err(Rejection::Tenant(_))),
                "{}: tenant {tenant:?} lets another in: {given:?}",
                kind.name
            );
        }
        let source = kind.source(&["FIRST"], kind.allowed);
        for delta in kind.alike {
            let event = kind.event(&source, &[*delta], "the same tenant, written otherwise");
            assert_eq!(event.tenant, kind.tenant, "{}: {delta:?}", kind.name);
        }
        let anywhere = kind.event(&kind.plain(), &[kind.elsewhere], "no allow-list");
        assert_ne!(anywhere.tenant, kind.tenant, "{}: elsewhere is another tenant", kind.name);
    }
}

#[test]
fn a_forged_call_learns_nothing_but_that() {
    // Neither the tenant nor the content type is looked at first.
    for kind in &KINDS {
        let source = kind.source(&["FIRST"], kind.allowed);
        let forged = kind
            .request(&kind.source(&["STRANGE"], &[]), &[kind.elsewhere])
            .set("content-type", "text/html");
        kind.refuses_signature(&forged.made_to(&source), "forged call of another tenant");
    }
}

#[test]
fn json_is_taken_under_all_its_media_types() {
    for kind in &KINDS {
        let source = kind.plain();
        for taken in [
            "application/json",
            "application/json; charset=utf-8",
            "Application/JSON;charset=UTF-8",
            "application/vnd.api+json",
            "application/cloudevents+json; charset=utf-8",
            "",
        ] {
            let given = kind.request(&source, &[Header("content-type", taken)]).made_to(&source);
            assert!(given.is_ok(), "{}: content type {taken:?}: {given:?}", kind.name);
        }
        let request = kind.request(&source, &[]);
        assert!(!request.headers.contains_key("content-type"), "{}: has a type", kind.name);
        assert!(request.made_to(&source).is_ok(), "{}: no content type", kind.name);
        for refused in ["application/x-www-form-urlencoded", "text/plain", "application/jsonp"] {
            let given = kind.request(&source, &[Header("content-type", refused)]).made_to(&source);
            assert_eq!(
                given,
                Err(Rejection::ContentType(refused.to_owned())),
                "{}: content type",
                kind.name
            );
        }
    }
}

#[test]
fn an_authentic_body_that_is_not_json_is_kept_and_buried() {
    for kind in &KINDS {
        let source = kind.plain();
        for body in [&b"<order/>"[..], b"", b"{\"id\":1", b"\xff\xfe{}", b"webhook_id=1"] {
            let rule = "authentic, not JSON";
            let envelope = kind.envelope(&source, &[Body(body)], rule);
            assert_eq!(envelope.body, body, "{}: {rule}: the body is kept", kind.name);
            let failure = source.adapter().map(&envelope).map_err(|failure| failure.reason);
            assert_eq!(failure, Err(Reason::InvalidJson), "{}: {rule}: {body:?}", kind.name);
            assert_eq!(source.adapter().number(&envelope), None, "{}: {rule}", kind.name);
        }
    }
}

#[test]
fn the_event_id_is_equal_on_redelivery_and_on_nothing_else() {
    for kind in &KINDS {
        let source = kind.plain();
        let id = |delta: &[Delta]| kind.event(&source, delta, "event id").event_id;
        let first = id(&[]);
        assert!(!first.is_empty(), "{}: the event id is empty", kind.name);
        assert_eq!(id(&[]), first, "{}: the same call", kind.name);
        for delta in kind.redelivered {
            assert_eq!(id(&[*delta]), first, "{}: redelivered with {delta:?}", kind.name);
        }
        for delta in kind.another {
            assert_ne!(id(&[*delta]), first, "{}: another event by {delta:?}", kind.name);
        }
    }
}

#[test]
fn the_number_can_be_read_though_the_mapping_fails() {
    for kind in &KINDS {
        let source = kind.plain();
        let good = kind.envelope(&source, &[], "good body");
        match source.adapter().map(&good) {
            Ok(Mapped::Change(change)) => assert_eq!(
                change.business_key(),
                kind.number,
                "{}: the number of the document",
                kind.name
            ),
            other => panic!("{}: a good body must change the books: {other:?}", kind.name),
        }
        let bad = kind.envelope(&source, &[Body(kind.unmappable)], "unmappable body");
        let failure = source.adapter().map(&bad);
        assert!(
            failure.as_ref().is_err_and(|failure| failure.field.starts_with('/')),
            "{}: an unmappable body must name its field: {failure:?}",
            kind.name
        );
        for envelope in [&good, &bad] {
            assert_eq!(
                source.adapter().number(envelope).as_deref(),
                Some(kind.number),
                "{}: the number",
                kind.name
            );
        }
    }
}
