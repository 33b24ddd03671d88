//! A soak of six seconds: too short for stable trends, but with all its figures.

use serde_json::Value;

use super::{BenchRun, EXCLUSIVE, databases, number, output_text, read};

/// Figures of each table.
const TABLE_FIGURES: [&str; 6] =
    ["rows", "table_bytes", "index_bytes", "bytes_per_row", "dead_tuples", "dead_share"];

#[tokio::test(flavor = "multi_thread")]
async fn soak_samples_figures_and_accounts_for_every_message() {
    let _exclusive = EXCLUSIVE.lock().await;
    let bench = BenchRun::new();
    let json = bench.file("b.json");
    let arguments =
        ["--only", "soak", "--minutes", "0.1", "--rate", "50", "--connections", "4", "--json"];
    let mut command = bench.bench(&arguments);
    command.arg(&json);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{}", output_text(&output));

    let report: Value = serde_json::from_str(&read(&json)).unwrap();
    let soak = &report["soak"];
    assert_eq!((&soak["rate"], &soak["seconds"]), (&50.into(), &6.0.into()), "{soak:#}");

    let reconciliation = &soak["reconciliation"];
    let count = |outcome: &str| {
        let count = reconciliation[outcome].as_i64();
        count.unwrap_or_else(|| panic!("{outcome}: {soak:#}"))
    };
    assert_eq!((count("accepted"), count("refused")), (300, 0), "{reconciliation:#}");
    assert_eq!((count("waiting"), count("contradictions")), (0, 0), "{reconciliation:#}");
    let accounted = ["applied", "duplicate", "stale", "ignored", "dead"].map(count);
    assert_eq!(accounted.iter().sum::<i64>(), 300, "{reconciliation:#}");
    assert_eq!(reconciliation["complete"], true, "{reconciliation:#}");
    // Of the first hundred of each payload one is poison and ten are duplicates.
    // The number of stale ones depends on timing.
    assert_eq!((count("dead"), count("duplicate")), (3, 30), "{reconciliation:#}");
    assert!(count("applied") > 150 && count("stale") > 0, "{reconciliation:#}");

    let samples = soak["samples"].as_array().unwrap();
    // A late sample skips the next one.
    assert!((3..=6).contains(&samples.len()), "{soak:#}");
    let sum = |path: &str| samples.iter().map(|sample| number(sample, path)).sum::<f64>();
    assert!((sum("/accepted") - 300.0).abs() < 0.1, "{soak:#}");
    for path in ["/probed", "/wal_bytes", "/wal_bytes_per_message"] {
        assert!(sum(path) > 0.0, "{path}: {soak:#}");
    }
    for path in ["/responses/p50_ms", "/responses/p99_ms", "/commits/p50_ms", "/commits/p99_ms"] {
        // Null in an interval without any.
        let times = samples.iter().filter_map(|sample| sample.pointer(path)?.as_f64());
        assert!(times.sum::<f64>() > 0.0, "{path}: {soak:#}");
    }
    for sample in samples {
        assert!(number(sample, "/resident_mib") > 1.0, "{sample:#}");
        assert!(number(sample, "/queued") >= 0.0, "{sample:#}");
        for table in ["inbox", "orders", "invoices", "receipts"] {
            for figure in TABLE_FIGURES {
                let value = number(sample, &format!("/tables/{table}/{figure}"));
                assert!(value >= 0.0, "{table} {figure}: {sample:#}");
            }
            assert!(number(sample, &format!("/tables/{table}/index_bytes")) > 0.0, "{sample:#}");
        }
    }
    // PostgreSQL updates its statistics within six seconds.
    let last = samples.last().unwrap();
    for table in ["inbox", "orders", "invoices", "receipts"] {
        assert!(number(last, &format!("/tables/{table}/rows")) > 0.0, "{last:#}");
    }
    let updated = |sample: &Value| sample["tables"]["orders"]["hot_share"].is_number();
    assert!(samples.iter().any(updated), "{soak:#}");

    // Latencies need a response and a probe in both thirds.
    for figure in [
        "resident_mib",
        "wal_bytes_per_message",
        "inbox_bytes_per_row",
        "orders_bytes_per_row",
        "invoices_bytes_per_row",
        "receipts_bytes_per_row",
        "orders_dead_share",
    ] {
        let trend = &soak["trends"][figure];
        assert!(trend["first"].is_number() && trend["last"].is_number(), "{figure}: {soak:#}");
        assert!(trend["ratio"].is_number() && trend["stable"].is_boolean(), "{figure}: {soak:#}");
    }
    assert!(soak["stable"].is_boolean(), "{soak:#}");

    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    for row in ["soak of 0.1 min", "due until committed", "soak, orders", "300 accepted"] {
        assert!(table.contains(row), "{row} is missing:\n{table}");
    }
    assert_eq!(databases().await, Vec::<String>::new());
    // Progress is on stderr.
    let steps = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(steps.matches(" accepted; ").count(), samples.len(), "{steps}");
}
