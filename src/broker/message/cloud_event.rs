//! Events about documents on the wire, to whoever listens.

use lapin::BasicProperties;
use uuid::Uuid;

use super::{OutgoingMessage, short_string};

impl OutgoingMessage {
    /// A CloudEvent in structured mode. Its id is the message's too, so that
    /// it can be told from others before it is parsed.
    pub fn cloud_event(
        exchange: &str,
        routing_key: &str,
        id: Uuid,
        kind: &str,
        body: String,
    ) -> Self {
        Self {
            exchange: exchange.to_owned(),
            routing_key: routing_key.to_owned(),
            properties: BasicProperties::default()
                .with_delivery_mode(2)
                .with_content_type(short_string("application/cloudevents+json"))
                .with_message_id(short_string(&id.to_string()))
                .with_type(short_string(kind)),
            body: body.into(),
        }
    }
}
