//! Exact money: a decimal amount and its currency, never a float.

use std::{fmt, str::FromStr};

use rust_decimal::Decimal;

/// An ISO 4217 currency code: three letters, upper case.
///
/// Codes that ISO does not list are accepted too: some shops invent codes, and an unknown
/// currency must not fail an order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Currency([u8; 3]);

/// The text is not three letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a currency is three letters (ISO 4217)")]
pub struct InvalidCurrency;

impl Currency {
    /// `XXX`: ISO's code for "no currency".
    pub const NONE: Self = Self(*b"XXX");

    /// The code as text.
    pub fn as_str(&self) -> &str {
        // The array holds only ASCII letters, so this never fails.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// Currencies whose minor unit is not a hundredth of the main unit, with their number of
/// decimals (ISO 4217, list one).
const MINOR_DIGITS: [(&str, u32); 26] = [
    ("BHD", 3),
    ("BIF", 0),
    ("CLF", 4),
    ("CLP", 0),
    ("DJF", 0),
    ("GNF", 0),
    ("IQD", 3),
    ("ISK", 0),
    ("JOD", 3),
    ("JPY", 0),
    ("KMF", 0),
    ("KRW", 0),
    ("KWD", 3),
    ("LYD", 3),
    ("OMR", 3),
    ("PYG", 0),
    ("RWF", 0),
    ("TND", 3),
    ("UGX", 0),
    ("UYI", 0),
    ("UYW", 4),
    ("VND", 0),
    ("VUV", 0),
    ("XAF", 0),
    ("XOF", 0),
    ("XPF", 0),
];

impl Currency {
    /// Number of decimals of the minor unit: 2 for EUR, 0 for JPY, 3 for KWD. 2 for codes
    /// that ISO does not list.
    pub fn minor_digits(&self) -> u32 {
        MINOR_DIGITS
            .iter()
            .find(|(code, _)| *code == self.as_str())
            .map_or(2, |(_, digits)| *digits)
    }
}

impl FromStr for Currency {
    type Err = InvalidCurrency;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match *text.as_bytes() {
            [a, b, c] if [a, b, c].iter().all(u8::is_ascii_alphabetic) => {
                Ok(Self([a, b, c].map(|letter| letter.to_ascii_uppercase())))
            }
            _ => Err(InvalidCurrency),
        }
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An exact amount in a currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Money {
    /// The amount in the currency's main unit, with the decimals it was sent with.
    pub amount: Decimal,
    /// The currency of the amount.
    pub currency: Currency,
}

impl Money {
    /// Builds an amount from a count of minor units, of which `10^digits` make one main
    /// unit: 1999 with 2 digits is 19.99.
    ///
    /// # Errors
    /// [`InvalidAmount`] if the count is not a whole number or has too many digits.
    pub fn from_minor_units(
        count: Decimal,
        currency: Currency,
        digits: u32,
    ) -> Result<Self, InvalidAmount> {
        let count = count.normalize();
        if count.scale() > 0 {
            return Err(InvalidAmount);
        }
        let amount = Decimal::try_from_i128_with_scale(count.mantissa(), digits)
            .map_err(|_| InvalidAmount)?;
        Ok(Self { amount, currency })
    }
}

/// The text is not a decimal number, or has more than 28 digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a decimal number of at most 28 digits")]
pub struct InvalidAmount;

/// Parses a decimal exactly: `598.94`, `1.5e3`.
///
/// # Errors
/// [`InvalidAmount`] if the text is not a number, or would have to be rounded.
pub fn parse_decimal(literal: &str) -> Result<Decimal, InvalidAmount> {
    let (mantissa, exponent) = match literal.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => {
            (mantissa, exponent.parse::<i32>().map_err(|_| InvalidAmount)?)
        }
        None => (literal, 0),
    };
    // `Decimal` also accepts `1_000`, which no platform sends.
    let is_allowed = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'+');
    if !mantissa.bytes().all(is_allowed) || !mantissa.bytes().any(|byte| byte.is_ascii_digit()) {
        return Err(InvalidAmount);
    }
    let mantissa = Decimal::from_str_exact(mantissa).map_err(|_| InvalidAmount)?;
    if exponent == 0 { Ok(mantissa) } else { multiply_by_power_of_ten(mantissa, exponent) }
}

/// Multiplies by a power of ten without rounding.
fn multiply_by_power_of_ten(value: Decimal, exponent: i32) -> Result<Decimal, InvalidAmount> {
    if value.is_zero() {
        return Ok(Decimal::ZERO);
    }
    let scale = i64::from(value.scale()) - i64::from(exponent);
    let (mantissa, scale) = if scale >= 0 {
        (value.mantissa(), u32::try_from(scale).map_err(|_| InvalidAmount)?)
    } else {
        let power = u32::try_from(-scale).map_err(|_| InvalidAmount)?;
        let factor = 10_i128.checked_pow(power).ok_or(InvalidAmount)?;
        (value.mantissa().checked_mul(factor).ok_or(InvalidAmount)?, 0)
    };
    Decimal::try_from_i128_with_scale(mantissa, scale).map_err(|_| InvalidAmount)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn decimal_literals_are_exact() {
        for (literal, expected) in [
            ("598.94", "598.94"),
            ("0", "0"),
            ("0.00", "0.00"),
            ("0e9", "0"),
            ("-12.50", "-12.50"),
            ("1.5e3", "1500"),
            ("15E-1", "1.5"),
            ("9007199254740993", "9007199254740993"),
            ("0.1", "0.1"),
            ("1234567890123456789.123456789", "1234567890123456789.123456789"),
        ] {
            assert_eq!(parse_decimal(literal).map(|d| d.to_string()).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn decimal_invalid_or_rounded_is_rejected() {
        for literal in [
            "",
            "-",
            ".",
            "abc",
            "1,50",
            "1_000",
            "NaN",
            "inf",
            "1e",
            "1e400",
            "1e-400",
            "0x10",
            "12345678901234567890123456789012345",
            "0.12345678901234567890123456789012345",
        ] {
            assert_eq!(parse_decimal(literal), Err(InvalidAmount), "{literal}");
        }
    }

    #[test]
    fn currency_is_three_letters() {
        assert_eq!("eur".parse::<Currency>().map(|c| c.to_string()), Ok("EUR".to_owned()));
        for bad in ["", "EU", "EURO", "E1R", "€"] {
            assert_eq!(bad.parse::<Currency>(), Err(InvalidCurrency), "{bad}");
        }
        assert_eq!(format!("{:?}", Currency::NONE), "XXX");
    }

    #[test]
    fn currency_minor_digits_follow_iso_4217() {
        for (code, digits) in [("EUR", 2), ("JPY", 0), ("KWD", 3), ("CLF", 4), ("ZZZ", 2)] {
            assert_eq!(
                code.parse().map(|code: Currency| code.minor_digits()),
                Ok(digits),
                "{code}"
            );
        }
    }

    #[test]
    fn money_from_minor_units_is_exact_or_rejected() {
        let money = |count: &str, digits| {
            Money::from_minor_units(count.parse().unwrap(), Currency::NONE, digits)
                .map(|money| money.amount.to_string())
        };
        for (count, digits, expected) in [
            ("1999", 2, "19.99"),
            ("1999.00", 2, "19.99"),
            ("-1999", 3, "-1.999"),
            ("1999", 0, "1999"),
            ("100", 2, "1.00"),
        ] {
            assert_eq!(money(count, digits).as_deref(), Ok(expected), "{count}");
        }
        assert_eq!(money("19.5", 2), Err(InvalidAmount));
        assert_eq!(money("1", 29), Err(InvalidAmount));
    }

    proptest! {
        #[test]
        fn decimal_random_amount_round_trips(minor in any::<i64>(), scale in 0_u32..6) {
            let amount = Decimal::from_i128_with_scale(minor.into(), scale);
            prop_assert_eq!(parse_decimal(&amount.to_string()), Ok(amount));
        }

        #[test]
        fn decimal_random_text_never_panics(text in ".{0,40}") {
            let _ = parse_decimal(&text);
        }
    }
}
