//! `tallyhook dead export`.

use std::{
    io::{BufWriter, IsTerminal as _, Write},
    path::PathBuf,
};

use anyhow::Context as _;
use clap::Args;

use super::filter::FilterArgs;
use crate::{cli::EXIT_DONE, review::dead_letters, store::Store};

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// The file to write [default: standard output].
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) async fn run(store: &Store, arguments: &ExportArgs) -> anyhow::Result<u8> {
    let mut output: Box<dyn Write> = match &arguments.output {
        Some(path) => Box::new(BufWriter::new(
            std::fs::File::create(path)
                .with_context(|| format!("cannot write {}", path.display()))?,
        )),
        None => Box::new(std::io::stdout().lock()),
    };
    let count = dead_letters::export(store, &arguments.filter.filter(), &mut output).await?;
    output.flush()?;
    if std::io::stderr().is_terminal() {
        eprintln!("{count} dead letters");
    }
    Ok(EXIT_DONE)
}
