//! A pipe from an asynchronous request body to a blocking reader. It holds few frames, so that a
//! slow reader slows the sender down.

#[cfg(test)]
mod tests;

use std::{
    fmt,
    io::{self, BufRead, Read},
    time::Duration,
};

use axum::body::Body;
use bytes::{Buf as _, Bytes};
use http_body_util::BodyExt as _;
use tokio::{sync::mpsc, time::timeout};

/// The most frames between the socket and the reader. A frame is what the server reads at once,
/// some hundred kilobytes.
const MAX_BUFFERED_FRAMES: usize = 2;

/// Why a body is incomplete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BodyInterrupted {
    /// The client disconnected, or its request is malformed.
    ConnectionLost(String),
    /// No data came for too long.
    Idle,
    /// This process stops.
    Stopping,
}

impl fmt::Display for BodyInterrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConnectionLost(reason) => write!(f, "the body is incomplete: {reason}"),
            Self::Idle => f.write_str("the body is incomplete: no data came for too long"),
            Self::Stopping => f.write_str("the receiver was stopped"),
        }
    }
}

/// A pipe that closes without `End` is interrupted too.
enum BodyChunk {
    Data(Bytes),
    End,
    Interrupted(BodyInterrupted),
}

/// The asynchronous end.
pub(super) struct BodyWriter(mpsc::Sender<BodyChunk>);

/// The blocking end.
pub(super) struct BodyReader {
    chunks: mpsc::Receiver<BodyChunk>,
    current: Bytes,
    ended: bool,
    /// Set once and for all: data after a gap must not be read as the rest.
    interruption: Option<String>,
}

/// A pipe of [`MAX_BUFFERED_FRAMES`].
pub(super) fn pipe() -> (BodyWriter, BodyReader) {
    let (sender, chunks) = mpsc::channel(MAX_BUFFERED_FRAMES);
    let reader = BodyReader { chunks, current: Bytes::new(), ended: false, interruption: None };
    (BodyWriter(sender), reader)
}

impl BodyWriter {
    /// Forwards a body until its end or until the reader is dropped. A body that is shorter than
    /// `content_length` is incomplete.
    ///
    /// # Errors
    /// Why the body is incomplete. The reader gets the same error.
    pub(super) async fn forward(
        self,
        body: &mut Body,
        content_length: Option<u64>,
        idle_timeout: Duration,
        stopping: impl Future<Output = ()>,
    ) -> Result<(), BodyInterrupted> {
        let result = tokio::select! {
            result = self.forward_frames(body, content_length, idle_timeout) => result,
            () = stopping => Err(BodyInterrupted::Stopping),
        };
        let last = result.clone().map_or_else(BodyChunk::Interrupted, |()| BodyChunk::End);
        // The reader may be dropped already.
        drop(self.0.send(last).await);
        result
    }

    async fn forward_frames(
        &self,
        body: &mut Body,
        content_length: Option<u64>,
        idle_timeout: Duration,
    ) -> Result<(), BodyInterrupted> {
        let mut received = 0_u64;
        loop {
            let frame = tokio::select! {
                frame = timeout(idle_timeout, body.frame()) => {
                    frame.map_err(|_| BodyInterrupted::Idle)?
                }
                // The reader found an error. Report that instead of a slow sender.
                () = self.0.closed() => return Ok(()),
            };
            let Some(frame) = frame else {
                return match content_length {
                    Some(length) if received < length => {
                        let reason = format!("{received} of {length} bytes came");
                        Err(BodyInterrupted::ConnectionLost(reason))
                    }
                    _ => Ok(()),
                };
            };
            let frame =
                frame.map_err(|error| BodyInterrupted::ConnectionLost(error.to_string()))?;
            // Trailers are not part of the body.
            let Ok(data) = frame.into_data() else { continue };
            received = received.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
            if self.0.send(BodyChunk::Data(data)).await.is_err() {
                return Ok(());
            }
        }
    }
}

impl BufRead for BodyReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.current.is_empty() && !self.ended {
            if let Some(reason) = &self.interruption {
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, reason.clone()));
            }
            match self.chunks.blocking_recv() {
                Some(BodyChunk::Data(data)) => self.current = data,
                Some(BodyChunk::End) => self.ended = true,
                Some(BodyChunk::Interrupted(reason)) => {
                    self.interruption = Some(reason.to_string());
                }
                None => self.interruption = Some("the body is incomplete".to_owned()),
            }
        }
        Ok(&self.current)
    }

    fn consume(&mut self, amount: usize) {
        self.current.advance(amount);
    }
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}
