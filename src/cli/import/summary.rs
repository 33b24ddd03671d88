//! The printed summary of an import.

use comfy_table::CellAlignment;

use super::{
    api::OutcomeCounts,
    report::{EndReason, ImportReport, ItemProblem},
};
use crate::{cli::output, domain::ImportState};

/// How many items are listed per kind of problem.
const MAX_SHOWN: usize = 20;
/// Characters of an error that are printed.
const MAX_ERROR_CHARS: usize = 160;

/// The summary. `has_report_file` says that a file has every item.
pub(super) fn render(report: &ImportReport, has_report_file: bool) -> String {
    let mut parts = vec![heading(report)];
    if report.total > 0 {
        parts.push(count_table(report));
    }
    parts.extend(warnings(report));
    let rejected = (report.rejected, &report.rejections[..]);
    let dead = (report.dead(), &report.dead_letters[..]);
    // Only a check knows the errors of the items that wait.
    let is_check = report.ended == EndReason::Checked;
    let retried = (if is_check { report.waiting } else { 0 }, &report.retries[..]);
    for (word, (count, problems)) in [("rejected", rejected), ("dead", dead), ("retried", retried)]
    {
        if count > 0 {
            parts.push(problem_list(
                &outcome_label(report, word),
                count,
                problems,
                has_report_file,
            ));
            if problems.is_empty() && report.past_retention > 0 {
                parts.push("Their receipts are past retention.".to_owned());
            }
        }
    }
    if report.dead() > 0 && report.ended != EndReason::Checked {
        parts.push(format!("To list them: tallyhook dead list --source {}", report.source));
    }
    parts.push(closing_line(report));
    parts.join("\n")
}

fn outcome_label(report: &ImportReport, word: &str) -> String {
    if report.ended == EndReason::Checked { format!("would be {word}") } else { word.to_owned() }
}

fn heading(report: &ImportReport) -> String {
    let name =
        report.name.as_deref().map_or_else(|| "a file".to_owned(), output::strip_control_chars);
    match report.import_id {
        Some(id) => format!("{name} at {}, import {id}", report.source),
        None => format!("{name} at {}: checked, nothing was sent", report.source),
    }
}

fn count_table(report: &ImportReport) -> String {
    let mut table = output::table(&["OUTCOME", "ITEMS"]);
    let mut row = |name: String, value: String| {
        table.add_row([name, value]);
    };
    row("read".to_owned(), report.total.to_string());
    let is_unknown = report.counts.is_none();
    let OutcomeCounts { created, updated, duplicate, stale, ignored, dead } =
        report.counts.unwrap_or_default();
    for (word, count, is_always_shown) in [
        ("created", created, true),
        ("updated", updated, true),
        ("duplicate", duplicate, true),
        ("stale", stale, false),
        ("ignored", ignored, false),
        ("dead", dead, true),
    ] {
        if is_unknown && is_always_shown {
            row(word.to_owned(), "?".to_owned());
        } else if is_always_shown || count > 0 {
            row(outcome_label(report, word), count.to_string());
        }
    }
    row(outcome_label(report, "rejected"), report.rejected.to_string());
    if report.waiting > 0 {
        let word = match (report.ended, is_unknown) {
            (EndReason::Checked, _) => "would be retried",
            (_, true) => "sent, outcome unknown",
            (_, false) => "waiting",
        };
        row(word.to_owned(), report.waiting.to_string());
    }
    if report.past_retention > 0 {
        row("only counted: past retention".to_owned(), report.past_retention.to_string());
    }
    timing_rows(report, row);
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

#[expect(clippy::float_arithmetic, reason = "times and a rate to be shown, no money")]
fn timing_rows(report: &ImportReport, mut row: impl FnMut(String, String)) {
    let done = u32::try_from(report.total.saturating_sub(report.waiting)).unwrap_or(u32::MAX);
    if let Some(elapsed) = report.timing.elapsed_ms.filter(|elapsed| *elapsed > 0.0) {
        row("seconds".to_owned(), format!("{:.1}", elapsed / 1000.0));
        row("items per second".to_owned(), format!("{:.0}", f64::from(done) / elapsed * 1000.0));
    }
    if let Some(average) = report.timing.average_batch_ms.filter(|average| *average > 0.0) {
        row("average batch, ms".to_owned(), format!("{average:.1}"));
    }
}

fn warnings(report: &ImportReport) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(OutcomeCounts { duplicate: count @ 1.., .. }) = report.counts {
        let taken = report.total.saturating_sub(report.rejected).max(1);
        let tenths = count.saturating_mul(1000) / taken;
        let (percent, tenth) = (tenths / 10, tenths % 10);
        let (known, change) = match (report.ended, count) {
            (EndReason::Checked, 1) => ("is known already", "a duplicate changes nothing"),
            (EndReason::Checked, _) => ("are known already", "duplicates change nothing"),
            (_, 1) => ("was known already", "a duplicate changes nothing"),
            (_, _) => ("were known already", "duplicates change nothing"),
        };
        warnings.push(format!("WARNING: {count} {known} ({percent}.{tenth} %): {change}."));
    }
    if report.state == ImportState::Interrupted {
        let why = report.error.as_deref().unwrap_or("the cause is unknown");
        let rest = if report.ended == EndReason::Checked {
            "The rest of the file cannot be read."
        } else {
            "The rest of the file was not read. Correct it and send the whole file again: accepted \
             items are duplicates then and change nothing."
        };
        warnings.push(format!(
            "INTERRUPTED: {}. {rest}",
            output::truncate(&output::strip_control_chars(why), MAX_ERROR_CHARS)
        ));
    }
    warnings
}

fn problem_list(word: &str, count: u64, problems: &[ItemProblem], has_report_file: bool) -> String {
    if problems.is_empty() {
        return format!("\n{count} {word}; they could not be listed");
    }
    // Rejected items rarely have a number.
    let has_numbers = problems.iter().take(MAX_SHOWN).any(|problem| problem.number.is_some());
    let header = if has_numbers { &["LINE", "NUMBER", "ERROR"][..] } else { &["LINE", "ERROR"] };
    let mut table = output::table(header);
    for problem in problems.iter().take(MAX_SHOWN) {
        let mut row = vec![problem.line.to_string()];
        if has_numbers {
            let number = problem.number.as_deref().unwrap_or("-");
            row.push(output::truncate(&output::strip_control_chars(number), 40));
        }
        row.push(output::truncate(&output::strip_control_chars(&problem.error), MAX_ERROR_CHARS));
        table.add_row(row);
    }
    let shown = problems.len().min(MAX_SHOWN) as u64;
    let more = match count.saturating_sub(shown) {
        0 => String::new(),
        more if has_report_file => format!("\nand {more} more, all in the report"),
        more => format!("\nand {more} more; --report FILE has all"),
    };
    format!("\n{word}:\n{table}{more}")
}

/// The last line: whether items still wait.
fn closing_line(report: &ImportReport) -> String {
    let again = report
        .import_id
        .map_or_else(String::new, |id| format!("To check again: tallyhook import --status {id}"));
    let error = report.status_error.as_deref().map(|error| format!(" ({error})"));
    let error = error.unwrap_or_default();
    match report.ended {
        EndReason::Completed | EndReason::Checked
            if report.total == 0 && report.error.is_none() =>
        {
            "The file holds no items.".to_owned()
        }
        EndReason::Completed => "Every item has a final outcome.".to_owned(),
        EndReason::Checked => "Nothing was sent.".to_owned(),
        EndReason::TimedOut => format!(
            "{} still wait{error}; nothing is lost. Check that a worker runs. {again}",
            report.waiting
        ),
        EndReason::Interrupted => {
            format!("{} still wait{error}; nothing is lost. {again}", report.waiting)
        }
        EndReason::NotWaited if report.state == ImportState::Receiving => {
            format!("The upload is in progress, or its receiver has died. {again}")
        }
        EndReason::NotWaited if report.waiting > 0 => {
            format!("{} wait to be applied{error}. {again}", report.waiting)
        }
        EndReason::NotWaited if report.total == 0 => "The file holds no items.".to_owned(),
        EndReason::NotWaited => "No item waits.".to_owned(),
    }
}
