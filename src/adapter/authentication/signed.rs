//! A signature by settings: which header holds it, and what is signed.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use time::OffsetDateTime;

use super::settings::{SignatureSettings, TimestampUnit};
use crate::adapter::{
    Call, Delivery, Rejection,
    mapping::InvalidSettings,
    signature::{Algorithm, Encoding, MOST_SIGNATURES, Secret, check_time},
};

/// Seconds that a signed time may be from now, unless something else is said.
const TOLERANCE_S: u64 = 300;

/// The settings of a signature, checked.
pub(super) struct Signed {
    header: HeaderName,
    prefix: String,
    algorithm: Algorithm,
    encoding: Encoding,
    grammar: Grammar,
    template: Vec<Part>,
    timestamp: Option<Timestamp>,
    id: Option<Place>,
    url: String,
}

/// How a header holds signatures.
enum Grammar {
    /// It is one.
    Single,
    /// Those under this key in a list such as `t=1,v1=abc`.
    Items(String),
    /// Those with the prefix, with spaces between them.
    Spaced,
}

/// A piece of what is signed.
enum Part {
    Text(String),
    Body,
    Timestamp,
    Id,
    Url,
    Header(HeaderName),
}

/// Where a signed value stands.
#[derive(PartialEq, Eq)]
enum Place {
    /// In a header of its own.
    Header(HeaderName),
    /// Under this key in the signature's header.
    Item(String),
}

struct Timestamp {
    place: Place,
    unit: TimestampUnit,
    tolerance: Duration,
}

impl Signed {
    pub(super) fn new(settings: SignatureSettings) -> Result<Self, InvalidSettings> {
        let SignatureSettings { header, prefix, item, list, template, timestamp, id, url, .. } =
            settings;
        let header = header.as_deref().unwrap_or("x-signature").parse();
        let header = header.map_err(|_| wrong("header", "is no header name"))?;
        let grammar = match (item, list) {
            (None, false) => Grammar::Single,
            (None, true) => Grammar::Spaced,
            (Some(_), true) => {
                return Err(wrong("list", "cannot be where signature.item says another list"));
            }
            (Some(item), false) => Grammar::Items(item),
        };
        if matches!(&grammar, Grammar::Items(item) if !is_item(item)) {
            return Err(wrong("item", "is no key of a list such as t=1,v1=abc"));
        }
        let template = parse(template.as_deref().unwrap_or("{body}"))
            .map_err(|detail| wrong("template", detail))?;
        let names = |wanted: fn(&Part) -> bool| template.iter().any(wanted);

        let place = |key: &str, text: Option<String>| {
            let place = |text: String| Place::parse(&text, &grammar);
            text.map(place).transpose().map_err(|detail| wrong(key, detail))
        };
        let timestamp = match place("timestamp", timestamp)? {
            Some(place) => {
                if !names(|part| matches!(part, Part::Timestamp)) {
                    let detail = "must have {timestamp}: a time that is not signed proves nothing";
                    return Err(wrong("template", detail));
                }
                let seconds = settings.tolerance_s.unwrap_or(TOLERANCE_S);
                // What was recorded on the way could be played again for as long.
                if !(1..=86_400).contains(&seconds) {
                    return Err(wrong("tolerance_s", "must be 1 to 86400, which is a day"));
                }
                let unit = settings.timestamp_unit.unwrap_or_default();
                Some(Timestamp { place, unit, tolerance: Duration::from_secs(seconds) })
            }
            None if names(|part| matches!(part, Part::Timestamp)) => {
                return Err(wrong("timestamp", "is needed: the template has {timestamp}"));
            }
            None => None,
        };
        for (key, given) in [
            ("tolerance_s", settings.tolerance_s.is_some()),
            ("timestamp_unit", settings.timestamp_unit.is_some()),
        ] {
            if given && timestamp.is_none() {
                return Err(wrong(key, "is for a signed time, and there is no timestamp"));
            }
        }
        let id = place("id", id)?;
        for (key, named, given) in [
            ("id", names(|part| matches!(part, Part::Id)), id.is_some()),
            ("url", names(|part| matches!(part, Part::Url)), url.is_some()),
        ] {
            match (named, given) {
                (true, false) => {
                    return Err(wrong(key, format!("is needed: the template has {{{key}}}")));
                }
                (false, true) => {
                    return Err(wrong(key, format!("is for a template with {{{key}}}")));
                }
                _ => {}
            }
        }
        Ok(Self {
            header,
            prefix: prefix.unwrap_or_default(),
            algorithm: settings.algorithm,
            encoding: settings.encoding,
            grammar,
            template,
            timestamp,
            id,
            url: url.unwrap_or_default(),
        })
    }

    pub(super) fn verify(&self, call: &Call<'_>, secrets: &[Secret]) -> Result<usize, Rejection> {
        let presented = required(call, &self.header)?;
        let signatures = self.signatures(presented)?;
        let find = |place: &Option<Place>| {
            let place = place.as_ref();
            place.map_or(Ok(""), |place| self.find(place, call, presented))
        };
        let id = find(&self.id)?;
        let time = match &self.timestamp {
            Some(timestamp) => self.find(&timestamp.place, call, presented)?,
            None => "",
        };
        let mut signed: Vec<&[u8]> = Vec::with_capacity(self.template.len());
        for part in &self.template {
            signed.push(match part {
                Part::Text(text) => text.as_bytes(),
                Part::Body => call.body,
                Part::Timestamp => time.as_bytes(),
                Part::Id => id.as_bytes(),
                Part::Url => self.url.as_bytes(),
                Part::Header(name) => required(call, name)?.as_bytes(),
            });
        }
        let index = secrets
            .iter()
            .position(|secret| secret.made_one(self.algorithm, &signed, &signatures))
            .ok_or_else(Rejection::forged)?;
        if let Some(timestamp) = &self.timestamp {
            check_time(call, timestamp.seconds(time)?, timestamp.tolerance)?;
        }
        Ok(index)
    }

    /// The signatures that a header presents.
    fn signatures(&self, presented: &str) -> Result<Vec<Vec<u8>>, Rejection> {
        let decode = |text: &str| self.encoding.decode(text.strip_prefix(self.prefix.as_str())?);
        let found: Vec<_> = match &self.grammar {
            Grammar::Single => decode(presented).into_iter().collect(),
            Grammar::Items(item) => items(presented)
                .filter(|(key, _)| key == item)
                .filter_map(|(_, value)| decode(value))
                .take(MOST_SIGNATURES)
                .collect(),
            Grammar::Spaced => presented
                .split_ascii_whitespace()
                .filter_map(decode)
                .take(MOST_SIGNATURES)
                .collect(),
        };
        if found.is_empty() {
            let header = &self.header;
            return Err(Rejection::Signature(match &self.grammar {
                Grammar::Single => format!("the header {header} is not a signature"),
                Grammar::Items(item) => format!("the header {header} has no signature {item}="),
                Grammar::Spaced => format!("the header {header} has no signature of this scheme"),
            }));
        }
        Ok(found)
    }

    fn find<'a>(
        &self,
        place: &Place,
        call: &Call<'a>,
        presented: &'a str,
    ) -> Result<&'a str, Rejection> {
        match place {
            Place::Header(name) => required(call, name),
            Place::Item(item) => items(presented)
                .find(|(key, value)| key == item && !value.is_empty())
                .map(|(_, value)| value)
                .ok_or_else(|| {
                    Rejection::Signature(format!("the header {} has no {item}=", self.header))
                }),
        }
    }

    pub(super) fn sign(
        &self,
        delivery: &Delivery<'_>,
        mut dressed: Vec<(HeaderName, HeaderValue)>,
        secret: &Secret,
    ) -> Vec<(HeaderName, HeaderValue)> {
        let time = self.timestamp.as_ref().map(|timestamp| timestamp.text(delivery.sent_at));
        let told = [
            (self.timestamp.as_ref().map(|timestamp| &timestamp.place), time.as_deref()),
            (self.id.as_ref(), Some(delivery.event_id)),
        ];
        let mut list = String::new();
        for (place, value) in told {
            match (place, value) {
                (Some(Place::Header(name)), Some(value)) => {
                    let known = dressed.iter().any(|(dressed, _)| dressed == name);
                    if let (false, Ok(value)) = (known, value.parse()) {
                        dressed.push((name.clone(), value));
                    }
                }
                (Some(Place::Item(item)), Some(value)) => list.extend([item, "=", value, ","]),
                _ => {}
            }
        }
        let header = |name: &HeaderName| {
            let found = dressed.iter().find(|(dressed, _)| dressed == name);
            found.map(|(_, value)| value.as_bytes()).unwrap_or_default()
        };
        let parts: Vec<&[u8]> = self
            .template
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.as_bytes(),
                Part::Body => delivery.body,
                Part::Timestamp => time.as_deref().unwrap_or_default().as_bytes(),
                // As it is written there, which may be encoded.
                Part::Id => match &self.id {
                    Some(Place::Header(name)) => header(name),
                    Some(Place::Item(_)) | None => delivery.event_id.as_bytes(),
                },
                Part::Url => self.url.as_bytes(),
                Part::Header(name) => header(name),
            })
            .collect();
        let signature = self.encoding.encode(&secret.hmac(self.algorithm, &parts));
        let signature = format!("{}{signature}", self.prefix);
        let value = match &self.grammar {
            Grammar::Single | Grammar::Spaced => signature,
            Grammar::Items(item) => format!("{list}{item}={signature}"),
        };
        if let Ok(value) = value.parse() {
            dressed.push((self.header.clone(), value));
        }
        dressed
    }
}

impl Place {
    fn parse(text: &str, grammar: &Grammar) -> Result<Self, String> {
        if let Some(name) = text.strip_prefix("header:") {
            let name = name.parse().map_err(|_| format!("{name:?} is no header name"))?;
            return Ok(Self::Header(name));
        }
        let Some(item) = text.strip_prefix("item:").filter(|item| is_item(item)) else {
            return Err(format!("{text:?} is neither header:NAME nor item:NAME"));
        };
        match grammar {
            Grammar::Items(signature) if signature == item => {
                Err(format!("{text:?} is the signature itself"))
            }
            Grammar::Items(_) => Ok(Self::Item(item.to_owned())),
            Grammar::Single | Grammar::Spaced => Err(format!(
                "{text:?} is for a list such as t=1,v1=abc; signature.item says which is signed"
            )),
        }
    }
}

impl Timestamp {
    fn seconds(&self, text: &str) -> Result<i64, Rejection> {
        let count: i64 = text.parse().map_err(|_| {
            Rejection::Signature("the signed time is no whole number since 1970".to_owned())
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

fn wrong(key: &str, detail: impl Into<String>) -> InvalidSettings {
    InvalidSettings::new(&format!("signature.{key}"), detail)
}

/// Whether a text can be the key of a list such as `t=1,v1=abc`.
fn is_item(text: &str) -> bool {
    !text.is_empty() && !text.contains([',', '=', ' '])
}

/// The keys and values of a list such as `t=1,v1=abc`.
fn items(list: &str) -> impl Iterator<Item = (&str, &str)> {
    list.split(',').filter_map(|pair| pair.trim().split_once('='))
}

fn required<'a>(call: &Call<'a>, name: &HeaderName) -> Result<&'a str, Rejection> {
    call.header(name.as_str())
        .ok_or_else(|| Rejection::Signature(format!("the header {name} is missing or empty")))
}

/// Reads a template such as `{timestamp}.{body}`.
fn parse(template: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut rest = template;
    while let Some((text, behind)) = rest.split_once('{') {
        parts.push(Part::Text(text.to_owned()));
        let (name, behind) = behind.split_once('}').ok_or("has a { without a }")?;
        parts.push(match name {
            "body" => Part::Body,
            "timestamp" => Part::Timestamp,
            "id" => Part::Id,
            "url" => Part::Url,
            _ => {
                let header = name.strip_prefix("header:").and_then(|name| name.parse().ok());
                Part::Header(header.ok_or_else(|| {
                    format!(
                        "has {{{name}}}, which is none of {{body}}, {{timestamp}}, {{id}}, {{url}} \
                         and {{header:NAME}}"
                    )
                })?)
            }
        });
        rest = behind;
    }
    parts.push(Part::Text(rest.to_owned()));
    if parts.iter().any(|part| matches!(part, Part::Text(text) if text.contains('}'))) {
        return Err("has a } without a {".to_owned());
    }
    parts.retain(|part| !matches!(part, Part::Text(text) if text.is_empty()));
    if parts.iter().filter(|part| matches!(part, Part::Body)).count() != 1 {
        return Err("must have {body} once: what is not signed could be anything".to_owned());
    }
    Ok(parts)
}
