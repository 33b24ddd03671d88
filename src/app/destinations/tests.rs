use std::{collections::BTreeMap, sync::Arc};

use super::*;
use crate::app::Components;

const URL: &str = "url = 'https://api.example.com/invoices'\n";
const BODY: &str = "body = '{\"n\": {{ number }}}'\n";

/// A destination with these settings and events.
fn load_for(events: &str, settings: &str) -> Result<Destination, String> {
    let variables = BTreeMap::from([
        ("S".to_owned(), "secret".to_owned()),
        ("TOKEN".to_owned(), "hunter2".to_owned()),
        ("LINES".to_owned(), "hunter2\nhunter2".to_owned()),
    ]);
    let text = format!(
        "[sources.shop]\nkind = 'shopify'\nsecrets = ['env:S']\n[destinations.x]\nkind = 'http'\n\
         events = [{events}]\n{settings}"
    );
    let components =
        Components::from_toml(&text, &variables).map_err(|error| format!("{error:#}"))?;
    let destinations = Arc::into_inner(components.destinations).unwrap();
    Ok(destinations.into_values().next().unwrap())
}

fn load(settings: &str) -> Result<Destination, String> {
    load_for("'invoice.created'", settings)
}

fn http(destination: Destination) -> HttpDestination {
    match destination.transport {
        Transport::Http(destination) => *destination,
        Transport::Amqp { .. } => panic!("not an HTTP destination"),
    }
}

#[test]
fn destination_url_and_body_are_enough() {
    let destination = load(&format!("{URL}{BODY}")).unwrap();
    assert_eq!(
        (destination.policy.max_concurrency, destination.transport.to_string()),
        (4, "http".to_owned())
    );
    let destination = http(destination);
    assert!(!destination.supports_lookup());
    let debug = format!("{destination:?}");
    for part in ["method: POST", "application/json", "idempotency-key", "already exists", "30s"] {
        assert!(debug.contains(part), "{part} is not in {debug}");
    }
}

#[test]
fn destination_every_key_is_read() {
    let destination = http(
        load(&format!(
            "{URL}{BODY}timeout_ms = 1234\nmethod = 'PUT'\ncontent_type = 'application/vnd.x+json'\n\
             idempotency_header = 'X-Key'\nallow_private_addresses = true\n\
             headers.Authorization = 'Bearer env:TOKEN'\nheaders.X-Shop = 'const:north'\n\
             response.id = '/data/id'\nresponse.already_exists = ['duplicate']\n\
             [destinations.x.lookup]\nurl = 'https://search.example.com/?n={{number}}'\nid = '/0/id'\n\
             matches.'/0/vendor' = 'vendor'\n"
        ))
        .unwrap(),
    );
    assert!(destination.supports_lookup());
    let debug = format!("{destination:?}");
    for part in [
        "1.234s",
        "method: PUT",
        "application/vnd.x+json",
        "x-key",
        "authorization",
        "x-shop",
        "/data/id",
        "duplicate",
        "search.example.com",
        "allow_private_addresses: true",
    ] {
        assert!(debug.contains(part), "{part} is not in {debug}");
    }
    assert!(!debug.contains("hunter2"), "{debug}");
}

#[test]
fn destination_without_idempotency_key_needs_lookup() {
    let no_key = format!("{URL}{BODY}idempotency_header = ''\n");
    assert!(load(&no_key).unwrap_err().contains("destinations.x.idempotency_header"));
    let with_lookup =
        "[destinations.x.lookup]\nurl = 'https://api.example.com/i?n={number}'\nid = '/0/id'\n";
    load(&format!("{no_key}{with_lookup}")).unwrap();
}

#[test]
fn destination_templates_are_checked_for_each_event() {
    let invoice = format!("{URL}body = '[{{{{ vendor }}}}, {{{{ due_on }}}}]'\n");
    let order = format!("{URL}body = '[{{{{ order_id }}}}, {{{{ lines }}}}]'\n");
    load_for("'invoice.created', 'invoice.updated', 'invoice.deleted'", &invoice).unwrap();
    load_for("'order.upserted', 'order.deleted'", &order).unwrap();
    for (events, settings, expected) in [
        ("'order.upserted'", &invoice, "there is no field due_on"),
        ("'invoice.created', 'order.upserted'", &invoice, "of order.upserted"),
        ("'refund.upserted'", &order, "there is no field lines"),
    ] {
        let error = load_for(events, settings).unwrap_err();
        assert!(error.contains("destinations.x.body: ") && error.contains(expected), "{error}");
    }
    // A template may branch on the event.
    let both = format!(
        "{URL}body = '{{% if event == \"invoice.created\" %}}{{{{ vendor }}}}{{% else %}}{{{{ order_id }}}}{{% endif %}}'\n"
    );
    load_for("'invoice.created', 'order.upserted'", &both).unwrap();
}

#[test]
fn destination_invalid_value_names_key() {
    let url = |url: &str| format!("url = '{url}'\n{BODY}");
    let body = |body: &str| format!("{URL}body = '{body}'\n");
    let more = |more: &str| format!("{URL}{BODY}{more}\n");
    let lookup = |url: &str, more: &str| {
        format!("{URL}{BODY}[destinations.x.lookup]\nurl = '{url}'\nid = '/0/id'\n{more}\n")
    };
    let by_number = "https://api.example.com/i?n={number}";
    for (text, expected) in [
        (String::new(), "destinations.x: missing configuration field \"url\""),
        (URL.to_owned(), "destinations.x: missing configuration field \"body\""),
        (more("color = 'red'"), "color"),
        (url("api.example.com"), "destinations.x.url: this is not a URL"),
        (url("https://{tenant}/x"), "destinations.x.url: the host"),
        (url("https://api.example.com/{id}"), "destinations.x.url: {id} is not one of {tenant}"),
        (url("https://ann:hunter2@api.example.com/"), "destinations.x.url: credentials"),
        (url("http://api.example.com/"), "destinations.x.url: only https"),
        (url("http://127.0.0.1/"), "destinations.x.url: only https"),
        (url("https://192.168.0.1/"), "destinations.x.url: 192.168.0.1"),
        (more("method = 'GET'"), "destinations.x.method"),
        (more("content_type = \"a\\nb\""), "destinations.x.content_type"),
        (more("content_type = 'text/plain'"), "destinations.x.body: only bodies"),
        (more("timeout_ms = 1"), "destinations.x.timeout_ms"),
        (body("{{ number"), "destinations.x.body: syntax error"),
        (body("{{ numbr }}"), "destinations.x.body: there is no field numbr; there are currency, "),
        (
            body("{% if false %}{{ numbr }}{% endif %}1"),
            "destinations.x.body: there is no field numbr",
        ),
        (body("{\"n\": \"{{ number }}\"}"), "destinations.x.body: the rendered body is not JSON"),
        (body("{{ due_on + 1 }}"), "destinations.x.body: "),
        (
            body("{{ 1 if due_on is none else due_on|shout }}"),
            "destinations.x.body: unknown filter",
        ),
        (body("{{ number if due_on else (due_on + 1) }}"), "without optional fields"),
        (more("idempotency_header = ''"), "destinations.x.idempotency_header"),
        (more("idempotency_header = 'a b'"), "destinations.x.idempotency_header"),
        (more("idempotency_header = 'Content-Length'"), "destinations.x.idempotency_header"),
        (more("headers.'a b' = 'env:S'"), "destinations.x.headers.a b"),
        (
            more("headers.Authorization = 'hunter2'"),
            "destinations.x.headers.Authorization: a header's",
        ),
        (more("headers.Authorization = 'env:NONE'"), "NONE"),
        (
            more("headers.Authorization = 'env:LINES'"),
            "destinations.x.headers.Authorization: the secret has",
        ),
        (more("headers.X = 'const:{tenant}'"), "destinations.x.headers.X: no placeholder"),
        (more("headers.Content-Type = 'const:x'"), "destinations.x.headers.content-type"),
        (more("headers.Host = 'const:x'"), "destinations.x.headers.host"),
        (more("headers.idempotency-key = 'const:x'"), "destinations.x.headers.idempotency-key"),
        (more("response.id = 'id'"), "destinations.x.response.id"),
        (more("response.ids = '/id'"), "ids"),
        (more("response.already_exists = ['']"), "destinations.x.response.already_exists"),
        (
            lookup("https://api.example.com/i", ""),
            "destinations.x.lookup.url: it must contain one of {number}, ",
        ),
        (lookup("http://api.example.com/{number}", ""), "destinations.x.lookup.url: only https"),
        (lookup("https://10.0.0.1/{number}", ""), "destinations.x.lookup.url: 10.0.0.1"),
        (lookup(by_number, "color = 'red'"), "color"),
        (lookup(by_number, "matches.vendor = 'vendor'"), "destinations.x.lookup.matches.vendor"),
        (lookup(by_number, "matches.'/0/v' = 'vendr'"), "destinations.x.lookup.matches./0/v"),
        (
            format!("{URL}{BODY}[destinations.x.lookup]\nurl = '{by_number}'\nid = 'id'\n"),
            "destinations.x.lookup.id",
        ),
        (
            format!("{URL}{BODY}[destinations.x.lookup]\nurl = '{by_number}'\n"),
            "destinations.x: missing configuration field \"lookup.id\"",
        ),
    ] {
        let error = load(&text).err().unwrap_or_default();
        assert!(error.contains(expected), "{text:?} must name {expected:?}, says {error:?}");
        assert!(!error.contains("hunter2"), "a secret is shown: {error}");
    }
    // Orders have no vendor.
    let by_vendor = lookup("https://api.example.com/?v={vendor}&n={number}", "");
    let error = load_for("'order.upserted'", &by_vendor).unwrap_err();
    assert!(error.contains("destinations.x.lookup.url: {vendor}"), "{error}");
}
