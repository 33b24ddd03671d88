//! A direct broker connection: purge, delete, version, bare channels.

use std::time::Duration;

use anyhow::Context as _;
use lapin::{
    Channel, Connection, ConnectionProperties,
    options::{
        BasicPublishOptions, ConfirmSelectOptions, ExchangeDeleteOptions, QueueDeclareOptions,
        QueueDeleteOptions, QueuePurgeOptions,
    },
    types::{FieldTable, ShortString},
    uri::{AMQPScheme, AMQPUri},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) struct Broker {
    connection: Connection,
}

impl Broker {
    /// Connects.
    pub(crate) async fn open(url: &str) -> anyhow::Result<Self> {
        let connecting = Connection::connect(url, ConnectionProperties::default());
        let connection =
            timeout(RESPONSE_TIMEOUT, connecting).await.context("RabbitMQ does not respond")??;
        Ok(Self { connection })
    }

    pub(crate) async fn channel(&self) -> anyhow::Result<Channel> {
        Ok(timeout(RESPONSE_TIMEOUT, self.connection.create_channel()).await??)
    }

    /// A channel in confirm mode.
    pub(crate) async fn confirming(&self) -> anyhow::Result<Channel> {
        let channel = self.channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(channel)
    }

    pub(crate) async fn purge(&self, queue: &str) -> anyhow::Result<()> {
        let channel = self.channel().await?;
        let purging = channel.queue_purge(short(queue)?, QueuePurgeOptions::default());
        timeout(RESPONSE_TIMEOUT, purging).await??;
        close(channel).await
    }

    /// Waits until a queue has this many ready messages.
    pub(crate) async fn wait_for(&self, queue: &str, expected: usize) -> anyhow::Result<()> {
        let channel = self.channel().await?;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let waiting = async {
            loop {
                let declared = channel.queue_declare(short(queue)?, passive, FieldTable::default());
                let ready = usize::try_from(declared.await?.message_count()).unwrap_or(usize::MAX);
                if ready >= expected {
                    return anyhow::Ok(());
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(RESPONSE_TIMEOUT, waiting)
            .await
            .context("the backlog did not arrive in its queue")??;
        close(channel).await
    }

    /// Deletes a queue and an exchange of the same name.
    pub(crate) async fn delete(&self, queue: &str) -> anyhow::Result<()> {
        let channel = self.channel().await?;
        let deleting = channel.queue_delete(short(queue)?, QueueDeleteOptions::default());
        timeout(RESPONSE_TIMEOUT, deleting).await??;
        close(channel).await?;
        self.delete_exchange(queue).await
    }

    /// Deletes an exchange; a missing one is no error.
    pub(crate) async fn delete_exchange(&self, name: &str) -> anyhow::Result<()> {
        let channel = self.channel().await?;
        let deleting = channel.exchange_delete(short(name)?, ExchangeDeleteOptions::default());
        timeout(RESPONSE_TIMEOUT, deleting).await??;
        close(channel).await
    }

    /// Closes the connection.
    pub(crate) async fn close(&self) {
        if let Ok(done) = short("done") {
            drop(timeout(Duration::from_secs(2), self.connection.close(200, done)).await);
        }
    }
}

pub(super) fn mandatory() -> BasicPublishOptions {
    BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() }
}

pub(super) fn short(name: &str) -> anyhow::Result<ShortString> {
    ShortString::try_new(name).map_err(|_| anyhow::anyhow!("{name} is too long for AMQP"))
}

async fn close(channel: Channel) -> anyhow::Result<()> {
    timeout(RESPONSE_TIMEOUT, channel.close(200, short("done")?)).await??;
    Ok(())
}

/// The broker's version, from the first frame of the handshake. The client
/// library does not expose it.
pub(crate) async fn version(url: &str) -> Option<String> {
    let uri: AMQPUri = url.parse().ok()?;
    if uri.scheme != AMQPScheme::AMQP {
        return None;
    }
    let asking = async {
        let authority = (uri.authority.host.as_str(), uri.authority.port);
        let mut stream = TcpStream::connect(authority).await.ok()?;
        stream.write_all(b"AMQP\x00\x00\x09\x01").await.ok()?;
        let mut head = [0; 7];
        stream.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
        let mut frame = vec![0; usize::try_from(length.min(64 * 1024)).ok()?];
        stream.read_exact(&mut frame).await.ok()?;
        version_in(&frame)
    };
    timeout(Duration::from_secs(5), asking).await.ok()?
}

/// The long string `version` among the server's properties.
fn version_in(frame: &[u8]) -> Option<String> {
    const FIELD: &[u8] = b"\x07versionS";
    let at = frame.windows(FIELD.len()).position(|window| window == FIELD)?;
    let (length, text) = frame[at + FIELD.len()..].split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    String::from_utf8(text.get(..length)?.to_vec()).ok()
}
