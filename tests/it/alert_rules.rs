//! The alert rules name what there is: a metric that nobody registers would
//! never fire, and nobody would know.

use std::collections::BTreeSet;

use tallyhook::domain::Outcome;

const RULES: &str = include_str!("../../deploy/prometheus/tallyhook.rules.yml");

/// The names of metrics in a text.
fn named(text: &str) -> BTreeSet<&str> {
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    text.split(word).filter(|name| name.starts_with("tallyhook_")).collect()
}

/// The rules without what is said about them.
fn expressions() -> String {
    let code = |line: &&str| !line.trim_start().starts_with('#');
    RULES.lines().filter(code).collect::<Vec<_>>().join("\n")
}

/// The names that the one file of metrics registers, with what a histogram
/// adds to its own.
fn registered() -> BTreeSet<String> {
    let source = include_str!("../../src/observability/metrics.rs");
    let names = source.split('"').filter(|text| text.starts_with("tallyhook_"));
    let suffixes = ["", "_bucket", "_sum", "_count"];
    names.flat_map(|name| suffixes.map(|suffix| format!("{name}{suffix}"))).collect()
}

#[test]
fn alert_rules_metric_names_are_registered() {
    let (known, rules) = (registered(), expressions());
    let used = named(&rules);
    assert!(used.len() >= 2, "{used:?}");
    for name in used {
        assert!(known.contains(name), "{name} is in the rules and nowhere else");
    }
    // A typo would be found.
    assert!(!known.contains("tallyhook_message_total"));
}

#[test]
fn alert_rules_outcome_labels_exist() {
    let rules = expressions();
    let mut seen = 0;
    // A selector has quotes; an address that is told has none.
    let selectors = rules.split("outcome=").skip(1);
    for words in selectors.filter_map(|at| at.trim_start_matches('~').strip_prefix('"')) {
        for word in words.split('"').next().unwrap().split('|') {
            assert!(Outcome::ALL.iter().any(|outcome| outcome.as_str() == word), "{word}");
            seen += 1;
        }
    }
    assert!(seen >= 6, "only {seen} outcomes found");
}

#[test]
fn duplicates_above_five_percent_raise_an_alert_for_a_source_and_for_an_import() {
    let rules = expressions();
    for (alert, needed) in [
        (
            "TallyhookManyDuplicates",
            &["tallyhook_messages_total{outcome=\"duplicate\"}", "> 0.05", ">= 100", "by (source)"]
                [..],
        ),
        (
            "TallyhookImportManyDuplicates",
            &["tallyhook_import_duplicate_ratio) > 0.05", "by (source)"],
        ),
    ] {
        let rule = rules.split("- alert: ").find(|rule| rule.starts_with(&format!("{alert}\n")));
        let rule = rule.unwrap_or_else(|| panic!("there is no alert {alert}"));
        for part in needed {
            assert!(rule.contains(part), "{alert} lacks {part}");
        }
    }
}
