//! `/imports/{source}`: a file of invoices in one call, each item a message of
//! its own; and `/imports/{id}`: what became of it.
//!
//! A file is streamed. What was read and is not confirmed yet is bounded, so
//! that a slow broker slows the reader down, the reader the socket, and the
//! socket the sender. An import goes on in a task of its own: a client that
//! goes away takes nothing along of what was read.

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
use tracing::{Instrument as _, debug, error, info, info_span};
use uuid::Uuid;

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
use body_pipe::BodyInterrupted;
use parser_thread::ImportContext;
pub(super) use status::{get_import, get_import_items};
use summary::{ImportCounts, ImportSummary};
use upload::{Upload, UploadEnd};

/// Files that may come in at once.
pub(super) const MAX_CONCURRENT_IMPORTS: usize = 4;

/// The longest name of a file, in bytes.
const MAX_FILE_NAME_BYTES: usize = 255;

/// How much of the rest of a file may come before the answer. A client that is
/// still sending would otherwise never see it.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// `POST`: a file.
pub(super) async fn receive_import(
    State(receiver): State<Receiver>,
    name: SourcePath,
    request: Request<Body>,
) -> Response<Body> {
    let import_id = Uuid::now_v7();
    let _in_flight = GaugeGuard::increment(&receiver.metrics.http_requests_in_flight);
    let found = receiver.find_source(name);
    let label = found.map_or(UNKNOWN_SOURCE_LABEL, |(source, _)| source.as_str());
    let span = info_span!("import", %import_id, source = label);
    let answer = async {
        match receiver.accept_import(found, import_id, request).await {
            Ok(answer) => answer,
            Err(problem) => {
                if receiver.log_limiter.allow() {
                    info!(status = problem.status.as_u16(), error = problem.detail, "refused");
                } else {
                    debug!(status = problem.status.as_u16(), error = problem.detail, "refused");
                }
                problem.to_response(ResponseStyle::ProblemJson, import_id)
            }
        }
    }
    .instrument(span)
    .await;
    // Not among the seconds to an acknowledgement: a file takes as long as
    // its sender does.
    receiver.metrics.http_requests.with_label_values(&[label, answer.status().as_str()]).inc();
    answer
}

/// Any other method.
pub(super) async fn method_not_allowed() -> Response<Body> {
    let detail = "files are sent with POST to /imports/{source}, and asked after with GET";
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "Wrong method", detail);
    Problem { allow: Some("GET, POST"), ..problem }
        .to_response(ResponseStyle::ProblemJson, Uuid::now_v7())
}

impl Receiver {
    /// Takes one file in. The answer is given when all that it tells is
    /// durable.
    async fn accept_import(
        &self,
        found: Option<(&SourceName, &Source)>,
        import_id: Uuid,
        request: Request<Body>,
    ) -> Result<Response<Body>, Problem> {
        let (parts, mut body) = request.into_parts();
        // Whoever asks before sending is spared the sending.
        let asks = parts.headers.contains_key(header::EXPECT);
        let Ok(place) = Arc::clone(&self.request_permits).try_acquire_owned() else {
            return Err(self.unavailable("too many calls are under way; send it again"));
        };
        let query = parts.uri.query().unwrap_or_default();
        let admitted = self.admit_import(found, import_id, &parts.headers, query).await;
        let (intake, turn) = match admitted {
            Ok(admitted) => admitted,
            Err(problem) => {
                if !asks {
                    body::drain(&mut body, DRAIN_TIMEOUT).await;
                }
                return Err(problem);
            }
        };
        let source = intake.context.source.clone();
        // Dropped with its connection, this handler leaves the task to itself.
        let task = tokio::spawn(
            async move {
                let (tally, end) = intake.run(&mut body).await;
                // The client may still send what nobody reads.
                if !matches!(
                    end,
                    UploadEnd::Complete
                        | UploadEnd::Interrupted(
                            BodyInterrupted::ConnectionLost(_) | BodyInterrupted::Idle
                        )
                ) {
                    body::drain(&mut body, DRAIN_TIMEOUT).await;
                }
                drop((place, turn));
                (tally, end)
            }
            .in_current_span(),
        );
        match task.await {
            Ok((tally, end)) => self.upload_response(import_id, &source, &tally, end),
            Err(panic) => {
                error!(error = %panic, "an import panicked");
                Err(self.interrupted(&ImportCounts::default()))
            }
        }
    }

    /// Lets a file in, or says why not.
    async fn admit_import(
        &self,
        found: Option<(&SourceName, &Source)>,
        import_id: Uuid,
        headers: &HeaderMap,
        query: &str,
    ) -> Result<(Upload, tokio::sync::OwnedSemaphorePermit), Problem> {
        let (source, adapter) = found.ok_or_else(unknown_source)?;
        if !adapter.accepts_imports() {
            let detail = "this source takes no files; its webhooks are taken at /hooks/{source}";
            return Err(Problem::new(StatusCode::NOT_FOUND, "No imports here", detail));
        }
        let started_at = OffsetDateTime::now_utc();
        let call = WebhookRequest { headers, query, body: &Bytes::new(), received_at: started_at };
        let secret = adapter.authenticate_upload(&call).map_err(|rejection| {
            if !rejection.is_authentic() {
                self.metrics.invalid_signatures.with_label_values(&[source.as_str()]).inc();
            }
            rejection_problem(&rejection)
        })?;
        self.record_secret_use(source, &secret, started_at);
        let format = match import_format(headers) {
            Ok(format) => format,
            Err(problem) => {
                // Authentic: on record before it is answered.
                let refused = RejectedRequest {
                    receipt_id: import_id,
                    source: source.clone(),
                    tenant: String::new(),
                    received_at: started_at,
                    status: Some(problem.status.as_u16()),
                    error: problem.detail.clone(),
                    body: Bytes::new(),
                    import: None,
                    request_head: None,
                };
                let message = OutgoingMessage::rejected_request(&self.topology, &refused);
                let _durable: Confirmed = self
                    .publisher
                    .publish(message)
                    .await
                    .map_err(|error| self.publish_failed(&error))?;
                return Err(problem);
            }
        };
        // Rather than have all of it sent for nothing.
        if let Some(trouble) = self.publisher.degraded_reason() {
            return Err(self.publish_failed(&PublishError::NotConnected(trouble.into())));
        }
        // Strangers take none of these.
        let Ok(turn) = Arc::clone(&self.import_permits).try_acquire_owned() else {
            return Err(self.unavailable("too many files come in at once; send it again"));
        };
        let origin = ImportContext {
            import_id,
            source: source.clone(),
            format,
            secret,
            headers: headers.clone(),
            query: query.to_owned(),
            started_at: started_at,
        };
        let length = headers.get(header::CONTENT_LENGTH);
        let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
        Ok((
            Upload {
                receiver: self.clone(),
                context: origin,
                file_name: file_name(headers, query),
                content_length: length,
            },
            turn,
        ))
    }

    /// The answer to a file that was read, as far as it could be.
    fn upload_response(
        &self,
        import_id: Uuid,
        source: &SourceName,
        tally: &ImportCounts,
        end: UploadEnd,
    ) -> Result<Response<Body>, Problem> {
        match end {
            UploadEnd::Complete => {
                Ok(ImportSummary::new(import_id, source, tally, None).response())
            }
            UploadEnd::Unreadable(broken) if tally.items() > 0 => {
                Ok(ImportSummary::new(import_id, source, tally, Some(broken.to_string()))
                    .response())
            }
            UploadEnd::Unreadable(broken) => {
                Err(rejection_problem(&Rejection::Malformed(broken.to_string())))
            }
            UploadEnd::Interrupted(cut @ BodyInterrupted::ConnectionLost(_)) => {
                Err(rejection_problem(&Rejection::Malformed(cut.message())))
            }
            UploadEnd::Interrupted(cut @ BodyInterrupted::Idle) => {
                let detail = format!("{}; {}", cut.message(), progress_text(tally));
                Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "Too slow", detail))
            }
            UploadEnd::Interrupted(BodyInterrupted::Stopping) | UploadEnd::Panicked => {
                Err(self.interrupted(tally))
            }
            UploadEnd::PublishFailed(error) => {
                self.publish_failed(&error);
                Err(self.interrupted(tally))
            }
        }
    }

    fn interrupted(&self, tally: &ImportCounts) -> Problem {
        self.unavailable(format!("the file could not be taken whole; {}", progress_text(tally)))
    }
}

fn progress_text(tally: &ImportCounts) -> String {
    let items = tally.items();
    format!("{items} items are in: send the whole file again, nothing is added twice")
}

/// How the file is to be read.
fn import_format(headers: &HeaderMap) -> Result<ImportFormat, Problem> {
    let refused = |detail: String| {
        Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Content type refused", detail)
    };
    let text = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    if let Some(encoding) = text(header::CONTENT_ENCODING)
        && !encoding.trim().eq_ignore_ascii_case("identity")
    {
        return Err(refused("send the file as it is, without Content-Encoding".to_owned()));
    }
    let media_type = text(header::CONTENT_TYPE).unwrap_or_default();
    ImportFormat::from_media_type(&media_type).ok_or_else(|| {
        let told: String = media_type.chars().take(100).collect();
        refused(format!(
            "content type {told:?} is not taken here; send text/csv, application/x-ndjson or \
             application/json"
        ))
    })
}

/// What the sender calls the file: `?name=`, else as a browser tells it.
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
    let clean: String = name.chars().filter(|c| !c.is_control()).collect();
    let name = clean[..clean.floor_char_boundary(MAX_FILE_NAME_BYTES)].trim();
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(key, value)| (key.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_file_is_named_by_the_query_or_as_a_browser_does() {
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
    fn only_plain_files_of_a_known_type_are_read() {
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
