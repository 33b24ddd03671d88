//! The envelope on the wire: which AMQP property and header carries what.
//!
//! `message_id` the event key, `type` the topic, `timestamp` received at,
//! headers `x-tallyhook-*`, body the raw bytes. Any producer may publish by
//! the same contract; what it leaves out is filled in or refused here.

use std::time::Duration;

use bytes::Bytes;
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, ShortString},
};
use serde_json::{Map, Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use super::topology::Topology;
use crate::domain::{Envelope, EventKey, Failure, Reason, SourceName};

/// Marks messages that our receiver took over HTTP.
const OVER_HTTP: &str = "tallyhook-receiver";
/// Longer errors are cut: headers must fit into one frame.
const LONGEST_ERROR: usize = 4000;

const SOURCE: &str = "x-tallyhook-source";
const TENANT: &str = "x-tallyhook-tenant";
const RECEIPT: &str = "x-tallyhook-receipt";
const ATTEMPT: &str = "x-tallyhook-attempt";
const GENERATION: &str = "x-tallyhook-generation";
const REPLAY: &str = "x-tallyhook-replay";
const VERSION: &str = "x-tallyhook-version";
const REASON: &str = "x-tallyhook-reason";
const ERROR: &str = "x-tallyhook-error";
const BUSINESS_KEY: &str = "x-tallyhook-business-key";
const FIRST_FAILED: &str = "x-tallyhook-first-failed-at";
const LAST_FAILED: &str = "x-tallyhook-last-failed-at";

/// A message on its way to the broker.
#[derive(Clone, Debug)]
pub struct Outgoing {
    pub(super) exchange: String,
    pub(super) routing_key: String,
    pub(super) properties: BasicProperties,
    pub(super) body: Bytes,
}

/// A message as the broker delivered it, before anything is believed of it.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// The routing key it was published with: the source.
    pub routing_key: String,
    /// Its body.
    pub body: Bytes,
    properties: BasicProperties,
}

/// What a dead letter says about its death.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadMark {
    /// Why.
    pub reason: Reason,
    /// The error and its causes.
    pub error: String,
    /// The number that people know the document by, if it could be read.
    pub business_key: Option<String>,
    /// How many attempts failed.
    pub attempts: u32,
    /// When it failed first.
    pub first_failed_at: OffsetDateTime,
    /// When it failed last.
    pub last_failed_at: OffsetDateTime,
}

impl Outgoing {
    /// An event on its way to its source's queue.
    pub fn inbound(topology: &Topology, envelope: &Envelope) -> Self {
        Self {
            exchange: topology.inbound_exchange(),
            routing_key: envelope.source.to_string(),
            properties: properties(envelope, headers(envelope)),
            body: envelope.body.clone(),
        }
    }

    /// An event that failed on its way to wait for its next attempt.
    pub fn retry(
        topology: &Topology,
        envelope: &Envelope,
        delay: Duration,
        first_failed_at: OffsetDateTime,
    ) -> Self {
        let mut headers = headers(envelope);
        insert(&mut headers, FIRST_FAILED, moment(first_failed_at));
        Self {
            exchange: topology.retry(delay),
            routing_key: envelope.source.to_string(),
            properties: properties(envelope, headers),
            body: envelope.body.clone(),
        }
    }

    /// A parcel on its way to the dead, whatever it was.
    pub fn dead(topology: &Topology, parcel: &Parcel, mark: &DeadMark) -> Self {
        // What the broker counted is dropped: a producer's `x-death` is
        // believed by some versions and not by others.
        let mut headers = FieldTable::default();
        for (key, value) in parcel.headers().filter(|(key, _)| !key.starts_with("x-death")) {
            insert(&mut headers, key, value.clone());
        }
        insert(&mut headers, REASON, text(mark.reason.code()));
        insert(&mut headers, ERROR, text(cut(&mark.error, LONGEST_ERROR)));
        insert(&mut headers, ATTEMPT, AMQPValue::LongUInt(mark.attempts));
        insert(&mut headers, FIRST_FAILED, moment(mark.first_failed_at));
        insert(&mut headers, LAST_FAILED, moment(mark.last_failed_at));
        if let Some(key) = &mark.business_key {
            insert(&mut headers, BUSINESS_KEY, text(key));
        }
        Self {
            exchange: topology.dead(),
            routing_key: parcel.routing_key.clone(),
            properties: parcel.properties.clone().with_headers(headers).with_delivery_mode(2),
            body: parcel.body.clone(),
        }
    }

    /// A parcel that found no queue, once more on its way in.
    pub fn again(topology: &Topology, parcel: &Parcel) -> Self {
        Self {
            exchange: topology.inbound_exchange(),
            routing_key: parcel.routing_key.clone(),
            properties: parcel.properties.clone().with_delivery_mode(2),
            body: parcel.body.clone(),
        }
    }
}

fn headers(envelope: &Envelope) -> FieldTable {
    let mut headers = FieldTable::default();
    insert(&mut headers, SOURCE, text(envelope.source.as_str()));
    insert(&mut headers, TENANT, text(&envelope.tenant));
    insert(&mut headers, RECEIPT, text(&envelope.receipt_id.to_string()));
    insert(&mut headers, ATTEMPT, AMQPValue::LongUInt(envelope.attempt));
    insert(&mut headers, GENERATION, AMQPValue::LongUInt(envelope.generation));
    if let Some(replay) = envelope.replay {
        insert(&mut headers, REPLAY, text(&replay.to_string()));
    }
    if let Some(version) = envelope.version {
        insert(&mut headers, VERSION, moment(version));
    }
    headers
}

fn properties(envelope: &Envelope, headers: FieldTable) -> BasicProperties {
    let mut properties = BasicProperties::default()
        // Persistent. Quorum queues keep everything on disk; another type of
        // queue, bound by somebody else, would not.
        .with_delivery_mode(2)
        .with_message_id(short(envelope.key.as_str()))
        .with_type(short(&envelope.topic))
        .with_timestamp(u64::try_from(envelope.received_at.unix_timestamp()).unwrap_or_default())
        .with_headers(headers);
    if envelope.over_http {
        properties = properties.with_app_id(short(OVER_HTTP));
    }
    properties
}

impl Parcel {
    pub(super) fn new(routing_key: String, properties: BasicProperties, body: Vec<u8>) -> Self {
        Self { routing_key, properties, body: body.into() }
    }

    /// The event, as it came out of `source`'s queue.
    ///
    /// # Errors
    /// [`Failure`] if the message does not keep the contract: no
    /// `message_id`, or a header that cannot be read.
    pub fn envelope(&self, source: &SourceName, now: OffsetDateTime) -> Result<Envelope, Failure> {
        let tenant = self.clean(TENANT)?.unwrap_or_default();
        let message_id = self
            .properties
            .message_id()
            .as_ref()
            .map(ShortString::as_str)
            .filter(|id| !id.is_empty())
            .ok_or_else(|| Failure::missing("message_id"))?;
        let topic = self.properties.kind().as_ref().map_or("", ShortString::as_str);
        if topic.contains('\0') {
            return Err(Failure::invalid("type", "contains a NUL character"));
        }
        let receipt_id = self.receipt_id()?;
        Ok(Envelope {
            receipt_id: receipt_id.unwrap_or_else(Uuid::now_v7),
            source: source.clone(),
            key: EventKey::from_message_id(source, &tenant, message_id),
            tenant,
            topic: topic.to_owned(),
            version: self.moment(VERSION)?,
            received_at: self.received_at(receipt_id, now),
            attempt: self.number(ATTEMPT)?,
            generation: self.number(GENERATION)?,
            replay: self.uuid(REPLAY)?,
            over_http: self.is_over_http(),
            body: self.body.clone(),
        })
    }

    /// The receipt id that it carries.
    ///
    /// # Errors
    /// [`Failure`] if it is no UUID.
    pub fn receipt_id(&self) -> Result<Option<Uuid>, Failure> {
        self.uuid(RECEIPT)
    }

    /// Gives the parcel a receipt id, if it has none that can be read: so
    /// that it can be archived once and only once.
    pub fn ensure_receipt(&mut self) {
        if !matches!(self.receipt_id(), Ok(Some(_))) {
            let mut headers = FieldTable::default();
            for (key, value) in self.headers() {
                insert(&mut headers, key, value.clone());
            }
            insert(&mut headers, RECEIPT, text(&Uuid::now_v7().to_string()));
            self.properties = self.properties.clone().with_headers(headers);
        }
    }

    /// When it failed first, if it did before.
    pub fn first_failed_at(&self) -> Option<OffsetDateTime> {
        self.moment(FIRST_FAILED).ok().flatten()
    }

    /// How many attempts have failed, as far as it can be read.
    pub fn attempts(&self) -> u32 {
        self.number(ATTEMPT).unwrap_or_default()
    }

    /// The replay that sent it, if one did and it can be read.
    pub fn replay(&self) -> Option<Uuid> {
        self.uuid(REPLAY).ok().flatten()
    }

    /// Whether our receiver took it over HTTP.
    pub fn is_over_http(&self) -> bool {
        self.properties.app_id().as_ref().is_some_and(|id| id.as_str() == OVER_HTTP)
    }

    /// The texts that describe it to a person, cleaned of what PostgreSQL
    /// does not store: `message_id`, topic and tenant.
    pub fn labels(&self) -> [String; 3] {
        let property = |text: &Option<ShortString>| {
            text.as_ref().map_or_else(String::new, |text| text.as_str().replace('\0', "\u{fffd}"))
        };
        [
            property(self.properties.message_id()),
            property(self.properties.kind()),
            self.text(TENANT).unwrap_or_default().replace('\0', "\u{fffd}"),
        ]
    }

    /// What a dead letter says about its death: our worker's mark, or what the
    /// broker wrote when it gave up by itself.
    pub fn dead_mark(&self, now: OffsetDateTime) -> DeadMark {
        let at = |key| self.moment(key).ok().flatten();
        if let Some(reason) = self.text(REASON).as_deref().and_then(Reason::from_code) {
            let last = at(LAST_FAILED).unwrap_or(now);
            return DeadMark {
                reason,
                error: self.text(ERROR).unwrap_or_default().replace('\0', "\u{fffd}"),
                business_key: self.text(BUSINESS_KEY).filter(|key| !key.contains('\0')),
                attempts: self.attempts(),
                first_failed_at: at(FIRST_FAILED).unwrap_or(last),
                last_failed_at: last,
            };
        }
        let (code, queue) = self.death_by_broker();
        let reason = match code.as_str() {
            "expired" => Reason::Expired,
            "maxlen" => Reason::Maxlen,
            // "rejected" is nothing that we do, and "delivery_limit" what
            // remains: the message was delivered and never settled.
            _ => Reason::DeliveryLimit,
        };
        DeadMark {
            reason,
            error: format!("the broker gave up ({code}) in queue {queue}"),
            business_key: None,
            attempts: self.attempts(),
            first_failed_at: at(FIRST_FAILED).unwrap_or(now),
            last_failed_at: now,
        }
    }

    /// The newest entry of `x-death`: reason and queue.
    fn death_by_broker(&self) -> (String, String) {
        let newest = match self.header("x-death") {
            Some(AMQPValue::FieldArray(deaths)) => deaths.as_slice().first(),
            _ => None,
        };
        let entry = |key: &str| match newest {
            Some(AMQPValue::FieldTable(table)) => table.inner().get(key).and_then(as_text),
            _ => None,
        };
        let unknown = || "unknown".to_owned();
        (entry("reason").unwrap_or_else(unknown), entry("queue").unwrap_or_else(unknown))
    }

    /// Properties and headers, for people.
    pub fn describe(&self) -> Value {
        let mut described = Map::new();
        let [message_id, topic, _] = self.labels();
        described.insert("message_id".to_owned(), json!(message_id));
        described.insert("type".to_owned(), json!(topic));
        if let Some(timestamp) = self.properties.timestamp() {
            described.insert("timestamp".to_owned(), json!(timestamp));
        }
        if let Some(app_id) = self.properties.app_id() {
            described.insert("app_id".to_owned(), json!(app_id.as_str().replace('\0', "")));
        }
        let headers = self.headers().map(|(key, value)| (key.replace('\0', ""), readable(value)));
        described.insert("headers".to_owned(), Value::Object(headers.collect()));
        Value::Object(described)
    }

    /// When it was received. AMQP's timestamp counts seconds; a UUID v7 of
    /// ours tells milliseconds.
    pub fn received_at(&self, receipt_id: Option<Uuid>, now: OffsetDateTime) -> OffsetDateTime {
        let stamped = self
            .properties
            .timestamp()
            .and_then(|seconds| i64::try_from(seconds).ok())
            .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
        let finer = receipt_id.and_then(|id| id.get_timestamp()).and_then(|stamp| {
            let (seconds, nanoseconds) = stamp.to_unix();
            OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).ok()?)
                .ok()?
                .replace_nanosecond(nanoseconds)
                .ok()
        });
        match (stamped, finer) {
            (Some(stamped), Some(finer)) if finer.unix_timestamp() == stamped.unix_timestamp() => {
                finer
            }
            (Some(stamped), _) => stamped,
            (None, Some(finer)) => finer,
            (None, None) => now,
        }
    }

    fn headers(&self) -> impl Iterator<Item = (&str, &AMQPValue)> {
        let table = self.properties.headers().as_ref();
        table
            .into_iter()
            .flat_map(|table| table.inner().iter().map(|(key, value)| (key.as_str(), value)))
    }

    fn header(&self, key: &str) -> Option<&AMQPValue> {
        self.properties.headers().as_ref()?.inner().get(key)
    }

    fn text(&self, key: &str) -> Option<String> {
        self.header(key).and_then(as_text)
    }

    fn clean(&self, key: &str) -> Result<Option<String>, Failure> {
        match self.text(key) {
            Some(text) if text.contains('\0') => {
                Err(Failure::invalid(key, "contains a NUL character"))
            }
            text => Ok(text),
        }
    }

    fn number(&self, key: &str) -> Result<u32, Failure> {
        let number = match self.header(key) {
            None | Some(AMQPValue::Void) => return Ok(0),
            Some(AMQPValue::ShortShortInt(number)) => i64::from(*number),
            Some(AMQPValue::ShortShortUInt(number)) => i64::from(*number),
            Some(AMQPValue::ShortInt(number)) => i64::from(*number),
            Some(AMQPValue::ShortUInt(number)) => i64::from(*number),
            Some(AMQPValue::LongInt(number)) => i64::from(*number),
            Some(AMQPValue::LongUInt(number)) => i64::from(*number),
            Some(AMQPValue::LongLongInt(number)) => *number,
            Some(_) => return Err(Failure::invalid(key, "is not a number")),
        };
        u32::try_from(number).map_err(|_| Failure::invalid(key, "is not a count"))
    }

    fn uuid(&self, key: &str) -> Result<Option<Uuid>, Failure> {
        self.text(key)
            .map(|text| text.parse().map_err(|_| Failure::invalid(key, "is not a UUID")))
            .transpose()
    }

    fn moment(&self, key: &str) -> Result<Option<OffsetDateTime>, Failure> {
        self.text(key)
            .map(|text| {
                OffsetDateTime::parse(&text, &Rfc3339)
                    .map_err(|_| Failure::invalid(key, "is not a time in RFC 3339"))
            })
            .transpose()
    }
}

/// Whether a message would be refused for its properties before it is sent:
/// AMQP's short strings hold 255 bytes.
pub fn fits_short_string(text: &str) -> bool {
    text.len() <= 255
}

fn insert(table: &mut FieldTable, key: &str, value: AMQPValue) {
    table.insert(short(key), value);
}

fn short(text: &str) -> ShortString {
    ShortString::try_new(cut(text, 255)).unwrap_or_default()
}

/// The text, cut to so many bytes at a character's border.
fn cut(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.as_bytes().into())
}

fn moment(value: OffsetDateTime) -> AMQPValue {
    text(&value.format(&Rfc3339).unwrap_or_default())
}

fn as_text(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => Some(String::from_utf8_lossy(text.as_bytes()).into_owned()),
        AMQPValue::ShortString(text) => Some(text.as_str().to_owned()),
        _ => None,
    }
}

/// A header's value as JSON, fit for `jsonb`.
fn readable(value: &AMQPValue) -> Value {
    match value {
        AMQPValue::Boolean(flag) => json!(flag),
        AMQPValue::ShortShortInt(number) => json!(number),
        AMQPValue::ShortShortUInt(number) => json!(number),
        AMQPValue::ShortInt(number) => json!(number),
        AMQPValue::ShortUInt(number) => json!(number),
        AMQPValue::LongInt(number) => json!(number),
        AMQPValue::LongUInt(number) => json!(number),
        AMQPValue::LongLongInt(number) => json!(number),
        AMQPValue::Timestamp(number) => json!(number),
        AMQPValue::Float(number) => json!(number),
        AMQPValue::Double(number) => json!(number),
        AMQPValue::FieldArray(values) => values.as_slice().iter().map(readable).collect(),
        AMQPValue::FieldTable(table) => Value::Object(
            table
                .inner()
                .iter()
                .map(|(key, value)| (key.as_str().replace('\0', ""), readable(value)))
                .collect(),
        ),
        AMQPValue::LongString(_) | AMQPValue::ShortString(_) => {
            json!(as_text(value).unwrap_or_default().replace('\0', "\u{fffd}"))
        }
        AMQPValue::DecimalValue(_) | AMQPValue::ByteArray(_) | AMQPValue::Void => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

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
}
