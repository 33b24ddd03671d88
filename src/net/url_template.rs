//! URLs and header values with placeholders, such as `{id}`.

use std::fmt::Write as _;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Url;

/// Everything but the unreserved characters of RFC 3986.
const RESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A placeholder that a template may contain.
#[derive(Debug, PartialEq, Eq)]
pub struct Placeholder {
    /// The name, written in braces.
    pub name: &'static str,
    /// Whether a value may be several path segments, as BigCommerce's tenant `stores/abc` is.
    pub allows_slashes: bool,
    /// Whether a value in the query of a URL may be empty.
    pub may_be_empty: bool,
}

/// The placeholders for a resource that a thin event names.
pub const RESOURCE_PLACEHOLDERS: &[Placeholder] = &[
    // The shop or company.
    Placeholder { name: "tenant", allows_slashes: true, may_be_empty: false },
    Placeholder { name: "kind", allows_slashes: false, may_be_empty: false },
    // The platform's id of the resource.
    Placeholder { name: "id", allows_slashes: false, may_be_empty: false },
];

/// Values by the name of the placeholder.
pub type PlaceholderValues<'a> = [(&'static str, &'a str)];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Placeholder(&'static Placeholder),
}

/// Why a text is not a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidTemplate(String);

/// A value that cannot be part of a URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} cannot be part of a URL")]
pub struct InvalidValue {
    /// The name of the placeholder.
    pub placeholder: &'static str,
    value: String,
}

/// A text with placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextTemplate(Vec<Segment>);

impl TextTemplate {
    /// Parses a text that may contain these placeholders.
    ///
    /// # Errors
    /// A brace without its counterpart, or an unknown placeholder.
    pub fn parse(
        text: &str,
        placeholders: &'static [Placeholder],
    ) -> Result<Self, InvalidTemplate> {
        let mut segments = Vec::new();
        let mut rest = text;
        while let Some((literal, tail)) = rest.split_once('{') {
            let Some((name, tail)) = tail.split_once('}') else {
                return Err(InvalidTemplate("a brace is not closed".to_owned()));
            };
            let Some(placeholder) = placeholders.iter().find(|known| known.name == name) else {
                return Err(InvalidTemplate(if placeholders.is_empty() {
                    "no placeholder such as {id} is allowed here".to_owned()
                } else {
                    format!("{{{name}}} is not one of {}", placeholder_list(placeholders.iter()))
                }));
            };
            segments.push(Segment::Literal(literal.to_owned()));
            segments.push(Segment::Placeholder(placeholder));
            rest = tail;
        }
        segments.push(Segment::Literal(rest.to_owned()));
        let has_closing_brace =
            |segment: &Segment| matches!(segment, Segment::Literal(text) if text.contains('}'));
        if segments.iter().any(has_closing_brace) {
            return Err(InvalidTemplate("a brace is not opened".to_owned()));
        }
        Ok(Self(segments))
    }

    /// The text with the values in place, unencoded.
    pub fn fill(&self, values: &PlaceholderValues<'_>) -> String {
        let texts = self.0.iter().map(|segment| match segment {
            Segment::Literal(text) => text.as_str(),
            Segment::Placeholder(placeholder) => value_of(placeholder, values),
        });
        texts.collect()
    }

    fn placeholders(&self) -> impl Iterator<Item = &'static Placeholder> {
        self.0.iter().filter_map(|segment| match segment {
            Segment::Placeholder(placeholder) => Some(*placeholder),
            Segment::Literal(_) => None,
        })
    }
}

/// A URL with placeholders in its path or query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlTemplate {
    text: TextTemplate,
    example: Url,
}

impl UrlTemplate {
    /// Parses a URL that may contain these placeholders. It must contain one of `required`, unless
    /// that is empty.
    ///
    /// # Errors
    /// The text is not a URL, has placeholders in its host, credentials or a fragment, or none of
    /// the required placeholders.
    pub fn parse(
        text: &str,
        placeholders: &'static [Placeholder],
        required: &[&str],
    ) -> Result<Self, InvalidTemplate> {
        let invalid = |reason: &str| Err(InvalidTemplate(reason.to_owned()));
        let after_scheme = text.split_once("://").map_or("", |(_, rest)| rest);
        let authority = after_scheme.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.is_empty() {
            return invalid("this is not a URL such as https://api.example.com/orders");
        }
        if authority.contains(['{', '}']) {
            return invalid("the host cannot contain placeholders");
        }
        let template = TextTemplate::parse(text, placeholders)?;
        let is_required = |placeholder: &&Placeholder| required.contains(&placeholder.name);
        if !required.is_empty() && !template.placeholders().any(|known| is_required(&known)) {
            let required = placeholder_list(placeholders.iter().filter(is_required));
            return invalid(&format!("it must contain one of {required}"));
        }
        let sample: Vec<_> =
            placeholders.iter().map(|placeholder| (placeholder.name, "x")).collect();
        let sample = template.fill(&sample);
        let example: Url = sample
            .parse()
            .map_err(|error| InvalidTemplate(format!("this is not a URL: {error}")))?;
        if !example.username().is_empty() || example.password().is_some() {
            return invalid("credentials belong in headers");
        }
        if example.fragment().is_some() {
            return invalid("a fragment is never sent");
        }
        if example.path() != path_of(&sample) {
            return invalid("the path is not normalized");
        }
        Ok(Self { text: template, example })
    }

    /// The URL of a sample resource. All resources have its scheme, host and port.
    pub fn example(&self) -> &Url {
        &self.example
    }

    /// Whether it contains this placeholder.
    pub fn has_placeholder(&self, name: &str) -> bool {
        self.text.placeholders().any(|placeholder| placeholder.name == name)
    }

    /// Whether its path contains a placeholder, so that each resource has a path of its own.
    pub fn has_placeholder_in_path(&self) -> bool {
        let is_query =
            |segment: &Segment| matches!(segment, Segment::Literal(text) if text.contains('?'));
        let mut path = self.text.0.iter().take_while(|segment| !is_query(segment));
        path.any(|segment| matches!(segment, Segment::Placeholder(_)))
    }

    /// The URL of a resource.
    ///
    /// Each value is percent-encoded. In the path it is one segment, or several if its placeholder
    /// allows slashes.
    ///
    /// # Errors
    /// A value is empty, or would lead to another path.
    pub fn fill(&self, values: &PlaceholderValues<'_>) -> Result<Url, InvalidValue> {
        let mut filled = String::new();
        for segment in &self.text.0 {
            match segment {
                Segment::Literal(text) => filled.push_str(text),
                Segment::Placeholder(placeholder) => {
                    push_encoded(&mut filled, placeholder, value_of(placeholder, values))?;
                }
            }
        }
        // The parser resolves dot segments, also those that two adjacent values form.
        match filled.parse::<Url>() {
            Ok(url) if url.origin() == self.example.origin() && url.path() == path_of(&filled) => {
                Ok(url)
            }
            // Each value is valid by itself, so the last one is reported.
            _ => match self.text.placeholders().last() {
                Some(placeholder) => Err(invalid_value(placeholder, value_of(placeholder, values))),
                None => Ok(self.example.clone()),
            },
        }
    }
}

/// The value of a placeholder; empty without one.
fn value_of<'a>(placeholder: &Placeholder, values: &PlaceholderValues<'a>) -> &'a str {
    values.iter().find(|(name, _)| *name == placeholder.name).map_or("", |(_, value)| value)
}

/// The names of placeholders, for messages.
fn placeholder_list<'a>(placeholders: impl Iterator<Item = &'a Placeholder>) -> String {
    let names = placeholders.map(|placeholder| format!("{{{}}}", placeholder.name));
    names.collect::<Vec<_>>().join(", ")
}

fn push_encoded(
    url: &mut String,
    placeholder: &Placeholder,
    value: &str,
) -> Result<(), InvalidValue> {
    // Values are encoded, so a question mark comes from the template.
    let in_query = url.contains('?');
    if value.is_empty() && placeholder.may_be_empty && in_query {
        return Ok(());
    }
    let segments: Vec<&str> =
        if placeholder.allows_slashes { value.split('/').collect() } else { vec![value] };
    for (index, segment) in segments.into_iter().enumerate() {
        let is_dot_segment = matches!(segment, "." | "..") && !in_query;
        if segment.is_empty() || is_dot_segment {
            return Err(invalid_value(placeholder, value));
        }
        let slash = if index == 0 { "" } else { "/" };
        // Writing to memory cannot fail.
        let _ = write!(url, "{slash}{}", utf8_percent_encode(segment, &RESERVED));
    }
    Ok(())
}

fn invalid_value(placeholder: &Placeholder, value: &str) -> InvalidValue {
    InvalidValue { placeholder: placeholder.name, value: value.to_owned() }
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
        filled.map(String::from).map_err(|invalid| invalid.placeholder)
    }

    #[test]
    fn url_template_values_are_encoded() {
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
    fn url_template_value_cannot_change_path() {
        let shop = "https://api.bigcommerce.com/{tenant}/v2/{kind}/{id}";
        for (tenant, kind, id, placeholder) in [
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
            assert_eq!(fill(shop, tenant, kind, id), Err(placeholder), "{tenant} {kind} {id}");
        }
        // Percent signs are encoded again.
        let encoded = fill(shop, "%2e%2e", "order", "%2e%2e").unwrap();
        assert_eq!(encoded, "https://api.bigcommerce.com/%252e%252e/v2/order/%252e%252e");
        // A dot beside a literal dot.
        assert_eq!(fill("https://a.example/x/.{id}/y", "t", "k", "."), Err("id"));
    }

    #[test]
    fn url_template_invalid_text_is_refused() {
        for (text, expected) in [
            ("", "not a URL"),
            ("/orders/{id}", "not a URL"),
            ("https:///orders/{id}", "not a URL"),
            ("https://{tenant}/orders/{id}", "host"),
            ("https://{tenant}.example.com/orders/{id}", "host"),
            ("https://a.example:{id}/orders", "host"),
            ("https://a.example/orders", "{id}"),
            ("https://a.example/orders/{ID}", "{ID}"),
            ("https://a.example/orders/{id", "not closed"),
            ("https://a.example/orders/id}/{id}", "not opened"),
            ("https://ann:secret@a.example/{id}", "credentials"),
            ("https://a.example/{id}#part", "fragment"),
            ("https://a.example/x/../{id}", "normalized"),
        ] {
            let error =
                UrlTemplate::parse(text, RESOURCE_PLACEHOLDERS, &["id"]).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?} says {error:?}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn url_template_empty_value_is_allowed_in_query_only() {
        const PLACEHOLDERS: &[Placeholder] =
            &[Placeholder { name: "tenant", allows_slashes: false, may_be_empty: true }];
        let fill = |text, tenant| {
            let template = UrlTemplate::parse(text, PLACEHOLDERS, &[]).unwrap();
            template
                .fill(&[("tenant", tenant)])
                .map(String::from)
                .map_err(|invalid| invalid.placeholder)
        };
        let query = "https://a.example/x?of={tenant}&all";
        assert_eq!(fill(query, "").as_deref(), Ok("https://a.example/x?of=&all"));
        assert_eq!(fill(query, "..").as_deref(), Ok("https://a.example/x?of=..&all"));
        assert_eq!(fill(query, "a/b").as_deref(), Ok("https://a.example/x?of=a%2Fb&all"));
        assert_eq!(fill("https://a.example/{tenant}/x", ""), Err("tenant"));
        assert_eq!(fill("https://a.example/x", "a").as_deref(), Ok("https://a.example/x"));
        let error = TextTemplate::parse("{id}", &[]).unwrap_err();
        assert!(error.to_string().contains("no placeholder"), "{error}");
    }

    #[test]
    fn text_template_values_are_not_encoded() {
        let values = [("tenant", "a/b {id}"), ("kind", "k"), ("id", "7")];
        let filled = |text| TextTemplate::parse(text, RESOURCE_PLACEHOLDERS).unwrap().fill(&values);
        assert_eq!(filled("{tenant}"), "a/b {id}");
        assert_eq!(filled("x {id}-{kind} y"), "x 7-k y");
        assert_eq!(filled("plain"), "plain");
    }
}
