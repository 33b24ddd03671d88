//! `drain`: how fast one worker process applies a backlog, until the last commit.
//!
//! Two baselines run alternately with it: a hand-written consumer with one
//! transaction a message, which gets a quarter of the backlog because it is
//! much slower, and a bare insert of the same rows from memory. Every drain
//! starts with empty tables.

use anyhow::ensure;
use serde_json::{Map, Value, json};

use super::{
    BenchOptions,
    backlog::{Backlog, Mix},
    baseline::{database, row_at_a_time, set_insert},
    environment::{BenchEnvironment, BenchPublisher},
    measure::{per_second, ratio, rounded_median},
    payload::Payload,
    report::{Measured, rate, row},
    workers::{self, ExpectedOutcomes},
};

/// The figures of one run with one payload.
struct Run {
    product: f64,
    row_at_a_time: f64,
    set_insert: f64,
}

pub(super) async fn run(
    environment: &BenchEnvironment,
    options: &BenchOptions,
) -> anyhow::Result<Measured> {
    let publisher = environment.start_publisher().await?;
    let (mut payloads, mut rows) = (Map::new(), Vec::new());
    for payload in Payload::ALL {
        let backlog = Backlog::generate(environment, payload, options.messages, options.mix)?;
        let mut runs = Vec::new();
        for run in 1..=options.runs {
            environment.progress(&format!("drain, {}, run {run}", payload.title()));
            runs.push(compare(environment, options, &publisher, &backlog, run % 2 == 1).await?);
        }
        let median = |of: fn(&Run) -> f64, decimals| rounded_median(runs.iter().map(of), decimals);
        let product = median(|run| run.product, 0);
        let to_row_at_a_time = median(|run| ratio(run.product, run.row_at_a_time), 3);
        let to_set_insert = median(|run| ratio(run.product, run.set_insert), 3);
        let [row_at_a_time, set_insert] =
            [median(|run| run.row_at_a_time, 0), median(|run| run.set_insert, 0)];
        let figures = json!({
            "per_second": product,
            "ratio_to_row_at_a_time": to_row_at_a_time,
            "ratio_to_set_insert": to_set_insert,
            "row_at_a_time_per_second": row_at_a_time,
            "set_insert_per_second": set_insert,
        });
        payloads.insert(payload.key().to_owned(), figures);
        let compared = format!(
            "{to_row_at_a_time:.1} times one transaction a message ({}); \
             {to_set_insert:.2} of the bare set insert ({})",
            rate(row_at_a_time),
            rate(set_insert)
        );
        rows.push(row(format!("drain, {}", payload.title()), rate(product), compared));
    }
    let (duplicates, poison) = duplicates_and_poison(environment, options, &publisher).await?;
    let [duplicates, poison] = [duplicates, poison].map(|ratios| rounded_median(ratios, 3));
    let compared = format!("{duplicates:.1} times as fast as new messages");
    rows.push(row("drain, duplicates only", String::new(), compared));
    rows.push(row("drain, 1 % poison", String::new(), format!("{poison:.2} of none")));
    // The headline is the 2 kB payload.
    let mut figures = payloads[Payload::Generic.key()].clone();
    figures["payloads"] = Value::Object(payloads);
    figures["ratio_of_duplicates_to_new"] = json!(duplicates);
    figures["ratio_with_poison"] = json!(poison);
    Ok(Measured { figures, rows })
}

async fn compare(
    environment: &BenchEnvironment,
    options: &BenchOptions,
    publisher: &BenchPublisher,
    backlog: &Backlog,
    product_first: bool,
) -> anyhow::Result<Run> {
    let mut product = None;
    if product_first {
        product = Some(drain(environment, options, publisher, backlog).await?);
    }
    let row_at_a_time = row_at_a_time(environment, publisher, backlog).await?;
    let set_insert = set_insert(environment, backlog).await?;
    let product = match product {
        Some(product) => product,
        None => drain(environment, options, publisher, backlog).await?,
    };
    environment.clear().await?;
    Ok(Run { product, row_at_a_time, set_insert })
}

/// A quarter of a backlog by the hand-written consumer; messages a second.
pub(super) async fn row_at_a_time(
    environment: &BenchEnvironment,
    publisher: &BenchPublisher,
    backlog: &Backlog,
) -> anyhow::Result<f64> {
    let quarter = backlog.first(backlog.messages.len() / 4);
    environment.clear().await?;
    quarter.publish(environment, &publisher.publisher).await?;
    let time = row_at_a_time::run(environment, &quarter).await?;
    ensure_on_record(environment, &quarter).await?;
    Ok(per_second(quarter.messages.len(), time))
}

/// A backlog's rows from memory; messages a second.
pub(super) async fn set_insert(
    environment: &BenchEnvironment,
    backlog: &Backlog,
) -> anyhow::Result<f64> {
    environment.clear().await?;
    let time = set_insert::run(environment, backlog).await?;
    ensure_on_record(environment, backlog).await?;
    Ok(per_second(backlog.applicable().count(), time))
}

/// The ratios of duplicates only and of 1 % poison to new messages, of each run.
async fn duplicates_and_poison(
    environment: &BenchEnvironment,
    options: &BenchOptions,
    publisher: &BenchPublisher,
) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    let payload = Payload::Generic;
    let new = Backlog::generate(environment, payload, options.messages, Mix::default())?;
    let one_percent = Mix { poison: "1%".parse()?, ..Mix::default() };
    let poisoned = Backlog::generate(environment, payload, options.messages, one_percent)?;
    let (mut duplicates, mut poison) = (Vec::new(), Vec::new());
    for run in 1..=options.runs {
        environment.progress(&format!("drain, duplicates only, 1 % poison, run {run}"));
        let new_rate = drain(environment, options, publisher, &new).await?;
        // The tables keep the messages that were just applied.
        let redelivered = new.redelivered();
        redelivered.publish(environment, &publisher.publisher).await?;
        let expected = ExpectedOutcomes::of(&new) + ExpectedOutcomes::of_redelivered(&redelivered);
        let rate = workers::apply(environment, options, &redelivered, expected, 1).await?;
        duplicates.push(ratio(rate, new_rate));
        let rate = drain(environment, options, publisher, &poisoned).await?;
        poison.push(ratio(rate, new_rate));
    }
    environment.clear().await?;
    Ok((duplicates, poison))
}

/// A backlog by one worker process, into empty tables; messages a second.
async fn drain(
    environment: &BenchEnvironment,
    options: &BenchOptions,
    publisher: &BenchPublisher,
    backlog: &Backlog,
) -> anyhow::Result<f64> {
    environment.clear().await?;
    backlog.publish(environment, &publisher.publisher).await?;
    workers::apply(environment, options, backlog, ExpectedOutcomes::of(backlog), 1).await
}

async fn ensure_on_record(environment: &BenchEnvironment, backlog: &Backlog) -> anyhow::Result<()> {
    let found = usize::try_from(database::receipts(&environment.store).await?)?;
    let applicable = backlog.applicable().count();
    ensure!(
        (applicable..=backlog.messages.len()).contains(&found),
        "{found} of {applicable} messages are on record: this is a bug of the bench"
    );
    Ok(())
}
