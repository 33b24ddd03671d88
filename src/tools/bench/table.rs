//! The figures as a table, for a terminal and for Markdown.

use comfy_table::{ContentArrangement, Table, TableStyle, presets};

use super::{
    payload::Payload,
    report::{Drain, Drained, Received, Report},
    soak,
};

const HEADER: [&str; 5] = ["What", "Messages/s", "p50", "p99", "Compared"];

/// What was measured, rate, p50, p99, and the comparison.
pub(super) type Row = [String; 5];

/// The table for a terminal, with the machine below it.
pub(crate) fn terminal(report: &Report) -> String {
    format!("{}\n\n{}\n", table(report, presets::NOTHING), footer(report))
}

/// The table in Markdown, with the machine below it.
pub(crate) fn markdown(report: &Report) -> String {
    format!("{}\n\n{}\n", table(report, presets::ASCII_MARKDOWN), footer(report))
}

fn footer(report: &Report) -> String {
    let runs = match report.settings.runs {
        1 => "One run".to_owned(),
        runs => format!("Medians of {runs} runs"),
    };
    format!(
        "{runs}, {} connections, load generator and receiver on one machine: {}.",
        report.settings.connections, report.machine
    )
}

fn table(report: &Report, preset: TableStyle) -> Table {
    let mut table = Table::new();
    table
        .load_style(preset)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(HEADER)
        .add_rows(rows(report));
    table
}

fn rows(report: &Report) -> Vec<Row> {
    let mut rows = Vec::new();
    if let Some(receive) = &report.receive {
        for payload in Payload::ALL {
            let received = receive.payloads.get(payload.key());
            rows.extend(received.map(|received| receive_row(payload.title(), received)));
        }
        rows.push(receive_row("all payloads alternately", &receive.mixed));
    }
    if let Some(drain) = &report.drain {
        rows.extend(drain_rows(drain));
    }
    for (processes, throughput) in report.workers.iter().flatten() {
        let (whose, compared) = match processes {
            1 => ("1 worker process".to_owned(), String::new()),
            _ => (
                format!("{processes} worker processes"),
                format!("{:.2} of one process", throughput.ratio_to_one),
            ),
        };
        let what = format!("drain by {whose}, {}", Payload::Generic.title());
        rows.push(row(what, rate(throughput.per_second), compared));
    }
    if let Some(end_to_end) = &report.end_to_end {
        rows.push([
            "end to end, all payloads, from due to committed".to_owned(),
            end_to_end.rate.to_string(),
            milliseconds(end_to_end.times.p50_ms),
            milliseconds(end_to_end.times.p99_ms),
            String::new(),
        ]);
    }
    if let Some(dedupe) = &report.dedupe_at_scale {
        rows.push(row(
            format!("claims with {} keys in the inbox", dedupe.keys),
            rate(dedupe.per_second),
            format!(
                "{:.2} of an empty one, {:.2} for whole transactions; {} bytes a key",
                dedupe.ratio_to_empty, dedupe.drain_ratio_to_empty, dedupe.bytes_per_key
            ),
        ));
    }
    if let Some(memory) = &report.memory {
        let compared =
            format!("{} MiB idle, {} MiB with 28 kB bodies", memory.idle_mib, memory.full_mib);
        rows.push(row("memory of serve", String::new(), compared));
    }
    if let Some(limits) = &report.baseline {
        for (what, limit) in [
            ("confirmed publish from memory", limits.publish_per_second),
            ("confirmed publish behind HTTP", limits.http_publish_per_second),
            ("set insert from memory", limits.set_insert_per_second),
            ("one transaction a message", limits.row_at_a_time_per_second),
        ] {
            rows.push(row(format!("limit: {what}, 2 kB"), rate(limit), String::new()));
        }
    }
    rows.extend(report.soak.iter().flat_map(soak::table_rows::rows));
    rows
}

fn receive_row(title: &str, received: &Received) -> Row {
    [
        format!("receive, {title}; p50 and p99 at half of it"),
        rate(received.per_second),
        milliseconds(received.p50_ms),
        milliseconds(received.p99_ms),
        format!(
            "{:.2} of the bare confirmed publish ({})",
            received.ratio_to_bare_publish,
            rate(received.bare_publish_per_second)
        ),
    ]
}

fn drain_rows(drain: &Drain) -> Vec<Row> {
    let payload_row = |payload: Payload| {
        let drained: &Drained = drain.payloads.get(payload.key())?;
        Some(row(
            format!("drain, {}", payload.title()),
            rate(drained.per_second),
            format!(
                "{:.1} times one transaction a message ({}); {:.2} of the bare set insert ({})",
                drained.ratio_to_row_at_a_time,
                rate(drained.row_at_a_time_per_second),
                drained.ratio_to_set_insert,
                rate(drained.set_insert_per_second)
            ),
        ))
    };
    let mut rows: Vec<Row> = Payload::ALL.into_iter().filter_map(payload_row).collect();
    rows.push(row(
        "drain, duplicates only",
        String::new(),
        format!("{:.1} times as fast as new messages", drain.ratio_of_duplicates_to_new),
    ));
    rows.push(row(
        "drain, 1 % poison",
        String::new(),
        format!("{:.2} of none", drain.ratio_with_poison),
    ));
    rows
}

/// A row without latencies.
pub(super) fn row(what: impl Into<String>, rate: String, compared: String) -> Row {
    [what.into(), rate, String::new(), String::new(), compared]
}

/// A rate with three significant digits.
pub(super) fn rate(rate: f64) -> String {
    let digits = format!("{rate:.0}");
    let dropped = digits.len().saturating_sub(3);
    let significant = &digits[..digits.len() - dropped];
    let mut text = String::new();
    for (index, digit) in significant.chars().chain(std::iter::repeat_n('0', dropped)).enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

pub(super) fn milliseconds(time: f64) -> String {
    format!("{time:.1} ms")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::tools::bench::report::{Receive, WorkerThroughput};

    #[test]
    fn rate_has_three_digits() {
        for (number, expected) in
            [(0.0, "0"), (87.4, "87"), (1234.0, "1,230"), (15_987.0, "15,900"), (1e6, "1,000,000")]
        {
            assert_eq!(rate(number), expected);
        }
    }

    #[test]
    fn table_has_measured_scenarios_only() {
        let received = Received { per_second: 1234.0, p99_ms: 9.87, ..Received::default() };
        let mut report = Report {
            receive: Some(Receive {
                headline: received,
                payloads: BTreeMap::from([(Payload::Generic.key(), received)]),
                mixed: Received { per_second: 4321.0, ..Received::default() },
            }),
            ..Report::default()
        };
        let text = markdown(&report);
        assert!(text.starts_with("| What"), "{text}");
        for expected in ["1,230", "9.9 ms", "alternately", "4,320"] {
            assert!(text.contains(expected), "{expected} is missing: {text}");
        }
        assert!(!text.contains("drain"), "{text}");
        let throughput = |per_second, ratio_to_one| WorkerThroughput { per_second, ratio_to_one };
        report.workers = Some([(1, throughput(9000.0, 1.0)), (2, throughput(9450.0, 1.05))].into());
        let text = terminal(&report);
        for expected in ["1 worker process, generic, 2 kB", "9,450", "1.05 of one process"] {
            assert!(text.contains(expected), "{expected} is missing: {text}");
        }
        assert!(text.contains("MEAN NOTHING") || text.contains("mean nothing"), "{text}");
    }
}
