//! Whether the worker works, part by part: what `/readyz` tells.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// The part of the worker that all others need.
pub(super) const CONNECTION: &str = "connection";

/// Whether the worker can do its work now.
#[derive(Clone)]
pub struct HealthRegistry(Arc<Mutex<BTreeMap<String, String>>>);

impl Default for HealthRegistry {
    fn default() -> Self {
        let unborn = (CONNECTION.to_owned(), "not started yet".to_owned());
        Self(Arc::new(Mutex::new([unborn].into())))
    }
}

impl HealthRegistry {
    /// What the worker cannot do, and why; `None` if it does everything.
    pub fn degraded_reason(&self) -> Option<String> {
        let troubles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let told = troubles.iter().map(|(part, why)| format!("{part}: {why}"));
        (!troubles.is_empty()).then(|| told.collect::<Vec<_>>().join("; "))
    }

    pub(super) fn set(&self, part: &str, trouble: Option<String>) {
        let mut troubles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match trouble {
            Some(why) => troubles.insert(part.to_owned(), why),
            None => troubles.remove(part),
        };
    }

    /// Nothing but this is wrong, or nothing else matters.
    pub(super) fn set_exclusively(&self, part: &str, why: &str) {
        let mut troubles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        troubles.clear();
        troubles.insert(part.to_owned(), why.to_owned());
    }
}
