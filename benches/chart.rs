//! How cost grows, as a picture: one column for each row that has sizes, one line of panels for each of its figures. Plain SVG, whose text
//! can be searched, on a ground of its own, so that it is read on any page.

use std::fmt::Write;

use super::report::{Report, readable};

/// What is drawn of a row, from top to bottom, and what the axis says.
const FIGURES: [(&str, &str); 3] = [
    ("cpu_seconds_per_million", "processor time of a report, µs"),
    ("scrape_ms", "a scrape of all of it, ms"),
    ("resident_mb", "resident memory, MB"),
];

const PANEL_WIDTH: f64 = 250.0;
const PANEL_HEIGHT: f64 = 150.0;
/// Around each panel, for its numbers and titles.
const LEFT: f64 = 62.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 38.0;

const GROUND: &str = "#ffffff";
const INK: &str = "#24292f";
const GRID: &str = "#d0d7de";
const LINE: &str = "#0969da";

/// The picture.
pub(super) fn draw(reports: &[Report]) -> String {
    let columns: Vec<&Report> = reports.iter().filter(|report| !report.sizes.is_empty()).collect();
    let width = columns.len() as f64 * (LEFT + PANEL_WIDTH + RIGHT);
    let height = FIGURES.len() as f64 * (TOP + PANEL_HEIGHT + BOTTOM);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"11\" fill=\"{INK}\">\n\
         <title>How cost grows</title>\n<rect width=\"100%\" height=\"100%\" fill=\"{GROUND}\"/>\n"
    );
    for (column, report) in columns.iter().enumerate() {
        for (line, (name, title)) in FIGURES.iter().enumerate() {
            let x = column as f64 * (LEFT + PANEL_WIDTH + RIGHT) + LEFT;
            let y = line as f64 * (TOP + PANEL_HEIGHT + BOTTOM) + TOP;
            let points: Vec<(f64, f64)> = report
                .sizes
                .iter()
                .zip(&report.subjects)
                .filter_map(|(size, subject)| Some((*size as f64, subject.figure(name)?)))
                .collect();
            panel(&mut svg, (x, y), title, report.grows_by(), &points);
        }
    }
    svg.push_str("</svg>\n");
    svg
}

/// One panel with its upper left corner at a place.
fn panel(svg: &mut String, (left, top): (f64, f64), title: &str, grows_by: &str, points: &[(f64, f64)]) {
    let across = Axis::around(points.iter().map(|point| point.0));
    let up = Axis::around(points.iter().map(|point| point.1));
    let x = |value: f64| left + across.share(value) * PANEL_WIDTH;
    let y = |value: f64| top + PANEL_HEIGHT - up.share(value) * PANEL_HEIGHT;
    // Writing into a String cannot fail.
    let _ = writeln!(svg, "<text x=\"{left}\" y=\"{}\" font-weight=\"600\">{title}</text>", top - 10.0);
    for mark in across.marks() {
        let x = x(mark);
        let _ = writeln!(
            svg,
            "<path d=\"M{x:.1} {top}v{PANEL_HEIGHT}\" stroke=\"{GRID}\"/>\
             <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            top + PANEL_HEIGHT + 14.0,
            short(mark),
        );
    }
    for mark in up.marks() {
        let y = y(mark);
        let _ = writeln!(
            svg,
            "<path d=\"M{left} {y:.1}h{PANEL_WIDTH}\" stroke=\"{GRID}\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            left - 6.0,
            y + 4.0,
            short(mark),
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{grows_by}</text>",
        left + PANEL_WIDTH / 2.0,
        top + PANEL_HEIGHT + 29.0,
    );
    let path: Vec<String> =
        points.iter().map(|point| format!("{:.1},{:.1}", x(point.0), y(point.1))).collect();
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{LINE}\" stroke-width=\"2\"/>",
        path.join(" ")
    );
    // The ends in figures; what lies between tells its own when it is pointed at.
    for (point, anchor) in points
        .first()
        .map(|first| (first, "start"))
        .into_iter()
        .chain(points.last().map(|last| (last, "end")))
    {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\" fill=\"{LINE}\">{}</text>",
            x(point.0),
            y(point.1) - 7.0,
            readable(point.1),
        );
    }
    for (size, value) in points {
        let _ = writeln!(
            svg,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{LINE}\"><title>{}: {value:.3}</title></circle>",
            x(*size),
            y(*value),
            short(*size),
        );
    }
}

/// A logarithmic axis from one power of ten to another.
struct Axis {
    first: i32,
    last: i32,
}

impl Axis {
    fn around(values: impl Iterator<Item = f64>) -> Axis {
        let (lowest, highest) = values
            .filter(|value| *value > 0.0)
            .fold((f64::MAX, f64::MIN_POSITIVE), |(low, high), value| (low.min(value), high.max(value)));
        let first = lowest.log10().floor().max(-9.0) as i32;
        Axis { first, last: (highest.log10().ceil() as i32).max(first + 1) }
    }

    /// Where a value lies, from 0 to 1.
    fn share(&self, value: f64) -> f64 {
        let place = value.max(f64::MIN_POSITIVE).log10() - f64::from(self.first);
        (place / f64::from(self.last - self.first)).clamp(0.0, 1.0)
    }

    fn marks(&self) -> impl Iterator<Item = f64> {
        (self.first..=self.last).map(|exponent| 10_f64.powi(exponent))
    }
}

/// A power of ten in few characters.
fn short(value: f64) -> String {
    match value {
        1e9.. => format!("{}G", value / 1e9),
        1e6.. => format!("{}M", value / 1e6),
        1e3.. => format!("{}k", value / 1e3),
        // The shortest decimal of a power that was multiplied together may have many digits.
        _ => format!("{}", (value * 1e6).round() / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_goes_from_power_to_power() {
        let axis = Axis::around([0.03, 2.0, 70.0].into_iter());
        assert_eq!((axis.first, axis.last), (-2, 2));
        assert_eq!((axis.share(0.01), axis.share(1.0), axis.share(100.0)), (0.0, 0.5, 1.0));
        assert_eq!(axis.marks().map(short).collect::<Vec<_>>(), ["0.01", "0.1", "1", "10", "100"]);
    }

    #[test]
    fn an_axis_around_one_value_has_a_length() {
        let axis = Axis::around([10.0].into_iter());
        assert_eq!((axis.first, axis.last), (1, 2));
    }
}
