//! Amounts with a decimal comma in CSV files.

use bytes::Bytes;

use crate::{
    domain::PermanentFailure,
    sources::json_fields::{JsonFields, JsonPointers},
};

/// Separators of groups of three digits: a point, a space, or a non-breaking space of
/// either width.
const GROUP_SEPARATORS: [char; 4] = ['.', ' ', '\u{a0}', '\u{202f}'];

/// Rewrites the amount at this pointer with a decimal point: `"1.234,56"` becomes
/// `"1234.56"`. JSON numbers stay unchanged.
///
/// # Errors
/// [`PermanentFailure`] if it is a text that is not a number with a decimal comma: `12.50`
/// is ambiguous.
pub(super) fn parse_decimal_comma(body: &Bytes, pointer: &str) -> Result<Bytes, PermanentFailure> {
    let pointers = JsonPointers::new([pointer]);
    let fields = JsonFields::read(body, &pointers)?;
    let Some(range) = fields.text_range(pointer) else { return Ok(body.clone()) };
    let Some(text) = fields.text(pointer)? else { return Ok(body.clone()) };
    let number = normalize_number(text.trim()).ok_or_else(|| {
        PermanentFailure::invalid(pointer, "is not a number with a decimal comma (1.234,56)")
    })?;
    let literal = format!("\"{number}\"");
    let parts = [&body[..range.start], literal.as_bytes(), &body[range.end..]];
    Ok(Bytes::from(parts.concat()))
}

/// Converts a number with a decimal comma to one with a point and without groups.
fn normalize_number(text: &str) -> Option<String> {
    let (sign, digits) = match text.strip_prefix(['-', '+']) {
        Some(digits) => (&text[..1], digits),
        None => ("", text),
    };
    let (whole, decimals) = match digits.split_once(',') {
        Some((whole, decimals)) => (whole, Some(decimals)),
        None => (digits, None),
    };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let whole = match whole.chars().find(|c| GROUP_SEPARATORS.contains(c)) {
        None => whole.to_owned(),
        Some(separator) => {
            let mut groups = whole.split(separator);
            let is_first = groups.next().is_some_and(|group| (1..=3).contains(&group.len()));
            if !is_first || groups.any(|group| group.len() != 3) {
                return None;
            }
            whole.replace(separator, "")
        }
    };
    if !is_number(&whole) || decimals.is_some_and(|decimals| !is_number(decimals)) {
        return None;
    }
    Some(match decimals {
        Some(decimals) => format!("{sign}{whole}.{decimals}"),
        None => format!("{sign}{whole}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_comma_numbers_are_exact() {
        for (text, expected) in [
            ("1.234,56", Some("1234.56")),
            ("1234,56", Some("1234.56")),
            ("-12,5", Some("-12.5")),
            ("+0,10", Some("+0.10")),
            ("1.234", Some("1234")),
            ("1.234.567", Some("1234567")),
            ("12", Some("12")),
            ("1 234,56", Some("1234.56")),
            ("1\u{a0}234\u{202f}567", None),
            ("1\u{a0}234,56", Some("1234.56")),
            ("1\u{202f}234,56", Some("1234.56")),
            ("12.50", None),
            ("1234.567", None),
            ("1.23,45", None),
            ("1,234.56", None),
            ("1,2,3", None),
            ("1.,5", None),
            (".123,5", None),
            (",5", None),
            ("5,", None),
            ("", None),
            ("-", None),
            ("--1", None),
            ("ten", None),
            ("1e3", None),
            ("١٢", None),
        ] {
            assert_eq!(normalize_number(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn decimal_comma_rewrites_only_the_amount() {
        for (body, expected) in [
            (r#"{"a":"1.234,56","b":"1.234,56"}"#, Some(r#"{"a":"1234.56","b":"1.234,56"}"#)),
            (r#"{"b":"ü", "a" : " 1,5 " }"#, Some(r#"{"b":"ü", "a" : "1.5" }"#)),
            (r#"{"a":12.50}"#, Some(r#"{"a":12.50}"#)),
            (r#"{"a":""}"#, Some(r#"{"a":""}"#)),
            (r#"{"a":null}"#, Some(r#"{"a":null}"#)),
            (r#"{"b":1}"#, Some(r#"{"b":1}"#)),
            (r#"{"a":"12.50"}"#, None),
        ] {
            let read = parse_decimal_comma(&Bytes::from_static(body.as_bytes()), "/a");
            assert_eq!(read.ok().as_deref(), expected.map(str::as_bytes), "{body}");
        }
    }
}
