//! The report file with every item: CSV or JSON, by its name.

use std::{
    borrow::Cow,
    fs::Permissions,
    io::{BufWriter, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use tempfile::NamedTempFile;

use super::{api::ItemOutcome, report::ImportReport};

/// The format of a report file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReportFormat {
    /// A header and a row per item.
    Csv,
    /// An object with `items` and `import`.
    Json,
}

impl ReportFormat {
    /// The format by the file's name.
    pub(super) fn from_path(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?;
        match extension.to_ascii_lowercase().as_str() {
            "csv" => Some(Self::Csv),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// A report file that is being written. It gets its name only when it is
/// complete; without [`ReportFile::finish`] it is removed.
pub(super) struct ReportFile {
    out: BufWriter<NamedTempFile>,
    path: PathBuf,
    format: ReportFormat,
    is_first: bool,
}

impl ReportFile {
    /// Creates a temporary file in the report's folder, so that an unwritable
    /// folder is noticed before anything is sent.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub(super) fn create(path: &Path, form: ReportFormat) -> anyhow::Result<Self> {
        let cannot_write = || format!("cannot write the report {}", path.display());
        anyhow::ensure!(!path.is_dir(), "{}: it is a folder", cannot_write());
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let file = tempfile::Builder::new()
            .prefix(".tallyhook-report-")
            // Subject to the umask, as for other files of the user.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(folder.unwrap_or(Path::new(".")))
            .with_context(cannot_write)?;
        let mut out = BufWriter::new(file);
        match form {
            ReportFormat::Csv => {
                writeln!(out, "line,outcome,write_kind,number,error").with_context(cannot_write)?;
            }
            ReportFormat::Json => write!(out, "{{\"items\":[").with_context(cannot_write)?,
        }
        Ok(Self { out, path: path.to_owned(), format: form, is_first: true })
    }

    /// # Errors
    /// The file cannot be written.
    pub(super) fn add_item(&mut self, line: &ItemOutcome) -> anyhow::Result<()> {
        let written = match self.format {
            ReportFormat::Csv => writeln!(self.out, "{}", csv_row(line)),
            ReportFormat::Json => {
                let comma = if self.is_first { "" } else { "," };
                write!(self.out, "{comma}\n{}", serde_json::to_string(line)?)
            }
        };
        self.is_first = false;
        written.with_context(|| format!("cannot write the report {}", self.path.display()))
    }

    /// Adds the totals and gives the file its name.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn finish(mut self, report: &ImportReport) -> anyhow::Result<()> {
        let cannot_write = || format!("cannot write the report {}", self.path.display());
        if self.format == ReportFormat::Json {
            let totals = serde_json::to_string(report)?;
            writeln!(self.out, "\n],\"import\":{totals}}}").with_context(cannot_write)?;
        }
        let file = self.out.into_inner().map_err(std::io::IntoInnerError::into_error);
        let file = file.with_context(cannot_write)?;
        file.persist(&self.path).map_err(|error| error.error).with_context(cannot_write)?;
        Ok(())
    }
}

/// An item as a CSV row (RFC 4180).
fn csv_row(line: &ItemOutcome) -> String {
    let text =
        |text: &Option<String>| csv_quoted(&escape_formula(text.as_deref().unwrap_or_default()));
    let ItemOutcome { outcome, write_kind, business_key, error, .. } = line;
    let cells = [
        line.line.to_string(),
        csv_quoted(outcome),
        text(write_kind),
        text(business_key),
        text(error),
    ];
    cells.join(",")
}

/// Prevents CSV injection: after an apostrophe, a spreadsheet does not read a
/// vendor's text as a formula.
fn escape_formula(text: &str) -> Cow<'_, str> {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        Cow::Owned(format!("'{text}"))
    } else {
        Cow::Borrowed(text)
    }
}

fn csv_quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::{super::report::EndReason, *};
    use crate::{
        cli::import::api::{ImportTiming, OutcomeCounts},
        domain::ImportState,
    };

    fn lines() -> [ItemOutcome; 2] {
        let line = ItemOutcome {
            line: 2,
            outcome: "applied".to_owned(),
            write_kind: Some("created".to_owned()),
            business_key: Some("A, \"B\"".to_owned()),
            error: None,
            receipt_id: Some(Uuid::nil()),
            attempts: 1,
        };
        let refused = ItemOutcome {
            line: 3,
            outcome: "rejected".to_owned(),
            write_kind: None,
            business_key: None,
            error: Some("amount: is missing\nor null".to_owned()),
            ..line.clone()
        };
        [line, refused]
    }

    fn report() -> ImportReport {
        ImportReport {
            ended: EndReason::Completed,
            source: "vendors".to_owned(),
            name: None,
            import_id: None,
            state: ImportState::Received,
            error: None,
            total: 2,
            waiting: 0,
            rejected: 1,
            past_retention: 0,
            counts: Some(OutcomeCounts { created: 1, ..OutcomeCounts::default() }),
            timing: ImportTiming::default(),
            rejections: Vec::new(),
            retries: Vec::new(),
            dead_letters: Vec::new(),
            status_error: None,
        }
    }

    fn written(name: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        let mut file = ReportFile::create(&path, ReportFormat::from_path(&path).unwrap()).unwrap();
        for line in &lines() {
            file.add_item(line).unwrap();
        }
        assert!(!path.exists(), "an incomplete report has the name");
        file.finish(&report()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn report_file_csv_quotes_cells() {
        assert_eq!(
            written("out.CSV"),
            "line,outcome,write_kind,number,error\n\
             2,applied,created,\"A, \"\"B\"\"\",\n\
             3,rejected,,,\"amount: is missing\nor null\"\n"
        );
    }

    #[test]
    fn report_file_csv_escapes_formulas() {
        for number in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"] {
            let [line, _] = lines();
            let line = ItemOutcome { business_key: Some(number.to_owned()), ..line };
            let cell = csv_row(&line).replace('"', "");
            assert!(cell.contains(&format!(",'{number},")), "{cell}");
        }
        let [_, refused] = lines();
        let refused = ItemOutcome { error: Some("=HYPERLINK(1)".to_owned()), ..refused };
        assert_eq!(csv_row(&refused), "3,rejected,,,'=HYPERLINK(1)");
    }

    #[test]
    fn report_file_json_has_items_and_totals() {
        let report: serde_json::Value = serde_json::from_str(&written("out.json")).unwrap();
        assert_eq!(report["items"][0]["number"], "A, \"B\"");
        assert_eq!(report["items"][1]["error"], "amount: is missing\nor null");
        assert_eq!(
            (&report["import"]["total"], &report["import"]["created"]),
            (&2.into(), &1.into())
        );
        assert_eq!(report["import"]["ended"], "completed");
    }

    #[test]
    fn report_file_unwritable_path_fails_on_create() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path().join("none/out.csv"), folder.path().to_owned()] {
            assert!(ReportFile::create(&path, ReportFormat::Csv).is_err(), "{}", path.display());
        }
        for name in ["out", "out.txt", ".json"] {
            assert_eq!(ReportFormat::from_path(Path::new(name)), None, "{name}");
        }
    }
}
