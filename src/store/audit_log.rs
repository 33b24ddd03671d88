//! `audit_log`: what operators did, when and with which comment. Rows are only inserted.

use serde::Serialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Conn, StoreError};
use crate::domain::AuditAction;

/// The operator who acts, for the record.
#[derive(Clone, Copy, Debug)]
pub struct Actor<'a> {
    /// The operator's name.
    pub name: &'a str,
    /// The operator's comment.
    pub comment: &'a str,
}

/// What an action was applied to.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub(super) dead_letter_id: Option<Uuid>,
    pub(super) delivery_id: Option<Uuid>,
    pub(super) detail: Value,
}

impl Subject {
    pub(super) fn dead_letter(id: Uuid) -> Self {
        Self { dead_letter_id: Some(id), delivery_id: None, detail: json!({}) }
    }

    pub(super) fn delivery(id: Uuid) -> Self {
        Self { dead_letter_id: None, delivery_id: Some(id), detail: json!({}) }
    }
}

/// Records an action, one row for each subject.
pub(super) async fn insert(
    conn: &mut Conn,
    action: AuditAction,
    actor: Actor<'_>,
    subjects: &[Subject],
) -> Result<(), StoreError> {
    sqlx::query!(
        r#"
        insert into audit_log (action, actor, comment, dead_letter_id, delivery_id, detail)
        select $1, $2, $3, dead_letter_id, delivery_id, detail::jsonb
        from unnest($4::uuid[], $5::uuid[], $6::text[])
            with ordinality as subject (dead_letter_id, delivery_id, detail, position)
        order by position
        "#,
        action.as_str(),
        actor.name,
        actor.comment,
        &column!(subjects, subject => subject.dead_letter_id) as &[Option<Uuid>],
        &column!(subjects, subject => subject.delivery_id) as &[Option<Uuid>],
        &column!(subjects, subject => subject.detail.to_string()),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A row of the audit log.
#[derive(Clone, Debug, Serialize)]
pub struct AuditEntry {
    /// When the operator acted.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The operator's name.
    pub actor: String,
    /// A word of [`AuditAction`].
    pub action: String,
    /// The operator's comment.
    pub comment: String,
    /// More about the action: the replay run, or the look-up before a re-issue.
    pub detail: Value,
}

/// Lists what operators did to a dead letter, oldest first.
///
/// # Errors
/// A database error.
pub async fn list_for_dead_letter(
    conn: &mut Conn,
    id: Uuid,
) -> Result<Vec<AuditEntry>, StoreError> {
    Ok(sqlx::query_as!(
        AuditEntry,
        "select at, actor, action, comment, detail from audit_log where dead_letter_id = $1
         order by audit_id",
        id
    )
    .fetch_all(conn)
    .await?)
}

/// Lists what operators did to a delivery and to its dead letter, oldest first.
///
/// # Errors
/// A database error.
pub async fn list_for_delivery(conn: &mut Conn, id: Uuid) -> Result<Vec<AuditEntry>, StoreError> {
    Ok(sqlx::query_as!(
        AuditEntry,
        "select at, actor, action, comment, detail from audit_log where delivery_id = $1
         order by audit_id",
        id
    )
    .fetch_all(conn)
    .await?)
}
