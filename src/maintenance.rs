//! Periodic jobs beside the message flow: partitions and retention, import
//! completion, sampled metrics and warnings.

pub(crate) mod duplicate_alert;
pub(crate) mod import_completion;
pub mod retention;
