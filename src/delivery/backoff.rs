//! The outcome of an attempt: delivered, retried after a delay, or failed.

use std::time::Duration;

use crate::{
    destinations::{AttemptResult, DeliveryPolicy},
    domain::ReasonCode,
    store::deliveries::{AttemptOutcome, DueDelivery},
};

/// The outcome of an attempt. `may_count` is false for the probe of an open
/// circuit breaker.
pub(super) fn attempt_outcome(
    policy: &DeliveryPolicy,
    due: &DueDelivery,
    may_count: bool,
    result: AttemptResult,
) -> AttemptOutcome {
    match result {
        AttemptResult::Delivered { remote_id, warning } => {
            AttemptOutcome::Delivered { remote_id, warning }
        }
        AttemptResult::Rejected { reason, error } => AttemptOutcome::Failed { reason, error },
        AttemptResult::Unknown(error) => retry_or_fail(policy, due, may_count, true, None, error),
        AttemptResult::RetryLater { error, retry_after, counts_as_attempt } => {
            // This request created nothing, but an earlier one may have.
            let (counts, may_be_delivered) = (may_count && counts_as_attempt, due.may_be_delivered);
            retry_or_fail(policy, due, counts, may_be_delivered, retry_after, error)
        }
    }
}

fn retry_or_fail(
    policy: &DeliveryPolicy,
    due: &DueDelivery,
    counts_as_attempt: bool,
    may_be_delivered: bool,
    retry_after: Option<Duration>,
    error: String,
) -> AttemptOutcome {
    let failed = u32::try_from(due.attempts).unwrap_or_default();
    let attempts = failed.saturating_add(1);
    if counts_as_attempt && attempts >= policy.max_attempts {
        return AttemptOutcome::Failed {
            reason: ReasonCode::AttemptsExhausted,
            error: format!("{attempts} attempts failed, the last with: {error}"),
        };
    }
    let doubled = policy.initial_delay.saturating_mul(2_u32.saturating_pow(failed));
    let delay = doubled.max(retry_after.unwrap_or_default()).min(policy.max_delay);
    AttemptOutcome::Retry { may_be_delivered, counts_as_attempt, delay, error }
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

    fn retry_later(seconds: Option<u64>, counts_as_attempt: bool) -> AttemptResult {
        let retry_after = seconds.map(Duration::from_secs);
        AttemptResult::RetryLater { error: "busy".to_owned(), retry_after, counts_as_attempt }
    }

    #[test]
    fn attempt_outcome_follows_table() {
        let unknown = || AttemptResult::Unknown("no response".to_owned());
        // Earlier failed attempts, may it count, result; then: may it be
        // delivered, did it count, seconds until the next attempt.
        for (earlier, may_count, result, expected) in [
            (0, true, unknown(), Some((true, true, 1))),
            (1, true, unknown(), Some((true, true, 2))),
            (2, true, unknown(), Some((true, true, 4))),
            (3, true, unknown(), None),
            (3, false, unknown(), Some((true, false, 8))),
            (0, true, retry_later(None, true), Some((false, true, 1))),
            (3, true, retry_later(None, true), None),
            (3, true, retry_later(None, false), Some((false, false, 8))),
            (0, true, retry_later(Some(5), true), Some((false, true, 5))),
            // The policy's longest delay caps Retry-After.
            (0, true, retry_later(Some(3600), true), Some((false, true, 10))),
            (99, false, retry_later(None, true), Some((false, false, 10))),
        ] {
            let case = format!("{earlier} {may_count} {result:?}");
            match (attempt_outcome(&POLICY, &due(earlier), may_count, result), expected) {
                (
                    AttemptOutcome::Retry { may_be_delivered, counts_as_attempt, delay, .. },
                    Some(expected),
                ) => {
                    let found = (may_be_delivered, counts_as_attempt, delay.as_secs());
                    assert_eq!(found, expected, "{case}");
                }
                (AttemptOutcome::Failed { reason: ReasonCode::AttemptsExhausted, error }, None) => {
                    assert!(error.starts_with("4 attempts failed"), "{error}");
                }
                (outcome, _) => panic!("{case}: {outcome:?}"),
            }
        }
    }

    #[test]
    fn attempt_outcome_retry_later_keeps_may_be_delivered() {
        for (before, counts) in [(true, true), (true, false), (false, true), (false, false)] {
            let due = DueDelivery { may_be_delivered: before, ..due(1) };
            match attempt_outcome(&POLICY, &due, true, retry_later(None, counts)) {
                AttemptOutcome::Retry { may_be_delivered, .. } => {
                    assert_eq!(may_be_delivered, before);
                }
                outcome => panic!("{before} {counts}: {outcome:?}"),
            }
        }
    }

    #[test]
    fn attempt_outcome_rejection_and_success_are_final() {
        let result = AttemptResult::Delivered { remote_id: Some("7".to_owned()), warning: None };
        let delivered =
            AttemptOutcome::Delivered { remote_id: Some("7".to_owned()), warning: None };
        assert_eq!(attempt_outcome(&POLICY, &due(3), true, result), delivered);
        let (reason, error) = (ReasonCode::DeliveryRefused, "answered 422".to_owned());
        let result = AttemptResult::Rejected { reason, error: error.clone() };
        let failed = AttemptOutcome::Failed { reason, error };
        assert_eq!(attempt_outcome(&POLICY, &due(0), false, result), failed);
    }
}
