use std::collections::BTreeMap;

use super::*;
use crate::config::Config;

const SHOP: &str = "[sources.shop]\nkind = 'shopify'\nsecrets = ['env:S']\n";
const PAY: &str = "[sources.pay]\nkind = 'stripe'\nsecrets = ['env:W']\n";

fn load(text: &str) -> Result<Retention, String> {
    let secrets = [("S", "secret"), ("W", "whsec_a-secret")];
    let variables = secrets.map(|(name, text)| (name.to_owned(), text.to_owned()));
    Config::from_toml(text, &BTreeMap::from(variables))
        .map(|config| config.retention)
        .map_err(|error| format!("{error:#}"))
}

#[test]
fn the_defaults_keep_keys_longer_than_they_have_to() {
    let retention = load(&format!("{SHOP}{PAY}")).unwrap();
    assert_eq!(retention.dedupe_window, Some(60 * DAY));
    assert_eq!(retention.receipts, None);
    assert_eq!(retention.receipts_partition, 7 * DAY);
    // Stripe's 30 days, two weeks in the broker, and 1 + 2 + 4 + 8 seconds.
    let needed = &retention.required_window;
    assert_eq!(needed.total(), 44 * DAY + Duration::from_secs(15));
    assert_eq!(
        needed.to_string(),
        "30 d until its platform gives up (sources.pay, stripe), 14 d in the broker \
         (retention.max_queue_age_days), 15 s between attempts (retry): 44 d 15 s"
    );
    // Shopify gives up after four hours.
    assert_eq!(load(SHOP).unwrap().required_window.redelivery, Duration::from_hours(4));
}

#[test]
fn keys_that_would_be_forgotten_too_early_are_refused_with_the_sum() {
    for (text, least) in [
        // 4 hours, 14 days and 15 seconds.
        (format!("{SHOP}[retention]\nkeys_days = 14\n"), "at least 15:"),
        (format!("{SHOP}{PAY}[retention]\nkeys_days = 44\n"), "at least 45:"),
        (format!("{SHOP}[retention]\nbacklog_days = 60\n"), "at least 61:"),
        (
            format!(
                "{SHOP}[retry]\nfirst_ms = 86400000\nlongest_ms = 86400000\nmax_retries = 20\n\
                 [retention]\nkeys_days = 30\n"
            ),
            "at least 35:",
        ),
    ] {
        let error = load(&text).unwrap_err();
        assert!(error.contains("retention.dedupe_window_days must be "), "{error}");
        assert!(error.contains(least), "{text}: {error}");
        assert!(error.contains("(retention.max_queue_age_days)"), "{error}");
    }
    for enough in ["15", "'15'", "'forever'", "36500"] {
        load(&format!("{SHOP}[retention]\nkeys_days = {enough}\n")).unwrap();
    }
}

#[test]
fn forever_is_a_word_and_no_number() {
    assert_eq!(
        load(&format!("{SHOP}[retention]\nkeys_days = 'forever'\n")).unwrap().dedupe_window,
        None
    );
    for (key, value) in [
        ("dedupe_window_days", "0"),
        ("dedupe_window_days", "-1"),
        ("dedupe_window_days", "'0'"),
        ("dedupe_window_days", "''"),
        ("dedupe_window_days", "'never'"),
        ("dedupe_window_days", "1.5"),
        ("dedupe_window_days", "36501"),
        ("receipts_days", "0"),
        ("receipts_days", "'for ever'"),
        ("max_queue_age_days", "0"),
        ("max_queue_age_days", "3651"),
        ("receipts_partition_days", "0"),
        ("receipts_partition_days", "367"),
        ("days", "7"),
    ] {
        let error = load(&format!("{SHOP}[retention]\n{key} = {value}\n")).unwrap_err();
        assert!(error.contains(key), "{key} = {value}: {error}");
    }
}

#[test]
fn the_call_log_is_kept_as_long_as_keys() {
    let section = |keys: &str, receipts: &str| {
        load(&format!("{SHOP}[retention]\nkeys_days = {keys}\nreceipts_days = {receipts}\n"))
    };
    for (keys, receipts) in [("90", "136"), ("90", "'forever'"), ("'forever'", "'forever'")] {
        section(keys, receipts).unwrap();
    }
    for (keys, receipts) in [("90", "135"), ("'forever'", "36500")] {
        let error = section(keys, receipts).unwrap_err();
        assert!(error.contains("retention.receipts_days"), "{error}");
    }
}

#[test]
fn a_span_is_told_in_its_two_largest_units() {
    for (seconds, told) in
        [(0, "0 ms"), (59, "59 s"), (3600, "1 h"), (90_061, "1 d 1 h"), (86_415, "1 d 15 s")]
    {
        assert_eq!(HumanDuration(Duration::from_secs(seconds)).to_string(), told);
    }
}
