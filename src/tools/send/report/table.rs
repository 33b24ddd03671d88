//! The summary for people.

use comfy_table::{CellAlignment, Table, presets};

use super::{Latency, Report};

/// Two columns of names and numbers, section by section.
pub(super) fn render(report: &Report) -> String {
    let mut rows = Rows::default();
    let plan = &report.plan;
    rows.section("plan");
    rows.count("unique events", plan.unique);
    rows.count("duplicates", plan.duplicates);
    rows.count("late", plan.late);
    rows.count("poison", plan.poison);
    rows.count("forged", plan.forged);
    rows.text("deliveries", &plan.deliveries.to_string());

    rows.section("answers");
    for (status, count) in &report.answers {
        rows.text(status, &count.to_string());
    }
    rows.count("not as they should be", report.not_as_expected);
    rows.count("not sent", report.unsent);
    rows.count("sent again", report.resends);
    rows.text("per second", &format!("{:.1}", report.per_second));
    let Latency { p50, p90, p99, max } = report.latency_ms;
    for (name, value) in [("p50 ms", p50), ("p90 ms", p90), ("p99 ms", p99), ("max ms", max)] {
        if let Some(value) = value {
            rows.text(name, &format!("{value:.1}"));
        }
    }

    let expected = &report.expected;
    rows.section("expected in the books");
    rows.text("applied", &expected.applied.to_string());
    rows.text("duplicate", &expected.duplicate.to_string());
    rows.text("stale", &expected.stale.to_string());
    rows.count("ignored", expected.ignored);
    rows.text("dead", &expected.dead.to_string());
    for (reason, count) in &expected.dead_reasons {
        rows.text(&format!("  {reason}"), &count.to_string());
    }
    rows.count("perhaps more", expected.uncertain);

    let run = match (&report.run, report.seed) {
        (Some(run), Some(seed)) => format!(", run {run}, seed {seed}"),
        _ => String::new(),
    };
    let mut text = format!("{} at {}{run}\n{}", report.source, report.url, rows.table);
    if let Some(number) = &report.story {
        text.extend(["\nits longest story: tallyhook trace '", number, "'"]);
    }
    if expected.stale > 0 {
        text.push_str(
            "\nstale: if the worker kept up; applied and stale together are exact in any case",
        );
    }
    if expected.uncertain > 0 {
        text.push_str("\nperhaps more: attempts whose answer does not tell whether they were kept");
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

    /// A row unless there is nothing to tell.
    fn count(&mut self, name: &str, count: u32) {
        if count > 0 {
            self.text(name, &count.to_string());
        }
    }
}
