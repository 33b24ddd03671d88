//! Rejected requests, encoded and decoded.

use std::time::Duration;

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    decode::{IncomingMessage, sanitize},
    encode::{
        MAX_ERROR_BYTES, OutgoingMessage, PERSISTENT, insert_header, insert_import_position,
        long_string, short_string, timestamp, truncate, unix_seconds,
    },
    headers,
};
use crate::{
    broker::topology::Topology,
    domain::{RejectedRequest, RequestHead, SourceName},
};

impl OutgoingMessage {
    /// A rejected request for the queue of rejected requests. The caller limits
    /// the size of its head: all of it must fit into one frame.
    pub fn rejected_request(topology: &Topology, request: &RejectedRequest) -> Self {
        let tenant = truncate(&request.tenant, MAX_ERROR_BYTES);
        let error = truncate(&request.error, MAX_ERROR_BYTES);
        let mut table = FieldTable::default();
        insert_header(&mut table, headers::SOURCE, long_string(request.source.as_str()));
        insert_header(&mut table, headers::TENANT, long_string(tenant));
        insert_header(&mut table, headers::RECEIPT, long_string(&request.receipt_id.to_string()));
        insert_header(&mut table, headers::RECEIVED, timestamp(request.received_at));
        insert_header(&mut table, headers::ERROR, long_string(error));
        if let Some(status) = request.status {
            insert_header(&mut table, headers::STATUS, AMQPValue::LongUInt(status.into()));
        }
        insert_import_position(&mut table, request.import);
        if let Some(RequestHead { headers, query }) = &request.request_head {
            insert_header(&mut table, headers::HTTP_HEADERS, long_string(&headers.to_string()));
            insert_header(&mut table, headers::HTTP_QUERY, long_string(query));
        }
        Self {
            exchange: topology.rejected_request_queue(),
            routing_key: request.source.to_string(),
            properties: BasicProperties::default()
                .with_delivery_mode(PERSISTENT)
                .with_message_id(short_string(request.log_key().as_str()))
                .with_timestamp(unix_seconds(request.received_at))
                .with_app_id(short_string(headers::RECEIVER_APP_ID))
                .with_headers(table),
            body: request.body.clone(),
        }
    }

    /// The same message, dropped by RabbitMQ after it has waited this long.
    /// For unauthenticated requests: while the worker is down, clients
    /// without a secret must not be able to fill the broker.
    #[must_use]
    pub fn expiring(mut self, after: Duration) -> Self {
        let milliseconds = short_string(&after.as_millis().to_string());
        self.properties = self.properties.with_expiration(milliseconds);
        self
    }
}

impl IncomingMessage {
    /// Decodes a rejected request. Invalid headers count as absent, so that
    /// the rest is recorded.
    pub fn rejected_request(&self, now: OffsetDateTime) -> RejectedRequest {
        let receipt_id = self.receipt_id().ok().flatten();
        let received_at = self.timestamp(headers::RECEIVED).ok().flatten();
        let text = |key: &str| sanitize(&self.text(key).unwrap_or_default());
        let status = self.number(headers::STATUS).ok();
        let http_headers =
            self.text(headers::HTTP_HEADERS).and_then(|json| serde_json::from_str(&json).ok());
        RejectedRequest {
            receipt_id: receipt_id.unwrap_or_else(Uuid::now_v7),
            source: self.routing_key.parse().unwrap_or_else(|_| SourceName::unknown()),
            tenant: text(headers::TENANT),
            received_at: received_at.unwrap_or_else(|| self.received_at(receipt_id, now)),
            status: status
                .and_then(|status| u16::try_from(status).ok())
                .filter(|status| (100..600).contains(status)),
            error: text(headers::ERROR),
            body: self.body.clone(),
            import: self.import_position(),
            request_head: http_headers.map(|headers| RequestHead {
                headers,
                query: self.text(headers::HTTP_QUERY).unwrap_or_default(),
            }),
        }
    }
}
