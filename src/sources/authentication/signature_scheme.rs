//! A signature scheme by settings: which header holds the signature, and what is signed.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use time::OffsetDateTime;

use super::{
    settings::{SignatureSettings, TimestampUnit},
    signature_template::{TemplatePart, parse_template},
};
use crate::sources::{
    OutgoingWebhook, Rejection, WebhookRequest,
    mapping::InvalidSettings,
    signature::{Algorithm, Encoding, MAX_SIGNATURES, Secret, check_timestamp},
};

/// Default for the maximum difference of a signed timestamp from now, in seconds.
const DEFAULT_TOLERANCE_S: u64 = 300;

/// A validated signature scheme.
pub(super) struct SignatureScheme {
    header: HeaderName,
    prefix: String,
    algorithm: Algorithm,
    encoding: Encoding,
    format: HeaderFormat,
    template: Vec<TemplatePart>,
    timestamp: Option<TimestampRule>,
    id: Option<ValueLocation>,
    url: String,
}

/// How the header holds signatures.
enum HeaderFormat {
    /// The value is one signature.
    Single,
    /// The values of this key in a list such as `t=1,v1=abc`.
    KeyValueList(String),
    /// The values with the prefix, separated by spaces.
    SpaceSeparated,
}

/// Where a signed value is.
#[derive(PartialEq, Eq)]
enum ValueLocation {
    /// In a header of its own.
    Header(HeaderName),
    /// Under this key in the signature's header.
    Item(String),
}

struct TimestampRule {
    location: ValueLocation,
    unit: TimestampUnit,
    tolerance: Duration,
}

impl SignatureScheme {
    pub(super) fn new(settings: SignatureSettings) -> Result<Self, InvalidSettings> {
        let SignatureSettings { header, prefix, item, list, template, timestamp, id, url, .. } =
            settings;
        let header = header.as_deref().unwrap_or("x-signature").parse();
        let header = header.map_err(|_| invalid_setting("header", "is not a header name"))?;
        let format = match (item, list) {
            (None, false) => HeaderFormat::Single,
            (None, true) => HeaderFormat::SpaceSeparated,
            (Some(_), true) => {
                return Err(invalid_setting("list", "cannot be combined with signature.item"));
            }
            (Some(item), false) => HeaderFormat::KeyValueList(item),
        };
        if matches!(&format, HeaderFormat::KeyValueList(item) if !is_list_key(item)) {
            return Err(invalid_setting("item", "is not a key of a list such as t=1,v1=abc"));
        }
        let template = parse_template(template.as_deref().unwrap_or("{body}"))
            .map_err(|detail| invalid_setting("template", detail))?;
        let uses = |is_part: fn(&TemplatePart) -> bool| template.iter().any(is_part);

        let parse_location = |key: &str, text: Option<String>| {
            let location = text.map(|text| ValueLocation::parse(&text, &format)).transpose();
            location.map_err(|detail| invalid_setting(key, detail))
        };
        let timestamp = match parse_location("timestamp", timestamp)? {
            Some(location) => {
                if !uses(|part| matches!(part, TemplatePart::Timestamp)) {
                    let detail = "must contain {timestamp}: an unsigned timestamp proves nothing";
                    return Err(invalid_setting("template", detail));
                }
                let seconds = settings.tolerance_s.unwrap_or(DEFAULT_TOLERANCE_S);
                // An intercepted request could be replayed for as long.
                if !(1..=86_400).contains(&seconds) {
                    return Err(invalid_setting("tolerance_s", "must be 1 to 86400 (a day)"));
                }
                let unit = settings.timestamp_unit.unwrap_or_default();
                Some(TimestampRule { location, unit, tolerance: Duration::from_secs(seconds) })
            }
            None if uses(|part| matches!(part, TemplatePart::Timestamp)) => {
                return Err(invalid_setting(
                    "timestamp",
                    "is required: the template contains {timestamp}",
                ));
            }
            None => None,
        };
        for (key, is_set) in [
            ("tolerance_s", settings.tolerance_s.is_some()),
            ("timestamp_unit", settings.timestamp_unit.is_some()),
        ] {
            if is_set && timestamp.is_none() {
                return Err(invalid_setting(key, "requires signature.timestamp"));
            }
        }
        let id = parse_location("id", id)?;
        for (key, is_used, is_set) in [
            ("id", uses(|part| matches!(part, TemplatePart::Id)), id.is_some()),
            ("url", uses(|part| matches!(part, TemplatePart::Url)), url.is_some()),
        ] {
            match (is_used, is_set) {
                (true, false) => {
                    return Err(invalid_setting(
                        key,
                        format!("is required: the template contains {{{key}}}"),
                    ));
                }
                (false, true) => {
                    return Err(invalid_setting(
                        key,
                        format!("requires a template with {{{key}}}"),
                    ));
                }
                _ => {}
            }
        }
        Ok(Self {
            header,
            prefix: prefix.unwrap_or_default(),
            algorithm: settings.algorithm,
            encoding: settings.encoding,
            format,
            template,
            timestamp,
            id,
            url: url.unwrap_or_default(),
        })
    }

    pub(super) fn verify(
        &self,
        request: &WebhookRequest<'_>,
        secrets: &[Secret],
    ) -> Result<usize, Rejection> {
        let value = required_header(request, &self.header)?;
        let signatures = self.signatures(value)?;
        let find = |location: &Option<ValueLocation>| {
            let location = location.as_ref();
            location.map_or(Ok(""), |location| self.value_at(location, request, value))
        };
        let id = find(&self.id)?;
        let time = match &self.timestamp {
            Some(timestamp) => self.value_at(&timestamp.location, request, value)?,
            None => "",
        };
        let mut signed: Vec<&[u8]> = Vec::with_capacity(self.template.len());
        for part in &self.template {
            signed.push(match part {
                TemplatePart::Text(text) => text.as_bytes(),
                TemplatePart::Body => request.body,
                TemplatePart::Timestamp => time.as_bytes(),
                TemplatePart::Id => id.as_bytes(),
                TemplatePart::Url => self.url.as_bytes(),
                TemplatePart::Header(name) => required_header(request, name)?.as_bytes(),
            });
        }
        let index = secrets
            .iter()
            .position(|secret| secret.verifies_any(self.algorithm, &signed, &signatures))
            .ok_or_else(Rejection::invalid_signature)?;
        if let Some(timestamp) = &self.timestamp {
            check_timestamp(request, timestamp.seconds(time)?, timestamp.tolerance)?;
        }
        Ok(index)
    }

    /// The signatures in the header.
    fn signatures(&self, value: &str) -> Result<Vec<Vec<u8>>, Rejection> {
        let decode = |text: &str| self.encoding.decode(text.strip_prefix(self.prefix.as_str())?);
        let signatures: Vec<_> = match &self.format {
            HeaderFormat::Single => decode(value).into_iter().collect(),
            HeaderFormat::KeyValueList(item) => list_pairs(value)
                .filter(|(key, _)| key == item)
                .filter_map(|(_, value)| decode(value))
                .take(MAX_SIGNATURES)
                .collect(),
            HeaderFormat::SpaceSeparated => {
                value.split_ascii_whitespace().filter_map(decode).take(MAX_SIGNATURES).collect()
            }
        };
        if signatures.is_empty() {
            let header = &self.header;
            return Err(Rejection::InvalidSignature(match &self.format {
                HeaderFormat::Single => format!("the header {header} is not a signature"),
                HeaderFormat::KeyValueList(item) => {
                    format!("the header {header} has no signature {item}=")
                }
                HeaderFormat::SpaceSeparated => {
                    format!("the header {header} has no signature of this scheme")
                }
            }));
        }
        Ok(signatures)
    }

    fn value_at<'a>(
        &self,
        location: &ValueLocation,
        request: &WebhookRequest<'a>,
        value: &'a str,
    ) -> Result<&'a str, Rejection> {
        match location {
            ValueLocation::Header(name) => required_header(request, name),
            ValueLocation::Item(item) => list_pairs(value)
                .find(|(key, value)| key == item && !value.is_empty())
                .map(|(_, value)| value)
                .ok_or_else(|| {
                    Rejection::InvalidSignature(format!(
                        "the header {} has no {item}=",
                        self.header
                    ))
                }),
        }
    }

    pub(super) fn sign(
        &self,
        webhook: &OutgoingWebhook<'_>,
        mut headers: Vec<(HeaderName, HeaderValue)>,
        secret: &Secret,
    ) -> Vec<(HeaderName, HeaderValue)> {
        let time = self.timestamp.as_ref().map(|timestamp| timestamp.text(webhook.sent_at));
        let values = [
            (self.timestamp.as_ref().map(|timestamp| &timestamp.location), time.as_deref()),
            (self.id.as_ref(), Some(webhook.event_id)),
        ];
        let mut list = String::new();
        for (location, value) in values {
            match (location, value) {
                (Some(ValueLocation::Header(name)), Some(value)) => {
                    let known = headers.iter().any(|(other, _)| other == name);
                    if let (false, Ok(value)) = (known, value.parse()) {
                        headers.push((name.clone(), value));
                    }
                }
                (Some(ValueLocation::Item(item)), Some(value)) => {
                    list.extend([item, "=", value, ","]);
                }
                _ => {}
            }
        }
        let header = |name: &HeaderName| {
            let header = headers.iter().find(|(other, _)| other == name);
            header.map(|(_, value)| value.as_bytes()).unwrap_or_default()
        };
        let parts: Vec<&[u8]> = self
            .template
            .iter()
            .map(|part| match part {
                TemplatePart::Text(text) => text.as_bytes(),
                TemplatePart::Body => webhook.body,
                TemplatePart::Timestamp => time.as_deref().unwrap_or_default().as_bytes(),
                // As the header has it, possibly encoded.
                TemplatePart::Id => match &self.id {
                    Some(ValueLocation::Header(name)) => header(name),
                    Some(ValueLocation::Item(_)) | None => webhook.event_id.as_bytes(),
                },
                TemplatePart::Url => self.url.as_bytes(),
                TemplatePart::Header(name) => header(name),
            })
            .collect();
        let signature = self.encoding.encode(&secret.hmac(self.algorithm, &parts));
        let signature = format!("{}{signature}", self.prefix);
        let value = match &self.format {
            HeaderFormat::Single | HeaderFormat::SpaceSeparated => signature,
            HeaderFormat::KeyValueList(item) => format!("{list}{item}={signature}"),
        };
        if let Ok(value) = value.parse() {
            headers.push((self.header.clone(), value));
        }
        headers
    }
}

impl ValueLocation {
    fn parse(text: &str, format: &HeaderFormat) -> Result<Self, String> {
        if let Some(name) = text.strip_prefix("header:") {
            let name = name.parse().map_err(|_| format!("{name:?} is not a header name"))?;
            return Ok(Self::Header(name));
        }
        let Some(item) = text.strip_prefix("item:").filter(|item| is_list_key(item)) else {
            return Err(format!("{text:?} is neither header:NAME nor item:NAME"));
        };
        match format {
            HeaderFormat::KeyValueList(signature) if signature == item => {
                Err(format!("{text:?} is the signature itself"))
            }
            HeaderFormat::KeyValueList(_) => Ok(Self::Item(item.to_owned())),
            HeaderFormat::Single | HeaderFormat::SpaceSeparated => Err(format!(
                "{text:?} requires a list such as t=1,v1=abc, whose signature key is signature.item"
            )),
        }
    }
}

impl TimestampRule {
    fn seconds(&self, text: &str) -> Result<i64, Rejection> {
        let count: i64 = text.parse().map_err(|_| {
            Rejection::InvalidSignature("the signed timestamp is not a whole number".to_owned())
        })?;
        Ok(match self.unit {
            TimestampUnit::S => count,
            TimestampUnit::Ms => count.div_euclid(1000),
        })
    }

    fn text(&self, moment: OffsetDateTime) -> String {
        match self.unit {
            TimestampUnit::S => moment.unix_timestamp().to_string(),
            TimestampUnit::Ms => (moment.unix_timestamp_nanos() / 1_000_000).to_string(),
        }
    }
}

fn invalid_setting(key: &str, detail: impl Into<String>) -> InvalidSettings {
    InvalidSettings::new(&format!("signature.{key}"), detail)
}

/// Whether a text can be a key of a list such as `t=1,v1=abc`.
fn is_list_key(text: &str) -> bool {
    !text.is_empty() && !text.contains([',', '=', ' '])
}

/// The keys and values of a list such as `t=1,v1=abc`.
fn list_pairs(list: &str) -> impl Iterator<Item = (&str, &str)> {
    list.split(',').filter_map(|pair| pair.trim().split_once('='))
}

fn required_header<'a>(
    request: &WebhookRequest<'a>,
    name: &HeaderName,
) -> Result<&'a str, Rejection> {
    request.header(name.as_str()).ok_or_else(|| {
        Rejection::InvalidSignature(format!("the header {name} is missing or empty"))
    })
}
