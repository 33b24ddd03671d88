//! A server that runs a script for each connection.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::net::http_client::Url;

/// The steps of one connection.
pub(crate) type Script = Vec<Step>;

#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Reads a whole request.
    Read,
    /// Writes a text.
    Write(String),
    /// Writes a chunked body until the client closes the connection.
    WriteEndlessly,
    /// Keeps the connection open and does nothing more.
    KeepOpen,
}

/// Accepts one connection for each script, then stops listening.
pub(crate) struct ScriptedServer {
    port: u16,
    requests: Arc<Mutex<Vec<String>>>,
}

impl ScriptedServer {
    pub(crate) async fn start(scripts: Vec<Script>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let recorded = requests.clone();
        tokio::spawn(async move {
            let mut open = Vec::new();
            for script in scripts {
                let (stream, _) = listener.accept().await.unwrap();
                open.extend(run_script(stream, script, &recorded).await);
            }
            drop(listener);
            std::future::pending::<()>().await;
        });
        Self { port, requests }
    }

    pub(crate) fn url(&self, path: &str) -> Url {
        self.text(path).parse().unwrap()
    }

    pub(crate) fn text(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// A response with `Content-Length`.
pub(crate) fn response(status: u16, body: &str) -> Step {
    Step::Write(format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
}

/// Returns the connection if it stays open.
async fn run_script(
    mut stream: TcpStream,
    script: Script,
    requests: &Mutex<Vec<String>>,
) -> Option<TcpStream> {
    for step in script {
        match step {
            Step::Read => {
                let request = read_request(&mut stream).await?;
                requests.lock().unwrap().push(request);
            }
            Step::Write(text) => stream.write_all(text.as_bytes()).await.ok()?,
            Step::WriteEndlessly => {
                let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
                while stream.write_all(chunk.as_bytes()).await.is_ok() {}
            }
            Step::KeepOpen => return Some(stream),
        }
    }
    None
}

/// A complete request, or `None` if the connection closes first.
async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                .map_or(0, |(_, length)| length.trim().parse().unwrap());
            if body.len() >= length {
                return Some(text);
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}
