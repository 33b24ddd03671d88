//! The bare confirmed publish behind HTTP: reads a body, publishes it, waits
//! for the confirm, responds. No signature, event key, receipt or log.

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
use crate::{net::http_server, tools::bench::environment::BenchEnvironment};

#[derive(Clone)]
struct BareReceiver {
    exchange: Arc<str>,
    /// Locked for the publish, not for the confirm: the fastest safe variant.
    channels: Arc<Vec<Mutex<Channel>>>,
    next: Arc<AtomicUsize>,
}

/// Serves until stopped, with the product's HTTP server and number of channels.
pub(crate) async fn serve(
    environment: &BenchEnvironment,
    broker: &Broker,
    listener: TcpListener,
    stop: CancellationToken,
) -> anyhow::Result<impl Future<Output = ()> + use<>> {
    let mut channels = Vec::new();
    for _ in 0..environment.config.broker.publish_channels {
        channels.push(Mutex::new(broker.confirming().await?));
    }
    let bare = BareReceiver {
        exchange: environment.topology.inbound_exchange().into(),
        channels: Arc::new(channels),
        next: Arc::default(),
    };
    let limit = DefaultBodyLimit::max(environment.config.receiver.body_limit_bytes);
    let app = Router::new().route("/hooks/{source}", post(receive)).layer(limit).with_state(bare);
    let header_timeout =
        std::time::Duration::from_millis(environment.config.receiver.header_timeout_ms);
    Ok(http_server::serve(listener, app, header_timeout, stop))
}

async fn receive(
    State(bare): State<BareReceiver>,
    Path(source): Path<String>,
    body: Bytes,
) -> StatusCode {
    match bare.publish(&source, &body).await {
        Ok(true) => StatusCode::OK,
        Ok(false) | Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

impl BareReceiver {
    async fn publish(&self, source: &str, body: &[u8]) -> anyhow::Result<bool> {
        let index = self.next.fetch_add(1, Ordering::Relaxed) % self.channels.len();
        let (exchange, key) = (short(&self.exchange)?, short(source)?);
        let properties = BasicProperties::default().with_delivery_mode(2);
        let channel = self.channels[index].lock().await;
        let confirm = channel.basic_publish(exchange, key, mandatory(), body, properties).await?;
        drop(channel);
        let confirm = confirm.await?;
        Ok(confirm.is_ack())
    }
}
