//! Which machine and which servers the figures are of.

use std::fmt;

use serde::Serialize;
use time::{OffsetDateTime, macros::format_description};

use super::{
    baseline::{broker, database},
    stage::Stage,
};

/// A machine and the servers on it, as far as they tell.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Machine {
    /// The processor's model.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// The operating system's kernel.
    pub kernel: String,
    /// `PostgreSQL`'s version.
    pub postgresql: String,
    /// `RabbitMQ`'s version.
    pub rabbitmq: String,
    /// Ours.
    pub tallyhook: &'static str,
    /// Whether it was built with optimizations: other figures mean nothing.
    pub release: bool,
    /// The day, in UTC.
    pub date: String,
}

const UNKNOWN: &str = "unknown";

impl Machine {
    /// Asks the kernel and the servers.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn look(stage: &Stage) -> anyhow::Result<Self> {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let kernel = read("/proc/sys/kernel/osrelease");
        let day = format_description!("[year]-[month]-[day]");
        let rabbitmq = broker::version(&stage.config.broker.url).await;
        Ok(Self {
            cpu: model(&read("/proc/cpuinfo")),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: or_unknown(kernel.trim()),
            postgresql: database::version(&stage.store).await?,
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
        if *release { Ok(()) } else { f.write_str(" (A DEBUG BUILD: these figures mean nothing)") }
    }
}

/// The model of the first processor; not every architecture tells it.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_told_where_the_kernel_knows_it() {
        let known = "processor\t: 0\nmodel name\t: Some  CPU @ 2.50GHz\nprocessor\t: 1\n";
        assert_eq!(model(known), "Some CPU @ 2.50GHz");
        assert_eq!(model("processor: 0\nBogoMIPS: 50\n"), "unknown");
    }
}
