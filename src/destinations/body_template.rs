//! Templates of request bodies, rendered from the document.

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

/// Steps of one rendering. An order of 10,000 lines needs fewer; an endless loop
/// is stopped quickly.
const RENDER_FUEL: u64 = 1_000_000;

/// The name of the environment's only template.
const TEMPLATE_NAME: &str = "body";

/// How values are escaped in the body: a value can never become markup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyFormat {
    /// Values are written as JSON: texts with quotes, null as `null`.
    Json,
    /// Values are written as escaped text.
    Xml,
}

impl BodyFormat {
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
    /// The configuration's key, for error messages.
    config_key: String,
    /// The variables that the template uses and does not set itself.
    variables: Vec<String>,
}

impl BodyTemplate {
    /// Compiles the template at this key of the configuration.
    ///
    /// # Errors
    /// The content type is neither JSON nor XML, or the syntax is wrong.
    pub fn compile(
        config_key: String,
        text: &str,
        content_type: &HeaderValue,
    ) -> Result<Self, PermanentFailure> {
        let invalid = |detail: String| PermanentFailure::invalid(config_key.as_str(), detail);
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
        let mut variables: Vec<String> = template
            .undeclared_variables(false)
            .into_iter()
            .filter(|name| !globals.contains(&name.as_str()))
            .collect();
        variables.sort();
        Ok(Self { environment, format, config_key, variables })
    }

    /// The configuration's key, for error messages.
    pub fn config_key(&self) -> &str {
        &self.config_key
    }

    /// The variables that the template uses and does not set itself.
    pub fn variables(&self) -> &[String] {
        &self.variables
    }

    /// Renders the body for a delivery.
    ///
    /// # Errors
    /// A field is missing or unusable, or the result does not match the content
    /// type. Names the configuration's key.
    pub fn render(&self, payload: &DeliveryPayload<'_>) -> Result<String, PermanentFailure> {
        let invalid = |detail: String| PermanentFailure::invalid(self.config_key.as_str(), detail);
        let fields = template_fields(payload);
        let rendered = self
            .environment
            .get_template(TEMPLATE_NAME)
            .and_then(|template| template.render(Serde(&fields)))
            .map_err(|error| invalid(self.describe_error(&error, &fields)))?;
        if self.format == BodyFormat::Json
            && let Err(error) = serde_json::from_str::<IgnoredAny>(&rendered)
        {
            return Err(invalid(format!(
                "the rendered body is not JSON: {error}; values need no quotes around them"
            )));
        }
        if rendered.contains('\0') {
            return Err(invalid(
                "the rendered body contains a NUL character, which cannot be stored".to_owned(),
            ));
        }
        Ok(rendered)
    }

    /// The error, with the name of a missing field, which minijinja leaves out.
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

/// The variables of a template: the document's fields and the delivery's.
pub(super) fn template_fields(payload: &DeliveryPayload<'_>) -> Map<String, serde_json::Value> {
    let mut fields = payload.document.as_object().cloned().unwrap_or_default();
    for (name, value) in [
        ("event", payload.event.into()),
        ("source", payload.source.into()),
        ("tenant", payload.tenant.into()),
        ("issue", payload.issue.into()),
        ("idempotency_key", payload.idempotency_key.to_string().into()),
    ] {
        fields.insert(name.to_owned(), value);
    }
    fields
}

/// The filter `tojson`. Unlike minijinja's, it fails on a missing field.
fn to_json(value: &Value, indent: Option<Value>, args: Kwargs) -> Result<Value, Error> {
    if value.is_undefined() {
        return Err(ErrorKind::UndefinedError.into());
    }
    filters::tojson(value, indent, args)
}

/// Writes a value into XML; null has no text form.
fn reject_null(
    out: &mut Output<'_>,
    state: &mut State<'_, '_>,
    value: &Value,
) -> Result<(), Error> {
    if value.is_none() {
        let hint = "a null field cannot be written; use default() or an if";
        return Err(Error::new(ErrorKind::InvalidOperation, hint));
    }
    escape_formatter(out, state, value)
}

/// A template error with its line.
fn template_error(error: &Error) -> String {
    let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
    format!("{}{detail}{}", error.kind(), line_suffix(error))
}

fn line_suffix(error: &Error) -> String {
    error.line().map(|line| format!(" (line {line})")).unwrap_or_default()
}

#[cfg(test)]
mod tests;
