//! The JSON form of a message in `dead_letters.headers`, to and from.

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};
use serde_json::{Map, Value, json};

use super::{
    decode::{IncomingMessage, as_text},
    encode::{insert_header, long_string, short_string},
};

const ROUTING_KEY: &str = "routing_key";
const MESSAGE_ID: &str = "message_id";
const TYPE: &str = "type";
const TIMESTAMP: &str = "timestamp";
const APP_ID: &str = "app_id";
const HEADERS: &str = "headers";

impl IncomingMessage {
    /// Routing key, properties and headers as JSON.
    pub fn to_json(&self) -> Value {
        let mut object = Map::new();
        let [message_id, topic, _] = self.identity_texts();
        let routing_key = self.routing_key.replace('\0', "\u{fffd}");
        object.insert(ROUTING_KEY.to_owned(), json!(routing_key));
        object.insert(MESSAGE_ID.to_owned(), json!(message_id));
        object.insert(TYPE.to_owned(), json!(topic));
        if let Some(timestamp) = self.properties.timestamp() {
            object.insert(TIMESTAMP.to_owned(), json!(timestamp));
        }
        if let Some(app_id) = self.properties.app_id() {
            object.insert(APP_ID.to_owned(), json!(app_id.as_str().replace('\0', "")));
        }
        let headers =
            self.headers().map(|(key, value)| (key.replace('\0', ""), header_to_json(value)));
        object.insert(HEADERS.to_owned(), Value::Object(headers.collect()));
        Value::Object(object)
    }

    /// The message that [`IncomingMessage::to_json`] stored. Absent properties
    /// stay absent; arrays and tables, which no header of ours is, are left out.
    pub fn from_json(stored: &Value, body: Vec<u8>) -> Self {
        let text = |key: &str| stored[key].as_str();
        let mut table = FieldTable::default();
        for (key, value) in stored[HEADERS].as_object().into_iter().flatten() {
            if let Some(value) = header_from_json(value) {
                insert_header(&mut table, key, value);
            }
        }
        let mut properties = BasicProperties::default().with_headers(table);
        if let Some(message_id) = text(MESSAGE_ID) {
            properties = properties.with_message_id(short_string(message_id));
        }
        if let Some(topic) = text(TYPE) {
            properties = properties.with_type(short_string(topic));
        }
        if let Some(timestamp) = stored[TIMESTAMP].as_u64() {
            properties = properties.with_timestamp(timestamp);
        }
        if let Some(app_id) = text(APP_ID) {
            properties = properties.with_app_id(short_string(app_id));
        }
        Self::new(text(ROUTING_KEY).unwrap_or_default().to_owned(), properties, body)
    }
}

/// The value of a header as `jsonb` can store it.
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

fn header_from_json(value: &Value) -> Option<AMQPValue> {
    match value {
        Value::String(text) => Some(long_string(text)),
        Value::Bool(flag) => Some(AMQPValue::Boolean(*flag)),
        Value::Number(number) => number.as_i64().map(AMQPValue::LongLongInt),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
