//! What people do to deliveries: void, re-issue, try again. Each is on record
//! with who, when and why.

use serde_json::Value;
use uuid::Uuid;

use super::update_mirrored_at;
use crate::store::{Conn, StoreError, audit_log::Actor};

/// Why a verb does not go with a delivery.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ActionRefusal {
    /// There is none of this id.
    #[error("there is no delivery {0}")]
    NotFound(Uuid),
    /// A call is under way: nobody knows what comes of it.
    #[error("delivery {0} is being sent at this moment; wait for what comes of it")]
    InFlight(Uuid),
    /// It is in a state that the verb does not start from.
    #[error("delivery {id} is {state}; {requirement}")]
    WrongState {
        /// Which.
        id: Uuid,
        /// Its state.
        state: String,
        /// What the verb needs.
        requirement: &'static str,
    },
    /// There is a newer issue already.
    #[error("delivery {id} was re-issued before; its newest issue is {newest}, issue {issue}")]
    AlreadyReissued {
        /// Which.
        id: Uuid,
        /// The newest issue.
        newest: Uuid,
        /// Its generation.
        issue: i32,
    },
}

/// Takes a delivery back, for good: what the target made of it is gone, or
/// must not come about. Its dead letter is closed with it.
///
/// # Errors
/// What the database says; inside, why it is refused.
pub async fn void(
    conn: &mut Conn,
    id: Uuid,
    actor: Actor<'_>,
) -> Result<Result<(), ActionRefusal>, StoreError> {
    let voided = sqlx::query!(
        r#"
        with voided as (
            update deliveries
            set state = 'voided', voided_at = now(), voided_by = $2, void_comment = $3,
                lease_until = null, updated_at = now()
            where delivery_id = $1
              and (state in ('pending', 'uncertain', 'failed', 'delivered')
                   or (state = 'sending' and lease_until < now()))
            returning delivery_id, document_id, is_mirror
        ), closed as (
            update dead_letters set state = 'discarded', closed_at = now()
            from voided
            where dead_letters.delivery_id = voided.delivery_id
              and dead_letters.state in ('open', 'replayed')
        ), told as (
            insert into audit_log (actor, action, comment, delivery_id, dead_letter_id)
            select $2, 'void', $3, voided.delivery_id, letter.dead_letter_id
            from voided left join dead_letters as letter using (delivery_id)
        )
        select document_id, is_mirror from voided
        "#,
        id,
        actor.name,
        actor.comment,
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(voided) = voided else {
        return Ok(Err(refusal_for_state(conn, id, "it is taken back already").await?));
    };
    if voided.is_mirror {
        update_mirrored_at(conn, &[voided.document_id]).await?;
    }
    Ok(Ok(()))
}

/// Whether a delivery can be re-issued: inside, why not. Within a transaction
/// nobody else acts on it until that ends.
///
/// # Errors
/// What the database says.
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
        let (newest, generation) = (newest.delivery_id, newest.issue);
        Err(ActionRefusal::AlreadyReissued { id, newest, issue: generation })
    }))
}

const VOID_FIRST: &str = "void it first, with the reason";

/// Makes a new issue of a voided delivery, of the document as it is now. Each
/// is re-issued once; what becomes of the new one can be voided and re-issued
/// again. `detail` goes on record beside the new issue's id, which is given
/// back.
///
/// # Errors
/// What the database says; inside, why it is refused.
pub async fn reissue(
    conn: &mut Conn,
    id: Uuid,
    actor: Actor<'_>,
    detail: &Value,
) -> Result<Result<Uuid, ActionRefusal>, StoreError> {
    if let Err(refused) = check_reissuable(conn, id).await? {
        return Ok(Err(refused));
    }
    let reissued = sqlx::query_scalar!(
        r#"
        with reissued as (
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
        ), told as (
            insert into audit_log (actor, action, comment, delivery_id, detail)
            select $2, 'reissue', $3, $1, $4::jsonb || jsonb_build_object(
                'delivery_id', delivery_id, 'issue', issue)
            from reissued
        )
        select delivery_id from reissued
        "#,
        id,
        actor.name,
        actor.comment,
        detail,
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(new) = reissued else {
        // Outside of a transaction somebody was faster all the same.
        return Ok(Err(match check_reissuable(conn, id).await? {
            Err(refused) => refused,
            Ok(()) => refusal_for_state(conn, id, VOID_FIRST).await?,
        }));
    };
    Ok(Ok(new))
}

/// Has failed deliveries tried again under the keys they had, as a replay of
/// their letters. Gives back those that were failed.
///
/// What the target had refused is written anew from its document, since it
/// was refused for what it said. All else is sent as it was; the target may
/// have it, so it is asked first.
///
/// # Errors
/// What the database says.
pub async fn retry(
    conn: &mut Conn,
    ids: &[Uuid],
    replay_id: Uuid,
    actor: Actor<'_>,
) -> Result<Vec<Uuid>, StoreError> {
    Ok(sqlx::query_scalar!(
        r#"
        with failed as (
            select delivery_id, first_sent_at is null or request is null or exists (
                    select from dead_letters as letter
                    where letter.delivery_id = known.delivery_id
                      and letter.reason = 'delivery_refused') as anew
            from deliveries as known
            where delivery_id = any($1) and state = 'failed'
            order by delivery_id for update
        ), again as (
            update deliveries as known
            set attempts = 0, next_attempt_at = now(), updated_at = now(),
                state = case when failed.anew then 'pending' else 'uncertain' end,
                request = case when failed.anew then null else known.request end
            from failed
            where known.delivery_id = failed.delivery_id
            returning known.delivery_id
        ), letters as (
            update dead_letters as letter set state = 'replayed', replay_id = $2
            from again
            where letter.delivery_id = again.delivery_id and letter.state in ('open', 'replayed')
        ), told as (
            insert into audit_log (actor, action, comment, delivery_id, dead_letter_id, detail)
            select $3, 'replay', $4, again.delivery_id, letter.dead_letter_id,
                jsonb_build_object('replay_id', $2)
            from again left join dead_letters as letter using (delivery_id)
        )
        select delivery_id as "delivery_id!" from again
        "#,
        ids,
        replay_id,
        actor.name,
        actor.comment,
    )
    .fetch_all(conn)
    .await?)
}

/// Why a delivery is not tried again: because it has not failed.
///
/// # Errors
/// What the database says.
pub async fn retry_refusal(conn: &mut Conn, id: Uuid) -> Result<ActionRefusal, StoreError> {
    refusal_for_state(conn, id, "only what failed is tried again").await
}

async fn refusal_for_state(
    conn: &mut Conn,
    id: Uuid,
    needed: &'static str,
) -> Result<ActionRefusal, StoreError> {
    let state = sqlx::query_scalar!("select state from deliveries where delivery_id = $1", id)
        .fetch_optional(conn)
        .await?;
    Ok(match state {
        None => ActionRefusal::NotFound(id),
        Some(state) if state == "sending" => ActionRefusal::InFlight(id),
        Some(state) => ActionRefusal::WrongState { id, state, requirement: needed },
    })
}
