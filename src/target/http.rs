//! Targets that are told by HTTP calls.

use super::{About, Found, Report, Told};
use crate::domain::{Failure, Reason};

/// A target that hears of each delivery by a call.
#[derive(Debug)]
pub struct HttpTarget {}

impl HttpTarget {
    /// What is sent: the body of the request.
    ///
    /// # Errors
    /// The document does not fit the template; names `body` or the field.
    pub fn render(&self, _about: &About<'_>) -> Result<String, Failure> {
        Err(Failure::new(Reason::InvalidValue, "being built"))
    }

    /// Sends a request that was [rendered](Self::render) now or for an
    /// earlier attempt, under the delivery's key.
    pub async fn send(&self, _about: &About<'_>, _request: &str) -> Report {
        Report { told: Told::Unknown("being built".to_owned()), answer: None }
    }

    /// Whether it can be asked for a document.
    pub fn offers_look_up(&self) -> bool {
        false
    }

    /// Asks for the document of a delivery.
    ///
    /// # Errors
    /// What went wrong, or why the answer tells nothing.
    pub async fn look_up(&self, _about: &About<'_>) -> Result<Found, String> {
        Err("being built".to_owned())
    }
}
