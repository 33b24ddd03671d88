//! A proxy that can go silent or refuse connections: to the product it looks like a network that drops
//! packets, or a server that is down.

use std::net::TcpListener as StdListener;

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// In front of one server.
pub(crate) struct Proxy {
    state: watch::Sender<State>,
}

/// What happens to connections when it changes.
#[derive(Clone, Copy)]
enum State {
    Open,
    /// Open connections stay open in silence; new ones work.
    Silenced,
    /// Every connection is closed, new ones at once.
    Cut,
}

impl Proxy {
    /// Puts a proxy in front of the server that a URL names, and itself into the URL.
    pub(crate) fn before(url: &mut String) -> Self {
        let at = url.rfind("127.0.0.1:").unwrap() + "127.0.0.1:".len();
        let end = at + url[at..].find('/').unwrap();
        let upstream: u16 = url[at..end].parse().unwrap();
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        url.replace_range(at..end, &listener.local_addr().unwrap().port().to_string());
        let (sender, receiver) = watch::channel(State::Open);
        let listener = TcpListener::from_std(listener).unwrap();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let mut state = receiver.clone();
                if !matches!(*state.borrow_and_update(), State::Cut) {
                    tokio::spawn(forward(client, upstream, state));
                }
            }
        });
        Self { state: sender }
    }

    /// From now on, the open connections transfer nothing, and neither side is notified. New
    /// connections work.
    pub(crate) fn silence(&self) {
        self.state.send_replace(State::Silenced);
    }

    /// Closes every connection, and each new one at once, until [`Proxy::restore`].
    pub(crate) fn cut(&self) {
        self.state.send_replace(State::Cut);
    }

    pub(crate) fn restore(&self) {
        self.state.send_replace(State::Open);
    }
}

async fn forward(mut client: TcpStream, upstream: u16, mut state: watch::Receiver<State>) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", upstream)).await else {
        return;
    };
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut server) => return,
        // A dropped proxy keeps its last state.
        Ok(()) = state.changed() => {}
    }
    if matches!(*state.borrow(), State::Silenced) {
        // The server sees the connection end, the client sees nothing.
        drop(server);
        std::future::pending::<()>().await;
    }
}
