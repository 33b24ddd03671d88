//! `/imports/{source}`: a file of invoices in one call, each item a message of
//! its own; and `/imports/{id}`: what became of it.
//!
//! A file is streamed. What was read and is not confirmed yet is bounded, so
//! that a slow broker slows the reader down, the reader the socket, and the
//! socket the sender. An import goes on in a task of its own: a client that
//! goes away takes nothing along of what was read.

mod inlet;
mod intake;
mod progress;
mod reading;
mod report;

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
    Receiver,
    answer::Problem,
    body,
    hooks::{Name, UNKNOWN, refuse, unknown_source},
};
use crate::{
    adapter::{Adapter, Answers, Call, Rejection},
    broker::{Confirmed, Outgoing, PublishError},
    domain::{ImportFormat, RefusedCall, SourceName},
    metrics::InFlight,
};
use inlet::Cut;
use intake::{End, Intake};
pub(super) use progress::{items, show};
use reading::Origin;
use report::{Report, Tally};

/// Files that may come in at once.
pub(super) const FILES: usize = 4;

/// The longest name of a file, in bytes.
const LONGEST_NAME: usize = 255;

/// How much of the rest of a file may come before the answer. A client that is
/// still sending would otherwise never see it.
const DRAIN: Duration = Duration::from_secs(5);

/// `POST`: a file.
pub(super) async fn take(
    State(receiver): State<Receiver>,
    name: Name,
    request: Request<Body>,
) -> Response<Body> {
    let import_id = Uuid::now_v7();
    let _in_flight = InFlight::begin(&receiver.metrics.requests_in_flight);
    let found = receiver.find(name);
    let label = found.map_or(UNKNOWN, |(source, _)| source.as_str());
    let span = info_span!("import", %import_id, source = label);
    let answer = async {
        match receiver.import(found, import_id, request).await {
            Ok(answer) => answer,
            Err(problem) => {
                if receiver.loud.speak() {
                    info!(status = problem.status.as_u16(), error = problem.detail, "refused");
                } else {
                    debug!(status = problem.status.as_u16(), error = problem.detail, "refused");
                }
                problem.answer(Answers::Problems, import_id)
            }
        }
    }
    .instrument(span)
    .await;
    // Not among the seconds to an acknowledgement: a file takes as long as
    // its sender does.
    receiver.metrics.receipts.with_label_values(&[label, answer.status().as_str()]).inc();
    answer
}

/// Any other method.
pub(super) async fn wrong_method() -> Response<Body> {
    let detail = "files are sent with POST to /imports/{source}, and asked after with GET";
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "Wrong method", detail);
    Problem { allow: Some("GET, POST"), ..problem }.answer(Answers::Problems, Uuid::now_v7())
}

impl Receiver {
    /// Takes one file in. The answer is given when all that it tells is
    /// durable.
    async fn import(
        &self,
        found: Option<(&SourceName, &Adapter)>,
        import_id: Uuid,
        request: Request<Body>,
    ) -> Result<Response<Body>, Problem> {
        let (parts, mut body) = request.into_parts();
        // Whoever asks before sending is spared the sending.
        let asks = parts.headers.contains_key(header::EXPECT);
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return Err(self.not_now("too many calls are under way; send it again"));
        };
        let query = parts.uri.query().unwrap_or_default();
        let admitted = self.admit(found, import_id, &parts.headers, query).await;
        let (intake, turn) = match admitted {
            Ok(admitted) => admitted,
            Err(problem) => {
                if !asks {
                    body::drain(&mut body, DRAIN).await;
                }
                return Err(problem);
            }
        };
        let source = intake.origin.source.clone();
        // Dropped with its connection, this handler leaves the task to itself.
        let task = tokio::spawn(
            async move {
                let (tally, end) = intake.run(&mut body).await;
                // The client may still send what nobody reads.
                if !matches!(end, End::Whole | End::Cut(Cut::Broke(_) | Cut::Idle)) {
                    body::drain(&mut body, DRAIN).await;
                }
                drop((place, turn));
                (tally, end)
            }
            .in_current_span(),
        );
        match task.await {
            Ok((tally, end)) => self.concluded(import_id, &source, &tally, end),
            Err(panic) => {
                error!(error = %panic, "an import panicked");
                Err(self.broken_off(&Tally::default()))
            }
        }
    }

    /// Lets a file in, or says why not.
    async fn admit(
        &self,
        found: Option<(&SourceName, &Adapter)>,
        import_id: Uuid,
        headers: &HeaderMap,
        query: &str,
    ) -> Result<(Intake, tokio::sync::OwnedSemaphorePermit), Problem> {
        let (source, adapter) = found.ok_or_else(unknown_source)?;
        if !adapter.takes_imports() {
            let detail = "this source takes no files; its webhooks are taken at /hooks/{source}";
            return Err(Problem::new(StatusCode::NOT_FOUND, "No imports here", detail));
        }
        let begun_at = OffsetDateTime::now_utc();
        let call = Call { headers, query, body: &Bytes::new(), received_at: begun_at };
        let secret = adapter.admit(&call).map_err(|rejection| {
            if !rejection.is_authentic() {
                self.metrics.forged.with_label_values(&[source.as_str()]).inc();
            }
            refuse(&rejection)
        })?;
        self.note_secret(source, &secret, begun_at);
        let format = match readable(headers) {
            Ok(format) => format,
            Err(problem) => {
                // Authentic: on record before it is answered.
                let refused = RefusedCall {
                    receipt_id: import_id,
                    source: source.clone(),
                    tenant: String::new(),
                    received_at: begun_at,
                    status: Some(problem.status.as_u16()),
                    error: problem.detail.clone(),
                    body: Bytes::new(),
                    import: None,
                    head: None,
                };
                let message = Outgoing::call(&self.topology, &refused);
                let _durable: Confirmed = self
                    .publisher
                    .publish(message)
                    .await
                    .map_err(|error| self.not_durable(&error))?;
                return Err(problem);
            }
        };
        // Rather than have all of it sent for nothing.
        if let Some(trouble) = self.publisher.trouble() {
            return Err(self.not_durable(&PublishError::Away(trouble.into())));
        }
        // Strangers take none of these.
        let Ok(turn) = Arc::clone(&self.files).try_acquire_owned() else {
            return Err(self.not_now("too many files come in at once; send it again"));
        };
        let origin = Origin {
            import_id,
            source: source.clone(),
            format,
            secret,
            headers: headers.clone(),
            query: query.to_owned(),
            begun_at,
        };
        let length = headers.get(header::CONTENT_LENGTH);
        let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
        Ok((
            Intake { receiver: self.clone(), origin, name: file_name(headers, query), length },
            turn,
        ))
    }

    /// The answer to a file that was read, as far as it could be.
    fn concluded(
        &self,
        import_id: Uuid,
        source: &SourceName,
        tally: &Tally,
        end: End,
    ) -> Result<Response<Body>, Problem> {
        match end {
            End::Whole => Ok(Report::new(import_id, source, tally, None).answer()),
            End::Broken(broken) if tally.items() > 0 => {
                Ok(Report::new(import_id, source, tally, Some(broken.to_string())).answer())
            }
            End::Broken(broken) => Err(refuse(&Rejection::Unreadable(broken.to_string()))),
            End::Cut(cut @ Cut::Broke(_)) => Err(refuse(&Rejection::Unreadable(cut.told()))),
            End::Cut(cut @ Cut::Idle) => {
                let detail = format!("{}; {}", cut.told(), stands(tally));
                Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "Too slow", detail))
            }
            End::Cut(Cut::Stopping) | End::Panicked => Err(self.broken_off(tally)),
            End::Broker(error) => {
                self.not_durable(&error);
                Err(self.broken_off(tally))
            }
        }
    }

    fn broken_off(&self, tally: &Tally) -> Problem {
        self.not_now(format!("the file could not be taken whole; {}", stands(tally)))
    }
}

fn stands(tally: &Tally) -> String {
    let items = tally.items();
    format!("{items} items are in: send the whole file again, nothing is added twice")
}

/// How the file is to be read.
fn readable(headers: &HeaderMap) -> Result<ImportFormat, Problem> {
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
    let name = clean[..clean.floor_char_boundary(LONGEST_NAME)].trim();
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
        let format = |pairs| readable(&headers(pairs)).map_err(|problem| problem.detail);
        assert_eq!(format(&[("content-type", "text/CSV; charset=utf-8")]), Ok(ImportFormat::Csv));
        let plain = [("content-type", "application/json"), ("content-encoding", "Identity")];
        assert_eq!(format(&plain), Ok(ImportFormat::Json));
        let packed = [("content-type", "text/csv"), ("content-encoding", "gzip")];
        assert!(format(&packed).unwrap_err().contains("Content-Encoding"));
        assert!(format(&[]).unwrap_err().contains("text/csv"));
        assert!(format(&[("content-type", "text/plain")]).unwrap_err().contains("text/plain"));
    }
}
