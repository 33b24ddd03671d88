//! The summary as a table.

use comfy_table::{CellAlignment, Table, presets};

use super::SendReport;

/// Two columns of names and numbers, section by section.
pub(super) fn render(report: &SendReport) -> String {
    let (plan, expected, latency) = (&report.plan, &report.expected, &report.latency_ms);
    let always = |count: u32| Some(count.to_string());
    let unless_zero = |count: u32| (count > 0).then(|| count.to_string());
    let time = |time: Option<f64>| time.map(|time| format!("{time:.1}"));
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            table.add_row([name, &value]);
        }
    };
    add("plan", Some(String::new()));
    add("  unique events", unless_zero(plan.counts.unique));
    add("  duplicates", unless_zero(plan.counts.duplicates));
    add("  late", unless_zero(plan.counts.late));
    add("  poison", unless_zero(plan.counts.poison));
    add("  forged", unless_zero(plan.counts.forged));
    add("  webhooks", always(plan.webhooks));
    add("responses", Some(String::new()));
    for (status, count) in &report.responses {
        add(&format!("  {status}"), always(*count));
    }
    add("  not as expected", unless_zero(report.not_as_expected));
    add("  not sent", unless_zero(report.unsent));
    add("  retries", unless_zero(report.resends));
    add("  per second", time(Some(report.per_second)));
    add("  p50 ms", time(latency.p50));
    add("  p90 ms", time(latency.p90));
    add("  p99 ms", time(latency.p99));
    add("  max ms", time(latency.max));
    add("expected on record", Some(String::new()));
    add("  applied", always(expected.applied));
    add("  duplicate", always(expected.duplicate));
    add("  stale", always(expected.stale));
    add("  ignored", unless_zero(expected.ignored));
    add("  dead", always(expected.dead));
    for (reason, count) in &expected.dead_reasons {
        add(&format!("    {reason}"), always(*count));
    }
    add("  possibly more", unless_zero(expected.uncertain));
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }

    let run = match (&report.run, report.seed) {
        (Some(run), Some(seed)) => format!(", run {run}, seed {seed}"),
        _ => String::new(),
    };
    let mut text = format!("{} at {}{run}\n{table}", report.source, report.url);
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
