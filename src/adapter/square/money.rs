//! Square's money: `{"amount": 100, "currency": "USD"}`, in the currency's
//! smallest unit.

use rust_decimal::Decimal;

use crate::{
    adapter::fields::Fields,
    domain::{Currency, Failure, Money},
};

/// The money at `root`, which must be there.
pub(super) fn required(fields: &Fields<'_>, root: &str) -> Result<Money, Failure> {
    let currency = fields.required_currency(&format!("{root}/currency"))?;
    let pointer = format!("{root}/amount");
    in_main_unit(&fields.named(&pointer), fields.required_decimal(&pointer)?, currency)
}

/// The amount at `root`, which must be in this currency; `None` if there is
/// none.
pub(super) fn of(
    fields: &Fields<'_>,
    root: &str,
    currency: Currency,
) -> Result<Option<Decimal>, Failure> {
    let pointer = format!("{root}/amount");
    let Some(amount) = fields.decimal(&pointer)? else {
        return Ok(None);
    };
    let own = fields.required_currency(&format!("{root}/currency"))?;
    if own != currency {
        let detail = format!("is {own}, and the document is in {currency}");
        return Err(Failure::invalid(fields.named(&format!("{root}/currency")), detail));
    }
    in_main_unit(&fields.named(&pointer), amount, currency).map(|money| Some(money.amount))
}

/// The sum of two amounts at a list.
pub(super) fn add(sum: Decimal, amount: Decimal, list: &str) -> Result<Decimal, Failure> {
    sum.checked_add(amount).ok_or_else(|| Failure::invalid(list, "adds up to too large a number"))
}

fn in_main_unit(pointer: &str, count: Decimal, currency: Currency) -> Result<Money, Failure> {
    Money::from_minor(count, currency, currency.minor_digits())
        .map_err(|error| Failure::invalid(pointer, format!("is {error}")))
}
