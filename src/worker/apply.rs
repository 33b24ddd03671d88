//! Applies a batch in one transaction: claims the event keys in the inbox,
//! writes the changes table by table, records the receipts and the outbox.

mod documents;
mod outbox;

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::message::Message;
use crate::{
    domain::{InvoiceConflict, Outcome, PermanentFailure, ReasonCode, SourceName},
    sources::ConflictPolicy,
    store::{Conn, Store, StoreError, dead_letters, inbox, receipts},
};
use documents::WriteResult;
pub use outbox::Outbox;

/// What a transaction did with one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApplyResult {
    /// Recorded with this outcome.
    Recorded(Outcome),
    /// Recorded as a duplicate of the same bytes. They are not stored again.
    IdenticalDuplicate,
    /// This message was committed before and delivered again, as after a crash
    /// between commit and acknowledgement. Nothing is recorded.
    Redelivered,
    /// It contradicts a committed event or document: dead-letter it.
    Conflict(PermanentFailure),
}

impl ApplyResult {
    /// The outcome on its receipt, if one is recorded.
    pub fn outcome(&self) -> Option<Outcome> {
        match self {
            Self::Recorded(outcome) => Some(*outcome),
            Self::IdenticalDuplicate => Some(Outcome::Duplicate),
            Self::Redelivered | Self::Conflict(_) => None,
        }
    }
}

/// Applies a batch whose receipt ids all differ. Returns one result for each
/// message, in their order.
///
/// # Errors
/// The error of PostgreSQL; nothing of the batch is applied. Only after an
/// error of COMMIT the outcome is unknown: applying the batch again is safe.
pub async fn apply_batch(
    store: &Store,
    source: &SourceName,
    policy: ConflictPolicy,
    outbox: &Outbox,
    messages: &[Message],
) -> Result<Vec<ApplyResult>, StoreError> {
    let results = store
        .transaction(async |tx| apply_in_transaction(tx, source, policy, outbox, messages).await)
        .await?;
    outbox.notify_committed(source);
    Ok(results)
}

/// Applies a batch as [`apply_batch`] does, in a transaction of the caller.
///
/// # Errors
/// The error of PostgreSQL; the transaction must be rolled back.
pub(crate) async fn apply_in_transaction(
    conn: &mut Conn,
    source: &SourceName,
    policy: ConflictPolicy,
    outbox: &Outbox,
    messages: &[Message],
) -> Result<Vec<ApplyResult>, StoreError> {
    let claims = claim(conn, policy, messages).await?;
    let won: Vec<&Message> = messages
        .iter()
        .zip(&claims)
        .filter(|(_, claim)| **claim == Claim::Won)
        .map(|(message, _)| message)
        .collect();
    let written = documents::write(conn, source, policy.invoice_conflict, &won).await?;
    let results = results(policy, messages, &claims, &written);
    release_claims(conn, messages, &claims, &results).await?;
    record_receipts(conn, messages, &results, &written).await?;
    outbox.write(conn, source, &written, &won).await?;
    Ok(results)
}

/// Whether a message holds its event key.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Claim {
    /// It does, and its changes are to be applied.
    Won,
    /// The message of this index holds the same key. This one has the given
    /// result unless that one conflicts.
    DuplicateInBatch(usize, ApplyResult),
    /// An earlier transaction committed the key.
    Lost(ApplyResult),
}

async fn claim(
    conn: &mut Conn,
    policy: ConflictPolicy,
    messages: &[Message],
) -> Result<Vec<Claim>, StoreError> {
    // The first message of each key claims it.
    let mut first_of = HashMap::with_capacity(messages.len());
    let keys: Vec<Uuid> = messages.iter().map(|message| message.envelope.key.inbox_id()).collect();
    let mut claims = Vec::with_capacity(messages.len());
    for (index, (message, key)) in messages.iter().zip(&keys).enumerate() {
        first_of.entry(*key).or_insert_with(|| {
            claims.push(inbox::Claim {
                key: *key,
                receipt_id: message.envelope.receipt_id,
                body_digest: message.digest(),
            });
            index
        });
    }
    let inbox::ClaimResult { won, existing } = inbox::claim(conn, &claims).await?;

    let claim_of = |(index, (message, key)): (usize, (&Message, &Uuid))| {
        let first = first_of.get(key).copied().unwrap_or(index);
        if !won.contains(key) {
            return Claim::Lost(match existing.get(key) {
                Some(processed) => classify_duplicate(policy, message, *processed),
                // Another transaction claimed the key and it is gone since. Only
                // keys outside the window are dropped, so this cannot be one.
                None => ApplyResult::Recorded(Outcome::Duplicate),
            });
        }
        if first == index {
            return Claim::Won;
        }
        let claimant = &messages[first];
        let processed = inbox::ProcessedKey {
            receipt_id: claimant.envelope.receipt_id,
            body_digest: claimant.digest(),
        };
        Claim::DuplicateInBatch(first, classify_duplicate(policy, message, processed))
    };
    Ok(messages.iter().zip(&keys).enumerate().map(claim_of).collect())
}

/// The result of a message whose event key another message holds.
fn classify_duplicate(
    policy: ConflictPolicy,
    message: &Message,
    processed: inbox::ProcessedKey,
) -> ApplyResult {
    if processed.receipt_id == message.envelope.receipt_id {
        ApplyResult::Redelivered
    } else if processed.body_digest == message.digest() {
        ApplyResult::IdenticalDuplicate
    } else if policy.redelivers_identical_body {
        let receipt_id = processed.receipt_id;
        ApplyResult::Conflict(PermanentFailure::new(
            ReasonCode::ConflictingDuplicate,
            format!("receipt {receipt_id} has the same event key and another body"),
        ))
    } else {
        ApplyResult::Recorded(Outcome::Duplicate)
    }
}

fn results(
    policy: ConflictPolicy,
    messages: &[Message],
    claims: &[Claim],
    written: &WriteResult,
) -> Vec<ApplyResult> {
    let result_of_won = |message: &Message| {
        let receipt_id = &message.envelope.receipt_id;
        match written.conflicts.get(receipt_id) {
            Some(failure) if policy.invoice_conflict == InvoiceConflict::Review => {
                ApplyResult::Conflict(failure.clone())
            }
            Some(_) => ApplyResult::Recorded(Outcome::Duplicate),
            None if written.applied.contains_key(receipt_id) => {
                ApplyResult::Recorded(Outcome::Applied)
            }
            // The tables have a newer state of everything that it changes.
            None if !message.changes.is_empty() => ApplyResult::Recorded(Outcome::Stale),
            None => ApplyResult::Recorded(Outcome::Ignored),
        }
    };
    let result_of = |(message, claim): (&Message, &Claim)| match claim {
        Claim::Won => result_of_won(message),
        // A conflicting message releases its key, so its duplicates conflict too.
        Claim::DuplicateInBatch(first, result) => match result_of_won(&messages[*first]) {
            conflict @ ApplyResult::Conflict(_) => conflict,
            _ => result.clone(),
        },
        Claim::Lost(result) => result.clone(),
    };
    messages.iter().zip(claims).map(result_of).collect()
}

/// Releases the claims of conflicting messages, so that a replay can apply
/// them.
async fn release_claims(
    conn: &mut Conn,
    messages: &[Message],
    claims: &[Claim],
    results: &[ApplyResult],
) -> Result<(), StoreError> {
    let mut released: Vec<(Uuid, Uuid)> = Vec::new();
    for ((message, claim), result) in messages.iter().zip(claims).zip(results) {
        if *claim == Claim::Won && matches!(result, ApplyResult::Conflict(_)) {
            released.push((message.envelope.key.inbox_id(), message.envelope.receipt_id));
        }
    }
    if released.is_empty() { Ok(()) } else { inbox::release(conn, &released).await }
}

async fn record_receipts(
    conn: &mut Conn,
    messages: &[Message],
    results: &[ApplyResult],
    written: &WriteResult,
) -> Result<(), StoreError> {
    let with_results = messages.iter().zip(results);
    let rows: Vec<receipts::ReceiptRow<'_>> = with_results
        .clone()
        .filter_map(|(message, result)| {
            Some(receipts::ReceiptRow {
                envelope: &message.envelope,
                business_key: message.business_key(),
                outcome: result.outcome()?,
                write_kind: match result {
                    ApplyResult::Recorded(Outcome::Applied) => {
                        written.applied.get(&message.envelope.receipt_id).copied().flatten()
                    }
                    _ => None,
                },
                attempts: message.envelope.failed_attempts,
                error: None,
                keep_payload: *result != ApplyResult::IdenticalDuplicate,
            })
        })
        .collect();
    let updated = if rows.is_empty() { Vec::new() } else { receipts::record(conn, &rows).await? };
    let updated: HashSet<Uuid> = updated.into_iter().collect();
    // A dead letter may be open for a replayed message, and for one of which a
    // second copy was dead-lettered while this one was in flight.
    let resolutions: Vec<dead_letters::Resolution> = with_results
        .filter(|(_, result)| !matches!(result, ApplyResult::Conflict(_)))
        .filter(|(message, _)| {
            let envelope = &message.envelope;
            envelope.replay_id.is_some() || updated.contains(&envelope.receipt_id)
        })
        .map(|(message, result)| dead_letters::Resolution {
            receipt_id: message.envelope.receipt_id,
            replay_id: message.envelope.replay_id,
            // Redelivered: this receipt has its outcome already.
            outcome: result.outcome().unwrap_or(Outcome::Duplicate),
        })
        .collect();
    if !resolutions.is_empty() {
        dead_letters::resolve(conn, &resolutions).await?;
    }
    Ok(())
}
