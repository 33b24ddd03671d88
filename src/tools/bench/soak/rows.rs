//! A soak as rows of the table.

use super::{
    Soak,
    account::Accounts,
    flatness::{Trend, middle},
    sample::Sample,
};
use crate::tools::bench::{
    baseline::books::TABLES,
    table::{Row, count, milliseconds, one, plain, row},
};

/// What a soak came to.
pub fn of(soak: &Soak) -> Vec<Row> {
    let minutes = soak.seconds / 60.0;
    let time = |of: fn(&Sample) -> Option<f64>| {
        middle(&soak.samples, of).map_or_else(String::new, milliseconds)
    };
    let trend = |name: &str| soak.flatness.get(name).copied().unwrap_or_default();
    let beside = |p50, p99| {
        let (p50, p99) = (trend(p50), trend(p99));
        format!("p50 {}, p99 {}", changed(p50, milliseconds), changed(p99, milliseconds))
    };
    let mut rows = vec![
        row(
            format!("soak of {minutes:.1} min, all payloads, due until answered"),
            count(f64::from(soak.rate)),
            time(|sample: &Sample| Some(sample.answered?.p50_ms)),
            time(|sample| Some(sample.answered?.p99_ms)),
            beside("answered_p50_ms", "answered_p99_ms"),
        ),
        row(
            "soak, due until committed",
            String::new(),
            time(|sample| Some(sample.committed?.p50_ms)),
            time(|sample| Some(sample.committed?.p99_ms)),
            beside("committed_p50_ms", "committed_p99_ms"),
        ),
    ];
    let mut tell = |what: String, compared| rows.push(plain(what, String::new(), compared));
    let memory = trend("resident_mib");
    tell("soak, memory of serve".to_owned(), changed(memory, mib));
    let log = trend("wal_bytes_per_message");
    tell("soak, write-ahead log a message".to_owned(), changed(log, bytes));
    for table in TABLES {
        let size = trend(&format!("{table}_bytes_per_row"));
        let dead = trend(&format!("{table}_dead_share"));
        let hot = middle(&soak.samples, |sample| sample.tables.get(table)?.hot_share);
        let hot = hot.map_or_else(
            || "no updates".to_owned(),
            |hot| format!("{} of updates are HOT", percent(hot)),
        );
        tell(
            format!("soak, {table}: a row, dead tuples"),
            format!("{}; {}; {hot}", changed(size, bytes), changed(dead, percent)),
        );
    }
    tell("soak, accounted for".to_owned(), accounted(&soak.accounts));
    rows
}

/// The first third's figure and the last one's, and whether that is flat.
fn changed(trend: Trend, told: fn(f64) -> String) -> String {
    let (first, last) = (told(trend.first), told(trend.last));
    let word = if trend.flat { "" } else { " (NOT FLAT)" };
    if first == last { format!("{last}{word}") } else { format!("{first} → {last}{word}") }
}

fn accounted(told: &Accounts) -> String {
    let Accounts { accepted, refused, applied, duplicate, stale, ignored, dead, waiting, .. } =
        told;
    let refused = if *refused == 0 { String::new() } else { format!("; {refused} REFUSED") };
    let word = if told.complete { "" } else { "; NOT ACCOUNTED FOR" };
    format!(
        "{accepted} accepted: {applied} applied, {duplicate} duplicate, {stale} stale, \
         {ignored} ignored, {dead} dead; {waiting} waiting{refused}{word}"
    )
}

fn mib(size: f64) -> String {
    format!("{} MiB", one(size))
}

fn bytes(size: f64) -> String {
    if size < 10_000.0 { format!("{size:.0} B") } else { format!("{} kB", one(size / 1000.0)) }
}

fn percent(share: f64) -> String {
    format!("{} %", one(share * 100.0))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::tools::bench::soak::sample::Table;

    fn soak() -> Soak {
        let orders = Table { hot_share: Some(0.97), ..Table::default() };
        let sample = Sample { tables: BTreeMap::from([("orders", orders)]), ..Sample::default() };
        let trend = |first, last, flat| Trend { first, last, ratio: 1.0, flat };
        Soak {
            rate: 500,
            seconds: 1800.0,
            flatness: BTreeMap::from([
                ("resident_mib".to_owned(), trend(61.0, 61.0, true)),
                ("orders_bytes_per_row".to_owned(), trend(812.0, 1812.0, false)),
                ("orders_dead_share".to_owned(), trend(0.031, 0.03, true)),
                ("wal_bytes_per_message".to_owned(), trend(12_345.0, 12_999.0, true)),
            ]),
            accounts: Accounts {
                accepted: 900,
                applied: 890,
                dead: 10,
                complete: true,
                ..Accounts::default()
            },
            samples: vec![sample],
            ..Soak::default()
        }
    }

    fn text(soak: &Soak) -> String {
        of(soak).iter().map(|row| row.join(" | ")).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn what_changed_is_told_and_what_did_not_is_told_once() {
        let text = text(&soak());
        for told in [
            "soak of 30.0 min, all payloads, due until answered | 500 |",
            "| 61.0 MiB",
            "12.3 kB → 13.0 kB",
            "812 B → 1812 B (NOT FLAT); 3.1 % → 3.0 %; 97.0 % of updates are HOT",
            "900 accepted: 890 applied, 0 duplicate, 0 stale, 0 ignored, 10 dead; 0 waiting",
        ] {
            assert!(text.contains(told), "{told} is missing:\n{text}");
        }
        assert!(!text.contains("61.0 MiB → "), "{text}");
        assert!(!text.contains("REFUSED") && !text.contains("NOT ACCOUNTED"), "{text}");
    }

    #[test]
    fn what_is_missing_is_told_loudly() {
        let accounts = Accounts { complete: false, refused: 3, ..soak().accounts };
        let text = text(&Soak { accounts, ..soak() });
        assert!(text.contains("; 3 REFUSED; NOT ACCOUNTED FOR"), "{text}");
    }
}
