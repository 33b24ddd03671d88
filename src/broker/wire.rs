//! The envelope on the wire: which AMQP property and header carries what.
//!
//! `message_id` the event key, `type` the topic, `timestamp` received at,
//! headers `x-tallyhook-*`, body the raw bytes. Any producer may publish by
//! the same contract; what it leaves out is filled in or refused in `parcel`.

mod call;
mod event;
mod note;
mod parcel;
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
use crate::domain::{Envelope, ImportItem};
pub use parcel::{DeadMark, Parcel};

/// Marks messages that our receiver took over HTTP.
const OVER_HTTP: &str = "tallyhook-receiver";
/// Longer errors are cut: headers must fit into one frame.
const LONGEST_ERROR: usize = 4000;

/// Strangers' headers beyond so many bytes are left behind.
const LONGEST_HEADERS: usize = 64 * 1024;
const OURS: &str = "x-tallyhook-";

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
pub struct Outgoing {
    pub(super) exchange: String,
    pub(super) routing_key: String,
    pub(super) properties: BasicProperties,
    pub(super) body: Bytes,
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
        // With ours they must fit into one frame; a stranger's may fill one.
        let room = parcel.headers_weight() < LONGEST_HEADERS;
        let keep = |key: &str| (room || key.starts_with(OURS)) && !key.starts_with("x-death");
        for (key, value) in parcel.headers().filter(|(key, _)| keep(key)) {
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
    if let Some(secret) = &envelope.secret {
        insert(&mut headers, SECRET, text(secret));
    }
    import_headers(&mut headers, envelope.import);
    headers
}

fn import_headers(headers: &mut FieldTable, import: Option<ImportItem>) {
    if let Some(ImportItem { import_id, line }) = import {
        insert(headers, IMPORT, text(&import_id.to_string()));
        insert(headers, LINE, AMQPValue::LongUInt(line));
    }
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
