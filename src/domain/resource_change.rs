//! Resource changes: the content of thin events, which name a changed resource without its
//! new state.

use time::OffsetDateTime;

/// One change of one resource at a platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceChange {
    /// The platform: a kind of source, or a profile of one.
    pub platform: &'static str,
    /// Type of the resource, in lower case: `order`, `invoice`, `bill`, ...
    pub kind: String,
    /// The platform's id of the resource.
    pub id: String,
    /// The platform's version number, if there is one. Compared before `changed_at`.
    pub version: Option<i64>,
    /// When it changed.
    pub changed_at: OffsetDateTime,
    /// What happened, in lower case: `created`, `updated`, `deleted`, ...
    pub action: String,
}

impl ResourceChange {
    /// Whether the resource was deleted, so that nothing can be fetched.
    pub fn is_deletion(&self) -> bool {
        matches!(self.action.as_str(), "deleted" | "removed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resource_change_deletion_is_recognized_by_action() {
        for (action, expected) in [
            ("deleted", true),
            ("removed", true),
            ("created", false),
            ("updated", false),
            ("", false),
        ] {
            let change = ResourceChange {
                platform: "square",
                kind: "order".to_owned(),
                id: "1".to_owned(),
                version: None,
                changed_at: OffsetDateTime::UNIX_EPOCH,
                action: action.to_owned(),
            };
            assert_eq!(change.is_deletion(), expected, "{action}");
        }
    }
}
