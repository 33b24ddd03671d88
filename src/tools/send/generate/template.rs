//! Renders the payload templates. In them every `{{ value }}` is written as JSON.

use std::sync::LazyLock;

use minijinja::{AutoEscape, Environment, Error, UndefinedBehavior, value::Serde};
use rust_decimal::Decimal;
use serde::Serialize;
use serde_json::Value;
use time::{
    OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339, macros::format_description,
};
use uuid::Uuid;

use super::{payload_kind::PayloadKind, sample_purchase::SamplePurchase};

macro_rules! templates {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("templates/", $name)))),*]
    };
}

const TEMPLATES: [(&str, &str); 13] = templates![
    "bigcommerce.json",
    "callback.json",
    "document.json",
    "etsy.json",
    "generic.json",
    "import_line.json",
    "quickbooks.json",
    "shopify.json",
    "square.json",
    "standard_webhooks.json",
    "stripe.json",
    "woocommerce.json",
    "xero.json",
];

static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::Json);
    environment.add_filter("money", money);
    environment.add_filter("rfc3339", rfc3339);
    environment.add_filter("zoneless", zoneless);
    environment.add_filter("date", |seconds: i64| at(seconds, None).date().to_string());
    environment.add_filter("hex", hex);
    environment.add_filter("digits", |number: u64, width: usize| format!("{number:0width$}"));
    environment.add_filter("token", token);
    environment
        .add_filter("uuid", |id: u64| Uuid::from_u64_pair(id, 0x8000_0000_0000_0001).to_string());
    for (name, text) in TEMPLATES {
        if let Err(error) = environment.add_template(name, text) {
            tracing::error!(%error, template.name = name, "an embedded template is invalid");
        }
    }
    environment
});

/// The variables of a template.
#[derive(Debug, Serialize)]
pub(super) struct Variables<'a> {
    pub(super) purchase: &'a SamplePurchase,
    pub(super) event_id: &'a str,
    pub(super) topic: &'a str,
    pub(super) tenant: &'a str,
}

/// The body of an event. Null if the embedded template is broken, which a test
/// rules out.
pub(super) fn render(kind: &PayloadKind, variables: &Variables<'_>) -> Value {
    try_render(kind, variables).unwrap_or_else(|error| {
        tracing::error!(error, template.name = kind.template, "cannot render a payload");
        Value::Null
    })
}

fn try_render(kind: &PayloadKind, variables: &Variables<'_>) -> Result<Value, String> {
    let rendered = ENVIRONMENT
        .get_template(kind.template)
        .and_then(|template| template.render(Serde(variables)))
        .map_err(|error: Error| format!("{error:#}"))?;
    serde_json::from_str(&rendered).map_err(|error| error.to_string())
}

/// Hundredths as a decimal number: `12.30`.
fn money(hundredths: i64) -> String {
    Decimal::new(hundredths, 2).to_string()
}

/// Unix time in a zone so many hours east of UTC.
fn at(seconds: i64, hours: Option<i8>) -> OffsetDateTime {
    let offset = UtcOffset::from_hms(hours.unwrap_or(0), 0, 0).unwrap_or(UtcOffset::UTC);
    OffsetDateTime::from_unix_timestamp(seconds)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
        .to_offset(offset)
}

fn rfc3339(seconds: i64, hours: Option<i8>) -> String {
    at(seconds, hours).format(&Rfc3339).unwrap_or_default()
}

/// ISO 8601 without a zone.
fn zoneless(seconds: i64, hours: Option<i8>) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]");
    at(seconds, hours).format(&format).unwrap_or_default()
}

fn hex(number: u64, width: Option<usize>) -> String {
    let width = width.unwrap_or(0);
    format!("{number:0width$x}")
}

/// A token like those of carts and checkouts, different for each salt.
fn token(id: u64, salt: u64) -> String {
    let salt = salt.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{:016x}{:016x}", id.wrapping_mul(salt | 1), id.rotate_left(17) ^ salt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::send::generate::payload_kind::PAYLOAD_KINDS;
    use rand::{SeedableRng as _, rngs::StdRng};

    #[test]
    fn every_template_renders_json() {
        let started_at = OffsetDateTime::UNIX_EPOCH;
        for seed in 0..50 {
            let mut rng = StdRng::seed_from_u64(seed);
            let purchase = SamplePurchase::random(&mut rng, 1 << 50, 1001, started_at, 0);
            for kind in PAYLOAD_KINDS {
                for topic in kind.topics {
                    let variables =
                        Variables { purchase: &purchase, event_id: "1", topic, tenant: "demo" };
                    let rendered = try_render(kind, &variables);
                    assert!(rendered.is_ok(), "{} {topic}: {rendered:?}", kind.template);
                }
            }
        }
    }
}
