//! What crosses the wire comes back, and what does not keep the contract is told.

use time::macros::datetime;

use lapin::types::{AMQPValue, FieldTable};
use uuid::Uuid;

use super::*;
use crate::domain::{EventKey, Head, ImportItem, Reason, RefusedCall, SourceName};

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
        attempt: 3,
        generation: 0,
        replay: Some(Uuid::from_u128(7)),
        over_http: true,
        secret: Some("env:SHOP".to_owned()),
        import: Some(ImportItem { import_id: Uuid::from_u128(9), line: 3 }),
        body: Bytes::from_static(b"{}"),
    }
}

fn parcel(outgoing: Outgoing) -> Parcel {
    Parcel {
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
    let sent = parcel(Outgoing::inbound(&topology(), &envelope));
    let now = datetime!(2030-01-01 0:00 UTC);
    assert_eq!(sent.envelope(&envelope.source, now), Ok(envelope));
}

#[test]
fn a_refused_call_survives_the_wire() {
    let told = RefusedCall {
        receipt_id: Uuid::now_v7(),
        source: "shop".parse().unwrap(),
        tenant: "other.myshopify.com".to_owned(),
        received_at: datetime!(2026-01-02 3:04:05.123456 UTC),
        status: Some(401),
        error: "no configured secret made this signature".to_owned(),
        body: Bytes::from_static(b"{}"),
        import: Some(ImportItem { import_id: Uuid::from_u128(7), line: 12 }),
        head: Some(Head {
            headers: serde_json::json!([{"name": "x", "value": "y"}]),
            query: "a=1".to_owned(),
        }),
    };
    let sent = parcel(Outgoing::call(&topology(), &told));
    assert_eq!(sent.call(datetime!(2030-01-01 0:00 UTC)), told);
    assert_eq!(sent.properties.expiration(), &None, "an authentic call waits however long");
    let expiring = Outgoing::call(&topology(), &told).expiring(Duration::from_secs(90));
    assert_eq!(expiring.properties.expiration().as_ref().unwrap().as_str(), "90000");
    // What anybody else puts there is kept as far as it can be read.
    let bare = Parcel::new("No Source".to_owned(), BasicProperties::default(), Vec::new());
    let call = bare.call(datetime!(2030-01-01 0:00 UTC));
    assert_eq!((call.source, call.status, call.head), (SourceName::unknown(), None, None));
}

#[test]
fn a_death_is_told_from_its_mark() {
    let envelope = envelope();
    let sent = parcel(Outgoing::inbound(&topology(), &envelope));
    let mark = DeadMark {
        reason: Reason::MissingField,
        error: "/total: is missing".to_owned(),
        business_key: Some("#1001".to_owned()),
        attempts: 4,
        first_failed_at: datetime!(2026-01-01 0:00 UTC),
        last_failed_at: datetime!(2026-01-01 0:01 UTC),
    };
    let dead = parcel(Outgoing::dead(&topology(), &sent, &mark));
    assert_eq!(dead.dead_mark(datetime!(2030-01-01 0:00 UTC)), mark);
    assert_eq!(dead.receipt_id(), Ok(Some(envelope.receipt_id)));
}

#[test]
fn a_foreign_message_is_filled_in_or_refused() {
    let source: SourceName = "shop".parse().unwrap();
    let now = datetime!(2030-01-01 0:00 UTC);
    let bare = Parcel::new("shop".to_owned(), BasicProperties::default(), Vec::new());
    assert_eq!(bare.envelope(&source, now).unwrap_err().field, "message_id");

    let named = BasicProperties::default().with_message_id(short("17"));
    let foreign = Parcel::new("shop".to_owned(), named.clone(), Vec::new());
    let envelope = foreign.envelope(&source, now).unwrap();
    assert_eq!(envelope.key.as_str(), "shop||17");
    assert_eq!((envelope.received_at, envelope.over_http), (now, false));

    for (key, value) in [
        (ATTEMPT, text("many")),
        (RECEIPT, text("17")),
        (VERSION, text("yesterday")),
        (VERSION, text("9999-12-31T23:59:59-23:59")),
        (TENANT, text("a\0b")),
    ] {
        let mut headers = FieldTable::default();
        insert(&mut headers, key, value);
        let broken = named.clone().with_headers(headers);
        let parcel = Parcel::new("shop".to_owned(), broken, Vec::new());
        assert_eq!(parcel.envelope(&source, now).unwrap_err().field, key);
    }
}

#[test]
fn what_the_broker_gave_up_on_is_told_by_its_newest_death() {
    let death = |reason: &str| {
        let mut entry = FieldTable::default();
        insert(&mut entry, "reason", text(reason));
        insert(&mut entry, "queue", text("t.inbound.shop"));
        AMQPValue::FieldTable(entry)
    };
    let mut headers = FieldTable::default();
    let deaths = vec![death("delivery_limit"), death("expired")];
    insert(&mut headers, "x-death", AMQPValue::FieldArray(deaths.into()));
    let properties = BasicProperties::default().with_headers(headers);
    let parcel = Parcel::new("shop".to_owned(), properties, Vec::new());
    let mark = parcel.dead_mark(datetime!(2030-01-01 0:00 UTC));
    assert_eq!(mark.reason, Reason::DeliveryLimit);
    assert!(mark.error.contains("t.inbound.shop"), "{}", mark.error);
}

#[test]
fn texts_are_cut_at_a_characters_border() {
    assert_eq!(cut("äöü", 3), "ä");
    assert_eq!(cut("abc", 9), "abc");
}
