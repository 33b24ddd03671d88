//! Replaces the table between two marker lines of a Markdown file.

use anyhow::{Context as _, ensure};

const BEGIN: &str = "<!-- bench: written by `make bench` -->";
const END: &str = "<!-- bench: end -->";

/// The text with another table. Each marker must occur once.
pub(crate) fn replace_table(text: &str, table: &str) -> anyhow::Result<String> {
    for marker in [BEGIN, END] {
        ensure!(text.matches(marker).count() == 1, "the marker {marker} must occur once");
    }
    let (before, rest) = text.split_once(BEGIN).context("no begin marker")?;
    let (_, after) = rest.split_once(END).context("the end marker is before the begin marker")?;
    Ok(format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", table.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replace_table_changes_only_the_text_between_the_markers() {
        let text = format!("# Title\n\n{BEGIN}\nold | table\n{END}\n\nThe rest.\n");
        let once = replace_table(&text, "| new |\n").unwrap();
        assert_eq!(once, format!("# Title\n\n{BEGIN}\n\n| new |\n\n{END}\n\nThe rest.\n"));
        assert_eq!(replace_table(&once, "| new |\n").unwrap(), once);
    }

    #[test]
    fn replace_table_without_markers_fails() {
        for text in ["", BEGIN, END, &format!("{END} {BEGIN}"), &format!("{BEGIN}{BEGIN}{END}")] {
            assert!(replace_table(text, "table").is_err(), "{text:?}");
        }
    }

    #[test]
    fn performance_document_has_the_markers() {
        let document = include_str!("../../../deploy/performance.md");
        assert!(replace_table(document, "table").is_ok());
    }
}
