//! CloudEvents about documents for other systems.

use lapin::BasicProperties;
use uuid::Uuid;

use super::encode::{OutgoingMessage, PERSISTENT, short_string};

impl OutgoingMessage {
    /// A CloudEvent in structured mode. Its id is also the `message_id`, so
    /// that a consumer can deduplicate before it parses the body.
    pub fn cloud_event(
        exchange: &str,
        routing_key: &str,
        id: Uuid,
        event_type: &str,
        body: String,
    ) -> Self {
        Self {
            exchange: exchange.to_owned(),
            routing_key: routing_key.to_owned(),
            properties: BasicProperties::default()
                .with_delivery_mode(PERSISTENT)
                .with_content_type(short_string("application/cloudevents+json"))
                .with_message_id(short_string(&id.to_string()))
                .with_type(short_string(event_type)),
            body: body.into(),
        }
    }
}
