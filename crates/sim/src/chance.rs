//! Where chance comes from: one stream of numbers for each use, all from the run's seed.

/// A sequence of numbers that a seed and a stream fix (splitmix64).
///
/// Each part of the simulator has a stream of its own, so that one draw more in one of them does
/// not change what the others do.
#[derive(Clone, Debug)]
pub struct Chance(u64);

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// What the run's weather is.
    Weather = 1,
    /// Delays and losses of messages.
    Network,
    /// How long disks take, and what a loss of power spares.
    Disk,
    /// How long threads and clocks take.
    Time,
    /// What clients ask.
    Clients,
    /// When faults strike, and whom.
    Faults,
    /// Members' own seeds.
    Members,
}

impl Chance {
    /// The stream of this seed.
    pub fn new(seed: u64, stream: Stream) -> Chance {
        let mut chance = Chance(seed ^ (stream as u64) << 56);
        // Seeds that differ in one bit give streams that have nothing in common.
        Chance(chance.next() ^ seed.rotate_left(32))
    }

    /// A stream of its own for the n-th of several uses.
    pub fn fork(&self, n: u64) -> Chance {
        let mut fork = Chance(self.0 ^ n << 40);
        Chance(fork.next())
    }

    /// The next number.
    #[allow(clippy::should_implement_trait, reason = "it never ends")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `bound`; 0 if that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// True so many times in a thousand.
    pub fn per_mille(&mut self, rate: u64) -> bool {
        self.below(1000) < rate
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// A time around `mean`: mostly below it, now and then several times as long (exponential, but
    /// without floating point, which differs between machines).
    pub fn around(&mut self, mean: u64) -> u64 {
        let drawn = self.next();
        let halvings = u64::from(drawn.leading_zeros());
        let rest = drawn & 0xff;
        mean * (halvings * 256 + rest) / 384
    }

    /// A time of at least `base`, and `2^k` times that with a chance of `2^-k`, up to `max`: the
    /// heavy tail of real networks and disks.
    pub fn heavy_tailed(&mut self, base: u64, max: u64) -> u64 {
        let drawn = self.next();
        let stretched = base.saturating_mul(1 << drawn.leading_zeros().min(40));
        (stretched + drawn % base.max(1)).min(max.max(base))
    }
}
