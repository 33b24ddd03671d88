//! The API: who may call, what is asked, and what is answered.

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
    books::{Books, Calls, Creation, Draft, Entry},
    door::Latch,
    faults::{Answer, Change, Fate, Faults},
    journal::Journal,
};

/// Nobody's invoice is longer.
const BODY_LIMIT: usize = 1024 * 1024;

/// What is answered.
type Reply = Response<Full<Bytes>>;

/// The connection is to be cut without an answer.
#[derive(Debug, Error)]
#[error("no answer is given")]
pub(crate) struct NoAnswer;

/// The system behind the door.
#[derive(Debug)]
pub(crate) struct Desk {
    token: String,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    faults: Faults,
    journal: Journal,
    books: Books,
    /// The keys whose calls are not answered yet.
    under_way: HashSet<String>,
}

/// A key whose call is under way, for as long as this lives.
struct UnderWay {
    desk: Arc<Desk>,
    key: Option<String>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(key) = &self.key {
            self.desk.state().under_way.remove(key);
        }
    }
}

impl State {
    /// Journal first, then books: what is answered is on record.
    fn enter(&mut self, entry: Entry) -> Result<(), Box<Reply>> {
        self.journal.append(&entry).map_err(|error| {
            let path = self.journal.path().display();
            Box::new(failure(StatusCode::INTERNAL_SERVER_ERROR, &format!("{path}: {error}")))
        })?;
        self.books.enter(entry);
        Ok(())
    }
}

impl Desk {
    /// A desk with these books.
    pub(crate) fn new(token: String, faults: Faults, journal: Journal, books: Books) -> Self {
        let state = State { faults, journal, books, under_way: HashSet::new() };
        Self { token, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves nothing half done: the journal comes first.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves one call.
    ///
    /// # Errors
    /// If the call is to get no answer at all.
    pub(crate) async fn serve(
        self: Arc<Self>,
        request: Request<Incoming>,
        latch: &Latch,
    ) -> Result<Reply, NoAnswer> {
        let (head, body) = request.into_parts();
        if !self.admits(&head.headers) {
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
        let asked = |name: &str| {
            form_urlencoded::parse(query.as_bytes())
                .find_map(|(key, value)| (key == name).then(|| value.into_owned()))
        };
        match (&head.method, segments.as_slice()) {
            (&Method::POST, ["invoices"]) => self.create(&head.headers, body).await,
            (method @ (&Method::GET | &Method::DELETE), ["invoices", rest @ ..]) => {
                if let Some(answer) = self.state().faults.answer(method, &body) {
                    return Ok(instead(answer));
                }
                match (method, rest) {
                    (&Method::GET, []) => Ok(self.list(asked("vendor"), asked("number"))),
                    (&Method::GET, [id]) => Ok(self.show(id)),
                    (&Method::DELETE, [id]) => Ok(self.delete(id)),
                    _ => Ok(nowhere()),
                }
            }
            (&Method::GET, ["calls"]) => Ok(self.calls(asked("key").as_deref())),
            (&Method::POST, ["faults"]) => Ok(self.change_faults(&body, latch).await),
            _ => Ok(nowhere()),
        }
    }

    fn admits(&self, headers: &HeaderMap) -> bool {
        let told = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        told.and_then(|told| told.strip_prefix("Bearer ")) == Some(&self.token)
    }

    async fn create(self: Arc<Self>, headers: &HeaderMap, body: String) -> Result<Reply, NoAnswer> {
        let key = match headers.get("idempotency-key").map(|key| key.to_str()) {
            None => None,
            Some(Ok(key)) if !key.is_empty() => Some(key.to_owned()),
            Some(_) => {
                let told = "Idempotency-Key is empty or not ASCII";
                return Ok(failure(StatusCode::BAD_REQUEST, told));
            }
        };
        match self.arrive(key, &body) {
            Err(reply) => Ok(*reply),
            Ok((draft, guard, fate)) => self.carry_out(body, draft, guard, fate).await,
        }
    }

    /// Everything up to the creation, with what is to happen to that.
    fn arrive(
        self: &Arc<Self>,
        key: Option<String>,
        body: &str,
    ) -> Result<(Draft, UnderWay, Fate), Box<Reply>> {
        let mut state = self.state();
        if let Some(key) = &key {
            state.enter(Entry::Called { key: key.clone() })?;
        }
        if let Some(answer) = state.faults.answer(&Method::POST, body) {
            return Err(Box::new(instead(answer)));
        }
        let draft = Draft::read(body)
            .map_err(|wrong| Box::new(failure(StatusCode::BAD_REQUEST, &wrong)))?;
        if key.as_ref().is_some_and(|key| state.under_way.contains(key)) {
            let told = "a call with this key is under way";
            return Err(Box::new(failure(StatusCode::CONFLICT, told)));
        }
        let duplicates_pass = state.faults.duplicates_pass();
        // Only what creates something meets a fault of creations.
        match state.books.weigh(key.as_deref(), body, draft.clone(), duplicates_pass) {
            Creation::New { .. } => {}
            other => return Err(Box::new(settled(other))),
        }
        let fate = state.faults.creation();
        state.under_way.extend(key.clone());
        Ok((draft, UnderWay { desk: Arc::clone(self), key }, fate))
    }

    async fn carry_out(
        self: Arc<Self>,
        body: String,
        draft: Draft,
        guard: UnderWay,
        fate: Fate,
    ) -> Result<Reply, NoAnswer> {
        let Some(late) = fate.late else {
            let reply = self.write(&body, draft, guard.key.as_deref());
            return finish(reply, guard, fate.hang).await;
        };
        // By itself: it goes on when the client has given up.
        let work = tokio::spawn(async move {
            tokio::time::sleep(late).await;
            let reply = self.write(&body, draft, guard.key.as_deref());
            (reply, guard)
        });
        match work.await {
            Ok((reply, guard)) => finish(reply, guard, fate.hang).await,
            Err(_) => Err(NoAnswer),
        }
    }

    /// Creates it, unless somebody else did while this one was late.
    fn write(&self, body: &str, draft: Draft, key: Option<&str>) -> Reply {
        let mut state = self.state();
        let duplicates_pass = state.faults.duplicates_pass();
        match state.books.weigh(key, body, draft, duplicates_pass) {
            Creation::New { entry, answer } => match state.enter(*entry) {
                Ok(()) => created(answer),
                Err(reply) => *reply,
            },
            other => settled(other),
        }
    }

    fn list(&self, vendor: Option<String>, number: Option<String>) -> Reply {
        let state = self.state();
        let invoices = match (vendor, number) {
            (Some(vendor), Some(number)) => {
                json!(state.books.find(&vendor, &number).collect::<Vec<_>>())
            }
            (None, None) => json!(state.books.all().collect::<Vec<_>>()),
            _ => return failure(StatusCode::BAD_REQUEST, "vendor and number go together"),
        };
        reply(StatusCode::OK, json!({"invoices": invoices}).to_string())
    }

    fn show(&self, id: &str) -> Reply {
        match self.state().books.get(id) {
            Some(invoice) => reply(StatusCode::OK, json!(invoice).to_string()),
            None => nowhere(),
        }
    }

    fn delete(&self, id: &str) -> Reply {
        let mut state = self.state();
        if state.books.get(id).is_none() {
            return nowhere();
        }
        match state.enter(Entry::Deleted { id: id.to_owned() }) {
            Ok(()) => empty(StatusCode::NO_CONTENT),
            Err(reply) => *reply,
        }
    }

    fn calls(&self, key: Option<&str>) -> Reply {
        let state = self.state();
        let told = match key {
            Some(key) => json!(state.books.calls().get(key).unwrap_or(&Calls::default())),
            None => json!(state.books.calls()),
        };
        reply(StatusCode::OK, told.to_string())
    }

    async fn change_faults(&self, body: &str, latch: &Latch) -> Reply {
        let change: Change = match serde_json::from_str(body) {
            Ok(change) => change,
            Err(error) => return failure(StatusCode::BAD_REQUEST, &error.to_string()),
        };
        let vanish = change.vanish.filter(|vanish| vanish.is_asked());
        self.state().faults.change(change);
        let mut reply = empty(StatusCode::NO_CONTENT);
        if let Some(vanish) = vanish {
            latch.vanish(vanish.pause()).await;
            // The last word on this connection.
            reply
                .headers_mut()
                .insert(header::CONNECTION, header::HeaderValue::from_static("close"));
        }
        reply
    }
}

/// Answers, or lets the client wait and then cuts it off.
async fn finish(reply: Reply, guard: UnderWay, hang: Option<Duration>) -> Result<Reply, NoAnswer> {
    let Some(hang) = hang else {
        drop(guard);
        return Ok(reply);
    };
    tokio::time::sleep(hang).await;
    drop(guard);
    Err(NoAnswer)
}

/// The answer to what creates nothing.
fn settled(creation: Creation) -> Reply {
    match creation {
        Creation::New { answer, .. } | Creation::Known(answer) => created(answer),
        Creation::OtherBody => {
            failure(StatusCode::UNPROCESSABLE_ENTITY, "this key was used with another body")
        }
        Creation::Exists(id) => reply(
            StatusCode::CONFLICT,
            json!({"error": "invoice already exists", "id": id}).to_string(),
        ),
    }
}

fn created(answer: String) -> Reply {
    reply(StatusCode::CREATED, answer)
}

fn instead(Answer { status, retry_after, body, .. }: Answer) -> Reply {
    let body = match body {
        None => json!({"error": "a fault that was asked for"}).to_string(),
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

fn nowhere() -> Reply {
    failure(StatusCode::NOT_FOUND, "not found")
}

fn failure(status: StatusCode, error: &str) -> Reply {
    reply(status, json!({"error": error}).to_string())
}

fn reply(status: StatusCode, body: String) -> Reply {
    let mut reply = empty(status);
    let json = header::HeaderValue::from_static("application/json");
    reply.headers_mut().insert(header::CONTENT_TYPE, json);
    *reply.body_mut() = Full::from(body);
    reply
}

fn empty(status: StatusCode) -> Reply {
    let mut reply = Reply::default();
    *reply.status_mut() = status;
    reply
}
