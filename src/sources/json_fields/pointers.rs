//! JSON pointers, and the visitor that finds their values in one pass.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// JSON pointers, compiled into a tree.
#[derive(Debug, Default)]
pub struct JsonPointers {
    names: Vec<String>,
    root: Node,
}

#[derive(Debug, Default)]
struct Node {
    /// Index of the pointer that ends here.
    slot: Option<usize>,
    children: Vec<(String, Node)>,
}

impl JsonPointers {
    /// Compiles pointers such as `/customer/id`; duplicates are merged.
    pub fn new<S: AsRef<str>>(pointers: impl IntoIterator<Item = S>) -> Self {
        let mut compiled = Self::default();
        for pointer in pointers {
            compiled.add(pointer.as_ref());
        }
        compiled
    }

    fn add(&mut self, pointer: &str) {
        if self.names.iter().any(|name| name == pointer) {
            return;
        }
        let mut node = &mut self.root;
        for part in pointer.split('/').skip(1) {
            let key = part.replace("~1", "/").replace("~0", "~");
            let known = node.children.iter().position(|(name, _)| *name == key);
            let index = known.unwrap_or_else(|| {
                node.children.push((key, Node::default()));
                node.children.len() - 1
            });
            node = &mut node.children[index].1;
        }
        node.slot = Some(self.names.len());
        self.names.push(pointer.to_owned());
    }

    /// Index of a compiled pointer among the values of [`JsonPointers::read`].
    pub(super) fn slot(&self, pointer: &str) -> Option<usize> {
        self.names.iter().position(|name| name == pointer)
    }

    /// The raw values at the pointers of a document.
    ///
    /// # Errors
    /// The document is not valid JSON.
    pub(super) fn read<'a>(&self, text: &'a str) -> serde_json::Result<Vec<Option<&'a RawValue>>> {
        let mut values = vec![None; self.names.len()];
        let mut json = serde_json::Deserializer::from_str(text);
        PointerVisitor { node: &self.root, values: &mut values }.deserialize(&mut json)?;
        json.end()?;
        Ok(values)
    }
}

/// Whether a text is a JSON pointer below the root.
pub fn is_json_pointer(text: &str) -> bool {
    text.starts_with('/')
}

/// Walks a document along the pointers and stores the literals at their ends.
struct PointerVisitor<'p, 'v, 'de> {
    node: &'p Node,
    values: &'v mut [Option<&'de RawValue>],
}

impl<'de> DeserializeSeed<'de> for PointerVisitor<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        let Some(slot) = self.node.slot else {
            return json.deserialize_any(self);
        };
        let raw = <&'de RawValue as serde::Deserialize>::deserialize(json)?;
        self.values[slot] = Some(raw);
        if self.node.children.is_empty() {
            return Ok(());
        }
        let inner = PointerVisitor { node: self.node, values: self.values };
        serde_json::Deserializer::from_str(raw.get())
            .deserialize_any(inner)
            .map_err(serde::de::Error::custom)
    }
}

impl<'de> Visitor<'de> for PointerVisitor<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(child) = map.next_key_seed(KeySeed(self.node))? {
            match child {
                Some(node) => {
                    map.next_value_seed(PointerVisitor { node, values: &mut *self.values })?;
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        for index in 0_usize.. {
            let name = index.to_string();
            let child = self.node.children.iter().find(|(key, _)| *key == name);
            let more = match child {
                Some((_, node)) => seq
                    .next_element_seed(PointerVisitor { node, values: &mut *self.values })?
                    .is_some(),
                None => seq.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    // A scalar has no members, so pointers below it find nothing.
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Reads a key of an object and finds its node.
struct KeySeed<'p>(&'p Node);

impl<'p, 'de> DeserializeSeed<'de> for KeySeed<'p> {
    type Value = Option<&'p Node>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_identifier(self)
    }
}

impl<'p> Visitor<'_> for KeySeed<'p> {
    type Value = Option<&'p Node>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.children.iter().find(|(name, _)| name == key).map(|(_, node)| node))
    }
}
