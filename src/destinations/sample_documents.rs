//! Sample documents, with which templates are validated at start. Their fields
//! are those of `invoice_document`, `order_document` and `refund_document` in
//! the migrations.

use serde_json::{Value, json};
use uuid::Uuid;

use super::DeliveryPayload;
use crate::domain::DocumentEvent;

/// A document with all fields set.
pub(super) fn full_sample(event: DocumentEvent) -> Value {
    match event {
        DocumentEvent::InvoiceCreated
        | DocumentEvent::InvoiceUpdated
        | DocumentEvent::InvoiceDeleted => json!({
            "invoice_id": "32d02f0b-c140-5d1b-8b80-5c04c9bbee3d",
            "source": "sample",
            "tenant": "sample",
            "vendor": "Müller & \"Söhne\" <GmbH>",
            "number": "A/1 2026",
            "document_id": "1001",
            "transaction_id": "T-1",
            "status": "open",
            "platform_status": "open",
            "currency": "EUR",
            "total": "1234.50",
            "due_on": "2026-01-31",
            "version": "2026-01-02T03:04:05.123456+00:00",
            "deleted_at": "2026-01-02T03:04:05.123456+00:00",
        }),
        DocumentEvent::OrderUpserted | DocumentEvent::OrderDeleted => json!({
            "order_id": "1001",
            "source": "sample",
            "tenant": "sample",
            "number": "#1001",
            "status": "paid",
            "platform_status": "paid",
            "currency": "EUR",
            "total": "1234.50",
            "refunded": "0",
            "customer_ref": "7",
            "payment_ref": "pi_1",
            "placed_at": "2026-01-02T03:04:05.123456+00:00",
            "version": "2026-01-02T03:04:05.123456+00:00",
            "lines": [{
                "id": "1",
                "sku": "A-1",
                "title": "Lamp \"Sun\" <L>",
                "quantity": "2",
                "unit_price": "617.25",
                "total": "1234.50",
            }],
            "deleted_at": "2026-01-02T03:04:05.123456+00:00",
        }),
        DocumentEvent::RefundUpserted => json!({
            "refund_id": "1001",
            "source": "sample",
            "tenant": "sample",
            "order_id": "1001",
            "payment_ref": "pi_1",
            "status": "succeeded",
            "platform_status": "succeeded",
            "currency": "EUR",
            "amount": "12.50",
            "version": "2026-01-02T03:04:05.123456+00:00",
        }),
    }
}

/// The same document without the fields that may be null.
pub(super) fn minimal_sample(event: DocumentEvent) -> Value {
    let mut document = full_sample(event);
    let may_be_null: &[&str] = match event {
        DocumentEvent::InvoiceCreated | DocumentEvent::InvoiceUpdated => {
            &["document_id", "transaction_id", "due_on", "deleted_at"]
        }
        DocumentEvent::InvoiceDeleted => &["document_id", "transaction_id", "due_on"],
        DocumentEvent::OrderUpserted => {
            &["number", "customer_ref", "payment_ref", "placed_at", "deleted_at"]
        }
        // An order may be deleted before its first update arrives.
        DocumentEvent::OrderDeleted => &[
            "number",
            "status",
            "platform_status",
            "currency",
            "total",
            "customer_ref",
            "payment_ref",
            "placed_at",
            "version",
        ],
        DocumentEvent::RefundUpserted => &["order_id", "payment_ref"],
    };
    for field in may_be_null {
        document[*field] = Value::Null;
    }
    if document.get("lines").is_some() {
        // Optional fields of a line are missing, not null.
        document["lines"] = json!([{}]);
    }
    document
}

/// The payload of a delivery of a sample.
pub(super) fn sample_payload(event: DocumentEvent, document: &Value) -> DeliveryPayload<'_> {
    let text = |field: &str| document.get(field).and_then(Value::as_str);
    let of_refund = event == DocumentEvent::RefundUpserted;
    let ids = ["invoice_id", "refund_id", "order_id"];
    DeliveryPayload {
        document,
        event: event.as_str(),
        source: "sample",
        tenant: "sample",
        document_id: ids.iter().find_map(|id| text(id)).unwrap_or_default(),
        document_number: text(if of_refund { "order_id" } else { "number" }),
        issue: 0,
        idempotency_key: Uuid::nil(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const MIGRATION: &str = include_str!("../../migrations/0002_documents.sql");

    /// The fields of the JSON object that a function of the migration builds.
    fn document_fields(function: &str) -> BTreeSet<&'static str> {
        let (_, body) = MIGRATION.split_once(&format!("create function {function}(")).unwrap();
        let (_, body) = body.split_once("jsonb_build_object(").unwrap();
        let (body, _) = body.split_once("$$").unwrap();
        body.split('\'').skip(1).step_by(2).collect()
    }

    #[test]
    fn sample_documents_have_the_fields_of_the_migration() {
        for event in DocumentEvent::ALL {
            let function = match event.as_str().split('.').next().unwrap() {
                "invoice" => "invoice_document",
                "order" => "order_document",
                _ => "refund_document",
            };
            for sample in [full_sample(event), minimal_sample(event)] {
                let fields = sample.as_object().unwrap().keys().map(String::as_str);
                assert_eq!(fields.collect::<BTreeSet<_>>(), document_fields(function), "{event}");
            }
        }
    }
}
