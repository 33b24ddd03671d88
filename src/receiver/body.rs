//! Reading a body whole, within its limits of size and time.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderMap, StatusCode, header},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use tokio::time::timeout;

use super::response::Problem;

/// How much of a body that is too large is read and thrown away: a client
/// that is still sending would otherwise see its connection break, and never
/// the answer that says why.
const MAX_DRAIN_BYTES: usize = 32 * 1024 * 1024;

/// Reads a body of at most `limit` bytes in at most `patience`.
///
/// # Errors
/// 413, 408, or 400 for a body that breaks off.
pub(super) async fn read_body(
    headers: &HeaderMap,
    body: Body,
    limit: usize,
    patience: Duration,
) -> Result<Bytes, Problem> {
    let too_large = || {
        let detail = format!("a body may have {limit} bytes");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "Too large", detail)
    };
    let told = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    // Whoever asks before sending is spared the sending.
    if headers.contains_key(header::EXPECT) && told.is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    match timeout(patience, collect(body, limit, told.unwrap_or_default())).await {
        Ok(Ok(Some(bytes))) => Ok(bytes),
        Ok(Ok(None)) => Err(too_large()),
        Ok(Err(error)) => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "Unreadable",
            format!("the body broke off: {error}"),
        )),
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "Too slow",
            "the body did not arrive in time",
        )),
    }
}

/// The body, or `None` if it is larger than the limit.
async fn collect(mut body: Body, limit: usize, told: usize) -> Result<Option<Bytes>, axum::Error> {
    let mut kept = BytesMut::with_capacity(told.min(limit));
    let mut seen = 0_usize;
    while let Some(frame) = body.frame().await {
        // Trailers are no part of it.
        let Ok(data) = frame?.into_data() else { continue };
        seen = seen.saturating_add(data.len());
        if seen <= limit {
            kept.extend_from_slice(&data);
        } else if seen > limit.saturating_add(MAX_DRAIN_BYTES) {
            break;
        } else {
            kept = BytesMut::new();
        }
    }
    Ok((seen <= limit).then(|| kept.freeze()))
}

/// Reads the rest of a body that is not wanted and throws it away, within
/// limits: a client that is still sending would otherwise not see the answer.
pub(super) async fn drain(body: &mut Body, patience: Duration) {
    let all = async {
        let mut seen = 0_usize;
        while seen <= MAX_DRAIN_BYTES
            && let Some(Ok(frame)) = body.frame().await
        {
            seen = seen.saturating_add(frame.data_ref().map_or(0, Bytes::len));
        }
    };
    // Whoever takes longer has been given a chance.
    drop(timeout(patience, all).await);
}
