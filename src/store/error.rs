//! Database errors, and whether to retry.

use std::fmt;

/// What a database error means for the message that was being processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// PostgreSQL is unreachable or read-only. Retry; do not count an attempt.
    Unavailable,
    /// A concurrent transaction interfered. The same batch may succeed at once.
    Contention,
    /// PostgreSQL will never accept a row. Dead-letter the message.
    InvalidData,
    /// The schema is not the one this program was built for. Retry until an operator migrates; do
    /// not count an attempt.
    SchemaMismatch,
    /// None of these. Retrying may help.
    Unknown,
}

/// A database error.
#[derive(Debug)]
pub struct StoreError(sqlx::Error);

impl StoreError {
    /// What the error means for the message.
    pub fn class(&self) -> ErrorClass {
        match &self.0 {
            sqlx::Error::Database(error) => {
                error.code().map_or(ErrorClass::Unknown, |code| classify_sqlstate(&code))
            }
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed => ErrorClass::Unavailable,
            sqlx::Error::Encode(_) => ErrorClass::InvalidData,
            _ => ErrorClass::Unknown,
        }
    }

    /// The five characters of SQLSTATE, if the server sent them.
    pub fn sqlstate(&self) -> Option<String> {
        self.0.as_database_error()?.code().map(Into::into)
    }

    /// The name of the violated constraint, if one was violated.
    pub fn constraint(&self) -> Option<&str> {
        self.0.as_database_error()?.constraint()
    }

    pub(super) fn timed_out() -> Self {
        let text = "no response within the time limit";
        Self(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, text)))
    }

    pub(super) fn unexpected_value(name: &str, value: &str) -> Self {
        Self(sqlx::Error::Protocol(format!("{name} is {value:?}")))
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self(error)
    }
}

impl From<sqlx::migrate::MigrateError> for StoreError {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        Self(error.into())
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_database_error() {
            Some(error) => {
                write!(f, "PostgreSQL: {}", error.message())?;
                match error.code() {
                    Some(code) => write!(f, " (SQLSTATE {code})"),
                    None => Ok(()),
                }
            }
            None => write!(f, "PostgreSQL: {}", self.0),
        }
    }
}

impl std::error::Error for StoreError {}

/// The error codes are listed in appendix A of PostgreSQL's manual.
fn classify_sqlstate(code: &str) -> ErrorClass {
    match code {
        // Serialization failure, deadlock, lock not available, statement timeout.
        "40001" | "40P01" | "55P03" | "57014" => ErrorClass::Contention,
        // Read-only transaction, corrupted data or index: not the message's fault.
        "25006" | "XX001" | "XX002" => ErrorClass::Unavailable,
        // Two first messages of one invoice: the second one finds the row when retried.
        "23505" => ErrorClass::Unknown,
        _ => match code.get(..2) {
            // Connection, resources, operator intervention, system error.
            Some("08" | "53" | "57" | "58") => ErrorClass::Unavailable,
            // Data, integrity, and limits such as a key too long for an index.
            Some("22" | "23" | "54") => ErrorClass::InvalidData,
            // Unknown table or column, missing privilege, failed login, unknown database: no
            // message can cause these.
            Some("42" | "3F" | "3D" | "28") => ErrorClass::SchemaMismatch,
            _ => ErrorClass::Unknown,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlstate_classified() {
        for (code, class) in [
            ("08006", ErrorClass::Unavailable),
            ("53100", ErrorClass::Unavailable),
            ("57P01", ErrorClass::Unavailable),
            ("57P03", ErrorClass::Unavailable),
            ("58030", ErrorClass::Unavailable),
            ("25006", ErrorClass::Unavailable),
            ("40001", ErrorClass::Contention),
            ("40P01", ErrorClass::Contention),
            ("55P03", ErrorClass::Contention),
            ("57014", ErrorClass::Contention),
            ("22P05", ErrorClass::InvalidData),
            ("22003", ErrorClass::InvalidData),
            ("23505", ErrorClass::Unknown),
            ("23503", ErrorClass::InvalidData),
            ("23514", ErrorClass::InvalidData),
            ("42P01", ErrorClass::SchemaMismatch),
            ("28P01", ErrorClass::SchemaMismatch),
            ("3D000", ErrorClass::SchemaMismatch),
            ("P0001", ErrorClass::Unknown),
            ("54000", ErrorClass::InvalidData),
            ("XX002", ErrorClass::Unavailable),
            ("XX000", ErrorClass::Unknown),
        ] {
            assert_eq!(classify_sqlstate(code), class, "{code}");
        }
    }
}
