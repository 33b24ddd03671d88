//! Imports: files of invoices, each line of which is an event of its own.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::SourceName;

/// Where in which file an event stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ImportPosition {
    /// The import.
    pub import_id: Uuid,
    /// The line of the file on which it begins, counted from 1. In a JSON
    /// array as well: an editor shows lines, not elements.
    pub line: u32,
}

/// How a file holds its items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportFormat {
    /// A header, and a row for each item (RFC 4180).
    Csv,
    /// A JSON object on each line.
    NdJson,
    /// One JSON array of objects.
    Json,
}

impl ImportFormat {
    /// The format of a media type (any case, its parameters aside).
    pub fn from_media_type(media_type: &str) -> Option<Self> {
        let essence = media_type.split(';').next().unwrap_or_default().trim();
        match essence.to_ascii_lowercase().as_str() {
            "text/csv" | "application/csv" => Some(Self::Csv),
            "application/x-ndjson"
            | "application/ndjson"
            | "application/jsonl"
            | "application/x-jsonlines" => Some(Self::NdJson),
            "application/json" => Some(Self::Json),
            _ => None,
        }
    }

    /// The format by the end of a file's name (any case).
    pub fn from_file_name(name: &str) -> Option<Self> {
        let (stem, extension) = name.rsplit_once('.')?;
        if stem.is_empty() {
            return None;
        }
        match extension.to_ascii_lowercase().as_str() {
            "csv" | "tsv" => Some(Self::Csv),
            "ndjson" | "jsonl" => Some(Self::NdJson),
            "json" => Some(Self::Json),
            _ => None,
        }
    }

    /// The media type by which it is sent.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv",
            Self::NdJson => "application/x-ndjson",
            Self::Json => "application/json",
        }
    }
}

/// How a source's CSV files are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsvDialect {
    /// What stands between two fields: an ASCII character.
    pub delimiter: u8,
    /// The columns without which no row can be read.
    pub required_columns: Vec<String>,
}

/// How far an import's file was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImportState {
    /// It still comes in; or its receiver died.
    Receiving,
    /// All of it was read.
    Received,
    /// It broke off, or cannot be read further. What was read stands.
    Interrupted,
}

impl ImportState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Receiving, Self::Received, Self::Interrupted];

    /// The word, as it stands in SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Receiving => "receiving",
            Self::Received => "received",
            Self::Interrupted => "interrupted",
        }
    }
}

/// What the receiver tells of an import, on its way to the worker. A later
/// note of an import tells all that an earlier one did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportProgress {
    /// Names the import, also on the answer to the call that brought it.
    pub import_id: Uuid,
    /// Where it came in.
    pub source: SourceName,
    /// What the sender calls the file, if it has a name.
    pub name: Option<String>,
    /// How far it was read.
    pub state: ImportState,
    /// How many items are durable, the rejected among them.
    pub items: u64,
    /// Why it broke off.
    pub error: Option<String>,
    /// When the call began.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// When the last of it was read.
    #[serde(with = "time::serde::rfc3339::option")]
    pub received_at: Option<OffsetDateTime>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_and_file_names_tell_the_format() {
        use ImportFormat::{Csv, Json, NdJson};
        for (text, format) in [
            ("text/csv", Some(Csv)),
            ("Text/CSV; charset=utf-8; header=present", Some(Csv)),
            ("application/csv", Some(Csv)),
            ("application/x-ndjson", Some(NdJson)),
            ("application/ndjson", Some(NdJson)),
            ("application/jsonl", Some(NdJson)),
            ("application/x-jsonlines", Some(NdJson)),
            ("application/json;charset=utf-8", Some(Json)),
            ("", None),
            ("text/plain", None),
            ("application/problem+json", None),
            ("text/csvx", None),
        ] {
            assert_eq!(ImportFormat::from_media_type(text), format, "{text}");
        }
        for (name, format) in [
            ("invoices.csv", Some(Csv)),
            ("2026.01/INVOICES.CSV", Some(Csv)),
            ("invoices.tsv", Some(Csv)),
            ("invoices.ndjson", Some(NdJson)),
            ("invoices.jsonl", Some(NdJson)),
            ("invoices.json", Some(Json)),
            ("invoices.csv.gz", None),
            ("csv", None),
            (".csv", None),
            ("", None),
        ] {
            assert_eq!(ImportFormat::from_file_name(name), format, "{name}");
        }
        for format in [Csv, NdJson, Json] {
            assert_eq!(ImportFormat::from_media_type(format.media_type()), Some(format));
        }
    }
}
