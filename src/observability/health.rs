//! Whether this process can do its work: `/livez` and `/readyz`, which tell
//! the truth during an outage.

use axum::{
    body::Body,
    extract::State,
    http::{HeaderValue, Response, StatusCode, header},
};
use serde_json::{Map, Value, json};

use crate::{broker::Publisher, store::Store, worker::HealthRegistry};

/// What readiness depends on: the parts that this process serves.
#[derive(Clone, Default)]
pub struct Health {
    /// The receiver needs the broker, and nothing else.
    pub publisher: Option<Publisher>,
    /// The worker needs the broker and the database.
    pub worker: Option<HealthRegistry>,
    /// What the worker writes to. Asked each time, because a batch is held for
    /// a while before the worker itself gives up.
    pub database: Option<Store>,
    /// Whether strangers may ask: then nothing is told but yes or no.
    pub public: bool,
}

impl Health {
    /// Whether every part can do its work now.
    pub fn is_ready(&self) -> bool {
        self.parts().iter().all(|(_, trouble)| trouble.is_none())
    }

    /// Each part with its trouble, or `None` if it is well.
    fn parts(&self) -> Vec<(&'static str, Option<String>)> {
        let mut parts = Vec::new();
        if let Some(publisher) = &self.publisher {
            parts.push(("receiver", publisher.degraded_reason()));
        }
        if let Some(worker) = &self.worker {
            parts.push(("worker", worker.degraded_reason()));
        }
        parts
    }
}

/// Alive as long as it answers: restarting would not mend an outage elsewhere.
pub async fn livez() -> &'static str {
    "ok\n"
}

/// Ready if every part that this process serves can do its work now.
pub async fn readyz(State(health): State<Health>) -> Response<Body> {
    let mut parts = health.parts();
    if let Some(database) = &health.database {
        parts.push(("database", database.ping().await.err().map(|error| error.to_string())));
    }
    let ready = parts.iter().all(|(_, trouble)| trouble.is_none());
    let told: Map<String, Value> = parts
        .into_iter()
        .map(|(name, trouble)| {
            let told = match trouble {
                None => json!("ok"),
                Some(_) if health.public => json!("not ready"),
                Some(why) => json!(why),
            };
            (name.to_owned(), told)
        })
        .collect();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({"ready": ready, "parts": told});
    respond(status, "application/json", format!("{body}\n"))
}

/// An answer with a body of this media type.
pub(crate) fn respond(
    status: StatusCode,
    media_type: &'static str,
    body: String,
) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let media_type = HeaderValue::from_static(media_type);
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response
}
