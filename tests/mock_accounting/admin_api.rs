//! The HTTP API: authentication, routing, and the response to each request.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};
use thiserror::Error;

use crate::{
    faults::{CannedResponse, Change, CreationFault, Faults},
    listener::ListenerControl,
    state::{Calls, CreateResult, Draft, State, WalEntry},
    wal::Wal,
};

/// The longest accepted body, in bytes.
const BODY_LIMIT: usize = 1024 * 1024;

type HttpResponse = Response<Full<Bytes>>;

/// The connection is closed without a response.
#[derive(Debug, Error)]
#[error("no response")]
pub(crate) struct NoResponse;

/// The mock server's shared and its bearer token.
#[derive(Debug)]
pub(crate) struct Api {
    token: String,
    shared: Mutex<Shared>,
}

#[derive(Debug)]
struct Shared {
    faults: Faults,
    wal: Wal,
    state: State,
    /// Idempotency keys of requests without a response so far.
    in_progress: HashSet<String>,
}

/// Marks an idempotency key as in progress until dropped.
struct InProgress {
    api: Arc<Api>,
    key: Option<String>,
}

impl Drop for InProgress {
    fn drop(&mut self) {
        if let Some(key) = &self.key {
            self.api.shared().in_progress.remove(key);
        }
    }
}

impl Shared {
    /// Appends to the log before the shared changes, so a sent response is always on disk.
    fn apply(&mut self, entry: WalEntry) -> Result<(), Box<HttpResponse>> {
        self.wal.append(&entry).map_err(|error| {
            let path = self.wal.path().display();
            Box::new(failure(StatusCode::INTERNAL_SERVER_ERROR, &format!("{path}: {error}")))
        })?;
        self.state.apply(entry);
        Ok(())
    }
}

impl Api {
    pub(crate) fn new(token: String, faults: Faults, wal: Wal, state: State) -> Self {
        let shared = Shared { faults, wal, state, in_progress: HashSet::new() };
        Self { token, shared: Mutex::new(shared) }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        // A panic elsewhere leaves nothing half written: the log comes first.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Handles one request; the error closes the connection without a response.
    pub(crate) async fn serve(
        self: Arc<Self>,
        request: Request<Incoming>,
        control: &ListenerControl,
    ) -> Result<HttpResponse, NoResponse> {
        let (head, body) = request.into_parts();
        if !self.is_authorized(&head.headers) {
            return Ok(failure(StatusCode::UNAUTHORIZED, "the bearer token is missing or wrong"));
        }
        let Ok(body) = Limited::new(body, BODY_LIMIT).collect().await else {
            return Ok(failure(StatusCode::PAYLOAD_TOO_LARGE, "the body cannot be read"));
        };
        let Ok(body) = String::from_utf8(body.to_bytes().into()) else {
            return Ok(failure(StatusCode::BAD_REQUEST, "the body is not UTF-8"));
        };
        let segments: Vec<&str> = head.uri.path().split('/').skip(1).collect();
        let query = head.uri.query().unwrap_or_default();
        let parameter = |name: &str| {
            form_urlencoded::parse(query.as_bytes())
                .find_map(|(key, value)| (key == name).then(|| value.into_owned()))
        };
        match (&head.method, segments.as_slice()) {
            (&Method::POST, ["invoices"]) => self.create(&head.headers, body).await,
            (method @ (&Method::GET | &Method::DELETE), ["invoices", rest @ ..]) => {
                if let Some(answer) = self.shared().faults.answer(method, &body) {
                    return Ok(canned(answer));
                }
                match (method, rest) {
                    (&Method::GET, []) => Ok(self.list(parameter("vendor"), parameter("number"))),
                    (&Method::GET, [id]) => Ok(self.show(id)),
                    (&Method::DELETE, [id]) => Ok(self.delete(id)),
                    _ => Ok(not_found()),
                }
            }
            (&Method::GET, ["calls"]) => Ok(self.calls(parameter("key").as_deref())),
            (&Method::POST, ["faults"]) => Ok(self.change_faults(&body, control).await),
            _ => Ok(not_found()),
        }
    }

    fn is_authorized(&self, headers: &HeaderMap) -> bool {
        let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        value.and_then(|value| value.strip_prefix("Bearer ")) == Some(&self.token)
    }

    async fn create(
        self: Arc<Self>,
        headers: &HeaderMap,
        body: String,
    ) -> Result<HttpResponse, NoResponse> {
        let key = match headers.get("idempotency-key").map(|key| key.to_str()) {
            None => None,
            Some(Ok(key)) if !key.is_empty() => Some(key.to_owned()),
            Some(_) => {
                let message = "Idempotency-Key is empty or not ASCII";
                return Ok(failure(StatusCode::BAD_REQUEST, message));
            }
        };
        match self.check_request(key, &body) {
            Err(reply) => Ok(*reply),
            Ok((draft, guard, fault)) => self.execute(body, draft, guard, fault).await,
        }
    }

    /// Validates a create request and picks the fault that applies to it.
    fn check_request(
        self: &Arc<Self>,
        key: Option<String>,
        body: &str,
    ) -> Result<(Draft, InProgress, CreationFault), Box<HttpResponse>> {
        let mut shared = self.shared();
        if let Some(key) = &key {
            shared.apply(WalEntry::Called { key: key.clone() })?;
        }
        if let Some(answer) = shared.faults.answer(&Method::POST, body) {
            return Err(Box::new(canned(answer)));
        }
        let draft = Draft::read(body)
            .map_err(|wrong| Box::new(failure(StatusCode::BAD_REQUEST, &wrong)))?;
        if key.as_ref().is_some_and(|key| shared.in_progress.contains(key)) {
            let message = "a request with this key is in progress";
            return Err(Box::new(failure(StatusCode::CONFLICT, message)));
        }
        let duplicates_pass = shared.faults.duplicates_pass();
        // CreateResult faults count only requests that would create an invoice.
        match shared.state.check_create(key.as_deref(), body, draft.clone(), duplicates_pass) {
            CreateResult::New { .. } => {}
            other => return Err(Box::new(existing(other))),
        }
        let fault = shared.faults.creation();
        shared.in_progress.extend(key.clone());
        Ok((draft, InProgress { api: Arc::clone(self), key }, fault))
    }

    async fn execute(
        self: Arc<Self>,
        body: String,
        draft: Draft,
        guard: InProgress,
        fault: CreationFault,
    ) -> Result<HttpResponse, NoResponse> {
        let Some(late) = fault.late else {
            let reply = self.create_now(&body, draft, guard.key.as_deref());
            return finish(reply, guard, fault.hang).await;
        };
        // A separate task: it continues after the client gave up.
        let work = tokio::spawn(async move {
            tokio::time::sleep(late).await;
            let reply = self.create_now(&body, draft, guard.key.as_deref());
            (reply, guard)
        });
        match work.await {
            Ok((reply, guard)) => finish(reply, guard, fault.hang).await,
            Err(_) => Err(NoResponse),
        }
    }

    /// Creates the invoice unless another request created it during the delay.
    fn create_now(&self, body: &str, draft: Draft, key: Option<&str>) -> HttpResponse {
        let mut shared = self.shared();
        let duplicates_pass = shared.faults.duplicates_pass();
        match shared.state.check_create(key, body, draft, duplicates_pass) {
            CreateResult::New { entry, answer } => match shared.apply(*entry) {
                Ok(()) => created(answer),
                Err(reply) => *reply,
            },
            other => existing(other),
        }
    }

    fn list(&self, vendor: Option<String>, number: Option<String>) -> HttpResponse {
        let shared = self.shared();
        let invoices = match (vendor, number) {
            (Some(vendor), Some(number)) => {
                json!(shared.state.find(&vendor, &number).collect::<Vec<_>>())
            }
            (None, None) => json!(shared.state.all().collect::<Vec<_>>()),
            _ => return failure(StatusCode::BAD_REQUEST, "vendor and number go together"),
        };
        reply(StatusCode::OK, json!({"invoices": invoices}).to_string())
    }

    fn show(&self, id: &str) -> HttpResponse {
        match self.shared().state.get(id) {
            Some(invoice) => reply(StatusCode::OK, json!(invoice).to_string()),
            None => not_found(),
        }
    }

    fn delete(&self, id: &str) -> HttpResponse {
        let mut shared = self.shared();
        if shared.state.get(id).is_none() {
            return not_found();
        }
        match shared.apply(WalEntry::Deleted { id: id.to_owned() }) {
            Ok(()) => empty(StatusCode::NO_CONTENT),
            Err(reply) => *reply,
        }
    }

    fn calls(&self, key: Option<&str>) -> HttpResponse {
        let shared = self.shared();
        let message = match key {
            Some(key) => json!(shared.state.calls().get(key).unwrap_or(&Calls::default())),
            None => json!(shared.state.calls()),
        };
        reply(StatusCode::OK, message.to_string())
    }

    async fn change_faults(&self, body: &str, control: &ListenerControl) -> HttpResponse {
        let change: Change = match serde_json::from_str(body) {
            Ok(change) => change,
            Err(error) => return failure(StatusCode::BAD_REQUEST, &error.to_string()),
        };
        let vanish = change.vanish.filter(|vanish| vanish.is_requested());
        self.shared().faults.change(change);
        let mut reply = empty(StatusCode::NO_CONTENT);
        if let Some(vanish) = vanish {
            control.vanish(vanish.pause()).await;
            // The listener is down: the client must not reuse this connection.
            reply
                .headers_mut()
                .insert(header::CONNECTION, header::HeaderValue::from_static("close"));
        }
        reply
    }
}

/// Sends the response, or keeps the client waiting and then closes the connection.
async fn finish(
    reply: HttpResponse,
    guard: InProgress,
    hang: Option<Duration>,
) -> Result<HttpResponse, NoResponse> {
    let Some(hang) = hang else {
        drop(guard);
        return Ok(reply);
    };
    tokio::time::sleep(hang).await;
    drop(guard);
    Err(NoResponse)
}

/// The response to a request that creates nothing.
fn existing(creation: CreateResult) -> HttpResponse {
    match creation {
        CreateResult::New { answer, .. } | CreateResult::Replay(answer) => created(answer),
        CreateResult::KeyReused => {
            failure(StatusCode::UNPROCESSABLE_ENTITY, "this key was used with another body")
        }
        CreateResult::AlreadyExists(id) => reply(
            StatusCode::CONFLICT,
            json!({"error": "invoice already exists", "id": id}).to_string(),
        ),
    }
}

fn created(answer: String) -> HttpResponse {
    reply(StatusCode::CREATED, answer)
}

fn canned(CannedResponse { status, retry_after, body, .. }: CannedResponse) -> HttpResponse {
    let body = match body {
        None => json!({"error": "configured fault"}).to_string(),
        Some(Value::String(text)) => text,
        Some(other) => other.to_string(),
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut reply = reply(status, body);
    if let Some(seconds) = retry_after {
        reply.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    reply
}

fn not_found() -> HttpResponse {
    failure(StatusCode::NOT_FOUND, "not found")
}

fn failure(status: StatusCode, error: &str) -> HttpResponse {
    reply(status, json!({"error": error}).to_string())
}

fn reply(status: StatusCode, body: String) -> HttpResponse {
    let mut reply = empty(status);
    let json = header::HeaderValue::from_static("application/json");
    reply.headers_mut().insert(header::CONTENT_TYPE, json);
    *reply.body_mut() = Full::from(body);
    reply
}

fn empty(status: StatusCode) -> HttpResponse {
    let mut reply = HttpResponse::default();
    *reply.status_mut() = status;
    reply
}
