//! Where tasks come from: when, how large, how long.

use std::sync::Arc;
use std::time::Duration;

use meros_proto::resources::Resources;
use meros_proto::time::Timestamp;

use crate::prng::Rng;

/// The longest time that is drawn: a tail without an end would overrun the clock.
pub(crate) const RUNS_MAX: Duration = Duration::from_secs(365 * 24 * 3_600);

/// When tasks become ready.
#[derive(Debug, Clone)]
pub(crate) enum Arrivals {
    /// One by one, independent of each other, so many a second on average.
    Poisson { per_second: f64 },
    /// So many at once, again and again; the first ones after `first`.
    Bursts {
        first: Duration,
        every: Duration,
        count: u32,
    },
    /// So many at the beginning.
    Start { count: u32 },
    /// As listed.
    Listed(Arc<[Listed]>),
}

/// A task of a list.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    /// Since the beginning; lists are in order.
    pub(crate) at: Duration,
    pub(crate) resources: Arc<Resources>,
    pub(crate) runs: Option<Duration>,
    /// So many alike.
    pub(crate) count: u32,
    /// How many groups of the list must have ended before this one is ready.
    pub(crate) waits_for: u32,
    /// Places in the list of those that wait for this one.
    pub(crate) unlocks: Vec<u32>,
    /// Set if it runs only where there is one of these models of GPUs.
    pub(crate) models: Option<Arc<[String]>>,
}

/// How long tasks run.
#[derive(Debug, Clone)]
pub(crate) enum Runs {
    /// Until they are killed.
    Forever,
    Fixed(Duration),
    Uniform(Duration, Duration),
    Exponential {
        mean: Duration,
    },
    /// Heavy-tailed between both ends.
    Pareto {
        alpha: f64,
        min: Duration,
        max: Duration,
    },
    Lognormal {
        median: Duration,
        sigma: f64,
    },
    /// One of these, each as likely.
    Measured(Arc<[Duration]>),
}

/// Evenly between 0 and 1, without 0.
fn unit(rng: &mut Rng) -> f64 {
    const BITS: u32 = 53;
    ((rng.next() >> (64 - BITS)) + 1) as f64 / (1_u64 << BITS) as f64
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds)
        .unwrap_or(RUNS_MAX)
        .min(RUNS_MAX)
}

impl Runs {
    /// How long the next one runs; None: until it is killed.
    ///
    /// Logarithms and powers come from a library of our own choice and not from the system's, so
    /// that a seed means the same everywhere.
    pub(crate) fn draw(&self, rng: &mut Rng) -> Option<Duration> {
        Some(match self {
            Self::Forever => return None,
            Self::Fixed(runs) => *runs,
            Self::Uniform(low, high) => rng.duration(*low, *high),
            Self::Exponential { mean } => seconds(-libm::log(unit(rng)) * mean.as_secs_f64()),
            Self::Pareto { alpha, min, max } => {
                let (low, high) = (min.as_secs_f64(), max.as_secs_f64());
                // The inverse of the bounded distribution function.
                let tail = libm::pow(low / high, *alpha);
                let rest = 1.0 - unit(rng) * (1.0 - tail);
                seconds(low * libm::pow(rest, -1.0 / alpha)).clamp(*min, *max)
            }
            Self::Lognormal { median, sigma } => {
                // Box-Muller.
                let radius = libm::sqrt(-2.0 * libm::log(unit(rng)));
                let normal = radius * libm::cos(std::f64::consts::TAU * unit(rng));
                seconds(median.as_secs_f64() * libm::exp(sigma * normal))
            }
            Self::Measured(all) => *rng.pick(all),
        })
    }
}

/// A place where tasks come from, and how far it has come.
#[derive(Debug)]
pub(crate) struct Source {
    arrivals: Arrivals,
    rng: Rng,
    /// When the next ones come; the first place of a list that has not come.
    next: Option<Timestamp>,
    at: usize,
}

impl Source {
    pub(crate) fn new(arrivals: Arrivals, mut rng: Rng, start: Timestamp) -> Self {
        let next = match &arrivals {
            Arrivals::Poisson { per_second } => Some(start.after(gap(*per_second, &mut rng))),
            Arrivals::Bursts { first, .. } => Some(start.after(*first)),
            Arrivals::Start { .. } => Some(start),
            Arrivals::Listed(list) => list.first().map(|first| start.after(first.at)),
        };
        Self {
            arrivals,
            rng,
            next,
            at: 0,
        }
    }

    /// When the next ones come.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.next
    }

    /// What has come by `now`; asked at [`next`](Self::next). `start` is the beginning of the run.
    pub(crate) fn take(&mut self, now: Timestamp, start: Timestamp) -> Arrived {
        let Some(due) = self.next.filter(|due| *due <= now) else {
            return Arrived::Count(0);
        };
        match &self.arrivals {
            Arrivals::Poisson { per_second } => {
                self.next = Some(due.after(gap(*per_second, &mut self.rng)));
                Arrived::Count(1)
            }
            Arrivals::Bursts { every, count, .. } => {
                self.next = Some(due.after(*every));
                Arrived::Count(*count)
            }
            Arrivals::Start { count } => {
                self.next = None;
                Arrived::Count(*count)
            }
            Arrivals::Listed(list) => {
                let from = self.at;
                while list
                    .get(self.at)
                    .is_some_and(|it| start.after(it.at) <= now)
                {
                    self.at += 1;
                }
                self.next = list.get(self.at).map(|it| start.after(it.at));
                Arrived::Listed(from..self.at)
            }
        }
    }

    /// The list, if it is one.
    pub(crate) fn list(&self) -> Option<&Arc<[Listed]>> {
        match &self.arrivals {
            Arrivals::Listed(list) => Some(list),
            _ => None,
        }
    }
}

/// What has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Arrived {
    /// So many tasks of the source's kind.
    Count(u32),
    /// These places of its list.
    Listed(std::ops::Range<usize>),
}

/// Between two arrivals that know nothing of each other.
fn gap(per_second: f64, rng: &mut Rng) -> Duration {
    seconds(-libm::log(unit(rng)) / per_second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::START;

    fn mean(runs: &Runs) -> f64 {
        let mut rng = Rng::new(11);
        let count = 40_000;
        let drawn = (0..count).map(|_| runs.draw(&mut rng).expect("it ends").as_secs_f64());
        drawn.sum::<f64>() / f64::from(count)
    }

    #[test]
    fn durations_have_the_means_of_their_distributions() {
        let s = Duration::from_secs;
        let expected = [
            (Runs::Fixed(s(7)), 7.0),
            (Runs::Uniform(s(0), s(10)), 5.0),
            (Runs::Exponential { mean: s(30) }, 30.0),
            (
                Runs::Lognormal {
                    median: s(10),
                    sigma: 0.5,
                },
                10.0 * (0.125_f64).exp(),
            ),
            // alpha / (alpha - 1) * (l - l^alpha h^(1 - alpha)) / (1 - (l / h)^alpha)
            (
                Runs::Pareto {
                    alpha: 2.0,
                    min: s(1),
                    max: s(100),
                },
                2.0 * (1.0 - 0.01) / (1.0 - 0.0001),
            ),
        ];
        for (runs, expected) in expected {
            let mean = mean(&runs);
            assert!((mean / expected - 1.0).abs() < 0.03, "{runs:?} {mean}");
        }
    }

    #[test]
    fn a_heavy_tail_stays_within_its_ends_and_reaches_far() {
        let (min, max) = (Duration::from_secs(10), Duration::from_secs(10_000));
        let runs = Runs::Pareto {
            alpha: 1.1,
            min,
            max,
        };
        let mut rng = Rng::new(5);
        let drawn: Vec<Duration> = (0..10_000).filter_map(|_| runs.draw(&mut rng)).collect();
        assert!(drawn.iter().all(|it| (min..=max).contains(it)));
        assert!(drawn.iter().any(|it| *it > max / 4), "no long one");
    }

    #[test]
    fn poisson_arrivals_come_as_often_as_they_should() {
        let arrivals = Arrivals::Poisson { per_second: 4.0 };
        let mut source = Source::new(arrivals, Rng::new(2), START);
        let end = START.after(Duration::from_secs(5_000));
        let mut count = 0;
        while let Some(due) = source.next().filter(|due| *due < end) {
            assert_eq!(source.take(due, START), Arrived::Count(1));
            count += 1;
        }
        assert!((19_000..21_000).contains(&count), "{count}");
    }
}
