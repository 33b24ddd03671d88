//! Logging: text on a terminal, JSON otherwise.

use std::io::{IsTerminal as _, sink, stderr};

use anyhow::Context as _;
use tracing_subscriber::{EnvFilter, fmt, fmt::writer::BoxMakeWriter, prelude::*};

use crate::config::{LogConfig, LogFormat};

/// Starts logging to standard error. `RUST_LOG` overrides the configured filter.
///
/// # Errors
/// The filter is invalid, or logging has started already.
pub fn init(config: &LogConfig) -> anyhow::Result<()> {
    init_with_writer(config, BoxMakeWriter::new(stderr))
}

/// As [`init`], but discards the lines. They cost the same time, and the terminal stays free for
/// the bench's own output.
///
/// # Errors
/// As [`init`].
pub fn init_discarding(config: &LogConfig) -> anyhow::Result<()> {
    init_with_writer(config, BoxMakeWriter::new(sink))
}

fn init_with_writer(config: &LogConfig, writer: BoxMakeWriter) -> anyhow::Result<()> {
    let (filter, key) = match std::env::var("RUST_LOG") {
        Ok(filter) if !filter.is_empty() => (filter, "RUST_LOG"),
        _ => (config.filter.clone(), "log.filter"),
    };
    // lapin logs errors that we handle and log ourselves, and returned messages with their bodies.
    let libraries = if filter.contains("lapin") { "" } else { ",lapin=off,sqlx=warn" };
    let filter = EnvFilter::try_new(format!("{filter}{libraries}")).context(key)?;
    let use_json = match config.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !stderr().is_terminal(),
    };
    let layer = fmt::layer().with_writer(writer).with_target(false);
    let initialized = if use_json {
        let layer = layer.json().flatten_event(true).with_current_span(true).with_span_list(false);
        tracing_subscriber::registry().with(filter).with(layer).try_init()
    } else {
        tracing_subscriber::registry().with(filter).with(layer.compact()).try_init()
    };
    initialized.context("logging cannot be started")
}
