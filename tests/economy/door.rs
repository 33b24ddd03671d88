//! The listener, which can vanish and come back.

use std::{collections::HashMap, io, net::SocketAddr, sync::Arc, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    task::AbortHandle,
};

use crate::desk::Desk;

/// A wish to vanish.
struct Vanishing {
    /// The connection that brought it, which still gets its answer.
    caller: u64,
    /// For how long; `None` is for good.
    pause: Option<Duration>,
    /// Told once nobody can get in any more.
    gone: oneshot::Sender<()>,
}

/// One connection's way to close the door.
#[derive(Clone)]
pub(crate) struct Latch {
    caller: u64,
    wishes: mpsc::Sender<Vanishing>,
}

impl Latch {
    /// Closes the listener and every connection but the caller's own; returns
    /// when they are.
    pub(crate) async fn vanish(&self, pause: Option<Duration>) {
        let (gone, told) = oneshot::channel();
        let wish = Vanishing { caller: self.caller, pause, gone };
        if self.wishes.send(wish).await.is_ok() {
            // Dropped only if the door is gone for another reason.
            drop(told.await);
        }
    }
}

/// Serves until the listener cannot be had any more.
///
/// # Errors
/// A port that somebody else took while this was away.
pub(crate) async fn serve(mut listener: TcpListener, desk: Arc<Desk>) -> io::Result<()> {
    let address = listener.local_addr()?;
    let (wishes, mut received) = mpsc::channel(1);
    let mut connections: HashMap<u64, AbortHandle> = HashMap::new();
    let mut count = 0;
    loop {
        let wish = tokio::select! {
            accepted = listener.accept() => {
                match accepted {
                    Ok((stream, _)) => {
                        count += 1;
                        let latch = Latch { caller: count, wishes: wishes.clone() };
                        let task = tokio::spawn(connection(stream, Arc::clone(&desk), latch));
                        connections.retain(|_, task| !task.is_finished());
                        connections.insert(count, task.abort_handle());
                    }
                    // Out of file descriptors, mostly: let some connections end.
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
                continue;
            }
            wish = received.recv() => wish,
        };
        // This holds a sender itself, so that there is always one.
        let Some(Vanishing { caller, pause, gone }) = wish else { continue };
        drop(listener);
        for (_, task) in connections.extract_if(|connection, _| *connection != caller) {
            task.abort();
        }
        // A caller that has hung up needs no answer.
        let _ = gone.send(());
        listener = come_back(address, pause).await?;
    }
}

async fn come_back(address: SocketAddr, pause: Option<Duration>) -> io::Result<TcpListener> {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
    TcpListener::bind(address).await
}

async fn connection(stream: TcpStream, desk: Arc<Desk>, latch: Latch) {
    // An answer that waits for the next segment would be taken for a slow one.
    drop(stream.set_nodelay(true));
    let service = service_fn(|request| {
        let (desk, latch) = (Arc::clone(&desk), latch.clone());
        async move { desk.serve(request, &latch).await }
    });
    // It ends in an error where no answer is given, and where a client gives
    // up: nothing that anybody must be told.
    drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
}
