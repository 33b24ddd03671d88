//! The alert rules and the product agree on names: a rule on a metric, a label or an outcome that
//! the product does not have would never fire. `promtool` tests when the rules fire.

use std::collections::BTreeSet;

use tallyhook::{domain::Outcome, observability::metrics::Metrics};

const RULES: &str = include_str!("../../deploy/prometheus/tallyhook.rules.yml");
const RULE_TESTS: &str = include_str!("../../deploy/prometheus/tallyhook.test.yml");

/// The metrics that the alerts need, each as one series with its labels.
fn series_of_alerts() -> String {
    let metrics = Metrics::new().unwrap();
    metrics.messages.with_label_values(&["shop", "duplicate"]).inc();
    metrics.import_duplicate_ratio.with_label_values(&["vendors"]).set(0.5);
    metrics.maintenance_last_success.set(1);
    metrics.render()
}

fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

/// A text without comments and annotations.
fn expressions(text: &str) -> String {
    let mut filtered = String::new();
    let mut in_annotations = None;
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        if in_annotations.is_some_and(|start| indent > start || line.trim().is_empty()) {
            continue;
        }
        in_annotations = None;
        if line.trim_end().ends_with("annotations:") {
            in_annotations = Some(indent);
        } else if !line.trim_start().starts_with('#') {
            filtered.push_str(line);
            filtered.push('\n');
        }
    }
    filtered
}

fn metric_names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|character| !is_word(character));
    words.filter(|name| name.starts_with("tallyhook_")).collect()
}

/// The label names of selectors such as `{source="shop"}`, and of `by (source)`.
fn label_names(text: &str) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    let braces = text.split('{').skip(1).filter_map(|rest| rest.split_once('}'));
    for (selector, _) in braces {
        let matchers = selector.split(',').filter_map(|matcher| matcher.split_once(['=', '!']));
        found.extend(matchers.map(|(name, _)| name.trim()));
    }
    for keyword in ["by", "on", "without", "ignoring"] {
        for rest in text.split(&format!("{keyword} (")).skip(1) {
            let names = rest.split_once(')').map_or("", |(names, _)| names);
            found.extend(names.split(',').map(str::trim));
        }
    }
    found
}

/// The metrics that a text names and the alerts' series do not have.
fn unknown_metrics<'a>(text: &'a str, series: &str) -> Vec<&'a str> {
    let known: BTreeSet<&str> = metric_names(series);
    metric_names(text).into_iter().filter(|name| !known.contains(name)).collect()
}

#[test]
fn alert_rules_metric_names_are_registered() {
    let series = series_of_alerts();
    for text in [RULES, RULE_TESTS] {
        let text = expressions(text);
        assert!(metric_names(&text).len() >= 3, "{text}");
        assert_eq!(unknown_metrics(&text, &series), [""; 0], "add it to `series_of_alerts`");
    }
}

#[test]
fn alert_rules_misspelt_metric_is_found() {
    let misspelt =
        expressions(RULES).replace("tallyhook_messages_total", "tallyhook_message_total");
    assert_eq!(unknown_metrics(&misspelt, &series_of_alerts()), ["tallyhook_message_total"]);
}

#[test]
fn alert_rules_label_names_are_registered() {
    let series = series_of_alerts();
    let known = label_names(&series);
    let rules = expressions(RULES);
    let used = label_names(&rules);
    assert!(used.contains("source") && used.contains("outcome"), "{used:?}");
    assert!(used.is_subset(&known), "{used:?} are not all in {known:?}");
}

#[test]
fn alert_rules_outcome_labels_exist() {
    let known: BTreeSet<&str> = Outcome::ALL.iter().map(|outcome| outcome.as_str()).collect();
    for text in [RULES, RULE_TESTS] {
        let mut seen = 0;
        for rest in expressions(text).split("outcome=").skip(1) {
            let quoted = rest.trim_start_matches('~').strip_prefix(['"', '\'']).unwrap_or_default();
            let words = quoted.split(['"', '\'']).next().unwrap_or_default();
            for word in words.split('|') {
                assert!(known.contains(word), "{word} is no outcome");
                seen += 1;
            }
        }
        assert!(seen > 0, "no outcome found in {text}");
    }
}
