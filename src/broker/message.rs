//! The envelope on the wire: which AMQP property and header carries what.
//!
//! `message_id` the event key, `type` the topic, `timestamp` received at,
//! headers `x-tallyhook-*`, body the raw bytes. Any producer may publish by
//! the same contract; what it leaves out is filled in or refused in `parcel`.

mod cloud_event;
mod decode;
mod import_progress;
mod rejected_request;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, ShortString},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::topology::Topology;
use crate::domain::{Envelope, ImportPosition};
pub use decode::{DeathInfo, IncomingMessage};

/// Marks messages that our receiver took over HTTP.
const RECEIVER_APP_ID: &str = "tallyhook-receiver";
/// Longer errors are cut: headers must fit into one frame.
const MAX_ERROR_BYTES: usize = 4000;

/// Strangers' headers beyond so many bytes are left behind.
const MAX_FOREIGN_HEADERS_BYTES: usize = 64 * 1024;
const HEADER_PREFIX: &str = "x-tallyhook-";

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
const SECRET: &str = "x-tallyhook-secret";
const STATUS: &str = "x-tallyhook-status";
const RECEIVED: &str = "x-tallyhook-received-at";
const HEADERS: &str = "x-tallyhook-http-headers";
const QUERY: &str = "x-tallyhook-http-query";
const IMPORT: &str = "x-tallyhook-import";
const LINE: &str = "x-tallyhook-line";
const LAST_FAILED: &str = "x-tallyhook-last-failed-at";

/// A message on its way to the broker.
#[derive(Clone, Debug)]
pub struct OutgoingMessage {
    pub(super) exchange: String,
    pub(super) routing_key: String,
    pub(super) properties: BasicProperties,
    pub(super) body: Bytes,
}

impl OutgoingMessage {
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
        insert_header(&mut headers, FIRST_FAILED, timestamp(first_failed_at));
        Self {
            exchange: topology.retry_queue(delay),
            routing_key: envelope.source.to_string(),
            properties: properties(envelope, headers),
            body: envelope.body.clone(),
        }
    }

    /// A parcel on its way to the dead, whatever it was.
    pub fn dead_letter(topology: &Topology, parcel: &IncomingMessage, mark: &DeathInfo) -> Self {
        // What the broker counted is dropped: a producer's `x-death` is
        // believed by some versions and not by others.
        let mut headers = FieldTable::default();
        // With ours they must fit into one frame; a stranger's may fill one.
        let room = parcel.headers_size() < MAX_FOREIGN_HEADERS_BYTES;
        let keep =
            |key: &str| (room || key.starts_with(HEADER_PREFIX)) && !key.starts_with("x-death");
        for (key, value) in parcel.headers().filter(|(key, _)| keep(key)) {
            insert_header(&mut headers, key, value.clone());
        }
        insert_header(&mut headers, REASON, long_string(mark.reason.as_str()));
        insert_header(&mut headers, ERROR, long_string(truncate(&mark.error, MAX_ERROR_BYTES)));
        insert_header(&mut headers, ATTEMPT, AMQPValue::LongUInt(mark.attempts));
        insert_header(&mut headers, FIRST_FAILED, timestamp(mark.first_failed_at));
        insert_header(&mut headers, LAST_FAILED, timestamp(mark.last_failed_at));
        if let Some(key) = &mark.business_key {
            insert_header(&mut headers, BUSINESS_KEY, long_string(key));
        }
        Self {
            exchange: topology.dead_letter_queue(),
            routing_key: parcel.routing_key.clone(),
            properties: parcel.properties.clone().with_headers(headers).with_delivery_mode(2),
            body: parcel.body.clone(),
        }
    }

    /// A parcel that found no queue, once more on its way in.
    pub fn republish(topology: &Topology, parcel: &IncomingMessage) -> Self {
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
    insert_header(&mut headers, SOURCE, long_string(envelope.source.as_str()));
    insert_header(&mut headers, TENANT, long_string(&envelope.tenant));
    insert_header(&mut headers, RECEIPT, long_string(&envelope.receipt_id.to_string()));
    insert_header(&mut headers, ATTEMPT, AMQPValue::LongUInt(envelope.failed_attempts));
    insert_header(&mut headers, GENERATION, AMQPValue::LongUInt(envelope.generation));
    if let Some(replay) = envelope.replay_id {
        insert_header(&mut headers, REPLAY, long_string(&replay.to_string()));
    }
    if let Some(version) = envelope.version {
        insert_header(&mut headers, VERSION, timestamp(version));
    }
    if let Some(secret) = &envelope.secret_label {
        insert_header(&mut headers, SECRET, long_string(secret));
    }
    import_headers(&mut headers, envelope.import);
    headers
}

fn import_headers(headers: &mut FieldTable, import: Option<ImportPosition>) {
    if let Some(ImportPosition { import_id, line }) = import {
        insert_header(headers, IMPORT, long_string(&import_id.to_string()));
        insert_header(headers, LINE, AMQPValue::LongUInt(line));
    }
}

fn properties(envelope: &Envelope, headers: FieldTable) -> BasicProperties {
    let mut properties = BasicProperties::default()
        // Persistent. Quorum queues keep everything on disk; another type of
        // queue, bound by somebody else, would not.
        .with_delivery_mode(2)
        .with_message_id(short_string(envelope.key.as_str()))
        .with_type(short_string(&envelope.topic))
        .with_timestamp(u64::try_from(envelope.received_at.unix_timestamp()).unwrap_or_default())
        .with_headers(headers);
    if envelope.received_over_http {
        properties = properties.with_app_id(short_string(RECEIVER_APP_ID));
    }
    properties
}

fn insert_header(table: &mut FieldTable, key: &str, value: AMQPValue) {
    table.insert(short_string(key), value);
}

fn short_string(text: &str) -> ShortString {
    ShortString::try_new(truncate(text, 255)).unwrap_or_default()
}

/// The text, cut to so many bytes at a character's border.
fn truncate(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

fn long_string(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.as_bytes().into())
}

fn timestamp(value: OffsetDateTime) -> AMQPValue {
    long_string(&value.format(&Rfc3339).unwrap_or_default())
}
