//! The daemon's memory over time, as a picture: plain SVG on a ground of its own.

use std::fmt::Write;
use std::time::Duration;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 220.0;
/// Around the picture, for numbers and title.
const LEFT: f64 = 48.0;
const TOP: f64 = 34.0;
const MARGIN: f64 = 30.0;
const GRID_LINES: u32 = 4;

const GROUND: &str = "#ffffff";
const INK: &str = "#24292f";
const GRID: &str = "#d0d7de";
const LINE: &str = "#0969da";

/// Draws it, from zero upwards.
pub(super) fn draw(samples: &[(Duration, u64)]) -> String {
    let end_minutes = samples.last().map_or(1.0, |(at, _)| at.as_secs_f64() / 60.0).max(f64::MIN_POSITIVE);
    let most = samples.iter().map(|(_, bytes)| *bytes as f64 / 1e6).fold(1.0, f64::max);
    let x = |minutes: f64| LEFT + minutes / end_minutes * WIDTH;
    let y = |megabytes: f64| TOP + HEIGHT * (1.0 - megabytes / most);
    let (whole_width, whole_height) = (LEFT + WIDTH + MARGIN, TOP + HEIGHT + MARGIN);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {whole_width} {whole_height}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"11\" fill=\"{INK}\">\n\
         <title>Resident memory of the daemon under ttmem soak</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"{GROUND}\"/>\n\
         <text x=\"{LEFT}\" y=\"{}\" font-weight=\"600\">resident memory, MB, over minutes</text>\n",
        TOP - 14.0
    );
    for line in 0..=GRID_LINES {
        let share = f64::from(line) / f64::from(GRID_LINES);
        let (minutes, megabytes) = (share * end_minutes, share * most);
        // Writing into a String cannot fail.
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {0:.1}h{WIDTH}\" stroke=\"{GRID}\"/>\
             <text x=\"{1}\" y=\"{2:.1}\" text-anchor=\"end\">{megabytes:.1}</text>\
             <text x=\"{3:.1}\" y=\"{4}\" text-anchor=\"middle\">{minutes:.1}</text>",
            y(megabytes),
            LEFT - 6.0,
            y(megabytes) + 4.0,
            x(minutes),
            TOP + HEIGHT + 16.0,
        );
    }
    let points = samples
        .iter()
        .map(|(at, bytes)| format!("{:.1},{:.1}", x(at.as_secs_f64() / 60.0), y(*bytes as f64 / 1e6)));
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{LINE}\"/>\n</svg>",
        points.collect::<Vec<_>>().join(" ")
    );
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_ends_at_the_right_and_reaches_the_top() {
        let samples = [(Duration::ZERO, 0), (Duration::from_secs(60), 2_000_000)];
        let svg = draw(&samples);
        assert!(svg.contains("points=\"48.0,254.0 768.0,34.0\""), "{svg}");
        assert!(draw(&[]).ends_with("</svg>\n"));
    }
}
