//! Deliveries: looked at, taken back, issued anew, tried again.
//!
//! A retry sends the same again under the same key. Only a re-issue has
//! another key, and so makes a target create a second one: it is refused
//! while the target may still have the first.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    destinations::{DeliveryPayload, Destination, LookupResult, Transport},
    store::{
        Store, StoreError, audit_log,
        audit_log::{Actor, AuditEntry},
        dead_letters,
        dead_letters::DeadLetterSummary,
        deliveries,
        deliveries::{ActionRefusal, Delivery, DeliveryContents, DeliveryFilter, DeliveryIssue},
    },
};

/// Deliveries read at once while a selection is made.
const PAGE_SIZE: u32 = 500;

/// Why an act on a delivery did not work.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// The database.
    #[error("the deliveries cannot be read or written")]
    Store(#[from] StoreError),
    /// There is none of this id.
    #[error("there is no delivery {0}")]
    NotFound(Uuid),
    /// The verb does not go with its state.
    #[error(transparent)]
    Refused(#[from] ActionRefusal),
    /// The target was asked, and has it.
    #[error("delivery {id} is still there: {destination} shows it{}", remote_id_suffix(remote_id.as_ref()))]
    StillAtDestination {
        /// Which.
        id: Uuid,
        /// Where.
        destination: String,
        /// The target's own id of it.
        remote_id: Option<String>,
    },
    /// Nobody can tell whether the target has it.
    #[error("delivery {id} may still be there: {why}")]
    MayStillExist {
        /// Which.
        id: Uuid,
        /// Why that is so.
        why: String,
    },
}

fn remote_id_suffix(remote_id: Option<&String>) -> String {
    remote_id.map_or_else(String::new, |id| format!(" as {id}"))
}

/// One delivery with everything known about it.
#[derive(Clone, Debug, Serialize)]
pub struct DeliveryDetail {
    /// What the list shows.
    #[serde(flatten)]
    pub delivery: Delivery,
    /// What it is of, what was sent, and what was answered.
    #[serde(flatten)]
    pub contents: DeliveryContents,
    /// Its issues, the first one first, itself among them.
    pub issues: Vec<DeliveryIssue>,
    /// The letter that laid it before a person.
    pub dead_letter: Option<DeadLetterSummary>,
    /// What people did to it, oldest first.
    pub history: Vec<AuditEntry>,
}

/// Lists deliveries, oldest first.
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

/// Every delivery that a filter selects now: frozen, so that what is written
/// later does not join in.
///
/// # Errors
/// [`DeliveryError::Store`].
pub async fn select(
    store: &Store,
    filter: &DeliveryFilter,
) -> Result<Vec<Delivery>, DeliveryError> {
    let mut connection = store.connection().await?;
    let mut selected: Vec<Delivery> = Vec::new();
    loop {
        let after = selected.last().map(|delivery| delivery.sequence);
        let page = deliveries::list(&mut connection, filter, after, PAGE_SIZE).await?;
        let done = page.len() < PAGE_SIZE as usize;
        selected.extend(page);
        if done {
            return Ok(selected);
        }
    }
}

/// One delivery with everything known about it.
///
/// # Errors
/// [`DeliveryError::NotFound`], [`DeliveryError::Store`].
pub async fn show(store: &Store, id: Uuid) -> Result<DeliveryDetail, DeliveryError> {
    let mut connection = store.connection().await?;
    let (delivery, contents) = load(&mut connection, id).await?;
    let letter = dead_letters::find_by_delivery(&mut connection, id).await?;
    Ok(DeliveryDetail {
        delivery,
        contents,
        issues: deliveries::list_issues(&mut connection, id).await?,
        dead_letter: letter,
        history: audit_log::list_for_delivery(&mut connection, id).await?,
    })
}

async fn load(
    connection: &mut crate::store::Conn,
    id: Uuid,
) -> Result<(Delivery, DeliveryContents), DeliveryError> {
    let filter = DeliveryFilter { ids: vec![id], ..DeliveryFilter::default() };
    let delivery = deliveries::list(connection, &filter, None, 1).await?.pop();
    let contents = deliveries::contents(connection, id).await?;
    delivery.zip(contents).ok_or(DeliveryError::NotFound(id))
}

/// Takes a delivery back, for good, and gives it back as it stands then.
///
/// # Errors
/// [`DeliveryError`]; the delivery stays as it was.
pub async fn void(store: &Store, id: Uuid, actor: Actor<'_>) -> Result<Delivery, DeliveryError> {
    let mut tx = store.begin().await?;
    if let Err(refusal) = deliveries::void(&mut tx, id, actor).await? {
        tx.rollback().await?;
        return Err(refusal.into());
    }
    let (delivery, _) = load(&mut tx, id).await?;
    tx.commit().await?;
    Ok(delivery)
}

/// What is known of a voided delivery's document at its target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum LookupFinding {
    /// The target has it.
    Found {
        /// Its own id of it, if it told one.
        remote_id: Option<String>,
    },
    /// The target does not have it.
    NotFound,
    /// The target was not asked, or did not tell.
    Unknown {
        /// Why.
        why: String,
    },
}

impl LookupFinding {
    /// What stands against a re-issue. A person who has looked can put it
    /// aside; what was never sent is nowhere, unless the target says else.
    fn objection(&self, delivery: &Delivery, is_told: bool) -> Option<DeliveryError> {
        let (id, target) = (delivery.delivery_id, delivery.destination.clone());
        match self {
            _ if is_told => None,
            Self::Found { remote_id } => Some(DeliveryError::StillAtDestination {
                id,
                destination: target,
                remote_id: remote_id.clone(),
            }),
            Self::Unknown { why } if delivery.first_sent_at.is_some() => {
                Some(DeliveryError::MayStillExist { id, why: why.clone() })
            }
            Self::NotFound | Self::Unknown { .. } => None,
        }
    }
}

/// A re-issue, and what it rests on.
#[derive(Clone, Debug, Serialize)]
pub struct ReissueResult {
    /// The new delivery.
    #[serde(flatten)]
    pub delivery: Delivery,
    /// The key that will go with it, other than the old one's.
    pub key: Option<Uuid>,
    /// What the target said of the old one.
    pub look_up: LookupFinding,
    /// Whether a person said that the old one is gone.
    pub confirmed_gone: bool,
}

/// Issues a voided delivery anew: of the document as it is now, and under
/// another key. The target is asked first whether the old one is really gone;
/// `confirmed_gone` says that a person has looked, and outweighs its answer.
///
/// # Errors
/// [`DeliveryError`]; then there is no new delivery.
pub async fn reissue(
    store: &Store,
    targets: &BTreeMap<String, Destination>,
    id: Uuid,
    confirmed_gone: bool,
    actor: Actor<'_>,
) -> Result<ReissueResult, DeliveryError> {
    let mut connection = store.connection().await?;
    let (delivery, contents) = load(&mut connection, id).await?;
    // Before the target is bothered.
    deliveries::check_reissuable(&mut connection, id).await??;
    // A call may take long: nothing is held meanwhile.
    drop(connection);
    let look_up = look_up(targets, &delivery, &contents.document).await;
    if let Some(objection) = look_up.objection(&delivery, confirmed_gone) {
        return Err(objection);
    }
    let detail = json!({
        "look_up": look_up,
        "confirmed_gone": confirmed_gone,
        "overrides_lookup": confirmed_gone && matches!(look_up, LookupFinding::Found { .. }),
        "was_sent": delivery.first_sent_at.is_some(),
    });
    let mut tx = store.begin().await?;
    match deliveries::reissue(&mut tx, id, actor, &detail).await? {
        Ok(new) => {
            let (delivery, _) = load(&mut tx, new).await?;
            tx.commit().await?;
            Ok(ReissueResult {
                key: delivery.key(),
                delivery,
                look_up,
                confirmed_gone: confirmed_gone,
            })
        }
        Err(refusal) => {
            tx.rollback().await?;
            Err(refusal.into())
        }
    }
}

/// Asks a delivery's target for its document.
async fn look_up(
    targets: &BTreeMap<String, Destination>,
    delivery: &Delivery,
    document: &Value,
) -> LookupFinding {
    let unknown =
        |why: &str| LookupFinding::Unknown { why: format!("{} {why}", delivery.destination) };
    let http = match targets.get(&delivery.destination).map(|target| &target.transport) {
        None => return unknown("is not configured any more"),
        Some(Transport::Amqp { .. }) => return unknown("is a queue, which cannot be asked"),
        Some(Transport::Http(http)) if !http.supports_lookup() => {
            return unknown("offers no look-up");
        }
        Some(Transport::Http(http)) => http,
    };
    let (Some(key), Ok(generation)) = (delivery.key(), u32::try_from(delivery.issue)) else {
        return unknown("cannot be asked for an event that this version does not know");
    };
    let about = DeliveryPayload {
        document,
        event: &delivery.event,
        source: &delivery.source,
        tenant: &delivery.tenant,
        document_id: &delivery.document_id,
        document_number: delivery.document_number.as_deref(),
        issue: generation,
        idempotency_key: key,
    };
    match http.look_up_document(&about).await {
        Ok(LookupResult::Found { remote_id }) => LookupFinding::Found { remote_id },
        Ok(LookupResult::NotFound) => LookupFinding::NotFound,
        Err(error) => unknown(&format!("was asked, and did not tell: {error}")),
    }
}

/// What became of having deliveries tried again.
#[derive(Debug)]
pub struct RetryResult {
    /// The run, if it did anything.
    pub replay_id: Option<Uuid>,
    /// Those that are tried again.
    pub deliveries: Vec<Uuid>,
    /// Why others are not.
    pub refused: Vec<ActionRefusal>,
}

/// Has failed deliveries tried again, each under the key it had, as a replay
/// of their letters. `filter` is how they were selected, for the record.
///
/// # Errors
/// [`DeliveryError::Store`]; then nothing is tried again.
pub async fn retry(
    store: &Store,
    ids: &[Uuid],
    filter: &DeliveryFilter,
    actor: Actor<'_>,
) -> Result<RetryResult, DeliveryError> {
    let run = Uuid::now_v7();
    let mut tx = store.begin().await?;
    // A filter is plain texts: it can always be written as JSON.
    let filter = json!({"deliveries": serde_json::to_value(filter).unwrap_or_else(|_| json!({}))});
    audit_log::insert_replay(&mut tx, run, actor, &filter, ids.len()).await?;
    let deliveries = deliveries::retry(&mut tx, ids, run, actor).await?;
    let mut refused = Vec::new();
    for id in ids.iter().filter(|id| !deliveries.contains(id)) {
        refused.push(deliveries::retry_refusal(&mut tx, *id).await?);
    }
    let replay_id = if deliveries.is_empty() {
        tx.rollback().await?;
        None
    } else {
        tx.commit().await?;
        Some(run)
    };
    Ok(RetryResult { replay_id, deliveries, refused })
}
