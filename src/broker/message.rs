//! The message contract: which AMQP property and header carries what.
//!
//! `message_id` is the event key, `type` the topic, `timestamp` the time of
//! receipt, headers are named `x-tallyhook-*`, and the body is the raw bytes
//! received. Any AMQP producer may publish by the same contract; `decode`
//! fills in what it leaves out, or rejects the message.
//!
//! `encode` writes the contract and `decode` reads it. `stored` turns a
//! message into JSON for `dead_letters.headers` and back, so that a replay
//! reads the headers with the same decoder.

mod cloud_event;
mod decode;
mod encode;
mod headers;
mod import_progress;
mod lenient;
mod rejected_request;
mod stored;
#[cfg(test)]
mod tests;

pub use decode::{DeathInfo, IncomingMessage};
pub use encode::OutgoingMessage;
pub use lenient::StoredIdentity;
