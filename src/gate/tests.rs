use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::FutureExt as _;

use super::*;

/// A gate, and how often it opened and closed.
fn gate(concurrency: usize, open: Duration) -> (Gate, Arc<[AtomicUsize; 2]>) {
    let limits =
        Limits { concurrency, per_second: 1_000_000, breaker_failures: 2, breaker_open: open };
    let changes: Arc<[AtomicUsize; 2]> = Arc::default();
    let seen = changes.clone();
    let count = move |open| {
        seen[usize::from(open)].fetch_add(1, Ordering::Relaxed);
    };
    (Gate::new(&limits, count), changes)
}

fn counts(changes: &[AtomicUsize; 2]) -> [usize; 2] {
    [0, 1].map(|index| changes[index].load(Ordering::Relaxed))
}

const AWAY: Verdict = Verdict::Away(None);
const LONG: Duration = Duration::from_mins(1);

#[tokio::test]
async fn so_many_enter_at_once() {
    let (gate, _) = gate(2, LONG);
    let first = gate.enter().await.unwrap();
    let _second = gate.enter().await.unwrap();
    let mut third = std::pin::pin!(gate.enter());
    assert!(third.as_mut().now_or_never().is_none());
    first.tell(Verdict::Answered);
    third.await.unwrap();
}

#[tokio::test]
async fn failures_close_the_way_and_are_told_once() {
    let (gate, changes) = gate(3, LONG);
    assert_eq!(gate.closed_for(), None);
    for _ in 0..3 {
        // Without a verdict nothing was asked.
        drop(gate.enter().await.unwrap());
    }
    let late = gate.enter().await.unwrap();
    gate.enter().await.unwrap().tell(AWAY);
    assert_eq!(gate.closed_for(), None);
    gate.enter().await.unwrap().tell(AWAY);
    assert!(gate.closed_for().is_some_and(|wait| wait <= LONG));
    assert!(gate.enter().await.is_err());
    late.tell(AWAY);
    assert_eq!(counts(&changes), [0, 1]);
}

#[tokio::test]
async fn one_probe_goes_and_the_others_wait_for_it() {
    let (gate, changes) = gate(3, Duration::ZERO);
    for _ in 0..2 {
        gate.enter().await.unwrap().tell(AWAY);
    }
    let probe = gate.enter().await.unwrap();
    assert!(probe.is_probe());
    assert_eq!(gate.closed_for(), None);
    let mut other = std::pin::pin!(gate.enter());
    assert!(other.as_mut().now_or_never().is_none());
    probe.tell(Verdict::Answered);
    assert!(!other.await.unwrap().is_probe());
    assert_eq!(counts(&changes), [1, 1]);
}

#[tokio::test]
async fn more_is_what_nobody_has_to_wait_for() {
    let (gate, _) = gate(3, LONG);
    let first = gate.enter().await.unwrap();
    assert_eq!(gate.more(1).len(), 1);
    let more = gate.more(9);
    assert_eq!(more.len(), 2);
    assert!(gate.more(9).is_empty());
    for pass in more {
        assert!(!pass.is_probe());
        pass.tell(AWAY);
    }
    // It is open now.
    assert!(gate.more(9).is_empty());
    first.tell(Verdict::Nothing);
}

#[tokio::test]
async fn nobody_probes_unasked() {
    let (gate, _) = gate(3, Duration::ZERO);
    for _ in 0..2 {
        gate.enter().await.unwrap().tell(AWAY);
    }
    // It may be probed, by who enters.
    assert!(gate.more(9).is_empty());
    assert!(gate.enter().await.unwrap().is_probe());
}
