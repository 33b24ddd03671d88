//! `[operations]`: metrics and health checks.

use std::net::SocketAddr;

use serde::Deserialize;

/// `[operations]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperationsConfig {
    /// Address and port to listen on; port 0 picks a free one. Default 127.0.0.1:8081.
    pub listen: SocketAddr,
}
