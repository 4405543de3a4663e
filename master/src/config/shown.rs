//! The settings in force, as they can be written in a configuration file.

use std::time::Duration;

use meros_proto::view::SettingView;

use super::{Config, Sorter};

impl Config {
    /// Each option with its value, whether it was given or is the default. Nothing in them is secret.
    #[must_use]
    pub fn settings(&self) -> Vec<SettingView> {
        let time = |time: Duration| humantime::format_duration(time).to_string();
        let excluded = self.fair_share_excluded.iter().map(|name| name.as_str());
        let settings = [
            ("listen", self.listen.to_string()),
            ("http_listen", self.http_address.to_string()),
            ("join", self.join.join(",")),
            ("advertise", self.advertise.clone().unwrap_or_default()),
            ("data_dir", self.data_dir.display().to_string()),
            ("identity", self.identity.display().to_string()),
            ("offer_timeout", time(self.offer_timeout)),
            ("ping_interval", time(self.ping_interval)),
            ("ping_misses_max", self.ping_misses_max.to_string()),
            (
                "slave_reregister_timeout",
                time(self.slave_reregister_timeout),
            ),
            ("allocation_delay", time(self.allocation_delay)),
            ("min_allocatable", self.min_allocatable.to_string()),
            (
                "sorter",
                match self.sorter {
                    Sorter::Drf => "drf".to_owned(),
                    Sorter::Random => "random".to_owned(),
                },
            ),
            (
                "fair_share_excluded",
                excluded.collect::<Vec<_>>().join(","),
            ),
            ("hoarding_after", time(self.hoarding_after)),
            ("hoarding_offers", self.hoarding_offers.to_string()),
            ("lease", time(self.lease)),
            ("connections_max", self.connections_max.to_string()),
            ("heartbeat_interval", time(self.heartbeat_interval)),
        ];
        let setting = |(option, value): (&str, String)| SettingView {
            option: option.to_owned(),
            value,
            of_cluster: false,
        };
        settings.into_iter().map(setting).collect()
    }
}
