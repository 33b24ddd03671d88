//! GitHub's webhooks, as JSON and as forms.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use time::OffsetDateTime;

use crate::{
    app::Components,
    domain::{Change, MappedEvent, ReasonCode},
    sources::{
        Event, OutgoingWebhook, Received, Rejection, Source, WebhookRequest, conformance::envelope,
    },
};

const ORDERS: &str = r#"
    [sources.inbox.order]
    id = "/id"
    currency = "const:EUR"
    total = "/total"
"#;

fn source(secret: &str, settings: &str) -> Result<Components, String> {
    let text = format!("[sources.inbox]\nkind = 'github'\nsecrets = ['env:S']\n{settings}");
    let variables = BTreeMap::from([("S".to_owned(), secret.to_owned())]);
    Components::from_toml(&text, &variables).map_err(|error| format!("{error:#}"))
}

fn source_of(config: &Components) -> &Source {
    config.sources.values().next().unwrap()
}

fn receive(config: &Components, headers: &[(&str, &str)], body: &str) -> Result<Event, Rejection> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name: HeaderName = name.parse().unwrap();
        map.insert(name, HeaderValue::from_str(value).unwrap());
    }
    let body = Bytes::copy_from_slice(body.as_bytes());
    let received_at = OffsetDateTime::UNIX_EPOCH;
    let request = WebhookRequest { headers: &map, query: "", body: &body, received_at };
    match source_of(config).receive(&request)? {
        Received::Events { mut events, .. } if events.len() == 1 => Ok(events.remove(0)),
        other => panic!("{other:?}"),
    }
}

/// The headers of a signed webhook.
fn signed(config: &Components, topic: &str, body: &str) -> Vec<(String, String)> {
    let at = OffsetDateTime::UNIX_EPOCH;
    let webhook = OutgoingWebhook {
        topic,
        tenant: "",
        event_id: "d-1",
        triggered_at: at,
        sent_at: at,
        body: body.as_bytes(),
    };
    let text = |value: HeaderValue| value.to_str().unwrap().to_owned();
    let headers = source_of(config).signed_headers(&webhook).into_iter();
    headers.map(|(name, value)| (name.to_string(), text(value))).collect()
}

fn form(config: &Components, body: &str) -> Result<Event, Rejection> {
    let headers = signed(config, "push", body);
    let mut headers: Vec<_> =
        headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    headers.push(("content-type", "application/x-www-form-urlencoded; charset=utf-8"));
    receive(config, &headers, body)
}

#[test]
fn github_signature_matches_published_vectors() {
    for (secret, body, signature) in [
        (
            "It's a Secret to Everybody",
            "Hello, World!",
            "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
        ),
        (
            "mysecret",
            r#"{"foo":"bar"}"#,
            "sha256=4864d2759938a15468b5df9ade20bf161da9b4f737ea61794142f3484236bda3",
        ),
    ] {
        let headers = [
            ("X-Hub-Signature-256", signature),
            ("X-GitHub-Delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
            ("X-GitHub-Event", "issues"),
        ];
        let event = receive(&source(secret, "").unwrap(), &headers, body).unwrap();
        assert_eq!(event.event_id, "72d3162e-cc78-11e3-81ab-4c9367dc0958");
        assert_eq!((event.topic.as_str(), event.tenant.as_str()), ("issues", ""));
        let wrong_secret = receive(&source("other", "").unwrap(), &headers, body);
        assert_eq!(wrong_secret, Err(Rejection::invalid_signature()));
        // The older signature is SHA-1 and ignored.
        let headers = [("X-Hub-Signature", signature), ("X-GitHub-Event", "issues")];
        let error = receive(&source(secret, "").unwrap(), &headers, body).unwrap_err();
        assert_eq!(error.to_string(), "the header x-hub-signature-256 is missing or empty");
    }
}

#[test]
fn github_form_is_stored_as_json() {
    let config = source("s", "").unwrap();
    for (body, json) in [
        ("payload=%7B%22a%22%3A%22b+c%2Bd%22%7D", r#"{"a":"b c+d"}"#),
        ("x=1&payload=%22%C3%BC%22&payload=2", "\"ü\""),
        ("payload=", ""),
        // A body without such a field is kept unchanged.
        ("load=%7B%7D", "load=%7B%7D"),
        ("payload=%22%FF%22", "payload=%22%FF%22"),
        ("", ""),
    ] {
        let event = form(&config, body).unwrap();
        assert_eq!(event.body, json, "{body}");
        assert_eq!(event.event_id, "d-1");
    }
    let tampered = receive(
        &config,
        &[
            ("content-type", "application/x-www-form-urlencoded"),
            ("x-hub-signature-256", &signed(&config, "push", "payload={}")[2].1),
        ],
        "payload=%7B%7D",
    );
    assert_eq!(tampered, Err(Rejection::invalid_signature()));
    // Only forms are parsed as forms, and the field is configurable.
    let headers = signed(&config, "push", "payload=1");
    let headers: Vec<_> =
        headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(receive(&config, &headers, "payload=1").unwrap().body, "payload=1");
    let other = source("s", "form = 'data'").unwrap();
    assert_eq!(form(&other, "payload=1&data=2").unwrap().body, "2");
}

#[test]
fn github_ping_is_ignored_unless_listed() {
    let mapped = |settings: &str, topic: &str| {
        let config = source("s", settings).unwrap();
        source_of(&config).map(&envelope(topic, r#"{"id":1,"total":2}"#.to_owned()))
    };
    assert_eq!(mapped("", "push"), Ok(MappedEvent::Ignored));
    assert_eq!(mapped("", "ping"), Ok(MappedEvent::Ignored));
    assert_eq!(mapped(ORDERS, "ping"), Ok(MappedEvent::Ignored));
    assert_eq!(mapped(&format!("{ORDERS}topics = ['p*']"), "ping"), Ok(MappedEvent::Ignored));
    let order = |result| matches!(result, Ok(MappedEvent::Change(Change::Order(_))));
    assert!(order(mapped(ORDERS, "push")));
    assert!(order(mapped(&format!("{ORDERS}topics = ['ping']"), "ping")));
    let config = source("s", ORDERS).unwrap();
    let broken = source_of(&config).map(&envelope("push", "payload=".to_owned())).unwrap_err();
    assert_eq!(broken.reason, ReasonCode::InvalidJson);
}

#[test]
fn github_defaults_can_be_overridden() {
    let gitea = "[sources.inbox.signature]\nheader = 'X-Gitea-Signature'\nprefix = ''\n\
                 [sources.inbox.event]\nid = 'header:X-Gitea-Delivery'\ntopic = '/type'\n\
                 tenant = '/owner'\n";
    let config = source("s", gitea).unwrap();
    let body = r#"{"type":"push","owner":"Acme"}"#;
    let headers = signed(&config, "push", body);
    let names: Vec<_> = headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["x-gitea-delivery", "x-gitea-signature"]);
    let headers: Vec<_> =
        headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let event = receive(&config, &headers, body).unwrap();
    assert_eq!((event.topic.as_str(), event.tenant.as_str()), ("push", "Acme"));

    let config = source("s", "authentication = 'bearer'").unwrap();
    assert!(receive(&config, &[("authorization", "Bearer s")], body).is_ok());
    assert!(receive(&config, &[("authorization", "Bearer t")], body).is_err());

    for (settings, key) in [
        ("form = ''", "sources.inbox.form"),
        ("tenants = ['a']", "sources.inbox.event.tenant"),
        ("authentication = 'bearer'\n[sources.inbox.signature]\n", "sources.inbox.signature"),
        ("[sources.inbox.signature]\nitem = 'a'\nlist = true", "sources.inbox.signature.list"),
    ] {
        let error = source("s", settings).err().unwrap_or_default();
        assert!(error.contains(key), "{settings}: {error}");
    }
    // The allow-list is case-sensitive.
    let config = source("s", &format!("tenants = ['Acme']\n{gitea}")).unwrap();
    assert!(receive(&config, &headers, body).is_ok());
}
