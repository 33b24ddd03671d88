//! What an attempt comes to: when it is tried again, and when no more.

use std::time::Duration;

use crate::{
    destinations::{AttemptResult, DeliveryPolicy},
    domain::ReasonCode,
    store::deliveries::{AttemptOutcome, DueDelivery},
};

/// The outcome of an attempt. `counts` is false for the one attempt with
/// which an open breaker finds out whether the target is back.
pub(super) fn attempt_outcome(
    effort: &DeliveryPolicy,
    due: &DueDelivery,
    may_count: bool,
    told: AttemptResult,
) -> AttemptOutcome {
    match told {
        AttemptResult::Delivered { remote_id, warning } => {
            AttemptOutcome::Delivered { remote_id, warning }
        }
        AttemptResult::Rejected { reason, error } => AttemptOutcome::Failed { reason, error },
        AttemptResult::Unknown(error) => retry_or_fail(effort, due, may_count, true, None, error),
        AttemptResult::RetryLater { error, retry_after, counts_as_attempt: counts } => {
            // This call made nothing; an earlier one may have, or still may.
            retry_or_fail(
                effort,
                due,
                may_count && counts,
                due.may_be_delivered,
                retry_after,
                error,
            )
        }
    }
}

fn retry_or_fail(
    effort: &DeliveryPolicy,
    due: &DueDelivery,
    counts: bool,
    may_be_delivered: bool,
    retry_after: Option<Duration>,
    error: String,
) -> AttemptOutcome {
    let failed = u32::try_from(due.attempts).unwrap_or_default();
    if counts && failed.saturating_add(1) >= effort.max_attempts {
        let attempts = failed.saturating_add(1);
        return AttemptOutcome::Failed {
            reason: ReasonCode::AttemptsExhausted,
            error: format!("{attempts} attempts failed, the last with: {error}"),
        };
    }
    let doubled = effort.initial_delay.saturating_mul(2_u32.saturating_pow(failed));
    let after = doubled.max(retry_after.unwrap_or_default()).min(effort.max_delay);
    AttemptOutcome::Retry {
        may_be_delivered: may_be_delivered,
        counts_as_attempt: counts,
        delay: after,
        error,
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;
    use uuid::Uuid;

    use super::*;

    const POLICY: DeliveryPolicy = DeliveryPolicy {
        max_concurrency: 1,
        rate_limit_per_second: 1,
        max_attempts: 4,
        initial_delay: Duration::from_secs(1),
        max_delay: Duration::from_secs(10),
        circuit_breaker_threshold: 5,
        circuit_breaker_open: Duration::from_secs(30),
        timeout: Duration::from_secs(30),
    };

    fn due(attempts: i32) -> DueDelivery {
        DueDelivery {
            delivery_id: Uuid::nil(),
            event: "invoice.created".to_owned(),
            source: "vendors".to_owned(),
            tenant: String::new(),
            document_id: "1".to_owned(),
            document_number: None,
            issue: 0,
            cause_receipt_id: Uuid::nil(),
            document: serde_json::json!({}),
            created_at: OffsetDateTime::UNIX_EPOCH,
            idempotency_key: None,
            request: None,
            attempts,
            was_sent: false,
            may_be_delivered: false,
        }
    }

    fn not_now(seconds: Option<u64>, counts: bool) -> AttemptResult {
        let retry_after = seconds.map(Duration::from_secs);
        AttemptResult::RetryLater { error: "no".to_owned(), retry_after, counts_as_attempt: counts }
    }

    #[test]
    fn attempts_come_to_this_table() {
        let unknown = || AttemptResult::Unknown("no answer".to_owned());
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
            match (attempt_outcome(&POLICY, &due(before), may_count, told), expected) {
                (
                    AttemptOutcome::Retry {
                        may_be_delivered,
                        counts_as_attempt: counts,
                        delay: after,
                        ..
                    },
                    Some(expected),
                ) => {
                    let came = (may_be_delivered, counts, after.as_secs());
                    assert_eq!(came, expected, "{before} {told_text}");
                }
                (AttemptOutcome::Failed { reason: ReasonCode::AttemptsExhausted, error }, None) => {
                    assert!(error.starts_with("4 attempts failed"), "{error}");
                }
                (outcome, _) => panic!("{before} {told_text} came to {outcome:?}"),
            }
        }
    }

    #[test]
    fn a_doubt_outlasts_a_call_that_the_target_did_not_take() {
        for (may_be_delivered, counts) in
            [(true, true), (true, false), (false, true), (false, false)]
        {
            let due = DueDelivery { may_be_delivered: may_be_delivered, ..due(1) };
            match attempt_outcome(&POLICY, &due, true, not_now(None, counts)) {
                AttemptOutcome::Retry { may_be_delivered: still, .. } => {
                    assert_eq!(still, may_be_delivered)
                }
                outcome => panic!("{may_be_delivered} {counts} came to {outcome:?}"),
            }
        }
    }

    #[test]
    fn a_refusal_and_a_success_are_final() {
        let has = AttemptResult::Delivered { remote_id: Some("7".to_owned()), warning: None };
        let delivered =
            AttemptOutcome::Delivered { remote_id: Some("7".to_owned()), warning: None };
        assert_eq!(attempt_outcome(&POLICY, &due(3), true, has), delivered);
        let error = "answered 422".to_owned();
        let refused =
            AttemptResult::Rejected { reason: ReasonCode::DeliveryRefused, error: error.clone() };
        let failed = AttemptOutcome::Failed { reason: ReasonCode::DeliveryRefused, error };
        assert_eq!(attempt_outcome(&POLICY, &due(0), false, refused), failed);
    }
}
