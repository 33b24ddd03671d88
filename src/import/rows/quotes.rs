//! Whether a record's quotes are closed.

/// What a line leaves open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nothing: the record ends with it.
    Closed,
    /// A quoted field, which goes on with the next line.
    Open,
    /// A quote stands where no program writes one.
    Wrong,
}

/// Follows a record's quotes over its lines.
pub(super) struct Quotes {
    delimiter: u8,
    /// How many delimiters may still come between fields.
    left: usize,
    place: Place,
    /// Whether a field goes over the end of a line.
    spans: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before a field.
    Before,
    /// In a field without quotes.
    Plain,
    /// Within quotes.
    Quoted,
    /// Behind a quote that closes, unless another follows.
    Behind,
}

impl Quotes {
    /// Of a record of at most so many fields.
    pub(super) fn new(delimiter: u8, fields: usize) -> Self {
        Self { delimiter, left: fields.saturating_sub(1), place: Place::Before, spans: false }
    }

    /// Sees a line of the record, without its terminator.
    pub(super) fn see(&mut self, line: &[u8]) -> Seen {
        for byte in line {
            self.place = match (self.place, *byte) {
                (Place::Quoted, b'"') => Place::Behind,
                (Place::Before | Place::Behind, b'"') | (Place::Quoted, _) => Place::Quoted,
                // Too many fields in several lines are no record. Without an end
                // here, what follows were looked at again from each line on.
                (_, byte) if byte == self.delimiter => match self.left.checked_sub(1) {
                    None if self.spans => return Seen::Wrong,
                    left => {
                        self.left = left.unwrap_or_default();
                        Place::Before
                    }
                },
                (Place::Behind, _) => return Seen::Wrong,
                // A bare quote such as 5" is text; behind a field of several
                // lines it is rather the end of one that began there.
                (Place::Plain, b'"') if self.spans => return Seen::Wrong,
                (Place::Before | Place::Plain, _) => Place::Plain,
            };
        }
        if self.place == Place::Quoted {
            self.spans = true;
            return Seen::Open;
        }
        Seen::Closed
    }
}
