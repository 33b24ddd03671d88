//! A server that plays what it is told, byte by byte.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::net::http_client::Url;

/// What it does on one connection, in this order.
pub(crate) type Script = Vec<Step>;

/// One thing that it does.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Reads a whole request.
    Read,
    /// Writes this.
    Write(String),
    /// Writes a chunked body until nobody listens any more.
    WriteEndlessly,
    /// Keeps the connection open and does nothing more.
    KeepOpen,
}

/// A server that plays these, one a connection, and then closes its door.
pub(crate) struct ScriptedServer {
    port: u16,
    heard: Arc<Mutex<Vec<String>>>,
}

impl ScriptedServer {
    pub(crate) async fn start(plays: Vec<Script>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = Arc::<Mutex<Vec<String>>>::default();
        let ears = heard.clone();
        tokio::spawn(async move {
            let mut held = Vec::new();
            for play in plays {
                let (stream, _) = listener.accept().await.unwrap();
                held.extend(run_script(stream, play, &ears).await);
            }
            drop(listener);
            std::future::pending::<()>().await;
        });
        Self { port, heard }
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

    /// The requests so far, each as it came.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

/// An answer with a length.
pub(crate) fn response(status: u16, body: &str) -> Step {
    Step::Write(format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
}

/// The connection, if it is held.
async fn run_script(
    mut stream: TcpStream,
    play: Script,
    heard: &Mutex<Vec<String>>,
) -> Option<TcpStream> {
    for step in play {
        match step {
            Step::Read => {
                let request = read_request(&mut stream).await?;
                heard.lock().unwrap().push(request);
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

/// A whole request; nothing if the connection ends before.
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
