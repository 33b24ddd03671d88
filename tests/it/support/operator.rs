//! What tests do as an operator.

use std::sync::Arc;

use tallyhook::{
    review::{
        Actor, OperatorBroker, Selection,
        dead_letters::{self, ReplayReport, ReviewError, SelectedDeadLetters},
    },
    store::dead_letters::DeadLetterFilter,
};
use uuid::Uuid;

use super::TestApp;

impl TestApp {
    /// Publishes with the app's own publisher.
    pub(crate) fn operator_broker(&self) -> OperatorBroker {
        OperatorBroker::new(self.context.publisher.clone(), Arc::clone(&self.context.topology))
    }

    /// All dead letters, in any state.
    pub(crate) async fn dead_letters(&self) -> SelectedDeadLetters {
        self.select_dead_letters(DeadLetterFilter::default()).await
    }

    pub(crate) async fn select_dead_letters(
        &self,
        filter: DeadLetterFilter,
    ) -> SelectedDeadLetters {
        let selection = Selection::new(filter, true).unwrap();
        dead_letters::select(&self.context.store, selection).await.unwrap()
    }

    pub(crate) async fn discard_dead_letter(
        &self,
        id: Uuid,
        actor: Actor<'_>,
    ) -> Result<u64, ReviewError> {
        let filter = DeadLetterFilter { ids: vec![id], ..DeadLetterFilter::default() };
        let selected = self.select_dead_letters(filter).await;
        dead_letters::discard(&self.context.store, &selected, actor).await
    }

    pub(crate) async fn try_replay(
        &self,
        selected: &SelectedDeadLetters,
        actor: Actor<'_>,
    ) -> ReplayReport {
        let broker = self.operator_broker();
        dead_letters::replay(&self.context.store, &broker, selected, actor).await.unwrap()
    }

    /// Replays dead letters without a failure; returns the id of the run.
    pub(crate) async fn replay(&self, selected: &SelectedDeadLetters, actor: Actor<'_>) -> Uuid {
        let report = self.try_replay(selected, actor).await;
        assert!(report.failures.is_empty(), "{report:?}");
        assert_eq!(report.sent, selected.len());
        report.replay_id
    }
}
