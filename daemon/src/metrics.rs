//! Writing metrics that are looked up when somebody asks, and those that both daemons have.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::{
    DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, EncodeMetric,
};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::http::HttpStats;

/// Writes metrics one by one into what a collector is given.
#[derive(Debug)]
pub struct Out<'a, 'e>(&'a mut DescriptorEncoder<'e>);

impl<'a, 'e> Out<'a, 'e> {
    /// Into `encoder`.
    pub fn new(encoder: &'a mut DescriptorEncoder<'e>) -> Self {
        Self(encoder)
    }

    /// One counter without labels; its name gets the suffix `_total`.
    ///
    /// # Errors
    /// This one and the others fail only if the writer does: memory never.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.metric(name, help, &ConstCounter::new(value))
    }

    /// One gauge without labels.
    ///
    /// # Errors
    /// See [`Out::counter`].
    pub fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.metric(name, help, &ConstGauge::new(value))
    }

    fn metric(&mut self, name: &str, help: &str, metric: &impl EncodeMetric) -> fmt::Result {
        let encoder = self
            .0
            .encode_descriptor(name, help, None, metric.metric_type())?;
        metric.encode(encoder)
    }

    /// One counter for each label.
    ///
    /// # Errors
    /// See [`Out::counter`].
    pub fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let values = values.into_iter();
        self.family(
            name,
            help,
            values.map(|(label, value)| (label, ConstCounter::new(value))),
        )
    }

    /// One counter of seconds for each label; its name gets the suffix `_total`.
    ///
    /// # Errors
    /// See [`Out::counter`].
    pub fn seconds<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, Duration)>,
    ) -> fmt::Result {
        let values = values.into_iter();
        self.family(
            name,
            help,
            values.map(|(label, value)| (label, ConstCounter::new(value.as_secs_f64()))),
        )
    }

    /// One gauge for each label, whole (`u64`) or not (`f64`).
    ///
    /// # Errors
    /// See [`Out::counter`].
    pub fn gauges<L: EncodeLabelSet, N: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, N)>,
    ) -> fmt::Result {
        let values = values.into_iter();
        self.family(
            name,
            help,
            values.map(|(label, value)| (label, ConstGauge::new(value))),
        )
    }

    fn family<L: EncodeLabelSet, M: EncodeMetric>(
        &mut self,
        name: &str,
        help: &str,
        values: impl Iterator<Item = (L, M)>,
    ) -> fmt::Result {
        let mut values = values.peekable();
        let Some((_, first)) = values.peek() else {
            return Ok(());
        };
        let kind = first.metric_type();
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for (label, metric) in values {
            metric.encode(family.encode_family(&label)?)?;
        }
        Ok(())
    }

    /// What both daemons have: `http_connections`, `http_connections_cut`, `http_requests`,
    /// `resident_bytes`.
    ///
    /// # Errors
    /// See [`Out::counter`].
    pub fn process(&mut self, http: &HttpStats) -> fmt::Result {
        self.gauge("http_connections", "HTTP connections open now", http.open())?;
        let cut = http.cut();
        self.counters(
            "http_connections_cut",
            "HTTP connections that this process ended: a head, an answer or a pause took too long, or a new connection needed room",
            cut.map(|(cut, count)| ([("cause", cut.name())], count)),
        )?;
        let answered = http.answered().into_iter();
        self.counters(
            "http_requests",
            "HTTP requests answered",
            answered.map(|(status, count)| ([("status", status.to_string())], count)),
        )?;
        self.gauge("resident_bytes", "Memory of this process", resident_bytes())
    }
}

/// Zero where the system does not tell.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}
