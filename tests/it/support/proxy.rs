//! A proxy that can fall silent: what a network that swallows packets, or a
//! machine that dies without a word, looks like from our side.

use std::net::TcpListener as StdListener;

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// In front of one server.
pub(crate) struct Proxy {
    era: watch::Sender<u32>,
}

impl Proxy {
    /// Puts a proxy in front of the server that a URL names, and itself into
    /// the URL.
    pub(crate) fn before(url: &mut String) -> Self {
        let at = url.rfind("127.0.0.1:").unwrap() + "127.0.0.1:".len();
        let end = at + url[at..].find('/').unwrap();
        let upstream: u16 = url[at..end].parse().unwrap();
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        url.replace_range(at..end, &listener.local_addr().unwrap().port().to_string());
        let (era, now) = watch::channel(0);
        let listener = TcpListener::from_std(listener).unwrap();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let mut now = now.clone();
                now.mark_unchanged();
                tokio::spawn(forward(client, upstream, now));
            }
        });
        Self { era }
    }

    /// From now on nothing gets through on the connections there are, and
    /// nobody is told. New ones work.
    pub(crate) fn silence(&self) {
        self.era.send_modify(|era| *era += 1);
    }
}

async fn forward(mut client: TcpStream, upstream: u16, mut now: watch::Receiver<u32>) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", upstream)).await else {
        return;
    };
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut server) => {}
        Ok(()) = now.changed() => {
            // The server sees the connection end, the client sees nothing.
            drop(server);
            std::future::pending::<()>().await;
        }
    }
}
