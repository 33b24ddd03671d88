//! The event keys and documents of this process's open transactions.
//!
//! Two transactions that claim one key or write one document run one after the
//! other: the second waits until the first has committed its whole batch. With
//! many duplicates nearly every batch shares something with another one. So a
//! consumer applies first what no other transaction has in flight, and the
//! rest in a second transaction, when the others are mostly done.
//!
//! This only saves waiting. The inbox and the row locks decide; other processes
//! do not see these keys.

use std::{
    collections::{HashSet, hash_map::RandomState},
    hash::{BuildHasher as _, Hash},
    sync::{Arc, Mutex, PoisonError},
};

use super::message::Message;
use crate::domain::{Change, Refund, RefundTarget, SourceName};

/// The keys and documents of this process's open transactions; shared by
/// clones.
#[derive(Clone, Debug, Default)]
pub struct InFlightKeys {
    /// Key hashes. A collision only causes an unnecessary wait.
    keys: Arc<Mutex<HashSet<u64>>>,
    hasher: RandomState,
}

/// The keys that one consumer acquired. Dropping it releases them.
#[derive(Debug)]
pub struct InFlightGuard {
    in_flight: InFlightKeys,
    keys: Vec<u64>,
}

impl InFlightKeys {
    /// Acquires the keys of messages that share none with another guard.
    /// Returns for each message whether its keys were acquired. A message that
    /// shares a key with an earlier one that was not acquired is not either:
    /// the events of a document keep their order.
    pub fn acquire(&self, source: &SourceName, messages: &[Message]) -> (InFlightGuard, Vec<bool>) {
        let mut acquired = Vec::with_capacity(2 * messages.len());
        let mut own: HashSet<u64> = HashSet::with_capacity(2 * messages.len());
        let mut postponed = HashSet::new();
        let mut held = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let mut are_free = Vec::with_capacity(messages.len());
        for message in messages {
            let keys = self.keys_of(source, message);
            let is_taken =
                |key: &u64| (held.contains(key) && !own.contains(key)) || postponed.contains(key);
            let is_free = !keys.iter().any(is_taken);
            are_free.push(is_free);
            if !is_free {
                postponed.extend(keys);
                continue;
            }
            for key in keys {
                if own.insert(key) {
                    held.insert(key);
                    acquired.push(key);
                }
            }
        }
        drop(held);
        (InFlightGuard { in_flight: self.clone(), keys: acquired }, are_free)
    }

    /// The event key, and the documents that its transaction locks.
    fn keys_of(&self, source: &SourceName, message: &Message) -> Vec<u64> {
        let tenant = message.envelope.tenant.as_str();
        let mut keys = Vec::with_capacity(1 + message.changes.len());
        keys.push(self.hash_key(&("event", message.envelope.key.as_str())));
        for change in &message.changes {
            keys.push(match change {
                Change::Order(update) => {
                    self.hash_key(&("order", source, tenant, update.order_id()))
                }
                Change::Refund(refund) => {
                    let Refund { target, refund_id, .. } = refund.as_ref();
                    match target {
                        RefundTarget::Order(order_id) => {
                            self.hash_key(&("order", source, tenant, order_id.as_str()))
                        }
                        RefundTarget::Payment(_) => {
                            self.hash_key(&("refund", source, tenant, refund_id))
                        }
                    }
                }
                Change::Invoice(invoice) => {
                    if let Some(document_id) = &invoice.document_id {
                        self.hash_key(&("document", source, tenant, document_id))
                    } else {
                        let name = (&invoice.vendor, &invoice.invoice_number);
                        self.hash_key(&("invoice", source, tenant, name))
                    }
                }
                Change::InvoiceDeleted(deleted) => {
                    self.hash_key(&("document", source, tenant, &deleted.document_id))
                }
                Change::ResourceChanged(resource) => {
                    self.hash_key(&("resource", source, tenant, &resource.kind, &resource.id))
                }
            });
        }
        keys
    }

    fn hash_key(&self, key: &impl Hash) -> u64 {
        self.hasher.hash_one(key)
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        let mut held = self.in_flight.keys.lock().unwrap_or_else(PoisonError::into_inner);
        for key in &self.keys {
            held.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use time::OffsetDateTime;
    use uuid::Uuid;

    use super::*;
    use crate::domain::{
        DeletedInvoice, Envelope, EventKey, Invoice, InvoiceStatus, MappedEvent, Money, OrderUpdate,
    };

    /// An event about an order.
    fn message(event: &str, order_id: &str) -> Message {
        let source: SourceName = "shop".parse().unwrap();
        let key = EventKey::new(&source, "a.example", event, 0);
        let envelope = Envelope {
            receipt_id: Uuid::now_v7(),
            source,
            tenant: "a.example".to_owned(),
            key,
            topic: String::new(),
            version: None,
            received_at: OffsetDateTime::UNIX_EPOCH,
            failed_attempts: 0,
            generation: 0,
            replay_id: None,
            received_over_http: true,
            secret_label: None,
            import: None,
            body: Bytes::new(),
        };
        let deleted_at = OffsetDateTime::UNIX_EPOCH;
        let order_id = order_id.to_owned();
        let mapped = MappedEvent::from(OrderUpdate::Deleted { order_id, deleted_at });
        Message::from_envelope(envelope, mapped)
    }

    fn invoice(vendor: &str) -> Invoice {
        Invoice {
            document_id: Some("d1".to_owned()),
            vendor: vendor.to_owned(),
            invoice_number: "I-1".to_owned(),
            transaction_id: None,
            status: InvoiceStatus::Open,
            platform_status: "open".to_owned(),
            total: Money { amount: 1.into(), currency: "EUR".parse().unwrap() },
            due_on: None,
            sequence: 0,
            version: OffsetDateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn in_flight_invoice_and_its_deletion_share_a_key() {
        let (in_flight, source) = (InFlightKeys::default(), "shop".parse().unwrap());
        let deletion =
            DeletedInvoice { document_id: "d1".to_owned(), deleted_at: OffsetDateTime::UNIX_EPOCH };
        let deleted = message("e1", "1").with_change(Change::InvoiceDeleted(Box::new(deletion)));
        let (_guard, _) = in_flight.acquire(&source, &[deleted]);
        let mut updated = message("e2", "2");
        updated.changes = vec![Change::Invoice(Box::new(invoice("some vendor")))];
        let (_, are_free) = in_flight.acquire(&source, &[updated]);
        assert_eq!(are_free, [false], "the document id counts, not the vendor");
    }

    #[test]
    fn in_flight_keys_of_another_guard_are_taken_until_it_is_dropped() {
        let (in_flight, source) = (InFlightKeys::default(), "shop".parse().unwrap());
        let (guard, are_free) =
            in_flight.acquire(&source, &[message("e1", "1"), message("e2", "2")]);
        assert_eq!(are_free, [true, true]);
        let next = [message("e1", "9"), message("e3", "2"), message("e4", "3"), message("e5", "2")];
        let (next_guard, are_free) = in_flight.acquire(&source, &next);
        assert_eq!(are_free, [false, false, true, false], "an event, an order, none, an order");
        drop(guard);
        let (_, are_free) = in_flight.acquire(&source, &next);
        assert_eq!(are_free, [true, true, false, true], "only what the other guard holds");
        drop(next_guard);
        let (_, are_free) = in_flight.acquire(&source, &next);
        assert_eq!(are_free, [true; 4]);
        assert!(in_flight.keys.lock().unwrap().is_empty(), "dropped guards leave no keys");
    }

    #[test]
    fn in_flight_keys_of_own_batch_are_free_and_postponed_ones_are_not() {
        let (in_flight, source) = (InFlightKeys::default(), "shop".parse().unwrap());
        let (_guard, are_free) =
            in_flight.acquire(&source, &[message("e1", "1"), message("e1", "1")]);
        assert_eq!(are_free, [true, true]);
        // The first message shares an event key with the guard, the second an
        // order with the first.
        let (_, are_free) = in_flight.acquire(&source, &[message("e1", "5"), message("e6", "5")]);
        assert_eq!(are_free, [false, false]);
        let other_source: SourceName = "erp".parse().unwrap();
        let (_, are_free) = in_flight.acquire(&other_source, &[message("e7", "1")]);
        assert_eq!(are_free, [true], "an order of the same id and another source");
    }
}
