//! `/imports/{source}`: uploads a file, each item of which becomes a message of its own; and
//! `/imports/{id}`: the status of an import.
//!
//! Files are streamed. The items that are parsed and not confirmed are bounded, so that a slow
//! broker slows the parser down, the parser the socket, and the socket the sender. An import runs
//! in a task of its own: if the client disconnects, everything that was read is still published.

mod body_pipe;
mod parser_thread;
mod status;
mod summary;
mod upload;

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, Request, Response, StatusCode, header},
};
use bytes::Bytes;
use time::OffsetDateTime;
use tokio::sync::OwnedSemaphorePermit;
use tracing::{Instrument as _, error, info_span};
use uuid::Uuid;

use self::{
    body_pipe::BodyInterrupted,
    parser_thread::ImportContext,
    summary::{ImportCounts, ImportSummary},
    upload::{Upload, UploadEnd},
};
use super::{
    Receiver, body,
    response::Problem,
    webhooks::{SourcePath, UNKNOWN_SOURCE_LABEL, rejection_problem, unknown_source},
};
use crate::{
    broker::{Confirmed, OutgoingMessage, PublishError},
    domain::{ImportFormat, RejectedRequest, SourceName},
    observability::metrics::GaugeGuard,
    sources::{Rejection, ResponseStyle, Source, WebhookRequest},
};
pub use status::ImportStatusReader;
pub(super) use status::{get_import, get_import_items};

/// The most uploads at once.
pub(super) const MAX_CONCURRENT_IMPORTS: usize = 4;

const MAX_FILE_NAME_BYTES: usize = 255;

/// How long the rest of a file is read before an early response. Otherwise a client that is still
/// sending would not see the response.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// `POST`: a file.
pub(super) async fn receive_import(
    State(receiver): State<Receiver>,
    path: SourcePath,
    request: Request<Body>,
) -> Response<Body> {
    let import_id = Uuid::now_v7();
    let _in_flight = GaugeGuard::increment(&receiver.metrics.http_requests_in_flight);
    let found = receiver.find_source(path);
    let label = found.map_or(UNKNOWN_SOURCE_LABEL, |(name, _)| name.as_str());
    let span = info_span!("import", %import_id, source = label);
    let response = async {
        match receiver.accept_import(found, import_id, request).await {
            Ok(response) => response,
            Err(problem) => {
                receiver.log_rejection(&problem);
                problem.to_response(ResponseStyle::ProblemJson, import_id)
            }
        }
    }
    .instrument(span)
    .await;
    // Without a duration: an upload takes as long as its sender does.
    let status = response.status();
    receiver.metrics.http_requests.with_label_values(&[label, status.as_str()]).inc();
    response
}

/// Any other method.
pub(super) async fn method_not_allowed() -> Response<Body> {
    let detail = "files are sent with POST to /imports/{source}; GET /imports/{id} has the status";
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed", detail);
    let problem = Problem { allow: Some("GET, POST"), ..problem };
    problem.to_response(ResponseStyle::ProblemJson, Uuid::now_v7())
}

impl Receiver {
    /// Accepts one file. The response is sent when every item that it counts is durable.
    async fn accept_import(
        &self,
        found: Option<(&SourceName, &Source)>,
        import_id: Uuid,
        request: Request<Body>,
    ) -> Result<Response<Body>, Problem> {
        let (parts, mut body) = request.into_parts();
        // Such a client has not begun to send the body.
        let expects_continue = parts.headers.contains_key(header::EXPECT);
        let Ok(request_permit) = Arc::clone(&self.request_permits).try_acquire_owned() else {
            return Err(self.unavailable("too many requests are in progress; send it again"));
        };
        let query = parts.uri.query().unwrap_or_default();
        let admitted = self.admit_import(found, import_id, &parts.headers, query).await;
        let (upload, import_permit) = match admitted {
            Ok(admitted) => admitted,
            Err(problem) => {
                if !expects_continue {
                    body::drain(&mut body, DRAIN_TIMEOUT).await;
                }
                return Err(problem);
            }
        };
        let source = upload.context.source.clone();
        // The handler is dropped with its connection; the task is not.
        let task = tokio::spawn(
            async move {
                let (counts, end) = upload.run(&mut body).await;
                // The client may still be sending.
                let is_body_read = matches!(
                    end,
                    UploadEnd::Complete
                        | UploadEnd::Interrupted(
                            BodyInterrupted::ConnectionLost(_) | BodyInterrupted::Idle
                        )
                );
                if !is_body_read {
                    body::drain(&mut body, DRAIN_TIMEOUT).await;
                }
                drop((request_permit, import_permit));
                (counts, end)
            }
            .in_current_span(),
        );
        match task.await {
            Ok((counts, end)) => self.upload_response(import_id, &source, &counts, end),
            Err(panic) => {
                error!(error = %panic, "import task panicked");
                Err(self.interrupted(&ImportCounts::default()))
            }
        }
    }

    /// Authenticates an upload and checks that it can be accepted now.
    async fn admit_import(
        &self,
        found: Option<(&SourceName, &Source)>,
        import_id: Uuid,
        headers: &HeaderMap,
        query: &str,
    ) -> Result<(Upload, OwnedSemaphorePermit), Problem> {
        let (name, source) = found.ok_or_else(unknown_source)?;
        if !source.accepts_imports() {
            let detail = "this source accepts no files; send its webhooks to /hooks/{source}";
            return Err(Problem::new(StatusCode::NOT_FOUND, "Not an import source", detail));
        }
        let started_at = OffsetDateTime::now_utc();
        let request =
            WebhookRequest { headers, query, body: &Bytes::new(), received_at: started_at };
        let secret_label = source.authenticate_upload(&request).map_err(|rejection| {
            if !rejection.is_authentic() {
                self.metrics.invalid_signatures.with_label_values(&[name.as_str()]).inc();
            }
            rejection_problem(&rejection)
        })?;
        self.record_secret_use(name, &secret_label, started_at);
        let format = match import_format(headers) {
            Ok(format) => format,
            Err(problem) => {
                // An authentic request is recorded before it is answered.
                let rejected = RejectedRequest {
                    receipt_id: import_id,
                    source: name.clone(),
                    tenant: String::new(),
                    received_at: started_at,
                    status: Some(problem.status.as_u16()),
                    error: problem.detail.clone(),
                    body: Bytes::new(),
                    import: None,
                    request_head: None,
                };
                let message = OutgoingMessage::rejected_request(&self.topology, &rejected);
                let _confirmed: Confirmed = self
                    .publisher
                    .publish(message)
                    .await
                    .map_err(|error| self.publish_failed(&error))?;
                return Err(problem);
            }
        };
        // Checked before the client sends the whole file.
        if let Some(reason) = self.publisher.degraded_reason() {
            return Err(self.publish_failed(&PublishError::NotConnected(reason.into())));
        }
        // After the authentication, so that only authenticated clients hold these permits.
        let Ok(import_permit) = Arc::clone(&self.import_permits).try_acquire_owned() else {
            return Err(self.unavailable("too many uploads are in progress; send it again"));
        };
        let context = ImportContext {
            import_id,
            source: name.clone(),
            format,
            secret_label,
            headers: headers.clone(),
            query: query.to_owned(),
            started_at,
        };
        let content_length = headers.get(header::CONTENT_LENGTH);
        let content_length = content_length.and_then(|value| value.to_str().ok()?.parse().ok());
        let file_name = file_name(headers, query);
        let upload = Upload { receiver: self.clone(), context, file_name, content_length };
        Ok((upload, import_permit))
    }

    /// The response to an upload that has ended.
    fn upload_response(
        &self,
        import_id: Uuid,
        source: &SourceName,
        counts: &ImportCounts,
        end: UploadEnd,
    ) -> Result<Response<Body>, Problem> {
        let malformed = |error: String| Err(rejection_problem(&Rejection::Malformed(error)));
        match end {
            UploadEnd::Complete => {
                Ok(ImportSummary::new(import_id, source, counts, None).response())
            }
            UploadEnd::Unreadable(error) if counts.items() > 0 => {
                let error = Some(error.to_string());
                Ok(ImportSummary::new(import_id, source, counts, error).response())
            }
            UploadEnd::Unreadable(error) => malformed(error.to_string()),
            UploadEnd::Interrupted(reason @ BodyInterrupted::ConnectionLost(_)) => {
                malformed(reason.to_string())
            }
            UploadEnd::Interrupted(reason @ BodyInterrupted::Idle) => {
                let detail = format!("{reason}; {}", progress_text(counts));
                Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "Request timeout", detail))
            }
            UploadEnd::Interrupted(BodyInterrupted::Stopping) | UploadEnd::Panicked => {
                Err(self.interrupted(counts))
            }
            UploadEnd::PublishFailed(error) => {
                self.publish_failed(&error);
                Err(self.interrupted(counts))
            }
        }
    }

    fn interrupted(&self, counts: &ImportCounts) -> Problem {
        self.unavailable(format!("the import was interrupted; {}", progress_text(counts)))
    }
}

fn progress_text(counts: &ImportCounts) -> String {
    let items = counts.items();
    format!("{items} items are stored: send the whole file again, nothing is added twice")
}

/// The format of a file, by its `Content-Type`.
fn import_format(headers: &HeaderMap) -> Result<ImportFormat, Problem> {
    let unsupported = |detail: String| {
        Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Unsupported media type", detail)
    };
    let text = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    if let Some(encoding) = text(header::CONTENT_ENCODING)
        && !encoding.trim().eq_ignore_ascii_case("identity")
    {
        return Err(unsupported("send the file without Content-Encoding".to_owned()));
    }
    let media_type = text(header::CONTENT_TYPE).unwrap_or_default();
    ImportFormat::from_media_type(&media_type).ok_or_else(|| {
        let media_type: String = media_type.chars().take(100).collect();
        unsupported(format!(
            "content type {media_type:?} is not supported here; send text/csv, \
             application/x-ndjson or application/json"
        ))
    })
}

/// The sender's name of the file: `?name=`, or the `Content-Disposition` header.
fn file_name(headers: &HeaderMap, query: &str) -> Option<String> {
    let in_query = form_urlencoded::parse(query.as_bytes())
        .find(|(key, _)| key == "name")
        .map(|(_, name)| name.into_owned());
    let in_header = || {
        let value = headers.get(header::CONTENT_DISPOSITION)?;
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        let (_, name) = value.split_once("filename=")?;
        Some(match name.strip_prefix('"') {
            Some(quoted) => quoted.split('"').next().unwrap_or_default().to_owned(),
            None => name.split(';').next().unwrap_or_default().to_owned(),
        })
    };
    let name = in_query.or_else(in_header)?;
    let name: String = name.chars().filter(|c| !c.is_control()).collect();
    let name = name[..name.floor_char_boundary(MAX_FILE_NAME_BYTES)].trim();
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(key, value)| (key.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn import_file_name_is_in_query_or_header() {
        for (pairs, query, expected) in [
            (&[][..], "", None),
            (&[], "name=may%20%C3%BC.csv", Some("may ü.csv")),
            (&[], "a=b&name=", None),
            (&[], "name=a%00b%0A.csv", Some("ab.csv")),
            (
                &[("content-disposition", "attachment; filename=\"a b.csv\"; x=y")],
                "",
                Some("a b.csv"),
            ),
            (&[("content-disposition", "attachment; filename=a.csv; x=y")], "", Some("a.csv")),
            (&[("content-disposition", "attachment; filename=a.csv")], "name=b", Some("b")),
            (&[("content-disposition", "inline")], "", None),
        ] {
            assert_eq!(file_name(&headers(pairs), query).as_deref(), expected, "{pairs:?} {query}");
        }
        let long = format!("name={}", "ü".repeat(200));
        assert_eq!(file_name(&HeaderMap::new(), &long).unwrap().len(), 254);
    }

    #[test]
    fn import_format_other_media_types_are_refused() {
        let format = |pairs| import_format(&headers(pairs)).map_err(|problem| problem.detail);
        assert_eq!(format(&[("content-type", "text/CSV; charset=utf-8")]), Ok(ImportFormat::Csv));
        let plain = [("content-type", "application/json"), ("content-encoding", "Identity")];
        assert_eq!(format(&plain), Ok(ImportFormat::Json));
        let packed = [("content-type", "text/csv"), ("content-encoding", "gzip")];
        assert!(format(&packed).unwrap_err().contains("Content-Encoding"));
        assert!(format(&[]).unwrap_err().contains("text/csv"));
        assert!(format(&[("content-type", "text/plain")]).unwrap_err().contains("text/plain"));
    }
}
