//! Parses a file as the receiver does, on a thread that may block.

use std::io::{self, BufRead, BufReader, Seek as _};

use anyhow::Context as _;
use bytes::Bytes;
use http::HeaderMap;
use time::OffsetDateTime;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::super::client::Input;
use crate::{
    domain::{
        Envelope, ImportFormat, ImportPosition, PermanentFailure, RejectedRequest, SourceName,
    },
    file_formats::{FileItem, FileReader},
    sources::{Source, WebhookRequest},
};

/// How many lines are applied together.
const BATCH_LINES: usize = 1000;

/// A line of the file.
#[derive(Debug)]
pub(super) enum ParsedLine {
    /// The event that the receiver would publish.
    Event(Box<Envelope>),
    /// The rejection that the receiver would record.
    Rejected(RejectedRequest),
    /// The file cannot be read from here on.
    Unreadable(String),
}

/// Turns lines into the messages of one import.
pub(super) struct LineParser<'a> {
    pub(super) source_name: SourceName,
    pub(super) source: &'a Source,
    pub(super) format: ImportFormat,
    /// The headers that the file would be sent with.
    pub(super) headers: HeaderMap,
    pub(super) import_id: Uuid,
    pub(super) started_at: OffsetDateTime,
}

impl LineParser<'_> {
    /// Parses the file to its end and sends the lines in batches. Sends an
    /// error if the file cannot be opened.
    pub(super) fn parse(
        &self,
        input: &Input,
        limit: usize,
        batches: &mpsc::Sender<anyhow::Result<Vec<ParsedLine>>>,
    ) {
        let (reader, csv) = match (open(input), self.source.csv_dialect()) {
            (Ok(reader), Some(csv)) => (reader, csv),
            (Err(error), _) => return drop(batches.blocking_send(Err(error))),
            (_, None) => return,
        };
        // As in the receiver: later items have greater positions, also where
        // an array has several items on one line.
        let mut position = 0_u32;
        let mut batch = Vec::new();
        for item in FileReader::new(reader, self.format, csv, limit) {
            batch.push(match item {
                Ok(item) => {
                    position = item.line.max(position.saturating_add(1));
                    self.parse_item(item, position)
                }
                Err(error) => ParsedLine::Unreadable(error.to_string()),
            });
            if batch.len() == BATCH_LINES
                && batches.blocking_send(Ok(std::mem::take(&mut batch))).is_err()
            {
                // The check has failed and has stopped listening.
                return;
            }
        }
        drop(batches.blocking_send(Ok(batch)));
    }

    fn parse_item(&self, item: FileItem, position: u32) -> ParsedLine {
        let FileItem { line, raw, body } = item;
        let envelope = body
            .map_err(|failure| vec![failure])
            .and_then(|body| self.build_envelope(&body, line, position));
        match envelope {
            Ok(envelope) => ParsedLine::Event(Box::new(envelope)),
            Err(failures) => ParsedLine::Rejected(RejectedRequest {
                receipt_id: Uuid::now_v7(),
                source: self.source_name.clone(),
                tenant: String::new(),
                received_at: self.started_at,
                status: Some(202),
                error: failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
                body: raw,
                import: Some(ImportPosition { import_id: self.import_id, line }),
                request_head: None,
            }),
        }
    }

    fn build_envelope(
        &self,
        body: &Bytes,
        line: u32,
        position: u32,
    ) -> Result<Envelope, Vec<PermanentFailure>> {
        let (headers, received_at) = (&self.headers, self.started_at);
        let request = WebhookRequest { headers, query: "", body, received_at };
        let event = self.source.import_event(&request, self.format, position)?;
        // The label of the secret does not change the outcome.
        let envelope = event
            .envelope(&self.source_name, Uuid::now_v7(), received_at, "")
            .map_err(|rejection| vec![PermanentFailure::invalid("", rejection.to_string())])?;
        let import = Some(ImportPosition { import_id: self.import_id, line });
        Ok(Envelope { import, ..envelope })
    }
}

/// Opens the input. Standard input and pipes are copied to a temporary file
/// first: the check must not wait for another program while it holds locks.
fn open(input: &Input) -> anyhow::Result<Box<dyn BufRead>> {
    let cannot_read = || format!("cannot read {input}");
    let mut pipe: Box<dyn io::Read> = match input {
        Input::Stdin => Box::new(io::stdin().lock()),
        Input::File(path) => {
            let file = std::fs::File::open(path).with_context(cannot_read)?;
            let metadata = file.metadata().with_context(cannot_read)?;
            anyhow::ensure!(!metadata.is_dir(), "{}: it is a folder", cannot_read());
            if metadata.is_file() {
                return Ok(Box::new(BufReader::new(file)));
            }
            Box::new(file)
        }
    };
    let mut copy = tempfile::tempfile().context("cannot create a temporary file")?;
    io::copy(&mut pipe, &mut copy).with_context(cannot_read)?;
    copy.rewind().with_context(cannot_read)?;
    Ok(Box::new(BufReader::new(copy)))
}
