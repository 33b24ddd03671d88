//! Published signatures, secret formats, and mapping by settings. The profiles are tested
//! in a module of their own.

mod profiles;

use bytes::Bytes;
use data_encoding::BASE64;
use http::HeaderMap;
use time::{Duration as Span, OffsetDateTime, macros::datetime};

use super::*;
use crate::{
    app::Components,
    domain::{OrderUpdate, ReasonCode, RefundStatus, RefundTarget},
    sources::{
        Received, Source,
        conformance::{envelope, json_object},
    },
};

// Vector (a) of the specification's libraries.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
const TIME: &str = "1614265330";
const BODY: &str = r#"{"test": 2432232314}"#;
const V1: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
const AT: OffsetDateTime = datetime!(2021-02-25 15:02:10 UTC);
// Vector (c) of its Go library.
const V1A: &str =
    "v1a,tQ9V2XOqn7jL/DQenEFpqIugdBVtiMmER5mhSkXBNwM0mkATuDe6KYYUuxqtaiHeYGb7KaaBRdM5WqyeFiL8Ag==";
const SEED: &str = "whsk_VEVTVFNJR05JTkdLRVlET05PVFVTRVRISVNGT1JBTlk=";
const PUBLIC: &str = "whpk_ZlN4eg7dSSqi0moX9hQUk3orrOouK3QVQSlJa248c/g=";
const OTHER: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

const NAMES: [&str; 3] = HEADER_FAMILIES[0];
const SVIX: [&str; 3] = HEADER_FAMILIES[1];

fn load(settings: &str, secret: &str) -> Result<Components, String> {
    let text = format!(
        "[sources.s]\nkind = 'standard_webhooks'\nsecrets = ['env:S', 'env:T']\n{settings}"
    );
    let other = if settings.contains("bigcommerce") { "another" } else { OTHER };
    let variables =
        [("S", secret), ("T", other)].map(|(name, value)| (name.to_owned(), value.to_owned()));
    Components::from_toml(&text, &variables.into()).map_err(|error| format!("{error:#}"))
}

fn headers(given: &[(&str, &str)]) -> HeaderMap {
    given
        .iter()
        .map(|(name, value)| {
            (
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            )
        })
        .collect()
}

fn receive_at(
    (settings, secret): (&str, &str),
    given: &[(&str, &str)],
    body: &'static str,
    received_at: OffsetDateTime,
) -> Result<Received, Rejection> {
    let config = load(settings, secret).unwrap();
    let (headers, body) = (headers(given), Bytes::from_static(body.as_bytes()));
    let request = WebhookRequest { headers: &headers, query: "", body: &body, received_at };
    config.sources.values().next().unwrap().receive(&request)
}

/// The vector's request with these signatures.
fn signed(secret: &str, signatures: &str) -> Result<Received, Rejection> {
    let given = [(NAMES[0], ID), (NAMES[1], TIME), (NAMES[2], signatures)];
    receive_at(("", secret), &given, BODY, AT)
}

fn is_accepted(received: &Result<Received, Rejection>) -> bool {
    match received {
        Ok(_) => true,
        Err(Rejection::InvalidSignature(_)) => false,
        other => panic!("{other:?}"),
    }
}

#[test]
fn standard_webhooks_signatures_match_published_vectors() {
    for (secret, signature) in [(SECRET, V1), (SEED, V1A), (PUBLIC, V1A)] {
        let Ok(Received::Events { events, secret_label: label }) = signed(secret, signature) else {
            panic!("{secret} must verify {signature}");
        };
        let expected = Event {
            event_id: ID.to_owned(),
            tenant: String::new(),
            topic: String::new(),
            version: None,
            body: Bytes::from_static(BODY.as_bytes()),
        };
        assert_eq!((events.as_slice(), label.as_str()), (&[expected][..], "env:S"));
    }
    // Vector (b) of its Rust library, also with Svix's header names.
    let body = r#"{"email":"test@example.com","username":"test_user"}"#;
    for names in HEADER_FAMILIES {
        let given = [
            (names[0], "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk"),
            (names[1], "1649367553"),
            (names[2], "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw="),
        ];
        let at = datetime!(2022-04-07 21:39:13 UTC);
        assert!(is_accepted(&receive_at(("", OTHER), &given, body, at)), "{names:?}");
    }
}

#[test]
fn standard_webhooks_signature_of_another_type_is_rejected() {
    let hmac = V1.strip_prefix("v1,").unwrap();
    let ed25519 = V1A.strip_prefix("v1a,").unwrap();
    let zeros = format!("v1,{} ", BASE64.encode(&[0; 32]));
    for (secret, signatures) in [
        (SECRET, format!("v1a,{hmac}")),
        (SECRET, V1A.to_owned()),
        (PUBLIC, format!("v1,{ed25519}")),
        (PUBLIC, "v1a,AAAA".to_owned()),
        (PUBLIC, V1.to_owned()),
        // After the maximum number of signatures.
        (SECRET, format!("{}{V1}", zeros.repeat(MAX_SIGNATURES))),
    ] {
        assert!(!is_accepted(&signed(secret, &signatures)), "{secret} {signatures}");
    }
}

#[test]
fn standard_webhooks_header_families_are_not_mixed() {
    let values = [ID, TIME, V1];
    for mix in 0..8_usize {
        let family = |index: usize| &HEADER_FAMILIES[(mix >> index) & 1];
        let given: Vec<_> = (0..3).map(|index| (family(index)[index], values[index])).collect();
        let is_complete = mix == 0 || mix == 7;
        assert_eq!(
            is_accepted(&receive_at(("", SECRET), &given, BODY, AT)),
            is_complete,
            "{given:?}"
        );
    }
    // The event id is the signed one.
    let beside = [(SVIX[0], ID), (SVIX[1], TIME), (SVIX[2], V1), (NAMES[0], "another")];
    let Ok(Received::Events { events, .. }) = receive_at(("", SECRET), &beside, BODY, AT) else {
        panic!("a complete family must verify");
    };
    assert_eq!(events[0].event_id, ID);
    // If both are complete, the specification's family takes precedence.
    let both = [&beside[..], &[(NAMES[1], TIME), (NAMES[2], V1)]].concat();
    assert!(!is_accepted(&receive_at(("", SECRET), &both, BODY, AT)));
}

#[test]
fn standard_webhooks_tolerance_follows_settings() {
    let given = [(NAMES[0], ID), (NAMES[1], TIME), (NAMES[2], V1)];
    for (settings, edge) in [("tolerance_s = 0", 0), ("tolerance_s = 86400", 86_400)] {
        for (difference_s, expected) in [(0, true), (edge, true), (edge + 1, false)] {
            for at in [AT + Span::seconds(difference_s), AT - Span::seconds(difference_s)] {
                let received = receive_at((settings, SECRET), &given, BODY, at);
                assert_eq!(is_accepted(&received), expected, "{settings} {at}");
            }
        }
    }
}

#[test]
fn standard_webhooks_secret_type_is_its_prefix() {
    let key = secret::parse_key;
    let bytes = BASE64.decode(b"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    for text in [SECRET, &SECRET["whsec_".len()..], &format!(" {SECRET}\n")] {
        let key = key(text).unwrap();
        assert!(matches!(key, Key::Shared(_)) && key.expose() == bytes, "{text}");
    }
    let long = vec![0xfb; 64];
    let padded = BASE64.encode(&long);
    for text in [padded.as_str(), padded.trim_end_matches('=')] {
        assert_eq!(key(&format!("whsec_{text}")).unwrap().expose(), long);
    }
    let seed = b"TESTSIGNINGKEYDONOTUSETHISFORANY".to_vec();
    let is_seed = |key: Key| matches!(key, Key::Seed(_)) && key.expose() == seed;
    assert!(is_seed(key(SEED).unwrap()));
    let Ok(Key::Public(public)) = key(PUBLIC) else { panic!("is public") };
    let pair = format!("whsk_{}", BASE64.encode(&[seed.clone(), public.clone()].concat()));
    assert!(is_seed(key(&pair).unwrap()));

    let torn = format!("whsk_{}", BASE64.encode(&[public, seed.clone()].concat()));
    for (text, detail) in [
        (format!("whsec_{}", BASE64.encode(&[7; 23])), "24 to 64 bytes, not 23"),
        (BASE64.encode(&[7; 65]), "24 to 64 bytes, not 65"),
        ("whsec_".to_owned(), "24 to 64 bytes, not 0"),
        (format!("whpk_{}", BASE64.encode(&[7; 31])), "32 bytes, not 31"),
        (format!("whsk_{}", BASE64.encode(&[7; 33])), "32 or 64 bytes, not 33"),
        (torn, "not a key pair"),
        (padded.replace('/', "_").replace('+', "-"), "with + and /"),
        (format!("{padded}="), "base64"),
        ("no base64 at all".to_owned(), "base64"),
    ] {
        let error = key(&text).unwrap_err();
        assert!(error.contains(detail), "{text}: {error}");
        assert!(!error.contains(text.trim_start_matches("whsec_")) || text == "whsec_");
        let error = load("", &text).err().unwrap_or_default();
        assert!(error.contains("sources.s.secrets") && error.contains(detail), "{error}");
    }
}

fn signed_headers(source: &Source, body: &[u8]) -> HeaderMap {
    let webhook = OutgoingWebhook {
        topic: "order.paid",
        tenant: "ACME",
        event_id: "msg_1",
        triggered_at: OffsetDateTime::UNIX_EPOCH,
        sent_at: AT,
        body,
    };
    source.signed_headers(&webhook).into_iter().collect()
}

#[test]
fn standard_webhooks_public_key_cannot_sign() {
    // A public key cannot sign.
    let config = load("", PUBLIC).unwrap();
    let source = config.sources.values().next().unwrap();
    let body = Bytes::from_static(b"{}");
    let headers = signed_headers(source, &body);
    let request = WebhookRequest { headers: &headers, query: "", body: &body, received_at: AT };
    assert!(!is_accepted(&source.receive(&request)));
}

const SETTINGS: &str = r#"
    [sources.s.event]
    tenant = "/company"
    version = "/timestamp"
    [sources.s.order]
    topics = ["order.*"]
    id = "/data/id"
    currency = "/data/currency"
    total = "/data/total"
    [sources.s.refund]
    topics = ["refund.*"]
    id = "/data/refund"
    order_id = "/data/id"
    currency = "/data/currency"
    amount = "/data/total"
"#;
const EVENT: &[(&str, &str)] = &[
    ("type", "\"order.paid\""),
    ("timestamp", "\"2026-01-02T12:00:00.5Z\""),
    ("company", "\"ACME\""),
    ("data", r#"{"id":9007199254740993,"refund":"R1","currency":"EUR","total":12.10}"#),
];

/// Received and mapped, as receiver and worker do it.
fn mapped(settings: &str, changes: &[(&str, &str)]) -> Result<MappedEvent, PermanentFailure> {
    let config = load(settings, SECRET).unwrap();
    let source = config.sources.values().next().unwrap();
    let body = Bytes::from(json_object(EVENT, changes));
    let headers = signed_headers(source, &body);
    let request = WebhookRequest { headers: &headers, query: "", body: &body, received_at: AT };
    let Ok(Received::Events { events, .. }) = source.receive(&request) else {
        panic!("{changes:?}")
    };
    let event = events[0].clone();
    source.map(&Envelope {
        tenant: event.tenant,
        version: event.version,
        ..envelope(&event.topic, event.body)
    })
}

#[test]
fn standard_webhooks_events_are_mapped_by_settings() {
    match mapped(SETTINGS, &[]) {
        Ok(MappedEvent::Change(Change::Order(update))) => match *update {
            OrderUpdate::State { order_id, version, order, .. } => {
                assert_eq!(order_id, "9007199254740993");
                assert_eq!(version, datetime!(2026-01-02 12:00:00.5 UTC));
                assert_eq!(order.total.amount.to_string(), "12.10");
            }
            other @ OrderUpdate::Deleted { .. } => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
    match mapped(SETTINGS, &[("type", "\"refund.made\"")]) {
        Ok(MappedEvent::Change(Change::Refund(refund))) => {
            assert_eq!(refund.target, RefundTarget::Order("9007199254740993".to_owned()));
            assert_eq!(refund.status, RefundStatus::Succeeded);
        }
        other => panic!("{other:?}"),
    }
    for topic in ["\"customer.made\"", "null", ""] {
        assert_eq!(mapped(SETTINGS, &[("type", topic)]), Ok(MappedEvent::Ignored), "{topic}");
    }
    let moved = SETTINGS.replace("tenant =", "topic = '/event'\n    tenant =");
    assert_eq!(mapped(&moved, &[]), Ok(MappedEvent::Ignored));
    let moved = mapped(&moved, &[("event", "\"order.made\"")]);
    assert!(matches!(moved, Ok(MappedEvent::Change(Change::Order(_)))));
}

#[test]
fn standard_webhooks_unreadable_tenant_fails_mapping() {
    for (company, reason) in [("null", ReasonCode::MissingField), ("{}", ReasonCode::InvalidValue)]
    {
        let failure = mapped(SETTINGS, &[("company", company)]).unwrap_err();
        assert_eq!((failure.field.as_str(), failure.reason), ("/company", reason), "{company}");
    }
    let config = load(SETTINGS, SECRET).unwrap();
    let source = config.sources.values().next().unwrap();
    let broken = source.map(&envelope("", "{\"type\":")).unwrap_err();
    assert_eq!(broken.reason, ReasonCode::InvalidJson);
}

#[test]
fn standard_webhooks_invalid_settings_name_the_key() {
    let order = "[sources.s.order]\nid = '/i'\ncurrency = '/c'\ntotal = '/t'\n";
    let invoice = "[sources.s.invoice]\ninvoice_number = '/n'\ncurrency = '/c'\ntotal = '/t'\n";
    let refund = "[sources.s.refund]\nid = '/i'\norder_id = '/o'\ncurrency = '/c'\namount = '/t'\n";
    for (settings, key) in [
        (format!("{order}{invoice}"), "sources.s.order.topics"),
        (format!("{order}statuses = {{ X = 'payed' }}\n"), "sources.s.order.statuses.X"),
        (format!("profile = 'etsy'\n{order}"), "sources.s.order"),
        (format!("profile = 'etsy'\n{invoice}"), "sources.s.invoice"),
        (format!("profile = 'bigcommerce'\n{refund}"), "sources.s.refund"),
        ("profile = 'bigcommerce'\n[sources.s.event]\ntopic = '/x'".to_owned(), "sources.s.event"),
        (
            "profile = 'etsy'\nredelivers_identical_body = true".to_owned(),
            "sources.s.redelivers_identical_body",
        ),
        ("profile = 'ebay'".to_owned(), "sources.s"),
        ("tolerance_s = 86401".to_owned(), "sources.s.tolerance_s"),
        ("tenants = ['ACME']".to_owned(), "sources.s.event.tenant"),
        // The signed id cannot be replaced.
        ("[sources.s.event]\nid = '/id'".to_owned(), "sources.s"),
    ] {
        let secret = if settings.contains("bigcommerce") { "client secret" } else { SECRET };
        let error = load(&settings, secret).err().unwrap_or_default();
        assert!(error.contains(key), "{settings} must name {key}, says {error:?}");
    }
    for settings in ["profile = 'etsy'\ntenants = ['1']", "", "redelivers_identical_body = false"] {
        assert!(load(settings, SECRET).is_ok(), "{settings}");
    }
}
