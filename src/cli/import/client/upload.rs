//! Uploads a file as a stream, so that only a small part of it is in memory.

use std::{
    fmt,
    io::{self, Read},
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::StreamBody;
use hyper::body::Frame;
use indicatif::ProgressBar;
use reqwest::{Body, Url};
use tokio::{sync::mpsc, time::sleep};

use super::{ReceiverClient, UploadError, parse_response, transport_error};
use crate::cli::{import::api::AcceptedImport, receiver_url};

const CHUNK_BYTES: usize = 64 * 1024;
/// Chunks that are read ahead of the upload.
const CHUNKS_AHEAD: usize = 4;
const MAX_RESENDS: u32 = 4;
/// Longest delay before a file is sent again; it caps `Retry-After`.
const MAX_RESEND_DELAY: Duration = Duration::from_secs(30);
/// An upload without progress for this long fails.
const STALL_TIMEOUT: Duration = Duration::from_mins(2);

/// The input of an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli::import) enum Input {
    File(PathBuf),
    Stdin,
}

impl Input {
    /// `-` is standard input.
    pub(in crate::cli::import) fn new(path: PathBuf) -> Self {
        if path.as_os_str() == "-" { Self::Stdin } else { Self::File(path) }
    }

    /// The file's name without its folders.
    pub(in crate::cli::import) fn name(&self) -> Option<String> {
        match self {
            Self::File(path) => Some(path.file_name()?.to_string_lossy().into_owned()),
            Self::Stdin => None,
        }
    }

    async fn open(&self) -> anyhow::Result<OpenInput> {
        let cannot_read = || format!("nothing was sent: cannot read {self}");
        match self {
            Self::Stdin => {
                Ok(OpenInput { reader: Box::new(io::stdin()), length: None, is_rereadable: false })
            }
            Self::File(path) => {
                let file = tokio::fs::File::open(path).await.with_context(cannot_read)?;
                let metadata = file.metadata().await.with_context(cannot_read)?;
                if metadata.is_dir() {
                    bail!("{}: it is a folder", cannot_read());
                }
                // A named pipe can be read only once.
                let is_rereadable = metadata.is_file();
                let length = is_rereadable.then_some(metadata.len());
                Ok(OpenInput { reader: Box::new(file.into_std().await), length, is_rereadable })
            }
        }
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Stdin => f.write_str("standard input"),
        }
    }
}

/// An opened input.
struct OpenInput {
    reader: Box<dyn Read + Send + Sync>,
    length: Option<u64>,
    is_rereadable: bool,
}

/// A file to upload and its headers.
pub(in crate::cli::import) struct FileUpload<'a> {
    pub(in crate::cli::import) input: &'a Input,
    pub(in crate::cli::import) source: &'a str,
    pub(in crate::cli::import) media_type: &'static str,
    pub(in crate::cli::import) credentials: &'a HeaderMap,
}

impl ReceiverClient {
    /// Uploads a file, with retries while the receiver is unavailable.
    ///
    /// # Errors
    /// The upload failed; the message says what is known of the file.
    pub(in crate::cli::import) async fn upload(
        &self,
        upload: &FileUpload<'_>,
        bar: &ProgressBar,
    ) -> anyhow::Result<AcceptedImport> {
        let mut url = receiver_url::append_path(&self.base, &["imports", upload.source]);
        if let Some(name) = upload.input.name() {
            url.query_pairs_mut().append_pair("name", &name);
        }
        let mut resends = 0;
        loop {
            let input = upload.input.open().await?;
            let is_rereadable = input.is_rereadable;
            bar.set_position(0);
            if let Some(length) = input.length {
                bar.set_length(length);
            }
            let error = match self.attempt(upload, &url, input, bar).await? {
                Ok(accepted) => return Ok(accepted),
                Err(error) => error,
            };
            let can_resend = match error {
                UploadError::NotConnected(_) => is_rereadable || *upload.input == Input::Stdin,
                _ => is_rereadable,
            };
            if resends == MAX_RESENDS || !can_resend || !error.is_transient() {
                bail!("{}", self.describe_failure(upload, &error, can_resend));
            }
            let delay = error.retry_after().unwrap_or(Duration::from_secs(1 << resends));
            let delay = delay.min(MAX_RESEND_DELAY);
            resends += 1;
            bar.suspend(|| {
                let seconds = delay.as_secs();
                eprintln!("{error}; retry in {seconds} s ({resends} of {MAX_RESENDS})");
            });
            sleep(delay).await;
        }
    }

    /// One attempt of an upload.
    ///
    /// # Errors
    /// The file cannot be read.
    async fn attempt(
        &self,
        upload: &FileUpload<'_>,
        url: &Url,
        input: OpenInput,
        bar: &ProgressBar,
    ) -> anyhow::Result<Result<AcceptedImport, UploadError>> {
        let sent = Arc::new(AtomicU64::new(0));
        let read_error: Arc<OnceLock<io::Error>> = Arc::default();
        let body = {
            let (sent, read_error, bar) = (Arc::clone(&sent), Arc::clone(&read_error), bar.clone());
            chunks(input.reader).map(move |chunk| match chunk {
                Ok(chunk) => {
                    let length = chunk.len() as u64;
                    sent.fetch_add(length, Ordering::Relaxed);
                    bar.inc(length);
                    Ok(Frame::data(chunk))
                }
                Err(error) => {
                    let copy = io::Error::from(error.kind());
                    drop(read_error.set(error));
                    Err(copy)
                }
            })
        };
        let request = self
            .client
            .post(url.clone())
            .headers(upload.credentials.clone())
            .header(header::CONTENT_TYPE, HeaderValue::from_static(upload.media_type))
            .body(Body::wrap(StreamBody::new(body)));
        let response =
            async { parse_response(request.send().await.map_err(transport_error)?).await };
        tokio::pin!(response);
        let mut sent_before = 0;
        let response = loop {
            tokio::select! {
                response = &mut response => break response,
                () = sleep(STALL_TIMEOUT) => {
                    let sent_now = sent.load(Ordering::Relaxed);
                    if sent_now == sent_before {
                        let text = format!("no progress for {} s", STALL_TIMEOUT.as_secs());
                        break Err(UploadError::NoResponse(text));
                    }
                    sent_before = sent_now;
                }
            }
        };
        match Arc::into_inner(read_error).and_then(OnceLock::into_inner) {
            Some(error) => {
                let context = format!("cannot read {} to its end; {MAYBE_TAKEN}", upload.input);
                Err(anyhow::Error::new(error).context(context))
            }
            None => Ok(response),
        }
    }

    /// Why an upload failed, and what is known of the file.
    fn describe_failure(
        &self,
        upload: &FileUpload<'_>,
        error: &UploadError,
        can_resend: bool,
    ) -> String {
        let once =
            if can_resend { "" } else { "; it could be read only once, and was not sent again" };
        match error {
            UploadError::NotConnected(_) => format!("nothing was sent to {}: {error}", self.base),
            UploadError::ErrorResponse { status, .. } if !error.is_transient() => {
                let hint = match *status {
                    StatusCode::UNAUTHORIZED => {
                        format!(
                            "; it was sent with the first secret of the source {}",
                            upload.source
                        )
                    }
                    StatusCode::NOT_FOUND => {
                        format!("; {} may not have the source {}", self.base, upload.source)
                    }
                    StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                        format!("; it was sent as {}, see --format", upload.media_type)
                    }
                    _ => String::new(),
                };
                format!("nothing was accepted: {error}{hint}")
            }
            // The detail says how much was accepted.
            UploadError::ErrorResponse { detail, .. } if !detail.is_empty() => {
                format!("{error}{once}")
            }
            _ => format!("{error}{once}; {MAYBE_TAKEN}"),
        }
    }
}

/// The chunks of an input. They are read on a separate thread, because one that
/// waits for standard input must not keep the process from ending. Reading
/// starts with the first poll: without a connection nothing is read, so that
/// standard input can still be sent completely.
fn chunks(
    reader: Box<dyn Read + Send + Sync>,
) -> impl Stream<Item = io::Result<Bytes>> + Send + Sync {
    let mut reader = Some(reader);
    let (sender, mut receiver) = mpsc::channel(CHUNKS_AHEAD);
    let mut sender = Some(sender);
    stream::poll_fn(move |context| {
        if let Some((reader, sender)) = reader.take().zip(sender.take()) {
            std::thread::spawn(move || read_chunks(reader, &sender));
        }
        receiver.poll_recv(context)
    })
}

/// Reads to the end, or until the upload ends.
fn read_chunks(mut reader: Box<dyn Read + Send + Sync>, sender: &mpsc::Sender<io::Result<Bytes>>) {
    loop {
        let mut chunk = vec![0; CHUNK_BYTES];
        let read = match reader.read(&mut chunk) {
            Ok(0) => return,
            Ok(length) => {
                chunk.truncate(length);
                Ok(Bytes::from(chunk))
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let is_last = read.is_err();
        // A closed channel means that the receiver has responded.
        if sender.blocking_send(read).is_err() || is_last {
            return;
        }
    }
}

/// What is known of a file without a response.
pub(in crate::cli::import) const MAYBE_TAKEN: &str =
    "some of it may have been accepted; sending it again adds nothing twice";
