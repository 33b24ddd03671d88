//! How results are shown to people: tables and times.

use comfy_table::{ContentArrangement, Table, presets};
use time::{OffsetDateTime, macros::format_description};

/// An empty table with this header.
pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header);
    table
}

/// A moment in UTC, to the second.
pub(super) fn timestamp(at: OffsetDateTime) -> String {
    let form = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]Z");
    at.to_offset(time::UtcOffset::UTC).format(&form).unwrap_or_else(|_| at.to_string())
}

/// A text on one line, cut to so many characters.
pub(super) fn truncate(text: &str, characters: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= characters {
        return line;
    }
    let cut: String = line.chars().take(characters.saturating_sub(1)).collect();
    format!("{cut}…")
}

/// A stranger's text: what a terminal would obey is replaced.
pub(super) fn strip_control_chars(text: &str) -> String {
    let obeyed = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    text.chars().map(|c| if obeyed(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_tells_the_terminal_what_to_do() {
        assert_eq!(
            strip_control_chars("a\n\tü \u{1b}[31m \u{9b}2J \r"),
            "a\n\tü \u{fffd}[31m \u{fffd}2J \u{fffd}"
        );
    }

    #[test]
    fn long_texts_are_cut_with_a_mark() {
        assert_eq!(truncate("a  b\nc", 10), "a b c");
        assert_eq!(truncate("äöüäöü", 4), "äöü…");
    }
}
