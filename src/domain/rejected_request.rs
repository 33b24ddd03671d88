//! A rejected request, for the receipts or the quarantine.

use bytes::Bytes;
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{EventKey, ImportPosition, SourceName};

/// A request that was answered with a 4xx, or a rejected line of an import whose upload was
/// accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedRequest {
    /// Id of the request; also in the response.
    pub receipt_id: Uuid,
    /// The source that received it.
    pub source: SourceName,
    /// The tenant, if it is the reason for the rejection; else empty.
    pub tenant: String,
    /// When the body had been read, as far as it was.
    pub received_at: OffsetDateTime,
    /// The HTTP status of the response.
    pub status: Option<u16>,
    /// The error in the response.
    pub error: String,
    /// The raw body; empty if it was not read to its end.
    pub body: Bytes,
    /// The position in the imported file, for a rejected line.
    pub import: Option<ImportPosition>,
    /// Headers and query, for the quarantine only: verifying the request again needs them.
    pub request_head: Option<RequestHead>,
}

/// The parts of a request beside its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// The headers in their stored form (`sources::stored_headers`).
    pub headers: Value,
    /// The query string, without the `?`.
    pub query: String,
}

impl RejectedRequest {
    /// The key of its row in the receipts, where every row has one. It is unique per
    /// request and never claimed in the inbox.
    pub fn log_key(&self) -> EventKey {
        EventKey::new(&self.source, &self.tenant, &format!("call:{}", self.receipt_id), 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejected_request_log_key_names_source_tenant_and_request() {
        let request = RejectedRequest {
            receipt_id: Uuid::nil(),
            source: SourceName::unknown(),
            tenant: "t".to_owned(),
            received_at: OffsetDateTime::UNIX_EPOCH,
            status: Some(400),
            error: "is not JSON".to_owned(),
            body: Bytes::new(),
            import: None,
            request_head: None,
        };
        let expected = "unknown|t|call:00000000-0000-0000-0000-000000000000";
        assert_eq!(request.log_key().as_str(), expected);
    }
}
