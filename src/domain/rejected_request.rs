//! A call that was refused, on its way to the call log or the quarantine.

use bytes::Bytes;
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{EventKey, ImportPosition, SourceName};

/// A call that was answered with a 4xx, or a line of an import that was
/// rejected: the call that brought it is answered all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedRequest {
    /// Names the call, also on its answer.
    pub receipt_id: Uuid,
    /// Where it came in.
    pub source: SourceName,
    /// The shop or company, if that is why it was refused; else empty.
    pub tenant: String,
    /// When its body had been read, as far as it was.
    pub received_at: OffsetDateTime,
    /// The status that answered it.
    pub status: Option<u16>,
    /// What the answer said was wrong.
    pub error: String,
    /// The raw bytes received; empty if they were not read whole.
    pub body: Bytes,
    /// The line, if it is one of an import.
    pub import: Option<ImportPosition>,
    /// For the quarantine, and only for it: what verifying it again needs.
    pub request_head: Option<RequestHead>,
}

/// The part of a call that is not its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// Its headers, as an adapter keeps and reads them.
    pub headers: Value,
    /// What stood behind the `?` of its address.
    pub query: String,
}

impl RejectedRequest {
    /// Stands for an event key in the call log, where every row has one. No
    /// event's: each call has its own, and none is ever claimed in the inbox.
    pub fn log_key(&self) -> EventKey {
        EventKey::new(&self.source, &self.tenant, &format!("call:{}", self.receipt_id), 0)
    }
}
