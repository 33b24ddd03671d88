//! The binary as operators run it: serve, check, dead, audit, trace. Its workers are killed, and an
//! independent program signs the requests.

use std::{
    collections::BTreeMap,
    io::Write as _,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sqlx::Connection as _;
use tokio::process::Child;
use uuid::Uuid;

use crate::support::{RawAmqpClient, servers};

const SECRET: &str = "a secret of the tests";

/// An empty database, a queue prefix, configuration files, and the binary's commands on them.
struct CliEnvironment {
    database_url: String,
    prefix: String,
    folder: tempfile::TempDir,
    receiver: String,
}

impl CliEnvironment {
    async fn new() -> Self {
        let urls = servers::shared();
        let prefix = format!("t{}", Uuid::now_v7().simple());
        let database_url = urls.create_empty_database(&prefix).await;
        let folder = tempfile::tempdir().unwrap();
        let [receiver, operations, second] = free_ports();
        for (name, operations) in [("config.toml", operations), ("second.toml", second)] {
            let config = format!(
                "[receiver]\nlisten = '127.0.0.1:{receiver}'\n\
                 [operations]\nlisten = '127.0.0.1:{operations}'\n\
                 [broker]\nurl = '{}'\nprefix = '{prefix}'\n\
                 [database]\nurl = '{database_url}'\n\
                 [retry]\ninitial_delay_ms = 100\nmax_retries = 1\n\
                 [sources.shop]\nkind = 'shopify'\nsecrets = ['env:SHOP_SECRET']\nquarantine_limit = 9\n",
                urls.rabbitmq,
            );
            std::fs::write(folder.path().join(name), config).unwrap();
        }
        let receiver = format!("http://127.0.0.1:{receiver}/hooks/shop");
        Self { database_url, prefix, folder, receiver }
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("config.toml")
    }

    /// Runs a command to its end.
    fn run(&self, arguments: &[&str]) -> Output {
        tallyhook(&self.config()).args(arguments).stdin(Stdio::null()).output().unwrap()
    }

    /// Runs a command that must succeed, for its JSON.
    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", output_text(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Starts a role and leaves it running until it is killed or dropped.
    fn serve(&self, only: &str, config: &str) -> Child {
        let path = self.folder.path().join(config);
        let mut command = tokio::process::Command::from(tallyhook(&path));
        command.args(["serve", "--only", only]).kill_on_drop(true);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Waits until every accepted message has an outcome.
    async fn await_outcomes(&self, accepted: i64) -> Value {
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            let audit = self.json(&["audit", "--json"]);
            if audit["waiting"] == 0 && audit["accounted"].as_i64() >= Some(accepted) {
                return audit;
            }
            assert!(Instant::now() < deadline, "{accepted} were accepted: {audit:#}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

fn free_ports<const N: usize>() -> [u16; N] {
    // All are open at the same time, so that no two ports are equal.
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

fn tallyhook(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tallyhook"));
    command.arg("--config").arg(config).env("SHOP_SECRET", SECRET).env("TALLYHOOK_OPERATOR", "ann");
    command
}

fn output_text(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

/// Signs with OpenSSL instead of the product's code.
fn openssl_signature(body: &str, secret: &str) -> String {
    let sign = |arguments: &[&str], input: &[u8]| {
        let mut program = Command::new("openssl")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        program.stdin.take().unwrap().write_all(input).unwrap();
        program.wait_with_output().unwrap().stdout
    };
    let mac = sign(&["dgst", "-sha256", "-hmac", secret, "-binary"], body.as_bytes());
    assert_eq!(mac.len(), 32, "openssl did not sign");
    String::from_utf8(sign(&["base64", "-A"], &mac)).unwrap().trim().to_owned()
}

async fn post(client: &reqwest::Client, url: &str, event_id: &str, body: &str) -> u16 {
    post_signed(client, url, event_id, body, SECRET).await
}

async fn post_signed(
    client: &reqwest::Client,
    url: &str,
    event_id: &str,
    body: &str,
    secret: &str,
) -> u16 {
    let request = client
        .post(url)
        .header("content-type", "application/json")
        .header("x-shopify-topic", "orders/create")
        .header("x-shopify-shop-domain", "demo.myshopify.com")
        .header("x-shopify-webhook-id", event_id)
        .header("x-shopify-hmac-sha256", openssl_signature(body, secret))
        .body(body.to_owned());
    // A refused connection means that the process has not started yet.
    request.send().await.map_or(0, |response| response.status().as_u16())
}

fn order(id: u64) -> String {
    json!({
        "id": id, "name": format!("#{id}"), "financial_status": "paid", "currency": "EUR",
        "total_price": "12.50", "updated_at": "2026-01-02T03:04:05Z", "line_items": [],
    })
    .to_string()
}

fn client() -> reqwest::Client {
    // Another test may have been first.
    drop(rustls::crypto::ring::default_provider().install_default());
    let timeout = Duration::from_secs(10);
    reqwest::Client::builder().timeout(timeout).no_proxy().build().unwrap()
}

/// Posts until it is accepted, as platforms do.
async fn post_until_accepted(client: &reqwest::Client, url: &str, event_id: &str, body: &str) {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        match post(client, url, event_id, body).await {
            200 => return,
            0 | 503 => assert!(Instant::now() < deadline, "never accepted"),
            other => panic!("answered {other}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cli_commands_report_the_same_messages() {
    let cli = CliEnvironment::new().await;

    let check = cli.run(&["check"]);
    assert_eq!(check.status.code(), Some(1), "{}", output_text(&check));
    assert!(output_text(&check).contains("tallyhook migrate"), "{}", output_text(&check));
    assert!(cli.run(&["migrate"]).status.success());
    assert!(output_text(&cli.run(&["migrate"])).contains("up to date"));
    let check = cli.run(&["check"]);
    assert!(check.status.success(), "{}", output_text(&check));
    for part in ["keys are remembered for 60 d; needed: ", "1 partitions, "] {
        assert!(output_text(&check).contains(part), "{}", output_text(&check));
    }

    let receiver = cli.serve("receiver", "config.toml");
    let mut worker = cli.serve("worker", "second.toml");
    let client = client();

    // Three concurrent posts of one order.
    post_until_accepted(&client, &cli.receiver, "warm-up", &order(1)).await;
    let body = order(1001);
    let posts = (0..3).map(|_| post(&client, &cli.receiver, "event-1", &body));
    assert_eq!(futures_util::future::join_all(posts).await, [200, 200, 200]);
    let poison = r##"{"id": 7, "name": "#7", "currency": "EUR"}"##;
    assert_eq!(post(&client, &cli.receiver, "event-2", poison).await, 200);
    let audit = cli.await_outcomes(5).await;
    let totals = &audit["sums"];
    assert_eq!(
        (&totals["applied"], &totals["duplicate"], &totals["dead"]),
        (&json!(2), &json!(2), &json!(1))
    );
    assert!(cli.run(&["audit", "--accepted", "5"]).status.success());
    let short = cli.run(&["audit", "--accepted", "6"]);
    assert_eq!(short.status.code(), Some(1));
    assert!(
        output_text(&short).contains("6 were accepted, but 5 are accounted for"),
        "{}",
        output_text(&short)
    );

    let story = cli.json(&["trace", "#1001", "--json"]);
    assert_eq!(story["documents"].as_array().unwrap().len(), 1);
    assert_eq!(story["messages"].as_array().unwrap().len(), 3);
    assert_eq!(cli.run(&["trace", "#404"]).status.code(), Some(1));

    // `dead list` with each of its filters.
    let listed = |arguments: &[&str]| {
        let arguments: Vec<&str> =
            ["dead", "list", "--json"].iter().chain(arguments).copied().collect();
        cli.json(&arguments).as_array().unwrap().len()
    };
    for (arguments, count) in [
        (&["--reason", "missing_field"][..], 1),
        (&["--reason", "invalid_json"], 0),
        (&["--number", "#7"], 1),
        (&["--source", "shop", "--topic", "orders/create", "--since", "1h"], 1),
        (&["--until", "1h"], 0),
        (&["--state", "discarded"], 0),
    ] {
        assert_eq!(listed(arguments), count, "{arguments:?}");
    }
    assert_eq!(cli.run(&["dead", "list", "--reason", "nonsense"]).status.code(), Some(2));
    let id =
        cli.json(&["dead", "list", "--json"])[0]["dead_letter_id"].as_str().unwrap().to_owned();
    let shown = cli.json(&["dead", "show", &id, "--json"]);
    assert_eq!(shown["payload"], poison);
    let exported = cli.run(&["dead", "export"]);
    let line: Value = serde_json::from_slice(&exported.stdout).unwrap();
    assert_eq!(line["dead_letter_id"], shown["dead_letter_id"]);

    // A replay that fails again reopens the dead letter. A discard needs a comment.
    let replay = cli.json(&["dead", "replay", &id, "--json"]);
    assert_eq!(replay["sent"], 1);
    let deadline = Instant::now() + Duration::from_secs(20);
    while listed(&["--since", "1h"]) == 0 {
        assert!(Instant::now() < deadline, "the replayed message did not fail again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for refused in [&["dead", "discard", &id][..], &["dead", "discard", "--comment", "all of it"]] {
        let output = cli.run(refused);
        assert_eq!(output.status.code(), Some(2), "{}", output_text(&output));
    }
    assert_eq!(listed(&[]), 1);
    let preview = cli.json(&["dead", "discard", "--all", "--dry-run", "--json"]);
    assert_eq!(
        (&preview["count"], &preview["reasons"]),
        (&json!(1), &json!([["missing_field", 1]]))
    );
    assert!(cli.run(&["dead", "discard", &id, "--comment", "a test"]).status.success());
    let history = cli.json(&["dead", "show", &id, "--json"])["history"].clone();
    let history: Vec<_> = history
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (&entry["action"], &entry["actor"]))
        .collect();
    assert_eq!(history, [(&json!("replay"), &json!("ann")), (&json!("discard"), &json!("ann"))]);

    // Without a worker the broker's own dead-letter queue can be drained by hand.
    worker.kill().await.unwrap();
    cli.publish_foreign_dead_letter().await;
    assert_eq!(cli.json(&["dead", "drain", "--dry-run", "--json"])["waiting"], 1);
    assert_eq!(cli.json(&["dead", "drain", "--json"])["drained"], 1);
    assert_eq!(listed(&["--reason", "delivery_limit"]), 1);
    assert!(cli.run(&["audit"]).status.success());
    drop(receiver);
}

impl CliEnvironment {
    /// Publishes a message to the dead-letter queue without the headers of our worker.
    async fn publish_foreign_dead_letter(&self) {
        let amqp = RawAmqpClient::open(&servers::shared().rabbitmq).await;
        let exchange = format!("{}.dead", self.prefix);
        amqp.publish(&exchange, "shop", Some("by-hand"), &[], b"{}").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cli_quarantine_release_applies_after_secret_is_corrected() {
    let cli = CliEnvironment::new().await;
    assert!(cli.run(&["migrate"]).status.success());
    let _receiver = cli.serve("receiver", "config.toml");
    let _worker = cli.serve("worker", "second.toml");
    let client = client();
    post_until_accepted(&client, &cli.receiver, "warm-up", &order(1)).await;
    cli.await_outcomes(1).await;

    let list = || cli.json(&["quarantine", "list", "--source", "shop", "--json"]);
    for (count, secret) in [(1, "the new secret"), (2, "an unknown secret")] {
        let body = order(count);
        let deadline = Instant::now() + Duration::from_secs(20);
        // The receiver records one such request per second.
        while list().as_array().unwrap().len() < usize::try_from(count).unwrap() {
            assert!(Instant::now() < deadline, "the request was not quarantined");
            let sent = post_signed(&client, &cli.receiver, "forged", &body, secret).await;
            assert_eq!(sent, 401);
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
    let id = list()[0]["receipt_id"].as_str().unwrap().to_owned();
    assert_eq!(cli.json(&["quarantine", "show", &id, "--json"])["payload"], order(1));
    assert!(
        output_text(&cli.run(&["quarantine", "show", &id])).contains("x-shopify-topic: orders")
    );

    let code = |output: &Output| (output.status.code(), output_text(output));
    let (refused, text) = code(&cli.run(&["quarantine", "release", &id]));
    assert_eq!(refused, Some(1), "{text}");
    assert!(text.contains("still rejected"), "{text}");
    assert_eq!(code(&cli.run(&["quarantine", "release"])).0, Some(2), "which one?");
    assert_eq!(code(&cli.run(&["quarantine", "release", "--all"])).0, Some(2), "why?");
    let release = tallyhook(&cli.config())
        .env("SHOP_SECRET", "the new secret")
        .args(["quarantine", "release", "--source", "shop", "--comment", "rotated"])
        .args(["--yes", "--json"])
        .output()
        .unwrap();
    let (partly, text) = code(&release);
    assert_eq!(partly, Some(3), "{text}");
    let result: Value = serde_json::from_slice(&release.stdout).unwrap();
    assert_eq!((&result["released"], &result["events"]), (&json!(1), &json!(1)), "{text}");
    let audit = cli.await_outcomes(2).await;
    assert_eq!(audit["sums"]["applied"], 2, "{audit:#}");
    assert_eq!(audit["refused_in_queue"], 0, "{audit:#}");
    let left = list()[0]["receipt_id"].as_str().unwrap().to_owned();
    let discard = ["quarantine", "discard", &left, "--comment", "unknown sender"];
    assert!(cli.run(&discard).status.success());
    assert_eq!(list(), json!([]));

    // The secret was last used long ago, another one since.
    assert!(!output_text(&cli.run(&["check"])).contains("warn "));
    let mut session = sqlx::PgConnection::connect(&cli.database_url).await.unwrap();
    let rotated = "update secret_uses set last_used_at = now() - interval '31 days';
                   insert into secret_uses values ('shop', 'env:NEWER', now())";
    sqlx::raw_sql(rotated).execute(&mut session).await.unwrap();
    let (well, text) = code(&cli.run(&["check"]));
    assert_eq!(well, Some(0), "{text}");
    assert!(text.contains("warn   secrets") && text.contains("env:SHOP_SECRET of shop"), "{text}");
    let findings = cli.json(&["check", "--json"]);
    assert_eq!(findings["ok"], true);
    let warned = |finding: &&Value| finding["warning"] == true;
    assert_eq!(findings["findings"].as_array().unwrap().iter().filter(warned).count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cli_worker_killed_repeatedly_applies_each_event_once() {
    let cli = CliEnvironment::new().await;
    assert!(cli.run(&["migrate"]).status.success());
    let _receiver = cli.serve("receiver", "config.toml");
    let client = client();
    post_until_accepted(&client, &cli.receiver, "0", &order(0)).await;

    let mut worker = cli.serve("worker", "second.toml");
    let mut accepted = BTreeMap::from([(0, 1)]);
    for round in 1..=4_u64 {
        let orders = round * 1000..round * 1000 + 60;
        let posts = orders.clone().flat_map(|id| {
            // Every third one twice.
            let copies = if id % 3 == 0 { 2 } else { 1 };
            (0..copies).map(move |_| id)
        });
        let load = async {
            for id in posts {
                post_until_accepted(&client, &cli.receiver, &id.to_string(), &order(id)).await;
                *accepted.entry(id).or_insert(0) += 1;
            }
        };
        let murder = async {
            tokio::time::sleep(Duration::from_millis(150 * round)).await;
            worker.kill().await.unwrap();
            worker = cli.serve("worker", "second.toml");
        };
        tokio::join!(load, murder);
    }
    let total: i64 = accepted.values().sum();
    let audit = cli.await_outcomes(total).await;
    let orders = i64::try_from(accepted.len()).unwrap();
    assert_eq!(audit["sums"]["applied"], orders, "{audit:#}");
    assert_eq!(audit["sums"]["duplicate"], total - orders, "{audit:#}");
    assert_eq!(audit["wrong"], json!([]));
    assert!(cli.run(&["audit", "--accepted", &total.to_string()]).status.success());
}

#[test]
fn cli_invalid_configuration_names_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    for (text, expected) in [
        ("[sources.shop]\nkind = 'shopify'\nsecrets = ['env:NOT_THERE']\n", "NOT_THERE"),
        ("[receiver]\nlisten = 'nowhere'\n", "receiver.listen"),
        ("[sources.shop\n", "expected"),
    ] {
        std::fs::write(&path, text).unwrap();
        for command in ["check", "serve", "migrate"] {
            let output = tallyhook(&path).arg(command).output().unwrap();
            assert_eq!(
                output.status.code(),
                Some(1),
                "{command} {text:?}: {}",
                output_text(&output)
            );
            assert!(
                output_text(&output).contains(expected),
                "{command} {text:?}: {}",
                output_text(&output)
            );
        }
    }
    let missing = tallyhook(&folder.path().join("none.toml")).arg("check").output().unwrap();
    assert!(output_text(&missing).contains("none.toml"), "{}", output_text(&missing));
    let usage = tallyhook(&path).arg("dance").output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
}

#[test]
fn cli_unreachable_servers_are_named_without_password() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    let [closed_port] = free_ports();
    let config = format!(
        "[broker]\nurl = 'amqp://ann:hunter2@127.0.0.1:{closed_port}/%2f'\n\
         [database]\nurl = 'postgres://ann:hunter2@127.0.0.1:{closed_port}/none'\n\
         connect_timeout_ms = 500\n\
         [sources.shop]\nkind = 'shopify'\nsecrets = ['env:SHOP_SECRET']\n"
    );
    std::fs::write(&path, config).unwrap();
    let output = tallyhook(&path).arg("check").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let actual = output_text(&output);
    assert!(actual.contains("database.url") && actual.contains("broker.url"), "{actual}");
    assert!(!actual.contains("hunter2"), "{actual}");
}
