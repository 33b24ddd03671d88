//! Payloads and signature vectors of the platforms, through the real sources. They are not part of
//! this repository: `TALLYHOOK_SAMPLES` names their folder; the default is `../shared/samples`.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use tallyhook::{
    app::Components,
    domain::{
        Change, Envelope, EventKey, InvoiceStatus, MappedEvent, Order, OrderStatus, OrderUpdate,
        RefundStatus, RefundTarget, ResourceChange, SourceName,
    },
    sources::{Event, OutgoingWebhook, Received, Rejection, Source, WebhookRequest},
};
use time::{
    OffsetDateTime,
    macros::{date, datetime},
};
use uuid::Uuid;

const AT: OffsetDateTime = datetime!(2026-01-02 3:04:05 UTC);

/// The folder of samples if it exists; prints a message if not.
fn samples() -> Option<PathBuf> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/samples");
    let folder = std::env::var_os("TALLYHOOK_SAMPLES").map_or(beside, PathBuf::from);
    if folder.join("vectors.json").is_file() {
        return Some(folder);
    }
    // Not `println!`, which the test runner keeps to itself.
    drop(writeln!(std::io::stdout(), "skipped: no samples folder"));
    None
}

/// A published signature.
#[derive(Deserialize)]
struct Vector {
    name: String,
    secret: String,
    /// The signed text, or `bytes of FILE`.
    signed_content: String,
    header: String,
    value: String,
}

impl Vector {
    fn read(folder: &Path, name: &str) -> Result<Self> {
        let text = fs::read(folder.join("vectors.json"))?;
        let vectors: Vec<Self> = serde_json::from_slice(&text)?;
        let found = vectors.into_iter().find(|vector| vector.name == name);
        found.with_context(|| format!("vectors.json has no {name:?}"))
    }

    fn body(&self, folder: &Path) -> Result<Bytes> {
        match self.signed_content.strip_prefix("bytes of ") {
            Some(file) => Ok(fs::read(folder.join(file))?.into()),
            // Square signs the URL before the body.
            None => match self.signed_content.find('{') {
                Some(at) if self.signed_content.starts_with("https://") => {
                    Ok(self.signed_content[at..].to_owned().into())
                }
                _ => Ok(self.signed_content.clone().into()),
            },
        }
    }
}

/// The configuration of one source, its secret among the variables.
fn configured(section: &str, secret: &str) -> Result<Components> {
    let text = format!("[sources.inbox]\nsecrets = ['env:SECRET']\n{section}");
    let variables = BTreeMap::from([("SECRET".to_owned(), secret.to_owned())]);
    Components::from_toml(&text, &variables)
}

fn source(config: &Components) -> Result<&Source> {
    config.sources.values().next().context("no source is configured")
}

/// A call with these headers, made to the source.
fn receive(
    config: &Components,
    headers: &[(&str, &str)],
    body: &Bytes,
) -> Result<Result<Received, Rejection>> {
    receive_at(config, headers, body, AT)
}

/// The same, where the time is signed.
fn receive_at(
    config: &Components,
    headers: &[(&str, &str)],
    body: &Bytes,
    received_at: OffsetDateTime,
) -> Result<Result<Received, Rejection>> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(HeaderName::from_bytes(name.as_bytes())?, HeaderValue::from_str(value)?);
    }
    Ok(source(config)?.receive(&WebhookRequest { headers: &map, query: "", body, received_at }))
}

fn only_event(received: Result<Received, Rejection>) -> Result<Event> {
    match received? {
        Received::Events { mut events, secret_label: secret } if events.len() == 1 => {
            ensure!(secret == "env:SECRET", "verified by {secret}");
            Ok(events.remove(0))
        }
        other => bail!("not one event: {other:?}"),
    }
}

/// The event as the worker gets it.
fn as_received(event: Event) -> Result<Envelope> {
    let source: SourceName = "inbox".parse()?;
    Ok(Envelope {
        receipt_id: Uuid::nil(),
        key: EventKey::new(&source, &event.tenant, &event.event_id, 0),
        source,
        tenant: event.tenant,
        topic: event.topic,
        version: event.version,
        received_at: AT,
        failed_attempts: 0,
        generation: 0,
        replay_id: None,
        received_over_http: true,
        secret_label: None,
        import: None,
        body: event.body,
    })
}

/// The changes that the vector's body maps to.
fn state(
    config: &Components,
    headers: &[(&str, &str)],
    body: &Bytes,
) -> Result<(String, OffsetDateTime, Order)> {
    let event = only_event(receive(config, headers, body)?)?;
    match mapped(config, event)? {
        MappedEvent::Change(Change::Order(update)) => match *update {
            OrderUpdate::State { order_id, version, order, restored: false } => {
                Ok((order_id, version, *order))
            }
            other => bail!("not a state: {other:?}"),
        },
        other => bail!("not an order: {other:?}"),
    }
}

/// The changes that an event maps to.
fn mapped(config: &Components, event: Event) -> Result<MappedEvent> {
    Ok(source(config)?.map(&as_received(event)?)?)
}

/// A change in the notation of the expected files.
fn first_line(order: &Order) -> Result<serde_json::Value> {
    Ok(serde_json::to_value(order.lines.first().context("no line")?)?)
}

/// Settings by which `generic` verifies what others publish.
const GITHUB: &str = "kind = 'generic'
    [sources.inbox.signature]
    header = 'X-Hub-Signature-256'
    prefix = 'sha256='
    [sources.inbox.event]
    id = 'header:X-GitHub-Delivery'
    topic = 'header:X-GitHub-Event'";
const SVIX: &str = "kind = 'generic'
    [sources.inbox.signature]
    header = 'webhook-signature'
    prefix = 'v1,'
    list = true
    encoding = 'base64'
    key = 'base64'
    template = '{id}.{timestamp}.{body}'
    timestamp = 'header:webhook-timestamp'
    [sources.inbox.event]
    id = 'header:webhook-id'";
const STRIPE: &str = "kind = 'generic'
    [sources.inbox.signature]
    header = 'Stripe-Signature'
    item = 'v1'
    template = '{timestamp}.{body}'
    timestamp = 'item:t'
    [sources.inbox.event]
    id = '/id'
    topic = '/type'";
const SQUARE: &str = "kind = 'generic'
    [sources.inbox.signature]
    header = 'x-square-hmacsha256-signature'
    encoding = 'base64'
    template = '{url}{body}'
    url = 'https://webhook.site/679a4f3a-dcfa-49ee-bac5-9d0edad886b9'
    [sources.inbox.event]
    id = '/event_id'
    topic = '/type'
    tenant = '/merchant_id'";
const SQUARE_1: &str = "kind = 'square'
    url = 'https://webhook.site/679a4f3a-dcfa-49ee-bac5-9d0edad886b9'";
const SQUARE_2: &str = "kind = 'square'
    url = 'https://webhook.site/webhooks'";

#[test]
fn vendor_signature_vectors_verify() -> Result<()> {
    let Some(folder) = samples() else { return Ok(()) };
    for (name, section) in [
        ("github docs", GITHUB),
        ("octokit", GITHUB),
        ("github docs", "kind = 'github'"),
        ("octokit", "kind = 'github'"),
        ("square 1", SQUARE_1),
        ("square 2", SQUARE_2),
        ("shopify (self-computed)", "kind = 'shopify'"),
        ("woocommerce (self-computed)", "kind = 'woocommerce'"),
    ] {
        let vector = Vector::read(&folder, name)?;
        let body = vector.body(&folder)?;
        let headers = [
            (vector.header.as_str(), vector.value.as_str()),
            ("X-Shopify-Topic", "orders/updated"),
            ("X-Shopify-Shop-Domain", "demo.myshopify.com"),
            ("X-WC-Webhook-Topic", "order.updated"),
            ("X-WC-Webhook-Source", "https://shop.example/"),
        ];
        let config = configured(section, &vector.secret)?;
        let event = only_event(receive(&config, &headers, &body)?).context(vector.name.clone())?;
        assert_eq!(event.body, body, "{name}: the body is unchanged");

        let other_secret = configured(section, &format!("{}x", vector.secret))?;
        let refused = receive(&other_secret, &headers, &body)?;
        assert!(matches!(refused, Err(Rejection::InvalidSignature(_))), "{name}: {refused:?}");
        let other = Bytes::from([&body[..], b" "].concat());
        let refused = receive(&config, &headers, &other)?;
        assert!(matches!(refused, Err(Rejection::InvalidSignature(_))), "{name}: {refused:?}");
    }
    Ok(())
}

/// A vector whose signed text is more than the body: its settings, what is
/// signed in front of the body, its secret as it is configured, when it was
/// made, its event's id.
type Framed = (&'static str, &'static str, &'static str, fn(&str) -> &str, i64, &'static str);

#[test]
fn vendor_signature_vectors_beyond_the_body_verify_with_generic_settings() -> Result<()> {
    let Some(folder) = samples() else { return Ok(()) };
    let whole: fn(&str) -> &str = |secret| secret;
    let framed: [Framed; 3] = [
        (
            "standard-webhooks v1 (python/js/go)",
            SVIX,
            "msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.",
            |secret| secret.trim_start_matches("whsec_"),
            1_614_265_330,
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
        ),
        (
            "stripe v1 (async-stripe)",
            STRIPE,
            "1533204620. + bytes of ",
            whole,
            1_533_204_620,
            "evt_123",
        ),
        (
            "square 1",
            SQUARE,
            "https://webhook.site/679a4f3a-dcfa-49ee-bac5-9d0edad886b9",
            whole,
            0,
            "ac3ac95b-f97d-458c-a6e6-18981597e05f",
        ),
    ];
    for (name, section, server, secret, made_at, event_id) in framed {
        let vector = Vector::read(&folder, name)?;
        let rest = vector.signed_content.strip_prefix(server).context(name)?;
        let body = match server.strip_suffix("bytes of ") {
            Some(_) => Bytes::from(fs::read(folder.join(rest))?),
            None => Bytes::from(rest.to_owned()),
        };
        let config = configured(section, secret(&vector.secret))?;
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (vector.header.as_str(), vector.value.as_str()),
            ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("webhook-timestamp", "1614265330"),
        ] {
            headers.insert(HeaderName::from_bytes(name.as_bytes())?, value.parse()?);
        }
        let receive = |at: i64, body: &Bytes| -> Result<_> {
            let received_at = OffsetDateTime::from_unix_timestamp(at)?;
            let call = WebhookRequest { headers: &headers, query: "", body, received_at };
            Ok(source(&config)?.receive(&call))
        };
        let event = only_event(receive(made_at + 300, &body)?).context(name)?;
        assert_eq!((event.event_id.as_str(), &event.body), (event_id, &body), "{name}");
        let late = receive(made_at + 301, &body)?;
        assert_eq!(late.is_err(), section.contains("timestamp"), "{name}: {late:?}");
        let other = Bytes::from([&body[..], b" "].concat());
        let refused = receive(made_at, &other)?;
        assert!(matches!(refused, Err(Rejection::InvalidSignature(_))), "{name}: {refused:?}");
    }
    Ok(())
}

#[test]
fn vendor_woocommerce_empty_secret_is_rejected() -> Result<()> {
    let Some(folder) = samples() else { return Ok(()) };
    let vector = Vector::read(&folder, "woocommerce empty secret")?;
    let body = vector.body(&folder)?;

    // HMAC pads its key with zeros, so one zero byte is the same key as none:
    // what anybody can sign would verify if an empty secret were let in.
    let zero = "kind = 'generic'
        [sources.inbox.signature]
        header = 'X-WC-Webhook-Signature'
        encoding = 'base64'
        key = 'hex'";
    let forged = receive(&configured(zero, "00")?, &[(&vector.header, &vector.value)], &body)?;
    assert!(forged.is_ok(), "the empty key makes this signature: {forged:?}");

    for section in ["kind = 'woocommerce'", "kind = 'shopify'", "kind = 'generic'", zero] {
        let error = configured(section, "").err().map(|error| format!("{error:#}"));
        let error = error.with_context(|| format!("{section}: an empty secret is let in"))?;
        assert!(error.contains("sources.inbox.secrets"), "{section}: {error}");
    }
    Ok(())
}

#[test]
fn vendor_woocommerce_ping_is_answered_and_not_stored() -> Result<()> {
    let Some(folder) = samples() else { return Ok(()) };
    let body = Bytes::from(fs::read(folder.join("woocommerce/ping-body.txt"))?);
    let config = configured("kind = 'woocommerce'", "wc_test_secret")?;
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    assert_eq!(receive(&config, &[form], &body)?, Ok(Received::Ping));
    Ok(())
}

#[test]
fn vendor_shopify_order_is_mapped() -> Result<()> {
    let Some(folder) = samples() else { return Ok(()) };
    let vector = Vector::read(&folder, "shopify (self-computed)")?;
    let body = vector.body(&folder)?;
    let config = configured("kind = 'shopify'\ntenants = ['demo.myshopify.com']", &vector.secret)?;
    let headers = [
        (vector.header.as_str(), vector.value.as_str()),
        ("Content-Type", "application/json"),
        ("X-Shopify-Topic", "orders/updated"),
        ("X-Shopify-Shop-Domain", "Demo.MyShopify.com"),
        ("X-Shopify-Webhook-Id", "b54557e4-bdd9-4b37-8a5f-bf7d70bcd043"),
        ("X-Shopify-Triggered-At", "2026-01-02T03:00:00.123456789Z"),
    ];
    let event = only_event(receive(&config, &headers, &body)?)?;
    assert_eq!(event.event_id, "orders/updated:b54557e4-bdd9-4b37-8a5f-bf7d70bcd043");
    assert_eq!(event.tenant, "demo.myshopify.com");

    let (id, version, order) = state(&config, &headers, &body)?;
    assert_eq!(id, "450789469");
    assert_eq!(version, datetime!(2008-01-10 16:00 UTC));
    assert_eq!(order.number, "#1001");
    assert_eq!(order.status, OrderStatus::PartiallyRefunded);
    assert_eq!(order.platform_status, "partially_refunded");
    assert_eq!(order.total.amount.to_string(), "199.65");
    assert_eq!(order.total.currency.as_str(), "USD");
    assert_eq!(order.refunded.to_string(), "209.00");
    assert_eq!(order.customer_ref.as_deref(), Some("207119551"));
    assert_eq!(order.placed_at, Some(datetime!(2008-01-10 16:00 UTC)));
    assert_eq!(order.lines.len(), 3);
    let expected = serde_json::json!({
        "id": "466157049", "sku": "IPOD2008GREEN", "title": "IPod Nano - 8gb",
        "quantity": "0", "unit_price": "199.00", "total": "0",
    });
    assert_eq!(first_line(&order)?, expected);
    Ok(())
}

#[test]
fn vendor_woocommerce_order_is_mapped() -> Result<()> {
    let Some(folder) = samples() else { return Ok(()) };
    let vector = Vector::read(&folder, "woocommerce (self-computed)")?;
    let body = vector.body(&folder)?;
    let config =
        configured("kind = 'woocommerce'\ntenants = ['https://shop.example']", &vector.secret)?;
    let headers = [
        (vector.header.as_str(), vector.value.as_str()),
        ("Content-Type", "application/json"),
        ("X-WC-Webhook-Topic", "order.updated"),
        ("X-WC-Webhook-Source", "https://shop.example/"),
        ("X-WC-Webhook-Delivery-ID", "0123456789abcdef"),
    ];
    let event = only_event(receive(&config, &headers, &body)?)?;
    assert!(event.event_id.starts_with("order.updated:727:2017-03-22T19:28:08:"), "{event:?}");

    let (id, version, order) = state(&config, &headers, &body)?;
    assert_eq!((id.as_str(), order.number.as_str()), ("727", "727"));
    assert_eq!(version, datetime!(2017-03-22 19:28:08 UTC));
    assert_eq!(order.status, OrderStatus::Paid);
    assert_eq!(order.platform_status, "processing");
    assert_eq!(order.total.amount.to_string(), "29.35");
    assert_eq!(order.total.currency.as_str(), "USD");
    assert_eq!(order.refunded.to_string(), "0");
    assert_eq!(order.customer_ref, None, "0 is a guest");
    assert_eq!(order.placed_at, Some(datetime!(2017-03-22 19:28:02 UTC)));
    assert_eq!(order.lines.len(), 2);
    let expected = serde_json::json!({
        "id": "315", "title": "Woo Single #1", "quantity": "2", "unit_price": "3", "total": "6.00",
    });
    assert_eq!(first_line(&order)?, expected);
    Ok(())
}

#[test]
fn vendor_square_test_event_is_stored_without_effect() -> Result<()> {
    let Some(folder) = samples() else { return Ok(()) };
    let vector = Vector::read(&folder, "square 1")?;
    let body = vector.body(&folder)?;
    assert_eq!(body, fs::read(folder.join("square/test_notification.json"))?);
    let config = configured(&format!("{SQUARE_1}\ntenants = ['MLEFBHHSJGVHD']"), &vector.secret)?;
    let event = only_event(receive(&config, &[(&vector.header, &vector.value)], &body)?)?;
    assert_eq!(event.event_id, "ac3ac95b-f97d-458c-a6e6-18981597e05f");
    assert_eq!(event.topic, "webhooks.test_notification");
    assert_eq!(event.tenant, "MLEFBHHSJGVHD");
    assert_eq!(mapped(&config, event)?, MappedEvent::Ignored);
    Ok(())
}

#[test]
fn vendor_quickbooks_call_is_split_into_events() -> Result<()> {
    let Some(folder) = samples() else { return Ok(()) };
    let vector = Vector::read(&folder, "quickbooks legacy")?;
    let body = vector.body(&folder)?;
    let config = configured("kind = 'quickbooks'\ntenants = ['1185883450']", &vector.secret)?;
    let headers = [(vector.header.as_str(), vector.value.as_str())];
    let event = only_event(receive(&config, &headers, &body)?)?;
    assert_eq!(event.event_id, "1185883450:Customer:1:Create:2015-10-05T14:42:19-0700");
    assert_eq!((event.tenant.as_str(), event.topic.as_str()), ("1185883450", "customer.create"));
    let entity =
        br#"{"name":"Customer","id":"1","operation":"Create","lastUpdated":"2015-10-05T14:42:19-0700"}"#;
    assert_eq!(&event.body[..], entity);
    let expected = ResourceChange {
        platform: "quickbooks",
        kind: "customer".to_owned(),
        id: "1".to_owned(),
        version: None,
        changed_at: datetime!(2015-10-05 21:42:19 UTC),
        action: "created".to_owned(),
    };
    assert_eq!(mapped(&config, event)?, MappedEvent::from(expected));

    let other = Bytes::from([&body[..], b" "].concat());
    let refused = receive(&config, &headers, &other)?;
    assert!(matches!(refused, Err(Rejection::InvalidSignature(_))), "{refused:?}");
    Ok(())
}

#[test]
fn vendor_xero_call_is_split_into_events() -> Result<()> {
    let Some(folder) = samples() else { return Ok(()) };
    // No vector is published: `openssl dgst -sha256 -hmac key -binary | base64`.
    let headers = [("x-xero-signature", "tsFYevVie2om1q9BgIGTlUgZZu3sswHMdpacGfqtmvY=")];
    let body = Bytes::from(fs::read(folder.join("xero/creditnote-create.json"))?);
    let config =
        configured("kind = 'xero'\ntenants = ['aef86862-2015-4b6b-88bc-d89032cecc50']", "key")?;
    let event = only_event(receive(&config, &headers, &body)?)?;
    assert_eq!(
        event.event_id,
        "aef86862-2015-4b6b-88bc-d89032cecc50:55d84274-a3da-4829-a7c0-0cab601b95cc:CREATE:2025-12-02T00:44:09.923"
    );
    assert_eq!(event.topic, "creditnote.create");
    assert!(event.body.starts_with(b"{") && event.body.len() < body.len());
    let expected = ResourceChange {
        platform: "xero",
        kind: "credit_note".to_owned(),
        id: "55d84274-a3da-4829-a7c0-0cab601b95cc".to_owned(),
        version: None,
        changed_at: datetime!(2025-12-02 0:44:09.923 UTC),
        action: "created".to_owned(),
    };
    assert_eq!(mapped(&config, event)?, MappedEvent::from(expected));
    Ok(())
}

#[test]
fn vendor_github_ping_is_recognized() -> Result<()> {
    let Some(folder) = samples() else { return Ok(()) };
    // The signature is `openssl dgst -sha256 -hmac key`.
    let headers = [
        (
            "X-Hub-Signature-256",
            "sha256=78ddf9bacf2c571d17e4767d26c0d09b042daa735014278d14735216bcdd32f2",
        ),
        ("X-GitHub-Event", "ping"),
        ("X-GitHub-Delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
    ];
    let body = Bytes::from(fs::read(folder.join("github/ping.payload.json"))?);
    let event = only_event(receive(&configured("kind = 'github'", "key")?, &headers, &body)?)?;
    assert_eq!((event.topic.as_str(), event.tenant.as_str()), ("ping", ""));
    assert_eq!(event.version, None);
    Ok(())
}

#[test]
fn vendor_signature_vectors_with_timestamp_verify_at_that_time() -> Result<()> {
    let Some(folder) = samples() else { return Ok(()) };
    let standard = "kind = 'standard_webhooks'";
    for (name, section) in [
        ("standard-webhooks v1 (python/js/go)", standard),
        ("standard-webhooks v1a ed25519", standard),
        ("stripe v1 (async-stripe)", "kind = 'stripe'"),
    ] {
        let mut vector = Vector::read(&folder, name)?;
        let (parts, content) = if let Some((time, file)) = vector.signed_content.split_once(". + ")
        {
            (vec![time.to_owned()], file.to_owned())
        } else {
            let mut parts = vector.signed_content.splitn(3, '.').map(str::to_owned);
            let [id, time] = [(); 2].map(|()| parts.next().unwrap_or_default());
            (vec![id, time], parts.next().context("no body")?)
        };
        let time = parts.last().context("no time")?;
        let signed_at = OffsetDateTime::from_unix_timestamp(time.parse()?)?;
        vector.signed_content = content;
        let body = vector.body(&folder)?;
        let headers = [
            (vector.header.as_str(), vector.value.as_str()),
            ("webhook-id", parts[0].as_str()),
            ("webhook-timestamp", time.as_str()),
        ];
        // A remark may follow it.
        let secret = vector.secret.split(' ').next().unwrap_or_default();
        let config = configured(section, secret)?;
        let received = receive_at(&config, &headers, &body, signed_at)?;
        let event = only_event(received).context(vector.name.clone())?;
        assert_eq!(event.body, body, "{name}: the body is unchanged");

        let late = receive_at(&config, &headers, &body, AT)?;
        assert!(matches!(late, Err(Rejection::InvalidSignature(_))), "{name}: {late:?}");
        let other = Bytes::from([&body[..], b" "].concat());
        let refused = receive_at(&config, &headers, &other, signed_at)?;
        assert!(matches!(refused, Err(Rejection::InvalidSignature(_))), "{name}: {refused:?}");
    }
    Ok(())
}

/// What a resource of Stripe's, within an event of its, does to the books.
fn of_stripe(folder: &Path, topic: &str, file: &str) -> Result<MappedEvent> {
    let config = configured("kind = 'stripe'", "whsec_test")?;
    let object = fs::read_to_string(folder.join("stripe").join(file))?;
    let event = format!(
        r#"{{"id":"evt_1","object":"event","type":"{topic}","created":1767323045,"data":{{"object":{object}}}}}"#
    );
    let body = Bytes::from(event);
    let delivery = OutgoingWebhook {
        topic,
        tenant: "",
        event_id: "",
        triggered_at: AT,
        sent_at: AT,
        body: &body,
    };
    let headers: HeaderMap = source(&config)?.signed_headers(&delivery).into_iter().collect();
    let call = WebhookRequest { headers: &headers, query: "", body: &body, received_at: AT };
    let event = only_event(source(&config)?.receive(&call))?;
    assert_eq!((event.event_id.as_str(), event.topic.as_str()), ("evt_1", topic));
    mapped(&config, event)
}

#[test]
fn vendor_stripe_resources_are_mapped() -> Result<()> {
    let Some(folder) = samples() else { return Ok(()) };
    let invoice = match of_stripe(&folder, "invoice.created", "resource-invoice.json")? {
        MappedEvent::Change(Change::Invoice(invoice)) => *invoice,
        other => bail!("not an invoice: {other:?}"),
    };
    assert_eq!(invoice.document_id.as_deref(), Some("in_1Pgc6tB7WZ01zgkWu9fdqL6I"));
    assert_eq!(invoice.invoice_number, "in_1Pgc6tB7WZ01zgkWu9fdqL6I", "a draft has no number");
    assert_eq!((invoice.vendor.as_str(), invoice.transaction_id), ("", None));
    assert_eq!(invoice.status, InvoiceStatus::Draft);
    assert_eq!((invoice.platform_status.as_str(), invoice.sequence), ("draft", 0));
    assert_eq!(invoice.total.amount.to_string(), "10.00");
    assert_eq!(invoice.total.currency.as_str(), "USD");
    assert_eq!(invoice.due_on, Some(date!(2009 - 02 - 13)));
    assert_eq!(invoice.version, AT);

    let refund = match of_stripe(&folder, "refund.created", "resource-refund.json")? {
        MappedEvent::Change(Change::Refund(refund)) => *refund,
        other => bail!("not a refund: {other:?}"),
    };
    assert_eq!(refund.refund_id, "re_1Pgc72B7WZ01zgkWqPvrRrPE");
    assert_eq!(refund.target, RefundTarget::Payment("ch_1PgafuB7WZ01zgkWXYmPNZs8".to_owned()));
    assert_eq!(
        (refund.status, refund.platform_status.as_str()),
        (RefundStatus::Succeeded, "succeeded")
    );
    assert_eq!(refund.amount.amount.to_string(), "1.00");

    let charge = of_stripe(&folder, "charge.refunded", "resource-charge.json")?;
    assert_eq!(charge, MappedEvent::Ignored, "nothing of it went back");
    Ok(())
}

#[test]
fn vendor_stripe_event_is_accepted() -> Result<()> {
    let Some(folder) = samples() else { return Ok(()) };
    let config = configured("kind = 'stripe'", "whsec_test")?;
    let body = Bytes::from(fs::read(folder.join("stripe/resource-event.json"))?);
    let delivery = OutgoingWebhook {
        topic: "",
        tenant: "",
        event_id: "",
        triggered_at: AT,
        sent_at: AT,
        body: &body,
    };
    let headers: HeaderMap = source(&config)?.signed_headers(&delivery).into_iter().collect();
    let call = WebhookRequest { headers: &headers, query: "", body: &body, received_at: AT };
    let event = only_event(source(&config)?.receive(&call))?;
    assert_eq!(event.event_id, "evt_1Pgc76B7WZ01zgkWwyRHS12y");
    assert_eq!((event.topic.as_str(), event.tenant.as_str()), ("plan.created", ""));
    assert_eq!(mapped(&config, event)?, MappedEvent::Ignored);
    Ok(())
}
