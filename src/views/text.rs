//! Prometheus' text formats and OpenMetrics' from one writer: they differ in a few lines around the same samples.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::Bound;

use super::exposition::{Exposition, FamilyHead, Mark};
use crate::registry::HistogramSnapshot;
use crate::registry::metrics::{Kind, Value};

/// Which text format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dialect {
    /// Prometheus' own, 0.0.4 and 1.0.0: for names and labels like ours both are the same bytes.
    Prometheus,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

/// Text on its way out.
pub struct Text {
    dialect: Dialect,
    out: String,
    /// The family's name as its samples begin with it, `_total` left out.
    base: String,
    kind: Kind,
}

impl Text {
    /// An empty exposition, with room for so many bytes.
    pub fn new(dialect: Dialect, capacity: usize) -> Text {
        Text { dialect, out: String::with_capacity(capacity), base: String::new(), kind: Kind::Gauge }
    }

    /// The whole text.
    pub fn finish(mut self) -> Vec<u8> {
        if self.dialect == Dialect::OpenMetrics {
            self.out.push_str("# EOF\n");
        }
        self.out.into_bytes()
    }

    /// A line of one sample, up to its value.
    fn open(&mut self, suffix: &str, labels: &str, more: &[&str]) {
        self.out.push_str(&self.base);
        self.out.push_str(suffix);
        if !labels.is_empty() || !more.is_empty() {
            self.out.push('{');
            self.out.push_str(labels);
            for part in more {
                self.out.push_str(part);
            }
            self.out.push('}');
        }
        self.out.push(' ');
    }

    fn count(&mut self, suffix: &str, labels: &str, more: &[&str], count: u64, mark: Option<&Mark>) {
        self.open(suffix, labels, more);
        self.value(Value::Unsigned(count), mark);
    }

    /// The end of a line: a value, and in OpenMetrics its exemplar.
    fn value(&mut self, value: Value, mark: Option<&Mark>) {
        match value {
            Value::Unsigned(value) => self.out.push_str(itoa::Buffer::new().format(value)),
            Value::Signed(value) => self.out.push_str(itoa::Buffer::new().format(value)),
            Value::Float(value) => push_float(&mut self.out, value),
        }
        if let (Some(mark), Dialect::OpenMetrics) = (mark, self.dialect) {
            let Mark { trace_id, span_id, value, at_unix_ns } = mark;
            let seconds = *at_unix_ns as f64 / 1e9;
            let ids = format_args!("trace_id=\"{trace_id}\",span_id=\"{span_id}\"");
            // Writing into a String cannot fail.
            let _ = write!(self.out, " # {{{ids}}} {value} {seconds:.3}");
        }
        self.out.push('\n');
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
            // To the millisecond: the instant is the same in every scrape, whatever the arithmetic made of its last digits.
            let _ = writeln!(self.out, "{since:.3}");
        }
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

    fn family(&mut self, head: &FamilyHead<'_>) {
        self.base.clear();
        self.base.push_str(head.name.strip_suffix("_total").unwrap_or(head.name));
        self.kind = head.kind;
        let name = match self.dialect {
            Dialect::Prometheus => head.name,
            Dialect::OpenMetrics => &self.base,
        };
        // Writing into a String cannot fail.
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
        let mut bound = String::new();
        let mut below = Bound::Unbounded;
        for ((le, count), exponent) in histogram.classic().zip(histogram.scale().classic_exponents()) {
            bound.clear();
            push_float(&mut bound, le);
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

/// A label's value as the formats want it: backslash, quote and line feed escaped. Other control characters are legal there, but no
/// terminal should get them from a process's name.
fn escape(value: &str, out: &mut String) {
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

fn push_float(out: &mut String, value: f64) {
    // Writing into a String cannot fail.
    let _ = write!(out, "{value}");
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::registry::{Exemplar, Identity, MemoryType, ProcessInfo, Registry, Source, Time};
    use crate::views::exposition::{Selection, expose};

    const NOW: Time = Time { monotonic_ns: 3_000_000_000, unix_ns: 1_700_000_000_000_000_000 };

    fn expose_to(dialect: Dialect, registry: &Registry, names: &[&str], processes_max: usize) -> String {
        let names: HashSet<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut text = Text::new(dialect, 0);
        expose(&registry.snapshot(NOW), &Selection { names, processes_max }, 0, &mut text);
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
                "ttmem_process_info{pid=\"42\",process=\"llama\",user=\"root\",source=\"socket\",k8s_namespace_name=\"\",k8s_pod_name=\"\",k8s_container_name=\"\",k8s_pod_uid=\"\",container_id=\"\"} 1",
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
