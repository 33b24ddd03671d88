//! A stand-in economy system: what an invoice is mirrored to in tests, in
//! `tallyhook dev --with-target` and in the demo.
//!
//! It behaves as such systems do, at their worst: it honours idempotency
//! keys, remembers the answer of what was deleted by hand meanwhile, times
//! out after it created something, and goes away. Its faults are counted, never
//! drawn, so that a test can tell which call meets one.
//!
//! | Call                              | Answer                                           |
//! |-----------------------------------|--------------------------------------------------|
//! | `POST /invoices`                  | 201 and the invoice; 400, 409, 422 with `error`   |
//! | `GET /invoices[?vendor=&number=]` | `{"invoices": [...]}`, without the deleted        |
//! | `GET /invoices/{id}`              | 200, or 404 also for a deleted one               |
//! | `DELETE /invoices/{id}`           | 204, or 404                                      |
//! | `GET /calls[?key=]`               | how often each key came, and what it created     |
//! | `POST /faults`                    | 204; see [`faults::Change`]                      |
//!
//! Every call needs `Authorization: Bearer <token>`. What was answered is in
//! the journal, and there again after `kill -9`.
//!
//! | Module    | About                                              |
//! |-----------|----------------------------------------------------|
//! | `books`   | invoices, keys and the answers that are remembered |
//! | `journal` | the file that all of it is read from at the start   |
//! | `faults`  | what goes wrong, and at which call                 |
//! | `desk`    | the API                                            |
//! | `door`    | the listener, which can vanish                     |

mod books;
mod desk;
mod door;
mod faults;
mod journal;
#[cfg(test)]
mod tests;

use std::{
    fs,
    io::{self, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context as _, ensure};
use clap::Parser;
use serde_json::json;
use tokio::net::TcpListener;

use crate::{books::Books, desk::Desk, faults::Change, faults::Faults, journal::Journal};

/// A stand-in economy system, for tests and the demo.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where to listen; port 0 takes any that is free.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The journal, which is made if it is not there.
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    /// What callers must send as `Authorization: Bearer TOKEN`.
    #[arg(long, env = "ECONOMY_TOKEN", hide_env_values = true)]
    token: String,
    /// Write the address here as JSON, once it listens.
    #[arg(long, value_name = "PATH")]
    ready_file: Option<PathBuf>,
    /// What goes wrong from the start, as for `POST /faults`.
    #[arg(long, value_name = "JSON", default_value = "{}")]
    faults: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Serves until the process is killed.
async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments { listen, data, token, ready_file, faults } = arguments;
    ensure!(!token.is_empty(), "--token is empty: every caller would be let in");
    let change: Change = serde_json::from_str(&faults).context("--faults")?;
    ensure!(change.vanish.is_none(), "--faults: vanish is for a system that is there");
    let mut standing = Faults::default();
    standing.change(change);
    let (journal, entries) = Journal::open(&data)?;
    let mut books = Books::default();
    for entry in entries {
        books.enter(entry);
    }
    let desk = Desk::new(token, standing, journal, books);
    let listener =
        TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let address = listener.local_addr()?;
    // Whoever started this may have stopped reading.
    drop(writeln!(io::stdout(), "economy http://{address}"));
    if let Some(path) = &ready_file {
        write_ready_file(path, address)?;
    }
    door::serve(listener, Arc::new(desk)).await.context("cannot listen any more")
}

/// Renamed into place: whoever sees the file sees all of it.
fn write_ready_file(path: &Path, address: SocketAddr) -> anyhow::Result<()> {
    let ready = json!({"economy": format!("http://{address}"), "pid": std::process::id()});
    let partial = path.with_extension("partial");
    fs::write(&partial, format!("{ready}\n"))
        .and_then(|()| fs::rename(&partial, path))
        .with_context(|| format!("cannot write the ready file {}", path.display()))
}
