//! A mock accounting system for tests, `tallyhook dev --with-mock-accounting`
//! and the demo.
//!
//! It honours idempotency keys, replays the stored response of a deleted
//! invoice, times out after creating an invoice, and can be down for a while.
//! Faults are counted, never random, so a test knows which request meets one.
//!
//! | Request                           | Response                                          |
//! |-----------------------------------|---------------------------------------------------|
//! | `POST /invoices`                  | 201 and the invoice; 400, 409, 422 with `error`    |
//! | `GET /invoices[?vendor=&number=]` | `{"invoices": [...]}`, without deleted ones       |
//! | `GET /invoices/{id}`              | 200, or 404                                       |
//! | `DELETE /invoices/{id}`           | 204, or 404                                       |
//! | `GET /calls[?key=]`               | requests and created invoices per idempotency key |
//! | `POST /faults`                    | 204; see [`faults::Change`]                       |
//!
//! Every request needs `Authorization: Bearer TOKEN`. All state survives
//! `kill -9` in a write-ahead log.

mod admin_api;
mod faults;
mod listener;
mod state;
mod wal;

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

use crate::{
    admin_api::Api,
    faults::{Change, Faults},
    state::State,
    wal::Wal,
};

/// A mock accounting system, for tests and the demo.
#[derive(Debug, Parser)]
struct Arguments {
    /// Address to listen on; port 0 takes any free port.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The write-ahead log; created if missing.
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    /// The bearer token that clients must send.
    #[arg(long, env = "MOCK_ACCOUNTING_TOKEN", hide_env_values = true)]
    token: String,
    /// Write the address here as JSON once it listens.
    #[arg(long, value_name = "PATH")]
    ready_file: Option<PathBuf>,
    /// Faults from the start, as for `POST /faults`.
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
    ensure!(!token.is_empty(), "--token is empty: every client would be accepted");
    let change: Change = serde_json::from_str(&faults).context("--faults")?;
    ensure!(change.vanish.is_none(), "--faults: vanish needs a running server");
    let mut active = Faults::default();
    active.change(change);
    let (wal, entries) = Wal::open(&data)?;
    let mut state = State::default();
    for entry in entries {
        state.apply(entry);
    }
    let api = Api::new(token, active, wal, state);
    let listener =
        TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let address = listener.local_addr()?;
    // The reader of stdout may be gone.
    drop(writeln!(io::stdout(), "mock-accounting http://{address}"));
    if let Some(path) = &ready_file {
        write_ready_file(path, address)?;
    }
    listener::serve(listener, Arc::new(api)).await.context("cannot listen again")
}

/// Written aside and renamed, so readers never see a partial file.
fn write_ready_file(path: &Path, address: SocketAddr) -> anyhow::Result<()> {
    let ready = json!({"url": format!("http://{address}"), "pid": std::process::id()});
    let partial = path.with_extension("partial");
    fs::write(&partial, format!("{ready}\n"))
        .and_then(|()| fs::rename(&partial, path))
        .with_context(|| format!("cannot write the ready file {}", path.display()))
}
