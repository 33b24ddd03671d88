use std::time::Duration;

use bytes::Bytes;
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};
use time::{OffsetDateTime, macros::datetime};
use uuid::Uuid;

use super::{
    encode::{insert_header, long_string, short_string, truncate},
    *,
};
use crate::{
    broker::Topology,
    domain::{
        Envelope, EventKey, ImportPosition, ReasonCode, RejectedRequest, RequestHead, SourceName,
    },
};

const NOW: OffsetDateTime = datetime!(2030-01-01 0:00 UTC);

/// An envelope whose every field differs from its default.
fn envelope() -> Envelope {
    let source: SourceName = "shop".parse().unwrap();
    let receipt_id = Uuid::now_v7();
    let (seconds, nanoseconds) = receipt_id.get_timestamp().unwrap().to_unix();
    let received_at = OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).unwrap())
        .unwrap()
        .replace_nanosecond(nanoseconds)
        .unwrap();
    Envelope {
        receipt_id,
        key: EventKey::new(&source, "demo.myshopify.com", "orders/create:1", 2),
        source,
        tenant: "demo.myshopify.com".to_owned(),
        topic: "orders/create".to_owned(),
        version: Some(datetime!(2026-01-02 3:04:05.678 UTC)),
        received_at,
        failed_attempts: 3,
        generation: 2,
        replay_id: Some(Uuid::from_u128(7)),
        received_over_http: true,
        secret_label: Some("env:SHOP".to_owned()),
        import: Some(ImportPosition { import_id: Uuid::from_u128(9), line: 3 }),
        body: Bytes::from_static(b"{}"),
    }
}

/// The message as a consumer gets it.
fn delivered(outgoing: OutgoingMessage) -> IncomingMessage {
    IncomingMessage {
        routing_key: outgoing.routing_key,
        properties: outgoing.properties,
        body: outgoing.body,
    }
}

fn topology() -> Topology {
    Topology::new("t", 100, Vec::new(), [])
}

fn death() -> DeathInfo {
    DeathInfo {
        reason: ReasonCode::MissingField,
        error: "/total: is missing".to_owned(),
        business_key: Some("#1001".to_owned()),
        attempts: 4,
        first_failed_at: datetime!(2026-01-01 0:00 UTC),
        last_failed_at: datetime!(2026-01-01 0:01 UTC),
    }
}

#[test]
fn envelope_published_inbound_decodes_unchanged() {
    let envelope = envelope();
    let message = delivered(OutgoingMessage::inbound(&topology(), &envelope));
    assert_eq!(message.envelope(&envelope.source, NOW), Ok(envelope.clone()));
    let same = IncomingMessage::from_envelope(&envelope);
    assert_eq!((same.routing_key, same.properties), (message.routing_key, message.properties));
}

#[test]
fn envelope_published_for_retry_decodes_unchanged() {
    let (envelope, first_failed_at) = (envelope(), datetime!(2026-01-01 0:00 UTC));
    let delay = Duration::from_secs(1);
    let outgoing = OutgoingMessage::retry(&topology(), &envelope, delay, first_failed_at);
    assert_eq!(outgoing.exchange, "t.retry.1s");
    let message = delivered(outgoing);
    assert_eq!(message.first_failed_at(), Some(first_failed_at));
    assert_eq!(message.envelope(&envelope.source, NOW), Ok(envelope));
}

#[test]
fn dead_letter_stored_as_json_decodes_to_the_same_envelope() {
    let envelope = envelope();
    let inbound = delivered(OutgoingMessage::inbound(&topology(), &envelope));
    let mut dead = delivered(OutgoingMessage::dead_letter(&topology(), &inbound, &death()));
    let identity = dead.lenient_identity(NOW);
    let stored = IncomingMessage::from_json(&dead.to_json(), dead.body.to_vec());
    assert_eq!(stored.routing_key, dead.routing_key);
    assert_eq!(stored.death_info(NOW), death());
    let expected = Envelope { failed_attempts: 4, ..envelope };
    assert_eq!(stored.lenient_envelope(identity), expected);
    assert_eq!(stored.envelope(&expected.source, NOW), Ok(expected));
}

#[test]
fn dead_letter_without_stored_headers_decodes_by_its_identity() {
    let envelope = envelope();
    let mut message = IncomingMessage::from_envelope(&envelope);
    let identity = message.lenient_identity(NOW);
    let refused = serde_json::json!({"refused": "PostgreSQL: invalid"});
    let stored = IncomingMessage::from_json(&refused, envelope.body.to_vec());
    let expected = Envelope {
        version: None,
        failed_attempts: 0,
        generation: 0,
        replay_id: None,
        received_over_http: false,
        secret_label: None,
        import: None,
        ..envelope
    };
    assert_eq!(stored.lenient_envelope(identity), expected);
}

#[test]
fn rejected_request_published_decodes_unchanged() {
    let request = RejectedRequest {
        receipt_id: Uuid::now_v7(),
        source: "shop".parse().unwrap(),
        tenant: "other.myshopify.com".to_owned(),
        received_at: datetime!(2026-01-02 3:04:05.123456 UTC),
        status: Some(401),
        error: "no configured secret made this signature".to_owned(),
        body: Bytes::from_static(b"{}"),
        import: Some(ImportPosition { import_id: Uuid::from_u128(7), line: 12 }),
        request_head: Some(RequestHead {
            headers: serde_json::json!([{"name": "x", "value": "y"}]),
            query: "a=1".to_owned(),
        }),
    };
    let outgoing = OutgoingMessage::rejected_request(&topology(), &request);
    assert_eq!(outgoing.properties.expiration(), &None, "an authentic request never expires");
    assert_eq!(delivered(outgoing.clone()).rejected_request(NOW), request);
    let expiring = outgoing.expiring(Duration::from_secs(90));
    assert_eq!(expiring.properties.expiration().as_ref().unwrap().as_str(), "90000");
}

#[test]
fn rejected_request_with_invalid_parts_decodes_to_defaults() {
    let bare = IncomingMessage::new("No Source".to_owned(), BasicProperties::default(), Vec::new());
    let request = bare.rejected_request(NOW);
    assert_eq!(request.source, SourceName::unknown());
    assert_eq!((request.status, request.request_head), (None, None));
}

#[test]
fn message_published_again_drops_what_could_lose_it() {
    let envelope = envelope();
    let mut message = IncomingMessage::from_envelope(&envelope);
    let mut table = FieldTable::default();
    for (key, value) in message.headers() {
        insert_header(&mut table, key, value.clone());
    }
    for key in ["x-death", "x-first-death-queue", "x-delivery-count", "CC", "BCC", "other"] {
        insert_header(&mut table, key, long_string("1"));
    }
    message.properties = message
        .properties
        .with_headers(table)
        .with_expiration(short_string("1"))
        .with_user_id(short_string("producer"));
    for outgoing in [
        OutgoingMessage::republish(&topology(), &message),
        OutgoingMessage::dead_letter(&topology(), &message, &death()),
    ] {
        let again = delivered(outgoing);
        assert_eq!((again.properties.expiration(), again.properties.user_id()), (&None, &None));
        let mut foreign = again.headers().filter(|(key, _)| !key.starts_with(headers::PREFIX));
        assert_eq!(foreign.next().map(|(key, _)| key), Some("other"));
        assert_eq!(foreign.next(), None);
        let decoded = again.envelope(&envelope.source, NOW).unwrap();
        let failed_attempts = decoded.failed_attempts;
        assert_eq!(decoded, Envelope { failed_attempts, ..envelope.clone() });
    }
}

#[test]
fn dead_letter_with_huge_foreign_headers_keeps_only_ours() {
    let mut table = FieldTable::default();
    insert_header(&mut table, "huge", long_string(&"x".repeat(70_000)));
    insert_header(&mut table, headers::TENANT, long_string("t"));
    let properties = BasicProperties::default().with_headers(table);
    let message = IncomingMessage::new("shop".to_owned(), properties, Vec::new());
    let dead = delivered(OutgoingMessage::dead_letter(&topology(), &message, &death()));
    assert_eq!(dead.text("huge"), None);
    assert_eq!(dead.text(headers::TENANT).as_deref(), Some("t"));
}

#[test]
fn dead_letter_published_decodes_death_info_unchanged() {
    let envelope = envelope();
    let inbound = delivered(OutgoingMessage::inbound(&topology(), &envelope));
    let dead = delivered(OutgoingMessage::dead_letter(&topology(), &inbound, &death()));
    assert_eq!(dead.death_info(NOW), death());
    assert_eq!(dead.receipt_id(), Ok(Some(envelope.receipt_id)));
}

#[test]
fn foreign_message_without_message_id_is_rejected() {
    let source: SourceName = "shop".parse().unwrap();
    let bare = IncomingMessage::new("shop".to_owned(), BasicProperties::default(), Vec::new());
    assert_eq!(bare.envelope(&source, NOW).unwrap_err().field, "message_id");
}

#[test]
fn foreign_message_without_headers_decodes_with_defaults() {
    let source: SourceName = "shop".parse().unwrap();
    let properties = BasicProperties::default().with_message_id(short_string("17"));
    let foreign = IncomingMessage::new("shop".to_owned(), properties, Vec::new());
    let envelope = foreign.envelope(&source, NOW).unwrap();
    assert_eq!(envelope.key.as_str(), "shop||17");
    assert_eq!((envelope.received_at, envelope.received_over_http), (NOW, false));
}

#[test]
fn foreign_message_with_invalid_header_is_rejected_by_its_name() {
    let source: SourceName = "shop".parse().unwrap();
    for (key, value) in [
        (headers::ATTEMPT, long_string("many")),
        (headers::ATTEMPT, AMQPValue::LongInt(-1)),
        (headers::GENERATION, long_string("second")),
        (headers::RECEIPT, long_string("17")),
        (headers::REPLAY, long_string("17")),
        (headers::VERSION, long_string("yesterday")),
        (headers::VERSION, long_string("9999-12-31T23:59:59-23:59")),
        (headers::TENANT, long_string("a\0b")),
    ] {
        let mut table = FieldTable::default();
        insert_header(&mut table, key, value);
        let properties = BasicProperties::default().with_message_id(short_string("17"));
        let message =
            IncomingMessage::new("shop".to_owned(), properties.with_headers(table), Vec::new());
        assert_eq!(message.envelope(&source, NOW).unwrap_err().field, key);
    }
}

#[test]
fn lenient_identity_of_messages_without_ids_differs() {
    let bare = || IncomingMessage::new("shop".to_owned(), BasicProperties::default(), Vec::new());
    let (mut first, mut second) = (bare(), bare());
    let identity = first.lenient_identity(NOW);
    assert_eq!(identity, first.lenient_identity(NOW), "the receipt id is added once");
    assert_eq!(identity.key.as_str(), format!("shop||receipt:{}", identity.receipt_id));
    assert_ne!(identity.key, second.lenient_identity(NOW).key);
}

#[test]
fn broker_dead_letter_takes_reason_and_queue_from_newest_death() {
    let death = |reason: &str| {
        let mut entry = FieldTable::default();
        insert_header(&mut entry, "reason", long_string(reason));
        insert_header(&mut entry, "queue", long_string("t.inbound.shop"));
        AMQPValue::FieldTable(entry)
    };
    for (newest, expected) in [
        ("delivery_limit", ReasonCode::DeliveryLimit),
        ("expired", ReasonCode::Expired),
        ("maxlen", ReasonCode::Maxlen),
        ("rejected", ReasonCode::DeliveryLimit),
    ] {
        let mut table = FieldTable::default();
        let deaths = vec![death(newest), death("expired")];
        insert_header(&mut table, "x-death", AMQPValue::FieldArray(deaths.into()));
        let properties = BasicProperties::default().with_headers(table);
        let message = IncomingMessage::new("shop".to_owned(), properties, Vec::new());
        let death = message.death_info(NOW);
        assert_eq!(death.reason, expected);
        assert_eq!(death.error, format!("the broker gave up ({newest}) in queue t.inbound.shop"));
    }
}

#[test]
fn truncate_inside_a_character_cuts_before_it() {
    assert_eq!(truncate("äöü", 3), "ä");
    assert_eq!(truncate("abc", 9), "abc");
}
