//! The body of a request, made of the document by a template.

use http::HeaderValue;
use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, Output, State, UndefinedBehavior, Value,
    escape_formatter, filters,
    value::{Kwargs, Serde},
};
use serde::de::IgnoredAny;
use serde_json::Map;

use super::DeliveryPayload;
use crate::domain::PermanentFailure;

/// Steps that one rendering may take: an order of 10,000 lines needs fewer, a
/// loop without end is stopped within a moment.
const RENDER_FUEL: u64 = 1_000_000;

/// What an environment calls its only template.
const TEMPLATE_NAME: &str = "body";

/// How values are written into the body. Whatever the format, a value cannot
/// end where it stands and go on as something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyFormat {
    /// A value is written as JSON: texts with their quotes, null as `null`.
    Json,
    /// A value is written as text in which nothing is markup.
    Xml,
}

impl BodyFormat {
    /// Of a content type, if it is one that is known.
    fn from_content_type(content_type: &str) -> Option<Self> {
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        let essence = essence.to_ascii_lowercase();
        let (kind, subtype) = essence.split_once('/')?;
        let is = |name: &str| subtype == name || subtype.ends_with(&format!("+{name}"));
        match kind {
            "application" | "text" if is("json") => Some(Self::Json),
            "application" | "text" if is("xml") => Some(Self::Xml),
            _ => None,
        }
    }
}

/// A compiled template.
#[derive(Debug)]
pub struct BodyTemplate {
    environment: Environment<'static>,
    format: BodyFormat,
    /// The configuration's key, for messages.
    config_key: String,
    /// The names that it asks for and does not set itself.
    variables: Vec<String>,
}

impl BodyTemplate {
    /// Compiles the template that stands at this key of the configuration.
    ///
    /// # Errors
    /// A content type that values cannot be written into, a syntax error.
    pub fn compile(
        key: String,
        text: &str,
        content_type: &HeaderValue,
    ) -> Result<Self, PermanentFailure> {
        let invalid = |detail: String| PermanentFailure::invalid(key.as_str(), detail);
        let format = content_type
            .to_str()
            .ok()
            .and_then(BodyFormat::from_content_type)
            .ok_or_else(|| {
                invalid("only bodies of a JSON or an XML content type can be rendered".to_owned())
            })?;
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(RENDER_FUEL));
        environment.add_filter("tojson", to_json);
        environment.set_auto_escape_callback(move |_| match format {
            BodyFormat::Json => AutoEscape::Json,
            BodyFormat::Xml => AutoEscape::Html,
        });
        if format == BodyFormat::Xml {
            environment.set_formatter(reject_null);
        }
        environment
            .add_template_owned(TEMPLATE_NAME, text.to_owned())
            .map_err(|error| invalid(template_error(&error)))?;
        let template = environment
            .get_template(TEMPLATE_NAME)
            .map_err(|error| invalid(template_error(&error)))?;
        let globals: Vec<&str> = environment.globals().map(|(name, _)| name).collect();
        let mut names: Vec<String> = template
            .undeclared_variables(false)
            .into_iter()
            .filter(|name| !globals.contains(&name.as_str()))
            .collect();
        names.sort();
        Ok(Self { environment, format, config_key: key, variables: names })
    }

    /// The configuration's key of it.
    pub fn config_key(&self) -> &str {
        &self.config_key
    }

    /// The names that it asks for and does not set itself.
    pub fn variables(&self) -> &[String] {
        &self.variables
    }

    /// The body for a delivery.
    ///
    /// # Errors
    /// A field that is not there, or that the template cannot use; a result
    /// that is not of the content type. Names the configuration's key.
    pub fn render(&self, about: &DeliveryPayload<'_>) -> Result<String, PermanentFailure> {
        let invalid = |detail: String| PermanentFailure::invalid(self.config_key.as_str(), detail);
        let fields = template_fields(about);
        let rendered = self
            .environment
            .get_template(TEMPLATE_NAME)
            .and_then(|template| template.render(Serde(&fields)))
            .map_err(|error| invalid(self.describe_error(&error, &fields)))?;
        if self.format == BodyFormat::Json
            && let Err(error) = serde_json::from_str::<IgnoredAny>(&rendered)
        {
            return Err(invalid(format!(
                "what it renders is not JSON: {error}; a value needs no quotes around it"
            )));
        }
        if rendered.contains('\0') {
            return Err(invalid("what it renders holds a NUL, which cannot be kept".to_owned()));
        }
        Ok(rendered)
    }

    /// What went wrong, with the field that is not there: the engine does not
    /// name it.
    fn describe_error(&self, error: &Error, fields: &Map<String, serde_json::Value>) -> String {
        if error.kind() == ErrorKind::UndefinedError {
            let unknown = self.variables.iter().find(|name| !fields.contains_key(*name));
            if let Some(name) = unknown {
                return format!("there is no field {name}{}", line_suffix(error));
            }
        }
        template_error(error)
    }
}

/// What a template may name: the fields of the document, and what is known of
/// the delivery.
pub(super) fn template_fields(about: &DeliveryPayload<'_>) -> Map<String, serde_json::Value> {
    let mut fields = about.document.as_object().cloned().unwrap_or_default();
    for (name, value) in [
        ("event", about.event.into()),
        ("source", about.source.into()),
        ("tenant", about.tenant.into()),
        ("generation", about.issue.into()),
        ("idempotency_key", about.idempotency_key.to_string().into()),
    ] {
        fields.insert(name.to_owned(), value);
    }
    fields
}

/// The filter `tojson`, which makes `null` of what is there and null, and not
/// of what is not there at all.
fn to_json(value: &Value, indent: Option<Value>, args: Kwargs) -> Result<Value, Error> {
    if value.is_undefined() {
        return Err(ErrorKind::UndefinedError.into());
    }
    filters::tojson(value, indent, args)
}

/// Writes a value; a null is nothing that can be read as text.
fn reject_null(
    out: &mut Output<'_>,
    state: &mut State<'_, '_>,
    value: &Value,
) -> Result<(), Error> {
    if value.is_none() {
        let hint = "a field that is null cannot be written; give it a default or ask before";
        return Err(Error::new(ErrorKind::InvalidOperation, hint));
    }
    escape_formatter(out, state, value)
}

/// An error of the engine in words.
fn template_error(error: &Error) -> String {
    let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
    format!("{}{detail}{}", error.kind(), line_suffix(error))
}

fn line_suffix(error: &Error) -> String {
    error.line().map(|line| format!(" (line {line})")).unwrap_or_default()
}

#[cfg(test)]
mod tests;
