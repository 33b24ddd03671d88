//! The private servers survive a crash with their data, and leave nothing behind.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use lapin::{
    BasicProperties, Confirmation, Connection, ConnectionProperties,
    options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use sqlx::{Connection as _, PgConnection};
use tallyhook::tools::dev::servers::{PostgresServer, RabbitMqServer, Servers};

use crate::support::servers;

#[tokio::test]
async fn private_postgres_keeps_rows_after_kill_and_stop() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut server = PostgresServer::start(dir.path()).await?;
    let (url, port, first_pid) = (server.url("postgres"), server.port(), server.pid());
    ensure!(name_of(first_pid)? == "postgres");

    let mut session = PgConnection::connect(&url).await?;
    sqlx::raw_sql("create table persisted (n int); insert into persisted values (1)")
        .execute(&mut session)
        .await?;
    server.kill().await?;
    assert!(refuses(port));
    assert!(sqlx::raw_sql("select 1").execute(&mut session).await.is_err());
    assert_eq!(processes_in(dir.path())?, Vec::<String>::new(), "a session outlived the crash");

    server.restart().await?;
    assert_eq!(server.url("postgres"), url);
    assert_ne!(server.pid(), first_pid);
    let mut session = PgConnection::connect(&url).await?;
    sqlx::raw_sql("insert into persisted values (2)").execute(&mut session).await?;

    // With the session still open: a clean stop does not wait for clients.
    server.stop().await?;
    server.stop().await?;
    assert!(refuses(port));
    server.restart().await?;
    let mut session = PgConnection::connect(&url).await?;
    let rows: i64 =
        sqlx::query_scalar("select count(*) from persisted").fetch_one(&mut session).await?;
    assert_eq!(rows, 2);
    let fsync: String = sqlx::query_scalar("show fsync").fetch_one(&mut session).await?;
    assert_eq!(fsync, "on");
    server.stop().await
}

#[tokio::test]
async fn private_postgres_kill_stops_a_running_statement() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut server = PostgresServer::start(dir.path()).await?;
    let mut session = PgConnection::connect(&server.url("postgres")).await?;
    let busy = tokio::spawn(async move {
        sqlx::raw_sql("create table late as select sum(n) from generate_series(1, 2000000000) n")
            .execute(&mut session)
            .await
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.kill().await?;
    assert_eq!(processes_in(dir.path())?, Vec::<String>::new());
    assert!(busy.await?.is_err());
    server.restart().await?;
    server.stop().await
}

#[tokio::test]
async fn private_postgres_rejects_a_wrong_password() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut server = PostgresServer::start(dir.path()).await?;
    let url = format!("postgres://postgres:guess@127.0.0.1:{}/postgres", server.port());
    assert!(PgConnection::connect(&url).await.is_err());
    server.stop().await
}

#[tokio::test]
async fn private_rabbitmq_keeps_confirmed_messages_after_kill() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut server = RabbitMqServer::start(dir.path()).await?;
    let (url, port, first_pid) = (server.url(), server.port(), server.pid());
    ensure!(name_of(first_pid)?.starts_with("beam"));

    publish_confirmed(&url, "persisted").await?;
    // Not about messages: RabbitMQ 3.10 writes the registry of quorum queues half a second late,
    // and a queue that is missing there answers nothing but nacks after a crash.
    wait_for("the registry of quorum queues", Duration::from_secs(20), || {
        quorum_registries_mention(dir.path(), "persisted")
    })?;
    server.kill().await?;
    assert!(refuses(port));

    server.restart().await?;
    assert_eq!(server.url(), url);
    assert_ne!(server.pid(), first_pid);
    publish_confirmed(&url, "persisted").await?;

    assert_eq!(depth(&url, "persisted").await?, 2);
    assert!(server.rabbitmqctl(&["no_such_command"]).await.is_err());

    server.stop().await?;
    server.stop().await?;
    assert_gone(dir.path())
}

#[tokio::test]
async fn private_servers_side_by_side_keep_their_own_data() -> Result<()> {
    // The servers that other tests share run beside these.
    let others = servers::shared();
    let dir = tempfile::tempdir()?;
    let mut first = Servers::start(dir.path()).await?;
    assert_ne!(first.postgres.url(""), others.postgres);
    assert_ne!(first.rabbitmq.url(), others.rabbitmq);
    publish_confirmed(&first.rabbitmq.url(), "mine").await?;
    assert!(depth(&others.rabbitmq, "mine").await.is_err(), "the queue is on another broker");

    let Err(error) = Servers::start(dir.path()).await else {
        bail!("started twice in one folder");
    };
    let complaint = format!("{error:#}");
    assert!(complaint.contains("another process uses the folder"), "{complaint}");

    first.stop().await?;
    drop(first);
    let mut again = Servers::start(dir.path()).await?;
    assert_eq!(depth(&again.rabbitmq.url(), "mine").await?, 1);
    let listed = again.rabbitmq.rabbitmqctl(&["list_queues", "name"]).await?;
    assert!(listed.contains("mine"), "{listed}");
    again.stop().await
}

#[tokio::test]
async fn private_servers_of_a_killed_program_are_removed() -> Result<()> {
    let outer = tempfile::tempdir()?;
    open_to_others(outer.path())?;
    let ready = outer.path().join("ready");
    let config = outer.path().join("config.toml");
    fs::write(&config, "receiver.listen = '127.0.0.1:0'\noperations.listen = '127.0.0.1:0'\n")?;
    let mut victim = Command::new(env!("CARGO_BIN_EXE_tallyhook"))
        .arg("dev")
        .arg("--config")
        .arg(&config)
        .arg("--ready-file")
        .arg(&ready)
        .arg("--with-mock-accounting")
        // Where it makes its temporary folder.
        .env("TMPDIR", outer.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    wait_for("the servers of the victim", Duration::from_secs(90), || ready.exists())?;
    let running = processes_in(outer.path())?;
    for name in ["postgres", "beam", "epmd", "mock-accounting"] {
        assert!(
            running.iter().any(|process| process.starts_with(name)),
            "{name} is not among {running:?}"
        );
    }
    let folders = || {
        let entries = fs::read_dir(outer.path()).map(Iterator::flatten).into_iter().flatten();
        entries.filter(|entry| entry.path().is_dir()).count()
    };
    assert_eq!(folders(), 1, "dev keeps its data in one temporary folder");

    victim.kill()?;
    victim.wait()?;
    assert_gone(outer.path())?;
    wait_for("the folder to be removed", Duration::from_secs(5), || folders() == 0)
}

#[tokio::test]
async fn private_server_port_in_use_at_restart_is_reported() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut server = PostgresServer::start(dir.path()).await?;
    server.kill().await?;
    let squatter = TcpListener::bind((Ipv4Addr::LOCALHOST, server.port()))?;
    let Err(error) = server.restart().await else {
        bail!("started on a port that another process uses");
    };
    let complaint = format!("{error:#}");
    assert!(complaint.contains("Address already in use"), "{complaint}");
    drop(squatter);
    server.restart().await?;
    server.stop().await
}

#[tokio::test]
async fn private_server_dropped_ends_and_keeps_its_data() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let server = PostgresServer::start(dir.path()).await?;
    let mut session = PgConnection::connect(&server.url("postgres")).await?;
    sqlx::raw_sql("create table persisted ()").execute(&mut session).await?;
    drop(server);

    // At once, while the watchdog may still be at work.
    let mut server = PostgresServer::start(dir.path()).await?;
    let mut session = PgConnection::connect(&server.url("postgres")).await?;
    sqlx::raw_sql("select from persisted").execute(&mut session).await?;
    server.stop().await
}

#[tokio::test]
async fn private_server_failed_start_reports_the_log_tail() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut server = PostgresServer::start(dir.path()).await?;
    server.stop().await?;
    drop(server);
    fs::write(dir.path().join("data/postgresql.conf"), "no_such_setting = 1\n")?;
    let Err(error) = PostgresServer::start(dir.path()).await else {
        bail!("started with a bad setting");
    };
    let complaint = format!("{error:#}");
    assert!(complaint.contains("no_such_setting"), "{complaint}");
    Ok(())
}

async fn publish_confirmed(url: &str, queue: &str) -> Result<()> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.into(), durable, arguments).await?;
    let confirmation = channel
        .basic_publish(
            "".into(),
            queue.into(),
            BasicPublishOptions::default(),
            b"hello",
            BasicProperties::default(),
        )
        .await?
        .await?;
    ensure!(matches!(confirmation, Confirmation::Ack(None)), "not confirmed: {confirmation:?}");
    let delivered = channel.basic_get(queue.into(), BasicGetOptions::default()).await?;
    ensure!(delivered.is_some(), "the queue {queue} is empty");
    connection.close(200, "done".into()).await?;
    Ok(())
}

/// The number of ready messages; `rabbitmqctl` would report a number that is seconds old.
async fn depth(url: &str, queue: &str) -> Result<u32> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let declared = channel.queue_declare(queue.into(), passive, FieldTable::default()).await?;
    connection.close(200, "done".into()).await?;
    Ok(declared.message_count())
}

/// Whether a registry of quorum queues below a folder names a queue.
fn quorum_registries_mention(dir: &Path, queue: &str) -> bool {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| {
        if path.is_dir() {
            return quorum_registries_mention(&path, queue);
        }
        let is_registry = path.ends_with("names.dets");
        let content = if is_registry { fs::read(&path).unwrap_or_default() } else { Vec::new() };
        content.windows(queue.len()).any(|window| window == queue.as_bytes())
    })
}

fn refuses(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err()
}

/// As root, PostgreSQL runs as another user, who has to get through to its folder.
fn open_to_others(dir: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?)
}

fn assert_gone(dir: &Path) -> Result<()> {
    wait_for("the processes to end", Duration::from_secs(10), || {
        processes_in(dir).is_ok_and(|processes| processes.is_empty())
    })
    .with_context(|| format!("still there: {:?}", processes_in(dir)))
}

fn wait_for(what: &str, limit: Duration, done: impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + limit;
    while !done() {
        if Instant::now() > deadline {
            bail!("waited {limit:?} for {what}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn name_of(pid: u32) -> Result<String> {
    Ok(fs::read_to_string(format!("/proc/{pid}/comm"))?.trim().to_owned())
}

/// The names of all processes that work in `dir`, or whose command or environment mentions it.
fn processes_in(dir: &Path) -> Result<Vec<String>> {
    let needle = dir.as_os_str().as_encoded_bytes();
    let mentions = |bytes: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let process = entry?.path();
        let Some(pid) = process.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok())
        else {
            continue;
        };
        // The program that runs this test and its victim mention the folder without serving it.
        let own_kind = fs::read_link(process.join("exe"))
            .is_ok_and(|exe| Some(exe) == std::env::current_exe().ok());
        let works_there = fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir));
        let read = |file: &str| fs::read(process.join(file)).unwrap_or_default();
        if !own_kind && (works_there || mentions(&read("cmdline")) || mentions(&read("environ"))) {
            found.push(name_of(pid).unwrap_or_default());
        }
    }
    Ok(found)
}
