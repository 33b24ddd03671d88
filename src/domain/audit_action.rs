//! What operators do.

use super::string_enum;

string_enum! {
    /// An action of an operator, as `audit_log` records it.
    AuditAction {
        /// A dead letter or a failed delivery is sent again.
        Replay = "replay",
        /// A dead letter or a quarantined request is closed without sending it.
        Discard = "discard",
        /// A delivery is voided.
        Void = "void",
        /// A voided delivery is issued again, with another idempotency key.
        Reissue = "reissue",
        /// A quarantined request is verified again and published.
        Release = "release",
    }
}
