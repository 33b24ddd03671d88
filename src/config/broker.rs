//! `[broker]`: RabbitMQ.

use std::fmt;

use anyhow::ensure;
use serde::Deserialize;

/// `[broker]`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerConfig {
    /// An `amqp://` or `amqps://` URL. The file may name it as `env:NAME` or `file:PATH`.
    pub url: String,
    /// The first part of the name of every exchange and queue; default `tallyhook`.
    pub prefix: String,
    /// Channels that publish in parallel; 1 to 64, default 4.
    pub publish_channels: usize,
    /// The most unconfirmed messages on each publishing channel; 1 to 4096, default 256.
    pub max_unconfirmed: usize,
    /// How long to wait for a publisher confirm, in milliseconds; 100 to 600000, default 4000.
    pub confirm_timeout_ms: u64,
    /// Deliveries without an acknowledgement after which the broker dead-letters a message;
    /// 10 or more, default 100. Never -1, which RabbitMQ 3.10 reads as 0.
    pub delivery_limit: u32,
}

impl BrokerConfig {
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        ensure!(
            (1..=100).contains(&self.prefix.len()) && self.prefix.chars().all(is_legal),
            "broker.prefix must be 1 to 100 characters of a-z, A-Z, 0-9, '-', '_' and '.'"
        );
        ensure!(
            (1..=64).contains(&self.publish_channels),
            "broker.publish_channels must be 1 to 64"
        );
        ensure!(
            (1..=4096).contains(&self.max_unconfirmed),
            "broker.max_unconfirmed must be 1 to 4096"
        );
        ensure!(self.delivery_limit >= 10, "broker.delivery_limit must be 10 or more");
        super::check_timeout("broker.confirm_timeout_ms", self.confirm_timeout_ms)
    }
}

/// Without the URL, which may hold a password.
impl fmt::Debug for BrokerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerConfig")
            .field("prefix", &self.prefix)
            .field("publish_channels", &self.publish_channels)
            .field("max_unconfirmed", &self.max_unconfirmed)
            .field("confirm_timeout_ms", &self.confirm_timeout_ms)
            .field("delivery_limit", &self.delivery_limit)
            .finish_non_exhaustive()
    }
}
