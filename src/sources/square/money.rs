//! Square's money: `{"amount": 100, "currency": "USD"}`, in the currency's minor unit.

use rust_decimal::Decimal;

use crate::{
    domain::{Currency, Money, PermanentFailure},
    sources::json_fields::JsonFields,
};

/// The required money at `root`.
pub(super) fn required(fields: &JsonFields<'_>, root: &str) -> Result<Money, PermanentFailure> {
    let currency = fields.required_currency(&format!("{root}/currency"))?;
    let pointer = format!("{root}/amount");
    from_minor_units(&fields.path_of(&pointer), fields.required_decimal(&pointer)?, currency)
}

/// The amount at `root`, which must be in this currency; `None` if there is none.
pub(super) fn optional(
    fields: &JsonFields<'_>,
    root: &str,
    currency: Currency,
) -> Result<Option<Decimal>, PermanentFailure> {
    let pointer = format!("{root}/amount");
    let Some(amount) = fields.decimal(&pointer)? else {
        return Ok(None);
    };
    let actual = fields.required_currency(&format!("{root}/currency"))?;
    if actual != currency {
        let detail = format!("is {actual}, but the document is in {currency}");
        return Err(PermanentFailure::invalid(fields.path_of(&format!("{root}/currency")), detail));
    }
    from_minor_units(&fields.path_of(&pointer), amount, currency).map(|money| Some(money.amount))
}

/// The sum of two amounts of a list.
pub(super) fn checked_sum(
    sum: Decimal,
    amount: Decimal,
    list: &str,
) -> Result<Decimal, PermanentFailure> {
    sum.checked_add(amount)
        .ok_or_else(|| PermanentFailure::invalid(list, "has a sum that is too large"))
}

fn from_minor_units(
    pointer: &str,
    count: Decimal,
    currency: Currency,
) -> Result<Money, PermanentFailure> {
    Money::from_minor_units(count, currency, currency.minor_digits())
        .map_err(|error| PermanentFailure::invalid(pointer, format!("is {error}")))
}
