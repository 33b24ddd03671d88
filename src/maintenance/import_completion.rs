//! Marks imports as completed: the file was read to its end, and every item of
//! it has a final outcome.

use std::{collections::BTreeSet, time::Duration};

use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::exceeds_percent;
use crate::{
    domain::SourceName,
    observability::metrics::Metrics,
    store::{
        Store, StoreError,
        imports::{self, Import},
    },
};

/// How often imports are looked at.
const INTERVAL: Duration = Duration::from_secs(5);

/// Completes imports until `stop` is cancelled.
pub async fn run(completion: ImportCompletion, stop: CancellationToken) {
    let job = async {
        loop {
            tokio::time::sleep(INTERVAL).await;
            if let Err(error) = completion.run_once().await {
                debug!(%error, "imports cannot be completed");
            }
        }
    };
    tokio::select! {
        () = job => {}
        () = stop.cancelled() => {}
    }
}

/// Completes imports, logs their counts and warns of many duplicates.
#[derive(Clone)]
pub struct ImportCompletion {
    /// The database.
    pub store: Store,
    /// The metrics of this process.
    pub metrics: Metrics,
    /// The configured sources. Only these become labels; the table may have
    /// imports of others.
    pub sources: BTreeSet<SourceName>,
    /// A share of duplicates above this is warned about.
    pub duplicate_warning_percent: u8,
}

impl ImportCompletion {
    /// Completes all imports that are due. Of several workers only one
    /// completes each import.
    ///
    /// # Errors
    /// The error of PostgreSQL.
    pub async fn run_once(&self) -> Result<(), StoreError> {
        let completed = self.store.transaction(async |tx| {
            let completed = imports::mark_completed(tx).await?;
            imports::find_all(tx, &completed).await
        });
        for import in completed.await? {
            self.log_completion(&import);
        }
        Ok(())
    }

    fn log_completion(&self, import: &Import) {
        let Import { import_id, source, state, error, total, .. } = import;
        info!(
            %import_id,
            source,
            state,
            error,
            total,
            created = import.created,
            updated = import.updated,
            duplicate = import.duplicate,
            stale = import.stale,
            ignored = import.ignored,
            rejected = import.rejected,
            dead = import.dead,
            elapsed_ms = import.elapsed_ms(),
            "the import is completed"
        );
        let percent = self.duplicate_warning_percent;
        if exceeds_percent(import.duplicate, import.candidates(), percent) {
            warn!(
                %import_id,
                source,
                duplicate = import.duplicate,
                total,
                warning_percent = percent,
                "the import has many duplicates; check whether the file was sent before"
            );
        }
        if self.sources.iter().any(|configured| configured.as_str() == source) {
            self.metrics.imports.with_label_values(&[source, state]).inc();
        }
    }
}
