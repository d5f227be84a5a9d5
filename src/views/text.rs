//! Prometheus' text formats and OpenMetrics' from one writer: they differ in a few lines around the same samples.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Bound;

use super::exposition::{ByteFormat, Exposition, FamilyHead, Mark, PIECE_BYTES};
use super::series::Place;
use crate::registry::metrics::{Kind, Value};
use crate::registry::{HistogramSnapshot, Process, Rendering};

/// Which text format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dialect {
    /// Prometheus' own, 0.0.4 and 1.0.0: for names and labels like ours both are the same bytes.
    Prometheus,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

/// Bytes that the longest line of a sample with short labels takes: room for it is made at once.
const LINE_BYTES: usize = 256;
/// Room for a piece: what is aimed at, and what the rows that are written at once go beyond it.
const PIECE_CAPACITY_BYTES: usize = PIECE_BYTES + 8 * 1024;

/// Text on its way out.
pub struct Text {
    dialect: Dialect,
    out: Vec<u8>,
    /// The family's name as its samples begin with it, `_total` left out.
    base: String,
    /// The whole name of a gauge's or a counter's samples, and the brace before their labels.
    head: String,
    kind: Kind,
}

impl Text {
    /// An empty exposition.
    pub fn new(dialect: Dialect) -> Text {
        let (base, head) = (String::new(), String::new());
        Text { dialect, out: Vec::new(), base, head, kind: Kind::Gauge }
    }

    fn push(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    /// A line of one sample, up to its value.
    fn open(&mut self, suffix: &str, labels: &str, more: &[&str]) {
        self.out.extend_from_slice(self.base.as_bytes());
        self.push(suffix);
        if !labels.is_empty() || !more.is_empty() {
            self.push("{");
            self.push(labels);
            for part in more {
                self.push(part);
            }
            self.push("}");
        }
        self.push(" ");
    }

    fn count(&mut self, suffix: &str, labels: &str, more: &[&str], count: u64, mark: Option<&Mark>) {
        self.open(suffix, labels, more);
        self.value(Value::Unsigned(count), mark);
    }

    /// The end of a line: a value, and in OpenMetrics its exemplar.
    fn value(&mut self, value: Value, mark: Option<&Mark>) {
        match value {
            Value::Unsigned(value) => self.push(itoa::Buffer::new().format(value)),
            Value::Signed(value) => self.push(itoa::Buffer::new().format(value)),
            Value::Float(value) => push_float(&mut self.out, value),
        }
        if let (Some(mark), Dialect::OpenMetrics) = (mark, self.dialect) {
            let Mark { trace_id, span_id, value, at_unix_ns } = mark;
            let seconds = *at_unix_ns as f64 / 1e9;
            let ids = format_args!("trace_id=\"{trace_id}\",span_id=\"{span_id}\"");
            // Writing into memory cannot fail.
            let _ = write!(self.out, " # {{{ids}}} {value} {seconds:.3}");
        }
        self.out.push(b'\n');
    }

    fn number(&mut self, labels: &str, value: Value, since: f64, mark: Option<&Mark>) {
        let is_counter = self.kind == Kind::Counter;
        self.open(if is_counter { "_total" } else { "" }, labels, &[]);
        self.value(value, mark);
        if is_counter {
            self.created(labels, since);
        }
    }

    fn created(&mut self, labels: &str, since: f64) {
        if self.dialect == Dialect::OpenMetrics {
            self.open("_created", labels, &[]);
            self.instant(since);
        }
    }

    /// To the millisecond: the instant is the same in every scrape, whatever the arithmetic made of its last digits.
    fn instant(&mut self, unix_seconds: f64) {
        let milliseconds = (unix_seconds.max(0.0) * 1e3).round() as u64;
        self.push(itoa::Buffer::new().format(milliseconds / 1000));
        let digits =
            [milliseconds / 100, milliseconds / 10, milliseconds].map(|digit| b'0' + (digit % 10) as u8);
        self.out.extend_from_slice(&[b'.', digits[0], digits[1], digits[2], b'\n']);
    }
}

impl Exposition for Text {
    type Labels = String;

    fn labels(pairs: &[(&str, &str)]) -> String {
        let mut labels =
            String::with_capacity(pairs.iter().map(|(name, value)| name.len() + value.len() + 4).sum());
        for (index, (name, value)) in pairs.iter().enumerate() {
            if index > 0 {
                labels.push(',');
            }
            labels.push_str(name);
            labels.push_str("=\"");
            escape(value, &mut labels);
            labels.push('"');
        }
        labels
    }

    fn leading_labels(pairs: &[(&str, &str)]) -> Vec<u8> {
        (Text::labels(pairs) + ",").into_bytes()
    }

    fn family(&mut self, head: &FamilyHead<'_>) {
        self.base.clear();
        self.base.push_str(head.name.strip_suffix("_total").unwrap_or(head.name));
        self.kind = head.kind;
        self.head.clear();
        self.head.push_str(&self.base);
        self.head.push_str(if head.kind == Kind::Counter { "_total{" } else { "{" });
        let name = match self.dialect {
            Dialect::Prometheus => head.name,
            Dialect::OpenMetrics => &self.base,
        };
        // Writing into memory cannot fail.
        let _ = writeln!(self.out, "# HELP {name} {}\n# TYPE {name} {}", head.help, head.kind.name());
        if let (Dialect::OpenMetrics, Some(unit)) = (self.dialect, head.unit) {
            let _ = writeln!(self.out, "# UNIT {name} {unit}");
        }
    }

    fn has_created_samples(&self) -> bool {
        self.dialect == Dialect::OpenMetrics
    }

    fn sample(&mut self, labels: &String, value: Value, since: f64) {
        self.number(labels, value, since, None);
    }

    fn process_sample(&mut self, place: Option<&Place<'_>>, process: &Process, value: Value, since: f64) {
        // They end the labels, whatever the dialect.
        let own = process.rendered(Rendering::Text, |process| {
            let pid = process.pid().to_string();
            (Text::labels(&[("pid", &pid), ("process", &process.info().name)]) + "} ").into_bytes()
        });
        let leading = place.map_or(&[][..], |place| place.leading);
        self.out.reserve(LINE_BYTES);
        for part in [self.head.as_bytes(), leading, own] {
            self.out.extend_from_slice(part);
        }
        self.value(value, None);
        if self.kind == Kind::Counter && self.dialect == Dialect::OpenMetrics {
            for part in [self.base.as_bytes(), b"_created{", leading, own] {
                self.out.extend_from_slice(part);
            }
            self.instant(since);
        }
    }

    fn histogram(&mut self, labels: &String, histogram: &HistogramSnapshot, since: f64) {
        self.marked_histogram(labels, histogram, since, &BTreeMap::new());
    }

    fn marked_sample(&mut self, labels: &String, value: Value, since: f64, mark: &Mark) {
        self.number(labels, value, since, Some(mark));
    }

    fn marked_histogram(
        &mut self,
        labels: &String,
        histogram: &HistogramSnapshot,
        since: f64,
        marks: &BTreeMap<i32, Mark>,
    ) {
        let mut below = Bound::Unbounded;
        for ((le, count), exponent) in histogram.classic().zip(histogram.scale().classic_exponents()) {
            let mut bound = le.to_string();
            // OpenMetrics wants a bound to look like a number with a fraction.
            if self.dialect == Dialect::OpenMetrics && !bound.contains('.') {
                bound.push_str(".0");
            }
            let mark = Mark::last_in(marks, (below, Bound::Included(*exponent)));
            self.count("_bucket", labels, &[",le=\"", &bound, "\""], count, mark);
            below = Bound::Excluded(*exponent);
        }
        let mark = Mark::last_in(marks, (below, Bound::Unbounded));
        self.count("_bucket", labels, &[",le=\"+Inf\""], histogram.count(), mark);
        self.open("_sum", labels, &[]);
        self.value(Value::Float(histogram.sum()), None);
        self.count("_count", labels, &[], histogram.count(), None);
        self.created(labels, since);
    }
}

impl ByteFormat for Text {
    fn ready_bytes(&self) -> usize {
        self.out.len()
    }

    fn take(&mut self) -> Vec<u8> {
        // The next piece will be about as long.
        let next = Vec::with_capacity(self.out.capacity().min(PIECE_CAPACITY_BYTES));
        std::mem::replace(&mut self.out, next)
    }

    fn finish(mut self) -> Vec<u8> {
        if self.dialect == Dialect::OpenMetrics {
            self.push("# EOF\n");
        }
        self.out
    }
}

/// A label's value as the formats want it: backslash, quote and line feed escaped. Other control characters are legal there, but no
/// terminal should get them from a process's name.
fn escape(value: &str, out: &mut String) {
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'\\' && byte != b'"';
    if value.bytes().all(is_plain) {
        return out.push_str(value);
    }
    for character in value.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            control if control.is_control() => out.push(char::REPLACEMENT_CHARACTER),
            other => out.push(other),
        }
    }
}

fn push_float(out: &mut Vec<u8>, value: f64) {
    // Writing into memory cannot fail.
    let _ = write!(out, "{value}");
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::registry::{Exemplar, Identity, MemoryType, ProcessInfo, Registry, Source, Time};
    use crate::views::exposition::{Selection, Walk, expose};
    use crate::views::protobuf::Protobuf;

    const NOW: Time = Time { monotonic_ns: 3_000_000_000, unix_ns: 1_700_000_000_000_000_000 };

    fn expose_to(dialect: Dialect, registry: &Registry, names: &[&str], processes_max: usize) -> String {
        let names: HashSet<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut text = Text::new(dialect);
        expose(registry.snapshot(NOW), Selection { names, processes_max }, 0, &mut text);
        String::from_utf8(text.finish()).expect("text")
    }

    fn text(registry: &Registry) -> String {
        expose_to(Dialect::Prometheus, registry, &[], 1000)
    }

    fn allocate(registry: &Registry, pid: u32, name: &str, size_bytes: u64) {
        let owner = registry.process(
            Identity { pid, start_ticks: 1 },
            500_000_000,
            ProcessInfo {
                name: name.into(),
                uid: 0,
                user: "root".into(),
                cgroup: None,
                container: None,
                ns_pid: None,
                slurm: None,
                start_time_seconds: Some(1_699_999_999.5),
                source: Source::Socket,
            },
        );
        registry.batch(&owner, 1_000_000_000).allocate(0, MemoryType::Dram, 1, size_bytes).expect("new");
    }

    fn assert_has(body: &str, lines: &[&str]) {
        for line in lines {
            assert!(body.contains(&format!("{line}\n")), "{line} is missing from:\n{body}");
        }
    }

    #[test]
    fn names_that_processes_give_themselves_cannot_break_the_format() {
        let check = |value: &str, expected: &str| {
            assert_eq!(Text::labels(&[("a", value)]), format!("a=\"{expected}\""));
        };
        check("a\"} 1\nfake{b=\"", "a\\\"} 1\\nfake{b=\\\"");
        check("back\\slash", "back\\\\slash");
        check("\x1b[31mred\0", "\u{fffd}[31mred\u{fffd}");
    }

    #[test]
    fn a_family_without_samples_is_not_mentioned() {
        let registry = Registry::new(0);
        assert!(!text(&registry).contains("ttmem_device"));
        registry.device(3);
        let body = text(&registry);
        assert_has(&body, &["ttmem_device_memory_usage_bytes{device=\"3\",memory_type=\"dram\"} 0"]);
        for absent in ["limit_bytes", "oldest_buffer", "suppressed_memory", "lifetime_seconds"] {
            assert!(!body.contains(absent), "{absent} has no samples");
        }
    }

    #[test]
    fn every_family_of_a_process_is_there() {
        let registry = Registry::new(0);
        allocate(&registry, 42, "llama", 5000);
        assert_has(
            &text(&registry),
            &[
                "# TYPE ttmem_device_allocations_total counter",
                "ttmem_device_memory_usage_bytes{device=\"0\",memory_type=\"dram\"} 5000",
                "ttmem_process_memory_usage_bytes{device=\"0\",memory_type=\"dram\",pid=\"42\",process=\"llama\"} 5000",
                "ttmem_process_info{pid=\"42\",process=\"llama\",user=\"root\",source=\"socket\",k8s_namespace_name=\"\",k8s_pod_name=\"\",k8s_container_name=\"\",k8s_pod_uid=\"\",container_id=\"\",slurm_job_id=\"\",slurm_step_id=\"\"} 1",
                "ttmem_process_start_time_seconds{pid=\"42\",process=\"llama\"} 1699999999.5",
                "ttmem_device_oldest_buffer_timestamp_seconds{device=\"0\",memory_type=\"dram\"} 1699999998",
                "ttmem_buffer_size_bytes_bucket{device=\"0\",memory_type=\"dram\",le=\"4096\"} 0",
                "ttmem_buffer_size_bytes_bucket{device=\"0\",memory_type=\"dram\",le=\"16384\"} 1",
                "ttmem_buffer_size_bytes_sum{device=\"0\",memory_type=\"dram\"} 5000",
                "ttmem_device_processes{device=\"0\"} 1",
                "ttmem_client_connections{transport=\"socket\",layout=\"72\"} 0",
            ],
        );
    }

    #[test]
    fn openmetrics_names_units_and_beginnings() {
        let registry = Registry::new(1_000_000_000);
        allocate(&registry, 42, "llama", 5000);
        let body = expose_to(Dialect::OpenMetrics, &registry, &[], 1000);
        assert_has(
            &body,
            &[
                "# TYPE ttmem_device_allocated_bytes counter",
                "# UNIT ttmem_device_allocated_bytes bytes",
                "ttmem_device_allocated_bytes_total{device=\"0\",memory_type=\"dram\"} 5000",
                "ttmem_device_allocated_bytes_created{device=\"0\",memory_type=\"dram\"} 1699999998.000",
                "ttmem_process_allocated_bytes_created{device=\"0\",memory_type=\"dram\",pid=\"42\",process=\"llama\"} 1699999997.500",
                "ttmem_buffer_size_bytes_bucket{device=\"0\",memory_type=\"dram\",le=\"4096.0\"} 0",
            ],
        );
        assert!(body.ends_with("\n# EOF\n"));
    }

    #[test]
    fn a_buffer_with_a_span_stands_beside_the_bucket_that_it_is_in() {
        let registry = Registry::new(1_000_000_000);
        allocate(&registry, 42, "llama", 5000);
        let exemplar = Exemplar {
            trace_id: [0xab; 16],
            span_id: [0xcd; 8],
            size_bytes: 5000,
            lifetime_ns: 1_500_000_000,
            at_unix_ns: 1_700_000_000_250_000_000,
        };
        registry.exemplify(&[(0, MemoryType::Dram, exemplar)]);
        let ids = format!("trace_id=\"{}\",span_id=\"{}\"", "ab".repeat(16), "cd".repeat(8));
        let place = "device=\"0\",memory_type=\"dram\"";
        let body = expose_to(Dialect::OpenMetrics, &registry, &[], 1000);
        assert_has(
            &body,
            &[
                &format!(
                    "ttmem_buffer_size_bytes_bucket{{{place},le=\"16384.0\"}} 1 # {{{ids}}} 5000 1700000000.250"
                ),
                &format!("ttmem_buffer_size_bytes_bucket{{{place},le=\"65536.0\"}} 1"),
                &format!("ttmem_device_allocations_total{{{place}}} 1 # {{{ids}}} 1 1700000000.250"),
                &format!(
                    "ttmem_device_allocated_bytes_total{{{place}}} 5000 # {{{ids}}} 5000 1700000000.250"
                ),
            ],
        );
        assert_eq!(body.matches(" # {").count(), 3, "nothing has been released");
        assert!(!text(&registry).contains(" # {"), "Prometheus' own format has no place for them");
    }

    #[test]
    fn processes_beyond_the_limit_are_summed_and_the_largest_keep_their_series() {
        let registry = Registry::new(0);
        for pid in 1..=5 {
            allocate(&registry, pid, "model", u64::from(pid) * 1000);
        }
        let body = expose_to(Dialect::Prometheus, &registry, &[], 2);
        assert_has(
            &body,
            &[
                "ttmem_device_memory_usage_bytes{device=\"0\",memory_type=\"dram\"} 15000",
                "ttmem_process_suppressed{device=\"0\"} 3",
                "ttmem_process_suppressed_memory_usage_bytes{device=\"0\",memory_type=\"dram\"} 6000",
            ],
        );
        let own: Vec<_> =
            body.lines().filter(|line| line.starts_with("ttmem_process_memory_usage_bytes{")).collect();
        assert_eq!(own.len(), 2);
        assert!(own[0].ends_with(" 4000") && own[1].ends_with(" 5000"), "{own:?}");
        assert_eq!(body.lines().filter(|line| line.starts_with("ttmem_process_info{")).count(), 2);
    }

    #[test]
    fn only_the_families_asked_for_are_written() {
        let registry = Registry::new(0);
        allocate(&registry, 42, "llama", 5000);
        let body =
            expose_to(Dialect::Prometheus, &registry, &["ttmem_device_processes", "ttmem_nothing"], 1000);
        let samples: Vec<_> = body.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(samples, ["ttmem_device_processes{device=\"0\"} 1"]);
    }

    #[test]
    fn pieces_are_one_exposition() {
        let registry = Registry::new(0);
        for pid in 1..=100 {
            allocate(&registry, pid, "model", u64::from(pid) * 1000);
        }
        fn pieces<E: ByteFormat>(registry: &Registry, mut to: E, until_bytes: usize) -> Vec<Vec<u8>> {
            let selection = Selection { names: HashSet::new(), processes_max: 90 };
            let mut walk = Walk::new(registry.snapshot(NOW), selection, 7);
            let mut pieces = Vec::new();
            while walk.advance(&mut to, until_bytes) {
                pieces.push(to.take());
            }
            pieces.push(to.finish());
            pieces
        }
        for dialect in [Dialect::Prometheus, Dialect::OpenMetrics] {
            let whole = pieces(&registry, Text::new(dialect), usize::MAX);
            let parts = pieces(&registry, Text::new(dialect), 1000);
            assert!(whole.len() == 1 && parts.len() > 10 && parts.iter().all(|part| !part.is_empty()));
            assert_eq!(String::from_utf8(parts.concat()), String::from_utf8(whole.concat()));
        }
        let whole = pieces(&registry, Protobuf::default(), usize::MAX);
        let parts = pieces(&registry, Protobuf::default(), 1000);
        assert!(parts.len() > 5 && parts.concat() == whole.concat());
    }

    #[test]
    fn the_number_of_series_is_the_number_of_samples() {
        let registry = Registry::new(0);
        allocate(&registry, 42, "llama", 5000);
        for dialect in [Dialect::Prometheus, Dialect::OpenMetrics] {
            let body = expose_to(dialect, &registry, &[], 1000);
            let samples = body.lines().filter(|line| !line.starts_with('#')).count() as u64;
            let told = body
                .lines()
                .filter_map(|line| line.strip_prefix("ttmem_series")?.split_once(' ')?.1.parse::<u64>().ok());
            assert_eq!(told.sum::<u64>(), samples, "{dialect:?}");
        }
    }
}
