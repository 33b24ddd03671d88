//! An invented purchase, before any platform's shape.

use rand::{RngExt as _, rngs::StdRng, seq::IndexedRandom as _};
use rust_decimal::Decimal;
use time::{Duration, OffsetDateTime};

const FIRST_NAMES: [&str; 12] = [
    "Ada", "Béla", "Chidi", "Dagny", "Emre", "Farah", "Goran", "Hanako", "Íris", "Jonas", "Søren",
    "Zoë",
];
const LAST_NAMES: [&str; 12] = [
    "Achebe",
    "Bergström",
    "Castillo",
    "Demir",
    "Ekdal",
    "Fontaine",
    "Grünwald",
    "Haraldsen",
    "Ito",
    "Jovanović",
    "Kowalska",
    "Núñez",
];
const STREETS: [&str; 6] =
    ["Harbour Lane", "Mill Road", "Orchard Close", "Lindenallee", "Rue du Pont", "Strandgata"];
const PLACES: [Place; 6] = [
    Place::new("Northhaven", "United Kingdom", "GB", "England", "ENG"),
    Place::new("Altenbrück", "Germany", "DE", "Hessen", "HE"),
    Place::new("Fjordvik", "Norway", "NO", "Vestland", "46"),
    Place::new("Maple Hollow", "United States", "US", "Kentucky", "KY"),
    Place::new("Pont-Clair", "France", "FR", "Bretagne", "BRE"),
    Place::new("Vila Serena", "Portugal", "PT", "Porto", "13"),
];
const CURRENCIES: [&str; 4] = ["EUR", "USD", "GBP", "NOK"];
const QUALITIES: [&str; 8] =
    ["Brushed", "Classic", "Everyday", "Folding", "Hand-thrown", "Light", "Oiled", "Woven"];
const MATERIALS: [&str; 8] =
    ["Ash", "Brass", "Cork", "Enamel", "Linen", "Stoneware", "Walnut", "Wool"];
const THINGS: [&str; 8] =
    ["Blanket", "Bowl", "Coat Hook", "Desk Lamp", "Jug", "Pepper Mill", "Stool", "Tray"];
const COLOURS: [&str; 6] = ["Chalk", "Forest Green", "Ink Blue", "Natural", "Ochre", "Soot Black"];

/// Where somebody lives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) city: &'static str,
    pub(super) country: &'static str,
    pub(super) country_code: &'static str,
    pub(super) province: &'static str,
    pub(super) province_code: &'static str,
}

impl Place {
    const fn new(
        city: &'static str,
        country: &'static str,
        country_code: &'static str,
        province: &'static str,
        province_code: &'static str,
    ) -> Self {
        Self { city, country, country_code, province, province_code }
    }
}

/// Who buys; nobody real, and nobody who can be reached.
#[derive(Clone, Debug)]
pub(super) struct Customer {
    pub(super) id: u64,
    pub(super) first_name: &'static str,
    pub(super) last_name: &'static str,
    pub(super) email: String,
    pub(super) phone: String,
    pub(super) street: String,
    pub(super) postcode: String,
    pub(super) place: Place,
}

/// What is bought; amounts in hundredths.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) id: u64,
    pub(super) product_id: u64,
    pub(super) variant_id: u64,
    pub(super) title: String,
    pub(super) colour: &'static str,
    pub(super) sku: String,
    pub(super) quantity: i64,
    pub(super) price: i64,
    pub(super) tax: i64,
}

impl Line {
    pub(super) fn total(&self) -> i64 {
        self.price * self.quantity
    }
}

/// One purchase; amounts in hundredths.
#[derive(Clone, Debug)]
pub(super) struct Basket {
    /// Unique within and, but for chance, across runs; below 2^53.
    pub(super) id: u64,
    /// The number that people know it by.
    pub(super) number: u64,
    pub(super) customer: Customer,
    pub(super) lines: Vec<Line>,
    pub(super) currency: &'static str,
    pub(super) shipping: i64,
    pub(super) discount: i64,
    pub(super) created_at: OffsetDateTime,
    pub(super) updated_at: OffsetDateTime,
    pub(super) paid: bool,
    /// Of 100: decides what else belongs to it, such as parcels on their way.
    pub(super) luck: u32,
}

impl Basket {
    /// Draws a purchase. One of a greater age is the same purchase as it
    /// stood that many minutes earlier, not paid yet.
    pub(super) fn draw(
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
        Self {
            id,
            number,
            customer,
            currency: pick(rng, &CURRENCIES),
            shipping: pick(rng, &[0, 490, 690, 1_250]),
            discount: if rng.random_range(0..4) == 0 { 100 * count } else { 0 },
            lines,
            created_at,
            updated_at: updated_at - Duration::minutes(i64::from(age)),
            paid: paid && age == 0,
            luck: rng.random_range(0..100),
        }
    }

    pub(super) fn subtotal(&self) -> i64 {
        self.lines.iter().map(Line::total).sum::<i64>() - self.discount
    }

    pub(super) fn tax(&self) -> i64 {
        self.lines.iter().map(|line| line.tax).sum()
    }

    pub(super) fn total(&self) -> i64 {
        self.subtotal() + self.tax() + self.shipping
    }
}

/// Hundredths as platforms write them: `"12.30"`.
pub(super) fn money(hundredths: i64) -> String {
    Decimal::new(hundredths, 2).to_string()
}

/// One of a list that is not empty.
pub(super) fn pick<T: Copy + Default>(rng: &mut StdRng, among: &[T]) -> T {
    among.choose(rng).copied().unwrap_or_default()
}

fn customer(rng: &mut StdRng) -> Customer {
    let first_name = pick(rng, &FIRST_NAMES);
    let last_name = pick(rng, &LAST_NAMES);
    let place = *PLACES.choose(rng).unwrap_or(&PLACES[0]);
    let number = rng.random_range(10_000..100_000_u64);
    Customer {
        id: 7_000_000_000_000 + number,
        first_name,
        last_name,
        email: format!("customer.{number}@example.com"),
        // 555-01xx is set aside for fiction.
        phone: format!("+1555555{:04}", rng.random_range(100..200)),
        street: format!("{} {}", pick(rng, &STREETS), rng.random_range(1..200)),
        postcode: format!("{:05}", rng.random_range(1_000..99_999)),
        place,
    }
}

fn line(rng: &mut StdRng, order: u64, nth: i64) -> Line {
    let (quality, material, thing) =
        (rng.random_range(0..8), rng.random_range(0..8), rng.random_range(0..8));
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
        tax: price * quantity * 6 / 100,
    }
}
