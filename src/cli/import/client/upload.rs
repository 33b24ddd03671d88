//! Sends a file, as a stream: however large it is, little of it is in memory.

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

/// How much is read at once, in bytes.
const CHUNK_BYTES: usize = 64 * 1024;
/// How many pieces are read ahead.
const CHUNKS_AHEAD: usize = 4;
/// How often a file is sent again.
const MAX_RESENDS: u32 = 4;
/// The longest wait before a file is sent again, whatever the receiver asks.
const MAX_RESEND_DELAY: Duration = Duration::from_secs(30);
/// How long a transfer may stand still.
const STALL_TIMEOUT: Duration = Duration::from_mins(2);

/// What is imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli::import) enum Input {
    /// A file.
    File(PathBuf),
    /// Whatever another program writes.
    Stdin,
}

impl Input {
    /// `-` is standard input.
    pub(in crate::cli::import) fn new(path: PathBuf) -> Self {
        if path.as_os_str() == "-" { Self::Stdin } else { Self::File(path) }
    }

    /// What the file is called, without its folders.
    pub(in crate::cli::import) fn name(&self) -> Option<String> {
        match self {
            Self::File(path) => Some(path.file_name()?.to_string_lossy().into_owned()),
            Self::Stdin => None,
        }
    }

    async fn open(&self) -> anyhow::Result<OpenInput> {
        let cannot = || format!("nothing was sent: cannot read {self}");
        match self {
            Self::Stdin => {
                Ok(OpenInput { reader: Box::new(io::stdin()), length: None, is_rereadable: false })
            }
            Self::File(path) => {
                let file = tokio::fs::File::open(path).await.with_context(cannot)?;
                let metadata = file.metadata().await.with_context(cannot)?;
                if metadata.is_dir() {
                    bail!("{}: it is a folder", cannot());
                }
                // Not so a pipe, which is read once.
                let is_lasting = metadata.is_file();
                let length = is_lasting.then_some(metadata.len());
                Ok(OpenInput {
                    reader: Box::new(file.into_std().await),
                    length,
                    is_rereadable: is_lasting,
                })
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

/// An input that is about to be read.
struct OpenInput {
    reader: Box<dyn Read + Send + Sync>,
    length: Option<u64>,
    /// Whether it can be read again.
    is_rereadable: bool,
}

/// What is sent, and as what.
pub(in crate::cli::import) struct FileUpload<'a> {
    pub(in crate::cli::import) input: &'a Input,
    pub(in crate::cli::import) source: &'a str,
    pub(in crate::cli::import) media_type: &'static str,
    pub(in crate::cli::import) credentials: &'a HeaderMap,
}

impl ReceiverClient {
    /// Sends a file, again for a while if nobody takes it, and gives back the
    /// answer of who did.
    ///
    /// # Errors
    /// Nobody took all of it; the message says what is known of the rest.
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
            let opened = upload.input.open().await?;
            let is_lasting = opened.is_rereadable;
            bar.set_position(0);
            if let Some(length) = opened.length {
                bar.set_length(length);
            }
            let trouble = match self.attempt(upload, &url, opened, bar).await? {
                Ok(accepted) => return Ok(accepted),
                Err(trouble) => trouble,
            };
            let can = match trouble {
                UploadError::NotConnected(_) => is_lasting || *upload.input == Input::Stdin,
                _ => is_lasting,
            };
            if resends == MAX_RESENDS || !can || !trouble.is_transient() {
                bail!("{}", self.describe_failure(upload, &trouble, can));
            }
            let wait = trouble.retry_after().unwrap_or(Duration::from_secs(1 << resends));
            let wait = wait.min(MAX_RESEND_DELAY);
            resends += 1;
            bar.suspend(|| {
                let seconds = wait.as_secs();
                eprintln!("{trouble}; again in {seconds} s ({resends} of {MAX_RESENDS})");
            });
            sleep(wait).await;
        }
    }

    /// One attempt.
    ///
    /// # Errors
    /// The file cannot be read.
    async fn attempt(
        &self,
        upload: &FileUpload<'_>,
        url: &Url,
        opened: OpenInput,
        bar: &ProgressBar,
    ) -> anyhow::Result<Result<AcceptedImport, UploadError>> {
        let sent = Arc::new(AtomicU64::new(0));
        let unread: Arc<OnceLock<io::Error>> = Arc::default();
        let body = {
            let (sent, unread, bar) = (Arc::clone(&sent), Arc::clone(&unread), bar.clone());
            chunks(opened.reader).map(move |piece| match piece {
                Ok(piece) => {
                    let length = piece.len() as u64;
                    sent.fetch_add(length, Ordering::Relaxed);
                    bar.inc(length);
                    Ok(Frame::data(piece))
                }
                Err(error) => {
                    let told = io::Error::from(error.kind());
                    drop(unread.set(error));
                    Err(told)
                }
            })
        };
        let request = self
            .client
            .post(url.clone())
            .headers(upload.credentials.clone())
            .header(header::CONTENT_TYPE, HeaderValue::from_static(upload.media_type))
            .body(Body::wrap(StreamBody::new(body)));
        let answer = async { parse_response(request.send().await.map_err(transport_error)?).await };
        tokio::pin!(answer);
        let mut seen = 0;
        let answer = loop {
            tokio::select! {
                answer = &mut answer => break answer,
                () = sleep(STALL_TIMEOUT) => {
                    let now = sent.load(Ordering::Relaxed);
                    if now == seen {
                        let text = format!("nothing moved for {} s", STALL_TIMEOUT.as_secs());
                        break Err(UploadError::NoResponse(text));
                    }
                    seen = now;
                }
            }
        };
        match Arc::into_inner(unread).and_then(OnceLock::into_inner) {
            Some(error) => {
                let told = format!("cannot read {} to its end; {MAYBE_TAKEN}", upload.input);
                Err(anyhow::Error::new(error).context(told))
            }
            None => Ok(answer),
        }
    }

    /// Why a file was not taken, and what is known of it.
    fn describe_failure(
        &self,
        upload: &FileUpload<'_>,
        trouble: &UploadError,
        can: bool,
    ) -> String {
        let once = if can { "" } else { "; it could be read only once, and was not sent again" };
        match trouble {
            UploadError::NotConnected(_) => format!("nothing was sent to {}: {trouble}", self.base),
            UploadError::ErrorResponse { status, .. } if !trouble.is_transient() => {
                let hint = match *status {
                    StatusCode::UNAUTHORIZED => {
                        format!(". Sent was the first secret of the source {}", upload.source)
                    }
                    StatusCode::NOT_FOUND => {
                        format!(". Does {} know the source {}?", self.base, upload.source)
                    }
                    StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                        format!(". Sent was {}; see --format", upload.media_type)
                    }
                    _ => String::new(),
                };
                format!("nothing was taken: {trouble}{hint}")
            }
            // It says itself how much of it is in.
            UploadError::ErrorResponse { detail, .. } if !detail.is_empty() => {
                format!("{trouble}{once}")
            }
            _ => format!("{trouble}{once}; {MAYBE_TAKEN}"),
        }
    }
}

/// What is read, piece by piece. On a thread of its own: one that waits for
/// standard input must not hold the process up when it is to end. It begins
/// when the first piece is asked for: without a connection nothing is read, and
/// so nothing is missing when standard input is sent after all.
fn chunks(
    from: Box<dyn Read + Send + Sync>,
) -> impl Stream<Item = io::Result<Bytes>> + Send + Sync {
    let mut from = Some(from);
    let (sender, mut receiver) = mpsc::channel(CHUNKS_AHEAD);
    let mut sender = Some(sender);
    stream::poll_fn(move |context| {
        if let Some((from, sender)) = from.take().zip(sender.take()) {
            std::thread::spawn(move || read_chunks(from, &sender));
        }
        receiver.poll_recv(context)
    })
}

/// Reads to the end, or until nobody takes it any more.
fn read_chunks(mut from: Box<dyn Read + Send + Sync>, sender: &mpsc::Sender<io::Result<Bytes>>) {
    loop {
        let mut piece = vec![0; CHUNK_BYTES];
        let read = match from.read(&mut piece) {
            Ok(0) => return,
            Ok(length) => {
                piece.truncate(length);
                Ok(Bytes::from(piece))
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let is_last = read.is_err();
        // Nobody takes it any more: the receiver has answered.
        if sender.blocking_send(read).is_err() || is_last {
            return;
        }
    }
}

/// What is true of a file that was not answered for.
pub(in crate::cli::import) const MAYBE_TAKEN: &str =
    "some of it may have been taken; sending it again adds nothing twice";
