//! What the tests of the log share.

#![allow(dead_code, reason = "each test binary uses a part")]

/// A small generator of numbers; a test prints its seed.
pub struct Draw(pub u64);

impl Draw {
    /// From `WAL_SEED`, else from the clock; printed, so that a failure can be repeated.
    pub fn from_environment() -> Draw {
        let seed = std::env::var("WAL_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| {
            let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            since.unwrap().as_nanos() as u64
        });
        println!("WAL_SEED={seed}");
        Draw(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
