//! What the configuration describes, built: sources, destinations, enrichment, retention.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Context as _;

use super::{destinations, enrichment, sources};
use crate::{
    config::{Config, LoadOptions, Retention},
    destinations::Destination,
    domain::SourceName,
    sources::Source,
    store::deliveries::OutboxSubscription,
    worker::{Outbox, enrich::EnricherSettings},
};

/// The parts of the application that the configuration describes. Building them checks every
/// setting that [`Config`] alone cannot check.
#[derive(Clone)]
pub struct Components {
    /// The platforms that send webhooks.
    pub sources: Arc<BTreeMap<SourceName, Source>>,
    /// How thin events are enriched, for the sources that configure it.
    pub enrichments: Arc<BTreeMap<SourceName, EnricherSettings>>,
    /// The systems that receive documents.
    pub destinations: Arc<BTreeMap<String, Destination>>,
    /// How long keys and the call log are kept.
    pub retention: Retention,
}

impl Components {
    /// Builds everything that `config` describes. Secrets are read.
    ///
    /// # Errors
    /// The first invalid setting, with its key.
    pub fn build(config: &Config) -> anyhow::Result<Self> {
        let secrets = &config.secrets;
        let mut sources = BTreeMap::new();
        let mut enrichments = BTreeMap::new();
        for (name, settings) in &config.sources {
            let path = format!("sources.{name}");
            sources.insert(name.clone(), sources::build(settings, secrets, &path)?);
            if let Some(enrich) = &settings.enrich {
                let path = format!("{path}.enrich");
                enrichments.insert(name.clone(), enrichment::build(enrich, secrets, &path)?);
            }
        }
        let windows = sources.iter().map(|(name, source): (&SourceName, &Source)| {
            (name, source.kind(), source.redelivery_window())
        });
        let retention = config.retention.check(windows, &config.retry.schedule())?;
        let destinations = config
            .destinations
            .iter()
            .map(|(name, settings)| {
                let destination = destinations::build(name, settings, secrets)?;
                Ok((name.clone(), destination))
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(Self {
            sources: Arc::new(sources),
            enrichments: Arc::new(enrichments),
            destinations: Arc::new(destinations),
            retention,
        })
    }

    /// Loads the configuration and builds it.
    ///
    /// # Errors
    /// The first invalid setting, with its key.
    pub fn load(options: LoadOptions<'_>) -> anyhow::Result<(Config, Self)> {
        let config = Config::load(options)?;
        let components = Self::build(&config).context("the configuration is invalid")?;
        Ok((config, components))
    }

    /// Builds a TOML text over the defaults. Secrets come from `variables` only.
    ///
    /// # Errors
    /// The first invalid setting, with its key.
    pub fn from_toml(text: &str, variables: &BTreeMap<String, String>) -> anyhow::Result<Self> {
        Self::build(&Config::from_toml(text, variables)?)
    }

    /// The outbox with the subscriptions of all destinations to all sources.
    pub fn outbox(&self) -> Outbox {
        let mut subscriptions = Vec::new();
        for source in self.sources.keys() {
            for destination in self.destinations.values() {
                if !destination.subscribes_to(source) {
                    continue;
                }
                for event in &destination.events {
                    let subscription = OutboxSubscription {
                        destination: destination.name.clone(),
                        event: *event,
                        is_mirror: destination.is_mirror(*event),
                    };
                    subscriptions.push((source.clone(), subscription));
                }
            }
        }
        Outbox::new(subscriptions)
    }
}

#[cfg(test)]
mod tests;
