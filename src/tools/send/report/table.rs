//! The summary as a table.

use comfy_table::{CellAlignment, Table, presets};

use super::{Latency, SendReport};

/// Two columns of names and numbers, section by section.
pub(super) fn render(report: &SendReport) -> String {
    let mut rows = Rows::default();
    let plan = &report.plan;
    rows.section("plan");
    rows.count("unique events", plan.unique);
    rows.count("duplicates", plan.duplicates);
    rows.count("late", plan.late);
    rows.count("poison", plan.poison);
    rows.count("forged", plan.forged);
    rows.text("webhooks", &plan.webhooks.to_string());

    rows.section("responses");
    for (status, count) in &report.responses {
        rows.text(status, &count.to_string());
    }
    rows.count("not as expected", report.not_as_expected);
    rows.count("not sent", report.unsent);
    rows.count("retries", report.resends);
    rows.text("per second", &format!("{:.1}", report.per_second));
    let Latency { p50, p90, p99, max } = report.latency_ms;
    for (name, value) in [("p50 ms", p50), ("p90 ms", p90), ("p99 ms", p99), ("max ms", max)] {
        if let Some(value) = value {
            rows.text(name, &format!("{value:.1}"));
        }
    }

    let expected = &report.expected;
    rows.section("expected on record");
    rows.text("applied", &expected.applied.to_string());
    rows.text("duplicate", &expected.duplicate.to_string());
    rows.text("stale", &expected.stale.to_string());
    rows.count("ignored", expected.ignored);
    rows.text("dead", &expected.dead.to_string());
    for (reason, count) in &expected.dead_reasons {
        rows.text(&format!("  {reason}"), &count.to_string());
    }
    rows.count("possibly more", expected.uncertain);

    let run = match (&report.run, report.seed) {
        (Some(run), Some(seed)) => format!(", run {run}, seed {seed}"),
        _ => String::new(),
    };
    let mut text = format!("{} at {}{run}\n{}", report.source, report.url, rows.table);
    if let Some(number) = &report.trace_number {
        text.extend(["\nthe document with the most webhooks: tallyhook trace '", number, "'"]);
    }
    if expected.stale > 0 {
        text.push_str(
            "\nstale: if the worker kept up; the sum of applied and stale is always exact",
        );
    }
    if expected.uncertain > 0 {
        text.push_str("\npossibly more: attempts that may or may not have been published");
    }
    text
}

struct Rows {
    table: Table,
}

impl Default for Rows {
    fn default() -> Self {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        Self { table }
    }
}

impl Rows {
    fn section(&mut self, name: &str) {
        self.table.add_row([name, ""]);
    }

    fn text(&mut self, name: &str, value: &str) {
        self.table.add_row([&format!("  {name}"), value]);
        if let Some(column) = self.table.column_mut(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }

    /// A row unless the count is zero.
    fn count(&mut self, name: &str, count: u32) {
        if count > 0 {
            self.text(name, &count.to_string());
        }
    }
}
