//! Invoices: the canonical row, and how an event updates it.

use std::fmt;

use time::{Date, OffsetDateTime};
use uuid::Uuid;

use super::{Money, SourceName};

/// Our namespace for derived invoice ids. Never change it: ids already handed
/// out are derived from it.
const INVOICE_NAMESPACE: Uuid = Uuid::from_u128(0x6f0d_9f2c_6a1b_5c53_9e5f_2f8c_7b1d_4a90);

/// An invoice's state in our words; the platform's own word stands beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InvoiceStatus {
    /// Not sent yet.
    Draft,
    /// Sent, not paid.
    Open,
    /// Paid.
    Paid,
    /// Withdrawn.
    Void,
    /// Given up.
    Uncollectible,
    /// A state that we have no word for; see the platform's own.
    Other,
}

impl InvoiceStatus {
    /// Every status.
    pub const ALL: [Self; 6] =
        [Self::Draft, Self::Open, Self::Paid, Self::Void, Self::Uncollectible, Self::Other];

    /// The word, as it stands in SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Open => "open",
            Self::Paid => "paid",
            Self::Void => "void",
            Self::Uncollectible => "uncollectible",
            Self::Other => "other",
        }
    }

    /// The status with this word (any case), or `Other`: an unknown status
    /// must never cost an invoice.
    pub fn parse_or_other(word: &str) -> Self {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str().eq_ignore_ascii_case(word))
            .unwrap_or(Self::Other)
    }
}

impl fmt::Display for InvoiceStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An invoice's whole state, as one event told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invoice {
    /// The platform's own id of the document, where it has one: it stays
    /// while a draft gets its number.
    pub document_id: Option<String>,
    /// Who sends it; empty where the source is the vendor.
    pub vendor: String,
    /// The vendor's number for it: unique for the vendor.
    pub invoice_number: String,
    /// The sender's id of the transaction behind it.
    pub transaction_id: Option<String>,
    /// Our word for its state.
    pub status: InvoiceStatus,
    /// The platform's word for its state.
    pub platform_status: String,
    /// What it is over.
    pub total: Money,
    /// The day by which it is to be paid.
    pub due_on: Option<Date>,
    /// A number that the platform raises with each state, or the rank of the
    /// status where time tells no order; compared before the version. 0 where
    /// the version alone decides.
    pub sequence: i64,
    /// The platform's version of this state.
    pub version: OffsetDateTime,
}

impl Invoice {
    /// Its id: derived from the platform's id of the document, else from
    /// vendor and number.
    pub fn id(&self, source: &SourceName, tenant: &str, generation: u32) -> Uuid {
        let (vendor, number) = match &self.document_id {
            Some(document) => ("", document),
            None => (self.vendor.as_str(), &self.invoice_number),
        };
        invoice_id(source, tenant, vendor, number, generation)
    }
}

/// That the platform deleted a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedInvoice {
    /// The platform's own id of it ([`Invoice::document_id`]).
    pub document_id: String,
    /// When.
    pub deleted_at: OffsetDateTime,
}

/// What to do when an invoice number comes again with another transaction: it
/// is never a second invoice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InvoiceConflict {
    /// A person must see both.
    Review,
    /// The later one tells the invoice's state.
    #[default]
    Update,
    /// The first one stands; the later one is a duplicate.
    Duplicate,
}

/// The id of an invoice: UUID v5 of source, tenant, vendor, number and
/// generation, so that whoever knows the invoice knows its id without asking.
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

    #[test]
    fn the_id_is_the_same_for_ever() {
        let source: SourceName = "erp".parse().unwrap();
        let id = invoice_id(&source, "", "ACME", "INV-1", 0);
        // Written down: a change of the derivation would break every id that
        // was ever handed to a robot.
        assert_eq!(id.to_string(), "32d02f0b-c140-5d1b-8b80-5c04c9bbee3d");
    }

    #[test]
    fn each_part_and_each_generation_makes_another_id() {
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
}
