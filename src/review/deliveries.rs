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
    store::{
        Store, StoreError,
        acts::{self, Act, Actor},
        dead_letters::{self, Summary},
        deliveries::{self, Contents, Delivery, Filter, Issue, Refusal},
    },
    target::{About, Found, Target, Way},
};

/// Deliveries read at once while a selection is made.
const PAGE: u32 = 500;

/// Why an act on a delivery did not work.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// The database.
    #[error("the deliveries cannot be read or written")]
    Store(#[from] StoreError),
    /// There is none of this id.
    #[error("there is no delivery {0}")]
    NoSuchDelivery(Uuid),
    /// The verb does not go with its state.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The target was asked, and has it.
    #[error("delivery {id} is still there: {target} shows it{}", named(remote_id.as_ref()))]
    StillThere {
        /// Which.
        id: Uuid,
        /// Where.
        target: String,
        /// The target's own id of it.
        remote_id: Option<String>,
    },
    /// Nobody can tell whether the target has it.
    #[error("delivery {id} may still be there: {why}")]
    Doubt {
        /// Which.
        id: Uuid,
        /// Why that is so.
        why: String,
    },
}

fn named(remote_id: Option<&String>) -> String {
    remote_id.map_or_else(String::new, |id| format!(" as {id}"))
}

/// One delivery with everything known about it.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    /// What the list shows.
    #[serde(flatten)]
    pub delivery: Delivery,
    /// What it is of, what was sent, and what was answered.
    #[serde(flatten)]
    pub contents: Contents,
    /// Its issues, the first one first, itself among them.
    pub issues: Vec<Issue>,
    /// The letter that laid it before a person.
    pub dead_letter: Option<Summary>,
    /// What people did to it, oldest first.
    pub acts: Vec<Act>,
}

/// Lists deliveries, oldest first.
///
/// # Errors
/// [`DeliveryError::Store`].
pub async fn list(
    store: &Store,
    filter: &Filter,
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
pub async fn select(store: &Store, filter: &Filter) -> Result<Vec<Delivery>, DeliveryError> {
    let mut connection = store.connection().await?;
    let mut selected: Vec<Delivery> = Vec::new();
    loop {
        let after = selected.last().map(|delivery| delivery.position);
        let page = deliveries::list(&mut connection, filter, after, PAGE).await?;
        let done = page.len() < PAGE as usize;
        selected.extend(page);
        if done {
            return Ok(selected);
        }
    }
}

/// One delivery with everything known about it.
///
/// # Errors
/// [`DeliveryError::NoSuchDelivery`], [`DeliveryError::Store`].
pub async fn show(store: &Store, id: Uuid) -> Result<Shown, DeliveryError> {
    let mut connection = store.connection().await?;
    let (delivery, contents) = read(&mut connection, id).await?;
    let letter = dead_letters::of_delivery(&mut connection, id).await?;
    Ok(Shown {
        delivery,
        contents,
        issues: deliveries::issues(&mut connection, id).await?,
        dead_letter: letter,
        acts: acts::acts_on_delivery(&mut connection, id).await?,
    })
}

async fn read(
    connection: &mut crate::store::Conn,
    id: Uuid,
) -> Result<(Delivery, Contents), DeliveryError> {
    let filter = Filter { ids: vec![id], ..Filter::default() };
    let delivery = deliveries::list(connection, &filter, None, 1).await?.pop();
    let contents = deliveries::contents(connection, id).await?;
    delivery.zip(contents).ok_or(DeliveryError::NoSuchDelivery(id))
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
    let (delivery, _) = read(&mut tx, id).await?;
    tx.commit().await?;
    Ok(delivery)
}

/// What is known of a voided delivery's document at its target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum LookUp {
    /// The target has it.
    There {
        /// Its own id of it, if it told one.
        remote_id: Option<String>,
    },
    /// The target does not have it.
    Nowhere,
    /// The target was not asked, or did not tell.
    Unknown {
        /// Why.
        why: String,
    },
}

impl LookUp {
    /// What stands against a re-issue. A person who has looked can put it
    /// aside; what was never sent is nowhere, unless the target says else.
    fn objection(&self, delivery: &Delivery, is_told: bool) -> Option<DeliveryError> {
        let (id, target) = (delivery.delivery_id, delivery.target.clone());
        match self {
            _ if is_told => None,
            Self::There { remote_id } => {
                Some(DeliveryError::StillThere { id, target, remote_id: remote_id.clone() })
            }
            Self::Unknown { why } if delivery.first_sent_at.is_some() => {
                Some(DeliveryError::Doubt { id, why: why.clone() })
            }
            Self::Nowhere | Self::Unknown { .. } => None,
        }
    }
}

/// A re-issue, and what it rests on.
#[derive(Clone, Debug, Serialize)]
pub struct Reissued {
    /// The new delivery.
    #[serde(flatten)]
    pub delivery: Delivery,
    /// The key that will go with it, other than the old one's.
    pub key: Option<Uuid>,
    /// What the target said of the old one.
    pub look_up: LookUp,
    /// Whether a person said that the old one is gone.
    pub told_gone: bool,
}

/// Issues a voided delivery anew: of the document as it is now, and under
/// another key. The target is asked first whether the old one is really gone;
/// `told_gone` says that a person has looked, and outweighs its answer.
///
/// # Errors
/// [`DeliveryError`]; then there is no new delivery.
pub async fn reissue(
    store: &Store,
    targets: &BTreeMap<String, Target>,
    id: Uuid,
    told_gone: bool,
    actor: Actor<'_>,
) -> Result<Reissued, DeliveryError> {
    let mut connection = store.connection().await?;
    let (delivery, contents) = read(&mut connection, id).await?;
    // Before the target is bothered.
    deliveries::can_reissue(&mut connection, id).await??;
    // A call may take long: nothing is held meanwhile.
    drop(connection);
    let look_up = ask(targets, &delivery, &contents.document).await;
    if let Some(objection) = look_up.objection(&delivery, told_gone) {
        return Err(objection);
    }
    let detail = json!({
        "look_up": look_up,
        "told_gone": told_gone,
        "against_the_look_up": told_gone && matches!(look_up, LookUp::There { .. }),
        "was_sent": delivery.first_sent_at.is_some(),
    });
    let mut tx = store.begin().await?;
    match deliveries::reissue(&mut tx, id, actor, &detail).await? {
        Ok(new) => {
            let (delivery, _) = read(&mut tx, new).await?;
            tx.commit().await?;
            Ok(Reissued { key: delivery.key(), delivery, look_up, told_gone })
        }
        Err(refusal) => {
            tx.rollback().await?;
            Err(refusal.into())
        }
    }
}

/// Asks a delivery's target for its document.
async fn ask(targets: &BTreeMap<String, Target>, delivery: &Delivery, document: &Value) -> LookUp {
    let unknown = |why: &str| LookUp::Unknown { why: format!("{} {why}", delivery.target) };
    let http = match targets.get(&delivery.target).map(|target| &target.way) {
        None => return unknown("is not configured any more"),
        Some(Way::Broker { .. }) => return unknown("is a queue, which cannot be asked"),
        Some(Way::Http(http)) if !http.offers_look_up() => return unknown("offers no look-up"),
        Some(Way::Http(http)) => http,
    };
    let (Some(key), Ok(generation)) = (delivery.key(), u32::try_from(delivery.generation)) else {
        return unknown("cannot be asked for an event that this version does not know");
    };
    let about = About {
        document,
        event: &delivery.event,
        source: &delivery.source,
        tenant: &delivery.tenant,
        document_id: &delivery.document_id,
        document_number: delivery.document_number.as_deref(),
        generation,
        key,
    };
    match http.look_up(&about).await {
        Ok(Found::There { remote_id }) => LookUp::There { remote_id },
        Ok(Found::Nowhere) => LookUp::Nowhere,
        Err(error) => unknown(&format!("was asked, and did not tell: {error}")),
    }
}

/// What became of having deliveries tried again.
#[derive(Debug)]
pub struct Retried {
    /// The run, if it did anything.
    pub replay_id: Option<Uuid>,
    /// Those that are tried again.
    pub deliveries: Vec<Uuid>,
    /// Why others are not.
    pub refused: Vec<Refusal>,
}

/// Has failed deliveries tried again, each under the key it had, as a replay
/// of their letters. `filter` is how they were selected, for the record.
///
/// # Errors
/// [`DeliveryError::Store`]; then nothing is tried again.
pub async fn retry(
    store: &Store,
    ids: &[Uuid],
    filter: &Filter,
    actor: Actor<'_>,
) -> Result<Retried, DeliveryError> {
    let run = Uuid::now_v7();
    let mut tx = store.begin().await?;
    // A filter is plain texts: it can always be written as JSON.
    let filter = json!({"deliveries": serde_json::to_value(filter).unwrap_or_else(|_| json!({}))});
    acts::open_replay(&mut tx, run, actor, &filter, ids.len()).await?;
    let deliveries = deliveries::retry(&mut tx, ids, run, actor).await?;
    let mut refused = Vec::new();
    for id in ids.iter().filter(|id| !deliveries.contains(id)) {
        refused.push(deliveries::why_not_retried(&mut tx, *id).await?);
    }
    let replay_id = if deliveries.is_empty() {
        tx.rollback().await?;
        None
    } else {
        tx.commit().await?;
        Some(run)
    };
    Ok(Retried { replay_id, deliveries, refused })
}
