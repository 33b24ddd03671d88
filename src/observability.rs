//! What operators see of a running process: metrics, logs, health and the
//! HTTP server that offers them.

pub mod health;
pub mod metrics;
pub mod operations_server;
pub mod telemetry;
