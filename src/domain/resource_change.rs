//! References: what a thin event tells. Something of this kind and id
//! changed; what it is now, only the platform knows.

use time::OffsetDateTime;

/// One change of one thing on a platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceChange {
    /// The platform that knows it: a kind of source, or a profile of one.
    pub platform: &'static str,
    /// What it is, in lower case: `order`, `invoice`, `bill`, ...
    pub kind: String,
    /// The platform's id of it.
    pub id: String,
    /// The platform's own count of its versions, where it tells one. Goes
    /// before `changed_at`.
    pub version: Option<i64>,
    /// When it changed.
    pub changed_at: OffsetDateTime,
    /// What happened, in lower case: `created`, `updated`, `deleted`, ...
    pub action: String,
}

impl ResourceChange {
    /// Whether the thing is gone: then there is nothing to fetch.
    pub fn is_deletion(&self) -> bool {
        matches!(self.action.as_str(), "deleted" | "removed")
    }
}
