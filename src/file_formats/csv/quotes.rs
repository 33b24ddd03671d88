//! Whether a record's quotes are closed.

/// What a line leaves open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QuoteState {
    /// Nothing: the record ends with it.
    Closed,
    /// A quoted field, which goes on with the next line.
    Open,
    /// A quote stands where no program writes one.
    Invalid,
}

/// Follows a record's quotes over its lines.
pub(super) struct QuoteTracker {
    delimiter: u8,
    /// How many delimiters may still come between fields.
    delimiters_left: usize,
    position: FieldPosition,
    /// Whether a field goes over the end of a line.
    spans_lines: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum FieldPosition {
    /// Before a field.
    FieldStart,
    /// In a field without quotes.
    Unquoted,
    /// Within quotes.
    Quoted,
    /// Behind a quote that closes, unless another follows.
    AfterQuote,
}

impl QuoteTracker {
    /// Of a record of at most so many fields.
    pub(super) fn new(delimiter: u8, fields: usize) -> Self {
        Self {
            delimiter,
            delimiters_left: fields.saturating_sub(1),
            position: FieldPosition::FieldStart,
            spans_lines: false,
        }
    }

    /// Sees a line of the record, without its terminator.
    pub(super) fn read_line(&mut self, line: &[u8]) -> QuoteState {
        for byte in line {
            self.position = match (self.position, *byte) {
                (FieldPosition::Quoted, b'"') => FieldPosition::AfterQuote,
                (FieldPosition::FieldStart | FieldPosition::AfterQuote, b'"')
                | (FieldPosition::Quoted, _) => FieldPosition::Quoted,
                // Too many fields in several lines are no record. Without an end
                // here, what follows were looked at again from each line on.
                (_, byte) if byte == self.delimiter => match self.delimiters_left.checked_sub(1) {
                    None if self.spans_lines => return QuoteState::Invalid,
                    left => {
                        self.delimiters_left = left.unwrap_or_default();
                        FieldPosition::FieldStart
                    }
                },
                (FieldPosition::AfterQuote, _) => return QuoteState::Invalid,
                // A bare quote such as 5" is text; behind a field of several
                // lines it is rather the end of one that began there.
                (FieldPosition::Unquoted, b'"') if self.spans_lines => return QuoteState::Invalid,
                (FieldPosition::FieldStart | FieldPosition::Unquoted, _) => FieldPosition::Unquoted,
            };
        }
        if self.position == FieldPosition::Quoted {
            self.spans_lines = true;
            return QuoteState::Open;
        }
        QuoteState::Closed
    }
}
