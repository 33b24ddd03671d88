//! Selectors: where a value of a request is found.

use http::HeaderName;
use serde::Deserialize;

use super::{
    WebhookRequest,
    json_fields::{JsonFields, is_json_pointer},
};

/// Where a value of a request is found: `/pointer`, `header:NAME` or `const:TEXT`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Selector {
    /// A JSON pointer into the body.
    Pointer(String),
    /// A header's name.
    Header(String),
    /// A constant.
    Constant(String),
}

impl TryFrom<String> for Selector {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if let Some(name) = text.strip_prefix("header:") {
            let name: HeaderName =
                name.parse().map_err(|_| format!("{name:?} is not a header name"))?;
            Ok(Self::Header(name.as_str().to_owned()))
        } else if let Some(constant) = text.strip_prefix("const:") {
            Ok(Self::Constant(constant.to_owned()))
        } else if is_json_pointer(&text) {
            Ok(Self::Pointer(text))
        } else {
            Err(format!("{text:?} is neither a JSON pointer (/id) nor header:NAME nor const:TEXT"))
        }
    }
}

/// Where a field's value is found: `/pointer` or `const:TEXT`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum FieldSource {
    /// A JSON pointer into the body.
    Pointer(String),
    /// A constant.
    Constant(String),
}

impl TryFrom<String> for FieldSource {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match Selector::try_from(text)? {
            Selector::Pointer(pointer) => Ok(Self::Pointer(pointer)),
            Selector::Constant(constant) => Ok(Self::Constant(constant)),
            Selector::Header(name) => Err(format!(
                "header:{name} cannot be used here: a field is a JSON pointer or const:TEXT"
            )),
        }
    }
}

impl FieldSource {
    /// The JSON pointer, if it is one.
    pub fn pointer(&self) -> Option<&str> {
        match self {
            Self::Pointer(pointer) => Some(pointer),
            Self::Constant(_) => None,
        }
    }

    /// The text of the selector, for error messages.
    pub fn label(&self) -> String {
        match self {
            Self::Pointer(pointer) => pointer.clone(),
            Self::Constant(constant) => format!("const:{constant}"),
        }
    }
}

/// Where a value is found that cannot be a constant: `/pointer`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct FieldPointer(String);

impl TryFrom<String> for FieldPointer {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if is_json_pointer(&text) {
            Ok(Self(text))
        } else {
            Err(format!("{text:?} is not a JSON pointer (/data/updated_at)"))
        }
    }
}

impl FieldPointer {
    /// A default pointer.
    pub(super) fn from_static(pointer: &'static str) -> Self {
        Self(pointer.to_owned())
    }

    /// The JSON pointer.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Selector {
    /// The JSON pointer, if it is one.
    pub fn pointer(&self) -> Option<&str> {
        match self {
            Self::Pointer(pointer) => Some(pointer),
            Self::Header(_) | Self::Constant(_) => None,
        }
    }

    /// The value in a request; `fields` is its body, if that is readable.
    pub fn select(
        &self,
        request: &WebhookRequest<'_>,
        fields: Option<&JsonFields<'_>>,
    ) -> Option<String> {
        match self {
            Self::Pointer(pointer) => fields?.text(pointer).ok().flatten(),
            Self::Header(name) => request.header(name).map(str::to_owned),
            Self::Constant(constant) => Some(constant.clone()),
        }
    }
}
