//! What a database error means for the message that met it.

use std::fmt;

/// Whose fault a database error is, and so what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// The server is away, or cannot be written to: nobody's poison. Wait.
    Unavailable,
    /// Somebody else was in the way: the same batch may work the next time.
    Contention,
    /// A row that the database will never take: the message's fault.
    InvalidData,
    /// The schema is not the one that this program was built for. Wait for a
    /// person; no message is to blame.
    SchemaMismatch,
    /// None of these: it may pass, or it may not.
    Unknown,
}

/// A database error.
#[derive(Debug)]
pub struct StoreError(sqlx::Error);

impl StoreError {
    /// Whose fault it is.
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

    /// The five characters of SQLSTATE, if the server gave them.
    pub fn sqlstate(&self) -> Option<String> {
        self.0.as_database_error()?.code().map(Into::into)
    }

    /// The constraint that was violated, if one was.
    pub fn constraint(&self) -> Option<&str> {
        self.0.as_database_error()?.constraint()
    }

    pub(super) fn timed_out() -> Self {
        let text = "the database accepted work and gave no answer in time";
        Self(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, text)))
    }

    pub(super) fn unexpected_value(what: &str, answer: &str) -> Self {
        Self(sqlx::Error::Protocol(format!("{what} is {answer:?}")))
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

/// PostgreSQL's error codes, appendix A of its manual.
fn classify_sqlstate(code: &str) -> ErrorClass {
    match code {
        // The first attempt of several at once may fail to serialize, find a
        // lock held too long, or be cancelled by the statement time limit.
        "40001" | "40P01" | "55P03" | "57014" => ErrorClass::Contention,
        // Read-only, and corrupted files: no message's fault.
        "25006" | "XX001" | "XX002" => ErrorClass::Unavailable,
        // Two first messages of one invoice: the second finds it the next time.
        "23505" => ErrorClass::Unknown,
        _ => match code.get(..2) {
            // Connection, resources, operator intervention, system error.
            Some("08" | "53" | "57" | "58") => ErrorClass::Unavailable,
            // Data, integrity, and limits such as a key too long for an index.
            Some("22" | "23" | "54") => ErrorClass::InvalidData,
            // Unknown tables and columns, missing rights, failed log-in,
            // unknown database: nothing a message can cause.
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
        for (code, fault) in [
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
            assert_eq!(classify_sqlstate(code), fault, "{code}");
        }
    }
}
