//! What operators see of a running process: metrics, logs, health checks, and the HTTP server for
//! them.

pub mod health;
pub mod metrics;
pub mod operations_server;
pub mod telemetry;
