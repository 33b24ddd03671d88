//! Tracks whether the quotes of a record are closed.

/// The state after a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QuoteState {
    /// All quotes are closed: the record ends here.
    Closed,
    /// A quoted field continues on the next line.
    Open,
    /// A quote is where no program writes one.
    Invalid,
}

/// Tracks the quotes of a record across its lines.
pub(super) struct QuoteTracker {
    delimiter: u8,
    /// Number of delimiters that may still follow.
    delimiters_left: usize,
    position: FieldPosition,
    /// Whether a field spans several lines.
    spans_lines: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum FieldPosition {
    /// At the start of a field.
    FieldStart,
    /// In an unquoted field.
    Unquoted,
    /// Within quotes.
    Quoted,
    /// After a quote, which closes the field unless another quote follows.
    AfterQuote,
}

impl QuoteTracker {
    /// Tracks a record of at most `fields` fields.
    pub(super) fn new(delimiter: u8, fields: usize) -> Self {
        Self {
            delimiter,
            delimiters_left: fields.saturating_sub(1),
            position: FieldPosition::FieldStart,
            spans_lines: false,
        }
    }

    /// Reads a line of the record, without its terminator.
    pub(super) fn read_line(&mut self, line: &[u8]) -> QuoteState {
        for byte in line {
            self.position = match (self.position, *byte) {
                (FieldPosition::Quoted, b'"') => FieldPosition::AfterQuote,
                (FieldPosition::FieldStart | FieldPosition::AfterQuote, b'"')
                | (FieldPosition::Quoted, _) => FieldPosition::Quoted,
                // Too many fields on several lines are not a record. Without this limit,
                // each following line would be scanned to the end of the file again.
                (_, byte) if byte == self.delimiter => match self.delimiters_left.checked_sub(1) {
                    None if self.spans_lines => return QuoteState::Invalid,
                    left => {
                        self.delimiters_left = left.unwrap_or_default();
                        FieldPosition::FieldStart
                    }
                },
                (FieldPosition::AfterQuote, _) => return QuoteState::Invalid,
                // A bare quote such as 5" is text. After a field of several lines it more
                // likely closes a field that began there.
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
