//! The outcome of a message: one word, the same in code, SQL, metrics and the command line.

use super::string_enum;

string_enum! {
    /// The outcome of one received message.
    Outcome {
        /// It changed a document.
        Applied = "applied",
        /// Its event key was already processed; it changed nothing.
        Duplicate = "duplicate",
        /// A newer state is already stored; it changed nothing.
        Stale = "stale",
        /// Its topic has no mapping (a ping, a test); it changed nothing.
        Ignored = "ignored",
        /// It failed and waits in a retry queue for the next attempt.
        Retried = "retried",
        /// It was dead-lettered and waits for an operator.
        Dead = "dead",
        /// The request was rejected with an explanation; it changed nothing.
        Rejected = "rejected",
    }
}

string_enum! {
    /// What an applied event did to its document.
    WriteKind {
        /// The document was created.
        Created = "created",
        /// The document existed and was updated.
        Updated = "updated",
    }
}
