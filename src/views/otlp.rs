//! OTLP's metrics: the METRICS table under its OpenTelemetry names, as totals or as differences to the reading before.
//!
//! The idea is that a reading is made from a snapshot and a baseline, which is what the reading before said, and gives the next baseline:
//! whoever could not pass a reading on keeps the old one, and the next reading says what that one would have said.

mod names;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::sync::Arc;

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::exemplar::Value as ExemplarValue;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram,
    HistogramDataPoint, Metric, NumberDataPoint, Sum,
};

use super::exposition::{Exposition, FamilyHead, Mark};
use crate::registry::metrics::Value;
use crate::registry::{HistogramSnapshot, Snapshot, Time};
use names::{Instrument, Name};

/// Data points in one message, so that a request can be cut between them.
const POINTS_MAX: usize = 1000;
const NANOSECONDS_PER_SECOND: f64 = 1e9;
/// Times of day come as floating-point seconds, which are exact to a fraction of a microsecond; no pid is used again within this time.
const SAME_WITHIN_NS: u64 = 1_000_000;

/// How the data points are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choices {
    /// Counters say the difference to the reading before, rather than the total.
    pub has_delta_counters: bool,
    /// Histograms likewise.
    pub has_delta_histograms: bool,
    /// Histograms have the classic bounds of /metrics, rather than buckets that double.
    pub has_explicit_bounds: bool,
}

/// What a reading said, where the next one has to know it.
#[derive(Debug, Default)]
pub struct Baseline(HashMap<Key, Counted>);

/// A series: its metric's name, which depends on nothing that is read, and its labels.
type Key = (String, Arc<str>);

#[derive(Clone, Debug)]
struct Counted {
    since: Since,
    at_ns: u64,
    total: Total,
}

/// When a count began, on both clocks. Either alone would tell a new beginning where somebody has set the time of day.
#[derive(Clone, Copy, Debug)]
struct Since {
    unix_ns: u64,
    monotonic_ns: u64,
}

impl Since {
    fn is_same(self, other: Since) -> bool {
        self.unix_ns == other.unix_ns || self.monotonic_ns.abs_diff(other.monotonic_ns) < SAME_WITHIN_NS
    }
}

#[derive(Clone, Debug)]
enum Total {
    Number(Value),
    // Rare, and large.
    Histogram(Box<HistogramSnapshot>),
}

/// A set of labels, as attributes and as the part of a key.
#[derive(Clone, Debug)]
pub struct Labels {
    attributes: Vec<KeyValue>,
    key: Arc<str>,
    /// The part of a name that a label stands for.
    item: Option<&'static str>,
}

/// Metrics on their way out.
pub struct Readings<'a> {
    choices: Choices,
    baseline: &'a Baseline,
    next: HashMap<Key, Counted>,
    time: Time,
    /// The family that is being read, if it has an OpenTelemetry name.
    family: Option<Name>,
    description: String,
    /// The exemplars of the data point that is being read.
    exemplars: Vec<Exemplar>,
    metrics: Vec<Metric>,
    /// Where the last message of a metric is.
    places: HashMap<String, usize>,
}

impl<'a> Readings<'a> {
    /// The beginning of a reading; what only OpenTelemetry has is in it.
    pub fn new(snapshot: &Snapshot, choices: Choices, baseline: &'a Baseline) -> Readings<'a> {
        let mut readings = Readings {
            choices,
            baseline,
            next: HashMap::new(),
            time: snapshot.time,
            family: None,
            description: String::new(),
            exemplars: Vec::new(),
            metrics: Vec::new(),
            places: HashMap::new(),
        };
        readings.utilization(snapshot);
        readings
    }

    /// Everything that was read, and what the next reading has to know.
    pub fn finish(self) -> (Vec<Metric>, Baseline) {
        (self.metrics, Baseline(self.next))
    }

    /// PromQL divides; OpenTelemetry has a metric of its own.
    fn utilization(&mut self, snapshot: &Snapshot) {
        self.begin(Some(Name::utilization()), names::UTILIZATION_HELP);
        for device in &snapshot.devices {
            for memory in &device.memory {
                let Some(limit_bytes) = memory.limit_bytes.filter(|limit| *limit > 0) else { continue };
                let index = device.index.to_string();
                let labels =
                    Self::labels(&[("device", index.as_str()), ("memory_type", memory.memory_type.name())]);
                let share = memory.usage_bytes as f64 / limit_bytes as f64;
                self.sample(&labels, Value::Float(share), 0.0);
            }
        }
    }

    fn begin(&mut self, name: Option<Name>, description: &str) {
        self.family = name;
        description.clone_into(&mut self.description);
    }

    /// When a difference begins and what came before it; for a total, or what was not there before, its own beginning.
    fn since(&mut self, key: Key, since: f64, total: Total, is_delta: bool) -> (u64, Option<Total>) {
        let now_ns = self.time.unix_ns;
        let unix_ns = (since * NANOSECONDS_PER_SECOND) as u64;
        let start_ns = unix_ns.min(now_ns);
        if !is_delta {
            return (start_ns, None);
        }
        let age_ns = now_ns.saturating_sub(unix_ns);
        let since = Since { unix_ns, monotonic_ns: self.time.monotonic_ns.saturating_sub(age_ns) };
        let before = self.baseline.0.get(&key).filter(|before| before.since.is_same(since)).cloned();
        self.next.insert(key, Counted { since, at_ns: now_ns, total });
        before.map_or((start_ns, None), |before| (before.at_ns.min(now_ns), Some(before.total)))
    }

    /// The message that the next data point of a metric belongs into.
    fn message(&mut self, name: &str, unit: &'static str, empty: impl FnOnce() -> Data) -> &mut Data {
        let place = self.places.get(name).copied().filter(|place| points(&self.metrics[*place]) < POINTS_MAX);
        let place = place.unwrap_or_else(|| {
            self.metrics.push(Metric {
                name: name.to_owned(),
                description: self.description.clone(),
                unit: unit.to_owned(),
                ..Metric::default()
            });
            self.places.insert(name.to_owned(), self.metrics.len() - 1);
            self.metrics.len() - 1
        });
        self.metrics[place].data.get_or_insert_with(empty)
    }
}

fn points(metric: &Metric) -> usize {
    match &metric.data {
        Some(Data::Gauge(gauge)) => gauge.data_points.len(),
        Some(Data::Sum(sum)) => sum.data_points.len(),
        Some(Data::Histogram(histogram)) => histogram.data_points.len(),
        Some(Data::ExponentialHistogram(histogram)) => histogram.data_points.len(),
        Some(Data::Summary(_)) | None => 0,
    }
}

fn temporality(is_delta: bool) -> i32 {
    let temporality =
        if is_delta { AggregationTemporality::Delta } else { AggregationTemporality::Cumulative };
    temporality.into()
}

impl Exposition for Readings<'_> {
    type Labels = Labels;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        let mut attributes = Vec::with_capacity(pairs.len() + 1);
        let mut key = String::new();
        for (name, value) in pairs {
            names::add_attributes(name, value, &mut attributes);
            // A value may hold anything: its length tells where it ends. Writing to a string does not fail.
            let _ = write!(key, "{name}={}:{value};", value.len());
        }
        let item =
            pairs.iter().find(|(name, _)| *name == "signal").and_then(|(_, signal)| names::item(signal));
        Labels { attributes, key: key.into(), item }
    }

    fn family(&mut self, head: &FamilyHead<'_>) {
        self.begin(names::of(head), head.help);
    }

    fn has_created_samples(&self) -> bool {
        false
    }

    fn sample(&mut self, labels: &Labels, value: Value, since: f64) {
        let exemplars = std::mem::take(&mut self.exemplars);
        let Some(family) = self.family else { return };
        let name = family.for_item(labels.item);
        let is_monotonic = family.instrument == Instrument::Counter;
        let is_delta = is_monotonic && self.choices.has_delta_counters;
        let mut point = NumberDataPoint {
            attributes: labels.attributes.clone(),
            time_unix_nano: self.time.unix_ns,
            ..NumberDataPoint::default()
        };
        if family.instrument == Instrument::Gauge {
            point.value = Some(number(value));
            let data = self.message(&name, family.unit, || Data::Gauge(Gauge::default()));
            if let Data::Gauge(gauge) = data {
                gauge.data_points.push(point);
            }
            return;
        }
        let key = (name.clone().into_owned(), Arc::clone(&labels.key));
        let (start_ns, before) = self.since(key, since, Total::Number(value), is_delta);
        let before = match before {
            Some(Total::Number(before)) => Some(before),
            _ => None,
        };
        point.start_time_unix_nano = start_ns;
        point.exemplars = within(exemplars, start_ns);
        point.value = Some(number(before.map_or(value, |before| difference(value, before))));
        let aggregation_temporality = temporality(is_delta);
        let empty = || Data::Sum(Sum { aggregation_temporality, is_monotonic, ..Sum::default() });
        if let Data::Sum(sum) = self.message(&name, family.unit, empty) {
            sum.data_points.push(point);
        }
    }

    fn histogram(&mut self, labels: &Labels, histogram: &HistogramSnapshot, since: f64) {
        let exemplars = std::mem::take(&mut self.exemplars);
        let Some(family) = self.family else { return };
        let name = family.for_item(labels.item);
        let is_delta = self.choices.has_delta_histograms;
        let key = (name.clone().into_owned(), Arc::clone(&labels.key));
        let total = Total::Histogram(Box::new(histogram.clone()));
        let (start_ns, before) = self.since(key, since, total, is_delta);
        let since_before = match before {
            Some(Total::Histogram(before)) => Some(histogram.since(&before)),
            _ => None,
        };
        let histogram = since_before.as_ref().unwrap_or(histogram);
        let aggregation_temporality = temporality(is_delta);
        let (attributes, time_ns) = (labels.attributes.clone(), self.time.unix_ns);
        if self.choices.has_explicit_bounds {
            let empty = || Data::Histogram(Histogram { aggregation_temporality, ..Histogram::default() });
            if let Data::Histogram(data) = self.message(&name, family.unit, empty) {
                let point = explicit(histogram, attributes, start_ns, time_ns);
                data.data_points.push(HistogramDataPoint { exemplars: within(exemplars, start_ns), ..point });
            }
        } else {
            let empty = || {
                Data::ExponentialHistogram(ExponentialHistogram {
                    aggregation_temporality,
                    ..ExponentialHistogram::default()
                })
            };
            if let Data::ExponentialHistogram(data) = self.message(&name, family.unit, empty) {
                let point = exponential(histogram, attributes, start_ns, time_ns);
                let exemplars = within(exemplars, start_ns);
                data.data_points.push(ExponentialHistogramDataPoint { exemplars, ..point });
            }
        }
    }

    fn marked_sample(&mut self, labels: &Labels, value: Value, since: f64, mark: &Mark) {
        self.exemplars = vec![exemplar(mark)];
        self.sample(labels, value, since);
    }

    fn marked_histogram(
        &mut self,
        labels: &Labels,
        histogram: &HistogramSnapshot,
        since: f64,
        marks: &BTreeMap<i32, Mark>,
    ) {
        self.exemplars = marks.values().map(exemplar).collect();
        self.histogram(labels, histogram, since);
    }
}

fn exemplar(mark: &Mark) -> Exemplar {
    Exemplar {
        time_unix_nano: mark.at_unix_ns,
        trace_id: bytes_of(&mark.trace_id),
        span_id: bytes_of(&mark.span_id),
        value: Some(ExemplarValue::AsDouble(mark.value)),
        ..Exemplar::default()
    }
}

/// A difference is about its own time only.
fn within(mut exemplars: Vec<Exemplar>, start_ns: u64) -> Vec<Exemplar> {
    exemplars.retain(|exemplar| exemplar.time_unix_nano >= start_ns);
    exemplars
}

/// The bytes of an id.
fn bytes_of(digits: &str) -> Vec<u8> {
    let pairs = (0..digits.len()).step_by(2).filter_map(|at| digits.get(at..at + 2));
    pairs.filter_map(|pair| u8::from_str_radix(pair, 16).ok()).collect()
}

/// OTLP knows no unsigned numbers; nothing that is counted here comes near the bound.
fn number(value: Value) -> Number {
    match value {
        Value::Unsigned(value) => Number::AsInt(i64::try_from(value).unwrap_or(i64::MAX)),
        Value::Signed(value) => Number::AsInt(value),
        Value::Float(value) => Number::AsDouble(value),
    }
}

/// What a counter has grown by: one that says less than before without a new beginning has grown by nothing.
fn difference(value: Value, before: Value) -> Value {
    match (value, before) {
        (Value::Unsigned(value), Value::Unsigned(before)) => Value::Unsigned(value.saturating_sub(before)),
        (Value::Float(value), Value::Float(before)) => Value::Float((value - before).max(0.0)),
        (value, _) => value,
    }
}

fn explicit(
    histogram: &HistogramSnapshot,
    attributes: Vec<KeyValue>,
    start_time_unix_nano: u64,
    time_unix_nano: u64,
) -> HistogramDataPoint {
    let count = histogram.count();
    let (explicit_bounds, totals): (Vec<f64>, Vec<u64>) = histogram.classic().unzip();
    let mut below = 0;
    let bucket_counts =
        totals.into_iter().chain([count]).map(|total| total - std::mem::replace(&mut below, total));
    HistogramDataPoint {
        attributes,
        start_time_unix_nano,
        time_unix_nano,
        count,
        sum: Some(histogram.sum()),
        bucket_counts: bucket_counts.collect(),
        explicit_bounds,
        ..HistogramDataPoint::default()
    }
}

fn exponential(
    histogram: &HistogramSnapshot,
    attributes: Vec<KeyValue>,
    start_time_unix_nano: u64,
    time_unix_nano: u64,
) -> ExponentialHistogramDataPoint {
    let first = histogram.runs().next().map_or(0, |(first, _)| first);
    let mut bucket_counts = Vec::new();
    for (run, counts) in histogram.runs() {
        bucket_counts.resize(usize::try_from(run - first).unwrap_or(0), 0);
        bucket_counts.extend_from_slice(counts);
    }
    ExponentialHistogramDataPoint {
        attributes,
        start_time_unix_nano,
        time_unix_nano,
        count: histogram.count(),
        sum: Some(histogram.sum()),
        scale: 0,
        // Prometheus numbers a bucket of schema 0 by its upper bound's exponent, OpenTelemetry by its lower one's.
        positive: Some(Buckets { offset: first - 1, bucket_counts }),
        ..ExponentialHistogramDataPoint::default()
    }
}

#[cfg(test)]
mod tests;
