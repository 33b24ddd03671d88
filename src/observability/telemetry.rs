//! Logs: text for people on a terminal, JSON for machines otherwise.

use std::io::{IsTerminal as _, sink, stderr};

use anyhow::Context as _;
use tracing_subscriber::{EnvFilter, fmt, fmt::writer::BoxMakeWriter, prelude::*};

use crate::config::{LogConfig, LogFormat};

/// Starts logging to standard error. `RUST_LOG` goes before the configured
/// filter.
///
/// # Errors
/// A filter that cannot be read.
pub fn init(settings: &LogConfig) -> anyhow::Result<()> {
    init_with_writer(settings, BoxMakeWriter::new(stderr))
}

/// The same, but lines are made and thrown away: they cost what they cost,
/// and the terminal shows something else.
///
/// # Errors
/// As [`init`].
pub fn init_discarding(settings: &LogConfig) -> anyhow::Result<()> {
    init_with_writer(settings, BoxMakeWriter::new(sink))
}

fn init_with_writer(settings: &LogConfig, writer: BoxMakeWriter) -> anyhow::Result<()> {
    let (filter, origin) = match std::env::var("RUST_LOG") {
        Ok(filter) if !filter.is_empty() => (filter, "RUST_LOG"),
        _ => (settings.filter.clone(), "log.filter"),
    };
    // lapin logs at error what we handle and log ourselves, and returned
    // messages with their bodies.
    let libraries = if filter.contains("lapin") { "" } else { ",lapin=off,sqlx=warn" };
    let filter = EnvFilter::try_new(format!("{filter}{libraries}")).context(origin)?;
    let json = match settings.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !stderr().is_terminal(),
    };
    let lines = fmt::layer().with_writer(writer).with_target(false);
    let started = if json {
        let lines = lines.json().flatten_event(true).with_current_span(true).with_span_list(false);
        tracing_subscriber::registry().with(filter).with(lines).try_init()
    } else {
        tracing_subscriber::registry().with(filter).with(lines.compact()).try_init()
    };
    started.context("logging cannot be started")
}
