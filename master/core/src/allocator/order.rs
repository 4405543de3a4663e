//! Who is next among siblings: by dominant share (semantics E10), or by weighted chance.

use super::amounts::Amounts;

/// How those that compete with each other are put in order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sorter {
    /// The least dominant share divided by weight comes first.
    #[default]
    DominantShare,
    /// Each is first with a chance in proportion to its weight, whatever it holds. The same seed
    /// gives the same decisions.
    WeightedRandom {
        /// Any number.
        seed: u64,
    },
}

/// The place among siblings: those that may have no more come last, then the least share, then the
/// fewest grants; what is equal in all that is ordered by name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key(u128);

impl Key {
    fn new(is_full: bool, share: f64, count: u64) -> Self {
        // Of a number that is not negative the bits are ordered as the numbers are, and the first
        // is zero.
        let share = u128::from(share.to_bits()) << 64;
        Self(u128::from(is_full) << 127 | share | u128::from(count))
    }

    pub(super) fn is_full(self) -> bool {
        self.0 >> 127 != 0
    }

    fn share(self) -> f64 {
        let bits = self.0 << 1 >> 65;
        f64::from_bits(u64::try_from(bits).expect("63 bits"))
    }
}

/// What decides the place of one competitor.
#[derive(Debug, Clone, Default)]
pub(super) struct Standing {
    /// What it holds.
    pub(super) held: Amounts,
    /// How many grants it has had.
    pub(super) count: u64,
    /// The time of its next turn, with [`Sorter::WeightedRandom`].
    turn: f64,
}

/// Computes places.
#[derive(Debug, Default)]
pub(super) struct Order {
    sorter: Sorter,
    state: u64,
    /// What the cluster had when shares were last measured, and one over it as of the last
    /// refreshment. Zero: does not count.
    measured: Amounts,
    is_stale: bool,
    inverse: Vec<f64>,
    excluded: Vec<usize>,
}

/// Shares are measured anew when the proportions of the totals have moved by this much.
const DRIFT_MAX: f64 = 1.01;

impl Order {
    pub(super) fn new(sorter: Sorter) -> Self {
        let state = match sorter {
            Sorter::DominantShare => 0,
            Sorter::WeightedRandom { seed } => seed,
        };
        Self {
            sorter,
            state,
            ..Self::default()
        }
    }

    /// These names count in no share.
    pub(super) fn exclude(&mut self, excluded: Vec<usize>) {
        self.excluded = excluded;
    }

    /// Remembers the totals if their proportions are not the remembered ones any more. While all
    /// totals grow alike no place changes.
    pub(super) fn measure(&mut self, totals: &Amounts) {
        if self.sorter != Sorter::DominantShare {
            return;
        }
        let (mut low, mut high, mut is_other) = (f64::INFINITY, 0f64, false);
        let names = totals.len().max(self.measured.len());
        for number in (0..names).filter(|number| !self.excluded.contains(number)) {
            match (self.measured.get(number), totals.get(number)) {
                (0, 0) => {}
                (0, _) | (_, 0) => is_other = true,
                (before, now) => {
                    let growth = now as f64 / before as f64;
                    low = low.min(growth);
                    high = high.max(growth);
                }
            }
        }
        if is_other || high > low * DRIFT_MAX {
            self.measured = totals.clone();
            self.is_stale = true;
        }
    }

    /// Whether all places must be computed anew, because shares are measured otherwise from now
    /// on.
    pub(super) fn refresh(&mut self) -> bool {
        if !std::mem::take(&mut self.is_stale) {
            return false;
        }
        self.inverse = self
            .measured
            .iter()
            .map(|(number, total)| {
                let counts = total > 0 && !self.excluded.contains(&number);
                if counts { 1.0 / total as f64 } else { 0.0 }
            })
            .collect();
        true
    }

    /// The dominant share of the totals as last measured.
    pub(super) fn share(&self, held: &Amounts) -> f64 {
        held.iter()
            .zip(&self.inverse)
            .fold(0.0, |share, ((_, held), inverse)| {
                f64::max(share, held as f64 * inverse)
            })
    }

    pub(super) fn key(&self, standing: &Standing, weight: f64, is_full: bool) -> Key {
        let share = match self.sorter {
            Sorter::DominantShare => self.share(&standing.held) / weight,
            Sorter::WeightedRandom { .. } => standing.turn,
        };
        // A negative share would be a fault of ours; it must not come last because of its bits.
        Key::new(is_full, share.max(0.0), standing.count)
    }

    /// It has had a grant: the turns of each competitor are a Poisson process whose rate is its
    /// weight, so that each turn is anybody's with a chance in proportion to the weights.
    pub(super) fn granted(&mut self, standing: &mut Standing, weight: f64) {
        standing.count += 1;
        if matches!(self.sorter, Sorter::WeightedRandom { .. }) {
            standing.turn += self.exponential() / weight;
        }
    }

    /// It competes from now on; those that are there are at `first`.
    pub(super) fn enter(&mut self, standing: &mut Standing, weight: f64, first: Option<Key>) {
        if matches!(self.sorter, Sorter::WeightedRandom { .. }) {
            let first = first.map_or(0.0, Key::share);
            standing.turn = standing.turn.max(first) + self.exponential() / weight;
        }
    }

    /// SplitMix64, made an exponential variate.
    fn exponential(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.state;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // In (0, 1], of which the logarithm is finite.
        let uniform = (((x ^ (x >> 31)) >> 11) + 1) as f64 / (1u64 << 53) as f64;
        -uniform.ln()
    }
}

/// Where in a round a slave is visited: the same for the same seed, round and slave, and as good as
/// chance otherwise.
pub(super) fn visiting_place(seed: u64, round: u64, slave: u32) -> u32 {
    let mut x = seed ^ round.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (u64::from(slave) << 32);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    u32::try_from(x >> 32).expect("the upper half")
}
