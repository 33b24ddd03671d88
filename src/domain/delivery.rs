//! Deliveries: messages about documents to other systems.

use uuid::Uuid;

use super::string_enum;

/// UUID namespace of idempotency keys. Never change it: a repeated delivery must carry the
/// same key.
const IDEMPOTENCY_KEY_NAMESPACE: Uuid = Uuid::from_u128(0x0d1c_5a7e_93b4_5f0a_8c61_2e4f_7a90_b3d8);

string_enum! {
    /// What happened to a document.
    DocumentEvent {
        /// An order was created or changed.
        OrderUpserted = "order.upserted",
        /// The platform deleted an order.
        OrderDeleted = "order.deleted",
        /// An invoice was created. Sent once per invoice; mirror destinations create their
        /// copy from it.
        InvoiceCreated = "invoice.created",
        /// An invoice changed.
        InvoiceUpdated = "invoice.updated",
        /// The platform deleted an invoice.
        InvoiceDeleted = "invoice.deleted",
        /// A refund was created or changed.
        RefundUpserted = "refund.upserted",
    }
}

string_enum! {
    /// The state of a delivery.
    DeliveryState {
        /// Waits for its first or next attempt.
        Pending = "pending",
        /// An attempt is in progress, or its worker died during it.
        Sending = "sending",
        /// The destination has accepted it.
        Delivered = "delivered",
        /// The destination may have accepted it: its response never arrived.
        Uncertain = "uncertain",
        /// The destination rejected it, or every attempt failed. An operator must act.
        Failed = "failed",
        /// An operator cancelled it. Final: a re-issue is another delivery.
        Voided = "voided",
    }
}

/// The identity of a delivery: two deliveries with equal identities are the same delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryIdentity<'a> {
    /// Name of the destination.
    pub destination: &'a str,
    /// The event to deliver.
    pub event: DocumentEvent,
    /// Source of the document.
    pub source: &'a str,
    /// Tenant within the source: a shop or a company.
    pub tenant: &'a str,
    /// Our id of the document.
    pub document_id: &'a str,
    /// Issue number; only a re-issue raises it.
    pub issue: u32,
    /// Receipt id of the message that caused the delivery; nil for events that are sent
    /// once.
    pub cause_receipt_id: Uuid,
}

impl DeliveryIdentity<'_> {
    /// The idempotency key: a UUID v5 of the identity. A repeated delivery has the same
    /// key; a re-issue has another.
    pub fn idempotency_key(&self) -> Uuid {
        let Self { destination, event, source, tenant, document_id, issue, cause_receipt_id } =
            *self;
        let mut name = Vec::new();
        for part in [destination, event.as_str(), source, tenant, document_id] {
            // The length in front keeps ("ab", "c") apart from ("a", "bc").
            name.extend_from_slice(&(part.len() as u64).to_be_bytes());
            name.extend_from_slice(part.as_bytes());
        }
        name.extend_from_slice(&issue.to_be_bytes());
        name.extend_from_slice(cause_receipt_id.as_bytes());
        Uuid::new_v5(&IDEMPOTENCY_KEY_NAMESPACE, &name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: DeliveryIdentity<'static> = DeliveryIdentity {
        destination: "books",
        event: DocumentEvent::InvoiceCreated,
        source: "vendors",
        tenant: "",
        document_id: "32d02f0b-c140-5d1b-8b80-5c04c9bbee3d",
        issue: 0,
        cause_receipt_id: Uuid::nil(),
    };

    #[test]
    fn idempotency_key_derivation_is_stable() {
        // A different derivation would create a second copy of every mirrored document
        // whose response was lost.
        assert_eq!(NAME.idempotency_key().to_string(), "32335732-3880-5e1a-855f-3ced443fc3c7");
    }

    #[test]
    fn idempotency_key_depends_on_every_part() {
        let names = [
            NAME,
            DeliveryIdentity { destination: "book", ..NAME },
            DeliveryIdentity { event: DocumentEvent::InvoiceUpdated, ..NAME },
            DeliveryIdentity { source: "vendor", tenant: "s", ..NAME },
            DeliveryIdentity { tenant: "s", ..NAME },
            DeliveryIdentity { document_id: "1", ..NAME },
            DeliveryIdentity { issue: 1, ..NAME },
            DeliveryIdentity { cause_receipt_id: Uuid::max(), ..NAME },
        ];
        let keys = names.map(|name| name.idempotency_key());
        for (index, key) in keys.iter().enumerate() {
            assert!(!keys[..index].contains(key), "{index}");
        }
    }
}
