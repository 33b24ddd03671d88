//! Puts the table between two marks of a Markdown file, and leaves the rest.

use anyhow::{Context as _, ensure};

/// Where the table begins.
pub const BEGIN: &str = "<!-- bench: written by `make bench` -->";
/// Where it ends.
pub const END: &str = "<!-- bench: end -->";

/// The text with another table.
///
/// # Errors
/// The marks are missing, or more than one pair of them.
pub fn refreshed(text: &str, table: &str) -> anyhow::Result<String> {
    for mark in [BEGIN, END] {
        ensure!(text.matches(mark).count() == 1, "the mark {mark} must stand there once");
    }
    let (before, rest) = text.split_once(BEGIN).context("no beginning")?;
    let (_, after) = rest.split_once(END).context("the end stands before the beginning")?;
    Ok(format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", table.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_marks_changes() {
        let text = format!("# Title\n\n{BEGIN}\nold | table\n{END}\n\nThe rest.\n");
        let once = refreshed(&text, "| new |\n").unwrap();
        assert_eq!(once, format!("# Title\n\n{BEGIN}\n\n| new |\n\n{END}\n\nThe rest.\n"));
        assert_eq!(refreshed(&once, "| new |\n").unwrap(), once, "the same again");
    }

    #[test]
    fn without_its_marks_a_file_is_left_alone() {
        for text in ["", BEGIN, END, &format!("{END} {BEGIN}"), &format!("{BEGIN}{BEGIN}{END}")] {
            assert!(refreshed(text, "table").is_err(), "{text:?}");
        }
    }

    #[test]
    fn our_own_file_has_the_marks() {
        let document = include_str!("../../../deploy/performance.md");
        assert!(refreshed(document, "table").is_ok());
    }
}
