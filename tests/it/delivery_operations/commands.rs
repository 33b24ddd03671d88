//! The commands: deliveries, reissue, dead, trace, audit.

use std::process::Command;

use serde_json::{Value, json};
use tallyhook::domain::ReasonCode;
use uuid::Uuid;

use super::{
    DESTINATIONS, Delivery, REQUEST, app_with_invoice, assert_sound, delivered, failed,
    newest_delivery, send, state,
};
use crate::support::{ERP, TestApp, erp_invoice};

/// The binary with a test app's database and broker.
pub(super) struct Binary {
    folder: tempfile::TempDir,
}

impl Binary {
    pub(super) fn on(app: &TestApp, destinations: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = format!(
            "[broker]\nurl = '{}'\nprefix = '{}'\n[database]\nurl = '{}'\n{ERP}{destinations}",
            app.config.broker.url, app.config.broker.prefix, app.config.database.url,
        );
        std::fs::write(folder.path().join("config.toml"), config).unwrap();
        Self { folder }
    }

    /// Runs a command; returns its exit code and its output.
    pub(super) fn run(&self, arguments: &[&str]) -> (i32, String) {
        let (code, stdout, stderr) = self.output(arguments);
        (code, stdout + &stderr)
    }

    fn output(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_tallyhook"))
            .arg("--config")
            .arg(self.folder.path().join("config.toml"))
            .env("SECRET", "a secret of the tests")
            .env("TALLYHOOK_OPERATOR", "ann")
            .args(arguments)
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let (code, stdout, stderr) = self.output(&[arguments, &["--json"]].concat());
        assert_eq!(code, 0, "{arguments:?}: {stdout}{stderr}");
        serde_json::from_str(&stdout).unwrap()
    }
}

/// An invoice whose deliveries to `accounting` and `events` are delivered and whose delivery to
/// `ledger` was refused, in this order.
async fn with_three_deliveries() -> (TestApp, [Delivery; 3]) {
    let app = app_with_invoice().await;
    let [accounting, ledger, queue] = [
        newest_delivery(&app, "accounting").await,
        newest_delivery(&app, "ledger").await,
        newest_delivery(&app, "events").await,
    ];
    send(&app, accounting.delivery_id, delivered("INV-7"), Some(201)).await;
    send(&app, queue.delivery_id, delivered("1"), None).await;
    send(&app, ledger.delivery_id, failed(ReasonCode::DeliveryRefused), Some(422)).await;
    (app, [accounting, ledger, queue])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delivery_commands_list_show_and_trace_find_deliveries() {
    let (app, [accounting, ledger, _]) = with_three_deliveries().await;
    let binary = Binary::on(&app, DESTINATIONS);
    let id = accounting.delivery_id.to_string();

    // `deliveries list` with each of its filters.
    let listed = |arguments: &[&str]| {
        let found = binary.json(&[&["deliveries", "list"], arguments].concat());
        found.as_array().unwrap().len()
    };
    let receipt = app.text("select receipt_id::text from receipts").await;
    let key =
        app.text("select idempotency_key::text from deliveries where is_mirror limit 1").await;
    for (arguments, count) in [
        (&[][..], 3),
        (&["--limit", "2"], 2),
        (&["--state", "delivered"], 2),
        (&["--state", "voided"], 0),
        (&["--destination", "accounting", "--source", "erp"], 1),
        (&["--source", "shop"], 0),
        (&["--number", "I-1"], 3),
        (&["--number", "INV-7"], 1),
        (&["--number", &accounting.document_id], 3),
        (&["--number", &receipt], 3),
        (&["--number", &key], 1),
        (&["--number", &id], 1),
    ] {
        assert_eq!(listed(arguments), count, "{arguments:?}");
    }
    assert_eq!(binary.run(&["deliveries", "list", "--state", "lost"]).0, 2);
    assert_eq!(binary.run(&["deliveries", "show", &Uuid::nil().to_string()]).0, 1);
    let (code, output_text) = binary.run(&["deliveries", "show", &ledger.delivery_id.to_string()]);
    assert_eq!(code, 0, "{output_text}");
    for expected in [REQUEST, "{\"answered\":422}", "open, delivery_refused"] {
        assert!(output_text.contains(expected), "{expected} is not in {output_text}");
    }
    for what in ["I-1", "INV-7", &receipt, &key, &id] {
        let story = binary.json(&["trace", what]);
        let actual = story["deliveries"].as_array().unwrap();
        assert!(
            actual.iter().any(|delivery| delivery["delivery_id"] == id.as_str()),
            "{what}: {story:#}"
        );
    }
    assert_eq!(binary.json(&["trace", "I-1"])["deliveries"].as_array().unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delivery_commands_void_reissue_and_retry() {
    let (app, [accounting, ledger, queue]) = with_three_deliveries().await;
    let binary = Binary::on(&app, DESTINATIONS);
    let id = accounting.delivery_id.to_string();

    // A void needs a comment and selects one delivery.
    assert_eq!(binary.run(&["deliveries", "void", &id]).0, 2);
    assert_eq!(binary.run(&["deliveries", "void", &id, "--comment", " "]).0, 2);
    assert_eq!(binary.run(&["deliveries", "void", "--comment", "why"]).0, 2);
    let several = binary.run(&["deliveries", "void", "--number", "I-1", "--comment", "why"]);
    assert!(several.0 == 1 && several.1.contains(&id), "{several:?}");
    let early = binary.run(&["reissue", &id, "--comment", "why", "--gone"]);
    assert!(early.0 == 1 && early.1.contains("void it first"), "{early:?}");
    let void = [
        "deliveries",
        "void",
        "--number",
        "I-1",
        "--destination",
        "accounting",
        "--comment",
        "why",
    ];
    let voided = binary.run(&void);
    assert!(voided.0 == 0 && voided.1.contains(&format!("reissue {id}")), "{voided:?}");
    assert!(voided.1.contains("INV-7"), "{voided:?}");
    assert_eq!(binary.run(&void).0, 1, "none is left");
    let queued = queue.delivery_id.to_string();
    let partly = binary.run(&["deliveries", "void", &id, &queued, "--comment", "why"]);
    assert!(partly.0 == 3 && partly.1.contains("is voided"), "{partly:?}");

    // A re-issue of an uncertain delivery needs confirmation, and works once.
    let unconfirmed = binary.run(&["reissue", &id, "--comment", "why"]);
    assert!(unconfirmed.0 == 1 && unconfirmed.1.contains("--gone"), "{unconfirmed:?}");
    let confirmed = binary.run(&["reissue", &id, "--comment", "why", "--gone", "--actor", "bert"]);
    assert!(confirmed.0 == 0 && confirmed.1.contains("issue 1"), "{confirmed:?}");
    let twice = binary.run(&["reissue", &id, "--comment", "why", "--gone"]);
    assert!(twice.0 == 1 && twice.1.contains("re-issued before"), "{twice:?}");
    let queued = binary.json(&["reissue", &queued, "--comment", "why", "--gone"]);
    assert_eq!((&queued["issue"], &queued["destination"]), (&json!(1), &json!("events")));
    let history = binary.json(&["deliveries", "show", &id])["history"].clone();
    let history: Vec<_> = history
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (&entry["action"], &entry["actor"]))
        .collect();
    assert_eq!(history, [(&json!("void"), &json!("ann")), (&json!("reissue"), &json!("bert"))]);

    // Only failed deliveries are retried.
    assert_eq!(binary.run(&["deliveries", "retry"]).0, 2, "which one?");
    assert_eq!(binary.run(&["deliveries", "retry", "--state", "failed"]).0, 2, "no filter");
    assert_eq!(binary.run(&["deliveries", "retry", "--state", "pending", "--all"]).0, 2);
    let failed = ["deliveries", "retry", "--state", "failed", "--destination", "ledger"];
    let preview = binary.json(&[&failed[..], &["--dry-run"]].concat());
    assert_eq!((&preview["count"], &preview["dry_run"]), (&json!(1), &json!(true)));
    let other = ledger.delivery_id.to_string();
    let mismatch = binary.run(&["deliveries", "retry", &other, "--destination", "accounting"]);
    assert!(
        mismatch.0 == 1 && mismatch.1.contains("does not match the other conditions"),
        "{mismatch:?}"
    );
    assert_eq!(state(&app, ledger.delivery_id).await, "failed");
    let mixed = ["deliveries", "retry", &id, &other];
    assert_eq!(binary.run(&mixed).0, 2, "why?");
    let mixed = binary.run(&[&mixed[..], &["--comment", "corrected"]].concat());
    assert_eq!(mixed.0, 3, "{mixed:?}");
    assert_eq!(state(&app, ledger.delivery_id).await, "pending");
    let late = binary.run(&["deliveries", "retry", &other]);
    assert!(late.0 == 1 && late.1.contains("only failed deliveries"), "{late:?}");

    let audit = binary.json(&["audit"]);
    assert_eq!(audit["wrong"], json!([]), "{audit:#}");
    assert_eq!(audit["deliveries"].as_array().unwrap().len(), 5, "{audit:#}");
    app.execute("update invoices set mirrored_at = now()").await;
    let audit = binary.run(&["audit"]);
    assert!(
        audit.0 == 1 && audit.1.contains("marked as mirrored without a delivered mirror"),
        "{audit:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_commands_handle_dead_letters_of_deliveries() {
    let app = app_with_invoice().await;
    for destination in ["accounting", "ledger"] {
        let id = newest_delivery(&app, destination).await.delivery_id;
        send(&app, id, failed(ReasonCode::DeliveryRefused), Some(422)).await;
    }
    // And the dead letter of a message.
    let mut poison = erp_invoice("I-2", 1, "1.00");
    poison.body = "{}".into();
    app.publish_all(&[poison]).await;
    app.consumer("erp").await.drain(1).await;
    let binary = Binary::on(&app, DESTINATIONS);
    assert_eq!(binary.json(&["dead", "drain"])["drained"], 1);
    assert_eq!(binary.json(&["dead", "list"]).as_array().unwrap().len(), 3);
    let (_, output_text) = binary.run(&["dead", "list"]);
    assert!(output_text.contains("SOURCE > DESTINATION"), "{output_text}");
    let mine = binary.json(&["dead", "list", "--destination", "accounting"]);
    let id = mine[0]["dead_letter_id"].as_str().unwrap();
    assert_eq!(mine.as_array().unwrap().len(), 1);
    let (_, output_text) = binary.run(&["dead", "show", id]);
    for expected in [REQUEST, "{\"answered\":422}", "accounting", "deliveries show"] {
        assert!(output_text.contains(expected), "{expected} is not in {output_text}");
    }
    let (code, exported) = binary.run(&["dead", "export"]);
    assert_eq!((code, exported.lines().count()), (0, 3), "{exported}");

    let sent = binary.json(&["dead", "replay", "--all", "--yes", "--comment", "corrected"]);
    assert_eq!((&sent["sent"], &sent["failed"]), (&json!(3), &json!([])));
    let outcomes = "select string_agg(state, ' ' order by destination) from deliveries";
    assert_eq!(app.text(outcomes).await, "pending pending pending");
    app.consumer("erp").await.drain(1).await;
    app.archive_dead_letters(1).await;
    let accounting = newest_delivery(&app, "accounting").await.delivery_id;
    send(&app, accounting, failed(ReasonCode::DeliveryRefused), Some(422)).await;
    let gone = ["dead", "discard", "--destination", "accounting", "--yes", "--comment", "not ours"];
    assert_eq!(binary.json(&gone)["discarded"], 1);
    assert_eq!(state(&app, accounting).await, "voided");
    assert_eq!(binary.json(&["audit"])["wrong"], json!([]));
    assert_sound(&app).await;
}
