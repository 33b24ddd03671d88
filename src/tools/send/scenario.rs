//! The webhooks of a run: a plan, and the content that it needs.

use std::collections::HashMap;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use super::{
    generate::{
        Generator, Run, Webhook,
        payload_kind::{PayloadKind, topic_in_header},
    },
    plan::{Counts, Plan, Step, StepKind},
    poison::Poison,
    predict::{PredictedOutcome, predict},
};
use crate::{
    domain::SourceName,
    sources::{Rejection, Source},
};

/// A plan and its webhooks.
#[derive(Clone, Debug)]
pub(crate) struct SendScenario {
    pub(crate) source: SourceName,
    pub(crate) tenant: String,
    pub(crate) plan: Plan,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    Generated(Generator),
    Files(Vec<(Webhook, PredictedOutcome)>),
}

/// Restricts the generated webhooks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    pub(crate) topic: Option<String>,
    pub(crate) tenant: Option<String>,
}

/// The requested webhooks cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ScenarioError {
    #[error("webhooks of kind {0} cannot be generated; send one with --file")]
    UnsupportedKind(&'static str),
    #[error(
        "source {0} is configured for other fields than the built-in source erp, so nothing can \
         be generated for it; send one of its webhooks with --file"
    )]
    IncompatibleSettings(SourceName),
    #[error("topic {topic} cannot be generated, only {known}; send a webhook of it with --file")]
    UnsupportedTopic { topic: String, known: String },
    #[error("webhooks of kind {0} have no version, so none can be late: omit --out-of-order")]
    NoVersion(&'static str),
    #[error("a {0} webhook has its topic in a header: --file needs --topic")]
    TopicMissing(&'static str),
}

impl SendScenario {
    /// Webhooks generated for a run.
    pub(crate) fn generated(
        source: &Source,
        source_name: &SourceName,
        selection: &Selection,
        run: &Run,
        counts: Counts,
    ) -> Result<Self, ScenarioError> {
        let mut result = Err(ScenarioError::UnsupportedKind(source.kind()));
        // The source's settings decide which kind of payload it accepts.
        for (index, kind) in PayloadKind::of_source_kind(source.kind()).enumerate() {
            let scenario = Self::of_kind(kind, source, source_name, selection, run, counts);
            let incompatible = matches!(scenario, Err(ScenarioError::IncompatibleSettings(_)));
            if index == 0 || !incompatible {
                result = scenario;
            }
            if !incompatible {
                break;
            }
        }
        result
    }

    fn of_kind(
        kind: &'static PayloadKind,
        source: &Source,
        source_name: &SourceName,
        selection: &Selection,
        run: &Run,
        counts: Counts,
    ) -> Result<Self, ScenarioError> {
        if counts.late > 0 && !kind.has_version {
            return Err(ScenarioError::NoVersion(source.kind()));
        }
        let tenant = tenant(source, selection.tenant.clone(), kind.default_tenant);
        let mut topics: Vec<String> = match &selection.topic {
            None => kind.topics.iter().map(|&topic| topic.to_owned()).collect(),
            Some(topic) if kind.topics.contains(&topic.as_str()) => vec![topic.clone()],
            Some(topic) => {
                let known = kind.topics.join(", ");
                return Err(ScenarioError::UnsupportedTopic { topic: topic.clone(), known });
            }
        };
        let mut generator = Generator {
            kind,
            source: source_name.to_string(),
            tenant: tenant.clone(),
            topics: Vec::new(),
            run: run.clone(),
        };
        if kind.is_configurable {
            topics.retain(|topic| accepts(source, source_name, &generator, topic));
            if topics.is_empty() {
                return Err(ScenarioError::IncompatibleSettings(source_name.clone()));
            }
        }
        generator.topics = topics;
        Ok(Self {
            source: source_name.clone(),
            tenant,
            plan: Plan::generated(counts, run.seed),
            content: Content::Generated(generator),
        })
    }

    /// The bytes of files, each `count` times as the same event.
    pub(crate) fn files(
        source: &Source,
        source_name: &SourceName,
        selection: Selection,
        files: Vec<(Bytes, Option<String>)>,
        count: u32,
        now: OffsetDateTime,
    ) -> Result<Self, ScenarioError> {
        let kind = PayloadKind::of_source_kind(source.kind()).next();
        let default_tenant = kind.map_or("demo", |kind| kind.default_tenant);
        let tenant = tenant(source, selection.tenant, default_tenant);
        let topic = match selection.topic {
            Some(topic) => topic,
            None if topic_in_header(source.kind()) => {
                return Err(ScenarioError::TopicMissing(source.kind()));
            }
            None => String::new(),
        };
        let (mut known, mut events, mut webhooks) = (HashMap::new(), Vec::new(), Vec::new());
        for (body, event_id) in files {
            let event_id = event_id.unwrap_or_else(|| file_event_id(&topic, &body));
            let webhook = Webhook { topic: topic.clone(), event_id, triggered_at: now, body };
            let (key, outcome) = match predict(source, source_name, &tenant, &webhook) {
                Ok(prediction) => (prediction.envelope.key.to_string(), prediction.outcome()),
                Err(Rejection::InvalidFields(_)) => {
                    (webhook.event_id.clone(), PredictedOutcome::Rejected)
                }
                // The receiver rejects it, so it has no outcome.
                Err(_) => (webhook.event_id.clone(), PredictedOutcome::Ignored),
            };
            let next = u32::try_from(webhooks.len()).unwrap_or(u32::MAX);
            events.push(*known.entry(key).or_insert_with(|| {
                webhooks.push((webhook, outcome));
                next
            }));
        }
        Ok(Self {
            source: source_name.clone(),
            tenant,
            plan: Plan::files(&events, count),
            content: Content::Files(webhooks),
        })
    }

    /// The run of generated webhooks.
    pub(crate) fn run(&self) -> Option<&Run> {
        match &self.content {
            Content::Generated(generator) => Some(&generator.run),
            Content::Files(_) => None,
        }
    }

    /// The webhook of a step; the same bytes each time.
    pub(crate) fn webhook(&self, step: Step) -> Webhook {
        match &self.content {
            Content::Generated(generator) => match self.poison(step) {
                Some(poison) => generator.poison(step.event, poison),
                None => generator.event(step.event, step.age),
            },
            Content::Files(files) => files[as_index(step.event)].0.clone(),
        }
    }

    /// The outcome of the first webhook of the step's event.
    pub(crate) fn predicted_outcome(&self, step: Step) -> PredictedOutcome {
        match &self.content {
            Content::Generated(generator) => match self.poison(step) {
                None => PredictedOutcome::Applied,
                Some(_) if generator.kind.rejects_poison => PredictedOutcome::Rejected,
                Some(poison) => PredictedOutcome::Dead(poison.reason()),
            },
            Content::Files(files) => files[as_index(step.event)].1,
        }
    }

    /// The number of the document with the most webhooks, for `tallyhook trace`.
    pub(crate) fn trace_number(&self, source: &Source) -> Option<String> {
        let mut webhooks: HashMap<u32, u32> = HashMap::new();
        for step in self.plan.steps().filter(|step| step.kind != StepKind::Forged) {
            *webhooks.entry(step.event).or_default() += 1;
        }
        // The first of equals, so that a run always has the same number.
        let (event, _) = webhooks
            .into_iter()
            .max_by_key(|(event, count)| (*count, std::cmp::Reverse(*event)))?;
        let step = Step { kind: StepKind::Unique, event, age: 0 };
        let prediction = predict(source, &self.source, &self.tenant, &self.webhook(step)).ok()?;
        source.business_key(&prediction.envelope)
    }

    fn poison(&self, step: Step) -> Option<Poison> {
        match &self.content {
            Content::Generated(generator) if step.kind == StepKind::Poison => {
                Some(generator.kind.poison(step.event.saturating_sub(self.plan.counts.unique)))
            }
            _ => None,
        }
    }
}

fn as_index(event: u32) -> usize {
    usize::try_from(event).unwrap_or(usize::MAX)
}

/// The requested tenant, else the source's first one, else the default.
fn tenant(source: &Source, requested: Option<String>, default: &str) -> String {
    requested.or_else(|| source.tenants().first().cloned()).unwrap_or_else(|| default.to_owned())
}

/// Whether a source reads what is generated for a topic: the event, its id, and
/// which of two versions is newer.
fn accepts(source: &Source, source_name: &SourceName, generator: &Generator, topic: &str) -> bool {
    let generator = Generator { topics: vec![topic.to_owned()], ..generator.clone() };
    let predicted = |number, age| {
        predict(source, source_name, &generator.tenant, &generator.event(number, age)).ok()
    };
    let (Some(event), Some(other)) = (predicted(0, 0), predicted(1, 0)) else { return false };
    let newer = !generator.kind.has_version
        || predicted(0, 1).is_some_and(|older| event.version() > older.version());
    event.outcome() == PredictedOutcome::Applied
        && event.envelope.topic == topic
        && event.envelope.key != other.envelope.key
        && newer
}

/// The same for the same topic and bytes, so that a file sent twice is the same
/// event.
fn file_event_id(topic: &str, body: &[u8]) -> String {
    let digest = Sha256::new().chain_update(topic).chain_update([0]).chain_update(body).finalize();
    format!("file-{}", data_encoding::HEXLOWER.encode(&digest[..8]))
}
