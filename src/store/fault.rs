//! What a database error means for the message that met it.

use std::fmt;

/// Whose fault a database error is, and so what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The server is away, or cannot be written to: nobody's poison. Wait.
    Away,
    /// Somebody else was in the way: the same batch may work the next time.
    Contention,
    /// A row that the database will never take: the message's fault.
    Data,
    /// The schema is not the one that this program was built for. Wait for a
    /// person; no message is to blame.
    Schema,
    /// None of these: it may pass, or it may not.
    Unclear,
}

/// A database error.
#[derive(Debug)]
pub struct StoreError(sqlx::Error);

impl StoreError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match &self.0 {
            sqlx::Error::Database(error) => {
                error.code().map_or(Fault::Unclear, |code| of_sqlstate(&code))
            }
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed => Fault::Away,
            sqlx::Error::Encode(_) => Fault::Data,
            _ => Fault::Unclear,
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

    pub(super) fn stalled() -> Self {
        let text = "the database accepted work and gave no answer in time";
        Self(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, text)))
    }

    pub(super) fn odd_answer(what: &str, answer: &str) -> Self {
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
fn of_sqlstate(code: &str) -> Fault {
    match code {
        // The first attempt of several at once may fail to serialize, find a
        // lock held too long, or be cancelled by the statement time limit.
        "40001" | "40P01" | "55P03" | "57014" => Fault::Contention,
        // Read-only, and corrupted files: no message's fault.
        "25006" | "XX001" | "XX002" => Fault::Away,
        // Two first messages of one invoice: the second finds it the next time.
        "23505" => Fault::Unclear,
        _ => match code.get(..2) {
            // Connection, resources, operator intervention, system error.
            Some("08" | "53" | "57" | "58") => Fault::Away,
            // Data, integrity, and limits such as a key too long for an index.
            Some("22" | "23" | "54") => Fault::Data,
            // Unknown tables and columns, missing rights, failed log-in,
            // unknown database: nothing a message can cause.
            Some("42" | "3F" | "3D" | "28") => Fault::Schema,
            _ => Fault::Unclear,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_of_sqlstate_has_its_fault() {
        for (code, fault) in [
            ("08006", Fault::Away),
            ("53100", Fault::Away),
            ("57P01", Fault::Away),
            ("57P03", Fault::Away),
            ("58030", Fault::Away),
            ("25006", Fault::Away),
            ("40001", Fault::Contention),
            ("40P01", Fault::Contention),
            ("55P03", Fault::Contention),
            ("57014", Fault::Contention),
            ("22P05", Fault::Data),
            ("22003", Fault::Data),
            ("23505", Fault::Unclear),
            ("23503", Fault::Data),
            ("23514", Fault::Data),
            ("42P01", Fault::Schema),
            ("28P01", Fault::Schema),
            ("3D000", Fault::Schema),
            ("P0001", Fault::Unclear),
            ("54000", Fault::Data),
            ("XX002", Fault::Away),
            ("XX000", Fault::Unclear),
        ] {
            assert_eq!(of_sqlstate(code), fault, "{code}");
        }
    }
}
