//! Looks documents up at a destination, for example by their number. A delivery
//! with an unknown result is looked up before it is sent again.

use serde_json::Value;

use super::{LookupResult, response::parse_remote_id};
use crate::net::{http_client::HttpResponse, url_template::UrlTemplate};

/// How a document is looked up and recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupRules {
    /// The URL of the look-up.
    pub url: UrlTemplate,
    /// JSON pointer to the destination's id of the document. In the first list
    /// on its path, the index stands for every element.
    pub id_pointer: String,
    /// JSON pointers of the same kind, and the fields of the document that the
    /// values must equal; otherwise it is another document.
    pub matches: Vec<(String, String)>,
}

impl LookupRules {
    /// Reads the response to a look-up. `NotFound` only if the response clearly
    /// says so, because the document is sent again then.
    ///
    /// # Errors
    /// Why the response is inconclusive.
    pub(super) fn evaluate(
        &self,
        response: &HttpResponse,
        document: &Value,
    ) -> Result<LookupResult, String> {
        let status = response.status.as_u16();
        match status {
            204 => return Ok(LookupResult::NotFound),
            404 | 410 if self.url.has_placeholder_in_path() => return Ok(LookupResult::NotFound),
            // A list exists even if it is empty: the URL is wrong.
            404 | 410 => return Err(format!("answered {status}: nothing is at lookup.url")),
            200..=299 => {}
            _ => return Err(format!("the look-up was answered {status}")),
        }
        if let Some(cause) = &response.truncated_by {
            return Err(format!("the look-up's response is incomplete: {cause}"));
        }
        let body: Value = serde_json::from_slice(&response.body)
            .map_err(|error| format!("the look-up's response is not JSON: {error}"))?;
        self.find_match(&body, document)
    }

    fn find_match(&self, body: &Value, document: &Value) -> Result<LookupResult, String> {
        let Some(list) = self.first_list(body)? else {
            let result = self.match_element("", "", body, document)?;
            return Ok(result.unwrap_or(LookupResult::NotFound));
        };
        for index in 0..list.length {
            let element = format!("{}/{index}", list.pointer);
            let result = self.match_element(&list.element_pointer, &element, body, document)?;
            if let Some(result) = result {
                return Ok(result);
            }
        }
        Ok(LookupResult::NotFound)
    }

    /// The first list on the path to the id. `null` and `{}` count as an empty
    /// list.
    fn first_list(&self, body: &Value) -> Result<Option<ListPosition>, String> {
        let mut value = body;
        let mut pointer = String::new();
        for part in self.id_pointer.split('/').skip(1) {
            let element_pointer = format!("{pointer}/{part}");
            let length = match value {
                Value::Array(elements) if part.bytes().all(|byte| byte.is_ascii_digit()) => {
                    Some(elements.len())
                }
                Value::Null => Some(0),
                Value::Object(members) if members.is_empty() => Some(0),
                _ => None,
            };
            if let Some(length) = length {
                return Ok(Some(ListPosition { pointer, element_pointer, length }));
            }
            // From the root, because `pointer` resolves the escapes.
            value = body.pointer(&element_pointer).ok_or_else(|| {
                format!("the look-up's response has nothing at {element_pointer}")
            })?;
            pointer = element_pointer;
        }
        Ok(None)
    }

    /// The result for one element if it is our document. `from` is the
    /// configured prefix of pointers into the list; `to` replaces it for this
    /// element.
    fn match_element(
        &self,
        from: &str,
        to: &str,
        body: &Value,
        document: &Value,
    ) -> Result<Option<LookupResult>, String> {
        let value_at = |pointer: &str| {
            let rest = pointer
                .strip_prefix(from)
                .filter(|rest| matches!(rest.as_bytes(), [] | [b'/', ..]));
            match rest {
                Some(rest) => body.pointer(&format!("{to}{rest}")),
                None => body.pointer(pointer),
            }
        };
        let is_equal = |(pointer, field): &(String, String)| {
            comparable_text(value_at(pointer)) == comparable_text(document.get(field))
        };
        if !self.matches.iter().all(is_equal) {
            return Ok(None);
        }
        match value_at(&self.id_pointer) {
            // An explicit null means that there is no document.
            Some(Value::Null) => Ok(None),
            Some(value) if parse_remote_id(value).is_some() => {
                Ok(Some(LookupResult::Found { remote_id: parse_remote_id(value) }))
            }
            _ => Err(format!("the look-up's response has no id at {}", self.id_pointer)),
        }
    }
}

/// A list in a response.
struct ListPosition {
    /// JSON pointer to the list.
    pointer: String,
    /// JSON pointer to an element of it, as configured.
    element_pointer: String,
    length: usize,
}

/// A value as text for comparison; none for null and for a missing value.
fn comparable_text(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests;
