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
            // This call made nothing; an earlier one may have, or still may.
            again(effort, due, may_count && counts, due.is_doubtful, retry_after, error)
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

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;
    use uuid::Uuid;

    use super::*;

    const EFFORT: Effort = Effort {
        concurrency: 1,
        per_second: 1,
        attempts: 4,
        first_delay: Duration::from_secs(1),
        longest_delay: Duration::from_secs(10),
        breaker_failures: 5,
        breaker_open: Duration::from_secs(30),
        timeout: Duration::from_secs(30),
    };

    fn due(attempts: i32) -> Due {
        Due {
            delivery_id: Uuid::nil(),
            event: "invoice.created".to_owned(),
            source: "vendors".to_owned(),
            tenant: String::new(),
            document_id: "1".to_owned(),
            document_number: None,
            generation: 0,
            revision: Uuid::nil(),
            document: serde_json::json!({}),
            created_at: OffsetDateTime::UNIX_EPOCH,
            idempotency_key: None,
            request: None,
            attempts,
            was_sent: false,
            is_doubtful: false,
        }
    }

    fn not_now(seconds: Option<u64>, counts: bool) -> Told {
        let retry_after = seconds.map(Duration::from_secs);
        Told::NotNow { error: "no".to_owned(), retry_after, counts }
    }

    #[test]
    fn attempts_come_to_this_table() {
        let unknown = || Told::Unknown("no answer".to_owned());
        // Failed attempts before, may it count, what was told;
        // doubtful, counted, seconds until the next.
        for (before, may_count, told, expected) in [
            (0, true, unknown(), Some((true, true, 1))),
            (1, true, unknown(), Some((true, true, 2))),
            (2, true, unknown(), Some((true, true, 4))),
            (3, true, unknown(), None),
            (3, false, unknown(), Some((true, false, 8))),
            (0, true, not_now(None, true), Some((false, true, 1))),
            (3, true, not_now(None, true), None),
            (3, true, not_now(None, false), Some((false, false, 8))),
            (0, true, not_now(Some(5), true), Some((false, true, 5))),
            // Whatever it asks for, the setting is the longest.
            (0, true, not_now(Some(3600), true), Some((false, true, 10))),
            (99, false, not_now(None, true), Some((false, false, 10))),
        ] {
            let told_text = format!("{told:?}");
            match (outcome(&EFFORT, &due(before), may_count, told), expected) {
                (Outcome::Again { is_doubtful, counts, after, .. }, Some(expected)) => {
                    let came = (is_doubtful, counts, after.as_secs());
                    assert_eq!(came, expected, "{before} {told_text}");
                }
                (Outcome::Failed { reason: Reason::AttemptsExhausted, error }, None) => {
                    assert!(error.starts_with("4 attempts failed"), "{error}");
                }
                (outcome, _) => panic!("{before} {told_text} came to {outcome:?}"),
            }
        }
    }

    #[test]
    fn a_doubt_outlasts_a_call_that_the_target_did_not_take() {
        for (is_doubtful, counts) in [(true, true), (true, false), (false, true), (false, false)] {
            let due = Due { is_doubtful, ..due(1) };
            match outcome(&EFFORT, &due, true, not_now(None, counts)) {
                Outcome::Again { is_doubtful: still, .. } => assert_eq!(still, is_doubtful),
                outcome => panic!("{is_doubtful} {counts} came to {outcome:?}"),
            }
        }
    }

    #[test]
    fn a_refusal_and_a_success_are_final() {
        let has = Told::Has { remote_id: Some("7".to_owned()), warning: None };
        let delivered = Outcome::Delivered { remote_id: Some("7".to_owned()), warning: None };
        assert_eq!(outcome(&EFFORT, &due(3), true, has), delivered);
        let error = "answered 422".to_owned();
        let refused = Told::Refused { reason: Reason::DeliveryRefused, error: error.clone() };
        let failed = Outcome::Failed { reason: Reason::DeliveryRefused, error };
        assert_eq!(outcome(&EFFORT, &due(0), false, refused), failed);
    }
}
