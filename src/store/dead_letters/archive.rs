//! Archives dead-lettered messages together with the outcome of their receipts.

use std::time::Duration;

use tracing::warn;
use uuid::Uuid;

use super::insert;
use crate::{
    domain::{DeadLetter, Outcome},
    store::{
        Store, StoreError, Tx,
        bisect::bisect,
        receipts::{self, ReceiptRow},
        retry::retry_while_unavailable,
    },
};

/// Archives dead letters, each with another receipt id. One that the database refuses is archived
/// without the texts of its producer: an operator must see every dead letter.
///
/// # Errors
/// The last error, once the database has been unavailable for `timeout`.
pub async fn archive(
    store: &Store,
    timeout: Duration,
    dead_letters: &[DeadLetter],
) -> Result<(), StoreError> {
    let parts = bisect(dead_letters, |part| {
        retry_while_unavailable(timeout, move || archive_batch(store, part))
    })
    .await?;
    for (part, result) in parts {
        if let ([dead_letter], Err(error)) = (part, result) {
            let receipt_id = dead_letter.envelope.receipt_id;
            warn!(%receipt_id, %error, "the dead letter is archived without its headers");
            let plain = [dead_letter.clone().without_foreign_text(&error.to_string())];
            retry_while_unavailable(timeout, || archive_batch(store, &plain)).await??;
        }
    }
    Ok(())
}

/// One transaction, so that a receipt says `dead` exactly when there is a dead letter.
async fn archive_batch(store: &Store, dead_letters: &[DeadLetter]) -> Result<(), StoreError> {
    store.transaction(async |tx| write(tx, dead_letters).await).await
}

async fn write(tx: &mut Tx, dead_letters: &[DeadLetter]) -> Result<(), StoreError> {
    let messages: Vec<(Uuid, &str)> = column!(dead_letters, dead_letter => {
        let envelope = &dead_letter.envelope;
        (envelope.receipt_id, envelope.key.as_str())
    });
    let in_use = receipts::ids_in_use(tx, &messages).await?;
    let dead_letters = column!(dead_letters, dead_letter => {
        let is_in_use = in_use.contains(&dead_letter.envelope.receipt_id);
        if is_in_use { dead_letter.clone().with_derived_receipt_id() } else { dead_letter.clone() }
    });
    let rows = column!(dead_letters, dead_letter => ReceiptRow {
        envelope: &dead_letter.envelope,
        business_key: dead_letter.business_key.as_deref(),
        outcome: Outcome::Dead,
        write_kind: None,
        attempts: dead_letter.envelope.failed_attempts,
        error: Some(&dead_letter.error),
        keep_payload: true,
    });
    receipts::record(tx, &rows).await?;
    insert(tx, &dead_letters).await
}
