//! `GET /imports/{id}` and its items. This is the only place where the receiver reads the
//! database, with connections of its own.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, Response, StatusCode, Uri},
};
use bytes::Bytes;
use serde::Serialize;
use time::OffsetDateTime;
use tokio::sync::Semaphore;
use tracing::debug;
use uuid::Uuid;

use super::super::{
    Receiver,
    response::{Problem, json_response},
    webhooks::{rejection_problem, unknown_source},
};
use crate::{
    domain::Outcome,
    sources::{ResponseStyle, WebhookRequest},
    store::{
        Conn, Store, StoreError,
        imports::{self, Import, ImportItemRow, ItemPage},
    },
};

/// The most queries at once.
const MAX_CONCURRENT_QUERIES: usize = 8;

/// The items on a page without `limit`, and the most.
const DEFAULT_PAGE_SIZE: i64 = 100;
const MAX_PAGE_SIZE: i64 = 1000;

/// Reads the status of imports from the database.
#[derive(Clone)]
pub struct ImportStatusReader {
    store: Store,
    query_permits: Arc<Semaphore>,
}

impl ImportStatusReader {
    /// A reader with a store of its own, so that it takes no connections from the worker.
    pub fn new(store: Store) -> Self {
        Self { store, query_permits: Arc::new(Semaphore::new(MAX_CONCURRENT_QUERIES)) }
    }
}

/// The id in the path.
type ImportPath = Result<Path<String>, PathRejection>;

/// `GET /imports/{id}`: the state and the counts. It needs no secret: the id cannot be guessed,
/// and the response has numbers only.
pub(in crate::receiver) async fn get_import(
    State(receiver): State<Receiver>,
    path: ImportPath,
) -> Response<Body> {
    let receipt_id = Uuid::now_v7();
    match receiver.find_import(path).await {
        Ok(import) => json_response(StatusCode::OK, receipt_id, &ImportStatus::of(&import)),
        Err(problem) => problem.to_response(ResponseStyle::ProblemJson, receipt_id),
    }
}

/// `GET /imports/{id}/items`: the outcome of each item. It needs the source's secret.
pub(in crate::receiver) async fn get_import_items(
    State(receiver): State<Receiver>,
    path: ImportPath,
    uri: Uri,
    headers: HeaderMap,
) -> Response<Body> {
    let receipt_id = Uuid::now_v7();
    match receiver.find_items(path, uri.query().unwrap_or_default(), &headers).await {
        Ok(page) => json_response(StatusCode::OK, receipt_id, &page),
        Err(problem) => problem.to_response(ResponseStyle::ProblemJson, receipt_id),
    }
}

impl Receiver {
    async fn find_import(&self, path: ImportPath) -> Result<Import, Problem> {
        // Only one spelling of an id, so that other guesses never reach the database.
        let id = path.ok().map(|Path(text)| text).filter(|text| text.len() == 36);
        let id = id.and_then(|text| text.parse().ok()).ok_or_else(unknown_import)?;
        let import = self.query_store(async |conn| imports::find(conn, id).await).await?;
        // The worker may not have received its first record yet.
        import.ok_or_else(|| Problem {
            retry_after_s: Some(self.settings.retry_after_s),
            ..unknown_import()
        })
    }

    async fn find_items(
        &self,
        path: ImportPath,
        query: &str,
        headers: &HeaderMap,
    ) -> Result<ItemsPage, Problem> {
        let import = self.find_import(path).await?;
        let name = import.source.parse().ok();
        let source = name.and_then(|name| self.sources.get(&name)).ok_or_else(unknown_source)?;
        let received_at = OffsetDateTime::now_utc();
        let request = WebhookRequest { headers, query, body: &Bytes::new(), received_at };
        source.authenticate_upload(&request).map_err(|rejection| rejection_problem(&rejection))?;
        let requested = parse_page(query)?;
        // One more item shows whether there is another page.
        let page = ItemPage { limit: requested.limit + 1, ..requested.clone() };
        let mut items = self
            .query_store(async |conn| imports::list_items(conn, import.import_id, &page).await)
            .await?;
        let limit = usize::try_from(requested.limit).unwrap_or_default();
        let has_more = items.len() > limit;
        items.truncate(limit);
        let last = items.last().filter(|_| has_more);
        let next = last.map(|last| next_page_url(&import, &requested, last));
        let items = items.into_iter().map(ItemStatus::of).collect();
        Ok(ItemsPage { items, next, past_retention: import.past_retention })
    }

    /// Runs a query, unless too many are in progress.
    async fn query_store<T>(
        &self,
        query: impl AsyncFnOnce(&mut Conn) -> Result<T, StoreError>,
    ) -> Result<T, Problem> {
        let ImportStatusReader { store, query_permits } = &self.import_status;
        let busy = || self.unavailable("too many queries are in progress; try again");
        let _permit = query_permits.try_acquire().map_err(|_| busy())?;
        let result = store.transaction(async |tx| query(tx).await);
        result.await.map_err(|error| {
            debug!(%error, "the import cannot be looked up");
            self.unavailable("the status cannot be looked up now; the import goes on")
        })
    }
}

fn unknown_import() -> Problem {
    let detail = "no import of this id is recorded, or not yet";
    Problem::new(StatusCode::NOT_FOUND, "Unknown import", detail)
}

/// The page that a query string asks for.
fn parse_page(query: &str) -> Result<ItemPage, Problem> {
    let mut page = ItemPage { outcome: None, after: (-1, Uuid::nil()), limit: DEFAULT_PAGE_SIZE };
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        let invalid = |expected: &str| {
            let detail = format!("{key} must be {expected}");
            Problem::new(StatusCode::BAD_REQUEST, "Bad request", detail)
        };
        match key.as_ref() {
            "outcome" => {
                let write_kinds = ["created", "updated"].into_iter();
                let known: Vec<&str> =
                    Outcome::ALL.into_iter().map(Outcome::as_str).chain(write_kinds).collect();
                if !known.contains(&value.as_ref()) {
                    return Err(invalid(&format!("one of {}", known.join(", "))));
                }
                page.outcome = Some(value.into_owned());
            }
            "after" => {
                page.after =
                    parse_position(&value).ok_or_else(|| invalid("a line, or as in `next`"))?;
            }
            "limit" => {
                let limit = value.parse().ok().filter(|limit| (1..=MAX_PAGE_SIZE).contains(limit));
                page.limit = limit.ok_or_else(|| invalid(&format!("1 to {MAX_PAGE_SIZE}")))?;
            }
            _ => {}
        }
    }
    Ok(page)
}

/// The position after a line, or after one of several items that begin on it.
fn parse_position(text: &str) -> Option<(i64, Uuid)> {
    let (line, receipt_id) = match text.split_once('.') {
        Some((line, receipt_id)) => (line, receipt_id.parse().ok()?),
        None => (text, Uuid::max()),
    };
    Some((line.parse::<u32>().ok()?.into(), receipt_id))
}

fn next_page_url(import: &Import, page: &ItemPage, last: &ImportItemRow) -> String {
    let outcome =
        page.outcome.as_ref().map_or_else(String::new, |outcome| format!("&outcome={outcome}"));
    format!(
        "/imports/{}/items?after={}.{}&limit={}{outcome}",
        import.import_id, last.line, last.receipt_id, page.limit
    )
}

#[derive(Serialize)]
struct ImportStatus<'a> {
    import_id: Uuid,
    source: &'a str,
    name: Option<&'a str>,
    state: &'a str,
    error: Option<&'a str>,
    total: i64,
    waiting: i64,
    created: i64,
    updated: i64,
    duplicate: i64,
    stale: i64,
    ignored: i64,
    rejected: i64,
    dead: i64,
    /// How many of these have no receipt any more, and are on no page of items.
    past_retention: i64,
    duplicate_rate: f64,
    #[serde(with = "time::serde::rfc3339")]
    started_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    received_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    completed_at: Option<OffsetDateTime>,
    elapsed_ms: i64,
    batches: i64,
    average_batch_ms: Option<i64>,
    items: String,
}

impl<'a> ImportStatus<'a> {
    fn of(import: &'a Import) -> Self {
        Self {
            import_id: import.import_id,
            source: &import.source,
            name: import.name.as_deref(),
            state: &import.state,
            error: import.error.as_deref(),
            total: import.total,
            waiting: import.waiting(),
            created: import.created,
            updated: import.updated,
            duplicate: import.duplicate,
            stale: import.stale,
            ignored: import.ignored,
            rejected: import.rejected,
            dead: import.dead,
            past_retention: import.past_retention,
            duplicate_rate: import.duplicate_rate(),
            started_at: import.started_at,
            received_at: import.received_at,
            completed_at: import.completed_at,
            elapsed_ms: import.elapsed_ms(),
            batches: import.batches,
            average_batch_ms: import.average_batch_ms(),
            items: format!("/imports/{}/items", import.import_id),
        }
    }
}

#[derive(Serialize)]
struct ItemsPage {
    items: Vec<ItemStatus>,
    next: Option<String>,
    /// Items of any outcome whose receipts are past retention. They are on no page.
    past_retention: i64,
}

#[derive(Serialize)]
struct ItemStatus {
    line: i64,
    outcome: String,
    write_kind: Option<String>,
    receipt_id: Uuid,
    business_key: Option<String>,
    attempts: i32,
    error: Option<String>,
}

impl ItemStatus {
    fn of(row: ImportItemRow) -> Self {
        let ImportItemRow { line, receipt_id, outcome, write_kind, business_key, attempts, error } =
            row;
        Self { line, outcome, write_kind, receipt_id, business_key, attempts, error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn import_items_page_is_parsed_from_query() {
        let page = parse_page("").unwrap();
        assert_eq!((page.outcome, page.after, page.limit), (None, (-1, Uuid::nil()), 100));
        let id = Uuid::now_v7();
        let page = parse_page(&format!("outcome=created&after=7.{id}&limit=1000")).unwrap();
        assert_eq!(page.outcome.as_deref(), Some("created"));
        assert_eq!((page.after, page.limit), ((7, id), 1000));
        assert_eq!(parse_page("after=7&token=x").unwrap().after, (7, Uuid::max()));
        for (query, key) in [
            ("outcome=fine", "outcome"),
            ("after=-1", "after"),
            ("after=1.2", "after"),
            ("after=99999999999", "after"),
            ("limit=0", "limit"),
            ("limit=1001", "limit"),
            ("limit=many", "limit"),
        ] {
            let detail = parse_page(query).err().unwrap().detail;
            assert!(detail.starts_with(&format!("{key} must be ")), "{query}: {detail}");
        }
    }
}
