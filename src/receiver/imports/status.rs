//! `GET /imports/{id}` and its items: the only place where the receiver reads
//! the database. By connections of its own, so that who asks takes none from
//! the worker.

use axum::{
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, Response, StatusCode, Uri},
};
use bytes::Bytes;
use serde::Serialize;
use time::OffsetDateTime;
use tracing::debug;
use uuid::Uuid;

use super::super::Receiver;
use crate::{
    domain::Outcome,
    receiver::{response, response::Problem, webhooks::rejection_problem},
    sources::{ResponseStyle, WebhookRequest},
    store::{
        StoreError, imports,
        imports::{Import, ImportItemRow, ItemPage},
    },
};

/// Items on a page, unless another number is asked for, and at most.
const DEFAULT_PAGE_SIZE: i64 = 100;
const MAX_PAGE_SIZE: i64 = 1000;

/// The id as it stands in the path.
type ImportPath = Result<Path<String>, PathRejection>;

/// `GET /imports/{id}`: how far it has come. Whoever knows the id may ask:
/// it cannot be guessed, and opens nothing but these numbers.
pub(in crate::receiver) async fn get_import(
    State(receiver): State<Receiver>,
    id: ImportPath,
) -> Response<Body> {
    let receipt_id = Uuid::now_v7();
    match receiver.find_import(id).await {
        Ok(import) => {
            response::json_response(StatusCode::OK, receipt_id, &ImportStatus::of(&import))
        }
        Err(problem) => problem.to_response(ResponseStyle::ProblemJson, receipt_id),
    }
}

/// `GET /imports/{id}/items`: what became of each, for whoever has the
/// source's secret.
pub(in crate::receiver) async fn get_import_items(
    State(receiver): State<Receiver>,
    id: ImportPath,
    uri: Uri,
    headers: HeaderMap,
) -> Response<Body> {
    let receipt_id = Uuid::now_v7();
    match receiver.find_items(id, uri.query().unwrap_or_default(), &headers).await {
        Ok(page) => response::json_response(StatusCode::OK, receipt_id, &page),
        Err(problem) => problem.to_response(ResponseStyle::ProblemJson, receipt_id),
    }
}

impl Receiver {
    async fn find_import(&self, id: ImportPath) -> Result<Import, Problem> {
        // One way of writing it, so that a stranger's guesses cost nothing.
        let id = id.ok().map(|Path(text)| text).filter(|text| text.len() == 36);
        let id = id.and_then(|text| text.parse().ok()).ok_or_else(unknown_import)?;
        let found = self.query_store(async |conn| imports::find(conn, id).await).await?;
        // It may be on its way: the worker has it from the broker.
        found.ok_or_else(|| Problem {
            retry_after_s: Some(self.settings.retry_after_s),
            ..unknown_import()
        })
    }

    async fn find_items(
        &self,
        id: ImportPath,
        query: &str,
        headers: &HeaderMap,
    ) -> Result<ItemsPage, Problem> {
        let import = self.find_import(id).await?;
        let source = import.source.parse().ok();
        let adapter = source.and_then(|source| self.sources.get(&source));
        let adapter = adapter.ok_or_else(super::unknown_source)?;
        let received_at = OffsetDateTime::now_utc();
        let call = WebhookRequest { headers, query, body: &Bytes::new(), received_at };
        adapter.authenticate_upload(&call).map_err(|rejection| rejection_problem(&rejection))?;
        let asked = parse_page(query)?;
        // One more tells whether there is another page.
        let page = ItemPage { limit: asked.limit + 1, ..asked.clone() };
        let mut items = self
            .query_store(async |conn| imports::list_items(conn, import.import_id, &page).await)
            .await?;
        let limit = usize::try_from(asked.limit).unwrap_or_default();
        let goes_on = items.len() > limit;
        items.truncate(limit);
        let next =
            items.last().filter(|_| goes_on).map(|last| next_page_url(&import, &asked, last));
        let items = items.into_iter().map(ItemStatus::of).collect();
        Ok(ItemsPage { items, next, past_retention: import.past_retention })
    }

    /// Asks the database, if not too many do.
    async fn query_store<T>(
        &self,
        question: impl AsyncFnOnce(&mut crate::store::Conn) -> Result<T, StoreError>,
    ) -> Result<T, Problem> {
        let busy = || self.unavailable("too many ask at once; ask again");
        let _place = self.query_permits.try_acquire().map_err(|_| busy())?;
        let answered = self.store.transaction(async |tx| question(tx).await);
        answered.await.map_err(|error| {
            debug!(%error, "an import cannot be looked up");
            self.unavailable("what became of it cannot be looked up now; the import goes on")
        })
    }
}

fn unknown_import() -> Problem {
    let detail = "no import of this id is on record, or not yet";
    Problem::new(StatusCode::NOT_FOUND, "Unknown import", detail)
}

/// What a query asks for.
fn parse_page(query: &str) -> Result<ItemPage, Problem> {
    let mut page = ItemPage { outcome: None, after: (-1, Uuid::nil()), limit: DEFAULT_PAGE_SIZE };
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        let wrong = |must: &str| {
            Problem::new(StatusCode::BAD_REQUEST, "Unreadable", format!("{key} must be {must}"))
        };
        match key.as_ref() {
            "outcome" => {
                let effects = ["created", "updated"].into_iter();
                let words: Vec<&str> =
                    Outcome::ALL.into_iter().map(Outcome::as_str).chain(effects).collect();
                let known = words.contains(&value.as_ref());
                let outcome = known.then(|| value.into_owned());
                page.outcome =
                    Some(outcome.ok_or_else(|| wrong(&format!("one of {}", words.join(", "))))?);
            }
            "after" => {
                page.after =
                    parse_position(&value).ok_or_else(|| wrong("a line, or what `next` told"))?;
            }
            "limit" => {
                let limit = value.parse().ok().filter(|limit| (1..=MAX_PAGE_SIZE).contains(limit));
                page.limit = limit.ok_or_else(|| wrong(&format!("1 to {MAX_PAGE_SIZE}")))?;
            }
            _ => {}
        }
    }
    Ok(page)
}

/// Behind a line, or behind one of several items that begin on it.
fn parse_position(text: &str) -> Option<(i64, Uuid)> {
    let (line, receipt_id) = match text.split_once('.') {
        Some((line, receipt_id)) => (line, receipt_id.parse().ok()?),
        None => (text, Uuid::max()),
    };
    Some((line.parse::<u32>().ok()?.into(), receipt_id))
}

/// Where the next page is.
fn next_page_url(import: &Import, asked: &ItemPage, last: &ImportItemRow) -> String {
    let outcome =
        asked.outcome.as_ref().map_or_else(String::new, |word| format!("&outcome={word}"));
    format!(
        "/imports/{}/items?after={}.{}&limit={}{outcome}",
        import.import_id, last.line, last.receipt_id, asked.limit
    )
}

/// How far an import has come.
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
    /// How many of these are only counted: no item tells of them any more.
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

/// Some of an import's items.
#[derive(Serialize)]
struct ItemsPage {
    items: Vec<ItemStatus>,
    next: Option<String>,
    /// Items, of whatever outcome, that are on no page: their receipts are
    /// past retention.
    past_retention: i64,
}

/// What became of an item.
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
    fn of(item: ImportItemRow) -> Self {
        let ImportItemRow { line, receipt_id, outcome, write_kind, business_key, attempts, error } =
            item;
        Self { line, outcome, write_kind, receipt_id, business_key, attempts, error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_asked_for_by_outcome_place_and_size() {
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
