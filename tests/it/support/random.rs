//! Random numbers that a failed run can have again.

use rand::{SeedableRng as _, rngs::StdRng};

/// A generator whose seed is printed, and shown when the test fails. The environment variable
/// `TALLYHOOK_TEST_SEED` sets it.
pub(crate) fn seeded_rng() -> StdRng {
    let seed = match std::env::var("TALLYHOOK_TEST_SEED") {
        Ok(text) => text.parse().expect("TALLYHOOK_TEST_SEED is a number"),
        Err(_) => rand::random(),
    };
    println!("TALLYHOOK_TEST_SEED={seed}");
    StdRng::seed_from_u64(seed)
}
