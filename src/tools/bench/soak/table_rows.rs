//! The rows of a soak in the table.

use super::{
    Soak,
    reconciliation::Reconciliation,
    sample::Sample,
    stability::{Trend, sample_median},
};
use crate::tools::bench::{
    baseline::table_stats::TABLES,
    table::{Row, milliseconds, rate, row},
};

pub(in crate::tools::bench) fn rows(soak: &Soak) -> Vec<Row> {
    let time = |value: fn(&Sample) -> Option<f64>| {
        sample_median(&soak.samples, value).map_or_else(String::new, milliseconds)
    };
    let trend = |name: &str| soak.trends.get(name).copied().unwrap_or_default();
    let times = |kind: &str| {
        let [p50, p99] = ["p50", "p99"]
            .map(|percentile| change(trend(&format!("{kind}_{percentile}_ms")), milliseconds));
        format!("p50 {p50}, p99 {p99}")
    };
    let mut rows = vec![
        [
            format!("soak of {:.1} min, all payloads, due until response", soak.seconds / 60.0),
            rate(f64::from(soak.rate)),
            time(|sample| Some(sample.responses?.p50_ms)),
            time(|sample| Some(sample.responses?.p99_ms)),
            times("responses"),
        ],
        [
            "soak, due until committed".to_owned(),
            String::new(),
            time(|sample| Some(sample.commits?.p50_ms)),
            time(|sample| Some(sample.commits?.p99_ms)),
            times("commits"),
        ],
    ];
    let mut add = |what: String, compared| rows.push(row(what, String::new(), compared));
    add("soak, memory of serve".to_owned(), change(trend("resident_mib"), mebibytes));
    let wal = change(trend("wal_bytes_per_message"), bytes);
    add("soak, write-ahead log a message".to_owned(), wal);
    for table in TABLES {
        let size = change(trend(&format!("{table}_bytes_per_row")), bytes);
        let dead = change(trend(&format!("{table}_dead_share")), percent);
        let hot = sample_median(&soak.samples, |sample| sample.tables.get(table)?.hot_share);
        let hot = hot.map_or_else(
            || "no updates".to_owned(),
            |hot| format!("{} of updates are HOT", percent(hot)),
        );
        add(format!("soak, {table}: bytes a row, dead tuples"), format!("{size}; {dead}; {hot}"));
    }
    add("soak, accounted for".to_owned(), accounted(&soak.reconciliation));
    rows
}

/// The figure of the first third and of the last, if they differ.
fn change(trend: Trend, format: fn(f64) -> String) -> String {
    let (first, last) = (format(trend.first), format(trend.last));
    let warning = if trend.stable { "" } else { " (NOT STABLE)" };
    if first == last { format!("{last}{warning}") } else { format!("{first} → {last}{warning}") }
}

fn accounted(reconciliation: &Reconciliation) -> String {
    let Reconciliation { accepted, refused, applied, duplicate, stale, ignored, dead, .. } =
        reconciliation;
    let mut text = format!(
        "{accepted} accepted: {applied} applied, {duplicate} duplicate, {stale} stale, \
         {ignored} ignored, {dead} dead; {} waiting",
        reconciliation.waiting
    );
    if *refused > 0 {
        text = format!("{text}; {refused} REFUSED");
    }
    if !reconciliation.complete {
        text.push_str("; NOT ACCOUNTED FOR");
    }
    text
}

fn mebibytes(size: f64) -> String {
    format!("{size:.1} MiB")
}

fn bytes(size: f64) -> String {
    if size < 10_000.0 { format!("{size:.0} B") } else { format!("{:.1} kB", size / 1000.0) }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::tools::bench::soak::sample::TableSample;

    fn soak() -> Soak {
        let orders = TableSample { hot_share: Some(0.97), ..TableSample::default() };
        let sample = Sample { tables: BTreeMap::from([("orders", orders)]), ..Sample::default() };
        let trend = |first, last, stable| Trend { first, last, ratio: 1.0, stable };
        Soak {
            rate: 500,
            seconds: 1800.0,
            trends: BTreeMap::from([
                ("resident_mib".to_owned(), trend(61.0, 61.0, true)),
                ("orders_bytes_per_row".to_owned(), trend(812.0, 1812.0, false)),
                ("orders_dead_share".to_owned(), trend(0.031, 0.03, true)),
                ("wal_bytes_per_message".to_owned(), trend(12_345.0, 12_999.0, true)),
            ]),
            reconciliation: Reconciliation {
                accepted: 900,
                applied: 890,
                dead: 10,
                complete: true,
                ..Reconciliation::default()
            },
            samples: vec![sample],
            ..Soak::default()
        }
    }

    fn text(soak: &Soak) -> String {
        rows(soak).iter().map(|row| row.join(" | ")).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn rows_show_changes_and_instability() {
        let text = text(&soak());
        for expected in [
            "soak of 30.0 min, all payloads, due until response | 500 |",
            "| 61.0 MiB",
            "12.3 kB → 13.0 kB",
            "812 B → 1812 B (NOT STABLE); 3.1 % → 3.0 %; 97.0 % of updates are HOT",
            "900 accepted: 890 applied, 0 duplicate, 0 stale, 0 ignored, 10 dead; 0 waiting",
        ] {
            assert!(text.contains(expected), "{expected} is missing:\n{text}");
        }
        assert!(!text.contains("61.0 MiB → ") && !text.contains("REFUSED"), "{text}");
    }

    #[test]
    fn rows_show_missing_messages() {
        let soak = soak();
        let reconciliation = Reconciliation { complete: false, refused: 3, ..soak.reconciliation };
        let text = text(&Soak { reconciliation, ..soak });
        assert!(text.contains("; 3 REFUSED; NOT ACCOUNTED FOR"), "{text}");
    }
}
