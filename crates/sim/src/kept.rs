//! Seeds that failed once, kept so that they never fail again.

/// A kept seed.
pub struct Kept {
    /// The seed.
    pub seed: u64,
    /// What it failed for.
    pub why: &'static str,
}

/// All of them. A seed means another run after a change of what is drawn; what a fault taught is kept
/// for good in a script or a test (docs/track-record.md).
pub fn kept_seeds() -> impl Iterator<Item = Kept> {
    let lines = include_str!("../seeds.txt").lines();
    lines.filter(|line| !line.starts_with('#') && !line.is_empty()).map(|line| {
        let (seed, why) = line.split_once(' ').unwrap_or((line, ""));
        Kept { seed: seed.parse().expect("a line of seeds.txt begins with a number"), why }
    })
}
