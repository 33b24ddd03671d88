//! `tallyhook`: the binary. Arguments in, an exit code out.

use std::process::ExitCode;

use clap::Parser as _;
use tallyhook::cli::Arguments;

#[tokio::main]
async fn main() -> ExitCode {
    match Arguments::parse().run().await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
