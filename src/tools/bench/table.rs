//! The figures as a table, for a terminal and for a README.

use comfy_table::{ContentArrangement, Table, TableStyle, presets};

use super::{
    payload::Payload,
    report::{AtOnce, Dedupe, Drain, EndToEnd, Limits, Memory, Receive, Report},
    soak,
};

const HEADER: [&str; 5] = ["What", "Messages/s", "p50", "p99", "Compared"];

/// One line of it.
pub type Row = [String; 5];

/// The table for a terminal, with the machine below it.
pub fn terminal(report: &Report) -> String {
    format!("{}\n\n{}\n", table(report, presets::NOTHING), under(report))
}

/// The table in Markdown, with the machine below it.
pub fn markdown(report: &Report) -> String {
    format!("{}\n\n{}\n", table(report, presets::ASCII_MARKDOWN), under(report))
}

fn under(report: &Report) -> String {
    let how = &report.settings;
    let runs = match how.runs {
        1 => "One run".to_owned(),
        runs => format!("Medians of {runs} runs"),
    };
    format!(
        "{runs}, {} connections, load generator and receiver on one machine: {}.",
        how.connections, report.machine
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
        rows.extend(of_receive(receive));
    }
    if let Some(drain) = &report.drain {
        rows.extend(of_drain(drain));
    }
    if let Some(workers) = &report.workers {
        rows.extend(workers.iter().map(|(processes, told)| of_workers(*processes, told)));
    }
    rows.extend(report.end_to_end.as_ref().map(of_end_to_end));
    rows.extend(report.dedupe_at_scale.as_ref().map(of_dedupe));
    rows.extend(report.memory.as_ref().map(of_memory));
    if let Some(limits) = &report.baseline {
        rows.extend(of_limits(limits));
    }
    rows.extend(report.soak.iter().flat_map(soak::rows::of));
    rows
}

fn of_receive(receive: &Receive) -> Vec<Row> {
    let of = |payload: Payload| {
        let told = receive.payloads.get(payload.key())?;
        Some(row(
            format!("receive, {}; p50 and p99 at half of it", payload.title()),
            count(told.per_second),
            milliseconds(told.p50_ms),
            milliseconds(told.p99_ms),
            format!(
                "{} of the bare confirmed publish ({})",
                two(told.ratio_to_bare_publish),
                count(told.bare_per_second)
            ),
        ))
    };
    let mixed = &receive.mixed;
    let mixed = row(
        "receive, all payloads in turns; p50 and p99 at this rate",
        count(mixed.per_second),
        milliseconds(mixed.p50_ms),
        milliseconds(mixed.p99_ms),
        format!(
            "{} of the bare confirmed publish ({})",
            two(mixed.ratio_to_bare_publish),
            count(mixed.bare_per_second)
        ),
    );
    Payload::ALL.into_iter().filter_map(of).chain([mixed]).collect()
}

fn of_drain(drain: &Drain) -> Vec<Row> {
    let of = |payload: Payload| {
        let told = drain.payloads.get(payload.key())?;
        Some(plain(
            format!("drain, {}", payload.title()),
            count(told.per_second),
            format!(
                "{} times one by one ({}); {} of the bare set insert ({})",
                one(told.ratio_to_one_by_one),
                count(told.one_by_one_per_second),
                two(told.ratio_to_bare_set_insert),
                count(told.bare_set_insert_per_second)
            ),
        ))
    };
    let mut rows: Vec<Row> = Payload::ALL.into_iter().filter_map(of).collect();
    rows.push(plain(
        "drain, nothing but duplicates",
        String::new(),
        format!("{} times as fast as new messages", one(drain.ratio_of_duplicates_to_new)),
    ));
    rows.push(plain(
        "drain, 1 % of poison",
        String::new(),
        format!("{} of none", two(drain.ratio_with_poison)),
    ));
    rows
}

fn of_workers(processes: u32, told: &AtOnce) -> Row {
    let (whose, compared) = match processes {
        1 => ("1 worker process".to_owned(), String::new()),
        _ => (
            format!("{processes} worker processes"),
            format!("{} of one process", two(told.ratio_to_one)),
        ),
    };
    plain(
        format!("drain by {whose}, {}", Payload::Generic.title()),
        count(told.per_second),
        compared,
    )
}

fn of_end_to_end(told: &EndToEnd) -> Row {
    row(
        "end to end, all payloads, due until committed",
        told.rate.to_string(),
        milliseconds(told.times.p50_ms),
        milliseconds(told.times.p99_ms),
        String::new(),
    )
}

fn of_dedupe(told: &Dedupe) -> Row {
    plain(
        format!("claims with {} keys in the inbox", told.keys),
        count(told.per_second),
        format!(
            "{} of an empty one, {} for whole transactions; {} bytes a key",
            two(told.ratio_to_empty),
            two(told.drain_ratio_to_empty),
            told.bytes_per_key
        ),
    )
}

fn of_memory(told: &Memory) -> Row {
    plain(
        "memory of serve",
        String::new(),
        format!("{} MiB idle, {} MiB with 28 kB bodies", told.idle_mib, told.full_mib),
    )
}

fn of_limits(limits: &Limits) -> Vec<Row> {
    [
        ("confirmed publish from memory", limits.publish_per_second),
        ("confirmed publish behind HTTP", limits.http_publish_per_second),
        ("consume, no database", limits.consume_per_second),
        ("set insert from memory", limits.set_insert_per_second),
        ("one transaction a message", limits.one_by_one_per_second),
    ]
    .into_iter()
    .map(|(what, rate)| plain(format!("limit: {what}, 2 kB"), count(rate), String::new()))
    .collect()
}

/// What it is, how many a second, how long half of them and nearly all took,
/// and against what.
pub fn row(
    what: impl Into<String>,
    rate: String,
    p50: String,
    p99: String,
    compared: String,
) -> Row {
    [what.into(), rate, p50, p99, compared]
}

/// The same of what has no latency.
pub fn plain(what: impl Into<String>, rate: String, compared: String) -> Row {
    row(what, rate, String::new(), String::new(), compared)
}

/// A rate to three digits: the next one is noise.
pub fn count(rate: f64) -> String {
    let digits = format!("{rate:.0}");
    let noise = digits.len().saturating_sub(3);
    let kept = &digits[..digits.len() - noise];
    let whole: String = kept.chars().chain(std::iter::repeat_n('0', noise)).collect();
    let mut text = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// To a tenth.
pub fn milliseconds(time: f64) -> String {
    format!("{time:.1} ms")
}

/// With one decimal.
pub fn one(ratio: f64) -> String {
    format!("{ratio:.1}")
}

fn two(ratio: f64) -> String {
    format!("{ratio:.2}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::tools::bench::report::{Drained, Mixed, Received};

    #[test]
    fn rates_are_told_to_three_digits() {
        for (rate, expected) in
            [(0.0, "0"), (87.4, "87"), (1234.0, "1,230"), (15_987.0, "15,900"), (1e6, "1,000,000")]
        {
            assert_eq!(count(rate), expected);
        }
    }

    #[test]
    fn the_table_has_what_was_measured_and_nothing_else() {
        let mut report = Report::default();
        let received = Received { per_second: 1234.0, p99_ms: 9.87, ..Received::default() };
        report.receive = Some(Receive {
            headline: received,
            payloads: BTreeMap::from([(Payload::Generic.key(), received)]),
            mixed: Mixed { per_second: 4321.0, p99_ms: 5.43, ..Mixed::default() },
        });
        let text = markdown(&report);
        assert!(text.starts_with("| What"), "{text}");
        assert!(text.contains("1,230") && text.contains("9.9 ms"), "{text}");
        assert!(text.contains("in turns") && text.contains("4,320"), "{text}");
        assert!(text.contains("5.4 ms") && !text.contains("drain"), "{text}");
        let drained = Drained { ratio_to_one_by_one: 8.04, ..Drained::default() };
        report.drain = Some(Drain {
            payloads: BTreeMap::from([(Payload::Shopify.key(), drained)]),
            ..Drain::default()
        });
        let at_once = |per_second, ratio_to_one| AtOnce { per_second, ratio_to_one };
        report.workers = Some([(1, at_once(9000.0, 1.0)), (2, at_once(9450.0, 1.05))].into());
        let text = markdown(&report);
        for row in ["1 worker process, generic, 2 kB", "9,450", "1.05 of one process"] {
            assert!(text.contains(row), "{row} is missing: {text}");
        }
        let text = terminal(&report);
        assert!(text.contains("8.0 times one by one"), "{text}");
        assert!(text.contains("MEAN NOTHING") || text.contains("cores"), "{text}");
    }
}
