//! Secrets that no sender uses any more, or not yet.

use std::collections::BTreeMap;

use time::{Duration, OffsetDateTime};

use super::{CheckStatus, Finding};
use crate::{
    app::Components,
    cli::output::timestamp,
    config::Config,
    domain::SourceName,
    sources::Source,
    store::{Store, StoreError, secret_uses, secret_uses::SecretUse},
};

/// Warnings about the configured secrets.
pub(super) async fn findings(
    store: &Store,
    config: &Config,
    components: &Components,
) -> Result<Vec<Finding>, StoreError> {
    let mut connection = store.connection().await?;
    let uses = secret_uses::list(&mut connection).await?;
    let days = config.receiver.unused_secret_days;
    let findings = components.sources.iter().flat_map(|(name, source)| {
        let labels: Vec<&str> = Source::secret_labels(source).collect();
        unused_secrets(name, &labels, &uses, days, OffsetDateTime::now_utc())
    });
    Ok(findings
        .map(|message| Finding { subject: "secrets", status: CheckStatus::Warning, message })
        .collect())
}

/// Warns of each secret of a source that was not used after another one was. If
/// no secret was ever used, there was no traffic to judge by.
fn unused_secrets(
    source: &SourceName,
    labels: &[&str],
    uses: &[SecretUse],
    days: u16,
    now: OffsetDateTime,
) -> Vec<String> {
    let of_source = uses.iter().filter(|row| row.source == source.as_str());
    let last_uses: BTreeMap<&str, OffsetDateTime> =
        of_source.map(|row| (row.secret.as_str(), row.last_used_at)).collect();
    let Some(newest) = last_uses.values().max().copied() else {
        return Vec::new();
    };
    let unused = |label: &&str| match last_uses.get(*label) {
        None => Some(format!(
            "{label} of {source} has never verified a message, another secret did on {}",
            timestamp(newest)
        )),
        Some(last) if *last < newest && now - *last > Duration::days(days.into()) => Some(format!(
            "{label} of {source} verified its last message on {}, another secret did on {}: \
                 it may be removed",
            timestamp(*last),
            timestamp(newest)
        )),
        Some(_) => None,
    };
    labels.iter().filter_map(unused).collect()
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-03-01 0:00 UTC);

    fn warnings(uses: &[(&str, &str, i64)], labels: &[&str]) -> Vec<String> {
        let uses: Vec<SecretUse> = uses
            .iter()
            .map(|(source, secret, days)| SecretUse {
                source: (*source).to_owned(),
                secret: (*secret).to_owned(),
                last_used_at: NOW - Duration::days(*days),
            })
            .collect();
        unused_secrets(&"shop".parse().unwrap(), labels, &uses, 30, NOW)
    }

    #[test]
    fn unused_secrets_need_newer_use_of_another() {
        let both = ["env:OLD", "env:NEW"];
        assert!(warnings(&[], &both).is_empty(), "no traffic");
        assert!(warnings(&[("other", "env:NEW", 0)], &both).is_empty());
        assert!(warnings(&[("shop", "env:OLD", 29), ("shop", "env:NEW", 0)], &both).is_empty());
        // Long unused, but there was no traffic since.
        assert!(warnings(&[("shop", "env:OLD", 90)], &["env:OLD"]).is_empty());

        let found = warnings(&[("shop", "env:OLD", 31), ("shop", "env:NEW", 0)], &both);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("env:OLD of shop"), "{found:?}");
        let found = warnings(&[("shop", "env:OLD", 0)], &both);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("env:NEW of shop has never"), "{found:?}");
        // A secret that is no longer configured counts as traffic too.
        assert_eq!(warnings(&[("shop", "env:GONE", 0)], &["env:NEW"]).len(), 1);
    }
}
