//! Refused calls on the wire, to the call log and back.

use std::time::Duration;

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    ERROR, HEADERS, LONGEST_ERROR, OVER_HTTP, Outgoing, Parcel, QUERY, RECEIPT, RECEIVED, SOURCE,
    STATUS, TENANT, cut, import_headers, insert, moment, parcel::cleaned, short, text,
};
use crate::{
    broker::Topology,
    domain::{Head, RefusedCall, SourceName},
};

impl Outgoing {
    /// A refused call on its way to the call log. What its head weighs is the
    /// caller's to limit: all of it must fit into one frame.
    pub fn call(topology: &Topology, call: &RefusedCall) -> Self {
        let mut headers = FieldTable::default();
        insert(&mut headers, SOURCE, text(call.source.as_str()));
        insert(&mut headers, TENANT, text(cut(&call.tenant, LONGEST_ERROR)));
        insert(&mut headers, RECEIPT, text(&call.receipt_id.to_string()));
        insert(&mut headers, RECEIVED, moment(call.received_at));
        insert(&mut headers, ERROR, text(cut(&call.error, LONGEST_ERROR)));
        if let Some(status) = call.status {
            insert(&mut headers, STATUS, AMQPValue::LongUInt(status.into()));
        }
        import_headers(&mut headers, call.import);
        if let Some(head) = &call.head {
            insert(&mut headers, HEADERS, text(&head.headers.to_string()));
            insert(&mut headers, QUERY, text(&head.query));
        }
        let seconds = u64::try_from(call.received_at.unix_timestamp()).unwrap_or_default();
        Self {
            exchange: topology.calls(),
            routing_key: call.source.to_string(),
            properties: BasicProperties::default()
                .with_delivery_mode(2)
                .with_message_id(short(call.key().as_str()))
                .with_timestamp(seconds)
                .with_app_id(short(OVER_HTTP))
                .with_headers(headers),
            body: call.body.clone(),
        }
    }

    /// The same, gone after so long in its queue: for what nobody has signed.
    /// With the worker away, strangers must not be able to fill the broker.
    #[must_use]
    pub fn expiring(mut self, after: Duration) -> Self {
        let milliseconds = short(&after.as_millis().to_string());
        self.properties = self.properties.with_expiration(milliseconds);
        self
    }
}

impl Parcel {
    /// The refused call, as it came out of the call log's queue. Whatever
    /// cannot be read is left out: nothing keeps the rest from being recorded.
    pub fn call(&self, now: OffsetDateTime) -> RefusedCall {
        let receipt_id = self.receipt_id().ok().flatten();
        let received_at = self.moment(RECEIVED).ok().flatten();
        let told = |key: &str| cleaned(&self.text(key).unwrap_or_default());
        let status = self.number(STATUS).ok().and_then(|status| u16::try_from(status).ok());
        let headers = self.text(HEADERS).and_then(|json| serde_json::from_str(&json).ok());
        RefusedCall {
            receipt_id: receipt_id.unwrap_or_else(Uuid::now_v7),
            source: self.routing_key.parse().unwrap_or_else(|_| SourceName::unknown()),
            tenant: told(TENANT),
            received_at: received_at.unwrap_or_else(|| self.received_at(receipt_id, now)),
            status: status.filter(|status| (100..600).contains(status)),
            error: told(ERROR),
            body: self.body.clone(),
            import: self.import(),
            head: headers
                .map(|headers| Head { headers, query: self.text(QUERY).unwrap_or_default() }),
        }
    }
}
