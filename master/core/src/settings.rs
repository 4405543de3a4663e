//! Settings of the whole cluster: what operators have changed while it runs. They count instead of what
//! masters were started with, on whichever master leads.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use meros_proto::refusal::Refusal;
use serde::{Deserialize, Serialize};
use tracing::info;

use crate::MasterCore;
use crate::command::Command;
use crate::config::Config;
use crate::event::RequestId;
use crate::turn::Turn;

/// What can be changed. Named as the option of a master that it replaces. Variants are appended, never
/// reordered. Values are milliseconds or a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClusterSetting {
    /// [`Config::offer_timeout`] of offers that are made from then on.
    OfferTimeout,
    /// [`Config::slave_reregister_timeout`] of slaves that go away from then on.
    SlaveReregisterTimeout,
    /// [`Config::allocation_delay`].
    AllocationDelay,
    /// [`Config::hoarding_after`].
    HoardingAfter,
    /// [`Config::hoarding_offers`].
    HoardingOffers,
}

const SECOND: u64 = 1_000;
const HOUR: u64 = 60 * 60 * SECOND;

impl ClusterSetting {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::OfferTimeout,
        Self::SlaveReregisterTimeout,
        Self::AllocationDelay,
        Self::HoardingAfter,
        Self::HoardingOffers,
    ];

    /// The name of the option.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OfferTimeout => "offer_timeout",
            Self::SlaveReregisterTimeout => "slave_reregister_timeout",
            Self::AllocationDelay => "allocation_delay",
            Self::HoardingAfter => "hoarding_after",
            Self::HoardingOffers => "hoarding_offers",
        }
    }

    /// The setting of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|setting| setting.name() == name)
    }

    /// Whether the value is a time in milliseconds; else it is a number.
    #[must_use]
    pub const fn is_time(self) -> bool {
        !matches!(self, Self::HoardingOffers)
    }

    /// What the value may be: the same as of the option.
    #[must_use]
    pub const fn range(self) -> RangeInclusive<u64> {
        match self {
            Self::OfferTimeout => SECOND..=HOUR,
            Self::SlaveReregisterTimeout => SECOND..=24 * HOUR,
            Self::AllocationDelay => 0..=SECOND,
            Self::HoardingAfter => 0..=HOUR,
            Self::HoardingOffers => 1..=100_000,
        }
    }
}

impl Config {
    /// The same with what is set for the cluster.
    pub(crate) fn with(&self, settings: &BTreeMap<ClusterSetting, u64>) -> Self {
        let mut config = self.clone();
        for (setting, value) in settings {
            let time = Duration::from_millis(*value);
            match setting {
                ClusterSetting::OfferTimeout => config.offer_timeout = time,
                ClusterSetting::SlaveReregisterTimeout => config.slave_reregister_timeout = time,
                ClusterSetting::AllocationDelay => config.allocation_delay = time,
                ClusterSetting::HoardingAfter => config.hoarding_after = time,
                ClusterSetting::HoardingOffers => {
                    config.hoarding_offers = u32::try_from(*value).unwrap_or(u32::MAX);
                }
            }
        }
        config.clamped()
    }
}

impl MasterCore {
    /// Changes settings of the cluster, all or none.
    pub(crate) fn on_set_settings(
        &mut self,
        request: RequestId,
        settings: Vec<(ClusterSetting, Option<u64>)>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Refusal> {
        let invalid = |setting: ClusterSetting, why: String| Refusal::Invalid {
            field: setting.name().to_owned(),
            why,
        };
        let mut seen = BTreeSet::new();
        for (setting, value) in &settings {
            if !seen.insert(setting) {
                return Err(invalid(*setting, "it is given twice".to_owned()));
            }
            let range = setting.range();
            if let Some(value) = value.filter(|value| !range.contains(value)) {
                let unit = if setting.is_time() { " ms" } else { "" };
                let why = format!(
                    "it is {value}{unit}, which is outside {} to {}{unit}",
                    range.start(),
                    range.end()
                );
                return Err(invalid(*setting, why));
            }
        }
        self.order(request, Command::SetSettings { settings }, turn)
    }

    pub(crate) fn on_settings_set(&mut self) {
        self.config = self.started_with.with(self.registry.settings());
        info!(settings = ?self.registry.settings(), "settings of the cluster");
    }
}
