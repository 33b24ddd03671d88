//! The measured figures: as JSON, whose keys are a contract, and as a table for
//! a terminal or Markdown.

use comfy_table::{ContentArrangement, Table, TableStyle, presets};
use serde::Serialize;
use serde_json::{Map, Value};

use super::machine::Machine;

const HEADER: [&str; 5] = ["What", "Messages/s", "p50", "p99", "Compared"];

/// What was measured, rate, p50, p99, and the comparison.
pub(super) type Row = [String; 5];

/// The figures of one scenario.
pub(super) struct Measured {
    pub(super) figures: Value,
    pub(super) rows: Vec<Row>,
}

/// All figures; scenarios that did not run are absent.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(super) machine: Machine,
    pub(super) settings: RunSettings,
    #[serde(flatten)]
    pub(super) figures: Map<String, Value>,
    #[serde(skip)]
    pub(super) rows: Vec<Row>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct RunSettings {
    /// Figures are medians over so many runs.
    pub(super) runs: u32,
    pub(super) connections: usize,
    /// Messages in a backlog, unless memory limits them.
    pub(super) messages: u32,
    /// Length of each load.
    pub(super) seconds: f64,
}

impl Report {
    /// Whether a soak did not account for every message.
    pub(crate) fn lost_messages(&self) -> bool {
        let soak = self.figures.get("soak");
        soak.is_some_and(|soak| soak["reconciliation"]["complete"] != true)
    }

    /// The table for a terminal, with the machine below it.
    pub(crate) fn terminal(&self) -> String {
        self.render(presets::NOTHING)
    }

    /// The table in Markdown, with the machine below it.
    pub(crate) fn markdown(&self) -> String {
        self.render(presets::ASCII_MARKDOWN)
    }

    fn render(&self, preset: TableStyle) -> String {
        let mut table = Table::new();
        table
            .load_style(preset)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header(HEADER)
            .add_rows(&self.rows);
        let runs = match self.settings.runs {
            1 => "One run".to_owned(),
            runs => format!("Medians of {runs} runs"),
        };
        format!(
            "{table}\n\n{runs}, {} connections, load generator and receiver on one machine: {}.\n",
            self.settings.connections, self.machine
        )
    }
}

/// A row without latencies.
pub(super) fn row(what: impl Into<String>, rate: String, compared: String) -> Row {
    [what.into(), rate, String::new(), String::new(), compared]
}

/// A rate with three significant digits.
pub(super) fn rate(rate: f64) -> String {
    let digits = format!("{rate:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(if index < 3 { digit } else { '0' });
    }
    text
}

pub(super) fn milliseconds(time: f64) -> String {
    format!("{time:.1} ms")
}
