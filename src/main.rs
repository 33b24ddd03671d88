//! The binary `tallyhook`: runs the command and returns its exit code.

use std::process::ExitCode;

use clap::Parser as _;
use tallyhook::cli::{Arguments, UsageError};

#[tokio::main]
async fn main() -> ExitCode {
    match Arguments::parse().run().await {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            if error.is::<UsageError>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

/// True for a broken pipe on standard output.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
