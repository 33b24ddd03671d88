//! Keeps a connection to RabbitMQ up.

use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::BrokerError;
use crate::retry::reconnect_delays;

/// Connects, serves until the connection fails, and connects again after a
/// delay with backoff and jitter, until `stop` is cancelled.
///
/// lapin's own recovery stays off: with it an outage gives no error, pending
/// confirms hang, and an old delivery tag can acknowledge another message.
///
/// `serve` returns why it ended; `on_down` gets the reason each time, also
/// that of a failed connect.
pub async fn supervise<C, Connecting, Serving>(
    name: &str,
    stop: &CancellationToken,
    mut connect: impl FnMut() -> Connecting,
    mut serve: impl FnMut(C) -> Serving,
    mut on_down: impl FnMut(&str),
) where
    Connecting: Future<Output = Result<C, BrokerError>>,
    Serving: Future<Output = String>,
{
    let mut next_delay = reconnect_delays();
    while !stop.is_cancelled() {
        let error = match connect().await {
            Ok(connection) => {
                next_delay = reconnect_delays();
                serve(connection).await
            }
            Err(error) => format!("{:#}", anyhow::Error::from(error)),
        };
        on_down(&error);
        if stop.is_cancelled() {
            return;
        }
        let delay = next_delay();
        let retry_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        warn!(connection = name, error, retry_ms, "the connection to RabbitMQ is down");
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = stop.cancelled() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    #[tokio::test]
    async fn supervise_failed_connect_and_lost_connection_reconnects_until_stopped() {
        let stop = CancellationToken::new();
        let (attempts, reasons) = (Cell::new(0), RefCell::new(Vec::new()));
        let connect = || {
            let attempt = attempts.replace(attempts.get() + 1);
            async move { if attempt == 0 { Err(BrokerError::InvalidUrl) } else { Ok(attempt) } }
        };
        let serve = |connection: i32| {
            if connection == 2 {
                stop.cancel();
            }
            async move { format!("connection {connection} was lost") }
        };
        let on_down = |reason: &str| reasons.borrow_mut().push(reason.to_owned());
        supervise("test", &stop, connect, serve, on_down).await;
        let invalid = BrokerError::InvalidUrl.to_string();
        assert_eq!(
            *reasons.borrow(),
            [&*invalid, "connection 1 was lost", "connection 2 was lost"]
        );
    }
}
