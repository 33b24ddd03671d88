//! `[database]`: PostgreSQL.

use std::fmt;

use anyhow::ensure;
use serde::Deserialize;

/// `[database]`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseConfig {
    /// A `postgres://` URL. The file may name it as `env:NAME` or `file:PATH`.
    pub url: String,
    /// The most connections of this process; 2 or more, default 8.
    pub max_connections: u32,
    /// How long opening a connection may take, in milliseconds; 100 to 600000, default 5000.
    pub connect_timeout_ms: u64,
    /// How long a statement may take, in milliseconds; 100 to 600000, default 30000.
    pub statement_timeout_ms: u64,
}

impl DatabaseConfig {
    pub(super) fn check(&self) -> anyhow::Result<()> {
        ensure!(self.max_connections >= 2, "database.max_connections must be 2 or more");
        super::check_timeout("database.connect_timeout_ms", self.connect_timeout_ms)?;
        super::check_timeout("database.statement_timeout_ms", self.statement_timeout_ms)
    }
}

/// Without the URL, which may hold a password.
impl fmt::Debug for DatabaseConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseConfig")
            .field("max_connections", &self.max_connections)
            .field("connect_timeout_ms", &self.connect_timeout_ms)
            .field("statement_timeout_ms", &self.statement_timeout_ms)
            .finish_non_exhaustive()
    }
}
