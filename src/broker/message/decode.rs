//! Reading what the broker delivered, believing nothing of it.

use bytes::Bytes;
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, ShortString},
};
use serde_json::{Map, Value, json};
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};
use uuid::Uuid;

use super::{
    ATTEMPT, BUSINESS_KEY, ERROR, FIRST_FAILED, GENERATION, IMPORT, LAST_FAILED, LINE, REASON,
    RECEIPT, RECEIVER_APP_ID, REPLAY, SECRET, TENANT, VERSION, insert_header, long_string,
    truncate,
};
use crate::domain::{Envelope, EventKey, ImportPosition, PermanentFailure, ReasonCode, SourceName};

/// Longer texts about a message are cut; an index takes 2700 bytes.
const MAX_TEXT_BYTES: usize = 2000;

/// A message as the broker delivered it, before anything is believed of it.
#[derive(Clone, Debug)]
pub struct IncomingMessage {
    /// The routing key it was published with: the source.
    pub routing_key: String,
    /// Its body.
    pub body: Bytes,
    pub(super) properties: BasicProperties,
}

/// What a dead letter says about its death.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeathInfo {
    /// Why.
    pub reason: ReasonCode,
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

impl IncomingMessage {
    /// What a consumer was given.
    pub(crate) fn new(routing_key: String, properties: BasicProperties, body: Vec<u8>) -> Self {
        Self { routing_key, properties, body: body.into() }
    }

    /// The event, as it came out of `source`'s queue.
    ///
    /// # Errors
    /// [`PermanentFailure`] if the message does not keep the contract: no
    /// `message_id`, or a header that cannot be read.
    pub fn envelope(
        &self,
        source: &SourceName,
        now: OffsetDateTime,
    ) -> Result<Envelope, PermanentFailure> {
        let tenant = self.text_without_nul(TENANT)?.unwrap_or_default();
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
            version: self.timestamp(VERSION)?,
            received_at: self.received_at(receipt_id, now),
            failed_attempts: self.number(ATTEMPT)?,
            generation: self.number(GENERATION)?,
            replay_id: self.uuid(REPLAY)?,
            received_over_http: self.is_over_http(),
            secret_label: self.text(SECRET),
            import: self.import(),
            body: self.body.clone(),
        })
    }

    /// The receipt id that it carries.
    ///
    /// # Errors
    /// [`PermanentFailure`] if it is no UUID.
    pub fn receipt_id(&self) -> Result<Option<Uuid>, PermanentFailure> {
        self.uuid(RECEIPT)
    }

    /// Gives the parcel a receipt id, if it has none that can be read: so
    /// that it can be archived once and only once.
    pub fn ensure_receipt_id(&mut self) {
        if !matches!(self.receipt_id(), Ok(Some(_))) {
            let mut headers = FieldTable::default();
            for (key, value) in self.headers() {
                insert_header(&mut headers, key, value.clone());
            }
            insert_header(&mut headers, RECEIPT, long_string(&Uuid::now_v7().to_string()));
            self.properties = self.properties.clone().with_headers(headers);
        }
    }

    /// When it failed first, if it did before.
    pub fn first_failed_at(&self) -> Option<OffsetDateTime> {
        self.timestamp(FIRST_FAILED).ok().flatten()
    }

    /// How many attempts have failed, as far as it can be read.
    pub fn attempts(&self) -> u32 {
        self.number(ATTEMPT).unwrap_or_default()
    }

    /// The replay that sent it, if one did and it can be read.
    pub fn replay(&self) -> Option<Uuid> {
        self.uuid(REPLAY).ok().flatten()
    }

    /// The file that it stood in, if it came in with an import and both can
    /// be read. No reason to refuse a message.
    pub fn import(&self) -> Option<ImportPosition> {
        let import_id = self.uuid(IMPORT).ok().flatten()?;
        Some(ImportPosition { import_id, line: self.number(LINE).ok()? })
    }

    /// Whether our receiver took it over HTTP.
    pub fn is_over_http(&self) -> bool {
        self.properties.app_id().as_ref().is_some_and(|id| id.as_str() == RECEIVER_APP_ID)
    }

    /// The texts that describe it to a person, cleaned of what PostgreSQL
    /// does not store: `message_id`, topic and tenant.
    pub fn identity_texts(&self) -> [String; 3] {
        let property = |text: &Option<ShortString>| {
            text.as_ref().map_or_else(String::new, |text| sanitize(text.as_str()))
        };
        [
            property(self.properties.message_id()),
            property(self.properties.kind()),
            sanitize(&self.text(TENANT).unwrap_or_default()),
        ]
    }

    /// What a dead letter says about its death: our worker's mark, or what the
    /// broker wrote when it gave up by itself.
    pub fn death_info(&self, now: OffsetDateTime) -> DeathInfo {
        let at = |key| self.timestamp(key).ok().flatten();
        if let Some(reason) = self.text(REASON).as_deref().and_then(ReasonCode::from_code) {
            let last = at(LAST_FAILED).unwrap_or(now);
            return DeathInfo {
                reason,
                error: sanitize(&self.text(ERROR).unwrap_or_default()),
                business_key: self.text(BUSINESS_KEY).map(|key| sanitize(&key)),
                attempts: self.attempts(),
                first_failed_at: at(FIRST_FAILED).unwrap_or(last),
                last_failed_at: last,
            };
        }
        let (code, queue) = self.broker_death();
        let reason = match code.as_str() {
            "expired" => ReasonCode::Expired,
            "maxlen" => ReasonCode::Maxlen,
            // "rejected" is nothing that we do, and "delivery_limit" what
            // remains: the message was delivered and never settled.
            _ => ReasonCode::DeliveryLimit,
        };
        DeathInfo {
            reason,
            error: format!("the broker gave up ({code}) in queue {queue}"),
            business_key: None,
            attempts: self.attempts(),
            first_failed_at: at(FIRST_FAILED).unwrap_or(now),
            last_failed_at: now,
        }
    }

    /// The newest entry of `x-death`: reason and queue.
    fn broker_death(&self) -> (String, String) {
        let newest = match self.header("x-death") {
            Some(AMQPValue::FieldArray(deaths)) => deaths.as_slice().first(),
            _ => None,
        };
        let entry = |key: &str| match newest {
            Some(AMQPValue::FieldTable(table)) => table.inner().get(key).and_then(as_text),
            _ => None,
        };
        let unknown = || "unknown".to_owned();
        let told = |key| entry(key).map_or_else(unknown, |text| sanitize(&text));
        (told("reason"), told("queue"))
    }

    /// Properties and headers, for people.
    pub fn to_json(&self) -> Value {
        let mut described = Map::new();
        let [message_id, topic, _] = self.identity_texts();
        described.insert("message_id".to_owned(), json!(message_id));
        described.insert("type".to_owned(), json!(topic));
        if let Some(timestamp) = self.properties.timestamp() {
            described.insert("timestamp".to_owned(), json!(timestamp));
        }
        if let Some(app_id) = self.properties.app_id() {
            described.insert("app_id".to_owned(), json!(app_id.as_str().replace('\0', "")));
        }
        let headers =
            self.headers().map(|(key, value)| (key.replace('\0', ""), header_to_json(value)));
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

    /// About how many bytes its headers take.
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

    fn uuid(&self, key: &str) -> Result<Option<Uuid>, PermanentFailure> {
        self.text(key)
            .map(|text| text.parse().map_err(|_| PermanentFailure::invalid(key, "is not a UUID")))
            .transpose()
    }

    pub(super) fn timestamp(&self, key: &str) -> Result<Option<OffsetDateTime>, PermanentFailure> {
        self.text(key)
            .map(|text| {
                OffsetDateTime::parse(&text, &Rfc3339)
                    .ok()
                    // In UTC, the last hours of the year 9999 may be no time at all.
                    .and_then(|moment| moment.checked_to_offset(UtcOffset::UTC))
                    .ok_or_else(|| PermanentFailure::invalid(key, "is not a time in RFC 3339"))
            })
            .transpose()
    }
}

fn as_text(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => Some(String::from_utf8_lossy(text.as_bytes()).into_owned()),
        AMQPValue::ShortString(text) => Some(text.as_str().to_owned()),
        _ => None,
    }
}

/// A header's value as JSON, fit for `jsonb`.
fn header_to_json(value: &AMQPValue) -> Value {
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
        AMQPValue::FieldArray(values) => values.as_slice().iter().map(header_to_json).collect(),
        AMQPValue::FieldTable(table) => Value::Object(
            table
                .inner()
                .iter()
                .map(|(key, value)| (key.as_str().replace('\0', ""), header_to_json(value)))
                .collect(),
        ),
        AMQPValue::LongString(_) | AMQPValue::ShortString(_) => {
            json!(as_text(value).unwrap_or_default().replace('\0', "\u{fffd}"))
        }
        AMQPValue::DecimalValue(_) | AMQPValue::ByteArray(_) | AMQPValue::Void => Value::Null,
    }
}

/// A text as PostgreSQL stores and indexes it: without NUL, and not endless.
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
