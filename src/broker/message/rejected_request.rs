//! Refused calls on the wire, to the call log and back.

use std::time::Duration;

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    ERROR, HEADERS, IncomingMessage, MAX_ERROR_BYTES, OutgoingMessage, QUERY, RECEIPT, RECEIVED,
    RECEIVER_APP_ID, SOURCE, STATUS, TENANT, decode::sanitize, import_headers, insert_header,
    long_string, short_string, timestamp, truncate,
};
use crate::{
    broker::Topology,
    domain::{RejectedRequest, RequestHead, SourceName},
};

impl OutgoingMessage {
    /// A refused call on its way to the call log. What its head weighs is the
    /// caller's to limit: all of it must fit into one frame.
    pub fn rejected_request(topology: &Topology, call: &RejectedRequest) -> Self {
        let mut headers = FieldTable::default();
        insert_header(&mut headers, SOURCE, long_string(call.source.as_str()));
        insert_header(&mut headers, TENANT, long_string(truncate(&call.tenant, MAX_ERROR_BYTES)));
        insert_header(&mut headers, RECEIPT, long_string(&call.receipt_id.to_string()));
        insert_header(&mut headers, RECEIVED, timestamp(call.received_at));
        insert_header(&mut headers, ERROR, long_string(truncate(&call.error, MAX_ERROR_BYTES)));
        if let Some(status) = call.status {
            insert_header(&mut headers, STATUS, AMQPValue::LongUInt(status.into()));
        }
        import_headers(&mut headers, call.import);
        if let Some(head) = &call.request_head {
            insert_header(&mut headers, HEADERS, long_string(&head.headers.to_string()));
            insert_header(&mut headers, QUERY, long_string(&head.query));
        }
        let seconds = u64::try_from(call.received_at.unix_timestamp()).unwrap_or_default();
        Self {
            exchange: topology.rejected_request_queue(),
            routing_key: call.source.to_string(),
            properties: BasicProperties::default()
                .with_delivery_mode(2)
                .with_message_id(short_string(call.log_key().as_str()))
                .with_timestamp(seconds)
                .with_app_id(short_string(RECEIVER_APP_ID))
                .with_headers(headers),
            body: call.body.clone(),
        }
    }

    /// The same, gone after so long in its queue: for what nobody has signed.
    /// With the worker away, strangers must not be able to fill the broker.
    #[must_use]
    pub fn expiring(mut self, after: Duration) -> Self {
        let milliseconds = short_string(&after.as_millis().to_string());
        self.properties = self.properties.with_expiration(milliseconds);
        self
    }
}

impl IncomingMessage {
    /// The refused call, as it came out of the call log's queue. Whatever
    /// cannot be read is left out: nothing keeps the rest from being recorded.
    pub fn rejected_request(&self, now: OffsetDateTime) -> RejectedRequest {
        let receipt_id = self.receipt_id().ok().flatten();
        let received_at = self.timestamp(RECEIVED).ok().flatten();
        let told = |key: &str| sanitize(&self.text(key).unwrap_or_default());
        let status = self.number(STATUS).ok().and_then(|status| u16::try_from(status).ok());
        let headers = self.text(HEADERS).and_then(|json| serde_json::from_str(&json).ok());
        RejectedRequest {
            receipt_id: receipt_id.unwrap_or_else(Uuid::now_v7),
            source: self.routing_key.parse().unwrap_or_else(|_| SourceName::unknown()),
            tenant: told(TENANT),
            received_at: received_at.unwrap_or_else(|| self.received_at(receipt_id, now)),
            status: status.filter(|status| (100..600).contains(status)),
            error: told(ERROR),
            body: self.body.clone(),
            import: self.import(),
            request_head: headers.map(|headers| RequestHead {
                headers,
                query: self.text(QUERY).unwrap_or_default(),
            }),
        }
    }
}
