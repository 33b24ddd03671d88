//! placeholder until merged
use std::process::ExitCode;
#[derive(Debug, clap::Args)]
pub(super) struct SendArgs {}
pub(super) async fn run(_a: SendArgs, _c: crate::config::Config) -> anyhow::Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
