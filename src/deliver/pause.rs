//! What an attempt comes to: when it is tried again, and when no more.

use std::time::Duration;

use crate::{
    domain::Reason,
    store::deliveries::{Due, Outcome},
    target::{Effort, Told},
};

/// The outcome of an attempt. `counts` is false for the one attempt with
/// which an open breaker finds out whether the target is back.
pub(super) fn outcome(effort: &Effort, due: &Due, may_count: bool, told: Told) -> Outcome {
    match told {
        Told::Has { remote_id, warning } => Outcome::Delivered { remote_id, warning },
        Told::Refused { reason, error } => Outcome::Failed { reason, error },
        Told::Unknown(error) => again(effort, due, may_count, true, None, error),
        Told::NotNow { error, retry_after, counts } => {
            again(effort, due, may_count && counts, false, retry_after, error)
        }
    }
}

fn again(
    effort: &Effort,
    due: &Due,
    counts: bool,
    is_doubtful: bool,
    retry_after: Option<Duration>,
    error: String,
) -> Outcome {
    let failed = u32::try_from(due.attempts).unwrap_or_default();
    if counts && failed.saturating_add(1) >= effort.attempts {
        let attempts = failed.saturating_add(1);
        return Outcome::Failed {
            reason: Reason::AttemptsExhausted,
            error: format!("{attempts} attempts failed, the last with: {error}"),
        };
    }
    let doubled = effort.first_delay.saturating_mul(2_u32.saturating_pow(failed));
    let after = doubled.max(retry_after.unwrap_or_default()).min(effort.longest_delay);
    Outcome::Again { is_doubtful, counts, after, error }
}
