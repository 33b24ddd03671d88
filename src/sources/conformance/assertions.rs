//! Assertions about a case, whose messages name the case and the rule.

use std::collections::BTreeSet;

use super::{
    ConfiguredSource,
    case::{
        Case,
        Variation::{self, Body},
        envelope_of, label,
    },
};
use crate::{
    domain::{MappedEvent, PermanentFailure},
    sources::{FOREIGN_TENANT_PREFIX, Received, Rejection},
};

impl Case {
    pub(super) fn assert_invalid_signature(
        &self,
        result: &Result<Received, Rejection>,
        rule: &str,
    ) {
        assert!(
            matches!(result, Err(Rejection::InvalidSignature(_))),
            "{}: {rule}: must be rejected for its signature, is {result:?}",
            self.name
        );
    }

    /// Asserts that an authentic request with this body is rejected, and that each failure
    /// matches.
    pub(super) fn assert_invalid_fields(
        &self,
        source: &ConfiguredSource,
        body: &'static [u8],
        is_expected: impl Fn(&PermanentFailure) -> bool,
    ) {
        let result = self.request(source, &[Body(body)]).send_to(source);
        let Err(Rejection::InvalidFields(failures)) = &result else {
            panic!("{}: {body:?}: must be rejected as invalid, is {result:?}", self.name);
        };
        let matches = !failures.is_empty() && failures.iter().all(is_expected);
        assert!(matches, "{}: {body:?}: is rejected with {failures:?}", self.name);
    }

    /// Asserts that events of tenants that are not allowed become `foreign:` events, which
    /// change nothing, and that the other events of the same request are not affected.
    pub(super) fn assert_foreign_events_ignored(
        &self,
        all: &ConfiguredSource,
        variations: &[Variation],
        expected: &[[&'static str; 3]],
    ) {
        let tenants: BTreeSet<_> = expected.iter().map(|[_, tenant, _]| *tenant).collect();
        let all_events = self.events(all, variations, "no allow-list");
        for tenant in &tenants {
            let source = self.source_for(&["FIRST"], &[tenant]);
            let events = self.events(&source, variations, &format!("only {tenant:?} is allowed"));
            assert_eq!(
                events.len(),
                all_events.len(),
                "{}: only {tenant:?}: an event is lost",
                self.name
            );
            for (event, original) in events.into_iter().zip(&all_events) {
                if event.tenant == *tenant {
                    assert_eq!(event, *original, "{}: only {tenant:?}", self.name);
                    continue;
                }
                let marked = [&event.topic, &event.event_id]
                    .map(|text| text.strip_prefix(FOREIGN_TENANT_PREFIX));
                let expected = [Some(original.topic.as_str()), Some(original.event_id.as_str())];
                assert_eq!(marked, expected, "{}: only {tenant:?}: a foreign event", self.name);
                let mapped = source.source().map(&envelope_of(event));
                assert_eq!(mapped, Ok(MappedEvent::Ignored), "{}: a foreign event", self.name);
            }
        }
        let everyone: Vec<_> = tenants.into_iter().collect();
        let source = self.source_for(&["FIRST"], &everyone);
        assert_eq!(
            self.events(&source, variations, "all allowed"),
            all_events,
            "{}: allowed",
            self.name
        );
        let other = self.source_for(&["FIRST"], &["other"]);
        let result = self.request(&other, variations).send_to(&other);
        assert!(
            matches!(result, Err(Rejection::UnknownTenant(..))),
            "{}: all events are of other tenants: {result:?}",
            self.name
        );
    }

    /// Asserts that the first secret verified the request.
    pub(super) fn assert_authentic(&self, result: &Result<Received, Rejection>, rule: &str) {
        assert_eq!(label(result), Some("env:FIRST"), "{}: {rule}: {result:?}", self.name);
    }
}
