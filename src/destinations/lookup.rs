//! Asking a target whether it has a document: by its number, say. What is in
//! doubt is looked up before it is sent again.

use serde_json::Value;

use super::{LookupResult, response::parse_remote_id};
use crate::net::{http_client, url_template::UrlTemplate};

/// How a target is asked for a document, and where its answer tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupRules {
    /// Where it is asked.
    pub url: UrlTemplate,
    /// The JSON pointer to the target's own id. Through the first list that
    /// it leads into, an index stands for each of the elements.
    pub id_pointer: String,
    /// JSON pointers, in the same way, and the fields of the document that
    /// must stand there: else what was found is not ours.
    pub matches: Vec<(String, String)>,
}

impl LookupRules {
    /// What an answer says about this document. Only what was clearly said is
    /// taken for "nowhere": the document is sent again then.
    ///
    /// # Errors
    /// Why the answer says neither.
    pub(super) fn evaluate(
        &self,
        answer: &http_client::HttpResponse,
        document: &Value,
    ) -> Result<LookupResult, String> {
        let status = answer.status.as_u16();
        match status {
            204 => return Ok(LookupResult::NotFound),
            404 | 410 if self.url.has_placeholder_in_path() => return Ok(LookupResult::NotFound),
            // A list is somewhere, even if nothing is on it.
            404 | 410 => return Err(format!("answered {status}: nothing is at lookup.url at all")),
            200..=299 => {}
            _ => return Err(format!("the look-up was answered {status}")),
        }
        if let Some(cause) = &answer.truncated_by {
            return Err(format!("of the look-up's answer: {cause}"));
        }
        let body: Value = serde_json::from_slice(&answer.body)
            .map_err(|error| format!("the look-up's answer is not JSON: {error}"))?;
        self.find_match(&body, document)
    }

    fn find_match(&self, body: &Value, document: &Value) -> Result<LookupResult, String> {
        let Some((list, elements)) = self.first_list(body)? else {
            return self
                .match_element("", "", body, document)
                .map(|found| found.unwrap_or(LookupResult::NotFound));
        };
        for index in 0..elements {
            let found = self.match_element(
                &list.element_pointer,
                &format!("{}/{index}", list.list_pointer),
                body,
                document,
            )?;
            if let Some(found) = found {
                return Ok(found);
            }
        }
        Ok(LookupResult::NotFound)
    }

    /// The first list on the way to the id, and how long it is; or what stands
    /// in the way.
    fn first_list(&self, body: &Value) -> Result<Option<(ListPosition, usize)>, String> {
        let mut at = body;
        let mut before = String::new();
        for part in self.id_pointer.split('/').skip(1) {
            let pointer = format!("{before}/{part}");
            match at {
                Value::Array(elements) if part.bytes().all(|byte| byte.is_ascii_digit()) => {
                    return Ok(Some((
                        ListPosition { list_pointer: before, element_pointer: pointer },
                        elements.len(),
                    )));
                }
                // Nothing is a list with nothing in it, too.
                Value::Null => {
                    return Ok(Some((
                        ListPosition { list_pointer: before, element_pointer: pointer },
                        0,
                    )));
                }
                Value::Object(members) if members.is_empty() => {
                    return Ok(Some((
                        ListPosition { list_pointer: before, element_pointer: pointer },
                        0,
                    )));
                }
                _ => {}
            }
            // By the pointer from above: its escapes are read there.
            at = body
                .pointer(&pointer)
                .ok_or_else(|| format!("the look-up's answer has nothing at {pointer}"))?;
            before = pointer;
        }
        Ok(None)
    }

    /// One element, if it is ours. `from` is what a pointer through the list
    /// begins with, `to` what it begins with for this element.
    fn match_element(
        &self,
        from: &str,
        to: &str,
        body: &Value,
        document: &Value,
    ) -> Result<Option<LookupResult>, String> {
        let at = |pointer: &str| {
            let rest = pointer
                .strip_prefix(from)
                .filter(|rest| matches!(rest.as_bytes(), [] | [b'/', ..]));
            match rest {
                Some(rest) => body.pointer(&format!("{to}{rest}")),
                None => body.pointer(pointer),
            }
        };
        let same = |(pointer, field): &(String, String)| {
            comparable_text(at(pointer)) == comparable_text(document.get(field))
        };
        if !self.matches.iter().all(same) {
            return Ok(None);
        }
        match at(&self.id_pointer) {
            // It is told to be nothing.
            Some(Value::Null) => Ok(None),
            Some(value) if parse_remote_id(value).is_some() => {
                Ok(Some(LookupResult::Found { remote_id: parse_remote_id(value) }))
            }
            _ => Err(format!("the look-up's answer has no id at {}", self.id_pointer)),
        }
    }
}

/// A list in an answer.
struct ListPosition {
    /// The pointer to it.
    list_pointer: String,
    /// The pointer to an element of it, as it is configured.
    element_pointer: String,
}

/// A value as text, to be compared; nothing for null and for what is not there.
fn comparable_text(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests;
