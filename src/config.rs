//! The configuration: `config/default.toml`, a file over it, the environment
//! over both. Checked as a whole before anything starts; every error names
//! the key.

pub mod destinations;
pub mod enrich;
mod headers;
pub mod retention;
pub mod secret;
pub mod settings;
pub mod sources;

use std::{collections::BTreeMap, path::Path, sync::Arc};

use anyhow::{Context as _, bail};

use crate::{destinations::Destination, domain::SourceName, sources::Source};
pub use enrich::EnrichmentSettings;
pub use retention::Retention;
pub use secret::SecretLookup;
pub use settings::{
    BrokerConfig, DatabaseConfig, LogConfig, LogFormat, OperationsConfig, ReceiverConfig,
    RetryConfig, WorkerConfig,
};

const DEFAULTS: &str = include_str!("../config/default.toml");
const DEVELOPMENT: &str = include_str!("../config/development.toml");
const MOCK_ACCOUNTING: &str = include_str!("../config/mock_accounting.toml");

/// The placeholder address in [`MOCK_ACCOUNTING`].
const MOCK_ACCOUNTING_ADDRESS: &str = "http://accounting.example";

/// Every setting, checked.
#[derive(Clone)]
pub struct Config {
    /// The HTTP receiver.
    pub receiver: ReceiverConfig,
    /// Metrics and probes.
    pub operations: OperationsConfig,
    /// RabbitMQ.
    pub broker: BrokerConfig,
    /// PostgreSQL.
    pub database: DatabaseConfig,
    /// The consumer workers.
    pub worker: WorkerConfig,
    /// The retry schedule.
    pub retry: RetryConfig,
    /// How long what is remembered.
    pub retention: Retention,
    /// Logging.
    pub log: LogConfig,
    /// The sources by name, each with its adapter.
    pub sources: Arc<BTreeMap<SourceName, Source>>,
    /// How thin events are enriched, for the sources whose are.
    pub enrichments: Arc<BTreeMap<SourceName, EnrichmentSettings>>,
    /// The systems that hear of documents, by name.
    pub destinations: Arc<BTreeMap<String, Destination>>,
}

/// Where settings come from.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions<'a> {
    /// The file over the defaults.
    pub file: Option<&'a Path>,
    /// Whether the built-in development sources are there too.
    pub development: bool,
    /// The URL of the mock accounting server that the built-in destination
    /// `accounting` mirrors imported invoices to. A destination of that name in the file
    /// replaces the built-in one.
    pub mock_accounting: Option<&'a str>,
}

impl Config {
    /// Reads and checks everything, with secrets from the process's
    /// environment and from files.
    ///
    /// # Errors
    /// The first thing that is wrong, with its key.
    pub fn load(origin: LoadOptions<'_>) -> anyhow::Result<Self> {
        let environment =
            config::Environment::with_prefix("TALLYHOOK").prefix_separator("__").separator("__");
        Self::build(origin, environment, &SecretLookup::from_environment(origin.development))
    }

    /// Reads one TOML text over the defaults, with this environment's
    /// variables only: for tests.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn from_toml(text: &str, variables: &BTreeMap<String, String>) -> anyhow::Result<Self> {
        let file = config::File::from_str(text, config::FileFormat::Toml);
        let merged = config::Config::builder()
            .add_source(config::File::from_str(DEFAULTS, config::FileFormat::Toml))
            .add_source(file)
            .build()?;
        Self::check(merged, &SecretLookup::from_variables(variables.clone()))
    }

    fn build(
        origin: LoadOptions<'_>,
        environment: config::Environment,
        secrets: &SecretLookup,
    ) -> anyhow::Result<Self> {
        let mut builder = config::Config::builder()
            .add_source(config::File::from_str(DEFAULTS, config::FileFormat::Toml));
        if origin.development {
            let development = config::File::from_str(DEVELOPMENT, config::FileFormat::Toml);
            builder = builder.add_source(development);
        }
        let mut mock_accounting = origin.mock_accounting;
        let mut over = None;
        if let Some(path) = origin.file {
            // Named by its content, so that any file name will do.
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the configuration {}", path.display()))?;
            let file = config::File::from_str(&text, config::FileFormat::Toml);
            // By itself first: its syntax errors quote the line, and a line
            // may hold a password.
            let alone = config::Config::builder().add_source(file.clone()).build();
            let alone = alone.map_err(|error| {
                anyhow::anyhow!("{}: {}", path.display(), without_quoted_lines(&error.to_string()))
            })?;
            // Not merged: a target of two halves is nobody's.
            mock_accounting =
                mock_accounting.filter(|_| alone.get_table("destinations.accounting").is_err());
            over = Some(file);
        }
        if let Some(address) = mock_accounting {
            let text = MOCK_ACCOUNTING.replace(MOCK_ACCOUNTING_ADDRESS, address);
            builder = builder.add_source(config::File::from_str(&text, config::FileFormat::Toml));
        }
        if let Some(file) = over {
            builder = builder.add_source(file);
        }
        let merged =
            builder.add_source(environment).build().context("the configuration cannot be read")?;
        Self::check(merged, secrets).context("the configuration is refused")
    }

    fn check(merged: config::Config, secrets: &SecretLookup) -> anyhow::Result<Self> {
        let raw: settings::RawConfig = merged.try_deserialize()?;
        raw.check()?;
        let mut sources = BTreeMap::new();
        let mut enrichments = BTreeMap::new();
        for (name, value) in raw.sources {
            let path = format!("sources.{name}");
            let source: SourceName = name.parse().with_context(|| path.clone())?;
            if source == SourceName::unknown() {
                bail!("{path}: this name stands for messages of no source; choose another");
            }
            let (value, enrich) = enrich::split(value, &path)?;
            let adapter = sources::build_source(value, secrets, &path)?;
            if let Some(enrich) = enrich {
                let path = format!("{path}.enrich");
                if raw.retry.max_retries == 0 {
                    bail!(
                        "{path} needs retry.max_retries of 1 or more: what cannot be fetched waits there"
                    );
                }
                let enrichment = enrich::build_enrichment(enrich, secrets, &path)?;
                enrichments.insert(source.clone(), enrichment);
            }
            sources.insert(source, adapter);
        }
        if sources.is_empty() {
            bail!("sources: none is configured; add a section such as [sources.shop]");
        }
        let retention = raw.retention.check(sources.iter(), &raw.retry.schedule())?;
        let known: Vec<&SourceName> = sources.keys().collect();
        let targets = raw
            .destinations
            .into_iter()
            .map(|(name, value)| {
                let target = destinations::build_destination(&name, value, &known, secrets)?;
                Ok((name, target))
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(Self {
            receiver: raw.receiver,
            operations: raw.operations,
            broker: BrokerConfig {
                url: secrets.resolve_url(&raw.broker.url).context("broker.url")?,
                ..raw.broker
            },
            database: DatabaseConfig {
                url: secrets.resolve_url(&raw.database.url).context("database.url")?,
                ..raw.database
            },
            worker: raw.worker,
            retry: raw.retry,
            retention,
            log: raw.log,
            sources: Arc::new(sources),
            enrichments: Arc::new(enrichments),
            destinations: Arc::new(targets),
        })
    }
}

/// A message without the lines that quote the file.
fn without_quoted_lines(message: &str) -> String {
    let lines = message.lines().filter(|line| !line.contains('|'));
    lines.map(str::trim).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOP: &str = "[sources.shop]\nkind = 'shopify'\nsecrets = ['env:S']\n";

    fn load(text: &str) -> Result<Config, String> {
        let variables = BTreeMap::from([
            ("S".to_owned(), "secret".to_owned()),
            ("EMPTY".to_owned(), String::new()),
        ]);
        Config::from_toml(text, &variables).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn defaults_and_one_source_are_enough() {
        let config = load(SHOP).unwrap();
        assert_eq!(config.broker.prefix, "tallyhook");
        assert_eq!(config.sources.len(), 1);
    }

    #[test]
    fn the_development_configuration_is_sound() {
        let origin = LoadOptions { development: true, ..LoadOptions::default() };
        let nothing = config::Environment::with_prefix("TALLYHOOK_NO_SUCH_PREFIX");
        let secrets = SecretLookup::from_environment(true);
        assert_eq!(
            Config::build(origin, nothing, &secrets).unwrap().sources.len(),
            sources::SOURCE_KINDS.len()
        );
    }

    #[test]
    fn the_example_of_imports_is_sound() {
        let example = include_str!("../config/import-example.toml");
        let vendors: SourceName = "vendors".parse().unwrap();
        let check = |config: &Config| {
            let adapter = &config.sources[&vendors];
            assert_eq!(adapter.kind(), "import");
            let mut columns = adapter.csv_dialect().unwrap().required_columns.clone();
            columns.sort_unstable();
            assert_eq!(columns, ["amount", "currency", "due_date", "invoice_number", "vendor"]);
        };
        // As `serve` takes it, with its variable set, and not without.
        let set = BTreeMap::from([("TALLYHOOK_DEV_VENDORS".to_owned(), "token".to_owned())]);
        let served = Config::from_toml(example, &set).unwrap();
        assert_eq!(served.sources.len(), 1);
        check(&served);
        let unset = format!("{:#}", Config::from_toml(example, &BTreeMap::new()).err().unwrap());
        assert!(unset.contains("sources.vendors.secrets"), "{unset}");
        // As `dev` does, with nothing set.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("import-example.toml");
        std::fs::write(&path, example).unwrap();
        let origin = LoadOptions { file: Some(&path), development: true, ..LoadOptions::default() };
        let nothing = config::Environment::with_prefix("TALLYHOOK_NO_SUCH_PREFIX");
        let developed =
            Config::build(origin, nothing, &SecretLookup::from_environment(true)).unwrap();
        check(&developed);
        // Whoever sends a file need not say where to.
        let takers = developed.sources.values().filter(|adapter| adapter.accepts_imports());
        assert_eq!(takers.count(), 1);
        // What is commented out is taken too.
        let open = |line: &str| match line.strip_prefix("# ") {
            Some(setting) if line.contains(" = ") => format!("{setting}\n"),
            _ => format!("{line}\n"),
        };
        let opened: String = example.lines().map(open).collect();
        Config::from_toml(&opened, &set).unwrap();
    }

    #[test]
    fn the_built_in_target_is_there_when_it_is_asked_for() {
        let load = |file: Option<&Path>, mock_accounting| {
            Config::load(LoadOptions { file, development: true, mock_accounting }).unwrap()
        };
        assert!(load(None, None).destinations.is_empty());
        let url = Some("http://127.0.0.1:4321");
        let config = load(None, url);
        let target = &config.destinations["accounting"];
        assert_eq!(target.policy.timeout.as_millis(), 500);
        assert_eq!(target.sources, ["vendors".parse().unwrap()]);
        assert!(
            matches!(&target.transport, crate::destinations::Transport::Http(http) if http.supports_lookup())
        );

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tallyhook.toml");
        std::fs::write(&path, "[worker]\nbatch_size = 7\n").unwrap();
        assert_eq!(load(Some(&path), url).destinations.len(), 1);
        // A user's own is no mixture of both.
        let theirs = "[destinations.accounting]\nkind = 'rabbitmq'\nevents = ['order.upserted']\n";
        std::fs::write(&path, theirs).unwrap();
        let config = load(Some(&path), url);
        let target = &config.destinations["accounting"];
        assert!(matches!(target.transport, crate::destinations::Transport::Amqp { .. }));
        assert_eq!((config.destinations.len(), target.sources.as_slice()), (1, [].as_slice()));
    }

    #[test]
    fn the_example_of_targets_is_sound() {
        let names = ["VENDORS_SECRET", "ACCOUNTING_TOKEN"];
        let variables = names.map(|name| (name.to_owned(), "hunter2".to_owned()));
        let text = include_str!("../config/destination-example.toml");
        let config = Config::from_toml(text, &variables.into()).unwrap();
        let kinds: Vec<String> =
            config.destinations.values().map(|target| target.transport.to_string()).collect();
        assert_eq!(kinds, ["http", "rabbitmq"]);
    }

    #[test]
    fn each_mistake_names_its_key() {
        for (text, expected) in [
            ("", "sources"),
            ("[sources.shop]\nkind = 'shopify'\n", "sources.shop"),
            ("[sources.shop]\nkind = 'shopify'\nsecrets = []\n", "sources.shop.secrets"),
            ("[sources.shop]\nkind = 'shopify'\nsecrets = ['env:EMPTY']\n", "sources.shop.secrets"),
            ("[sources.shop]\nkind = 'shopify'\nsecrets = ['env:NONE']\n", "NONE"),
            ("[sources.shop]\nkind = 'shopify'\nsecrets = ['hunter2']\n", "env:NAME"),
            ("[sources.shop]\nkind = 'shopfy'\nsecrets = ['env:S']\n", "shopfy"),
            ("[sources.shop]\nsecrets = ['env:S']\n", "sources.shop.kind"),
            ("[sources.unknown]\nkind = 'shopify'\nsecrets = ['env:S']\n", "sources.unknown"),
            ("[sources.'a/b']\nkind = 'shopify'\nsecrets = ['env:S']\n", "sources.a/b"),
            (&format!("{SHOP}color = 'red'\n"), "color"),
            (&format!("{SHOP}quarantine_limit = 10001\n"), "sources.shop.quarantine_limit"),
            (&format!("{SHOP}quarantine_limit = -1\n"), "sources.shop.quarantine_limit"),
            (&format!("{SHOP}[receiver]\nunused_secret_days = 0\n"), "receiver.unused_secret_days"),
            (&format!("{SHOP}[receiver]\nlisten = 'here'\n"), "receiver.listen"),
            (&format!("{SHOP}[receiver]\nlimit = 1\n"), "limit"),
            (
                &format!("{SHOP}[receiver]\nbody_limit_bytes = 99999999\n"),
                "receiver.body_limit_bytes",
            ),
            (&format!("{SHOP}[worker]\nbatch_size = 0\n"), "worker.batch_size"),
            (&format!("{SHOP}[worker]\nbatch_size = 'many'\n"), "worker.batch_size"),
            (
                &format!("{SHOP}[worker]\nduplicate_warning_percent = 0\n"),
                "worker.duplicate_warning_percent",
            ),
            (
                &format!("{SHOP}[worker]\nduplicate_warning_percent = 101\n"),
                "worker.duplicate_warning_percent",
            ),
            (&format!("{SHOP}[broker]\nprefix = 'a b'\n"), "broker.prefix"),
            (&format!("{SHOP}[retry]\nmultiplier = 0.5\n"), "retry.multiplier"),
        ] {
            let error = load(text).err().unwrap_or_default();
            assert!(error.contains(expected), "{text:?} must name {expected:?}, says {error:?}");
            assert!(!error.contains("hunter2"), "a secret is shown: {error}");
        }
    }

    #[test]
    fn a_syntax_error_does_not_quote_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tallyhook.toml");
        std::fs::write(&path, "[broker]\nurl = \"amqp://ann:hunter2@rabbit\n").unwrap();
        let origin = LoadOptions { file: Some(&path), development: true, ..LoadOptions::default() };
        let error = format!("{:#}", Config::load(origin).err().unwrap());
        assert!(error.contains("line 2") && error.contains("tallyhook.toml"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_generic_source_is_checked_to_the_pointer() {
        let generic = "[sources.erp]\nkind = 'generic'\nsecrets = ['env:S']\n";
        for (text, expected) in [
            ("[sources.erp.order]\nid = 'id'\ncurrency = '/c'\ntotal = '/t'\n", "'id'|\"id\""),
            ("[sources.erp.order]\nid = '/id'\ntotal = '/t'\n", "currency"),
            ("[sources.erp.order]\nid = 'header:X'\ncurrency = '/c'\ntotal = '/t'\n", "header:x"),
            (
                "[sources.erp.order]\nid = '/i'\ncurrency = '/c'\ntotal = '/t'\ntopics = ['o']\n",
                "sources.erp.event.topic",
            ),
        ] {
            let error = load(&format!("{generic}{text}")).err().unwrap_or_default();
            let named = expected.split('|').any(|word| error.contains(word));
            assert!(named && error.contains("sources.erp"), "{text:?} says {error:?}");
        }
    }
}
