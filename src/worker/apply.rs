//! One batch, one transaction: claim the keys, apply the changes set by set,
//! record the receipts.

use std::collections::{HashMap, HashSet};

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::{
    domain::{Change, Envelope, Invoice, Mapped, OrderUpdate, Outcome, SourceName},
    store::{Conn, Store, StoreError, dead_letters, inbox, invoices, orders, receipts},
};

/// A message that was understood and is ready to be applied.
#[derive(Clone, Debug)]
pub struct Item {
    /// The event.
    pub envelope: Envelope,
    /// What it changes; nothing if it is ignored.
    pub changes: Vec<Change>,
    /// The first 16 bytes of the SHA-256 of its body.
    digest: Uuid,
}

impl Item {
    /// An event and what its adapter made of it.
    pub fn new(envelope: Envelope, mapped: Mapped) -> Self {
        let mut digest = [0; 16];
        digest.copy_from_slice(&Sha256::digest(&envelope.body)[..16]);
        let changes = match mapped {
            Mapped::Change(change) => vec![change],
            Mapped::Ignored => Vec::new(),
        };
        Self { envelope, changes, digest: Uuid::from_bytes(digest) }
    }

    /// With one more change.
    #[must_use]
    pub fn with(mut self, change: Change) -> Self {
        self.changes.push(change);
        self
    }

    /// The number that people know the document by.
    pub fn business_key(&self) -> Option<&str> {
        // A record that was fetched knows it better than the event did.
        self.changes.last().map(Change::business_key)
    }
}

/// What a transaction made of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Recorded with this outcome.
    Recorded(Outcome),
    /// Recorded as a duplicate of the same bytes, which are on record already.
    Repeated,
    /// This very message had been settled before: the crash between commit
    /// and acknowledgement. Nothing is to be recorded twice.
    Known,
    /// Its key was settled with another body: a person must see it.
    Conflict,
}

/// Applies a batch whose receipts are all different; one effect for each item.
///
/// # Errors
/// What the database says; then nothing of the batch is applied. After an
/// error of the commit itself nobody knows: applying the batch again tells.
pub async fn batch(
    store: &Store,
    source: &SourceName,
    repeats_same_bytes: bool,
    items: &[Item],
) -> Result<Vec<Effect>, StoreError> {
    store
        .in_time(async {
            let mut tx = store.begin().await?;
            match write(&mut tx, source, repeats_same_bytes, items).await {
                Ok(effects) => {
                    tx.commit().await?;
                    Ok(effects)
                }
                Err(error) => {
                    // If that fails too, the connection is closed.
                    drop(tx.rollback().await);
                    Err(error)
                }
            }
        })
        .await
}

async fn write(
    conn: &mut Conn,
    source: &SourceName,
    repeats_same_bytes: bool,
    items: &[Item],
) -> Result<Vec<Effect>, StoreError> {
    let mut standings = claim(conn, repeats_same_bytes, items).await?;
    apply_orders(conn, source, items, &mut standings).await?;
    apply_invoices(conn, source, items, &mut standings).await?;
    let effects: Vec<Effect> = standings.into_iter().map(Standing::effect).collect();
    record(conn, items, &effects).await?;
    Ok(effects)
}

/// An item's standing while the batch is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It holds the claim and its change is to be applied.
    Ours,
    /// Decided.
    Done(Effect),
}

impl Standing {
    fn effect(self) -> Effect {
        match self {
            // What holds the claim and changes no table.
            Self::Ours => Effect::Recorded(Outcome::Ignored),
            Self::Done(effect) => effect,
        }
    }
}

async fn claim(
    conn: &mut Conn,
    repeats_same_bytes: bool,
    items: &[Item],
) -> Result<Vec<Standing>, StoreError> {
    // Duplicates within the batch are folded first: the first one claims.
    let mut first_of = HashMap::with_capacity(items.len());
    let keys: Vec<Uuid> = items.iter().map(|item| item.envelope.key.inbox_id()).collect();
    let mut claims = Vec::with_capacity(items.len());
    for (index, (item, key)) in items.iter().zip(&keys).enumerate() {
        first_of.entry(*key).or_insert_with(|| {
            claims.push(inbox::Claim {
                key: *key,
                receipt_id: item.envelope.receipt_id,
                body_digest: item.digest,
            });
            index
        });
    }
    let free = inbox::claim(conn, &claims).await?;
    let taken: Vec<Uuid> = first_of.keys().filter(|key| !free.contains(*key)).copied().collect();
    let settled =
        if taken.is_empty() { HashMap::new() } else { inbox::settled(conn, &taken).await? };

    let standing = |(index, (item, key)): (usize, (&Item, &Uuid))| {
        let first = first_of.get(key).copied().unwrap_or(index);
        let before = if free.contains(key) {
            if first == index {
                return Standing::Ours;
            }
            let first = &items[first];
            inbox::Settled { receipt_id: first.envelope.receipt_id, body_digest: first.digest }
        } else {
            match settled.get(key) {
                Some(settled) => *settled,
                // Claimed by another transaction and deleted since: only
                // retention deletes, and never what is this young.
                None => return Standing::Done(Effect::Recorded(Outcome::Duplicate)),
            }
        };
        Standing::Done(if before.receipt_id == item.envelope.receipt_id {
            Effect::Known
        } else if before.body_digest == item.digest {
            Effect::Repeated
        } else if repeats_same_bytes {
            Effect::Conflict
        } else {
            Effect::Recorded(Outcome::Duplicate)
        })
    };
    Ok(items.iter().zip(&keys).enumerate().map(standing).collect())
}

/// Sorts changes into rounds, each of which holds every document at most
/// once, in the order of arrival: a set statement cannot touch a row twice,
/// and each event must see the effect of the one before it.
fn rounds<K: std::hash::Hash + Eq, T>(changes: impl Iterator<Item = (K, T)>) -> Vec<Vec<T>> {
    let mut seen: HashMap<K, usize> = HashMap::new();
    let mut rounds: Vec<Vec<T>> = Vec::new();
    for (document, change) in changes {
        let round = seen.entry(document).or_default();
        if rounds.len() == *round {
            rounds.push(Vec::new());
        }
        rounds[*round].push(change);
        *round += 1;
    }
    rounds
}

/// The changes that hold their claims.
fn ours<'a>(
    items: &'a [Item],
    standings: &[Standing],
) -> impl Iterator<Item = (&'a Envelope, &'a Change)> {
    items
        .iter()
        .zip(standings.to_vec())
        .filter(|(_, standing)| *standing == Standing::Ours)
        .flat_map(|(item, _)| item.changes.iter().map(|change| (&item.envelope, change)))
}

async fn apply_orders(
    conn: &mut Conn,
    source: &SourceName,
    items: &[Item],
    standings: &mut [Standing],
) -> Result<(), StoreError> {
    let updates = ours(items, standings).filter_map(|(envelope, change)| match change {
        Change::Order(update) => {
            let update: &OrderUpdate = update;
            let tenant = envelope.tenant.as_str();
            let row = orders::Row { receipt_id: envelope.receipt_id, tenant, update };
            Some(((tenant, update.order_id()), row))
        }
        _ => None,
    });
    for round in rounds(updates) {
        let applied = orders::upsert(conn, source, &round).await?;
        let told = round.iter().map(|row| row.receipt_id).collect();
        decide(items, standings, &told, &applied);
    }
    Ok(())
}

async fn apply_invoices(
    conn: &mut Conn,
    source: &SourceName,
    items: &[Item],
    standings: &mut [Standing],
) -> Result<(), StoreError> {
    let updates = ours(items, standings).filter_map(|(envelope, change)| match change {
        Change::Invoice(invoice) => {
            let invoice: &Invoice = invoice;
            let (tenant, generation) = (envelope.tenant.as_str(), envelope.generation);
            let row =
                invoices::Row { receipt_id: envelope.receipt_id, tenant, generation, invoice };
            let document = (tenant, &invoice.vendor, &invoice.invoice_number, generation);
            Some((document, row))
        }
        _ => None,
    });
    for round in rounds(updates) {
        let applied = invoices::upsert(conn, source, &round).await?;
        let told = round.iter().map(|row| row.receipt_id).collect();
        decide(items, standings, &told, &applied);
    }
    Ok(())
}

/// What was told and had no effect is stale.
fn decide(
    items: &[Item],
    standings: &mut [Standing],
    told: &HashSet<Uuid>,
    applied: &HashSet<Uuid>,
) {
    for (item, standing) in items.iter().zip(standings) {
        let receipt_id = &item.envelope.receipt_id;
        if *standing == Standing::Ours && told.contains(receipt_id) {
            let outcome =
                if applied.contains(receipt_id) { Outcome::Applied } else { Outcome::Stale };
            *standing = Standing::Done(Effect::Recorded(outcome));
        }
    }
}

impl Effect {
    /// The outcome to be recorded, if one is.
    pub fn outcome(self) -> Option<Outcome> {
        match self {
            Self::Recorded(outcome) => Some(outcome),
            Self::Repeated => Some(Outcome::Duplicate),
            Self::Known | Self::Conflict => None,
        }
    }
}

async fn record(conn: &mut Conn, items: &[Item], effects: &[Effect]) -> Result<(), StoreError> {
    let outcomes = items.iter().zip(effects);
    let rows: Vec<receipts::Row<'_>> = outcomes
        .clone()
        .filter_map(|(item, effect)| {
            Some(receipts::Row {
                envelope: &item.envelope,
                business_key: item.business_key(),
                outcome: effect.outcome()?,
                attempts: item.envelope.attempt,
                error: None,
                keep_payload: *effect != Effect::Repeated,
            })
        })
        .collect();
    let before = if rows.is_empty() { Vec::new() } else { receipts::record(conn, &rows).await? };
    // A letter may wait for a message that was replayed, and for one that
    // died in a copy while this one was on its way.
    let before: HashSet<Uuid> = before.into_iter().collect();
    let resolutions: Vec<dead_letters::Resolution> = outcomes
        .filter(|(_, effect)| **effect != Effect::Conflict)
        .filter(|(item, _)| {
            item.envelope.replay.is_some() || before.contains(&item.envelope.receipt_id)
        })
        .map(|(item, effect)| dead_letters::Resolution {
            receipt_id: item.envelope.receipt_id,
            replay: item.envelope.replay,
            // Settled before under this very receipt.
            outcome: effect.outcome().unwrap_or(Outcome::Duplicate),
        })
        .collect();
    if !resolutions.is_empty() {
        dead_letters::resolve(conn, &resolutions).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_keep_the_order_of_each_document() {
        let changes = [("a", 1), ("b", 2), ("a", 3), ("a", 4), ("b", 5), ("c", 6)];
        assert_eq!(rounds(changes.into_iter()), [vec![1, 2, 6], vec![3, 5], vec![4]]);
    }
}
