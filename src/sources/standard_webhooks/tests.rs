//! Signatures as the specification publishes them, secrets as they are
//! written, and events mapped by settings. The profiles have rooms of their
//! own.

mod profiles;

use bytes::Bytes;
use data_encoding::BASE64;
use http::HeaderMap;
use time::{Duration as Span, OffsetDateTime, macros::datetime};

use super::*;
use crate::{
    config::Config,
    domain::{OrderUpdate, ReasonCode, RefundStatus, RefundTarget},
    sources::{
        Received, Source,
        conformance::{envelope, json_object},
    },
};

// (a) of the specification's own libraries.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
const TIME: &str = "1614265330";
const BODY: &str = r#"{"test": 2432232314}"#;
const V1: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
const AT: OffsetDateTime = datetime!(2021-02-25 15:02:10 UTC);
// (c) of its Go library.
const V1A: &str =
    "v1a,tQ9V2XOqn7jL/DQenEFpqIugdBVtiMmER5mhSkXBNwM0mkATuDe6KYYUuxqtaiHeYGb7KaaBRdM5WqyeFiL8Ag==";
const SEED: &str = "whsk_VEVTVFNJR05JTkdLRVlET05PVFVTRVRISVNGT1JBTlk=";
const PUBLIC: &str = "whpk_ZlN4eg7dSSqi0moX9hQUk3orrOouK3QVQSlJa248c/g=";
const OTHER: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

const NAMES: [&str; 3] = HEADER_FAMILIES[0];
const SVIX: [&str; 3] = HEADER_FAMILIES[1];

fn load(settings: &str, secret: &str) -> Result<Config, String> {
    let text = format!(
        "[sources.s]\nkind = 'standard_webhooks'\nsecrets = ['env:S', 'env:T']\n{settings}"
    );
    let other = if settings.contains("bigcommerce") { "another" } else { OTHER };
    let variables =
        [("S", secret), ("T", other)].map(|(name, value)| (name.to_owned(), value.to_owned()));
    Config::from_toml(&text, &variables.into()).map_err(|error| format!("{error:#}"))
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
    let call = WebhookRequest { headers: &headers, query: "", body: &body, received_at };
    config.sources.values().next().unwrap().receive(&call)
}

/// The vector's call with these signatures, by the first secret.
fn signed(secret: &str, signatures: &str) -> Result<Received, Rejection> {
    let given = [(NAMES[0], ID), (NAMES[1], TIME), (NAMES[2], signatures)];
    receive_at(("", secret), &given, BODY, AT)
}

fn is_taken(received: &Result<Received, Rejection>) -> bool {
    match received {
        Ok(_) => true,
        Err(Rejection::InvalidSignature(_)) => false,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_published_vectors_verify() {
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
    // (b) of its Rust library, under Svix's names as well.
    let body = r#"{"email":"test@example.com","username":"test_user"}"#;
    for names in HEADER_FAMILIES {
        let given = [
            (names[0], "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk"),
            (names[1], "1649367553"),
            (names[2], "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw="),
        ];
        let at = datetime!(2022-04-07 21:39:13 UTC);
        assert!(is_taken(&receive_at(("", OTHER), &given, body, at)), "{names:?}");
    }
}

#[test]
fn any_signature_by_any_secret_will_do() {
    let zeros = format!("v1,{}", BASE64.encode(&[0; 32]));
    for signatures in [
        format!("{V1} {zeros}"),
        format!("{zeros} {V1}"),
        format!("v2,new v1a,old {V1A} {V1}"),
        format!("v1, v1,* loose  {V1}"),
    ] {
        assert!(is_taken(&signed(SECRET, &signatures)), "{signatures}");
        assert!(is_taken(&signed(PUBLIC, &format!("{signatures} {V1A}"))), "{signatures}");
    }
    let rotated = receive_at(
        ("", "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
        &[
            (NAMES[0], "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk"),
            (NAMES[1], "1649367553"),
            (NAMES[2], "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw="),
        ],
        r#"{"email":"test@example.com","username":"test_user"}"#,
        datetime!(2022-04-07 21:39:13 UTC),
    );
    assert!(
        matches!(rotated, Ok(Received::Events { secret_label, .. }) if secret_label == "env:T")
    );
}

#[test]
fn what_is_not_signed_so_is_refused() {
    let hmac = V1.strip_prefix("v1,").unwrap();
    let ed25519 = V1A.strip_prefix("v1a,").unwrap();
    let zeros = format!("v1,{} ", BASE64.encode(&[0; 32]));
    for (secret, signatures) in [
        (SECRET, ""),
        (SECRET, "v1,"),
        // Bare, which Etsy alone sends.
        (SECRET, hmac),
        (SECRET, &format!("v1a,{hmac}")),
        (SECRET, &format!("v0,{hmac}")),
        (SECRET, &format!("V1,{hmac}")),
        (SECRET, &V1[..V1.len() - 1]),
        (SECRET, &V1.replace(['+', '/'], "-")),
        (SECRET, V1A),
        (OTHER, V1),
        (PUBLIC, &format!("v1,{ed25519}")),
        (PUBLIC, &V1A.replace("tQ9V", "uQ9V")),
        (PUBLIC, "v1a,AAAA"),
        (PUBLIC, V1),
        // Beyond as many as are looked at.
        (SECRET, &format!("{}{V1}", zeros.repeat(MAX_SIGNATURES))),
    ] {
        assert!(!is_taken(&signed(secret, signatures)), "{secret} {signatures}");
    }
    for given in [
        [(NAMES[0], "msg_p5jXN8AQM9LWM0D4loKWxJe"), (NAMES[1], TIME), (NAMES[2], V1)],
        [(NAMES[0], ID), (NAMES[1], "1614265331"), (NAMES[2], V1)],
        [(NAMES[0], ID), (NAMES[1], "01614265330"), (NAMES[2], V1)],
        [(NAMES[0], ID), (NAMES[1], "now"), (NAMES[2], V1)],
        [(NAMES[0], ""), (NAMES[1], TIME), (NAMES[2], V1)],
        [(NAMES[0], ID), (NAMES[1], ""), (NAMES[2], V1)],
    ] {
        assert!(!is_taken(&receive_at(("", SECRET), &given, BODY, AT)), "{given:?}");
    }
}

#[test]
fn the_families_of_headers_are_never_mixed() {
    let values = [ID, TIME, V1];
    for mix in 0..8_usize {
        let family = |place: usize| &HEADER_FAMILIES[(mix >> place) & 1];
        let given: Vec<_> = (0..3).map(|place| (family(place)[place], values[place])).collect();
        let whole = mix == 0 || mix == 7;
        assert_eq!(is_taken(&receive_at(("", SECRET), &given, BODY, AT)), whole, "{given:?}");
    }
    // The event's id is the one that was signed.
    let beside = [(SVIX[0], ID), (SVIX[1], TIME), (SVIX[2], V1), (NAMES[0], "another")];
    let Ok(Received::Events { events, .. }) = receive_at(("", SECRET), &beside, BODY, AT) else {
        panic!("a whole family verifies");
    };
    assert_eq!(events[0].event_id, ID);
    // Where both are whole, the specification's own goes before.
    let both = [&beside[..], &[(NAMES[1], TIME), (NAMES[2], V1)]].concat();
    assert!(!is_taken(&receive_at(("", SECRET), &both, BODY, AT)));
}

#[test]
fn the_signed_time_may_be_five_minutes_away_in_either_direction() {
    let given = [(NAMES[0], ID), (NAMES[1], TIME), (NAMES[2], V1)];
    for (settings, edge) in [("", 300), ("tolerance_s = 0", 0), ("tolerance_s = 86400", 86_400)] {
        for (away, taken) in [(0, true), (edge, true), (edge + 1, false)] {
            for at in [AT + Span::seconds(away), AT - Span::seconds(away)] {
                let received = receive_at((settings, SECRET), &given, BODY, at);
                assert_eq!(is_taken(&received), taken, "{settings} {at}");
            }
        }
    }
    let forged = receive_at(("", OTHER), &given, BODY, AT + Span::days(1));
    assert_eq!(forged, Err(Rejection::invalid_signature()), "a forger is not told of the clock");
}

#[test]
fn secrets_tell_their_kind_by_their_text() {
    let key = secret::parse_key;
    let bytes = BASE64.decode(b"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    for text in [SECRET, &SECRET["whsec_".len()..], &format!(" {SECRET}\n")] {
        assert_eq!(key(text), Ok(Key::Shared(bytes.clone())), "{text}");
    }
    let long = vec![0xfb; 64];
    let padded = BASE64.encode(&long);
    for text in [padded.as_str(), padded.trim_end_matches('=')] {
        assert_eq!(key(&format!("whsec_{text}")), Ok(Key::Shared(long.clone())));
    }
    let seed = b"TESTSIGNINGKEYDONOTUSETHISFORANY".to_vec();
    assert_eq!(key(SEED), Ok(Key::Seed(seed.clone())));
    let Ok(Key::Public(public)) = key(PUBLIC) else { panic!("is public") };
    let pair = format!("whsk_{}", BASE64.encode(&[seed.clone(), public.clone()].concat()));
    assert_eq!(key(&pair), Ok(Key::Seed(seed.clone())));

    let torn = format!("whsk_{}", BASE64.encode(&[public, seed].concat()));
    for (text, detail) in [
        (format!("whsec_{}", BASE64.encode(&[7; 23])), "24 to 64 bytes, not 23"),
        (BASE64.encode(&[7; 65]), "24 to 64 bytes, not 65"),
        ("whsec_".to_owned(), "24 to 64 bytes, not 0"),
        (format!("whpk_{}", BASE64.encode(&[7; 31])), "32 bytes, not 31"),
        (format!("whsk_{}", BASE64.encode(&[7; 33])), "32 or 64 bytes, not 33"),
        (torn, "not of one pair"),
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

fn dress(source: &Source, body: &[u8]) -> HeaderMap {
    let delivery = OutgoingWebhook {
        topic: "order.paid",
        tenant: "ACME",
        event_id: "msg_1",
        triggered_at: OffsetDateTime::UNIX_EPOCH,
        sent_at: AT,
        body,
    };
    source.signed_headers(&delivery).into_iter().collect()
}

#[test]
fn what_is_dressed_is_received() {
    let in_headers = "[sources.s.event]\ntopic = 'header:X-Topic'\ntenant = 'header:X-Company'";
    for (settings, secret) in [
        (in_headers, SECRET),
        (in_headers, SEED),
        ("profile = 'etsy'", SECRET),
        ("profile = 'bigcommerce'", "client secret"),
    ] {
        let config = load(settings, secret).unwrap();
        let source = config.sources.values().next().unwrap();
        let body = Bytes::from_static(b"{}");
        let headers = dress(source, &body);
        let call = WebhookRequest { headers: &headers, query: "", body: &body, received_at: AT };
        let Ok(Received::Events { events, .. }) = source.receive(&call) else {
            panic!("{settings} {secret}");
        };
        assert_eq!(events[0].event_id, "msg_1");
        if settings == in_headers {
            assert_eq!(
                (events[0].topic.as_str(), events[0].tenant.as_str()),
                ("order.paid", "ACME")
            );
        }
    }
    // What can only verify signs nothing that verifies.
    let config = load("", PUBLIC).unwrap();
    let source = config.sources.values().next().unwrap();
    let body = Bytes::from_static(b"{}");
    let headers = dress(source, &body);
    let call = WebhookRequest { headers: &headers, query: "", body: &body, received_at: AT };
    assert!(!is_taken(&source.receive(&call)));
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

/// Received and then mapped, as receiver and worker do it.
fn mapped(settings: &str, changes: &[(&str, &str)]) -> Result<MappedEvent, PermanentFailure> {
    let config = load(settings, SECRET).unwrap();
    let source = config.sources.values().next().unwrap();
    let body = Bytes::from(json_object(EVENT, changes));
    let headers = dress(source, &body);
    let call = WebhookRequest { headers: &headers, query: "", body: &body, received_at: AT };
    let Ok(Received::Events { events, .. }) = source.receive(&call) else { panic!("{changes:?}") };
    let event = events[0].clone();
    source.map(&Envelope {
        tenant: event.tenant,
        version: event.version,
        ..envelope(&event.topic, event.body)
    })
}

#[test]
fn events_are_mapped_as_configured() {
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
fn a_company_that_cannot_be_read_is_not_taken_for_one_without_a_name() {
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
fn settings_that_contradict_themselves_are_refused_by_key() {
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
        ("profile = 'etsy'\nrepeats_same_bytes = true".to_owned(), "sources.s.repeats_same_bytes"),
        ("profile = 'ebay'".to_owned(), "sources.s"),
        ("tolerance_s = 86401".to_owned(), "sources.s.tolerance_s"),
        ("tenants = ['ACME']".to_owned(), "sources.s.event.tenant"),
        // The id is signed; no other can be chosen.
        ("[sources.s.event]\nid = '/id'".to_owned(), "sources.s"),
    ] {
        let secret = if settings.contains("bigcommerce") { "client secret" } else { SECRET };
        let error = load(&settings, secret).err().unwrap_or_default();
        assert!(error.contains(key), "{settings} must name {key}, says {error:?}");
    }
    for settings in ["profile = 'etsy'\ntenants = ['1']", "", "repeats_same_bytes = false"] {
        assert!(load(settings, SECRET).is_ok(), "{settings}");
    }
}
