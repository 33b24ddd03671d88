//! Health checks: `/livez` and `/readyz`.
//!
//! [`HealthRegistry`] lists the parts of this process. It knows none of them: each part reports to
//! a [`HealthReporter`] or is registered with a function that checks it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderValue, Response, StatusCode, header},
};
use futures_util::future::BoxFuture;
use serde_json::{Map, Value, json};

/// The problem of a part now, or `None`.
type Status = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// As [`Status`], by asking another server.
type Check = Arc<dyn Fn() -> BoxFuture<'static, Option<String>> + Send + Sync>;

/// The parts of this process that must work for it to be ready.
#[derive(Clone, Default)]
pub struct HealthRegistry {
    parts: Vec<(&'static str, Status)>,
    checks: Vec<(&'static str, Check)>,
    hide_problems: bool,
}

impl HealthRegistry {
    /// Adds a part that knows its own problem.
    #[must_use]
    pub fn with_part(
        mut self,
        name: &'static str,
        status: impl Fn() -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.parts.push((name, Arc::new(status)));
        self
    }

    /// Adds a check that runs at each request for `/readyz`.
    #[must_use]
    pub fn with_check(
        mut self,
        name: &'static str,
        check: impl Fn() -> BoxFuture<'static, Option<String>> + Send + Sync + 'static,
    ) -> Self {
        self.checks.push((name, Arc::new(check)));
        self
    }

    /// For addresses that are reachable without authentication: `/readyz` names the part that has
    /// a problem, but not the problem.
    #[must_use]
    pub fn hide_problems(mut self) -> Self {
        self.hide_problems = true;
        self
    }

    /// Whether no part has a problem. The checks do not run.
    pub fn is_ready(&self) -> bool {
        self.parts.iter().all(|(_, status)| status().is_none())
    }

    async fn problems(&self) -> Vec<(&'static str, Option<String>)> {
        let mut problems: Vec<_> =
            self.parts.iter().map(|(name, status)| (*name, status())).collect();
        for (name, check) in &self.checks {
            problems.push((*name, check().await));
        }
        problems
    }
}

/// Collects the problems of one part, component by component.
#[derive(Clone)]
pub struct HealthReporter(Arc<Mutex<BTreeMap<String, String>>>);

impl HealthReporter {
    /// Starts with a problem, so that a part is not ready before it has reported.
    pub fn new(component: &str, problem: &str) -> Self {
        Self(Arc::new(Mutex::new([(component.to_owned(), problem.to_owned())].into())))
    }

    /// All problems, or `None` if there is none.
    pub fn problem(&self) -> Option<String> {
        let problems = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let texts = problems.iter().map(|(component, problem)| format!("{component}: {problem}"));
        (!problems.is_empty()).then(|| texts.collect::<Vec<_>>().join("; "))
    }

    /// Sets or clears the problem of a component.
    pub fn set(&self, component: &str, problem: Option<String>) {
        let mut problems = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match problem {
            Some(problem) => problems.insert(component.to_owned(), problem),
            None => problems.remove(component),
        };
    }

    /// Replaces all problems by this one.
    pub fn set_exclusively(&self, component: &str, problem: &str) {
        let mut problems = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        problems.clear();
        problems.insert(component.to_owned(), problem.to_owned());
    }
}

/// Answers 200 while the process responds. Restarting it would not end an outage of another
/// server.
pub async fn livez() -> &'static str {
    "ok\n"
}

/// Answers 200 if every part works now, else 503.
pub async fn readyz(State(health): State<HealthRegistry>) -> Response<Body> {
    let problems = health.problems().await;
    let ready = problems.iter().all(|(_, problem)| problem.is_none());
    let parts: Map<String, Value> = problems
        .into_iter()
        .map(|(name, problem)| {
            let status = match problem {
                None => "ok".to_owned(),
                Some(_) if health.hide_problems => "not ready".to_owned(),
                Some(problem) => problem,
            };
            (name.to_owned(), status.into())
        })
        .collect();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({"ready": ready, "parts": parts});
    respond(status, "application/json", format!("{body}\n"))
}

/// A response with a body of this media type.
pub(super) fn respond(
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use http_body_util::BodyExt as _;

    use super::*;

    async fn readyz_of(health: &HealthRegistry) -> (u16, Value) {
        let response = readyz(State(health.clone())).await;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn readyz_part_with_problem_answers_503() {
        let worker = HealthReporter::new("connection", "not started");
        let reporter = worker.clone();
        let health = HealthRegistry::default()
            .with_part("worker", move || reporter.problem())
            .with_check("database", || async { None }.boxed());
        assert!(!health.is_ready());
        let expected = json!({
            "ready": false,
            "parts": {"worker": "connection: not started", "database": "ok"},
        });
        assert_eq!(readyz_of(&health).await, (503, expected));

        worker.set("connection", None);
        assert!(health.is_ready());
        let expected = json!({"ready": true, "parts": {"worker": "ok", "database": "ok"}});
        assert_eq!(readyz_of(&health).await, (200, expected));

        worker.set("a", Some("x".to_owned()));
        worker.set("b", Some("y".to_owned()));
        assert_eq!(worker.problem().as_deref(), Some("a: x; b: y"));
        worker.set_exclusively("connection", "lost");
        assert_eq!(worker.problem().as_deref(), Some("connection: lost"));
        let expected = json!({"ready": false, "parts": {"worker": "not ready", "database": "ok"}});
        assert_eq!(readyz_of(&health.hide_problems()).await, (503, expected));
    }

    #[tokio::test]
    async fn readyz_failed_check_answers_503() {
        let health = HealthRegistry::default()
            .with_check("database", || async { Some("refused".to_owned()) }.boxed());
        assert!(health.is_ready(), "checks run for requests only");
        let (status, body) = readyz_of(&health).await;
        assert_eq!((status, &body["parts"]["database"]), (503, &json!("refused")));
    }
}
