//! URLs and header values with places for what an event names.

use std::fmt::Write as _;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Url;

/// What stands as it is within a segment of a path (RFC 3986, unreserved).
const UNRESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A place that a text may have, and what may stand there.
#[derive(Debug, PartialEq, Eq)]
pub struct Placeholder {
    /// How it is written, within braces.
    pub name: &'static str,
    /// Whether its value may be several segments of a path, as BigCommerce's
    /// tenant `stores/abc` is.
    pub allows_slashes: bool,
    /// Whether its value may be empty, in the query of a URL.
    pub may_be_empty: bool,
}

/// The places of what an event names.
pub const RESOURCE_PLACEHOLDERS: &[Placeholder] = &[
    // The shop or company.
    Placeholder { name: "tenant", allows_slashes: true, may_be_empty: false },
    Placeholder { name: "kind", allows_slashes: false, may_be_empty: false },
    // The platform's id of it.
    Placeholder { name: "id", allows_slashes: false, may_be_empty: false },
];

/// What stands in which place, by the place's name.
pub type PlaceholderValues<'a> = [(&'static str, &'a str)];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Place(&'static Placeholder),
}

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidTemplate(String);

/// A value that cannot stand in a URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} cannot stand in a URL")]
pub struct InvalidValue {
    /// The name of the place that it was meant for.
    pub placeholder: &'static str,
    value: String,
}

/// A text with places, such as `{tenant}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextTemplate(Vec<Segment>);

impl TextTemplate {
    /// Reads a text that may have these places.
    ///
    /// # Errors
    /// A brace that begins or ends no place.
    pub fn parse(text: &str, places: &'static [Placeholder]) -> Result<Self, InvalidTemplate> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((written, tail)) = rest.split_once('{') {
            let Some((name, tail)) = tail.split_once('}') else {
                return Err(InvalidTemplate("a brace is not closed".to_owned()));
            };
            let Some(place) = places.iter().find(|place| place.name == name) else {
                return Err(InvalidTemplate(if places.is_empty() {
                    "no place such as {id} can stand here".to_owned()
                } else {
                    format!("{{{name}}} is not one of {}", placeholder_list(places.iter()))
                }));
            };
            pieces.push(Segment::Literal(written.to_owned()));
            pieces.push(Segment::Place(place));
            rest = tail;
        }
        pieces.push(Segment::Literal(rest.to_owned()));
        if pieces.iter().any(|piece| matches!(piece, Segment::Literal(text) if text.contains('}')))
        {
            return Err(InvalidTemplate("a brace is not opened".to_owned()));
        }
        Ok(Self(pieces))
    }

    /// The text with its places filled, as the values are.
    pub fn fill(&self, values: &PlaceholderValues<'_>) -> String {
        let filled = self.0.iter().map(|piece| match piece {
            Segment::Literal(text) => text.as_str(),
            Segment::Place(place) => value(place, values),
        });
        filled.collect()
    }
}

/// A URL with places in its path or query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlTemplate {
    text: TextTemplate,
    example: Url,
}

impl UrlTemplate {
    /// Reads a URL that may have these places, and has at least one of those
    /// `needed`, if there are any.
    ///
    /// # Errors
    /// No URL, places in its host, credentials or a fragment, none of the
    /// places that are needed.
    pub fn parse(
        text: &str,
        places: &'static [Placeholder],
        needed: &[&str],
    ) -> Result<Self, InvalidTemplate> {
        let refuse = |why: &str| Err(InvalidTemplate(why.to_owned()));
        let after_scheme = text.split_once("://").map_or("", |(_, rest)| rest);
        let authority = after_scheme.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.is_empty() {
            return refuse("it is no URL such as https://api.example.com/orders");
        }
        if authority.contains(['{', '}']) {
            return refuse("its host must be written out");
        }
        let parsed = TextTemplate::parse(text, places)?;
        let is_needed = |place: &&Placeholder| needed.contains(&place.name);
        if !needed.is_empty() && !parsed.placeholders().any(|place| is_needed(&place)) {
            let needed = placeholder_list(places.iter().filter(is_needed));
            return refuse(&format!("it has no {needed}"));
        }
        let sample: Vec<_> = places.iter().map(|place| (place.name, "x")).collect();
        let sample = parsed.fill(&sample);
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

    /// Whether it has this place.
    pub fn has_placeholder(&self, place: &str) -> bool {
        self.text.placeholders().any(|known| known.name == place)
    }

    /// Whether its path has a place, so that each resource has a path of its
    /// own; else only the query tells them apart.
    pub fn has_placeholder_in_path(&self) -> bool {
        let ends = |piece: &Segment| matches!(piece, Segment::Literal(text) if text.contains('?'));
        let path = self.text.0.iter().take_while(|piece| !ends(piece));
        path.into_iter().any(|piece| matches!(piece, Segment::Place(_)))
    }

    /// The URL of a resource.
    ///
    /// Each value is percent-encoded, and within the path a segment of it, or
    /// several where its place allows that.
    ///
    /// # Errors
    /// [`Unfit`]: a value that is empty or would lead elsewhere.
    pub fn fill(&self, values: &PlaceholderValues<'_>) -> Result<Url, InvalidValue> {
        let mut filled = String::new();
        for piece in &self.text.0 {
            match piece {
                Segment::Literal(text) => filled.push_str(text),
                Segment::Place(place) => push_encoded(&mut filled, place, value(place, values))?,
            }
        }
        // The parser resolves dot segments, also those that two values make
        // between them.
        match filled.parse::<Url>() {
            Ok(url) if url.origin() == self.example.origin() && url.path() == path_of(&filled) => {
                Ok(url)
            }
            // Each by itself is in order, so the last of them is told.
            _ => match self.text.placeholders().last() {
                Some(place) => Err(invalid_value(place, value(place, values))),
                None => Ok(self.example.clone()),
            },
        }
    }
}

impl TextTemplate {
    fn placeholders(&self) -> impl Iterator<Item = &'static Placeholder> {
        self.0.iter().filter_map(|piece| match piece {
            Segment::Place(place) => Some(*place),
            Segment::Literal(_) => None,
        })
    }
}

/// What stands in a place; nothing where nothing was told.
fn value<'a>(place: &Placeholder, values: &PlaceholderValues<'a>) -> &'a str {
    values.iter().find(|(name, _)| *name == place.name).map_or("", |(_, value)| value)
}

/// The names of places, for messages.
fn placeholder_list<'a>(places: impl Iterator<Item = &'a Placeholder>) -> String {
    places.map(|place| format!("{{{}}}", place.name)).collect::<Vec<_>>().join(", ")
}

/// Writes a value, percent-encoded.
fn push_encoded(url: &mut String, place: &Placeholder, value: &str) -> Result<(), InvalidValue> {
    // What is filled in is encoded, so that this one is written.
    let in_query = url.contains('?');
    if value.is_empty() && place.may_be_empty && in_query {
        return Ok(());
    }
    let segments: Vec<&str> =
        if place.allows_slashes { value.split('/').collect() } else { vec![value] };
    for (index, segment) in segments.into_iter().enumerate() {
        let leads_elsewhere = matches!(segment, "." | "..") && !in_query;
        if segment.is_empty() || leads_elsewhere {
            return Err(invalid_value(place, value));
        }
        let slash = if index == 0 { "" } else { "/" };
        // Writing to memory cannot fail.
        let _ = write!(url, "{slash}{}", utf8_percent_encode(segment, &UNRESERVED));
    }
    Ok(())
}

fn invalid_value(place: &Placeholder, value: &str) -> InvalidValue {
    InvalidValue { placeholder: place.name, value: value.to_owned() }
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
        let template = UrlTemplate::parse(template, RESOURCE_PLACEHOLDERS, &["id"]).unwrap();
        let filled = template.fill(&[("tenant", tenant), ("kind", kind), ("id", id)]);
        filled.map(String::from).map_err(|unfit| unfit.placeholder)
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
            let error =
                UrlTemplate::parse(text, RESOURCE_PLACEHOLDERS, &["id"]).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?} says {error:?}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn what_may_be_empty_may_be_so_in_a_query_only() {
        const PLACES: &[Placeholder] =
            &[Placeholder { name: "tenant", allows_slashes: false, may_be_empty: true }];
        let fill = |text, tenant| {
            let template = UrlTemplate::parse(text, PLACES, &[]).unwrap();
            template
                .fill(&[("tenant", tenant)])
                .map(String::from)
                .map_err(|unfit| unfit.placeholder)
        };
        let query = "https://a.example/x?of={tenant}&all";
        assert_eq!(fill(query, "").as_deref(), Ok("https://a.example/x?of=&all"));
        assert_eq!(fill(query, "..").as_deref(), Ok("https://a.example/x?of=..&all"));
        assert_eq!(fill(query, "a/b").as_deref(), Ok("https://a.example/x?of=a%2Fb&all"));
        assert_eq!(fill("https://a.example/{tenant}/x", ""), Err("tenant"));
        assert_eq!(fill("https://a.example/x", "a").as_deref(), Ok("https://a.example/x"));
        let error = TextTemplate::parse("{id}", &[]).unwrap_err();
        assert!(error.to_string().contains("no place"), "{error}");
    }

    #[test]
    fn header_values_are_filled_as_they_are() {
        let values = [("tenant", "a/b {id}"), ("kind", "k"), ("id", "7")];
        let filled = |text| TextTemplate::parse(text, RESOURCE_PLACEHOLDERS).unwrap().fill(&values);
        assert_eq!(filled("{tenant}"), "a/b {id}");
        assert_eq!(filled("x {id}-{kind} y"), "x 7-k y");
        assert_eq!(filled("plain"), "plain");
    }
}
