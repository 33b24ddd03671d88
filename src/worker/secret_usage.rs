//! Notes which secrets are in use, now and then and beside the work: no batch
//! waits for it, and a note that fails is made a minute later.

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

/// How often a use of one secret is noted.
const INTERVAL: Duration = Duration::from_mins(1);

/// A source and a label of its secrets.
type SecretLabel = (SourceName, String);

/// When uses were noted last; clones share it.
#[derive(Clone, Debug, Default)]
pub struct SecretUsage(Arc<Mutex<HashMap<SecretLabel, Instant>>>);

impl SecretUsage {
    /// Notes that this secret verified a message that was received at this
    /// time, if that was not noted within the last minute.
    pub(super) fn record(
        &self,
        store: &Store,
        source: &SourceName,
        secret: &str,
        received_at: OffsetDateTime,
    ) {
        if !self.is_due(source, secret, Instant::now()) {
            return;
        }
        let (store, source, secret) = (store.clone(), source.clone(), secret.to_owned());
        tokio::spawn(async move {
            let noted = store.with_timeout(async {
                let mut connection = store.connection().await?;
                secret_uses::record(&mut connection, &source, &secret, received_at).await
            });
            if let Err(error) = noted.await {
                debug!(%source, secret, %error, "the use of a secret is not on record");
            }
        });
    }

    fn is_due(&self, source: &SourceName, secret: &str, now: Instant) -> bool {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let label = (source.clone(), secret.to_owned());
        let recently = noted.get(&label).is_some_and(|last| now.duration_since(*last) < INTERVAL);
        if !recently {
            noted.insert(label, now);
        }
        !recently
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_is_due_once_a_minute_for_each_secret() {
        let uses = SecretUsage::default();
        let source: SourceName = "shop".parse().unwrap();
        let begun = Instant::now();
        assert!(uses.is_due(&source, "env:OLD", begun));
        assert!(!uses.is_due(&source, "env:OLD", begun + INTERVAL / 2));
        assert!(uses.is_due(&source, "env:NEW", begun + INTERVAL / 2));
        assert!(uses.is_due(&source, "env:OLD", begun + INTERVAL));
    }
}
