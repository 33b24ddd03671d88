//! Deliveries: list, show, void, re-issue, retry.
//!
//! A retry sends the same request with the same idempotency key. Only a re-issue has another key,
//! with which a destination creates a second document. It is refused while the destination may
//! still have the first one.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Actor, Selected, Selection};
use crate::{
    destinations::{DeliveryPayload, Destination, LookupResult, Transport},
    store::{
        Conn, Store, StoreError,
        audit_log::{self, AuditEntry},
        dead_letters::{self, DeadLetterSummary},
        deliveries::{
            self, ActionRefusal, Delivery, DeliveryContents, DeliveryFilter, DeliveryIssue,
        },
        replays,
    },
};

/// Deliveries that are read at once while a selection is made.
const PAGE_SIZE: u32 = 500;

/// The deliveries that an action is applied to.
pub type SelectedDeliveries = Selected<DeliveryFilter, Delivery>;

/// Why an action on a delivery failed.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// A database error.
    #[error("the deliveries cannot be read or written")]
    Store(#[from] StoreError),
    /// No delivery has this id.
    #[error("there is no delivery {0}")]
    NotFound(Uuid),
    /// The action does not apply to the delivery.
    #[error(transparent)]
    Refused(#[from] ActionRefusal),
    /// The look-up found the document at the destination.
    #[error(
        "the document of delivery {id} still exists: {destination} has it{}",
        remote_id_suffix(remote_id.as_ref())
    )]
    StillAtDestination {
        /// The delivery.
        id: Uuid,
        /// The destination's name.
        destination: String,
        /// The destination's own id of the document.
        remote_id: Option<String>,
    },
    /// It is unknown whether the destination has the document.
    #[error("the document of delivery {id} may still exist: {why}")]
    MayStillExist {
        /// The delivery.
        id: Uuid,
        /// Why that is unknown.
        why: String,
    },
}

fn remote_id_suffix(remote_id: Option<&String>) -> String {
    remote_id.map_or_else(String::new, |id| format!(" as {id}"))
}

/// A delivery with everything on record about it.
#[derive(Clone, Debug, Serialize)]
pub struct DeliveryDetail {
    /// The columns of the list.
    #[serde(flatten)]
    pub delivery: Delivery,
    /// The document, the request and the last response.
    #[serde(flatten)]
    pub contents: DeliveryContents,
    /// All issues of the delivery, including itself, by issue number.
    pub issues: Vec<DeliveryIssue>,
    /// Its dead letter, if it ever failed for good.
    pub dead_letter: Option<DeadLetterSummary>,
    /// What operators did to it, oldest first.
    pub history: Vec<AuditEntry>,
}

/// Lists at most `limit` deliveries, oldest first.
///
/// # Errors
/// [`DeliveryError::Store`].
pub async fn list(
    store: &Store,
    filter: &DeliveryFilter,
    limit: u32,
) -> Result<Vec<Delivery>, DeliveryError> {
    let mut connection = store.connection().await?;
    Ok(deliveries::list(&mut connection, filter, None, limit).await?)
}

/// Reads the deliveries of a selection. What is written later is not part of them.
///
/// # Errors
/// [`DeliveryError::Store`].
pub async fn select(
    store: &Store,
    selection: Selection<DeliveryFilter>,
) -> Result<SelectedDeliveries, DeliveryError> {
    let mut connection = store.connection().await?;
    let mut rows: Vec<Delivery> = Vec::new();
    loop {
        let after = rows.last().map(|delivery| delivery.sequence);
        let page = deliveries::list(&mut connection, selection.filter(), after, PAGE_SIZE).await?;
        let is_last = page.len() < PAGE_SIZE as usize;
        rows.extend(page);
        if is_last {
            return Ok(Selected::new(selection, rows));
        }
    }
}

/// Reads a delivery with everything on record about it.
///
/// # Errors
/// [`DeliveryError::NotFound`], [`DeliveryError::Store`].
pub async fn show(store: &Store, id: Uuid) -> Result<DeliveryDetail, DeliveryError> {
    let mut connection = store.connection().await?;
    let (delivery, contents) = load(&mut connection, id).await?;
    Ok(DeliveryDetail {
        delivery,
        contents,
        issues: deliveries::list_issues(&mut connection, id).await?,
        dead_letter: dead_letters::find_by_delivery(&mut connection, id).await?,
        history: audit_log::list_for_delivery(&mut connection, id).await?,
    })
}

async fn load(
    connection: &mut Conn,
    id: Uuid,
) -> Result<(Delivery, DeliveryContents), DeliveryError> {
    let filter = DeliveryFilter { ids: vec![id], ..DeliveryFilter::default() };
    let delivery = deliveries::list(connection, &filter, None, 1).await?.pop();
    let contents = deliveries::contents(connection, id).await?;
    delivery.zip(contents).ok_or(DeliveryError::NotFound(id))
}

/// Voids a delivery for good, and returns it as it is then.
///
/// # Errors
/// [`DeliveryError`]; the delivery has not changed.
pub async fn void(store: &Store, id: Uuid, actor: Actor<'_>) -> Result<Delivery, DeliveryError> {
    store.transaction(async |tx| deliveries::void(tx, id, actor).await).await??;
    let mut connection = store.connection().await?;
    Ok(load(&mut connection, id).await?.0)
}

/// Whether the destination of a voided delivery has its document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum LookupFinding {
    /// The destination has it.
    Found {
        /// The destination's own id of the document, if it sent one.
        remote_id: Option<String>,
    },
    /// The destination does not have it.
    NotFound,
    /// There was no look-up, or its response was inconclusive.
    Unknown {
        /// The cause.
        why: String,
    },
}

impl LookupFinding {
    /// Why the delivery must not be re-issued. An operator who confirms that it is gone can
    /// override it. A document that was never sent is assumed absent unless the look-up finds it.
    fn objection(&self, delivery: &Delivery, confirmed_gone: bool) -> Option<DeliveryError> {
        let (id, destination) = (delivery.delivery_id, delivery.destination.clone());
        match self {
            _ if confirmed_gone => None,
            Self::Found { remote_id } => Some(DeliveryError::StillAtDestination {
                id,
                destination,
                remote_id: remote_id.clone(),
            }),
            Self::Unknown { why } if delivery.first_sent_at.is_some() => {
                Some(DeliveryError::MayStillExist { id, why: why.clone() })
            }
            Self::NotFound | Self::Unknown { .. } => None,
        }
    }
}

/// A re-issued delivery.
#[derive(Clone, Debug, Serialize)]
pub struct ReissueResult {
    /// The new delivery.
    #[serde(flatten)]
    pub delivery: Delivery,
    /// Its idempotency key, different from the old one.
    pub key: Option<Uuid>,
    /// What the destination said about the old document.
    pub lookup: LookupFinding,
    /// Whether the operator confirmed that the old document is gone.
    pub confirmed_gone: bool,
}

/// Re-issues a voided delivery with the current document and another idempotency key. The
/// old document is looked up at the destination first; `confirmed_gone` overrides the
/// result.
///
/// # Errors
/// [`DeliveryError`]; then there is no new delivery.
pub async fn reissue(
    store: &Store,
    destinations: &BTreeMap<String, Destination>,
    id: Uuid,
    confirmed_gone: bool,
    actor: Actor<'_>,
) -> Result<ReissueResult, DeliveryError> {
    let mut connection = store.connection().await?;
    let (delivery, contents) = load(&mut connection, id).await?;
    // Checked before the look-up.
    deliveries::check_reissuable(&mut connection, id).await??;
    // The look-up may take long, so it holds no connection.
    drop(connection);
    let lookup = look_up(destinations, &delivery, &contents.document).await;
    if let Some(objection) = lookup.objection(&delivery, confirmed_gone) {
        return Err(objection);
    }
    let detail = json!({
        "lookup": lookup,
        "confirmed_gone": confirmed_gone,
        "overrides_lookup": confirmed_gone && matches!(lookup, LookupFinding::Found { .. }),
        "was_sent": delivery.first_sent_at.is_some(),
    });
    let reissued =
        store.transaction(async |tx| deliveries::reissue(tx, id, actor, detail).await).await??;
    let mut connection = store.connection().await?;
    let (delivery, _) = load(&mut connection, reissued).await?;
    Ok(ReissueResult { key: delivery.key(), delivery, lookup, confirmed_gone })
}

/// Looks up the document of a delivery at its destination.
async fn look_up(
    destinations: &BTreeMap<String, Destination>,
    delivery: &Delivery,
    document: &Value,
) -> LookupFinding {
    let unknown =
        |why: &str| LookupFinding::Unknown { why: format!("{} {why}", delivery.destination) };
    let destination = destinations.get(&delivery.destination);
    let http = match destination.map(|destination| &destination.transport) {
        None => return unknown("is not configured any more"),
        Some(Transport::Amqp { .. }) => return unknown("is a queue, which has no look-up"),
        Some(Transport::Http(http)) if !http.supports_lookup() => {
            return unknown("has no look-up configured");
        }
        Some(Transport::Http(http)) => http,
    };
    let (Some(idempotency_key), Ok(issue)) = (delivery.key(), u32::try_from(delivery.issue)) else {
        return unknown("cannot be queried for an event that this version does not know");
    };
    let payload = DeliveryPayload {
        document,
        event: &delivery.event,
        source: &delivery.source,
        tenant: &delivery.tenant,
        document_id: &delivery.document_id,
        document_number: delivery.document_number.as_deref(),
        issue,
        idempotency_key,
    };
    match http.look_up_document(&payload).await {
        Ok(LookupResult::Found { remote_id }) => LookupFinding::Found { remote_id },
        Ok(LookupResult::NotFound) => LookupFinding::NotFound,
        Err(error) => unknown(&format!("did not answer the look-up: {error}")),
    }
}

/// The result of a retry.
#[derive(Debug)]
pub struct RetryResult {
    /// The replay run, if any delivery is retried.
    pub replay_id: Option<Uuid>,
    /// The deliveries that are retried.
    pub deliveries: Vec<Uuid>,
    /// Why others are not.
    pub refused: Vec<ActionRefusal>,
}

/// Retries the selected deliveries that are failed, with their idempotency keys, as a replay of
/// their dead letters. Ids that the operator named and that were not selected are refused.
///
/// # Errors
/// [`DeliveryError::Store`]; then nothing is retried.
pub async fn retry(
    store: &Store,
    selected: &SelectedDeliveries,
    actor: Actor<'_>,
) -> Result<RetryResult, DeliveryError> {
    let run = Uuid::now_v7();
    // A filter consists of strings: serializing it cannot fail.
    let filter = serde_json::to_value(selected.filter()).unwrap_or_else(|_| json!({}));
    let ids: Vec<Uuid> = selected.rows().iter().map(|row| row.delivery_id).collect();
    let missing = selected.missing_ids();
    // Not `Store::transaction`: a run that retries nothing is rolled back, which is no error.
    let mut tx = store.begin().await?;
    let filter = json!({"deliveries": filter});
    replays::insert(&mut tx, run, actor, &filter, ids.len() + missing.len()).await?;
    let retried = deliveries::retry(&mut tx, &ids, run, actor).await?;
    let mut refused = Vec::new();
    for id in ids.iter().filter(|id| !retried.contains(id)).chain(&missing) {
        refused.push(deliveries::retry_refusal(&mut tx, *id).await?);
    }
    let replay_id = if retried.is_empty() {
        tx.rollback().await?;
        None
    } else {
        tx.commit().await?;
        Some(run)
    };
    Ok(RetryResult { replay_id, deliveries: retried, refused })
}
