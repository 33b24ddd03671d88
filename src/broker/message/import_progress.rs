//! Progress of imports, encoded and decoded.

use lapin::BasicProperties;

use super::{
    decode::IncomingMessage,
    encode::{OutgoingMessage, PERSISTENT, short_string},
    headers,
};
use crate::{broker::topology::Topology, domain::ImportProgress};

impl OutgoingMessage {
    /// The progress of an import for the worker. It goes to the queue of
    /// rejected requests, behind the lines that were rejected before.
    pub fn import_progress(topology: &Topology, progress: &ImportProgress) -> Self {
        Self {
            exchange: topology.rejected_request_queue(),
            routing_key: progress.source.to_string(),
            properties: BasicProperties::default()
                .with_delivery_mode(PERSISTENT)
                .with_message_id(short_string(&format!("import:{}", progress.import_id)))
                .with_type(short_string(headers::IMPORT_PROGRESS_TYPE))
                .with_app_id(short_string(headers::RECEIVER_APP_ID)),
            // Names, numbers and times: serializing cannot fail.
            body: serde_json::to_vec(progress).unwrap_or_default().into(),
        }
    }
}

impl IncomingMessage {
    /// Decodes the progress of an import; `None` for any other message.
    pub fn import_progress(&self) -> Option<ImportProgress> {
        let kind = self.properties.kind().as_ref()?;
        let is_progress = kind.as_str() == headers::IMPORT_PROGRESS_TYPE;
        is_progress.then(|| serde_json::from_slice(&self.body).ok()).flatten()
    }
}
