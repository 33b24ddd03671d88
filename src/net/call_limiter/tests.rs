use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::FutureExt as _;

use super::*;

/// A gate, and how often it opened and closed.
fn gate(concurrency: usize, open: Duration) -> (CallLimiter, Arc<[AtomicUsize; 2]>) {
    let limits = CallLimits {
        max_concurrency: concurrency,
        rate_limit_per_second: 1_000_000,
        circuit_breaker_threshold: 2,
        circuit_breaker_open: open,
    };
    let changes: Arc<[AtomicUsize; 2]> = Arc::default();
    let seen = changes.clone();
    let count = move |open| {
        seen[usize::from(open)].fetch_add(1, Ordering::Relaxed);
    };
    (CallLimiter::new(&limits, count), changes)
}

fn counts(changes: &[AtomicUsize; 2]) -> [usize; 2] {
    [0, 1].map(|index| changes[index].load(Ordering::Relaxed))
}

const AWAY: CallResult = CallResult::Unavailable(None);
const LONG: Duration = Duration::from_mins(1);

#[tokio::test]
async fn so_many_enter_at_once() {
    let (gate, _) = gate(2, LONG);
    let first = gate.acquire().await.unwrap();
    let _second = gate.acquire().await.unwrap();
    let mut third = std::pin::pin!(gate.acquire());
    assert!(third.as_mut().now_or_never().is_none());
    first.record(CallResult::Responded);
    third.await.unwrap();
}

#[tokio::test]
async fn failures_close_the_way_and_are_told_once() {
    let (gate, changes) = gate(3, LONG);
    assert_eq!(gate.open_for(), None);
    for _ in 0..3 {
        // Without a verdict nothing was asked.
        drop(gate.acquire().await.unwrap());
    }
    let late = gate.acquire().await.unwrap();
    gate.acquire().await.unwrap().record(AWAY);
    assert_eq!(gate.open_for(), None);
    gate.acquire().await.unwrap().record(AWAY);
    assert!(gate.open_for().is_some_and(|wait| wait <= LONG));
    assert!(gate.acquire().await.is_err());
    late.record(AWAY);
    assert_eq!(counts(&changes), [0, 1]);
}

#[tokio::test]
async fn one_probe_goes_and_the_others_wait_for_it() {
    let (gate, changes) = gate(3, Duration::ZERO);
    for _ in 0..2 {
        gate.acquire().await.unwrap().record(AWAY);
    }
    let probe = gate.acquire().await.unwrap();
    assert!(probe.is_probe());
    assert_eq!(gate.open_for(), None);
    let mut other = std::pin::pin!(gate.acquire());
    assert!(other.as_mut().now_or_never().is_none());
    probe.record(CallResult::Responded);
    assert!(!other.await.unwrap().is_probe());
    assert_eq!(counts(&changes), [1, 1]);
}

#[tokio::test]
async fn more_is_what_nobody_has_to_wait_for() {
    let (gate, _) = gate(3, LONG);
    let first = gate.acquire().await.unwrap();
    assert_eq!(gate.try_acquire_many(1).len(), 1);
    let more = gate.try_acquire_many(9);
    assert_eq!(more.len(), 2);
    assert!(gate.try_acquire_many(9).is_empty());
    for pass in more {
        assert!(!pass.is_probe());
        pass.record(AWAY);
    }
    // It is open now.
    assert!(gate.try_acquire_many(9).is_empty());
    first.record(CallResult::NotCalled);
}

#[tokio::test]
async fn nobody_probes_unasked() {
    let (gate, _) = gate(3, Duration::ZERO);
    for _ in 0..2 {
        gate.acquire().await.unwrap().record(AWAY);
    }
    // It may be probed, by who enters.
    assert!(gate.try_acquire_many(9).is_empty());
    assert!(gate.acquire().await.unwrap().is_probe());
}
