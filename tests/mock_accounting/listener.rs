//! The TCP listener; it can close for a while to simulate an outage.

use std::{collections::HashMap, io, net::SocketAddr, sync::Arc, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    task::AbortHandle,
};

use crate::admin_api::Api;

/// A request to close the listener.
struct OutageRequest {
    /// The connection of the request; it still gets its response.
    caller: u64,
    /// Length of the outage; `None` means until restart.
    pause: Option<Duration>,
    /// Notified once the listener and all other connections are closed.
    closed: oneshot::Sender<()>,
}

/// Lets a request handler close the listener.
#[derive(Clone)]
pub(crate) struct ListenerControl {
    caller: u64,
    requests: mpsc::Sender<OutageRequest>,
}

impl ListenerControl {
    /// Closes the listener and every connection but the caller's own; returns
    /// when they are.
    pub(crate) async fn vanish(&self, pause: Option<Duration>) {
        let (closed, closed_signal) = oneshot::channel();
        let request = OutageRequest { caller: self.caller, pause, closed };
        if self.requests.send(request).await.is_ok() {
            // An error means that the listener task has ended.
            drop(closed_signal.await);
        }
    }
}

/// Serves until the port cannot be bound again after an outage.
pub(crate) async fn serve(mut listener: TcpListener, api: Arc<Api>) -> io::Result<()> {
    let address = listener.local_addr()?;
    let (requests, mut received) = mpsc::channel(1);
    let mut connections: HashMap<u64, AbortHandle> = HashMap::new();
    let mut count = 0;
    loop {
        let request = tokio::select! {
            accepted = listener.accept() => {
                match accepted {
                    Ok((stream, _)) => {
                        count += 1;
                        let control = ListenerControl { caller: count, requests: requests.clone() };
                        let task = tokio::spawn(connection(stream, Arc::clone(&api), control));
                        connections.retain(|_, task| !task.is_finished());
                        connections.insert(count, task.abort_handle());
                    }
                    // Usually EMFILE; wait until some connections end.
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
                continue;
            }
            request = received.recv() => request,
        };
        // This function holds a sender, so the channel never closes.
        let Some(OutageRequest { caller, pause, closed }) = request else { continue };
        drop(listener);
        for (_, task) in connections.extract_if(|connection, _| *connection != caller) {
            task.abort();
        }
        let _ = closed.send(());
        listener = rebind(address, pause).await?;
    }
}

async fn rebind(address: SocketAddr, pause: Option<Duration>) -> io::Result<TcpListener> {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
    TcpListener::bind(address).await
}

async fn connection(stream: TcpStream, api: Arc<Api>, control: ListenerControl) {
    // Delayed segments would look like slow responses.
    drop(stream.set_nodelay(true));
    let service = service_fn(|request| {
        let (api, control) = (Arc::clone(&api), control.clone());
        async move { api.serve(request, &control).await }
    });
    // Errors are expected: simulated missing responses and clients that gave up.
    drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
}
