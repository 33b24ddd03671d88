//! Generated webhooks: of realistic size and shape, from invented data, and
//! the same bytes for the same run, seed and number.

mod basket;
mod generic;
pub mod shape;
mod shopify;
mod square;
mod stripe;
mod thin;
mod woocommerce;

use bytes::Bytes;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use time::{
    Duration, OffsetDateTime, PrimitiveDateTime,
    macros::{datetime, format_description},
};

use super::poison::Poison;
use basket::Basket;
use shape::Shape;

/// A webhook before it is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// What it is about.
    pub topic: String,
    /// The id of the event, for platforms that send it in a header.
    pub event_id: String,
    /// When it happened.
    pub triggered_at: OffsetDateTime,
    /// The body.
    pub body: Bytes,
}

/// Makes the ids of one run differ from those of every other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its id: `20260131-235959-1a2b3c`, or any other.
    pub id: String,
    /// What customers, articles and amounts are drawn from.
    pub seed: u64,
}

impl Run {
    /// A new run's id, from the time and something random.
    pub fn new_id(now: OffsetDateTime, random: u32) -> String {
        let now = now.format(STAMP).unwrap_or_default();
        format!("{now}-{:06x}", random & 0x00ff_ffff)
    }

    /// When its events happened: the time in its id, so that a repeated run
    /// has the same bytes; a fixed day if there is none.
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
pub struct Generator {
    /// What they look like.
    pub shape: Shape,
    /// The source that they are for.
    pub source: String,
    /// The tenant that sends them.
    pub tenant: String,
    /// The topics to draw from.
    pub topics: Vec<String>,
    /// The run.
    pub run: Run,
}

impl Generator {
    /// The nth event; with an `age`, its document as it stood that many
    /// minutes earlier, told by an event of its own.
    pub fn event(&self, number: u32, age: u32) -> Webhook {
        let (draft, body) = self.draft(number, age);
        draft.with_body(body.to_string())
    }

    /// The nth event, spoiled.
    pub fn poison(&self, number: u32, poison: Poison) -> Webhook {
        let (draft, body) = self.draft(number, 0);
        draft.with_body(poison.spoil(body, &self.shape.anatomy()))
    }

    fn draft(&self, number: u32, age: u32) -> (Draft, Value) {
        let Run { id, seed } = &self.run;
        let mut rng = StdRng::from_seed(self.digest(Some(number)));
        let mut topic = match self.topics.as_slice() {
            [] => String::new(),
            topics => topics[rng.random_range(0..topics.len())].clone(),
        };
        let mut event_id = format!("{id}-{seed}-{number:06}");
        if age > 0 {
            event_id = format!("{event_id}-late{age}");
            // What is late is an update of the same kind of document, unless
            // a single topic was asked for.
            let resource = topic.split(['/', '.']).next().unwrap_or_default();
            let updates =
                |topic: &&String| topic.starts_with(resource) && topic.ends_with("updated");
            if let Some(update) = self.topics.iter().find(updates) {
                topic.clone_from(update);
            }
        }
        // 33 bits of the run, 20 of the event: below 2^53, which is as far as
        // a platform written in JavaScript counts.
        let drawn =
            self.digest(None)[..5].iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte));
        let base = (drawn & 0x1_ffff_ffff) << 20;
        let (id, order_number) = (base | u64::from(number), 1001 + u64::from(number));
        let mut basket = Basket::draw(&mut rng, id, order_number, self.run.started_at(), age);
        if topic == "orders/paid" {
            basket.paid = true;
        }
        let tenant = self.tenant.as_str();
        let body = match self.shape {
            Shape::Shopify => shopify::order(&basket, tenant),
            Shape::WooCommerce => woocommerce::order(&basket),
            Shape::Generic => generic::event(&basket, &event_id, &topic, tenant),
            Shape::StandardWebhooks => generic::standard(&basket, &topic, tenant),
            Shape::CloudEvents => generic::data(&basket, &topic),
            Shape::Callback => generic::callback(&basket),
            Shape::Import => generic::import(&basket),
            Shape::Stripe => stripe::event(&basket, &event_id, &topic, tenant),
            Shape::Square => square::event(&basket, &event_id, &topic, tenant),
            Shape::QuickBooks => thin::quickbooks(&basket, &event_id, &topic, tenant),
            Shape::Xero => thin::xero(&basket, &topic, tenant),
            Shape::BigCommerce => thin::bigcommerce(&basket, &topic, tenant),
            Shape::Etsy => thin::etsy(&basket, &topic, tenant),
        };
        let triggered_at = basket.updated_at + Duration::seconds(1);
        (Draft { topic, event_id, triggered_at }, body)
    }

    /// What the run's ids, or an event's contents, are drawn from.
    fn digest(&self, number: Option<u32>) -> [u8; 32] {
        let Run { id, seed } = &self.run;
        let text = format!("{}\n{}\n{id}\n{seed}\n{number:?}", self.source, self.tenant);
        Sha256::digest(text.as_bytes()).into()
    }
}

/// All of a webhook but its body.
struct Draft {
    topic: String,
    event_id: String,
    triggered_at: OffsetDateTime,
}

impl Draft {
    fn with_body(self, body: impl Into<Bytes>) -> Webhook {
        let Self { topic, event_id, triggered_at } = self;
        Webhook { topic, event_id, triggered_at, body: body.into() }
    }
}
