//! `[log]`: logging.

use serde::Deserialize;

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// A filter of `tracing-subscriber`, such as `info` or `tallyhook=debug`; default `info`.
    pub filter: String,
    /// The format of log lines; default `auto`.
    pub format: LogFormat,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// One readable line for each event.
    Text,
    /// One JSON object for each event.
    Json,
}
