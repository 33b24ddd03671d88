//! Deliveries: what other systems must hear of a document.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Our namespace for idempotency keys. Never change it: a key that was sent
/// must be sent again.
const IDEMPOTENCY_KEY_NAMESPACE: Uuid = Uuid::from_u128(0x0d1c_5a7e_93b4_5f0a_8c61_2e4f_7a90_b3d8);

macro_rules! words {
    ($(#[$outer:meta])* $name:ident { $($(#[$inner:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name { $($(#[$inner])* #[serde(rename = $word)] $variant,)* }

        impl $name {
            /// Every one.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word, as it stands in SQL and in the configuration.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// The one with this word.
            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.as_str() == word)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

words! {
    /// What happened to a document, as other systems hear it.
    DocumentEvent {
        /// An order appeared or changed.
        OrderUpserted = "order.upserted",
        /// The platform deleted an order.
        OrderDeleted = "order.deleted",
        /// An invoice appeared. Told once for each, and what a mirror is made of.
        InvoiceCreated = "invoice.created",
        /// An invoice changed.
        InvoiceUpdated = "invoice.updated",
        /// The platform deleted an invoice.
        InvoiceDeleted = "invoice.deleted",
        /// Money went back, or was to.
        RefundUpserted = "refund.upserted",
    }
}

words! {
    /// Where a delivery stands.
    DeliveryState {
        /// Waits for its turn, or for the next attempt.
        Pending = "pending",
        /// A call is under way, or was when its worker died.
        Sending = "sending",
        /// The target has it.
        Delivered = "delivered",
        /// Nobody knows whether the target has it: its answer never came.
        Uncertain = "uncertain",
        /// The target refuses it, or every attempt failed: before a person.
        Failed = "failed",
        /// A person took it back. For good: a re-issue is another delivery.
        Voided = "voided",
    }
}

/// What makes two deliveries the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryIdentity<'a> {
    /// The target.
    pub destination: &'a str,
    /// What it hears.
    pub event: DocumentEvent,
    /// Where the document came in.
    pub source: &'a str,
    /// The shop or company.
    pub tenant: &'a str,
    /// Our id of the document.
    pub document_id: &'a str,
    /// Which issue of it: raised by a re-issue, and by nothing else.
    pub issue: u32,
    /// The receipt of the message that made it; nil for what is told once.
    pub cause_receipt_id: Uuid,
}

impl DeliveryIdentity<'_> {
    /// The key under which the target is to create it once: UUID v5 of all of
    /// the name, so that the same delivery has the same key for ever, and a
    /// re-issue another one.
    pub fn idempotency_key(&self) -> Uuid {
        let Self {
            destination: target,
            event,
            source,
            tenant,
            document_id,
            issue: generation,
            cause_receipt_id: revision,
        } = *self;
        let mut name = Vec::new();
        for part in [target, event.as_str(), source, tenant, document_id] {
            // The length in front keeps ("ab", "c") apart from ("a", "bc").
            name.extend_from_slice(&(part.len() as u64).to_be_bytes());
            name.extend_from_slice(part.as_bytes());
        }
        name.extend_from_slice(&generation.to_be_bytes());
        name.extend_from_slice(revision.as_bytes());
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
    fn the_key_is_the_same_for_ever() {
        // Written down: another derivation would create every mirror again
        // whose answer was lost.
        assert_eq!(NAME.idempotency_key().to_string(), "32335732-3880-5e1a-855f-3ced443fc3c7");
    }

    #[test]
    fn each_part_makes_another_key() {
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
