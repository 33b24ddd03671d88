//! Bulk actions of operators: they need a filter, a comment and a confirmation,
//! and act on no more than was shown.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::{ERP, TestApp, erp_invoice};

/// The binary's exit code and outputs.
struct Run {
    code: i32,
    stdout: String,
    stderr: String,
}

/// The binary with the configuration of a test.
struct Binary {
    folder: tempfile::TempDir,
}

impl Binary {
    fn new(app: &TestApp) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = format!(
            "[broker]\nurl = '{}'\nprefix = '{}'\n[database]\nurl = '{}'\n{ERP}",
            app.config.broker.url, app.config.broker.prefix, app.config.database.url,
        );
        std::fs::write(folder.path().join("config.toml"), config).unwrap();
        Self { folder }
    }

    /// Runs a command without a terminal.
    fn run(&self, arguments: &[&str]) -> Run {
        let output = Command::new(env!("CARGO_BIN_EXE_tallyhook"))
            .arg("--config")
            .arg(self.folder.path().join("config.toml"))
            .env("SECRET", "a secret of the tests")
            .env("TALLYHOOK_OPERATOR", "ann")
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Run {
            code: output.status.code().unwrap(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let Run { code, stdout, stderr } = self.run(&[arguments, &["--json"]].concat());
        assert_eq!(code, 0, "{arguments:?}: {stdout}{stderr}");
        serde_json::from_str(&stdout).unwrap()
    }

    #[track_caller]
    fn assert_refused(&self, arguments: &[&str], cause: &str) {
        let Run { code, stdout, stderr } = self.run(arguments);
        assert_eq!(code, 2, "{arguments:?}: {stdout}{stderr}");
        assert!(stderr.contains(cause), "{arguments:?}: {stderr}");
    }
}

/// Two dead letters of reason `missing_field` and one of `invalid_json`.
async fn with_dead_letters() -> TestApp {
    let app = TestApp::with(&[ERP], |_| ()).await;
    let mut messages = Vec::new();
    for (number, body) in [("I-1", "{}"), ("I-2", "{}"), ("I-3", "not JSON")] {
        let mut message = erp_invoice(number, 1, "1.00");
        message.body = body.into();
        messages.push(message);
    }
    app.publish_all(&messages).await;
    app.consumer("erp").await.drain(3).await;
    app.archive_dead_letters(3).await;
    app
}

async fn states(app: &TestApp) -> String {
    app.text(
        "select string_agg(reason || ' ' || state, ', ' order by reason, state) from dead_letters",
    )
    .await
}

const OPEN: &str = "invalid_json open, missing_field open, missing_field open";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operator_discard_by_reason_acts_on_that_reason_only() {
    let app = with_dead_letters().await;
    let binary = Binary::new(&app);
    // `--reason` filters in `discard` as it does in `list`.
    let listed = binary.json(&["dead", "list", "--reason", "invalid_json"]);
    assert_eq!(listed.as_array().unwrap().len(), 1);
    let discard = ["dead", "discard", "--reason", "invalid_json"];
    binary.assert_refused(&discard, "--comment");
    let commented = [&discard[..], &["--comment", "test data"]].concat();
    binary.assert_refused(&commented, "--yes");
    assert_eq!(states(&app).await, OPEN, "a refused action changed something");

    let run = binary.run(&[&commented[..], &["--yes"]].concat());
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    for part in ["1 dead letters will be discarded", "oldest 2", "1  invalid_json", "1 of 1"] {
        assert!(run.stdout.contains(part), "{part:?} in {}", run.stdout);
    }
    assert_eq!(
        states(&app).await,
        "invalid_json discarded, missing_field open, missing_field open"
    );
    let entry = "select concat_ws(' ', actor, action, comment) from audit_log";
    assert_eq!(app.text(entry).await, "ann discard test data");
    // A reason that is no code is refused before anything is selected.
    binary.assert_refused(&["dead", "discard", "--reason", "all of it"], "unknown reason");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operator_bulk_action_without_filter_or_confirmation_is_refused() {
    let app = with_dead_letters().await;
    let binary = Binary::new(&app);
    for command in [
        &["dead", "discard"][..],
        &["dead", "replay"],
        &["deliveries", "retry"],
        &["quarantine", "release"],
        &["quarantine", "discard"],
    ] {
        let with = |more: &[&'static str]| [command, &["--comment", "a test"], more].concat();
        binary.assert_refused(&with(&[]), "--all");
        binary.assert_refused(&with(&["--yes"]), "--all");
    }
    for verb in ["discard", "replay"] {
        binary.assert_refused(&["dead", verb, "--all", "--yes"], "--comment");
        binary.assert_refused(&["dead", verb, "--all", "--comment", "a test"], "--yes");
        let source = ["dead", verb, "--source", "erp", "--comment", "a test"];
        binary.assert_refused(&source, "--yes");
    }
    assert_eq!(states(&app).await, OPEN, "a refused action changed something");
    assert_eq!(app.count("select count(*) from audit_log").await, 0);

    let preview = binary.json(&["dead", "discard", "--all", "--dry-run"]);
    assert_eq!(preview["count"], 3);
    assert_eq!(preview["reasons"], json!([["missing_field", 2], ["invalid_json", 1]]));
    assert!(preview["oldest"].as_str() <= preview["newest"].as_str(), "{preview}");
    assert_eq!(states(&app).await, OPEN, "a dry run changed something");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operator_discard_by_id_needs_comment_and_no_confirmation() {
    let app = with_dead_letters().await;
    let binary = Binary::new(&app);
    let listed = binary.json(&["dead", "list", "--reason", "missing_field"]);
    let id = listed[0]["dead_letter_id"].as_str().unwrap();
    binary.assert_refused(&["dead", "discard", id], "--comment");
    let result = binary.json(&["dead", "discard", id, "--comment", "a test", "--actor", "bert"]);
    assert_eq!((&result["selected"], &result["discarded"]), (&json!(1), &json!(1)));
    assert_eq!(
        states(&app).await,
        "invalid_json open, missing_field discarded, missing_field open"
    );
    let history = binary.json(&["dead", "show", id])["history"].clone();
    assert_eq!(
        (&history[0]["actor"], &history[0]["action"], &history[0]["comment"]),
        (&json!("bert"), &json!("discard"), &json!("a test"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operator_dead_letter_ids_not_found_are_failures() {
    let app = with_dead_letters().await;
    let binary = Binary::new(&app);
    let unknown = "0190a6b8-0000-7000-8000-000000000001";
    for verb in ["discard", "replay"] {
        let none = ["dead", verb, unknown, "--comment", "a test"];
        let Run { code, stdout, stderr } = binary.run(&none);
        assert_eq!(code, 1, "{verb}: {stdout}{stderr}");
        assert!(stdout.contains("0 of 1"), "{verb}: {stdout}");
        assert!(stderr.contains(unknown) && stderr.contains("does not exist"), "{verb}: {stderr}");
        let json = binary.run(&[&none[..], &["--json"]].concat());
        let json: Value = serde_json::from_str(&json.stdout).unwrap();
        assert_eq!(json["failed"].as_array().unwrap().len(), 1, "{verb}: {json}");
    }
    assert_eq!(states(&app).await, OPEN);
    // A replay of nothing is no run.
    assert_eq!(app.count("select count(*) from replays").await, 0);

    let listed = binary.json(&["dead", "list", "--reason", "missing_field"]);
    let ids = [0, 1].map(|row: usize| listed[row]["dead_letter_id"].as_str().unwrap());
    for (verb, id) in [("replay", ids[0]), ("discard", ids[1])] {
        let partly = binary.run(&["dead", verb, id, unknown, "--comment", "a test"]);
        assert_eq!(partly.code, 3, "{verb}: {}{}", partly.stdout, partly.stderr);
        assert!(partly.stdout.contains("1 of 2"), "{verb}: {}", partly.stdout);
        assert!(partly.stderr.contains(unknown), "{verb}: {}", partly.stderr);
    }
    assert_eq!(app.count("select count(*) from replays").await, 1);
    assert_eq!(
        states(&app).await,
        "invalid_json open, missing_field discarded, missing_field replayed"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operator_several_named_ids_print_summary_without_question() {
    let app = with_dead_letters().await;
    let binary = Binary::new(&app);
    let listed = binary.json(&["dead", "list", "--reason", "missing_field"]);
    let ids = [0, 1].map(|row: usize| listed[row]["dead_letter_id"].as_str().unwrap());
    let run = binary.run(&["dead", "discard", ids[0], ids[1], "--comment", "a test"]);
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    for part in ["2 dead letters will be discarded", "2  missing_field", "2 of 2"] {
        assert!(run.stdout.contains(part), "{part:?} in {}", run.stdout);
    }
}
