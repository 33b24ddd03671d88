use std::collections::BTreeMap;

use super::*;
use crate::config::Config;

const SHOP: &str = "[sources.shop]\nkind = 'shopify'\nsecrets = ['env:S']\n";
/// The redelivery windows of Shopify and Stripe.
const SHOPIFY: Duration = Duration::from_hours(4);
const STRIPE: Duration = Duration::from_hours(30 * 24);

/// Loads a `[retention]` and `[retry]` section and checks it for sources with these windows.
fn check(text: &str, windows: &[(&'static str, Duration)]) -> Result<Retention, String> {
    let variables = BTreeMap::from([("S".to_owned(), "secret".to_owned())]);
    let config = Config::from_toml(&format!("{SHOP}{text}"), &variables)
        .map_err(|error| format!("{error:#}"))?;
    let names: Vec<SourceName> = windows.iter().map(|(name, _)| name.parse().unwrap()).collect();
    let windows = names.iter().zip(windows).map(|(name, (kind, window))| (name, *kind, *window));
    config.retention.check(windows, &config.retry.schedule()).map_err(|error| format!("{error:#}"))
}

fn check_shop(text: &str) -> Result<Retention, String> {
    check(text, &[("shopify", SHOPIFY)])
}

#[test]
fn retention_defaults_exceed_required_window() {
    let retention = check("", &[("shopify", SHOPIFY), ("stripe", STRIPE)]).unwrap();
    assert_eq!(retention.dedupe_window, Some(60 * DAY));
    assert_eq!(retention.receipts, None);
    assert_eq!(retention.receipts_partition, 7 * DAY);
    // Stripe's 30 days, two weeks in the broker, and 1 + 2 + 4 + 8 seconds.
    let required = &retention.required_window;
    assert_eq!(required.total(), 44 * DAY + Duration::from_secs(15));
    assert_eq!(
        required.to_string(),
        "30 d of redeliveries (sources.stripe, stripe), 14 d in the broker \
         (retention.max_queue_age_days), 15 s of retry delays (retry): 44 d 15 s"
    );
}

#[test]
fn retention_window_too_short_is_refused_with_minimum() {
    let both = [("shopify", SHOPIFY), ("stripe", STRIPE)];
    let shop = &both[..1];
    for (text, windows, minimum) in [
        // 4 hours, 14 days and 15 seconds.
        ("[retention]\ndedupe_window_days = 14\n", shop, "at least 15:"),
        ("[retention]\ndedupe_window_days = 44\n", &both, "at least 45:"),
        ("[retention]\nmax_queue_age_days = 60\n", shop, "at least 61:"),
        (
            "[retry]\ninitial_delay_ms = 86400000\nmax_delay_ms = 86400000\nmax_retries = 20\n\
             [retention]\ndedupe_window_days = 30\n",
            shop,
            "at least 35:",
        ),
    ] {
        let error = check(text, windows).unwrap_err();
        assert!(error.contains("retention.dedupe_window_days must be "), "{error}");
        assert!(error.contains(minimum), "{text}: {error}");
        assert!(error.contains("(retention.max_queue_age_days)"), "{error}");
    }
    for enough in ["15", "'15'", "'forever'", "36500"] {
        check_shop(&format!("[retention]\ndedupe_window_days = {enough}\n")).unwrap();
    }
}

#[test]
fn retention_value_out_of_range_names_key() {
    let forever = check_shop("[retention]\ndedupe_window_days = 'forever'\n").unwrap();
    assert_eq!(forever.dedupe_window, None);
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
        let error = check_shop(&format!("[retention]\n{key} = {value}\n")).unwrap_err();
        assert!(error.contains(key), "{key} = {value}: {error}");
    }
}

#[test]
fn retention_receipts_shorter_than_keys_are_refused() {
    let check = |keys: &str, receipts: &str| {
        check_shop(&format!(
            "[retention]\ndedupe_window_days = {keys}\nreceipts_days = {receipts}\n"
        ))
    };
    for (keys, receipts) in [("90", "136"), ("90", "'forever'"), ("'forever'", "'forever'")] {
        check(keys, receipts).unwrap();
    }
    for (keys, receipts) in [("90", "135"), ("'forever'", "36500")] {
        let error = check(keys, receipts).unwrap_err();
        assert!(error.contains("retention.receipts_days"), "{error}");
    }
}

#[test]
fn human_duration_shows_two_largest_units() {
    for (seconds, expected) in
        [(0, "0 ms"), (59, "59 s"), (3600, "1 h"), (90_061, "1 d 1 h"), (86_415, "1 d 15 s")]
    {
        assert_eq!(HumanDuration(Duration::from_secs(seconds)).to_string(), expected);
    }
}
