//! One `[destinations.<name>]` section: a system that hears of documents.

mod delivery_policy;
mod http;

use std::collections::{BTreeSet, HashMap};

use anyhow::{Context as _, bail, ensure};
use config::Value;
use serde::Deserialize;

use super::{SecretLookup, sources};
use crate::{
    destinations::{DeliveryPolicy, Destination, Transport},
    domain::{DocumentEvent, SourceName},
};

/// The kinds of target there are.
pub const DESTINATION_KINDS: [&str; 2] = ["http", "rabbitmq"];

/// The settings of kind `rabbitmq`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Broker {
    #[serde(default = "Broker::exchange")]
    exchange: String,
    routing_key: Option<String>,
    #[serde(default = "Broker::batch_size")]
    batch_size: usize,
}

impl Broker {
    fn exchange() -> String {
        "tallyhook.events".to_owned()
    }

    const fn batch_size() -> usize {
        200
    }

    fn check(self, path: &str) -> anyhow::Result<(Transport, DeliveryPolicy)> {
        let Self { exchange, routing_key, batch_size } = self;
        for (key, text) in [("exchange", Some(&exchange)), ("routing_key", routing_key.as_ref())] {
            ensure!(
                text.is_none_or(|text| (1..=255).contains(&text.len())),
                "{path}.{key} must be 1 to 255 bytes"
            );
        }
        ensure!((1..=1000).contains(&batch_size), "{path}.batch_size must be 1 to 1000");
        Ok((
            Transport::Amqp { exchange, routing_key },
            delivery_policy::policy_for_batches(batch_size),
        ))
    }
}

/// Reads and checks a target's section. `sources` are those configured.
///
/// # Errors
/// The first thing that is wrong, with the key.
pub(super) fn build_destination(
    name: &str,
    section: Value,
    sources: &[&SourceName],
    secrets: &SecretLookup,
) -> anyhow::Result<Destination> {
    let path = &format!("destinations.{name}");
    // It stands in URLs, labels and tables, as a source's does.
    name.parse::<SourceName>().ok().with_context(|| {
        format!("{path}: a target's name must be 1 to 64 characters of a-z, 0-9, - and _")
    })?;
    let mut table = section.into_table().with_context(|| format!("{path} must be a section"))?;
    let kind = table
        .remove("kind")
        .with_context(|| {
            format!("{path}.kind is missing; one of {}", DESTINATION_KINDS.join(", "))
        })?
        .into_string()
        .with_context(|| format!("{path}.kind"))?;
    let words = sources::parse_list(table.remove("events"), path, "events")?;
    let events = events(&words).with_context(|| format!("{path}.events"))?;
    let heard = sources::parse_list(table.remove("sources"), path, "sources")?;
    let heard: Vec<SourceName> = heard
        .iter()
        .map(|name| Ok(name.parse()?))
        .collect::<anyhow::Result<_>>()
        .with_context(|| format!("{path}.sources"))?;
    let (way, effort) = match kind.as_str() {
        "rabbitmq" => {
            let rest = Value::new(None, config::ValueKind::Table(table));
            let broker: Broker = rest.try_deserialize().with_context(|| path.clone())?;
            broker.check(path)?
        }
        "http" => {
            let keys = delivery_policy::Raw::KEYS
                .iter()
                .filter_map(|key| Some(((*key).to_owned(), table.remove(*key)?)))
                .collect::<HashMap<_, _>>();
            let raw: delivery_policy::Raw = Value::new(None, config::ValueKind::Table(keys))
                .try_deserialize()
                .with_context(|| path.clone())?;
            let effort = raw.policy(path)?;
            let rest = Value::new(None, config::ValueKind::Table(table));
            let http = http::build_http_destination(rest, &events, effort.timeout, secrets, path)?;
            (Transport::Http(Box::new(http)), effort)
        }
        other => bail!("{path}.kind: {other:?} is not one of {}", DESTINATION_KINDS.join(", ")),
    };
    if let Some(stranger) = heard.iter().find(|name| !sources.contains(name)) {
        bail!("{path}.sources: no source {stranger} is configured");
    }
    Ok(Destination {
        name: name.to_owned(),
        events,
        sources: heard,
        policy: effort,
        transport: way,
    })
}

fn events(words: &[String]) -> anyhow::Result<Vec<DocumentEvent>> {
    let known = || DocumentEvent::ALL.iter().map(|event| event.as_str()).collect::<Vec<_>>();
    ensure!(!words.is_empty(), "at least one is needed of {}", known().join(", "));
    let event = |word: &String| {
        word.parse::<DocumentEvent>()
            .ok()
            .with_context(|| format!("{word:?} is not one of {}", known().join(", ")))
    };
    // Each once: a target hears nothing twice.
    let events: BTreeSet<DocumentEvent> = words.iter().map(event).collect::<anyhow::Result<_>>()?;
    Ok(events.into_iter().collect())
}
