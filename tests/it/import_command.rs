//! `tallyhook import` as operators run it: its output, its files and its exit codes.

use std::{
    path::PathBuf,
    process::{Output, Stdio},
    sync::{Arc, OnceLock},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tallyhook::app::Roles;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    process::Command,
    sync::Mutex,
};

use crate::support::{TestApp, TestServer, eventually, seconds};

const VENDORS: &str = "
[sources.vendors]
kind = 'import'
secrets = ['env:TOKEN']
[sources.vendors.invoice]
transaction_id = 'transaction'
";
const SUPPLIERS: &str = "
[sources.suppliers]
kind = 'import'
secrets = ['env:TOKEN']
";

const HEADER: &str = "vendor,invoice_number,transaction,amount,currency,due_date\n";

/// So many invoices of one vendor.
fn invoices(count: u32) -> String {
    let row = |number| format!("ACME,A-{number},T-{number},{number}.50,EUR,2026-03-01\n");
    HEADER.to_owned() + &(1..=count).map(row).collect::<String>()
}

/// A service, the binary's configuration for it, and a folder for files.
struct Stage {
    app: TestApp,
    server: TestServer,
    folder: tempfile::TempDir,
}

impl Stage {
    async fn set(roles: Roles) -> Self {
        let app = TestApp::with(&[VENDORS], |_| ()).await;
        let server = TestServer::start(&app.config, roles).await;
        let stage = Self { app, server, folder: tempfile::tempdir().unwrap() };
        stage.configure(&[VENDORS]);
        stage
    }

    /// Writes a configuration with these sources.
    fn configure(&self, sources: &[&str]) {
        let config = format!(
            "[broker]\nurl = '{}'\nprefix = '{}'\n[database]\nurl = '{}'\n{}",
            self.app.config.broker.url,
            self.app.config.broker.prefix,
            self.app.config.database.url,
            sources.concat()
        );
        self.write("config.toml", &config);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    fn command(&self, url: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tallyhook"));
        command.current_dir(self.folder.path()).env("TOKEN", "a-token-of-the-tests");
        command.args(["--config", "config.toml", "import"]).args(arguments);
        // A check sends nothing, so it takes no receiver.
        if !arguments.contains(&"--check") {
            command.args(["--url", url]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true);
        command
    }

    /// Runs the command; returns its exit code and its output.
    async fn run(&self, arguments: &[&str]) -> (i32, String) {
        output_text(&self.command(&self.server.url(""), arguments).output().await.unwrap())
    }

    /// Runs the command for its JSON.
    async fn json(&self, arguments: &[&str]) -> (i32, Value) {
        let arguments = [arguments, &["--json"]].concat();
        let output = self.command(&self.server.url(""), &arguments).output().await.unwrap();
        let (code, text) = output_text(&output);
        let json = serde_json::from_slice(&output.stdout);
        (code, json.unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}")))
    }

    async fn stop(self) {
        self.server.stop().await;
    }
}

fn output_text(output: &Output) -> (i32, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout) + &text(&output.stderr))
}

#[track_caller]
fn assert_output((code, text): &(i32, String), expected_code: i32, expected: &[&str]) {
    assert_eq!(*code, expected_code, "{text}");
    for part in expected {
        assert!(text.contains(part), "{part:?} in {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn import_command_same_file_twice_reports_duplicates() {
    let stage = Stage::set(Roles::ALL).await;
    stage.write("may.csv", &invoices(1200));

    let check = stage.run(&["may.csv", "--check"]).await;
    assert_output(&check, 0, &["checked, nothing was sent", "would be created", "1200"]);
    assert_eq!(stage.app.count("select count(*) from receipts").await, 0, "a check sent something");

    let first = stage.run(&["may.csv", "--report", "may.json"]).await;
    assert_output(
        &first,
        0,
        &["may.csv at vendors, import ", "Every item has a final outcome.", "1200"],
    );
    assert!(!first.1.contains("WARNING"), "{}", first.1);
    assert_eq!(stage.app.count("select count(*) from invoices").await, 1200);
    let report: Value = serde_json::from_str(&stage.read("may.json")).unwrap();
    let items = report["items"].as_array().unwrap();
    assert_eq!(items.len(), 1200, "the report has pages, and is to have them all");
    assert_eq!(items[0]["line"], 2);
    assert_eq!((&items[0]["write_kind"], &items[0]["number"]), (&json!("created"), &json!("A-1")));
    let totals = &report["import"];
    assert_eq!((&totals["created"], &totals["total"]), (&json!(1200), &json!(1200)));

    let check = stage.run(&["may.csv", "--check"]).await;
    assert_output(&check, 0, &["WARNING: 1200 are known already (100.0 %)", "would be duplicate"]);

    let (code, second) = stage.json(&["may.csv"]).await;
    assert_eq!((code, &second["duplicate"], &second["created"]), (0, &json!(1200), &json!(0)));
    assert_eq!((&second["ended"], &second["waiting"]), (&json!("completed"), &json!(0)));
    let again = stage.run(&["--status", second["import_id"].as_str().unwrap()]).await;
    assert_output(&again, 0, &["WARNING: 1200 were known already (100.0 %): duplicates change"]);
    assert_eq!(stage.app.count("select count(*) from invoices").await, 1200);
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn import_command_check_predicts_the_failing_lines() {
    let stage = Stage::set(Roles::ALL).await;
    stage.write("april.csv", &invoices(3));
    assert_output(&stage.run(&["april.csv"]).await, 0, &[]);

    let rows = [
        // A duplicate, a correction, and the same number with another transaction.
        "ACME,A-1,T-1,1.50,EUR,2026-03-01",
        "ACME,A-2,T-2,99.00,EUR,2026-03-01",
        "ACME,A-3,T-9,3.50,EUR,2026-03-01",
        // A new invoice, its duplicate, and two invalid fields.
        "ACME,B-1,T-1,1.00,EUR,2026-03-01",
        "ACME,B-1,T-1,1.00,EUR,2026-03-01",
        "ACME,B-2,T-2,twelve,EURO,2026-03-01",
    ];
    stage.write("may.csv", &(HEADER.to_owned() + &rows.join("\n")));
    let check = stage.run(&["may.csv", "--check", "--report", "check.csv"]).await;
    assert_output(&check, 3, &["would be dead", "would be rejected", "Nothing was sent."]);

    let sent = stage.run(&["may.csv", "--report", "sent.csv"]).await;
    let hint = "tallyhook dead list --source vendors";
    assert_output(&sent, 3, &["dead:", "transaction T-3", "rejected:", "amount: ", hint]);
    assert!(!sent.1.contains("still wait"), "{}", sent.1);

    let outcomes = |name: &str| -> Vec<Vec<String>> {
        let report = stage.read(name);
        let lines = report.lines().skip(1).filter(|line| line.starts_with(char::is_numeric));
        lines.map(|line| line.split(',').take(3).map(str::to_owned).collect()).collect()
    };
    let expected = [
        ["2", "duplicate", ""],
        ["3", "applied", "updated"],
        ["4", "dead", ""],
        ["5", "applied", "created"],
        ["6", "duplicate", ""],
        ["7", "rejected", ""],
    ];
    assert_eq!(outcomes("check.csv"), expected, "a check must report what an import does");
    let mut sent = outcomes("sent.csv");
    // Either of two identical lines may arrive first.
    if sent[3][1] == "duplicate" {
        let (before, behind) = sent.split_at_mut(4);
        before[3][1..].swap_with_slice(&mut behind[0][1..]);
    }
    assert_eq!(sent, expected);
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn import_command_check_lists_lines_that_would_be_retried() {
    let stage = Stage::set(Roles { receiver: true, worker: false }).await;
    stage
        .app
        .execute(
            "create function not_yet() returns trigger language plpgsql as $$ begin
                 if new.invoice_number = 'A-3' then raise exception 'not yet'; end if;
                 return new; end $$;
             create trigger not_yet before insert on invoices
                 for each row execute function not_yet()",
        )
        .await;
    stage.write("may.csv", &invoices(5));
    let check = stage.run(&["may.csv", "--check", "--report", "check.csv"]).await;
    assert_output(&check, 3, &["would be retried:", "A-3", "not yet", "Nothing was sent."]);
    assert!(!check.1.contains("would be dead:"), "{}", check.1);
    let report = stage.read("check.csv");
    assert_eq!(report.matches("applied,created").count(), 4, "{report}");
    assert!(report.contains("4,retried,,A-3,"), "{report}");
    let (code, json) = stage.json(&["may.csv", "--check"]).await;
    assert_eq!((code, &json["created"], &json["waiting"]), (3, &json!(4), &json!(1)));
    assert_eq!(json["retries"][0]["line"], 4, "{json}");
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn import_command_check_of_locked_rows_says_to_try_later() {
    let stage = Stage::set(Roles { receiver: true, worker: false }).await;
    stage.write("may.csv", &invoices(2));
    let mut worker = stage.app.db.begin().await.unwrap();
    sqlx::query("lock table invoices").execute(&mut *worker).await.unwrap();
    let check = stage.run(&["may.csv", "--check"]).await;
    assert_output(&check, 1, &["nothing was changed. Try again later", "55P03"]);
    worker.rollback().await.unwrap();
    assert_output(&stage.run(&["may.csv", "--check"]).await, 0, &["would be created"]);
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn import_command_accepts_every_format_and_reports_interruption() {
    let stage = Stage::set(Roles::ALL).await;
    let object = |number: u32| {
        json!({"vendor": "ACME", "invoice_number": format!("J-{number}"), "transaction": "T",
            "amount": "5.00", "currency": "EUR"})
        .to_string()
    };
    let array = format!("[\n{},\n{}\n]", object(1), object(2));
    stage.write("whole.json", &array);
    assert_output(&stage.run(&["whole.json"]).await, 0, &["created"]);

    // It ends inside an element; the elements before it count.
    stage.write("broken.json", &format!("[\n{},\n{},\n{{\"vendor\": \"AC", object(2), object(3)));
    for check in [true, false] {
        let arguments = if check { &["broken.json", "--check"][..] } else { &["broken.json"] };
        let broken = stage.run(arguments).await;
        assert_output(&broken, 3, &["INTERRUPTED: line ", "WARNING: 1 "]);
    }
    stage.write("nothing.json", "not JSON at all");
    let nothing = stage.run(&["nothing.json"]).await;
    assert_output(&nothing, 1, &["nothing was accepted: the receiver answered 400", "line 1"]);
    assert_output(&stage.run(&["nothing.json", "--check"]).await, 1, &["INTERRUPTED: line 1"]);
    stage.write("empty.csv", HEADER);
    assert_output(&stage.run(&["empty.csv"]).await, 0, &["The file holds no items."]);
    assert_output(&stage.run(&["empty.csv", "--check"]).await, 0, &["The file holds no items."]);

    // From another program, line by line.
    let url = stage.server.url("");
    let mut piped = stage.command(&url, &["-", "--format", "ndjson"]);
    let mut piped = piped.stdin(Stdio::piped()).spawn().unwrap();
    let mut input = piped.stdin.take().unwrap();
    for number in 10..13 {
        input.write_all(format!("{}\n", object(number)).as_bytes()).await.unwrap();
    }
    drop(input);
    let piped = output_text(&piped.wait_with_output().await.unwrap());
    assert_output(&piped, 0, &["a file at vendors", "3"]);
    assert_eq!(stage.app.count("select count(*) from invoices").await, 6);
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn import_command_without_worker_claims_nothing_applied() {
    let stage = Stage::set(Roles { receiver: true, worker: false }).await;
    stage.write("may.csv", &invoices(5));
    let waited = stage.run(&["may.csv", "--timeout", "1"]).await;
    let expected =
        ["5 still wait (no worker has recorded it yet)", "Check that a worker runs.", "?"];
    assert_output(&waited, 3, &expected);
    assert!(!waited.1.contains("WARNING"), "{}", waited.1);
    let (code, sent) = stage.json(&["may.csv", "--no-wait"]).await;
    assert_eq!((code, &sent["waiting"], &sent["created"]), (0, &json!(5), &Value::Null));
    let id = sent["import_id"].as_str().unwrap();
    let unknown = stage.run(&["--status", id]).await;
    assert_output(&unknown, 1, &["is on record"]);

    let worker =
        TestServer::start(&stage.app.config, Roles { receiver: false, worker: true }).await;
    eventually("the import to be completed", seconds(30), || async {
        stage.run(&["--status", id]).await.0 == 0
    })
    .await;
    let (code, later) = stage.json(&["--status", id, "--report", "later.csv"]).await;
    assert_eq!((code, &later["duplicate"], &later["name"]), (0, &json!(5), &json!("may.csv")));
    assert_eq!(stage.read("later.csv").lines().count(), 6);
    worker.stop().await;
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn import_command_upload_errors_are_explained() {
    let stage = Stage::set(Roles { receiver: true, worker: false }).await;
    stage.write("may.csv", &invoices(1));
    // The secret is wrong, and the file is larger than any buffer.
    let rows = HEADER.to_owned() + &"x".repeat(32 * 1024 * 1024);
    stage.write("large.csv", &rows);
    for file in ["may.csv", "large.csv"] {
        let mut command = stage.command(&stage.server.url(""), &[file]);
        let refused = output_text(&command.env("TOKEN", "another-token").output().await.unwrap());
        let expected =
            ["nothing was accepted: the receiver answered 401", "first secret of the source"];
        assert_output(&refused, 1, &expected);
    }
    let missing_file = stage.run(&["none.csv"]).await;
    assert_output(&missing_file, 1, &["nothing was sent: cannot read none.csv"]);
    let folder = stage.run(&[".", "--format", "csv"]).await;
    assert_output(&folder, 1, &["it is a folder"]);

    // A receiver that does not know the source.
    stage.configure(&[SUPPLIERS]);
    let unknown = stage.run(&["may.csv"]).await;
    assert_output(&unknown, 1, &["answered 404", "may not have the source suppliers"]);

    // Invalid arguments are reported before anything is sent.
    stage.configure(&[VENDORS, SUPPLIERS, crate::support::SHOP]);
    let mut shop = stage.command(&stage.server.url(""), &["may.csv"]);
    let ambiguous = output_text(&shop.env("SECRET", "s").output().await.unwrap());
    assert_output(&ambiguous, 2, &["imports are taken by suppliers, vendors"]);
    stage.configure(&[VENDORS]);
    for (arguments, expected) in [
        (&["may.csv", "--source", "shop"][..], "no source shop takes imports, only vendors"),
        (&["may.txt"], "--format"),
        (&["-"], "--format"),
        (&["may.csv", "--report", "out.txt"], ".csv or .json"),
        (&["may.csv", "--no-wait", "--report", "out.csv"], "--report"),
        (&["may.csv", "--report", "./may.csv"], "overwrite the invoices"),
        (&[], "<FILE>"),
    ] {
        assert_output(&stage.run(arguments).await, 2, &[expected]);
    }
    let unwritable = stage.run(&["may.csv", "--report", "none/out.csv"]).await;
    assert_output(&unwritable, 1, &["cannot write the report none/out.csv"]);
    let queue = format!("{}.inbound.vendors", stage.app.config.broker.prefix);
    assert_eq!(stage.app.amqp().await.depth(&queue).await, Some(0), "something was sent");
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn import_command_check_without_database_fails() {
    let stage = Stage::set(Roles { receiver: true, worker: false }).await;
    stage.write("may.csv", &invoices(1));
    let unreachable = "postgres://ann:hunter2@127.0.0.1:1/none";
    let mut command = stage.command("", &["may.csv", "--check"]);
    command.env("TALLYHOOK__DATABASE__URL", unreachable);
    command.env("TALLYHOOK__DATABASE__CONNECT_TIMEOUT_MS", "300");
    let away = output_text(&command.output().await.unwrap());
    assert_output(&away, 1, &["the database cannot be reached"]);
    assert!(!away.1.contains("hunter2"), "{}", away.1);
    stage.stop().await;
}

/// A receiver with prepared responses, one request per connection. It records the requests.
struct Stub {
    url: String,
    calls: Arc<Mutex<Vec<String>>>,
}

impl Stub {
    /// `answer` returns the response to the request of this number.
    async fn start(answer: impl Fn(usize) -> String + Send + 'static) -> Self {
        Self::listen(TcpListener::bind("127.0.0.1:0").await.unwrap(), answer)
    }

    fn listen(listener: TcpListener, answer: impl Fn(usize) -> String + Send + 'static) -> Self {
        let url = format!("http://{}", listener.local_addr().unwrap());
        let calls = Arc::new(Mutex::new(Vec::new()));
        let recorded = Arc::clone(&calls);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut call = Vec::new();
                while !is_whole(&call) {
                    if stream.read_buf(&mut call).await.unwrap_or(0) == 0 {
                        break;
                    }
                }
                let number = {
                    let mut recorded = recorded.lock().await;
                    recorded.push(String::from_utf8_lossy(&call).into_owned());
                    recorded.len() - 1
                };
                drop(stream.write_all(answer(number).as_bytes()).await);
            }
        });
        Self { url, calls }
    }
}

/// Whether a request is complete: a GET has only a head, and a chunked body ends with an empty chunk.
fn is_whole(call: &[u8]) -> bool {
    let end: &[u8] = if call.starts_with(b"GET") { b"\r\n\r\n" } else { b"0\r\n\r\n" };
    call.ends_with(end)
}

fn answer(status: &str, headers: &str, body: &Value) -> String {
    let body = body.to_string();
    format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n{body}",
        body.len()
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn import_command_retries_while_receiver_answers_503() {
    let stage = Stage::set(Roles { receiver: true, worker: false }).await;
    stage.write("may.csv", &invoices(2));
    let not_now = || {
        let detail =
            json!({"detail": "the file could not be taken whole; 1 items are in\u{1b}[2J"});
        answer("503 Service Unavailable", "retry-after: 0\r\n", &detail)
    };
    let busy = Stub::start(move |_| not_now()).await;
    let given_up = output_text(&stage.command(&busy.url, &["may.csv"]).output().await.unwrap());
    assert_output(&given_up, 1, &["answered 503", "1 items are in", "(4 of 4)"]);
    assert!(
        !given_up.1.contains('\u{1b}'),
        "control characters reach the terminal: {:?}",
        given_up.1
    );
    let calls = busy.calls.lock().await;
    assert_eq!(calls.len(), 5);
    for call in calls.iter() {
        let head = call.to_ascii_lowercase();
        assert!(call.starts_with("POST /imports/vendors?name=may.csv HTTP/1.1"), "{call}");
        assert!(head.contains("authorization: bearer a-token-of-the-tests"), "{call}");
        assert!(head.contains("content-type: text/csv"), "{call}");
        assert!(call.contains("ACME,A-2,T-2"), "not all of it was sent again: {call}");
    }

    // Standard input can be read only once, so it is sent once.
    let busy = Stub::start(move |_| not_now()).await;
    let mut piped = stage.command(&busy.url, &["-", "--format", "csv"]);
    let mut piped = piped.stdin(Stdio::piped()).spawn().unwrap();
    piped.stdin.take().unwrap().write_all(invoices(1).as_bytes()).await.unwrap();
    let piped = output_text(&piped.wait_with_output().await.unwrap());
    assert_output(&piped, 1, &["answered 503", "it could be read only once"]);
    assert_eq!(busy.calls.lock().await.len(), 1);

    // While no receiver was reached, standard input is unread and can be sent.
    let away = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, url) =
        (away.local_addr().unwrap(), format!("http://{}", away.local_addr().unwrap()));
    drop(away);
    let mut piped = stage.command(&url, &["-", "--format", "csv", "--no-wait"]);
    let mut piped = piped.stdin(Stdio::piped()).spawn().unwrap();
    piped.stdin.take().unwrap().write_all(invoices(1).as_bytes()).await.unwrap();
    let mut first_byte = [0; 1];
    piped.stderr.as_mut().unwrap().read_exact(&mut first_byte).await.unwrap();
    let accepted = json!({"import_id": "0190a6b8-0000-7000-8000-000000000001", "state": "received",
        "items": 1, "published": 1, "rejected": 0});
    let late = TcpListener::bind(address).await.unwrap();
    let late = Stub::listen(late, move |_| answer("202 Accepted", "", &accepted));
    let piped = output_text(&piped.wait_with_output().await.unwrap());
    assert_output(&piped, 0, &["1 wait"]);
    let calls = late.calls.lock().await;
    assert!(calls[0].contains("ACME,A-1,T-1"), "what was read before is lost: {}", calls[0]);

    // The outcome is unknown.
    let silent = Stub::start(|_| String::new()).await;
    let mut piped = stage.command(&silent.url, &["-", "--format", "csv"]);
    let lost = output_text(&piped.output().await.unwrap());
    assert_output(&lost, 1, &["some of it may have been accepted", "adds nothing twice"]);
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn import_command_interrupted_wait_names_the_status_command() {
    let stage = Stage::set(Roles { receiver: true, worker: false }).await;
    stage.write("may.csv", &invoices(2));
    let id = "0190a6b8-0000-7000-8000-000000000001";
    let child: Arc<OnceLock<u32>> = Arc::default();
    let pid = Arc::clone(&child);
    let stub = Stub::start(move |number| {
        if number == 0 {
            let accepted = json!({"import_id": id, "source": "vendors", "state": "received",
                "items": 2, "published": 2, "rejected": 0, "rejections": []});
            return answer("202 Accepted", "", &accepted);
        }
        // It waits now.
        let pid = i32::try_from(*pid.wait()).unwrap();
        kill(Pid::from_raw(pid), Signal::SIGINT).unwrap();
        answer("404 Not Found", "", &json!({"detail": "no import of this id"}))
    })
    .await;
    let process = stage.command(&stub.url, &["may.csv", "--report", "out.csv"]).spawn().unwrap();
    child.set(process.id().unwrap()).unwrap();
    let interrupted = output_text(&process.wait_with_output().await.unwrap());
    let again = format!("tallyhook import --status {id}");
    assert_output(&interrupted, 3, &["2 still wait", "nothing is lost", &again]);
    let remaining: Vec<_> = std::fs::read_dir(stage.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("report") || name == "out.csv")
        .collect();
    assert_eq!(remaining, Vec::<String>::new(), "a part of a report was left behind");
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn import_command_interrupted_report_leaves_no_file() {
    let stage = Stage::set(Roles { receiver: true, worker: false }).await;
    stage.write("may.csv", &invoices(2));
    let id = "0190a6b8-0000-7000-8000-000000000001";
    let child: Arc<OnceLock<u32>> = Arc::default();
    let pid = Arc::clone(&child);
    let stub = Stub::start(move |number| {
        let accepted = json!({"import_id": id, "state": "received", "items": 2, "published": 2,
            "rejected": 0});
        let known = json!({"import_id": id, "source": "vendors", "state": "received", "total": 2,
            "waiting": 0, "rejected": 0, "created": 2, "updated": 0, "duplicate": 0, "stale": 0,
            "ignored": 0, "dead": 0});
        match number {
            0 => answer("202 Accepted", "", &accepted),
            1 => answer("200 OK", "", &known),
            _ => {
                let pid = Pid::from_raw(i32::try_from(*pid.wait()).unwrap());
                kill(pid, Signal::SIGINT).unwrap();
                // The response is sent only after the command has exited on Ctrl-C.
                let deadline = std::time::Instant::now() + seconds(20);
                while kill(pid, None).is_ok() && std::time::Instant::now() < deadline {
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
                answer("200 OK", "", &json!({"items": []}))
            }
        }
    })
    .await;
    let process = stage.command(&stub.url, &["may.csv", "--report", "out.csv"]).spawn().unwrap();
    child.set(process.id().unwrap()).unwrap();
    let stopped = output_text(&process.wait_with_output().await.unwrap());
    assert_output(&stopped, 3, &["Every item has a final outcome", "not written: stopped"]);
    assert!(!stage.path("out.csv").exists());
    stage.stop().await;
}
