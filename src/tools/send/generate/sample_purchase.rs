//! A random purchase, independent of platforms.

use rand::{RngExt as _, rngs::StdRng, seq::IndexedRandom as _};
use serde::Serialize;
use time::{Duration, OffsetDateTime, serde::timestamp};

const FIRST_NAMES: [&str; 12] = [
    "Ada", "Béla", "Chidi", "Dagny", "Emre", "Farah", "Goran", "Hanako", "Íris", "Jonas", "Søren",
    "Zoë",
];
#[rustfmt::skip]
const LAST_NAMES: [&str; 12] = [
    "Achebe", "Bergström", "Castillo", "Demir", "Ekdal", "Fontaine", "Grünwald", "Haraldsen",
    "Ito", "Jovanović", "Kowalska", "Núñez",
];
const STREETS: [&str; 6] =
    ["Harbour Lane", "Mill Road", "Orchard Close", "Lindenallee", "Rue du Pont", "Strandgata"];
/// City, country, country code, province, province code.
const PLACES: [[&str; 5]; 6] = [
    ["Northhaven", "United Kingdom", "GB", "England", "ENG"],
    ["Altenbrück", "Germany", "DE", "Hessen", "HE"],
    ["Fjordvik", "Norway", "NO", "Vestland", "46"],
    ["Maple Hollow", "United States", "US", "Kentucky", "KY"],
    ["Pont-Clair", "France", "FR", "Bretagne", "BRE"],
    ["Vila Serena", "Portugal", "PT", "Porto", "13"],
];
const CURRENCIES: [&str; 4] = ["EUR", "USD", "GBP", "NOK"];
const QUALITIES: [&str; 8] =
    ["Brushed", "Classic", "Everyday", "Folding", "Hand-thrown", "Light", "Oiled", "Woven"];
const MATERIALS: [&str; 8] =
    ["Ash", "Brass", "Cork", "Enamel", "Linen", "Stoneware", "Walnut", "Wool"];
const THINGS: [&str; 8] =
    ["Blanket", "Bowl", "Coat Hook", "Desk Lamp", "Jug", "Pepper Mill", "Stool", "Tray"];
const COLOURS: [&str; 6] = ["Chalk", "Forest Green", "Ink Blue", "Natural", "Ochre", "Soot Black"];

/// A fictional customer with an unreachable address and phone number.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Customer {
    id: u64,
    first_name: &'static str,
    last_name: &'static str,
    email: String,
    phone: String,
    street: String,
    postcode: String,
    city: &'static str,
    country: &'static str,
    country_code: &'static str,
    province: &'static str,
    province_code: &'static str,
}

/// A line; amounts in hundredths.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Line {
    id: u64,
    product_id: u64,
    variant_id: u64,
    title: String,
    colour: &'static str,
    sku: String,
    quantity: i64,
    price: i64,
    total: i64,
    tax: i64,
}

/// A purchase; amounts in hundredths, times in Unix seconds when serialized.
#[derive(Clone, Debug, Serialize)]
pub(super) struct SamplePurchase {
    /// Unique within a run, and most likely across runs; below 2^53.
    id: u64,
    /// The order number.
    number: u64,
    customer: Customer,
    lines: Vec<Line>,
    currency: &'static str,
    shipping: i64,
    discount: i64,
    /// Lines without the discount.
    subtotal: i64,
    tax: i64,
    total: i64,
    #[serde(with = "timestamp")]
    created_at: OffsetDateTime,
    #[serde(with = "timestamp")]
    pub(super) updated_at: OffsetDateTime,
    #[serde(with = "timestamp")]
    due_at: OffsetDateTime,
    pub(super) paid: bool,
    /// 0 to 99; decides about fulfillments and refunds.
    luck: u32,
}

impl SamplePurchase {
    /// Draws a purchase. With an `age` it is the same purchase as it was that
    /// many minutes earlier, unpaid.
    pub(super) fn random(
        rng: &mut StdRng,
        id: u64,
        number: u64,
        started_at: OffsetDateTime,
        age: u32,
    ) -> Self {
        let customer = customer(rng);
        let count = rng.random_range(1..=6);
        let lines: Vec<_> = (1..=count).map(|nth| line(rng, id, nth)).collect();
        let updated_at = started_at - Duration::seconds(rng.random_range(0..3_600));
        let created_at = updated_at - Duration::minutes(rng.random_range(5..2_000));
        let paid = rng.random_range(0..4) > 0;
        let currency = pick(rng, &CURRENCIES);
        let shipping = pick(rng, &[0, 490, 690, 1_250]);
        let discount = if rng.random_range(0..4) == 0 { 100 * count } else { 0 };
        let subtotal = lines.iter().map(|line| line.total).sum::<i64>() - discount;
        let tax = lines.iter().map(|line| line.tax).sum();
        Self {
            id,
            number,
            customer,
            lines,
            currency,
            shipping,
            discount,
            subtotal,
            tax,
            total: subtotal + tax + shipping,
            created_at,
            updated_at: updated_at - Duration::minutes(i64::from(age)),
            due_at: created_at + Duration::days(30),
            paid: paid && age == 0,
            luck: rng.random_range(0..100),
        }
    }
}

fn pick<T: Copy + Default>(rng: &mut StdRng, among: &[T]) -> T {
    among.choose(rng).copied().unwrap_or_default()
}

fn customer(rng: &mut StdRng) -> Customer {
    let [first_name, last_name] = [pick(rng, &FIRST_NAMES), pick(rng, &LAST_NAMES)];
    let [city, country, country_code, province, province_code] = pick(rng, &PLACES);
    let number = rng.random_range(10_000..100_000_u64);
    Customer {
        id: 7_000_000_000_000 + number,
        first_name,
        last_name,
        email: format!("customer.{number}@example.com"),
        // 555-01xx is reserved for fiction.
        phone: format!("+1555555{:04}", rng.random_range(100..200)),
        street: format!("{} {}", pick(rng, &STREETS), rng.random_range(1..200)),
        postcode: format!("{:05}", rng.random_range(1_000..99_999)),
        city,
        country,
        country_code,
        province,
        province_code,
    }
}

fn line(rng: &mut StdRng, order: u64, nth: i64) -> Line {
    let [quality, material, thing] = [(); 3].map(|()| rng.random_range(0..8));
    let product = u64::try_from(quality * 64 + material * 8 + thing).unwrap_or_default();
    let colour = pick(rng, &COLOURS);
    let quantity = rng.random_range(1..=3);
    let price = rng.random_range(490..24_900);
    Line {
        id: order.wrapping_mul(8).wrapping_add(nth.unsigned_abs()),
        product_id: 8_100_000_000_000 + product,
        variant_id: 44_100_000_000_000 + product * 8,
        title: format!("{} {} {}", QUALITIES[quality], MATERIALS[material], THINGS[thing]),
        colour,
        sku: format!("TH-{product:04}-{}", colour.replace(' ', "").to_uppercase()),
        quantity,
        price,
        total: price * quantity,
        tax: price * quantity * 6 / 100,
    }
}
