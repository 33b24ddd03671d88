//! Imports: files of invoices, in which each line is an event.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{SourceName, string_enum};

/// The position of an event in an imported file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ImportPosition {
    /// Id of the import.
    pub import_id: Uuid,
    /// Line of the file on which the event begins, counted from 1; also in a JSON array,
    /// because editors show lines, not elements.
    pub line: u32,
}

/// The format of an imported file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportFormat {
    /// CSV with a header (RFC 4180); each row is an item.
    Csv,
    /// NDJSON; each line is an item.
    NdJson,
    /// One JSON array; each element is an item.
    Json,
}

impl ImportFormat {
    /// The format of a media type, in any case; parameters are ignored.
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

    /// The format of a file name, by its extension in any case.
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

    /// The media type for uploads of this format.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv",
            Self::NdJson => "application/x-ndjson",
            Self::Json => "application/json",
        }
    }
}

/// The CSV dialect of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsvDialect {
    /// The delimiter between two fields: an ASCII character.
    pub delimiter: u8,
    /// Names of the columns that the header must contain.
    pub required_columns: Vec<String>,
}

string_enum! {
    /// The state of an import.
    ImportState {
        /// The upload is in progress, or its receiver died during it.
        Receiving = "receiving",
        /// The whole file was read.
        Received = "received",
        /// The upload was interrupted, or the rest of the file is unreadable. Items read before
        /// that stay.
        Interrupted = "interrupted",
    }
}

/// The progress of an import, as the receiver reports it to the worker. Each report repeats
/// everything that an earlier one said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportProgress {
    /// Id of the import; also in the response to the upload.
    pub import_id: Uuid,
    /// The source that received it.
    pub source: SourceName,
    /// The sender's name of the file, if it has one.
    pub name: Option<String>,
    /// How far it was read.
    pub state: ImportState,
    /// Number of items published so far, including rejected ones.
    pub items: u64,
    /// Why it was interrupted.
    pub error: Option<String>,
    /// When the upload began.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// When the last byte was read.
    #[serde(with = "time::serde::rfc3339::option")]
    pub received_at: Option<OffsetDateTime>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn import_format_is_detected_by_media_type_and_file_name() {
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
