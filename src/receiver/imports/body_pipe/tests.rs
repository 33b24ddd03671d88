use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::{StreamExt as _, stream};
use http_body_util::StreamBody;
use hyper::body::Frame;

use super::*;

type Chunk = Result<&'static [u8], &'static str>;

/// A body of these chunks, which then stays open or ends.
fn body(chunks: Vec<Chunk>, stays_open: bool) -> Body {
    let frames = stream::iter(chunks).map(|chunk| {
        chunk.map(|data| Frame::data(Bytes::from_static(data))).map_err(std::io::Error::other)
    });
    if stays_open {
        Body::new(StreamBody::new(frames.chain(stream::pending())))
    } else {
        Body::new(StreamBody::new(frames))
    }
}

/// What the reader gets of a body, its error, and the result of the writer.
async fn read(
    mut body: Body,
    content_length: Option<u64>,
    stopping: impl Future<Output = ()>,
) -> (Vec<u8>, Option<String>, Result<(), BodyInterrupted>) {
    let (writer, mut reader) = pipe();
    let reading = tokio::task::spawn_blocking(move || {
        let mut data = Vec::new();
        let first = reader.read_to_end(&mut data).err().map(|error| error.to_string());
        let second = reader.read_to_end(&mut Vec::new()).err().map(|error| error.to_string());
        assert_eq!(first, second, "the error must stay");
        (data, first)
    });
    let result =
        writer.forward(&mut body, content_length, Duration::from_millis(100), stopping).await;
    let (data, error) = reading.await.unwrap();
    (data, error, result)
}

#[tokio::test]
async fn body_pipe_complete_body_ends() {
    let (data, error, result) =
        read(body(vec![Ok(b"ab"), Ok(b""), Ok(b"c")], false), Some(3), pending()).await;
    assert_eq!((data.as_slice(), error, result), (b"abc".as_slice(), None, Ok(())));
    let (data, error, result) = read(body(vec![], false), None, pending()).await;
    assert_eq!((data.as_slice(), error, result), (b"".as_slice(), None, Ok(())));
}

#[tokio::test]
async fn body_pipe_incomplete_body_is_an_error() {
    let reset = read(body(vec![Ok(b"amount,1"), Err("reset")], false), None, pending()).await;
    let short = read(body(vec![Ok(b"amount,1")], false), Some(10), pending()).await;
    let idle = read(body(vec![Ok(b"amount,1")], true), Some(10), pending()).await;
    let stopping = tokio::time::sleep(Duration::from_millis(20));
    let stopped = read(body(vec![Ok(b"amount,1")], true), Some(10), stopping).await;
    for ((data, error, result), word) in
        [(reset, "reset"), (short, "8 of 10 bytes"), (idle, "no data came"), (stopped, "stopped")]
    {
        assert_eq!(data, b"amount,1");
        let message = result.unwrap_err().to_string();
        assert!(message.contains(word), "{message}");
        assert_eq!(error, Some(message));
    }
}

#[tokio::test]
async fn body_pipe_dropped_writer_is_an_error() {
    let (writer, mut reader) = pipe();
    writer.0.send(BodyChunk::Data(Bytes::from_static(b"a"))).await.unwrap();
    drop(writer);
    let reading = tokio::task::spawn_blocking(move || reader.read_to_end(&mut Vec::new()));
    assert!(reading.await.unwrap().is_err());
}

#[tokio::test]
async fn body_pipe_slow_reader_stops_forwarding() {
    let polled = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&polled);
    let frames = stream::repeat_with(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b"x")))
    });
    let (writer, reader) = pipe();
    let mut body = Body::new(StreamBody::new(frames));
    let forwarding = tokio::spawn(async move {
        writer.forward(&mut body, None, Duration::from_mins(1), pending()).await
    });
    // Forwarding pauses because the pipe is full.
    let mut before = usize::MAX;
    while before != polled.load(Ordering::SeqCst) {
        before = polled.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!((1..=MAX_BUFFERED_FRAMES + 1).contains(&before), "{before} frames were polled");
    drop(reader);
    assert_eq!(forwarding.await.unwrap(), Ok(()), "a dropped reader is not an error");
}

#[tokio::test]
async fn body_pipe_dropped_reader_ends_forwarding() {
    let (writer, reader) = pipe();
    drop(reader);
    let mut silent = body(vec![], true);
    let result = writer.forward(&mut silent, None, Duration::from_millis(100), pending()).await;
    assert_eq!(result, Ok(()), "the reader's error would be lost");
}
