//! Decodes untrusted AMQP messages.

use bytes::Bytes;
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, ShortString},
};
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};
use uuid::Uuid;

use super::{
    encode::{PERSISTENT, insert_header, long_string, truncate},
    headers,
};
use crate::domain::{Envelope, EventKey, ImportPosition, PermanentFailure, ReasonCode, SourceName};

/// Longer texts are truncated: a PostgreSQL index entry takes 2700 bytes.
const MAX_TEXT_BYTES: usize = 2000;

/// What the names of headers start with that RabbitMQ adds.
const BROKER_HEADERS: [&str; 4] =
    ["x-death", "x-first-death-", "x-last-death-", "x-delivery-count"];

/// A message as RabbitMQ delivered it. Nothing of it is validated.
#[derive(Clone, Debug)]
pub struct IncomingMessage {
    /// The routing key that it was published with: the name of its source.
    pub routing_key: String,
    /// The raw bytes.
    pub body: Bytes,
    pub(in crate::broker) properties: BasicProperties,
}

/// Why and when a message became a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeathInfo {
    /// The reason code.
    pub reason: ReasonCode,
    /// The error and its causes.
    pub error: String,
    /// The document's number for operators, if it could be read.
    pub business_key: Option<String>,
    /// How many attempts failed.
    pub attempts: u32,
    /// When the first attempt failed.
    pub first_failed_at: OffsetDateTime,
    /// When the last attempt failed.
    pub last_failed_at: OffsetDateTime,
}

impl IncomingMessage {
    /// A message from the parts of a delivery.
    pub(crate) fn new(routing_key: String, properties: BasicProperties, body: Vec<u8>) -> Self {
        Self { routing_key, properties, body: body.into() }
    }

    /// Decodes the event of a message from the queue of `source`.
    ///
    /// # Errors
    /// [`PermanentFailure`] if the message breaks the contract: it has no
    /// `message_id`, or one of its headers is invalid.
    pub fn envelope(
        &self,
        source: &SourceName,
        now: OffsetDateTime,
    ) -> Result<Envelope, PermanentFailure> {
        let tenant = self.text_without_nul(headers::TENANT)?.unwrap_or_default();
        let message_id = self
            .properties
            .message_id()
            .as_ref()
            .map(ShortString::as_str)
            .filter(|id| !id.is_empty())
            .ok_or_else(|| PermanentFailure::missing("message_id"))?;
        let topic = self.properties.kind().as_ref().map_or("", ShortString::as_str);
        if topic.contains('\0') {
            return Err(PermanentFailure::invalid("type", "contains a NUL character"));
        }
        let receipt_id = self.receipt_id()?;
        Ok(Envelope {
            receipt_id: receipt_id.unwrap_or_else(Uuid::now_v7),
            source: source.clone(),
            key: EventKey::from_message_id(source, &tenant, message_id),
            tenant,
            topic: topic.to_owned(),
            version: self.timestamp(headers::VERSION)?,
            received_at: self.received_at(receipt_id, now),
            failed_attempts: self.number(headers::ATTEMPT)?,
            generation: self.number(headers::GENERATION)?,
            replay_id: self.uuid(headers::REPLAY)?,
            received_over_http: self.is_received_over_http(),
            secret_label: self.text(headers::SECRET),
            import: self.import_position(),
            body: self.body.clone(),
        })
    }

    /// The receipt id in its header.
    ///
    /// # Errors
    /// [`PermanentFailure`] if it is not a UUID.
    pub fn receipt_id(&self) -> Result<Option<Uuid>, PermanentFailure> {
        self.uuid(headers::RECEIPT)
    }

    /// Adds a receipt id if the message has no valid one: archiving is
    /// idempotent by it.
    pub fn ensure_receipt_id(&mut self) -> Uuid {
        if let Ok(Some(receipt_id)) = self.receipt_id() {
            return receipt_id;
        }
        let receipt_id = Uuid::now_v7();
        let mut table = FieldTable::default();
        for (key, value) in self.headers() {
            insert_header(&mut table, key, value.clone());
        }
        insert_header(&mut table, headers::RECEIPT, long_string(&receipt_id.to_string()));
        self.properties = self.properties.clone().with_headers(table);
        receipt_id
    }

    /// When the first attempt failed, if one did.
    pub fn first_failed_at(&self) -> Option<OffsetDateTime> {
        self.timestamp(headers::FIRST_FAILED).ok().flatten()
    }

    /// How many attempts have failed; 0 if the header is invalid.
    pub fn failed_attempts(&self) -> u32 {
        self.number(headers::ATTEMPT).unwrap_or_default()
    }

    /// The position in an import's file, if both headers are valid. An invalid
    /// one does not fail the message.
    pub(super) fn import_position(&self) -> Option<ImportPosition> {
        let import_id = self.uuid(headers::IMPORT).ok().flatten()?;
        Some(ImportPosition { import_id, line: self.number(headers::LINE).ok()? })
    }

    pub(super) fn is_received_over_http(&self) -> bool {
        let app_id = self.properties.app_id().as_ref();
        app_id.is_some_and(|app_id| app_id.as_str() == headers::RECEIVER_APP_ID)
    }

    /// `message_id`, topic and tenant, sanitized for PostgreSQL.
    pub(super) fn identity_texts(&self) -> [String; 3] {
        let property = |text: &Option<ShortString>| {
            text.as_ref().map_or_else(String::new, |text| sanitize(text.as_str()))
        };
        [
            property(self.properties.message_id()),
            property(self.properties.kind()),
            sanitize(&self.text(headers::TENANT).unwrap_or_default()),
        ]
    }

    /// Why this dead letter died: as our worker wrote it, or as RabbitMQ did
    /// when it gave the message up.
    pub fn death_info(&self, now: OffsetDateTime) -> DeathInfo {
        let time = |key| self.timestamp(key).ok().flatten();
        if let Some(reason) =
            self.text(headers::REASON).as_deref().and_then(|code| code.parse::<ReasonCode>().ok())
        {
            let last_failed_at = time(headers::LAST_FAILED).unwrap_or(now);
            return DeathInfo {
                reason,
                error: sanitize(&self.text(headers::ERROR).unwrap_or_default()),
                business_key: self.text(headers::BUSINESS_KEY).map(|key| sanitize(&key)),
                attempts: self.failed_attempts(),
                first_failed_at: time(headers::FIRST_FAILED).unwrap_or(last_failed_at),
                last_failed_at,
            };
        }
        let (code, queue) = self.broker_death();
        let reason = match code.as_str() {
            "expired" => ReasonCode::Expired,
            "maxlen" => ReasonCode::Maxlen,
            // Tallyhook never rejects a message, so what remains is
            // "delivery_limit": delivered too often, never acknowledged.
            _ => ReasonCode::DeliveryLimit,
        };
        DeathInfo {
            reason,
            error: format!("the broker gave up ({code}) in queue {queue}"),
            business_key: None,
            attempts: self.failed_attempts(),
            first_failed_at: time(headers::FIRST_FAILED).unwrap_or(now),
            last_failed_at: now,
        }
    }

    /// Reason and queue of the newest entry of `x-death`.
    fn broker_death(&self) -> (String, String) {
        let newest = match self.header("x-death") {
            Some(AMQPValue::FieldArray(deaths)) => deaths.as_slice().first(),
            _ => None,
        };
        let field = |key: &str| {
            let value = match newest {
                Some(AMQPValue::FieldTable(table)) => table.inner().get(key).and_then(as_text),
                _ => None,
            };
            value.map_or_else(|| "unknown".to_owned(), |text| sanitize(&text))
        };
        (field("reason"), field("queue"))
    }

    /// When the message was received. The AMQP timestamp counts seconds; a
    /// receipt id (UUID v7) of the same second adds the milliseconds.
    pub fn received_at(&self, receipt_id: Option<Uuid>, now: OffsetDateTime) -> OffsetDateTime {
        let from_property = self
            .properties
            .timestamp()
            .and_then(|seconds| i64::try_from(seconds).ok())
            .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
        let from_id = receipt_id.and_then(|id| id.get_timestamp()).and_then(|timestamp| {
            let (seconds, nanoseconds) = timestamp.to_unix();
            OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).ok()?)
                .ok()?
                .replace_nanosecond(nanoseconds)
                .ok()
        });
        match (from_property, from_id) {
            (Some(property), Some(id)) if id.unix_timestamp() == property.unix_timestamp() => id,
            (Some(property), _) => property,
            (None, Some(id)) => id,
            (None, None) => now,
        }
    }

    /// The properties for publishing the message once more, without headers.
    ///
    /// Copied from a list: with a copied `expiration` RabbitMQ would drop the
    /// message in a queue without a dead-letter exchange, and with another
    /// user's `user_id` it would close the channel.
    pub(super) fn republished_properties(&self) -> BasicProperties {
        let mut properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
        if let Some(message_id) = self.properties.message_id() {
            properties = properties.with_message_id(message_id.clone());
        }
        if let Some(kind) = self.properties.kind() {
            properties = properties.with_type(kind.clone());
        }
        if let Some(timestamp) = self.properties.timestamp() {
            properties = properties.with_timestamp(*timestamp);
        }
        if let Some(app_id) = self.properties.app_id() {
            properties = properties.with_app_id(app_id.clone());
        }
        if let Some(content_type) = self.properties.content_type() {
            properties = properties.with_content_type(content_type.clone());
        }
        if let Some(content_encoding) = self.properties.content_encoding() {
            properties = properties.with_content_encoding(content_encoding.clone());
        }
        if let Some(correlation_id) = self.properties.correlation_id() {
            properties = properties.with_correlation_id(correlation_id.clone());
        }
        properties
    }

    /// The headers for publishing the message once more: without those that
    /// RabbitMQ adds, whose meaning differs between its versions, and without
    /// `CC` and `BCC`, which would route it to other queues too.
    pub(super) fn republished_headers(&self) -> FieldTable {
        let is_copied = |key: &str| {
            !BROKER_HEADERS.iter().any(|prefix| key.starts_with(prefix))
                && !matches!(key, "CC" | "BCC")
        };
        let mut table = FieldTable::default();
        for (key, value) in self.headers().filter(|(key, _)| is_copied(key)) {
            insert_header(&mut table, key, value.clone());
        }
        table
    }

    /// The approximate size of its headers in bytes.
    pub(super) fn headers_size(&self) -> usize {
        self.headers().map(|(key, value)| key.len() + value_size(value)).sum()
    }

    pub(super) fn headers(&self) -> impl Iterator<Item = (&str, &AMQPValue)> {
        let table = self.properties.headers().as_ref();
        table
            .into_iter()
            .flat_map(|table| table.inner().iter().map(|(key, value)| (key.as_str(), value)))
    }

    fn header(&self, key: &str) -> Option<&AMQPValue> {
        self.properties.headers().as_ref()?.inner().get(key)
    }

    pub(super) fn text(&self, key: &str) -> Option<String> {
        self.header(key).and_then(as_text)
    }

    fn text_without_nul(&self, key: &str) -> Result<Option<String>, PermanentFailure> {
        match self.text(key) {
            Some(text) if text.contains('\0') => {
                Err(PermanentFailure::invalid(key, "contains a NUL character"))
            }
            text => Ok(text),
        }
    }

    pub(super) fn number(&self, key: &str) -> Result<u32, PermanentFailure> {
        let number = match self.header(key) {
            None | Some(AMQPValue::Void) => return Ok(0),
            Some(AMQPValue::ShortShortInt(number)) => i64::from(*number),
            Some(AMQPValue::ShortShortUInt(number)) => i64::from(*number),
            Some(AMQPValue::ShortInt(number)) => i64::from(*number),
            Some(AMQPValue::ShortUInt(number)) => i64::from(*number),
            Some(AMQPValue::LongInt(number)) => i64::from(*number),
            Some(AMQPValue::LongUInt(number)) => i64::from(*number),
            Some(AMQPValue::LongLongInt(number)) => *number,
            Some(_) => return Err(PermanentFailure::invalid(key, "is not a number")),
        };
        u32::try_from(number).map_err(|_| PermanentFailure::invalid(key, "is not a count"))
    }

    pub(super) fn uuid(&self, key: &str) -> Result<Option<Uuid>, PermanentFailure> {
        self.text(key)
            .map(|text| text.parse().map_err(|_| PermanentFailure::invalid(key, "is not a UUID")))
            .transpose()
    }

    pub(super) fn timestamp(&self, key: &str) -> Result<Option<OffsetDateTime>, PermanentFailure> {
        self.text(key)
            .map(|text| {
                OffsetDateTime::parse(&text, &Rfc3339)
                    .ok()
                    // The last hours of the year 9999 may not exist in UTC.
                    .and_then(|time| time.checked_to_offset(UtcOffset::UTC))
                    .ok_or_else(|| PermanentFailure::invalid(key, "is not a time in RFC 3339"))
            })
            .transpose()
    }
}

pub(super) fn as_text(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => Some(String::from_utf8_lossy(text.as_bytes()).into_owned()),
        AMQPValue::ShortString(text) => Some(text.as_str().to_owned()),
        _ => None,
    }
}

/// The text as PostgreSQL stores and indexes it: without NUL characters, and
/// truncated.
pub(super) fn sanitize(text: &str) -> String {
    truncate(text, MAX_TEXT_BYTES).replace('\0', "\u{fffd}")
}

fn value_size(value: &AMQPValue) -> usize {
    match value {
        AMQPValue::LongString(text) => text.len() + 8,
        AMQPValue::ByteArray(bytes) => bytes.len() + 8,
        AMQPValue::FieldArray(values) => values.as_slice().iter().map(value_size).sum(),
        AMQPValue::FieldTable(table) => {
            table.inner().iter().map(|(key, value)| key.as_str().len() + value_size(value)).sum()
        }
        _ => 16,
    }
}
