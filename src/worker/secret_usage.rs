//! Records when each secret last verified a request, at most once a minute and
//! apart from the batches. A failed write is repeated a minute later.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use time::OffsetDateTime;
use tracing::debug;

use crate::{
    domain::SourceName,
    store::{Store, secret_uses},
};

/// How often the use of one secret is recorded.
const INTERVAL: Duration = Duration::from_mins(1);

/// A source and the label of one of its secrets.
type SecretLabel = (SourceName, String);

/// When each use was recorded last; shared by clones.
#[derive(Clone, Debug, Default)]
pub struct SecretUsage(Arc<Mutex<HashMap<SecretLabel, Instant>>>);

impl SecretUsage {
    /// Records that a secret verified a request received at this time, unless
    /// its use was recorded within the last minute.
    pub(super) fn record(
        &self,
        store: &Store,
        source: &SourceName,
        label: &str,
        received_at: OffsetDateTime,
    ) {
        if !self.is_due(source, label, Instant::now()) {
            return;
        }
        let (store, source, label) = (store.clone(), source.clone(), label.to_owned());
        tokio::spawn(async move {
            let recorded = store.with_connection(async |conn| {
                secret_uses::record(conn, &source, &label, received_at).await
            });
            if let Err(error) = recorded.await {
                debug!(%source, secret = label, %error, "the use of a secret is not recorded");
            }
        });
    }

    fn is_due(&self, source: &SourceName, label: &str, now: Instant) -> bool {
        let mut recorded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (source.clone(), label.to_owned());
        let is_recent = recorded.get(&key).is_some_and(|last| now.duration_since(*last) < INTERVAL);
        if !is_recent {
            recorded.insert(key, now);
        }
        !is_recent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_usage_is_due_once_an_interval_for_each_secret() {
        let usage = SecretUsage::default();
        let source: SourceName = "shop".parse().unwrap();
        let begun = Instant::now();
        assert!(usage.is_due(&source, "env:OLD", begun));
        assert!(!usage.is_due(&source, "env:OLD", begun + INTERVAL / 2));
        assert!(usage.is_due(&source, "env:NEW", begun + INTERVAL / 2));
        assert!(usage.is_due(&source, "env:OLD", begun + INTERVAL));
    }
}
