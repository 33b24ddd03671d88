//! Reads the file as the receiver and the worker would, on a thread that may
//! block.

use std::io::{self, BufRead, BufReader};

use anyhow::Context as _;
use http::HeaderMap;
use time::OffsetDateTime;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::super::client::Input;
use crate::{
    domain::{
        Change, Envelope, ImportFormat, ImportPosition, Invoice, MappedEvent, PermanentFailure,
        SourceName,
    },
    file_formats::{FileItem, FileReader},
    sources::{Source, WebhookRequest},
};

/// How many lines are looked up at once.
const BATCH: usize = 1000;

/// What was read.
#[derive(Debug)]
pub(super) enum Read {
    /// An item, or what is wrong with it.
    Item { line: u32, event: Result<ParsedEvent, String> },
    /// Nothing behind this can be read.
    Broken(String),
}

impl Read {
    /// The event, if it is one.
    pub(super) fn event(&self) -> Option<&ParsedEvent> {
        match self {
            Self::Item { event: Ok(event), .. } => Some(event),
            Self::Item { .. } | Self::Broken(_) => None,
        }
    }
}

/// An event that the receiver would send on.
#[derive(Clone, Debug)]
pub(super) struct ParsedEvent {
    /// As it would stand in the inbox.
    pub(super) key: Uuid,
    /// The number that people know it by.
    pub(super) number: Option<String>,
    /// What the worker would make of it.
    pub(super) mapped: Result<Option<(Uuid, Box<Invoice>)>, PermanentFailure>,
}

impl ParsedEvent {
    /// Under which id its invoice would stand.
    pub(super) fn invoice_id(&self) -> Option<Uuid> {
        self.mapped.as_ref().ok()?.as_ref().map(|(id, _)| *id)
    }
}

/// Reads the file to its end, or as far as it can be read; an error if it
/// cannot be opened.
pub(super) fn read(
    input: &Input,
    rehearsal: &Rehearsal<'_>,
    limit: usize,
    batches: &mpsc::Sender<anyhow::Result<Vec<Read>>>,
) {
    let (reader, csv) = match (open(input), rehearsal.adapter.csv_dialect()) {
        (Ok(reader), Some(csv)) => (reader, csv),
        (Err(error), _) => return drop(batches.blocking_send(Err(error))),
        (_, None) => return,
    };
    // As the receiver does it: of two items the later has the greater
    // position, also where an array has several on one line.
    let mut position = 0_u32;
    let mut batch = Vec::new();
    for item in FileReader::new(reader, rehearsal.format, csv, limit) {
        batch.push(match item {
            Ok(item) => {
                position = item.line.max(position.saturating_add(1));
                rehearsal.play(item, position)
            }
            Err(broken) => Read::Broken(broken.to_string()),
        });
        if batch.len() == BATCH && batches.blocking_send(Ok(std::mem::take(&mut batch))).is_err() {
            // Nobody wants to know any more: the database went away.
            return;
        }
    }
    drop(batches.blocking_send(Ok(batch)));
}

fn open(input: &Input) -> anyhow::Result<Box<dyn BufRead>> {
    let path = match input {
        Input::Stdin => return Ok(Box::new(io::stdin().lock())),
        Input::File(path) => path,
    };
    let cannot = || format!("cannot read {input}");
    let file = std::fs::File::open(path).with_context(cannot)?;
    let is_folder = file.metadata().with_context(cannot)?.is_dir();
    anyhow::ensure!(!is_folder, "{}: it is a folder", cannot());
    Ok(Box::new(BufReader::new(file)))
}

/// An import that is not sent.
pub(super) struct Rehearsal<'a> {
    source: &'a SourceName,
    adapter: &'a Source,
    format: ImportFormat,
    headers: HeaderMap,
    started_at: OffsetDateTime,
}

impl<'a> Rehearsal<'a> {
    /// An import that begins now, with the headers that it would be sent with.
    pub(super) fn new(
        source: &'a SourceName,
        adapter: &'a Source,
        format: ImportFormat,
        headers: HeaderMap,
    ) -> Self {
        Self { source, adapter, format, headers, started_at: OffsetDateTime::now_utc() }
    }

    fn play(&self, item: FileItem, position: u32) -> Read {
        let line = item.line;
        let event = self.event(item, position).map_err(|failures| {
            failures.iter().map(PermanentFailure::to_string).collect::<Vec<_>>().join("; ")
        });
        Read::Item { line, event }
    }

    fn event(&self, item: FileItem, position: u32) -> Result<ParsedEvent, Vec<PermanentFailure>> {
        let body = item.body.map_err(|failure| vec![failure])?;
        let (headers, received_at) = (&self.headers, self.started_at);
        let call = WebhookRequest { headers, query: "", body: &body, received_at };
        let event = self.adapter.import_event(&call, self.format, position)?;
        // The secret's label makes no difference to what becomes of it.
        let envelope = event
            .envelope(self.source, Uuid::now_v7(), received_at, "")
            .map_err(|rejection| vec![PermanentFailure::invalid("", rejection.to_string())])?;
        let import = Some(ImportPosition { import_id: Uuid::nil(), line: item.line });
        let envelope = Envelope { import, ..envelope };
        let mapped = self.adapter.map(&envelope).map(|mapped| match mapped {
            MappedEvent::Change(Change::Invoice(invoice)) => {
                let id = invoice.id(self.source, &envelope.tenant, envelope.generation);
                Some((id, invoice))
            }
            MappedEvent::Change(_) | MappedEvent::Ignored => None,
        });
        let number = self.adapter.business_key(&envelope);
        Ok(ParsedEvent { key: envelope.key.inbox_id(), number, mapped })
    }
}
