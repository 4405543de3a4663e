//! What an admin can set: [`RawConfig`] as it is written, [`Config`] once it has been checked.
//!
//! Flags, environment and file are one configuration: the flag `--offer-timeout`, the variable
//! `MEROS_OFFER_TIMEOUT` and the key `offer_timeout` are the same option. [`RawConfig::or`] lays one
//! source over another.

mod shown;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use meros_master_core::allocator::Minimum;
use meros_proto::resources::ResourceName;
use serde::Deserialize;

use crate::registry::{LEASE_DEFAULT, LEASE_MAX, LEASE_MIN};

/// The port of masters, on UDP for QUIC and on TCP for HTTP.
pub const PORT_DEFAULT: u16 = 5050;

/// How long a framework may hold an offer (semantics E4, Q6).
pub const OFFER_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5 * 60);
/// Shorter, and a framework behind a slow link could never accept.
pub const OFFER_TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// Longer, and one stuck framework starves the others.
pub const OFFER_TIMEOUT_MAX: Duration = Duration::from_secs(60 * 60);

/// Between two pings of a slave (semantics K1).
pub const PING_INTERVAL_DEFAULT: Duration = Duration::from_secs(15);
/// Shorter, and pings become load.
pub const PING_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Longer, and a lost slave is noticed by nobody.
pub const PING_INTERVAL_MAX: Duration = Duration::from_secs(5 * 60);

/// Pings in a row without an answer before a slave is given up (semantics K1).
pub const PING_MISSES_DEFAULT: u32 = 5;
/// The most that makes sense.
pub const PING_MISSES_MAX: u32 = 100;

/// How long a known slave may stay away (semantics J2, J4, K3).
pub const SLAVE_REREGISTER_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10 * 60);
/// Shorter, and slaves are given up while they reconnect.
pub const SLAVE_REREGISTER_TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// Longer, and tasks of dead machines are never replaced.
pub const SLAVE_REREGISTER_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How long freed resources wait for more before they are offered.
pub const ALLOCATION_DELAY_DEFAULT: Duration = Duration::from_millis(2);
/// Longer is what Mesos did, and what made it slow.
pub const ALLOCATION_DELAY_MAX: Duration = Duration::from_secs(1);

/// The most names that can be left out of shares.
pub const FAIR_SHARE_EXCLUDED_MAX: usize = 64;

/// A framework that keeps offers longer than this on average, and does not use most of them, hoards.
pub const HOARDING_AFTER_DEFAULT: Duration = Duration::from_secs(60);
/// Longer than any offer can be held.
pub const HOARDING_AFTER_MAX: Duration = OFFER_TIMEOUT_MAX;
/// Offers that a framework that hoards may always have.
pub const HOARDING_OFFERS_DEFAULT: u32 = 16;
/// With more it is no limit on any cluster there is.
pub const HOARDING_OFFERS_MAX: u32 = 100_000;

/// Slaves and frameworks at the same time: 50,000 slaves and room for the rest.
pub const CONNECTIONS_DEFAULT: u32 = 60_000;
/// Each connection takes some 20 KiB when idle, so this is 20 GiB.
pub const CONNECTIONS_MAX: u32 = 1_000_000;

/// Between two heartbeats of a stream of the Mesos v1 API (semantics A7).
pub const HEARTBEAT_INTERVAL_DEFAULT: Duration = Duration::from_secs(15);
/// Shorter, and a thousand streams are load.
pub const HEARTBEAT_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Longer, and what stands between takes a stream for one that idles.
pub const HEARTBEAT_INTERVAL_MAX: Duration = Duration::from_secs(5 * 60);

/// A host name has at most 253 bytes.
const ADDRESS_BYTES_MAX: usize = 300;

const _: () = assert!(OFFER_TIMEOUT_MIN.as_millis() < OFFER_TIMEOUT_MAX.as_millis());
const _: () = assert!(ALLOCATION_DELAY_DEFAULT.as_millis() < ALLOCATION_DELAY_MAX.as_millis());

/// The options of a master as flags, environment variables or a TOML file give them. What is absent
/// has a default. Durations are text such as `500ms`, `15s` or `10min`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct RawConfig {
    /// Address and UDP port for slaves and frameworks (QUIC). Default 0.0.0.0:5050; port 0 takes a
    /// free one
    #[arg(long, env = "MEROS_LISTEN", value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,

    /// Address and TCP port for HTTP. Default 127.0.0.1 and the same port as `listen`. HTTP has no
    /// authentication yet: whoever reaches it can kill tasks, so keep it on loopback or behind a
    /// proxy
    #[arg(long, env = "MEROS_HTTP_LISTEN", value_name = "ADDRESS:PORT")]
    pub http_listen: Option<SocketAddr>,

    /// Masters of an existing cluster to join on the first start, any of them. Without it the first
    /// start forms a new cluster. Later starts do not need it, and may keep it
    #[arg(
        long,
        env = "MEROS_JOIN",
        value_name = "HOST:PORT",
        value_delimiter = ','
    )]
    pub join: Option<Vec<String>>,

    /// Where the other masters, slaves and frameworks reach this master. Default: the address of
    /// `listen`, or the name of this host if that is 0.0.0.0
    #[arg(long, env = "MEROS_ADVERTISE", value_name = "HOST:PORT")]
    pub advertise: Option<String>,

    /// Directory of the registry: what the cluster consists of. Required. Losing it on all masters
    /// loses the identity of every slave and framework; one master at a time
    #[arg(long, env = "MEROS_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Directory with cert.pem, key.pem and ca.pem of this master, made by `meros ca issue`. Required
    #[arg(long, env = "MEROS_IDENTITY", value_name = "DIR")]
    pub identity: Option<PathBuf>,

    /// How long a framework may hold an offer, 1s to 1h. Default 5min. Longer starves other
    /// frameworks
    #[arg(long, env = "MEROS_OFFER_TIMEOUT", value_name = "DURATION", value_parser = humantime::parse_duration)]
    #[serde(deserialize_with = "duration_text")]
    pub offer_timeout: Option<Duration>,

    /// Time between pings of a slave, 100ms to 5min. Default 15s. Together with
    /// `ping_misses_max` it says how soon a dead machine is noticed; shorter gives up slaves that
    /// are only busy
    #[arg(long, env = "MEROS_PING_INTERVAL", value_name = "DURATION", value_parser = humantime::parse_duration)]
    #[serde(deserialize_with = "duration_text")]
    pub ping_interval: Option<Duration>,

    /// Pings in a row without an answer before a slave is unreachable, 1 to 100. Default 5
    #[arg(long, env = "MEROS_PING_MISSES_MAX", value_name = "COUNT")]
    pub ping_misses_max: Option<u32>,

    /// How long a slave whose connection broke, or that was known before the master restarted, may
    /// stay away, 1s to 24h. Default 10min. Then its tasks are reported unreachable
    #[arg(long, env = "MEROS_SLAVE_REREGISTER_TIMEOUT", value_name = "DURATION", value_parser = humantime::parse_duration)]
    #[serde(deserialize_with = "duration_text")]
    pub slave_reregister_timeout: Option<Duration>,

    /// How long freed resources wait for more before they are offered together, 0s to 1s. Default
    /// 2ms. Longer makes fewer and larger offers
    #[arg(long, env = "MEROS_ALLOCATION_DELAY", value_name = "DURATION", value_parser = humantime::parse_duration)]
    #[serde(deserialize_with = "duration_text")]
    pub allocation_delay: Option<Duration>,

    /// The least that is worth an offer: amounts with a bar between alternatives, at most 16.
    /// Default cpus:0.01|mem:32; empty: everything. Frameworks may ask for more or less, for each
    /// role. With more than any slave has free, nothing is offered
    #[arg(long, env = "MEROS_MIN_ALLOCATABLE", value_name = "AMOUNTS")]
    #[serde(deserialize_with = "from_text")]
    pub min_allocatable: Option<Minimum>,

    /// Who is next among roles, and among the frameworks of a role. Default drf
    #[arg(long, env = "MEROS_SORTER", value_enum)]
    pub sorter: Option<Sorter>,

    /// Resources that do not count in shares, at most 64, such as gpus that only few can use.
    /// Default: none
    #[arg(
        long,
        env = "MEROS_FAIR_SHARE_EXCLUDED",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub fair_share_excluded: Option<Vec<ResourceName>>,

    /// A framework that keeps offers longer than this on average, and does not use most of them,
    /// gets few at a time while others want some, 0s to 1h. Default 1min; 0s: never
    #[arg(long, env = "MEROS_HOARDING_AFTER", value_name = "DURATION", value_parser = humantime::parse_duration)]
    #[serde(deserialize_with = "duration_text")]
    pub hoarding_after: Option<Duration>,

    /// How many offers at a time it gets then, 1 to 100000; one for ten slaves in a large cluster.
    /// Default 16
    #[arg(long, env = "MEROS_HOARDING_OFFERS", value_name = "COUNT")]
    pub hoarding_offers: Option<u32>,

    /// How long masters elect no other leader after they have heard the one there is, 750ms to 30s. Default
    /// 750ms. Where masters are not scheduled for longer, on processors or disks that are too busy, leaders
    /// change while nothing fails: a longer lease prevents that, and a dead leader is missed for so much
    /// longer
    #[arg(long, env = "MEROS_LEASE", value_name = "DURATION", value_parser = humantime::parse_duration)]
    #[serde(deserialize_with = "duration_text")]
    pub lease: Option<Duration>,

    /// Most slaves and frameworks connected at the same time, 1 to 1000000. Default 60000. Each
    /// takes memory; those beyond are refused
    #[arg(long, env = "MEROS_CONNECTIONS_MAX", value_name = "COUNT")]
    pub connections_max: Option<u32>,

    /// Between two heartbeats of a stream of the Mesos v1 API, 100ms to 5min. Default 15s. Clients that
    /// tell of an event only when the next one begins want it short; each costs a write per stream
    #[arg(long, env = "MEROS_HEARTBEAT_INTERVAL", value_name = "DURATION", value_parser = humantime::parse_duration)]
    #[serde(deserialize_with = "duration_text")]
    pub heartbeat_interval: Option<Duration>,
}

/// Who is next among those that compete with each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Sorter {
    /// Dominant resource fairness: the least share for its weight is next.
    #[default]
    Drf,
    /// By chance, in proportion to weights, whatever they hold.
    Random,
}

fn from_text<'de, D, T>(from: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    let text = String::deserialize(from)?;
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

fn duration_text<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(from)?;
    humantime::parse_duration(&text).map(Some).map_err(|error| {
        serde::de::Error::custom(format!(
            "{text:?} is not a duration such as 500ms or 5min: {error}"
        ))
    })
}

impl RawConfig {
    /// This configuration, completed by a lower one: what is set here wins.
    #[must_use]
    pub fn or(self, lower: Self) -> Self {
        Self {
            listen: self.listen.or(lower.listen),
            http_listen: self.http_listen.or(lower.http_listen),
            join: self.join.or(lower.join),
            advertise: self.advertise.or(lower.advertise),
            data_dir: self.data_dir.or(lower.data_dir),
            identity: self.identity.or(lower.identity),
            offer_timeout: self.offer_timeout.or(lower.offer_timeout),
            ping_interval: self.ping_interval.or(lower.ping_interval),
            ping_misses_max: self.ping_misses_max.or(lower.ping_misses_max),
            slave_reregister_timeout: self
                .slave_reregister_timeout
                .or(lower.slave_reregister_timeout),
            allocation_delay: self.allocation_delay.or(lower.allocation_delay),
            min_allocatable: self.min_allocatable.or(lower.min_allocatable),
            sorter: self.sorter.or(lower.sorter),
            fair_share_excluded: self.fair_share_excluded.or(lower.fair_share_excluded),
            hoarding_after: self.hoarding_after.or(lower.hoarding_after),
            hoarding_offers: self.hoarding_offers.or(lower.hoarding_offers),
            lease: self.lease.or(lower.lease),
            connections_max: self.connections_max.or(lower.connections_max),
            heartbeat_interval: self.heartbeat_interval.or(lower.heartbeat_interval),
        }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A required option is absent.
    #[error("{option} is not set: give --{}, {} or the key {option} in the configuration file", option.replace('_', "-"), variable(option))]
    Missing {
        /// The option, as the file spells it.
        option: &'static str,
    },
    /// A value is outside its range.
    #[error("{option} is {got}, which is outside {min} to {max}")]
    OutOfRange {
        /// The option, as the file spells it.
        option: &'static str,
        /// What was given.
        got: String,
        /// The least.
        min: String,
        /// The most.
        max: String,
    },
    /// An address of a master is not one.
    #[error("{option} is {got:?}, which is not HOST:PORT")]
    NotAnAddress {
        /// The option, as the file spells it.
        option: &'static str,
        /// What was given.
        got: String,
    },
    /// HTTP and QUIC were given fixed and different ports, which clients could not find.
    #[error(
        "http_listen has port {http} and listen has port {quic}: a master has one port number for both; give http_listen the same port"
    )]
    PortsDiffer {
        /// Of `http_listen`.
        http: u16,
        /// Of `listen`.
        quic: u16,
    },
}

fn variable(option: &str) -> String {
    format!("MEROS_{}", option.to_uppercase())
}

/// A checked configuration. Made by [`Config::check`] only.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// Where QUIC listens; port 0: any free one.
    pub listen: SocketAddr,
    /// The address where HTTP listens, on the same port number as QUIC.
    pub http_address: IpAddr,
    /// Masters to join on the first start; none: form a cluster.
    pub join: Vec<String>,
    /// Where others reach this master; none: where it listens.
    pub advertise: Option<String>,
    /// The registry's directory.
    pub data_dir: PathBuf,
    /// The directory of the certificate.
    pub identity: PathBuf,
    /// How long a framework may hold an offer.
    pub offer_timeout: Duration,
    /// Between pings of a slave.
    pub ping_interval: Duration,
    /// Pings without an answer before a slave is given up.
    pub ping_misses_max: u32,
    /// How long a known slave may stay away.
    pub slave_reregister_timeout: Duration,
    /// How long freed resources wait for more.
    pub allocation_delay: Duration,
    /// The least that is worth an offer.
    pub min_allocatable: Minimum,
    /// Who is next.
    pub sorter: Sorter,
    /// Resources that do not count in shares.
    pub fair_share_excluded: Vec<ResourceName>,
    /// Who keeps unused offers longer on average gets few at a time; zero: never.
    pub hoarding_after: Duration,
    /// So many at a time.
    pub hoarding_offers: u32,
    /// How long followers of a leader elect no other.
    pub lease: Duration,
    /// The most peers at the same time.
    pub connections_max: u32,
    /// Between two heartbeats of a v1 stream.
    pub heartbeat_interval: Duration,
}

impl Config {
    /// Fills in the defaults and checks ranges.
    ///
    /// # Errors
    /// The first option that is missing or out of range.
    pub fn check(raw: RawConfig) -> Result<Self, ConfigError> {
        let missing = |option| ConfigError::Missing { option };
        let listen = raw
            .listen
            .unwrap_or_else(|| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), PORT_DEFAULT));
        Ok(Self {
            listen,
            http_address: check_http(raw.http_listen, listen)?,
            join: raw
                .join
                .unwrap_or_default()
                .into_iter()
                .map(|address| check_address("join", address))
                .collect::<Result<_, _>>()?,
            advertise: raw
                .advertise
                .map(|address| check_address("advertise", address))
                .transpose()?,
            data_dir: raw.data_dir.ok_or(missing("data_dir"))?,
            identity: raw.identity.ok_or(missing("identity"))?,
            offer_timeout: check_duration(
                "offer_timeout",
                raw.offer_timeout.unwrap_or(OFFER_TIMEOUT_DEFAULT),
                OFFER_TIMEOUT_MIN,
                OFFER_TIMEOUT_MAX,
            )?,
            ping_interval: check_duration(
                "ping_interval",
                raw.ping_interval.unwrap_or(PING_INTERVAL_DEFAULT),
                PING_INTERVAL_MIN,
                PING_INTERVAL_MAX,
            )?,
            ping_misses_max: check_count(
                "ping_misses_max",
                raw.ping_misses_max.unwrap_or(PING_MISSES_DEFAULT),
                PING_MISSES_MAX,
            )?,
            slave_reregister_timeout: check_duration(
                "slave_reregister_timeout",
                raw.slave_reregister_timeout
                    .unwrap_or(SLAVE_REREGISTER_TIMEOUT_DEFAULT),
                SLAVE_REREGISTER_TIMEOUT_MIN,
                SLAVE_REREGISTER_TIMEOUT_MAX,
            )?,
            allocation_delay: check_duration(
                "allocation_delay",
                raw.allocation_delay.unwrap_or(ALLOCATION_DELAY_DEFAULT),
                Duration::ZERO,
                ALLOCATION_DELAY_MAX,
            )?,
            min_allocatable: raw.min_allocatable.unwrap_or_default(),
            sorter: raw.sorter.unwrap_or_default(),
            fair_share_excluded: check_excluded(raw.fair_share_excluded.unwrap_or_default())?,
            hoarding_after: check_duration(
                "hoarding_after",
                raw.hoarding_after.unwrap_or(HOARDING_AFTER_DEFAULT),
                Duration::ZERO,
                HOARDING_AFTER_MAX,
            )?,
            hoarding_offers: check_count(
                "hoarding_offers",
                raw.hoarding_offers.unwrap_or(HOARDING_OFFERS_DEFAULT),
                HOARDING_OFFERS_MAX,
            )?,
            lease: check_duration(
                "lease",
                raw.lease.unwrap_or(LEASE_DEFAULT),
                LEASE_MIN,
                LEASE_MAX,
            )?,
            connections_max: check_count(
                "connections_max",
                raw.connections_max.unwrap_or(CONNECTIONS_DEFAULT),
                CONNECTIONS_MAX,
            )?,
            heartbeat_interval: check_duration(
                "heartbeat_interval",
                raw.heartbeat_interval.unwrap_or(HEARTBEAT_INTERVAL_DEFAULT),
                HEARTBEAT_INTERVAL_MIN,
                HEARTBEAT_INTERVAL_MAX,
            )?,
        })
    }
}

fn check_http(http: Option<SocketAddr>, quic: SocketAddr) -> Result<IpAddr, ConfigError> {
    match http {
        None if quic.is_ipv4() => Ok(Ipv4Addr::LOCALHOST.into()),
        None => Ok(Ipv6Addr::LOCALHOST.into()),
        // Port 0 of either follows the other.
        Some(http) if http.port() == quic.port() || http.port() == 0 => Ok(http.ip()),
        Some(http) => Err(ConfigError::PortsDiffer {
            http: http.port(),
            quic: quic.port(),
        }),
    }
}

fn check_excluded(names: Vec<ResourceName>) -> Result<Vec<ResourceName>, ConfigError> {
    if names.len() <= FAIR_SHARE_EXCLUDED_MAX {
        return Ok(names);
    }
    Err(ConfigError::OutOfRange {
        option: "fair_share_excluded",
        got: format!("{} names", names.len()),
        min: "0".to_owned(),
        max: FAIR_SHARE_EXCLUDED_MAX.to_string(),
    })
}

/// Whether a text is `host:port`, of a length that names have.
pub(crate) fn is_address(text: &str) -> bool {
    text.len() <= ADDRESS_BYTES_MAX
        && text
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

fn check_address(option: &'static str, got: String) -> Result<String, ConfigError> {
    match is_address(&got) {
        true => Ok(got),
        false => Err(ConfigError::NotAnAddress { option, got }),
    }
}

fn check_duration(
    option: &'static str,
    got: Duration,
    min: Duration,
    max: Duration,
) -> Result<Duration, ConfigError> {
    if (min..=max).contains(&got) {
        return Ok(got);
    }
    let text = |duration| humantime::format_duration(duration).to_string();
    Err(ConfigError::OutOfRange {
        option,
        got: text(got),
        min: text(min),
        max: text(max),
    })
}

fn check_count(option: &'static str, got: u32, max: u32) -> Result<u32, ConfigError> {
    if (1..=max).contains(&got) {
        return Ok(got);
    }
    Err(ConfigError::OutOfRange {
        option,
        got: got.to_string(),
        min: "1".to_owned(),
        max: max.to_string(),
    })
}

#[cfg(test)]
mod tests;
