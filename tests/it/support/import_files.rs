//! Invoice files, clients that upload them, and the status of imports.

use std::time::Duration;

use reqwest::{Client, Response};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{TestServer, eventually, seconds};

/// A source that takes files.
pub(crate) const VENDORS: &str = "
[sources.vendors]
kind = 'import'
secrets = ['env:TOKEN']
";

/// The secret of [`VENDORS`].
pub(crate) const TOKEN: &str = "a-token-of-the-tests";

/// The columns of [`csv_row`].
pub(crate) const HEADER: &str = "vendor,invoice_number,amount,currency,due_date\n";

/// One invoice as a row.
pub(crate) fn row(number: &str, amount: &str) -> String {
    format!("ACME,{number},{amount},EUR,2026-05-01\n")
}

/// One invoice as an object on a line.
pub(crate) fn object(number: &str, amount: &str) -> String {
    let object = serde_json::json!({
        "vendor": "ACME", "invoice_number": number, "amount": amount, "currency": "EUR",
    });
    format!("{object}\n")
}

/// A file of so many invoices over 1.00, `INV-1` and so on.
pub(crate) fn csv(invoices: u32) -> String {
    (1..=invoices)
        .fold(HEADER.to_owned(), |file, number| file + &row(&format!("INV-{number}"), "1.00"))
}

/// Uploads a file with the right token.
pub(crate) async fn send(
    server: &TestServer,
    media_type: &str,
    file: impl Into<reqwest::Body>,
) -> Response {
    send_to(&server.url("/imports/vendors"), media_type, file).await
}

/// The same to this address.
pub(crate) async fn send_to(
    url: &str,
    media_type: &str,
    file: impl Into<reqwest::Body>,
) -> Response {
    super::http::client();
    let patient = Client::builder().timeout(seconds(180)).no_proxy().build().unwrap();
    let request = patient.post(url).bearer_auth(TOKEN).header("content-type", media_type);
    request.body(file.into()).send().await.unwrap()
}

/// The report of an accepted file.
pub(crate) async fn report(answer: Response) -> Value {
    assert_eq!(answer.status(), 202, "{answer:?}");
    let receipt = answer.headers()["x-tallyhook-receipt"].to_str().unwrap().to_owned();
    assert_eq!(answer.headers()["content-type"], "application/json");
    let report: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    assert_eq!(report["import_id"], receipt.as_str());
    assert_eq!(report["status"], format!("/imports/{receipt}"));
    report
}

/// Sends a CSV file; the id of its import.
pub(crate) async fn import_csv(server: &TestServer, file: String) -> String {
    let report = report(send(server, "text/csv", file).await).await;
    assert_eq!(report["state"], "received", "{report}");
    id(&report)
}

/// The id of an import.
pub(crate) fn id(report: &Value) -> String {
    report["import_id"].as_str().unwrap().to_owned()
}

/// The status of an import.
pub(crate) async fn progress(server: &TestServer, id: &str) -> Value {
    let answer = server.get(&server.url(&format!("/imports/{id}"))).await;
    serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
}

/// The status of an import once its upload ended and no item waits.
pub(crate) async fn done(server: &TestServer, id: &str) -> Value {
    eventually("the import", seconds(120), || async {
        let status = progress(server, id).await;
        matches!(status["state"].as_str(), Some("received" | "interrupted"))
            && status["waiting"] == 0
    })
    .await;
    progress(server, id).await
}

/// The figures of an import, in this order: total, waiting, created, updated,
/// duplicate, stale, ignored, rejected, dead.
pub(crate) fn figures(status: &Value) -> [i64; 9] {
    ["total", "waiting", "created", "updated", "duplicate", "stale", "ignored", "rejected", "dead"]
        .map(|word| status[word].as_i64().unwrap_or_else(|| panic!("no {word} in {status}")))
}

/// A client that sends a file in parts.
pub(crate) struct SlowUpload(pub(crate) TcpStream);

impl SlowUpload {
    /// Begins to send a CSV file of this many bytes.
    pub(crate) async fn begin(server: &TestServer, length: usize) -> Self {
        Self::with(server, "text/csv", TOKEN, length, "").await
    }

    /// Begins to send a file, with more headers.
    pub(crate) async fn with(
        server: &TestServer,
        media_type: &str,
        token: &str,
        length: usize,
        more: &str,
    ) -> Self {
        let mut stream = TcpStream::connect(server.receiver()).await.unwrap();
        let head = format!(
            "POST /imports/vendors HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
             content-type: {media_type}\r\ncontent-length: {length}\r\n{more}\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        Self(stream)
    }

    /// Sends a part of the file.
    pub(crate) async fn send(&mut self, part: &str) {
        self.0.write_all(part.as_bytes()).await.unwrap();
        self.0.flush().await.unwrap();
    }

    /// Sends as much as the server reads; returns how much that was.
    pub(crate) async fn push(&mut self, bytes: &[u8], stall_timeout: Duration) -> usize {
        let mut sent = 0;
        while sent < bytes.len() {
            match timeout(stall_timeout, self.0.write(&bytes[sent..])).await {
                Ok(written) => sent += written.unwrap(),
                Err(_) => break,
            }
        }
        sent
    }

    /// The response: its status and its full text.
    pub(crate) async fn answer(mut self) -> (u16, String) {
        let mut answer = Vec::new();
        let mut piece = [0; 4096];
        let whole = |answer: &[u8]| {
            let text = String::from_utf8_lossy(answer);
            text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                length.is_some_and(|length| body.len() >= length.parse().unwrap())
            })
        };
        while !whole(&answer) {
            let read = timeout(seconds(60), self.0.read(&mut piece)).await.expect("no answer came");
            let read = read.unwrap();
            assert!(read > 0, "no answer came: {}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&piece[..read]);
        }
        let text = String::from_utf8(answer).unwrap();
        (text[9..12].parse().unwrap(), text)
    }
}
