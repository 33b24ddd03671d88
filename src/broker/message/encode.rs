//! Encodes messages for publishing.

use std::time::Duration;

use bytes::Bytes;
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, ShortString},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    decode::{DeathInfo, IncomingMessage},
    headers,
};
use crate::{
    broker::topology::Topology,
    domain::{Envelope, ImportPosition},
};

/// Longer errors are truncated: all headers must fit into one frame.
pub(super) const MAX_ERROR_BYTES: usize = 4000;
/// Foreign headers beyond this size are not copied into a dead letter.
const MAX_FOREIGN_HEADERS_BYTES: usize = 64 * 1024;
/// The AMQP delivery mode that survives a restart of the broker. Quorum queues
/// store everything; a classic queue of another application would not.
pub(super) const PERSISTENT: u8 = 2;

/// A message to be published.
#[derive(Clone, Debug)]
pub struct OutgoingMessage {
    pub(in crate::broker) exchange: String,
    pub(in crate::broker) routing_key: String,
    pub(in crate::broker) properties: BasicProperties,
    pub(in crate::broker) body: Bytes,
}

impl OutgoingMessage {
    /// An event for the inbound queue of its source.
    pub fn inbound(topology: &Topology, envelope: &Envelope) -> Self {
        Self {
            exchange: topology.inbound_exchange(),
            routing_key: envelope.source.to_string(),
            properties: event_properties(envelope, event_headers(envelope)),
            body: envelope.body.clone(),
        }
    }

    /// A failed event for the retry queue of this delay.
    pub fn retry(
        topology: &Topology,
        envelope: &Envelope,
        delay: Duration,
        first_failed_at: OffsetDateTime,
    ) -> Self {
        let mut table = event_headers(envelope);
        insert_header(&mut table, headers::FIRST_FAILED, timestamp(first_failed_at));
        Self {
            exchange: topology.retry_queue(delay),
            routing_key: envelope.source.to_string(),
            properties: event_properties(envelope, table),
            body: envelope.body.clone(),
        }
    }

    /// A message of any kind for the dead-letter queue. Foreign headers are
    /// copied if there is room for them.
    pub fn dead_letter(topology: &Topology, incoming: &IncomingMessage, death: &DeathInfo) -> Self {
        let mut table = incoming.republished_headers();
        // The headers must fit into one frame together with ours, and a
        // foreign producer may have filled one.
        if incoming.headers_size() >= MAX_FOREIGN_HEADERS_BYTES {
            table = own_headers(&table);
        }
        let error = truncate(&death.error, MAX_ERROR_BYTES);
        insert_header(&mut table, headers::REASON, long_string(death.reason.as_str()));
        insert_header(&mut table, headers::ERROR, long_string(error));
        insert_header(&mut table, headers::ATTEMPT, AMQPValue::LongUInt(death.attempts));
        insert_header(&mut table, headers::FIRST_FAILED, timestamp(death.first_failed_at));
        insert_header(&mut table, headers::LAST_FAILED, timestamp(death.last_failed_at));
        if let Some(business_key) = &death.business_key {
            insert_header(&mut table, headers::BUSINESS_KEY, long_string(business_key));
        }
        Self {
            exchange: topology.dead_letter_queue(),
            routing_key: incoming.routing_key.clone(),
            properties: incoming.republished_properties().with_headers(table),
            body: incoming.body.clone(),
        }
    }

    /// An unrouted message, once more for the inbound exchange.
    pub fn republish(topology: &Topology, incoming: &IncomingMessage) -> Self {
        Self {
            exchange: topology.inbound_exchange(),
            routing_key: incoming.routing_key.clone(),
            properties: incoming
                .republished_properties()
                .with_headers(incoming.republished_headers()),
            body: incoming.body.clone(),
        }
    }
}

impl IncomingMessage {
    /// The message that a consumer gets when this event is published.
    pub fn from_envelope(envelope: &Envelope) -> Self {
        Self {
            routing_key: envelope.source.to_string(),
            properties: event_properties(envelope, event_headers(envelope)),
            body: envelope.body.clone(),
        }
    }
}

fn event_headers(envelope: &Envelope) -> FieldTable {
    let mut table = FieldTable::default();
    insert_header(&mut table, headers::SOURCE, long_string(envelope.source.as_str()));
    insert_header(&mut table, headers::TENANT, long_string(&envelope.tenant));
    insert_header(&mut table, headers::RECEIPT, long_string(&envelope.receipt_id.to_string()));
    insert_header(&mut table, headers::ATTEMPT, AMQPValue::LongUInt(envelope.failed_attempts));
    insert_header(&mut table, headers::GENERATION, AMQPValue::LongUInt(envelope.generation));
    if let Some(replay_id) = envelope.replay_id {
        insert_header(&mut table, headers::REPLAY, long_string(&replay_id.to_string()));
    }
    if let Some(version) = envelope.version {
        insert_header(&mut table, headers::VERSION, timestamp(version));
    }
    if let Some(secret_label) = &envelope.secret_label {
        insert_header(&mut table, headers::SECRET, long_string(secret_label));
    }
    insert_import_position(&mut table, envelope.import);
    table
}

pub(super) fn insert_import_position(table: &mut FieldTable, position: Option<ImportPosition>) {
    if let Some(ImportPosition { import_id, line }) = position {
        insert_header(table, headers::IMPORT, long_string(&import_id.to_string()));
        insert_header(table, headers::LINE, AMQPValue::LongUInt(line));
    }
}

fn own_headers(table: &FieldTable) -> FieldTable {
    let mut own = FieldTable::default();
    for (key, value) in table.inner() {
        if key.as_str().starts_with(headers::PREFIX) {
            own.insert(key.clone(), value.clone());
        }
    }
    own
}

fn event_properties(envelope: &Envelope, table: FieldTable) -> BasicProperties {
    let mut properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_message_id(short_string(envelope.key.as_str()))
        .with_type(short_string(&envelope.topic))
        .with_timestamp(unix_seconds(envelope.received_at))
        .with_headers(table);
    if envelope.received_over_http {
        properties = properties.with_app_id(short_string(headers::RECEIVER_APP_ID));
    }
    properties
}

pub(super) fn insert_header(table: &mut FieldTable, key: &str, value: AMQPValue) {
    table.insert(short_string(key), value);
}

/// The text as an AMQP short string, truncated to its 255 bytes.
pub(super) fn short_string(text: &str) -> ShortString {
    ShortString::try_new(truncate(text, 255)).unwrap_or_default()
}

/// The longest prefix of at most `max_bytes` that ends between two characters.
pub(super) fn truncate(text: &str, max_bytes: usize) -> &str {
    let end = (0..=max_bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

pub(super) fn long_string(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.as_bytes().into())
}

pub(super) fn timestamp(time: OffsetDateTime) -> AMQPValue {
    long_string(&time.format(&Rfc3339).unwrap_or_default())
}

/// Seconds since 1970, as the AMQP property `timestamp` has them.
pub(super) fn unix_seconds(time: OffsetDateTime) -> u64 {
    u64::try_from(time.unix_timestamp()).unwrap_or_default()
}
