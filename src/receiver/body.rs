//! Reads request bodies within limits of size and time.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderMap, StatusCode, header},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use tokio::time::timeout;

use super::response::Problem;

/// How much of a body that is too large is read and dropped. Otherwise a client that is still
/// sending would see its connection break instead of the response.
const MAX_DRAIN_BYTES: usize = 32 * 1024 * 1024;

/// Reads a body of at most `limit` bytes within `time_limit`.
///
/// # Errors
/// 413, 408, or 400 for an incomplete body.
pub(super) async fn read_body(
    headers: &HeaderMap,
    body: Body,
    limit: usize,
    time_limit: Duration,
) -> Result<Bytes, Problem> {
    let too_large = || {
        let detail = format!("a body may have at most {limit} bytes");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "Content too large", detail)
    };
    let content_length = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    // Reject `Expect: 100-continue` before the client sends the body.
    if headers.contains_key(header::EXPECT) && content_length.is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    match timeout(time_limit, collect(body, limit, content_length.unwrap_or_default())).await {
        Ok(Ok(Some(bytes))) => Ok(bytes),
        Ok(Ok(None)) => Err(too_large()),
        Ok(Err(error)) => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "Bad request",
            format!("the body is incomplete: {error}"),
        )),
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "Request timeout",
            "the body did not arrive in time",
        )),
    }
}

/// The body, or `None` if it exceeds the limit.
async fn collect(
    mut body: Body,
    limit: usize,
    content_length: usize,
) -> Result<Option<Bytes>, axum::Error> {
    let mut buffer = BytesMut::with_capacity(content_length.min(limit));
    let mut received = 0_usize;
    while let Some(frame) = body.frame().await {
        // Trailers are not part of the body.
        let Ok(data) = frame?.into_data() else { continue };
        received = received.saturating_add(data.len());
        if received <= limit {
            buffer.extend_from_slice(&data);
        } else if received > limit.saturating_add(MAX_DRAIN_BYTES) {
            break;
        } else {
            buffer = BytesMut::new();
        }
    }
    Ok((received <= limit).then(|| buffer.freeze()))
}

/// Reads the rest of a body and drops it, within limits, so that a client that is still sending
/// sees the response.
pub(super) async fn drain(body: &mut Body, time_limit: Duration) {
    let drained = async {
        let mut received = 0_usize;
        while received <= MAX_DRAIN_BYTES
            && let Some(Ok(frame)) = body.frame().await
        {
            received = received.saturating_add(frame.data_ref().map_or(0, Bytes::len));
        }
    };
    // After the time limit the response is sent anyway.
    drop(timeout(time_limit, drained).await);
}
