//! The machine and the servers that were measured.

use std::fmt;

use serde::Serialize;
use time::{OffsetDateTime, macros::format_description};

use super::{
    baseline::{broker, database},
    environment::BenchEnvironment,
};

#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Machine {
    pub(super) cpu: String,
    /// Cores available to this process.
    pub(super) cores: usize,
    pub(super) kernel: String,
    pub(super) postgresql: String,
    pub(super) rabbitmq: String,
    pub(super) tallyhook: &'static str,
    /// Whether this is an optimized build; only those give useful figures.
    pub(super) release: bool,
    /// The date in UTC.
    pub(super) date: String,
}

const UNKNOWN: &str = "unknown";

impl Machine {
    pub(super) async fn inspect(environment: &BenchEnvironment) -> anyhow::Result<Self> {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let kernel = read("/proc/sys/kernel/osrelease");
        let day = format_description!("[year]-[month]-[day]");
        let rabbitmq = broker::version(&environment.config.broker.url).await;
        Ok(Self {
            cpu: model(&read("/proc/cpuinfo")),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: or_unknown(kernel.trim()),
            postgresql: database::version(&environment.store).await?,
            rabbitmq: rabbitmq.unwrap_or_else(|| UNKNOWN.to_owned()),
            tallyhook: env!("CARGO_PKG_VERSION"),
            release: !cfg!(debug_assertions),
            date: OffsetDateTime::now_utc().format(day).unwrap_or_default(),
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu, cores, kernel, postgresql, rabbitmq, tallyhook, date, release } = self;
        write!(
            f,
            "{cpu}, {cores} cores, Linux {kernel}, PostgreSQL {postgresql}, RabbitMQ {rabbitmq}, \
             tallyhook {tallyhook}, {date}"
        )?;
        if *release { Ok(()) } else { f.write_str(" (DEBUG BUILD: these figures mean nothing)") }
    }
}

/// The model of the first processor, if the architecture reports one.
fn model(cpuinfo: &str) -> String {
    let named = |line: &str| {
        let (key, value) = line.split_once(':')?;
        ["model name", "Model", "cpu model"].contains(&key.trim()).then(|| value.trim().to_owned())
    };
    or_unknown(&cpuinfo.lines().find_map(named).unwrap_or_default())
}

fn or_unknown(text: &str) -> String {
    let text = if text.is_empty() { UNKNOWN } else { text };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
