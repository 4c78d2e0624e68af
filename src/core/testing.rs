//! What the simulations of this floor share: a seeded generator, an origin of time, and header maps in one line.
//! A failing simulation names its seed, and the seed is all it takes to run it again.

use std::time::Instant;

use http::header::{HeaderName, HeaderValue};

use super::fields::Fields;

/// xorshift64 (Marsaglia, 2003): small, and good enough to choose test cases.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Uniform enough in `0..limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// In `0.0..1.0`.
    pub fn unit(&mut self) -> f64 {
        self.below(1 << 32) as f64 / (1u64 << 32) as f64
    }

    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

/// An arbitrary origin for simulated time.
#[allow(clippy::disallowed_methods, reason = "the value does not matter, only what is added to it")]
pub fn origin() -> Instant {
    Instant::now()
}

/// Fields with these lines, in this order.
pub fn map(fields: &[(&'static str, &str)]) -> Fields {
    let mut headers = Fields::default();
    for (name, value) in fields {
        headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}
