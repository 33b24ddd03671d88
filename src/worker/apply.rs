//! One batch, one transaction: claim the keys, apply the changes set by set,
//! record the receipts.

mod documents;
mod outbox;

use std::collections::{HashMap, HashSet};

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::{
    domain::{
        Change, Envelope, InvoiceConflict, MappedEvent, Outcome, PermanentFailure, ReasonCode,
        SourceName,
    },
    sources::ConflictPolicy,
    store::{Conn, Store, StoreError, dead_letters, inbox, receipts},
};
use documents::WriteResult;
pub use outbox::Outbox;

/// A message that was understood and is ready to be applied.
#[derive(Clone, Debug)]
pub struct Message {
    /// The event.
    pub envelope: Envelope,
    /// What it changes; nothing if it is ignored.
    pub changes: Vec<Change>,
    /// The first 16 bytes of the SHA-256 of its body.
    digest: Uuid,
}

impl Message {
    /// An event and what its adapter made of it.
    pub fn new(envelope: Envelope, mapped: MappedEvent) -> Self {
        let mut digest = [0; 16];
        digest.copy_from_slice(&Sha256::digest(&envelope.body)[..16]);
        let changes = match mapped {
            MappedEvent::Change(change) => vec![change],
            MappedEvent::Ignored => Vec::new(),
        };
        Self { envelope, changes, digest: Uuid::from_bytes(digest) }
    }

    /// The same with one more change: the record that a reference stands for.
    #[must_use]
    pub fn with_change(mut self, change: Change) -> Self {
        self.changes.push(change);
        self
    }

    /// The first 16 bytes of the SHA-256 of its body.
    pub fn digest(&self) -> Uuid {
        self.digest
    }

    /// The number that people know the document by. A full record knows it
    /// better than the reference before it.
    pub fn business_key(&self) -> Option<&str> {
        self.changes.last().map(Change::business_key)
    }
}

/// What a transaction made of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApplyResult {
    /// Recorded with this outcome.
    Recorded(Outcome),
    /// Recorded as a duplicate of the same bytes, which are on record already.
    IdenticalDuplicate,
    /// This very message had been settled before: the crash between commit
    /// and acknowledgement. Nothing is to be recorded twice.
    Redelivered,
    /// It contradicts what stands: a person must see both.
    Conflict(PermanentFailure),
}

/// Applies a batch whose receipts are all different; one effect for each item.
///
/// # Errors
/// What the database says; then nothing of the batch is applied. After an
/// error of the commit itself nobody knows: applying the batch again tells.
pub async fn apply_batch(
    store: &Store,
    source: &SourceName,
    rules: ConflictPolicy,
    outbox: &Outbox,
    items: &[Message],
) -> Result<Vec<ApplyResult>, StoreError> {
    store
        .with_timeout(async {
            let mut tx = store.begin().await?;
            match write_batch(&mut tx, source, rules, outbox, items).await {
                Ok(effects) => {
                    tx.commit().await?;
                    outbox.notify_committed(source);
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

async fn write_batch(
    conn: &mut Conn,
    source: &SourceName,
    rules: ConflictPolicy,
    outbox: &Outbox,
    items: &[Message],
) -> Result<Vec<ApplyResult>, StoreError> {
    let standings = claim(conn, rules, items).await?;
    let ours = items.iter().zip(&standings).filter(|(_, standing)| **standing == Claim::Won);
    let ours: Vec<&Message> = ours.map(|(item, _)| item).collect();
    let told = documents::write(conn, source, rules.invoice_conflict, &ours).await?;
    let effects = outcomes(rules, items, &standings, &told);
    release_claims(conn, items, &standings, &effects).await?;
    record_receipts(conn, items, &effects, &told).await?;
    outbox.write(conn, source, &told, &ours).await?;
    Ok(effects)
}

/// An item's standing after the keys were claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Claim {
    /// It holds the claim and its changes are to be applied.
    Won,
    /// It repeats an item of the same batch, which holds the claim: it has
    /// this effect if that one settles the key.
    DuplicateInBatch(usize, ApplyResult),
    /// Decided.
    Lost(ApplyResult),
}

async fn claim(
    conn: &mut Conn,
    rules: ConflictPolicy,
    items: &[Message],
) -> Result<Vec<Claim>, StoreError> {
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
    let inbox::ClaimResult { won: free, existing: settled } = inbox::claim(conn, &claims).await?;

    let standing = |(index, (item, key)): (usize, (&Message, &Uuid))| {
        let first = first_of.get(key).copied().unwrap_or(index);
        if !free.contains(key) {
            return Claim::Lost(match settled.get(key) {
                Some(settled) => classify_duplicate(rules, item, *settled),
                // Claimed by another transaction and gone since: only what is
                // past the horizon goes, and never what is this young.
                None => ApplyResult::Recorded(Outcome::Duplicate),
            });
        }
        if first == index {
            return Claim::Won;
        }
        let before = &items[first];
        let settled = inbox::ProcessedKey {
            receipt_id: before.envelope.receipt_id,
            body_digest: before.digest,
        };
        Claim::DuplicateInBatch(first, classify_duplicate(rules, item, settled))
    };
    Ok(items.iter().zip(&keys).enumerate().map(standing).collect())
}

/// The effect of an item whose key was settled before.
fn classify_duplicate(
    rules: ConflictPolicy,
    item: &Message,
    before: inbox::ProcessedKey,
) -> ApplyResult {
    if before.receipt_id == item.envelope.receipt_id {
        ApplyResult::Redelivered
    } else if before.body_digest == item.digest {
        ApplyResult::IdenticalDuplicate
    } else if rules.redelivers_identical_body {
        ApplyResult::Conflict(PermanentFailure::new(
            ReasonCode::ConflictingDuplicate,
            format!(
                "the same event key was settled by receipt {} with another body",
                before.receipt_id
            ),
        ))
    } else {
        ApplyResult::Recorded(Outcome::Duplicate)
    }
}

fn outcomes(
    rules: ConflictPolicy,
    items: &[Message],
    standings: &[Claim],
    told: &WriteResult,
) -> Vec<ApplyResult> {
    let own = |item: &Message| {
        let receipt_id = &item.envelope.receipt_id;
        match told.conflicts.get(receipt_id) {
            Some(failure) if rules.invoice_conflict == InvoiceConflict::Review => {
                ApplyResult::Conflict(failure.clone())
            }
            Some(_) => ApplyResult::Recorded(Outcome::Duplicate),
            None if told.applied.contains_key(receipt_id) => {
                ApplyResult::Recorded(Outcome::Applied)
            }
            // It would have changed something, and a newer state stands.
            None if !item.changes.is_empty() => ApplyResult::Recorded(Outcome::Stale),
            None => ApplyResult::Recorded(Outcome::Ignored),
        }
    };
    let effect = |(item, standing): (&Message, &Claim)| match standing {
        Claim::Won => own(item),
        // What is dead settles no key, so its repeats are dead too.
        Claim::DuplicateInBatch(first, effect) => match own(&items[*first]) {
            conflict @ ApplyResult::Conflict(_) => conflict,
            _ => effect.clone(),
        },
        Claim::Lost(effect) => effect.clone(),
    };
    items.iter().zip(standings).map(effect).collect()
}

/// Gives the claims of what goes before a person back: a replay shall be able
/// to apply it.
async fn release_claims(
    conn: &mut Conn,
    items: &[Message],
    standings: &[Claim],
    effects: &[ApplyResult],
) -> Result<(), StoreError> {
    let unsettled: Vec<(Uuid, Uuid)> = items
        .iter()
        .zip(standings)
        .zip(effects)
        .filter(|((_, standing), effect)| {
            **standing == Claim::Won && matches!(effect, ApplyResult::Conflict(_))
        })
        .map(|((item, _), _)| (item.envelope.key.inbox_id(), item.envelope.receipt_id))
        .collect();
    if unsettled.is_empty() { Ok(()) } else { inbox::release(conn, &unsettled).await }
}

impl ApplyResult {
    /// The outcome to be recorded, if one is.
    pub fn outcome(&self) -> Option<Outcome> {
        match self {
            Self::Recorded(outcome) => Some(*outcome),
            Self::IdenticalDuplicate => Some(Outcome::Duplicate),
            Self::Redelivered | Self::Conflict(_) => None,
        }
    }
}

async fn record_receipts(
    conn: &mut Conn,
    items: &[Message],
    effects: &[ApplyResult],
    told: &WriteResult,
) -> Result<(), StoreError> {
    let outcomes = items.iter().zip(effects);
    let rows: Vec<receipts::ReceiptRow<'_>> = outcomes
        .clone()
        .filter_map(|(item, effect)| {
            Some(receipts::ReceiptRow {
                envelope: &item.envelope,
                business_key: item.business_key(),
                outcome: effect.outcome()?,
                write_kind: match effect {
                    ApplyResult::Recorded(Outcome::Applied) => {
                        told.applied.get(&item.envelope.receipt_id).copied().flatten()
                    }
                    _ => None,
                },
                attempts: item.envelope.failed_attempts,
                error: None,
                keep_payload: *effect != ApplyResult::IdenticalDuplicate,
            })
        })
        .collect();
    let before = if rows.is_empty() { Vec::new() } else { receipts::record(conn, &rows).await? };
    // A letter may wait for a message that was replayed, and for one that
    // died in a copy while this one was on its way.
    let before: HashSet<Uuid> = before.into_iter().collect();
    let resolutions: Vec<dead_letters::Resolution> = outcomes
        .filter(|(_, effect)| !matches!(effect, ApplyResult::Conflict(_)))
        .filter(|(item, _)| {
            item.envelope.replay_id.is_some() || before.contains(&item.envelope.receipt_id)
        })
        .map(|(item, effect)| dead_letters::Resolution {
            receipt_id: item.envelope.receipt_id,
            replay_id: item.envelope.replay_id,
            // Settled before under this very receipt.
            outcome: effect.outcome().unwrap_or(Outcome::Duplicate),
        })
        .collect();
    if !resolutions.is_empty() {
        dead_letters::resolve(conn, &resolutions).await?;
    }
    Ok(())
}
