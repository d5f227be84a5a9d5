//! Readings of a registry that is filled by hand.

use opentelemetry_proto::tonic::common::v1::any_value::Value as Attribute;

use super::*;
use crate::registry::metrics;
use crate::registry::{DeviceInfo, Identity, MemoryType, ProcessInfo, Registry, Source};
use crate::views::exposition::{Selection, expose};

const TOTALS: Choices =
    Choices { has_delta_counters: false, has_delta_histograms: false, has_explicit_bounds: false };
const DIFFERENCES: Choices = Choices { has_delta_counters: true, has_delta_histograms: true, ..TOTALS };
const START_NS: u64 = 1_700_000_000_000_000_000;

/// A reading, so many seconds after the registry's beginning.
fn read(registry: &Registry, choices: Choices, baseline: &Baseline, seconds: u64) -> (Vec<Metric>, Baseline) {
    let monotonic_ns = seconds * 1_000_000_000;
    let snapshot = registry.snapshot(Time { monotonic_ns, unix_ns: START_NS + monotonic_ns });
    let mut readings = Readings::new(&snapshot, choices, baseline);
    let selection = Selection { names: [].into(), processes_max: 1000 };
    expose(snapshot.clone(), selection.clone(), 0, &mut readings);
    readings.finish()
}

fn hold(registry: &Registry, pid: u32, seconds: u64, id: u64, bytes: u64) {
    let info = ProcessInfo::new("model", 1000, "ml", Source::Socket);
    let now_ns = seconds * 1_000_000_000;
    let process = registry.process(Identity { pid, start_ticks: 1 }, now_ns, info);
    registry.batch(&process, now_ns).allocate(0, MemoryType::Dram, id, bytes).expect("new");
}

/// The data points of a metric, of all its messages.
fn numbers(metrics: &[Metric], name: &str) -> Vec<NumberDataPoint> {
    let found = metrics.iter().filter(|metric| metric.name == name);
    let points = found.flat_map(|metric| match &metric.data {
        Some(Data::Gauge(gauge)) => gauge.data_points.clone(),
        Some(Data::Sum(sum)) => sum.data_points.clone(),
        other => panic!("{name}: {other:?}"),
    });
    points.collect()
}

fn attribute(point: &NumberDataPoint, name: &str) -> Option<Attribute> {
    point.attributes.iter().find(|attribute| attribute.key == name)?.value.clone()?.value
}

/// The values of a metric's points in that memory, with the seconds at which each begins.
fn dram(metrics: &[Metric], name: &str) -> Vec<(u64, Number)> {
    let dram = Some(Attribute::StringValue("dram".into()));
    let points = numbers(metrics, name).into_iter();
    let points = points.filter(|point| attribute(point, "tenstorrent.memory.type") == dram);
    let second = |at_ns: u64| at_ns.saturating_sub(START_NS) / 1_000_000_000;
    points.map(|point| (second(point.start_time_unix_nano), point.value.expect("a value"))).collect()
}

#[test]
fn differences_add_up_to_the_total_and_begin_where_the_last_one_ended() {
    let registry = Registry::new(0);
    hold(&registry, 1, 10, 1, 100);
    let (first, baseline) = read(&registry, DIFFERENCES, &Baseline::default(), 20);
    let check = |metrics: &[Metric], name: &str, expected: &[(u64, i64)]| {
        let expected: Vec<_> =
            expected.iter().map(|(since, value)| (*since, Number::AsInt(*value))).collect();
        assert_eq!(dram(metrics, name), expected, "{name}");
    };
    check(&first, "tenstorrent.memory.allocated", &[(0, 100)]);
    check(&first, "tenstorrent.process.memory.allocated", &[(10, 100)]);
    hold(&registry, 1, 25, 2, 7);
    let (second, _) = read(&registry, DIFFERENCES, &baseline, 30);
    check(&second, "tenstorrent.memory.allocated", &[(20, 7)]);
    check(&second, "tenstorrent.process.memory.allocated", &[(20, 7)]);
    // A reading that could not be passed on: the next one is made from the same baseline, and says both.
    hold(&registry, 1, 35, 3, 11);
    let (third, _) = read(&registry, DIFFERENCES, &baseline, 40);
    check(&third, "tenstorrent.memory.allocated", &[(20, 18)]);
    // Gauges, and what goes up and down, are what they are.
    assert_eq!(dram(&third, "hw.gpu.memory.usage")[0].1, Number::AsInt(118));
    let (totals, _) = read(&registry, TOTALS, &baseline, 40);
    check(&totals, "tenstorrent.memory.allocated", &[(0, 118)]);
    check(&totals, "tenstorrent.process.memory.allocated", &[(10, 118)]);
}

#[test]
fn a_process_that_comes_after_another_with_its_pid_begins_anew() {
    let registry = Registry::new(0);
    hold(&registry, 1, 10, 1, 100);
    let (_, baseline) = read(&registry, DIFFERENCES, &Baseline::default(), 20);
    let first = registry.process(
        Identity { pid: 1, start_ticks: 1 },
        20,
        ProcessInfo {
            name: "unused".into(),
            uid: 0,
            user: String::new(),
            cgroup: None,
            container: None,
            ns_pid: None,
            slurm: None,
            start_time_seconds: None,
            source: Source::Socket,
        },
    );
    registry.end(&first, 21_000_000_000);
    let info = first.info().clone();
    let second = registry.process(Identity { pid: 1, start_ticks: 2 }, 25_000_000_000, info);
    registry.batch(&second, 25_000_000_000).allocate(0, MemoryType::Dram, 1, 130).expect("new");
    let (metrics, _) = read(&registry, DIFFERENCES, &baseline, 30);
    assert_eq!(dram(&metrics, "tenstorrent.process.memory.allocated"), [(25, Number::AsInt(130))]);
    assert_eq!(dram(&metrics, "tenstorrent.memory.allocated"), [(20, Number::AsInt(130))]);
}

#[test]
fn a_clock_that_is_set_is_no_new_beginning() {
    let registry = Registry::new(0);
    hold(&registry, 1, 10, 1, 100);
    let (_, baseline) = read(&registry, DIFFERENCES, &Baseline::default(), 20);
    hold(&registry, 1, 25, 2, 7);
    for set_by_seconds in [3600, -3600] {
        let unix_ns = (START_NS + 30_000_000_000).saturating_add_signed(set_by_seconds * 1_000_000_000);
        let snapshot = registry.snapshot(Time { monotonic_ns: 30_000_000_000, unix_ns });
        let mut readings = Readings::new(&snapshot, DIFFERENCES, &baseline);
        expose(snapshot.clone(), Selection { names: [].into(), processes_max: 1000 }, 0, &mut readings);
        let (metrics, _) = readings.finish();
        assert_eq!(dram(&metrics, "tenstorrent.memory.allocated")[0].1, Number::AsInt(7));
        let points = numbers(&metrics, "tenstorrent.memory.allocated");
        assert!(points.iter().all(|point| point.start_time_unix_nano <= point.time_unix_nano));
    }
}

#[test]
fn buckets_that_double_are_those_of_scale_zero() {
    let registry = Registry::new(0);
    for (id, bytes) in [(1, 4096), (2, 4097), (3, 5000), (4, 1 << 20)] {
        hold(&registry, 1, 10, id, bytes);
    }
    let (metrics, _) = read(&registry, TOTALS, &Baseline::default(), 20);
    let metric = metrics.iter().find(|metric| metric.name == "tenstorrent.buffer.size").expect("it is there");
    let Some(Data::ExponentialHistogram(histogram)) = &metric.data else { panic!("{metric:?}") };
    let point = &histogram.data_points[0];
    let buckets = point.positive.as_ref().expect("buckets");
    // Bucket n holds what is above 2^n and not above 2^(n+1).
    assert_eq!((point.scale, buckets.offset, point.count, point.sum), (0, 11, 4, Some(1_061_769.0)));
    assert_eq!(buckets.bucket_counts, [1, 2, 0, 0, 0, 0, 0, 0, 1]);

    let (metrics, _) =
        read(&registry, Choices { has_explicit_bounds: true, ..TOTALS }, &Baseline::default(), 20);
    let metric = metrics.iter().find(|metric| metric.name == "tenstorrent.buffer.size").expect("it is there");
    let Some(Data::Histogram(histogram)) = &metric.data else { panic!("{metric:?}") };
    let point = &histogram.data_points[0];
    assert_eq!(point.explicit_bounds.len() + 1, point.bucket_counts.len());
    assert_eq!(point.explicit_bounds[..2], [4096.0, 16384.0]);
    assert_eq!(point.bucket_counts, [1, 2, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn differences_of_histograms_hold_only_what_is_new() {
    let registry = Registry::new(0);
    hold(&registry, 1, 10, 1, 4096);
    let (_, baseline) = read(&registry, DIFFERENCES, &Baseline::default(), 20);
    hold(&registry, 1, 21, 2, 64);
    let (metrics, _) = read(&registry, DIFFERENCES, &baseline, 30);
    let metric = metrics.iter().find(|metric| metric.name == "tenstorrent.buffer.size").expect("it is there");
    let Some(Data::ExponentialHistogram(histogram)) = &metric.data else { panic!("{metric:?}") };
    assert_eq!(histogram.aggregation_temporality, i32::from(AggregationTemporality::Delta));
    let point = &histogram.data_points[0];
    assert_eq!((point.count, point.sum), (1, Some(64.0)));
    assert_eq!(point.start_time_unix_nano, START_NS + 20_000_000_000);
}

#[test]
fn attributes_follow_the_conventions() {
    let registry = Registry::new(0);
    registry.device(0).update_info(|info| {
        *info = DeviceInfo { dram_bytes: Some(400), board: Some("n150".into()), ..DeviceInfo::default() };
    });
    hold(&registry, 77, 10, 1, 100);
    let (metrics, _) = read(&registry, TOTALS, &Baseline::default(), 20);
    let text = |text: &str| Some(Attribute::StringValue(text.into()));
    let point = &numbers(&metrics, "tenstorrent.process.memory.usage")[0];
    assert_eq!(attribute(point, "hw.id"), text("0"));
    assert_eq!(attribute(point, "hw.type"), text("gpu"));
    assert_eq!(attribute(point, "tenstorrent.memory.type"), text("dram"));
    assert_eq!(attribute(point, "process.pid"), Some(Attribute::IntValue(77)));
    assert_eq!(attribute(point, "process.executable.name"), text("model"));
    assert_eq!(attribute(&numbers(&metrics, "tenstorrent.process.info")[0], "process.owner"), text("ml"));
    let info = &numbers(&metrics, "tenstorrent.device.info")[0];
    assert_eq!(
        (attribute(info, "hw.model"), attribute(info, "hw.vendor")),
        (text("n150"), text("Tenstorrent"))
    );
    assert_eq!(attribute(info, "hw.serial_number"), None, "what is not known is not said");
    assert_eq!(dram(&metrics, "hw.gpu.memory.utilization")[0].1, Number::AsDouble(0.25));
    assert_eq!(dram(&metrics, "hw.gpu.memory.limit")[0].1, Number::AsInt(400));
}

#[test]
fn messages_are_cut_between_data_points() {
    let registry = Registry::new(0);
    for pid in 1..=1000 {
        hold(&registry, pid, 10, 1, 1);
    }
    hold(&registry, 1001, 10, 1, 1);
    let monotonic_ns = 20_000_000_000;
    let snapshot = registry.snapshot(Time { monotonic_ns, unix_ns: START_NS });
    let baseline = Baseline::default();
    let mut readings = Readings::new(&snapshot, TOTALS, &baseline);
    let selection = Selection { names: [].into(), processes_max: 2000 };
    expose(snapshot.clone(), selection.clone(), 0, &mut readings);
    let (metrics, _) = readings.finish();
    let sizes: Vec<usize> = metrics
        .iter()
        .filter(|metric| metric.name == "tenstorrent.process.memory.usage")
        .map(points)
        .collect();
    assert_eq!(sizes, [1000, 1]);
}

#[test]
fn exemplars_name_their_spans_and_belong_to_their_time() {
    let registry = Registry::new(0);
    hold(&registry, 1, 10, 1, 100);
    let (_, baseline) = read(&registry, DIFFERENCES, &Baseline::default(), 20);
    let snapshot =
        registry.snapshot(Time { monotonic_ns: 30_000_000_000, unix_ns: START_NS + 30_000_000_000 });
    let memory = &snapshot.devices[0].memory[0];
    let sizes = &memory.reported.as_ref().expect("reported").sizes;
    let mark = |seconds: u64| Mark {
        trace_id: "0102030405060708090a0b0c0d0e0fff".into(),
        span_id: "00000000000000fe".into(),
        value: 100.0,
        at_unix_ns: START_NS + seconds * 1_000_000_000,
    };
    let metric = metrics::metric("ttmem_buffer_size_bytes").expect("a row");
    for (choices, kept) in [(TOTALS, 2), (DIFFERENCES, 1)] {
        let mut readings = Readings::new(&snapshot, choices, &baseline);
        readings.family(&FamilyHead::new(metric.name, metric.help, metric.kind));
        let labels = Readings::labels(&[("device", "0"), ("memory_type", "dram")]);
        readings.marked_histogram(
            &labels,
            sizes,
            START_NS as f64 / 1e9,
            &[(7, mark(15)), (8, mark(25))].into(),
        );
        let (metrics, _) = readings.finish();
        let Some(Data::ExponentialHistogram(histogram)) = &metrics[metrics.len() - 1].data else {
            panic!("{metrics:?}")
        };
        let exemplars = &histogram.data_points[0].exemplars;
        assert_eq!(exemplars.len(), kept, "{choices:?}");
        let last = &exemplars[kept - 1];
        assert_eq!((last.trace_id.len(), last.trace_id[15], last.span_id[7]), (16, 0xff, 0xfe));
        assert_eq!(last.value, Some(ExemplarValue::AsDouble(100.0)));
    }
}
