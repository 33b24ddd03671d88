//! URLs and header values with places for what an event names.

use std::fmt::Write as _;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Url;

/// What stands as it is within a segment of a path (RFC 3986, unreserved).
const SEGMENT: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What an event names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Values<'a> {
    /// The shop or company.
    pub tenant: &'a str,
    /// The kind of resource.
    pub kind: &'a str,
    /// The platform's id of it.
    pub id: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Tenant,
    Kind,
    Id,
}

impl Place {
    const ALL: [Self; 3] = [Self::Tenant, Self::Kind, Self::Id];

    const fn name(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Kind => "kind",
            Self::Id => "id",
        }
    }

    fn value<'a>(self, values: &Values<'a>) -> &'a str {
        match self {
            Self::Tenant => values.tenant,
            Self::Kind => values.kind,
            Self::Id => values.id,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Written(String),
    Place(Place),
}

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidTemplate(String);

/// A value that cannot stand in a URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} cannot stand in a URL")]
pub struct Unfit {
    /// The place that it was meant for: `tenant`, `kind` or `id`.
    pub place: &'static str,
    value: String,
}

/// A text with places: `{tenant}`, `{kind}`, `{id}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(Vec<Piece>);

impl Text {
    /// Reads a text.
    ///
    /// # Errors
    /// A brace that begins or ends no place.
    pub fn parse(text: &str) -> Result<Self, InvalidTemplate> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((written, tail)) = rest.split_once('{') {
            let Some((name, tail)) = tail.split_once('}') else {
                return Err(InvalidTemplate("a brace is not closed".to_owned()));
            };
            let Some(place) = Place::ALL.into_iter().find(|place| place.name() == name) else {
                return Err(InvalidTemplate(format!(
                    "{{{name}}} is not one of {{tenant}}, {{kind}}, {{id}}"
                )));
            };
            pieces.push(Piece::Written(written.to_owned()));
            pieces.push(Piece::Place(place));
            rest = tail;
        }
        pieces.push(Piece::Written(rest.to_owned()));
        if pieces.iter().any(|piece| matches!(piece, Piece::Written(text) if text.contains('}'))) {
            return Err(InvalidTemplate("a brace is not opened".to_owned()));
        }
        Ok(Self(pieces))
    }

    /// The text with its places filled, as the values are.
    pub fn fill(&self, values: &Values<'_>) -> String {
        let filled = self.0.iter().map(|piece| match piece {
            Piece::Written(text) => text.as_str(),
            Piece::Place(place) => place.value(values),
        });
        filled.collect()
    }
}

/// A URL with places in its path or query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    text: Text,
    example: Url,
}

impl Template {
    /// Reads a URL.
    ///
    /// # Errors
    /// No URL, places in its host, credentials or a fragment, no `{id}`.
    pub fn parse(text: &str) -> Result<Self, InvalidTemplate> {
        let refuse = |why: &str| Err(InvalidTemplate(why.to_owned()));
        let after_scheme = text.split_once("://").map_or("", |(_, rest)| rest);
        let authority = after_scheme.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.is_empty() {
            return refuse("it is no URL such as https://api.example.com/orders/{id}");
        }
        if authority.contains(['{', '}']) {
            return refuse("its host must be written out");
        }
        let parsed = Text::parse(text)?;
        if !parsed.0.contains(&Piece::Place(Place::Id)) {
            return refuse("it has no {id}");
        }
        let sample = parsed.fill(&Values { tenant: "x", kind: "x", id: "x" });
        let example: Url =
            sample.parse().map_err(|error| InvalidTemplate(format!("it is no URL: {error}")))?;
        if !example.username().is_empty() || example.password().is_some() {
            return refuse("credentials belong into headers");
        }
        if example.fragment().is_some() {
            return refuse("a fragment is never sent");
        }
        if example.path() != path_of(&sample) {
            return refuse("its path is not written as it is sent");
        }
        Ok(Self { text: parsed, example })
    }

    /// The URL for some resource: its scheme, host and port are each one's.
    pub fn example(&self) -> &Url {
        &self.example
    }

    /// The URL of a resource.
    ///
    /// Each value is one segment of the path; a tenant may be several, as
    /// BigCommerce's `stores/abc` is.
    ///
    /// # Errors
    /// [`Unfit`]: a value that is empty or would lead elsewhere.
    pub fn fill(&self, values: &Values<'_>) -> Result<Url, Unfit> {
        let mut filled = String::new();
        for piece in &self.text.0 {
            match piece {
                Piece::Written(text) => filled.push_str(text),
                Piece::Place(place) => put(&mut filled, *place, place.value(values))?,
            }
        }
        // The parser resolves dot segments, also those that two values make
        // between them.
        match filled.parse::<Url>() {
            Ok(url) if url.origin() == self.example.origin() && url.path() == path_of(&filled) => {
                Ok(url)
            }
            _ => Err(unfit(Place::Id, values.id)),
        }
    }
}

/// Writes a value, percent-encoded.
fn put(url: &mut String, place: Place, value: &str) -> Result<(), Unfit> {
    let segments: Vec<&str> = match place {
        Place::Tenant => value.split('/').collect(),
        Place::Kind | Place::Id => vec![value],
    };
    for (index, segment) in segments.into_iter().enumerate() {
        if matches!(segment, "" | "." | "..") {
            return Err(unfit(place, value));
        }
        let slash = if index == 0 { "" } else { "/" };
        // Writing to memory cannot fail.
        let _ = write!(url, "{slash}{}", utf8_percent_encode(segment, &SEGMENT));
    }
    Ok(())
}

fn unfit(place: Place, value: &str) -> Unfit {
    Unfit { place: place.name(), value: value.to_owned() }
}

/// The path of a URL as it is written.
fn path_of(url: &str) -> &str {
    let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = after_scheme.find('/').map_or("", |start| &after_scheme[start..]);
    path.split('?').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(template: &str, tenant: &str, kind: &str, id: &str) -> Result<String, &'static str> {
        let template = Template::parse(template).unwrap();
        let filled = template.fill(&Values { tenant, kind, id });
        filled.map(String::from).map_err(|unfit| unfit.place)
    }

    #[test]
    fn values_stand_where_they_belong() {
        let books =
            "https://quickbooks.api.intuit.com/v3/company/{tenant}/{kind}/{id}?minorversion=75";
        let shop = "https://api.bigcommerce.com/{tenant}/v2/orders/{id}";
        let query = "https://api.example.com:8443/x?id={id}&of={tenant}";
        for (template, values, expected) in [
            (
                books,
                ["1234", "invoice", "7"],
                "https://quickbooks.api.intuit.com/v3/company/1234/invoice/7?minorversion=75",
            ),
            (
                shop,
                ["stores/abc", "order", "7"],
                "https://api.bigcommerce.com/stores/abc/v2/orders/7",
            ),
            (
                query,
                ["a b", "order", "1&x=2"],
                "https://api.example.com:8443/x?id=1%26x%3D2&of=a%20b",
            ),
            (
                books,
                ["1", "k", "a/b?c#d%2e%é"],
                "https://quickbooks.api.intuit.com/v3/company/1/k/a%2Fb%3Fc%23d%252e%25%C3%A9?minorversion=75",
            ),
            (
                shop,
                ["stores/.a..b", "k", "..."],
                "https://api.bigcommerce.com/stores/.a..b/v2/orders/...",
            ),
        ] {
            let [tenant, kind, id] = values;
            assert_eq!(fill(template, tenant, kind, id).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn no_value_leads_elsewhere() {
        let shop = "https://api.bigcommerce.com/{tenant}/v2/{kind}/{id}";
        for (tenant, kind, id, place) in [
            ("../x", "order", "7", "tenant"),
            ("stores/../../x", "order", "7", "tenant"),
            ("stores//x", "order", "7", "tenant"),
            ("/stores", "order", "7", "tenant"),
            ("stores/", "order", "7", "tenant"),
            (".", "order", "7", "tenant"),
            ("", "order", "7", "tenant"),
            ("stores/x", "..", "7", "kind"),
            ("stores/x", "order", "..", "id"),
            ("stores/x", "order", "", "id"),
        ] {
            assert_eq!(fill(shop, tenant, kind, id), Err(place), "{tenant} {kind} {id}");
        }
        // Encoded once more, they are names like any other.
        let encoded = fill(shop, "%2e%2e", "order", "%2e%2e").unwrap();
        assert_eq!(encoded, "https://api.bigcommerce.com/%252e%252e/v2/order/%252e%252e");
        // Beside what is written.
        assert_eq!(fill("https://a.example/x/.{id}/y", "t", "k", "."), Err("id"));
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for (text, expected) in [
            ("", "no URL"),
            ("/orders/{id}", "no URL"),
            ("https:///orders/{id}", "no URL"),
            ("https://{tenant}/orders/{id}", "host"),
            ("https://{tenant}.example.com/orders/{id}", "host"),
            ("https://a.example:{id}/orders", "host"),
            ("https://a.example/orders", "{id}"),
            ("https://a.example/orders/{ID}", "{ID}"),
            ("https://a.example/orders/{id", "not closed"),
            ("https://a.example/orders/id}/{id}", "not opened"),
            ("https://ann:secret@a.example/{id}", "credentials"),
            ("https://a.example/{id}#part", "fragment"),
            ("https://a.example/x/../{id}", "path"),
        ] {
            let error = Template::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?} says {error:?}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn header_values_are_filled_as_they_are() {
        let values = Values { tenant: "a/b {id}", kind: "k", id: "7" };
        let filled = |text| Text::parse(text).unwrap().fill(&values);
        assert_eq!(filled("{tenant}"), "a/b {id}");
        assert_eq!(filled("x {id}-{kind} y"), "x 7-k y");
        assert_eq!(filled("plain"), "plain");
    }
}
