//! Invoices, in the form in which they are stored.

use time::{Date, OffsetDateTime};
use uuid::Uuid;

use super::{Money, SourceName, string_enum};

/// UUID namespace of invoice ids. Never change it: every issued id is derived from it.
const INVOICE_NAMESPACE: Uuid = Uuid::from_u128(0x6f0d_9f2c_6a1b_5c53_9e5f_2f8c_7b1d_4a90);

string_enum! {
    /// The normalized state of an invoice; the platform's own word is stored beside it.
    InvoiceStatus or Other {
        /// Not sent yet.
        Draft = "draft",
        /// Sent, not paid.
        Open = "open",
        /// Paid.
        Paid = "paid",
        /// Withdrawn.
        Void = "void",
        /// Written off.
        Uncollectible = "uncollectible",
        /// Any other state; see the platform's word.
        Other = "other",
    }
}

/// The complete state of an invoice, as one event reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invoice {
    /// The platform's id of the document, if it has one. It stays the same when a draft
    /// gets its number.
    pub document_id: Option<String>,
    /// The issuer; empty if the source is the vendor.
    pub vendor: String,
    /// The vendor's invoice number, unique per vendor.
    pub invoice_number: String,
    /// The sender's id of the transaction behind the invoice.
    pub transaction_id: Option<String>,
    /// Normalized state.
    pub status: InvoiceStatus,
    /// The platform's word for the state.
    pub platform_status: String,
    /// The amount of the invoice.
    pub total: Money,
    /// Due date.
    pub due_on: Option<Date>,
    /// A number that the platform raises with each state, or the rank of the status if
    /// times give no order. Compared before the version; 0 if the version alone decides.
    pub sequence: i64,
    /// The platform's time of this state.
    pub version: OffsetDateTime,
}

impl Invoice {
    /// The invoice id, derived from the platform's id of the document, else from vendor and
    /// number.
    pub fn id(&self, source: &SourceName, tenant: &str, generation: u32) -> Uuid {
        let (vendor, number) = match &self.document_id {
            Some(document) => ("", document),
            None => (self.vendor.as_str(), &self.invoice_number),
        };
        invoice_id(source, tenant, vendor, number, generation)
    }
}

/// The deletion of a document by the platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedInvoice {
    /// The platform's id of the document ([`Invoice::document_id`]).
    pub document_id: String,
    /// When the platform deleted it.
    pub deleted_at: OffsetDateTime,
}

/// What to do if an invoice number arrives again with another transaction. It never becomes
/// a second invoice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InvoiceConflict {
    /// Dead-letter the later one for review.
    Review,
    /// The later one updates the invoice.
    #[default]
    Update,
    /// Keep the first one; the later one is a duplicate.
    Duplicate,
}

/// The id of an invoice: a UUID v5 of source, tenant, vendor, number and issue
/// number, so that it can be computed without a lookup.
pub fn invoice_id(
    source: &SourceName,
    tenant: &str,
    vendor: &str,
    invoice_number: &str,
    generation: u32,
) -> Uuid {
    let mut name = Vec::new();
    for part in [source.as_str(), tenant, vendor, invoice_number] {
        // The length in front keeps ("ab", "c") apart from ("a", "bc").
        name.extend_from_slice(&(part.len() as u64).to_be_bytes());
        name.extend_from_slice(part.as_bytes());
    }
    name.extend_from_slice(&generation.to_be_bytes());
    Uuid::new_v5(&INVOICE_NAMESPACE, &name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Currency;

    #[test]
    fn invoice_id_derivation_is_stable() {
        let source: SourceName = "erp".parse().unwrap();
        let id = invoice_id(&source, "", "ACME", "INV-1", 0);
        // A changed derivation would break every id that was ever returned to a client.
        assert_eq!(id.to_string(), "32d02f0b-c140-5d1b-8b80-5c04c9bbee3d");
    }

    #[test]
    fn invoice_id_depends_on_every_part() {
        let source: SourceName = "erp".parse().unwrap();
        let ids = [
            invoice_id(&source, "", "ab", "c", 0),
            invoice_id(&source, "", "a", "bc", 0),
            invoice_id(&source, "a", "b", "c", 0),
            invoice_id(&source, "", "ab", "c", 1),
        ];
        for (index, id) in ids.iter().enumerate() {
            assert!(!ids[..index].contains(id));
        }
    }

    #[test]
    fn invoice_id_prefers_the_document_to_the_number() {
        let source: SourceName = "erp".parse().unwrap();
        let mut invoice = Invoice {
            document_id: Some("in_1".to_owned()),
            vendor: "ACME".to_owned(),
            invoice_number: "INV-1".to_owned(),
            transaction_id: None,
            status: InvoiceStatus::Open,
            platform_status: "open".to_owned(),
            total: Money { amount: 5.into(), currency: Currency::NONE },
            due_on: None,
            sequence: 0,
            version: OffsetDateTime::UNIX_EPOCH,
        };
        assert_eq!(invoice.id(&source, "t", 1), invoice_id(&source, "t", "", "in_1", 1));
        invoice.document_id = None;
        assert_eq!(invoice.id(&source, "t", 1), invoice_id(&source, "t", "ACME", "INV-1", 1));
    }
}
