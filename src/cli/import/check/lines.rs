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
    adapter::{Adapter, Call},
    domain::{Change, Envelope, Failure, ImportFormat, ImportItem, Invoice, Mapped, SourceName},
    import::{Item, Reader},
};

/// How many lines are looked up at once.
const BATCH: usize = 1000;

/// What was read.
#[derive(Debug)]
pub(super) enum Read {
    /// An item, or what is wrong with it.
    Item { line: u32, event: Result<Known, String> },
    /// Nothing behind this can be read.
    Broken(String),
}

impl Read {
    /// The event, if it is one.
    pub(super) fn event(&self) -> Option<&Known> {
        match self {
            Self::Item { event: Ok(event), .. } => Some(event),
            Self::Item { .. } | Self::Broken(_) => None,
        }
    }
}

/// An event that the receiver would send on.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// As it would stand in the inbox.
    pub(super) key: Uuid,
    /// The number that people know it by.
    pub(super) number: Option<String>,
    /// What the worker would make of it.
    pub(super) mapped: Result<Option<(Uuid, Box<Invoice>)>, Failure>,
}

impl Known {
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
    let (reader, csv) = match (open(input), rehearsal.adapter.csv()) {
        (Ok(reader), Some(csv)) => (reader, csv),
        (Err(error), _) => return drop(batches.blocking_send(Err(error))),
        (_, None) => return,
    };
    // As the receiver does it: of two items the later has the greater
    // position, also where an array has several on one line.
    let mut position = 0_u32;
    let mut batch = Vec::new();
    for item in Reader::new(reader, rehearsal.format, csv, limit) {
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
    adapter: &'a Adapter,
    format: ImportFormat,
    headers: HeaderMap,
    begun_at: OffsetDateTime,
}

impl<'a> Rehearsal<'a> {
    /// An import that begins now, with the headers that it would be sent with.
    pub(super) fn new(
        source: &'a SourceName,
        adapter: &'a Adapter,
        format: ImportFormat,
        headers: HeaderMap,
    ) -> Self {
        Self { source, adapter, format, headers, begun_at: OffsetDateTime::now_utc() }
    }

    fn play(&self, item: Item, position: u32) -> Read {
        let line = item.line;
        let event = self.event(item, position).map_err(|failures| {
            failures.iter().map(Failure::to_string).collect::<Vec<_>>().join("; ")
        });
        Read::Item { line, event }
    }

    fn event(&self, item: Item, position: u32) -> Result<Known, Vec<Failure>> {
        let body = item.body.map_err(|failure| vec![failure])?;
        let (headers, received_at) = (&self.headers, self.begun_at);
        let call = Call { headers, query: "", body: &body, received_at };
        let event = self.adapter.item(&call, self.format, position)?;
        // The secret's label makes no difference to what becomes of it.
        let envelope = event
            .envelope(self.source, Uuid::now_v7(), received_at, "")
            .map_err(|rejection| vec![Failure::invalid("", rejection.to_string())])?;
        let import = Some(ImportItem { import_id: Uuid::nil(), line: item.line });
        let envelope = Envelope { import, ..envelope };
        let mapped = self.adapter.map(&envelope).map(|mapped| match mapped {
            Mapped::Change(Change::Invoice(invoice)) => {
                let id = invoice.id(self.source, &envelope.tenant, envelope.generation);
                Some((id, invoice))
            }
            Mapped::Change(_) | Mapped::Ignored => None,
        });
        let number = self.adapter.number(&envelope);
        Ok(Known { key: envelope.key.inbox_id(), number, mapped })
    }
}
