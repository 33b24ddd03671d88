use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::FutureExt as _;

use super::*;

/// A limiter with a threshold of two failures, and how often its circuit closed and opened.
fn limiter(
    max_concurrency: usize,
    circuit_breaker_open: Duration,
) -> (CallLimiter, Arc<[AtomicUsize; 2]>) {
    let limits = CallLimits {
        max_concurrency,
        rate_limit_per_second: 1_000_000,
        circuit_breaker_threshold: 2,
        circuit_breaker_open,
    };
    let changes: Arc<[AtomicUsize; 2]> = Arc::default();
    let counters = changes.clone();
    let count = move |is_open| {
        counters[usize::from(is_open)].fetch_add(1, Ordering::Relaxed);
    };
    (CallLimiter::new(&limits, count), changes)
}

fn counts(changes: &[AtomicUsize; 2]) -> [usize; 2] {
    [0, 1].map(|index| changes[index].load(Ordering::Relaxed))
}

const UNAVAILABLE: CallResult = CallResult::Unavailable(None);
const MINUTE: Duration = Duration::from_mins(1);

#[tokio::test]
async fn call_limiter_concurrency_is_bounded() {
    let (limiter, _) = limiter(2, MINUTE);
    let first = limiter.acquire().await.unwrap();
    let _second = limiter.acquire().await.unwrap();
    let mut third = std::pin::pin!(limiter.acquire());
    assert!(third.as_mut().now_or_never().is_none());
    first.record(CallResult::Responded);
    third.await.unwrap();
}

#[tokio::test]
async fn call_limiter_failures_open_circuit_and_notify_once() {
    let (limiter, changes) = limiter(3, MINUTE);
    assert_eq!(limiter.open_for(), None);
    for _ in 0..3 {
        // A call that was not made is not a failure.
        drop(limiter.acquire().await.unwrap());
    }
    let late = limiter.acquire().await.unwrap();
    limiter.acquire().await.unwrap().record(UNAVAILABLE);
    assert_eq!(limiter.open_for(), None);
    limiter.acquire().await.unwrap().record(UNAVAILABLE);
    assert!(limiter.open_for().is_some_and(|wait| wait <= MINUTE));
    assert!(limiter.acquire().await.is_err());
    late.record(UNAVAILABLE);
    assert_eq!(counts(&changes), [0, 1]);
}

#[tokio::test]
async fn call_limiter_other_calls_wait_for_probe() {
    let (limiter, changes) = limiter(3, Duration::ZERO);
    for _ in 0..2 {
        limiter.acquire().await.unwrap().record(UNAVAILABLE);
    }
    let probe = limiter.acquire().await.unwrap();
    assert!(probe.is_probe());
    assert_eq!(limiter.open_for(), None);
    let mut other = std::pin::pin!(limiter.acquire());
    assert!(other.as_mut().now_or_never().is_none());
    probe.record(CallResult::Responded);
    assert!(!other.await.unwrap().is_probe());
    assert_eq!(counts(&changes), [1, 1]);
}

#[tokio::test]
async fn call_limiter_try_acquire_many_takes_free_permits_only() {
    let (limiter, _) = limiter(3, MINUTE);
    let first = limiter.acquire().await.unwrap();
    assert_eq!(limiter.try_acquire_many(1).len(), 1);
    let permits = limiter.try_acquire_many(9);
    assert_eq!(permits.len(), 2);
    assert!(limiter.try_acquire_many(9).is_empty());
    for permit in permits {
        assert!(!permit.is_probe());
        permit.record(UNAVAILABLE);
    }
    // The circuit is open now.
    assert!(limiter.try_acquire_many(9).is_empty());
    first.record(CallResult::NotCalled);
}

#[tokio::test]
async fn call_limiter_try_acquire_many_never_probes() {
    let (limiter, _) = limiter(3, Duration::ZERO);
    for _ in 0..2 {
        limiter.acquire().await.unwrap().record(UNAVAILABLE);
    }
    assert!(limiter.try_acquire_many(9).is_empty());
    assert!(limiter.acquire().await.unwrap().is_probe());
}
