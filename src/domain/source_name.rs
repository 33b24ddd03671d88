//! The name of a configured source.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// The name of a source in the URL (`/hooks/{source}`), the AMQP routing key, every table
/// and the metric labels: 1 to 64 characters of `a-z`, `0-9`, `-` and `_`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SourceName(Arc<str>);

/// The text cannot be used in a URL, a queue name and a label alike.
#[derive(Debug, thiserror::Error)]
#[error("source name {0:?} must be 1 to 64 characters of a-z, 0-9, - and _")]
pub struct InvalidSourceName(String);

impl SourceName {
    /// Replaces an invalid name, such as an unknown routing key, so that its message can be
    /// stored.
    pub fn unknown() -> Self {
        Self("unknown".into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SourceName {
    type Err = InvalidSourceName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_valid = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
        if (1..=64).contains(&text.len()) && text.bytes().all(is_valid) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidSourceName(text.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for SourceName {
    type Error = InvalidSourceName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<SourceName> for String {
    fn from(name: SourceName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_name_rejects_invalid_characters() {
        for good in ["shop", "shop-eu_2", "a"] {
            assert!(good.parse::<SourceName>().is_ok(), "{good}");
        }
        for bad in ["", "Shop", "a b", "a/b", "a.b", "ü", &"x".repeat(65)] {
            assert!(bad.parse::<SourceName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn source_name_round_trips_as_text_and_json() {
        let longest = "x".repeat(64);
        for text in ["shop-eu_2", longest.as_str()] {
            let name: SourceName = text.parse().unwrap();
            assert_eq!((name.as_str(), name.to_string().as_str()), (text, text));
            let json = serde_json::to_string(&name).unwrap();
            assert_eq!(json, format!("{text:?}"));
            assert_eq!(serde_json::from_str::<SourceName>(&json).unwrap(), name);
        }
        assert!(serde_json::from_str::<SourceName>("\"Shop\"").is_err());
        assert_eq!(SourceName::unknown().as_str(), "unknown");
    }
}
