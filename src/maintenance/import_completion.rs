//! The end of an import: said once, when nothing of it waits any more.

use std::collections::{BTreeMap, BTreeSet};

use tracing::{debug, info, warn};
use uuid::Uuid;

use super::duplicate_alert::exceeds_percent;
use crate::{
    domain::SourceName,
    observability::metrics::Metrics,
    store::{Store, StoreError, imports, imports::Import},
};

/// Tells of imports that were settled.
#[derive(Debug)]
pub(crate) struct ImportCompletion {
    /// More duplicates than so many percent are warned of.
    percent: u8,
    /// Only these become labels: the table may know sources that are gone.
    sources: BTreeSet<String>,
    /// Of each source, the import that its gauge shows.
    shown_imports: BTreeMap<String, Uuid>,
}

impl ImportCompletion {
    pub(crate) fn new(percent: u8, sources: &[SourceName]) -> Self {
        let sources = sources.iter().map(SourceName::to_string).collect();
        Self { percent, sources, shown_imports: BTreeMap::new() }
    }

    /// Settles what can be settled and says so: by one worker only, whichever
    /// comes first. The gauges are every worker's.
    pub(crate) async fn complete_imports(&mut self, store: &Store, metrics: &Metrics) {
        let found = async {
            let mut tx = store.begin().await?;
            let settled = imports::mark_completed(&mut tx).await?;
            let settled = imports::find_all(&mut tx, &settled).await?;
            let newest = imports::latest_completed(&mut tx).await?;
            let unseen = |id: &Uuid| !self.shown_imports.values().any(|shown| shown == id);
            let newest: Vec<Uuid> = newest.into_iter().filter(unseen).collect();
            let newest = imports::find_all(&mut tx, &newest).await?;
            tx.commit().await?;
            Ok::<_, StoreError>((settled, newest))
        };
        match store.with_timeout(found).await {
            Ok((settled, newest)) => {
                for import in settled {
                    self.log_completion(&import, metrics);
                }
                for import in newest {
                    self.show_duplicate_ratio(&import, metrics);
                }
            }
            Err(error) => debug!(%error, "imports cannot be looked at"),
        }
    }

    fn log_completion(&self, import: &Import, metrics: &Metrics) {
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
            "the import is settled"
        );
        if exceeds_percent(import.duplicate, import.candidates(), self.percent) {
            warn!(
                %import_id,
                source,
                duplicate = import.duplicate,
                total,
                warning_percent = self.percent,
                "many duplicates in this import: was the file sent before?"
            );
        }
        if self.sources.contains(source) {
            metrics.imports.with_label_values(&[source, state]).inc();
        }
    }

    fn show_duplicate_ratio(&mut self, import: &Import, metrics: &Metrics) {
        if self.sources.contains(&import.source) {
            let ratio = metrics.import_duplicate_ratio.with_label_values(&[&import.source]);
            ratio.set(import.duplicate_rate());
        }
        self.shown_imports.insert(import.source.clone(), import.import_id);
    }
}
