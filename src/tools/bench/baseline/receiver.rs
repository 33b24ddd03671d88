//! The bare confirmed publish behind HTTP: read a body, publish it, await the
//! confirm, answer. No signature, no event key, no receipt, no log.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Path, State},
    http::StatusCode,
    routing::post,
};
use bytes::Bytes;
use lapin::{BasicProperties, Channel};
use tokio::{net::TcpListener, sync::Mutex};
use tokio_util::sync::CancellationToken;

use super::broker::{Broker, mandatory, short};
use crate::{net::http_server, tools::bench::stage::Stage};

/// What its handler shares.
#[derive(Clone)]
struct Bare {
    exchange: Arc<str>,
    /// Each behind a lock that is held for the publish and not for the
    /// confirm: the fastest safe shape that was found.
    channels: Arc<Vec<Mutex<Channel>>>,
    next: Arc<AtomicUsize>,
}

/// Serves until stopped, on the same HTTP server as the product's, with as
/// many channels, over the connection given.
///
/// # Errors
/// What the broker says.
pub async fn serve(
    stage: &Stage,
    broker: &Broker,
    listener: TcpListener,
    stop: CancellationToken,
) -> anyhow::Result<impl Future<Output = ()> + use<>> {
    let mut channels = Vec::new();
    for _ in 0..stage.config.broker.publish_channels {
        channels.push(Mutex::new(broker.confirming().await?));
    }
    let bare = Bare {
        exchange: stage.topology.inbound_exchange().into(),
        channels: Arc::new(channels),
        next: Arc::default(),
    };
    let limit = DefaultBodyLimit::max(stage.config.receiver.body_limit_bytes);
    let app = Router::new().route("/hooks/{source}", post(receive)).layer(limit).with_state(bare);
    let patience = std::time::Duration::from_millis(stage.config.receiver.header_timeout_ms);
    Ok(http_server::serve(listener, app, patience, stop))
}

async fn receive(State(bare): State<Bare>, Path(source): Path<String>, body: Bytes) -> StatusCode {
    match bare.publish(&source, &body).await {
        Ok(true) => StatusCode::OK,
        Ok(false) | Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

impl Bare {
    async fn publish(&self, source: &str, body: &[u8]) -> anyhow::Result<bool> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.channels.len();
        let (exchange, key) = (short(&self.exchange)?, short(source)?);
        let properties = BasicProperties::default().with_delivery_mode(2);
        let channel = self.channels[turn].lock().await;
        let confirm = channel.basic_publish(exchange, key, mandatory(), body, properties).await?;
        drop(channel);
        let confirm = confirm.await?;
        Ok(confirm.is_ack())
    }
}
