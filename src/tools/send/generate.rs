//! Generated webhooks of realistic size and content. The same run, seed and
//! number give the same bytes.
//!
//! A random [`SamplePurchase`] is rendered with the template of a [`PayloadKind`].

pub(crate) mod payload_kind;
mod sample_purchase;
mod template;

use bytes::Bytes;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use time::{
    Duration, OffsetDateTime, PrimitiveDateTime,
    macros::{datetime, format_description},
};

use super::poison::Poison;
use payload_kind::PayloadKind;
use sample_purchase::SamplePurchase;
use template::Variables;

/// A webhook before it is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Webhook {
    pub(crate) topic: String,
    /// The event id, for platforms that send it in a header.
    pub(crate) event_id: String,
    pub(crate) triggered_at: OffsetDateTime,
    pub(crate) body: Bytes,
}

/// Identifies a run; the ids of its events differ from those of other runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// `20260131-235959-1a2b3c`, or any other text.
    pub(crate) id: String,
    /// Seed of customers, articles and amounts.
    pub(crate) seed: u64,
}

impl Run {
    /// A new id from the time and a random number.
    pub(crate) fn new_id(now: OffsetDateTime, random: u32) -> String {
        let now = now.format(STAMP).unwrap_or_default();
        format!("{now}-{:06x}", random & 0x00ff_ffff)
    }

    /// The time in its id, so that a repeated run has the same bytes; a fixed
    /// day without one.
    fn started_at(&self) -> OffsetDateTime {
        self.id
            .get(..15)
            .and_then(|stamp| PrimitiveDateTime::parse(stamp, STAMP).ok())
            .unwrap_or(datetime!(2026-01-15 12:00))
            .assume_utc()
    }
}

const STAMP: &[time::format_description::BorrowedFormatItem<'static>] =
    format_description!("[year][month][day]-[hour][minute][second]");

/// Generates the webhooks of one run.
#[derive(Clone, Debug)]
pub(super) struct Generator {
    pub(super) kind: &'static PayloadKind,
    pub(super) source: String,
    pub(super) tenant: String,
    /// Each event has one of these.
    pub(super) topics: Vec<String>,
    pub(super) run: Run,
}

impl Generator {
    /// The nth event. With an `age`, a different event with the same document
    /// as it was that many minutes earlier.
    pub(super) fn event(&self, number: u32, age: u32) -> Webhook {
        let (webhook, body) = self.render(number, age);
        Webhook { body: body.to_string().into(), ..webhook }
    }

    /// The nth event, made invalid.
    pub(super) fn poison(&self, number: u32, poison: Poison) -> Webhook {
        let (webhook, body) = self.render(number, 0);
        Webhook { body: poison.apply(body, self.kind).into(), ..webhook }
    }

    /// The nth event without its body, and the body.
    fn render(&self, number: u32, age: u32) -> (Webhook, Value) {
        let Run { id: run_id, seed } = &self.run;
        let mut rng = StdRng::from_seed(self.digest(Some(number)));
        let mut topic = match self.topics.as_slice() {
            [] => String::new(),
            topics => topics[rng.random_range(0..topics.len())].clone(),
        };
        let mut event_id = format!("{run_id}-{seed}-{number:06}");
        if age > 0 {
            event_id = format!("{event_id}-late{age}");
            // An older version is an update of the same kind of document,
            // unless only one topic was requested.
            let resource = topic.split(['/', '.']).next().unwrap_or_default();
            let is_update =
                |topic: &&String| topic.starts_with(resource) && topic.ends_with("updated");
            if let Some(update) = self.topics.iter().find(is_update) {
                topic.clone_from(update);
            }
        }
        // 33 bits of the run and 20 of the event: below 2^53, the limit of
        // integers in JavaScript.
        let run_bits =
            self.digest(None)[..5].iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte));
        let id = ((run_bits & 0x1_ffff_ffff) << 20) | u64::from(number);
        let order_number = 1001 + u64::from(number);
        let mut purchase =
            SamplePurchase::random(&mut rng, id, order_number, self.run.started_at(), age);
        if topic == "orders/paid" {
            purchase.paid = true;
        }
        let body = template::render(
            self.kind,
            &Variables {
                purchase: &purchase,
                event_id: &event_id,
                topic: &topic,
                tenant: &self.tenant,
            },
        );
        let triggered_at = purchase.updated_at + Duration::seconds(1);
        (Webhook { topic, event_id, triggered_at, body: Bytes::new() }, body)
    }

    /// The seed of the run's ids, or of an event's content.
    fn digest(&self, number: Option<u32>) -> [u8; 32] {
        let Run { id, seed } = &self.run;
        let text = format!("{}\n{}\n{id}\n{seed}\n{number:?}", self.source, self.tenant);
        Sha256::digest(text.as_bytes()).into()
    }
}
