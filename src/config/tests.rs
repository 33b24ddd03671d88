use super::*;

const SHOP: &str = "[sources.shop]\nkind = 'shopify'\nsecrets = ['env:S']\n";

fn load(text: &str) -> Result<Config, String> {
    let variables = BTreeMap::from([("S".to_owned(), "secret".to_owned())]);
    Config::from_toml(text, &variables).map_err(|error| format!("{error:#}"))
}

#[test]
fn config_one_source_is_enough() {
    let config = load(SHOP).unwrap();
    assert_eq!(config.broker.prefix, "tallyhook");
    assert_eq!(config.sources.len(), 1);
    assert_eq!(config, load(SHOP).unwrap());
}

#[test]
fn config_debug_shows_no_secret() {
    let text = format!(
        "{SHOP}[broker]\nurl = 'amqp://ann:hunter2@rabbit'\n\
         [database]\nurl = 'postgres://ann:hunter2@postgres'\n"
    );
    let variables = BTreeMap::from([("S".to_owned(), "hunter2".to_owned())]);
    let debug = format!("{:?}", Config::from_toml(&text, &variables).unwrap());
    assert!(debug.contains("env:S") && debug.contains("max_connections"), "{debug}");
    assert!(!debug.contains("hunter2"), "{debug}");
}

#[test]
fn config_invalid_value_names_key() {
    for (text, expected) in [
        ("", "sources"),
        ("[sources.shop]\nkind = 'shopify'\n", "sources.shop.secrets"),
        ("[sources.shop]\nkind = 'shopify'\nsecrets = []\n", "sources.shop.secrets"),
        ("[sources.shop]\nkind = 'shopfy'\nsecrets = ['env:S']\n", "shopfy"),
        ("[sources.shop]\nsecrets = ['env:S']\n", "sources.shop.kind"),
        ("[sources.unknown]\nkind = 'shopify'\nsecrets = ['env:S']\n", "sources.unknown"),
        ("[sources.'a/b']\nkind = 'shopify'\nsecrets = ['env:S']\n", "sources.a/b"),
        (&format!("{SHOP}quarantine_limit = 10001\n"), "sources.shop.quarantine_limit"),
        (&format!("{SHOP}quarantine_limit = -1\n"), "sources.shop.quarantine_limit"),
        (&format!("{SHOP}[receiver]\nunused_secret_days = 0\n"), "receiver.unused_secret_days"),
        (&format!("{SHOP}[receiver]\nlisten = 'here'\n"), "receiver.listen"),
        (&format!("{SHOP}[receiver]\nlimit = 1\n"), "limit"),
        (&format!("{SHOP}[receiver]\nbody_limit_bytes = 99999999\n"), "receiver.body_limit_bytes"),
        (&format!("{SHOP}[receiver]\nheader_timeout_ms = 99\n"), "receiver.header_timeout_ms"),
        (&format!("{SHOP}[worker]\nbatch_size = 0\n"), "worker.batch_size"),
        (&format!("{SHOP}[worker]\nbatch_size = 'many'\n"), "worker.batch_size"),
        (&format!("{SHOP}[worker]\nconsumers_per_source = 33\n"), "worker.consumers_per_source"),
        (
            &format!("{SHOP}[worker]\nduplicate_warning_percent = 0\n"),
            "worker.duplicate_warning_percent",
        ),
        (
            &format!("{SHOP}[worker]\nduplicate_warning_percent = 101\n"),
            "worker.duplicate_warning_percent",
        ),
        (&format!("{SHOP}[broker]\nprefix = 'a b'\n"), "broker.prefix"),
        (&format!("{SHOP}[broker]\nmax_unconfirmed = 4097\n"), "broker.max_unconfirmed"),
        (&format!("{SHOP}[broker]\nurl = 'env:NONE'\n"), "broker.url"),
        (&format!("{SHOP}[database]\nmax_connections = 1\n"), "database.max_connections"),
        (&format!("{SHOP}[retry]\nmultiplier = 0.5\n"), "retry.multiplier"),
        (&format!("{SHOP}[retry]\nmax_delay_ms = 999\n"), "retry.max_delay_ms"),
        (&format!("{SHOP}[destinations.x]\nkind = 'ftp'\nevents = ['order.upserted']\n"), "ftp"),
        (
            &format!("{SHOP}[destinations.x]\nkind = 'rabbitmq'\nevents = ['order.gone']\n"),
            "destinations.x.events",
        ),
        (
            &format!(
                "{SHOP}[destinations.x]\nkind = 'rabbitmq'\nevents = ['order.upserted']\n\
                 sources = ['north']\n"
            ),
            "destinations.x.sources: no source north",
        ),
    ] {
        let error = load(text).err().unwrap_or_default();
        assert!(error.contains(expected), "{text:?} must name {expected:?}, says {error:?}");
    }
}

#[test]
fn config_syntax_error_does_not_quote_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tallyhook.toml");
    std::fs::write(&path, "[broker]\nurl = \"amqp://ann:hunter2@rabbit\n").unwrap();
    let options = LoadOptions { file: Some(&path), development: true, ..LoadOptions::default() };
    let error = format!("{:#}", Config::load(options).err().unwrap());
    assert!(error.contains("line 2") && error.contains("tallyhook.toml"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}
