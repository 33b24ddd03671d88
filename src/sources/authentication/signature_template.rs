//! Templates of signed texts, such as `{timestamp}.{body}`.

use http::HeaderName;

/// A part of the signed text.
pub(super) enum TemplatePart {
    Text(String),
    Body,
    Timestamp,
    Id,
    Url,
    Header(HeaderName),
}

/// Parses a template such as `{timestamp}.{body}`.
pub(super) fn parse_template(template: &str) -> Result<Vec<TemplatePart>, String> {
    let mut parts = Vec::new();
    let mut rest = template;
    while let Some((text, after)) = rest.split_once('{') {
        parts.push(TemplatePart::Text(text.to_owned()));
        let (name, after) = after.split_once('}').ok_or("has a { without a }")?;
        parts.push(match name {
            "body" => TemplatePart::Body,
            "timestamp" => TemplatePart::Timestamp,
            "id" => TemplatePart::Id,
            "url" => TemplatePart::Url,
            _ => {
                let header = name.strip_prefix("header:").and_then(|name| name.parse().ok());
                TemplatePart::Header(header.ok_or_else(|| {
                    format!(
                        "contains {{{name}}}, which is none of {{body}}, {{timestamp}}, {{id}}, {{url}} \
                         and {{header:NAME}}"
                    )
                })?)
            }
        });
        rest = after;
    }
    parts.push(TemplatePart::Text(rest.to_owned()));
    if parts.iter().any(|part| matches!(part, TemplatePart::Text(text) if text.contains('}'))) {
        return Err("has a } without a {".to_owned());
    }
    parts.retain(|part| !matches!(part, TemplatePart::Text(text) if text.is_empty()));
    if parts.iter().filter(|part| matches!(part, TemplatePart::Body)).count() != 1 {
        return Err("must contain {body} once: an unsigned body proves nothing".to_owned());
    }
    Ok(parts)
}
