//! `CloudEvents` in all three modes.

use std::collections::BTreeMap;

use time::{OffsetDateTime, macros::datetime};
use uuid::Uuid;

use super::*;
use crate::{
    app::Components,
    domain::ReasonCode,
    sources::{Received, Source, conformance::envelope},
};

const AT: OffsetDateTime = datetime!(2026-01-02 3:04:05 UTC);
const STRUCTURED: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json; charset=utf-8";
const ORDERS: &str = r#"
    [sources.inbox.event]
    tenant = "attribute:company"
    [sources.inbox.order]
    topics = ["com.example.order.*"]
    id = "/id"
    currency = "const:EUR"
    total = "/total"
"#;

/// The headers of an event in binary mode.
const BINARY: [(&str, &str); 6] = [
    ("ce-specversion", "1.0"),
    ("ce-id", "A 1"),
    ("ce-source", "/shop"),
    ("ce-type", "com.example.order.paid"),
    ("ce-time", "2026-01-02T04:00:00+01:00"),
    ("ce-company", "Acme"),
];

fn load(settings: &str) -> Result<Components, String> {
    let text = format!("[sources.inbox]\nkind = 'cloudevents'\nsecrets = ['env:S']\n{settings}");
    let variables = BTreeMap::from([("S".to_owned(), "user:token".to_owned())]);
    Components::from_toml(&text, &variables).map_err(|error| format!("{error:#}"))
}

fn source_of(config: &Components) -> &Source {
    config.sources.values().next().unwrap()
}

fn request(
    config: &Components,
    headers: &[(&str, &str)],
    query: &str,
    body: &str,
) -> Result<Vec<Event>, Rejection> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name: HeaderName = name.parse().unwrap();
        map.insert(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    let body = Bytes::copy_from_slice(body.as_bytes());
    let request = WebhookRequest { headers: &map, query, body: &body, received_at: AT };
    match source_of(config).receive(&request)? {
        Received::Events { events, .. } => Ok(events),
        Received::Ping => panic!("a ping"),
    }
}

/// Sends an authentic request with these headers.
fn receive(settings: &str, headers: &[(&str, &str)], body: &str) -> Result<Vec<Event>, Rejection> {
    let headers = [&[("authorization", "Bearer user:token")], headers].concat();
    request(&load(settings).unwrap(), &headers, "", body)
}

fn document(media_type: &str, body: &str) -> Result<Vec<Event>, Rejection> {
    receive(ORDERS, &[("content-type", media_type)], body)
}

fn unreadable(result: Result<Vec<Event>, Rejection>) -> String {
    match result {
        Err(Rejection::Malformed(detail)) => detail,
        other => panic!("{other:?}"),
    }
}

/// An event as JSON; an empty literal removes the member.
fn event(changes: &[(&str, &str)]) -> String {
    let members = [
        ("specversion", "\"1.0\""),
        ("id", "\"A 1\""),
        ("source", "\"/shop\""),
        ("type", "\"com.example.order.paid\""),
        ("time", "\"2026-01-02T03:00:00Z\""),
        ("company", "\"Acme\""),
        ("data", r#"{"id": 7,"total":1.50}"#),
    ];
    crate::sources::conformance::json_object(&members, changes)
}

fn expected(data: &str) -> Event {
    Event {
        event_id: "/shop A 1".to_owned(),
        tenant: "Acme".to_owned(),
        topic: "com.example.order.paid".to_owned(),
        version: Some(datetime!(2026-01-02 3:00 UTC)),
        body: Bytes::copy_from_slice(data.as_bytes()),
    }
}

#[test]
fn cloudevents_data_may_be_any_json() {
    for (changes, data) in [
        (&[("data", "\"text\"")][..], "\"text\""),
        (&[("data", "[1, 2]")], "[1, 2]"),
        (&[("data", "9007199254740993.10")], "9007199254740993.10"),
        (&[("data", "null")], "null"),
        (&[("data", "")], "null"),
        (&[("data", "null"), ("data_base64", "\"e30=\"")], "{}"),
        (&[("data", ""), ("data_base64", "\"\"")], ""),
    ] {
        assert_eq!(document(STRUCTURED, &event(changes)), Ok(vec![expected(data)]), "{changes:?}");
    }
    for literal in ["\"*\"", "\"aGk\"", "1", "{}"] {
        let body = event(&[("data", ""), ("data_base64", literal)]);
        let error = unreadable(document(STRUCTURED, &body));
        assert_eq!(error, "/data_base64 is not base64", "{literal}");
    }
    let both = event(&[("data_base64", "\"aGk=\"")]);
    assert!(unreadable(document(STRUCTURED, &both)).contains("/data_base64"));
    // In binary mode, the body is kept unchanged; mapping fails if it is unreadable.
    let events = receive(ORDERS, &BINARY, "").unwrap();
    assert_eq!(events, [expected("")]);
}

#[test]
fn cloudevents_required_attributes_are_checked() {
    for name in ["specversion", "id", "source", "type"] {
        let header = format!("ce-{name}");
        let without: Vec<_> = BINARY.into_iter().filter(|(key, _)| *key != header).collect();
        let error = unreadable(receive(ORDERS, &without, "{}"));
        assert_eq!(error, format!("the header {header} is missing or empty"));
        for literal in ["", "null", "\"\""] {
            let broken = event(&[(name, literal)]);
            let error = unreadable(document(STRUCTURED, &broken));
            assert_eq!(error, format!("/{name} is missing or empty"), "{literal}");
            // One invalid event rejects the batch, and the error says which.
            let batch = format!("[{},{},{broken}]", event(&[]), event(&[]));
            let error = unreadable(document(BATCH, &batch));
            assert_eq!(error, format!("/2/{name} is missing or empty"), "{literal}");
        }
        let error = unreadable(document(STRUCTURED, &event(&[(name, "{}")])));
        assert_eq!(error, format!("/{name} is a list or an object"));
    }
    let error = unreadable(document(STRUCTURED, &event(&[("specversion", "\"0.3\"")])));
    assert_eq!(error, "/specversion is \"0.3\"; only 1.0 is supported");
    // Optional attributes may be invalid.
    let events = document(STRUCTURED, &event(&[("time", "\"soon\""), ("company", "")])).unwrap();
    assert_eq!((events[0].version, events[0].tenant.as_str()), (None, ""));
}

#[test]
fn cloudevents_headers_are_decoded_once() {
    // In the event id, the source is encoded again.
    let source = |value: &str| {
        let headers = [&BINARY[..], &[("ce-source", value)]].concat();
        receive(ORDERS, &headers, "{}").map(|mut events| events.remove(0).event_id)
    };
    for (value, decoded) in [
        ("/m%C3%BCller", "/m%C3%BCller"),
        ("/müller", "/m%C3%BCller"),
        ("\"/a b\"", "/a%20b"),
        (r#""/a\"b\\c""#, r#"/a"b\c"#),
        ("\"/a", "\"/a"),
        // Decoded once it is `%20`, which the event id must distinguish from a space.
        ("/a%2520b", "/a%2520b"),
        ("/a%20b", "/a%20b"),
        ("/100%", "/100%25"),
    ] {
        assert_eq!(source(value), Ok(format!("{decoded} A 1")), "{value}");
    }
    for value in ["/a%FF", "%C3", "\"%ED%A0%80\""] {
        let detail = "the header ce-source is not UTF-8".to_owned();
        assert_eq!(source(value), Err(Rejection::Malformed(detail)), "{value}");
    }
    assert!(source("\"\"").is_err());
}

#[test]
fn cloudevents_event_id_separates_source_and_id() {
    let id = |source: &str, id: &str| {
        let body = event(&[("source", source), ("id", id)]);
        document(STRUCTURED, &body).unwrap().remove(0).event_id
    };
    assert_ne!(id("\"a b\"", "\"c\""), id("\"a\"", "\"b c\""));
    assert_ne!(id("\"a%20b\"", "\"c\""), id("\"a b\"", "\"c\""));
    assert_eq!(id("\"a\"", "9007199254740993"), "a 9007199254740993");
}

#[test]
fn cloudevents_malformed_body_error_has_the_location() {
    for (media_type, body, part) in [
        (STRUCTURED, "", "the body is not an event in JSON"),
        (STRUCTURED, "[]", "the body is not an event in JSON"),
        (STRUCTURED, "{\"id\":1", "the body is not an event in JSON"),
        (BATCH, "{}", "the body is not a JSON list of events"),
        (BATCH, "[1]", "/0 is not an event in JSON"),
        (BATCH, "[{}] x", "the body is not a JSON list of events"),
    ] {
        let error = unreadable(document(media_type, body));
        assert!(error.contains(part), "{media_type} {body}: {error}");
    }
    let many = |count: usize| document(BATCH, &format!("[{}]", vec![event(&[]); count].join(",")));
    assert_eq!(many(1000).map(|events| events.len()), Ok(1000));
    assert_eq!(unreadable(many(1001)), "the batch has more than 1000 events");
    for media_type in
        ["application/cloudevents+avro", "application/cloudevents-batch+xml", "text/xml"]
    {
        let refused = document(media_type, "{}");
        assert_eq!(refused, Err(Rejection::UnsupportedMediaType(media_type.to_owned())));
    }
}

#[test]
fn cloudevents_empty_batch_is_ignored() {
    let everything = "[sources.inbox.order]\nid = '/id'\ncurrency = 'const:EUR'\ntotal = '/t'\n";
    for settings in ["", ORDERS, everything] {
        let config = load(settings).unwrap();
        let events = receive(settings, &[("content-type", BATCH)], "[ ]").unwrap();
        assert_eq!(events.len(), 1);
        assert_eq!((events[0].topic.as_str(), events[0].tenant.as_str()), ("empty_batch", ""));
        assert_eq!(events[0].event_id, sha256_hex(b"[ ]"));
        let mapped = source_of(&config).map(&envelope("empty_batch", "[ ]".to_owned()));
        assert_eq!(mapped, Ok(MappedEvent::Ignored), "{settings}");
    }
}

#[test]
fn cloudevents_tenant_is_selected_by_settings() {
    let tenant = |from: &str, media_type: &str, body: &str| {
        let settings = format!("[sources.inbox.event]\ntenant = '{from}'\n");
        let headers = [&BINARY[..], &[("content-type", media_type), ("x-company", "H")]].concat();
        receive(&settings, &headers, body).unwrap().remove(0).tenant
    };
    let data = r#"{"company":"D"}"#;
    let structured = event(&[("data", data), ("company", "\"S\"")]);
    for (from, binary, document) in [
        ("attribute:company", "Acme", "S"),
        ("attribute:none", "", ""),
        ("/company", "D", "D"),
        ("header:X-Company", "H", "H"),
        ("const:C", "C", "C"),
    ] {
        assert_eq!(tenant(from, "application/json", data), binary, "{from}");
        assert_eq!(tenant(from, STRUCTURED, &structured), document, "{from}");
    }
    let config = load(ORDERS).unwrap();
    let mut without_tenant = envelope("com.example.order.paid", r#"{"id":1,"total":1}"#.to_owned());
    without_tenant.tenant.clear();
    let failure = source_of(&config).map(&without_tenant).unwrap_err();
    assert_eq!(
        (failure.reason, failure.field.as_str()),
        (ReasonCode::MissingField, "attribute:company")
    );
    // The allow-list is case-sensitive.
    for (allowed, let_in) in [("Acme", true), ("acme", false)] {
        let settings = format!("tenants = ['{allowed}']\n{ORDERS}");
        assert_eq!(receive(&settings, &BINARY, "{}").is_ok(), let_in, "{allowed}");
    }
}

#[test]
fn cloudevents_foreign_event_with_long_topic_is_accepted() {
    let settings = format!("tenants = ['Acme']\n{ORDERS}");
    let topic = "é".repeat(125);
    let foreign = event(&[("id", "2"), ("company", "\"Other\""), ("type", &format!("{topic:?}"))]);
    let batch = format!("[{},{foreign}]", event(&[]));
    let headers = [("content-type", "application/cloudevents-batch+json")];
    let events = receive(&settings, &headers, &batch).unwrap();
    assert_eq!(events.len(), 2);
    for event in events {
        let envelope = event.envelope(&"inbox".parse().unwrap(), Uuid::nil(), AT, "env:S");
        assert!(envelope.is_ok(), "{envelope:?}");
    }
}

#[test]
fn cloudevents_basic_and_hmac_authenticate() {
    let is_accepted = |config: &Components, headers: &[(&str, &str)], query: &str| {
        request(config, &[&BINARY[..], headers].concat(), query, "{}").is_ok()
    };
    let basic = load("authentication = 'basic'").unwrap();
    assert!(is_accepted(&basic, &[("authorization", "Basic dXNlcjp0b2tlbg==")], ""));
    assert!(!is_accepted(&basic, &[], "access_token=user%3Atoken"));
    let signed = "authentication = 'hmac'\n[sources.inbox.signature]\n\
                  template = '{id}.{body}'\nid = 'header:ce-id'\n";
    for settings in ["", "authentication = 'basic'", signed] {
        let config = load(settings).unwrap();
        let webhook = OutgoingWebhook {
            topic: "größe 1%",
            tenant: "acme",
            event_id: "e 1",
            triggered_at: AT,
            sent_at: AT,
            body: b"{}",
        };
        let headers = source_of(&config).signed_headers(&webhook);
        let headers: Vec<_> =
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        let events = request(&config, &headers, "", "{}").unwrap();
        assert_eq!(events[0].event_id, "/tallyhook/send e 1", "{settings}");
        assert_eq!((events[0].topic.as_str(), events[0].version), ("größe 1%", Some(AT)));
        assert!(request(&config, &BINARY, "", "{}").is_err(), "{settings}");
    }
}

#[test]
fn cloudevents_handshake_accepts_allowed_origins() {
    let allowed_origin = |settings: &str, origin: Option<&str>| {
        let mut headers = HeaderMap::new();
        if let Some(origin) = origin {
            headers.insert("webhook-request-origin", origin.parse().unwrap());
            headers.insert("webhook-request-rate", "120".parse().unwrap());
        }
        let allowed_origin = source_of(&load(settings).unwrap()).handshake(&headers)?;
        let text = |name: &str| allowed_origin[name].to_str().unwrap().to_owned();
        assert_eq!((text("allow").as_str(), text("webhook-allowed-rate").as_str()), ("POST", "*"));
        Some(text("webhook-allowed-origin"))
    };
    let listed = "allowed_origins = ['a.example', 'b.example']";
    assert_eq!(allowed_origin("", Some("a.example")).as_deref(), Some("*"));
    assert_eq!(allowed_origin(listed, Some("B.example")).as_deref(), Some("B.example"));
    assert_eq!(allowed_origin(listed, Some("c.example")), None);
    assert_eq!(allowed_origin(listed, Some("*")), None);
    assert_eq!(allowed_origin("allowed_origins = []", Some("a.example")), None);
    assert_eq!(allowed_origin("", None), None);
}

#[test]
fn cloudevents_invalid_settings_name_the_key() {
    for (settings, key) in [
        ("allowed_origins = ['']", "sources.inbox.allowed_origins"),
        ("tenants = ['a']", "sources.inbox.event.tenant"),
        ("[sources.inbox.signature]\n", "sources.inbox.signature"),
        ("[sources.inbox.event]\ntenant = 'attribute:A'\n", "attribute"),
        ("[sources.inbox.event]\ntenant = 'company'\n", "attribute:NAME"),
        ("[sources.inbox.event]\nid = '/id'\n", "id"),
        (
            "authentication = 'hmac'\n[sources.inbox.signature]\ntemplate = 'x'",
            "signature.template",
        ),
    ] {
        let error = load(settings).err().unwrap_or_default();
        assert!(error.contains("sources.inbox") && error.contains(key), "{settings}: {error}");
    }
}

#[test]
fn cloudevents_signed_event_in_binary_mode_is_rejected() {
    let settings = format!("authentication = 'hmac'\ntenants = ['Acme', 'Other']\n{ORDERS}");
    let config = load(&settings).unwrap();
    let secret = Secret::new("env:S", Key::shared("user:token")).unwrap();
    let send = |media_type: &str, body: &str| {
        let hmac = secret.hmac(crate::sources::signature::Algorithm::Sha256, &[body.as_bytes()]);
        let signature = data_encoding::HEXLOWER.encode(&hmac);
        let own = [("x-signature", signature.as_str()), ("content-type", media_type)];
        let headers: Vec<_> = BINARY.into_iter().chain(own).collect();
        request(&config, &headers, "", body)
    };
    let document = event(&[("company", "\"Other\"")]);
    for (own, body) in [(STRUCTURED, document.clone()), (BATCH, format!("[{document}]"))] {
        assert_eq!(send(own, &body).unwrap()[0].tenant, "Other");
        let error = unreadable(send("application/json", &body));
        assert!(error.contains("complete event"), "{error}");
    }
    assert_eq!(send("application/json", r#"{"id":7}"#).unwrap()[0].tenant, "Acme");
}
