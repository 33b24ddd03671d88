//! A pipe tells the end of a body from its being cut off, and lets nobody run
//! ahead of its reader.

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

/// A body of these chunks, which then goes on for ever or ends.
fn body(chunks: Vec<Chunk>, goes_on: bool) -> Body {
    let frames = stream::iter(chunks).map(|chunk| {
        chunk.map(|data| Frame::data(Bytes::from_static(data))).map_err(std::io::Error::other)
    });
    if goes_on {
        Body::new(StreamBody::new(frames.chain(stream::pending())))
    } else {
        Body::new(StreamBody::new(frames))
    }
}

/// What is read of a body, and what is said of its end on either side.
async fn read(
    mut body: Body,
    told: Option<u64>,
    stopping: impl Future<Output = ()>,
) -> (Vec<u8>, Option<String>, Result<(), BodyInterrupted>) {
    let (inlet, mut outlet) = pipe();
    let reader = tokio::task::spawn_blocking(move || {
        let mut seen = Vec::new();
        let first = outlet.read_to_end(&mut seen).err().map(|error| error.to_string());
        let second = outlet.read_to_end(&mut Vec::new()).err().map(|error| error.to_string());
        assert_eq!(first, second, "an end that is none must not pass with time");
        (seen, first)
    });
    let passed = inlet.forward(&mut body, told, Duration::from_millis(100), stopping).await;
    let (seen, error) = reader.await.unwrap();
    (seen, error, passed)
}

#[tokio::test]
async fn a_body_that_ends_has_an_end() {
    let (seen, error, passed) =
        read(body(vec![Ok(b"ab"), Ok(b""), Ok(b"c")], false), Some(3), pending()).await;
    assert_eq!((seen.as_slice(), error, passed), (b"abc".as_slice(), None, Ok(())));
    let (seen, error, passed) = read(body(vec![], false), None, pending()).await;
    assert_eq!((seen.as_slice(), error, passed), (b"".as_slice(), None, Ok(())));
}

#[tokio::test]
async fn a_body_that_breaks_off_is_never_taken_for_whole() {
    // A reset, a connection that ends without one, silence, a stop.
    let reset = read(body(vec![Ok(b"amount,1"), Err("reset")], false), None, pending()).await;
    let short = read(body(vec![Ok(b"amount,1")], false), Some(10), pending()).await;
    let idle = read(body(vec![Ok(b"amount,1")], true), Some(10), pending()).await;
    let stopping = tokio::time::sleep(Duration::from_millis(20));
    let stopped = read(body(vec![Ok(b"amount,1")], true), Some(10), stopping).await;
    for ((seen, error, passed), word) in
        [(reset, "reset"), (short, "8 of 10 bytes"), (idle, "nothing came"), (stopped, "stopped")]
    {
        assert_eq!(seen, b"amount,1");
        let cut = passed.unwrap_err().message();
        assert!(cut.contains(word), "{cut}");
        assert_eq!(error, Some(cut));
    }
}

#[tokio::test]
async fn a_pipe_that_is_dropped_is_no_end() {
    let (inlet, mut outlet) = pipe();
    inlet.0.send(BodyChunk::Data(Bytes::from_static(b"a"))).await.unwrap();
    drop(inlet);
    let read = tokio::task::spawn_blocking(move || outlet.read_to_end(&mut Vec::new()));
    assert!(read.await.unwrap().is_err());
}

#[tokio::test]
async fn a_sender_runs_no_further_ahead_than_a_few_frames() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let frames = stream::repeat_with(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b"x")))
    });
    let (inlet, outlet) = pipe();
    let mut body = Body::new(StreamBody::new(frames));
    let passing = tokio::spawn(async move {
        inlet.forward(&mut body, None, Duration::from_mins(1), pending()).await
    });
    // It stops by itself: nobody reads, and nothing else ends it.
    let mut before = usize::MAX;
    while before != asked.load(Ordering::SeqCst) {
        before = asked.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!((1..=MAX_BUFFERED_FRAMES + 1).contains(&before), "{before} frames were taken");
    drop(outlet);
    assert_eq!(passing.await.unwrap(), Ok(()), "who is done reading is no trouble");
}

#[tokio::test]
async fn who_is_done_reading_waits_for_nothing_more() {
    let (inlet, outlet) = pipe();
    drop(outlet);
    let mut silent = body(vec![], true);
    let passed = inlet.forward(&mut silent, None, Duration::from_millis(100), pending()).await;
    assert_eq!(passed, Ok(()), "why the file cannot be read would not be told");
}
