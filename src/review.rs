//! What operators do with dead letters, deliveries and quarantined requests: one library for the
//! CLI, and for the API and the console to come. It prints nothing and asks nothing.

mod broker;
pub mod dead_letter_queue;
pub mod dead_letters;
pub mod deliveries;
pub mod quarantine;
mod selection;

pub use crate::store::audit_log::Actor;
pub use broker::OperatorBroker;
pub use selection::{EmptySelection, Filter, Selected, Selection, SelectionSummary, Summarize};

/// A payload as text if it is UTF-8, otherwise in base64.
fn text_or_base64(payload: Vec<u8>) -> (Option<String>, Option<String>) {
    match String::from_utf8(payload) {
        Ok(text) => (Some(text), None),
        Err(error) => (None, Some(data_encoding::BASE64.encode(error.as_bytes()))),
    }
}
