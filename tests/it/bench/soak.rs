//! A soak of six seconds: no length at which anything is told of flatness,
//! and all that a long one does.

use serde_json::Value;

use super::{ALONE, Stage, databases, number, output_text, read};

/// What is told of each table.
const OF_A_TABLE: [&str; 8] = [
    "rows",
    "total_bytes",
    "table_bytes",
    "index_bytes",
    "bytes_per_row",
    "live_tuples",
    "dead_tuples",
    "dead_share",
];

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_sampled_and_accounted_for() {
    let _alone = ALONE.lock().await;
    let stage = Stage::set();
    let (json, svg) = (stage.file("b.json"), stage.file("b.svg"));
    let arguments =
        ["--only", "soak", "--minutes", "0.1", "--rate", "50", "--connections", "4", "--json"];
    let mut command = stage.bench(&arguments);
    command.arg(&json).arg("--svg").arg(&svg);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{}", output_text(&output));

    let report: Value = serde_json::from_str(&read(&json)).unwrap();
    let soak = &report["soak"];
    assert_eq!((&soak["rate"], &soak["seconds"]), (&50.into(), &6.0.into()), "{soak:#}");

    let accounts = &soak["accounts"];
    let of = |word: &str| accounts[word].as_i64().unwrap_or_else(|| panic!("{word}: {soak:#}"));
    assert_eq!((of("accepted"), of("refused")), (300, 0), "{accounts:#}");
    assert_eq!((of("waiting"), of("contradictions")), (0, 0), "{accounts:#}");
    let accounted = ["applied", "duplicate", "stale", "ignored", "dead"].map(of);
    assert_eq!(accounted.iter().sum::<i64>(), 300, "{accounts:#}");
    assert_eq!(accounts["complete"], true, "{accounts:#}");
    // Of the first hundred of each payload one is poison and ten repeat an
    // earlier one. How many are stale depends on who was faster.
    assert_eq!((of("dead"), of("duplicate")), (3, 30), "{accounts:#}");
    assert!(of("applied") > 200 && of("stale") > 0, "{accounts:#}");

    let samples = soak["samples"].as_array().unwrap();
    // One that takes too long leaves the next one out.
    assert!((3..=6).contains(&samples.len()), "{soak:#}");
    let sum = |path: &str| samples.iter().map(|sample| number(sample, path)).sum::<f64>();
    assert!((sum("/accepted") - 300.0).abs() < 0.1, "{soak:#}");
    for path in ["/probed", "/wal_bytes", "/wal_bytes_per_message"] {
        assert!(sum(path) > 0.0, "{path}: {soak:#}");
    }
    for path in ["/answered/p50_ms", "/answered/p99_ms", "/committed/p50_ms", "/committed/p99_ms"] {
        // Not of an interval in which there was none.
        let told = samples.iter().filter_map(|sample| sample.pointer(path)?.as_f64());
        assert!(told.sum::<f64>() > 0.0, "{path}: {soak:#}");
    }
    for sample in samples {
        assert!(number(sample, "/resident_mib") > 1.0, "{sample:#}");
        assert!(number(sample, "/queued") >= 0.0, "{sample:#}");
        for table in ["inbox", "orders", "invoices", "receipts"] {
            for figure in OF_A_TABLE {
                let told = number(sample, &format!("/tables/{table}/{figure}"));
                assert!(told >= 0.0, "{table} {figure}: {sample:#}");
            }
            assert!(number(sample, &format!("/tables/{table}/index_bytes")) > 0.0, "{sample:#}");
        }
    }
    // Six seconds are time enough for the server to count the first of them.
    let last = samples.last().unwrap();
    for table in ["inbox", "orders", "invoices", "receipts"] {
        assert!(number(last, &format!("/tables/{table}/rows")) > 0.0, "{last:#}");
    }
    let updated = |sample: &Value| sample["tables"]["orders"]["hot_share"].is_number();
    assert!(samples.iter().any(updated), "{soak:#}");

    // Times only if there was an answer and a probe in both thirds.
    for figure in [
        "resident_mib",
        "wal_bytes_per_message",
        "inbox_bytes_per_row",
        "orders_bytes_per_row",
        "invoices_bytes_per_row",
        "receipts_bytes_per_row",
        "orders_dead_share",
    ] {
        let trend = &soak["flatness"][figure];
        assert!(trend["first"].is_number() && trend["last"].is_number(), "{figure}: {soak:#}");
        assert!(trend["ratio"].is_number() && trend["flat"].is_boolean(), "{figure}: {soak:#}");
    }
    assert!(soak["steady"].is_boolean(), "{soak:#}");

    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    for row in ["soak of 0.1 min", "due until committed", "soak, orders", "300 accepted"] {
        assert!(table.contains(row), "{row} is missing:\n{table}");
    }
    assert!(read(&svg).contains("Soak at 50/s"));
    assert_eq!(databases().await, Vec::<String>::new());
    // The course of it was told, on the other stream.
    let steps = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(steps.matches("; commits ").count(), samples.len(), "{steps}");
}
