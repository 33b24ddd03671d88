//! Enums whose variants are fixed words in SQL, JSON, metrics and the command line.

/// The text is not a word of the enum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown word")]
pub struct UnknownWord;

/// Declares an enum with a word per variant, for `as_str`, `Display`, `FromStr` and serde.
///
/// `Name or Other` adds `parse_or_other`, which accepts any case and maps unknown words to `Other`.
macro_rules! string_enum {
    (
        $(#[$outer:meta])*
        $name:ident { $($(#[$inner:meta])* $variant:ident = $word:literal,)* }
    ) => {
        $(#[$outer])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord,
            ::serde::Serialize, ::serde::Deserialize,
        )]
        pub enum $name { $($(#[$inner])* #[serde(rename = $word)] $variant,)* }

        impl $name {
            /// All variants, in declared order.
            pub const ALL: [Self; [$($word),*].len()] = [$(Self::$variant,)*];

            /// The word of the variant.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = $crate::domain::UnknownWord;

            fn from_str(word: &str) -> Result<Self, Self::Err> {
                let found = Self::ALL.into_iter().find(|variant| variant.as_str() == word);
                found.ok_or($crate::domain::UnknownWord)
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
    (
        $(#[$outer:meta])*
        $name:ident or Other { $($body:tt)* }
    ) => {
        string_enum! { $(#[$outer])* $name { $($body)* } }

        impl $name {
            /// The variant with this word in any case, or `Other`: an unknown status of a platform
            /// must not fail the event.
            pub fn parse_or_other(word: &str) -> Self {
                let is_word = |variant: &Self| variant.as_str().eq_ignore_ascii_case(word);
                Self::ALL.into_iter().find(is_word).unwrap_or(Self::Other)
            }
        }
    };
}

pub(super) use string_enum;
