//! From an asynchronous body to a reader that blocks: a frame at a time, so
//! that whoever reads slowly slows the sender down.

#[cfg(test)]
mod tests;

use std::{
    io::{self, BufRead, Read},
    time::Duration,
};

use axum::body::Body;
use bytes::{Buf as _, Bytes};
use http_body_util::BodyExt as _;
use tokio::{sync::mpsc, time::timeout};

/// Frames that may wait between the socket and the reader. Each has what the
/// server reads at once, some hundred kilobytes.
const MAX_BUFFERED_FRAMES: usize = 2;

/// Why a body ended before its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BodyInterrupted {
    /// The client went away, or its message cannot be read.
    ConnectionLost(String),
    /// Nothing came for too long.
    Idle,
    /// This process stops.
    Stopping,
}

impl BodyInterrupted {
    /// What happened, in words.
    pub(super) fn message(&self) -> String {
        match self {
            Self::ConnectionLost(why) => format!("the body broke off: {why}"),
            Self::Idle => "the body broke off: nothing came for too long".to_owned(),
            Self::Stopping => "the receiver was stopped".to_owned(),
        }
    }
}

/// What goes through. A pipe that ends without an end is broken: the process
/// stops, or a client is gone of whom the server says no more than that.
enum BodyChunk {
    Data(Bytes),
    End,
    Interrupted(BodyInterrupted),
}

/// The end at which bytes come in.
pub(super) struct BodyWriter(mpsc::Sender<BodyChunk>);

/// The end at which they are read.
pub(super) struct BodyReader {
    chunks: mpsc::Receiver<BodyChunk>,
    rest: Bytes,
    ended: bool,
    /// Stays: nothing that comes after a hole may be taken for the rest.
    interruption: Option<String>,
}

/// A pipe of a few frames.
pub(super) fn pipe() -> (BodyWriter, BodyReader) {
    let (sender, pieces) = mpsc::channel(MAX_BUFFERED_FRAMES);
    (
        BodyWriter(sender),
        BodyReader { chunks: pieces, rest: Bytes::new(), ended: false, interruption: None },
    )
}

impl BodyWriter {
    /// Lets a body through, until its end or until nobody reads on. `told` is
    /// the length that its head tells: a body that is shorter broke off.
    ///
    /// # Errors
    /// Why it ended early; the reader is told too.
    pub(super) async fn forward(
        self,
        body: &mut Body,
        told: Option<u64>,
        idle: Duration,
        stopping: impl Future<Output = ()>,
    ) -> Result<(), BodyInterrupted> {
        let passed = tokio::select! {
            passed = self.forward_frames(body, told, idle) => passed,
            () = stopping => Err(BodyInterrupted::Stopping),
        };
        let last = passed.clone().map_or_else(BodyChunk::Interrupted, |()| BodyChunk::End);
        // A reader that is done has seen enough.
        drop(self.0.send(last).await);
        passed
    }

    async fn forward_frames(
        &self,
        body: &mut Body,
        told: Option<u64>,
        idle: Duration,
    ) -> Result<(), BodyInterrupted> {
        let mut seen = 0_u64;
        loop {
            let frame = tokio::select! {
                frame = timeout(idle, body.frame()) => frame.map_err(|_| BodyInterrupted::Idle)?,
                // Whoever sends slowly shall hear why it cannot be read, and
                // not that it is slow.
                () = self.0.closed() => return Ok(()),
            };
            let Some(frame) = frame else {
                return match told {
                    Some(told) if seen < told => {
                        Err(BodyInterrupted::ConnectionLost(format!("{seen} of {told} bytes came")))
                    }
                    _ => Ok(()),
                };
            };
            let frame =
                frame.map_err(|error| BodyInterrupted::ConnectionLost(error.to_string()))?;
            // Trailers are no part of it.
            let Ok(data) = frame.into_data() else { continue };
            seen = seen.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
            if self.0.send(BodyChunk::Data(data)).await.is_err() {
                return Ok(());
            }
        }
    }
}

impl BufRead for BodyReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.rest.is_empty() && !self.ended {
            if let Some(why) = &self.interruption {
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, why.clone()));
            }
            match self.chunks.blocking_recv() {
                Some(BodyChunk::Data(data)) => self.rest = data,
                Some(BodyChunk::End) => self.ended = true,
                Some(BodyChunk::Interrupted(cut)) => self.interruption = Some(cut.message()),
                None => self.interruption = Some("the body broke off".to_owned()),
            }
        }
        Ok(&self.rest)
    }

    fn consume(&mut self, amount: usize) {
        self.rest.advance(amount);
    }
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}
