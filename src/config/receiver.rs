//! `[receiver]`: the HTTP receiver.

use std::net::SocketAddr;

use anyhow::ensure;
use serde::Deserialize;

/// 15 MiB: RabbitMQ accepts no message above 16 MiB, headers included.
const MAX_BODY_LIMIT_BYTES: usize = 15 * 1024 * 1024;

/// `[receiver]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiverConfig {
    /// Address and port to listen on; port 0 picks a free one. Default 127.0.0.1:8080.
    pub listen: SocketAddr,
    /// The largest accepted body, in bytes; 1 to 15 MiB, default 4 MiB.
    pub body_limit_bytes: usize,
    /// How long a client may take to send its headers, in milliseconds; 100 to 600000,
    /// default 10000.
    pub header_timeout_ms: u64,
    /// How long a client may take to send its body, in milliseconds; 100 to 600000,
    /// default 15000.
    pub body_timeout_ms: u64,
    /// The most requests in progress at once; 1 or more, default 512.
    pub max_concurrent_requests: usize,
    /// The `Retry-After` of a 503, in seconds; default 5.
    pub retry_after_s: u64,
    /// `tallyhook check` warns about a secret that verified nothing for this many days while
    /// other secrets of its source did; 1 to 3650, default 30.
    pub unused_secret_days: u16,
}

impl ReceiverConfig {
    pub(super) fn check(&self) -> anyhow::Result<()> {
        ensure!(
            (1..=MAX_BODY_LIMIT_BYTES).contains(&self.body_limit_bytes),
            "receiver.body_limit_bytes must be 1 to {MAX_BODY_LIMIT_BYTES} (RabbitMQ accepts no \
             message above 16 MiB)"
        );
        ensure!(
            self.max_concurrent_requests >= 1,
            "receiver.max_concurrent_requests must be 1 or more"
        );
        ensure!(
            (1..=3650).contains(&self.unused_secret_days),
            "receiver.unused_secret_days must be 1 to 3650"
        );
        super::check_timeout("receiver.header_timeout_ms", self.header_timeout_ms)?;
        super::check_timeout("receiver.body_timeout_ms", self.body_timeout_ms)
    }
}
