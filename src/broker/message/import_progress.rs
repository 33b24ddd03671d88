//! Notes about imports on the wire, to the call log and back.

use lapin::BasicProperties;

use super::{IncomingMessage, OutgoingMessage, RECEIVER_APP_ID, short_string};
use crate::{broker::Topology, domain::ImportProgress};

/// The AMQP type of a note.
const IMPORT_PROGRESS_TYPE: &str = "import";

impl OutgoingMessage {
    /// A note about an import on its way to the worker. It takes the way of
    /// refused calls, behind the lines that were rejected before it.
    pub fn import_progress(topology: &Topology, note: &ImportProgress) -> Self {
        Self {
            exchange: topology.rejected_request_queue(),
            routing_key: note.source.to_string(),
            properties: BasicProperties::default()
                .with_delivery_mode(2)
                .with_message_id(short_string(&format!("import:{}", note.import_id)))
                .with_type(short_string(IMPORT_PROGRESS_TYPE))
                .with_app_id(short_string(RECEIVER_APP_ID)),
            // Names, numbers and times: it can always be written as JSON.
            body: serde_json::to_vec(note).unwrap_or_default().into(),
        }
    }
}

impl IncomingMessage {
    /// The note about an import, if it is one.
    pub fn import_progress(&self) -> Option<ImportProgress> {
        let kind = self.properties.kind().as_ref()?;
        (kind.as_str() == IMPORT_PROGRESS_TYPE)
            .then(|| serde_json::from_slice(&self.body).ok())
            .flatten()
    }
}
