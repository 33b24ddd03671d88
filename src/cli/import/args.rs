//! The arguments of `tallyhook import`.

use std::path::PathBuf;

use clap::ValueEnum;
use reqwest::Url;
use uuid::Uuid;

use crate::domain::{ImportFormat, SourceName};

/// Send a file of invoices and wait for the outcome of each line.
#[derive(clap::Args, Clone, Debug)]
#[command(after_long_help = "\
Each line becomes a message of its own, so a wrong line does not affect the others. Known lines are
duplicates and change nothing: a file may be sent again at any time.

Exit codes: 0 every line was applied or known, 3 some failed or still wait, 1 none was applied or
nothing was sent, 2 usage. Ctrl-C only ends the waiting; what was sent is still processed.")]
pub(in crate::cli) struct ImportArgs {
    /// CSV, NDJSON or a JSON array of invoices; - for standard input
    #[arg(required_unless_present = "status")]
    pub(super) file: Option<PathBuf>,

    /// The configured source [default: the only one of kind import]
    #[arg(long, value_name = "NAME")]
    pub(super) source: Option<SourceName>,

    /// The tenant, for sources that read it from a header [default: the source's only tenant]
    #[arg(long)]
    pub(super) tenant: Option<String>,

    /// The receiver's base address [default: receiver.listen of the configuration]
    #[arg(long, value_name = "URL")]
    pub(super) url: Option<Url>,

    /// The file's format [default: from the end of its name]
    #[arg(long, value_enum)]
    pub(super) format: Option<FileFormat>,

    /// Send nothing: apply the file in a transaction that is rolled back, and report the outcomes
    ///
    /// Uses the database of the configuration and no receiver. A worker that needs one of the
    /// file's invoices waits until the check has ended.
    #[arg(long, conflicts_with_all = ["no_wait", "timeout"])]
    pub(super) check: bool,

    /// Write the outcome of every line to this file, .csv or .json
    #[arg(long, value_name = "PATH", conflicts_with = "no_wait")]
    pub(super) report: Option<PathBuf>,

    /// Do not wait for the lines to be applied
    #[arg(long, conflicts_with = "timeout")]
    pub(super) no_wait: bool,

    /// Longest time to wait for the lines to be applied
    #[arg(long, value_name = "SECONDS", default_value_t = 600,
        value_parser = clap::value_parser!(u32).range(0..=86_400))]
    pub(super) timeout: u32,

    /// Send nothing: report on an earlier import
    #[arg(long, value_name = "ID",
        conflicts_with_all = ["file", "source", "format", "check", "no_wait", "timeout"])]
    pub(super) status: Option<Uuid>,

    /// Print one JSON object instead of the table
    #[arg(long)]
    pub(super) json: bool,
}

/// The format of a file.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum FileFormat {
    /// Comma-separated values with a header line
    Csv,
    /// One JSON object per line
    Ndjson,
    /// A JSON array of objects
    Json,
}

impl From<FileFormat> for ImportFormat {
    fn from(format: FileFormat) -> Self {
        match format {
            FileFormat::Csv => Self::Csv,
            FileFormat::Ndjson => Self::NdJson,
            FileFormat::Json => Self::Json,
        }
    }
}
