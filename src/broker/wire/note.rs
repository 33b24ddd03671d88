//! Notes about imports on the wire, to the call log and back.

use lapin::BasicProperties;

use super::{OVER_HTTP, Outgoing, Parcel, short};
use crate::{broker::Topology, domain::ImportNote};

/// The AMQP type of a note.
const IMPORT_NOTE: &str = "import";

impl Outgoing {
    /// A note about an import on its way to the worker. It takes the way of
    /// refused calls, behind the lines that were rejected before it.
    pub fn import_note(topology: &Topology, note: &ImportNote) -> Self {
        Self {
            exchange: topology.calls(),
            routing_key: note.source.to_string(),
            properties: BasicProperties::default()
                .with_delivery_mode(2)
                .with_message_id(short(&format!("import:{}", note.import_id)))
                .with_type(short(IMPORT_NOTE))
                .with_app_id(short(OVER_HTTP)),
            // Names, numbers and times: it can always be written as JSON.
            body: serde_json::to_vec(note).unwrap_or_default().into(),
        }
    }
}

impl Parcel {
    /// The note about an import, if it is one.
    pub fn import_note(&self) -> Option<ImportNote> {
        let kind = self.properties.kind().as_ref()?;
        (kind.as_str() == IMPORT_NOTE).then(|| serde_json::from_slice(&self.body).ok()).flatten()
    }
}
