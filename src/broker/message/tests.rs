//! What crosses the wire comes back, and what does not keep the contract is told.

use time::macros::datetime;

use lapin::types::{AMQPValue, FieldTable};
use uuid::Uuid;

use super::*;
use crate::domain::{
    EventKey, ImportPosition, ReasonCode, RejectedRequest, RequestHead, SourceName,
};

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
        key: EventKey::new(&source, "demo.myshopify.com", "orders/create:1", 0),
        source,
        tenant: "demo.myshopify.com".to_owned(),
        topic: "orders/create".to_owned(),
        version: Some(datetime!(2026-01-02 3:04:05 UTC)),
        received_at,
        failed_attempts: 3,
        generation: 0,
        replay_id: Some(Uuid::from_u128(7)),
        received_over_http: true,
        secret_label: Some("env:SHOP".to_owned()),
        import: Some(ImportPosition { import_id: Uuid::from_u128(9), line: 3 }),
        body: Bytes::from_static(b"{}"),
    }
}

fn parcel(outgoing: OutgoingMessage) -> IncomingMessage {
    IncomingMessage {
        routing_key: outgoing.routing_key,
        properties: outgoing.properties,
        body: outgoing.body,
    }
}

fn topology() -> Topology {
    Topology::new("t", 100, Vec::new(), [])
}

#[test]
fn an_envelope_survives_the_wire() {
    let envelope = envelope();
    let sent = parcel(OutgoingMessage::inbound(&topology(), &envelope));
    let now = datetime!(2030-01-01 0:00 UTC);
    assert_eq!(sent.envelope(&envelope.source, now), Ok(envelope));
}

#[test]
fn a_refused_call_survives_the_wire() {
    let told = RejectedRequest {
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
    let sent = parcel(OutgoingMessage::rejected_request(&topology(), &told));
    assert_eq!(sent.rejected_request(datetime!(2030-01-01 0:00 UTC)), told);
    assert_eq!(sent.properties.expiration(), &None, "an authentic call waits however long");
    let expiring =
        OutgoingMessage::rejected_request(&topology(), &told).expiring(Duration::from_secs(90));
    assert_eq!(expiring.properties.expiration().as_ref().unwrap().as_str(), "90000");
    // What anybody else puts there is kept as far as it can be read.
    let bare = IncomingMessage::new("No Source".to_owned(), BasicProperties::default(), Vec::new());
    let call = bare.rejected_request(datetime!(2030-01-01 0:00 UTC));
    assert_eq!((call.source, call.status, call.request_head), (SourceName::unknown(), None, None));
}

#[test]
fn a_death_is_told_from_its_mark() {
    let envelope = envelope();
    let sent = parcel(OutgoingMessage::inbound(&topology(), &envelope));
    let mark = DeathInfo {
        reason: ReasonCode::MissingField,
        error: "/total: is missing".to_owned(),
        business_key: Some("#1001".to_owned()),
        attempts: 4,
        first_failed_at: datetime!(2026-01-01 0:00 UTC),
        last_failed_at: datetime!(2026-01-01 0:01 UTC),
    };
    let dead = parcel(OutgoingMessage::dead_letter(&topology(), &sent, &mark));
    assert_eq!(dead.death_info(datetime!(2030-01-01 0:00 UTC)), mark);
    assert_eq!(dead.receipt_id(), Ok(Some(envelope.receipt_id)));
}

#[test]
fn a_foreign_message_is_filled_in_or_refused() {
    let source: SourceName = "shop".parse().unwrap();
    let now = datetime!(2030-01-01 0:00 UTC);
    let bare = IncomingMessage::new("shop".to_owned(), BasicProperties::default(), Vec::new());
    assert_eq!(bare.envelope(&source, now).unwrap_err().field, "message_id");

    let named = BasicProperties::default().with_message_id(short_string("17"));
    let foreign = IncomingMessage::new("shop".to_owned(), named.clone(), Vec::new());
    let envelope = foreign.envelope(&source, now).unwrap();
    assert_eq!(envelope.key.as_str(), "shop||17");
    assert_eq!((envelope.received_at, envelope.received_over_http), (now, false));

    for (key, value) in [
        (ATTEMPT, long_string("many")),
        (RECEIPT, long_string("17")),
        (VERSION, long_string("yesterday")),
        (VERSION, long_string("9999-12-31T23:59:59-23:59")),
        (TENANT, long_string("a\0b")),
    ] {
        let mut headers = FieldTable::default();
        insert_header(&mut headers, key, value);
        let broken = named.clone().with_headers(headers);
        let parcel = IncomingMessage::new("shop".to_owned(), broken, Vec::new());
        assert_eq!(parcel.envelope(&source, now).unwrap_err().field, key);
    }
}

#[test]
fn what_the_broker_gave_up_on_is_told_by_its_newest_death() {
    let death = |reason: &str| {
        let mut entry = FieldTable::default();
        insert_header(&mut entry, "reason", long_string(reason));
        insert_header(&mut entry, "queue", long_string("t.inbound.shop"));
        AMQPValue::FieldTable(entry)
    };
    let mut headers = FieldTable::default();
    let deaths = vec![death("delivery_limit"), death("expired")];
    insert_header(&mut headers, "x-death", AMQPValue::FieldArray(deaths.into()));
    let properties = BasicProperties::default().with_headers(headers);
    let parcel = IncomingMessage::new("shop".to_owned(), properties, Vec::new());
    let mark = parcel.death_info(datetime!(2030-01-01 0:00 UTC));
    assert_eq!(mark.reason, ReasonCode::DeliveryLimit);
    assert!(mark.error.contains("t.inbound.shop"), "{}", mark.error);
}

#[test]
fn texts_are_cut_at_a_characters_border() {
    assert_eq!(truncate("äöü", 3), "ä");
    assert_eq!(truncate("abc", 9), "abc");
}
