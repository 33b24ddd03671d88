//! Arguments and steps that operator commands share: listing, selecting,
//! confirming, and the audit log's actor and comment.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use anyhow::bail;
use clap::Args;
use serde_json::json;

use super::{EXIT_DONE, EXIT_FAILED, EXIT_PARTLY, UsageError, output};
use crate::review::{Actor, Filter, Selection, SelectionSummary};

/// How a list is printed.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct ListArgs {
    /// Show at most this many.
    #[arg(long, default_value_t = 50)]
    pub(super) limit: u32,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

impl ListArgs {
    /// Prints rows: as JSON, or with `print` as a table and a note on `--limit`.
    pub(super) fn print<T: serde::Serialize>(
        self,
        rows: &[T],
        none: &str,
        table: impl FnOnce(&[T]) -> comfy_table::Table,
    ) -> anyhow::Result<()> {
        if self.json {
            outln!("{}", serde_json::to_string_pretty(rows)?);
        } else if rows.is_empty() {
            outln!("{none}");
        } else {
            outln!("{}", table(rows));
            if rows.len() == self.limit as usize {
                outln!("\nOnly the first {} are shown; see --limit.", self.limit);
            }
        }
        Ok(())
    }
}

/// Who acts and why, for the audit log.
#[derive(Debug, Args)]
pub(super) struct OperatorArgs {
    /// Comment for the audit log.
    #[arg(long, value_name = "TEXT", value_parser = non_blank)]
    comment: Option<String>,
    /// Name for the audit log [default: the user of this session].
    #[arg(long, value_name = "NAME", env = "TALLYHOOK_OPERATOR")]
    actor: Option<String>,
}

/// How an action on a selection is carried out.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "independent flags of one command line")]
pub(super) struct ActionArgs {
    #[command(flatten)]
    pub(super) operator: OperatorArgs,
    /// Select everything; without it ids or a filter are required.
    #[arg(long)]
    all: bool,
    /// Show the selection and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask for confirmation.
    #[arg(long, short)]
    yes: bool,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// An action that waits for its confirmation.
#[derive(Clone, Copy)]
pub(super) struct PendingAction {
    /// What is selected, for example `dead letters`.
    pub(super) noun: &'static str,
    /// What happens to it, for example `discarded`.
    pub(super) verb: &'static str,
    /// How many ids the operator named. If there are any, no confirmation is
    /// needed: nothing else is selected.
    pub(super) named_ids: usize,
    /// Whether a single item needs a comment too; several always do.
    pub(super) always_needs_comment: bool,
}

/// Whether a command goes on after it has shown its selection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Confirmation {
    /// Carry the action out.
    Given,
    /// End with this exit code and change nothing.
    End(u8),
}

fn non_blank(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("is empty".to_owned()),
        text => Ok(text.to_owned()),
    }
}

impl OperatorArgs {
    /// The operator: as given, else the user of this session.
    pub(super) fn name(&self) -> String {
        let user =
            || ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
        self.actor
            .clone()
            .or_else(user)
            .filter(|name| !name.trim().is_empty())
            .unwrap_or_else(|| "unknown".to_owned())
    }

    /// The actor of the audit log, with the operator's comment.
    pub(super) fn actor<'a>(&'a self, name: &'a str) -> Actor<'a> {
        Actor { name, comment: self.comment.as_deref().unwrap_or_default() }
    }

    /// # Errors
    /// [`UsageError`] without `--comment`.
    pub(super) fn require_comment(&self) -> anyhow::Result<()> {
        if self.comment.is_none() {
            bail!(UsageError::new("--comment TEXT is required; it goes into the audit log"));
        }
        Ok(())
    }
}

impl ActionArgs {
    /// The selection that this filter stands for.
    ///
    /// # Errors
    /// [`UsageError`] if there is neither a filter nor `--all`.
    pub(super) fn selection<F: Filter>(&self, filter: F) -> anyhow::Result<Selection<F>> {
        Selection::new(filter, self.all).map_err(|error| UsageError::new(&error).into())
    }

    /// Shows what is selected and asks for confirmation.
    ///
    /// # Errors
    /// [`UsageError`] if a comment is required and missing, or if there is
    /// neither `--yes` nor a terminal to ask on.
    pub(super) fn confirm(
        &self,
        action: PendingAction,
        summary: &SelectionSummary,
    ) -> anyhow::Result<Confirmation> {
        let PendingAction { noun, verb, named_ids, always_needs_comment } = action;
        let count = summary.count;
        if self.dry_run {
            if self.json {
                let mut preview = json!(summary);
                preview["dry_run"] = json!(true);
                outln!("{}", serde_json::to_string_pretty(&preview)?);
            } else {
                outln!("{count} {noun} would be {verb}.\n{}", describe(summary));
            }
            return Ok(Confirmation::End(EXIT_DONE));
        }
        if always_needs_comment || count.max(named_ids) > 1 {
            self.operator.require_comment()?;
        }
        let is_named = named_ids > 0;
        if count == 0 || (is_named && count == 1) {
            return Ok(Confirmation::Given);
        }
        // Standard output carries only the result if it is JSON.
        let text = format!("{count} {noun} will be {verb}.\n{}", describe(summary));
        if self.json {
            eprintln!("{text}");
        } else {
            outln!("{text}");
        }
        if self.yes || is_named {
            return Ok(Confirmation::Given);
        }
        if !std::io::stdin().is_terminal() {
            bail!(UsageError::new(
                "not confirmed, nothing was changed: there is no terminal to ask on; use --yes"
            ));
        }
        eprint!("Continue? [y/N] ");
        std::io::stderr().flush()?;
        let mut reply = String::new();
        std::io::stdin().lock().read_line(&mut reply)?;
        if matches!(reply.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
            return Ok(Confirmation::Given);
        }
        eprintln!("Nothing was changed.");
        Ok(Confirmation::End(EXIT_FAILED))
    }
}

/// Times and reasons of a selection.
fn describe(summary: &SelectionSummary) -> String {
    let time = |at: Option<_>| at.map_or_else(|| "-".to_owned(), output::timestamp);
    let mut lines =
        vec![format!("oldest {}, newest {}", time(summary.oldest), time(summary.newest))];
    for (reason, count) in &summary.reasons {
        lines.push(format!("{count:>8}  {}", output::strip_control_chars(reason)));
    }
    lines.join("\n")
}

/// The exit code of an action that did some of its items and failed others.
pub(super) fn exit_code(done: usize, failed: usize) -> u8 {
    match (done, failed) {
        (_, 0) => EXIT_DONE,
        (0, _) => EXIT_FAILED,
        _ => EXIT_PARTLY,
    }
}

/// Prints failures to standard error, one per line.
pub(super) fn print_failures(failures: &[String]) {
    for failure in failures {
        eprintln!("failed: {failure}");
    }
}

/// An error with its causes on one line.
pub(super) fn error_text(error: impl Into<anyhow::Error>) -> String {
    format!("{:#}", error.into())
}
