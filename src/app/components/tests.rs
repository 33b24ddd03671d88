use std::path::Path;

use super::*;
use crate::{
    config::{SOURCE_KINDS, SecretLookup},
    destinations::Transport,
};

const SHOP: &str = "[sources.shop]\nkind = 'shopify'\nsecrets = ['env:S']\n";

fn build(text: &str) -> Result<Components, String> {
    let variables = BTreeMap::from([
        ("S".to_owned(), "secret".to_owned()),
        ("EMPTY".to_owned(), String::new()),
    ]);
    Components::from_toml(text, &variables).map_err(|error| format!("{error:#}"))
}

/// Loads without the variables of this process.
fn load_without_environment(options: LoadOptions<'_>) -> Components {
    let environment = config::Environment::with_prefix("TALLYHOOK_NO_SUCH_PREFIX");
    let secrets = SecretLookup::from_environment(true);
    Components::build(&Config::load_with(options, environment, secrets).unwrap()).unwrap()
}

#[test]
fn components_development_configuration_builds() {
    let options = LoadOptions { development: true, ..LoadOptions::default() };
    assert_eq!(load_without_environment(options).sources.len(), SOURCE_KINDS.len());
}

#[test]
fn components_import_example_builds() {
    let example = include_str!("../../../config/import-example.toml");
    let vendors: SourceName = "vendors".parse().unwrap();
    let check = |components: &Components| {
        let source = &components.sources[&vendors];
        assert_eq!(source.kind(), "import");
        let mut columns = source.csv_dialect().unwrap().required_columns.clone();
        columns.sort_unstable();
        assert_eq!(columns, ["amount", "currency", "due_date", "invoice_number", "vendor"]);
    };
    // `serve` needs the variable.
    let variables = BTreeMap::from([("TALLYHOOK_DEV_VENDORS".to_owned(), "token".to_owned())]);
    let served = Components::from_toml(example, &variables).unwrap();
    assert_eq!(served.sources.len(), 1);
    check(&served);
    let unset = Components::from_toml(example, &BTreeMap::new()).err().unwrap();
    let unset = format!("{unset:#}");
    assert!(unset.contains("sources.vendors.secrets"), "{unset}");
    // `dev` does not.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("import-example.toml");
    std::fs::write(&path, example).unwrap();
    let options = LoadOptions { file: Some(&path), development: true, ..LoadOptions::default() };
    let developed = load_without_environment(options);
    check(&developed);
    // `tallyhook import` needs no `--source` with one import source.
    let importers = developed.sources.values().filter(|source| source.accepts_imports());
    assert_eq!(importers.count(), 1);
    // The keys in comments are valid too.
    let uncomment = |line: &str| match line.strip_prefix("# ") {
        Some(setting) if line.contains(" = ") => format!("{setting}\n"),
        _ => format!("{line}\n"),
    };
    let uncommented: String = example.lines().map(uncomment).collect();
    Components::from_toml(&uncommented, &variables).unwrap();
}

#[test]
fn components_mock_accounting_is_replaced_by_own_destination() {
    let load = |file: Option<&Path>, mock_accounting| {
        let options = LoadOptions { file, development: true, mock_accounting };
        Components::load(options).unwrap().1
    };
    assert!(load(None, None).destinations.is_empty());
    let url = Some("http://127.0.0.1:4321");
    let components = load(None, url);
    let destination = &components.destinations["accounting"];
    assert_eq!(destination.policy.timeout.as_millis(), 500);
    assert_eq!(destination.sources, ["vendors".parse().unwrap()]);
    assert!(matches!(&destination.transport, Transport::Http(http) if http.supports_lookup()));

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tallyhook.toml");
    std::fs::write(&path, "[worker]\nbatch_size = 7\n").unwrap();
    assert_eq!(load(Some(&path), url).destinations.len(), 1);
    // The two are not merged.
    let own = "[destinations.accounting]\nkind = 'rabbitmq'\nevents = ['order.upserted']\n";
    std::fs::write(&path, own).unwrap();
    let components = load(Some(&path), url);
    let destination = &components.destinations["accounting"];
    assert!(matches!(destination.transport, Transport::Amqp { .. }));
    assert_eq!((components.destinations.len(), destination.sources.as_slice()), (1, [].as_slice()));
}

#[test]
fn components_destination_example_builds() {
    let names = ["VENDORS_SECRET", "ACCOUNTING_TOKEN"];
    let variables = names.map(|name| (name.to_owned(), "hunter2".to_owned()));
    let text = include_str!("../../../config/destination-example.toml");
    let components = Components::from_toml(text, &variables.into()).unwrap();
    let kinds: Vec<String> = components
        .destinations
        .values()
        .map(|destination| destination.transport.to_string())
        .collect();
    assert_eq!(kinds, ["http", "rabbitmq"]);
}

#[test]
fn components_invalid_secret_names_key() {
    for (text, expected) in [
        ("[sources.shop]\nkind = 'shopify'\nsecrets = ['env:EMPTY']\n", "sources.shop.secrets"),
        ("[sources.shop]\nkind = 'shopify'\nsecrets = ['env:NONE']\n", "NONE"),
        ("[sources.shop]\nkind = 'shopify'\nsecrets = ['hunter2']\n", "env:NAME"),
        (&format!("{SHOP}color = 'red'\n"), "color"),
        (&format!("{SHOP}[retention]\ndedupe_window_days = 3\n"), "retention.dedupe_window_days"),
    ] {
        let error = build(text).err().unwrap_or_default();
        assert!(error.contains(expected), "{text:?} must name {expected:?}, says {error:?}");
        assert!(!error.contains("hunter2"), "a secret is shown: {error}");
    }
}

#[test]
fn components_generic_source_error_names_pointer() {
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
        let error = build(&format!("{generic}{text}")).err().unwrap_or_default();
        let is_named = expected.split('|').any(|name| error.contains(name));
        assert!(is_named && error.contains("sources.erp"), "{text:?} says {error:?}");
    }
}
