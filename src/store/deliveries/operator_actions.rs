//! What operators do to deliveries: void, re-issue, retry. Each action is recorded in `audit_log`.

use serde_json::{Value, json};
use uuid::Uuid;

use super::update_mirrored_at;
use crate::{
    domain::AuditAction,
    store::{
        Conn, StoreError,
        audit_log::{self, Actor, Subject},
        dead_letters,
    },
};

/// Why an action cannot be applied to a delivery.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ActionRefusal {
    /// No delivery has this id.
    #[error("there is no delivery {0}")]
    NotFound(Uuid),
    /// An attempt is under way, and its result is unknown.
    #[error("delivery {0} is being sent now; wait for the result")]
    InFlight(Uuid),
    /// The delivery was named, and the other conditions do not select it.
    #[error("delivery {0} does not match the other conditions")]
    NotSelected(Uuid),
    /// The action does not apply to the delivery's state.
    #[error("delivery {id} is {state}; {requirement}")]
    WrongState {
        /// The delivery.
        id: Uuid,
        /// Its state.
        state: String,
        /// What the action requires.
        requirement: &'static str,
    },
    /// There is a newer issue already.
    #[error("delivery {id} was re-issued before; its newest issue is {issue}, delivery {newest}")]
    AlreadyReissued {
        /// The delivery.
        id: Uuid,
        /// The delivery with the newest issue.
        newest: Uuid,
        /// The number of that issue.
        issue: i32,
    },
}

/// Voids a delivery for good: the destination's document was deleted, or must not be created. Its
/// dead letter is discarded. Call it in a transaction.
///
/// # Errors
/// A database error; the inner error says why it is refused.
pub async fn void(
    conn: &mut Conn,
    id: Uuid,
    actor: Actor<'_>,
) -> Result<Result<(), ActionRefusal>, StoreError> {
    let voided = sqlx::query!(
        r#"
        update deliveries
        set state = 'voided', voided_at = now(), voided_by = $2, void_comment = $3,
            lease_until = null, updated_at = now()
        where delivery_id = $1
          and (state in ('pending', 'uncertain', 'failed', 'delivered')
               or (state = 'sending' and lease_until < now()))
        returning document_id, is_mirror
        "#,
        id,
        actor.name,
        actor.comment,
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(voided) = voided else {
        return Ok(Err(refusal_for_state(conn, id, "it is voided already").await?));
    };
    dead_letters::discard_for_delivery(conn, id).await?;
    let dead_letter_id = dead_letters::ids_by_delivery(conn, &[id]).await?.remove(&id);
    let subject = Subject { dead_letter_id, ..Subject::delivery(id) };
    audit_log::insert(conn, AuditAction::Void, actor, &[subject]).await?;
    if voided.is_mirror {
        update_mirrored_at(conn, &[voided.document_id]).await?;
    }
    Ok(Ok(()))
}

/// Voids the failed deliveries of open dead letters that an operator discards, and returns their
/// ids. `mirrored_at` does not change: a failed mirror never set it.
pub(in crate::store) async fn void_failed(
    conn: &mut Conn,
    dead_letter_ids: &[Uuid],
    actor: Actor<'_>,
) -> Result<Vec<Uuid>, StoreError> {
    Ok(sqlx::query_scalar!(
        r#"
        with failed as (
            select delivery_id from deliveries
            where state = 'failed' and delivery_id in (
                select delivery_id from dead_letters
                where dead_letter_id = any($1) and state = 'open')
            order by delivery_id for update
        )
        update deliveries as known
        set state = 'voided', voided_at = now(), voided_by = $2, void_comment = $3,
            updated_at = now()
        from failed where known.delivery_id = failed.delivery_id
        returning known.delivery_id
        "#,
        dead_letter_ids,
        actor.name,
        actor.comment,
    )
    .fetch_all(conn)
    .await?)
}

/// Checks that a delivery can be re-issued, and locks it until the end of the transaction.
///
/// # Errors
/// A database error; the inner error says why it is refused.
pub async fn check_reissuable(
    conn: &mut Conn,
    id: Uuid,
) -> Result<Result<(), ActionRefusal>, StoreError> {
    let state =
        sqlx::query_scalar!("select state from deliveries where delivery_id = $1 for update", id)
            .fetch_optional(&mut *conn)
            .await?;
    if state.as_deref() != Some("voided") {
        return Ok(Err(refusal_for_state(conn, id, VOID_FIRST).await?));
    }
    let newest = sqlx::query!(
        r#"
        select newer.delivery_id, newer.issue
        from deliveries as old
        join deliveries as newer
            using (destination, event, source, tenant, document_id, cause_receipt_id)
        where old.delivery_id = $1 and newer.issue > old.issue
        order by newer.issue desc
        limit 1
        "#,
        id
    )
    .fetch_optional(conn)
    .await?;
    Ok(newest.map_or(Ok(()), |newest| {
        let (newest, issue) = (newest.delivery_id, newest.issue);
        Err(ActionRefusal::AlreadyReissued { id, newest, issue })
    }))
}

const VOID_FIRST: &str = "void it first";

/// Re-issues a voided delivery with the current document, and returns the id of the new delivery.
/// Each delivery is re-issued at most once; the new one can be voided and re-issued in turn.
/// `detail` is recorded in the audit log. Call it in a transaction.
///
/// # Errors
/// A database error; the inner error says why it is refused.
pub async fn reissue(
    conn: &mut Conn,
    id: Uuid,
    actor: Actor<'_>,
    mut detail: Value,
) -> Result<Result<Uuid, ActionRefusal>, StoreError> {
    if let Err(refusal) = check_reissuable(conn, id).await? {
        return Ok(Err(refusal));
    }
    let reissued = sqlx::query!(
        r#"
        insert into deliveries (
            destination, event, is_mirror, source, tenant, document_id, document_number, issue,
            cause_receipt_id, receipt_id, document)
        select destination, event, is_mirror, source, tenant, document_id, document_number,
            issue + 1, cause_receipt_id, receipt_id,
            coalesce(
                case split_part(event, '.', 1)
                when 'invoice' then (
                    select invoice_document(invoices) from invoices
                    where invoice_id = voided.document_id::uuid)
                when 'order' then (
                    select order_document(orders) from orders
                    where source = voided.source and tenant = voided.tenant
                      and order_id = voided.document_id)
                when 'refund' then (
                    select refund_document(refunds) from refunds
                    where source = voided.source and tenant = voided.tenant
                      and refund_id = voided.document_id)
                end,
                document)
        from deliveries as voided
        where delivery_id = $1 and state = 'voided'
        on conflict on constraint deliveries_unique do nothing
        returning delivery_id, issue
        "#,
        id,
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(reissued) = reissued else {
        // Only without a transaction: another operator re-issued it after the check.
        return Ok(Err(match check_reissuable(conn, id).await? {
            Err(refusal) => refusal,
            Ok(()) => refusal_for_state(conn, id, VOID_FIRST).await?,
        }));
    };
    detail["delivery_id"] = json!(reissued.delivery_id);
    detail["issue"] = json!(reissued.issue);
    let subject = Subject { detail, ..Subject::delivery(id) };
    audit_log::insert(conn, AuditAction::Reissue, actor, &[subject]).await?;
    Ok(Ok(reissued.delivery_id))
}

/// Sends failed deliveries again with their idempotency keys, as a replay of their dead letters,
/// and returns the deliveries that were failed. Call it in a transaction.
///
/// A request that the destination refused is rendered again from its document, because it was
/// refused for its content. All other requests stay the same; the destination may have them, so
/// they are looked up first.
///
/// # Errors
/// A database error.
pub async fn retry(
    conn: &mut Conn,
    ids: &[Uuid],
    replay_id: Uuid,
    actor: Actor<'_>,
) -> Result<Vec<Uuid>, StoreError> {
    let retried = sqlx::query_scalar!(
        r#"
        with failed as (
            select delivery_id, first_sent_at is null or request is null or exists (
                    select from dead_letters as dead_letter
                    where dead_letter.delivery_id = known.delivery_id
                      and dead_letter.reason = 'delivery_refused') as render_again
            from deliveries as known
            where delivery_id = any($1) and state = 'failed'
            order by delivery_id for update
        )
        update deliveries as known
        set attempts = 0, next_attempt_at = now(), updated_at = now(),
            state = case when failed.render_again then 'pending' else 'uncertain' end,
            request = case when failed.render_again then null else known.request end
        from failed
        where known.delivery_id = failed.delivery_id
        returning known.delivery_id
        "#,
        ids,
    )
    .fetch_all(&mut *conn)
    .await?;
    dead_letters::mark_replayed_for_deliveries(conn, &retried, replay_id).await?;
    let dead_letters = dead_letters::ids_by_delivery(conn, &retried).await?;
    let subjects = column!(retried, id => Subject {
        dead_letter_id: dead_letters.get(id).copied(),
        detail: json!({"replay_id": replay_id}),
        ..Subject::delivery(*id)
    });
    audit_log::insert(conn, AuditAction::Replay, actor, &subjects).await?;
    Ok(retried)
}

/// Says why a delivery was not retried: it is not failed, or was not selected.
///
/// # Errors
/// A database error.
pub async fn retry_refusal(conn: &mut Conn, id: Uuid) -> Result<ActionRefusal, StoreError> {
    Ok(match refusal_for_state(conn, id, "only failed deliveries can be retried").await? {
        ActionRefusal::WrongState { id, state, .. } if state == "failed" => {
            ActionRefusal::NotSelected(id)
        }
        refusal => refusal,
    })
}

async fn refusal_for_state(
    conn: &mut Conn,
    id: Uuid,
    requirement: &'static str,
) -> Result<ActionRefusal, StoreError> {
    let state = sqlx::query_scalar!("select state from deliveries where delivery_id = $1", id)
        .fetch_optional(conn)
        .await?;
    Ok(match state {
        None => ActionRefusal::NotFound(id),
        Some(state) if state == "sending" => ActionRefusal::InFlight(id),
        Some(state) => ActionRefusal::WrongState { id, state, requirement },
    })
}
