//! How results are printed: tables, fields, times, and untrusted text.

use comfy_table::{ContentArrangement, Table, presets};
use time::{OffsetDateTime, macros::format_description};

use crate::store::audit_log::AuditEntry;

/// An empty table with this header.
pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header);
    table
}

/// Names and values, one pair per line; pairs with an empty value are left out.
pub(super) fn fields<const N: usize>(pairs: &[(&str, String); N]) -> String {
    let mut table = table(&["", ""]);
    for (name, value) in pairs {
        let value = value.trim_end();
        if !value.is_empty() {
            table.add_row([name, value]);
        }
    }
    table.to_string().trim_start_matches([' ', '\n']).to_owned()
}

/// Prints audit log entries, the oldest first.
pub(super) fn print_history(history: &[AuditEntry]) -> anyhow::Result<()> {
    for entry in history {
        let AuditEntry { at, actor, action, comment, detail } = entry;
        outln!("\n{} {action} by {actor}: {comment}", timestamp(*at));
        if detail.as_object().is_some_and(|detail| !detail.is_empty()) {
            outln!("  {detail}");
        }
    }
    Ok(())
}

/// A time in UTC, to the second.
pub(super) fn timestamp(at: OffsetDateTime) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]Z");
    at.to_offset(time::UtcOffset::UTC).format(&format).unwrap_or_else(|_| at.to_string())
}

/// A text on one line, cut to this many characters.
pub(super) fn truncate(text: &str, characters: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= characters {
        return line;
    }
    let start: String = line.chars().take(characters.saturating_sub(1)).collect();
    format!("{start}…")
}

/// Untrusted text: control characters, which a terminal would obey, are replaced.
pub(super) fn strip_control_chars(text: &str) -> String {
    let is_obeyed = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    text.chars().map(|c| if is_obeyed(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strip_control_chars_keeps_only_newlines_and_tabs() {
        assert_eq!(
            strip_control_chars("a\n\tü \u{1b}[31m \u{9b}2J \r"),
            "a\n\tü \u{fffd}[31m \u{fffd}2J \u{fffd}"
        );
    }

    #[test]
    fn truncate_long_text_ends_with_ellipsis() {
        assert_eq!(truncate("a  b\nc", 10), "a b c");
        assert_eq!(truncate("äöüäöü", 4), "äöü…");
    }

    #[test]
    fn fields_leaves_out_empty_values() {
        let text = fields(&[("source", "shop".to_owned()), ("error", String::new())]);
        assert!(text.contains("shop") && !text.contains("error"), "{text}");
    }
}
