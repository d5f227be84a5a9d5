//! Prometheus' protobuf format: length-delimited `io.prometheus.client.MetricFamily` messages, with native histograms.
//!
//! The idea is to write the few message types of that schema directly: a nested message is written where it belongs, and its length is put
//! before it afterwards.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::exposition::{ByteFormat, Exposition, FamilyHead, Mark};
use super::series::Place;
use crate::registry::metrics::{Kind, Value};
use crate::registry::{HistogramSnapshot, Process, Rendering};

/// Field numbers of the schema's messages.
mod field {
    pub(super) const FAMILY_NAME: u32 = 1;
    pub(super) const FAMILY_HELP: u32 = 2;
    pub(super) const FAMILY_TYPE: u32 = 3;
    pub(super) const FAMILY_METRIC: u32 = 4;
    pub(super) const FAMILY_UNIT: u32 = 5;
    pub(super) const METRIC_LABEL: u32 = 1;
    pub(super) const METRIC_GAUGE: u32 = 2;
    pub(super) const METRIC_COUNTER: u32 = 3;
    pub(super) const METRIC_HISTOGRAM: u32 = 7;
    pub(super) const LABEL_NAME: u32 = 1;
    pub(super) const LABEL_VALUE: u32 = 2;
    pub(super) const NUMBER_VALUE: u32 = 1;
    pub(super) const COUNTER_CREATED: u32 = 3;
    pub(super) const HISTOGRAM_COUNT: u32 = 1;
    pub(super) const HISTOGRAM_SUM: u32 = 2;
    pub(super) const HISTOGRAM_BUCKET: u32 = 3;
    pub(super) const HISTOGRAM_SCHEMA: u32 = 5;
    pub(super) const HISTOGRAM_ZERO_THRESHOLD: u32 = 6;
    pub(super) const HISTOGRAM_ZERO_COUNT: u32 = 7;
    pub(super) const HISTOGRAM_POSITIVE_SPAN: u32 = 12;
    pub(super) const HISTOGRAM_POSITIVE_DELTA: u32 = 13;
    pub(super) const HISTOGRAM_CREATED: u32 = 15;
    pub(super) const HISTOGRAM_EXEMPLAR: u32 = 16;
    pub(super) const COUNTER_EXEMPLAR: u32 = 2;
    pub(super) const BUCKET_EXEMPLAR: u32 = 3;
    pub(super) const EXEMPLAR_LABEL: u32 = 1;
    pub(super) const EXEMPLAR_VALUE: u32 = 2;
    pub(super) const EXEMPLAR_TIMESTAMP: u32 = 3;
    pub(super) const BUCKET_COUNT: u32 = 1;
    pub(super) const BUCKET_BOUND: u32 = 2;
    pub(super) const SPAN_OFFSET: u32 = 1;
    pub(super) const SPAN_LENGTH: u32 = 2;
    pub(super) const TIMESTAMP_SECONDS: u32 = 1;
    pub(super) const TIMESTAMP_NANOS: u32 = 2;
}

/// Buckets double from one to the next: that is schema 0.
const SCHEMA: i64 = 0;
/// Nothing that is counted here is below this, so the zero bucket stays empty.
const ZERO_THRESHOLD: f64 = 1e-128;

/// Families on their way out.
#[derive(Default)]
pub struct Protobuf {
    out: Vec<u8>,
    /// Where the family that is being written begins.
    family_start: usize,
    kind: Option<Kind>,
}

impl Protobuf {
    fn end_family(&mut self) {
        if self.kind.take().is_some() {
            insert_length(&mut self.out, self.family_start);
        }
        self.family_start = self.out.len();
    }

    fn metric(&mut self, labels: [&[u8]; 2], value: impl FnOnce(&mut Vec<u8>)) {
        message(&mut self.out, field::FAMILY_METRIC, |out| {
            labels.iter().for_each(|part| out.extend_from_slice(part));
            value(out);
        });
    }
}

impl Exposition for Protobuf {
    /// Label messages, encoded.
    type Labels = Vec<u8>;

    fn labels(pairs: &[(&str, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, value) in pairs {
            message(&mut out, field::METRIC_LABEL, |out| {
                text(out, field::LABEL_NAME, name);
                text(out, field::LABEL_VALUE, value);
            });
        }
        out
    }

    fn leading_labels(pairs: &[(&str, &str)]) -> Vec<u8> {
        Protobuf::labels(pairs)
    }

    fn family(&mut self, head: &FamilyHead<'_>) {
        self.end_family();
        self.kind = Some(head.kind);
        text(&mut self.out, field::FAMILY_NAME, head.name);
        text(&mut self.out, field::FAMILY_HELP, head.help);
        let kind = match head.kind {
            Kind::Counter => 0,
            Kind::Gauge => 1,
            Kind::Histogram => 4,
        };
        varint_field(&mut self.out, field::FAMILY_TYPE, kind);
        if let Some(unit) = head.unit {
            text(&mut self.out, field::FAMILY_UNIT, unit);
        }
    }

    fn has_created_samples(&self) -> bool {
        false
    }

    fn sample(&mut self, labels: &Vec<u8>, value: Value, since: f64) {
        self.number([labels, &[]], value, since, None);
    }

    fn process_sample(&mut self, place: Option<&Place<'_>>, process: &Process, value: Value, since: f64) {
        let own = process.rendered(Rendering::Protobuf, |process| {
            let pid = process.pid().to_string();
            Protobuf::labels(&[("pid", &pid), ("process", &process.info().name)])
        });
        self.number([place.map_or(&[], |place| place.leading), own], value, since, None);
    }

    fn histogram(&mut self, labels: &Vec<u8>, histogram: &HistogramSnapshot, since: f64) {
        self.marked_histogram(labels, histogram, since, &BTreeMap::new());
    }

    fn marked_sample(&mut self, labels: &Vec<u8>, value: Value, since: f64, mark: &Mark) {
        self.number([labels, &[]], value, since, Some(mark));
    }

    fn marked_histogram(
        &mut self,
        labels: &Vec<u8>,
        histogram: &HistogramSnapshot,
        since: f64,
        marks: &BTreeMap<i32, Mark>,
    ) {
        self.metric([labels, &[]], |out| {
            message(out, field::METRIC_HISTOGRAM, |out| {
                varint_field(out, field::HISTOGRAM_COUNT, histogram.count());
                double(out, field::HISTOGRAM_SUM, histogram.sum());
                let mut below = Bound::Unbounded;
                let exponents = histogram.scale().classic_exponents();
                for ((bound, count), exponent) in histogram.classic().zip(exponents) {
                    message(out, field::HISTOGRAM_BUCKET, |out| {
                        varint_field(out, field::BUCKET_COUNT, count);
                        double(out, field::BUCKET_BOUND, bound);
                        if let Some(mark) = Mark::last_in(marks, (below, Bound::Included(*exponent))) {
                            exemplar(out, field::BUCKET_EXEMPLAR, mark);
                        }
                    });
                    below = Bound::Excluded(*exponent);
                }
                native(out, histogram);
                timestamp(out, field::HISTOGRAM_CREATED, since);
                // In the order of their times, as a reader wants those of one series.
                let mut marks: Vec<_> = marks.values().collect();
                marks.sort_unstable_by_key(|mark| mark.at_unix_ns);
                marks.iter().for_each(|mark| exemplar(out, field::HISTOGRAM_EXEMPLAR, mark));
            });
        });
    }
}

impl ByteFormat for Protobuf {
    /// A family's length stands before it, so it is sent as a whole.
    fn ready_bytes(&self) -> usize {
        self.family_start
    }

    fn take(&mut self) -> Vec<u8> {
        let rest = self.out.split_off(self.family_start);
        self.family_start = 0;
        std::mem::replace(&mut self.out, rest)
    }

    fn finish(mut self) -> Vec<u8> {
        self.end_family();
        self.out
    }
}

impl Protobuf {
    fn number(&mut self, labels: [&[u8]; 2], value: Value, since: f64, mark: Option<&Mark>) {
        let value = match value {
            Value::Unsigned(value) => value as f64,
            Value::Signed(value) => value as f64,
            Value::Float(value) => value,
        };
        let is_counter = self.kind == Some(Kind::Counter);
        self.metric(labels, |out| {
            let number = if is_counter { field::METRIC_COUNTER } else { field::METRIC_GAUGE };
            message(out, number, |out| {
                double(out, field::NUMBER_VALUE, value);
                if is_counter {
                    timestamp(out, field::COUNTER_CREATED, since);
                }
                mark.into_iter().for_each(|mark| exemplar(out, field::COUNTER_EXEMPLAR, mark));
            });
        });
    }
}

fn exemplar(out: &mut Vec<u8>, field: u32, mark: &Mark) {
    message(out, field, |out| {
        for (name, value) in [("trace_id", &mark.trace_id), ("span_id", &mark.span_id)] {
            message(out, field::EXEMPLAR_LABEL, |out| {
                text(out, field::LABEL_NAME, name);
                text(out, field::LABEL_VALUE, value);
            });
        }
        double(out, field::EXEMPLAR_VALUE, mark.value);
        timestamp(out, field::EXEMPLAR_TIMESTAMP, mark.at_unix_ns as f64 / 1e9);
    });
}

/// The sparse buckets: runs of them, and the difference of each count to the one before.
fn native(out: &mut Vec<u8>, histogram: &HistogramSnapshot) {
    zigzag_field(out, field::HISTOGRAM_SCHEMA, SCHEMA);
    double(out, field::HISTOGRAM_ZERO_THRESHOLD, ZERO_THRESHOLD);
    varint_field(out, field::HISTOGRAM_ZERO_COUNT, 0);
    let mut previous_end = None;
    for (first, counts) in histogram.runs() {
        // The first span counts from bucket 0, later ones from the end of the one before.
        let offset = i64::from(first) - previous_end.unwrap_or(0);
        previous_end = Some(i64::from(first) + counts.len() as i64);
        message(out, field::HISTOGRAM_POSITIVE_SPAN, |out| {
            zigzag_field(out, field::SPAN_OFFSET, offset);
            varint_field(out, field::SPAN_LENGTH, counts.len() as u64);
        });
    }
    let mut before = 0;
    for count in histogram.runs().flat_map(|(_, counts)| counts) {
        zigzag_field(out, field::HISTOGRAM_POSITIVE_DELTA, count.wrapping_sub(before).cast_signed());
        before = *count;
    }
}

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const LENGTH_DELIMITED: u32 = 2;

fn tag(out: &mut Vec<u8>, field: u32, wire_type: u32) {
    varint(out, u64::from(field << 3 | wire_type));
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint_field(out: &mut Vec<u8>, field: u32, value: u64) {
    tag(out, field, VARINT);
    varint(out, value);
}

fn zigzag_field(out: &mut Vec<u8>, field: u32, value: i64) {
    varint_field(out, field, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

fn double(out: &mut Vec<u8>, field: u32, value: f64) {
    tag(out, field, FIXED64);
    out.extend_from_slice(&value.to_le_bytes());
}

fn text(out: &mut Vec<u8>, field: u32, value: &str) {
    tag(out, field, LENGTH_DELIMITED);
    varint(out, value.len() as u64);
    out.extend_from_slice(value.as_bytes());
}

fn message(out: &mut Vec<u8>, field: u32, content: impl FnOnce(&mut Vec<u8>)) {
    tag(out, field, LENGTH_DELIMITED);
    let start = out.len();
    content(out);
    insert_length(out, start);
}

/// Puts the length of what stands from `start` to the end before it.
fn insert_length(out: &mut Vec<u8>, start: usize) {
    let length = out.len() - start;
    let end = out.len();
    varint(out, length as u64);
    let prefix = out.len() - end;
    out[start..].rotate_right(prefix);
}

fn timestamp(out: &mut Vec<u8>, field: u32, unix_seconds: f64) {
    message(out, field, |out| {
        varint_field(out, field::TIMESTAMP_SECONDS, unix_seconds.max(0.0) as u64);
        // To the millisecond, as in the text formats.
        let milliseconds = (unix_seconds.max(0.0).fract() * 1e3).round().min(999.0) as u64;
        varint_field(out, field::TIMESTAMP_NANOS, milliseconds * 1_000_000);
    });
}
