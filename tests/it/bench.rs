//! `tallyhook bench` as a process: every scenario, tiny, on shared servers. The
//! tests check the keys of the report and that nothing is left behind, not the
//! figures.

mod soak;

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use sqlx::Connection as _;
use tempfile::TempDir;

use crate::support::{RawAmqpClient, eventually, servers};

/// Held by tests that list the databases of a bench.
static EXCLUSIVE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The shared servers, and the files of one test.
struct BenchRun {
    folder: TempDir,
    config: PathBuf,
}

impl BenchRun {
    fn new() -> Self {
        let urls = servers::shared();
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("config.toml");
        let text = format!(
            "[database]\nurl = '{}postgres'\n[broker]\nurl = '{}'\n\
             [sources.shop]\nkind = 'shopify'\nsecrets = ['env:SHOP_SECRET']\n",
            urls.postgres, urls.rabbitmq
        );
        std::fs::write(&config, text).unwrap();
        Self { folder, config }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn bench(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tallyhook"));
        command.arg("--config").arg(&self.config).arg("bench").args(arguments);
        command.env("SHOP_SECRET", "a secret").stdin(Stdio::null());
        command
    }
}

const TINY: [&str; 12] = [
    "--quick",
    "--runs",
    "1",
    "--seconds",
    "0.3",
    "--messages",
    "300",
    "--keys",
    "2000",
    "--rate",
    "200",
    "--connections",
];

fn output_text(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

/// The databases of all benches on the server.
async fn databases() -> Vec<String> {
    let url = format!("{}postgres", servers::shared().postgres);
    let mut session = sqlx::PgConnection::connect(&url).await.unwrap();
    sqlx::query_scalar(
        r"select datname::text from pg_database where datname like 'tallyhook\_bench%'",
    )
    .fetch_all(&mut session)
    .await
    .unwrap()
}

/// The queue prefix of the bench with this database.
fn prefix(database: &str) -> String {
    database.replace('_', "-")
}

/// The queues and exchanges with a bench's prefix.
async fn queues_and_exchanges(prefix: &str) -> Vec<String> {
    let raw = RawAmqpClient::open(&servers::shared().rabbitmq).await;
    let mut left = Vec::new();
    for name in ["dead", "unrouted", "calls", "inbound.shopify", "inbound.generic", "retry.1s"] {
        let name = format!("{prefix}.{name}");
        if raw.depth(&name).await.is_some() {
            left.push(name);
        }
    }
    for name in ["dead", "unrouted", "calls", "inbound", "retry.1s"] {
        let name = format!("{prefix}.{name}");
        if raw.has_exchange(&name).await {
            left.push(name);
        }
    }
    left
}

fn number(report: &Value, path: &str) -> f64 {
    let value = report.pointer(path).and_then(Value::as_f64);
    value.unwrap_or_else(|| panic!("{path} is no number: {report:#}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn bench_measures_every_scenario_and_leaves_nothing() {
    let _exclusive = EXCLUSIVE.lock().await;
    let bench = BenchRun::new();
    let (json, readme) = (bench.file("b.json"), bench.file("R.md"));
    let marks = "# Ours\n<!-- bench: written by `make bench` -->\nanother table\n<!-- bench: end -->\nend\n";
    std::fs::write(&readme, marks).unwrap();
    let mut command = bench.bench(&TINY);
    command.arg("4").args(["--duplicates", "20%", "--stale", "10%", "--poison", "5%"]);
    for (flag, path) in [("--json", &json), ("--readme", &readme)] {
        command.arg(flag).arg(path);
    }
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{}", output_text(&output));

    let report: Value = serde_json::from_str(&read(&json)).unwrap();
    for path in [
        "/receive/per_second",
        "/receive/p50_ms",
        "/receive/p99_ms",
        "/receive/ratio_to_bare_publish",
        "/receive/mixed/per_second",
        "/receive/mixed/p50_ms",
        "/receive/mixed/p99_ms",
        "/receive/mixed/ratio_to_bare_publish",
        "/receive/payloads/woocommerce_3_5kb/per_second",
        "/receive/payloads/shopify_28kb/at_maximum/p99_ms",
        "/drain/per_second",
        "/drain/ratio_to_row_at_a_time",
        "/drain/ratio_to_set_insert",
        "/drain/ratio_of_duplicates_to_new",
        "/drain/ratio_with_poison",
        "/drain/payloads/shopify_28kb/row_at_a_time_per_second",
        "/workers/1/per_second",
        "/workers/2/per_second",
        "/workers/2/ratio_to_one",
        "/workers/4/ratio_to_one",
        "/end_to_end/p50_ms",
        "/end_to_end/p99_ms",
        "/dedupe_at_scale/bytes_per_key",
        "/dedupe_at_scale/ratio_to_empty",
        "/dedupe_at_scale/drain_ratio_to_empty",
        "/memory/idle_mib",
        "/memory/full_mib",
        "/baseline/publish_per_second",
        "/baseline/set_insert_per_second",
        "/baseline/row_at_a_time_per_second",
        "/baseline/http_publish_per_second",
    ] {
        assert!(number(&report, path) > 0.0, "{path}: {report:#}");
    }
    assert_eq!(report["soak"], Value::Null, "a soak runs on request only");
    assert_eq!(report["dedupe_at_scale"]["keys"], 2000);
    assert_eq!(report["end_to_end"]["rate"], 200);
    assert!(number(&report, "/memory/full_mib") >= number(&report, "/memory/idle_mib"));
    for known in ["cpu", "kernel", "postgresql", "rabbitmq", "date"] {
        let text = report["machine"][known].as_str().unwrap_or_default();
        assert!(!text.is_empty(), "{known}: {report:#}");
    }
    let version = report["machine"]["rabbitmq"].as_str().unwrap_or_default();
    assert!(version.starts_with(|c: char| c.is_ascii_digit()), "{version}");

    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    for row in [
        "receive, Shopify",
        "drain, generic",
        "drain by 4 worker processes",
        "end to end",
        "claims",
        "memory",
        "limit:",
    ] {
        assert!(table.contains(row), "{row} is missing:\n{table}");
    }
    let readme = read(&readme);
    assert!(readme.starts_with("# Ours\n") && readme.ends_with("\nend\n"), "{readme}");
    assert!(readme.contains("| receive, Shopify") && !readme.contains("another table"), "{readme}");
    assert_eq!(databases().await, Vec::<String>::new());

    // Progress is on stderr.
    let steps = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(steps.contains("dedupe at scale, run 1"), "{steps}");
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupted_bench_leaves_nothing() {
    let _exclusive = EXCLUSIVE.lock().await;
    let bench = BenchRun::new();
    let mut command = bench.bench(&["--only", "drain", "--messages", "20000"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_mins(1);
    // Wait until its database and its queues exist.
    let ours = loop {
        assert!(Instant::now() < deadline, "the bench did not begin");
        if let Some(name) = databases().await.into_iter().next()
            && queues_and_exchanges(&prefix(&name)).await.len() == 11
        {
            break name;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let id = i32::try_from(child.id()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), nix::sys::signal::SIGINT).unwrap();
    let output = tokio::task::spawn_blocking(move || {
        let status = child.wait().unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(child.stderr.as_mut().unwrap(), &mut text).unwrap();
        (status, text)
    });
    let (status, text) = output.await.unwrap();
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(text.contains("stopped"), "{text}");
    assert!(!databases().await.contains(&ours), "{ours} is left");
    assert_eq!(queues_and_exchanges(&prefix(&ours)).await, Vec::<String>::new());
}

/// All descendants of a process.
fn descendants(of: u32) -> Vec<u32> {
    let parent = |stat: &str| -> Option<u32> {
        // `pid (name) state parent ...`; zombies do not count.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let alive = fields.next()? != "Z";
        fields.next()?.parse().ok().filter(|_| alive)
    };
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let all: Vec<(u32, u32)> = entries
        .filter_map(|entry| {
            let id = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            Some((id, parent(&stat)?))
        })
        .collect();
    let mut found = vec![of];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(all.iter().filter(|(_, of)| *of == parent).map(|(id, _)| id));
        next += 1;
    }
    found.split_off(1)
}

/// The `tallyhook serve` processes among these.
fn serve_processes(processes: &[u32]) -> Vec<u32> {
    let serves = |id: &&u32| {
        let command = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let mut words = command.split(|byte| *byte == 0);
        // The watchdog shell has the same words, but another name.
        words.next().is_some_and(|name| name.ends_with(b"tallyhook"))
            && words.any(|word| word == b"serve")
    };
    processes.iter().filter(serves).copied().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_processes_end_with_their_bench() {
    use nix::sys::signal::Signal;
    let _exclusive = EXCLUSIVE.lock().await;
    for signal in [Signal::SIGINT, Signal::SIGKILL] {
        let bench = BenchRun::new();
        let mut command = bench.bench(&["--only", "workers", "--messages", "500"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_mins(2);
        let workers = loop {
            assert!(Instant::now() < deadline, "the bench did not start its workers");
            let workers = serve_processes(&descendants(child.id()));
            if workers.len() > 1 {
                break workers;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let ours = databases().await;
        let id = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
        nix::sys::signal::kill(id, signal).unwrap();
        let status = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
        assert_eq!(status.code(), (signal == Signal::SIGINT).then_some(1));
        eventually("the end of the workers", Duration::from_secs(20), || async {
            serve_processes(&workers).is_empty()
        })
        .await;
        if signal == Signal::SIGINT {
            assert_eq!(databases().await, Vec::<String>::new());
        }
        // A killed bench leaves its database.
        for database in ours {
            servers::shared().drop_database(&database).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn file_without_markers_fails_before_measuring() {
    let bench = BenchRun::new();
    let readme = bench.file("README.md");
    std::fs::write(&readme, "# no markers\n").unwrap();
    let mut command = bench.bench(&["--only", "memory"]);
    command.arg("--readme").arg(&readme);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output_text(&output).contains("must occur once"), "{}", output_text(&output));
    assert_eq!(read(&readme), "# no markers\n");
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}
