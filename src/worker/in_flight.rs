//! What lanes have in hand: the events and documents of their transactions.
//!
//! Two transactions that claim one key or write one document cannot go on
//! side by side: the later waits for the earlier one's end, whole batch for
//! whole batch. In a flood that repeats itself nearly every batch shares
//! something with its neighbour, and lanes would take turns. So a lane does
//! first what nobody else has in hand, and the rest in a second transaction,
//! when the others are mostly done.
//!
//! This spares waiting and decides nothing: the inbox and the locks of the
//! rows do, and other processes know nothing of what we have in hand.

use std::{
    collections::{HashSet, hash_map::RandomState},
    hash::{BuildHasher as _, Hash},
    sync::{Arc, Mutex, PoisonError},
};

use super::apply::Message;
use crate::domain::{Change, Refund, RefundTarget, SourceName};

/// The events and documents that this process's transactions touch.
#[derive(Clone, Debug, Default)]
pub struct InFlightKeys {
    /// Hashes: two things with the same one wait for each other in vain, and
    /// that is all.
    keys: Arc<Mutex<HashSet<u64>>>,
    hasher: RandomState,
}

/// What one lane took; given back when this is dropped.
#[derive(Debug)]
pub struct InFlightGuard {
    in_flight: InFlightKeys,
    keys: Vec<u64>,
}

impl InFlightKeys {
    /// Takes what items touch, as far as nobody else has it. Tells for each
    /// item whether it is free: whatever stands behind another item of the
    /// same document stays behind it.
    pub fn acquire(&self, source: &SourceName, items: &[Message]) -> (InFlightGuard, Vec<bool>) {
        let mut taken =
            InFlightGuard { in_flight: self.clone(), keys: Vec::with_capacity(2 * items.len()) };
        let mut ours: HashSet<u64> = HashSet::with_capacity(2 * items.len());
        let mut behind = HashSet::new();
        let mut held = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let free = items
            .iter()
            .map(|item| {
                let things = self.keys_of(source, item);
                let there = |thing: &u64| held.contains(thing) && !ours.contains(thing);
                let free = !things.iter().any(|thing| there(thing) || behind.contains(thing));
                for thing in things {
                    if free {
                        if ours.insert(thing) {
                            held.insert(thing);
                            taken.keys.push(thing);
                        }
                    } else {
                        behind.insert(thing);
                    }
                }
                free
            })
            .collect();
        (taken, free)
    }

    /// The event, and the documents that its transaction locks.
    fn keys_of(&self, source: &SourceName, item: &Message) -> Vec<u64> {
        let tenant = item.envelope.tenant.as_str();
        let mut things = Vec::with_capacity(1 + item.changes.len());
        things.push(self.hash_key(&("event", item.envelope.key.as_str())));
        for change in &item.changes {
            things.push(match change {
                Change::Order(update) => {
                    self.hash_key(&("order", source, tenant, update.order_id()))
                }
                Change::Refund(refund) => {
                    let Refund { target: refunded, refund_id, .. } = refund.as_ref();
                    match refunded {
                        RefundTarget::Order(order_id) => {
                            self.hash_key(&("order", source, tenant, order_id.as_str()))
                        }
                        RefundTarget::Payment(_) => {
                            self.hash_key(&("refund", source, tenant, refund_id))
                        }
                    }
                }
                Change::Invoice(invoice) => {
                    if let Some(document) = &invoice.document_id {
                        self.hash_key(&("document", source, tenant, document))
                    } else {
                        let name = (&invoice.vendor, &invoice.invoice_number);
                        self.hash_key(&("invoice", source, tenant, name))
                    }
                }
                Change::InvoiceDeleted(deleted) => {
                    self.hash_key(&("document", source, tenant, &deleted.document_id))
                }
                Change::ResourceChanged(reference) => {
                    self.hash_key(&("reference", source, tenant, &reference.kind, &reference.id))
                }
            });
        }
        things
    }

    fn hash_key(&self, thing: &impl Hash) -> u64 {
        self.hasher.hash_one(thing)
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        let mut held = self.in_flight.keys.lock().unwrap_or_else(PoisonError::into_inner);
        for thing in &self.keys {
            held.remove(thing);
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
    fn item(event: &str, order_id: &str) -> Message {
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
        Message::new(envelope, MappedEvent::from(OrderUpdate::Deleted { order_id, deleted_at }))
    }

    #[test]
    fn a_document_and_its_deletion_are_one_thing() {
        let (in_hand, source) = (InFlightKeys::default(), "shop".parse().unwrap());
        let deleted = |event: &str| {
            let document_id = "d1".to_owned();
            let deleted_at = OffsetDateTime::UNIX_EPOCH;
            let deletion = DeletedInvoice { document_id, deleted_at };
            item(event, "1").with_change(Change::InvoiceDeleted(Box::new(deletion)))
        };
        let (_taken, _) = in_hand.acquire(&source, &[deleted("e1")]);
        let mut state = item("e2", "2");
        state.changes = vec![Change::Invoice(Box::new(invoice("some vendor")))];
        let (_, free) = in_hand.acquire(&source, &[state]);
        assert_eq!(free, [false], "whatever it calls the vendor");
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
    fn what_another_has_is_not_free_until_it_is_given_back() {
        let (in_hand, source) = (InFlightKeys::default(), "shop".parse().unwrap());
        let (taken, free) = in_hand.acquire(&source, &[item("e1", "1"), item("e2", "2")]);
        assert_eq!(free, [true, true]);
        let next = [item("e1", "9"), item("e3", "2"), item("e4", "3"), item("e5", "2")];
        let (other, free) = in_hand.acquire(&source, &next);
        assert_eq!(free, [false, false, true, false], "an event, an order, neither, an order");
        drop(taken);
        let (_, free) = in_hand.acquire(&source, &next);
        assert_eq!(free, [true, true, false, true], "only what the other one took");
        drop(other);
        let (_, free) = in_hand.acquire(&source, &next);
        assert_eq!(free, [true; 4]);
        assert!(in_hand.keys.lock().unwrap().is_empty(), "nothing is kept for ever");
    }

    #[test]
    fn one_s_own_is_free_and_whoever_stands_behind_stays_behind() {
        let (in_hand, source) = (InFlightKeys::default(), "shop".parse().unwrap());
        let (_one, free) = in_hand.acquire(&source, &[item("e1", "1"), item("e1", "1")]);
        assert_eq!(free, [true, true]);
        // The second waits for the first one's event, the third for the
        // second one's order.
        let (_, free) = in_hand.acquire(&source, &[item("e1", "5"), item("e6", "5")]);
        assert_eq!(free, [false, false]);
        let elsewhere: SourceName = "erp".parse().unwrap();
        let (_, free) = in_hand.acquire(&elsewhere, &[item("e7", "1")]);
        assert_eq!(free, [true], "another source's order of the same id");
    }
}
